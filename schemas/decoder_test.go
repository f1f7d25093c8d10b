package schemas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
)

// fixedRegistry knows schemas by id and fails with err if it is set.
type fixedRegistry struct {
	mu      sync.Mutex
	schemas map[int32]string
	err     error
}

func (r *fixedRegistry) SchemaByID(_ context.Context, id int32) (Schema, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return Schema{}, r.err
	}
	text, ok := r.schemas[id]
	if !ok {
		return Schema{}, fmt.Errorf("id %d: %w", id, ErrSchemaNotFound)
	}
	return Schema{Text: text}, nil
}

func (r *fixedRegistry) Register(context.Context, string, string) (int32, error) { return 0, r.err }

func bound(v float64) *float64 { return &v }

// encode writes a value with goavro as schema id 7.
func encode(t testing.TB, schema string, native any) []byte {
	t.Helper()
	codec, err := goavro.NewCodec(schema)
	if err != nil {
		t.Fatalf("goavro: %v\n%s", err, schema)
	}
	value, err := codec.BinaryFromNative(AppendFrame(nil, 7), native)
	if err != nil {
		t.Fatalf("goavro: %v", err)
	}
	return value
}

func record(fields string) string {
	return `{"type":"record","name":"E","fields":[` + fields + `]}`
}

func decodeOne(t testing.TB, schema string, value []byte, inputs ...Input) (float64, []byte, error) {
	t.Helper()
	decoder, err := NewDecoder(DecoderConfig{Contract: Contract{inputs}, Registry: &fixedRegistry{schemas: map[int32]string{7: schema}}})
	if err != nil {
		t.Fatal(err)
	}
	rows := NewRows(len(inputs), 1)
	if err := decoder.Decode(context.Background(), value, rows); err != nil {
		if rows.Len() != 0 {
			t.Errorf("a failed decode left %d rows", rows.Len())
		}
		return 0, nil, err
	}
	if rows.Len() != 1 {
		t.Errorf("decode made %d rows", rows.Len())
	}
	numbers, categories := rows.Row(0)
	return numbers[0], categories[0], nil
}

func TestEveryKindReadsWhatAvroPromotes(t *testing.T) {
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	at := time.Date(1969, 12, 31, 23, 59, 59, 999_500_000, time.UTC)
	for _, c := range []struct {
		name, fieldType string
		value           any
		kind            Kind
		want            any // float64, string or nil for missing
	}{
		{"int", `"int"`, int32(-5), Number, -5.0},
		{"long", `"long"`, int64(1) << 40, Number, float64(1 << 40)},
		{"float", `"float"`, float32(0.5), Number, 0.5},
		{"double", `"double"`, 2.25, Number, 2.25},
		{"unknown logical type", `{"type":"int","logicalType":"age"}`, int32(3), Number, 3.0},
		{"string", `"string"`, "pro", Category, "pro"},
		{"empty string", `"string"`, "", Category, ""},
		{"uuid", `{"type":"string","logicalType":"uuid"}`, "0b1c", Category, "0b1c"},
		{"bytes", `"bytes"`, []byte("né"), Category, "né"},
		{"enum", `{"type":"enum","name":"P","symbols":["FREE","PRO"]}`, "PRO", Category, "PRO"},
		{"boolean", `"boolean"`, true, Boolean, 1.0},
		{"false", `"boolean"`, false, Boolean, 0.0},
		{"date", `{"type":"int","logicalType":"date"}`, day, Date, float64(day.Unix() / 86400)},
		{"plain date", `"int"`, int32(7), Date, 7.0},
		{"millis", `{"type":"long","logicalType":"timestamp-millis"}`, day, Timestamp, float64(day.UnixMilli())},
		{"micros", `{"type":"long","logicalType":"timestamp-micros"}`, at, Timestamp, -1.0},
		{"plain long", `"long"`, int64(12), Timestamp, 12.0},
		{"null", `["null","double"]`, nil, Number, nil},
		{"value in union", `["null","int"]`, goavro.Union("int", int32(4)), Number, 4.0},
		{"null last", `["string","null"]`, nil, Category, nil},
		{"value in union, null last", `["string","null"]`, goavro.Union("string", "x"), Category, "x"},
		{"many branches", `["null","string","int","double"]`, goavro.Union("double", 1.5), Number, 1.5},
		{"one branch", `["int"]`, goavro.Union("int", 8), Number, 8.0},
		{"null type", `"null"`, nil, Number, nil},
		{"NaN", `"double"`, math.NaN(), Number, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			schema := record(`{"name":"before","type":"string"},{"name":"x","type":` + c.fieldType + `},{"name":"after","type":"long"}`)
			value := encode(t, schema, map[string]any{"before": "b", "x": c.value, "after": 77})
			number, category, err := decodeOne(t, schema, value, Input{Name: "x", Kind: c.kind, Nullable: true})
			if err != nil {
				t.Fatal(err)
			}
			switch want := c.want.(type) {
			case float64:
				if number != want || category != nil {
					t.Fatalf("got %v %q, want %v", number, category, want)
				}
			case string:
				if category == nil || string(category) != want || !math.IsNaN(number) {
					t.Fatalf("got %v %q, want %q", number, category, want)
				}
			default:
				if !math.IsNaN(number) || category != nil {
					t.Fatalf("got %v %q, want missing", number, category)
				}
			}
		})
	}
}

