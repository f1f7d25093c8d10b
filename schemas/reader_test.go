package schemas

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"
)

// read decodes an event with schema id 7 through a reader's schema and gives its row as text.
func read(t *testing.T, writer, reader string, value []byte, inputs ...Input) (string, error) {
	t.Helper()
	decoder, err := NewDecoder(DecoderConfig{Contract: Contract{inputs}, Reader: reader, Registry: &fixedRegistry{schemas: map[int32]string{7: writer}}})
	if err != nil {
		t.Fatalf("%v\n%s", err, reader)
	}
	rows := NewRows(len(inputs), 1)
	if err := decoder.Decode(context.Background(), value, rows); err != nil {
		return "", err
	}
	cells := make([]string, len(inputs))
	for i := range inputs {
		cells[i] = fmt.Sprint(rows.Numbers[i])
		if inputs[i].Kind == Category {
			cells[i] = "nil"
			if rows.Categories[i] != nil {
				cells[i] = string(rows.Categories[i])
			}
		}
	}
	return strings.Join(cells, " "), nil
}

func enum(name, symbols, fallback string) string {
	list := `"` + strings.ReplaceAll(symbols, " ", `","`) + `"`
	if fallback != "" {
		fallback = `,"default":"` + fallback + `"`
	}
	return `{"type":"enum","name":"` + name + `","symbols":[` + list + `]` + fallback + `}`
}

