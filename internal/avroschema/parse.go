// Package avroschema takes Avro schema texts and gives resolved type graphs, canonical forms, and the reasons why one
// schema cannot read what another wrote.
//
// It knows types only; decoding bytes is done elsewhere. It accepts what the Avro specification allows, including what
// common parsers refuse: zero-sized fixed types, defaults that match a later branch of a union, and decimals without a
// precision (an invalid logical type is ignored).
package avroschema

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Kind is the form of an Avro type.
type Kind uint8

// The Avro types.
const (
	Null Kind = iota
	Boolean
	Int
	Long
	Float
	Double
	Bytes
	String
	Record
	Enum
	Array
	Map
	Union
	Fixed
)

var kindNames = [...]string{
	"null", "boolean", "int", "long", "float", "double", "bytes", "string",
	"record", "enum", "array", "map", "union", "fixed",
}

// String returns the Avro name of the kind.
func (k Kind) String() string { return kindNames[k] }

// Type is one type of a parsed schema. It is immutable. Types that refer to themselves make the graph cyclic.
type Type struct {
	Kind    Kind
	Name    string   // full name of a record, enum or fixed
	Aliases []string // full names
	Logical string   // logicalType as written, empty if none; see Meaning
	Fields  []Field  // of a record
	Symbols []string // of an enum
	Default string   // symbol an enum falls back to, empty if none
	Items   *Type    // of an array or map
	// Branches of a union.
	Branches []*Type
	Size     int // of a fixed, bytes
	// Precision and Scale of a decimal: digits, and how many of them are behind the point.
	Precision, Scale int
}

// Field is one field of a record.
type Field struct {
	Name       string
	Aliases    []string
	Type       *Type
	HasDefault bool
	Default    any // JSON value, numbers as json.Number; see [AppendDefault]
}

// String describes the type in few words: its logical type, name or form.
func (t *Type) String() string {
	switch t.Kind {
	case Record, Enum, Fixed:
		return t.Kind.String() + " " + t.Name + t.meaningSuffix()
	case Array, Map:
		return t.Kind.String() + " of " + t.Items.String()
	case Union:
		names := make([]string, len(t.Branches))
		for i, b := range t.Branches {
			names[i] = b.String()
		}
		return "union [" + strings.Join(names, ", ") + "]"
	default:
		return t.Kind.String() + t.meaningSuffix()
	}
}

func (t *Type) meaningSuffix() string {
	switch {
	case t.Logical == "":
		return ""
	case t.Meaning() == Decimal:
		return fmt.Sprintf("/decimal(%d,%d)", t.Precision, t.Scale)
	default:
		return "/" + t.Logical
	}
}

// maxDepth bounds how deeply a schema's types may nest; it is far above what people write and far below the stack.
const maxDepth = 128

// Parse reads a schema. The texts of schemas that it refers to by name come first to last, each before its first use.
func Parse(schema string, references ...string) (*Type, error) {
	p := parser{named: make(map[string]*Type)}
	for i, text := range references {
		if _, err := p.text(text); err != nil {
			return nil, fmt.Errorf("avro schema: reference %d: %w", i, err)
		}
	}
	t, err := p.text(schema)
	if err != nil {
		return nil, fmt.Errorf("avro schema: %w", err)
	}
	return t, nil
}

// maxTypes bounds the types and fields of a schema, and with them the work and the memory that a text can ask for.
const maxTypes = 1 << 16

type parser struct {
	named map[string]*Type
	types int
}

func (p *parser) text(schema string) (*Type, error) {
	dec := json.NewDecoder(strings.NewReader(schema))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text follows the schema")
	}
	return p.parse(v, "", 0)
}

