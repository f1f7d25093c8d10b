package drift

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/churnstream/churnstream/schemas"
)

// oneInput is the profile of one input with the given values, NaN or nil for missing.
func oneInput(t testing.TB, kind schemas.Kind, numbers []float64, categories []string, cfg ProfileConfig) *Feature {
	t.Helper()
	contract := schemas.Contract{Inputs: []schemas.Input{{Name: "input", Kind: kind, Nullable: true}}}
	rows := schemas.NewRows(1, 0)
	for _, v := range numbers {
		row, _ := rows.Row(rows.Append())
		row[0] = v
	}
	for _, v := range categories {
		_, row := rows.Row(rows.Append())
		if v != "<null>" {
			row[0] = []byte(v)
		}
	}
	p, err := BuildProfile(contract, Reference{Rows: rows, Probabilities: make([]float64, rows.Len())}, cfg)
	require.NoError(t, err)
	return &p.Features[0]
}

func TestProfileDividesNumbersAtQuantilesOfTheReference(t *testing.T) {
	values := []float64{math.NaN()}
	for i := range 100 {
		values = append(values, float64(i+1))
	}
	f := oneInput(t, schemas.Number, values, nil, ProfileConfig{Bins: 4, Division: Quantiles, Categories: 1})
	require.Equal(t, []string{"< 1", "[1, 25]", "(25, 50]", "(50, 75]", "(75, 100]", "> 100", "missing"}, f.Labels)
	require.Equal(t, []uint64{0, 25, 25, 25, 25, 0, 1}, f.Counts)
}

func TestProfileGivesTiedValuesOneBin(t *testing.T) {
	values := slices.Repeat([]float64{0}, 70)
	for i := range 30 {
		values = append(values, float64(i+1))
	}
	f := oneInput(t, schemas.Number, values, nil, DefaultProfileConfig())
	require.Equal(t, []string{"< 0", "[0, 0]", "(0, 10]", "(10, 20]", "(20, 30]", "> 30", "missing"}, f.Labels)
	require.Equal(t, []uint64{0, 70, 10, 10, 10, 0, 0}, f.Counts)
}

func TestProfileGivesFewDistinctValuesABinEach(t *testing.T) {
	f := oneInput(t, schemas.Number, []float64{3, 1, 1, 1, 1, 1, 1, 1, 2, math.Copysign(0, -1), 0}, nil, DefaultProfileConfig())
	require.Equal(t, []string{"< 0", "[0, 0]", "(0, 1]", "(1, 2]", "(2, 3]", "> 3", "missing"}, f.Labels)
	require.Equal(t, []uint64{0, 2, 7, 1, 1, 0, 0}, f.Counts)
}

func TestProfileOfAnInputThatIsNeverThereOrNeverFinite(t *testing.T) {
	f := oneInput(t, schemas.Number, []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Inf(1)}, nil, DefaultProfileConfig())
	require.Equal(t, []string{"< 0", "[0, 0]", "> 0", "missing"}, f.Labels)
	require.Equal(t, []uint64{1, 0, 2, 1}, f.Counts)
}

func TestProfileCapsCategoriesAndKeepsTheRestAsOther(t *testing.T) {
	values := []string{"a", "a", "a", "b", "b", "c", "d", "<null>", "missing", "missing", "missing"}
	f := oneInput(t, schemas.Category, nil, values, ProfileConfig{Bins: 2, Division: Quantiles, Categories: 3})
	require.Equal(t, []string{"a", `"missing"`, "b", "other", "unseen", "missing"}, f.Labels)
	require.Equal(t, []uint64{3, 3, 2, 2, 0, 1}, f.Counts)
	f = oneInput(t, schemas.Category, nil, []string{"", "x"}, DefaultProfileConfig())
	require.Equal(t, []string{`""`, "x", "unseen", "missing"}, f.Labels, "nothing is other where every category has a place")
}

