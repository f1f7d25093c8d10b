package producer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

func (c *cluster) idempotent(cfg Config) *Idempotent {
	c.t.Helper()
	p, err := NewIdempotent(cfg, c.client)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestIdempotentCommitsOffsetsAfterRecords(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	c := connect(t, brokers)
	ctx := c.context()
	out, in, second, group := c.topic(2), c.topic(3), c.topic(1), uniqueName("group")
	p := c.idempotent(DefaultConfig())
	for i := range int64(5) {
		mustBegin(t, ctx, p)
		mustAppend(t, p, out, int32(i%2), fmt.Sprint(i))
		if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 2, Offset: i}, {Topic: second, Partition: 0, Offset: 10 * i}, {Topic: in, Partition: 0, Offset: 7 * i}}); err != nil {
			t.Fatal(err)
		}
	}
	mustBegin(t, ctx, p)
	if err := p.Commit(ctx, anyMember(group), nil); err != nil {
		t.Fatalf("nothing to commit: %v", err)
	}
	if got := values(c.committed(out, 2)); !slices.Equal(got, []string{"0", "2", "4", "1", "3"}) {
		t.Fatalf("visible: %v", got)
	}
	got := []int64{c.offset(group, in, 0), c.offset(group, in, 1), c.offset(group, in, 2), c.offset(group, second, 0)}
	if !slices.Equal(got, []int64{28, -1, 4, 40}) {
		t.Fatalf("committed offsets %v", got)
	}
}

func TestIdempotentRepetitionsDoubleNothing(t *testing.T) {
	t.Parallel()
	c := connect(t, testBrokers(t))
	ctx := c.context()
	out, in, group := c.topic(1), c.topic(1), uniqueName("group")
	p := c.idempotent(DefaultConfig())
	var want []string
	for i, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.OffsetCommit, kmsg.Produce, kmsg.OffsetCommit} {
		c.faults.arm(int16(key), answerLost, requestLost)
		mustBegin(t, ctx, p)
		mustAppend(t, p, out, 0, fmt.Sprint(i))
		want = append(want, fmt.Sprint(i))
		if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: int64(i)}}); err != nil {
			t.Fatalf("%v: %v", key.Name(), err)
		}
	}
	if c.faults.count() != 10 {
		t.Fatalf("%d faults fired", c.faults.count())
	}
	if got := values(c.committed(out, 1)); !slices.Equal(got, want) {
		t.Fatalf("visible: %v, want %v", got, want)
	}
	if got := c.offset(group, in, 0); got != 4 {
		t.Fatalf("committed offset %d", got)
	}
}

func TestIdempotentStaleMemberPublishesNothingTwice(t *testing.T) {
	t.Parallel()
	c := connect(t, testBrokers(t))
	ctx := c.context()
	out, in, group := c.topic(1), c.topic(1), uniqueName("group")
	p := c.idempotent(DefaultConfig())
	mustBegin(t, ctx, p)
	mustAppend(t, p, out, 0, "once")
	for range 2 {
		if err := p.Commit(ctx, Member{Group: group, MemberID: "gone", Generation: 7}, []Offset{{Topic: in, Partition: 0, Offset: 3}}); !errors.Is(err, ErrStaleMember) {
			t.Fatalf("got %v", err)
		}
	}
	if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 3}}); err != nil {
		t.Fatal(err)
	}
	if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"once"}) {
		t.Fatalf("visible: %v", got)
	}
	if got := c.offset(group, in, 0); got != 3 {
		t.Fatalf("committed offset %d", got)
	}
}

func TestIdempotentTakesAnotherIDAfterAnAbort(t *testing.T) {
	t.Parallel()
	for _, refusal := range []*kerr.Error{kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.InvalidProducerEpoch} {
		cluster := newFake(t)
		c := connect(t, cluster.ListenAddrs())
		ctx := c.context()
		out := c.topic(2)
		p := c.idempotent(DefaultConfig())
		mustBegin(t, ctx, p)
		first := p.id
		mustAppend(t, p, out, 0, "a")
		mustAppend(t, p, out, 1, "b")
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: refusal, Partitions: []int32{1}})
		if err := p.Commit(ctx, Member{}, nil); !errors.Is(err, ErrAbortable) || errors.Is(err, ErrFenced) {
			t.Fatalf("%v: got %v", refusal, err)
		}
		if err := p.Commit(ctx, Member{}, nil); !errors.Is(err, ErrState) {
			t.Fatalf("%v: commit before abort: %v", refusal, err)
		}
		if err := p.Abort(ctx); err != nil {
			t.Fatal(err)
		}
		mustBegin(t, ctx, p)
		if p.id == first {
			t.Fatalf("%v: the same producer id", refusal)
		}
		mustAppend(t, p, out, 0, "a")
		mustAppend(t, p, out, 1, "b")
		if err := p.Commit(ctx, Member{}, nil); err != nil {
			t.Fatal(err)
		}
		if got := values(c.committed(out, 2)); !slices.Equal(got, []string{"a", "a", "b"}) { // at least once
			t.Fatalf("%v: visible: %v", refusal, got)
		}
	}
}

