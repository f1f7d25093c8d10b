package producer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// bothProtocols runs a test under the transaction version of the cluster and under the older one.
func bothProtocols(t *testing.T, test func(t *testing.T, cfg Config)) {
	t.Helper()
	for _, version := range []int{0, 1} {
		t.Run(map[int]string{0: "finalised version", 1: "version 1"}[version], func(t *testing.T) {
			t.Parallel()
			cfg := DefaultConfig()
			cfg.TransactionVersion = version
			test(t, cfg)
		})
	}
}

func mustBegin(t *testing.T, ctx context.Context, p Publisher) {
	t.Helper()
	if err := p.Begin(ctx); err != nil {
		t.Fatal(err)
	}
}

func mustAppend(t *testing.T, p Publisher, topic string, partition int32, value string) {
	t.Helper()
	if err := p.Append(&Record{Topic: topic, Partition: partition, Timestamp: 1_700_000_000_000, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

func TestCommitShowsRecordsAndOffsetsTogether(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		for codec := None; codec <= Zstd; codec++ {
			c := connect(t, brokers)
			ctx := c.context()
			out, in, group := c.topic(3), c.topic(1), uniqueName("group")
			cfg.Compression = codec
			p := c.transactional(cfg, uniqueName("tx"))
			mustBegin(t, ctx, p)
			finalised, err := c.client.Versions(ctx, kafkawire.AnyBroker)
			if err != nil {
				t.Fatal(err)
			}
			if want := cfg.TransactionVersion != 1 && finalised.FinalizedFeature("transaction.version") >= 2; p.versions.epochPerTransaction != want {
				t.Fatalf("transaction version 2 is in use: %v, want %v", p.versions.epochPerTransaction, want)
			}
			const n = 300
			for i := range n {
				r := Record{
					Topic: out, Partition: -1, Timestamp: 1_700_000_000_000 + int64(i),
					Key: fmt.Appendf(nil, "customer-%d", i), Value: fmt.Appendf(nil, "value-%d", i),
					Headers: []Header{{"number", fmt.Append(nil, i)}},
				}
				if err := p.Append(&r); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 1234}}); err != nil {
				t.Fatal(err)
			}
			got := c.committed(out, 3)
			if len(got) != n {
				t.Fatalf("%v: %d records, want %d", codec, len(got), n)
			}
			for _, r := range got {
				var i int
				if _, err := fmt.Sscanf(string(r.Value), "value-%d", &i); err != nil {
					t.Fatal(err)
				}
				key := fmt.Sprintf("customer-%d", i)
				if string(r.Key) != key || r.Timestamp.UnixMilli() != 1_700_000_000_000+int64(i) ||
					r.Partition != PartitionFor(r.Key, 3) || len(r.Headers) != 1 || string(r.Headers[0].Value) != fmt.Sprint(i) {
					t.Fatalf("record %d came back as %+v", i, r)
				}
			}
			if got := c.offset(group, in, 0); got != 1234 {
				t.Fatalf("committed offset %d", got)
			}
		}
	})
}

func TestAbortShowsNothingAndTheProducerGoesOn(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		ctx := c.context()
		out, in, group := c.topic(2), c.topic(1), uniqueName("group")
		p := c.transactional(cfg, uniqueName("tx"))
		var want []string
		for i := range 12 {
			mustBegin(t, ctx, p)
			value := fmt.Sprintf("v%02d", i)
			mustAppend(t, p, out, 0, value)
			switch i % 3 {
			case 0:
				if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: int64(i)}}); err != nil {
					t.Fatal(err)
				}
				want = append(want, value)
			case 1: // nothing has been sent
				if err := p.Abort(ctx); err != nil {
					t.Fatal(err)
				}
			case 2: // records and offsets have been sent
				p.begun = true
				if err := errors.Join(p.protocol.addPartitions(ctx, p.limit()), p.produceAll(ctx, p.limit()),
					p.protocol.addGroup(ctx, p.limit(), group), p.commitOffsets(ctx, p.limit(), anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 99}})); err != nil {
					t.Fatal(err)
				}
				if err := p.Abort(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := values(c.committed(out, 2)); !slices.Equal(got, want) {
			t.Fatalf("visible: %v, want %v", got, want)
		}
		if got := c.offset(group, in, 0); got != 9 {
			t.Fatalf("committed offset %d, want 9", got)
		}
	})
}

