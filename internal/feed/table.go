package feed

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// table makes events of rows: the key column becomes the key, the declared inputs the Avro value.
type table struct {
	encoder  *schemas.Encoder
	schemaID int32
	rows     *schemas.Rows
	value    []byte
}

func newTable(contract schemas.Contract, schemaID int32) (*table, error) {
	encoder, err := schemas.NewEncoder(contract)
	if err != nil {
		return nil, err
	}
	return &table{encoder: encoder, schemaID: schemaID, rows: schemas.NewRows(len(contract.Inputs), 1)}, nil
}

// encode makes the event's value of the only row.
func (t *table) encode(e *Event) (err error) {
	numbers, categories := t.rows.Row(0)
	t.value, err = t.encoder.AppendEvent(schemas.AppendFrame(t.value[:0], t.schemaID), numbers, categories)
	e.Value = t.value
	return err
}

// CSV gives an event for each data row of a CSV file. Key names the column with the customer id; the columns of the
// inputs carry their names. Errors name row, line and column.
func CSV(r io.Reader, contract schemas.Contract, schemaID int32, key string) (Source, error) {
	t, err := newTable(contract, schemaID)
	if err != nil {
		return nil, err
	}
	reader, err := tabular.NewReader(r, contract, nil)
	if err != nil {
		return nil, err
	}
	return SourceFunc(func(e *Event) error {
		t.rows.Reset()
		if err := reader.Read(t.rows); err != nil {
			return err
		}
		id, ok := reader.Cell(key)
		if !ok {
			return fmt.Errorf("there is no column %q for the key; name the customer id's column with --key (columns: %q)", key, reader.Columns())
		}
		if id == "" {
			return reader.Fault(key, errors.New("the customer id is empty"))
		}
		e.Key = append(e.Key[:0], id...)
		return t.encode(e)
	}), nil
}

// maxLine bounds one line of JSON lines.
const maxLine = 16 << 20

// JSONLines gives an event for each line, a JSON object of input name to value and, under key, the customer id as text.
// Errors name the line.
func JSONLines(r io.Reader, contract schemas.Contract, schemaID int32, key string) (Source, error) {
	t, err := newTable(contract, schemaID)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	line := 0
	return SourceFunc(func(e *Event) error {
		for {
			if !lines.Scan() {
				if err := lines.Err(); err != nil {
					return fmt.Errorf("line %d: %w", line+1, err)
				}
				return io.EOF
			}
			line++
			if len(bytes.TrimSpace(lines.Bytes())) > 0 {
				break
			}
		}
		t.rows.Reset()
		if err := scoring.AppendJSONRow(t.rows, contract, lines.Bytes(), false); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		id, err := textField(lines.Bytes(), key)
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		e.Key = append(e.Key[:0], id...)
		return t.encode(e)
	}), nil
}

func textField(object []byte, name string) (string, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil {
		return "", err
	}
	var id string
	if err := json.Unmarshal(fields[name], &id); err != nil || id == "" {
		return "", fmt.Errorf("field %q holds no customer id (a text that is not empty); name it with --key", name)
	}
	return id, nil
}
