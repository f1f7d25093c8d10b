package worker

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/devbroker"
	"github.com/churnstream/churnstream/internal/testkit"
)

// forgetful lets a coordinator answer as if nothing were committed until it remembers.
func forgetful(broker *devbroker.Broker) (remember func()) {
	var loaded atomic.Bool
	broker.Cluster().ControlKey(int16(kmsg.OffsetFetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.Cluster().KeepControl()
		if loaded.Load() {
			return nil, nil, false
		}
		response := kmsg.NewPtrOffsetFetchResponse()
		response.Version = request.GetVersion()
		for _, g := range request.(*kmsg.OffsetFetchRequest).Groups {
			group := kmsg.NewOffsetFetchResponseGroup()
			group.Group = g.Group
			for _, t := range g.Topics {
				topic := kmsg.NewOffsetFetchResponseGroupTopic()
				topic.Topic = t.Topic
				for _, p := range t.Partitions {
					partition := kmsg.NewOffsetFetchResponseGroupTopicPartition()
					partition.Partition, partition.Offset = p, -1
					topic.Partitions = append(topic.Partitions, partition)
				}
				group.Topics = append(group.Topics, topic)
			}
			response.Groups = append(response.Groups, group)
		}
		return response, nil, true
	})
	return func() { loaded.Store(true) }
}

// TestACoordinatorThatForgetsOffsetsDoublesNothing: a worker that never owned the partition knows by the statistics what
// was committed; one that did, by itself.
func TestACoordinatorThatForgetsOffsetsDoublesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*config.Config)
		restart bool // a fresh process
	}{
		"known by the statistics":            {func(*config.Config) {}, true},
		"known by the worker":                {func(c *config.Config) { c.Drift.Enabled = false }, false},
		"known by the worker, at least once": {func(c *config.Config) { c.Delivery = config.AtLeastOnce }, false},
	} {
		t.Run(name, func(t *testing.T) {
			broker := testkit.Embedded(t)
			e := newEnvironment(t, broker.Addrs(), partitions{events: 1, scores: 1, states: 1})
			w := e.start(c.change).ready(1)
			e.feed(100)
			e.drained()
			if c.restart {
				w.end()
			}
			remember := forgetful(broker)
			if c.restart {
				w = e.start(c.change)
			} else { // its partition is begun again
				broker.Cluster().ControlKey(int16(kmsg.TxnOffsetCommit), refuseCommit(invalidState))
				broker.Cluster().ControlKey(int16(kmsg.OffsetCommit), refuseCommit(unknownServer))
				e.feed(1)
			}
			testkit.Eventually(t, patience, func() bool {
				return strings.Contains(strings.Join(w.Ready().Reasons, " "), "where 100 was committed")
			}, "the worker waits for the offset: %v", shown(func() any { return w.Ready() }))
			e.feed(50)
			remember()
			e.drained()
			if got := w.value("churnstream_forgotten_offsets_total"); got != 1 {
				t.Errorf("forgotten offsets: %v", got)
			}
			w.end()
			e.checkScores(strings.Contains(name, "at least once")) // the unit that was refused
		})
	}
}

// TestOffsetsThatWereResetAreReadAgain: nobody but an operator commits an older offset for good.
func TestOffsetsThatWereResetAreReadAgain(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(nil).ready(1)
	e.feed(100)
	e.drained()
	w.end()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...), kgo.MaxVersions(kversion.V3_0_0())) // which knows topics by name
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.Generation = e.cfg.Group.ID, -1
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = e.cfg.Topics.Events
	partition := kmsg.NewOffsetCommitRequestTopicPartition()
	partition.Offset = 40
	topic.Partitions = append(topic.Partitions, partition)
	commit.Topics = append(commit.Topics, topic)
	response, err := commit.RequestWith(t.Context(), client)
	if err != nil || response.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatal(err, response)
	}
	e.start(nil, func(w *Worker) { w.memoryLimit = 500 * time.Millisecond }).ready(1)
	e.drained()
	if n := len(e.scores()); n != 160 {
		t.Errorf("%d scores, want 160: 60 events are read again", n)
	}
}

// TestAnotherGroupReadsFromItsOwnStart: what one group has counted says nothing of another one's offsets.
func TestAnotherGroupReadsFromItsOwnStart(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(nil).ready(1)
	e.feed(100)
	e.drained()
	w.end()
	e.cfg.Group.ID += "-other"
	w = e.start(nil).ready(1)
	e.drained()
	if got := w.value("churnstream_forgotten_offsets_total"); got != 0 {
		t.Errorf("forgotten offsets: %v", got)
	}
	if n := len(e.scores()); n != 200 {
		t.Errorf("%d scores, want 200: the other group reads all events, too", n)
	}
}
