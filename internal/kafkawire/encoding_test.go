package kafkawire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestPrimitivesRoundTrip(t *testing.T) {
	for _, flexible := range []bool{false, true} {
		w := Writer{Flexible: flexible}
		w.Int8(-3)
		w.Int16(-300)
		w.Int32(-70_000)
		w.Int64(-1 << 40)
		w.Bool(true)
		w.Bool(false)
		w.String("")
		w.String("zürich")
		w.NullableString("")
		w.NullableString("x")
		w.Bytes([]byte{1, 2})
		w.Bytes(nil)
		w.NullableBytes(nil)
		w.NullableBytes([]byte{})
		w.ArrayLen(-1)
		w.Int32s([]int32{7, -7})
		w.Raw([]byte{9})
		w.Tags()

		r := Reader{B: w.B, Flexible: flexible}
		got := []any{r.Int8(), r.Int16(), r.Int32(), r.Int64(), r.Bool(), r.Bool(), r.String(), r.String()}
		want := []any{int8(-3), int16(-300), int32(-70_000), int64(-1 << 40), true, false, "", "zürich"}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("flexible=%t: value %d is %v, want %v", flexible, i, got[i], want[i])
			}
		}
		if b := r.StringBytes(); b != nil {
			t.Errorf("flexible=%t: a null string reads as %q", flexible, b)
		}
		if s := r.NullableString(); s != "x" {
			t.Errorf("flexible=%t: string %q", flexible, s)
		}
		if b := r.Bytes(); !bytes.Equal(b, []byte{1, 2}) {
			t.Errorf("flexible=%t: bytes %v", flexible, b)
		}
		if b := r.Bytes(); len(b) != 0 {
			t.Errorf("flexible=%t: empty bytes read as %v", flexible, b)
		}
		if b := r.NullableBytes(); b != nil {
			t.Errorf("flexible=%t: null bytes read as %v", flexible, b)
		}
		if b := r.NullableBytes(); b == nil || len(b) != 0 {
			t.Errorf("flexible=%t: empty bytes read as null", flexible)
		}
		if n := r.ArrayLen(); n != -1 {
			t.Errorf("flexible=%t: null array has length %d", flexible, n)
		}
		if v := r.Int32s(); len(v) != 2 || v[0] != 7 || v[1] != -7 {
			t.Errorf("flexible=%t: int32s %v", flexible, v)
		}
		if b := r.Raw(1); len(b) != 1 || b[0] != 9 {
			t.Errorf("flexible=%t: raw %v", flexible, b)
		}
		r.Tags()
		if r.Err() != nil || len(r.B) != 0 {
			t.Errorf("flexible=%t: %v with %d bytes left", flexible, r.Err(), len(r.B))
		}
	}
}

func TestStringBeyondTheProtocolsLimitKeepsTheMessageReadable(t *testing.T) {
	var w Writer
	w.String(strings.Repeat("x", 70_000))
	w.Int32(42)
	r := Reader{B: w.B}
	if s := r.String(); len(s) != 32767 {
		t.Errorf("string of %d bytes", len(s))
	}
	if v := r.Int32(); v != 42 || r.Err() != nil {
		t.Errorf("the field after it is %d (%v)", v, r.Err())
	}
}

func TestImpossibleLengthsAreErrorsAndStick(t *testing.T) {
	cases := []struct {
		name     string
		flexible bool
		in       []byte
		read     func(*Reader)
	}{
		{"short int64", false, []byte{1, 2, 3}, func(r *Reader) { r.Int64() }},
		{"array above the bytes left", false, []byte{0, 0, 0, 9, 1}, func(r *Reader) { r.ArrayLen() }},
		{"negative array below null", false, []byte{0xff, 0xff, 0xff, 0xfe}, func(r *Reader) { r.ArrayLen() }},
		{"compact array of 2^40", true, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x40}, func(r *Reader) { r.ArrayLen() }},
		{"unending varint", true, bytes.Repeat([]byte{0xff}, 11), func(r *Reader) { r.Uvarint() }},
		{"string above the bytes left", false, []byte{0, 5, 'a'}, func(r *Reader) { r.StringBytes() }},
		{"int32s that fit as bytes only", false, []byte{0, 0, 0, 4, 1, 2, 3, 4}, func(r *Reader) { r.Int32s() }},
		{"tag above the bytes left", true, []byte{1, 0, 200, 1}, func(r *Reader) { r.Tags() }},
		{"negative raw", false, []byte{1}, func(r *Reader) { r.Raw(-1) }},
		{"empty varint", true, nil, func(r *Reader) { r.ArrayLen() }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := Reader{B: c.in, Flexible: c.flexible}
			c.read(&r)
			if !errors.Is(r.Err(), ErrMalformed) {
				t.Fatalf("error %v", r.Err())
			}
			if r.Int8() != 0 || r.Int16() != 0 || r.StringBytes() != nil || !errors.Is(r.Err(), ErrMalformed) {
				t.Error("a read after the error returned something")
			}
		})
	}
}

func TestTagsAreSkippedOrHandedOut(t *testing.T) {
	in := []byte{2, 0, 1, 7, 5, 2, 8, 9, 42}
	r := Reader{B: in, Flexible: true}
	r.Tags()
	if v := r.Int8(); v != 42 || r.Err() != nil {
		t.Errorf("after the tags: %d, %v", v, r.Err())
	}
	r = Reader{B: in, Flexible: true}
	seen := map[uint64]int{}
	r.EachTag(func(tag uint64, field *Reader) { seen[tag] = len(field.B) })
	if seen[0] != 1 || seen[5] != 2 {
		t.Errorf("tags %v", seen)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0}, true)
	f.Add([]byte{9, 1, 2, 3}, false)
	f.Fuzz(func(t *testing.T, in []byte, flexible bool) {
		r := Reader{B: in, Flexible: flexible}
		for r.Err() == nil && len(r.B) > 0 {
			before := len(r.B)
			if v := r.Int32s(); len(v)*4 > before {
				t.Fatalf("%d numbers out of %d bytes", len(v), before)
			}
			r.StringBytes()
			r.NullableBytes()
			r.EachTag(func(_ uint64, field *Reader) { field.Int64() })
			r.Int8()
		}
	})
}
