package producer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/segmentio/kafka-go/protocol"
	"pgregory.net/rapid"
)

// readBatch reads an encoded batch with kafka-go's own reader.
func readBatch(t rapid.TB, encoded []byte) (protocol.Attributes, []Record) {
	t.Helper()
	framed := binary.BigEndian.AppendUint32(nil, uint32(len(encoded)))
	framed = append(framed, encoded...)
	var set protocol.RecordSet
	if _, err := set.ReadFrom(bytes.NewReader(framed)); err != nil {
		t.Fatalf("kafka-go refuses the batch: %v", err)
	}
	var out []Record
	for {
		r, err := set.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return set.Attributes, out
		}
		if err != nil {
			t.Fatalf("kafka-go refuses record %d: %v", len(out), err)
		}
		if r.Offset != int64(len(out)) {
			t.Fatalf("record %d has offset %d", len(out), r.Offset)
		}
		got := Record{Timestamp: r.Time.UnixMilli(), Key: readNullable(t, r.Key), Value: readNullable(t, r.Value)}
		for _, h := range r.Headers {
			got.Headers = append(got.Headers, Header{Key: h.Key, Value: h.Value})
		}
		out = append(out, got)
	}
}

func readNullable(t rapid.TB, b protocol.Bytes) []byte {
	t.Helper()
	if b == nil {
		return nil
	}
	p, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	if p == nil {
		p = []byte{}
	}
	return p
}

func sameBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func sameRecord(a, b Record) error {
	if a.Timestamp != b.Timestamp {
		return fmt.Errorf("timestamp %d, want %d", a.Timestamp, b.Timestamp)
	}
	if !sameBytes(a.Key, b.Key) {
		return fmt.Errorf("key %q, want %q", a.Key, b.Key)
	}
	if !sameBytes(a.Value, b.Value) {
		return fmt.Errorf("value %q, want %q", a.Value, b.Value)
	}
	if len(a.Headers) != len(b.Headers) {
		return fmt.Errorf("%d headers, want %d", len(a.Headers), len(b.Headers))
	}
	for i := range a.Headers {
		if a.Headers[i].Key != b.Headers[i].Key || !bytes.Equal(a.Headers[i].Value, b.Headers[i].Value) {
			return fmt.Errorf("header %d is %v, want %v", i, a.Headers[i], b.Headers[i])
		}
	}
	return nil
}

func drawNullable(t *rapid.T, label string) []byte {
	if rapid.Bool().Draw(t, label+" is null") {
		return nil
	}
	return rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, label)
}

// drawRecord draws times of any order and distance: deltas are negative as often as not, and take all their bytes.
func drawRecord(t *rapid.T) Record {
	r := Record{
		Timestamp: rapid.Int64Range(0, 1<<60).Draw(t, "timestamp") >> rapid.IntRange(0, 59).Draw(t, "shift"),
		Key:       drawNullable(t, "key"),
		Value:     drawNullable(t, "value"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "headers") {
		r.Headers = append(r.Headers, Header{Key: rapid.StringN(0, 20, 80).Draw(t, "header key"), Value: drawNullable(t, "header value")})
	}
	return r
}

func TestJoinedBatchIsTheOneOfAllRecords(t *testing.T) {
	t.Parallel()
	for codec := None; codec <= Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			t.Parallel()
			compressor, err := NewCompressor(codec)
			if err != nil {
				t.Fatal(err)
			}
			finish := func(t *rapid.T, b *RecordBatch) []byte {
				if err := b.Compress(compressor); err != nil {
					t.Fatal(err)
				}
				encoded, err := b.Finish(ProducerIdentity{ID: 4711, Epoch: 3}, 99, true)
				if err != nil {
					t.Fatal(err)
				}
				return encoded
			}
			rapid.Check(t, func(t *rapid.T) {
				var joined, all RecordBatch
				for range rapid.IntRange(1, 5).Draw(t, "batches") {
					var part RecordBatch
					for range rapid.IntRange(1, 20).Draw(t, "records") {
						r := drawRecord(t)
						part.Append(&r)
						all.Append(&r)
					}
					limit := joined.sizeJoined(&part)
					joined.join(&part)
					if joined.Size() > limit {
						t.Fatalf("%d bytes, sizeJoined said at most %d", joined.Size(), limit)
					}
				}
				if joined.Len() != all.Len() || joined.Size() != all.Size() {
					t.Fatalf("%d records of %d bytes, want %d of %d", joined.Len(), joined.Size(), all.Len(), all.Size())
				}
				if !bytes.Equal(finish(t, &joined), finish(t, &all)) {
					t.Fatal("the encodings differ")
				}
			})
		})
	}
}

