package tabular

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/churnstream/churnstream/schemas"
)

// Naming says by which other names a file may call the inputs.
type Naming struct {
	// Alias, unless nil, gives the name of the input that a column of this other name may stand for, "" if it is none. A
	// column that is called like the input goes before.
	Alias func(column string) string
	Hint  string // ends the error that names absent columns
}

// match finds the inputs among the columns of a file.
type match struct {
	naming Naming
	inputs []schemas.Input
	byName map[string]int
	names  []string // of each input in the file; "": not found yet
	left   int      // inputs not found yet
}

func newMatch(contract schemas.Contract, naming Naming) *match {
	m := &match{
		naming: naming, inputs: contract.Inputs, byName: make(map[string]int, len(contract.Inputs)),
		names: make([]string, len(contract.Inputs)), left: len(contract.Inputs),
	}
	for i := range contract.Inputs {
		m.byName[contract.Inputs[i].Name] = i
	}
	return m
}

// columns finds every input among all the columns that there are.
func (m *match) columns(columns []string, where string) error {
	for _, column := range columns {
		if i, ok := m.byName[column]; ok {
			m.names[i] = column
			m.left--
		}
	}
	for _, column := range columns {
		i, ok := m.alias(column)
		if !ok || m.names[i] == m.inputs[i].Name {
			continue
		}
		if err := m.found(i, column); err != nil {
			return err
		}
	}
	return m.absent(where, "column")
}

// alias is the input that a column of another name may stand for.
func (m *match) alias(column string) (input int, ok bool) {
	if _, own := m.byName[column]; own || m.naming.Alias == nil {
		return 0, false
	}
	input, ok = m.byName[m.naming.Alias(column)]
	return input, ok
}

// found notes what the file calls an input.
func (m *match) found(i int, column string) error {
	switch before := m.names[i]; {
	case before == "":
		m.names[i] = column
		m.left--
	case before != column:
		return fmt.Errorf("%q and %q can both be the input %q: rename the one that is not", min(before, column), max(before, column), m.inputs[i].Name)
	}
	return nil
}

// keys finds inputs among the keys of an object and makes its values known by the inputs' names.
func (m *match) keys(fields map[string]json.RawMessage) error {
	if m.left == 0 && (m.naming.Alias == nil || m.complete(fields)) {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		i, own := m.byName[key]
		if !own {
			var ok bool
			if i, ok = m.alias(key); !ok {
				continue
			}
			if _, ok := fields[m.inputs[i].Name]; ok && m.names[i] != key {
				continue // what is called like the input goes before
			}
		}
		if err := m.found(i, key); err != nil {
			return err
		}
	}
	for i, name := range m.names {
		if value, ok := fields[name]; ok && name != "" {
			fields[m.inputs[i].Name] = value
		}
	}
	return nil
}

// complete says whether an object has every input under its own name.
func (m *match) complete(fields map[string]json.RawMessage) bool {
	for i := range m.inputs {
		if _, ok := fields[m.inputs[i].Name]; !ok {
			return false
		}
	}
	return true
}

// absent is the error that names the inputs that were not found.
func (m *match) absent(where, column string) error {
	if m.left == 0 {
		return nil
	}
	names := make([]string, 0, min(m.left, 10))
	for i := range m.inputs {
		if m.names[i] == "" && len(names) < cap(names) {
			names = append(names, m.inputs[i].Name)
		}
	}
	return fmt.Errorf("%s: %d of the model's %d inputs have no %s: %q%s", where, m.left, len(m.inputs), column, names, m.naming.Hint)
}

// renamed is the contract under the names that the file has.
func (m *match) renamed(contract schemas.Contract) schemas.Contract {
	contract.Inputs = slices.Clone(contract.Inputs)
	for i := range contract.Inputs {
		contract.Inputs[i].Name = m.names[i]
	}
	return contract
}
