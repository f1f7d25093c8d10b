package train

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/schemas"
)

// Table is a labelled table in memory. Element i of each field belongs to row i.
type Table struct {
	Rows     *schemas.Rows // in the order of the specification's inputs
	Churn    []bool
	Customer []string
	Times    []int64 // ms since 1970; nil if the specification has no classes of time
}

// ReadTable reads a CSV by a specification. Errors name line and column.
func ReadTable(s *Specification, r io.Reader) (*Table, error) {
	t, err := readTable(s, r)
	if err != nil {
		return nil, fmt.Errorf("read training table: %w", err)
	}
	return t, nil
}

func readTable(s *Specification, r io.Reader) (*Table, error) {
	contract := s.Contract()
	column := make(map[string]string, len(s.Inputs))
	for _, in := range s.Inputs {
		column[in.Name] = in.Column
	}
	in, err := tabular.NewReader(r, contract, func(in schemas.Input) string { return column[in.Name] })
	if err != nil {
		return nil, err
	}
	if err := s.checkColumns(in.Columns()); err != nil {
		return nil, err
	}
	t := &Table{Rows: schemas.NewRows(len(contract.Inputs), 1024)}
	negative := ""
	for {
		err := in.Read(t.Rows)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		customer, _ := in.Cell(s.Customer)
		if strings.TrimSpace(customer) == "" {
			return nil, in.Fault(s.Customer, errors.New("the customer's key is empty"))
		}
		label, _ := in.Cell(s.Label.Column)
		switch {
		case strings.TrimSpace(label) == "":
			return nil, in.Fault(s.Label.Column, errors.New("the label is empty"))
		case label == s.Label.Positive:
		case negative == "":
			negative = strings.Clone(label)
		case label != negative:
			return nil, in.Fault(s.Label.Column, fmt.Errorf("%q is a third value beside %q (churn) and %q", label, s.Label.Positive, negative))
		}
		if s.Classes != nil {
			text, _ := in.Cell(s.Classes.Time)
			at, err := tabular.ParseMoment(strings.TrimSpace(text))
			if err != nil {
				return nil, in.Fault(s.Classes.Time, err)
			}
			t.Times = append(t.Times, at)
		}
		t.Customer = append(t.Customer, strings.Clone(customer))
		t.Churn = append(t.Churn, label == s.Label.Positive)
	}
	if t.Rows.Len() == 0 {
		return nil, errors.New("no rows after the header line")
	}
	return t, nil
}

// checkColumns finds columns that the specification wants and the table lacks, and the other way
// round.
func (s *Specification) checkColumns(have []string) error {
	var faults []error
	known := []string{s.Customer, s.Label.Column}
	if s.Classes != nil {
		known = append(known, s.Classes.Time)
	}
	for _, want := range known {
		if !slices.Contains(have, want) {
			faults = append(faults, fmt.Errorf("header line: there is no column %q", want))
		}
	}
	for _, in := range s.Inputs {
		if known = append(known, in.Column); !slices.Contains(have, in.Column) {
			faults = append(faults, fmt.Errorf("header line: there is no column %q for the input %q", in.Column, in.Name))
		}
	}
	known = append(known, s.Drop...)
	for _, name := range have {
		if !slices.Contains(known, name) {
			faults = append(faults, fmt.Errorf("header line: the specification does not mention column %q; declare it as an input or list it under drop", name))
		}
	}
	return errors.Join(faults...)
}

// subset copies the chosen rows into a table of their own.
func (t *Table) subset(rows []int) *Table {
	out := &Table{Rows: schemas.NewRows(t.Rows.Width(), len(rows))}
	for _, i := range rows {
		numbers, categories := t.Rows.Row(i)
		n, c := out.Rows.Row(out.Rows.Append())
		copy(n, numbers)
		copy(c, categories)
		out.Churn = append(out.Churn, t.Churn[i])
		out.Customer = append(out.Customer, t.Customer[i])
		if t.Times != nil {
			out.Times = append(out.Times, t.Times[i])
		}
	}
	return out
}

// keys are the customers as bytes.
func (t *Table) keys() [][]byte {
	keys := make([][]byte, len(t.Customer))
	for i, customer := range t.Customer {
		keys[i] = []byte(customer)
	}
	return keys
}

// classes counts the rows of each label.
func (t *Table) classes() (retained, churned int) {
	for _, c := range t.Churn {
		if c {
			churned++
		}
	}
	return len(t.Churn) - churned, churned
}
