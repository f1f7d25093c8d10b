package modelscore

import (
	"errors"
	"fmt"
	"io"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring/booster"
)

// Table is rows for a model as its library saved it, all of them in memory.
type Table struct {
	Contract schemas.Contract
	Rows     *schemas.Rows
	Numbers  []float64 // what the model's engine takes: Contract's inputs row by row, categories as codes
}

// ReadTable reads rows as RunFile does.
func ReadTable(m *booster.Model, in io.Reader, format Format) (*Table, error) {
	t := &Table{Contract: contractOf(m)}
	next, err := reader(m, t.Contract, in, format)
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	t.Rows = schemas.NewRows(len(t.Contract.Inputs), 1)
	for err == nil {
		err = next(t.Rows)
	}
	if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read rows: %w", err)
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
