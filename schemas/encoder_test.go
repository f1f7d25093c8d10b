package schemas

import (
	"bytes"
	"context"
	"math"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"
	"pgregory.net/rapid"
)

func TestEventsOfAContractAreReadByGoavroAndByTheDecoder(t *testing.T) {
	contract := Contract{[]Input{
		{Name: "fee", Path: "customer.plan.fee", Kind: Number},
		{Name: "country", Kind: Category, Nullable: true},
		{Name: "tier", Path: "customer.plan.tier", Kind: Category},
		{Name: "since", Path: "customer.since", Kind: Date, Nullable: true},
		{Name: "auto", Kind: Boolean, Nullable: true},
		{Name: "at", Kind: Timestamp},
	}}
	schema, err := contract.AvroSchema()
	if err != nil {
		t.Fatal(err)
	}
	codec, err := goavro.NewCodec(schema)
	if err != nil {
		t.Fatalf("%v\n%s", err, schema)
	}
	encoder, err := NewEncoder(contract)
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := NewDecoder(DecoderConfig{Contract: contract, Registry: &fixedRegistry{schemas: map[int32]string{7: schema}}})
	if err != nil {
		t.Fatal(err)
	}
	rows := NewRows(len(contract.Inputs), 2)
	nan := math.NaN()
	for _, c := range []struct {
		numbers    []float64
		categories [][]byte
	}{
		{[]float64{9.5, nan, nan, 20_000, 1, 1.76e12}, [][]byte{nil, []byte("DE"), []byte("pro"), nil, nil, nil}},
		{[]float64{-0.25, nan, nan, nan, nan, -1}, [][]byte{nil, nil, {}, nil, nil, nil}},
	} {
		value, err := encoder.AppendEvent(AppendFrame(nil, 7), c.numbers, c.categories)
		if err != nil {
			t.Fatal(err)
		}
		datum, rest, err := codec.NativeFromBinary(value[5:])
		if err != nil || len(rest) != 0 {
			t.Fatalf("goavro: %v, %d left", err, len(rest))
		}
		again, err := codec.BinaryFromNative(nil, datum)
		if err != nil || !bytes.Equal(again, value[5:]) {
			t.Fatalf("goavro writes %x for %x (%v)", again, value[5:], err)
		}
		rows.Reset()
		if err := decoder.Decode(context.Background(), value, rows); err != nil {
			t.Fatal(err)
		}
		if !sameRow(rows.Numbers, c.numbers) || !sameCategories(rows.Categories, c.categories) {
			t.Errorf("got %v %q, want %v %q", rows.Numbers, rows.Categories, c.numbers, c.categories)
		}
	}
}

func sameRow(a, b []float64) bool {
	for i := range a {
		if math.Float64bits(a[i]) != math.Float64bits(b[i]) && !(math.IsNaN(a[i]) && math.IsNaN(b[i])) {
			return false
		}
	}
	return len(a) == len(b)
}

func sameCategories(a, b [][]byte) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) || !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

func TestEventsThatTheSchemaCannotCarryAreRefused(t *testing.T) {
	contract := Contract{[]Input{{Name: "n", Kind: Number}, {Name: "c", Kind: Category}, {Name: "b", Kind: Boolean}, {Name: "d", Kind: Date}, {Name: "t", Kind: Timestamp}}}
	encoder, err := NewEncoder(contract)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		column int
		number float64
		text   []byte
	}{{0, math.NaN(), nil}, {1, math.NaN(), nil}, {1, math.NaN(), []byte{0xff}}, {2, 0.5, nil}, {3, 1.5, nil}, {3, 1e10, nil}, {4, 0.1, nil}, {4, 1e17, nil}, {4, math.Inf(1), nil}} {
		numbers, categories := []float64{1, math.NaN(), 1, 1, 1}, [][]byte{nil, []byte("x"), nil, nil, nil}
		if _, err := encoder.AppendEvent(nil, numbers, categories); err != nil {
			t.Fatal(err)
		}
		numbers[c.column], categories[c.column] = c.number, c.text
		dst, err := encoder.AppendEvent([]byte("as it was"), numbers, categories)
		if err == nil || !strings.Contains(err.Error(), `"`+contract.Inputs[c.column].Name+`"`) || string(dst) != "as it was" {
			t.Errorf("%+v: %q %v", c, dst, err)
		}
	}
}

// drawn is a random writer's field: its schema, a value for goavro, and what a contract of kind makes of it.
type drawn struct {
	schema   string
	value    any
	kind     Kind // 0: not readable as an input
	number   float64
	category []byte
}

// drawer draws types of any form, with names of its own.
type drawer struct {
	t     *rapid.T
	names int
}

func (d *drawer) name() string {
	d.names++
	return "N" + string(rune('a'+d.names%26)) + strings.Repeat("x", d.names/26)
}