func TestTransactionsWithoutRecordsOrOffsets(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		ctx := c.context()
		out, in, group := c.topic(1), c.topic(1), uniqueName("group")
		p := c.transactional(cfg, uniqueName("tx"))
		for i := range int64(3) {
			mustBegin(t, ctx, p) // nothing at all
			if err := p.Commit(ctx, anyMember(group), nil); err != nil {
				t.Fatal(err)
			}
			mustBegin(t, ctx, p) // offsets only
			if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: i}}); err != nil {
				t.Fatal(err)
			}
			mustBegin(t, ctx, p) // records only
			mustAppend(t, p, out, 0, fmt.Sprint(i))
			if err := p.Commit(ctx, Member{}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"0", "1", "2"}) {
			t.Fatalf("visible: %v", got)
		}
		if got := c.offset(group, in, 0); got != 2 {
			t.Fatalf("committed offset %d", got)
		}
	})
}

func TestLargePartitionsAreSplitIntoBatchesInOrder(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		ctx := c.context()
		out := c.topic(3)
		cfg.MaxBatchBytes, cfg.MaxRequestBytes = 1024, 2100 // two batches fit a request, three do not
		p := c.transactional(cfg, uniqueName("tx"))
		var want []string
		for unit := range 2 {
			mustBegin(t, ctx, p)
			for i := range 120 {
				mustAppend(t, p, out, int32(i/40), fmt.Sprintf("p%d-%d-%03d %s", i/40, unit, i, strings.Repeat("x", 90)))
			}
			if batches := len(p.records.touched[0].batches); batches < 4 {
				t.Fatalf("only %d batches", batches)
			}
			if err := p.Commit(ctx, Member{}, nil); err != nil {
				t.Fatal(err)
			}
		}
		for partition := range 3 {
			for unit := range 2 {
				for i := partition * 40; i < partition*40+40; i++ {
					want = append(want, fmt.Sprintf("p%d-%d-%03d %s", partition, unit, i, strings.Repeat("x", 90)))
				}
			}
		}
		if got := values(c.committed(out, 3)); !slices.Equal(got, want) {
			t.Fatalf("%d records, want %d in order", len(got), len(want))
		}
	})
}

func TestNewProducerFencesTheZombieAndEndsItsTransaction(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		ctx := c.context()
		out, in, group, id := c.topic(1), c.topic(1), uniqueName("group"), uniqueName("tx")
		zombie := c.transactional(cfg, id)
		mustBegin(t, ctx, zombie)
		mustAppend(t, zombie, out, 0, "zombie, sent")
		zombie.begun = true
		if err := errors.Join(zombie.protocol.addPartitions(ctx, zombie.limit()), zombie.produceAll(ctx, zombie.limit())); err != nil {
			t.Fatal(err)
		}

		owner := c.transactional(cfg, id)
		mustBegin(t, ctx, owner)
		mustAppend(t, owner, out, 0, "owner")
		err := zombie.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 1}})
		if !errors.Is(err, ErrFenced) || errors.Is(err, ErrAbortable) || errors.Is(err, ErrStaleMember) {
			t.Fatalf("the zombie got %v", err)
		}
		if err := zombie.Abort(ctx); !errors.Is(err, ErrFenced) {
			t.Fatalf("the zombie's abort got %v", err)
		}
		if err := zombie.Begin(ctx); !errors.Is(err, ErrFenced) || !errors.Is(err, ErrState) {
			t.Fatalf("the zombie began again: %v", err)
		}
		if err := owner.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 2}}); err != nil {
			t.Fatal(err)
		}
		if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"owner"}) {
			t.Fatalf("visible: %v", got)
		}
		if got := c.offset(group, in, 0); got != 2 {
			t.Fatalf("committed offset %d", got)
		}
	})
}

func TestAbortingZombieDoesNotFenceTheOwner(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		if cfg.TransactionVersion == 0 && os.Getenv("CHURNSTREAM_TEST_BROKERS") == "" {
			// It answers the zombie's EndTxn v5 as if it were a repetition of the owner's, and hands out the
			// owner's epoch. Kafka fences the zombie.
			t.Skip("the embedded broker takes the zombie for the owner")
		}
		c := connect(t, brokers)
		ctx := c.context()
		out, id := c.topic(1), uniqueName("tx")
		zombie := c.transactional(cfg, id)
		mustBegin(t, ctx, zombie)
		mustAppend(t, zombie, out, 0, "zombie")
		zombie.begun = true
		if err := errors.Join(zombie.protocol.addPartitions(ctx, zombie.limit()), zombie.produceAll(ctx, zombie.limit())); err != nil {
			t.Fatal(err)
		}
		owner := c.transactional(cfg, id)
		mustBegin(t, ctx, owner)
		mustAppend(t, owner, out, 0, "owner")
		if err := zombie.Abort(ctx); !errors.Is(err, ErrFenced) {
			t.Fatalf("the zombie's abort got %v", err)
		}
		if err := owner.Commit(ctx, Member{}, nil); err != nil {
			t.Fatalf("the owner: %v", err)
		}
		if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"owner"}) {
			t.Fatalf("visible: %v", got)
		}
	})
}

