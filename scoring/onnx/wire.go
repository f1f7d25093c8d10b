package onnx

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of onnx.proto are read from their bytes, field by field, by the numbers that the
// format fixes: onnx.proto of ONNX 1.23 (Apache-2.0). A message is a part of the file; nothing is
// copied until it is used.

// field is one field of a message.
type field struct {
	number int
	kind   protowire.Type
	bytes  []byte // of a message, text or packed list
	value  uint64 // of a number
}

// fields calls do with each field of a message.
func fields(message []byte, do func(field) error) error {
	for at := 0; at < len(message); {
		number, kind, n := protowire.ConsumeTag(message[at:])
		if n < 0 {
			return fmt.Errorf("byte %d: %w", at, protowire.ParseError(n))
		}
		f := field{number: int(number), kind: kind}
		at += n
		switch kind {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(message[at:])
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(message[at:])
			f.value = uint64(x)
		case protowire.Fixed64Type:
			f.value, n = protowire.ConsumeFixed64(message[at:])
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(message[at:])
		default:
			return fmt.Errorf("byte %d: field %d has the wire type %d, which ONNX does not use", at, number, kind)
		}
		if n < 0 {
			return fmt.Errorf("byte %d: field %d: %w", at, number, protowire.ParseError(n))
		}
		at += n
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

// appendInts adds the integers of a repeated field, packed or not.
func (f *field) appendInts(to []int64) ([]int64, error) {
	if f.kind == protowire.VarintType {
		return append(to, int64(f.value)), nil
	}
	for b := f.bytes; len(b) > 0; {
		x, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, fmt.Errorf("field %d: %w", f.number, protowire.ParseError(n))
		}
		to = append(to, int64(x))
		b = b[n:]
	}
	return to, nil
}

// appendFloats adds the numbers of a repeated field of float, packed or not.
func (f *field) appendFloats(to []float64) ([]float64, error) {
	if f.kind == protowire.Fixed32Type {
		return append(to, float64(math.Float32frombits(uint32(f.value)))), nil
	}
	if len(f.bytes)%4 != 0 {
		return nil, fmt.Errorf("field %d: %d bytes of float32", f.number, len(f.bytes))
	}
	for b := f.bytes; len(b) > 0; b = b[4:] {
		to = append(to, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
	}
	return to, nil
}

// appendDoubles adds the numbers of a repeated field of double, packed or not.
func (f *field) appendDoubles(to []float64) ([]float64, error) {
	if f.kind == protowire.Fixed64Type {
		return append(to, math.Float64frombits(f.value)), nil
	}
	if len(f.bytes)%8 != 0 {
		return nil, fmt.Errorf("field %d: %d bytes of float64", f.number, len(f.bytes))
	}
	for b := f.bytes; len(b) > 0; b = b[8:] {
		to = append(to, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
	return to, nil
}
