package producer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (c *cluster) shared(cfg Config, id string) *Shared {
	c.t.Helper()
	s, err := NewShared(cfg, c.client, id)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// running is a Shared whose Run ends with the test, or with stop.
func (c *cluster) running(cfg Config, id string) (s *Shared, stop func()) {
	c.t.Helper()
	s = c.shared(cfg, id)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			c.t.Errorf("Run: %v", err)
		}
	})
	c.t.Cleanup(stop)
	return s, stop
}

func (c *cluster) unit(s *Shared) *sharedUnit {
	c.t.Helper()
	p, err := s.Publisher()
	if err != nil {
		c.t.Fatal(err)
	}
	u, ok := p.(*sharedUnit)
	if !ok {
		c.t.Fatalf("%T", p)
	}
	return u
}

// sharedKit drives Run's own steps by hand, so that a test decides which units meet in a transaction.
type sharedKit struct {
	*cluster
	r              sharedRun
	units          []*sharedUnit
	out, in, group string
}

func newSharedKit(t *testing.T, brokers []string, cfg Config, units int) *sharedKit {
	t.Helper()
	c := connect(t, brokers)
	k := &sharedKit{cluster: c, out: c.topic(2), in: c.topic(int32(units)), group: uniqueName("group")}
	k.r = sharedRun{Shared: c.shared(cfg, uniqueName("tx"))}
	t.Cleanup(func() { k.r.drop() })
	for range units {
		k.units = append(k.units, c.unit(k.r.Shared))
	}
	return k
}

// fill begins a unit and gives it one record.
func (k *sharedKit) fill(t *testing.T, i int, value string) {
	t.Helper()
	u := k.units[i]
	u.prepared = true // the next transaction initialises the producer as well
	mustBegin(t, k.context(), u)
	mustAppend(t, u, k.out, int32(i%2), fmt.Sprintf("%d %s", i, value))
}

// hand does what Commit does up to the hand-over.
func (k *sharedKit) hand(i int, m Member, offset int64) {
	u := k.units[i]
	u.member, u.offsets = m, append(u.offsets[:0], Offset{Topic: k.in, Partition: int32(i), Offset: offset})
	k.r.arrive(u)
}

// outcome does the rest; false while there is no answer.
func (k *sharedKit) outcome(i int) (answered bool, err error) {
	u := k.units[i]
	select {
	case err := <-u.done:
		return true, u.ended(err)
	default:
		return false, nil
	}
}

func (k *sharedKit) mustEnd(t *testing.T, i int, want error) {
	t.Helper()
	answered, err := k.outcome(i)
	if !answered || !errors.Is(err, want) || want == nil && err != nil {
		t.Fatalf("unit %d was told %v (answered: %v), want %v", i, err, answered, want)
	}
}

// TestUnitsShareOneIdempotentProducer: at least once, the units that wait go out together too.
func TestUnitsShareOneIdempotentProducer(t *testing.T) {
	t.Parallel()
	cluster := newFake(t)
	k := newSharedKit(t, cluster.ListenAddrs(), DefaultConfig(), 4)
	var err error
	if k.r.Shared, err = NewSharedIdempotent(DefaultConfig(), k.client); err != nil {
		t.Fatal(err)
	}
	for i := range k.units {
		k.units[i] = k.unit(k.r.Shared)
	}
	var commits, transactions atomic.Int32
	count := func(key kmsg.Key, n *atomic.Int32) {
		cluster.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
			cluster.KeepControl()
			n.Add(1)
			return nil, nil, false
		})
	}
	count(kmsg.OffsetCommit, &commits)
	count(kmsg.EndTxn, &transactions)
	for round := range int64(3) {
		for i := range k.units {
			k.fill(t, i, fmt.Sprint(round))
			k.hand(i, anyMember(k.group), round+1)
		}
		k.r.transact(k.context())
		for i := range k.units {
			k.mustEnd(t, i, nil)
		}
	}
	if got := values(k.committed(k.out, 2)); !slices.Equal(got, []string{"0 0", "2 0", "0 1", "2 1", "0 2", "2 2", "1 0", "3 0", "1 1", "3 1", "1 2", "3 2"}) {
		t.Fatalf("visible: %q", got)
	}
	for i := range k.units {
		if got := k.offset(k.group, k.in, int32(i)); got != 3 {
			t.Errorf("offset %d of input %d", got, i)
		}
	}
	if commits.Load() != 3 || transactions.Load() != 0 {
		t.Errorf("%d offset commits and %d transactions for 3 rounds of 4 units", commits.Load(), transactions.Load())
	}
}

