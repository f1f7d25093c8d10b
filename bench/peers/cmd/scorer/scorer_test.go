package main

import (
	"math"
	"testing"

	"github.com/churnstream/churnstream/bench/peers/job"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// The way of an event through the product: decoded from Avro, scored by the artefact, written in the job's contract.
func TestAnEventBecomesTheScoreThatTheJobDefines(t *testing.T) {
	weights, err := job.ReadModel("")
	if err != nil {
		t.Fatal(err)
	}
	model, _, err := load("")
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := schemas.NewDecoder(schemas.DecoderConfig{Contract: model.Contract(), Registry: newRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	wire, err := job.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	const n, from = 2000, 3_000_000
	batch := schemas.NewRows(len(model.Contract().Inputs), n)
	for i := range int64(n) {
		a := job.Make(from+i, 1_790_000_000_000+i)
		value, err := wire.AppendActivity(nil, &a)
		if err != nil {
			t.Fatal(err)
		}
		if err := decoder.Decode(t.Context(), value, batch); err != nil {
			t.Fatal(err)
		}
	}
	var results scoring.Results
	model.NewScorer(scoring.ScorerConfig{}).Score(batch, &results)
	for i := range n {
		a := job.Make(from+int64(i), 1_790_000_000_000+int64(i))
		numbers, _ := batch.Row(i)
		value := appendScore(nil, numbers, &schemas.Score{
			CustomerID: []byte(a.CustomerID), Probability: results.Probability[i], ModelVersion: model.Version(),
		})
		var got job.Score
		if err := wire.ReadScore(value, &got); err != nil {
			t.Fatal(err)
		}
		want := job.Score{CustomerID: a.CustomerID, EventID: a.EventID, EventTS: a.EventTS, Probability: weights.Probability(&a), ModelVersion: job.ModelVersion}
		if math.Abs(got.Probability-want.Probability) > 1e-12 {
			t.Fatalf("event %d: probability %v, want %v", i, got.Probability, want.Probability)
		}
		if got.Probability = want.Probability; got != want {
			t.Fatalf("event %d: %+v, want %+v", i, got, want)
		}
	}
}
