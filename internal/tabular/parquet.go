package tabular

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/churnstream/churnstream/schemas"
)

// largestPiped bounds the memory for a Parquet file that comes through a pipe: its end has to be read
// first.
const largestPiped = 1 << 30

// Parquet reads one row of a Parquet file after another, the columns matched to the inputs by name;
// fields of a record by their path joined by dots. It is not safe for concurrent use.
type Parquet struct {
	file    *parquet.File
	inputs  []schemas.Input
	columns []parquetColumn // of the file, by index
	group   int
	rows    parquet.Rows // of the row group in hand
	buffer  []parquet.Row
	have    []parquet.Row // of buffer, not yet given
	row     int
	leaves  map[string]*parquet.Column
	values  parquet.Row // of the row read last
}

// parquetColumn is where the values of a column go.
type parquetColumn struct {
	input   int // -1: nobody reads it
	name    string
	convert func(parquet.Value) (number float64, category []byte, err error)
}

// NewParquet opens a Parquet file. All columns that are missing or of a type that no input can be
// made of are named at once.
func NewParquet(in io.Reader, contract schemas.Contract) (*Parquet, error) {
	p, err := newParquet(in)
	if err != nil {
		return nil, err
	}
	return p, p.bind(contract)
}

// newParquet opens a Parquet file and finds its columns.
func newParquet(in io.Reader) (*Parquet, error) {
	at, size, err := randomAccess(in)
	if err != nil {
		return nil, err
	}
	file, err := parquet.OpenFile(at, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("not a Parquet file that can be read: %w", err)
	}
	p := &Parquet{file: file, buffer: make([]parquet.Row, 64), row: -1, leaves: make(map[string]*parquet.Column)}
	var walk func(c *parquet.Column, prefix string)
	walk = func(c *parquet.Column, prefix string) {
		for _, child := range c.Columns() {
			name := prefix + child.Name()
			if child.Leaf() {
				p.leaves[name] = child
				for len(p.columns) <= child.Index() {
					p.columns = append(p.columns, parquetColumn{input: -1})
				}
				continue
			}
			walk(child, name+".")
		}
	}
	walk(file.Root(), "")
	return p, nil
}

func randomAccess(in io.Reader) (io.ReaderAt, int64, error) {
	if f, ok := in.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			return f, info.Size(), nil
		}
	}
	data, err := io.ReadAll(io.LimitReader(in, largestPiped+1))
	if err != nil {
		return nil, 0, err
	}
	if len(data) > largestPiped {
		return nil, 0, fmt.Errorf("a Parquet file of more than %d bytes through a pipe; name the file by --input", largestPiped)
	}
	return bytes.NewReader(data), int64(len(data)), nil
}

// bind finds the column of each input.
func (p *Parquet) bind(contract schemas.Contract) error {
	p.inputs = contract.Inputs
	var faults []error
	for i := range p.inputs {
		in := &p.inputs[i]
		leaf, ok := p.leaves[in.Name]
		switch {
		case !ok && in.Nullable:
			continue
		case !ok:
			faults = append(faults, fmt.Errorf("there is no column %q, and the input is not nullable", in.Name))
			continue
		case leaf.MaxRepetitionLevel() > 0:
			faults = append(faults, fmt.Errorf("column %q holds lists", in.Name))
			continue
		}
		convert, err := parquetConversion(in.Kind, leaf.Type())
		if err != nil {
			faults = append(faults, fmt.Errorf("column %q: %w", in.Name, err))
			continue
		}
		p.columns[leaf.Index()] = parquetColumn{input: i, name: in.Name, convert: convert}
	}
	return errors.Join(faults...)
}

// parquetConversion says how values of a type become an input's; a meaning that the input does not
// have is refused.
func parquetConversion(kind schemas.Kind, from parquet.Type) (func(parquet.Value) (float64, []byte, error), error) {
	physical := from.Kind()
	var meaning format.LogicalTypeValue
	if logical := from.LogicalType(); logical != nil {
		meaning = logical.Value
	}
	refused := fmt.Errorf("a %s cannot be a %s", from, kind)
	number := func(of func(parquet.Value) float64) func(parquet.Value) (float64, []byte, error) {
		return func(v parquet.Value) (float64, []byte, error) { return of(v), nil, nil }
	}
	var plain func(parquet.Value) float64
	switch physical {
	case parquet.Boolean:
		plain = func(v parquet.Value) float64 {
			if v.Boolean() {
				return 1
			}
			return 0
		}
	case parquet.Int32:
		plain = func(v parquet.Value) float64 { return float64(v.Int32()) }
	case parquet.Int64:
		plain = func(v parquet.Value) float64 { return float64(v.Int64()) }
	case parquet.Float:
		plain = func(v parquet.Value) float64 { return float64(v.Float()) }
	case parquet.Double:
		plain = func(v parquet.Value) float64 { return v.Double() }
	case parquet.Int96, parquet.ByteArray, parquet.FixedLenByteArray: // no numbers
	}
	if integer, ok := meaning.(*format.IntType); ok {
		if !integer.IsSigned {
			if physical == parquet.Int32 {
				plain = func(v parquet.Value) float64 { return float64(v.Uint32()) }
			} else {
				plain = func(v parquet.Value) float64 { return float64(v.Uint64()) }
			}
		}
		meaning = nil
	}
	switch kind {
	case schemas.Category:
		switch meaning.(type) {
		case nil, *format.StringType, *format.EnumType:
			if physical == parquet.ByteArray {
				return textOf, nil
			}
		}
	case schemas.Boolean:
		if plain != nil && meaning == nil && physical != parquet.Float && physical != parquet.Double {
			return booleanOf(plain), nil
		}
	case schemas.Number:
		if plain != nil && meaning == nil {
			return finiteOf(plain), nil
		}
	case schemas.Date, schemas.Timestamp:
		unit := time.Millisecond
		if kind == schemas.Date {
			unit = 24 * time.Hour
		}
		switch m := meaning.(type) {
		case *format.DateType:
			perUnit := float64(24 * time.Hour / unit)
			return number(func(v parquet.Value) float64 { return float64(v.Int32()) * perUnit }), nil
		case *format.TimestampType:
			if m.Unit.Value == nil || physical != parquet.Int64 {
				return nil, refused
			}
			ticks := int64(unit / m.Unit.Value.Duration())
			return number(func(v parquet.Value) float64 { return float64(floorDivided(v.Int64(), ticks)) }), nil
		}
	}
	return nil, refused
}