func (p *parser) parse(v any, namespace string, depth int) (*Type, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("types nest deeper than %d", maxDepth)
	}
	if p.types++; p.types > maxTypes {
		return nil, fmt.Errorf("there are more than %d types", maxTypes)
	}
	switch v := v.(type) {
	case string:
		return p.byName(v, namespace)
	case []any:
		return p.union(v, namespace, depth)
	case map[string]any:
		return p.object(v, namespace, depth)
	default:
		return nil, fmt.Errorf("%s is not a type; a type is a name, an object or an array", brief(v))
	}
}

func (p *parser) byName(name, namespace string) (*Type, error) {
	if kind, ok := primitive(name); ok {
		return &Type{Kind: kind}, nil
	}
	full := fullName(name, namespace)
	if t := p.named[full]; t != nil {
		return t, nil
	}
	if t := p.named[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("type %q is not defined before its use", full)
}

func primitive(name string) (Kind, bool) {
	for k := Null; k <= String; k++ {
		if kindNames[k] == name {
			return k, true
		}
	}
	return 0, false
}

func (p *parser) union(list []any, namespace string, depth int) (*Type, error) {
	t := &Type{Kind: Union, Branches: make([]*Type, 0, len(list))}
	seen := make(map[string]bool, len(list))
	for i, v := range list {
		branch, err := p.parse(v, namespace, depth+1)
		if err != nil {
			return nil, fmt.Errorf("union branch %d: %w", i, err)
		}
		if branch.Kind == Union {
			return nil, fmt.Errorf("union branch %d is a union itself", i)
		}
		id := branch.Kind.String()
		if branch.Name != "" {
			id = branch.Name
		}
		if seen[id] {
			return nil, fmt.Errorf("union has %s twice", id)
		}
		seen[id] = true
		t.Branches = append(t.Branches, branch)
	}
	return t, nil
}

func (p *parser) object(o map[string]any, namespace string, depth int) (*Type, error) {
	form, isText := o["type"].(string)
	if !isText {
		if o["type"] == nil {
			return nil, fmt.Errorf("%s has no type", brief(o))
		}
		return p.parse(o["type"], namespace, depth+1) // {"type": {"type": "int"}}, as some tools write it
	}
	switch form {
	case "record", "error":
		return p.record(o, namespace, depth)
	case "enum":
		return p.enum(o, namespace)
	case "fixed":
		return p.fixed(o, namespace)
	case "array", "map":
		kind, key := Array, "items"
		if form == "map" {
			kind, key = Map, "values"
		}
		if o[key] == nil {
			return nil, fmt.Errorf("%s has no %s", form, key)
		}
		items, err := p.parse(o[key], namespace, depth+1)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", form, key, err)
		}
		return &Type{Kind: kind, Items: items}, nil
	}
	t, err := p.byName(form, namespace)
	if err != nil {
		return nil, err
	}
	if logical, _ := o["logicalType"].(string); logical != "" && t.Kind <= String {
		t = &Type{Kind: t.Kind, Logical: logical}
		t.digits(o)
	}
	return t, nil
}

// define names a type and makes it known, before its fields are read: they may refer to it.
func (p *parser) define(kind Kind, o map[string]any, namespace string) (t *Type, inner string, err error) {
	name, _ := o["name"].(string)
	if name == "" {
		return nil, "", fmt.Errorf("%s has no name", kind)
	}
	if ns, given := o["namespace"].(string); given && !strings.Contains(name, ".") {
		namespace = ns
	}
	full := fullName(name, namespace)
	for part := range strings.SplitSeq(full, ".") {
		if !validName(part) {
			return nil, "", fmt.Errorf("%s name %q is not made of letters, digits and _", kind, full)
		}
	}
	if _, reserved := primitive(full); reserved {
		return nil, "", fmt.Errorf("%s cannot be called %q", kind, full)
	}
	if p.named[full] != nil {
		return nil, "", fmt.Errorf("type %q is defined twice", full)
	}
	if dot := strings.LastIndexByte(full, '.'); dot >= 0 {
		inner = full[:dot]
	}
	t = &Type{Kind: kind, Name: full}
	if t.Logical, _ = o["logicalType"].(string); t.Logical != "" {
		t.digits(o)
	}
	for _, alias := range texts(o["aliases"]) {
		t.Aliases = append(t.Aliases, fullName(alias, inner))
	}
	p.named[full] = t
	return t, inner, nil
}

