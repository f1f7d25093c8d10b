package avroschema

import (
	"encoding/json"
	"math"
)

// Meaning is what a logical type says about the values of a type. The zero Meaning is a plain value.
type Meaning string

// The logical types of the specification, by their names there.
const (
	Plain                Meaning = ""
	Date                 Meaning = "date"        // days since 1970-01-01
	TimeMillis           Meaning = "time-millis" // since midnight
	TimeMicros           Meaning = "time-micros"
	TimestampMillis      Meaning = "timestamp-millis" // since 1970-01-01T00:00:00Z
	TimestampMicros      Meaning = "timestamp-micros"
	TimestampNanos       Meaning = "timestamp-nanos"
	LocalTimestampMillis Meaning = "local-timestamp-millis" // since 1970-01-01T00:00:00 on the clock of whoever wrote it
	LocalTimestampMicros Meaning = "local-timestamp-micros"
	LocalTimestampNanos  Meaning = "local-timestamp-nanos"
	Decimal              Meaning = "decimal"     // two's complement, big-endian, with Precision and Scale
	BigDecimal           Meaning = "big-decimal" // a decimal that carries its own scale
	UUID                 Meaning = "uuid"
	Duration             Meaning = "duration" // months, days and milliseconds, three little-endian uint32
)

// Meaning returns the type's logical type, or Plain where it has none, an unknown one, or one that is not valid for the
// type: the specification wants those ignored.
func (t *Type) Meaning() Meaning {
	m := Meaning(t.Logical)
	valid := false
	switch m {
	case Date, TimeMillis:
		valid = t.Kind == Int
	case TimeMicros, TimestampMillis, TimestampMicros, TimestampNanos, LocalTimestampMillis, LocalTimestampMicros, LocalTimestampNanos:
		valid = t.Kind == Long
	case Decimal:
		digits := t.Precision >= 1 && t.Scale >= 0 && t.Scale <= t.Precision
		valid = digits && (t.Kind == Bytes || t.Kind == Fixed && t.Precision <= fixedDigits(t.Size))
	case BigDecimal:
		valid = t.Kind == Bytes
	case UUID:
		valid = t.Kind == String || t.Kind == Fixed && t.Size == 16
	case Duration:
		valid = t.Kind == Fixed && t.Size == 12
	case Plain:
	}
	if !valid {
		return Plain
	}
	return m
}

// fixedDigits is how many decimal digits always fit into a two's complement number of size bytes.
func fixedDigits(size int) int {
	return int(math.Floor(math.Log10(2) * float64(8*size-1)))
}

// digits reads precision and scale; what is no whole number makes the logical type invalid.
func (t *Type) digits(o map[string]any) {
	t.Precision, t.Scale = wholeNumber(o["precision"]), 0
	if scale, given := o["scale"]; given {
		t.Scale = wholeNumber(scale)
	}
}

// maxDigits is far above what a decimal of any use has.
const maxDigits = 1 << 20

func wholeNumber(v any) int {
	number, _ := v.(json.Number)
	n, err := number.Int64()
	if err != nil || n < 0 || n > maxDigits {
		return -1
	}
	return int(n)
}
