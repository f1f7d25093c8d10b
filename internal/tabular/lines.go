package tabular

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/churnstream/churnstream/schemas"
)

// longestLine bounds the memory for one line.
const longestLine = 16 << 20

// Lines reads one JSON object, a line each, after another: values by input name, in the forms of
// [schemas.Contract.ReadJSON]. Blank lines are skipped. It is not safe for concurrent use.
type Lines struct {
	scanner  *bufio.Scanner
	contract schemas.Contract
	fields   map[string]json.RawMessage // of the row read last
	row      int
	line     int
}

// NewLines reads objects from r. Fields that no input reads are left to [Lines.Cell].
func NewLines(r io.Reader, contract schemas.Contract) *Lines {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), longestLine)
	return &Lines{scanner: s, contract: contract, row: -1}
}

// Read appends the next object to rows and returns io.EOF after the last. null and absence are a missing value. On an
// error, rows is left as it was.
func (l *Lines) Read(rows *schemas.Rows) error {
	text, err := l.next()
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err == nil {
		err = l.read(text, rows)
	}
	if err != nil {
		return l.at(err)
	}
	return nil
}

// Cell returns a field of the object read last that is a string; ok is false if there is none of that name.
func (l *Lines) Cell(field string) (text string, ok bool) {
	value, ok := l.fields[field]
	if !ok || json.Unmarshal(value, &text) != nil {
		return "", false
	}
	return text, true
}

// Fault makes an error of the object read last that names the place of a field.
func (l *Lines) Fault(field string, err error) error {
	return l.at(fmt.Errorf("field %q: %w", field, err))
}

func (l *Lines) at(err error) error {
	return fmt.Errorf("row %d (line %d): %w", l.row, l.line, err)
}

// next gives the next line that is not blank.
func (l *Lines) next() ([]byte, error) {
	for l.scanner.Scan() {
		l.line++
		if text := bytes.TrimSpace(l.scanner.Bytes()); len(text) > 0 {
			l.row++
			return text, nil
		}
	}
	err := l.scanner.Err()
	if err == nil {
		return nil, io.EOF
	}
	l.row++
	l.line++
	if errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("longer than %d bytes", longestLine)
	}
	return nil, err
}

func (l *Lines) read(text []byte, rows *schemas.Rows) error {
	if !utf8.Valid(text) {
		return errors.New("not valid UTF-8")
	}
	clear(l.fields)
	if err := json.Unmarshal(text, &l.fields); err != nil {
		return fmt.Errorf("not a JSON object of input values: %w", err)
	}
	if l.fields == nil {
		return errors.New("not a JSON object of input values: null")
	}
	if err := l.contract.ReadJSON(rows, l.fields); err != nil {
		return err
	}
	numbers, categories := rows.Row(rows.Len() - 1)
	for i := range l.contract.Inputs {
		in := &l.contract.Inputs[i]
		if err := check(in, numbers[i], categories[i]); err != nil {
			rows.DropLast()
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	return nil
}
