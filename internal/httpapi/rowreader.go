package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/churnstream/churnstream/schemas"
)

// The members of a body that are no inputs.
const (
	customerField  = "customer_id"
	eventTimeField = "event_time"
)

// maxCustomerBytes bounds a customer id: it is a record's key and part of a path.
const maxCustomerBytes = 256

// envelope is what a row carries beside its inputs.
type envelope struct {
	customer  []byte // nil: none was given; aliases the body
	eventTime int64  // milliseconds since 1970; 0: none was given
}

// rowReader turns objects and table lines into rows of the model's inputs, and names every fault of a row. It belongs
// to one request at a time.
type rowReader struct {
	inputs  []schemas.Input
	columns map[string]int // by input name
	events  bool           // event_time is a member, too

	rows     *schemas.Rows
	envelope envelope
	faults   []*huma.ErrorDetail // of the row read last

	seen    []bool // of each input, then customer_id, then event_time
	guess   int    // the column that a sender in the contract's order names next
	row     int    // of the batch; alone: the body is the row
	numbers []float64
	texts   [][]byte
}

// alone is the row of a body that is one.
const alone = -1

// place names the row in an answer.
func (r *rowReader) place() string {
	if r.row == alone {
		return "body"
	}
	return "body[" + strconv.Itoa(r.row) + "]"
}

func newRowReader(contract schemas.Contract) *rowReader {
	r := &rowReader{
		inputs:  contract.Inputs,
		columns: make(map[string]int, len(contract.Inputs)),
		rows:    schemas.NewRows(len(contract.Inputs), 1),
		seen:    make([]bool, len(contract.Inputs)+2),
	}
	for i := range contract.Inputs {
		r.columns[contract.Inputs[i].Name] = i
	}
	return r
}

// maxFaults bounds what one answer lists: a body of a megabyte can hold a hundred thousand unknown names.
const maxFaults = 100

func (r *rowReader) fault(name, format string, args ...any) {
	if len(r.faults) > maxFaults {
		return
	}
	if len(r.faults) == maxFaults {
		r.faults = append(r.faults, &huma.ErrorDetail{Location: r.place(), Message: "more is wrong than is listed"})
		return
	}
	location := r.place()
	if name != "" {
		location += "." + name
	}
	r.faults = append(r.faults, &huma.ErrorDetail{Location: location, Message: fmt.Sprintf(format, args...)})
}

// begin appends a row in which everything is missing.
func (r *rowReader) begin(row int) {
	r.row, r.faults, r.envelope, r.guess = row, nil, envelope{}, 0
	clear(r.seen)
	r.numbers, r.texts = r.rows.Row(r.rows.Append())
}

// finish holds the row to the contract. A row with faults is taken back.
func (r *rowReader) finish() {
	for i := range r.inputs {
		in := &r.inputs[i]
		if err := in.Check(r.numbers[i], r.texts[i]); err != nil && !r.named(in.Name) {
			r.fault(in.Name, "%v", err)
		}
	}
	if len(r.faults) > 0 {
		r.rows.DropLast()
	}
}

func (r *rowReader) named(name string) bool {
	if len(r.faults) == 0 {
		return false
	}
	location := r.place() + "." + name
	return slices.ContainsFunc(r.faults, func(f *huma.ErrorDetail) bool { return f.Location == location })
}

// readObject reads the object that the text goes on with into a new row; its values may alias the text. An error is a
// text that is not JSON, after which nothing behind it can be read; faults are those of an object that is.
func (r *rowReader) readObject(t *jsonText, row int) error {
	r.begin(row)
	if t.next() != '{' {
		if err := t.value(); err != nil {
			r.rows.DropLast()
			return err
		}
		r.rows.DropLast()
		r.fault("", "is not an object of input values")
		return nil
	}
	if err := t.object(r.member); err != nil {
		r.rows.DropLast()
		return err
	}
	r.finish()
	return nil
}