func TestProfileReadsDatesTimestampsAndBooleans(t *testing.T) {
	require.Equal(t, []string{"< 2020-01-01", "[2020-01-01, 2020-01-01]", "(2020-01-01, 2020-01-03]", "> 2020-01-03", "missing"},
		oneInput(t, schemas.Date, []float64{18262, 18264}, nil, DefaultProfileConfig()).Labels)
	require.Equal(t, "[2020-01-01T00:00:00Z, 2020-01-01T00:00:00.5Z]",
		oneInput(t, schemas.Timestamp, []float64{1577836800000, 1577836800500, 1577836800600, 1577836800700}, nil, ProfileConfig{Bins: 2, Division: Quantiles, Categories: 1}).Labels[1])
	f := oneInput(t, schemas.Boolean, []float64{0, 1, 1, math.NaN()}, nil, DefaultProfileConfig())
	require.Equal(t, []string{"false", "true", "missing"}, f.Labels)
	require.Equal(t, []uint64{1, 2, 1}, f.Counts)
}

func TestProfileRefusesAPopulationThatItCannotFreeze(t *testing.T) {
	number := schemas.Contract{Inputs: []schemas.Input{{Name: "input", Kind: schemas.Number}}}
	rows := schemas.NewRows(1, 1)
	_, err := BuildProfile(number, Reference{Rows: rows, Probabilities: nil}, DefaultProfileConfig())
	require.ErrorContains(t, err, "no rows")
	rows.Append()
	_, err = BuildProfile(number, Reference{Rows: rows, Probabilities: nil}, DefaultProfileConfig())
	require.ErrorContains(t, err, "0 probabilities for 1 rows")
	_, err = BuildProfile(schemas.Contract{}, Reference{Rows: rows, Probabilities: []float64{0.5}}, DefaultProfileConfig())
	require.ErrorContains(t, err, "rows have 1 inputs, the contract 0")
	_, err = BuildProfile(schemas.Contract{Inputs: []schemas.Input{{Name: ScoreFeature, Kind: schemas.Number}}}, Reference{Rows: rows, Probabilities: []float64{0.5}}, DefaultProfileConfig())
	require.ErrorContains(t, err, "rename")
	_, err = BuildProfile(number, Reference{Rows: rows, Probabilities: []float64{0.5}}, ProfileConfig{})
	require.ErrorContains(t, err, "profile.bins")
	require.ErrorContains(t, err, "profile.categories")

	text := schemas.Contract{Inputs: []schemas.Input{{Name: "note", Kind: schemas.Category}}}
	_, row := rows.Row(0)
	row[0] = []byte("\xff")
	_, err = BuildProfile(text, Reference{Rows: rows, Probabilities: []float64{0.5}}, DefaultProfileConfig())
	require.ErrorContains(t, err, `"note": row 0`)
	row[0] = bytes.Repeat([]byte("x"), maxCategoryBytes+1)
	_, err = BuildProfile(text, Reference{Rows: rows, Probabilities: []float64{0.5}}, DefaultProfileConfig())
	require.ErrorContains(t, err, "free text")
}

func TestProfileReadsBackWhatItWrote(t *testing.T) {
	profile, _ := telcoProfile(t)
	var file bytes.Buffer
	require.NoError(t, WriteProfile(&file, profile))
	again, err := ReadProfile(&file)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%+v", profile), fmt.Sprintf("%+v", again)) // not all of it is comparable: NaN where there is no mean
}