func TestWaitingUnitsShareOneTransaction(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		k := newSharedKit(t, brokers, cfg, 5)
		for round := range int64(3) {
			for i := range k.units {
				k.fill(t, i, fmt.Sprint(round))
				k.hand(i, anyMember(k.group), round+1)
			}
			k.r.transact(k.context())
			for i := range k.units {
				k.mustEnd(t, i, nil)
			}
		}
		if got := values(k.committed(k.out, 2)); !slices.Equal(got, []string{
			"0 0", "2 0", "4 0", "0 1", "2 1", "4 1", "0 2", "2 2", "4 2", "1 0", "3 0", "1 1", "3 1", "1 2", "3 2",
		}) {
			t.Fatalf("visible: %q", got)
		}
		for i := range k.units {
			if got := k.offset(k.group, k.in, int32(i)); got != 3 {
				t.Errorf("offset %d of input %d", got, i)
			}
		}
	})
}

// TestOneFaultIsToldToAllUnits injects a refusal at each step: the units of that transaction learn the same, none of
// their records becomes visible, and the same units then go on.
func TestOneFaultIsToldToAllUnits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		step    kmsg.Key
		refusal *kerr.Error
		want    error
		lost    bool // the producer is
	}{
		{kmsg.InitProducerID, kerr.TransactionalIDAuthorizationFailed, kafka.TransactionalIDAuthorizationFailed, true},
		{kmsg.Produce, kerr.OutOfOrderSequenceNumber, ErrAbortable, false},
		{kmsg.Produce, kerr.MessageTooLarge, kafka.MessageSizeTooLarge, true},
		{kmsg.Produce, kerr.ProducerFenced, ErrFenced, true},
		{kmsg.TxnOffsetCommit, kerr.TransactionAbortable, ErrAbortable, false},
		{kmsg.TxnOffsetCommit, kerr.GroupAuthorizationFailed, kafka.GroupAuthorizationFailed, true},
		{kmsg.TxnOffsetCommit, kerr.InvalidProducerEpoch, ErrFenced, true},
		{kmsg.EndTxn, kerr.TransactionAbortable, ErrAbortable, false},
		{kmsg.EndTxn, kerr.ProducerFenced, ErrFenced, true},
	} {
		t.Run(test.step.Name()+" "+test.refusal.Message, func(t *testing.T) {
			t.Parallel()
			cluster := newFake(t)
			k := newSharedKit(t, cluster.ListenAddrs(), DefaultConfig(), 3)
			cluster.Fault(kfake.Fault{Keys: []kmsg.Key{test.step}, Err: test.refusal})
			for i := range k.units {
				k.fill(t, i, "lost")
				k.hand(i, anyMember(k.group), 1)
			}
			k.r.transact(k.context())
			for i := range k.units {
				k.mustEnd(t, i, test.want)
			}
			if (k.r.producer == nil) != test.lost {
				t.Errorf("the producer is gone: %v", k.r.producer == nil)
			}
			for i, u := range k.units {
				if err := u.Commit(k.context(), anyMember(k.group), []Offset{{Topic: k.in, Partition: int32(i), Offset: 77}}); !errors.Is(err, ErrState) {
					t.Errorf("commit of a unit that failed: %v", err) // its records are gone: the offset would skip them
				}
				if err := u.Abort(k.context()); err != nil {
					t.Fatal(err)
				}
				if u.prepared {
					t.Error("the next Begin does not make sure that there is a producer")
				}
				k.fill(t, i, "kept")
				k.hand(i, anyMember(k.group), 2)
			}
			k.r.transact(k.context())
			for i := range k.units {
				k.mustEnd(t, i, nil)
			}
			if got := values(k.committed(k.out, 2)); !slices.Equal(got, []string{"0 kept", "2 kept", "1 kept"}) {
				t.Fatalf("visible: %q", got)
			}
			if got := k.offset(k.group, k.in, 2); got != 2 {
				t.Errorf("offset %d", got)
			}
		})
	}
}

