package scoring_test

import (
	"compress/gzip"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// golden is what testdata/sklearn/goldens.py wrote for one pipeline with one release of scikit-learn.
type golden struct {
	NumPy         string `json:"numpy"`
	Inputs        []schemas.Input
	Model         json.RawMessage
	Rows          [][]any
	Probabilities [][]float64 // null: scikit-learn refuses the row
	Margins       [][]float64

	// Of testdata/sklearn/contributions.py: row, class, input.
	Contributions [][][]float64
	Expected      []float64
}

func readGolden(t testing.TB, path string) *golden {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unpacked, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.NewDecoder(unpacked).Decode(&g); err != nil {
		t.Fatal(err)
	}
	return &g
}

// batch makes rows of the cells; "inf" and "-inf" stand for what JSON has no number for.
func (g *golden) batch(t testing.TB) *schemas.Rows {
	t.Helper()
	rows := schemas.NewRows(len(g.Inputs), len(g.Rows))
	for _, cells := range g.Rows {
		numbers, categories := rows.Row(rows.Append())
		for i, cell := range cells {
			switch x := cell.(type) {
			case nil:
			case float64:
				numbers[i] = x
			case string:
				switch {
				case g.Inputs[i].Kind == schemas.Category:
					categories[i] = []byte(x)
				case x == "inf":
					numbers[i] = math.Inf(1)
				case x == "-inf":
					numbers[i] = math.Inf(-1)
				}
			default:
				t.Fatalf("cell %v", cell)
			}
		}
	}
	return rows
}

func (g *golden) compile(t testing.TB) *scoring.Model {
	t.Helper()
	p, err := scoring.ParsePipeline(g.Model)
	if err != nil {
		t.Fatal(err)
	}
	m, err := scoring.CompileForTest(p, schemas.Contract{Inputs: g.Inputs})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// eachGolden runs a test for every pipeline of every release.
func eachGolden(t *testing.T, run func(t *testing.T, g *golden)) {
	t.Helper()
	pattern, least := "testdata/sklearn/[0-9]*/*.json.gz", 100
	if place := os.Getenv("CHURNSTREAM_GOLDENS"); place != "" { // of testdata/sklearn/drawn.py
		pattern, least = filepath.Join(place, "*.json.gz"), 1
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < least {
		t.Fatalf("%d goldens at %s: %v", len(files), pattern, err)
	}
	for _, file := range files {
		release := filepath.Base(filepath.Dir(file))
		t.Run(release+"/"+strings.TrimSuffix(filepath.Base(file), ".json.gz"), func(t *testing.T) { run(t, readGolden(t, file)) })
	}
}

// off is how far a number is from what it should be, relative to that.
func off(got, want float64) float64 {
	if got == want {
		return 0
	}
	return math.Abs(got-want) / math.Abs(want)
}

func TestPipelinesGiveWhatScikitLearnGives(t *testing.T) {
	const tolerance = 1e-12
	eachGolden(t, func(t *testing.T, g *golden) {
		m := g.compile(t)
		rows := g.batch(t)
		var out scoring.Results
		m.NewScorer(scoring.ScorerConfig{}).Score(rows, &out)
		worst, same, scored := 0.0, 0, 0
		for row, want := range g.Probabilities {
			if t.Failed() {
				return // one row says enough
			}
			if want == nil {
				if out.Refused(row) == nil {
					t.Errorf("row %d %v: scikit-learn refuses it, we give %v", row, g.Rows[row], out.Probability[row])
				}
				continue
			}
			if cause := out.Refused(row); cause != nil {
				t.Errorf("row %d %v: refused (%v), scikit-learn gives %v", row, g.Rows[row], cause, want)
				continue
			}
			scored++
			got := out.Probabilities(row)
			if got == nil {
				got, want = out.Probability[row:row+1], want[1:]
			}
			equal := true
			for k := range want {
				d := off(got[k], want[k])
				worst, equal = max(worst, d), equal && d == 0
				if !(d <= tolerance) {
					t.Errorf("row %d %v: class %d: probability %v, want %v (off by %.2g)", row, g.Rows[row], k, got[k], want[k], d)
				}
			}
			if equal {
				same++
			}
			if margins := g.Margins[row]; margins != nil {
				got := out.Margins(row)
				if got == nil {
					got = out.Margin[row : row+1]
				}
				for k := range margins {
					// A margin is a sum that may cancel: what counts is its error on the scale of 1.
					if d := math.Abs(got[k]-margins[k]) / max(1, math.Abs(margins[k])); !(d <= tolerance) {
						t.Errorf("row %d: margin %d is %v, want %v", row, k, got[k], margins[k])
					}
				}
			}
		}
		if scored < 100 {
			t.Errorf("only %d rows are scored", scored)
		}
		t.Logf("largest relative difference %.2g; %d of %d rows to the bit, %d refused", worst, same, scored, len(g.Probabilities)-scored)
	})
}

func TestContributionsAreThoseOfShapFoldedIntoTheInputs(t *testing.T) {
	const tolerance = 1e-9
	files, err := filepath.Glob("testdata/sklearn/contributions/*.json.gz")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d goldens: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json.gz"), func(t *testing.T) {
			g := readGolden(t, file)
			m := g.compile(t)
			var out scoring.Results
			m.NewScorer(scoring.ScorerConfig{Contributions: true}).Score(g.batch(t), &out)
			worst := 0.0
			for class, expected := range g.Expected {
				if d := math.Abs(out.Biases[class] - expected); !(d <= tolerance) {
					t.Errorf("class %d: bias %v, shap expects %v", class, out.Biases[class], expected)
				}
			}
			for row, classes := range g.Contributions {
				for class, want := range classes {
					got := out.ContributionsTo(row, class)
					for i := range want {
						d := math.Abs(got[i] - want[i])
						if worst = max(worst, d); !(d <= tolerance) {
							t.Fatalf("row %d, class %d, input %s: %v, shap gives %v", row, class, g.Inputs[i].Name, got[i], want[i])
						}
					}
				}
			}
			t.Logf("largest difference %.2g", worst)
		})
	}
}

