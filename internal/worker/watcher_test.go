package worker

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// quickDrift judges windows of ten seconds and more by seconds.
func quickDrift(c *config.Config) {
	c.Drift.Bucket, c.Drift.EvaluateEvery = config.Duration(time.Second), config.Duration(10*time.Millisecond)
}

// feedShifted publishes n events of as many customers of one kind, 100 a second.
func (e *environment) feedShifted(n int) {
	e.t.Helper()
	records, events := make([]*kgo.Record, n), make([]event, n)
	for i := range n {
		at := len(e.sent) + i
		events[i] = randomEvent(e.random, at)
		events[i].numbers[0] = 71
		if string(events[i].categories[3]) == "Ten year" {
			events[i].categories[3] = []byte("Two year") // unseen ones are a shift of their own
		}
		events[i].time = e.base + int64(at)*10
		records[i] = e.record(events[i], 0)
	}
	e.publish(events, records)
}

// alerts by feature and state.
func (e *environment) alerts() map[string]int {
	e.t.Helper()
	alerts := map[string]int{}
	for _, r := range e.read(e.cfg.Topics.DriftAlerts) {
		var alert schemas.DriftAlert
		_, body, err := schemas.SplitFrame(r.Value)
		if err == nil {
			err = schemas.DecodeDriftAlert(body, &alert)
		}
		if err != nil {
			e.t.Fatal(err)
		}
		alerts[alert.Feature+" "+alert.State]++
	}
	return alerts
}

func TestAnAlarmIsTakenOverAndNotRaisedAgain(t *testing.T) {
	deliveries(t, func(t *testing.T, d delivery) {
		e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
		d.set(&e.cfg)
		quickDrift(&e.cfg)
		first := e.start(nil).ready(1)
		e.feedShifted(3000)
		e.drained()
		first.judged()
		before := e.alerts()
		if before["tenure "+schemas.AlertRaised] != 1 {
			t.Fatalf("alerts %v, want one of tenure raised", before)
		}
		raised := first.value("churnstream_drift_alarm_raised")
		first.crash()
		second := e.start(nil).ready(1)
		e.feedShifted(500)
		e.drained()
		second.judged()
		if got := second.value("churnstream_drift_alarm_raised"); got != raised {
			t.Errorf("%v alarms are on after the take-over, %v before", got, raised)
		}
		inWindow := uint32(0) // 35 seconds of events are in the minute's window
		for _, state := range e.recount() {
			for _, n := range state.Counts[0] {
				inWindow += n
			}
		}
		if got := second.valueOver("1m", "churnstream_drift_window_events"); got != float64(inWindow) {
			t.Errorf("%v events in the window, want %v: those that the first worker counted, too", got, inWindow)
		}
		second.end()
		if after := e.alerts(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("alerts %v, before the take-over %v", after, before)
		}
		e.checkScores(d.repeats())
		if d.guarantee == config.ExactlyOnce {
			e.checkNewestCounts()
		}
	})
}

// judged waits until the watcher has judged the window of the newest event.
func (r *running) judged() {
	r.t.Helper()
	end := (r.env.base+int64(len(r.env.sent)-1)*10)/1000 + 1
	testkit.Eventually(r.t, patience, func() bool { return r.value("churnstream_drift_window_end_seconds") == float64(end) }, "the newest window is judged")
}