func (d *drawer) draw(depth int) drawn {
	t, nan := d.t, math.NaN()
	top := 13
	if depth == 0 {
		top = 8
	}
	switch rapid.IntRange(0, top).Draw(t, "form") {
	case 0:
		return drawn{`"null"`, nil, 0, nan, nil}
	case 1:
		v := rapid.Int32().Draw(t, "int")
		return drawn{`"int"`, v, Number, float64(v), nil}
	case 2:
		v := rapid.Int64().Draw(t, "long")
		return drawn{`"long"`, v, Number, float64(v), nil}
	case 3:
		v := rapid.Float32Range(-1e9, 1e9).Draw(t, "float")
		return drawn{`"float"`, v, Number, float64(v), nil}
	case 4:
		v := rapid.Float64Range(-1e300, 1e300).Draw(t, "double")
		return drawn{`"double"`, v, Number, v, nil}
	case 5:
		v := rapid.String().Draw(t, "string")
		return drawn{`"string"`, v, Category, nan, []byte(v)}
	case 6:
		v := rapid.Bool().Draw(t, "boolean")
		x := 0.0
		if v {
			x = 1
		}
		return drawn{`"boolean"`, v, Boolean, x, nil}
	case 7:
		v := rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "symbol")
		return drawn{`{"type":"enum","name":"` + d.name() + `","symbols":["A","B","C"]}`, v, Category, nan, []byte(v)}
	case 8:
		v := rapid.SliceOfN(rapid.Byte(), 3, 3).Draw(t, "fixed")
		return drawn{`{"type":"fixed","name":"` + d.name() + `","size":3}`, v, 0, nan, nil}
	case 9:
		element := d.draw(depth - 1)
		values := make([]any, rapid.IntRange(0, 3).Draw(t, "items"))
		for i := range values {
			values[i] = element.value
		}
		return drawn{`{"type":"array","items":` + element.schema + `}`, values, 0, nan, nil}
	case 10:
		element := d.draw(depth - 1)
		values := map[string]any{}
		for i := range rapid.IntRange(0, 3).Draw(t, "entries") {
			values[strings.Repeat("k", i)] = element.value
		}
		return drawn{`{"type":"map","values":` + element.schema + `}`, values, 0, nan, nil}
	case 11:
		name, fields, values := d.name(), []string{}, map[string]any{}
		for range rapid.IntRange(0, 3).Draw(t, "fields") {
			f, field := d.draw(depth-1), "f"+d.name()
			fields = append(fields, `{"name":"`+field+`","type":`+f.schema+`}`)
			values[field] = f.value
		}
		return drawn{`{"type":"record","name":"` + name + `","fields":[` + strings.Join(fields, ",") + `]}`, values, 0, nan, nil}
	default:
		branch := rapid.SampledFrom([]drawn{
			{`"int"`, int32(-7), Number, -7, nil}, {`"double"`, 0.5, Number, 0.5, nil}, {`"string"`, "s", Category, nan, []byte("s")}, {`"boolean"`, true, Boolean, 1, nil},
		}).Draw(t, "branch")
		var value any = goavro.Union(strings.Trim(branch.schema, `"`), branch.value)
		schema := rapid.SampledFrom([]string{`["null",` + branch.schema + `]`, `[` + branch.schema + `,"null"]`, `["null",` + branch.schema + `,"bytes"]`}).Draw(t, "union")
		if rapid.Bool().Draw(t, "null") {
			return drawn{schema, nil, branch.kind, nan, nil}
		}
		return drawn{schema, value, branch.kind, branch.number, branch.category}
	}
}

func TestDecoderAgreesWithGoavroOnRandomSchemas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawer{t: t}
		var inputs []Input
		var numbers []float64
		var categories [][]byte
		fields, value := []string{}, map[string]any{}
		for range rapid.IntRange(1, 12).Draw(t, "width") {
			f, name := d.draw(3), "i"+d.name()
			fields = append(fields, `{"name":"`+name+`","type":`+f.schema+`}`)
			value[name] = f.value
			if f.kind != 0 && rapid.IntRange(0, 3).Draw(t, "wanted") > 0 {
				inputs = append(inputs, Input{Name: name, Kind: f.kind, Nullable: true})
				numbers, categories = append(numbers, f.number), append(categories, f.category)
			}
		}
		if len(inputs) == 0 {
			inputs, numbers, categories = []Input{{Name: "absent", Kind: Number, Nullable: true}}, []float64{math.NaN()}, [][]byte{nil}
		}
		schema := record(strings.Join(fields, ","))
		codec, err := goavro.NewCodec(schema)
		if err != nil {
			t.Fatalf("goavro: %v\n%s", err, schema)
		}
		event, err := codec.BinaryFromNative(AppendFrame(nil, 7), value)
		if err != nil {
			t.Fatalf("goavro: %v", err)
		}
		decoder, err := NewDecoder(DecoderConfig{Contract: Contract{inputs}, Registry: &fixedRegistry{schemas: map[int32]string{7: schema}}})
		if err != nil {
			t.Fatal(err)
		}
		rows := NewRows(len(inputs), 1)
		if err := decoder.Decode(context.Background(), event, rows); err != nil {
			t.Fatalf("%v\n%s\n%x", err, schema, event)
		}
		if !sameRow(rows.Numbers, numbers) || !sameCategories(rows.Categories, categories) {
			t.Fatalf("got %v %q, want %v %q\n%s", rows.Numbers, rows.Categories, numbers, categories, schema)
		}
		// Cut anywhere, the event is refused: everything up to its last byte is needed.
		if cut := rapid.IntRange(5, len(event)).Draw(t, "cut"); cut < len(event) {
			if err := decoder.Decode(context.Background(), event[:cut], rows); err == nil {
				t.Fatalf("cut at %d of %d is accepted\n%s", cut, len(event), schema)
			}
		}
	})
}

func asRecordError(err error, bad **RecordError) bool {
	e, ok := err.(*RecordError) //nolint:errorlint // Decode returns it unwrapped
	*bad = e
	return ok
}
