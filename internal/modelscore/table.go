package modelscore

import (
	"errors"
	"fmt"
	"io"

	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring/booster"
)

// Table is rows for a model as its library saved it, all of them in memory.
type Table struct {
	Contract schemas.Contract // the inputs under the names that the rows have
	Rows     *schemas.Rows
	Numbers  []float64 // what the model's engine takes: Contract's inputs row by row, categories as codes
}

// ReadTable reads rows as RunFile does.
func ReadTable(m *booster.Model, in io.Reader, format Format) (*Table, error) {
	t := &Table{Contract: contractOf(m)}
	rows, err := tabular.Open(in, string(format), t.Contract, naming(m))
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	t.Rows = schemas.NewRows(len(t.Contract.Inputs), 1)
	for err == nil {
		err = rows.Read(t.Rows)
	}
	if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	if t.Rows.Len() > 0 {
		for i, name := range rows.Names() {
			t.Contract.Inputs[i].Name = name
		}
	}
	coders := make(map[int]*codes, len(m.Categories))
	for i, c := range m.Categories {
		coders[i] = newCodes(c)
	}
	width := t.Rows.Width()
	t.Numbers = make([]float64, t.Rows.Len()*width)
	for r := range t.Rows.Len() {
		numbers, categories := t.Rows.Row(r)
		row := t.Numbers[r*width : (r+1)*width]
		copy(row, numbers)
		for i, c := range coders {
			row[i] = c.of(categories[i])
		}
	}
	return t, nil
}
