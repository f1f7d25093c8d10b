package worker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

func TestMetricsOfAKnownRun(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 2, scores: 2, states: 2})
	w := e.start(nil).ready(2)
	e.feed(200)
	e.feedBad("bad", []byte("no event"))
	e.feedBad("bad", nil)
	e.drained()

	rows := schemas.NewRows(len(e.model.Contract().Inputs), len(e.sent))
	for _, sent := range e.sent {
		if !sent.bad {
			numbers, categories := rows.Row(rows.Append())
			copy(numbers, sent.numbers)
			copy(categories, sent.categories)
		}
	}
	var results scoring.Results
	e.model.NewScorer(scoring.ScorerConfig{}).Score(rows, &results)
	churn, missing, unseen := 0, map[string]int{}, map[string]int{}
	for row := range rows.Len() {
		if results.Probability[row] >= e.model.Threshold() {
			churn++
		}
		for _, input := range results.Missing(row) {
			missing[input]++
		}
		for _, input := range results.Unseen(row) {
			unseen[input]++
		}
	}
	if churn == 0 || churn == 200 || missing["charges"] == 0 || missing["contract"] == 0 || unseen["contract"] == 0 {
		t.Fatalf("%d of 200 churn, missing %v, unseen %v: this proves little", churn, missing, unseen)
	}
	var want strings.Builder
	series := func(name, kind, help string, samples ...string) string {
		fmt.Fprintf(&want, "# HELP churnstream_%s %s\n# TYPE churnstream_%s %s\n", name, help, name, kind)
		slices.Sort(samples)
		for _, s := range samples {
			fmt.Fprintf(&want, "churnstream_%s%s\n", name, s)
		}
		return "churnstream_" + name
	}
	inputs := func(counts map[string]int) (samples []string) {
		for _, in := range e.model.Contract().Inputs {
			samples = append(samples, fmt.Sprintf(`{input="%s"} %d`, in.Name, counts[in.Name]))
		}
		return samples
	}
	var dead []string
	for _, class := range schemas.ErrorClasses() {
		n := 0
		if class == schemas.BadMagic || class == schemas.EmptyValue {
			n = 1
		}
		dead = append(dead, fmt.Sprintf(`{class="%s"} %d`, class, n))
	}
	lag := func(values ...int) (samples []string) {
		for p, v := range values {
			samples = append(samples, fmt.Sprintf(`{partition="%d",topic="%s"} %d`, p, e.cfg.Topics.Events, v))
		}
		return samples
	}
	names := []string{
		series("events_total", "counter", "Events read and committed: scores plus dead letters.", " 202"),
		series("scores_total", "counter", "Scores published and committed.", " 200"),
		series("decisions_total", "counter", "Scores published and committed, by decision.",
			fmt.Sprintf(`{decision="churn"} %d`, churn), fmt.Sprintf(`{decision="retain"} %d`, 200-churn)),
		series("dead_letters_total", "counter", "Events set aside as dead letters and committed, by error class.", dead...),
		series("missing_inputs_total", "counter", "Scored events that had no value for the input.", inputs(missing)...),
		series("unseen_inputs_total", "counter", "Scored events whose category was unknown to the training data.", inputs(unseen)...),
		series("partition_restarts_total", "counter", "Times that a partition was begun again after an aborted batch or a fence.", " 0"),
		series("owned_partitions", "gauge", "Partitions that this worker owns.", " 2"),
		series("consumer_lag_records", "gauge", "Readable events of an owned partition that are not yet scored and committed.", lag(0, 0)...),
		series("consumer_lag_seconds", "gauge", "Age of the event that an owned partition has come to; 0 without a lag.", lag(0, 0)...),
		series("model_info", "gauge", "The loaded model; always 1.",
			fmt.Sprintf(`{digest="%s",name="example",variant="champion",version="1.0.0"} 1`, e.model.Digest())),
	}
	// The counters follow the commit, which drained has seen, by a moment.
	testkit.Eventually(t, patience, func() bool { return w.value("churnstream_events_total") == 202 }, "all events are counted: %v", shown(func() any { return w.value("churnstream_events_total") }))
	testkit.Eventually(t, patience, func() bool { return w.value("churnstream_consumer_lag_records") == 0 }, "the lag is gone: %v", shown(func() any { return w.value("churnstream_consumer_lag_records") }))
	if err := testutil.GatherAndCompare(w.metrics, strings.NewReader(want.String()), names...); err != nil {
		t.Error(err)
	}
	if got := w.value("churnstream_rebalances_total"); got < 1 {
		t.Errorf("%v rebalances: the membership's metrics are not registered", got)
	}
	batches := w.value("churnstream_batches_total")
	families, err := w.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "churnstream_") {
			t.Errorf("metric %s lacks the prefix", f.GetName())
		}
		if f.GetName() == "churnstream_lag_records" || f.GetName() == "churnstream_partitions_owned" {
			t.Errorf("metric %s says again what another says", f.GetName())
		}
		for _, m := range f.GetMetric() {
			for _, label := range m.GetLabel() {
				if strings.Contains(label.GetValue(), "customer") {
					t.Errorf("metric %s: label %s=%q tells of a customer", f.GetName(), label.GetName(), label.GetValue())
				}
			}
			switch n := m.GetHistogram().GetSampleCount(); {
			case f.GetName() == "churnstream_stage_seconds" && float64(n) != batches:
				t.Errorf("%d observations of %v for %v batches", n, m.GetLabel(), batches)
			case f.GetName() == "churnstream_end_to_end_latency_seconds" && (n == 0 || n > 202):
				t.Errorf("%d observations of the latency of 202 events", n)
			}
		}
	}
}

// TestPartitionsGivenUpHaveNoSeries: those of another worker would be counted twice.
func TestPartitionsGivenUpHaveNoSeries(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 2, scores: 1, states: 1})
	first := e.start(nil).ready(2)
	e.feed(20)
	e.drained()
	second := e.start(nil).ready(1)
	first.ready(1)
	partitions := map[string]bool{}
	for _, w := range []*running{first, second} {
		testkit.Eventually(t, patience, func() bool { return w.value("churnstream_consumer_lag_records") == 0 }, "the lag is known")
		families, err := w.metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			switch f.GetName() {
			case "churnstream_owned_partitions":
				if got := f.GetMetric()[0].GetGauge().GetValue(); got != 1 {
					t.Errorf("%v owned partitions, want 1", got)
				}
			case "churnstream_consumer_lag_records", "churnstream_consumer_lag_seconds":
				for _, m := range f.GetMetric() {
					partitions[f.GetName()+m.String()] = true
				}
				if len(f.GetMetric()) != 1 {
					t.Errorf("%s: %v, want one series", f.GetName(), f.GetMetric())
				}
			}
		}
	}
	if len(partitions) != 4 {
		t.Errorf("series %v, want each partition of one worker", partitions)
	}
}