func TestAFencedWatcherPublishesNothing(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(func(c *config.Config) { c.Drift.Enabled = false }).ready(1) // no watcher of its own
	watchers := newWatcher(w.Worker)
	var publishers [2]producer.Publisher
	for i := range publishers {
		var err error
		if publishers[i], err = w.newOwnPublisher("drift-alerts"); err != nil {
			t.Fatal(err)
		}
		defer publishers[i].Close()
		if err := publishers[i].Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	alert := []schemas.DriftAlert{{Feature: "tenure", State: schemas.AlertRaised}}
	if err := watchers.alerting(publishers[0]).publish(t.Context(), alert); !errors.Is(err, producer.ErrFenced) {
		t.Errorf("the watcher that was replaced: %v, want %v", err, producer.ErrFenced)
	}
	if alerts := e.alerts(); len(alerts) != 0 {
		t.Errorf("alerts %v of a fenced watcher", alerts)
	}
	if err := watchers.alerting(publishers[1]).publish(t.Context(), alert); err != nil {
		t.Error(err)
	}
	if alerts := e.alerts(); len(alerts) != 1 {
		t.Errorf("alerts %v, want the one of the newest watcher", alerts)
	}
}

// TestAForeignRecordInTheStateTopicStopsNothing: anybody who may write there could stop all scores for good otherwise.
func TestAForeignRecordInTheStateTopicStopsNothing(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	first := e.start(nil).ready(1)
	e.feed(20)
	e.drained()
	first.end()
	counted := e.read(e.cfg.Topics.DriftState)
	junk := []*kgo.Record{
		{Topic: e.cfg.Topics.DriftState, Key: []byte("x"), Value: []byte("x")},
		{Topic: e.cfg.Topics.DriftState, Key: []byte("x"), Value: []byte{0, 0, 0, 0, 1, 2, 3}},
		{Topic: e.cfg.Topics.DriftState, Key: []byte("x")}, // a tombstone
	}
	if err := e.client.ProduceSync(t.Context(), junk...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	second := e.start(nil).ready(1)
	e.feed(20)
	e.drained()
	second.end()
	e.checkScores(false)
	if after := e.read(e.cfg.Topics.DriftState); len(after) <= len(counted)+len(junk) {
		t.Error("no states were written after the foreign records")
	}
}

// TestStatesOfAnOldModelAreDeletedOnceNoWindowCanHoldThem: by whoever owns the partition, whatever model it has.
func TestStatesOfAnOldModelAreDeletedOnceNoWindowCanHoldThem(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	const week = 7 * 24 * time.Hour
	schemaID, err := e.registry.client(t).Register(t.Context(), schemas.Subject(e.cfg.Topics.DriftState), schemas.DriftStateSchema())
	if err != nil {
		t.Fatal(err)
	}
	state := func(age time.Duration) string {
		s := &schemas.DriftState{ModelDigest: "old", Topic: e.cfg.Topics.Events, BucketWidth: 86400, BucketStart: e.base - e.base%86_400_000 - age.Milliseconds()}
		r := &kgo.Record{Topic: e.cfg.Topics.DriftState, Key: s.AppendKey(nil), Value: s.AppendAvro(schemas.AppendFrame(nil, schemaID))}
		if err := e.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		return string(r.Key)
	}
	past, within := state(2*week), state(week/2)
	w := e.start(nil).ready(1)
	e.feed(20)
	e.drained()
	w.end()
	newest := map[string]*kgo.Record{}
	for _, r := range e.read(e.cfg.Topics.DriftState) {
		newest[string(r.Key)] = r
	}
	if newest[past].Value != nil {
		t.Errorf("the counts %s are still there", past)
	}
	if newest[within].Value == nil {
		t.Errorf("the counts %s, which a window of that model may hold, are deleted", within)
	}
}

// checkNewestCounts is checkCounts for a window that has moved on: buckets before it have been deleted.
func (e *environment) checkNewestCounts() {
	e.t.Helper()
	newest := map[string]*kgo.Record{}
	for _, r := range e.read(e.cfg.Topics.DriftState) {
		newest[string(r.Key)] = r
	}
	for key, want := range e.recount() {
		r := newest[key]
		if r == nil || r.Value == nil {
			e.t.Errorf("no counts of %s", key)
			continue
		}
		got := &schemas.DriftState{}
		if err := schemas.DecodeDriftState(r.Value[5:], got); err != nil || !sameCounts(got, want) {
			e.t.Errorf("counts of %s differ from a recount: %v", key, err)
		}
		delete(newest, key)
	}
	for key, r := range newest {
		if r.Value != nil {
			e.t.Errorf("counts of %s, which has left the window, were not deleted", key)
		}
	}
}
