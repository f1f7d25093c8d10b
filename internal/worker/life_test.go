package worker

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/testkit"
)

func TestARegistryOutagePausesThePartitionAndGoesOnByItself(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(nil).ready(1)
	e.registry.down.Store(true) // before the schema of the events was ever asked for
	e.feed(10)
	testkit.Eventually(t, patience, func() bool {
		status := w.Ready()
		return !status.OK && len(status.Reasons) == 1 && strings.Contains(status.Reasons[0], "waits") && strings.Contains(status.Reasons[0], "schema registry")
	}, "readiness names the registry: %v", shown(func() any { return w.Ready() }))
	if status := w.Live(); !status.OK {
		t.Errorf("an outage of the registry counts as a stalled loop: %v", status.Reasons)
	}
	if got := w.value("churnstream_consumer_lag_records"); got != 10 {
		t.Errorf("lag %v while 10 events are in hand", got)
	}
	if got, since := w.value("churnstream_consumer_lag_seconds"), time.Since(time.UnixMilli(e.base)).Seconds(); got < since-1 || got > since+1 {
		t.Errorf("lag of %v s, the oldest event in hand is %v s old", got, since)
	}
	e.registry.down.Store(false)
	e.drained()
	w.ready(1)
	w.end()
	if got := w.value("churnstream_dead_letters_total"); got != 0 {
		t.Errorf("%v dead letters of an outage", got)
	}
	e.checkScores(false)
}

func TestADrainDuringARegistryOutageEnds(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(nil).ready(1)
	e.registry.down.Store(true)
	e.feed(10)
	testkit.Eventually(t, patience, func() bool { return !w.Ready().OK }, "the partition waits")
	w.end()
	e.registry.down.Store(false)
	e.start(nil)
	e.drained()
	e.checkScores(false)
}

func TestADrainCommitsTheBatchInHandAndLeavesTheGroup(t *testing.T) {
	deliveries(t, func(t *testing.T, d delivery) {
		e := newEnvironment(t, testkit.Brokers(t), partitions{events: 3, scores: 1, states: 1})
		d.set(&e.cfg)
		e.cfg.Fetch.MaxPartitionBytes = 16 << 10 // many batches
		w := e.start(nil).ready(3)
		e.feed(2000)
		testkit.Eventually(t, patience, func() bool { return w.value("churnstream_scores_total") > 0 }, "the first scores are committed")
		w.end()
		if scores, committed := len(e.scores()), e.committed(); int64(scores) != committed {
			t.Errorf("%d scores for %d committed offsets", scores, committed)
		}
		if members := e.members(); members != 0 {
			t.Errorf("%d members are left in the group", members)
		}
		if got := w.value("churnstream_owned_partitions"); got != 0 {
			t.Errorf("%v owned partitions after the end", got)
		}
		if got := w.value("churnstream_consumer_lag_records"); got != -1 {
			t.Errorf("a lag of %v of partitions given up", got)
		}
		e.start(nil)
		e.drained()
		e.checkScores(false)
		e.checkCounts()
	})
}

// TestADrainWaitsForTheCommit: the records of the batch in hand are on their way when the end is asked for.
func TestADrainWaitsForTheCommit(t *testing.T) {
	deliveries(t, func(t *testing.T, d delivery) {
		broker := testkit.Embedded(t)
		e := newEnvironment(t, broker.Addrs(), partitions{events: 1, scores: 1, states: 1})
		d.set(&e.cfg)
		w := e.start(nil).ready(1)
		held := hold(t, broker.Cluster(), kmsg.Produce, e.cfg.Topics.Scores)
		e.feed(10)
		held.wait()
		w.stop()
		testkit.Eventually(t, patience, func() bool { return strings.Contains(w.log.String(), "draining") }, "the drain has begun")
		held.release()
		w.end()
		if scores, committed := len(e.scores()), e.committed(); committed == 0 || int64(scores) != committed {
			t.Errorf("%d scores for %d committed offsets, want the batch in hand", scores, committed)
		}
		e.start(nil)
		e.drained()
		e.checkScores(false)
		e.checkCounts()
	})
}

// TestADrainDoesNotWaitForAStart: a coordinator that is away may keep a starting partition for as long as it likes.
func TestADrainDoesNotWaitForAStart(t *testing.T) {
	broker := testkit.Embedded(t)
	e := newEnvironment(t, broker.Addrs(), partitions{events: 1, scores: 1, states: 1})
	held := hold(t, broker.Cluster(), kmsg.OffsetFetch, "")
	w := e.start(nil)
	held.wait()
	started := time.Now()
	w.end()
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("the drain took %v", took)
	}
}

