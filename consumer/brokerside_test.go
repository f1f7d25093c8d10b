package consumer

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

func TestHeartbeatErrorsOfTheConsumerProtocolAreSurvivedUnderTheSameMemberID(t *testing.T) {
	cases := []struct {
		code     kafka.Error
		lost     int
		assigned int // in all; the group has 3 partitions
	}{
		{kafka.GroupLoadInProgress, 0, 3},
		{kafka.GroupCoordinatorNotAvailable, 0, 3},
		{kafka.NotCoordinatorForGroup, 0, 3},
		{kafka.UnknownMemberId, 3, 6},
		{fencedMemberEpoch, 3, 6},
		{kafka.GroupIdNotFound, 3, 6},
	}
	for _, c := range cases {
		t.Run(fmt.Sprint(int(c.code)), func(t *testing.T) {
			t.Parallel()
			k := embeddedGroups(t)
			topic := createTopic(t, k.ListenAddrs(), 3)
			o := newOwnership(t, brokerSide)
			var m *member
			// What was begun under an epoch must have ended before there is another one.
			m = o.join("a", newClient(t, k.ListenAddrs()), groupConfig(uniqueName("group"), topic), func() {
				if m.Identity().Generation < 1 {
					t.Error("the epoch was given up before the partitions")
				}
			})
			o.settles(3, map[string]int{"a": 3})
			id := m.Identity().MemberID
			n := 3
			if c.lost > 0 {
				n = 1
			}
			seen := control(k, kmsg.ConsumerGroupHeartbeat, n, c.code)
			eventually(t, "the error is over", func() bool {
				all, _ := o.owned()
				return seen.Load() > int64(n)+2 && all == 3 && o.count("a", "assigned") == c.assigned
			})
			if now := m.Identity().MemberID; now != id || id == "" {
				t.Errorf("member id %q became %q", id, now)
			}
			if lost := o.count("a", "lost"); lost != c.lost {
				t.Errorf("%d partitions lost, want %d", lost, c.lost)
			}
		})
	}
}

