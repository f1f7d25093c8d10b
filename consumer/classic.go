package consumer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

const (
	// assignorName is that of Java's CooperativeStickyAssignor, with which we share groups.
	assignorName = "cooperative-sticky"
	protocolType = "consumer"

	// For settleTime after a change heartbeats come every quickBeat: one rebalance is often followed
	// by the next. A member that joins again sooner than quickBeat after its SyncGroup makes the
	// others' SyncGroup fail, which costs everybody a round.
	settleTime = 3 * time.Second
	quickBeat  = 100 * time.Millisecond

	coordinatorPause = 100 * time.Millisecond
	leaveTimeout     = 3 * time.Second
)

// ClassicMembership speaks the group protocol of all Kafka versions: cooperative rebalances
// (KIP-429), in which partitions that stay are never interrupted, with the assignment made by the
// group's leader. It keeps its member id when the coordinator moves.
type ClassicMembership struct {
	membership

	refused int // joins that could not be made since the last that was

	counts map[string]int32 // partitions per topic that the last assignment of ours knew; nil unless leader
}

var _ Membership = (*ClassicMembership)(nil)

// NewClassicMembership checks cfg.
func NewClassicMembership(cfg GroupConfig, client *kafkawire.Client, handler Handler, log zerolog.Logger) (*ClassicMembership, error) {
	faults := cfg.Validate()
	if cfg.MemberID != "" {
		faults = errors.Join(faults, errors.New("member_id: the coordinator makes those of the classic protocol; set instance_id instead"))
	}
	if faults != nil {
		return nil, faults
	}
	first := Identity{InstanceID: cfg.InstanceID, Generation: -1}
	return &ClassicMembership{membership: newMembership(cfg, client, handler, log, first)}, nil
}

// Run implements Membership.
func (m *ClassicMembership) Run(ctx context.Context) error {
	fatal := m.takePart(ctx)
	if fatal != nil {
		m.lose()
		return fatal
	}
	m.shutdown(ctx)
	return nil
}

