// Package tabular takes CSV, JSON lines or Parquet, the columns matched to declared inputs by name, and gives rows of those
// inputs. It never guesses: a value that cannot be converted, is out of its declared range, or is missing where it may
// not be, is an error that names its place.
package tabular

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/churnstream/churnstream/schemas"
)

// CellError says what is wrong with one cell.
type CellError struct {
	Row    int // data row from 0: the header is not counted
	Line   int // line of the file from 1
	Column string
	Err    error
}

func (e *CellError) Error() string {
	return fmt.Sprintf("row %d (line %d), column %q: %v", e.Row, e.Line, e.Column, e.Err)
}

func (e *CellError) Unwrap() error { return e.Err }

// Reader reads one data row of a CSV after another. It is not safe for concurrent use.
type Reader struct {
	csv     *csv.Reader
	header  map[string]int
	names   []string
	inputs  []schemas.Input
	columns []int // of each input; -1: the file has none and the input is nullable
	cells   []string
	row     int
	line    int
}

// NewReader reads the header line. columnOf names the column of an input; nil means that it is
// called like the input. Columns that no input reads are left to [Reader.Cell]. All columns that
// are missing are named at once.
func NewReader(r io.Reader, contract schemas.Contract, columnOf func(schemas.Input) string) (*Reader, error) {
	t, err := newReader(r)
	if err != nil {
		return nil, err
	}
	return t, t.bind(contract, columnOf)
}

// newReader reads the header line.
func newReader(r io.Reader) (*Reader, error) {
	c := csv.NewReader(r)
	c.ReuseRecord = true
	header, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("no header line: the first line must name the columns")
	}
	if err != nil {
		return nil, fmt.Errorf("header line: %w", err)
	}
	t := &Reader{csv: c, header: make(map[string]int, len(header)), row: -1}
	for i, name := range header {
		if i == 0 {
			name = strings.TrimPrefix(name, "\ufeff")
		}
		if _, twice := t.header[name]; twice {
			return nil, fmt.Errorf("header line: column %q occurs twice", name)
		}
		t.header[name] = i
		t.names = append(t.names, strings.Clone(name))
	}
	return t, nil
}

// bind finds the column of each input.
func (t *Reader) bind(contract schemas.Contract, columnOf func(schemas.Input) string) error {
	t.inputs = contract.Inputs
	var absent []error
	for _, in := range contract.Inputs {
		name := in.Name
		if columnOf != nil {
			name = columnOf(in)
		}
		at, ok := t.header[name]
		if !ok {
			at = -1
			if !in.Nullable {
				absent = append(absent, fmt.Errorf("header line: there is no column %q for the input %q, which is not nullable", name, in.Name))
			}
		}
		t.columns = append(t.columns, at)
	}
	return errors.Join(absent...)
}

// Columns returns the names in the header line.
func (t *Reader) Columns() []string { return t.names }

// Read appends the next data row to rows and returns io.EOF after the last. An empty or blank cell is
// a missing value. On an error, rows is left as it was.
func (t *Reader) Read(rows *schemas.Rows) error {
	cells, err := t.csv.Read()
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	t.row++
	var syntax *csv.ParseError
	if errors.As(err, &syntax) && errors.Is(err, csv.ErrFieldCount) {
		return fmt.Errorf("row %d (line %d): %w: found %d, the header line has %d; put a value that holds a comma in quotes",
			t.row, syntax.StartLine, csv.ErrFieldCount, len(cells), len(t.names))
	}
	if err != nil {
		return fmt.Errorf("row %d: %w", t.row, err) // names the line itself
	}
	t.cells = cells
	t.line, _ = t.csv.FieldPos(0)
	numbers, categories := rows.Row(rows.Append())
	for i := range t.inputs {
		in := &t.inputs[i]
		cell := ""
		if t.columns[i] >= 0 {
			cell = cells[t.columns[i]]
		}
		var err error
		if numbers[i], categories[i], err = schemas.ParseCell(in.Kind, cell); err == nil {
			err = in.Check(numbers[i], categories[i])
		}
		if err != nil {
			rows.DropLast()
			column := in.Name
			if t.columns[i] >= 0 {
				column = t.names[t.columns[i]]
			}
			return &CellError{Row: t.row, Line: t.line, Column: column, Err: err}
		}
	}
	return nil
}

// Cell returns the text of a column in the row read last, valid until the next Read; ok is false if
// the file has no such column.
func (t *Reader) Cell(column string) (text string, ok bool) {
	at, ok := t.header[column]
	if !ok {
		return "", false
	}
	return t.cells[at], true
}

// Fault makes an error of the row read last that names the place of a column.
func (t *Reader) Fault(column string, err error) error {
	return &CellError{Row: t.row, Line: t.line, Column: column, Err: err}
}