func TestErrorsOfTheConsumerProtocolForOperatorsEndTheMembership(t *testing.T) {
	cases := []struct {
		code   kafka.Error
		remedy string
	}{
		{kafka.GroupAuthorizationFailed, "grant Read"},
		{kafka.TopicAuthorizationFailed, "grant Read and Describe"},
		{kafka.GroupMaxSizeReached, "group.max.size"},
		{kafka.GroupIdNotFound, "group.consumer.migration.policy"}, // at the join: a classic group that cannot change
		{kafka.InvalidRequest, "member_id"},
		{unsupportedAssignor, "group.consumer.assignors"},
	}
	for _, c := range cases {
		t.Run(fmt.Sprint(int(c.code)), func(t *testing.T) {
			t.Parallel()
			k := embeddedGroups(t)
			topic := createTopic(t, k.ListenAddrs(), 3)
			o := newOwnership(t, brokerSide)
			control(k, kmsg.ConsumerGroupHeartbeat, 1<<30, c.code)
			m := o.join("a", newClient(t, k.ListenAddrs()), groupConfig(uniqueName("group"), topic), nil)
			err := <-m.done
			m.done <- err
			if !errors.Is(err, c.code) || !strings.Contains(err.Error(), c.remedy) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestBrokerWithoutTheConsumerProtocolIsNamed(t *testing.T) {
	k := embedded(t, kfake.MaxVersions(kversion.V3_6_0()))
	topic := createTopic(t, k.ListenAddrs(), 1)
	o := newOwnership(t, brokerSide)
	m := o.join("a", newClient(t, k.ListenAddrs()), groupConfig(uniqueName("group"), topic), nil)
	err := <-m.done
	m.done <- err
	if !errors.Is(err, kafka.UnsupportedVersion) || !strings.Contains(err.Error(), "4.0 or newer") {
		t.Errorf("error %v", err)
	}
}

// A killed process that comes back long before its session ends has its partitions at once.
func TestSameMemberIDHasItsPartitionsBackAndNobodyElseNotices(t *testing.T) {
	brokers := groupBrokers(t)
	needsConsumerProtocol(t, brokers)
	topic := createTopic(t, brokers, 6)
	o := newOwnership(t, brokerSide)
	cfg := groupConfig(uniqueName("group"), topic)
	o.join("a", newClient(t, brokers), cfg, nil)
	o.settles(6, map[string]int{"a": 6})
	cfg.MemberID = "scorer-b"
	var cut atomic.Bool
	killed := o.join("b", clientOver(t, brokers, func(c net.Conn) net.Conn { return &cuttable{c, &cut} }), cfg, nil)
	o.settles(6, map[string]int{"a": 3, "b": 3})
	held := o.of("b")
	revoked := o.count("a", "revoked")
	killed.crashed.Store(true)
	cut.Store(true)
	o.crash("b")
	killed.cancel()
	cfg.Metrics = NewMetrics(nil)
	again := o.join("b", newClient(t, brokers), cfg, nil)
	o.settles(6, map[string]int{"a": 3, "b": 3})
	if counterValue(t, cfg.Metrics.Rebalances.WithLabelValues("predecessor")) > 0 {
		return // this broker had to be told to forget the killed process, and others noticed that
	}
	if now := o.of("b"); !maps.Equal(now, held) {
		t.Errorf("b held %v and has got %v back", held, now)
	}
	if o.count("a", "revoked") != revoked || o.count("a", "lost") > 0 {
		t.Error("the other member's partitions were interrupted")
	}
	if id := again.Identity(); id.MemberID != "scorer-b" || id.InstanceID != "" || id.Generation < 1 {
		t.Errorf("identity %+v", id)
	}
}

// As Kafka 4.1 does: the member id is taken until its session ends or it leaves.
func TestMembershipOfAnEarlierProcessIsEndedWhereTheBrokerInsists(t *testing.T) {
	k := embeddedGroups(t)
	topic := createTopic(t, k.ListenAddrs(), 3)
	o := newOwnership(t, brokerSide)
	var left atomic.Bool
	k.ControlKey(int16(kmsg.ConsumerGroupHeartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		beat := r.(*kmsg.ConsumerGroupHeartbeatRequest)
		resp := beat.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
		switch {
		case beat.MemberEpoch == leaveEpoch:
			left.Store(true)
			return resp, nil, true
		case beat.MemberEpoch == joinEpoch && !left.Load():
			resp.ErrorCode = int16(fencedMemberEpoch)
			return resp, nil, true
		}
		return nil, nil, false
	})
	o.join("a", newClient(t, k.ListenAddrs()), groupConfig(uniqueName("group"), topic), nil)
	o.settles(3, map[string]int{"a": 3})
}

func TestTopicThatIsCreatedAgainIsGivenUpFirst(t *testing.T) {
	m := consumerOf(t, nil)
	h := &journal{}
	m.handler = h
	held := make(chan holding, 1)
	old := holding{map[string]topicID{"a": {1}, "b": {2}}, []TopicPartition{{"a", 0}, {"a", 1}, {"b", 0}}}
	m.reconcile(t.Context(), old, held)
	h.calls = nil
	m.reconcile(t.Context(), holding{map[string]topicID{"a": {9}, "b": {2}}, []TopicPartition{{"a", 0}, {"b", 0}}}, held)
	if got, want := fmt.Sprint(h.calls), "[revoked [a/0 a/1] assigned [a/0]]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if told := <-held; told.ids["a"] != (topicID{9}) || len(told.partitions) != 2 {
		t.Errorf("the coordinator is told %v", told)
	}
}

func TestUnknownTopicIDIsAnErrorAndNotAGuess(t *testing.T) {
	brokers := embeddedGroups(t).ListenAddrs()
	m := consumerOf(t, brokers)
	for _, topic := range m.cfg.Topics {
		createTopicNamed(t, brokers, topic, 2)
	}
	metadata, err := m.client.Metadata(t.Context(), m.cfg.Topics)
	if err != nil {
		t.Fatal(err)
	}
	known := assignedTopic{metadata.Topics["b"].ID, []int32{0, 1}}
	h, err := m.named(t.Context(), []assignedTopic{known})
	if err != nil || fmt.Sprint(h.partitions) != "[b/0 b/1]" || h.ids["b"] != known.id {
		t.Errorf("%v, %v", h, err)
	}
	if _, err := m.named(t.Context(), []assignedTopic{known, {topicID{1, 2, 3}, []int32{0}}}); err == nil || !strings.Contains(err.Error(), "a, b") {
		t.Errorf("error %v", err)
	}
}

func consumerOf(t *testing.T, brokers []string) *ConsumerMembership {
	t.Helper()
	if brokers == nil {
		brokers = []string{"127.0.0.1:1"}
	}
	cfg := groupConfig("g", "a")
	cfg.Topics = []string{"b", "a"}
	m, err := NewConsumerMembership(cfg, newClient(t, brokers), &journal{}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// journal notes what a handler is told.
type journal struct{ calls []string }

func (j *journal) Assigned(tps []TopicPartition) { j.note("assigned", tps) }
func (j *journal) Revoked(tps []TopicPartition)  { j.note("revoked", tps) }
func (j *journal) Lost(tps []TopicPartition)     { j.note("lost", tps) }

func (j *journal) note(what string, tps []TopicPartition) {
	j.calls = append(j.calls, fmt.Sprint(what, " ", tps))
}
