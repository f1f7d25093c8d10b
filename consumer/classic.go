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
	cfg     GroupConfig
	client  *kafkawire.Client
	handler Handler
	log     zerolog.Logger
	metrics *Metrics

	counts map[string]int32 // partitions per topic that the last assignment of ours knew; nil unless leader
}

var _ Membership = (*ClassicMembership)(nil)

// NewClassicMembership checks cfg.
func NewClassicMembership(cfg GroupConfig, client *kafkawire.Client, handler Handler, log zerolog.Logger) (*ClassicMembership, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	cfg.Topics = slices.Compact(slices.Sorted(slices.Values(cfg.Topics)))
	return &ClassicMembership{
		membership: newMembership(cfg.InstanceID),
		cfg:        cfg, client: client, handler: handler, metrics: cfg.Metrics,
		log: log.With().Str("group", cfg.Group).Logger(),
	}, nil
}

// Run implements Membership.
func (m *ClassicMembership) Run(ctx context.Context) error {
	reason := "start"
	for ctx.Err() == nil {
		m.metrics.Rebalances.WithLabelValues(reason).Inc()
		assigned, err := m.rebalance(ctx, reason)
		if err == nil {
			reason, err = m.hold(ctx, assigned)
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			if reason, err = m.recover(ctx, err); err != nil {
				m.lose()
				return err
			}
		}
	}
	m.shutdown()
	return nil
}

// rebalance joins the group and returns what it assigns to us.
func (m *ClassicMembership) rebalance(ctx context.Context, reason string) ([]TopicPartition, error) {
	started := time.Now()
	j, err := m.join(ctx, reason)
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
	m.log.Info().Int32("generation", j.generation).Str("member", j.member).Int("assigned", len(assigned)).
		Bool("leader", j.leader == j.member).Str("reason", reason).Dur("took", time.Since(started)).Msg("joined the group")
	return assigned, nil
}

// hold takes over what is assigned and keeps it until the group has to be joined again: with the
// reason for it, or the error that ended the membership.
func (m *ClassicMembership) hold(ctx context.Context, assigned []TopicPartition) (reason string, err error) {
	synced := time.Now()
	// Heartbeats outlive ctx: what is being drained at its end is still ours.
	beating, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- m.beat(beating) }()
	finish := func() error { stop(); return <-ended }

	revoked, added := m.difference(assigned)
	if len(revoked) > 0 {
		m.handler.Revoked(revoked)
		for _, tp := range revoked {
			delete(m.owned, tp)
		}
	}
	if ctx.Err() == nil && len(added) > 0 {
		for _, tp := range added {
			m.owned[tp] = true
		}
		m.handler.Assigned(added)
	}
	if ctx.Err() == nil && len(revoked) > 0 { // what was given up is handed out in a second round
		sleep(ctx, quickBeat-time.Since(synced))
		if err := finish(); err != nil && !errors.Is(err, kafka.RebalanceInProgress) {
			return "", err
		}
		return "revoked", nil
	}

	refresh := time.NewTicker(m.cfg.RefreshInterval)
	defer refresh.Stop()
	for {
		select {
		case err := <-ended:

			return "", err
		case <-refresh.C:
			if m.partitionsChanged(ctx) {
				if err := finish(); err != nil {
					return "", err
				}
				return "partitions_changed", nil
			}
		case <-ctx.Done():
			m.drain()
			return "", finish()
		}
	}
}

// drain revokes everything while heartbeats go on.
func (m *ClassicMembership) drain() {
	if len(m.owned) == 0 {
		return
	}
	m.handler.Revoked(m.ownedSorted())
	clear(m.owned)
}

