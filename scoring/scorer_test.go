package scoring_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

func TestScoreNamesWhatWasMissingOrUnseen(t *testing.T) {
	m := loaded(t, example(t))
	nan := math.NaN()
	for _, c := range []struct {
		name            string
		numbers         []float64
		plan            []byte
		missing, unseen string
		scored          bool
	}{
		{"all there", []float64{24, 50, nan, 0, 18000, 1}, []byte("pro"), "", "", true},
		{"an empty text is a category", []float64{24, 50, nan, 0, 18000, 1}, []byte{}, "", "", true},
		{"all optional ones missing", []float64{24, nan, nan, 0, 18000, nan}, nil, "spend plan seen", "", true},
		{"an unseen category", []float64{24, 50, nan, 0, 18000, 1}, []byte("proo"), "", "plan", true},
		{"a missing number and an unseen category", []float64{24, nan, nan, 0, 18000, 1}, []byte("PRO"), "spend", "plan", true},
		{"a required number missing", []float64{nan, 50, nan, 0, 18000, 1}, []byte("pro"), "tenure", "", false},
		{"a required boolean missing", []float64{24, 50, nan, nan, 18000, 1}, []byte("pro"), "senior", "", false},
		{"an infinite number", []float64{math.Inf(1), 50, nan, 0, 18000, 1}, []byte("pro"), "", "", false},
	} {
		for _, cfg := range []scoring.ScorerConfig{{}, {Reasons: 3}, {Contributions: true}} {
			t.Run(fmt.Sprintf("%s, %+v", c.name, cfg), func(t *testing.T) {
				rows := schemas.NewRows(6, 1)
				numbers, categories := rows.Row(rows.Append())
				copy(numbers, c.numbers)
				categories[2] = c.plan
				var out scoring.Results
				m.NewScorer(cfg).Score(rows, &out)
				if got := strings.Join(out.Missing(0), " "); got != c.missing {
					t.Errorf("missing %q, want %q", got, c.missing)
				}
				if got := strings.Join(out.Unseen(0), " "); got != c.unseen {
					t.Errorf("unseen %q, want %q", got, c.unseen)
				}
				if scored := out.Probability[0] > 0 && out.Probability[0] < 1; scored != c.scored {
					t.Errorf("probability %v", out.Probability[0])
				}
				if !c.scored && (!math.IsNaN(out.Margin[0]) || len(out.Reasons(0)) > 0) {
					t.Errorf("margin %v with reasons %v, want NaN and none", out.Margin[0], out.Reasons(0))
				}
			})
		}
	}
}

func TestRequiredCategoryMissingIsNotScored(t *testing.T) {
	a := example(t)
	a.Manifest.Inputs[2].Nullable = false
	m, err := scoring.CompileForTest(&a.Pipeline, a.Manifest.Contract())
	if err != nil {
		t.Fatal(err)
	}
	rows := schemas.NewRows(6, 1)
	numbers, _ := rows.Row(rows.Append())
	copy(numbers, []float64{24, 50, math.NaN(), 0, 18000, 1})
	var out scoring.Results
	m.NewScorer(scoring.ScorerConfig{}).Score(rows, &out)
	if !math.IsNaN(out.Probability[0]) {
		t.Errorf("probability %v, want NaN", out.Probability[0])
	}
}

func TestReasonsAreTheLargestContributionsUnderTheirLabels(t *testing.T) {
	m := loaded(t, example(t))
	rows := schemas.NewRows(6, 3)
	for _, plan := range [][]byte{[]byte("größer"), []byte("nobody's"), nil} {
		numbers, categories := rows.Row(rows.Append())
		copy(numbers, []float64{24, math.NaN(), math.NaN(), 1, 18000, 1})
		categories[2] = plan
	}
	var out scoring.Results
	m.NewScorer(scoring.ScorerConfig{Reasons: 3}).Score(rows, &out)
	// Of the plan's columns the background holds 0.1·0.125 + 0.5·1.5 - 0.2·0.5 - 0.2·1 = 0.4625.
	for row, want := range []string{
		"senior=1.4000 plan=größer=-0.9625 joined=0.0500",
		"senior=1.4000 plan (unseen)=-0.4625 joined=0.0500",
		"senior=1.4000 plan (missing)=-0.4625 joined=0.0500",
	} {
		var got []string
		for _, r := range out.Reasons(row)[:3] {
			got = append(got, fmt.Sprintf("%s=%.4f", r.Feature, r.Contribution))
		}
		// joined (0.05) and spend (-0.05) tie: whichever comes first in the model wins.
		if text := strings.Join(got, " "); text != want && text != strings.Replace(want, "joined=0.0500", "spend (missing)=-0.0500", 1) {
			t.Errorf("row %d: %s, want %s", row, text, want)
		}
	}
}

