package modelscore_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/churnstream/churnstream/internal/golden"
	"github.com/churnstream/churnstream/internal/modelscore"
	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/modelfile"
)

type fileLine struct {
	Row           int             `json:"row"`
	Margin        json.RawMessage `json:"margin"`
	Probability   json.RawMessage `json:"probability"`
	Probabilities json.RawMessage `json:"probabilities"`
	Prediction    json.RawMessage `json:"prediction"`
	Contributions json.RawMessage `json:"contributions"`
}

func scoreFile(t *testing.T, m *booster.Model, rows string, o modelscore.Options) ([]fileLine, error) {
	t.Helper()
	var out bytes.Buffer
	n, runErr := modelscore.RunFile(context.Background(), m, strings.NewReader(rows), &out, o)
	var lines []fileLine
	for d := json.NewDecoder(&out); d.More(); {
		var l fileLine
		if err := d.Decode(&l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	if n != len(lines) {
		t.Errorf("said %d rows, wrote %d", n, len(lines))
	}
	return lines, runErr
}

func numbers(t *testing.T, raw json.RawMessage) []float64 {
	t.Helper()
	var list []float64
	if len(raw) > 0 && raw[0] != '[' {
		raw = append(append([]byte{'['}, raw...), ']')
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return list
}

// TestFilesOfLibrariesAreScoredFromText takes models through a CSV: names, categories by text and by
// code, missing cells, one output and several.
func TestFilesOfLibrariesAreScoredFromText(t *testing.T) {
	for _, c := range []struct{ directory, name, predicts string }{
		{"xgboost", "xgboost-3.4.1-names", "probability"},
		{"xgboost", "xgboost-1.7.6-logistic", "probability"},
		{"xgboost", "xgboost-3.4.1-softprob", "probabilities"},
		{"xgboost", "xgboost-3.4.1-category-names", "probability"},
		{"xgboost", "xgboost-3.1.3-category-names-ubj", "probability"},
		{"xgboost", "xgboost-3.2.0-category-names-ubj", "probability"},
		{"xgboost", "xgboost-3.3.0-category-names", "probability"},
		{"xgboost", "xgboost-2.1.4-squarederror", "prediction"},
		{"xgboost", "xgboost-3.4.1-gblinear-softprob", "probabilities"},
		{"lightgbm", "lightgbm-4.7.0-binary", "probability"},
		{"lightgbm", "lightgbm-4.7.0-category-frame", "probability"},
		{"lightgbm", "lightgbm-3.3.5-category-frame", "probability"},
		{"lightgbm", "lightgbm-4.7.0-multiclassova", "probabilities"},
		{"lightgbm", "lightgbm-4.7.0-poisson", "prediction"},
		{"catboost", "catboost-1.2.10-combinations", "probability"},
		{"catboost", "catboost-1.2.10-counters-multiclass", "probabilities"},
		{"catboost", "catboost-1.0.6-lossguide-category", "probability"},
		{"catboost", "catboost-1.0.6-rmse", "prediction"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := golden.One("../../scoring/"+c.directory+"/testdata", c.name)
			if err != nil {
				t.Fatal(err)
			}
			m, err := modelfile.Parse(g.File)
			if err != nil {
				t.Fatal(err)
			}
			text, kept := asCSV(t, m, g)
			lines, err := scoreFile(t, m, text, modelscore.Options{Format: modelscore.CSV, Contributions: true})
			if err != nil {
				t.Fatal(err)
			}
			if len(lines) != len(kept) {
				t.Fatalf("%d lines for %d rows", len(lines), len(kept))
			}
			for i, l := range lines {
				margins, want := numbers(t, l.Margin), g.Margins.Row(kept[i])
				for k := range want {
					if l.Row != i || len(margins) != len(want) || margins[k] != want[k] {
						t.Fatalf("row %d: margin %v, want %v", i, margins, want)
					}
				}
				predictions := map[string]json.RawMessage{"probability": l.Probability, "probabilities": l.Probabilities, "prediction": l.Prediction}
				got := numbers(t, predictions[c.predicts])
				for k, want := range g.Predictions.Row(kept[i]) {
					if math.Abs(got[k]-want) > 3e-7*max(1, want) {
						t.Fatalf("row %d: %s %v, want %v", i, c.predicts, got[k], want)
					}
				}
				checkSums(t, l, margins)
			}
		})
	}
}

// checkSums adds up the contributions of a line.
func checkSums(t *testing.T, l fileLine, margins []float64) {
	t.Helper()
	raw := l.Contributions
	if raw[0] != '[' {
		raw = append(append([]byte{'['}, raw...), ']')
	}
	var list []map[string]float64
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	for k, contributions := range list {
		sum := 0.0
		for _, x := range contributions {
			sum += x
		}
		if _, ok := contributions["bias"]; !ok || math.Abs(sum-margins[k]) > 1e-5*max(1, math.Abs(margins[k])) {
			t.Fatalf("row %d: contributions %v make %v, the margin is %v", l.Row, contributions, sum, margins[k])
		}
	}
}

// asCSV writes the rows of a case that text can hold, and says which they are.
func asCSV(t *testing.T, m *booster.Model, g golden.Case) (text string, kept []int) {
	t.Helper()
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	var record []string
	for i := range g.Rows.Width {
		record = append(record, m.Name(i))
	}
	if err := w.Write(append(record, "another")); err != nil {
		t.Fatal(err)
	}
	for r := range g.Rows.Rows {
		record = record[:0]
		finite := true
		for i, x := range g.Rows.Row(r) {
			cell := ""
			switch texts := g.Categories[strconv.Itoa(i)]; {
			case math.IsInf(x, 0):
				finite = false
			case math.IsNaN(x):
			case texts != nil:
				cell = texts[int(x)]
			default:
				cell = strconv.FormatFloat(x, 'g', -1, 64)
			}
			record = append(record, cell)
		}
		if !finite {
			continue
		}
		kept = append(kept, r)
		if err := w.Write(append(record, "not read")); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	return out.String(), kept
}

func TestColumnsOfAFileAreMatchedByName(t *testing.T) {
	for _, c := range []struct {
		name, names, header, fault string
	}{
		{"its names", "a b", "b,a\n1,0\n", ""},
		{"others beside them", "a b", "x,b,y,a\n7,1,7,0\n", ""},
		{"a space that became an underscore", "a days_active", "days active,a\n1,0\n", ""},
		{"no names", "Column_0 Column_1", "f1,f0\n1,0\n", ""},
		{"names of a model without names", "Column_0 Column_1", "Column_1,Column_0\n1,0\n", ""},
		{"a byte order mark", "a b", "\ufeffb,a\n1,0\n", ""},
		{"a column that is absent", "a b", "a\n0\n", `1 of the model's 2 inputs have no column: ["b"]`},
		{"a text in the place of a number", "a b", "b,a\nmany,0\n", `column "b"`},
		{"two columns for one input", "a b_c_d", "b c_d,b_c d,a\n1,1,0\n", `"b c_d" and "b_c d" can both be the input "b_c_d"`},
		{"a name before what it may stand for", "a days_active", "days active,days_active,a\nleft alone,1,0\n", ""},
		{"a number that is not how LightGBM writes it", "Column_0 Column_1", "f0,f01\n0,1\n", `["Column_1"]`},
		{"an input called f1 beside f0", "f1 b", "f1,b\n0,1\n", ""},
		{"two inputs of one name", "a a", "a\n1\n", `two inputs named "a"`},
		{"an empty file", "a b", "", "no header line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := modelfile.Parse(golden.Stump(c.names))
			if err != nil {
				t.Fatal(err)
			}
			lines, err := scoreFile(t, m, c.header, modelscore.Options{Format: modelscore.CSV})
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Fatalf("error %v, want %q", err, c.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(lines) != 1 || string(lines[0].Margin) != "2" {
				t.Errorf("lines %+v, want one with margin 2", lines)
			}
		})
	}
}

func TestLinesOfJSONAreScoredByAFile(t *testing.T) {
	for _, c := range []struct {
		name, names, rows, margins, fault string
	}{
		{"its names", "a b", `{"b":1} {"a":null,"b":0.5} {}`, "2 -1 -1", ""}, // missing counts as 0 where training saw nothing missing
		{"a space that became an underscore", "a days_active", `{"a":0} {"days active":1} {"a":0,"days active":0}`, "-1 2 -1", ""},
		{"a name before what it may stand for", "a days_active", `{"a":0,"days active":"left alone","days_active":1}`, "2", ""},
		{"no names", "Column_0 Column_1", `{"f1":1,"f0":0} {"f1":null}`, "2 -1", ""},
		{"a key that no row has", "a b", `{"a":1} {"c":1,"a":1}`, "-1 -1", `1 of the model's 2 inputs have no key in any row (write null for a missing value): ["b"]`},
		{"nothing", "a b", `{}`, "-1", `2 of the model's 2 inputs have no key in any row (write null for a missing value): ["a" "b"]`},
		{"two keys for one input", "a b_c_d", `{"a":1,"b c_d":1,"b_c d":1}`, "", `"b c_d" and "b_c d" can both be the input "b_c_d"`},
		{"another name from row to row", "a b_c", `{"a":1,"b_c":1} {"a":1,"b c":1}`, "2", `row 1 (line 2): "b c" and "b_c" can both be the input "b_c"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := modelfile.Parse(golden.Stump(c.names))
			if err != nil {
				t.Fatal(err)
			}
			lines, err := scoreFile(t, m, strings.ReplaceAll(c.rows, "} {", "}\n{"), modelscore.Options{Format: modelscore.JSONL})
			if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("error %v, want %q", err, c.fault)
			}
			var margins []string
			for _, l := range lines {
				margins = append(margins, string(l.Margin))
			}
			if got := strings.Join(margins, " "); got != c.margins {
				t.Errorf("margins %s, want %s", got, c.margins)
			}
		})
	}
}

func TestColumnsOfParquetAreMatchedAsThoseOfCSV(t *testing.T) {
	type row struct {
		A    float64 `parquet:"a"`
		Days float64 `parquet:"days active"`
	}
	var file bytes.Buffer
	if err := parquet.Write(&file, []row{{0, 1}}); err != nil {
		t.Fatal(err)
	}
	for names, fault := range map[string]string{"a days_active": "", "a days": `Parquet file: 1 of the model's 2 inputs have no column: ["days"]`} {
		m, err := modelfile.Parse(golden.Stump(names))
		if err != nil {
			t.Fatal(err)
		}
		lines, err := scoreFile(t, m, file.String(), modelscore.Options{Format: modelscore.Parquet})
		switch {
		case fault != "":
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("error %v, want %q", err, fault)
			}
		case err != nil || len(lines) != 1 || string(lines[0].Margin) != "2":
			t.Errorf("lines %+v and error %v, want one with margin 2", lines, err)
		}
	}
}

// TestRowsBeforeOneThatCannotBeScoredAreWritten: the linear model of the file takes no missing number.
func TestRowsBeforeOneThatCannotBeScoredAreWritten(t *testing.T) {
	cases, err := golden.Load("../../scoring/onnx/testdata", "onnx-skl1.20.0-frame-one-hot-logistic")
	if err != nil {
		t.Fatal(err)
	}
	m, err := modelfile.Parse(cases[0].File)
	if err != nil {
		t.Fatal(err)
	}
	rows := "tenure,plan,visits,charge\n0.5,plus,2,100\n-1,,3,5\n0.5,plus,2,\n"
	lines, err := scoreFile(t, m, rows, modelscore.Options{Format: modelscore.CSV})
	if err == nil || !strings.Contains(err.Error(), "row 2 cannot be scored") || len(lines) != 2 {
		t.Errorf("%d lines and error %v, want 2 and that row 2 cannot be scored", len(lines), err)
	}
}