// lose drops everything without a commit.
func (m *ClassicMembership) lose() {
	if len(m.owned) == 0 {
		return
	}
	m.metrics.LostPartitions.Add(float64(len(m.owned)))
	m.handler.Lost(m.ownedSorted())
	clear(m.owned)
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
		m.log.Warn().Err(err).Msg("cannot join the group; trying again")
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
func (m *ClassicMembership) shutdown() {
	m.drain()
	if m.cfg.InstanceID != "" || m.Identity().MemberID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := m.leave(ctx); err != nil {
		m.log.Warn().Err(err).Msg("could not leave the group; the others wait for the session to end")
	}
	m.become("", -1)
}

// beat sends heartbeats until the group needs us, which is the error, or ctx ends.
func (m *ClassicMembership) beat(ctx context.Context) error {
	started, lastLog := time.Now(), time.Time{}
	pause := func() time.Duration {
		if time.Since(started) < settleTime {
			return min(m.cfg.HeartbeatInterval, quickBeat)
		}
		return m.cfg.HeartbeatInterval
	}
	for sleep(ctx, pause()) {
		err := m.heartbeat(ctx)
		for err != nil {
			if ctx.Err() != nil {
				return nil
			}
			moved, retriable := kafkawire.Retriable(err)
			if !retriable {
				m.metrics.Heartbeats.WithLabelValues("refused").Inc()
				return err
			}
			// The coordinator is away: look for it and go on as the same member of the same generation.
			m.metrics.Heartbeats.WithLabelValues("retried").Inc()
			if time.Since(lastLog) > 5*time.Second {
				lastLog = time.Now()
				m.log.Warn().Err(err).Msg("no heartbeat; looking for the coordinator")
			}
			if moved {
				m.forgetCoordinator()
			}
			if !sleep(ctx, coordinatorPause) {
				return nil
			}
			err = m.heartbeat(ctx)
		}
		m.metrics.Heartbeats.WithLabelValues("ok").Inc()
	}
	return nil
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

func (m *ClassicMembership) forgetCoordinator() {
	m.client.ForgetCoordinator(kafkawire.Group, m.cfg.Group)
}

// call sends one request to the coordinator in the highest version that both sides speak.
func (m *ClassicMembership) call(ctx context.Context, key protocol.ApiKey, ours, flexibleFrom, staticFrom int16,
	encode func(*kafkawire.Writer, int16), decode func(*kafkawire.Reader, int16) error,
) error {
	broker, err := m.client.Coordinator(ctx, kafkawire.Group, m.cfg.Group)
	if err != nil {
		return err
	}
	versions, err := m.client.Versions(ctx, broker)
	if err != nil {
		return err
	}
	version, err := versions.Max(key, ours)
	if err != nil {
		return err
	}
	if m.cfg.InstanceID != "" && version < staticFrom {
		return fmt.Errorf("%s: the broker speaks up to v%d, an instance_id needs v%d (Kafka 2.3): %w", key, version, staticFrom, kafka.UnsupportedVersion)
	}
	return m.client.Do(ctx, &kafkawire.Request{
		Key: key, Version: version, FlexibleFrom: flexibleFrom, Broker: broker,
		Encode: func(w *kafkawire.Writer) { encode(w, version) },
		Decode: func(r *kafkawire.Reader) error { return decode(r, version) },
	})
}

// joined is the answer to JoinGroup; members are given to the leader alone.
type joined struct {
	generation     int32
	leader, member string
	skipAssignment bool
	members        []subscription
}

func (m *ClassicMembership) join(ctx context.Context, reason string) (j joined, err error) {
	identity := m.Identity()
	own := subscription{topics: m.cfg.Topics, owned: m.ownedSorted(), generation: identity.Generation, rack: m.cfg.Rack}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.RebalanceTimeout+5*time.Second) // the coordinator waits for all members
	defer cancel()
	err = m.call(ctx, protocol.JoinGroup, 9, 6, 5, func(w *kafkawire.Writer, version int16) {
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
		w.Bytes(own.append(nil))
		w.Tags()
		if version >= 8 {
			w.NullableString(reason)
		}
		w.Tags()
	}, func(r *kafkawire.Reader, version int16) error {
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
		if errors.Is(err, kafka.MemberIDRequired) && r.Err() == nil {
			m.become(j.member, -1)
		}
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
	})
	return j, err
}

func (m *ClassicMembership) sync(ctx context.Context, plan map[string][]TopicPartition) (assigned []TopicPartition, err error) {
	identity := m.Identity()
	ctx, cancel := context.WithTimeout(ctx, m.cfg.RebalanceTimeout+5*time.Second) // the coordinator waits for the leader
	defer cancel()
	err = m.call(ctx, protocol.SyncGroup, 5, 4, 3, func(w *kafkawire.Writer, version int16) {
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
			w.Bytes(appendAssignment(nil, partitions))
			w.Tags()
		}
		w.Tags()
	}, func(r *kafkawire.Reader, version int16) error {
		if version >= 1 {
			r.Int32() // throttle
		}
		if err := kafkawire.Code(r.Int16()); err != nil {
			return err
		}
		if version >= 5 {
			r.StringBytes() // protocol type
			r.StringBytes() // assignor
		}
		var err error
		assigned, err = readAssignment(r.Bytes())
		return err
	})
	return assigned, err
}

func (m *ClassicMembership) heartbeat(ctx context.Context) error {
	identity := m.Identity()
	ctx, cancel := context.WithTimeout(ctx, max(4*m.cfg.HeartbeatInterval, 2*time.Second))
	defer cancel()
	return m.call(ctx, protocol.Heartbeat, 4, 4, 3, func(w *kafkawire.Writer, version int16) {
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
	return m.call(ctx, protocol.LeaveGroup, 5, 4, 3, func(w *kafkawire.Writer, version int16) {
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
