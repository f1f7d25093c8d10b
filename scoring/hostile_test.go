package scoring_test

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// hostileContract declares the inputs of all goldens.
func hostileContract() schemas.Contract {
	var c schemas.Contract
	for _, name := range []string{
		"tenure_days", "monthly_spend", "support_tickets_30d", "last_login_hours", "city", "registered_via",
		"transaction_date", "membership_expire_date",
	} {
		c.Inputs = append(c.Inputs, schemas.Input{Name: name, Kind: schemas.Number, Nullable: true})
	}
	for _, name := range []string{"plan_tier", "country"} {
		c.Inputs = append(c.Inputs, schemas.Input{Name: name, Kind: schemas.Category, Nullable: true})
	}
	c.Inputs = append(c.Inputs, schemas.Input{Name: "joined", Kind: schemas.Date, Nullable: true})
	return c
}

func hostileRows() *schemas.Rows {
	width := len(hostileContract().Inputs)
	rows := schemas.NewRows(width, 5)
	for _, x := range []float64{0, 3, math.NaN(), math.Inf(1), -1e300} {
		numbers, categories := rows.Row(rows.Append())
		for i := range 8 {
			numbers[i] = x + float64(i)
		}
		categories[8], categories[9] = []byte("pro"), []byte("NA")
		numbers[10] = 18000
	}
	_, categories := rows.Row(1)
	categories[8], categories[9] = nil, []byte("Côte d’Ivoire")
	return rows
}

// load does to the text of model.json what loading an artefact does, and scores odd rows by it.
func loadHostile(t testing.TB, model []byte) (*scoring.Pipeline, error) {
	t.Helper()
	p, err := scoring.ParsePipeline(model)
	if err != nil {
		return nil, err
	}
	m, err := scoring.CompileForTest(p, hostileContract())
	if err != nil {
		return nil, err
	}
	var out scoring.Results
	m.NewScorer(scoring.ScorerConfig{Reasons: 3, Contributions: true}).Score(hostileRows(), &out)
	for row, probability := range out.Probability {
		if (out.Refused(row) == nil) != (probability >= 0 && probability <= 1) {
			t.Errorf("row %d: probability %v, refused: %v", row, probability, out.Refused(row))
		}
		if len(out.Reasons(row)) > 3 {
			t.Errorf("row %d: %d reasons", row, len(out.Reasons(row)))
		}
	}
	return p, nil
}

const treeModel = `{"steps":[{"type":"trees","columns":["city","tenure_days"],"outputs":["p"],"parameters":{"trees":[{` +
	`"left":[1,-1,-1],"right":[2,-1,-1],"column":[1,0,0],"threshold":[2.5,0,0],"values":[0,0.25,0.75],"cover":[4,3,1]}]}}],` +
	`"output":{"margin":["p"],"probability":["p"]}}`

// explainedByRows has a background by which its margin, a probability, is explained.
const explainedByRows = `{"steps":[{"type":"linear","columns":["city","tenure_days"],"outputs":["m"],"parameters":{"coefficients":[[0.5,-1]],"intercepts":[1]}},` +
	`{"type":"logistic","columns":["m"],"outputs":["p"]}],"output":{"margin":["p"],"probability":["p"]},"background":[{"tenure_days":1,` +
	`"monthly_spend":2,"support_tickets_30d":3,"last_login_hours":4,"city":5,"registered_via":6,"transaction_date":7,` +
	`"membership_expire_date":8,"plan_tier":"pro","country":null,"joined":"2024-01-31"}]}`