func TestProfileHoldsWhatWasAskedForBesideTheInputs(t *testing.T) {
	contract := telco()
	rows, probabilities := customers(contract, 4000, 7)
	threshold := 0.6
	cfg := DefaultProfileConfig()
	cfg.Threshold, cfg.Segments, cfg.Division = &threshold, []string{"category_2"}, EqualWidth
	cfg.Edges = map[string][]float64{"number_1": {0.5, 1, 20}}
	keys, contributions := customerKeys(1000), make([][]float64, 4000)
	for i := range contributions {
		contributions[i] = make([]float64, 19)
		if numbers, _ := rows.Row(i); numbers[15] == 1 { // boolean_0
			contributions[i][15] = 2
		}
	}
	profile, err := BuildProfile(contract, Reference{
		Rows: rows, Probabilities: probabilities, Customers: slices.Concat(keys, keys, keys, keys), Contributions: contributions,
	}, cfg)
	require.NoError(t, err)
	require.Equal(t, 19, profile.Inputs())
	require.InDelta(t, 4, profile.DesignEffect, 3, "every customer has four rows")
	require.InDelta(t, 4000/profile.DesignEffect, profile.Customers(&profile.Features[0]), 1e-9)
	require.Equal(t, []float64{0.5, 1, 20}, profile.Features[1].Edges)
	edges := profile.Features[0].Edges
	require.Len(t, edges, 9)
	require.InDelta(t, edges[1]-edges[0], edges[8]-edges[7], 1e-9)

	decision := profile.Features[20]
	require.Equal(t, DecisionFeature, decision.Name)
	require.Equal(t, []string{"retain", "churn"}, decision.Labels)
	churn := uint64(0)
	for _, p := range probabilities {
		if p >= 0.6 {
			churn++
		}
	}
	require.Equal(t, []uint64{4000 - churn, churn}, decision.Counts)

	segments := profile.Features[21:]
	require.Len(t, segments, 5)
	events := map[string]uint64{}
	for i := range rows.Len() {
		_, categories := rows.Row(i)
		events[string(categories[10])]++ // category_2
	}
	for _, f := range segments {
		require.Equal(t, "category_2", f.Segment.Input)
		require.Equal(t, events[f.Segment.Category], sum(f.Counts))
		require.Equal(t, profile.Features[19].Labels, f.Labels)
	}

	boolean := profile.Features[15]
	require.Equal(t, []float64{0, 2, 0}, boolean.Contributions)
	require.Zero(t, profile.Features[0].Importance())
	require.InDelta(t, 1, boolean.Importance(), 0.02, "half of the customers have a contribution of 2")
	mean, either := boolean.Effect([]float64{0, 1, 0}, boolean.Shares)
	require.InDelta(t, 1, mean, 0.05)
	require.Greater(t, either, 0.9)

	var file, again bytes.Buffer
	require.NoError(t, WriteProfile(&file, profile))
	back, err := ReadProfile(bytes.NewReader(file.Bytes()))
	require.NoError(t, err)
	require.NoError(t, WriteProfile(&again, back))
	require.Equal(t, file.String(), again.String())
	require.Equal(t, 0.6, *back.Threshold)
	require.Equal(t, profile.Places(), back.Places())

	for want, change := range map[string]func(*ProfileConfig){
		`"number_0" is no categorical input`: func(c *ProfileConfig) { c.Segments = []string{"number_0"} },
		"are not ascending":                  func(c *ProfileConfig) { c.Edges = map[string][]float64{"number_0": {2, 1}} },
		"profile.threshold":                  func(c *ProfileConfig) { one := 1.0; c.Threshold = &one },
		"profile.division":                   func(c *ProfileConfig) { c.Division = "even" },
	} {
		cfg := DefaultProfileConfig()
		change(&cfg)
		_, err := BuildProfile(contract, Reference{Rows: rows, Probabilities: probabilities}, cfg)
		require.ErrorContains(t, err, want)
	}
}

func TestProfileNamesBinsWithAsFewDigitsAsKeepThemApart(t *testing.T) {
	f := oneInput(t, schemas.Number, []float64{1.0 / 3, 2.0 / 3, 125000, 125000.0625}, nil, DefaultProfileConfig())
	require.Equal(t, []string{"< 0.333333333", "[0.333333333, 0.333333333]", "(0.333333333, 0.666666667]", "(0.666666667, 125000]", "(125000, 125000.062]", "> 125000.062", "missing"}, f.Labels)
	f = oneInput(t, schemas.Number, []float64{1.0 / 3, 2.0 / 3, 18.25, 70.3500001}, nil, DefaultProfileConfig())
	require.Equal(t, []string{"< 0.3333", "[0.3333, 0.3333]", "(0.3333, 0.6667]", "(0.6667, 18.25]", "(18.25, 70.35]", "> 70.35", "missing"}, f.Labels)
}

