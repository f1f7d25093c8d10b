package scoring_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// example is a small model over every kind of input, with reference rows worked out by hand.
func example(t testing.TB) scoring.Artefact {
	t.Helper()
	low := 0.0
	contract := schemas.Contract{Inputs: []schemas.Input{
		{Name: "tenure", Kind: schemas.Number, Min: &low},
		{Name: "spend", Kind: schemas.Number, Nullable: true},
		{Name: "plan", Kind: schemas.Category, Nullable: true},
		{Name: "senior", Kind: schemas.Boolean},
		{Name: "joined", Kind: schemas.Date},
		{Name: "seen", Kind: schemas.Timestamp, Nullable: true},
	}}
	unknown := 4
	pipeline := scoring.Pipeline{
		Steps: []scoring.Step{
			{Columns: []string{"spend"}, Outputs: []string{"imputed"}, Transform: scoring.Impute{Values: []scoring.Value{{Number: 50}}}},
			{Columns: []string{"tenure", "imputed", "joined"}, Outputs: []string{"t", "s", "j"}, Transform: scoring.Scale{
				Mean: scoring.Floats{24, 50, 18000}, Scale: scoring.Floats{12, 25, 400},
			}},
			{Columns: []string{"plan"}, Outputs: []string{"p0", "p1", "p2", "p3"}, Transform: scoring.OneHot{
				Encodings: []scoring.Encoding{{Texts: scoring.Texts{"", "basic", "größer", "pro"}, Unknown: &unknown}},
				Positions: []scoring.Ints{{0, 1, 2, 3, -1}}, Widths: scoring.Ints{4},
			}},
			{Columns: []string{"t", "s", "j", "senior", "p0", "p1", "p2", "p3"}, Outputs: []string{"margin"}, Transform: scoring.Linear{
				Coefficients: []scoring.Floats{{-1, 0.5, 0.25, 2, 0.125, 1.5, -0.5, -1}}, Intercepts: scoring.Floats{-0.75},
				Background: scoring.Floats{0, 0.1, -0.2, 0.3, 0.1, 0.5, 0.2, 0.2},
			}},
			{Columns: []string{"margin"}, Outputs: []string{"probability"}, Transform: scoring.Logistic{}},
		},
		Output: scoring.Output{Margin: []string{"margin"}, Probability: []string{"probability"}},
	}
	rows := schemas.NewRows(len(contract.Inputs), 4)
	var margins, probabilities []float64
	add := func(margin float64, tenure, spend float64, plan []byte, senior, joined, seen float64) {
		numbers, categories := rows.Row(rows.Append())
		copy(numbers, []float64{tenure, spend, math.NaN(), senior, joined, seen})
		categories[2] = plan
		margins = append(margins, margin)
		probabilities = append(probabilities, 1/(1+math.Exp(-margin)))
	}
	nan := math.NaN()
	add(-1+0.5+0+2+1.5-0.75, 36, 75, []byte("basic"), 1, 18000, 1.7e12+1)
	add(1+0+0.25+0-0.5-0.75, 12, nan, []byte("größer"), 0, 18400, nan)
	add(0-0.5+0+0+0-0.75, 24, 25, []byte("unheard-of"), 0, 18000, nan)
	add(0+0.5-0.25+2+0-0.75, 24, 75, nil, 1, 17600, nan)
	add(0+0.5-0.25+2+0.125-0.75, 24, 75, []byte(""), 1, 17600, nan)
	return scoring.Artefact{
		Manifest: scoring.Manifest{
			Name: "example", Version: "1.0.0",
			CreatedAt: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
			Training:  scoring.Training{Library: "by hand", LibraryVersion: "1"},
			Metrics:   []scoring.Metric{{Name: "auc", Value: 0.9, Interval: &scoring.Interval{Low: 0.8, High: 0.95, Level: 0.95, Method: "made up"}}},
			Threshold: 0.5,
			Label:     scoring.Label{Definition: "left", Horizon: "30d"},
			Inputs:    contract.Inputs,
		},
		Pipeline:  pipeline,
		Profile:   []byte(`{"made":"up"}`),
		Reference: scoring.Reference{Rows: rows, Margin: margins, Probability: probabilities},
	}
}

