package schemas

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Splitter finds where one event ends and the next begins in events of one schema that follow each other without a
// frame, and reads the customer id in each. It is not safe for concurrent use.
type Splitter struct {
	program *program
	rows    *Rows
	loops   []int64
	key     string
}

// NewSplitter returns a splitter for events written with schema. key is the path of the customer id: a text, an enum or
// a whole number.
func NewSplitter(schema, key string) (*Splitter, error) {
	var program *program
	for _, kind := range []Kind{Category, Number} {
		contract := Contract{[]Input{{Name: key, Kind: kind}}}
		if err := contract.Validate(); err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		program = plan{contract: contract}.compile(Schema{Text: schema}, "events")
		if program.refused == nil {
			break
		}
	}
	if program.refused != nil {
		return nil, fmt.Errorf("key: %w", program.refused)
	}
	return &Splitter{program: program, rows: NewRows(1, 1), loops: make([]int64, program.loops), key: key}, nil
}

// Split returns the first event of b, its customer id appended to key, and what follows it.
func (s *Splitter) Split(b, key []byte) (event, id, rest []byte, err error) {
	s.rows.Reset()
	numbers, categories := s.rows.Row(s.rows.Append())
	n, err := s.program.run(b, numbers, categories, s.rows, s.loops)
	if err != nil {
		return nil, nil, nil, err
	}
	x := numbers[0]
	switch {
	case categories[0] != nil:
		id = key
		id = append(id, categories[0]...)
	case x == math.Trunc(x) && math.Abs(x) <= maxExact:
		id = strconv.AppendInt(key, int64(x), 10)
	default:
		return nil, nil, nil, fmt.Errorf("field %q: %v names no customer; it has to be a text or a whole number up to 2^53", s.key, x)
	}
	if len(id) == len(key) {
		return nil, nil, nil, fmt.Errorf("field %q: %w", s.key, errors.New("the customer id is empty"))
	}
	return b[:n:n], id, b[n:], nil
}
