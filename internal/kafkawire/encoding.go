// Package kafkawire takes Kafka requests that the caller encodes itself and returns the
// broker's answers for the caller to decode; connections, TLS and SASL stay kafka-go's.
//
// It exists because kafka-go has no message, an outdated version or a wrong one for several
// requests that group membership, fetching and transactions depend on: its Heartbeat reads the
// throttle time as the error code, its JoinGroup stops at v7 and its Produce at v8, and it asks
// for the coordinator before every single group or transaction request.
package kafkawire

import (
	"encoding/binary"
	"errors"
	"math"
)

// ErrMalformed says that a response ended early or holds a length that its own size refutes.
var ErrMalformed = errors.New("malformed Kafka response")

// Writer appends Kafka's primitive types to B. Flexible selects the compact forms of the flexible
// request versions (KIP-482); it is set by Client.Do from Request.FlexibleFrom.
type Writer struct {
	B        []byte
	Flexible bool
}

// Int8 appends one byte.
func (w *Writer) Int8(v int8) { w.B = append(w.B, byte(v)) }

// Int16 appends v big-endian.
func (w *Writer) Int16(v int16) { w.B = binary.BigEndian.AppendUint16(w.B, uint16(v)) }

// Int32 appends v big-endian.
func (w *Writer) Int32(v int32) { w.B = binary.BigEndian.AppendUint32(w.B, uint32(v)) }

// Int64 appends v big-endian.
func (w *Writer) Int64(v int64) { w.B = binary.BigEndian.AppendUint64(w.B, uint64(v)) }

// Bool appends one byte, 0 or 1.
func (w *Writer) Bool(v bool) {
	if v {
		w.B = append(w.B, 1)
		return
	}
	w.B = append(w.B, 0)
}

// Uvarint appends an unsigned varint.
func (w *Writer) Uvarint(v uint64) { w.B = binary.AppendUvarint(w.B, v) }

// String appends a string; a non-flexible one longer than 32,767 bytes is cut there, which no
// name that a broker accepts reaches.
func (w *Writer) String(s string) {
	if w.Flexible {
		w.Uvarint(uint64(len(s)) + 1)
	} else {
		s = s[:min(len(s), math.MaxInt16)]
		w.Int16(int16(len(s)))
	}
	w.B = append(w.B, s...)
}

// NullableString appends s, or null for the empty string.
func (w *Writer) NullableString(s string) {
	switch {
	case s != "":
		w.String(s)
	case w.Flexible:
		w.B = append(w.B, 0)
	default:
		w.Int16(-1)
	}
}

// Bytes appends a byte field; nil is the empty field, not null.
func (w *Writer) Bytes(b []byte) {
	w.ArrayLen(len(b))
	w.B = append(w.B, b...)
}

// NullableBytes appends a byte field, or null for nil.
func (w *Writer) NullableBytes(b []byte) {
	if b == nil {
		w.ArrayLen(-1)
		return
	}
	w.Bytes(b)
}

// ArrayLen appends the count of an array or the length of a byte field; -1 is null.
func (w *Writer) ArrayLen(n int) {
	if w.Flexible {
		w.Uvarint(uint64(n + 1))
		return
	}
	w.Int32(int32(n))
}

// Int32s appends an array of int32.
func (w *Writer) Int32s(v []int32) {
	w.ArrayLen(len(v))
	for _, x := range v {
		w.Int32(x)
	}
}

// Raw appends b as it is.
func (w *Writer) Raw(b []byte) { w.B = append(w.B, b...) }

// Tags ends a structure without tagged fields; it writes nothing in a non-flexible version.
func (w *Writer) Tags() {
	if w.Flexible {
		w.B = append(w.B, 0)
	}
}

// Reader takes Kafka's primitive types off B. The first short read or impossible length makes Err
// non-nil, empties B, and every later read returns a zero value, so that a decoder checks once.
// Loops over a count must also stop on Err.
type Reader struct {
	B        []byte
	Flexible bool

	malformed bool
}

