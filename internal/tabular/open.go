package tabular

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/churnstream/churnstream/schemas"
)

// Table is the rows of a file that has every input.
type Table struct {
	read func(*schemas.Rows) error
	*match
}

// Open opens rows in one of the formats csv, jsonl and parquet. An input that has no column is an error, also where its
// values may be missing: of jsonl, whose columns are the keys of its objects, after the last row, if no object has the key.
func Open(in io.Reader, format string, contract schemas.Contract, naming Naming) (*Table, error) {
	m := newMatch(contract, naming)
	switch format {
	case "csv":
		r, err := newReader(in)
		if err != nil {
			return nil, err
		}
		if err := m.columns(r.names, "header line"); err != nil {
			return nil, err
		}
		return &Table{r.Read, m}, r.bind(m.renamed(contract), nil)
	case "jsonl":
		l := NewLines(in, contract)
		l.match = m
		return &Table{l.Read, m}, nil
	case "parquet":
		p, err := newParquet(in)
		if err != nil {
			return nil, err
		}
		if err := m.columns(slices.Sorted(maps.Keys(p.leaves)), "Parquet file"); err != nil {
			return nil, err
		}
		return &Table{p.Read, m}, p.bind(m.renamed(contract))
	default:
		return nil, fmt.Errorf("format %q is none of csv, jsonl, parquet", format)
	}
}

// Read appends the next row to rows and returns io.EOF after the last. On an error, rows is left as it was.
func (t *Table) Read(rows *schemas.Rows) error { return t.read(rows) }

// Names returns what the file calls each input; of jsonl, what the rows read so far do, "" if they do not have it.
func (t *Table) Names() []string { return t.names }
