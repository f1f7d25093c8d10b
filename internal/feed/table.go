package feed

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/schemas"
)

// CSV gives an event for each data row of a CSV file. Frame, which names the contract's schema, begins each value. Key names the column with the customer id; the columns of the
// inputs carry their names. Errors name row, line and column.
func CSV(r io.Reader, contract schemas.Contract, frame []byte, key string) (Source, error) {
	reader, err := tabular.NewReader(r, contract, nil)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(reader.Columns(), key) {
		return nil, fmt.Errorf("there is no column %q for the key; name the customer id's column with --key (columns: %q)", key, reader.Columns())
	}
	return newTable(reader, contract, frame, key)
}

// JSONLines gives an event for each line, a JSON object of input name to value and, under key, the customer id as text.
// Errors name row, line and input or field.
func JSONLines(r io.Reader, contract schemas.Contract, frame []byte, key string) (Source, error) {
	return newTable(tabular.NewLines(r, contract), contract, frame, key)
}

// rowReader is a file of rows: CSV or JSON lines.
type rowReader interface {
	Read(rows *schemas.Rows) error
	Cell(name string) (text string, ok bool)
	Fault(name string, err error) error
}

// table makes events of rows: the key column becomes the key, the declared inputs the Avro value.
type table struct {
	reader  rowReader
	encoder *schemas.Encoder
	frame   []byte // names the schema
	key     string
	rows    *schemas.Rows // one at a time
	value   []byte
}

func newTable(reader rowReader, contract schemas.Contract, frame []byte, key string) (Source, error) {
	encoder, err := schemas.NewEncoder(contract)
	if err != nil {
		return nil, err
	}
	return &table{reader: reader, encoder: encoder, frame: frame, key: key, rows: schemas.NewRows(len(contract.Inputs), 1)}, nil
}

// Next makes the event of the next row.
func (t *table) Next(e *Event) error {
	t.rows.Reset()
	if err := t.reader.Read(t.rows); err != nil {
		return err
	}
	id, ok := t.reader.Cell(t.key)
	if !ok || id == "" {
		return t.reader.Fault(t.key, errors.New("no customer id (a text that is not empty); name what holds it with --key"))
	}
	numbers, categories := t.rows.Row(0)
	value, err := t.encoder.AppendEvent(append(t.value[:0], t.frame...), numbers, categories)
	if err != nil {
		return err
	}
	t.value = value
	e.Key, e.Value = append(e.Key[:0], id...), value
	return nil
}
