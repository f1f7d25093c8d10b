package consumer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

const (
	consumerGroupHeartbeat protocol.ApiKey = 68

	// Codes of KIP-848 that kafka-go has no name for.
	fencedMemberEpoch   kafka.Error = 110
	unsupportedAssignor kafka.Error = 112

	// Epochs that say something else than an epoch.
	joinEpoch  = 0
	leaveEpoch = -1
)

// ConsumerMembership speaks the broker-side group protocol of Kafka 4 (KIP-848), in which a
// heartbeat is the only request: it tells what this member holds, and the answer what it should
// hold. The coordinator assigns, and gives a partition to nobody before its former owner has told
// that it is drained. The member epoch stands for the generation.
//
// The member id is fixed for the life of the process, or for longer where GroupConfig.MemberID names
// one: it joins again under it after whatever happened. A process that was killed thus need not wait
// for its own session to end, which no instance id allows here.
type ConsumerMembership struct {
	membership

	ids map[string]topicID // of the topics of what is owned; of Run's goroutine
}

var _ Membership = (*ConsumerMembership)(nil)

// NewConsumerMembership checks cfg.
func NewConsumerMembership(cfg GroupConfig, client *kafkawire.Client, handler Handler, log zerolog.Logger) (*ConsumerMembership, error) {
	faults := cfg.Validate()
	if cfg.InstanceID != "" {
		faults = errors.Join(faults, errors.New("instance_id: locks a killed member out in the consumer protocol; set member_id instead, for example scorer-1"))
	}
	if faults != nil {
		return nil, faults
	}
	if cfg.MemberID == "" {
		cfg.MemberID = rand.Text()
	}
	first := Identity{MemberID: cfg.MemberID, Generation: joinEpoch}
	return &ConsumerMembership{membership: newMembership(cfg, client, handler, log, first)}, nil
}

// Run implements Membership.
func (m *ConsumerMembership) Run(ctx context.Context) error {
	reason := "start"
	for ctx.Err() == nil {
		m.metrics.Rebalances.WithLabelValues(reason).Inc()
		err := m.hold(ctx)
		if err == nil {
			break
		}
		// Before the epoch: what was begun in the old one must not be committed in the next one.
		m.lose()
		m.ids = nil
		joined := m.Identity().Generation != joinEpoch
		m.become(m.cfg.MemberID, joinEpoch)
		switch code := kafka.Error(kafkawire.CodeOf(err)); {
		case code == fencedMemberEpoch && !joined:
			// Kafka 4.1 lets nobody join under an id that it knows, 4.3 does: end what an earlier process left behind.
			m.log.Warn().Str("member", m.cfg.MemberID).Msg("the coordinator still knows an earlier process of this member id; ending its membership")
			reason = "predecessor"
			m.leave(ctx)
		case code == kafka.UnknownMemberId, code == fencedMemberEpoch, code == kafka.GroupIdNotFound && joined:
			m.log.Warn().Err(err).Str("member", m.cfg.MemberID).Msg("the coordinator has given this member up; its partitions are lost, it joins again")
			reason = "fenced"
			sleep(ctx, coordinatorPause)
		default:
			return withRemedy(err, m.cfg.Group)
		}
	}
	m.leave(ctx)
	return nil
}

// hold joins and then follows the coordinator's assignments until ctx ends, when all is drained and
// the error is nil, or the coordinator ends the membership.
func (m *ConsumerMembership) hold(ctx context.Context) error {
	beating, stop := context.WithCancel(context.WithoutCancel(ctx)) // what is being drained at the end is still ours
	defer stop()
	member, ended := context.WithCancelCause(ctx) // ends with the heartbeats, too
	targets, held := make(chan holding, 1), make(chan holding, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended(m.beat(beating, targets, held))
	}()
	for {
		select {
		case <-member.Done():
			if ctx.Err() != nil {
				m.giveUp(m.ownedSorted())
			}
			stop()
			<-done
			if ctx.Err() != nil {
				return nil
			}
			return context.Cause(member)
		case target := <-targets:
			if member.Err() == nil {
				m.reconcile(member, target, held)
			}
		}
	}
}

