package tabular

import (
	"fmt"
	"io"

	"github.com/churnstream/churnstream/schemas"
)

// Open gives the function that appends the next row of a file in one of the formats csv, jsonl and
// parquet, and returns io.EOF after the last.
func Open(in io.Reader, format string, contract schemas.Contract) (func(*schemas.Rows) error, error) {
	switch format {
	case "csv":
		t, err := NewReader(in, contract, nil)
		if err != nil {
			return nil, err
		}
		return t.Read, nil
	case "jsonl":
		return NewLines(in, contract).Read, nil
	case "parquet":
		t, err := NewParquet(in, contract)
		if err != nil {
			return nil, err
		}
		return t.Read, nil
	default:
		return nil, fmt.Errorf("format %q is none of csv, jsonl, parquet", format)
	}
}
