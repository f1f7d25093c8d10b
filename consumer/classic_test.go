package consumer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

func TestStaticMemberComesBackToItsPartitionsUnnoticed(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 4)
	group := uniqueName("group")
	o := newOwnership(t, classic)
	cfg := groupConfig(group, topic)
	o.join("a", newClient(t, brokers), cfg, nil)
	o.settles(4, map[string]int{"a": 4})
	cfg.InstanceID = "instance-b"
	b := o.join("b", newClient(t, brokers), cfg, nil)
	o.settles(4, map[string]int{"a": 2, "b": 2})
	generation := b.Identity().Generation
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	again := o.join("b", newClient(t, brokers), cfg, nil)
	o.settles(4, map[string]int{"a": 2, "b": 2})
	// The embedded broker compares whole subscriptions, a real one the assignors' names.
	if g := again.Identity().Generation; g != generation && os.Getenv("CHURNSTREAM_TEST_BROKERS") != "" {
		t.Errorf("generation %d became %d: the others had to rebalance", generation, g)
	}
	// A second process under the same instance id fences the first.
	o.crash("b")
	again.crashed.Store(true)
	o.join("b", newClient(t, brokers), cfg, nil)
	err := <-again.done
	again.done <- err
	var g *GroupError
	if !errors.As(err, &g) || !errors.Is(err, kafka.FencedInstanceID) || !strings.Contains(err.Error(), "instance_id") || !strings.Contains(err.Error(), group) {
		t.Errorf("fenced member: %v", err)
	}
}

// A member that is asked to stop while its JoinGroup waits for others drains at once, and is a member
// of the new generation, with heartbeats, as soon as there is one.
func TestShutdownInsideAPendingJoinKeepsTheMembershipAlive(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 4)
	o := newOwnership(t, classic)
	cfg := groupConfig(uniqueName("group"), topic)
	var hold atomic.Bool
	pending, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	client := clientOver(t, brokers, func(c net.Conn) net.Conn {
		return &answering{Conn: c, late: func(key int16) {
			if key == int16(kmsg.JoinGroup) && hold.Load() {
				once.Do(func() { close(pending) })
				<-release
			}
		}}
	})
	metrics := NewMetrics(nil)
	cfg.Metrics = metrics
	beats := func() float64 { return counterValue(t, metrics.Heartbeats.WithLabelValues("ok")) }
	var a *member
	var before Identity
	drained := func(what string, met func() bool) { // not in the test's goroutine
		for since := time.Now(); !met(); runtime.Gosched() {
			if time.Since(since) > 10*time.Second {
				t.Errorf("not during the drain: %s", what)
				return
			}
		}
	}
	a = o.join("a", client, cfg, func() {
		close(release)
		drained("the join is answered", func() bool { return a.Identity().Generation > before.Generation })
		n := beats()
		drained("heartbeats in the new generation", func() bool { return beats() > n+2 })
	})
	o.settles(4, map[string]int{"a": 4})
	before = a.Identity()
	hold.Store(true)
	cfg.Metrics = nil
	o.join("b", newClient(t, brokers), cfg, nil)
	<-pending
	if err := a.stop(); err != nil {
		t.Error(err)
	}
	o.settles(4, map[string]int{"b": 4})
	if n := o.count("a", "lost"); n > 0 {
		t.Errorf("%d partitions were lost without a commit", n)
	}
}

// answering is a connection on which answers may be late.
type answering struct {
	net.Conn
	late func(key int16)
	key  atomic.Int32
}

func (c *answering) Write(b []byte) (int, error) {
	if len(b) > 6 {
		c.key.Store(int32(b[4])<<8 | int32(b[5]))
	}
	return c.Conn.Write(b)
}

func (c *answering) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.late(int16(c.key.Load()))
	return n, err
}