// reconcile makes what is owned what the coordinator wants, and tells it so: first what others wait
// for, then what is ours from now on.
func (m *ConsumerMembership) reconcile(ctx context.Context, target holding, held chan holding) {
	var kept []TopicPartition
	for _, tp := range target.partitions {
		if id, known := m.ids[tp.Topic]; !known || id == target.ids[tp.Topic] { // else the topic was created again
			kept = append(kept, tp)
		}
	}
	revoked, _ := m.difference(kept)
	m.giveUp(revoked)
	if ctx.Err() != nil {
		return
	}
	_, added := m.difference(target.partitions)
	m.ids = target.ids
	m.take(added)
	put(held, holding{m.ids, m.ownedSorted()})
	m.metrics.Rebalances.WithLabelValues("assignment").Inc()
	m.log.Info().Str("member", m.cfg.MemberID).Int("revoked", len(revoked)).Int("added", len(added)).Int("assigned", len(m.owned)).
		Msg("took over an assignment")
}

// leave tells the coordinator, so that others need not wait for the session to end. The join itself
// may have been cut off, so it is told in any case.
func (m *ConsumerMembership) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	_, err := m.heartbeat(ctx, leaveEpoch, false, nil)
	if code := kafka.Error(kafkawire.CodeOf(err)); err != nil && code != kafka.UnknownMemberId && code != kafka.GroupIdNotFound {
		m.log.Warn().Err(err).Msg("could not leave the group; the others wait for the session to end")
	}
	m.become(m.cfg.MemberID, joinEpoch)
}