// regression is the linear step of a pipeline that ends with it and its link.
func regression(p *scoring.Pipeline) scoring.Linear {
	return p.Steps[len(p.Steps)-2].Transform.(scoring.Linear)
}

func written(t testing.TB, a scoring.Artefact) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if _, err := scoring.WriteArtefact(dir, a); err != nil {
		t.Fatal(err)
	}
	return dir
}

func loaded(t testing.TB, a scoring.Artefact) *scoring.Model {
	t.Helper()
	m, err := scoring.Load(written(t, a))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestArtefactIsReadBackAsItWasWritten(t *testing.T) {
	a := example(t)
	dir := filepath.Join(t.TempDir(), "new", "model")
	digest, err := scoring.WriteArtefact(dir, a)
	if err != nil {
		t.Fatal(err)
	}
	m, err := scoring.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, scoring.ManifestFile))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(manifest)
	if want := hex.EncodeToString(sum[:]); m.Digest() != want || digest != want {
		t.Errorf("digest %s, WriteArtefact said %s, the manifest has %s", m.Digest(), digest, want)
	}
	if m.Name() != "example" || m.Version() != "1.0.0" || m.Threshold() != 0.5 {
		t.Errorf("got %s@%s with threshold %v", m.Name(), m.Version(), m.Threshold())
	}
	if string(m.Profile()) != `{"made":"up"}` {
		t.Errorf("profile %s", m.Profile())
	}
	if m.ReferenceRows() != 5 {
		t.Errorf("%d reference rows", m.ReferenceRows())
	}
	if got := m.Contract().Index("joined"); got != 4 {
		t.Errorf("input joined has index %d", got)
	}
	var text strings.Builder
	if err := m.Describe().WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"example@1.0.0", digest, "one_hot: plan", "spend: number, may be missing", "[0.8000, 0.9500] 95%"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the description lacks %q:\n%s", want, text.String())
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(dir)); len(entries) != 1 {
		t.Errorf("beside the artefact there is something else: %v", entries)
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Run("a directory that holds something", func(t *testing.T) {
		dir := written(t, example(t))
		if _, err := scoring.WriteArtefact(dir, example(t)); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a model that does not reproduce its reference, leaving nothing behind", func(t *testing.T) {
		a := example(t)
		regression(&a.Pipeline).Intercepts[0] += 1e-6
		dir := filepath.Join(t.TempDir(), "model")
		_, err := scoring.WriteArtefact(dir, a)
		var wrong *scoring.ReferenceError
		if !errors.As(err, &wrong) || wrong.Row != 0 {
			t.Errorf("got %v", err)
		}
		if entries, _ := os.ReadDir(filepath.Dir(dir)); len(entries) != 0 {
			t.Errorf("left %v", entries)
		}
	})
	t.Run("a number that JSON cannot hold", func(t *testing.T) {
		a := example(t)
		regression(&a.Pipeline).Coefficients[0][0] = math.NaN()
		if _, err := scoring.WriteArtefact(filepath.Join(t.TempDir(), "m"), a); err == nil {
			t.Error("wrote NaN")
		}
	})
}

