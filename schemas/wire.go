package schemas

import (
	"encoding/binary"
	"fmt"
	"math"
)

func appendLong(dst []byte, v int64) []byte {
	return binary.AppendVarint(dst, v) // Avro's zig-zag is the same as Go's
}

func appendDouble(dst []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
}

func appendString[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(appendLong(dst, int64(len(s))), s...)
}

func appendStrings(dst []byte, list []string) []byte {
	if len(list) > 0 {
		dst = appendLong(dst, int64(len(list)))
		for _, s := range list {
			dst = appendString(dst, s)
		}
	}
	return append(dst, 0)
}

// appendDecision writes the enum churn.v1.Decision.
func appendDecision(dst []byte, churn bool) []byte {
	if churn {
		return appendLong(dst, 1)
	}
	return appendLong(dst, 0)
}

// wireReader reads the fields of one published record in order. After the first error every read gives a zero value,
// so that a caller checks once, with finish.
type wireReader struct {
	b   []byte
	err error
}

func (r *wireReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

const (
	errTruncated   = constError("the bytes end inside a value")
	errVarint      = constError("a number is longer than 64 bits")
	errInt         = constError("an int is longer than 32 bits")
	errLength      = constError("a length is negative")
	errUnsigned    = constError("a count is negative or longer than 32 bits")
	errBlock       = constError("a block of an array has an impossible count or size")
	errEnumIndex   = constError("an enum index is out of range")
	errGroupNumber = constError("groups has not exactly 64 numbers")
)

func (r *wireReader) long() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		if n == 0 {
			r.fail(errTruncated)
		} else {
			r.fail(errVarint)
		}
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *wireReader) int() int32 {
	v := r.long()
	if v != int64(int32(v)) {
		r.fail(errInt)
		return 0
	}
	return int32(v)
}

func (r *wireReader) count32() uint32 {
	v := r.long()
	if v != int64(uint32(v)) {
		r.fail(errUnsigned)
		return 0
	}
	return uint32(v)
}

func (r *wireReader) double() float64 {
	if len(r.b) < 8 {
		r.fail(errTruncated)
		return 0
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(r.b))
	r.b = r.b[8:]
	return v
}

// bytes aliases the input.
func (r *wireReader) bytes() []byte {
	n := r.long()
	switch {
	case n < 0:
		r.fail(errLength)
		return nil
	case n > int64(len(r.b)):
		r.fail(errTruncated)
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// string keeps *s where it already has the value, so that reading one topic again and again does not allocate.
func (r *wireReader) string(s *string) {
	if b := r.bytes(); *s != string(b) {
		*s = string(b)
	}
}

// decision reads the enum churn.v1.Decision.
func (r *wireReader) decision() (churn bool) {
	index := r.long()
	if index != 0 && index != 1 {
		r.fail(errEnumIndex)
	}
	return index == 1
}

// block returns the count of the next block of an array, 0 after the last. Every element takes at least one byte
// in the published schemas, so a count above the bytes left is refused before anything is allocated for it.
func (r *wireReader) block() int {
	n := r.long()
	if n < 0 {
		if size := r.long(); size < 0 || size > int64(len(r.b)) || n == math.MinInt64 {
			r.fail(errBlock)
			return 0
		}
		n = -n
	}
	if n > int64(len(r.b)) {
		r.fail(errBlock)
		return 0
	}
	return int(n)
}

// extend returns list with one more element, reusing what an earlier decode left in its capacity.
func extend[T any](list []T) []T {
	if len(list) < cap(list) {
		return list[:len(list)+1]
	}
	var zero T
	return append(list, zero)
}

func (r *wireReader) strings(list []string) []string {
	list = list[:0]
	for n := r.block(); n > 0; n = r.block() {
		for ; n > 0 && r.err == nil; n-- {
			list = extend(list)
			r.string(&list[len(list)-1])
		}
	}
	return list
}

func (r *wireReader) counts(list []uint32) []uint32 {
	list = list[:0]
	for n := r.block(); n > 0; n = r.block() {
		for ; n > 0 && r.err == nil; n-- {
			list = append(list, r.count32())
		}
	}
	return list
}

// more says whether another field follows. Schemas grow at their end, so what an older one wrote ends before it.
func (r *wireReader) more() bool { return r.err == nil && len(r.b) > 0 }

// finish reports the first error, or bytes that are left over. The class tells which.
func (r *wireReader) finish(record string) error {
	class, err := Malformed, r.err
	switch {
	case err == nil && len(r.b) == 0:
		return nil
	case err == nil:
		class, err = TrailingBytes, fmt.Errorf("%d bytes are left over", len(r.b))
	case err == errTruncated: //nolint:errorlint // set by this file only, never wrapped
		class = Truncated
	}
	return &RecordError{Class: class, Err: fmt.Errorf("decode %s: %w", record, err)}
}