func TestTransactionThatCannotBeAbortedIsEndedByTheNextProducer(t *testing.T) {
	t.Parallel()
	cluster := newFake(t)
	cfg := DefaultConfig()
	cfg.RetryTimeout = 50 * time.Millisecond
	k := newSharedKit(t, cluster.ListenAddrs(), cfg, 2)
	ends := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.CoordinatorLoadInProgress, Count: -1})
	for i := range k.units {
		k.fill(t, i, "lost")
		k.hand(i, anyMember(k.group), 1)
	}
	k.r.transact(k.context())
	ends.Remove()
	for i, u := range k.units {
		k.mustEnd(t, i, ErrAbortable)
		if err := u.Abort(k.context()); err != nil {
			t.Fatal(err)
		}
		k.fill(t, i, "kept")
		k.hand(i, anyMember(k.group), 2)
	}
	k.r.transact(k.context())
	for i := range k.units {
		k.mustEnd(t, i, nil)
	}
	if got := values(k.committed(k.out, 2)); !slices.Equal(got, []string{"0 kept", "1 kept"}) {
		t.Fatalf("visible: %q", got)
	}
}

func gone(group string) Member { return Member{Group: group, MemberID: "gone", Generation: 7} }

func TestHeldTransactionGoesOnUnderTheNewIdentity(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		ctx := c.context()
		out, in, group := c.topic(1), c.topic(3), uniqueName("group")
		s, _ := c.running(cfg, uniqueName("tx"))
		commit := func(u *sharedUnit, input int32, value string) error {
			if err := u.Begin(ctx); err != nil {
				return err
			}
			if err := u.Append(&Record{Topic: out, Value: []byte(value)}); err != nil {
				return err
			}
			offsets := []Offset{{Topic: in, Partition: input, Offset: 1}}
			for range 2 {
				if err := u.Commit(ctx, gone(group), offsets); !errors.Is(err, ErrStaleMember) {
					return fmt.Errorf("as nobody: %w", err)
				}
				if err := u.Append(&Record{Topic: out, Value: []byte("late")}); !errors.Is(err, ErrState) {
					return fmt.Errorf("append to a held unit: %w", err)
				}
			}
			return u.Commit(ctx, anyMember(group), offsets)
		}
		a := c.unit(s)
		if err := commit(a, 0, "a"); err != nil {
			t.Fatal(err)
		}
		// While one unit holds the transaction, others begin and wait for the next one.
		mustBegin(t, ctx, a)
		mustAppend(t, a, out, 0, "a again")
		if err := a.Commit(ctx, gone(group), []Offset{{Topic: in, Partition: 0, Offset: 2}}); !errors.Is(err, ErrStaleMember) {
			t.Fatal(err)
		}
		b := c.unit(s)
		mustBegin(t, ctx, b)
		mustAppend(t, b, out, 0, "b")
		waits := make(chan error, 1)
		go func() { waits <- b.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 1, Offset: 1}}) }()
		if err := errors.Join(a.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 2}}), <-waits); err != nil {
			t.Fatal(err)
		}
		if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"a", "a again", "b"}) {
			t.Fatalf("visible: %q", got)
		}
		if a, b := c.offset(group, in, 0), c.offset(group, in, 1); a != 2 || b != 1 {
			t.Fatalf("offsets %d and %d", a, b)
		}
	})
}

