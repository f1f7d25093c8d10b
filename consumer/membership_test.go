package consumer

import (
	"context"
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

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// ownership sees what all members of a test say that they own.
type ownership struct {
	t        *testing.T
	protocol groupProtocol

	mu     sync.Mutex
	owner  map[TopicPartition]string
	events map[string]int // member and kind
}

func newOwnership(t *testing.T, p groupProtocol) *ownership {
	return &ownership{t: t, protocol: p, owner: map[TopicPartition]string{}, events: map[string]int{}}
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

// of is what a member owns.
func (o *ownership) of(member string) map[TopicPartition]bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	owned := map[TopicPartition]bool{}
	for tp, m := range o.owner {
		if m == member {
			owned[tp] = true
		}
	}
	return owned
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

// groupProtocol is one of the two ways to be a member.
type groupProtocol struct {
	name   string
	member func(GroupConfig, *kafkawire.Client, Handler) (Membership, error)
}

var (
	classic = groupProtocol{"classic", func(cfg GroupConfig, client *kafkawire.Client, h Handler) (Membership, error) {
		return NewClassicMembership(cfg, client, h, zerolog.Nop())
	}}
	brokerSide = groupProtocol{"consumer", func(cfg GroupConfig, client *kafkawire.Client, h Handler) (Membership, error) {
		return NewConsumerMembership(cfg, client, h, zerolog.Nop())
	}}
)

// groupBrokers is testBrokers with short sessions where they are the broker's.
func groupBrokers(t *testing.T) []string {
	t.Helper()
	if os.Getenv("CHURNSTREAM_TEST_BROKERS") != "" {
		return testBrokers(t)
	}
	return embeddedGroups(t).ListenAddrs()
}

func embeddedGroups(t *testing.T) *kfake.Cluster {
	t.Helper()
	return embedded(t, kfake.BrokerConfigs(map[string]string{
		"group.min.session.timeout.ms": "1000", "group.consumer.session.timeout.ms": "2000", "group.consumer.heartbeat.interval.ms": "500",
	}))
}

// byProtocol runs a test once for each protocol that the broker speaks.
func byProtocol(t *testing.T, test func(*testing.T, *ownership, []string)) {
	for _, p := range []groupProtocol{classic, brokerSide} {
		t.Run(p.name, func(t *testing.T) {
			brokers := groupBrokers(t)
			if p.name == brokerSide.name {
				needsConsumerProtocol(t, brokers)
			}
			test(t, newOwnership(t, p), brokers)
		})
	}
}

func needsConsumerProtocol(t *testing.T, brokers []string) {
	t.Helper()
	versions, err := newClient(t, brokers).Versions(t.Context(), kafkawire.AnyBroker)
	if err != nil {
		t.Fatal(err)
	}
	if version, err := versions.Max(consumerGroupHeartbeat, 1); err != nil || version < 1 {
		t.Skipf("this broker does not speak the consumer protocol as of Kafka 4.0 (v%d, %v)", version, err)
	}
}

type member struct {
	Membership
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
	if m.Membership, err = o.protocol.member(cfg, client, m); err != nil {
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
	byProtocol(t, testMembersJoinAndLeaveWithoutTwoOwners)
}

func testMembersJoinAndLeaveWithoutTwoOwners(t *testing.T, o *ownership, brokers []string) {
	topic := createTopic(t, brokers, 8)
	group := uniqueName("group")
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
	if id := b.Identity(); id.Generation > 0 {
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
	byProtocol(t, testCrashedMembersPartitionsAreTakenOverAndTheOthersNotTouched)
}

func testCrashedMembersPartitionsAreTakenOverAndTheOthersNotTouched(t *testing.T, o *ownership, brokers []string) {
	if o.protocol.name == brokerSide.name && os.Getenv("CHURNSTREAM_TEST_BROKERS") != "" {
		t.Skip("the session of the consumer protocol is the broker's: 45 s by default")
	}
	topic := createTopic(t, brokers, 6)
	group := uniqueName("group")
	var cut atomic.Bool
	doomed := clientOver(t, brokers, func(c net.Conn) net.Conn { return &cuttable{c, &cut} })
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

func (c *cuttable) Read(b []byte) (int, error) {
	if c.cut.Load() {
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Read(b)
}

func (c *cuttable) Write(b []byte) (int, error) {
	if c.cut.Load() {
		c.Close()
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Write(b)
}

func TestHeartbeatsGoOnWhileTheHandlerDrains(t *testing.T) {
	byProtocol(t, testHeartbeatsGoOnWhileTheHandlerDrains)
}

func testHeartbeatsGoOnWhileTheHandlerDrains(t *testing.T, o *ownership, brokers []string) {
	topic := createTopic(t, brokers, 2)
	group := uniqueName("group")
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

func TestShutdownKeepsTheSessionWhileItDrains(t *testing.T) {
	byProtocol(t, testShutdownKeepsTheSessionWhileItDrains)
}

// The drain takes longer than the session, and another member asks for a rebalance meanwhile.
func testShutdownKeepsTheSessionWhileItDrains(t *testing.T, o *ownership, brokers []string) {
	if os.Getenv("CHURNSTREAM_TEST_BROKERS") != "" {
		t.Skip("a real broker's sessions are 6 s and more")
	}
	topic := createTopic(t, brokers, 2)
	cfg := groupConfig(uniqueName("group"), topic)
	metrics := NewMetrics(nil)
	cfg.Metrics = metrics
	draining, release := make(chan struct{}), make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	a := o.join("a", newClient(t, brokers), cfg, func() { close(draining); <-release })
	t.Cleanup(let) // runs before the member's
	o.settles(2, map[string]int{"a": 2})
	a.cancel()
	<-draining
	cfg.Metrics = nil
	b := o.join("b", newClient(t, brokers), cfg, nil)
	beats := func() float64 {
		return counterValue(t, metrics.Heartbeats.WithLabelValues("ok")) + counterValue(t, metrics.Heartbeats.WithLabelValues("rebalance"))
	}
	since, before := time.Now(), beats()
	eventually(t, "heartbeats for longer than a session", func() bool {
		return time.Since(since) > cfg.SessionTimeout+500*time.Millisecond && beats() > before+20
	})
	if n := counterValue(t, metrics.Heartbeats.WithLabelValues("refused")); n > 0 {
		t.Errorf("%v heartbeats were refused", n)
	}
	if n, by := o.owned(); n != 2 || by["a"] != 2 {
		t.Errorf("owned before the drain ended: %v", by)
	}
	let()
	if err := a.stop(); err != nil {
		t.Error(err)
	}
	o.settles(2, map[string]int{"b": 2})
	_ = b
}

func TestNewPartitionsAreNoticed(t *testing.T) { byProtocol(t, testNewPartitionsAreNoticed) }

func testNewPartitionsAreNoticed(t *testing.T, o *ownership, brokers []string) {
	topic := createTopic(t, brokers, 2)
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
	byProtocol(t, testTopicThatIsCreatedLaterIsAssigned)
}

func testTopicThatIsCreatedLaterIsAssigned(t *testing.T, o *ownership, brokers []string) {
	topic := uniqueName("later")
	cfg := groupConfig(uniqueName("group"), topic)
	cfg.RefreshInterval = 50 * time.Millisecond
	m := o.join("a", newClient(t, brokers), cfg, nil)
	eventually(t, "joined", func() bool { return m.Identity().Generation > 0 })
	createTopicNamed(t, brokers, topic, 3)
	o.settles(3, map[string]int{"a": 3})
}

func TestGroupConfigNamesEveryFault(t *testing.T) {
	err := GroupConfig{}.Validate()
	for _, key := range []string{"group", "topics", "session_timeout", "rebalance_timeout", "heartbeat_interval", "refresh_interval"} {
		if err == nil || !strings.Contains(err.Error(), key+":") {
			t.Errorf("%s is not named in: %v", key, err)
		}
	}
	for _, c := range []struct {
		protocol         groupProtocol
		instance, member string
		fault            string
	}{{classic, "", "m", "member_id:"}, {brokerSide, "i", "", "instance_id:"}, {classic, "i", "", ""}, {brokerSide, "", "m", ""}} {
		cfg := groupConfig("g", "t")
		cfg.InstanceID, cfg.MemberID = c.instance, c.member
		if _, err := c.protocol.member(cfg, nil, nil); (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v", c.protocol.name, err)
		}
	}
	if err := groupConfig("g", "t").Validate(); err != nil {
		t.Errorf("a right configuration: %v", err)
	}
}