func TestWhatCannotBeConvertedIsRefusedBySchema(t *testing.T) {
	for _, c := range []struct {
		fieldType string
		kind      Kind
	}{
		{`"string"`, Number},
		{`"boolean"`, Number},
		{`{"type":"int","logicalType":"date"}`, Number},
		{`{"type":"long","logicalType":"timestamp-millis"}`, Number},
		{`{"type":"array","items":"double"}`, Number},
		{`"int"`, Category},
		{`{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`, Category},
		{`{"type":"fixed","name":"F","size":3}`, Category},
		{`"int"`, Boolean},
		{`"long"`, Date},
		{`{"type":"int","logicalType":"time-millis"}`, Date},
		{`{"type":"int","logicalType":"date"}`, Timestamp},
		{`{"type":"long","logicalType":"local-timestamp-millis"}`, Timestamp},
		{`{"type":"long","logicalType":"time-micros"}`, Timestamp},
		{`"double"`, Timestamp},
		{`["null","string"]`, Number},
	} {
		_, _, err := decodeOne(t, record(`{"name":"x","type":`+c.fieldType+`}`), AppendFrame(nil, 7), Input{Name: "x", Kind: c.kind, Nullable: true})
		checkRecordError(t, err, SchemaMismatch, "x", "schema id 7", c.kind.String())
	}
}