func TestStaleMemberResumesTheSameTransaction(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		ctx := c.context()
		out, in, group := c.topic(1), c.topic(1), uniqueName("group")
		p := c.transactional(cfg, uniqueName("tx"))
		for i := range int64(3) {
			mustBegin(t, ctx, p)
			mustAppend(t, p, out, 0, fmt.Sprint(i))
			offsets := []Offset{{Topic: in, Partition: 0, Offset: i + 1}}
			for range 2 { // the group has no such member
				err := p.Commit(ctx, Member{Group: group, MemberID: "gone", Generation: 7}, offsets)
				if !errors.Is(err, ErrStaleMember) || errors.Is(err, ErrAbortable) {
					t.Fatalf("got %v", err)
				}
				if p.state != inTransaction {
					t.Fatalf("state %v", p.state)
				}
			}
			if err := p.Commit(ctx, anyMember(group), offsets); err != nil {
				t.Fatal(err)
			}
		}
		if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"0", "1", "2"}) {
			t.Fatalf("visible: %v", got)
		}
		if got := c.offset(group, in, 0); got != 3 {
			t.Fatalf("committed offset %d", got)
		}
	})
}

func TestInterruptedCommitGoesOn(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		out, in, group := c.topic(1), c.topic(1), uniqueName("group")
		p := c.transactional(cfg, uniqueName("tx"))
		mustBegin(t, c.context(), p)
		mustAppend(t, p, out, 0, "once")
		canceled, cancel := context.WithCancel(context.Background())
		cancel()
		err := p.Commit(canceled, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 5}})
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrAbortable) {
			t.Fatalf("got %v", err)
		}
		if err := p.Commit(c.context(), anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 5}}); err != nil {
			t.Fatal(err)
		}
		if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"once"}) {
			t.Fatalf("visible: %v", got)
		}
		if got := c.offset(group, in, 0); got != 5 {
			t.Fatalf("committed offset %d", got)
		}
	})
}

// steps are the requests of a transaction in their order.
var steps = []kmsg.Key{kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.Produce, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit, kmsg.EndTxn}

func stepApplies(cfg Config, step kmsg.Key) bool {
	return cfg.TransactionVersion == 1 || (step != kmsg.AddPartitionsToTxn && step != kmsg.AddOffsetsToTxn)
}

func TestLostRequestsAndAnswersNeitherDoubleNorLose(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		ctx := c.context()
		out, in, group := c.topic(2), c.topic(1), uniqueName("group")
		unit := int64(0)
		for _, step := range steps {
			if !stepApplies(cfg, step) {
				continue
			}
			for _, l := range []loss{requestLost, answerLost} {
				p := c.transactional(cfg, uniqueName("tx"))
				before := c.faults.count()
				c.faults.arm(int16(step), l, l)
				for range 2 { // the second transaction shows that sequences and epochs are right after the fault
					mustBegin(t, ctx, p)
					for partition := range int32(2) {
						mustAppend(t, p, out, partition, fmt.Sprintf("%03d", unit))
					}
					unit++
					if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: unit}}); err != nil {
						t.Fatalf("%v, %v: %v", step, l, err)
					}
				}
				if c.faults.count() != before+2 {
					t.Fatalf("%v, %v: %d faults fired", step, l, c.faults.count()-before)
				}
			}
		}
		var want []string
		for range 2 {
			for i := range unit {
				want = append(want, fmt.Sprintf("%03d", i))
			}
		}
		if got := values(c.committed(out, 2)); !slices.Equal(got, want) {
			t.Fatalf("visible: %v, want %v", got, want)
		}
		if got := c.offset(group, in, 0); got != unit {
			t.Fatalf("committed offset %d, want %d", got, unit)
		}
	})
}