func TestAReadersSchemaIsResolvedAsTheSpecificationSays(t *testing.T) {
	field := func(name, fieldType string) string { return `{"name":"` + name + `","type":` + fieldType + `}` }
	number, category := Input{Name: "x", Kind: Number, Nullable: true}, Input{Name: "x", Kind: Category, Nullable: true}
	millis := `{"type":"long","logicalType":"timestamp-millis"}`
	micros := `{"type":"long","logicalType":"timestamp-micros"}`
	inner := func(name, fields string) string {
		return `{"type":"record","name":"` + name + `","fields":[` + fields + `]}`
	}
	for _, c := range []struct {
		name, writer, reader string // the fields of a record each
		body                 []byte
		input                Input
		want                 string
		refused              []string // words of the error
	}{
		{"same", field("x", `"int"`), field("x", `"int"`), []byte{10}, number, "5", nil},
		{"int to long", field("x", `"int"`), field("x", `"long"`), []byte{10}, number, "5", nil},
		{"int to float loses what a float cannot hold", field("x", `"int"`), field("x", `"float"`), binary.AppendVarint(nil, 16777217), number, "1.6777216e+07", nil},
		{"long to float likewise", field("x", `"long"`), field("x", `"float"`), binary.AppendVarint(nil, -16777217), number, "-1.6777216e+07", nil},
		{"int to double", field("x", `"int"`), field("x", `"double"`), binary.AppendVarint(nil, 16777217), number, "1.6777217e+07", nil},
		{"long to int is none", field("x", `"long"`), field("x", `"int"`), []byte{10}, number, "", []string{`field "x"`, "schema id 7", "writer's type is long", "reader's is int"}},
		{"double to float is none", field("x", `"double"`), field("x", `"float"`), make([]byte, 8), number, "", []string{"double", "float"}},
		{"int to string is none", field("x", `"int"`), field("x", `"string"`), []byte{10}, category, "", []string{"int", "string"}},
		{"string to bytes", field("x", `"string"`), field("x", `"bytes"`), []byte{2, 'a'}, category, "a", nil},
		{"bytes to string", field("x", `"bytes"`), field("x", `"string"`), []byte{2, 'a'}, category, "a", nil},
		{"order does not matter", field("y", `"string"`) + "," + field("x", `"int"`), field("x", `"int"`) + "," + field("y", `"string"`), []byte{2, 'a', 10}, number, "5", nil},
		{"alias of a field", field("old", `"int"`), `{"name":"x","aliases":["older","old"],"type":"int"}`, []byte{10}, number, "5", nil},
		{"the name comes before an alias", field("old", `"int"`) + "," + field("x", `"int"`), `{"name":"x","aliases":["old"],"type":"int"}`, []byte{10, 12}, number, "6", nil},
		{"an alias takes no field from the reader's field of that name", field("old", `"int"`), `{"name":"x","aliases":["old"],"type":"int","default":3},` + field("old", `"int"`), []byte{10}, number, "3", nil},
		{"default", field("y", `"int"`), `{"name":"x","type":"int","default":3}`, []byte{10}, number, "3", nil},
		{"default of a union", field("y", `"int"`), `{"name":"x","type":["null","double"],"default":null}`, []byte{10}, number, "NaN", nil},
		{"default of a text", field("y", `"int"`), `{"name":"x","type":"string","default":"basic"}`, []byte{10}, category, "basic", nil},
		{"default that is out of range", field("y", `"int"`), `{"name":"x","type":"int","default":-3}`, []byte{10}, Input{Name: "x", Kind: Number, Min: bound(0)}, "", []string{"default", "-3 is below"}},
		{"no default", field("y", `"int"`), field("x", `"int"`), []byte{10}, number, "", []string{`field "x"`, "schema id 7", "record E has no such field", "int has no default"}},
		{"a field that no input reads needs a default too", field("x", `"int"`), field("x", `"int"`) + "," + field("z", `"int"`), []byte{10}, number, "", []string{`field "z"`, "no default"}},
		{"record by its short name", field("r", inner("a.R", field("x", `"int"`))), field("r", inner("b.R", field("x", `"long"`))), []byte{10}, Input{Name: "x", Path: "r.x", Kind: Number}, "5", nil},
		{"record by an alias", field("r", inner("a.Old", field("x", `"int"`))), field("r", `{"type":"record","name":"b.R","aliases":["a.Old"],"fields":[`+field("x", `"int"`)+`]}`), []byte{10}, Input{Name: "x", Path: "r.x", Kind: Number}, "5", nil},
		{"record of another name", field("r", inner("Old", field("x", `"int"`))), field("r", inner("R", field("x", `"int"`))), []byte{10}, Input{Name: "x", Path: "r.x", Kind: Number}, "", []string{`field "r"`, "record Old", "record R", "alias"}},
		{"default of a whole record", field("y", `"int"`), `{"name":"r","type":` + inner("R", field("x", `"int"`)+`,{"name":"w","type":"int","default":4}`) + `,"default":{"x":8}}`, []byte{10}, Input{Name: "x", Path: "r.x", Kind: Number}, "8", nil},
		{"union re-ordered", field("x", `["null","int"]`), field("x", `["int","null"]`), []byte{2, 10}, number, "5", nil},
		{"union's null re-ordered", field("x", `["null","int"]`), field("x", `["int","null"]`), []byte{0}, number, "NaN", nil},
		{"union to a plain type", field("x", `["null","int"]`), field("x", `"long"`), []byte{2, 10}, number, "5", nil},
		{"null of a union to a plain type", field("x", `["null","int"]`), field("x", `"long"`), []byte{0}, number, "", []string{`field "x"`, "null", "long"}},
		{"plain type to a union", field("x", `"int"`), field("x", `["null","string","long"]`), []byte{10}, number, "5", nil},
		{"exact branch before a promotion", field("x", `"long"`), field("x", `["float","long"]`), binary.AppendVarint(nil, 16777217), number, "1.6777217e+07", nil},
		{"no branch", field("x", `"string"`), field("x", `["null","int"]`), []byte{2, 'a'}, number, "", []string{"string", "union [null, int]", "no branch"}},
		{"a branch without a place refuses its records only", field("x", `["string","int"]`), field("x", `["null","long"]`), []byte{2, 10}, number, "5", nil},
		{"and says so", field("x", `["string","int"]`), field("x", `["null","long"]`), []byte{0, 2, 'a'}, number, "", []string{"string", "no branch"}},
		{"in what no input reads, too", field("x", `"int"`) + "," + field("y", `["int","string"]`), field("x", `"int"`) + "," + field("y", `["null","int"]`), []byte{10, 2, 2, 'a'}, number, "", []string{`field "y"`, "string"}},
		{"and where it is not taken", field("x", `"int"`) + "," + field("y", `["int","string"]`), field("x", `"int"`) + "," + field("y", `["null","int"]`), []byte{10, 0, 2}, number, "5", nil},
		{"enum", field("x", enum("Symbol", "A B", "")), field("x", enum("Symbol", "B A C", "")), []byte{2}, category, "B", nil},
		{"enum's default for what it does not know", field("x", enum("Symbol", "A NEW", "")), field("x", enum("Symbol", "A OTHER", "OTHER")), []byte{2}, category, "OTHER", nil},
		{"a symbol without a default refuses its records only", field("x", enum("Symbol", "A NEW", "")), field("x", enum("Symbol", "A B", "")), []byte{0}, category, "A", nil},
		{"and says which", field("x", enum("Symbol", "A NEW", "")), field("x", enum("Symbol", "A B", "")), []byte{2}, category, "", []string{"enum Symbol", "NEW"}},
		{"also where no input reads it", field("x", `"int"`) + "," + field("y", enum("Symbol", "A NEW", "")), field("x", `"int"`) + "," + field("y", enum("Symbol", "A B", "")), []byte{10, 2}, number, "", []string{`field "y"`, "NEW"}},
		{"enum without a common symbol", field("x", enum("Symbol", "A", "")), field("x", enum("Symbol", "B", "")), []byte{0}, category, "", []string{"none of its symbols"}},
		{"enum of another name", field("x", enum("Symbol", "A", "")), field("x", enum("Sign", "A", "")), []byte{0}, category, "", []string{"enum Symbol", "enum Sign"}},
		{"enum to string is none", field("x", enum("Symbol", "A", "")), field("x", `"string"`), []byte{0}, category, "", []string{"enum Symbol", "string"}},
		{"fixed of another size", field("x", `"int"`) + `,{"name":"f","type":{"type":"fixed","name":"F","size":2}}`, field("x", `"int"`) + `,{"name":"f","type":{"type":"fixed","name":"F","size":3}}`, []byte{10, 0, 0}, number, "", []string{`field "f"`, "2 bytes", "of 3"}},
		{"fixed of another name", field("x", `"int"`) + `,{"name":"f","type":{"type":"fixed","name":"F","size":2}}`, field("x", `"int"`) + `,{"name":"f","type":{"type":"fixed","name":"G","size":2}}`, []byte{10, 0, 0}, number, "", []string{"fixed F", "fixed G"}},
		{"array's items", field("x", `"int"`) + `,{"name":"a","type":{"type":"array","items":"long"}}`, field("x", `"int"`) + `,{"name":"a","type":{"type":"array","items":"int"}}`, []byte{10, 0}, number, "", []string{`field "a"`, "long", "int"}},
		{"map's values", field("x", `"int"`) + `,{"name":"a","type":{"type":"map","values":"int"}}`, field("x", `"int"`) + `,{"name":"a","type":{"type":"map","values":"double"}}`, []byte{10, 2, 2, 'k', 4, 0}, number, "5", nil},
		{"array of a union that lost a branch", field("x", `"int"`) + `,{"name":"a","type":{"type":"array","items":["int","string"]}}`, field("x", `"int"`) + `,{"name":"a","type":{"type":"array","items":["null","int"]}}`, []byte{10, 4, 0, 2, 0, 4, 0}, number, "5", nil},
		{"and an element of it", field("x", `"int"`) + `,{"name":"a","type":{"type":"array","items":["int","string"]}}`, field("x", `"int"`) + `,{"name":"a","type":{"type":"array","items":["null","int"]}}`, []byte{10, 2, 2, 2, 'a', 0}, number, "", []string{`field "a"`, "string"}},
		{"array to map is none", field("x", `{"type":"array","items":"int"}`), field("x", `{"type":"map","values":"int"}`), []byte{0}, Input{Name: "nothing", Kind: Number, Nullable: true}, "", []string{"array of int", "map of int"}},
		{"nothing but its own field", field("x", `"int"`) + "," + field("y", `"int"`), field("y", `"int"`), []byte{10, 12}, number, "NaN", nil},

		{"microseconds where the reader has milliseconds", field("x", micros), field("x", millis), binary.AppendVarint(nil, 5001), Input{Name: "x", Kind: Timestamp}, "5", nil},
		{"a plain long that the reader calls a time", field("x", `"long"`), field("x", micros), binary.AppendVarint(nil, 5001), Input{Name: "x", Kind: Timestamp}, "5", nil},
		{"a time that the reader calls a plain long, as a number", field("x", micros), field("x", `"long"`), binary.AppendVarint(nil, 5001), number, "5001", nil},
		{"and as a time", field("x", micros), field("x", `"long"`), binary.AppendVarint(nil, 5001), Input{Name: "x", Kind: Timestamp}, "5", nil},
		{"a local time that the reader calls an instant", field("x", `{"type":"long","logicalType":"local-timestamp-micros"}`), field("x", millis), binary.AppendVarint(nil, 5001), Input{Name: "x", Kind: Timestamp}, "5", nil},
		{"a date that the reader calls a time", field("x", `{"type":"int","logicalType":"date"}`), field("x", millis), []byte{10}, Input{Name: "x", Kind: Timestamp}, "", []string{"int/date", "long/timestamp-millis"}},
		{"decimals of another scale", field("x", `{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`), field("x", `{"type":"bytes","logicalType":"decimal","precision":4,"scale":1}`), []byte{2, 5}, number, "", []string{"decimal(4,2)", "decimal(4,1)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := read(t, record(c.writer), record(c.reader), append(AppendFrame(nil, 7), c.body...), c.input)
			if c.refused == nil {
				if err != nil || got != c.want {
					t.Fatalf("%q %v, want %q", got, err, c.want)
				}
				return
			}
			if err == nil {
				t.Fatalf("accepted as %q", got)
			}
			for _, w := range c.refused {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

func TestLogicalTypesFeedInputs(t *testing.T) {
	uuid, _ := hex.DecodeString("00112233445566778899aabbccddeeff")
	term := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 24), 3), math.MaxUint32)
	fixed := func(size int, logical string) string {
		return fmt.Sprintf(`{"type":"fixed","name":"F","size":%d,"logicalType":%s}`, size, logical)
	}
	decimal := `"decimal","precision":18,"scale":2`
	long := func(logical string) string { return `{"type":"long","logicalType":"` + logical + `"}` }
	for _, c := range []struct {
		fieldType string
		body      []byte
		input     Input
		want      string
	}{
		{`{"type":"bytes","logicalType":` + decimal + `}`, []byte{4, 0x04, 0xd2}, Input{Name: "x", Kind: Number}, "12.34"},
		{`{"type":"bytes","logicalType":` + decimal + `}`, []byte{4, 0xfb, 0x2e}, Input{Name: "x", Kind: Number}, "-12.34"},
		{`{"type":"bytes","logicalType":` + decimal + `}`, []byte{0}, Input{Name: "x", Kind: Number}, "0"},
		{`["null",{"type":"bytes","logicalType":` + decimal + `}]`, []byte{2, 2, 0x80}, Input{Name: "x", Kind: Number, Nullable: true}, "-1.28"},
		{fixed(8, decimal), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfb, 0x2e}, Input{Name: "x", Kind: Number}, "-12.34"},
		{fixed(16, `"uuid"`), uuid, Input{Name: "x", Kind: Category}, "00112233-4455-6677-8899-aabbccddeeff"},
		{fixed(12, `"duration"`), term, Input{Name: "x", Path: "x.months", Kind: Number}, "24"},
		{fixed(12, `"duration"`), term, Input{Name: "x", Path: "x.days", Kind: Number}, "3"},
		{fixed(12, `"duration"`), term, Input{Name: "x", Path: "x.millis", Kind: Number}, "4.294967295e+09"},
		{`{"type":"int","logicalType":"date"}`, []byte{9}, Input{Name: "x", Path: "x.days", Kind: Number}, "-5"},
		{`["null",{"type":"int","logicalType":"date"}]`, []byte{0}, Input{Name: "x", Path: "x.days", Kind: Number, Nullable: true}, "NaN"},
		{`{"type":"int","logicalType":"time-millis"}`, []byte{10}, Input{Name: "x", Path: "x.millis", Kind: Number}, "5"},
		{long("time-micros"), binary.AppendVarint(nil, 5999), Input{Name: "x", Path: "x.millis", Kind: Number}, "5"},
		{long("timestamp-nanos"), binary.AppendVarint(nil, -1), Input{Name: "x", Kind: Timestamp}, "-1"},
		{long("timestamp-millis"), []byte{10}, Input{Name: "x", Path: "x.millis", Kind: Number}, "5"},
		{long("local-timestamp-millis"), []byte{10}, Input{Name: "x", Path: "x.millis", Kind: Number}, "5"},
		{long("local-timestamp-micros"), binary.AppendVarint(nil, 5001), Input{Name: "x", Path: "x.millis", Kind: Number}, "5"},
		{long("local-timestamp-nanos"), binary.AppendVarint(nil, 5_000_001), Input{Name: "x", Path: "x.millis", Kind: Number}, "5"},
	} {
		got, err := read(t, record(`{"name":"x","type":`+c.fieldType+`}`), "", append(AppendFrame(nil, 7), c.body...), c.input)
		if err != nil || got != c.want {
			t.Errorf("%s as %+v: %q %v, want %q", c.fieldType, c.input, got, err, c.want)
		}
	}
	for _, c := range []struct {
		fieldType string
		input     Input
		want      string
	}{
		{fixed(12, `"duration"`), Input{Name: "x", Kind: Number}, "duration"},
		{fixed(12, `"duration"`), Input{Name: "x", Path: "x.hours", Kind: Number}, "it has months, days, millis"},
		{fixed(12, `"duration"`), Input{Name: "x", Path: "x.days", Kind: Category}, "needs a category"},
		{`{"type":"int","logicalType":"time-millis"}`, Input{Name: "x", Kind: Number}, "time-millis"},
		{`{"type":"bytes","logicalType":"big-decimal"}`, Input{Name: "x", Kind: Category}, "big-decimal"},
	} {
		_, err := read(t, record(`{"name":"x","type":`+c.fieldType+`}`), "", AppendFrame(nil, 7), c.input)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s as %+v: %v does not say %q", c.fieldType, c.input, err, c.want)
		}
	}
}

