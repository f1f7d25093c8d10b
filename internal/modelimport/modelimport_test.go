package modelimport_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/churnstream/churnstream/internal/artefact"
	"github.com/churnstream/churnstream/internal/golden"
	"github.com/churnstream/churnstream/internal/modelimport"
	"github.com/churnstream/churnstream/internal/modelscore"
	"github.com/churnstream/churnstream/scoring"
	"github.com/churnstream/churnstream/scoring/modelfile"
)

func config() modelimport.Config {
	return modelimport.Config{
		Name: "imported", Version: "1.0.0", CreatedAt: time.Unix(1, 0), Threshold: 0.5, Format: modelscore.CSV,
		Positive: -1,
		Label:    scoring.Label{Definition: "the customer left", Horizon: "30d"},
	}
}

// rowsOf writes the finite rows of a case as CSV.
func rowsOf(t *testing.T, g golden.Case, name func(int) string) string {
	t.Helper()
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	record := make([]string, g.Rows.Width)
	for i := range record {
		record[i] = name(i)
	}
	if err := w.Write(record); err != nil {
		t.Fatal(err)
	}
rows:
	for r := range g.Rows.Rows {
		for i, x := range g.Rows.Row(r) {
			switch texts := g.Categories[strconv.Itoa(i)]; {
			case math.IsInf(x, 0):
				continue rows
			case math.IsNaN(x):
				record[i] = ""
			case texts != nil:
				record[i] = texts[int(x)]
			default:
				record[i] = strconv.FormatFloat(x, 'g', -1, 64)
			}
		}
		if err := w.Write(record); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	return out.String()
}

// writtenAndLoaded takes an artefact through its directory, with everything that is verified then.
func writtenAndLoaded(t *testing.T, a *scoring.Artefact) *scoring.Model {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if _, err := scoring.WriteArtefact(dir, *a); err != nil {
		t.Fatal(err)
	}
	loaded, _, err := artefact.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// TestImportedModelsScoreAsTheirFiles writes artefacts, loads them with everything that is verified
// then, and holds their scores against those of the files.
func TestImportedModelsScoreAsTheirFiles(t *testing.T) {
	for _, c := range []struct {
		library, name string
		positive      int
	}{
		{"xgboost", "xgboost-3.4.1-names", 0},
		{"xgboost", "xgboost-3.4.1-logistic-ubj", 0},
		{"xgboost", "xgboost-3.4.1-category-names", 0},
		{"xgboost", "xgboost-3.4.1-gblinear", 0},
		{"xgboost", "xgboost-2.1.4-softprob", 2},
		{"lightgbm", "lightgbm-4.7.0-category-frame", 0},
		{"lightgbm", "lightgbm-4.7.0-multiclass", 1},
		{"lightgbm", "lightgbm-4.7.0-linear", 0},
		{"catboost", "catboost-1.2.10-combinations", 0},
		{"catboost", "catboost-1.2.10-lossguide-category", 0},
		{"onnx", "onnx-skl1.20.0-forest", 0},
		{"onnx", "onnx-skl1.20.0-logistic", 0},
		{"onnx", "onnx-skl1.20.0-frame-one-hot-logistic", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g, err := golden.One("../../scoring/"+c.library+"/testdata", c.name)
			if err != nil {
				t.Fatal(err)
			}
			m, err := modelfile.Parse(g.File)
			if err != nil {
				t.Fatal(err)
			}
			rows := rowsOf(t, g, m.Name)
			cfg := config()
			if c.positive > 0 {
				cfg.Positive = c.positive
			}
			a, err := modelimport.Import(g.File, strings.NewReader(rows), cfg)
			if err != nil {
				t.Fatal(err)
			}
			loaded := writtenAndLoaded(t, a)
			options := modelscore.Options{Format: modelscore.CSV, Contributions: m.Engine.Explains() == nil}
			var byArtefact, byFile bytes.Buffer
			if _, err := modelscore.Run(context.Background(), loaded, strings.NewReader(rows), &byArtefact, options); err != nil {
				t.Fatal(err)
			}
			if _, err := modelscore.RunFile(context.Background(), m, strings.NewReader(rows), &byFile, options); err != nil {
				t.Fatal(err)
			}
			compare(t, &byArtefact, &byFile, c.positive)
		})
	}
}

// TestInputsAreCalledAsInTheRows: the rows that an artefact was made of score by it as by the file.
func TestInputsAreCalledAsInTheRows(t *testing.T) {
	for _, c := range []struct {
		names, rows, want string
		format            modelscore.Format
	}{
		{"a days_active", "days active,a\n1,0\n0,0\n", "a,days active", modelscore.CSV},
		{"a days_active", `{"days active":1,"a":0}` + "\n" + `{"a":0}` + "\n", "a,days active", modelscore.JSONL},
		{"Column_0 Column_1", "f1,f0\n1,0\n0,0\n", "f0,f1", modelscore.CSV},
		{"a b", "b,a\n1,0\n0,0\n", "a,b", modelscore.CSV},
	} {
		t.Run(c.names+" "+string(c.format), func(t *testing.T) {
			cfg := config()
			cfg.Format = c.format
			a, err := modelimport.Import(golden.Stump(c.names), strings.NewReader(c.rows), cfg)
			if err != nil {
				t.Fatal(err)
			}
			loaded := writtenAndLoaded(t, a)
			var names []string
			for _, in := range loaded.Contract().Inputs {
				names = append(names, in.Name)
			}
			if got := strings.Join(names, ","); got != c.want {
				t.Errorf("inputs %s, want %s", got, c.want)
			}
			var out bytes.Buffer
			if _, err := modelscore.Run(context.Background(), loaded, strings.NewReader(c.rows), &out, modelscore.Options{Format: c.format}); err != nil {
				t.Fatal(err)
			}
			var margins []float64
			for d := json.NewDecoder(&out); d.More(); {
				var l struct{ Margin float64 }
				if err := d.Decode(&l); err != nil {
					t.Fatal(err)
				}
				margins = append(margins, l.Margin)
			}
			if len(margins) != 2 || margins[0] != 2 || margins[1] != -1 {
				t.Errorf("margins %v, want 2 and -1", margins)
			}
		})
	}
}

type line struct {
	Margin        json.RawMessage `json:"margin"`
	Probability   json.RawMessage `json:"probability"`
	Probabilities json.RawMessage `json:"probabilities"`
	Contributions json.RawMessage `json:"contributions"`
}

// compare holds lines of an artefact against those of a file, whose lists are by class.
func compare(t *testing.T, byArtefact, byFile *bytes.Buffer, positive int) {
	t.Helper()
	of := func(raw json.RawMessage) json.RawMessage {
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) == nil && len(list) > 0 {
			return list[positive]
		}
		return raw
	}
	a, f := json.NewDecoder(byArtefact), json.NewDecoder(byFile)
	n := 0
	for ; a.More() && f.More(); n++ {
		var got, want line
		if err := a.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if err := f.Decode(&want); err != nil {
			t.Fatal(err)
		}
		probability := want.Probability
		if probability == nil {
			probability = of(want.Probabilities)
		}
		if got.Probability == nil {
			got.Probability = of(got.Probabilities)
		}
		if string(of(got.Margin)) != string(of(want.Margin)) || string(got.Probability) != string(probability) {
			t.Fatalf("row %d: margin %s and probability %s, of the file %s and %s", n, of(got.Margin), got.Probability, of(want.Margin), probability)
		}
		var gotParts, wantParts map[string]float64
		if want.Contributions == nil {
			continue
		}
		if err := json.Unmarshal(of(got.Contributions), &gotParts); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(of(want.Contributions), &wantParts); err != nil {
			t.Fatal(err)
		}
		for name, x := range wantParts {
			if math.Abs(gotParts[name]-x) > 1e-12*max(1, math.Abs(x)) {
				t.Fatalf("row %d: contribution of %q %v, of the file %v", n, name, gotParts[name], x)
			}
		}
	}
	if n < 200 || a.More() || f.More() {
		t.Errorf("%d lines", n)
	}
}

func TestImportRefuses(t *testing.T) {
	load := func(name string) golden.Case {
		g, err := golden.One("../../scoring/xgboost/testdata", name)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	classes := load("xgboost-3.4.1-softprob")
	regression, logistic := load("xgboost-3.4.1-squarederror"), load("xgboost-3.4.1-logistic")
	header := "f0,f1,f2,f3,f4,f5,f6,f7\n"
	for _, c := range []struct {
		name, want string
		file       []byte
		rows       string
		change     func(*modelimport.Config)
	}{
		{"a regression", "makes no probability", regression.File, header, nil},
		{"no rows", "there are no rows", logistic.File, header, nil},
		{"columns that are absent", "header line: 1 of the model's 8 inputs", logistic.File, "f0,f1,f2,f3,f4,f5,f6\n", nil},
		{"a class that is not there", "positive: class 1 of 1", logistic.File, header, func(c *modelimport.Config) { c.Positive = 1 }},
		{"three classes and none named", "the model has 3 classes: say which", classes.File, header, nil},
		{"no model", "neither", []byte("nonsense"), header, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config()
			if c.change != nil {
				c.change(&cfg)
			}
			_, err := modelimport.Import(c.file, strings.NewReader(c.rows), cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