// TestRandomFaultsNeitherDoubleNorLose runs the loop of a worker, which takes its position from the committed offset
// after every abort, while any request of a transaction may be lost, answered into the void or interrupted.
func TestRandomFaultsNeitherDoubleNorLose(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		const inputs, perUnit = 240, 4
		c := connect(t, brokers)
		ctx := c.context()
		out, in, group := c.topic(2), c.topic(1), uniqueName("group")
		random := rand.New(rand.NewPCG(1, uint64(cfg.TransactionVersion)))
		c.faults.random = func(key int16) loss {
			if !slices.Contains(steps, kmsg.Key(key)) || random.IntN(5) > 0 {
				return nothingLost
			}
			return loss(1 + random.IntN(2))
		}
		cfg.RetryTimeout = 40 * time.Millisecond // gives up often
		cfg.RetryBackoff, cfg.MaxRetryBackoff = 8*time.Millisecond, 16*time.Millisecond
		p := c.transactional(cfg, uniqueName("tx"))
		aborts := 0
		recovered := func(err error) bool {
			if !errors.Is(err, ErrAbortable) {
				t.Fatalf("state %v: %v", p.state, err)
			}
			aborts++
			for {
				err := p.Abort(ctx)
				if err == nil {
					return true
				}
				if !errors.Is(err, ErrAbortable) {
					t.Fatalf("abort in state %v: %v", p.state, err)
				}
			}
		}
		for next := int64(0); next < inputs; {
			if err := p.Begin(ctx); err != nil {
				recovered(err)
				continue
			}
			for i := next; i < next+perUnit; i++ {
				mustAppend(t, p, out, int32(i%2), fmt.Sprintf("%04d", i))
			}
			err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: next + perUnit}})
			if err == nil {
				next += perUnit
				continue
			}
			recovered(err)
			next = max(c.offset(group, in, 0), 0)
		}
		var want []string
		for partition := range 2 {
			for i := partition; i < inputs; i += 2 {
				want = append(want, fmt.Sprintf("%04d", i))
			}
		}
		if got := values(c.committed(out, 2)); !slices.Equal(got, want) {
			t.Fatalf("visible: %v", got)
		}
		if c.faults.count() < inputs/perUnit/2 {
			t.Fatalf("only %d faults", c.faults.count())
		}
		t.Logf("%d faults, %d aborts", c.faults.count(), aborts)
	})
}

func TestRetriableCodesAreRepeatedInPlace(t *testing.T) {
	t.Parallel()
	coordinator := []*kerr.Error{kerr.ConcurrentTransactions, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator}
	leader := []*kerr.Error{
		kerr.UnknownTopicOrPartition, kerr.LeaderNotAvailable, kerr.NotLeaderForPartition, kerr.RequestTimedOut,
		kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.KafkaStorageError, kerr.ConcurrentTransactions,
	}
	bothProtocols(t, func(t *testing.T, cfg Config) {
		cluster := newFake(t)
		c := connect(t, cluster.ListenAddrs())
		ctx := c.context()
		out, in, group := c.topic(2), c.topic(1), uniqueName("group")
		cfg.MaxRetryBackoff = 4 * time.Millisecond
		unit := int64(0)
		for _, step := range steps {
			if !stepApplies(cfg, step) {
				continue
			}
			refusals := coordinator
			if step == kmsg.Produce {
				refusals = leader
			}
			for _, refusal := range refusals {
				handle := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{step}, Err: refusal, Count: 3})
				p := c.transactional(cfg, uniqueName("tx"))
				for range 2 {
					mustBegin(t, ctx, p)
					for partition := range int32(2) {
						mustAppend(t, p, out, partition, fmt.Sprintf("%03d", unit))
					}
					unit++
					if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: unit}}); err != nil {
						t.Fatalf("%v, %v: %v", step, refusal, err)
					}
				}
				if handle.Hits() < 3 {
					t.Fatalf("%v, %v: refused %d times", step, refusal, handle.Hits())
				}
			}
		}
		var want []string
		for range 2 {
			for i := range unit {
				want = append(want, fmt.Sprintf("%03d", i))
			}
		}
		if got := values(c.committed(out, 2)); !slices.Equal(got, want) {
			t.Fatalf("visible: %v, want %v", got, want)
		}
	})
}

func TestCodesLeadToTheirErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		step    kmsg.Key
		refusal *kerr.Error
		want    error // nil: fatal
		message string
	}{
		{kmsg.Produce, kerr.OutOfOrderSequenceNumber, ErrAbortable, "OUT_OF_ORDER_SEQUENCE_NUMBER (45)"},
		{kmsg.Produce, kerr.UnknownProducerID, ErrAbortable, ""},
		{kmsg.Produce, kerr.TransactionAbortable, ErrAbortable, "TRANSACTION_ABORTABLE (120)"},
		{kmsg.Produce, kerr.InvalidTxnState, ErrAbortable, ""},
		{kmsg.Produce, kerr.InvalidProducerIDMapping, ErrAbortable, ""},
		{kmsg.Produce, kerr.InvalidProducerEpoch, ErrFenced, ""},
		{kmsg.Produce, kerr.ProducerFenced, ErrFenced, ""},
		{kmsg.Produce, kerr.TopicAuthorizationFailed, nil, "needs WRITE on topic $out"},
		{kmsg.Produce, kerr.MessageTooLarge, nil, "for $out/1 exceeds the topic's max.message.bytes"},
		{kmsg.Produce, kerr.InvalidTimestamp, nil, "topic $out refuses the time of an event"},
		{kmsg.Produce, kerr.InvalidRecord, nil, "produce $out/1: INVALID_RECORD (87)"},
		{kmsg.TxnOffsetCommit, kerr.IllegalGeneration, ErrStaleMember, ""},
		{kmsg.TxnOffsetCommit, kerr.UnknownMemberID, ErrStaleMember, ""},
		{kmsg.TxnOffsetCommit, kerr.RebalanceInProgress, ErrStaleMember, ""},
		{kmsg.TxnOffsetCommit, kerr.FencedInstanceID, ErrStaleMember, ""},
		{kmsg.TxnOffsetCommit, kerr.ProducerFenced, ErrFenced, ""},
		{kmsg.TxnOffsetCommit, kerr.TopicAuthorizationFailed, nil, "needs READ on topic $in"},
		{kmsg.TxnOffsetCommit, kerr.GroupAuthorizationFailed, nil, "needs READ on group $group"},
		{kmsg.TxnOffsetCommit, kerr.TransactionalIDAuthorizationFailed, nil, "needs WRITE on TransactionalId $tx"},
		{kmsg.EndTxn, kerr.ProducerFenced, ErrFenced, ""},
		{kmsg.EndTxn, kerr.TransactionAbortable, ErrAbortable, ""},
	} {
		t.Run(fmt.Sprintf("%v %v", test.step.Name(), test.refusal.Message), func(t *testing.T) {
			t.Parallel()
			cluster := newFake(t)
			c := connect(t, cluster.ListenAddrs())
			ctx := c.context()
			out, in, group, id := c.topic(2), c.topic(1), uniqueName("group"), uniqueName("tx")
			p := c.transactional(DefaultConfig(), id)
			mustBegin(t, ctx, p)
			mustAppend(t, p, out, 1, "first")
			cluster.Fault(kfake.Fault{Keys: []kmsg.Key{test.step}, Err: test.refusal})
			err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 1}})
			for _, sentinel := range []error{ErrAbortable, ErrFenced, ErrStaleMember} {
				if errors.Is(err, sentinel) != (sentinel == test.want) { //nolint:errorlint // identity of the sentinel itself
					t.Errorf("errors.Is(%v, %v) = %v", err, sentinel, errors.Is(err, sentinel))
				}
			}
			if !errors.Is(err, kafka.Error(test.refusal.Code)) {
				t.Errorf("%v does not hold Kafka's code", err)
			}
			message := strings.NewReplacer("$out", out, "$in", in, "$group", group, "$tx", id).Replace(test.message)
			if err != nil && !strings.Contains(err.Error(), message) {
				t.Errorf("message %q, want %q in it", err, message)
			}

			// What is open at the broker can be ended, and then the unit goes on unless that is not ours to do.
			want := []string(nil)
			switch {
			case errors.Is(err, ErrFenced):
				if err := p.Abort(ctx); !errors.Is(err, ErrFenced) {
					t.Errorf("abort: %v", err)
				}
				next := c.transactional(DefaultConfig(), id) // ends the open transaction
				mustBegin(t, ctx, next)
			case errors.Is(err, ErrStaleMember):
				if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 1}}); err != nil {
					t.Fatal(err)
				}
				want = []string{"first"}
			case errors.Is(err, ErrAbortable):
				if err := p.Commit(ctx, anyMember(group), nil); !errors.Is(err, ErrState) {
					t.Errorf("commit in ABORTABLE_ERROR: %v", err)
				}
				if err := p.Abort(ctx); err != nil {
					t.Fatal(err)
				}
				mustBegin(t, ctx, p)
				mustAppend(t, p, out, 1, "second")
				if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 2}}); err != nil {
					t.Fatal(err)
				}
				want = []string{"second"}
			default:
				if err := p.Abort(ctx); err != nil {
					t.Fatal(err)
				}
				if err := p.Begin(ctx); !errors.Is(err, ErrState) {
					t.Errorf("begin in FATAL_ERROR: %v", err)
				}
			}
			if got := values(c.committed(out, 2)); !slices.Equal(got, want) {
				t.Errorf("visible: %v, want %v", got, want)
			}
		})
	}
}