func TestUnitThatIsGivenUpTakesTheHeldTransactionDown(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	for name, giveUp := range map[string]func(*sharedUnit) error{
		"abort": func(u *sharedUnit) error { return u.Abort(context.Background()) },
		"close": (*sharedUnit).Close,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newSharedKit(t, brokers, DefaultConfig(), 3)
			for i := range k.units {
				k.fill(t, i, "lost")
				k.hand(i, gone(k.group), 1)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				k.r.transact(k.context())
			}()
			for i, u := range k.units {
				if err := u.ended(<-u.done); !errors.Is(err, ErrStaleMember) {
					t.Fatalf("unit %d: %v", i, err)
				}
			}
			early := make(chan error, 1) // comes back before the end
			go func() {
				early <- k.units[0].Commit(k.context(), anyMember(k.group), []Offset{{Topic: k.in, Partition: 0, Offset: 1}})
			}()
			if err := giveUp(k.units[1]); err != nil {
				t.Fatal(err)
			}
			<-ended
			// Run's loop answers those who come later, whether they were there before or not.
			late := k.units[2]
			k.hand(2, anyMember(k.group), 1)
			k.mustEnd(t, 2, ErrAbortable)
			select {
			case u := <-k.r.commits:
				k.r.arrive(u)
			case err := <-early:
				early <- err
			}
			if err := <-early; !errors.Is(err, ErrAbortable) {
				t.Fatalf("the early unit: %v", err)
			}
			if len(k.r.waiting) > 0 || late.hold != nil {
				t.Fatal("a unit whose records are gone waits for the next transaction")
			}
			for i, u := range k.units {
				if err := u.Abort(k.context()); err != nil {
					t.Fatal(err)
				}
				k.fill(t, i, "kept")
				k.hand(i, anyMember(k.group), 2)
			}
			k.r.transact(k.context())
			for i := range k.units {
				k.mustEnd(t, i, nil)
			}
			if got := values(k.committed(k.out, 2)); !slices.Equal(got, []string{"0 kept", "2 kept", "1 kept"}) {
				t.Fatalf("visible: %q", got)
			}
		})
	}
}

func TestUnitOfAnOlderGenerationIsAskedAgain(t *testing.T) {
	t.Parallel()
	cluster := newFake(t)
	k := newSharedKit(t, cluster.ListenAddrs(), DefaultConfig(), 3)
	asOld := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Observe: true, Count: -1, When: func(r kmsg.Request) bool {
		commit, ok := r.(*kmsg.TxnOffsetCommitRequest)
		return ok && commit.Generation != -1
	}})
	for i, m := range []Member{gone(k.group), anyMember(k.group), anyMember(k.group)} {
		k.fill(t, i, "v")
		k.hand(i, m, 1)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.r.transact(k.context())
	}()
	old := k.units[0]
	if err := old.ended(<-old.done); !errors.Is(err, ErrStaleMember) {
		t.Fatalf("the old one: %v", err)
	}
	if err := old.Commit(k.context(), anyMember(k.group), []Offset{{Topic: k.in, Partition: 0, Offset: 1}}); err != nil {
		t.Fatal(err)
	}
	<-ended
	k.mustEnd(t, 1, nil)
	k.mustEnd(t, 2, nil)
	if n := asOld.Hits(); n > 0 {
		t.Errorf("%d offset commits named the old generation", n)
	}
	if got := values(k.committed(k.out, 2)); len(got) != 3 {
		t.Fatalf("visible: %q", got)
	}
}

