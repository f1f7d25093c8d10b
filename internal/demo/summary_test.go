package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/churnstream/churnstream/internal/example"
	"github.com/churnstream/churnstream/schemas"
)

func TestSummaryOfNothingClaimsNothing(t *testing.T) {
	o := newObserver(time.Now())
	s := o.summary(0, trainedModel(t))
	if s.AUC != nil || s.FirstScore != nil || s.ShiftToAlert != nil || s != (Summary{}) {
		t.Errorf("got %+v", s)
	}
	var text strings.Builder
	if err := s.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"AUC                   —", "shift to alert        —", "first score           —"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in:\n%s", want, text.String())
		}
	}
}

func TestSummaryJudgesEachCustomersFirstScoreBeforeTheShift(t *testing.T) {
	telco := &example.Telco{Customers: []string{"stays", "leaves", "stays too", "comes late"}, Churned: []bool{false, true, false, true}}
	o := newObserver(time.Now().Add(-2 * time.Second))
	now := time.Now()
	score := func(customer string, probability float64, at time.Time) {
		o.score(&schemas.Score{CustomerID: []byte(customer), Probability: probability, EventTime: at.UnixMilli()})
	}
	score("stays", 0.2, now)
	score("leaves", 0.4, now)
	score("stays too", 0.6, now)
	score("leaves", 0.9, now) // its second score does not count
	o.shifted(now.Add(time.Second))
	score("comes late", 0.9, now.Add(time.Second)) // nor do those of the shifted population
	o.deadLetter()
	s := o.summary(6, telco)
	if s.Events != 6 || s.Scores != 5 || s.DeadLetters != 1 || o.outputs() != 6 {
		t.Errorf("got %+v", s)
	}
	if s.AUC == nil || *s.AUC != 0.5 { // "leaves" is above one of the two that stay
		t.Errorf("AUC %v", s.AUC)
	}
	if s.FirstScore == nil || *s.FirstScore < 2 || *s.FirstScore > 60 {
		t.Errorf("first score after %v s", s.FirstScore)
	}
}

func TestSummaryTellsAlertsBeforeTheShiftFromThoseItRaised(t *testing.T) {
	raised := func(id string) schemas.DriftAlert {
		return schemas.DriftAlert{AlertID: id, State: schemas.AlertRaised}
	}
	for name, c := range map[string]struct {
		see            func(o *observer)
		alerts, before int
		shiftToAlert   bool
	}{
		"before alone":        {func(o *observer) { o.alert(raised("a")); o.shifted(time.Now()) }, 1, 1, false},
		"without a shift":     {func(o *observer) { o.alert(raised("a")) }, 1, 1, false},
		"after":               {func(o *observer) { o.shifted(time.Now().Add(-time.Second)); o.alert(raised("a")) }, 1, 0, true},
		"both":                {func(o *observer) { o.alert(raised("a")); o.shifted(time.Now()); o.alert(raised("b")) }, 2, 1, true},
		"cleared is no alarm": {func(o *observer) { o.shifted(time.Now()); o.alert(schemas.DriftAlert{State: schemas.AlertCleared}) }, 0, 0, false},
		"updated is the same": {func(o *observer) {
			o.shifted(time.Now())
			o.alert(raised("a"))
			o.alert(schemas.DriftAlert{State: schemas.AlertUpdated})
		}, 1, 0, true},
	} {
		o := newObserver(time.Now())
		c.see(o)
		s := o.summary(0, trainedModel(t))
		if s.DriftAlerts != c.alerts || s.AlertsBeforeShift != c.before || (s.ShiftToAlert != nil) != c.shiftToAlert {
			t.Errorf("%s: %d alerts, %d before the shift, %v s after it", name, s.DriftAlerts, s.AlertsBeforeShift, s.ShiftToAlert)
		}
		if s.ShiftToAlert != nil && (*s.ShiftToAlert <= 0 || *s.ShiftToAlert > 60) {
			t.Errorf("%s: %v s from shift to alert", name, *s.ShiftToAlert)
		}
	}
}

func TestSummaryLatencyIsFromTheEventToItsArrival(t *testing.T) {
	o := newObserver(time.Now())
	for range 100 {
		o.score(&schemas.Score{EventTime: time.Now().Add(-time.Second).UnixMilli()})
	}
	if l := o.summary(100, trainedModel(t)).Latency; l.P50 < 1000 || l.P50 > 30_000 || l.P99 < l.P50 {
		t.Errorf("got %+v", l)
	}
}

func TestTheDisplayShowsAScoreAtMostOnce(t *testing.T) {
	o := newObserver(time.Now())
	if _, _, ok := o.pick(0); ok {
		t.Error("a score of nothing")
	}
	customer := []byte("first")
	o.score(&schemas.Score{CustomerID: customer, Reasons: []schemas.Reason{{Feature: "tenure", Contribution: -0.5}}})
	copy(customer, "again") // a batch is reused
	s, total, ok := o.pick(0)
	if !ok || total != 1 || string(s.CustomerID) != "first" {
		t.Errorf("%q %d %v", s.CustomerID, total, ok)
	}
	if _, _, ok := o.pick(total); ok {
		t.Error("the same score again")
	}
	s.Probability, s.Churn = 0.912, true
	if got := scoreLine(&s); got != "first          91.2%   churn      tenure -0.50" {
		t.Errorf("%q", got)
	}
	for range 10 * recentScores {
		o.score(&schemas.Score{})
	}
	if len(o.recent) != recentScores {
		t.Errorf("%d scores are kept for the display", len(o.recent))
	}
}