// randomModel draws a regression over any mixture of steps, fused or not, with a batch of rows for it.
func randomModel(t *rapid.T) (*scoring.Pipeline, schemas.Contract, *schemas.Rows) {
	value := rapid.Float64Range(-1e3, 1e3)
	var contract schemas.Contract
	p := &scoring.Pipeline{}
	var features []string
	var categories [][]string
	for i := range rapid.IntRange(1, 12).Draw(t, "inputs") {
		in := schemas.Input{Name: fmt.Sprintf("in%d", i), Kind: schemas.Number, Nullable: rapid.Bool().Draw(t, "nullable")}
		categories = append(categories, nil)
		column := in.Name
		if rapid.Bool().Draw(t, "category") {
			in.Kind = schemas.Category
			list := rapid.SliceOfNDistinct(rapid.StringN(0, 12, -1), 1, 9, rapid.ID).Draw(t, "categories")
			categories[i] = list
			step, outputs := oneHot(in.Name, list)
			p.Steps = append(p.Steps, step)
			for _, c := range outputs {
				if rapid.IntRange(0, 5).Draw(t, "keep") > 0 {
					features = append(features, c)
				}
			}
		} else {
			then := func(transform scoring.Transform) {
				p.Steps = append(p.Steps, scoring.Step{Columns: []string{column}, Outputs: []string{column + "'"}, Transform: transform})
				column += "'"
			}
			if in.Nullable {
				then(scoring.Impute{Values: []scoring.Value{{Number: value.Draw(t, "fill")}}})
			}
			for range rapid.IntRange(0, 2).Draw(t, "scaled") {
				then(scoring.Scale{Mean: scoring.Floats{value.Draw(t, "mean")}, Scale: scoring.Floats{rapid.Float64Range(1e-3, 1e3).Draw(t, "scale")}})
			}
			if rapid.IntRange(0, 5).Draw(t, "keep") > 0 {
				features = append(features, column)
			}
		}
		contract.Inputs = append(contract.Inputs, in)
	}
	features = rapid.Permutation(features).Draw(t, "order")
	model := scoring.Linear{Coefficients: []scoring.Floats{{}}, Intercepts: scoring.Floats{value.Draw(t, "intercept")}, Background: scoring.Floats{}}
	for range features {
		model.Background = append(model.Background, value.Draw(t, "background"))
		model.Coefficients[0] = append(model.Coefficients[0], rapid.Float64Range(-5, 5).Draw(t, "coefficient"))
	}
	finish(p, features, model)

	rows := schemas.NewRows(len(contract.Inputs), 4)
	for range rapid.IntRange(0, 5).Draw(t, "rows") {
		numbers, texts := rows.Row(rows.Append())
		for i, in := range contract.Inputs {
			switch {
			case in.Nullable && rapid.IntRange(0, 3).Draw(t, "missing") == 0:
			case in.Kind == schemas.Category && rapid.Bool().Draw(t, "known"):
				texts[i] = []byte(rapid.SampledFrom(categories[i]).Draw(t, "category"))
			case in.Kind == schemas.Category:
				texts[i] = []byte(rapid.StringN(0, 12, -1).Draw(t, "text"))
			default:
				numbers[i] = value.Draw(t, "number")
			}
		}
	}
	return p, contract, rows
}

// oneHot encodes an input and gives 0 in all columns to what is not listed.
func oneHot(input string, list []string) (scoring.Step, []string) {
	unknown := len(list)
	step := scoring.Step{Columns: []string{input}}
	positions := scoring.Ints{}
	for k, c := range list {
		positions = append(positions, int32(k))
		step.Outputs = append(step.Outputs, input+"="+c)
	}
	step.Transform = scoring.OneHot{
		Encodings: []scoring.Encoding{{Texts: list, Unknown: &unknown}}, Positions: []scoring.Ints{append(positions, -1)}, Widths: scoring.Ints{int32(unknown)},
	}
	return step, step.Outputs
}