func TestDecimalsBecomeTheNearestNumber(t *testing.T) {
	for _, c := range []struct {
		hex   string
		scale int
		want  float64
	}{
		{"", 2, 0},
		{"00", 0, 0},
		{"ff", 3, -0.001},
		{"7f", 0, 127},
		{"80", 0, -128},
		{"0080", 0, 128},
		{"00000000000000000000000000000003", 1, 0.3},
		{"ffffffffffffffffffffffffffffffff", 1, -0.1},
		{"7fffffffffffffff", 0, math.MaxInt64},
		{"8000000000000000", 2, -92233720368547758.08},
		{"1fffffffffffff", 22, 9007199254740991e-22},
		{"1fffffffffffff", 23, 9007199254740991e-23},
		{"20000000000001", 0, 9007199254740992}, // 2^53+1 rounds to even
		{"04ee2d6d415b85acef8100000000", 32, 1},
		{"00ffffffffffffffffffffffffffffffff", 0, 3.4028236692093846e38},
		{"01" + strings.Repeat("00", 128), 0, math.Inf(1)},
		{"80" + strings.Repeat("00", 200), 0, math.Inf(-1)},
		{"01", 400, 0},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := decimal(b, c.scale); got != c.want {
			t.Errorf("%s with scale %d is %v, want %v", c.hex, c.scale, got, c.want)
		}
	}
}

