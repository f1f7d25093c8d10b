package consumer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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

// ownership sees what all members of a test say that they own.
type ownership struct {
	t *testing.T

	mu     sync.Mutex
	owner  map[TopicPartition]string
	events map[string]int // member and kind
}

func newOwnership(t *testing.T) *ownership {
	return &ownership{t: t, owner: map[TopicPartition]string{}, events: map[string]int{}}
}

func (o *ownership) owned() (all int, by map[string]int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	by = map[string]int{}
	for _, m := range o.owner {
		by[m]++
	}
	return len(o.owner), by
}

func (o *ownership) count(member, kind string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.events[member+" "+kind]
}

// crash forgets a member that will not say anything any more.
func (o *ownership) crash(member string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for tp, m := range o.owner {
		if m == member {
			delete(o.owner, tp)
		}
	}
}

type member struct {
	*ClassicMembership
	*ownership
	name    string
	cancel  context.CancelFunc
	done    chan error
	onGone  func()
	crashed atomic.Bool
}

func (m *member) Assigned(tps []TopicPartition) {
	m.mu().Lock()
	defer m.mu().Unlock()
	m.events[m.name+" assigned"] += len(tps)
	for _, tp := range tps {
		if other, ok := m.owner[tp]; ok {
			m.t.Errorf("%s is assigned %v while %s owns it", m.name, tp, other)
		}
		m.owner[tp] = m.name
	}
}

func (m *member) Revoked(tps []TopicPartition) { m.gone("revoked", tps) }
func (m *member) Lost(tps []TopicPartition)    { m.gone("lost", tps) }

func (m *member) gone(kind string, tps []TopicPartition) {
	if m.onGone != nil {
		m.onGone()
	}
	if m.crashed.Load() {
		return
	}
	m.mu().Lock()
	defer m.mu().Unlock()
	m.events[m.name+" "+kind] += len(tps)
	for _, tp := range tps {
		if m.owner[tp] != m.name {
			m.t.Errorf("%s gives back %v, which is %q's", m.name, tp, m.owner[tp])
		}
		delete(m.owner, tp)
	}
}

func (m *member) mu() *sync.Mutex { return &m.ownership.mu }

func (m *member) stop() error {
	m.cancel()
	err := <-m.done
	m.done <- err
	return err
}

func groupConfig(group, topic string) GroupConfig {
	cfg := DefaultGroupConfig()
	cfg.Group, cfg.Topics = group, []string{topic}
	cfg.HeartbeatInterval = 50 * time.Millisecond
	cfg.RebalanceTimeout = 10 * time.Second
	if os.Getenv("CHURNSTREAM_TEST_BROKERS") == "" {
		cfg.SessionTimeout = 2 * time.Second // a real broker's least is 6 s
	}
	return cfg
}

func (o *ownership) join(name string, client *kafkawire.Client, cfg GroupConfig, onGone func()) *member {
	o.t.Helper()
	m := &member{ownership: o, name: name, done: make(chan error, 1), onGone: onGone}
	var err error
	if m.ClassicMembership, err = NewClassicMembership(cfg, client, m, zerolog.Nop()); err != nil {
		o.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() { m.done <- m.Run(ctx) }()
	o.t.Cleanup(func() { _ = m.stop() })
	return m
}

func (o *ownership) settles(all int, want map[string]int) {
	o.t.Helper()
	eventually(o.t, fmt.Sprint("owned: ", want), func() bool {
		n, by := o.owned()
		if n != all || len(by) != len(want) {
			return false
		}
		for m, n := range want {
			if by[m] != n {
				return false
			}
		}
		return true
	})
}

func TestMembersJoinAndLeaveWithoutTwoOwners(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 8)
	group := uniqueName("group")
	o := newOwnership(t)
	a := o.join("a", newClient(t, brokers), groupConfig(group, topic), nil)
	o.settles(8, map[string]int{"a": 8})
	if id := a.Identity(); id.MemberID == "" || id.Generation < 1 {
		t.Errorf("identity %+v", id)
	}
	changed := a.Changed()
	b := o.join("b", newClient(t, brokers), groupConfig(group, topic), nil)
	o.settles(8, map[string]int{"a": 4, "b": 4})
	select {
	case <-changed:
	default:
		t.Error("the identity's change was not announced")
	}
	o.join("c", newClient(t, brokers), groupConfig(group, topic), nil)
	eventually(t, "three members own everything", func() bool { n, by := o.owned(); return n == 8 && len(by) == 3 })
	if n := o.count("a", "revoked"); n > 5 {
		t.Errorf("a gave up %d partitions, one by one it had to give up 5", n)
	}
	if err := b.stop(); err != nil {
		t.Errorf("b: %v", err)
	}
	eventually(t, "the others own everything", func() bool { n, by := o.owned(); return n == 8 && by["a"] == 4 && by["c"] == 4 })
	if id := b.Identity(); id.MemberID != "" {
		t.Errorf("b left and is still %+v", id)
	}
	for _, m := range []string{"a", "b", "c"} {
		if n := o.count(m, "lost"); n > 0 {
			t.Errorf("%s lost %d partitions without a chance to commit", m, n)
		}
	}
}

