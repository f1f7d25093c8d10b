package consumer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func decodeAll(t *testing.T, d *Decoder, raw []byte, from int64, aborted ...AbortedTransaction) (values []string, next int64, err error) {
	t.Helper()
	d.Reset(raw, from, aborted)
	var b Batch
	for more := true; more; {
		more, err = d.Next(&b)
		for _, r := range b.Records {
			values = append(values, string(r.Value))
		}
		next = b.Next
	}
	return values, next, err
}

func TestEveryFieldOfARecordInEveryCodec(t *testing.T) {
	for codec := range uint16(5) {
		t.Run(fmt.Sprint("codec ", codec), func(t *testing.T) {
			raw := rawBatch{base: 100, values: []string{"a", strings.Repeat("long", 200), "c"}, codec: codec, time: 1_700_000_000_000}.encode()
			d := NewDecoder(DecoderConfig{})
			for range 2 { // the second round reuses everything
				var b Batch
				d.Reset(raw, 100, nil)
				more, err := d.Next(&b)
				if more || err != nil || b.First != 100 || b.Next != 103 || len(b.Records) != 3 {
					t.Fatalf("more %t, %v, batch [%d,%d) with %d records", more, err, b.First, b.Next, len(b.Records))
				}
				r := b.Records[2]
				if r.Offset != 102 || r.Timestamp != 1_700_000_000_002 || string(r.Key) != "kc" || string(r.Value) != "c" ||
					r.HeaderCount != 1 || string(r.Headers) != "\x02h\x02x" {
					t.Errorf("record %+v", r)
				}
				if len(b.Records[1].Value) != 800 {
					t.Errorf("value of %d bytes", len(b.Records[1].Value))
				}
			}
		})
	}
}

func TestNullIsNotEmptyAndAppendTimeWins(t *testing.T) {
	raw := rawBatch{values: []string{"", "b"}, nullKeys: true, time: 50, attributes: attributeLogAppendTime}.encode()
	var b Batch
	d := NewDecoder(DecoderConfig{})
	d.Reset(raw, 0, nil)
	if _, err := d.Next(&b); err != nil {
		t.Fatal(err)
	}
	if r := b.Records[0]; r.Key != nil || r.Value == nil || r.Timestamp != 51 {
		t.Errorf("record %+v: want a null key, an empty value and the batch's maximum timestamp", r)
	}
}

func TestPositionMovesOverWhatIsNotShown(t *testing.T) {
	const p, q = 7, 8
	txn := uint16(attributeTransactional)
	batch := func(base, producer int64, attributes uint16, values ...string) []byte {
		return rawBatch{base: base, producer: producer, attributes: attributes, values: values}.encode()
	}
	cut := func(raw []byte, n int) []byte { return raw[:len(raw)-n] }
	cases := []struct {
		name    string
		raw     [][]byte
		from    int64
		aborted []AbortedTransaction
		want    string
		next    int64
	}{
		{"nothing", nil, 5, nil, "", 5},
		{"a batch that began before", [][]byte{batch(0, 0, 0, "a", "b", "c")}, 1, nil, "b c", 3},
		{"a compacted gap inside and at the end", [][]byte{rawBatch{base: 10, values: []string{"a", "b"}, offsets: []int64{11, 15}, last: 19}.encode()}, 10, nil, "a b", 20},
		{"a batch that compaction emptied", [][]byte{rawBatch{base: 3, last: 9}.encode()}, 3, nil, "", 10},
		{"a gap between batches", [][]byte{batch(0, 0, 0, "a"), batch(8, 0, 0, "b")}, 0, nil, "a b", 9},
		{"a cut tail", [][]byte{batch(0, 0, 0, "a"), cut(batch(1, 0, 0, "b"), 3)}, 0, nil, "a", 1},
		{"a tail cut in its length", [][]byte{batch(0, 0, 0, "a"), batch(1, 0, 0, "b")[:9]}, 0, nil, "a", 1},
		{"a trailing commit marker", [][]byte{batch(0, p, txn, "a"), marker(1, p, 1)}, 0, nil, "a", 2},
		{
			"an aborted transaction between two producers",
			[][]byte{batch(0, p, txn, "x"), batch(1, q, txn, "a"), batch(2, 0, 0, "b"), marker(3, p, 0), marker(4, q, 1), batch(5, p, txn, "c")},
			0,
			[]AbortedTransaction{{p, 0}},
			"a b c", 6,
		},
		{
			"aborted transactions listed in the order of their abort",
			[][]byte{batch(0, p, txn, "x"), batch(1, q, txn, "y"), marker(2, q, 0), batch(3, q, txn, "a"), marker(4, p, 0), batch(5, p, txn, "b")},
			0,
			[]AbortedTransaction{{q, 1}, {p, 0}},
			"a b", 6,
		},
		{
			"the same producer aborts twice",
			[][]byte{batch(0, p, txn, "x"), marker(1, p, 0), batch(2, p, txn, "a"), marker(3, p, 1), batch(4, p, txn, "y"), marker(5, p, 0)},
			0,
			[]AbortedTransaction{{p, 4}, {p, 0}},
			"a", 6,
		},
		{
			"an aborted producer's records outside transactions",
			[][]byte{batch(0, p, txn, "x"), batch(1, p, 0, "a"), marker(2, p, 0)},
			0,
			[]AbortedTransaction{{p, 0}},
			"a", 3,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := NewDecoder(DecoderConfig{Isolation: ReadCommitted})
			values, next, err := decodeAll(t, d, slices.Concat(c.raw...), c.from, slices.Clone(c.aborted)...)
			if got := strings.Join(values, " "); err != nil || got != c.want || next != c.next {
				t.Errorf("%q up to %d (%v), want %q up to %d", got, next, err, c.want, c.next)
			}
		})
	}
}