// clientOver sees the connections of the client.
func clientOver(t *testing.T, brokers []string, wrap func(net.Conn) net.Conn) *kafkawire.Client {
	t.Helper()
	transport := &kafka.Transport{MetadataTopics: []string{}, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wrap(c), nil
	}}
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: brokers, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// control answers the first n requests of a key with an error code.
func control(k *kfake.Cluster, key kmsg.Key, n int, code kafka.Error) *atomic.Int64 {
	var seen atomic.Int64
	k.ControlKey(int16(key), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if seen.Add(1) > int64(n) {
			return nil, nil, false
		}
		resp := r.ResponseKind()
		switch resp := resp.(type) {
		case *kmsg.JoinGroupResponse:
			resp.ErrorCode = int16(code)
		case *kmsg.SyncGroupResponse:
			resp.ErrorCode = int16(code)
		case *kmsg.HeartbeatResponse:
			resp.ErrorCode = int16(code)
		case *kmsg.FindCoordinatorResponse:
			resp.ErrorCode = int16(code)
		case *kmsg.ConsumerGroupHeartbeatResponse:
			resp.ErrorCode = int16(code)
		}
		return resp, nil, true
	})
	return &seen
}

func TestGroupErrorsAreSurvivedWithTheRightConsequence(t *testing.T) {
	cases := []struct {
		key      kmsg.Key
		code     kafka.Error
		keepsID  bool
		lost     int
		assigned int // in all; the group has 3 partitions
	}{
		{kmsg.JoinGroup, kafka.GroupLoadInProgress, true, 0, 3},
		{kmsg.JoinGroup, kafka.NotCoordinatorForGroup, true, 0, 3},
		{kmsg.FindCoordinator, kafka.GroupCoordinatorNotAvailable, true, 0, 3},
		{kmsg.SyncGroup, kafka.RebalanceInProgress, true, 0, 3},
		{kmsg.SyncGroup, kafka.NotCoordinatorForGroup, true, 0, 3},
		{kmsg.Heartbeat, kafka.NotCoordinatorForGroup, true, 0, 3},
		{kmsg.Heartbeat, kafka.GroupCoordinatorNotAvailable, true, 0, 3},
		{kmsg.Heartbeat, kafka.RebalanceInProgress, true, 0, 3},
		{kmsg.Heartbeat, kafka.IllegalGeneration, true, 3, 6},
		{kmsg.Heartbeat, kafka.UnknownMemberId, false, 3, 6},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%d on %s", int(c.code), kmsg.NameForKey(int16(c.key))), func(t *testing.T) {
			t.Parallel()
			k := embedded(t)
			topic := createTopic(t, k.ListenAddrs(), 3)
			o := newOwnership(t, classic)
			var seen *atomic.Int64
			if c.key != kmsg.Heartbeat {
				seen = control(k, c.key, 2, c.code)
			}
			m := o.join("a", newClient(t, k.ListenAddrs()), groupConfig(uniqueName("group"), topic), nil)
			o.settles(3, map[string]int{"a": 3})
			id := m.Identity().MemberID
			if seen == nil {
				n := 2
				if c.lost > 0 {
					n = 1
				}
				seen = control(k, c.key, n, c.code)
			}
			eventually(t, "the error is over", func() bool {
				n, _ := o.owned()
				return seen.Load() > 2 && n == 3 && o.count("a", "assigned") == c.assigned
			})
			if kept := m.Identity().MemberID == id; kept != c.keepsID {
				t.Errorf("member id kept: %t", kept)
			}
			if n := o.count("a", "lost"); n != c.lost {
				t.Errorf("%d partitions lost, want %d", n, c.lost)
			}
		})
	}
}

// TestACoordinatorThatLoadsForLongIsSaidNowAndThen: a member asks for it many times a second.
func TestACoordinatorThatLoadsForLongIsSaidNowAndThen(t *testing.T) {
	k := embedded(t)
	topic := createTopic(t, k.ListenAddrs(), 1)
	o := newOwnership(t, classic)
	said := &lineCount{text: "cannot join the group"}
	o.protocol = groupProtocol{"classic", func(cfg GroupConfig, client *kafkawire.Client, h Handler) (Membership, error) {
		return NewClassicMembership(cfg, client, h, zerolog.New(said))
	}}
	seen := control(k, kmsg.JoinGroup, 20, kafka.GroupLoadInProgress)
	o.join("a", newClient(t, k.ListenAddrs()), groupConfig(uniqueName("group"), topic), nil)
	o.settles(1, map[string]int{"a": 1})
	if n := said.n.Load(); seen.Load() < 21 || n != 5 {
		t.Errorf("%d refusals were told %d times, want the 1st, 2nd, 4th, 8th and 16th of 20", seen.Load(), n)
	}
}