// FuzzJoin joins two batches of records made of any bytes.
func FuzzJoin(f *testing.F) {
	f.Add([]byte("key"), []byte("value"), int64(1_700_000_000_000), int64(5), uint8(3), uint8(70))
	f.Add([]byte{}, []byte(nil), int64(1)<<62, -int64(1)<<61, uint8(1), uint8(200))
	f.Fuzz(func(t *testing.T, key, value []byte, first, step int64, n, m uint8) {
		var joined, part, all RecordBatch
		for i := range int(n) + int(m) {
			r := Record{Timestamp: first + int64(i)*step, Key: key, Value: value[:len(value)*(i%3)/2]}
			all.Append(&r)
			if i < int(n) {
				joined.Append(&r)
			} else {
				part.Append(&r)
			}
		}
		if m == 0 {
			return
		}
		limit := joined.sizeJoined(&part)
		joined.join(&part)
		if joined.Size() > limit || joined.count != all.count || joined.maxTime != all.maxTime || !bytes.Equal(joined.plain, all.plain) {
			t.Fatalf("%d and %d records are not joined as they are appended", n, m)
		}
	})
}

func TestRecordBatchIsReadBackByKafkaGoWithEveryCodec(t *testing.T) {
	t.Parallel()
	for codec := None; codec <= Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			t.Parallel()
			compressor, err := NewCompressor(codec)
			if err != nil {
				t.Fatal(err)
			}
			var batch RecordBatch // one batch and one compressor for all draws: nothing of an earlier draw may remain
			rapid.Check(t, func(t *rapid.T) {
				batch.Reset()
				want := make([]Record, rapid.IntRange(1, 40).Draw(t, "records"))
				for i := range want {
					want[i] = Record{
						Timestamp: rapid.Int64Range(0, 1<<42).Draw(t, "timestamp"),
						Key:       drawNullable(t, "key"),
						Value:     drawNullable(t, "value"),
					}
					for range rapid.IntRange(0, 3).Draw(t, "headers") {
						want[i].Headers = append(want[i].Headers, Header{
							Key:   rapid.StringN(0, 20, 80).Draw(t, "header key"),
							Value: drawNullable(t, "header value"),
						})
					}
					expected := batch.SizeWith(&want[i])
					batch.Append(&want[i])
					if batch.Size() != expected {
						t.Fatalf("SizeWith said %d, Append made %d", expected, batch.Size())
					}
				}
				if err := batch.Compress(compressor); err != nil {
					t.Fatal(err)
				}
				encoded, err := batch.Finish(ProducerIdentity{ID: 4711, Epoch: 3}, 99, true)
				if err != nil {
					t.Fatal(err)
				}
				attributes, got := readBatch(t, encoded)
				if attributes&protocol.Transactional == 0 {
					t.Fatal("the transactional bit is not set")
				}
				if len(got) != len(want) {
					t.Fatalf("%d records, want %d", len(got), len(want))
				}
				for i := range got {
					if err := sameRecord(got[i], want[i]); err != nil {
						t.Fatalf("record %d: %v", i, err)
					}
				}
			})
		})
	}
}

