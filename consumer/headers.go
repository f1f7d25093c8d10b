package consumer

import (
	"encoding/binary"
	"iter"
)

// EachHeader gives names and values of the record's headers in their order, as slices of the batch's memory; a nil value
// is null. It ends early where the encoding contradicts itself.
func (r *Record) EachHeader() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		rest := r.Headers
		for range r.HeaderCount {
			name, value, after, ok := readHeader(rest)
			if !ok || !yield(name, value) {
				return
			}
			rest = after
		}
	}
}

// WithoutHeaders appends the encoding of all headers but those whose name drop says to dst and gives their number.
func (r *Record) WithoutHeaders(dst []byte, drop func(name []byte) bool) (headers []byte, count int) {
	rest := r.Headers
	for range r.HeaderCount {
		name, _, after, ok := readHeader(rest)
		if !ok {
			break
		}
		if !drop(name) {
			dst, count = append(dst, rest[:len(rest)-len(after)]...), count+1
		}
		rest = after
	}
	return dst, count
}

func readHeader(b []byte) (name, value, rest []byte, ok bool) {
	if name, b, ok = readBytes(b); !ok || name == nil {
		return nil, nil, nil, false
	}
	value, b, ok = readBytes(b)
	return name, value, b, ok
}

// AppendHeader appends one header in the encoding of Record.Headers; a nil value is null.
func AppendHeader(dst []byte, name string, value []byte) []byte {
	dst = binary.AppendVarint(dst, int64(len(name)))
	dst = append(dst, name...)
	if value == nil {
		return binary.AppendVarint(dst, -1)
	}
	dst = binary.AppendVarint(dst, int64(len(value)))
	return append(dst, value...)
}
