package schemas

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Encoder writes events of a contract, with the schema that [Contract.AvroSchema] gives. It is immutable.
type Encoder struct {
	inputs []Input
	order  []int // columns as the schema has them: a dotted path is written with its record
}

// NewEncoder returns an encoder of a contract's events.
func NewEncoder(contract Contract) (*Encoder, error) {
	if err := contract.Validate(); err != nil {
		return nil, fmt.Errorf("event contract: %w", err)
	}
	e := &Encoder{inputs: contract.Inputs, order: make([]int, 0, len(contract.Inputs))}
	e.add(contractTree(contract))
	return e, nil
}

func (e *Encoder) add(node *pathNode) {
	if node.input != nil {
		e.order = append(e.order, node.column)
	}
	for _, child := range node.children {
		e.add(child)
	}
}

// AppendEvent appends the Avro body of one event to dst and returns it. numbers and categories are one row as in [Rows]:
// NaN and nil are missing. It refuses what the schema cannot carry (a missing required input, a category that is not
// text, a fraction of a day); ranges are the reader's to judge. On an error dst is returned as it was.
func (e *Encoder) AppendEvent(dst []byte, numbers []float64, categories [][]byte) ([]byte, error) {
	if len(numbers) != len(e.inputs) || len(categories) != len(e.inputs) {
		return dst, fmt.Errorf("encode event: %d numbers and %d categories for a contract of %d inputs", len(numbers), len(categories), len(e.inputs))
	}
	out := dst
	for _, column := range e.order {
		in := &e.inputs[column]
		x, text := numbers[column], categories[column]
		missing := math.IsNaN(x)
		if in.Kind == Category {
			missing = text == nil
		}
		if missing && !in.Nullable {
			return dst, fmt.Errorf("encode event: input %q is missing and not nullable", in.Name)
		}
		if in.Nullable {
			if missing {
				out = append(out, 0)
				continue
			}
			out = append(out, 2)
		}
		switch in.Kind {
		case Number:
			out = appendDouble(out, x)
		case Category:
			if !utf8.Valid(text) {
				return dst, fmt.Errorf("encode event: input %q is not UTF-8", in.Name)
			}
			out = appendString(out, text)
		case Boolean:
			if x != 0 && x != 1 {
				return dst, fmt.Errorf("encode event: input %q is %v, a boolean is 0 or 1", in.Name, x)
			}
			out = append(out, byte(x))
		case Date:
			if x != math.Trunc(x) || x < math.MinInt32 || x > math.MaxInt32 {
				return dst, fmt.Errorf("encode event: input %q is %v, a date is whole days of 32 bits", in.Name, x)
			}
			out = appendLong(out, int64(x))
		case Timestamp:
			if x != math.Trunc(x) || math.Abs(x) > 1<<53 {
				return dst, fmt.Errorf("encode event: input %q is %v, a timestamp is whole milliseconds below 2^53", in.Name, x)
			}
			out = appendLong(out, int64(x))
		}
	}
	return out, nil
}

// ParseValue reads the text of one cell or JSON scalar as a value of input: a finite decimal number; any text for a
// category; true, false, yes, no, 1 or 0 for a boolean; YYYY-MM-DD for a date; RFC 3339 or milliseconds since 1970 for a
// timestamp. A blank cell is missing (NaN and nil), whether the input allows it or not; a category is missing only
// if it is empty. Errors name the input.
func ParseValue(input Input, text string) (number float64, category []byte, err error) {
	if input.Kind == Category {
		if text == "" {
			return math.NaN(), nil, nil
		}
		if !utf8.ValidString(text) {
			return math.NaN(), nil, fmt.Errorf("column %q: %q is not UTF-8", input.Name, text)
		}
		return math.NaN(), []byte(text), nil
	}
	cell := strings.TrimSpace(text)
	if cell == "" {
		return math.NaN(), nil, nil
	}
	number, want := math.NaN(), ""
	switch input.Kind {
	case Number:
		number, want = parseNumber(cell), "a finite number such as 12.5, or an empty cell for a missing one"
	case Boolean:
		number, want = parseBoolean(cell), "true, false, yes, no, 1 or 0"
	case Date:
		number, want = parseDate(cell), "a date such as 2026-03-31"
	case Timestamp:
		number, want = parseTimestamp(cell), "a time such as 2026-03-31T12:00:00Z or milliseconds since 1970"
	default:
		return number, nil, fmt.Errorf("column %q: its input has no kind", input.Name)
	}
	if math.IsNaN(number) {
		return number, nil, fmt.Errorf("column %q: %q is not %s", input.Name, text, want)
	}
	return number, nil, nil
}

// The parsers give NaN for a text they do not understand.

func parseNumber(cell string) float64 {
	x, err := strconv.ParseFloat(cell, 64)
	if err != nil || math.IsInf(x, 0) || strings.ContainsAny(cell, "xX_") {
		return math.NaN()
	}
	return x
}

func parseBoolean(cell string) float64 {
	switch strings.ToLower(cell) {
	case "true", "yes", "1":
		return 1
	case "false", "no", "0":
		return 0
	default:
		return math.NaN()
	}
}

func parseDate(cell string) float64 {
	day, err := time.Parse(time.DateOnly, cell)
	if err != nil {
		return math.NaN()
	}
	return float64(day.Unix() / 86400) // whole days, so that rounding does not matter
}

func parseTimestamp(cell string) float64 {
	at, err := time.Parse(time.RFC3339Nano, cell)
	if err == nil {
		return float64(at.UnixMilli())
	}
	ms, err := strconv.ParseInt(cell, 10, 64)
	if err != nil {
		return math.NaN()
	}
	return float64(ms)
}
