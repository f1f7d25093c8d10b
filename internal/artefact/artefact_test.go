package artefact

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// written is the directory of a model with two inputs and a margin equal to the first.
func written(t *testing.T) string {
	t.Helper()
	contract := schemas.Contract{Inputs: []schemas.Input{{Name: "tenure", Kind: schemas.Number}, {Name: "autopay", Kind: schemas.Boolean}}}
	rows := schemas.NewRows(2, 4)
	var margins, probabilities []float64
	for i := range 4 {
		numbers, _ := rows.Row(rows.Append())
		numbers[0], numbers[1] = float64(i), float64(i%2)
		margins = append(margins, float64(i))
		probabilities = append(probabilities, 1/(1+math.Exp(-float64(i))))
	}
	profile, err := drift.BuildProfile(contract, drift.Reference{Rows: rows, Probabilities: probabilities}, drift.DefaultProfileConfig())
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := drift.WriteProfile(&text, profile); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if _, err := scoring.WriteArtefact(dir, scoring.Artefact{
		Manifest: scoring.Manifest{
			Name: "small", Version: "1.0.0", CreatedAt: time.Unix(1, 0).UTC(), Threshold: 0.5,
			Training: scoring.Training{Library: "by hand", LibraryVersion: "1"},
			Label:    scoring.Label{Definition: "left", Horizon: "30d"}, Inputs: contract.Inputs,
		},
		Pipeline: scoring.Pipeline{
			Steps: []scoring.Step{
				{Columns: []string{"tenure", "autopay"}, Outputs: []string{"margin"}, Transform: scoring.Linear{
					Coefficients: []scoring.Floats{{1, 0}}, Intercepts: scoring.Floats{0}, Background: scoring.Floats{0, 0},
				}},
				{Columns: []string{"margin"}, Outputs: []string{"probability"}, Transform: scoring.Logistic{}},
			},
			Output: scoring.Output{Margin: []string{"margin"}, Probability: []string{"probability"}},
		},
		Profile:   text.Bytes(),
		Reference: scoring.Reference{Rows: rows, Margin: margins, Probability: probabilities},
	}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLoadGivesTheModelAndItsReferencePopulation(t *testing.T) {
	model, profile, err := Load(written(t))
	if err != nil {
		t.Fatal(err)
	}
	if model.Name() != "small" || profile.Events != 4 || len(profile.Features) != 3 {
		t.Errorf("%s with %d features of %d events", model.Name(), len(profile.Features), profile.Events)
	}
}

// The digests are right in each case: it is the content that is refused.
func TestLoadRefusesAProfileThatIsNotTheModels(t *testing.T) {
	dir := written(t)
	path := filepath.Join(dir, scoring.ProfileFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(old, new string) string {
		if !strings.Contains(string(good), old) {
			t.Fatalf("the profile has no %s:\n%s", old, good)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	for _, c := range []struct{ name, profile, want string }{
		{"null", `null`, "format 0"},
		{"an empty object", `{}`, "format 0"},
		{"no features", `{"format":1,"events":4,"features":[]}`, "features: 0 of them"},
		{"a negative count", replaced(`"counts": [`, `"counts": [-1,`), "-1"},
		{"counts that are null", countless(t, good), "counts"},
		{"no score", replaced(`"name": "score"`, `"name": "margin"`), `none is the number "score"`},
		{"an input that the model does not have", replaced(`"name": "tenure"`, `"name": "visits"`), `features[0]: the number "visits", the manifest declares the number "tenure"`},
		{"another kind", replaced(`"kind": "number"`, `"kind": "date"`), `features[0]: the date "tenure"`},
		{"an input too few", onlyScore(t, good), "0 inputs and the score, the manifest declares 2"},
		{"inputs exchanged", exchanged(t, good), `features[0]: the boolean "autopay", the manifest declares the number "tenure"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			overwrite(t, dir, c.profile)
			model, profile, err := Load(dir)
			if err == nil || model != nil || profile != nil {
				t.Fatal("loaded")
			}
			for _, want := range []string{c.want, dir, scoring.ProfileFile} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not name %q: %v", want, err)
				}
			}
		})
	}
}

func TestLoadRefusesWhatScoringRefuses(t *testing.T) {
	if _, _, err := Load(filepath.Join(t.TempDir(), "absent")); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("got %v", err)
	}
}

func onlyScore(t *testing.T, profile []byte) string {
	return edited(t, profile, func(features []any) []any { return features[len(features)-1:] })
}

func exchanged(t *testing.T, profile []byte) string {
	return edited(t, profile, func(f []any) []any { return []any{f[1], f[0], f[2]} })
}

func countless(t *testing.T, profile []byte) string {
	return edited(t, profile, func(features []any) []any {
		features[0].(map[string]any)["counts"] = nil
		return features
	})
}

func edited(t *testing.T, profile []byte, edit func([]any) []any) string {
	t.Helper()
	var file map[string]any
	if err := json.Unmarshal(profile, &file); err != nil {
		t.Fatal(err)
	}
	file["features"] = edit(file["features"].([]any))
	text, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// overwrite changes the profile and makes its size and digest in the manifest right.
func overwrite(t *testing.T, dir, profile string) {
	t.Helper()
	manifestPath := filepath.Join(dir, scoring.ManifestFile)
	text, err := os.ReadFile(manifestPath)
	if err != nil {
		t.Fatal(err)
	}
	var manifest scoring.Manifest
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(profile))
	manifest.Files[scoring.ProfileFile] = scoring.File{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(profile))}
	if text, err = json.Marshal(manifest); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, scoring.ProfileFile), []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifestPath, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
