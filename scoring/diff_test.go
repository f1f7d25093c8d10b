package scoring_test

import (
	"strings"
	"testing"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

func TestDiffNamesWhatIsNotTheSame(t *testing.T) {
	from := loaded(t, example(t))
	a := example(t)
	a.Manifest.Version = "1.1.0"
	a.Manifest.Threshold = 0.3
	a.Manifest.Metrics[0].Value = 0.92
	a.Manifest.Inputs[1].Nullable = true
	a.Manifest.Inputs[0].Min = nil
	regression(&a.Pipeline).Intercepts[0]++
	a.Reference.Margin = nil
	for i := range a.Reference.Probability {
		a.Reference.Probability[i] = 0
	}
	to, err := scoring.CompileForTest(&a.Pipeline, a.Manifest.Contract())
	if err != nil {
		t.Fatal(err)
	}
	to = scoring.WithManifestForTest(to, a.Manifest)
	d := scoring.Diff(from, to)
	var text strings.Builder
	if err := d.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"example@1.0.0", "example@1.1.0", "threshold\n  - 0.5\n  + 0.3", "metric auc\n  - 0.9000 [0.8000, 0.9500]\n  + 0.9200",
		"input tenure\n  - number, from 0", "learned numbers",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), "input spend") || strings.Contains(text.String(), "label") {
		t.Errorf("what is the same is named:\n%s", text.String())
	}
	if same := scoring.Diff(from, from); !same.Same || len(same.Changes) > 0 {
		t.Errorf("a model differs from itself: %+v", same)
	}
}

func TestRowsDiffCountsDecisionsAndRefusals(t *testing.T) {
	from := loaded(t, example(t))
	a := example(t)
	regression(&a.Pipeline).Intercepts[0] += 2
	to, err := scoring.CompileForTest(&a.Pipeline, a.Manifest.Contract())
	if err != nil {
		t.Fatal(err)
	}
	rows := schemas.NewRows(6, 3)
	for _, tenure := range []float64{24, 120} {
		numbers, categories := rows.Row(rows.Append())
		copy(numbers, []float64{tenure, 50, 0, 0, 18000, 1})
		categories[2] = []byte("pro")
	}
	rows.Append() // refused by both
	var p, q scoring.Results
	from.NewScorer(scoring.ScorerConfig{}).Score(rows, &p)
	to.NewScorer(scoring.ScorerConfig{}).Score(rows, &q)
	d := scoring.RowsDiff{At: -1}
	d.Add(&p, &q, 0.5, 0.5)
	if d.Rows != 3 || d.Decisions != 1 || d.OneOnly != 0 || d.At != 0 || d.Largest != q.Probability[0]-p.Probability[0] || !(d.Mean < d.Largest) {
		t.Errorf("%+v", d)
	}
}