func TestHostilePipelinesAreRefusedWithTheirPlace(t *testing.T) {
	for _, model := range []string{treeModel, explainedByRows} {
		if _, err := loadHostile(t, []byte(model)); err != nil {
			t.Fatal(err)
		}
	}
	tree := func(old, new string) string {
		if !strings.Contains(treeModel, old) {
			t.Fatalf("no %s", old)
		}
		return strings.Replace(treeModel, old, new, 1)
	}
	step := func(kind, columns, outputs, parameters string) string {
		return fmt.Sprintf(`{"steps":[{"type":%q,"columns":[%s],"outputs":[%s],"parameters":{%s}}],"output":{"margin":["city"],"probability":["city"]}}`, kind, columns, outputs, parameters)
	}
	const one, texts = `"city"`, `"plan_tier"`
	for _, c := range []struct{ name, model, want string }{
		{"children in a circle", tree(`"left":[1,-1,-1]`, `"left":[0,-1,-1]`), "node 0"},
		{"two parents", tree(`"right":[2,-1,-1]`, `"right":[1,-1,-1]`), "node"},
		{"a child out of range", tree(`"left":[1,-1,-1]`, `"left":[7,-1,-1]`), "node 0"},
		{"a negative child", tree(`"left":[1,-1,-1]`, `"left":[-3,-1,-1]`), "node 0"},
		{"half a leaf", tree(`"right":[2,-1,-1]`, `"right":[-1,-1,-1]`), "node 0"},
		{"a column out of range", tree(`"column":[1,0,0]`, `"column":[2,0,0]`), "node 0"},
		{"a threshold that is NaN", tree(`[2.5,0,0]`, `[NaN,0,0]`), "N"},
		{"a threshold that is null", tree(`[2.5,0,0]`, `[null,0,0]`), "element 0"},
		{"a threshold that overflows", tree(`[2.5,0,0]`, `[1e999,0,0]`), "1e999"},
		{"a child that is no integer", tree(`"left":[1,-1,-1]`, `"left":[1.5,-1,-1]`), "1.5"},
		{"a child beyond 32 bits", tree(`"left":[1,-1,-1]`, `"left":[4294967297,-1,-1]`), "4294967297"},
		{"lists of different lengths", tree(`"cover":[4,3,1]`, `"cover":[4,3]`), "cover: 2 elements for 3"},
		{"no nodes", tree(`"left":[1,-1,-1],"right":[2,-1,-1],"column":[1,0,0],"threshold":[2.5,0,0],"values":[0,0.25,0.75],"cover":[4,3,1]`, `"left":[],"right":[],"column":[],"threshold":[],"values":[],"cover":[]`), "no nodes"},
		{"an output out of range", tree(`{"left"`, `{"output":1,"left"`), "output 1"},
		{"a set at no node", tree(`"cover"`, `"sets":[{"node":9,"left":[1]}],"cover"`), "sets[0]"},
		{"a category beyond any set", tree(`"cover"`, `"sets":[{"node":0,"left":[2000000000]}],"cover"`), "2000000000"},
		{"missing values at no node", tree(`"cover"`, `"missing_left":[-1],"cover"`), "missing_left[0]"},
		{"vectors of another width", tree(`"values":[0,0.25,0.75]`, `"vectors":[0,0.25]`), "vectors"},
		{"an ensemble that divides by 0", tree(`"parameters":{`, `"parameters":{"divisor":-1,`), "divisor"},
		{"a base for each of two outputs", tree(`"parameters":{`, `"parameters":{"base":[1,2],`), "2 base values"},

		{"no steps", `{"steps":[],"output":{"margin":["city"],"probability":["city"]}}`, "no steps"},
		{"an output that is a category", `{"steps":[{"type":"logistic","columns":["city"],"outputs":["p"]}],"output":{"margin":["plan_tier"],"probability":["p"]}}`, "output.margin[0]"},
		{"classes without columns", `{"steps":[{"type":"logistic","columns":["city"],"outputs":["p"]}],"output":{"margin":["p"],"probability":["p"],"classes":["a","b"]}}`, "output"},
		{"a positive class that is none", `{"steps":[{"type":"logistic","columns":["city"],"outputs":["p"]}],"output":{"margin":["p","p","p"],"probability":["p","p","p"],"classes":["a","b","c"],"positive":3}}`, "positive 3"},
		{"a class twice", `{"steps":[{"type":"logistic","columns":["city"],"outputs":["p"]}],"output":{"margin":["p","p"],"probability":["p","p"],"classes":["a","a"]}}`, "twice"},

		{"a huge power", step("polynomial", one, `"x"`, `"powers":[[2000000000]]`), "powers[0][0]"},
		{"a negative power", step("polynomial", one, `"x"`, `"powers":[[-1]]`), "powers[0][0]"},
		{"an unknown function", step("function", one, `"x"`, `"name":"system"`), `"system"`},
		{"an unknown norm", step("normalize", one, `"x"`, `"norm":"l3"`), `"l3"`},
		{"edges that fall", step("bin", one, `"x"`, `"edges":[[2,1]]`), "edges[0]"},
		{"quantiles without references", step("quantile", one, `"x"`, `"quantiles":[[1]],"references":[]`), "references"},
		{"a range upside down", step("clip", one, `"x"`, `"range":[1,0]`), "range"},
		{"no range", step("clip", one, `"x"`, ``), "range"},
		{"an outcome of no rows", step("require", one, `"x"`, `"present":true`), "1 outputs"},
		{"a number for a category", step("impute", texts, `"x"`, `"values":[1]`), `"plan_tier"`},
		{"a text for a number", step("impute", one, `"x"`, `"values":["a"]`), `"city"`},
		{"texts of a number", step("lookup", one, `"x"`, `"encodings":[{"texts":["a"]}],"results":[[1]]`), `"city"`},
		{"values that do not ascend", step("lookup", one, `"x"`, `"encodings":[{"numbers":[1,1]}],"results":[[1,2]]`), "ascend"},
		{"no codes at all", step("lookup", one, `"x"`, `"encodings":[{}],"results":[[]]`), "results[0]"},
		{"an unknown part of a date", step("date_part", `"joined"`, `"x"`, `"unit":"days","parts":["century"]`), "century"},
		{"days between three dates", step("days_between", `"joined","joined","joined"`, `"x"`, `"units":["days","days","days"]`), "two columns"},
		{"a variance of 0", step("gaussian_likelihood", one, `"x"`, `"log_prior":[0],"means":[[0]],"variances":[[0]]`), "variances[0][0]"},
		{"a table without values", step("categorical_likelihood", one, `"x"`, `"log_prior":[0],"log_probability":[[[]]]`), "log_probability[0][0]"},
		{"an unknown kernel", step("kernel_machine", one, `"x"`, `"kernel":"magic","vectors":[],"coefficients":[[]],"intercepts":[0]`), "magic"},
		{"a huge degree", step("kernel_machine", one, `"x"`, `"kernel":"poly","degree":2000000000,"vectors":[],"coefficients":[[]],"intercepts":[0]`), "degree"},
		{"pairs of nothing", step("pairwise_probability", one, `"x"`, `"a":[0],"b":[0]`), "pairs"},
		{"weights that cancel", step("mean", `"city","tenure_days"`, `"x"`, `"weights":[1,-1]`), "add up to 0"},
		{"more columns than weights", step("mean", `"city","tenure_days"`, `"x"`, `"weights":[1]`), "2 columns"},
		{"points that fall", step("interpolate", one, `"x"`, `"x":[1,0],"y":[0,1]`), "ascend"},
		{"a category beyond a byte", step("category_code", one, `"x"`, `"known":[256]`), "known[0]"},
		{"votes by more columns than weights", step("votes", one, `"x"`, `"hit":[],"miss":[]`), "hit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := loadHostile(t, []byte(c.model))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestMemoryOfAHostilePipelineIsBoundedByItsFile(t *testing.T) {
	repeated := func(n int, text string) string { return strings.TrimSuffix(strings.Repeat(text+",", n), ",") }
	names := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"%x",`, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	const n = 20_000
	wide := func(kind, parameters string) string {
		return fmt.Sprintf(`{"steps":[{"type":%q,"columns":[%s],"outputs":[%s],"parameters":{%s}}],"output":{"margin":["0"],"probability":["0"]}}`, kind, repeated(n, `"city"`), names(n), parameters)
	}
	for name, model := range map[string]string{
		"many columns":          wide("logistic", ""),
		"many columns mixed":    wide("normalize", `"norm":"l2"`),
		"many empty trees":      strings.Replace(treeModel, `"trees":[{`, `"trees":[`+repeated(n, "{}")+`,{`, 1),
		"many empty steps":      `{"steps":[` + repeated(n, `{"type":"share","columns":[],"outputs":[]}`) + `],"output":{"margin":["city"],"probability":["city"]}}`,
		"many categories":       `{"steps":[{"type":"one_hot","columns":["plan_tier"],"outputs":[` + names(n) + `],"parameters":{"encodings":[{"texts":[` + names(n) + `],"unknown":0}],"positions":[[` + repeated(n, "1") + `]],"widths":[` + fmt.Sprint(n) + `]}}, {"type":"linear","columns":[` + names(n) + `],"outputs":["m"],"parameters":{"coefficients":[[` + repeated(n, "1") + `]],"intercepts":[0],"background":[` + repeated(n, "0") + `]}}],"output":{"margin":["m"],"probability":["m"]}}`,
		"many background rows":  strings.Replace(treeModel, `"output"`, `"background":[`+repeated(n, "{}")+`],"output"`, 1),
		"a wide background row": strings.Replace(treeModel, `"output"`, `"background":[{`+strings.ReplaceAll(names(n), `",`, `":1,`)+`:1}],"output"`, 1),
		"deep nesting":          `{"steps":[{"type":"linear","parameters":` + strings.Repeat(`{"a":`, n),
		"deep lists":            `{"steps":` + strings.Repeat(`[`, n),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := loadHostile(t, []byte(model))
			runtime.ReadMemStats(&after)
			if taken, bound := after.TotalAlloc-before.TotalAlloc, uint64(100*len(model)+4<<20); taken > bound {
				t.Errorf("%d bytes for a file of %d: more than %d (%v)", taken, len(model), bound, err)
			}
		})
	}
}

func FuzzLoadModelFile(f *testing.F) {
	f.Add([]byte(treeModel))
	f.Add([]byte(explainedByRows))
	files, err := filepath.Glob("testdata/sklearn/1.9.1/*.json.gz")
	if err != nil || len(files) == 0 {
		f.Fatalf("no goldens: %v", err)
	}
	for _, file := range files {
		if g := readGolden(f, file); len(g.Model) < 6000 {
			f.Add([]byte(g.Model))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := loadHostile(t, data)
		if err != nil {
			return
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := scoring.ParsePipeline(again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}
