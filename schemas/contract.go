package schemas

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
)

// Kind says what an input's values mean and in which column of [Rows] they are kept.
type Kind uint8

// The kinds of input. The zero Kind is none of them, so that a forgotten kind is a fault and not a number.
const (
	Number    Kind = iota + 1 // any Avro number, as float64
	Category                  // text, kept as the bytes of the event
	Boolean                   // 0 or 1
	Date                      // whole days since 1970-01-01
	Timestamp                 // milliseconds since 1970-01-01T00:00:00Z
)

var kindNames = [...]string{Number: "number", Category: "category", Boolean: "boolean", Date: "date", Timestamp: "timestamp"}

// String returns the name used in configuration and artefacts.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// MarshalText writes the kind's name; the zero kind is an error.
func (k Kind) MarshalText() ([]byte, error) {
	if k == 0 || int(k) >= len(kindNames) {
		return nil, fmt.Errorf("input kind %d has no name", uint8(k))
	}
	return []byte(kindNames[k]), nil
}

// UnmarshalText reads a kind's name.
func (k *Kind) UnmarshalText(text []byte) error {
	for i, name := range kindNames {
		if i > 0 && name == string(text) {
			*k = Kind(i)
			return nil
		}
	}
	return fmt.Errorf("input kind %q is unknown: use number, category, boolean, date or timestamp", text)
}

// Input is one declared value of an event.
type Input struct {
	Name string `json:"name" yaml:"name"`
	// Path is the place in the event: Avro field names joined by dots, through nested records and unions. A number may be
	// taken from a value that has a unit by naming the unit last: .days of a date or duration, .millis of a time of day,
	// timestamp or duration, .months of a duration. Empty means that the field is called like the input.
	Path string `json:"path,omitempty" yaml:"path,omitempty"`
	Kind Kind   `json:"kind" yaml:"kind"`
	// Nullable inputs may be null, NaN or absent from the writer's schema; all three are one missing value.
	Nullable bool `json:"nullable,omitempty" yaml:"nullable,omitempty"`
	// Min and Max bound the value, both inclusive, in the unit of the kind (days for a date, milliseconds for a
	// timestamp). They do not apply to categories and booleans.
	Min *float64 `json:"min,omitempty" yaml:"min,omitempty"`
	Max *float64 `json:"max,omitempty" yaml:"max,omitempty"`
}

// AvroPath returns the place of the input in an event.
func (in Input) AvroPath() string {
	if in.Path != "" {
		return in.Path
	}
	return in.Name
}

// Check holds a value, as [Rows] keep it, to what the input declares: that it is there unless the input is nullable, and
// within min and max.
func (in *Input) Check(number float64, category []byte) error {
	missing := math.IsNaN(number)
	if in.Kind == Category {
		missing = category == nil
	}
	switch {
	case missing && !in.Nullable:
		return errors.New("the value is missing and the input is not nullable")
	case in.Min != nil && number < *in.Min: // false for NaN
		return fmt.Errorf("%v is below the least allowed value %v", number, *in.Min)
	case in.Max != nil && number > *in.Max:
		return fmt.Errorf("%v is above the largest allowed value %v", number, *in.Max)
	}
	return nil
}

// Contract is the ordered list of inputs that a model reads from an event. The order is the column order of [Rows].
type Contract struct {
	Inputs []Input `json:"inputs" yaml:"inputs"`
}

// Index returns the column of the input called name, or -1.
func (c Contract) Index(name string) int {
	for i := range c.Inputs {
		if c.Inputs[i].Name == name {
			return i
		}
	}
	return -1
}

// Validate reports every fault of the contract at once.
func (c Contract) Validate() error {
	var faults []error
	fault := func(i int, key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("inputs[%d].%s: %s", i, key, fmt.Sprintf(format, args...)))
	}
	if len(c.Inputs) == 0 {
		faults = append(faults, errors.New(`inputs: at least one is needed, e.g. {"name": "tenure_days", "kind": "number"}`))
	}
	names := make(map[string]int, len(c.Inputs))
	paths := make(map[string]int, len(c.Inputs))
	for i, in := range c.Inputs {
		if in.Name == "" {
			fault(i, "name", `is empty; give a name, e.g. "tenure_days"`)
		} else if first, dup := names[in.Name]; dup {
			fault(i, "name", "%q is already the name of inputs[%d]; every input needs its own", in.Name, first)
		} else {
			names[in.Name] = i
		}
		if _, err := in.Kind.MarshalText(); err != nil {
			fault(i, "kind", "is not set for %q; use number, category, boolean, date or timestamp", in.Name)
		}
		path := in.AvroPath()
		if path != "" {
			if bad := badPathPart(path); bad != nil {
				fault(i, "path", `%q cannot be an Avro path because of %q; use letters, digits and _ joined by dots, e.g. "customer.plan_tier"`, path, *bad)
			} else if first, dup := paths[path]; dup {
				fault(i, "path", "%q is already read by inputs[%d]; declare the field once", path, first)
			} else {
				paths[path] = i
			}
		}
		bounded := in.Kind != Category && in.Kind != Boolean
		for _, b := range []struct {
			key   string
			value *float64
		}{{"min", in.Min}, {"max", in.Max}} {
			switch {
			case b.value == nil:
			case !bounded:
				fault(i, b.key, "does not apply to a %s; remove it", in.Kind)
			case math.IsNaN(*b.value) || math.IsInf(*b.value, 0):
				fault(i, b.key, "%v is not a bound; use a finite number, e.g. 0, or leave it out", *b.value)
			}
		}
		if bounded && in.Min != nil && in.Max != nil && *in.Min > *in.Max {
			fault(i, "min", "%v is greater than max %v; exchange them", *in.Min, *in.Max)
		}
	}
	for i, in := range c.Inputs {
		path := in.AvroPath()
		for cut := strings.IndexByte(path, '.'); cut >= 0; {
			if leaf, clash := paths[path[:cut]]; clash {
				fault(i, "path", "%q goes through %q, which inputs[%d] reads as a %s; a field is either a record or a value", path, path[:cut], leaf, c.Inputs[leaf].Kind)
			}
			next := strings.IndexByte(path[cut+1:], '.')
			if next < 0 {
				break
			}
			cut += 1 + next
		}
	}
	return errors.Join(faults...)
}

