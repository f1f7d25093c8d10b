package schemas

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func everyKind() Contract {
	return Contract{[]Input{
		{Name: "n", Kind: Number, Nullable: true},
		{Name: "c \"quoted\"", Kind: Category, Nullable: true},
		{Name: "b", Kind: Boolean, Nullable: true},
		{Name: "d", Kind: Date, Nullable: true},
		{Name: "t", Kind: Timestamp, Nullable: true},
	}}
}

func TestJSONRowsComeBackToTheSameBits(t *testing.T) {
	contract := everyKind()
	const year9999 = 253402300799999 // the last millisecond of it
	rapid.Check(t, func(t *rapid.T) {
		missing := func(g *rapid.Generator[float64]) *rapid.Generator[float64] {
			return rapid.OneOf(g, g, rapid.Just(math.NaN()))
		}
		whole := func(low, high int64) *rapid.Generator[float64] {
			return missing(rapid.Map(rapid.Int64Range(low, high), func(n int64) float64 { return float64(n) }))
		}
		number := rapid.Float64().Filter(func(x float64) bool { return !math.IsInf(x, 0) })
		numbers := []float64{
			missing(number).Draw(t, "number"), math.NaN(), whole(0, 1).Draw(t, "boolean"),
			whole(-719528, year9999/86_400_000).Draw(t, "date"), whole(-62167219200000, year9999).Draw(t, "timestamp"),
		}
		categories := make([][]byte, 5)
		if rapid.Bool().Draw(t, "has a category") {
			categories[1] = []byte(rapid.String().Draw(t, "category"))
			if categories[1] == nil {
				categories[1] = []byte{}
			}
		}
		text, err := contract.AppendJSON(nil, numbers, categories)
		if err != nil {
			t.Fatal(err)
		}
		var values map[string]json.RawMessage
		if err := json.Unmarshal(text, &values); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		rows := NewRows(5, 1)
		if err := contract.ReadJSON(rows, values); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		got, gotCategories := rows.Row(0)
		if !sameRow(got, numbers) || !sameCategories(gotCategories, categories) {
			t.Fatalf("%s: got %v %q, want %v %q", text, got, gotCategories, numbers, categories)
		}
	})
}

func TestJSONValuesAreOfTheirKind(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		kind  Kind
		value string
		want  float64
		word  string // expected in the error
	}{
		{Number, `1e2`, 100, ""},
		{Number, `null`, nan, ""},
		{Number, `"1"`, nan, `"1" is not a number`},
		{Number, `true`, nan, "is not a number"},
		{Number, `1e999`, nan, "finite"},
		{Boolean, `true`, 1, ""},
		{Boolean, `0`, 0, ""},
		{Boolean, `"YES"`, 1, ""},
		{Boolean, `2`, nan, "is not a boolean"},
		{Date, `"1970-01-02"`, 1, ""},
		{Date, `1`, nan, "1 is not a date"},
		{Date, `""`, nan, "is not a date"},
		{Timestamp, `"1970-01-01T00:00:01Z"`, 1000, ""},
		{Timestamp, `1000`, 1000, ""},
		{Timestamp, `1000.5`, nan, "milliseconds"},
		{Timestamp, `[1]`, nan, "is not a timestamp"},
		{Category, `1`, nan, "1 is not a string"},
		{Category, `null`, nan, ""},
	} {
		contract := Contract{[]Input{{Name: "first", Kind: Number}, {Name: "x", Kind: c.kind}}}
		rows := NewRows(2, 1)
		err := contract.ReadJSON(rows, map[string]json.RawMessage{"x": json.RawMessage(c.value), "other": json.RawMessage(`{}`)})
		if c.word != "" {
			if err == nil || !strings.Contains(err.Error(), c.word) || !strings.Contains(err.Error(), `input "x"`) || rows.Len() != 0 {
				t.Errorf("%s %s: %v with %d rows", c.kind, c.value, err, rows.Len())
			}
			continue
		}
		if err != nil || rows.Len() != 1 || !sameRow(rows.Numbers, []float64{nan, c.want}) || rows.Categories[1] != nil {
			t.Errorf("%s %s: got %v %q %v, want %v", c.kind, c.value, rows.Numbers, rows.Categories, err, c.want)
		}
	}
}

func TestRowsThatWouldNotComeBackAreRefused(t *testing.T) {
	for _, c := range []struct {
		column int
		number float64
		text   []byte
		word   string
	}{
		{0, math.Inf(1), nil, "+Inf"},
		{1, 0, []byte{0xff}, "not valid UTF-8"},
		{2, 2, nil, "2 is not a boolean"},
		{3, 0.5, nil, "whole units"},
		{3, 1e14, nil, "whole units"}, // more seconds than an int64 has
		{3, 4e6, nil, "year 12921"},
		{3, -1e6, nil, "year -768"},
		{4, 0.5, nil, "whole units"},
		{4, 1 << 53, nil, "year 287396"},
	} {
		contract := everyKind()
		numbers, categories := make([]float64, 5), make([][]byte, 5)
		numbers[c.column], categories[c.column] = c.number, c.text
		_, err := contract.AppendJSON(nil, numbers, categories)
		if err == nil || !strings.Contains(err.Error(), c.word) || !strings.Contains(err.Error(), "input ") {
			t.Errorf("%s %v %q: %v, want %q", contract.Inputs[c.column].Kind, c.number, c.text, err, c.word)
		}
	}
}
