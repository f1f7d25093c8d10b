package scoring_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// BenchmarkArtefacts times every artefact in the directory CHURNSTREAM_BENCH_MODELS on its reference
// rows; python/benchmarks/speed.py runs it beside scikit-learn.
func BenchmarkArtefacts(b *testing.B) {
	place := os.Getenv("CHURNSTREAM_BENCH_MODELS")
	if place == "" {
		b.Skip("CHURNSTREAM_BENCH_MODELS names no directory of artefacts")
	}
	entries, err := os.ReadDir(place)
	if err != nil {
		b.Fatal(err)
	}
	for _, entry := range entries {
		dir := filepath.Join(place, entry.Name())
		m, err := scoring.Load(dir)
		if err != nil {
			b.Fatal(err)
		}
		for _, n := range []int{1, 64, 300} {
			rows := referenceBatch(b, dir, m, n)
			b.Run(entry.Name()+"/batch="+strconv.Itoa(n), func(b *testing.B) {
				bench(b, m, scoring.ScorerConfig{}, rows)
			})
		}
		if m.Explained() != nil {
			rows := referenceBatch(b, dir, m, 64)
			b.Run(entry.Name()+"/batch=64/reasons=3", func(b *testing.B) {
				bench(b, m, scoring.ScorerConfig{Reasons: 3}, rows)
			})
		}
	}
}

func bench(b *testing.B, m *scoring.Model, cfg scoring.ScorerConfig, rows *schemas.Rows) {
	b.Helper()
	scorer := m.NewScorer(cfg)
	var out scoring.Results
	scorer.Score(rows, &out)
	b.ReportAllocs()
	for b.Loop() {
		scorer.Score(rows, &out)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows.Len()), "ns/row")
}

// referenceBatch is the first n reference rows of an artefact.
func referenceBatch(b *testing.B, dir string, m *scoring.Model, n int) *schemas.Rows {
	b.Helper()
	data, err := os.ReadFile(filepath.Join(dir, scoring.ReferenceFile))
	if err != nil {
		b.Fatal(err)
	}
	contract := m.Contract()
	rows := schemas.NewRows(len(contract.Inputs), n)
	for line := range bytes.Lines(data) {
		var reference struct {
			Inputs map[string]json.RawMessage `json:"inputs"`
		}
		if err := json.Unmarshal(line, &reference); err != nil {
			b.Fatal(err)
		}
		if err := contract.ReadJSON(rows, reference.Inputs); err != nil {
			b.Fatal(err)
		}
		if rows.Len() == n {
			return rows
		}
	}
	b.Fatalf("%s has %d reference rows", dir, rows.Len())
	return nil
}