func TestReadProfileRefusesHostileContent(t *testing.T) {
	profile, _ := telcoProfile(t)
	var file bytes.Buffer
	require.NoError(t, WriteProfile(&file, profile))
	type object = map[string]any
	feature := func(content object, i int) object { return content["features"].([]any)[i].(object) }
	numbers := func(v ...float64) []any {
		out := make([]any, len(v))
		for i := range v {
			out[i] = v[i]
		}
		return out
	}
	tests := []struct {
		name, want string
		change     func(content object)
	}{
		{"another format", "format 2", func(c object) { c["format"] = 2 }},
		{"an unknown key", "unknown field", func(c object) { c["comment"] = "" }},
		{"no events", "events: 0", func(c object) { c["events"] = 0 }},
		{"negative events", "cannot unmarshal", func(c object) { c["events"] = -1 }},
		{"no features", "features: 0 of them", func(c object) { c["features"] = []any{} }},
		{"more features than any model has", "more than 1024", func(c object) { c["features"] = slices.Repeat([]any{object{}}, 1025) }},
		{"features that are no list", "features: not a list", func(c object) { c["features"] = object{} }},
		{"an unknown key in a feature", "features[1]: json: unknown field", func(c object) { feature(c, 1)["comment"] = "" }},
		{"no score", "none is the number", func(c object) { feature(c, 19)["name"] = "probability" }},
		{"a name twice", "stands twice", func(c object) { feature(c, 1)["name"] = "number_0" }},
		{"no name", "name: not UTF-8", func(c object) { feature(c, 1)["name"] = "" }},
		{"no kind", "kind", func(c object) { delete(feature(c, 1), "kind") }},
		{"an unknown kind", "unknown", func(c object) { feature(c, 1)["kind"] = "text" }},
		{"counts that are short", "counts: 1 of them", func(c object) { feature(c, 0)["counts"] = numbers(5000) }},
		{"counts that miss the events", "add up to", func(c object) { c["events"] = 4999.0; feature(c, 0)["counts"].([]any)[1] = 0 }},
		{"counts that overflow to the events", "more than the profile's", func(c object) {
			feature(c, 16)["counts"] = []any{json.Number("9223372036854775808"), json.Number("9223372036854775808"), json.Number("5000")}
		}},
		{"edges that fall", "edges: ", func(c object) { slices.Reverse(feature(c, 0)["edges"].([]any)) }},
		{"an edge outside the range", "inside the range", func(c object) { feature(c, 0)["edges"].([]any)[8] = 1e300 }},
		{"a range upside down", "is not a range", func(c object) { feature(c, 0)["minimum"] = 1e300 }},
		{"edges on a category", "only numbers", func(c object) { feature(c, 8)["edges"] = numbers(1) }},
		{"categories on a number", "only categories", func(c object) { feature(c, 0)["categories"] = []any{"a"} }},
		{"a category twice", "stands twice", func(c object) { feature(c, 8)["rest"] = []any{"Two year"} }},
		{"a category that goes on and on", "at most 256 bytes", func(c object) { feature(c, 8)["rest"] = []any{strings.Repeat("x", 1000)} }},
		{"too many places", "more than 256", func(c object) {
			edges := make([]float64, 1000)
			for i := range edges {
				edges[i] = float64(i)
			}
			f := feature(c, 0)
			f["minimum"], f["maximum"], f["edges"] = 0, 2000, numbers(edges...)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var content object
			require.NoError(t, json.Unmarshal(file.Bytes(), &content))
			tt.change(content)
			changed, err := json.Marshal(content)
			require.NoError(t, err)
			_, err = ReadProfile(bytes.NewReader(changed))
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "read profile")
		})
	}
	_, err := ReadProfile(strings.NewReader(file.String() + "{}"))
	require.ErrorContains(t, err, "more content")
	_, err = ReadProfile(strings.NewReader(file.String()[:file.Len()/2]))
	require.Error(t, err)
	_, err = ReadProfile(strings.NewReader(strings.Repeat(" ", maxProfileBytes+1)))
	require.ErrorContains(t, err, "larger than 16 MiB")
}

