package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// Identity goes with every commit of offsets, so that the coordinator refuses those of a member
// that is not one any more. Generation is -1 before the first join.
type Identity struct {
	MemberID, InstanceID string
	Generation           int32
}

// Handler learns what this member owns. Its methods are called one after the other from the
// goroutine of Membership.Run; heartbeats go on meanwhile, so they may block, but not longer than
// the rebalance timeout: then the coordinator takes the member for dead and gives all to others.
type Handler interface {
	// Assigned partitions are ours from now on.
	Assigned([]TopicPartition)
	// Revoked returns once the partitions are drained and committed: then others get them.
	Revoked([]TopicPartition)
	// Lost partitions may be somebody else's already: stop and commit nothing.
	Lost([]TopicPartition)
}

// Membership is one member of a consumer group.
type Membership interface {
	// Run takes part until ctx ends, then revokes everything, leaves unless static, and returns nil.
	// An error is one that an operator must act upon.
	Run(ctx context.Context) error
	// Identity for commits, as of now.
	Identity() Identity
	// Changed is closed when Identity changes; ask for the next one then.
	Changed() <-chan struct{}
}

// GroupConfig says which group to join and as whom.
type GroupConfig struct {
	Group string
	// InstanceID makes a member of the classic protocol static (KIP-345): after a restart within
	// SessionTimeout it has its partitions back and nobody else notices. It must be unique in the group.
	InstanceID string
	// MemberID does the same in the consumer protocol, in which a static member that was killed is
	// locked out until its session ends. Empty: one is made, for the life of the process. It must be
	// unique in the group: the coordinator cannot tell two processes of one member id apart.
	MemberID string
	// Rack is passed on to the group's leader.
	Rack   string
	Topics []string
	// SessionTimeout is the silence after which the coordinator gives our partitions to others. In the
	// consumer protocol the broker's group.consumer.session.timeout.ms says it.
	SessionTimeout time.Duration
	// RebalanceTimeout is the time that members have for draining what is revoked.
	RebalanceTimeout  time.Duration
	HeartbeatInterval time.Duration
	// RefreshInterval is how often the leader of a classic group looks for new topics and partitions.
	RefreshInterval time.Duration
	// Metrics may be nil.
	Metrics *Metrics
}

// DefaultGroupConfig finds a dead member after 6 seconds. Group and Topics have no default.
func DefaultGroupConfig() GroupConfig {
	return GroupConfig{
		SessionTimeout:    6 * time.Second,
		RebalanceTimeout:  60 * time.Second,
		HeartbeatInterval: 250 * time.Millisecond,
		RefreshInterval:   30 * time.Second,
	}
}

// Validate names every fault with its key and a right value.
func (c GroupConfig) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Group == "" {
		fault("group: empty; for example churn-scorers")
	}
	if len(c.Topics) == 0 || slices.Contains(c.Topics, "") {
		fault("topics: none, or one without a name; for example customer-activity")
	}
	if c.SessionTimeout < time.Second || c.SessionTimeout > time.Hour {
		fault("session_timeout: %s is not between 1s and 1h; for example 6s", c.SessionTimeout)
	}
	if c.RebalanceTimeout < time.Second || c.RebalanceTimeout > time.Hour {
		fault("rebalance_timeout: %s is not between 1s and 1h; for example 60s", c.RebalanceTimeout)
	}
	if c.HeartbeatInterval < 10*time.Millisecond || c.HeartbeatInterval > c.SessionTimeout/3 {
		fault("heartbeat_interval: %s is not between 10ms and a third of session_timeout; for example 250ms", c.HeartbeatInterval)
	}
	if c.RefreshInterval < 10*time.Millisecond {
		fault("refresh_interval: %s is less than 10ms; for example 30s", c.RefreshInterval)
	}
	return errors.Join(faults...)
}

// GroupError stops a membership: it needs an operator.
type GroupError struct {
	Group  string
	Err    error
	Remedy string
}