func (p *parser) record(o map[string]any, namespace string, depth int) (*Type, error) {
	t, inner, err := p.define(Record, o, namespace)
	if err != nil {
		return nil, err
	}
	list, ok := o["fields"].([]any)
	if !ok {
		return nil, fmt.Errorf("record %s has no fields; an empty record has []", t.Name)
	}
	seen := make(map[string]bool, len(list))
	fields := make([]Field, 0, len(list))
	for i, v := range list {
		f, _ := v.(map[string]any)
		name, _ := f["name"].(string)
		switch {
		case !validName(name):
			return nil, fmt.Errorf("record %s: field %d is called %q, which is not made of letters, digits and _", t.Name, i, name)
		case seen[name]:
			return nil, fmt.Errorf("record %s has field %q twice", t.Name, name)
		case f["type"] == nil:
			return nil, fmt.Errorf("record %s: field %q has no type", t.Name, name)
		}
		seen[name] = true
		field := Field{Name: name, Aliases: texts(f["aliases"])}
		field.Default, field.HasDefault = f["default"]
		// A field object may itself carry the attributes of a plain type: {"name": "d", "type": "int", "logicalType":
		// "date"} has no logical type by the specification, so they are not looked at.
		if field.Type, err = p.parse(f["type"], inner, depth+1); err != nil {
			return nil, fmt.Errorf("record %s: field %q: %w", t.Name, name, err)
		}
		fields = append(fields, field)
	}
	t.Fields = fields
	return t, nil
}

func (p *parser) enum(o map[string]any, namespace string) (*Type, error) {
	t, _, err := p.define(Enum, o, namespace)
	if err != nil {
		return nil, err
	}
	list, ok := o["symbols"].([]any)
	if !ok {
		return nil, fmt.Errorf("enum %s has no symbols", t.Name)
	}
	seen := make(map[string]bool, len(list))
	for i, v := range list {
		symbol, _ := v.(string)
		if !validName(symbol) {
			return nil, fmt.Errorf("enum %s: symbol %d is %s, which is not made of letters, digits and _", t.Name, i, brief(v))
		}
		if seen[symbol] {
			return nil, fmt.Errorf("enum %s has symbol %q twice", t.Name, symbol)
		}
		seen[symbol] = true
		t.Symbols = append(t.Symbols, symbol)
	}
	if v, given := o["default"]; given {
		symbol, _ := v.(string)
		if !seen[symbol] {
			return nil, fmt.Errorf("enum %s: default %s is none of its symbols", t.Name, brief(v))
		}
		t.Default = symbol
	}
	return t, nil
}

// maxFixed bounds a fixed type's size; a record holds far less.
const maxFixed = 1 << 30

func (p *parser) fixed(o map[string]any, namespace string) (*Type, error) {
	t, _, err := p.define(Fixed, o, namespace)
	if err != nil {
		return nil, err
	}
	number, _ := o["size"].(json.Number)
	size, err := number.Int64()
	if err != nil || size < 0 || size > maxFixed {
		return nil, fmt.Errorf("fixed %s: size %s is not a whole number from 0 to %d", t.Name, brief(o["size"]), maxFixed)
	}
	t.Size = int(size)
	return t, nil
}

func fullName(name, namespace string) string {
	if namespace == "" || strings.Contains(name, ".") {
		return strings.TrimPrefix(name, ".")
	}
	return namespace + "." + name
}

func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func texts(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, e := range list {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// brief shows a JSON value in an error message.
func brief(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return "a value"
	}
	if len(text) > 60 {
		return string(text[:57]) + "..."
	}
	return string(text)
}