// The doomed member's connections are cut, so that it dies without a word.
func TestCrashedMembersPartitionsAreTakenOverAndTheOthersNotTouched(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 6)
	group := uniqueName("group")
	o := newOwnership(t)
	var cut atomic.Bool
	transport := &kafka.Transport{MetadataTopics: []string{}, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if cut.Load() {
			return nil, io.ErrClosedPipe
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &cuttable{c, &cut}, nil
	}}
	doomed, err := kafkawire.NewClient(kafkawire.Config{Brokers: brokers, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(doomed.CloseIdleConnections)
	cfg := groupConfig(group, topic)
	a := o.join("a", newClient(t, brokers), cfg, nil)
	o.settles(6, map[string]int{"a": 6})
	b := o.join("b", doomed, cfg, nil)
	o.settles(6, map[string]int{"a": 3, "b": 3})
	revoked := o.count("a", "revoked")
	b.crashed.Store(true)
	cut.Store(true)
	o.crash("b")
	o.settles(6, map[string]int{"a": 6})
	if o.count("a", "revoked") != revoked || o.count("a", "lost") != 0 {
		t.Error("the surviving member's own partitions were interrupted")
	}
	_ = a
}

type cuttable struct {
	net.Conn
	cut *atomic.Bool
}

func (c *cuttable) Write(b []byte) (int, error) {
	if c.cut.Load() {
		c.Close()
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Write(b)
}

func TestStaticMemberComesBackToItsPartitionsUnnoticed(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 4)
	group := uniqueName("group")
	o := newOwnership(t)
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

func TestHeartbeatsGoOnWhileTheHandlerDrains(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 2)
	group := uniqueName("group")
	o := newOwnership(t)
	cfg := groupConfig(group, topic)
	client := newClient(t, brokers)
	metrics := NewMetrics(nil)
	cfg.Metrics = metrics
	release := make(chan struct{})
	var once sync.Once
	draining := make(chan struct{})
	a := o.join("a", client, cfg, func() { once.Do(func() { close(draining); <-release }) })
	o.settles(2, map[string]int{"a": 2})
	cfg.Metrics = nil
	o.join("b", newClient(t, brokers), cfg, nil)
	<-draining
	before := counterValue(t, metrics.Heartbeats.WithLabelValues("ok"))
	eventually(t, "heartbeats during the drain", func() bool {
		return counterValue(t, metrics.Heartbeats.WithLabelValues("ok")) > before+2
	})
	if n, by := o.owned(); n != 2 || by["a"] != 2 {
		t.Errorf("owned before the drain ended: %v", by)
	}
	close(release)
	o.settles(2, map[string]int{"a": 1, "b": 1})
	_ = a
}

func TestNewPartitionsAreNoticedByTheLeader(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 2)
	o := newOwnership(t)
	cfg := groupConfig(uniqueName("group"), topic)
	cfg.RefreshInterval = 50 * time.Millisecond
	o.join("a", newClient(t, brokers), cfg, nil)
	o.settles(2, map[string]int{"a": 2})
	_, err := admin(t, brokers).CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 5}},
	})
	if err != nil {
		t.Fatal(err)
	}
	o.settles(5, map[string]int{"a": 5})
	if n := o.count("a", "revoked") + o.count("a", "lost"); n > 0 {
		t.Errorf("%d partitions were interrupted by the new ones", n)
	}
}

func TestTopicThatIsCreatedLaterIsAssigned(t *testing.T) {
	brokers := testBrokers(t)
	topic := uniqueName("later")
	o := newOwnership(t)
	cfg := groupConfig(uniqueName("group"), topic)
	cfg.RefreshInterval = 50 * time.Millisecond
	m := o.join("a", newClient(t, brokers), cfg, nil)
	eventually(t, "joined", func() bool { return m.Identity().Generation > 0 })
	createTopicNamed(t, brokers, topic, 3)
	o.settles(3, map[string]int{"a": 3})
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
			o := newOwnership(t)
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
			o := newOwnership(t)
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

func TestGroupConfigNamesEveryFault(t *testing.T) {
	err := GroupConfig{}.Validate()
	for _, key := range []string{"group", "topics", "session_timeout", "rebalance_timeout", "heartbeat_interval", "refresh_interval"} {
		if err == nil || !strings.Contains(err.Error(), key+":") {
			t.Errorf("%s is not named in: %v", key, err)
		}
	}
	if err := groupConfig("g", "t").Validate(); err != nil {
		t.Errorf("a right configuration: %v", err)
	}
}