func TestBeginOfTheFirstUnitEndsWhatAPredecessorLeftOpen(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		ctx := c.context()
		cfg.TransactionTimeout = 5 * time.Minute // longer than the test waits
		out, in, group, id := c.topic(1), c.topic(1), uniqueName("group"), uniqueName("tx")
		killed := c.transactional(cfg, id)
		mustBegin(t, ctx, killed)
		mustAppend(t, killed, out, 0, "of the killed worker")
		if err := errors.Join(killed.protocol.addPartitions(ctx, killed.limit()), killed.produceAll(ctx, killed.limit()),
			killed.protocol.addGroup(ctx, killed.limit(), group), killed.commitOffsets(ctx, killed.limit(), anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 9}})); err != nil {
			t.Fatal(err)
		}
		s, _ := c.running(cfg, id)
		u := c.unit(s)
		mustBegin(t, ctx, u)
		if got := c.offset(group, in, 0); got != -1 {
			t.Fatalf("committed offset %d", got)
		}
		if got := values(c.committed(out, 1)); len(got) != 0 {
			t.Fatalf("visible: %q", got)
		}
	})
}

func TestOlderOfTwoWithOneIDIsFencedAndSaysSo(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		ctx := c.context()
		out, in, group, id := c.topic(1), c.topic(2), uniqueName("group"), uniqueName("tx")
		s1, _ := c.running(cfg, id)
		s2, _ := c.running(cfg, id)
		older, newer := c.unit(s1), c.unit(s2)
		mustBegin(t, ctx, older)
		mustBegin(t, ctx, newer)
		mustAppend(t, older, out, 0, "older")
		mustAppend(t, newer, out, 0, "newer")
		if err := older.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 1}}); !errors.Is(err, ErrFenced) {
			t.Fatalf("the older was told %v", err)
		}
		if err := newer.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 1, Offset: 1}}); err != nil {
			t.Fatalf("the newer: %v", err)
		}
		if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"newer"}) {
			t.Fatalf("visible: %q", got)
		}
	})
}

func TestEndOfRunTellsTheUnitsAndEndsTheTransaction(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		c := connect(t, brokers)
		ctx := c.context()
		cfg.TransactionTimeout = 5 * time.Minute // readers would wait for it
		out, in, group := c.topic(1), c.topic(2), uniqueName("group")
		s, stop := c.running(cfg, uniqueName("tx"))
		held, waiting, idle := c.unit(s), c.unit(s), c.unit(s)
		for _, u := range []*sharedUnit{held, waiting, idle} {
			mustBegin(t, ctx, u)
			mustAppend(t, u, out, 0, "lost")
		}
		if err := held.Commit(ctx, gone(group), []Offset{{Topic: in, Partition: 0, Offset: 1}}); !errors.Is(err, ErrStaleMember) {
			t.Fatal(err)
		}
		told := make(chan error, 1)
		go func() { told <- waiting.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 1, Offset: 1}}) }()
		stop()
		for name, err := range map[string]error{
			"waiting": <-told,
			"held":    held.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 1}}),
			"idle":    idle.Commit(ctx, anyMember(group), nil),
			"new":     c.unit(s).Begin(ctx),
		} {
			if !errors.Is(err, ErrStopped) || errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := errors.Join(held.Close(), waiting.Close(), idle.Close(), idle.Close()); err != nil {
			t.Error(err)
		}
		if got := values(c.committed(out, 1)); len(got) != 0 {
			t.Fatalf("visible: %q", got)
		}
	})
}

