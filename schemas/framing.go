package schemas

import (
	"encoding/binary"
	"fmt"
)

// Framing says how an event names the schema that it was written with.
type Framing uint8

// The framings. The zero Framing is Confluent's.
const (
	// Confluent is a zero byte, the schema's id in the registry as big-endian int32, the body.
	Confluent Framing = iota
	// SingleObject is the Avro specification's single-object encoding: bytes C3 01, the CRC-64-AVRO fingerprint of the
	// schema in little-endian order, the body.
	SingleObject
	// Bare is the body alone, written with a schema that is configured.
	Bare
)

var framingNames = [...]string{Confluent: "confluent", SingleObject: "single-object", Bare: "bare"}

// String returns the name used in configuration.
func (f Framing) String() string {
	if int(f) >= len(framingNames) {
		return fmt.Sprintf("framing(%d)", uint8(f))
	}
	return framingNames[f]
}

// UnmarshalText reads a framing's name.
func (f *Framing) UnmarshalText(text []byte) error {
	for i, name := range framingNames {
		if name == string(text) {
			*f = Framing(i)
			return nil
		}
	}
	return fmt.Errorf("framing %q is unknown: use confluent, single-object or bare", text)
}

const (
	// frameSize is the Confluent wire format's header: a zero byte and the schema id.
	frameSize = 5
	// objectFrameSize is the header of single-object encoding: the marker and a fingerprint.
	objectFrameSize = 10
)

// objectMarker begins single-object encoding of version 1.
const objectMarker = "\xc3\x01"

// AppendFrame appends the Confluent wire format's header for schemaID: a zero byte and the id in big-endian order.
// The Avro body follows it.
func AppendFrame(dst []byte, schemaID int32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0), uint32(schemaID))
}

// AppendObjectFrame appends the header of single-object encoding for a schema with this CRC-64-AVRO fingerprint.
func AppendObjectFrame(dst []byte, fingerprint uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(dst, objectMarker...), fingerprint)
}

// SplitFrame takes the Confluent wire format apart. The error is a *[RecordError]: empty_value, bad_magic or truncated.
func SplitFrame(value []byte) (schemaID int32, body []byte, err error) {
	if len(value) >= frameSize && value[0] == 0 {
		return int32(binary.BigEndian.Uint32(value[1:])), value[frameSize:], nil
	}
	switch {
	case len(value) == 0:
		return 0, nil, &RecordError{Class: EmptyValue, Err: errEmptyValue}
	case value[0] != 0:
		return 0, nil, &RecordError{Class: BadMagic, Err: fmt.Errorf("the value begins with byte 0x%02x, not 0x00 and a schema id; produce with the registry's Avro serializer", value[0])}
	default:
		return 0, nil, &RecordError{Class: Truncated, Err: fmt.Errorf("the value ends after %d of the %d bytes of its header", len(value), frameSize)}
	}
}

// SplitObjectFrame takes single-object encoding apart. The error is as that of [SplitFrame].
func SplitObjectFrame(value []byte) (fingerprint uint64, body []byte, err error) {
	if len(value) >= objectFrameSize && string(value[:2]) == objectMarker {
		return binary.LittleEndian.Uint64(value[2:]), value[objectFrameSize:], nil
	}
	switch {
	case len(value) == 0:
		return 0, nil, &RecordError{Class: EmptyValue, Err: errEmptyValue}
	case string(value[:min(2, len(value))]) != objectMarker[:min(2, len(value))]:
		return 0, nil, &RecordError{Class: BadMagic, Err: fmt.Errorf("the value begins with % x, not with c3 01 of Avro's single-object encoding", value[:min(2, len(value))])}
	default:
		return 0, nil, &RecordError{Class: Truncated, Err: fmt.Errorf("the value ends after %d of the %d bytes of its header", len(value), objectFrameSize)}
	}
}

const errEmptyValue = constError("the record has no value; a tombstone cannot be scored")
