package worker

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit"
)

// TestABrokerWhoseDiskIsFullIsSaidAndWaitedFor: Kafka answers KAFKA_STORAGE_ERROR as long as it is there to answer.
func TestABrokerWhoseDiskIsFullIsSaidAndWaitedFor(t *testing.T) {
	const storageError = 56
	for _, transactions := range []string{"worker", "partition"} {
		t.Run(transactions, func(t *testing.T) {
			broker := testkit.Embedded(t)
			e := newEnvironment(t, broker.Addrs(), partitions{events: 2, scores: 1, states: 1})
			e.cfg.Produce.Transactions = transactions
			e.cfg.Produce.TransactionTimeout = config.Duration(3 * time.Second)
			w := e.start(nil, impatient).ready(2)
			var full atomic.Bool
			full.Store(true)
			broker.Cluster().ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
				if !full.Load() || !strings.HasPrefix(transactionOf(request), e.cfg.Group.ID) {
					broker.Cluster().KeepControl()
					return nil, nil, false
				}
				broker.Cluster().KeepControl()
				return refusal(request, storageError), nil, true
			})
			e.feed(40)
			testkit.Eventually(t, patience, func() bool {
				return strings.Contains(strings.Join(w.Ready().Reasons, " "), "KAFKA_STORAGE_ERROR")
			}, "readiness names the fault: %v", shown(func() any { return w.Ready() }))
			testkit.Eventually(t, patience, func() bool { return strings.Contains(w.log.String(), "KAFKA_STORAGE_ERROR") }, "the log names it")
			if got := w.value("churnstream_partition_waiting_seconds"); got <= 0 {
				t.Errorf("waiting for %v s", got)
			}
			if got := w.value("churnstream_producer_retries_total"); got <= 0 {
				t.Errorf("%v retries", got)
			}
			if live := w.Live(); !live.OK {
				t.Errorf("a full disk asks for a restart of the worker: %v", live.Reasons)
			}
			full.Store(false)
			e.drained()
			w.ready(2)
			w.end()
			e.checkScores(false)
			e.checkCounts()
		})
	}
}

// TestABrokerThatNeverAnswersACommitIsSaid: it has taken the request and says nothing.
func TestABrokerThatNeverAnswersACommitIsSaid(t *testing.T) {
	broker := testkit.Embedded(t)
	e := newEnvironment(t, broker.Addrs(), partitions{events: 1, scores: 1, states: 1})
	e.cfg.Produce.TransactionTimeout = config.Duration(20 * time.Second)
	w := e.start(nil, func(w *Worker) {
		impatient(w)
		w.producing.RequestTimeout = 15 * time.Second
		var err error
		if w.shared, err = newShared(w.cfg, w.producing, w.client, w.transactionalID); err != nil {
			t.Fatal(err)
		}
	}).ready(1)
	held := hold(t, broker.Cluster(), kmsg.Produce, e.cfg.Topics.Scores)
	e.feed(10)
	held.wait()
	testkit.Eventually(t, patience, func() bool {
		return strings.Contains(strings.Join(w.Ready().Reasons, " "), "has been committing")
	}, "readiness says so: %v", shown(func() any { return w.Ready() }))
	testkit.Eventually(t, patience, func() bool { return strings.Contains(w.log.String(), `"for":"commit"`) }, "the log says what is waited for")
	held.release()
	e.drained()
	testkit.Eventually(t, patience, func() bool { return strings.Contains(w.log.String(), "the partition goes on") }, "the log says that it is over")
	w.end()
	e.checkScores(false)
}

// impatient makes a worker say at once what it waits for.
func impatient(w *Worker) { w.patience, w.quietWait = 200*time.Millisecond, 20*time.Millisecond }

// TestAHungLoopLeavesItsStackInTheLog: once, and again when it hangs again.
func TestAHungLoopLeavesItsStackInTheLog(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(nil).ready(1)
	w.mu.Lock()
	var hung *task
	for _, owned := range w.tasks {
		hung = owned.task
	}
	w.mu.Unlock()
	said := func() int { return strings.Count(w.log.String(), "a loop hangs") }
	for want := 1; want <= 2; want++ {
		hung.phase.set(stepWorking, time.Now().Add(-stalled-time.Second))
		testkit.Eventually(t, patience, func() bool { return said() == want }, "the log says it %d times", want)
		if live := w.Live(); live.OK {
			t.Error("a loop that hangs is alive")
		}
		hung.phase.set(stepIdle, time.Now())
		// The watchdog looks once a second: give it one look at a loop that turns.
		testkit.Eventually(t, patience, func() bool { return w.looks.Load() > 0 }, "it looks")
		seen := w.looks.Load()
		testkit.Eventually(t, patience, func() bool { return w.looks.Load() >= seen+2 }, "it looks again")
	}
	if log := w.log.String(); !strings.Contains(log, "goroutine ") || !strings.Contains(log, "(*waitLog)") {
		t.Error("the stacks are not in the log")
	}
	w.end()
}