func TestRecordBatchCompressesWhatIsCompressible(t *testing.T) {
	t.Parallel()
	for codec := Gzip; codec <= Zstd; codec++ {
		compressor, err := NewCompressor(codec)
		if err != nil {
			t.Fatal(err)
		}
		var batch RecordBatch
		const n = 5000 // more than one block of every codec
		for i := range n {
			batch.Append(&Record{Timestamp: int64(i), Key: fmt.Appendf(nil, "customer-%d", i), Value: bytes.Repeat([]byte{byte(i)}, 60)})
		}
		plain := batch.Size()
		if err := batch.Compress(compressor); err != nil {
			t.Fatal(err)
		}
		encoded, err := batch.Finish(ProducerIdentity{ID: 1}, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		if len(encoded) > plain/2 {
			t.Errorf("%v: %d bytes of %d", codec, len(encoded), plain)
		}
		attributes, got := readBatch(t, encoded)
		if Compression(attributes&7) != codec || attributes&protocol.Transactional != 0 {
			t.Errorf("%v: attributes %016b", codec, attributes)
		}
		if len(got) != n {
			t.Errorf("%v: %d records, want %d", codec, len(got), n)
		}
	}
}

func TestRecordBatchCarriesProducerIdentityAndSequence(t *testing.T) {
	t.Parallel()
	var batch RecordBatch
	batch.Append(&Record{Timestamp: 2000, Value: []byte("a")})
	batch.Append(&Record{Timestamp: 1000, Value: []byte("b")})
	h, err := batch.Finish(ProducerIdentity{ID: 1 << 40, Epoch: 7}, 123456, true)
	if err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	for _, field := range []struct {
		name      string
		got, want uint64
	}{
		{"producer id", be.Uint64(h[43:]), 1 << 40},
		{"producer epoch", uint64(be.Uint16(h[51:])), 7},
		{"base sequence", uint64(be.Uint32(h[53:])), 123456},
		{"records", uint64(be.Uint32(h[57:])), 2},
		{"last offset delta", uint64(be.Uint32(h[23:])), 1},
		{"first timestamp", be.Uint64(h[27:]), 2000},
		{"max timestamp", be.Uint64(h[35:]), 2000},
	} {
		if field.got != field.want {
			t.Errorf("%s is %d, want %d", field.name, field.got, field.want)
		}
	}
}

func TestRecordBatchTakesRawHeadersBeforeItsOwn(t *testing.T) {
	t.Parallel()
	raw := []byte{2 * 3, 'o', 'l', 'd', 2 * 1, 'x', 2 * 1, 'n', 1} // old=x, n=null
	var batch RecordBatch
	batch.Append(&Record{Value: []byte("v"), RawHeaders: raw, RawHeaderCount: 2, Headers: []Header{{Key: "new", Value: []byte("y")}}})
	encoded, err := batch.Finish(ProducerIdentity{ID: -1, Epoch: -1}, -1, false)
	if err != nil {
		t.Fatal(err)
	}
	_, got := readBatch(t, encoded)
	want := Record{Value: []byte("v"), Headers: []Header{{"old", []byte("x")}, {"n", nil}, {"new", []byte("y")}}}
	if err := sameRecord(got[0], want); err != nil {
		t.Fatal(err)
	}
}

func TestRecordBatchWithoutRecordsIsRefused(t *testing.T) {
	t.Parallel()
	var batch RecordBatch
	if _, err := batch.Finish(ProducerIdentity{}, 0, false); err == nil {
		t.Fatal("an empty batch was finished")
	}
}

func TestCompressionNamesRoundTrip(t *testing.T) {
	t.Parallel()
	for codec := None; codec <= Zstd; codec++ {
		text, err := codec.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Compression
		if err := back.UnmarshalText(text); err != nil || back != codec {
			t.Errorf("%s became %v, %v", text, back, err)
		}
	}
	var c Compression
	if err := c.UnmarshalText([]byte("brotli")); err == nil {
		t.Error("brotli was accepted")
	}
	if _, err := NewCompressor(Zstd + 1); err == nil {
		t.Error("an unknown codec was accepted")
	}
}

func BenchmarkRecordBatch(b *testing.B) {
	key, value := []byte("customer-0001234"), bytes.Repeat([]byte("score0123456789 "), 9)
	for codec := None; codec <= Zstd; codec++ {
		b.Run(codec.String(), func(b *testing.B) {
			compressor, err := NewCompressor(codec)
			if err != nil {
				b.Fatal(err)
			}
			const records = 6000 // about 1 MiB
			var batch RecordBatch
			var wire int
			encode := func() {
				batch.Reset()
				for i := range records {
					r := Record{Timestamp: 1_700_000_000_000 + int64(i), Key: key, Value: value}
					batch.Append(&r)
				}
				if err := batch.Compress(compressor); err != nil {
					b.Fatal(err)
				}
				encoded, err := batch.Finish(ProducerIdentity{ID: 1}, 0, true)
				if err != nil {
					b.Fatal(err)
				}
				wire = len(encoded)
			}
			encode()
			b.ReportAllocs()
			b.SetBytes(int64(batch.Size()))
			for b.Loop() {
				encode()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
			b.ReportMetric(float64(wire)/records, "wire-B/record")
		})
	}
}