// takePart joins again and again until ctx ends; the error is one for the operator.
func (m *ClassicMembership) takePart(ctx context.Context) error {
	reason := "start"
	for ctx.Err() == nil {
		m.metrics.Rebalances.WithLabelValues(reason).Inc()
		assigned, err := m.rebalance(ctx, reason)
		if err == nil {
			reason, err = m.hold(ctx, assigned)
		}
		if err != nil && ctx.Err() == nil {
			if reason, err = m.recover(ctx, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// rebalance joins the group and returns what it assigns to us. When ctx ends meanwhile, which may be
// long before the other members are ready, what is owned is drained while the join goes on: so the
// coordinator does not miss us, and the last commits have the generation that it wants.
func (m *ClassicMembership) rebalance(ctx context.Context, reason string) ([]TopicPartition, error) {
	type outcome struct {
		assigned []TopicPartition
		err      error
	}
	joining, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	owned := m.ownedSorted()
	joined := make(chan outcome, 1)
	go func() {
		assigned, err := m.joinAndSync(joining, reason, owned)
		joined <- outcome{assigned, err}
	}()
	select {
	case o := <-joined:
		return o.assigned, o.err
	case <-ctx.Done():
	}
	if len(owned) == 0 {
		stop()
		<-joined
		return nil, ctx.Err()
	}
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		<-joined
		pulse := m.startPulse(joining)
		<-joining.Done()
		_ = pulse.end() // the answer to any news is that we are leaving
	}()
	m.giveUp(owned)
	stop()
	<-kept
	return nil, ctx.Err()
}

func (m *ClassicMembership) joinAndSync(ctx context.Context, reason string, owned []TopicPartition) ([]TopicPartition, error) {
	started := time.Now()
	j, err := m.join(ctx, reason, owned)
	if err != nil {
		return nil, err
	}
	// From here on commits need the new generation, also those of partitions that stay.
	m.become(j.member, j.generation)
	m.counts = nil
	var plan map[string][]TopicPartition
	if j.leader == j.member {
		if m.counts, err = m.countPartitions(ctx, j.members); err != nil {
			return nil, err
		}
		if !j.skipAssignment { // a static leader that came back finds the assignment made (KIP-814)
			plan = assign(j.members, m.counts)
		}
	}
	assigned, err := m.sync(ctx, plan)
	if err != nil {
		return nil, err
	}
	m.refused = 0
	m.log.Info().Int32("generation", j.generation).Str("member", j.member).Int("assigned", len(assigned)).
		Bool("leader", j.leader == j.member).Str("reason", reason).Dur("took", time.Since(started)).Msg("joined the group")
	return assigned, nil
}

// hold takes over what is assigned and keeps it until the group has to be joined again: with the
// reason for it, or the error that ended the membership.
func (m *ClassicMembership) hold(ctx context.Context, assigned []TopicPartition) (reason string, err error) {
	synced := time.Now()
	pulse := m.startPulse(ctx)
	defer func() { _ = pulse.end() }() // what is said twice is also in the next join's answer

	revoked, added := m.difference(assigned)
	m.giveUp(revoked)
	if ctx.Err() == nil {
		m.take(added)
	}
	if len(revoked) > 0 { // what was given up is handed out in a second round
		if !sleep(ctx, quickBeat-time.Since(synced)) {
			return "", ctx.Err()
		}
		if err := pulse.end(); err != nil && !errors.Is(err, kafka.RebalanceInProgress) {
			return "", err
		}
		return "revoked", nil
	}

	refresh := time.NewTicker(m.cfg.RefreshInterval)
	defer refresh.Stop()
	for {
		select {
		case err := <-pulse.news:
			return "", err
		case <-refresh.C:
			if m.partitionsChanged(ctx) {
				if err := pulse.end(); err != nil {
					return "", err
				}
				return "partitions_changed", nil
			}
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// recover decides what an error of the group means: how to go on, or the error for the operator.
func (m *ClassicMembership) recover(ctx context.Context, err error) (reason string, fatal error) {
	moved, retriable := kafkawire.Retriable(err)
	switch code := kafka.Error(kafkawire.CodeOf(err)); {
	case code == kafka.RebalanceInProgress:
		return "rebalance", nil
	case code == kafka.MemberIDRequired: // join noted the id that the coordinator gave us
		return "member_id", nil
	case code == kafka.IllegalGeneration: // a rebalance went by without us
		m.log.Warn().Msg("the group went on without this member; its partitions are lost")
		m.lose()
		m.become(m.Identity().MemberID, -1)
		return "illegal_generation", nil
	case code == kafka.UnknownMemberId: // our session ended
		m.log.Warn().Dur("session_timeout", m.cfg.SessionTimeout).Msg("the coordinator has expired this member; its partitions are lost")
		m.lose()
		m.become("", -1)
		return "unknown_member", nil
	case retriable:
		if m.refused++; m.refused&(m.refused-1) == 0 { // a coordinator may load its groups for long: told each time that they have doubled
			m.log.Warn().Err(err).Int("attempts", m.refused).Msg("cannot join the group; trying again")
		}
		if moved {
			m.forgetCoordinator()
		}
		sleep(ctx, coordinatorPause)
		return "coordinator", nil
	}
	return "", withRemedy(err, m.cfg.Group)
}

// shutdown gives everything back and leaves, so that others need not wait for the session to end.
// A static member stays: it is expected back.
func (m *ClassicMembership) shutdown(ctx context.Context) {
	if len(m.owned) > 0 {
		pulse := m.startPulse(ctx)
		m.giveUp(m.ownedSorted())
		_ = pulse.end() // whatever the group wants of us now, the answer is to leave
	}
	if m.cfg.InstanceID != "" || m.Identity().MemberID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if err := m.leave(ctx); err != nil && kafkawire.CodeOf(err) != int16(kafka.UnknownMemberId) {
		m.log.Warn().Err(err).Msg("could not leave the group; the others wait for the session to end")
	}
	m.become("", -1)
}

// pulse is the heartbeat of one generation.
type pulse struct {
	news chan error // the last reason to join again, or for which there is nothing left to keep alive
	done chan struct{}
	stop context.CancelFunc
}

// startPulse begins heartbeats. They outlive ctx: what is being drained at its end is still ours.
func (m *ClassicMembership) startPulse(ctx context.Context) *pulse {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	p := &pulse{news: make(chan error, 1), done: make(chan struct{}), stop: stop}
	go func() {
		defer close(p.done)
		m.beat(ctx, p.news)
	}()
	return p
}

// end stops the heartbeats and returns the news that nobody has taken yet.
func (p *pulse) end() error {
	p.stop()
	<-p.done
	select {
	case err := <-p.news:
		return err
	default:
		return nil
	}
}

// beat sends heartbeats until the group does not know this generation of ours any more, which is
// news, or ctx ends. That others wait for us to join again is news, too, but no reason to stop: the
// handler may be draining what others wait for, and the session goes on meanwhile.
func (m *ClassicMembership) beat(ctx context.Context, news chan error) {
	started, lastLog := time.Now(), time.Time{}
	pause := func() time.Duration {
		if time.Since(started) < settleTime {
			return min(m.cfg.HeartbeatInterval, quickBeat)
		}
		return m.cfg.HeartbeatInterval
	}
	for wait := pause(); sleep(ctx, wait); {
		err := m.heartbeat(ctx)
		moved, retriable := kafkawire.Retriable(err)
		switch {
		case err == nil:
			m.metrics.Heartbeats.WithLabelValues("ok").Inc()
			wait = pause()
		case ctx.Err() != nil:
			return
		case errors.Is(err, kafka.RebalanceInProgress):
			m.metrics.Heartbeats.WithLabelValues("rebalance").Inc()
			put(news, err)
			wait = m.cfg.HeartbeatInterval
		case retriable:
			// The coordinator is away: look for it and go on as the same member of the same generation.
			m.metrics.Heartbeats.WithLabelValues("retried").Inc()
			if time.Since(lastLog) > 5*time.Second {
				lastLog = time.Now()
				m.log.Warn().Err(err).Msg("no heartbeat; looking for the coordinator")
			}
			if moved {
				m.forgetCoordinator()
			}
			wait = coordinatorPause
		default:
			m.metrics.Heartbeats.WithLabelValues("refused").Inc()
			put(news, err)
			return
		}
	}
}

// partitionsChanged says whether the group's leader has to assign anew.
func (m *ClassicMembership) partitionsChanged(ctx context.Context) bool {
	if m.counts == nil {
		return false
	}
	m.client.ForgetMetadata()
	metadata, err := m.client.Metadata(ctx, slices.Collect(maps.Keys(m.counts)))
	if err != nil {
		return false
	}
	for topic, known := range m.counts {
		t := metadata.Topics[topic]
		// A topic that cannot be seen for a moment is no reason to take it from its readers.
		if t.Err == nil && int32(len(t.Partitions)) != known {
			m.log.Info().Str("topic", topic).Int32("partitions", known).Int("now", len(t.Partitions)).Msg("partitions changed")
			return true
		}
	}
	return false
}

// countPartitions asks for the topics of all members; one that does not exist has none.
func (m *ClassicMembership) countPartitions(ctx context.Context, members []subscription) (map[string]int32, error) {
	counts := map[string]int32{}
	for _, s := range members {
		for _, topic := range s.topics {
			counts[topic] = 0
		}
	}
	if len(counts) == 0 { // a static leader that came back is not told the members
		for _, topic := range m.cfg.Topics {
			counts[topic] = 0
		}
	}
	m.client.ForgetMetadata()
	ctx, cancel := context.WithTimeout(ctx, m.cfg.SessionTimeout/2)
	defer cancel()
	metadata, err := m.client.Metadata(ctx, slices.Collect(maps.Keys(counts)))
	if err != nil {
		return nil, err
	}
	for topic := range counts {
		switch t := metadata.Topics[topic]; {
		case t.Err == nil:
			counts[topic] = int32(len(t.Partitions))
		case errors.Is(t.Err, kafka.UnknownTopicOrPartition):
			m.log.Warn().Str("topic", topic).Msg("the topic does not exist; looking for it again later")
		default:
			return nil, fmt.Errorf("partitions of topic %q: %w", topic, t.Err)
		}
	}
	return counts, nil
}

// static is the least version of a request: from is the one that came to know instance ids (Kafka 2.3).
func (m *ClassicMembership) static(from int16) int16 {
	if m.cfg.InstanceID == "" {
		return 0
	}
	return from
}

// joined is the answer to JoinGroup; members are given to the leader alone.
type joined struct {
	generation     int32
	leader, member string
	skipAssignment bool
	members        []subscription
}

func (m *ClassicMembership) join(ctx context.Context, reason string, owned []TopicPartition) (j joined, err error) {
	identity := m.Identity()
	own := subscription{topics: m.cfg.Topics, owned: owned, generation: identity.Generation, rack: m.cfg.Rack}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.RebalanceTimeout+5*time.Second) // the coordinator waits for all members
	defer cancel()
	err = m.call(ctx, protocol.JoinGroup, m.static(5), 9, 6, func(w *kafkawire.Writer, version int16) {
		w.String(m.cfg.Group)
		w.Int32(int32(m.cfg.SessionTimeout.Milliseconds()))
		if version >= 1 {
			w.Int32(int32(m.cfg.RebalanceTimeout.Milliseconds()))
		}
		w.String(identity.MemberID)
		if version >= 5 {
			w.NullableString(m.cfg.InstanceID)
		}
		w.String(protocolType)
		w.ArrayLen(1)
		w.String(assignorName)
		w.Bytes(own.encode())
		w.Tags()
		if version >= 8 {
			w.NullableString(reason)
		}
		w.Tags()
	}, func(r *kafkawire.Reader, version int16) error {
		err := j.decode(r, version)
		if errors.Is(err, kafka.MemberIDRequired) && r.Err() == nil {
			m.become(j.member, -1)
		}
		return err
	})
	return j, err
}

// decode reads a JoinGroup response.
func (j *joined) decode(r *kafkawire.Reader, version int16) error {
	if version >= 2 {
		r.Int32() // throttle
	}
	err := kafkawire.Code(r.Int16())
	j.generation = r.Int32()
	if version >= 7 {
		r.StringBytes() // protocol type
	}
	r.StringBytes() // assignor; there is only one
	j.leader = r.String()
	if version >= 9 {
		j.skipAssignment = r.Bool()
	}
	j.member = r.String()
	if err != nil {
		return err
	}
	for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
		id, instance := r.String(), ""
		if version >= 5 {
			instance = r.String()
		}
		s, err := readSubscription(r.Bytes())
		if err != nil {
			return fmt.Errorf("subscription of member %q: %w", id, err)
		}
		s.member, s.instance = id, instance
		j.members = append(j.members, s)
		r.Tags()
	}
	return nil
}

func (m *ClassicMembership) sync(ctx context.Context, plan map[string][]TopicPartition) (assigned []TopicPartition, err error) {
	identity := m.Identity()
	ctx, cancel := context.WithTimeout(ctx, m.cfg.RebalanceTimeout+5*time.Second) // the coordinator waits for the leader
	defer cancel()
	err = m.call(ctx, protocol.SyncGroup, m.static(3), 5, 4, func(w *kafkawire.Writer, version int16) {
		w.String(m.cfg.Group)
		w.Int32(identity.Generation)
		w.String(identity.MemberID)
		if version >= 3 {
			w.NullableString(m.cfg.InstanceID)
		}
		if version >= 5 {
			w.String(protocolType)
			w.String(assignorName)
		}
		w.ArrayLen(len(plan))
		for member, partitions := range plan {
			w.String(member)
			w.Bytes(encodeAssignment(partitions))
			w.Tags()
		}
		w.Tags()
	}, func(r *kafkawire.Reader, version int16) (err error) {
		assigned, err = decodeSync(r, version)
		return err
	})
	return assigned, err
}

// decodeSync reads a SyncGroup response.
func decodeSync(r *kafkawire.Reader, version int16) ([]TopicPartition, error) {
	if version >= 1 {
		r.Int32() // throttle
	}
	if err := kafkawire.Code(r.Int16()); err != nil {
		return nil, err
	}
	if version >= 5 {
		r.StringBytes() // protocol type
		r.StringBytes() // assignor
	}
	return readAssignment(r.Bytes())
}

func (m *ClassicMembership) heartbeat(ctx context.Context) error {
	identity := m.Identity()
	ctx, cancel := context.WithTimeout(ctx, m.heartbeatTimeout())
	defer cancel()
	return m.call(ctx, protocol.Heartbeat, m.static(3), 4, 4, func(w *kafkawire.Writer, version int16) {
		w.String(m.cfg.Group)
		w.Int32(identity.Generation)
		w.String(identity.MemberID)
		if version >= 3 {
			w.NullableString(m.cfg.InstanceID)
		}
		w.Tags()
	}, func(r *kafkawire.Reader, version int16) error {
		if version >= 1 {
			r.Int32() // throttle
		}
		return kafkawire.Code(r.Int16())
	})
}

func (m *ClassicMembership) leave(ctx context.Context) error {
	identity := m.Identity()
	return m.call(ctx, protocol.LeaveGroup, m.static(3), 5, 4, func(w *kafkawire.Writer, version int16) {
		w.String(m.cfg.Group)
		if version < 3 {
			w.String(identity.MemberID)
			return
		}
		w.ArrayLen(1)
		w.String(identity.MemberID)
		w.NullableString("") // instance
		if version >= 5 {
			w.NullableString("shutdown")
		}
		w.Tags()
		w.Tags()
	}, func(r *kafkawire.Reader, version int16) error {
		if version >= 1 {
			r.Int32() // throttle
		}
		return kafkawire.Code(r.Int16())
	})
}
