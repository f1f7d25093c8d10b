package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/telco"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// telcoRows is read once: tables are never written to.
var telcoRows = sync.OnceValues(func() (*Table, error) {
	s, err := ParseSpecification(telco.Specification())
	if err != nil {
		return nil, err
	}
	r, err := telco.CSV()
	if err != nil {
		return nil, err
	}
	return ReadTable(s, r)
})

func telcoTable(t testing.TB) (*Specification, *Table) {
	t.Helper()
	s, err := ParseSpecification(telco.Specification())
	if err != nil {
		t.Fatal(err)
	}
	table, err := telcoRows()
	if err != nil {
		t.Fatal(err)
	}
	return s, table
}

// golden is what testdata/golden.py wrote.
type golden struct {
	Numbers    []string `json:"numbers"`
	Booleans   []string `json:"booleans"`
	Categories []string `json:"categories"`
	All        struct {
		Shape struct {
			Impute     []float64  `json:"impute"`
			Mean       []float64  `json:"mean"`
			Scale      []float64  `json:"scale"`
			Categories [][]string `json:"categories"`
		} `json:"shape"`
		None     goldenFit `json:"none"`
		Balanced goldenFit `json:"balanced"`
	} `json:"all"`
	SplitFit struct {
		None     goldenFit `json:"none"`
		Balanced goldenFit `json:"balanced"`
	} `json:"split_fit"`
}

type goldenFit struct {
	Coefficients  []float64 `json:"coefficients"`
	Intercept     float64   `json:"intercept"`
	Rows          []int     `json:"rows"`
	Margins       []float64 `json:"margins"`
	Probabilities []float64 `json:"probabilities"`
	TrainRows     int       `json:"train_rows"`
	TestRows      int       `json:"test_rows"`
	AUC           float64   `json:"auc"`
	Brier         float64   `json:"brier"`
	LogLoss       float64   `json:"log_loss"`
	Accuracy      float64   `json:"accuracy"`
}