// lineCount counts the lines of a log with a text.
type lineCount struct {
	text string
	n    atomic.Int64
}

func (c *lineCount) Write(line []byte) (int, error) {
	if strings.Contains(string(line), c.text) {
		c.n.Add(1)
	}
	return len(line), nil
}

func TestErrorsForOperatorsEndTheMembership(t *testing.T) {
	cases := []struct {
		key    kmsg.Key
		code   kafka.Error
		remedy string
	}{
		{kmsg.JoinGroup, kafka.GroupAuthorizationFailed, "grant Read"},
		{kmsg.FindCoordinator, kafka.GroupAuthorizationFailed, "grant Read"},
		{kmsg.JoinGroup, kafka.InconsistentGroupProtocol, "cooperative-sticky"},
		{kmsg.JoinGroup, kafka.InvalidSessionTimeout, "session_timeout"},
		{kmsg.Heartbeat, kafka.GroupAuthorizationFailed, "grant Read"},
		{kmsg.Heartbeat, kafka.FencedInstanceID, "instance_id"},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%d on %s", int(c.code), kmsg.NameForKey(int16(c.key))), func(t *testing.T) {
			t.Parallel()
			k := embedded(t)
			topic := createTopic(t, k.ListenAddrs(), 3)
			o := newOwnership(t, classic)
			control(k, c.key, 1<<30, c.code)
			group := uniqueName("group")
			m := o.join("a", newClient(t, k.ListenAddrs()), groupConfig(group, topic), nil)
			err := <-m.done
			m.done <- err
			if !errors.Is(err, c.code) || !strings.Contains(err.Error(), c.remedy) || !strings.Contains(err.Error(), group) {
				t.Errorf("error %v", err)
			}
			if n, _ := o.owned(); n != 0 {
				t.Errorf("%d partitions are still owned", n)
			}
		})
	}
}

func TestCommittedOffsetsWaitForStableOnes(t *testing.T) {
	k := embedded(t)
	topic := createTopic(t, k.ListenAddrs(), 2)
	group := uniqueName("group")
	client := newClient(t, k.ListenAddrs())
	tps := []TopicPartition{{topic, 0}, {topic, 1}}
	var stable, seen atomic.Int64
	k.ControlKey(int16(kmsg.OffsetFetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		req := r.(*kmsg.OffsetFetchRequest)
		if req.RequireStable {
			stable.Add(1)
		}
		if seen.Add(1) > 2 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		g := kmsg.NewOffsetFetchResponseGroup()
		g.Group = group
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic = topic
		for p := range int32(2) {
			rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			rp.Partition, rp.Offset = p, 70+int64(p)
			if p == 1 {
				rp.ErrorCode, rp.Offset = int16(kafka.UnstableOffsetCommit), -1
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		g.Topics = append(g.Topics, rt)
		resp.Groups = append(resp.Groups, g)
		return resp, nil, true
	})
	got, err := CommittedOffsets(deadline(t), client, group, Identity{}, tps)
	if err != nil || got[tps[1]] != -1 {
		t.Errorf("%v, %v", got, err)
	}
	if stable.Load() < 3 {
		t.Errorf("%d of 3 requests asked for stable offsets", stable.Load())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	seen.Store(-1 << 40)
	if _, err := CommittedOffsets(ctx, client, group, Identity{}, tps); !errors.Is(err, kafka.UnstableOffsetCommit) || !strings.Contains(err.Error(), topic) {
		t.Errorf("what was waited for is not in %v", err)
	}
}

func TestCommittedOffsetsReadWhatWasCommitted(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 3)
	group := uniqueName("group")
	c := admin(t, brokers)
	eventually(t, "committed", func() bool {
		r, err := c.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
			GroupID: group, GenerationID: -1,
			Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: 0, Offset: 12}, {Partition: 2, Offset: 7}}},
		})
		return err == nil && r.Topics[topic][0].Error == nil
	})
	tps := []TopicPartition{{topic, 0}, {topic, 1}, {topic, 2}}
	got, err := CommittedOffsets(deadline(t), newClient(t, brokers), group, Identity{}, tps)
	if err != nil || got[tps[0]] != 12 || got[tps[1]] != -1 || got[tps[2]] != 7 {
		t.Errorf("%v, %v", got, err)
	}
}
