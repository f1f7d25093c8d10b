package worker

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/schemas"
)

// TestSchemasEvolveWhileTheWorkerRuns runs against the registry that CHURNSTREAM_TEST_REGISTRY names, if it does.
func TestSchemasEvolveWhileTheWorkerRuns(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	e.registry.cacheDir = t.TempDir()
	registry := e.registry.client(t)
	subject := schemas.Subject(e.cfg.Topics.Events)
	first, err := e.model.Contract().AvroSchema()
	if err != nil {
		t.Fatal(err)
	}
	w := e.start(nil).ready(1)
	e.feed(10)
	e.drained()

	// The producer's next version has a field more, before all others.
	evolve := func(field string) string { return strings.Replace(first, `"fields":[`, `"fields":[`+field+`,`, 1) }
	next, err := registry.Register(t.Context(), subject, evolve(`{"name":"channel","type":"string","default":"web"}`))
	if err != nil {
		t.Fatal(err)
	}
	if next == e.schemaID {
		t.Fatal("the evolved schema has the old id")
	}
	publish := func(count int, prefix ...byte) {
		t.Helper()
		for range count {
			v := randomEvent(e.random, e.random.IntN(40))
			v.time = e.base + int64(len(e.sent))*100
			r := e.record(v, 0)
			_, body, err := schemas.SplitFrame(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			r.Value = append(append(schemas.AppendFrame(nil, next), prefix...), body...)
			e.publish([]event{v}, []*kgo.Record{r})
		}
	}
	publish(10, 6, 'a', 'p', 'p')
	e.feed(5) // an old producer is still there
	e.drained()

	// What readers could not follow is refused, in the registry's words.
	_, err = registry.Register(t.Context(), subject, evolve(`{"name":"required","type":"string"}`))
	if !errors.Is(err, schemas.ErrIncompatible) || !strings.Contains(strings.ToLower(err.Error()), "incompatible") {
		t.Errorf("an incompatible version: %v", err)
	}

	// A worker that is started while the registry is down knows what it needs from before.
	w.end()
	e.registry.down.Store(true)
	again := e.start(nil).ready(1)
	publish(5, 6, 'p', 'o', 's')
	e.feed(5)
	e.drained()
	again.end()
	for _, r := range []*running{w, again} {
		if got := r.value("churnstream_dead_letters_total"); got != 0 {
			t.Errorf("%v dead letters", got)
		}
	}
	e.checkScores(false)
}

func TestAScoreSchemaThatTheRegistryRefusesEndsTheStart(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	other := `{"type":"record","name":"Score","namespace":"churn.v1","fields":[{"name":"customer_id","type":"int"}]}`
	if _, err := e.registry.client(t).Register(t.Context(), schemas.Subject(e.cfg.Topics.Scores), other); err != nil {
		t.Fatal(err)
	}
	w := e.start(nil)
	w.ended = true
	err := <-w.returned
	if !errors.Is(err, schemas.ErrIncompatible) || !strings.Contains(err.Error(), schemas.Subject(e.cfg.Topics.Scores)) {
		t.Errorf("the worker ended with %v", err)
	}
}