func TestReadUncommittedShowsAbortedButNoControlRecords(t *testing.T) {
	raw := slices.Concat(rawBatch{producer: 7, attributes: attributeTransactional, values: []string{"x"}}.encode(), marker(1, 7, 0))
	values, next, err := decodeAll(t, NewDecoder(DecoderConfig{}), raw, 0, AbortedTransaction{7, 0})
	if err != nil || len(values) != 1 || next != 2 {
		t.Errorf("%q up to %d, %v", values, next, err)
	}
}

func TestCorruptBatchesAreNamedAfterWhatPrecedesThem(t *testing.T) {
	good := rawBatch{values: []string{"a"}}.encode()
	bad := func(change func([]byte) []byte) []byte {
		return change(rawBatch{base: 1, values: []string{"b", "c"}}.encode())
	}
	set := func(at int, v byte) func([]byte) []byte {
		return func(b []byte) []byte { b[at] = v; return b }
	}
	cases := map[string][]byte{
		"checksum":           bad(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }),
		"format v1":          bad(set(atMagic, 1)),
		"length":             bad(set(atLength, 0xff)),
		"6000000 records":    rawBatch{base: 1}.frame(make([]byte, 100), 6_000_000, 1),
		"negative":           rawBatch{base: 1}.frame(make([]byte, 100), -1, 1),
		"lengths contradict": rawBatch{base: 1}.frame(slices.Repeat([]byte{0x7e}, 20), 1, 1),
		"after the last":     rawBatch{base: 1}.frame([]byte{14, 0, 0, 20, 1, 1, 0, 0}, 1, 1),
		"before the one":     rawBatch{base: 0, values: []string{"old"}}.encode(),
	}
	for want, raw := range cases {
		t.Run(want, func(t *testing.T) {
			values, next, err := decodeAll(t, NewDecoder(DecoderConfig{}), slices.Concat(good, raw), 0)
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "offset 1") {
				t.Errorf("error %v", err)
			}
			if len(values) != 1 || next != 1 {
				t.Errorf("%q up to %d came before it", values, next)
			}
		})
	}
}

func TestDecompressionIsBounded(t *testing.T) {
	large := rawBatch{values: []string{strings.Repeat("0", 300_000)}}
	for codec := uint16(1); codec <= 4; codec++ {
		large.codec = codec
		_, _, err := decodeAll(t, NewDecoder(DecoderConfig{MaxBatchBytes: 100_000}), large.encode(), 0)
		if !errors.Is(err, ErrBatchTooLarge) {
			t.Errorf("codec %d: %v", codec, err)
		}
		if values, _, err := decodeAll(t, NewDecoder(DecoderConfig{MaxBatchBytes: 700_000}), large.encode(), 0); err != nil || len(values) != 1 {
			t.Errorf("codec %d within the limit: %v", codec, err)
		}
		raw := rawBatch{attributes: codec}.frame([]byte("this is not compressed at all, whatever the header says"), 3, 2)
		if _, _, err := decodeAll(t, NewDecoder(DecoderConfig{}), raw, 0); !errors.Is(err, ErrCorrupt) {
			t.Errorf("codec %d on plain bytes: %v", codec, err)
		}
	}
	raw := rawBatch{attributes: 7}.frame([]byte("x"), 1, 0)
	if _, _, err := decodeAll(t, NewDecoder(DecoderConfig{}), raw, 0); !errors.Is(err, ErrCorrupt) {
		t.Errorf("unknown codec: %v", err)
	}
}

