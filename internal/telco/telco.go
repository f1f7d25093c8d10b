// Package telco hands out the Telco customer table as CSV and the training specification that
// says what its columns mean. Nothing enters: both are embedded. SOURCE.txt beside this file names
// where the table comes from and its licence.
package telco

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
)

// Customers is the number of data rows of the table, one for each customer.
const Customers = 7043

//go:embed Telco-Customer-Churn.csv.gz
var table []byte

//go:embed specification.yaml
var specification []byte

// CSV returns the customer table: a header line and one line for each customer.
func CSV() (io.Reader, error) {
	r, err := gzip.NewReader(bytes.NewReader(table))
	if err != nil {
		return nil, fmt.Errorf("open the embedded customer table: %w", err)
	}
	return r, nil
}

// Specification returns a copy of the training specification (YAML) for the table.
func Specification() []byte {
	return bytes.Clone(specification)
}