func TestUnitsThatWaitWhenRunEndsAreToldSo(t *testing.T) {
	t.Parallel()
	k := newSharedKit(t, testBrokers(t), DefaultConfig(), 2)
	if err := k.r.begin(k.context()); err != nil {
		t.Fatal(err)
	}
	for i := range k.units {
		k.fill(t, i, "lost")
		k.hand(i, anyMember(k.group), 1)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	k.r.transact(ended)
	for i, u := range k.units {
		err := u.ended(<-u.done)
		if !errors.Is(err, ErrStopped) || errors.Is(err, context.Canceled) { // nobody's own context has ended
			t.Errorf("unit %d was told %v", i, err)
		}
	}
	if got := values(k.committed(k.out, 2)); len(got) != 0 {
		t.Fatalf("visible: %q", got)
	}
}

func TestUnitsThatComeDuringAHoldAreOfTheNextTransaction(t *testing.T) {
	t.Parallel()
	k := newSharedKit(t, testBrokers(t), DefaultConfig(), 2)
	k.fill(t, 0, "held")
	k.hand(0, gone(k.group), 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.r.transact(k.context())
	}()
	held, other := k.units[0], k.units[1]
	if err := held.ended(<-held.done); !errors.Is(err, ErrStaleMember) {
		t.Fatal(err)
	}
	k.fill(t, 1, "next")
	other.member, other.offsets = anyMember(k.group), []Offset{{Topic: k.in, Partition: 1, Offset: 1}}
	k.r.commits <- other
	if err := k.unit(k.r.Shared).Begin(k.context()); err != nil {
		t.Fatal(err)
	}
	if err := held.Commit(k.context(), anyMember(k.group), []Offset{{Topic: k.in, Partition: 0, Offset: 1}}); err != nil {
		t.Fatal(err)
	}
	<-ended
	if answered, _ := k.outcome(1); answered || len(k.r.waiting) != 1 {
		t.Fatal("the other unit does not wait for the next transaction")
	}
	k.r.transact(k.context())
	k.mustEnd(t, 1, nil)
	if got := values(k.committed(k.out, 2)); !slices.Equal(got, []string{"0 held", "1 next"}) {
		t.Fatalf("visible: %q", got)
	}
}

func TestBeginSaysWhyThereIsNoProducerAndAsksAgain(t *testing.T) {
	t.Parallel()
	cluster := newFake(t)
	c := connect(t, cluster.ListenAddrs())
	s, _ := c.running(DefaultConfig(), uniqueName("tx"))
	u := c.unit(s)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.TransactionalIDAuthorizationFailed})
	if err := u.Begin(c.context()); !errors.Is(err, kafka.TransactionalIDAuthorizationFailed) {
		t.Fatalf("got %v", err)
	}
	mustBegin(t, c.context(), u)
}

func TestUnitWhoseContextEndsBeforeTheHandOverGoesOn(t *testing.T) {
	t.Parallel()
	c := connect(t, testBrokers(t))
	out, in, group := c.topic(1), c.topic(1), uniqueName("group")
	s := c.shared(DefaultConfig(), uniqueName("tx")) // nobody runs it yet
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	u := c.unit(s)
	if err := u.Begin(ended); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	mustBegin(t, c.context(), u)
	if err := u.Begin(c.context()); !errors.Is(err, ErrState) {
		t.Fatalf("begin of an open unit: %v", err)
	}
	mustAppend(t, u, out, 0, strings.Repeat("once", largeBatch))
	if err := u.Commit(ended, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 5}}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	mustAppend(t, u, out, 0, "and more")
	if err := u.Commit(c.context(), anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 5}}); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := values(c.committed(out, 1)); len(got) != 2 || got[1] != "and more" {
		t.Fatalf("visible: %d records", len(got))
	}
}