func TestIdempotentCommitsForAMemberOfTheNewGroupProtocol(t *testing.T) {
	t.Parallel()
	c := connect(t, testBrokers(t))
	ctx := c.context()
	out, in, group := c.topic(1), c.topic(1), uniqueName("group")
	member := joinNewProtocol(t, c, group, in)
	p := c.idempotent(DefaultConfig())
	mustBegin(t, ctx, p)
	mustAppend(t, p, out, 0, "v")
	stale := member
	stale.Generation += 5
	if err := p.Commit(ctx, stale, []Offset{{Topic: in, Partition: 0, Offset: 1}}); !errors.Is(err, ErrStaleMember) {
		t.Fatalf("wrong epoch: %v", err)
	}
	if err := p.Commit(ctx, member, []Offset{{Topic: in, Partition: 0, Offset: 1}}); err != nil {
		t.Fatal(err)
	}
	tx := c.transactional(DefaultConfig(), uniqueName("tx"))
	mustBegin(t, ctx, tx)
	mustAppend(t, tx, out, 0, "w")
	if err := tx.Commit(ctx, stale, []Offset{{Topic: in, Partition: 0, Offset: 2}}); !errors.Is(err, ErrStaleMember) {
		t.Fatalf("wrong epoch: %v", err)
	}
	if err := tx.Commit(ctx, member, []Offset{{Topic: in, Partition: 0, Offset: 2}}); err != nil {
		t.Fatal(err)
	}
	if got := c.offset(group, in, 0); got != 2 {
		t.Fatalf("committed offset %d", got)
	}
}

// joinNewProtocol makes a member of a KIP-848 group with the topic's only partition.
func joinNewProtocol(t *testing.T, c *cluster, group, topic string) Member {
	t.Helper()
	m := Member{Group: group, MemberID: uniqueName("member")}
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Group, req.MemberID, req.RebalanceTimeoutMillis = group, m.MemberID, 30_000
	req.SubscribedTopicNames = []string{topic}
	req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	resp, err := req.RequestWith(c.context(), c.oracle)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	for err != nil && kerr.IsRetriable(err) {
		if resp, err = req.RequestWith(c.context(), c.oracle); err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
	}
	if errors.Is(err, kerr.UnsupportedVersion) {
		t.Skip("brokers before Kafka 4.0 do not speak the group protocol of KIP-848 unless told to")
	}
	if err != nil {
		t.Fatalf("join: %v", err)
	}
	m.Generation = resp.MemberEpoch
	return m
}

// TestOldBrokers runs both publishers against what Kafka 2.5, the oldest supported, and 3.9 speak.
func TestOldBrokers(t *testing.T) {
	t.Parallel()
	for name, versions := range map[string]*kversion.Versions{"2.5": kversion.V2_5_0(), "3.9": kversion.V3_9_0()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := newFake(t, kfake.MaxVersions(versions))
			c := connect(t, cluster.ListenAddrs())
			ctx := c.context()
			in, group := uniqueName("in"), uniqueName("group")
			out := uniqueName("out")
			for _, topic := range []string{in, out} {
				if err := cluster.CreateTopic(topic, 1, nil); err != nil {
					t.Fatal(err)
				}
			}
			tx := c.transactional(DefaultConfig(), uniqueName("tx"))
			for i, p := range []Publisher{tx, c.idempotent(DefaultConfig())} {
				for range 3 {
					mustBegin(t, ctx, p)
					mustAppend(t, p, out, 0, fmt.Sprint(i))
					if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 1}}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if tx.versions.epochPerTransaction {
				t.Error("transaction version 2 on an old broker")
			}
			if got := values(c.committed(out, 1)); !slices.Equal(got, []string{"0", "0", "0", "1", "1", "1"}) {
				t.Fatalf("visible: %v", got)
			}
		})
	}
}

func TestTooOldBrokerIsNamed(t *testing.T) {
	t.Parallel()
	cluster := newFake(t, kfake.MaxVersions(kversion.V2_4_0()))
	c := connect(t, cluster.ListenAddrs())
	p := c.transactional(DefaultConfig(), uniqueName("tx"))
	ctx, cancel := context.WithTimeout(c.context(), 5*time.Second)
	defer cancel()
	err := p.Begin(ctx)
	if err == nil || errors.Is(err, ErrAbortable) || !errors.Is(err, kafka.UnsupportedVersion) {
		t.Fatalf("got %v", err)
	}
}
