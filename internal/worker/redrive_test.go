package worker

import (
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/internal/deadletters"
	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/schemas"
)

// TestARecordThatFailsAgainStopsAtItsLimit sends a bad record again and again: each failure counts, its first place
// stays known, and in the end it is left where it is.
func TestARecordThatFailsAgainStopsAtItsLimit(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 2, scores: 1, states: 1})
	w := e.start(nil).ready(2)
	bad := &kgo.Record{
		Topic: e.cfg.Topics.Events, Partition: 1, Key: []byte("customer"), Value: []byte("no event"),
		Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte("1")}, {Key: "null"}},
	}
	if err := e.client.ProduceSync(t.Context(), bad).FirstErr(); err != nil {
		t.Fatal(err)
	}
	e.drained()
	e.settled(e.cfg.Topics.DeadLetters)
	job := deadletters.Job{Topic: e.cfg.Topics.DeadLetters, Filter: deadletters.Filter{Partition: -1}, MaxAttempts: 3}
	var err error
	if job.Group, job.TransactionalID, job.Producing, err = Redrive(e.cfg, "all"); err != nil {
		t.Fatal(err)
	}
	for run, want := range []deadletters.Tally{{Redriven: 1}, {Redriven: 1}, {AtLimit: 1}, {}} {
		tally, err := deadletters.Redrive(t.Context(), w.client, job, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tally.Redriven != want.Redriven || tally.AtLimit != want.AtLimit {
			t.Fatalf("run %d: %+v, want %+v", run+1, tally, want)
		}
		e.settled(e.cfg.Topics.Events)
		e.drained()
		e.settled(e.cfg.Topics.DeadLetters)
	}
	w.end()
	dead := e.read(e.cfg.Topics.DeadLetters)
	if len(dead) != 3 {
		t.Fatalf("%d dead letters, want one of each attempt", len(dead))
	}
	origin := e.cfg.Topics.Events + "/1@" + strconv.FormatInt(bad.Offset, 10)
	for i, r := range dead {
		headers := map[string][]string{}
		for _, h := range r.Headers {
			headers[h.Key] = append(headers[h.Key], string(h.Value))
		}
		if got := headers[schemas.HeaderAttempt]; len(got) != 1 || got[0] != strconv.Itoa(i+1) {
			t.Errorf("dead letter %d: attempts %v", i, got)
		}
		if got := headers[schemas.HeaderOrigin]; i > 0 && (len(got) != 1 || got[0] != origin) || i == 0 && got != nil {
			t.Errorf("dead letter %d: origin %v, want %s", i, got, origin)
		}
		if string(r.Key) != "customer" || string(r.Value) != "no event" || r.Headers[0].Key != "trace" || r.Headers[1].Key != "null" || r.Headers[1].Value != nil {
			t.Errorf("dead letter %d: %q=%q %v", i, r.Key, r.Value, r.Headers)
		}
		var letter schemas.DeadLetter
		_, body, err := schemas.SplitFrame([]byte(headers[schemas.HeaderDeadLetter][0]))
		if err == nil {
			err = schemas.DecodeDeadLetter(body, &letter)
		}
		if err != nil || letter.Attempt != int32(i+1) {
			t.Errorf("dead letter %d as Avro: %+v, %v", i, letter, err)
		}
	}
}