func FuzzReadProfile(f *testing.F) {
	f.Add([]byte(`{"format":1,"events":3,"features":[{"name":"score","kind":"number","minimum":0,"maximum":1,"edges":[0.5],"counts":[0,1,2,0,0]}]}`))
	f.Add([]byte(`{"format":1,"events":1,"features":[{"name":"a","kind":"category","categories":["x"],"counts":[1,0,0]},{"name":"score","kind":"number","counts":[0,1,0,0]}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := ReadProfile(bytes.NewReader(content))
		if err != nil {
			return
		}
		var file bytes.Buffer
		require.NoError(t, WriteProfile(&file, p))
		written := file.String()
		again, err := ReadProfile(&file)
		require.NoError(t, err)
		require.NoError(t, WriteProfile(&file, again))
		require.Equal(t, written, file.String())
	})
}

// The places of any value, by the definition in words.
func TestCounterPutsEveryNumberIntoTheBinOfItsLabel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		edges := rapid.SliceOfNDistinct(rapid.Float64Range(-1e6, 1e6), 2, 40, rapid.ID[float64]).Draw(t, "range and edges")
		slices.Sort(edges)
		f := &Feature{Kind: schemas.Number, Minimum: edges[0], Maximum: edges[len(edges)-1], Edges: edges[1 : len(edges)-1]}
		column := newNumberColumn(f, 0)
		value := rapid.OneOf(
			rapid.Float64(), rapid.Float64Range(-1e6, 1e6), rapid.SampledFrom(edges),
			rapid.Map(rapid.SampledFrom(edges), func(v float64) float64 { return math.Nextafter(v, math.Inf(1)) }),
			rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1), math.MaxFloat64, -math.MaxFloat64}),
		).Draw(t, "value")
		want := 1 // the first bin
		switch {
		case math.IsNaN(value):
			want = len(f.Edges) + 3
		case value < f.Minimum:
			want = 0
		case value > f.Maximum:
			want = len(f.Edges) + 2
		default:
			for _, edge := range f.Edges {
				if value > edge {
					want++
				}
			}
		}
		counts, wanted, moments := make([]uint32, len(f.Edges)+4), make([]uint32, len(f.Edges)+4), noMoments()
		wanted[want] = 1
		column.count(counts, &moments, []float64{value})
		if !slices.Equal(counts, wanted) {
			t.Fatalf("%v among %v: counts %v, want %v", value, edges, counts, wanted)
		}
	})
}

func TestCounterRefusesAProfileOfAnotherContract(t *testing.T) {
	profile, contract := telcoProfile(t)
	_, err := NewAccumulator(profile, schemas.Contract{Inputs: contract.Inputs[1:]}, minutes, source, nil)
	require.ErrorContains(t, err, "same artefact")
	renamed := schemas.Contract{Inputs: slices.Clone(contract.Inputs)}
	renamed.Inputs[0].Name = "renamed"
	_, err = NewAccumulator(profile, renamed, minutes, source, nil)
	require.ErrorContains(t, err, `"number_0" is no input`)
	retyped := schemas.Contract{Inputs: slices.Clone(contract.Inputs)}
	retyped.Inputs[0].Kind = schemas.Date
	_, err = NewAccumulator(profile, retyped, minutes, source, nil)
	require.ErrorContains(t, err, "is a number, the contract's input a date")
	_, err = NewAccumulator(profile, contract, WindowConfig{Ahead: -1}, source, nil)
	for _, key := range []string{"drift.rings:", "drift.horizons:", "drift.ahead:"} {
		require.ErrorContains(t, err, key)
	}
}