// Error names group, fault and remedy.
func (e *GroupError) Error() string {
	text := fmt.Sprintf("group %q: %v", e.Group, e.Err)
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

// Unwrap gives the cause.
func (e *GroupError) Unwrap() error { return e.Err }

// withRemedy adds what an operator can do about err, where that is known.
func withRemedy(err error, group string) error {
	remedies := map[kafka.Error]string{
		kafka.GroupAuthorizationFailed:  "grant Read on this group to the worker's principal",
		kafka.TopicAuthorizationFailed:  "grant Read and Describe on the topics to the worker's principal",
		kafka.InconsistentGroupProtocol: "the group's other members use another assignor; let all use cooperative-sticky, or choose another group name",
		kafka.FencedInstanceID:          "another process has joined with the same instance_id; give each worker its own",
		kafka.InvalidSessionTimeout:     "set session_timeout between the broker's group.min.session.timeout.ms and group.max.session.timeout.ms",
		kafka.GroupMaxSizeReached:       "the broker's group.max.size is reached; run fewer workers or raise it",
		kafka.InvalidGroupId:            "choose a group name of letters, digits, dots, dashes and underscores",
		kafka.SASLAuthenticationFailed:  "check user name and password",
		kafka.UnsupportedVersion:        "use a broker of Kafka 2.5 or newer, of 4.0 or newer for the consumer protocol",
		kafka.GroupIdNotFound:           "classic members that cannot share a group with the consumer protocol hold it; stop them, or set the broker's group.consumer.migration.policy to bidirectional",
		kafka.InvalidRequest:            "the broker refuses what this member says of itself; look at member_id",
		unsupportedAssignor:             "set the broker's group.consumer.assignors to its default",
	}
	return &GroupError{Group: group, Err: err, Remedy: remedies[kafka.Error(kafkawire.CodeOf(err))]}
}

// membership is what both group protocols need: the identity, what is owned, the way to the coordinator.
type membership struct {
	cfg     GroupConfig
	client  *kafkawire.Client
	handler Handler
	log     zerolog.Logger
	metrics *Metrics

	owned map[TopicPartition]bool // of Run's goroutine

	mu       sync.Mutex
	identity Identity
	changed  chan struct{}
}

// newMembership takes a valid cfg.
func newMembership(cfg GroupConfig, client *kafkawire.Client, handler Handler, log zerolog.Logger, first Identity) membership {
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	cfg.Topics = slices.Compact(slices.Sorted(slices.Values(cfg.Topics)))
	return membership{
		cfg: cfg, client: client, handler: handler, metrics: cfg.Metrics,
		log:      log.With().Str("group", cfg.Group).Logger(),
		owned:    map[TopicPartition]bool{},
		identity: first,
		changed:  make(chan struct{}),
	}
}

// Identity implements Membership.
func (m *membership) Identity() Identity {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.identity
}

// Changed implements Membership.
func (m *membership) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *membership) become(member string, generation int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.identity.MemberID == member && m.identity.Generation == generation {
		return
	}
	m.identity.MemberID, m.identity.Generation = member, generation
	close(m.changed)
	m.changed = make(chan struct{})
}

// take makes partitions ours and tells the handler.
func (m *membership) take(partitions []TopicPartition) {
	if len(partitions) == 0 {
		return
	}
	for _, tp := range partitions {
		m.owned[tp] = true
	}
	m.handler.Assigned(partitions)
}

// giveUp has the handler drain partitions, which then are not ours any more.
func (m *membership) giveUp(partitions []TopicPartition) {
	if len(partitions) == 0 {
		return
	}
	m.handler.Revoked(partitions)
	for _, tp := range partitions {
		delete(m.owned, tp)
	}
}

// lose drops everything without a commit. It comes before any new identity: nothing that was begun
// in the old one's name may be committed in the new one's.
func (m *membership) lose() {
	if len(m.owned) == 0 {
		return
	}
	m.metrics.LostPartitions.Add(float64(len(m.owned)))
	m.handler.Lost(m.ownedSorted())
	clear(m.owned)
}

// ownedSorted is what is owned, in a fixed order: a subscription that differs only in order would
// look like a change to the coordinator.
func (m *membership) ownedSorted() []TopicPartition {
	owned := make([]TopicPartition, 0, len(m.owned))
	for tp := range m.owned {
		owned = append(owned, tp)
	}
	slices.SortFunc(owned, compareTopicPartitions)
	return owned
}

// difference between what is owned and what is assigned, both ways, sorted.
func (m *membership) difference(assigned []TopicPartition) (revoked, added []TopicPartition) {
	keep := make(map[TopicPartition]bool, len(assigned))
	for _, tp := range assigned {
		if !m.owned[tp] && !keep[tp] {
			added = append(added, tp)
		}
		keep[tp] = true
	}
	for tp := range m.owned {
		if !keep[tp] {
			revoked = append(revoked, tp)
		}
	}
	slices.SortFunc(revoked, compareTopicPartitions)
	slices.SortFunc(added, compareTopicPartitions)
	return revoked, added
}

func (m *membership) forgetCoordinator() {
	m.client.ForgetCoordinator(kafkawire.Group, m.cfg.Group)
}

// call sends one request to the coordinator in the highest version that both sides speak, and in
// version least at least.
func (m *membership) call(ctx context.Context, key protocol.ApiKey, least, ours, flexibleFrom int16,
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
	if version < least {
		return fmt.Errorf("%s: the broker speaks up to v%d, v%d is needed: %w", key, version, least, kafka.UnsupportedVersion)
	}
	return m.client.Do(ctx, &kafkawire.Request{
		Key: key, Version: version, FlexibleFrom: flexibleFrom, Broker: broker,
		Encode: func(w *kafkawire.Writer) { encode(w, version) },
		Decode: func(r *kafkawire.Reader) error { return decode(r, version) },
	})
}

// heartbeatTimeout is when a heartbeat counts as lost.
func (m *membership) heartbeatTimeout() time.Duration {
	return max(4*m.cfg.HeartbeatInterval, 2*time.Second)
}

// put replaces what lies in a channel of size 1. One goroutine puts.
func put[T any](mailbox chan T, news T) {
	select {
	case <-mailbox:
	default:
	}
	mailbox <- news
}
