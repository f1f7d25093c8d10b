package scoring_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// curved is the probability of a logistic model as its margin, which no part explains, over n inputs; the
// weights are given, and the background has rows of small whole numbers.
func curved(t *testing.T, weights []float64, rows int) *scoring.Model {
	t.Helper()
	var contract schemas.Contract
	var columns, coefficients, background []string
	for i, w := range weights {
		name := fmt.Sprintf("x%d", i)
		contract.Inputs = append(contract.Inputs, schemas.Input{Name: name, Kind: schemas.Number})
		columns, coefficients = append(columns, `"`+name+`"`), append(coefficients, fmt.Sprint(w))
	}
	contract.Inputs = append(contract.Inputs, schemas.Input{Name: "aside", Kind: schemas.Category, Nullable: true})
	for row := range rows {
		cells := []string{`"aside":null`}
		for i := range weights {
			cells = append(cells, fmt.Sprintf(`"x%d":%d`, i, (row*(i+3)+i)%5-2))
		}
		background = append(background, "{"+strings.Join(cells, ",")+"}")
	}
	text := fmt.Sprintf(`{"steps":[{"type":"linear","columns":[%s],"outputs":["m"],"parameters":{"coefficients":[[%s]],"intercepts":[0.1]}},`+
		`{"type":"logistic","columns":["m"],"outputs":["p"]}],"output":{"margin":["p"],"probability":["p"]},"background":[%s]}`,
		strings.Join(columns, ","), strings.Join(coefficients, ","), strings.Join(background, ","))
	p, err := scoring.ParsePipeline([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := scoring.CompileForTest(p, contract)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMixturesAddUpAndLeaveOutWhatTheModelDoesNotRead(t *testing.T) {
	weights := []float64{0.4, 0.4, -0.3, 0.2, 0, 0.1, -0.2, 0.3, 0.25, -0.15, 0.05, 0.35}
	for _, c := range []struct{ inputs, scorings int }{
		{4, (1<<4 - 2) * 32}, // all sets
		{12, 2 * 11 * 32},    // drawn orders
	} {
		t.Run(fmt.Sprint(c.inputs), func(t *testing.T) {
			m := curved(t, weights[:c.inputs], 32)
			if got := m.ScoringsToExplain(); got != c.scorings {
				t.Errorf("%d scorings, want %d", got, c.scorings)
			}
			rows := schemas.NewRows(c.inputs+1, 100)
			for row := range 100 {
				numbers, categories := rows.Row(rows.Append())
				for i := range c.inputs {
					numbers[i] = float64((row*(i+1))%7) - 3
				}
				numbers[1] = numbers[0] // the same weight and the same value
				categories[c.inputs] = []byte("anything")
			}
			var out scoring.Results
			scorer := m.NewScorer(scoring.ScorerConfig{Contributions: true, Reasons: 2})
			scorer.Score(rows, &out)
			for row := range rows.Len() {
				contributions := out.Contributions(row)
				sum := out.Bias
				for _, x := range contributions {
					sum += x
				}
				if math.Abs(sum-out.Margin[row]) > 1e-14 {
					t.Fatalf("row %d: bias and contributions make %v, the margin is %v", row, sum, out.Margin[row])
				}
				if x := contributions[c.inputs]; x != 0 {
					t.Fatalf("row %d: an input that the model does not read contributes %v", row, x)
				}
				if c.inputs > 4 && math.Abs(contributions[4]) > 1e-16 {
					t.Fatalf("row %d: an input of weight 0 contributes %v", row, contributions[4])
				}
				if len(out.Reasons(row)) != 2 {
					t.Fatalf("row %d: %d reasons", row, len(out.Reasons(row)))
				}
			}
			if n := testing.AllocsPerRun(2, func() { scorer.Score(rows, &out) }); n != 0 {
				t.Errorf("%v allocations a batch", n)
			}
		})
	}
}

func TestDrawnMixturesAreNearAllOfThem(t *testing.T) {
	weights := []float64{0.4, 0.4, -0.3, 0.2, 0.1, -0.2}
	all := curved(t, weights, 32)              // 62·32 scorings: all sets
	drawn := curved(t, append(weights, 0), 32) // one input more: drawn orders
	if all.ScoringsToExplain() != 62*32 || drawn.ScoringsToExplain() != 2*6*32 {
		t.Fatalf("%d and %d scorings", all.ScoringsToExplain(), drawn.ScoringsToExplain())
	}
	contributions := func(m *scoring.Model) []float64 {
		rows := schemas.NewRows(len(m.Contract().Inputs), 1)
		numbers, _ := rows.Row(rows.Append())
		for i := range numbers {
			numbers[i] = float64(3 - i)
		}
		var out scoring.Results
		m.NewScorer(scoring.ScorerConfig{Contributions: true}).Score(rows, &out)
		return append([]float64(nil), out.Contributions(0)...)
	}
	want, got := contributions(all), contributions(drawn)
	size := 0.0
	for _, x := range want {
		size = max(size, math.Abs(x))
	}
	for i := range weights {
		if math.Abs(got[i]-want[i]) > 0.03*size {
			t.Errorf("input %d: %v by drawn orders, %v by all sets", i, got[i], want[i])
		}
	}
}

func TestBackgroundRowsMustBeOfTheModel(t *testing.T) {
	const head = `{"steps":[{"type":"logistic","columns":["a"],"outputs":["p"]}],"output":{"margin":["p"],"probability":["p"]},"background":`
	contract := schemas.Contract{Inputs: []schemas.Input{{Name: "a", Kind: schemas.Number}}}
	for _, c := range []struct{ background, want string }{
		{`[{"b":1}]`, "background[0]"},
		{`[{"a":1},{"a":1,"b":2}]`, "background[1]: 2 values for 1 inputs"},
		{`[{"a":"text"}]`, "background[0]"},
		{`[{}]`, "background[0]: 0 values"},
		{`[3]`, "background[0]"},
		{`{}`, "is not a list"},
		{"[" + strings.Repeat(`{"a":1},`, 256) + `{"a":1}]`, "more than 256 rows"},
	} {
		p, err := scoring.ParsePipeline([]byte(head + c.background + "}"))
		if err == nil {
			_, err = scoring.CompileForTest(p, contract)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.30s: got %v, want %q in it", c.background, err, c.want)
		}
	}
	if !json.Valid([]byte(head + "[]}")) {
		t.Fatal("the test's own text is no JSON")
	}
}
