package demo

import (
	"fmt"
	"io"
	"slices"

	"github.com/churnstream/churnstream/internal/example"
	"github.com/churnstream/churnstream/internal/train"
	"github.com/churnstream/churnstream/schemas"
)

// Summary is what a demo has shown. Nulls mean that there was nothing to measure.
type Summary struct {
	Events            int            `json:"events"`
	Scores            int            `json:"scores"`
	DeadLetters       int            `json:"dead_letters"`
	AUC               *float64       `json:"auc"`          // of each streamed customer's first score before the shift
	DriftAlerts       int            `json:"drift_alerts"` // raised
	AlertsBeforeShift int            `json:"alerts_before_shift"`
	ShiftToAlert      *float64       `json:"shift_to_alert_seconds"`
	FirstScore        *float64       `json:"first_score_seconds"` // from the start of the process
	Latency           LatencySummary `json:"latency_ms"`          // from publishing an event to reading its score
}

// LatencySummary holds percentiles in milliseconds.
type LatencySummary struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// summary sums up what was seen.
func (o *observer) summary(events int, telco *example.Telco) Summary {
	after, alerted := o.alertAfterShift()
	o.mu.Lock()
	defer o.mu.Unlock()
	s := Summary{Events: events, Scores: o.scores, DeadLetters: o.deadLetters}
	if o.scores > 0 {
		s.FirstScore = pointer(o.firstScore.Seconds())
	}
	var truth []bool
	var probabilities []float64
	for i, customer := range telco.Customers {
		if p, ok := o.firstScores[customer]; ok {
			truth = append(truth, telco.Churned[i])
			probabilities = append(probabilities, p)
		}
	}
	if a, err := train.AUC(truth, probabilities); err == nil { // an error: only one class was seen so far
		s.AUC = pointer(a)
	}
	for _, a := range o.alerts {
		if a.State != schemas.AlertRaised {
			continue
		}
		s.DriftAlerts++
		if o.shiftAt.IsZero() || a.seen.Before(o.shiftAt) {
			s.AlertsBeforeShift++
		}
	}
	if alerted {
		s.ShiftToAlert = pointer(after.Seconds())
	}
	if len(o.latencies) > 0 {
		slices.Sort(o.latencies)
		s.Latency = LatencySummary{P50: train.Quantile(o.latencies, 0.5), P95: train.Quantile(o.latencies, 0.95), P99: train.Quantile(o.latencies, 0.99)}
	}
	return s
}

func pointer(v float64) *float64 { return &v }

// WriteText prints the summary for people.
func (s Summary) WriteText(w io.Writer) error {
	number := func(v *float64, format string) string {
		if v == nil {
			return "—"
		}
		return fmt.Sprintf(format, *v)
	}
	_, err := fmt.Fprintf(w, `
  events published      %d
  scores                %d
  dead letters          %d
  AUC                   %s   (streamed customers, none of them trained on)
  drift alerts          %d raised, %d of them before the shift
  shift to alert        %s
  first score           %s after the start
  event to score        p50 %.1f ms   p95 %.1f ms   p99 %.1f ms
`,
		s.Events, s.Scores, s.DeadLetters, number(s.AUC, "%.3f"), s.DriftAlerts, s.AlertsBeforeShift,
		number(s.ShiftToAlert, "%.1f s"), number(s.FirstScore, "%.2f s"), s.Latency.P50, s.Latency.P95, s.Latency.P99)
	return err
}