func TestAReadersSchemaThatCannotServeIsRefusedAtOnce(t *testing.T) {
	x := Input{Name: "x", Kind: Number}
	for _, c := range []struct{ reader, want string }{
		{`{`, "not JSON"},
		{record(`{"name":"x","type":"int","default":"a"}`), `default of field "x"`},
		{record(`{"name":"y","type":"int"}`), `"x"`},
		{record(`{"name":"x","type":"string"}`), "needs a number"},
		{`{"type":"record","name":"L","fields":[{"name":"x","type":"int"},{"name":"next","type":["null","L"]}]}`, "contains itself"},
	} {
		_, err := NewDecoder(DecoderConfig{Contract: Contract{[]Input{x}}, Reader: c.reader, Registry: &fixedRegistry{}})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "reader's schema") {
			t.Errorf("%s: %v does not say %q", c.reader, err, c.want)
		}
	}
}

func TestFramingsNameTheSchema(t *testing.T) {
	ctx := context.Background()
	contract := Contract{[]Input{{Name: "x", Kind: Number}}}
	one, other := record(`{"name":"x","type":"int"}`), record(`{"name":"y","type":"string"},{"name":"x","type":"long"}`)
	codec, err := goavro.NewCodec(one)
	if err != nil {
		t.Fatal(err)
	}
	decode := func(cfg DecoderConfig, value []byte) (float64, error) {
		t.Helper()
		cfg.Contract = contract
		decoder, err := NewDecoder(cfg)
		if err != nil {
			t.Fatal(err)
		}
		rows := NewRows(1, 1)
		if err := decoder.Decode(ctx, value, rows); err != nil {
			return 0, err
		}
		return rows.Numbers[0], nil
	}
	if x, err := decode(DecoderConfig{Framing: Bare, Schemas: []string{one}}, []byte{10}); err != nil || x != 5 {
		t.Errorf("bare: %v %v", x, err)
	}
	_, err = decode(DecoderConfig{Framing: Bare, Schemas: []string{one}}, nil)
	checkRecordError(t, err, EmptyValue, "")

	single := DecoderConfig{Framing: SingleObject, Schemas: []string{other, one}}
	fingerprint, err := Schema{Text: one}.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	value := append(AppendObjectFrame(nil, fingerprint), 10)
	theirs, err := codec.SingleFromNative(nil, map[string]any{"x": 5})
	if err != nil || string(theirs) != string(value) {
		t.Errorf("goavro writes % x, we % x (%v)", theirs, value, err)
	}
	if x, err := decode(single, value); err != nil || x != 5 {
		t.Errorf("single object: %v %v", x, err)
	}
	for _, c := range []struct {
		value []byte
		class ErrorClass
	}{
		{nil, EmptyValue},
		{[]byte{0xc3}, Truncated},
		{[]byte{0xc3, 2, 0}, BadMagic},
		{[]byte{0}, BadMagic},
		{value[:9], Truncated},
		{value[:10], Truncated},
		{append(AppendObjectFrame(nil, fingerprint+1), 10), UnknownSchema},
	} {
		_, err := decode(single, c.value)
		path := ""
		if len(c.value) == 10 {
			path = "x"
		}
		checkRecordError(t, err, c.class, path)
	}
	for _, c := range []struct {
		cfg  DecoderConfig
		want string
	}{
		{DecoderConfig{Framing: Bare}, "one schema"},
		{DecoderConfig{Framing: Bare, Schemas: []string{one, one}}, "one schema"},
		{DecoderConfig{Framing: Bare, Schemas: []string{record(`{"name":"x","type":"string"}`)}}, "needs a number"},
		{DecoderConfig{Framing: SingleObject, Schemas: []string{"{"}}, "not JSON"},
		{DecoderConfig{}, "needs a schema registry"},
		{DecoderConfig{Framing: 9}, "framing(9)"},
	} {
		c.cfg.Contract = contract
		if _, err := NewDecoder(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v does not say %q", c.cfg, err, c.want)
		}
	}
	for _, name := range []string{"confluent", "single-object", "bare"} {
		var f Framing
		if err := f.UnmarshalText([]byte(name)); err != nil || f.String() != name {
			t.Errorf("%s becomes %s (%v)", name, f, err)
		}
	}
	if err := new(Framing).UnmarshalText([]byte("protobuf")); err == nil {
		t.Error("an unknown framing is accepted")
	}
}