func TestRepetitionsEndAtTheLimit(t *testing.T) {
	t.Parallel()
	cluster := newFake(t)
	c := connect(t, cluster.ListenAddrs())
	ctx := c.context()
	out := c.topic(1)
	cfg := DefaultConfig()
	cfg.RetryTimeout = 50 * time.Millisecond
	p := c.transactional(cfg, uniqueName("tx"))
	for i, step := range []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.EndTxn} {
		handle := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{step}, Err: kerr.CoordinatorLoadInProgress, Count: -1})
		err := p.Begin(ctx)
		if err == nil {
			mustAppend(t, p, out, 0, fmt.Sprint(i))
			err = p.Commit(ctx, Member{}, nil)
		}
		if !errors.Is(err, ErrAbortable) || !strings.Contains(err.Error(), "gave up after") {
			t.Fatalf("%v: %v", step, err)
		}
		handle.Remove()
		if err := p.Abort(ctx); err != nil {
			t.Fatal(err)
		}
	}
	mustBegin(t, ctx, p)
	mustAppend(t, p, out, 0, "last")
	if err := p.Commit(ctx, Member{}, nil); err != nil {
		t.Fatal(err)
	}
	if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"last"}) {
		t.Fatalf("visible: %v", got)
	}
}

func TestAbortAfterACommitWhoseAnswerWasLost(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		ctx := c.context()
		out, in, group := c.topic(1), c.topic(1), uniqueName("group")
		p := c.transactional(cfg, uniqueName("tx"))
		mustBegin(t, ctx, p)
		mustAppend(t, p, out, 0, "committed all the same")
		p.begun, p.offsetsSent = true, true
		if err := errors.Join(p.protocol.addPartitions(ctx, p.limit()), p.produceAll(ctx, p.limit()),
			p.protocol.addGroup(ctx, p.limit(), group), p.commitOffsets(ctx, p.limit(), anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 1}})); err != nil {
			t.Fatal(err)
		}
		p.cfg.RetryTimeout = 30 * time.Millisecond
		p.cfg.RetryBackoff, p.cfg.MaxRetryBackoff = 40*time.Millisecond, 40*time.Millisecond // one attempt
		c.faults.arm(int16(kmsg.EndTxn), answerLost)
		if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 1}}); !errors.Is(err, ErrAbortable) {
			t.Fatalf("got %v", err)
		}
		p.cfg.RetryTimeout = 10 * time.Second
		if err := p.Abort(ctx); err != nil {
			t.Fatal(err)
		}
		if got := c.offset(group, in, 0); got != 1 {
			t.Fatalf("committed offset %d", got)
		}
		mustBegin(t, ctx, p)
		mustAppend(t, p, out, 0, "next")
		if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 2}}); err != nil {
			t.Fatal(err)
		}
		if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"committed all the same", "next"}) {
			t.Fatalf("visible: %v", got)
		}
	})
}

func TestMovedLeadersAndCoordinatorsAreFollowed(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, cfg Config) {
		cluster := newFake(t, kfake.NumBrokers(3))
		c := connect(t, cluster.ListenAddrs())
		ctx := c.context()
		const partitions = 6
		out, in, group := c.topic(partitions), c.topic(1), uniqueName("group")
		p := c.transactional(cfg, uniqueName("tx"))
		const units = 12
		for unit := range int64(units) {
			mustBegin(t, ctx, p)
			for partition := range int32(partitions) {
				mustAppend(t, p, out, partition, fmt.Sprintf("%d-%02d", partition, unit))
			}
			for partition := range int32(partitions) {
				if err := cluster.MoveTopicPartition(out, partition, int32(unit+int64(partition))%3); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: unit + 1}}); err != nil {
				t.Fatal(err)
			}
		}
		var want []string
		for partition := range partitions {
			for unit := range units {
				want = append(want, fmt.Sprintf("%d-%02d", partition, unit))
			}
		}
		if got := values(c.committed(out, partitions)); !slices.Equal(got, want) {
			t.Fatalf("visible: %v", got)
		}
	})
}

