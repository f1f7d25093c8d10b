package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit"
)

// patientTransactions leaves what a dead worker holds open for longer than any test waits.
func patientTransactions(c *config.Config) {
	c.Produce.TransactionTimeout = config.Duration(2 * patience)
}

// TestASuccessorEndsTheTransactionOfADeadWorker: the first worker dies with a transaction that holds scores, or scores
// and offsets. Nobody waits for its timeout.
func TestASuccessorEndsTheTransactionOfADeadWorker(t *testing.T) {
	for _, step := range []kmsg.Key{kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		t.Run("before "+step.Name(), func(t *testing.T) {
			broker := testkit.Embedded(t)
			e := newEnvironment(t, broker.Addrs(), partitions{events: 3, scores: 2, states: 1})
			first := e.start(patientTransactions, func(w *Worker) {
				w.producing.RetryTimeout = time.Second // it shall not outlive the test
				var err error
				if w.shared, err = newShared(w.cfg, w.producing, w.client, w.transactionalID); err != nil {
					t.Fatal(err)
				}
			}).ready(3)
			e.feed(30)
			e.drained() // every partition has an offset with the owner's id
			held := hold(t, broker.Cluster(), step, "")
			e.feed(30)
			held.wait()
			first.crash()
			held.release()
			second := e.start(patientTransactions)
			e.drained()
			e.checkScores(false)
			// A commit that the broker took after the crash needs nobody: all is committed before the successor is there.
			testkit.Eventually(t, patience, func() bool {
				return strings.Contains(second.log.String(), "ended the transaction of the partition's former owner")
			}, "the successor says that it ended a transaction")
			second.end()
			e.checkCounts()
		})
	}
}

// TestAPartitionThatIsGivenUpInOrderCarriesNoOwner: its next owner must not disturb the one before, which works on.
func TestAPartitionThatIsGivenUpInOrderCarriesNoOwner(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 4, scores: 2, states: 1})
	first := e.start(nil).ready(4)
	e.feed(40)
	e.drained()
	owners := func() (n int) {
		metadata, err := consumer.CommittedMetadata(t.Context(), first.client, e.cfg.Group.ID, []consumer.TopicPartition{
			{Topic: e.cfg.Topics.Events, Partition: 0},
			{Topic: e.cfg.Topics.Events, Partition: 1},
			{Topic: e.cfg.Topics.Events, Partition: 2},
			{Topic: e.cfg.Topics.Events, Partition: 3},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range metadata {
			if m == first.metadata() {
				n++
			}
		}
		return n
	}
	if n := owners(); n != 4 {
		t.Fatalf("%d of 4 partitions carry their owner's id", n)
	}
	second := e.start(nil).ready(2)
	first.ready(2)
	if n := owners(); n != 2 {
		t.Errorf("%d partitions carry the first worker's id after two were given up", n)
	}
	before := e.committed()
	e.feed(40)
	e.drained()
	if e.committed() <= before {
		t.Error("nothing was committed")
	}
	for _, w := range []*running{first, second} {
		if log := w.log.String(); strings.Contains(log, "fenced") || strings.Contains(log, "former owner, which") {
			t.Errorf("a worker was fenced:\n%s", log)
		}
	}
	second.end()
	first.end()
	if n := owners(); n != 0 {
		t.Errorf("%d partitions carry the id of a worker that left", n)
	}
	e.checkScores(false)
}

// TestAPartitionIsGivenUpInOrderWhileTheGroupSettles: several workers leave at the same time, and the coordinator refuses
// commits for a moment.
func TestAPartitionIsGivenUpInOrderWhileTheGroupSettles(t *testing.T) {
	broker := testkit.Embedded(t)
	e := newEnvironment(t, broker.Addrs(), partitions{events: 2, scores: 1, states: 1})
	first := e.start(nil).ready(2)
	e.feed(40)
	e.drained()
	for range 3 {
		broker.Cluster().ControlKey(int16(kmsg.OffsetCommit), refuseCommit(rebalance))
	}
	first.end()
	second := e.start(nil).ready(2)
	e.feed(40)
	e.drained()
	if log := first.log.String(); strings.Contains(log, "cannot mark partitions") {
		t.Errorf("the first worker did not give its partitions up in order:\n%s", log)
	}
	if log := second.log.String(); strings.Contains(log, "former owner") {
		t.Errorf("the second worker fenced the first:\n%s", log)
	}
	second.end()
	e.checkScores(false)
}

// TestAPartitionThatIsTakenAwayAtItsStartKeepsItsOffset: the task knows already that a dead worker's id goes with the
// committed offset, but not yet the offset.
func TestAPartitionThatIsTakenAwayAtItsStartKeepsItsOffset(t *testing.T) {
	broker := testkit.Embedded(t)
	e := newEnvironment(t, broker.Addrs(), partitions{events: 1, scores: 1, states: 1})
	e.cfg.Drift.Enabled = false
	first := e.start(nil).ready(1)
	e.feed(30)
	e.drained()
	first.crash()
	held := holdNth(t, broker.Cluster(), 2, kmsg.OffsetFetch, "") // of the offset; the first is of its metadata
	second := e.start(nil)
	held.wait()
	lost := second.owned()
	revoked := make(chan struct{})
	go func() {
		defer close(revoked)
		second.Revoked(lost)
	}()
	testkit.Eventually(t, patience, func() bool { return len(second.owned()) == 0 }, "the partition is being taken away")
	held.release()
	<-revoked
	second.Assigned(lost)
	e.feed(10)
	e.drained()
	second.end()
	e.checkScores(false)
}

// TestAPartitionThatIsTakenAwayAfterACommitInDoubtKeepsItsOffset: the broker has ended the transaction, but answered that
// something went wrong, and the partition is taken away before its task has asked what is committed.
func TestAPartitionThatIsTakenAwayAfterACommitInDoubtKeepsItsOffset(t *testing.T) {
	e := newEnvironment(t, testkit.Embedded(t).Addrs(), partitions{events: 1, scores: 1, states: 1})
	e.tap = &tap{group: e.cfg.Group.ID}
	w := e.start(nil).ready(1)
	e.feed(30)
	e.drained()
	e.tap.next(kmsg.EndTxn, true, unknownServer)
	aborting := e.tap.next(kmsg.InitProducerID, false, silence) // which the abort of what has ended comes to
	e.feed(30)
	testkit.Eventually(t, patience, aborting.happened.Load, "the worker aborts what was committed")
	lost := w.owned()
	w.Revoked(lost)
	w.Assigned(lost)
	e.feed(10)
	e.drained()
	w.end()
	e.checkScores(false)
	e.checkCounts()
}

func TestADeadWorkersTransactionIsEndedOnceForAllItsPartitions(t *testing.T) {
	calls, fails := 0, true
	s := succession{ended: map[string]time.Time{}, fence: func(context.Context, string) error {
		calls++
		if fails {
			return errors.New("not allowed")
		}
		return nil
	}}
	if s.end(t.Context(), "a") == nil {
		t.Error("the failure is not told")
	}
	fails = false
	for range 8 {
		if err := s.end(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
	if err := s.end(t.Context(), "b"); err != nil || calls != 3 {
		t.Errorf("%d calls, %v; want the failed one and one for each id", calls, err)
	}
}
