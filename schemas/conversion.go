package schemas

import (
	"strings"

	"github.com/churnstream/churnstream/internal/avroschema"
)

// meaning is the logical type that counts for a value written as w and read as r. The reader's schema may declare a value
// to be a plain one, or give one to a plain value; where both have one, the unit is the writer's, and ok says that both
// mean the same sort of value.
func meaning(w, r *avroschema.Type) (m avroschema.Meaning, ok bool) {
	of, as := w.Meaning(), r.Meaning()
	switch {
	case as == avroschema.Plain, of == avroschema.Plain, of == as:
		return as, true
	case isTimestamp(of) && isTimestamp(as), isTimeOfDay(of) && isTimeOfDay(as):
		return of, true
	default:
		return "", false
	}
}

func isTimestamp(m avroschema.Meaning) bool {
	return strings.HasPrefix(string(m), "timestamp-") || isLocal(m)
}

func isLocal(m avroschema.Meaning) bool { return strings.HasPrefix(string(m), "local-timestamp-") }

func isTimeOfDay(m avroschema.Meaning) bool {
	return m == avroschema.TimeMillis || m == avroschema.TimeMicros
}

// reading gives the instruction that reads a kind from a value written as w and read as r, and names the conversion;
// see [Decoder] for the rules.
func reading(w, r *avroschema.Type, kind Kind) (in instruction, how string, ok bool) {
	m, ok := meaning(w, r)
	if !ok {
		return in, "", false
	}
	switch kind {
	case Number:
		return readingNumber(w, r, m)
	case Category:
		switch {
		case w.Kind == avroschema.Enum:
			return instruction{op: opSymbol}, "symbol", true
		case w.Kind == avroschema.String && r.Kind == avroschema.String:
			return instruction{op: opText}, "", true
		case w.Kind == avroschema.Bytes || w.Kind == avroschema.String:
			return instruction{op: opText}, w.Kind.String() + " as text", m == avroschema.Plain || m == avroschema.UUID
		case w.Kind == avroschema.Fixed && m == avroschema.UUID:
			return instruction{op: opUUID}, "uuid as text", true
		}
	case Boolean:
		return instruction{op: opBoolean}, "", w.Kind == avroschema.Boolean
	case Date:
		if m == avroschema.Plain {
			m = w.Meaning()
		}
		return instruction{op: opInt}, "", w.Kind == avroschema.Int && r.Kind == avroschema.Int && (m == avroschema.Date || m == avroschema.Plain)
	case Timestamp:
		return readingTimestamp(w, r, m)
	}
	return in, "", false
}

func readingNumber(w, r *avroschema.Type, m avroschema.Meaning) (in instruction, how string, ok bool) {
	if m == avroschema.Decimal {
		in = instruction{op: opDecimal, n: int32(w.Scale)}
		if w.Meaning() != avroschema.Decimal {
			in.n = int32(r.Scale)
		}
		if w.Kind == avroschema.Fixed {
			in.op, in.size = opDecimalFixed, int64(w.Size)
		}
		return in, "decimal to double", true
	}
	if m != avroschema.Plain {
		return in, "", false
	}
	switch w.Kind {
	case avroschema.Int:
		in.op, how = opInt, "int to double"
	case avroschema.Long:
		in.op, how = opLong, "long to double"
	case avroschema.Float:
		in.op, how = opFloat, "float to double"
	case avroschema.Double:
		in.op = opDouble
	default:
		return in, "", false
	}
	if r.Kind == avroschema.Float && w.Kind != avroschema.Float { // the reader's float has fewer digits
		in.op, how = opLongAsFloat, w.Kind.String()+" to float"
		if w.Kind == avroschema.Int {
			in.op = opIntAsFloat
		}
	}
	return in, how, true
}

func readingTimestamp(w, r *avroschema.Type, m avroschema.Meaning) (in instruction, how string, ok bool) {
	if m == avroschema.Plain {
		m = w.Meaning()
	}
	// A local time names no instant, unless the reader's schema says that it does.
	instant := isTimestamp(r.Meaning()) && !isLocal(r.Meaning())
	if isLocal(m) && !instant || isLocal(r.Meaning()) || r.Kind != avroschema.Int && r.Kind != avroschema.Long {
		return in, "", false
	}
	switch m {
	case avroschema.Plain:
		if w.Kind == avroschema.Int {
			return instruction{op: opInt}, "int as milliseconds", true
		}
		return instruction{op: opLong}, "long as milliseconds", w.Kind == avroschema.Long
	case avroschema.TimestampMillis, avroschema.LocalTimestampMillis:
		return instruction{op: opLong}, "", true
	case avroschema.TimestampMicros, avroschema.LocalTimestampMicros:
		return instruction{op: opFraction, n: 1e3}, "microseconds to milliseconds", true
	case avroschema.TimestampNanos, avroschema.LocalTimestampNanos:
		return instruction{op: opFraction, n: 1e6}, "nanoseconds to milliseconds", true
	default:
		return in, "", false
	}
}

// unit is a part of a value that has a unit: how it is read and how it is stepped over.
type unit struct {
	name       string
	read, skip instruction
}

func names(parts []unit) string {
	list := make([]string, len(parts))
	for i, u := range parts {
		list[i] = u.name
	}
	return strings.Join(list, ", ")
}

// units gives the parts of a value that has a unit, in the order of the wire.
func units(w, r *avroschema.Type) []unit {
	m, ok := meaning(w, r)
	if !ok {
		return nil
	}
	whole := func(name string, in instruction) []unit { return []unit{{name: name, read: in}} }
	switch m {
	case avroschema.Date:
		return whole("days", instruction{op: opInt})
	case avroschema.TimeMillis:
		return whole("millis", instruction{op: opInt})
	case avroschema.TimestampMillis, avroschema.LocalTimestampMillis:
		return whole("millis", instruction{op: opLong})
	case avroschema.TimeMicros, avroschema.TimestampMicros, avroschema.LocalTimestampMicros:
		return whole("millis", instruction{op: opFraction, n: 1e3})
	case avroschema.TimestampNanos, avroschema.LocalTimestampNanos:
		return whole("millis", instruction{op: opFraction, n: 1e6})
	case avroschema.Duration:
		skip, read := instruction{op: opSkipFixed, size: 4}, instruction{op: opUint32}
		return []unit{{"months", read, skip}, {"days", read, skip}, {"millis", read, skip}}
	default:
		return nil
	}
}