func TestMissingTopicIsNamed(t *testing.T) {
	t.Parallel()
	c := connect(t, testBrokers(t))
	p := c.transactional(DefaultConfig(), uniqueName("tx"))
	p.unknownTopic = 50 * time.Millisecond
	mustBegin(t, c.context(), p)
	err := p.Append(&Record{Topic: "no-such-topic", Partition: -1, Value: []byte("v")})
	if !errors.Is(err, kafka.UnknownTopicOrPartition) || !strings.Contains(err.Error(), "topic no-such-topic does not exist or may not be described") {
		t.Fatalf("got %v", err)
	}
	topic := c.topic(2)
	err = p.Append(&Record{Topic: topic, Partition: 2, Value: []byte("v")})
	if err == nil || !strings.Contains(err.Error(), topic+"/2") || !strings.Contains(err.Error(), "has 2 partitions") {
		t.Fatalf("got %v", err)
	}
}

func TestRecordTooLargeLeavesTheUnitAsItWas(t *testing.T) {
	t.Parallel()
	c := connect(t, testBrokers(t))
	ctx := c.context()
	out := c.topic(1)
	cfg := DefaultConfig()
	cfg.MaxBatchBytes = 1024
	p := c.transactional(cfg, uniqueName("tx"))
	mustBegin(t, ctx, p)
	mustAppend(t, p, out, 0, "before")
	err := p.Append(&Record{Topic: out, Partition: 0, Value: make([]byte, 2000)})
	var large *RecordTooLargeError
	if !errors.As(err, &large) || large.Topic != out || large.Size < 2000 || large.Limit != 1024 {
		t.Fatalf("got %v", err)
	}
	mustAppend(t, p, out, 0, "after")
	if err := p.Commit(ctx, Member{}, nil); err != nil {
		t.Fatal(err)
	}
	if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"before", "after"}) {
		t.Fatalf("visible: %v", got)
	}
}

func TestRecordsWithoutKeysTakeTurns(t *testing.T) {
	t.Parallel()
	c := connect(t, testBrokers(t))
	ctx := c.context()
	out := c.topic(3)
	p := c.transactional(DefaultConfig(), uniqueName("tx"))
	mustBegin(t, ctx, p)
	for range 9 {
		mustAppend(t, p, out, -1, "v")
	}
	if err := p.Commit(ctx, Member{}, nil); err != nil {
		t.Fatal(err)
	}
	perPartition := make([]int, 3)
	for _, r := range c.committed(out, 3) {
		perPartition[r.Partition]++
	}
	if !slices.Equal(perPartition, []int{3, 3, 3}) {
		t.Fatalf("records per partition: %v", perPartition)
	}
}