func TestContributionsOfEveryPipelineAddUp(t *testing.T) {
	explained := 0
	eachGolden(t, func(t *testing.T, g *golden) {
		m := g.compile(t)
		if m.Explained() == nil {
			t.Skip("no exact contributions, as the documentation says")
		}
		explained++
		rows := g.batch(t)
		var out, plain scoring.Results
		m.NewScorer(scoring.ScorerConfig{Contributions: true, Reasons: 2}).Score(rows, &out)
		m.NewScorer(scoring.ScorerConfig{}).Score(rows, &plain)
		for row := range rows.Len() {
			if plain.Probability[row] != out.Probability[row] && out.Refused(row) == nil {
				t.Fatalf("row %d: %v with contributions, %v without", row, out.Probability[row], plain.Probability[row])
			}
			if out.Refused(row) != nil {
				continue
			}
			for class, bias := range out.Biases {
				sum, size := bias, math.Abs(bias)
				for _, c := range out.ContributionsTo(row, class) {
					sum += c
					size += math.Abs(c)
				}
				margin := out.Margin[row]
				if all := out.Margins(row); all != nil {
					margin = all[class]
				}
				if !(math.Abs(sum-margin) <= 1e-9*max(1, size/1e4)) {
					t.Fatalf("row %d, class %d: bias and contributions make %v, the margin is %v", row, class, sum, margin)
				}
			}
			if n := len(out.Reasons(row)); n > 2 {
				t.Errorf("row %d: %d reasons", row, n)
			}
		}
	})
	if explained < 50 {
		t.Errorf("only %d pipelines are explained", explained)
	}
}

func TestPipelinesAreScoredOneByOneAsInBatchesAndWithoutAllocations(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *golden) {
		m := g.compile(t)
		rows := g.batch(t)
		var batch, single scoring.Results
		scorer := m.NewScorer(scoring.ScorerConfig{})
		scorer.Score(rows, &batch)
		one := schemas.NewRows(rows.Width(), 1)
		for row := 0; row < rows.Len(); row += 7 {
			one.Reset()
			numbers, categories := one.Row(one.Append())
			fromNumbers, fromCategories := rows.Row(row)
			copy(numbers, fromNumbers)
			copy(categories, fromCategories)
			scorer.Score(one, &single)
			if single.Probability[0] != batch.Probability[row] && batch.Refused(row) == nil {
				t.Fatalf("row %d: %v alone, %v in the batch", row, single.Probability[0], batch.Probability[row])
			}
		}
		if n := testing.AllocsPerRun(2, func() { scorer.Score(rows, &batch) }); n != 0 {
			t.Errorf("%v allocations a batch", n)
		}
	})
}
