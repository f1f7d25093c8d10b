package schemas

import (
	"fmt"
	"math"
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