func checkRecordError(t *testing.T, err error, class ErrorClass, path string, words ...string) {
	t.Helper()
	var bad *RecordError
	if !errors.As(err, &bad) {
		t.Errorf("got %v, want a record error of class %s", err, class)
		return
	}
	if bad.Class != class || bad.Path != path {
		t.Errorf("got class %s path %q (%v), want %s %q", bad.Class, bad.Path, err, class, path)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestBadRecordsHaveTheirClass(t *testing.T) {
	schema := record(`{"name":"x","type":"double"},{"name":"s","type":["null","string"]},{"name":"i","type":"int"}`)
	good := encode(t, schema, map[string]any{"x": 3.0, "s": goavro.Union("string", "ab"), "i": 1})
	with := func(x float64, s any) []byte { return encode(t, schema, map[string]any{"x": x, "s": s, "i": 1}) }
	x := Input{Name: "x", Kind: Number, Min: bound(0), Max: bound(10)}
	s := Input{Name: "s", Kind: Category, Nullable: true}
	required := Input{Name: "s", Kind: Category}
	edit := func(at int, b ...byte) []byte {
		return append(append(bytes.Clone(good[:at]), b...), good[at+len(b):]...)
	}
	for _, c := range []struct {
		name   string
		value  []byte
		inputs []Input
		class  ErrorClass
		path   string
		words  []string
	}{
		{"null value", nil, []Input{x}, EmptyValue, "", nil},
		{"wrong magic", append([]byte{1}, good[1:]...), []Input{x}, BadMagic, "", []string{"0x01"}},
		{"short header", good[:4], []Input{x}, Truncated, "", nil},
		{"unknown id", AppendFrame(nil, 99), []Input{x}, UnknownSchema, "", []string{"99"}},
		{"cut in a number", good[:9], []Input{x}, Truncated, "x", nil},
		{"cut in a skipped text", good[:len(good)-2], []Input{x}, Truncated, "s", nil},
		{"cut in a text", good[:len(good)-2], []Input{x, s}, Truncated, "s", nil},
		{"cut before the end", good[:len(good)-1], []Input{x}, Truncated, "i", nil},
		{"bytes left over", append(bytes.Clone(good), 0), []Input{x}, TrailingBytes, "", []string{"1 bytes"}},
		{"union branch", edit(13, 4), []Input{x, s}, Malformed, "s", nil},
		{"negative length", edit(14, 1), []Input{x, s}, Malformed, "s", nil},
		{"int of 33 bits", append(bytes.Clone(good[:len(good)-1]), 0x80, 0x80, 0x80, 0x80, 0x20), []Input{x}, Malformed, "i", nil},
		{"int of 33 bits as input", append(bytes.Clone(good[:len(good)-1]), 0x80, 0x80, 0x80, 0x80, 0x20), []Input{{Name: "i", Kind: Number}}, Malformed, "i", nil},
		{"endless number", append(bytes.Clone(good[:len(good)-1]), bytes.Repeat([]byte{0xff}, 11)...), []Input{x}, Malformed, "i", nil},
		{"number without an end", append(bytes.Clone(good[:len(good)-1]), 0xff), []Input{x}, Truncated, "i", nil},
		{"below min", with(-1, nil), []Input{x}, OutOfRange, "x", []string{"-1", "minimum 0"}},
		{"above max", with(10.5, nil), []Input{x}, OutOfRange, "x", []string{"10.5", "maximum 10"}},
		{"infinite", with(math.Inf(1), nil), []Input{{Name: "x", Kind: Number}}, OutOfRange, "x", []string{"+Inf"}},
		{"infinite though nullable", with(math.Inf(-1), nil), []Input{{Name: "x", Kind: Number, Nullable: true}}, OutOfRange, "x", nil},
		{"NaN", with(math.NaN(), nil), []Input{x}, NotANumber, "x", nil},
		{"not UTF-8", with(1, goavro.Union("string", "a\xff")), []Input{x, s}, InvalidUTF8, "s", nil},
		{"null in a required input", with(1, nil), []Input{x, required}, MissingField, "s", nil},
		{"field not in the schema", good, []Input{x, {Name: "tenure", Kind: Date}}, MissingField, "tenure", []string{"schema id 7", "record E", "date"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := decodeOne(t, schema, c.value, c.inputs...)
			checkRecordError(t, err, c.class, c.path, c.words...)
		})
	}
	if _, _, err := decodeOne(t, schema, good, x, s, Input{Name: "later", Kind: Number, Nullable: true}); err != nil {
		t.Errorf("an absent nullable input: %v", err)
	}
	if _, _, err := decodeOne(t, schema, with(10, nil), x); err != nil {
		t.Errorf("bounds are inclusive: %v", err)
	}
	if _, _, err := decodeOne(t, schema, with(1, goavro.Union("string", "a\xff")), x); err != nil {
		t.Errorf("text that no input reads is stepped over: %v", err)
	}
}

func TestAllFaultsOfASchemaAreNamedAtOnce(t *testing.T) {
	_, _, err := decodeOne(t, record(`{"name":"a","type":"string"}`), AppendFrame(nil, 7),
		Input{Name: "a", Kind: Number}, Input{Name: "b", Kind: Boolean}, Input{Name: "c", Path: "d.e", Kind: Date})
	checkRecordError(t, err, SchemaMismatch, "a", "schema id 7", `"a"`, "string", "number", `"b"`, "boolean", `"d.e"`, "date")
}

// The texts are read by whoever looks at dead letters: each place is named once.
func TestTheTextOfARefusedSchemaNamesEachPlaceOnce(t *testing.T) {
	a, b := Input{Name: "a", Kind: Number}, Input{Name: "b", Kind: Boolean}
	for _, c := range []struct {
		schema string
		inputs []Input
		want   string
	}{
		{record(`{"name":"a","type":"string"}`), []Input{a}, `schema_mismatch: field "a": schema id 7: the writer's type is string, the contract needs a number`},
		{
			record(`{"name":"a","type":"string"},{"name":"b","type":"int"}`),
			[]Input{a, b},
			`schema_mismatch: field "a": schema id 7: the writer's type is string, the contract needs a number; field "b": the writer's type is int, the contract needs a boolean`,
		},
		{`"int"`, []Input{a}, `schema_mismatch: schema id 7: the writer's type is int, the contract needs a record with "a"`},
		{`["null","int"]`, []Input{a}, `schema_mismatch: schema id 7: the writer's type is int, the contract needs a record with "a"`},
	} {
		if _, _, err := decodeOne(t, c.schema, AppendFrame(nil, 7), c.inputs...); err == nil || err.Error() != c.want {
			t.Errorf("%s:\n got %v\nwant %s", c.schema, err, c.want)
		}
	}
}

func TestRegistryOutageIsNoRecordError(t *testing.T) {
	registry := &fixedRegistry{err: errors.New("connection refused")}
	decoder, err := NewDecoder(DecoderConfig{Contract: Contract{[]Input{{Name: "x", Kind: Number}}}, Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	rows := NewRows(1, 1)
	err = decoder.Decode(context.Background(), AppendFrame(nil, 7), rows)
	var bad *RecordError
	if err == nil || errors.As(err, &bad) {
		t.Fatalf("got %v", err)
	}
	registry.err = nil
	registry.schemas = map[int32]string{7: record(`{"name":"x","type":"int"}`)}
	if err := decoder.Decode(context.Background(), append(AppendFrame(nil, 7), 4), rows); err != nil || rows.Numbers[0] != 2 {
		t.Fatalf("after the outage: %v %v", err, rows.Numbers)
	}
}

func TestSchemasThatCannotBeCompiledAreBadRecords(t *testing.T) {
	wide := `{"name":"f","type":{"type":"record","name":"R0","fields":[{"name":"i","type":"int"}]}}`
	for i := 1; i <= 40; i++ {
		wide = fmt.Sprintf(`{"name":"f","type":{"type":"record","name":"R%d","fields":[%s,{"name":"g","type":"R%d"}]}}`, i, wide, i-1)
	}
	for _, c := range []struct{ schema, want string }{
		{`{"type":"record","name":"L","fields":[{"name":"x","type":"int"},{"name":"next","type":["null","L"]}]}`, "contains itself"},
		{record(wide), "more than 32768 types"},
		{`{`, "not JSON"},
		{`"int"`, "needs a record"},
		{record(`{"name":"x","type":"Unknown"}`), "not defined"},
	} {
		_, _, err := decodeOne(t, c.schema, AppendFrame(nil, 7), Input{Name: "x", Kind: Number})
		checkRecordError(t, err, SchemaMismatch, "", "schema id 7", c.want)
	}
}

func TestInputsAreReadThroughRecordsAndNullableUnions(t *testing.T) {
	schema := record(`{"name":"customer","type":["null",{"type":"record","name":"C","fields":[
		{"name":"id","type":"string"},
		{"name":"plan","type":[{"type":"record","name":"P","fields":[{"name":"tier","type":"string"},{"name":"fee","type":["null","float"]}]},"null"]}]}]}`)
	tier := Input{Name: "tier", Path: "customer.plan.tier", Kind: Category, Nullable: true}
	fee := Input{Name: "fee", Path: "customer.plan.fee", Kind: Number, Nullable: true}
	full := encode(t, schema, map[string]any{"customer": goavro.Union("C", map[string]any{"id": "7", "plan": goavro.Union("P", map[string]any{"tier": "pro", "fee": goavro.Union("float", float32(9.5))})})})
	number, _, err := decodeOne(t, schema, full, fee, tier)
	if err != nil || number != 9.5 {
		t.Fatalf("fee %v %v", number, err)
	}
	_, category, err := decodeOne(t, schema, full, tier, fee)
	if err != nil || string(category) != "pro" {
		t.Fatalf("tier %q %v", category, err)
	}
	noPlan := encode(t, schema, map[string]any{"customer": goavro.Union("C", map[string]any{"id": "7", "plan": nil})})
	if _, category, err = decodeOne(t, schema, noPlan, tier, fee); err != nil || category != nil {
		t.Fatalf("without a plan: %q %v", category, err)
	}
	nobody := encode(t, schema, map[string]any{"customer": nil})
	tier.Nullable = false
	_, _, err = decodeOne(t, schema, nobody, tier, fee)
	checkRecordError(t, err, MissingField, "customer.plan.tier", "null")
}

func TestBranchThatDoesNotFitRefusesOnlyItsRecords(t *testing.T) {
	schema := record(`{"name":"x","type":["string","int",{"type":"record","name":"R","fields":[]}]}`)
	x := Input{Name: "x", Kind: Number}
	if number, _, err := decodeOne(t, schema, encode(t, schema, map[string]any{"x": goavro.Union("int", 5)}), x); err != nil || number != 5 {
		t.Fatalf("%v %v", number, err)
	}
	_, _, err := decodeOne(t, schema, encode(t, schema, map[string]any{"x": goavro.Union("string", "5")}), x)
	checkRecordError(t, err, SchemaMismatch, "x", "string", "number")
}

func TestBlocksAreSteppedOver(t *testing.T) {
	schema := record(`{"name":"a","type":{"type":"array","items":{"type":"map","values":["null","string"]}}},
		{"name":"n","type":{"type":"array","items":"null"}},{"name":"d","type":{"type":"array","items":"double"}},{"name":"x","type":"int"}`)
	x := Input{Name: "x", Kind: Number}
	one := func(parts ...[]byte) []byte { return append(AppendFrame(nil, 7), bytes.Join(parts, nil)...) }
	entries := []byte{4, 2, 'k', 2, 2, 'v', 2, 'l', 0, 0} // a map of two, ended
	eight := make([]byte, 8)
	for _, c := range []struct {
		name  string
		value []byte
		class ErrorClass // empty: x is 9
		path  string
	}{
		{"empty", one([]byte{0, 0, 0, 18}), "", ""},
		{"elements", one([]byte{4}, entries, []byte{0, 0}, []byte{0}, []byte{2}, eight, []byte{0}, []byte{18}), "", ""},
		{"two blocks", one([]byte{2}, entries, []byte{2}, entries, []byte{0}, []byte{0}, []byte{2}, eight, []byte{4}, eight, eight, []byte{0}, []byte{18}), "", ""},
		{"block with its size", one([]byte{1, byte(2 * len(entries))}, entries, []byte{0}, []byte{3, 0, 0}, []byte{1, 16}, eight, []byte{0, 18}), "", ""},
		{"a billion nulls", one([]byte{0}, appendLong(nil, 1<<40), []byte{0}, []byte{0, 18}), "", ""},
		{"count above what is left", one([]byte{0, 0}, appendLong(nil, 1<<40), eight), Truncated, "d"},
		{"count above what is left, of maps", one(appendLong(nil, 1<<60), eight), Truncated, "a"},
		{"size above what is left", one([]byte{1, 126}, entries), Truncated, "a"},
		{"negative size", one([]byte{1, 1}, entries), Malformed, "a"},
		{"most negative count", one(appendLong(nil, math.MinInt64), []byte{0, 0}), Malformed, "a"},
		{"no end", one([]byte{2}, entries), Truncated, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			number, _, err := decodeOne(t, schema, c.value, x)
			if c.class != "" {
				checkRecordError(t, err, c.class, c.path)
			} else if err != nil || number != 9 {
				t.Fatalf("%v %v", number, err)
			}
		})
	}
}

func TestNumbersMayHaveMoreBytesThanTheyNeed(t *testing.T) {
	schema := record(`{"name":"x","type":["null","int"]},{"name":"y","type":["null","int","string"]}`)
	x := Input{Name: "x", Kind: Number, Nullable: true}
	for _, c := range []struct {
		body []byte
		want float64
	}{
		{[]byte{0x82, 0x00, 0x8a, 0x00, 0x80, 0x00}, 5},
		{[]byte{0x80, 0x80, 0x00, 0}, math.NaN()},
	} {
		number, _, err := decodeOne(t, schema, append(AppendFrame(nil, 7), c.body...), x)
		if err != nil || !sameRow([]float64{number}, []float64{c.want}) {
			t.Errorf("% x: %v %v, want %v", c.body, number, err, c.want)
		}
	}
	for _, body := range [][]byte{{0x84, 0x00, 0}, {0x81, 0x00, 0}, {0x80}, {1, 0}} {
		if number, _, err := decodeOne(t, schema, append(AppendFrame(nil, 7), body...), x); err == nil {
			t.Errorf("% x: %v", body, number)
		}
	}
}

func TestClonesShareProgramsAndRunAtTheSameTime(t *testing.T) {
	registry := &fixedRegistry{schemas: map[int32]string{7: record(`{"name":"x","type":"int"}`), 8: record(`{"name":"y","type":"string"},{"name":"x","type":"long"}`)}}
	first, err := NewDecoder(DecoderConfig{Contract: Contract{[]Input{{Name: "x", Kind: Number}}}, Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 4 {
		decoder := first.Clone()
		group.Go(func() {
			rows := NewRows(1, 2)
			for i := range 200 {
				rows.Reset()
				want := float64(i % 60)
				if err := errors.Join(
					decoder.Decode(context.Background(), appendLong(AppendFrame(nil, 7), int64(want)), rows),
					decoder.Decode(context.Background(), appendLong(append(AppendFrame(nil, 8), 2, 'a'), int64(want)), rows),
				); err != nil || rows.Numbers[0] != want || rows.Numbers[1] != want {
					t.Errorf("%v %v", rows.Numbers, err)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestRowsAreReused(t *testing.T) {
	rows := NewRows(2, 1)
	for i := range 3 {
		if rows.Append() != i {
			t.Fatal("index")
		}
		numbers, categories := rows.Row(i)
		numbers[0], categories[1] = 1, []byte("x")
	}
	rows.DropLast()
	rows.Reset()
	for i := range 5 {
		rows.Append()
		numbers, categories := rows.Row(i)
		if !math.IsNaN(numbers[0]) || !math.IsNaN(numbers[1]) || categories[0] != nil || categories[1] != nil {
			t.Fatalf("row %d is not missing: %v %v", i, numbers, categories)
		}
	}
	if rows.Len() != 5 || rows.Width() != 2 {
		t.Fatal(rows.Len(), rows.Width())
	}
}