// badPathPart returns the first part of a dotted path that is no Avro name, nil if all are.
func badPathPart(path string) *string {
	for part := range strings.SplitSeq(path, ".") {
		for i := range len(part) {
			c := part[i]
			letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
			if !letter && (i == 0 || c < '0' || c > '9') {
				return &part
			}
		}
		if part == "" {
			return &part
		}
	}
	return nil
}

// AvroSchema returns the Avro schema of the events that carry exactly this contract: record
// churn.v1.CustomerActivity, a double for a number, a string for a category, int/date and long/timestamp-millis,
// and a union with null, defaulting to null, for a nullable input. A dotted path becomes nested records.
func (c Contract) AvroSchema() (string, error) {
	if err := c.Validate(); err != nil {
		return "", fmt.Errorf("event contract: %w", err)
	}
	text, err := json.Marshal(avroRecord(contractTree(c), "CustomerActivity", "churn.v1", "churn.v1.customer_activity"))
	if err != nil {
		return "", fmt.Errorf("event contract: %w", err)
	}
	return string(text), nil
}

// pathNode is one field of the event that a contract describes: a value, or a record of further fields.
type pathNode struct {
	name     string
	input    *Input // nil for a record
	column   int
	children []*pathNode
}

// contractTree arranges the inputs by path. Fields keep the order in which the contract first mentions them.
func contractTree(c Contract) *pathNode {
	root := &pathNode{}
	for i := range c.Inputs {
		at := root
		for part := range strings.SplitSeq(c.Inputs[i].AvroPath(), ".") {
			next := at.child(part)
			if next == nil {
				next = &pathNode{name: part}
				at.children = append(at.children, next)
			}
			at = next
		}
		at.input, at.column = &c.Inputs[i], i
	}
	return root
}

// child is nil where nothing of that name is wanted, and where nothing is wanted at all.
func (n *pathNode) child(name string) *pathNode {
	if n == nil {
		return nil
	}
	for _, child := range n.children {
		if child.name == name {
			return child
		}
	}
	return nil
}

// columns appends those of the inputs at and below the node.
func (n *pathNode) columns(list []int) []int {
	if n.input != nil {
		list = append(list, n.column)
	}
	for _, child := range n.children {
		list = child.columns(list)
	}
	return list
}

// The JSON form of the schema; struct order gives a stable text.
type (
	avroRecordJSON struct {
		Type      string          `json:"type"`
		Name      string          `json:"name"`
		Namespace string          `json:"namespace"`
		Fields    []avroFieldJSON `json:"fields"`
	}
	avroFieldJSON struct {
		Name    string           `json:"name"`
		Type    any              `json:"type"`
		Default *json.RawMessage `json:"default,omitempty"`
	}
	avroLogicalJSON struct {
		Type        string `json:"type"`
		LogicalType string `json:"logicalType"`
	}
)

// avroRecord describes one node. Nested records are named by their path below inner, so that no two share a name.
func avroRecord(n *pathNode, name, namespace, inner string) avroRecordJSON {
	record := avroRecordJSON{Type: "record", Name: name, Namespace: namespace, Fields: make([]avroFieldJSON, 0, len(n.children))}
	for _, child := range n.children {
		if child.input == nil {
			record.Fields = append(record.Fields, avroFieldJSON{
				Name: child.name,
				Type: avroRecord(child, child.name, inner, inner+"."+child.name),
			})
			continue
		}
		field := avroFieldJSON{Name: child.name, Type: avroType(child.input.Kind)}
		if child.input.Nullable {
			null := json.RawMessage("null")
			field.Type, field.Default = []any{"null", field.Type}, &null
		}
		record.Fields = append(record.Fields, field)
	}
	return record
}

func avroType(k Kind) any {
	switch k {
	case Number:
		return "double"
	case Category:
		return "string"
	case Boolean:
		return "boolean"
	case Date:
		return avroLogicalJSON{"int", "date"}
	case Timestamp:
		return avroLogicalJSON{"long", "timestamp-millis"}
	}
	panic("BUG: AvroSchema of an unvalidated kind " + k.String())
}
