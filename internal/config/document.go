package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document decodes a YAML file key by key, so that one fault does not hide the next.
type document struct {
	path   string
	faults []error
	named  map[string]bool // keys with a fault: what they were left at says nothing
}

// decode sets the keys that are right and collects the faults of the others. It is false when the text is not YAML.
func (d *document) decode(text []byte, cfg *Config) bool {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var root yaml.Node
	if err := decoder.Decode(&root); errors.Is(err, io.EOF) {
		return true
	} else if err != nil {
		d.faults = append(d.faults, fmt.Errorf("%s: %s", d.path, strings.TrimPrefix(err.Error(), "yaml: ")))
		return false
	}
	// A first pass without types finds keys that occur twice, and aliases that hold themselves or unfold without end.
	var many *yaml.TypeError
	if err := root.Decode(new(any)); errors.As(err, &many) {
		for _, e := range many.Errors {
			d.faults = append(d.faults, fmt.Errorf("%s: %s", d.path, e))
		}
	} else if err != nil {
		d.faults = append(d.faults, fmt.Errorf("%s: %s", d.path, strings.TrimPrefix(err.Error(), "yaml: ")))
		return false
	}
	d.mapping(root.Content[0], reflect.ValueOf(cfg).Elem(), "")
	if err := decoder.Decode(new(yaml.Node)); err == nil {
		d.faults = append(d.faults, fmt.Errorf("%s: holds more than one YAML document; keep the first", d.path))
	}
	return true
}

func (d *document) fault(n *yaml.Node, key, format string, args ...any) {
	d.named[key] = true
	d.faults = append(d.faults, fmt.Errorf("%s: line %d: %s: %s", d.path, n.Line, key, fmt.Sprintf(format, args...)))
}

// mapping sets the fields of a section. Prefix is the section's key with a dot, or nothing.
func (d *document) mapping(n *yaml.Node, section reflect.Value, prefix string) {
	n = resolved(n)
	if n.Tag == "!!null" {
		return // nothing but comments
	}
	if n.Kind != yaml.MappingNode {
		d.fault(n, cmp.Or(strings.TrimSuffix(prefix, "."), "the file"), "%s is not a section of keys", spelt(n))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 { // what is merged in yields to the section's own keys
		if n.Content[i].Tag == "!!merge" {
			d.merge(n.Content[i+1], section, prefix)
		}
	}
	fields := fieldsOf(section)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.Tag == "!!merge" {
			continue
		}
		field, ok := fields[name.Value]
		if !ok {
			d.faults = append(d.faults, fmt.Errorf("%s: line %d: unknown key %s; `churnstream config print` shows all keys", d.path, name.Line, prefix+name.Value))
			continue
		}
		d.value(value, field, prefix+name.Value)
	}
}

func (d *document) merge(n *yaml.Node, section reflect.Value, prefix string) {
	if n = resolved(n); n.Kind == yaml.SequenceNode {
		for _, one := range n.Content {
			d.mapping(one, section, prefix)
		}
		return
	}
	d.mapping(n, section, prefix)
}

func (d *document) value(n *yaml.Node, field reflect.Value, key string) {
	if field.Kind() == reflect.Struct {
		d.mapping(n, field, key+".")
		return
	}
	var many *yaml.TypeError
	if err := n.Decode(field.Addr().Interface()); errors.As(err, &many) {
		d.fault(n, key, "%s is not %s", spelt(resolved(n)), wanted(field))
	} else if err != nil { // of UnmarshalText
		d.fault(n, key, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
}

func fieldsOf(section reflect.Value) map[string]reflect.Value {
	fields := make(map[string]reflect.Value, section.NumField())
	for i := range section.NumField() {
		key, _, _ := strings.Cut(section.Type().Field(i).Tag.Get("yaml"), ",")
		fields[key] = section.Field(i)
	}
	return fields
}

func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// spelt is a value as a message shows it.
func spelt(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a section of keys"
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
	return fmt.Sprintf("%q", n.Value)
}

// wanted says in words of the file what a key takes.
func wanted(field reflect.Value) string {
	switch {
	case field.Type() == reflect.TypeFor[Duration]():
		return "a duration such as 500ms or 1m30s"
	case field.Kind() == reflect.Bool:
		return "true or false"
	case field.CanInt():
		return "a whole number (of at most 64 bits)"
	case field.CanFloat():
		return "a number"
	case field.Kind() == reflect.Slice:
		return "a list of texts such as [a, b]"
	default:
		return "a text"
	}
}