// Err is ErrMalformed once a read has failed.
func (r *Reader) Err() error {
	if r.malformed {
		return ErrMalformed
	}
	return nil
}

// Fail marks the response as malformed.
func (r *Reader) Fail() { r.malformed, r.B = true, nil }

// Raw takes n bytes; they alias the response.
func (r *Reader) Raw(n int) []byte {
	if n < 0 || n > len(r.B) {
		r.Fail()
		return nil
	}
	b := r.B[:n:n]
	r.B = r.B[n:]
	return b
}

// Int8 takes one byte.
func (r *Reader) Int8() int8 {
	if b := r.Raw(1); b != nil {
		return int8(b[0])
	}
	return 0
}

// Int16 takes a big-endian int16.
func (r *Reader) Int16() int16 {
	if b := r.Raw(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

// Int32 takes a big-endian int32.
func (r *Reader) Int32() int32 {
	if b := r.Raw(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

// Int64 takes a big-endian int64.
func (r *Reader) Int64() int64 {
	if b := r.Raw(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// Bool takes one byte; every value but 0 is true.
func (r *Reader) Bool() bool { return r.Int8() != 0 }

// Uvarint takes an unsigned varint.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.B)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.B = r.B[n:]
	return v
}

// String takes a string; null reads as empty.
func (r *Reader) String() string { return string(r.StringBytes()) }

// NullableString is String under the name of the field's type.
func (r *Reader) NullableString() string { return r.String() }

// StringBytes takes a string without copying it; null reads as nil.
func (r *Reader) StringBytes() []byte {
	if r.Flexible {
		return r.lengthPrefixed()
	}
	n := r.Int16()
	if n < 0 {
		return nil
	}
	return r.Raw(int(n))
}

// Bytes takes a byte field; null and empty are both of length 0. The bytes alias the response.
func (r *Reader) Bytes() []byte { return r.lengthPrefixed() }

// NullableBytes takes a byte field and tells null (nil) from empty (not nil).
func (r *Reader) NullableBytes() []byte {
	n := r.ArrayLen()
	if n < 0 {
		return nil
	}
	return r.Raw(n)
}

func (r *Reader) lengthPrefixed() []byte {
	n := r.ArrayLen()
	if n <= 0 {
		return nil
	}
	return r.Raw(n)
}

// ArrayLen takes the count of an array or the length of a byte field; null is -1. Every element
// takes at least one byte, so a count above the bytes left is an error: nothing is allocated for it.
func (r *Reader) ArrayLen() int {
	var n int64
	if r.Flexible {
		u := r.Uvarint()
		if u > math.MaxInt32 {
			r.Fail()
			return 0
		}
		n = int64(u) - 1
		if r.malformed {
			return 0
		}
	} else {
		n = int64(r.Int32())
	}
	if n < -1 || n > int64(len(r.B)) {
		r.Fail()
		return 0
	}
	return int(n)
}

// Int32s takes an array of int32.
func (r *Reader) Int32s() []int32 {
	n := r.ArrayLen()
	if n <= 0 || n > len(r.B)/4 {
		if n > 0 {
			r.Fail()
		}
		return nil
	}
	v := make([]int32, n)
	for i := range v {
		v[i] = r.Int32()
	}
	return v
}

// Tags skips the tagged fields that end a structure; it reads nothing in a non-flexible version.
func (r *Reader) Tags() { r.EachTag(nil) }

// EachTag calls fn, which may be nil, with every tagged field that ends a structure.
func (r *Reader) EachTag(fn func(tag uint64, field *Reader)) {
	if !r.Flexible {
		return
	}
	for n := r.Uvarint(); n > 0 && !r.malformed; n-- {
		tag, size := r.Uvarint(), r.Uvarint()
		if size > uint64(len(r.B)) {
			r.Fail()
			return
		}
		body := r.Raw(int(size))
		if fn == nil {
			continue
		}
		field := Reader{B: body, Flexible: true}
		fn(tag, &field)
		if field.malformed {
			r.Fail()
		}
	}
}