func (r *rowReader) member(name, value []byte) {
	column, ok := r.column(name)
	if !ok {
		r.special(string(unquoted(name)), value)
		return
	}
	in := &r.inputs[column]
	if r.seen[column] {
		r.fault(in.Name, "occurs twice; which of the values is meant cannot be known")
		return
	}
	r.seen[column] = true
	var err error
	if r.numbers[column], r.texts[column], err = schemas.ParseJSON(in.Kind, value); err != nil {
		r.fault(in.Name, "%v", err)
	}
}

func (r *rowReader) column(name []byte) (int, bool) {
	if g := r.guess; g < len(r.inputs) && r.inputs[g].Name == string(name) {
		r.guess++
		return g, true
	}
	column, ok := r.columns[string(name)]
	if !ok && bytes.IndexByte(name, '\\') >= 0 {
		column, ok = r.columns[string(unquoted(name))]
	}
	if ok {
		r.guess = column + 1
	}
	return column, ok
}

func (r *rowReader) special(name string, value []byte) {
	at := len(r.inputs)
	switch {
	case name == customerField:
	case name == eventTimeField && r.events:
		at++
	default:
		r.fault(shortened(name), "is no input of the model")
		return
	}
	if r.seen[at] {
		r.fault(name, "occurs twice; which of the values is meant cannot be known")
		return
	}
	r.seen[at] = true
	if name == customerField {
		r.customer(value)
	} else {
		r.eventTime(value)
	}
}

func (r *rowReader) customer(value []byte) {
	switch {
	case string(value) == "null":
	case value[0] != '"':
		r.fault(customerField, "%.40s is not a string", value)
	default:
		if id := unquoted(value[1 : len(value)-1]); r.checkCustomer(id) {
			r.envelope.customer = id
		}
	}
}

func (r *rowReader) checkCustomer(id []byte) bool {
	switch {
	case len(id) == 0:
		r.fault(customerField, "is empty; leave it out to be given one")
	case len(id) > maxCustomerBytes:
		r.fault(customerField, "is longer than %d bytes", maxCustomerBytes)
	default:
		return true
	}
	return false
}

func (r *rowReader) eventTime(value []byte) {
	if string(value) == "null" {
		return
	}
	at, _, err := schemas.ParseJSON(schemas.Timestamp, value)
	if err != nil || math.IsNaN(at) || at <= 0 {
		r.fault(eventTimeField, "%.40s is not a timestamp after 1970 such as 2026-03-31T12:00:00Z or milliseconds since 1970", value)
		return
	}
	r.envelope.eventTime = int64(at)
}

// readCells reads one line of a table into a new row. Columns holds, for each cell, the input that it is of, or
// customerColumn.
func (r *rowReader) readCells(cells []string, columns []int, row int) {
	r.begin(row)
	for i, cell := range cells {
		if columns[i] == customerColumn {
			if cell == "" {
				continue
			}
			if !utf8.ValidString(cell) {
				r.fault(customerField, "is not valid UTF-8")
			} else if r.checkCustomer([]byte(cell)) {
				r.envelope.customer = []byte(cell)
			}
			continue
		}
		in := &r.inputs[columns[i]]
		var err error
		if r.numbers[columns[i]], r.texts[columns[i]], err = schemas.ParseCell(in.Kind, cell); err != nil {
			r.fault(in.Name, "%v", err)
		}
	}
	r.finish()
}

const customerColumn = -1

// shortened is a name as an answer may repeat it.
func shortened(name string) string {
	const limit = 64
	if len(name) <= limit {
		return name
	}
	cut := limit
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut] + "…"
}

// appendQuoted writes a JSON string.
func appendQuoted[T ~string | ~[]byte](dst []byte, text T) []byte {
	for i := range len(text) {
		c := text[i]
		if c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf || c == '<' || c == '>' || c == '&' || c == 0x7f {
			quoted, err := json.Marshal(string(text))
			if err != nil {
				return append(dst, `""`...)
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, text...)
	return append(dst, '"')
}