// The blocks of librdkafka's frames refer to what stands before them; those of Java and Go do not.
func TestLZ4FramesOfEveryForm(t *testing.T) {
	block := func(size uint32, b ...byte) []byte { return append(binary.LittleEndian.AppendUint32(nil, size), b...) }
	header := func(flags byte, more ...byte) []byte {
		return slices.Concat([]byte{0x04, 0x22, 0x4d, 0x18, lz4Version | flags, 4 << 4}, more, []byte{0})
	}
	plain := block(lz4Plain|16, []byte("0123456789abcdef")...)
	back := []byte{0x04, 16, 0, 0x50, 'A', 'B', 'C', 'D', 'E'} // 8 bytes from 16 before, then 5 literal ones
	end := make([]byte, 4)
	cases := []struct {
		name string
		src  []byte
		want string // empty: corrupt
	}{
		{"linked blocks", slices.Concat(header(0), plain, block(9, back...), end), "0123456789abcdef01234567ABCDE"},
		{"a reference across independent blocks", slices.Concat(header(lz4Independent), plain, block(9, back...), end), ""},
		{"a reference into the frame before", slices.Concat(header(0), plain, end, header(0), block(9, back...), end), ""},
		{"two frames", slices.Concat(header(lz4Independent), plain, end, header(lz4Independent), plain, end), "0123456789abcdef0123456789abcdef"},
		{"sizes and checksums", slices.Concat(header(lz4ContentSize|lz4BlockChecksum|lz4ContentChecksum, 16, 0, 0, 0, 0, 0, 0, 0), plain, end, end, end), "0123456789abcdef"},
		{"no end mark", slices.Concat(header(0), plain), ""},
		{"a block that is cut off", slices.Concat(header(0), plain[:10]), ""},
		{"a missing checksum", slices.Concat(header(lz4ContentChecksum), plain, end), ""},
		{"a dictionary", slices.Concat(header(lz4Dictionary), plain, end), ""},
		{"a header that is cut off", header(lz4ContentSize), ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := decompressor{limit: 1 << 20}
			out, err := d.append([]byte("before "), 3, c.src)
			if c.want == "" {
				if !errors.Is(err, ErrCorrupt) {
					t.Errorf("%q, %v", out, err)
				}
				return
			}
			if err != nil || string(out) != "before "+c.want {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
}

func TestLimitsCutAPieceIntoBatchesWithoutLosingRecords(t *testing.T) {
	var raw []byte
	var want []string
	for i := range 10 {
		b := rawBatch{base: int64(10 * i), codec: 4}
		for j := range 10 {
			b.values = append(b.values, fmt.Sprintf("value-%03d", 10*i+j))
		}
		raw = append(raw, b.encode()...)
		want = append(want, b.values...)
	}
	for _, cfg := range []DecoderConfig{{MaxRecords: 7}, {MaxRecords: 10}, {MaxBytes: 1}, {MaxBytes: 500, MaxRecords: 33}, {}} {
		d := NewDecoder(cfg)
		d.Reset(raw, 0, nil)
		var got []string
		var b Batch
		position := int64(0)
		for more := true; more; {
			var err error
			if more, err = d.Next(&b); err != nil {
				t.Fatal(err)
			}
			if b.First != position || b.Next != b.First+int64(len(b.Records)) {
				t.Fatalf("batch [%d,%d) of %d records after %d", b.First, b.Next, len(b.Records), position)
			}
			if cfg.MaxRecords > 0 && len(b.Records) > cfg.MaxRecords {
				t.Fatalf("%d records", len(b.Records))
			}
			position = b.Next
			for _, r := range b.Records {
				got = append(got, string(r.Value))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %d records of %d", cfg, len(got), len(want))
		}
	}
}

func TestDecodingAllocatesNothingInTheSteadyState(t *testing.T) {
	for codec := range uint16(5) {
		limit := 0.0
		if codec == 1 || codec >= 3 { // the libraries' own pools lose a thing now and then: per batch, not per record
			limit = 10
		}
		raw := largeBatch(codec)
		d := NewDecoder(DecoderConfig{Isolation: ReadCommitted})
		var b Batch
		decode := func() {
			d.Reset(raw, 0, nil)
			if _, err := d.Next(&b); err != nil || len(b.Records) != 1000 {
				t.Fatal(err, len(b.Records))
			}
		}
		decode()
		if n := testing.AllocsPerRun(50, decode); n > limit {
			t.Errorf("codec %d: %v allocations for 1,000 records", codec, n)
		}
	}
}

func largeBatch(codec uint16) []byte {
	b := rawBatch{codec: codec}
	for i := range 1000 {
		b.values = append(b.values, fmt.Sprintf("%0150d", i))
	}
	return b.encode()
}

func TestScanFindsTheEndOfTheLastCompleteBatch(t *testing.T) {
	one := rawBatch{values: []string{"a", "b"}}.encode()
	two := rawBatch{base: 2, values: []string{"c"}}.encode()
	raw := slices.Concat(one, two)
	if e := scan(raw, 0); e != (extent{complete: len(raw), next: 3, epoch: -1, largest: len(one)}) {
		t.Errorf("%+v", e)
	}
	if e := scan(raw[:len(raw)-1], 0); e.complete != len(one) || e.next != 2 || e.largest != len(one) {
		t.Errorf("with a cut tail: %+v", e)
	}
	if e := scan(one[:20], 0); e != (extent{next: 0, epoch: -1, largest: len(one)}) {
		t.Errorf("with nothing complete: %+v", e)
	}
}

func BenchmarkDecoder(b *testing.B) {
	for codec, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		b.Run(name, func(b *testing.B) {
			raw := largeBatch(uint16(codec))
			d := NewDecoder(DecoderConfig{Isolation: ReadCommitted})
			var batch Batch
			b.ReportAllocs()
			for b.Loop() {
				d.Reset(raw, 0, nil)
				if _, err := d.Next(&batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*1000), "ns/record")
		})
	}
}