// TestManyUnitsUnderRandomFaults runs the loop of a worker for each of many partitions on one shared producer, while
// requests and answers are lost, identities are stale, units are given up in any state and contexts end.
func TestManyUnitsUnderRandomFaults(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	bothProtocols(t, func(t *testing.T, cfg Config) {
		const inputs, perInput, perUnit, outputs = 10, 90, 3, 3
		c := connect(t, brokers)
		out, in, group := c.topic(outputs), c.topic(inputs), uniqueName("group")
		faults := rand.New(rand.NewPCG(2, uint64(cfg.TransactionVersion))) // used under the dialer's mutex
		c.faults.random = func(key int16) loss {
			if !slices.Contains(steps, kmsg.Key(key)) || faults.IntN(6) > 0 {
				return nothingLost
			}
			return loss(1 + faults.IntN(2))
		}
		cfg.RetryTimeout = 60 * time.Millisecond // gives up often
		cfg.RetryBackoff, cfg.MaxRetryBackoff = 8*time.Millisecond, 16*time.Millisecond
		s, _ := c.running(cfg, uniqueName("tx"))
		ctx := c.context()
		var aborts, stale, givenUp atomic.Int64
		var wg sync.WaitGroup
		for input := range int32(inputs) {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(uint64(input), 3))
				u := c.unit(s)
				member := anyMember(group)
				for next := int64(0); next < perInput && ctx.Err() == nil; {
					err := u.Begin(ctx)
					if err == nil {
						for i := next; i < next+perUnit; i++ {
							value := fmt.Sprintf("%02d-%03d", input, i)
							if err := u.Append(&Record{Topic: out, Partition: (input + int32(i)) % outputs, Timestamp: i, Value: []byte(value)}); err != nil {
								t.Error(err)
								return
							}
						}
						offsets := []Offset{{Topic: in, Partition: input, Offset: next + perUnit}}
						if random.IntN(5) == 0 {
							member = gone(group)
						}
						err = u.Commit(ctx, member, offsets)
						for errors.Is(err, ErrStaleMember) {
							stale.Add(1)
							member = anyMember(group)
							if random.IntN(6) == 0 {
								givenUp.Add(1)
								break
							}
							err = u.Commit(ctx, member, offsets)
						}
						member = anyMember(group)
					}
					switch {
					case err == nil:
						next += perUnit
						continue
					case !errors.Is(err, ErrAbortable) && !errors.Is(err, ErrStaleMember):
						t.Errorf("input %d: %v", input, err)
						return
					}
					aborts.Add(1)
					if random.IntN(3) == 0 {
						_ = u.Close() // as a worker that makes another publisher
						u = c.unit(s)
					} else if err := u.Abort(ctx); err != nil {
						t.Error(err)
						return
					}
					for u.Begin(ctx) != nil && ctx.Err() == nil { // ends what is open, so that the offset is final
						aborts.Add(1)
					}
					if next = max(c.offset(group, in, input), 0); u.Abort(ctx) != nil {
						t.Error("abort of an empty unit")
					}
				}
			})
		}
		wg.Wait()
		if ctx.Err() != nil {
			t.Fatal("the units did not end")
		}
		next := make([]map[int32]int64, inputs)
		seen := 0
		for _, r := range c.committed(out, outputs) {
			var input int32
			var i int64
			if _, err := fmt.Sscanf(string(r.Value), "%02d-%03d", &input, &i); err != nil {
				t.Fatal(err)
			}
			if next[input] == nil {
				next[input] = map[int32]int64{}
			}
			first := (int64(r.Partition-input%outputs) + outputs) % outputs
			if want := first + next[input][r.Partition]*outputs; i != want {
				t.Fatalf("input %d in partition %d: record %d follows where %d is next", input, r.Partition, i, want)
			}
			next[input][r.Partition]++
			seen++
		}
		if seen != inputs*perInput {
			t.Errorf("%d records, want %d", seen, inputs*perInput)
		}
		for input := range int32(inputs) {
			if got := c.offset(group, in, input); got != perInput {
				t.Errorf("input %d: offset %d", input, got)
			}
		}
		if c.faults.count() < 5 || aborts.Load() == 0 || stale.Load() == 0 || givenUp.Load() == 0 {
			t.Errorf("only %d faults, %d aborts, %d stale, %d given up", c.faults.count(), aborts.Load(), stale.Load(), givenUp.Load())
		}
		t.Logf("%d faults, %d aborts, %d stale, %d given up", c.faults.count(), aborts.Load(), stale.Load(), givenUp.Load())
	})
}
