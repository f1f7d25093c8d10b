package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

const tinyBooster = `tree
version=v4
num_class=1
num_tree_per_iteration=1
max_feature_idx=0
objective=binary sigmoid:1
feature_names=tenure
feature_infos=[0:9]

Tree=0
num_leaves=2
num_cat=0
split_feature=0
threshold=5
decision_type=8
left_child=-1
right_child=-2
leaf_value=1 -1
leaf_count=1 1
internal_count=2

end of trees
`

// TestModelImportMakesAnArtefactThatScoresAsTheFile goes through the commands.
func TestModelImportMakesAnArtefactThatScoresAsTheFile(t *testing.T) {
	dir := t.TempDir()
	file, rows, model := filepath.Join(dir, "booster.txt"), filepath.Join(dir, "rows.csv"), filepath.Join(dir, "model")
	for path, text := range map[string]string{file: tinyBooster, rows: "tenure\n1\n9\n\"\"\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := func(arguments ...string) string {
		t.Helper()
		var out, faults bytes.Buffer
		if code := run(t.Context(), arguments, streams{&bytes.Buffer{}, &out, &faults, nil}); code != 0 {
			t.Fatalf("%q: exit code %d: %s", arguments, code, faults.String())
		}
		return out.String()
	}
	command("model", "import", "--model", file, "--input", rows, "--name", "tiny", "--label", "left", "--horizon", "30d", "--output", model)
	byFile := command("model", "score", "--model", file, "--input", rows)
	byArtefact := command("model", "score", "--model", model, "--input", rows)
	if byFile != byArtefact || byFile == "" {
		t.Errorf("the artefact gives\n%s, the file\n%s", byArtefact, byFile)
	}
}

// TestAReaderThatGoesAwayIsNotToldOf: of standard output, as head does.
func TestAReaderThatGoesAwayIsNotToldOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "booster.txt")
	if err := os.WriteFile(file, []byte(tinyBooster), 0o600); err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	if err := read.Close(); err != nil {
		t.Fatal(err)
	}
	var faults bytes.Buffer
	code := run(t.Context(), []string{"model", "score", "--model", file, "--format", "csv"}, streams{bytes.NewBufferString("tenure\n1\n"), write, &faults, nil})
	if code != exitFailed || faults.Len() > 0 {
		t.Errorf("exit code %d and %q, want %d and nothing", code, faults.String(), exitFailed)
	}
}