func TestAppendAllocatesNothingInTheSteadyState(t *testing.T) {
	// not parallel: AllocsPerRun counts for the whole process
	c := connect(t, newFake(t).ListenAddrs())
	ctx := c.context()
	out, other := c.topic(4), c.topic(1)
	p := c.transactional(DefaultConfig(), uniqueName("tx"))
	key, value := []byte("customer-0001234"), make([]byte, 150)
	headers := []Header{{"class", []byte("null_key")}}
	fill := func() {
		for i := range 1000 {
			r := Record{Topic: out, Partition: -1, Timestamp: int64(i), Key: key, Value: value}
			if i%7 == 0 {
				r.Topic, r.Headers, r.Key = other, headers, nil
			}
			if err := p.Append(&r); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustBegin(t, ctx, p)
	fill()
	if err := p.Commit(ctx, Member{}, nil); err != nil {
		t.Fatal(err)
	}
	mustBegin(t, ctx, p)
	fill()
	if err := p.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	allocs := math.Inf(1)
	for range 10 { // connections in the background allocate now and then; an append that does would do so every time
		allocs = min(allocs, testing.AllocsPerRun(5, func() {
			p.state = inTransaction
			fill()
			p.records.reset()
		}))
	}
	if allocs != 0 {
		t.Fatalf("%v allocations in 1000 appends", allocs)
	}
	p.state = ready
}

func TestMethodsInTheWrongStateAreRefused(t *testing.T) {
	t.Parallel()
	c := connect(t, testBrokers(t))
	ctx := c.context()
	out := c.topic(1)
	p := c.transactional(DefaultConfig(), uniqueName("tx"))
	if err := p.Append(&Record{Topic: out}); !errors.Is(err, ErrState) {
		t.Errorf("append before begin: %v", err)
	}
	if err := p.Commit(ctx, Member{}, nil); !errors.Is(err, ErrState) {
		t.Errorf("commit before begin: %v", err)
	}
	if err := p.Abort(ctx); err != nil {
		t.Errorf("abort before begin: %v", err)
	}
	mustBegin(t, ctx, p)
	if err := p.Begin(ctx); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "IN_TRANSACTION") {
		t.Errorf("begin twice: %v", err)
	}
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := p.Append(&Record{Topic: out}); !errors.Is(err, ErrState) {
		t.Errorf("append after close: %v", err)
	}
}

func TestNewTransactionalNamesEveryFault(t *testing.T) {
	t.Parallel()
	c := connect(t, newFake(t).ListenAddrs())
	if _, err := NewTransactional(DefaultConfig(), c.client, ""); err == nil {
		t.Error("an empty transactional id was accepted")
	}
	_, err := NewTransactional(Config{Compression: 9, TransactionVersion: 3, MaxRequestBytes: -1}, nil, "tx")
	for _, key := range []string{
		"client", "compression", "max_batch_bytes", "max_request_bytes", "transaction_timeout", "request_timeout",
		"retry_timeout", "retry_backoff", "transaction_version",
	} {
		if err == nil || !strings.Contains(err.Error(), key+":") {
			t.Errorf("%s is not named in %v", key, err)
		}
	}
}

func TestAbortAsksForANewEpochAsTheOldOwner(t *testing.T) {
	t.Parallel()
	cluster := newFake(t)
	c := connect(t, cluster.ListenAddrs())
	ctx := c.context()
	out := c.topic(1)
	cfg := DefaultConfig()
	cfg.TransactionVersion = 1
	cfg.RetryTimeout = 30 * time.Millisecond
	p := c.transactional(cfg, uniqueName("tx"))
	mustBegin(t, ctx, p)
	mustAppend(t, p, out, 0, "v")
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.OutOfOrderSequenceNumber})
	if err := p.Commit(ctx, Member{}, nil); !errors.Is(err, ErrAbortable) {
		t.Fatal(err)
	}
	old := p.id
	ends := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Observe: true, Count: -1})
	asOwner := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Observe: true, Count: -1, When: func(r kmsg.Request) bool {
		init, ok := r.(*kmsg.InitProducerIDRequest)
		return ok && init.ProducerID == old.ID && init.ProducerEpoch == old.Epoch
	}})
	loading := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.CoordinatorLoadInProgress, Count: -1})
	if err := p.Abort(ctx); !errors.Is(err, ErrAbortable) {
		t.Fatal(err)
	}
	loading.Remove()
	if err := p.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	if ends.Hits() != 1 {
		t.Errorf("EndTxn was sent %d times: after the first, our own new epoch may fence it", ends.Hits())
	}
	if asOwner.Hits() < 2 || p.id == old {
		t.Errorf("InitProducerId named the old owner %d times, identity %v after %v", asOwner.Hits(), p.id, old)
	}
}

func TestOneProduceRequestGoesToItsLeaderWithinTheSizeLimit(t *testing.T) {
	t.Parallel()
	cluster := newFake(t, kfake.NumBrokers(3))
	c := connect(t, cluster.ListenAddrs())
	ctx := c.context()
	out := c.topic(9)
	cfg := DefaultConfig()
	cfg.MaxBatchBytes, cfg.MaxRequestBytes = 4<<10, 5<<10
	reg := prometheus.NewRegistry()
	cfg.Metrics = NewMetrics(reg)
	p := c.transactional(cfg, uniqueName("tx"))
	large := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1, When: func(r kmsg.Request) bool {
		produce, ok := r.(*kmsg.ProduceRequest)
		if !ok {
			return false
		}
		size := 0
		for _, topic := range produce.Topics {
			for _, partition := range topic.Partitions {
				size += len(partition.Records)
			}
		}
		return size > cfg.MaxRequestBytes
	}})
	mustBegin(t, ctx, p)
	for partition := range int32(9) {
		mustAppend(t, p, out, partition, strings.Repeat("x", 2000))
	}
	if err := p.Commit(ctx, Member{}, nil); err != nil {
		t.Fatal(err)
	}
	if large.Hits() > 0 {
		t.Errorf("%d requests exceed max_request_bytes", large.Hits())
	}
	if n, err := testutil.GatherAndCount(reg, "churnstream_producer_retries_total"); err != nil || n > 0 {
		t.Errorf("%d kinds of retries, %v: a batch went to a broker that does not lead it", n, err)
	}
}