// finish puts a regression with its link behind the steps.
func finish(p *scoring.Pipeline, features []string, model scoring.Linear) {
	p.Steps = append(p.Steps,
		scoring.Step{Columns: features, Outputs: []string{"margin"}, Transform: model},
		scoring.Step{Columns: []string{"margin"}, Outputs: []string{"probability"}, Transform: scoring.Logistic{}})
	p.Output = scoring.Output{Margin: []string{"margin"}, Probability: []string{"probability"}}
}

// direct computes the margin from the pipeline's definition, column by column.
func direct(p *scoring.Pipeline, contract schemas.Contract, numbers []float64, categories [][]byte) (margin, size float64) {
	values := map[string]float64{}
	for i, in := range contract.Inputs {
		if in.Kind == schemas.Number {
			values[in.Name] = numbers[i]
		} else if categories[i] != nil {
			values[in.Name+"="+string(categories[i])] = 1
		}
	}
	for _, s := range p.Steps {
		switch transform := s.Transform.(type) {
		case scoring.Impute:
			values[s.Outputs[0]] = values[s.Columns[0]]
			if math.IsNaN(values[s.Columns[0]]) {
				values[s.Outputs[0]] = transform.Values[0].Number
			}
		case scoring.Scale:
			values[s.Outputs[0]] = (values[s.Columns[0]] - transform.Mean[0]) / transform.Scale[0]
		case scoring.Linear:
			for i, f := range s.Columns {
				term := values[f] * transform.Coefficients[0][i]
				margin += term
				size += math.Abs(term) + math.Abs(transform.Background[i]*transform.Coefficients[0][i])
			}
			margin += transform.Intercepts[0]
			size += math.Abs(transform.Intercepts[0])
		}
	}
	return margin, size
}

func TestMarginIsThatOfThePipelineAndContributionsAddUpToIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, contract, rows := randomModel(t)
		m, err := scoring.CompileForTest(p, contract)
		if err != nil {
			t.Fatal(err)
		}
		var plain, explained scoring.Results
		k := rapid.IntRange(0, 14).Draw(t, "k")
		m.NewScorer(scoring.ScorerConfig{}).Score(rows, &plain)
		m.NewScorer(scoring.ScorerConfig{Reasons: k, Contributions: true}).Score(rows, &explained)
		for row := range rows.Len() {
			numbers, categories := rows.Row(row)
			want, size := direct(p, contract, numbers, categories)
			// Sums of numbers of this size round by this much, in whatever order.
			tolerance := 1e-9 * max(1, size/1e4)
			if math.Abs(plain.Margin[row]-want) > tolerance {
				t.Errorf("row %d: margin %v, want %v", row, plain.Margin[row], want)
			}
			if plain.Margin[row] != explained.Margin[row] || plain.Probability[row] != explained.Probability[row] {
				t.Errorf("row %d: margin %v alone and %v with reasons", row, plain.Margin[row], explained.Margin[row])
			}
			sum := explained.Bias
			all := explained.Contributions(row)
			for _, c := range all {
				sum += c
			}
			if math.Abs(sum-explained.Margin[row]) > tolerance {
				t.Errorf("row %d: bias and contributions make %v, the margin is %v", row, sum, explained.Margin[row])
			}
			sizes := make([]float64, 0, len(all))
			for _, c := range all {
				if c != 0 {
					sizes = append(sizes, math.Abs(c))
				}
			}
			slices.SortFunc(sizes, func(a, b float64) int { return -cmpFloat(a, b) })
			reasons := explained.Reasons(row)
			if len(reasons) != min(k, len(sizes)) {
				t.Fatalf("row %d: %d reasons of %d contributions for k = %d", row, len(reasons), len(sizes), k)
			}
			for i, r := range reasons {
				if math.Abs(r.Contribution) != sizes[i] {
					t.Errorf("row %d: reason %d is %v, the contributions are %v", row, i, r, all)
				}
			}
		}
	})
}

func cmpFloat(a, b float64) int {
	if a < b {
		return -1
	}
	return 1
}