func readGolden(t *testing.T) *golden {
	t.Helper()
	text, err := os.ReadFile("testdata/telco_golden.json")
	if err != nil {
		t.Fatal(err)
	}
	g := &golden{}
	if err := json.Unmarshal(text, g); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestCoefficientsAreThoseOfScikitLearn(t *testing.T) {
	g := readGolden(t)
	s, table := telcoTable(t)
	for weight, want := range map[string]goldenFit{WeightNone: g.All.None, WeightBalanced: g.All.Balanced} {
		t.Run(weight, func(t *testing.T) {
			s := *s
			s.Model.ClassWeight = weight
			learned, weights, err := regress(&s, s.Contract(), table)
			if err != nil {
				t.Fatal(err)
			}
			var features []string
			features = append(append(features, g.Numbers...), g.Booleans...)
			for i, name := range g.Categories {
				for _, value := range g.All.Shape.Categories[i] {
					features = append(features, name+"="+value)
				}
			}
			if !slices.Equal(learned.features, features) {
				t.Fatalf("features %q, want %q", learned.features, features)
			}
			for i := range g.Numbers {
				c := learned.numbers[i]
				within(t, "mean", c.mean, g.All.Shape.Mean[i], 1e-12)
				within(t, "scale", c.scale, g.All.Shape.Scale[i], 1e-12)
				if c.imputed {
					within(t, "imputed value", c.fill, g.All.Shape.Impute[i], 1e-12)
				}
			}
			worst := 0.0
			for i, w := range append(slices.Clone(want.Coefficients), want.Intercept) {
				worst = max(worst, math.Abs(weights[i]-w))
			}
			t.Logf("largest difference of a coefficient: %.2g", worst)
			if !(worst <= 1e-8) {
				t.Errorf("a coefficient is off by %g", worst)
			}
			margins, probabilities := learned.design(table.Rows).probabilities(weights)
			for i, row := range want.Rows {
				within(t, fmt.Sprintf("margin of row %d", row), margins[row], want.Margins[i], 1e-7)
				within(t, fmt.Sprintf("probability of row %d", row), probabilities[row], want.Probabilities[i], 1e-8)
			}
		})
	}
}

// regressionOf is the linear step of an artefact, the last but one.
func regressionOf(a *scoring.Artefact) scoring.Linear {
	return a.Pipeline.Steps[len(a.Pipeline.Steps)-2].Transform.(scoring.Linear)
}

func TestHeldOutMetricsAreThoseOfScikitLearn(t *testing.T) {
	g := readGolden(t)
	s, table := telcoTable(t)
	for weight, want := range map[string]goldenFit{WeightNone: g.SplitFit.None, WeightBalanced: g.SplitFit.Balanced} {
		t.Run(weight, func(t *testing.T) {
			s := *s
			s.Model.ClassWeight, s.Threshold = weight, 0.5
			a, err := Fit(&s, table, Provenance{CreatedAt: time.Unix(1, 0), LibraryVersion: "test"})
			if err != nil {
				t.Fatal(err)
			}
			if a.Manifest.Training.Rows != want.TrainRows || a.Manifest.Training.HeldOutRows != want.TestRows {
				t.Errorf("split into %d and %d, want %d and %d", a.Manifest.Training.Rows, a.Manifest.Training.HeldOutRows, want.TrainRows, want.TestRows)
			}
			for i, c := range regressionOf(a).Coefficients[0] {
				within(t, fmt.Sprintf("coefficient %d", i), c, want.Coefficients[i], 1e-8)
			}
			for _, m := range a.Manifest.Metrics {
				w := map[string]float64{"auc": want.AUC, "brier": want.Brier, "log_loss": want.LogLoss, "accuracy": want.Accuracy}[m.Name]
				within(t, m.Name, m.Value, w, 1e-8)
				t.Logf("%s %.5f [%.5f, %.5f]", m.Name, m.Value, m.Interval.Low, m.Interval.High)
				if !(m.Interval.Low < m.Value && m.Value < m.Interval.High && m.Interval.High-m.Interval.Low < 0.06) {
					t.Errorf("%s: %v is oddly placed in %+v", m.Name, m.Value, m.Interval)
				}
				if m.Name == "auc" && m.Value < 0.82 {
					t.Errorf("the AUC is %v", m.Value)
				}
			}
		})
	}
}

func TestScoringWithScikitLearnsModelGivesItsProbabilities(t *testing.T) {
	g := readGolden(t)
	s, table := telcoTable(t)
	for weight, want := range map[string]goldenFit{WeightNone: g.All.None, WeightBalanced: g.All.Balanced} {
		t.Run(weight, func(t *testing.T) {
			a, err := Fit(s, table, Provenance{CreatedAt: time.Unix(1, 0), LibraryVersion: "test"})
			if err != nil {
				t.Fatal(err)
			}
			shape := g.All.Shape
			weights := append(slices.Clone(want.Coefficients), want.Intercept)
			learned := &transforms{contract: s.Contract()}
			for i, in := range learned.contract.Inputs {
				if k := slices.Index(g.Numbers, in.Name); k >= 0 {
					learned.numbers = append(learned.numbers, numberColumn{input: i, fill: shape.Impute[k], imputed: true, mean: shape.Mean[k], scale: shape.Scale[k]})
				} else if k := slices.Index(g.Categories, in.Name); k >= 0 {
					learned.categories = append(learned.categories, categoryColumn{input: i, values: shape.Categories[k]})
				} else {
					learned.numbers = append(learned.numbers, numberColumn{input: i, unchanged: true})
				}
			}
			a.Pipeline = learned.pipeline(weights, make([]float64, len(want.Coefficients)))
			rows := table.subset(want.Rows).Rows
			a.Reference = scoring.Reference{Rows: rows, Margin: want.Margins, Probability: want.Probabilities}
			dir := filepath.Join(t.TempDir(), "model")
			if _, err := scoring.WriteArtefact(dir, *a); err != nil {
				t.Fatal(err)
			}
			m, err := scoring.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			var out scoring.Results
			m.NewScorer(scoring.ScorerConfig{}).Score(rows, &out)
			worst := 0.0
			for i, p := range want.Probabilities {
				worst = max(worst, math.Abs(out.Probability[i]-p)/p)
			}
			t.Logf("largest relative difference of a probability: %.2g", worst)
			if !(worst <= 1e-13) {
				t.Errorf("a probability is off by %g of itself", worst)
			}
		})
	}
}

func within(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*max(1, math.Abs(want))) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestArtefactHoldsEverythingAndLoads(t *testing.T) {
	s, table := telcoTable(t)
	a, err := Fit(s, table, Provenance{CreatedAt: time.Unix(1e9, 0), LibraryVersion: "test", GitCommit: "abc"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if _, err := scoring.WriteArtefact(dir, *a); err != nil {
		t.Fatal(err)
	}
	m, err := scoring.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.ReferenceRows() < 50 {
		t.Errorf("only %d reference rows", m.ReferenceRows())
	}
	var out scoring.Results
	m.NewScorer(scoring.ScorerConfig{}).Score(a.Reference.Rows, &out)
	missing, unseen := map[string]bool{}, map[string]bool{}
	for row := range out.Len() {
		for _, name := range out.Missing(row) {
			missing[name] = true
		}
		for _, name := range out.Unseen(row) {
			unseen[name] = true
		}
	}
	for _, in := range m.Contract().Inputs {
		if in.Nullable != missing[in.Name] || (in.Kind == schemas.Category) != unseen[in.Name] {
			t.Errorf("input %s: missing in the reference: %v, unseen: %v", in.Name, missing[in.Name], unseen[in.Name])
		}
	}
	profile, err := drift.ReadProfile(strings.NewReader(string(m.Profile())))
	if err != nil {
		t.Fatal(err)
	}
	if profile.Events != uint64(m.Manifest().Training.Rows) {
		t.Errorf("the profile counts %d rows, the model was fitted on %d", profile.Events, m.Manifest().Training.Rows)
	}
	if got := m.Manifest(); got.Training.GitCommit != "abc" || got.Label.Horizon != "30d" || got.Training.Parameters["split_seed"] != "1" {
		t.Errorf("manifest %+v", got)
	}
}

func TestSameInputGivesTheSameArtefact(t *testing.T) {
	s, table := telcoTable(t)
	s.Model.Undersample = 1.5
	var digests []string
	for _, seed := range []uint64{1, 1, 2} {
		s.Model.Seed = seed
		a, err := Fit(s, table, Provenance{CreatedAt: time.Unix(1e9, 0), LibraryVersion: "test"})
		if err != nil {
			t.Fatal(err)
		}
		digest, err := scoring.WriteArtefact(filepath.Join(t.TempDir(), "m"), *a)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest)
	}
	if digests[0] != digests[1] || digests[1] == digests[2] {
		t.Errorf("digests of the seeds 1, 1 and 2: %q", digests)
	}
}

// Contributions are measured from the background: over the customers in training they cancel out.
func TestBackgroundIsThatOfAllCustomersInTraining(t *testing.T) {
	s, table := telcoTable(t)
	s.Model.Undersample = 1
	a, err := Fit(s, table, Provenance{CreatedAt: time.Unix(1, 0), LibraryVersion: "test"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if _, err := scoring.WriteArtefact(dir, *a); err != nil {
		t.Fatal(err)
	}
	m, err := scoring.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var training []int
	for i, customer := range table.Customer {
		if !s.HeldOut(customer) {
			training = append(training, i)
		}
	}
	var out scoring.Results
	m.NewScorer(scoring.ScorerConfig{Contributions: true}).Score(table.subset(training).Rows, &out)
	sums := make([]float64, len(m.Contract().Inputs))
	for row := range out.Len() {
		for i, c := range out.Contributions(row) {
			sums[i] += c
		}
	}
	for i, sum := range sums {
		within(t, "mean contribution of "+m.Contract().Inputs[i].Name, sum/float64(out.Len()), 0, 1e-12)
	}
}

func TestUndersamplingKeepsTheSmallerClassAndTheRatio(t *testing.T) {
	_, table := telcoTable(t)
	_, churned := table.classes()
	drawn, err := table.undersampled(Model{Undersample: 2, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	if gotRetained, gotChurned := drawn.classes(); gotChurned != churned || gotRetained != 2*churned {
		t.Errorf("%d retained and %d churned of %d", gotRetained, gotChurned, churned)
	}
	seen := map[string]bool{}
	for _, c := range drawn.Customer {
		if seen[c] {
			t.Fatalf("customer %s was drawn twice", c)
		}
		seen[c] = true
	}
}

func TestACustomerIsNeverOnBothSidesAndTheFractionHolds(t *testing.T) {
	s := DefaultSpecification()
	s.Split = Split{TestFraction: 0.3, Seed: 5}
	held, moved := 0, 0
	other := s
	other.Split.Seed = 6
	for i := range 10_000 {
		key := fmt.Sprintf("customer-%d", i)
		if s.HeldOut(key) {
			held++
		}
		if s.HeldOut(key) != other.HeldOut(key) {
			moved++
		}
	}
	if held < 2850 || held > 3150 {
		t.Errorf("%d of 10000 customers are held out, want about 3000", held)
	}
	if moved < 4000 || moved > 4400 {
		t.Errorf("another seed moved %d customers, want about 4200", moved)
	}
}

func TestSpecificationNamesAllFaultsAtOnce(t *testing.T) {
	_, err := ParseSpecification([]byte(`
name: x
customer: id
label: {column: id, positive: "1", definition: left, horizon: soon}
inputs:
  - {column: a, kind: number, min: 2, max: 1}
  - {column: a, name: b, kind: category}
drop: [a]
model: {c: 0, class_weight: heavy, undersample: 0.5}
split: {test_fraction: 1}
threshold: 0
`))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"label.column: column \"id\" is used by customer", "label.horizon", `"30d"`, "inputs[0].min", "inputs[1].column", "drop[0]",
		"model.c", "model.class_weight", "model.undersample", "split.test_fraction", "threshold",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s:\n%v", want, err)
		}
	}
	for name, text := range map[string]string{
		"an unknown key":  "name: x\nnmae: y",
		"an unknown kind": "inputs: [{column: a, kind: colour}]",
		"no YAML":         "name: [",
		"nothing":         "",
	} {
		if _, err := ParseSpecification([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

const small = `
name: small
customer: id
label: {column: churned, positive: "yes", definition: left, horizon: 30d}
inputs:
  - {column: Tenure Days, name: tenure, kind: number, min: 0}
  - {column: plan, kind: category, nullable: true}
  - {column: joined, kind: date}
drop: [comment]
`

func TestTableErrorsNameLineAndColumn(t *testing.T) {
	s, err := ParseSpecification([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	const header = "id,Tenure Days,plan,joined,comment,churned\n"
	const good = "1,5,pro,2024-02-29,\"two\nlines\",yes\n"
	table, err := ReadTable(s, strings.NewReader(header+good+"2, 6 ,,2024-01-01,,no\n"))
	if err != nil {
		t.Fatal(err)
	}
	if numbers, categories := table.Rows.Row(1); numbers[0] != 6 || categories[1] != nil || numbers[2] != 19723 || table.Churn[1] || table.Customer[1] != "2" {
		t.Errorf("row 1 is %v %q %v", numbers, categories, table.Churn[1])
	}
	for _, c := range []struct{ name, csv, want string }{
		{"no header", "", "no header line"},
		{"no rows", header, "no rows"},
		{"columns missing", "id,plan,joined,comment\n", `no column "Tenure Days"`},
		{"the label's column missing", "id,Tenure Days,plan,joined,comment\n", `no column "churned"`},
		{"a column that nobody mentions", "extra," + header, `does not mention column "extra"`},
		{"a column twice", "id," + header, `"id" occurs twice`},
		{"text in a number", header + good + "2,many,pro,2024-01-01,,no\n", `row 1 (line 4), column "Tenure Days": "many" is not a finite number`},
		{"NaN in a number", header + "2,NaN,pro,2024-01-01,,no\n", `row 0 (line 2), column "Tenure Days"`},
		{"a hexadecimal number", header + "2,0x10,pro,2024-01-01,,no\n", `"0x10" is not a finite number`},
		{"an overflow", header + "2,1e999,pro,2024-01-01,,no\n", `"1e999" is not a finite number`},
		{"out of range", header + good + "2,-1,pro,2024-01-01,,no\n", `(line 4), column "Tenure Days": -1 is below`},
		{"a required cell empty", header + "2, ,pro,2024-01-01,,no\n", `column "Tenure Days": the value is missing`},
		{"no date", header + "2,1,pro,2023-02-29,,no\n", `column "joined": "2023-02-29" is not a date`},
		{"invalid UTF-8", header + "2,1,p\xff,2024-01-01,,no\n", `column "plan": the text is not valid UTF-8`},
		{"no customer", header + ",1,pro,2024-01-01,,no\n", `column "id": the customer's key is empty`},
		{"no label", header + "2,1,pro,2024-01-01,,\n", `column "churned": the label is empty`},
		{"a third label", header + good + "2,1,pro,2024-01-01,,no\n3,1,pro,2024-01-01,,maybe\n", `(line 5), column "churned": "maybe" is a third value`},
		{"too few cells", header + good + "2,1,pro\n", "row 1 (line 4): wrong number of fields: found 3, the header line has 6"},
		{"a quote astray", header + "2,\"1\"x,pro,2024-01-01,,no\n", "line 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ReadTable(s, strings.NewReader(c.csv))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestReferenceHoldsTheClassesOfTimeThatAreAskedFor(t *testing.T) {
	parse := func(classes string) (*Specification, error) { return ParseSpecification([]byte(small + classes)) }
	s, err := parse("classes: {by: 12h, zone: Europe/Berlin, time: seen}\n")
	if err != nil {
		t.Fatal(err)
	}
	var rows strings.Builder
	rows.WriteString("id,Tenure Days,plan,joined,comment,churned,seen\n")
	for i := range 400 {
		hour := map[bool]string{true: "22", false: "14"}[i%4 == 0] // 23 and 15 h in Berlin
		fmt.Fprintf(&rows, "%d,%d,pro,2024-02-29,,%s,2026-01-15 %s:30:00\n", i, i%50, map[bool]string{true: "yes", false: "no"}[i%3 == 0], hour)
	}
	table, err := ReadTable(s, strings.NewReader(rows.String()))
	if err != nil {
		t.Fatal(err)
	}
	a, err := Fit(s, table, Provenance{})
	if err != nil {
		t.Fatal(err)
	}
	profile, err := drift.ReadProfile(bytes.NewReader(a.Profile))
	if err != nil {
		t.Fatal(err)
	}
	if profile.Classes.By != "12h" || profile.ClassEvents[0] != 0 || profile.ClassEvents[1] != profile.Events {
		t.Errorf("%+v: %v of %d", profile.Classes, profile.ClassEvents, profile.Events)
	}
	_, err = ReadTable(s, strings.NewReader(strings.Replace(rows.String(), "2026-01-15 22:30:00", "yesterday", 1)))
	if err == nil || !strings.Contains(err.Error(), `row 0 (line 2), column "seen": "yesterday" is no time`) {
		t.Error(err)
	}
	_, err = ReadTable(s, strings.NewReader(strings.Replace(rows.String(), ",seen\n", ",saw\n", 1)))
	if err == nil || !strings.Contains(err.Error(), `there is no column "seen"`) || !strings.Contains(err.Error(), `does not mention column "saw"`) {
		t.Error(err)
	}
	for classes, want := range map[string]string{
		"classes: {by: 5h, zone: UTC, time: seen}\n":   `classes: "5h" is not a division of time`,
		"classes: {by: 6h, zone: Mars, time: seen}\n":  `time zone "Mars"`,
		"classes: {by: weekdays, zone: UTC}\n":         "classes.time: missing",
		"classes: {by: 6h, zone: UTC, column: seen}\n": "field column not found",
	} {
		if _, err := parse(classes); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", classes, err)
		}
	}
}

func TestFitRefusesWhatCannotBeLearned(t *testing.T) {
	header := "id,Tenure Days,plan,joined,comment,churned\n"
	var oneLabel, noPlan strings.Builder
	for i := range 60 {
		fmt.Fprintf(&oneLabel, "%d,%d,pro,2024-01-01,,no\n", i, i)
		fmt.Fprintf(&noPlan, "%d,%d,,2024-01-01,,%s\n", i, i, []string{"yes", "no"}[i%2])
	}
	var oneCustomer, large strings.Builder
	for i := range 60 {
		fmt.Fprintf(&oneCustomer, "acme,%d,pro,2024-01-01,,%s\n", i, []string{"yes", "no"}[i%2])
		fmt.Fprintf(&large, "%d,%d,pro,2024-01-01,,%s\n", i, i, []string{"yes", "no"}[i%2])
	}
	large.WriteString("60,1e308,pro,2024-01-01,,no\n")
	for _, c := range []struct{ name, rows, want string }{
		{"two customers, none of them held out", "0,1,pro,2024-01-01,,yes\n4,2,pro,2024-01-01,,no\n", "none of the 2 rows of 2 customers was drawn at split.test_fraction: 0.2; add rows, raise split.test_fraction, or set split.test_fraction: 0"},
		{"two customers, both held out", "1,1,pro,2024-01-01,,yes\n2,2,pro,2024-01-01,,no\n", "all 2 rows of 2 customers were held out at split.test_fraction: 0.2"},
		{"one customer in all rows", oneCustomer.String(), `all 60 rows belong to the one customer "acme", and the split, which is by customer, took them all into training`},
		{"one customer in all rows, held out", "1,1,pro,2024-01-01,,yes\n1,2,pro,2024-01-01,,no\n", `all 2 rows belong to the one customer "1", and the split, which is by customer, took them all into what is held out`},
		{"a number that overflows when it is scaled", large.String(), `column "Tenure Days" of the input "tenure": row 60 holds 1e+308`},
		{"one label only", oneLabel.String(), "both are needed"},
		{"an input that is always missing", noPlan.String(), `input "plan": every training row misses it`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := ParseSpecification([]byte(small))
			if err != nil {
				t.Fatal(err)
			}
			table, err := ReadTable(s, strings.NewReader(header+c.rows))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Fit(s, table, Provenance{CreatedAt: time.Unix(1, 0)}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// A constant column, a separable label and dates far from 0 are ordinary in real tables.
func TestFitSettlesOnAwkwardData(t *testing.T) {
	s, err := ParseSpecification([]byte(strings.Replace(small, "name: small", "name: small\nsplit: {test_fraction: 0}", 1)))
	if err != nil {
		t.Fatal(err)
	}
	var csv strings.Builder
	csv.WriteString("id,Tenure Days,plan,joined,comment,churned\n")
	for i := range 40 {
		fmt.Fprintf(&csv, "%d,%d,pro,%s,,%s\n", i, i*1000, time.Unix(0, 0).AddDate(100, 0, i).Format(time.DateOnly), []string{"yes", "no"}[i/20])
	}
	table, err := ReadTable(s, strings.NewReader(csv.String()))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []float64{1e-6, 1, 1e4} {
		s.Model.C = c
		a, err := Fit(s, table, Provenance{CreatedAt: time.Unix(1, 0)})
		if err != nil {
			t.Fatalf("c = %v: %v", c, err)
		}
		if regressionOf(a).Coefficients[0][0] >= 0 || len(a.Manifest.Metrics) != 0 {
			t.Errorf("c = %v: %+v", c, regressionOf(a))
		}
	}
}

func TestIntervalsCoverAndWidenWithClusters(t *testing.T) {
	if testing.Short() {
		t.Skip("repeats the bootstrap")
	}
	random := rand.New(rand.NewPCG(3, 4))
	// The probability is right by construction, so that the Brier score's expectation is known.
	const repeats, rows = 40, 200
	covered := 0
	for range repeats {
		var churn []bool
		var probabilities []float64
		var customers []string
		for i := range rows {
			p := random.Float64()
			churn = append(churn, random.Float64() < p)
			probabilities = append(probabilities, p)
			customers = append(customers, fmt.Sprint(i))
		}
		metrics, err := evaluate(churn, probabilities, customers, 0.5, 1)
		if err != nil {
			t.Fatal(err)
		}
		if b := metrics[1]; b.Interval.Low <= 1.0/6 && 1.0/6 <= b.Interval.High { // E[p(1-p)] = 1/6
			covered++
		}
	}
	if covered < repeats*85/100 {
		t.Errorf("the 95%% interval held the true Brier score in %d of %d repeats", covered, repeats)
	}

	// Ten equal rows a customer are no more evidence than one.
	build := func(copies int) (churn []bool, probabilities []float64, customers []string) {
		random := rand.New(rand.NewPCG(5, 6))
		for i := range 200 {
			p := random.Float64()
			y := random.Float64() < p
			for range copies {
				churn, probabilities, customers = append(churn, y), append(probabilities, p), append(customers, fmt.Sprint(i))
			}
		}
		return churn, probabilities, customers
	}
	width := func(copies int) float64 {
		churn, probabilities, customers := build(copies)
		metrics, err := evaluate(churn, probabilities, customers, 0.5, 1)
		if err != nil {
			t.Fatal(err)
		}
		return metrics[0].Interval.High - metrics[0].Interval.Low
	}
	if one, ten := width(1), width(10); math.Abs(one-ten) > 1e-9 {
		t.Errorf("the interval is %v wide with one row a customer and %v with ten equal ones", one, ten)
	}
}

func TestAUCCountsTiesHalf(t *testing.T) {
	for _, c := range []struct {
		churn         []bool
		probabilities []float64
		want          float64
	}{
		{[]bool{false, true}, []float64{0.1, 0.9}, 1},
		{[]bool{true, false}, []float64{0.1, 0.9}, 0},
		{[]bool{true, false, true, false}, []float64{0.5, 0.5, 0.5, 0.5}, 0.5},
		{[]bool{false, true, false, true, true}, []float64{0.1, 0.2, 0.2, 0.2, 0.8}, (1 + 0.5 + 1 + 0.5 + 1 + 1) / 6.0},
	} {
		if got, err := AUC(c.churn, c.probabilities); err != nil || got != c.want {
			t.Errorf("%v of %v: AUC %v (%v), want %v", c.probabilities, c.churn, got, err, c.want)
		}
	}
	if _, err := AUC([]bool{true, true}, []float64{0.1, 0.2}); !errors.Is(err, ErrOneLabel) {
		t.Errorf("AUC of one label: %v", err)
	}
	if _, err := AUC([]bool{true}, nil); err == nil {
		t.Error("an AUC of a label without a probability")
	}
	if _, err := evaluate([]bool{true, true}, []float64{0.1, 0.2}, []string{"a", "b"}, 0.5, 1); err == nil {
		t.Error("metrics of one label")
	}
}

// Expected values are those of numpy.quantile.
func TestQuantileInterpolates(t *testing.T) {
	for _, c := range []struct {
		sorted  []float64
		q, want float64
	}{
		{[]float64{7}, 0, 7},
		{[]float64{7}, 0.99, 7},
		{[]float64{7}, 1, 7},
		{[]float64{1, 2, 3, 4}, 0, 1},
		{[]float64{1, 2, 3, 4}, 0.5, 2.5},
		{[]float64{1, 2, 3, 4}, 0.25, 1.75},
		{[]float64{1, 2, 4}, 0.5, 2},
		{[]float64{1, 2, 3, 4}, 1, 4},
		{[]float64{0, 10}, 0.95, 9.5},
	} {
		if got := Quantile(c.sorted, c.q); got != c.want {
			t.Errorf("quantile %v of %v is %v, want %v", c.q, c.sorted, got, c.want)
		}
	}
}

func TestGitCommit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git here")
	}
	dir := t.TempDir()
	ctx := context.Background()
	if got := GitCommit(ctx, dir); got != "" {
		t.Errorf("outside of a repository: %q", got)
	}
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org"}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	git("init", "-q")
	git("add", "f")
	git("commit", "-q", "-m", "one", "--no-verify")
	if got := GitCommit(ctx, dir); len(got) != 40 {
		t.Errorf("got %q, want 40 hexadecimal digits", got)
	}
	if err := os.WriteFile(file, []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := GitCommit(ctx, dir); len(got) != 46 || !strings.HasSuffix(got, "-dirty") {
		t.Errorf("got %q, want a commit and -dirty", got)
	}
}

func BenchmarkFitTelco(b *testing.B) {
	s, table := telcoTable(b)
	for b.Loop() {
		if _, err := Fit(s, table, Provenance{CreatedAt: time.Unix(1, 0)}); err != nil {
			b.Fatal(err)
		}
	}
}