// Each case changes one thing of a good artefact. Unless it says otherwise the digests are made
// right again, so that it is the content that is refused.
func TestLoadRefuses(t *testing.T) {
	replace := func(file, old, new string) func(damaged) {
		return func(d damaged) {
			data := d.read(file)
			if !strings.Contains(data, old) {
				d.t.Fatalf("%s does not contain %s:\n%s", file, old, data)
			}
			if data = strings.Replace(data, old, new, 1); file == scoring.ManifestFile {
				d.write(file, data)
			} else {
				d.overwrite(file, data)
			}
		}
	}
	model := func(old, new string) func(damaged) { return replace(scoring.ModelFile, old, new) }
	manifest := func(old, new string) func(damaged) { return replace(scoring.ManifestFile, old, new) }
	reference := func(old, new string) func(damaged) { return replace(scoring.ReferenceFile, old, new) }
	for _, c := range []struct {
		name   string
		damage func(damaged)
		want   []string
	}{
		{"no manifest", func(d damaged) { d.remove(scoring.ManifestFile) }, []string{": manifest.json: no such file", "`churnstream train` writes"}},
		{"no model", func(d damaged) { d.remove(scoring.ModelFile) }, []string{": model.json: no such file", "`churnstream train` writes"}},
		{"no directory", func(d damaged) { d.must(os.RemoveAll(d.dir)) }, []string{": no such file or directory", "`churnstream train` writes"}},
		{"a file in the place of the directory", func(d damaged) {
			d.must(os.RemoveAll(d.dir))
			d.must(os.WriteFile(d.dir, nil, 0o644))
		}, []string{": not a directory", "`churnstream train` writes"}},
		{"a threshold that is null", manifest(`"threshold": 0.5`, `"threshold": null`), []string{"manifest.json", "threshold: missing or null"}},
		{"no threshold", manifest(`"threshold": 0.5,`, ``), []string{"manifest.json", "threshold: missing or null"}},
		{"a metric that is null", manifest(`"value": 0.9`, `"value": null`), []string{"metrics[0].value: missing or null"}},
		{"a bound of an interval that is null", manifest(`"low": 0.8`, `"low": null`), []string{"metrics[0].interval.low: missing or null"}},
		{"a size that is null", func(d damaged) {
			d.overwrite(scoring.ProfileFile, "")
			d.write(scoring.ManifestFile, strings.Replace(d.read(scoring.ManifestFile), `"bytes": 0`, `"bytes": null`, 1))
		}, []string{`files["profile.json"].bytes: missing or null`}},
		{"a range that the reference rows break", manifest(`"min": 0`, `"min": 1e300`), []string{"reference.jsonl:1", `"tenure"`, "36 is below the least allowed value 1e+300"}},
		{"a later format", manifest(`"format_version": 2`, `"format_version": 3, "new": 1`), []string{"format_version", "got 3", "reads 2"}},
		{"an earlier format", manifest(`"format_version": 2`, `"format_version": 1`), []string{"format_version", "got 1", "train or export the model again"}},
		{"a field that is not known", manifest(`"name"`, `"encrypted": true, "name"`), []string{"manifest.json", `"encrypted"`}},
		{"a path out of the directory", manifest(`"model.json": {`, `"../model.json": {`), []string{`"../model.json"`, "no file of an artefact"}},
		{"an absolute path", manifest(`"profile.json": {`, `"/etc/passwd": {`), []string{`"/etc/passwd"`, `"profile.json" is not listed`}},
		{"several faults at once", manifest(`"threshold": 0.5`, `"threshold": 1.5, "metrics": [{"name": "", "value": 1}]`), []string{"threshold: got 1.5", "metrics[0]"}},
		{"a size beyond any model", manifest(`"bytes": 13`, `"bytes": 99999999999999`), []string{"profile.json", "at most"}},
		{"an input of no kind", manifest(`"kind": "boolean"`, `"kind": "colour"`), []string{"colour"}},
		{"a changed byte", func(d damaged) {
			d.write(scoring.ProfileFile, strings.Replace(d.read(scoring.ProfileFile), "made", "nade", 1))
		}, []string{"profile.json", "sha256", "damaged"}},
		{"a missing byte", func(d damaged) {
			d.write(scoring.ReferenceFile, d.read(scoring.ReferenceFile)[:20])
		}, []string{"reference.jsonl", "20 bytes"}},
		{"a link that leads out", func(d damaged) {
			outside := filepath.Join(filepath.Dir(d.dir), "outside.json")
			d.must(os.Rename(filepath.Join(d.dir, scoring.ModelFile), outside))
			d.must(os.Symlink(outside, filepath.Join(d.dir, scoring.ModelFile)))
		}, []string{"model.json", "escapes"}},
		{"a directory in the place of a file", func(d damaged) {
			d.remove(scoring.ProfileFile)
			d.must(os.Mkdir(filepath.Join(d.dir, scoring.ProfileFile), 0o755))
		}, []string{"profile.json", "not a regular file"}},
		{"an empty model", func(d damaged) {
			d.overwrite(scoring.ModelFile, "")
		}, []string{"model.json", "ends too early"}},
		{"a second value after the model", func(d damaged) { d.overwrite(scoring.ModelFile, d.read(scoring.ModelFile)+" {}") }, []string{"model.json", "more after"}},
		{"an unknown step", model(`"type":"scale"`, `"type":"quantum_scale"`), []string{"steps[1]", "quantum_scale"}},
		{"an unknown option of a step", model(`"widths":[4]`, `"widths":[4],"drop":"first"`), []string{"steps[2]", "one_hot", "drop"}},
		{"a step on an input that is not declared", model(`"columns":["spend"]`, `"columns":["spent"]`), []string{"steps[0]", "impute", `"spent"`}},
		{"a category scaled", model(`"columns":["tenure",`, `"columns":["plan",`), []string{"steps[1]", `"plan"`, "category"}},
		{"too few means", model(`"mean":[24,50,18000]`, `"mean":[24,50]`), []string{"steps[1]", "mean: 2 elements for 3"}},
		{"a scale of 0", model(`"scale":[12,`, `"scale":[0,`), []string{"steps[1]", `"tenure"`, "is 0"}},
		{"a mean that is null", model(`"mean":[24,`, `"mean":[null,`), []string{"steps[1]", "scale", "null"}},
		{"a coefficient that is null", model(`"coefficients":[[-1,`, `"coefficients":[[null,`), []string{"steps[3]", "null"}},
		{"a coefficient that is NaN", model(`"coefficients":[[-1,`, `"coefficients":[[NaN,`), []string{"model.json", "N"}},
		{"a coefficient that overflows", model(`"coefficients":[[-1,`, `"coefficients":[[-1e999,`), []string{"-1e999"}},
		{"a coefficient that is text", model(`"coefficients":[[-1,`, `"coefficients":[["-1",`), []string{"finite number"}},
		{"too few coefficients", model(`"coefficients":[[-1,`, `"coefficients":[[`), []string{"coefficients[0]: 7 elements for 8"}},
		{"no intercept", model(`,"intercepts":[-0.75]`, ``), []string{"intercepts: 0 elements for 1"}},
		{"too few background means", model(`"background":[0,`, `"background":[`), []string{"background: 7 elements"}},
		{"a feature that no step makes", model(`"columns":["t",`, `"columns":["tenures",`), []string{"steps[3]", `"tenures"`}},
		{"a raw category as a feature", model(`"columns":["t",`, `"columns":["plan",`), []string{"steps[3]", `"plan"`, "category"}},
		{"a column written twice", model(`"outputs":["t","s"`, `"outputs":["t","t"`), []string{"steps[1]", `"t"`, "twice"}},
		{"a step that reads what comes later", model(`"columns":["spend"]`, `"columns":["margin"]`), []string{"steps[0]", `"margin"`}},
		{"a category twice", model(`"basic","größer"`, `"basic","basic"`), []string{"steps[2]", `"basic" is listed twice`}},
		{"a category that is null", model(`["","basic"`, `[null,"basic"`), []string{"steps[2]", "null"}},
		{"a position out of the step's columns", model(`"positions":[[0,1`, `"positions":[[0,4`), []string{"steps[2]", "positions[0][1]"}},
		{"a code beyond the table", model(`"unknown":4`, `"unknown":5`), []string{"steps[2]", `"plan"`, "unknown"}},
		{"more columns than outputs", model(`"widths":[4]`, `"widths":[2000000000]`), []string{"steps[2]", "widths[0]"}},
		{"an output that no step makes", model(`"margin":["margin"]`, `"margin":["plan"]`), []string{"output.margin[0]"}},
		{"no output", model(`"probability":["probability"]`, `"probability":[]`), []string{"output"}},
		{"a reference row with another probability", reference(`"probability":0.`, `"probability":0.0`), []string{"reference.jsonl", "row 0", "expected 0.0", "got 0."}},
		{"a reference row with another margin", reference(`"margin":2.25`, `"margin":2.2500001`), []string{"row 0", "margin", "expected 2.2500001, got 2.25"}},
		{"a reference row with an unknown input", reference(`"tenure":36`, `"tenur":36`), []string{"reference.jsonl:1", `"tenur"`}},
		{"a reference row without a required input", reference(`"tenure":12`, `"tenure":null`), []string{"reference.jsonl:2", `"tenure"`, "missing and the input is not nullable"}},
		{"an absurd background", model(`"background":[0,`, `"background":[1e151,`), []string{"background[0]", "1e+151"}},
		{"an absurd coefficient", model(`"coefficients":[[-1,`, `"coefficients":[[-1e151,`), []string{"coefficients[0][0]", "-1e+151"}},
		{"an absurd intercept", model(`"intercepts":[-0.75]`, `"intercepts":[1e151]`), []string{"intercepts[0]", "1e+151"}},
		{"an absurd mean", model(`"mean":[24,`, `"mean":[1e151,`), []string{"steps[1]", "[0]", "1e+151"}},
		{"an absurd scale", model(`"scale":[12,`, `"scale":[1e151,`), []string{"steps[1]", "[0]", "1e+151"}},
		{"an absurd imputed value", model(`"values":[50]`, `"values":[1e151]`), []string{"steps[0]", `"spend"`, "1e+151"}},
		{"a reference row without a probability", reference(`"probability":`, `"margin":`), []string{"reference.jsonl:1"}},
		{"no reference rows", func(d damaged) { d.overwrite(scoring.ReferenceFile, "") }, []string{"no rows"}},
		{"a profile that is no JSON", func(d damaged) { d.overwrite(scoring.ProfileFile, "{") }, []string{"profile.json", "not JSON"}},
		{"deep nesting", func(d damaged) {
			d.overwrite(scoring.ModelFile, `{"steps":`+strings.Repeat("[", 200_000))
		}, []string{"model.json"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := written(t, example(t))
			c.damage(damaged{t, dir})
			m, err := scoring.Load(dir)
			if err == nil || m != nil {
				t.Fatal("loaded")
			}
			for _, want := range append(c.want, dir) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not name %q: %v", want, err)
				}
			}
		})
	}
}