func TestReasonsGoToTheRowsThatAreToHaveThem(t *testing.T) {
	m, rows := mixedModel(t, 6, 3)
	var all, above, asked, again scoring.Results
	m.NewScorer(scoring.ScorerConfig{Reasons: 2}).Score(rows, &all)
	m.NewScorer(scoring.ScorerConfig{Reasons: 2, ReasonsFrom: 0.5}).Score(rows, &above)
	scorer := m.NewScorer(scoring.ScorerConfig{Reasons: 2, ReasonsOnRequest: true})
	for row := range rows.Len() - 1 { // nothing is said of the last
		scorer.Request(row, row%3 == 0)
	}
	scorer.Score(rows, &asked)
	scorer.Score(rows, &again)
	with := 0
	for row := range rows.Len() {
		want := all.Reasons(row)
		if got := above.Reasons(row); all.Probability[row] >= 0.5 && !slices.Equal(got, want) || all.Probability[row] < 0.5 && len(got) > 0 {
			t.Errorf("row %d of probability %v: reasons %v", row, all.Probability[row], got)
		}
		if len(above.Reasons(row)) > 0 {
			with++
		}
		if got := asked.Reasons(row); row%3 == 0 && row < rows.Len()-1 && !slices.Equal(got, want) || (row%3 > 0 || row == rows.Len()-1) && len(got) > 0 {
			t.Errorf("row %d: reasons %v", row, got)
		}
		if got := again.Reasons(row); len(got) > 0 {
			t.Errorf("row %d has reasons that a batch before asked for: %v", row, got)
		}
	}
	if with == 0 || with == rows.Len() {
		t.Errorf("%d of %d rows are above the border: the test shows nothing", with, rows.Len())
	}
}

func TestScoreDoesNotAllocate(t *testing.T) {
	m, rows := mixedModel(t, 12, 8)
	scorer := m.NewScorer(scoring.ScorerConfig{Reasons: 3, Contributions: true})
	var out scoring.Results
	scorer.Score(rows, &out)
	if n := testing.AllocsPerRun(20, func() { scorer.Score(rows, &out) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

// mixedModel has numeric and category inputs, and a batch of 64 rows in which some are missing.
func mixedModel(t testing.TB, numeric, category int) (*scoring.Model, *schemas.Rows) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	values := []string{"Month-to-month", "One year", "Two year", "No internet service"}
	var contract schemas.Contract
	p := &scoring.Pipeline{}
	var features []string
	model := scoring.Linear{Coefficients: []scoring.Floats{{}}, Intercepts: scoring.Floats{0}}
	feature := func(name string) {
		features = append(features, name)
		model.Background = append(model.Background, random.NormFloat64())
		model.Coefficients[0] = append(model.Coefficients[0], random.NormFloat64()/4)
	}
	for i := range numeric {
		name := fmt.Sprintf("n%d", i)
		contract.Inputs = append(contract.Inputs, schemas.Input{Name: name, Kind: schemas.Number, Nullable: true})
		p.Steps = append(p.Steps,
			scoring.Step{Columns: []string{name}, Outputs: []string{name + "i"}, Transform: scoring.Impute{Values: []scoring.Value{{}}}},
			scoring.Step{Columns: []string{name + "i"}, Outputs: []string{name + "s"}, Transform: scoring.Scale{
				Mean: scoring.Floats{random.NormFloat64()}, Scale: scoring.Floats{1 + random.Float64()},
			}})
		feature(name + "s")
	}
	for i := range category {
		name := fmt.Sprintf("c%d", i)
		contract.Inputs = append(contract.Inputs, schemas.Input{Name: name, Kind: schemas.Category, Nullable: true})
		step, outputs := oneHot(name, values)
		p.Steps = append(p.Steps, step)
		for _, c := range outputs {
			feature(c)
		}
	}
	finish(p, features, model)
	m, err := scoring.CompileForTest(p, contract)
	if err != nil {
		t.Fatal(err)
	}
	rows := schemas.NewRows(len(contract.Inputs), 64)
	for range 64 {
		numbers, categories := rows.Row(rows.Append())
		for i := range numeric {
			numbers[i] = random.NormFloat64() * 10
		}
		for i := range category {
			categories[numeric+i] = []byte(values[random.IntN(len(values))])
		}
	}
	return m, rows
}

func BenchmarkScore(b *testing.B) {
	for _, shape := range []struct{ numeric, category int }{{20, 0}, {12, 8}, {8, 11}} {
		m, rows := mixedModel(b, shape.numeric, shape.category)
		for _, cfg := range []scoring.ScorerConfig{{}, {Reasons: 3}, {Reasons: 3, Contributions: true}} {
			name := fmt.Sprintf("numbers=%d/categories=%d/reasons=%d/contributions=%v", shape.numeric, shape.category, cfg.Reasons, cfg.Contributions)
			b.Run(name, func(b *testing.B) {
				scorer := m.NewScorer(cfg)
				var out scoring.Results
				scorer.Score(rows, &out)
				b.ReportAllocs()
				for b.Loop() {
					scorer.Score(rows, &out)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows.Len()), "ns/row")
			})
		}
	}
}