// floorDivided rounds down also below 0: in integers, as nanoseconds have more digits than float64.
func floorDivided(x, by int64) int64 {
	q := x / by
	if x%by < 0 {
		q--
	}
	return q
}

func textOf(v parquet.Value) (float64, []byte, error) {
	text := append([]byte{}, v.ByteArray()...) // not nil for an empty text
	if !utf8.Valid(text) {
		return math.NaN(), nil, errors.New("not valid UTF-8")
	}
	return math.NaN(), text, nil
}

func booleanOf(plain func(parquet.Value) float64) func(parquet.Value) (float64, []byte, error) {
	return func(v parquet.Value) (float64, []byte, error) {
		x := plain(v)
		if x != 0 && x != 1 {
			return 0, nil, fmt.Errorf("%v is not a boolean", x)
		}
		return x, nil, nil
	}
}

// finiteOf takes NaN as missing, as pandas writes it.
func finiteOf(plain func(parquet.Value) float64) func(parquet.Value) (float64, []byte, error) {
	return func(v parquet.Value) (float64, []byte, error) {
		x := plain(v)
		if math.IsInf(x, 0) {
			return 0, nil, fmt.Errorf("%v is not a finite number", x)
		}
		return x, nil, nil
	}
}

// Read appends the next row to rows and returns io.EOF after the last. null, NaN and a column that
// the file does not have are a missing value. On an error, rows is left as it was.
func (p *Parquet) Read(rows *schemas.Rows) error {
	values, err := p.next()
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	p.row++
	if err != nil {
		return fmt.Errorf("row %d: %w", p.row, err)
	}
	p.values = values
	numbers, categories := rows.Row(rows.Append())
	for _, v := range values {
		column := &p.columns[v.Column()]
		if column.input < 0 || v.IsNull() {
			continue
		}
		if numbers[column.input], categories[column.input], err = column.convert(v); err != nil {
			rows.DropLast()
			return fmt.Errorf("row %d, column %q: %w", p.row, column.name, err)
		}
	}
	for i := range p.inputs {
		if err := p.inputs[i].Check(numbers[i], categories[i]); err != nil {
			rows.DropLast()
			return fmt.Errorf("row %d, column %q: %w", p.row, p.inputs[i].Name, err)
		}
	}
	return nil
}

// Cell returns a column of the row read last as text: dates as 2026-03-31, timestamps as milliseconds since 1970, "" for
// null; ok is false if the file has no such column, or one that no input could be read from.
func (p *Parquet) Cell(column string) (text string, ok bool) {
	leaf := p.leaves[column]
	if leaf == nil || leaf.MaxRepetitionLevel() > 0 {
		return "", false
	}
	kind := schemas.Number
	switch from := leaf.Type(); {
	case from.Kind() == parquet.ByteArray:
		kind = schemas.Category
	case from.Kind() == parquet.Boolean:
		kind = schemas.Boolean
	case from.LogicalType() != nil:
		switch from.LogicalType().Value.(type) {
		case *format.DateType:
			kind = schemas.Date
		case *format.TimestampType:
			kind = schemas.Timestamp
		}
	}
	convert, err := parquetConversion(kind, leaf.Type())
	if err != nil {
		return "", false
	}
	for _, v := range p.values {
		if v.Column() != leaf.Index() || v.IsNull() {
			continue
		}
		number, category, err := convert(v)
		switch {
		case err != nil:
			return "", false
		case kind == schemas.Category:
			return string(category), true
		case kind == schemas.Date:
			return time.Unix(int64(number)*86_400, 0).UTC().Format(time.DateOnly), true
		default:
			return strconv.FormatFloat(number, 'f', -1, 64), true
		}
	}
	return "", true
}

// Fault makes an error of the row read last that names the place of a column.
func (p *Parquet) Fault(column string, err error) error {
	return fmt.Errorf("row %d, column %q: %w", p.row, column, err)
}

// next gives the values of the next row.
func (p *Parquet) next() (parquet.Row, error) {
	for len(p.have) == 0 {
		if p.rows == nil {
			groups := p.file.RowGroups()
			if p.group == len(groups) {
				return nil, io.EOF
			}
			p.rows = groups[p.group].Rows()
			p.group++
		}
		n, err := p.rows.ReadRows(p.buffer)
		p.have = p.buffer[:n]
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			err = p.rows.Close()
			p.rows = nil
		}
		if err != nil {
			return nil, err
		}
	}
	row := p.have[0]
	p.have = p.have[1:]
	return row, nil
}