func TestLoadOfATruncatedArtefactFailsAtEveryLength(t *testing.T) {
	for _, file := range []string{scoring.ManifestFile, scoring.ModelFile, scoring.ReferenceFile} {
		d := damaged{t, written(t, example(t))}
		whole, manifest := d.read(file), d.read(scoring.ManifestFile)
		for n := 0; n < len(whole)-1; n += 1 + len(whole)/97 {
			if strings.HasSuffix(whole[:n], "}\n") && file == scoring.ReferenceFile {
				continue // whole rows are a reference too
			}
			d.write(scoring.ManifestFile, manifest)
			if file == scoring.ManifestFile {
				d.write(file, whole[:n])
			} else {
				d.overwrite(file, whole[:n])
			}
			if _, err := scoring.Load(d.dir); err == nil {
				t.Errorf("%s cut to %d of %d bytes was loaded", file, n, len(whole))
			}
		}
	}
}

// Whatever model.json holds, it is refused or gives a model that scores.

// damaged is an artefact to spoil.
type damaged struct {
	t   *testing.T
	dir string
}

func (d damaged) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d damaged) read(file string) string {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.dir, file))
	d.must(err)
	return string(data)
}

func (d damaged) write(file, content string) {
	d.t.Helper()
	d.must(os.WriteFile(filepath.Join(d.dir, file), []byte(content), 0o644))
}

func (d damaged) remove(file string) {
	d.t.Helper()
	d.must(os.Remove(filepath.Join(d.dir, file)))
}

// overwrite changes a file and makes its size and digest in the manifest right.
func (d damaged) overwrite(file, content string) {
	d.t.Helper()
	d.write(file, content)
	var manifest scoring.Manifest
	d.must(json.Unmarshal([]byte(d.read(scoring.ManifestFile)), &manifest))
	sum := sha256.Sum256([]byte(content))
	manifest.Files[file] = scoring.File{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(content))}
	text, err := json.MarshalIndent(manifest, "", "  ")
	d.must(err)
	d.write(scoring.ManifestFile, string(text))
}