// beat sends heartbeats until ctx ends, or the coordinator refuses one, which is the error. What
// the coordinator wants goes into targets, what Run's goroutine has made of it comes from held.
func (m *ConsumerMembership) beat(ctx context.Context, targets, held chan holding) error {
	var (
		have     = &holding{} // of what we hold, as far as we know; nil: nothing new since the last heartbeat
		last     holding
		wanted   []assignedTopic // not yet a target: a topic's name is missing
		whole    = true          // tell everything: to join, and after a heartbeat that may not have arrived
		settling = time.Now()
		lastLog  time.Time
	)
	for ctx.Err() == nil {
		if whole {
			have = &last
		}
		epoch := m.Identity().Generation
		started := time.Now()
		in, err := m.heartbeat(ctx, epoch, whole, have)
		wait := m.cfg.HeartbeatInterval
		moved, retriable := kafkawire.Retriable(err)
		switch {
		case err == nil:
			m.metrics.Heartbeats.WithLabelValues("ok").Inc()
			m.become(m.cfg.MemberID, in.epoch)
			whole, have = false, nil
			if in.epoch != epoch || in.assigned {
				settling = time.Now()
			}
			if epoch == joinEpoch {
				m.log.Info().Str("member", m.cfg.MemberID).Int32("epoch", in.epoch).Dur("took", time.Since(started)).Msg("joined the group")
			}
			if in.assigned {
				wanted = in.topics
				if wanted == nil {
					wanted = []assignedTopic{}
				}
			}
			if in.interval > 0 {
				wait = min(wait, in.interval)
			}
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end of ctx cut the heartbeat off
		case retriable:
			// The coordinator is away: look for it and go on as the same member of the same epoch.
			m.metrics.Heartbeats.WithLabelValues("retried").Inc()
			if time.Since(lastLog) > 5*time.Second {
				lastLog = time.Now()
				m.log.Warn().Err(err).Msg("no heartbeat; looking for the coordinator")
			}
			if moved {
				m.forgetCoordinator()
			}
			whole, wait = true, coordinatorPause
		default:
			m.metrics.Heartbeats.WithLabelValues("refused").Inc()
			return err
		}
		if wanted != nil {
			if target, err := m.named(ctx, wanted); err != nil {
				m.log.Warn().Err(err).Msg("cannot name what is assigned; trying again")
				settling = time.Now()
			} else {
				put(targets, target)
				wanted = nil
			}
		}
		if time.Since(settling) < settleTime {
			wait = min(wait, quickBeat)
		}
		timer := time.NewTimer(wait)
		select {
		case last = <-held: // others may wait for it: tell it at once
			have = &last
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

type topicID [16]byte

// holding is what is or should be held, and the ids of its topics.
type holding struct {
	ids        map[string]topicID
	partitions []TopicPartition
}

type assignedTopic struct {
	id         topicID
	partitions []int32
}

// named finds the names of assigned topics. They are among those that we subscribed to.
func (m *ConsumerMembership) named(ctx context.Context, topics []assignedTopic) (holding, error) {
	h := holding{ids: map[string]topicID{}}
	if len(topics) == 0 {
		return h, nil
	}
	names := map[topicID]string{}
	for attempt := range 2 {
		ctx, cancel := context.WithTimeout(ctx, m.heartbeatTimeout()) // the next heartbeat waits for this
		metadata, err := m.client.Metadata(ctx, m.cfg.Topics)
		cancel()
		if err != nil {
			return h, err
		}
		for name, t := range metadata.Topics {
			if t.Err == nil {
				names[t.ID] = name
			}
		}
		unknown := slices.ContainsFunc(topics, func(t assignedTopic) bool { return names[t.id] == "" })
		if !unknown {
			break
		}
		if attempt > 0 {
			return h, fmt.Errorf("no topic of %s has the id that the coordinator assigns", strings.Join(m.cfg.Topics, ", "))
		}
		m.client.ForgetMetadata() // a topic that is new, or was created again
	}
	for _, t := range topics {
		name := names[t.id]
		h.ids[name] = t.id
		for _, p := range t.partitions {
			h.partitions = append(h.partitions, TopicPartition{name, p})
		}
	}
	return h, nil
}

// instruction is the answer to a heartbeat; topics say something only where assigned.
type instruction struct {
	epoch    int32
	interval time.Duration
	assigned bool
	topics   []assignedTopic
}

// heartbeat tells everything, or only what we hold where that is news. Null stands for "as before".
func (m *ConsumerMembership) heartbeat(ctx context.Context, epoch int32, whole bool, have *holding) (in instruction, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.heartbeatTimeout())
	defer cancel()
	// v1 (Kafka 4.0) lets the member choose its id.
	err = m.call(ctx, consumerGroupHeartbeat, 1, 1, 0, func(w *kafkawire.Writer, _ int16) {
		w.String(m.cfg.Group)
		w.String(m.cfg.MemberID)
		w.Int32(epoch)
		w.NullableString("") // instance id
		if whole {
			w.NullableString(m.cfg.Rack)
			w.Int32(int32(m.cfg.RebalanceTimeout.Milliseconds()))
			w.ArrayLen(len(m.cfg.Topics))
			for _, topic := range m.cfg.Topics {
				w.String(topic)
			}
		} else {
			w.NullableString("") // rack
			w.Int32(-1)          // rebalance timeout
			w.ArrayLen(-1)       // topics
		}
		w.NullableString("") // topics as a regular expression
		w.NullableString("") // assignor: the broker's choice
		writeHolding(w, have)
		w.Tags()
	}, func(r *kafkawire.Reader, _ int16) error { return in.decode(r) })
	return in, err
}

// decode reads a ConsumerGroupHeartbeat response.
func (in *instruction) decode(r *kafkawire.Reader) error {
	r.Int32() // throttle
	err := kafkawire.Code(r.Int16())
	if text := r.String(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	r.StringBytes() // member id, ours
	in.epoch = r.Int32()
	in.interval = time.Duration(r.Int32()) * time.Millisecond
	in.assigned = r.Int8() >= 0 // a structure that may be null
	if !in.assigned {
		return nil
	}
	for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
		var t assignedTopic
		copy(t.id[:], r.Raw(len(t.id)))
		t.partitions = r.Int32s()
		r.Tags()
		in.topics = append(in.topics, t)
	}
	r.Tags()
	return nil
}

func writeHolding(w *kafkawire.Writer, h *holding) {
	if h == nil {
		w.ArrayLen(-1)
		return
	}
	topics := byTopic(h.partitions)
	w.ArrayLen(len(topics))
	for _, t := range topics {
		id := h.ids[t.topic]
		w.Raw(id[:])
		w.Int32s(t.partitions)
		w.Tags()
	}
}