func TestReadinessAndLivenessSayWhy(t *testing.T) {
	broker := testkit.Embedded(t)
	e := newEnvironment(t, broker.Addrs(), partitions{events: 1, scores: 1, states: 1})
	e.cfg.Admin.MaxLag = 5
	var ahead atomic.Int64
	fetching := hold(t, broker.Cluster(), kmsg.OffsetFetch, "")
	w := e.start(nil, func(w *Worker) {
		w.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	reasons := func(ok bool, want string) {
		t.Helper()
		testkit.Eventually(t, patience, func() bool {
			status := w.Ready()
			return status.OK == ok && strings.Contains(strings.Join(status.Reasons, "; "), want)
		}, "ready is %v, with %q: %v", ok, want, shown(func() any { return w.Ready() }))
	}
	live := func(ok bool, want string) {
		t.Helper()
		if status := w.Live(); status.OK != ok || !strings.Contains(strings.Join(status.Reasons, "; "), want) {
			t.Errorf("live is %+v, want %v with %q", status, ok, want)
		}
	}
	reasons(false, "has given no partition")
	live(true, "")
	fetching.wait()
	reasons(false, e.cfg.Topics.Events+"/0 is starting for 0.")
	ahead.Store(int64(time.Hour))
	live(true, "") // whatever it waits for, a restart would not bring it
	fetching.release()
	reasons(true, "")

	ahead.Store(int64(2 * time.Hour))
	live(true, "") // an idle topic is healthy
	reasons(true, "")

	producing := hold(t, broker.Cluster(), kmsg.Produce, e.cfg.Topics.Scores)
	e.feed(6)
	producing.wait()
	reasons(false, "6 events behind; admin.max_lag is 5")
	live(true, "")
	ahead.Add(int64(stalled - time.Minute))
	live(true, "")
	ahead.Add(int64(2 * time.Minute))
	live(false, e.cfg.Topics.Events+"/0 has been committing on one batch")
	producing.release()
	reasons(true, "")
	live(true, "")

	w.Lost(w.owned())
	reasons(false, "has given no partition")
}

// members of the group.
func (e *environment) members() int {
	e.t.Helper()
	request := kmsg.NewPtrDescribeGroupsRequest()
	request.Groups = []string{e.cfg.Group.ID}
	response, err := request.RequestWith(e.t.Context(), e.client)
	if err != nil {
		e.t.Fatal(err)
	}
	return len(response.Groups[0].Members)
}

// held is a request that the embedded broker answers when it is told to.
type held struct {
	t       testing.TB
	arrived chan struct{}
	release func()
}

func (h *held) wait() {
	h.t.Helper()
	select {
	case <-h.arrived:
	case <-time.After(patience):
		h.t.Fatal("the request does not come")
	}
}

// hold keeps the answer to the next request of the key back; a Produce request only if it is for the topic.
func hold(t testing.TB, cluster *kfake.Cluster, key kmsg.Key, topic string) *held {
	t.Helper()
	return holdNth(t, cluster, 1, key, topic)
}

// holdNth lets requests of the key through before the one that it holds.
func holdNth(t testing.TB, cluster *kfake.Cluster, nth int, key kmsg.Key, topic string) *held {
	t.Helper()
	released := make(chan struct{})
	h := &held{t: t, arrived: make(chan struct{}), release: sync.OnceFunc(func() { close(released) })}
	t.Cleanup(h.release)
	seen := 0
	cluster.ControlKey(int16(key), func(request kmsg.Request) (kmsg.Response, error, bool) {
		if produce, ok := request.(*kmsg.ProduceRequest); seen == nth || ok && !holds(cluster, produce, topic) {
			return nil, nil, false
		}
		if seen++; seen < nth {
			return nil, nil, false
		}
		cluster.DropControl()
		close(h.arrived)
		cluster.SleepControl(func() { <-released })
		return nil, nil, false
	})
	return h
}

func holds(cluster *kfake.Cluster, request *kmsg.ProduceRequest, topic string) bool {
	for _, t := range request.Topics {
		if t.Topic == topic || t.Topic == "" && t.TopicID == cluster.TopicInfo(topic).TopicID {
			return true
		}
	}
	return false
}

func TestAnIdleWorkerWhoseBrokersAreGoneIsNotReady(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(nil).ready(1)
	w.wire.cut()
	testkit.Eventually(t, patience, func() bool {
		status := w.Ready()
		return !status.OK && strings.Contains(strings.Join(status.Reasons, "; "), "no broker has answered its fetches")
	}, "readiness names the silence: %v", shown(func() any { return w.Ready() }))
	if !w.Live().OK {
		t.Error("a silent broker counts as a stalled loop; a restart would not mend it")
	}
	w.wire.mend()
	w.ready(1)
	w.end()
}

// TestLatestBeginsOnce: what comes while a worker that was ready is away is not passed over by its policy.
func TestLatestBeginsOnce(t *testing.T) {
	deliveries(t, func(t *testing.T, d delivery) {
		e := newEnvironment(t, testkit.Brokers(t), partitions{events: 2, scores: 1, states: 1})
		d.set(&e.cfg)
		e.cfg.Fetch.OffsetReset = string(consumer.ResetLatest)
		e.start(nil).ready(2).end()
		e.feed(20)
		w := e.start(nil)
		e.drained()
		w.end()
		e.checkScores(false)
	})
}
