package worker

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// Topics are what a worker needs to exist. The state topic is compacted in small segments: it is read whole whenever a
// partition changes hands.
func Topics(cfg config.Config) []connect.TopicSpec {
	topics := []connect.TopicSpec{
		{Name: cfg.Topics.Events, Key: "topics.events"},
		{Name: cfg.Topics.Scores, Key: "topics.scores", Needs: connect.Needs{MessageBytes: cfg.Produce.MaxBatchBytes, EventsOf: cfg.Topics.Events}},
		{Name: cfg.Topics.DeadLetters, Key: "topics.dead_letters", Needs: connect.Needs{MessageBytes: cfg.Produce.MaxBatchBytes, WholeOf: cfg.Topics.Events}},
	}
	if cfg.Drift.Enabled {
		topics = append(
			topics,
			connect.TopicSpec{Name: cfg.Topics.DriftState, Key: "topics.drift_state", Partitions: statePartitions(cfg), Needs: connect.Needs{Compact: true, MessageBytes: cfg.Produce.MaxBatchBytes}, Configs: map[string]string{
				"cleanup.policy": "compact", "segment.bytes": "4194304", "min.cleanable.dirty.ratio": "0.1", "max.compaction.lag.ms": "600000",
			}},
			// The newest alert of a feature is the memory of its alarm, whatever its age; a week of history stays beside it.
			connect.TopicSpec{Name: cfg.Topics.DriftAlerts, Key: "topics.drift_alerts", Needs: connect.Needs{Compact: true}, Configs: map[string]string{
				"cleanup.policy": "compact", "min.compaction.lag.ms": "604800000",
			}},
		)
	}
	if cfg.Topics.Audit != "" {
		topics = append(topics, connect.TopicSpec{Name: cfg.Topics.Audit, Key: "topics.audit"})
	}
	return topics
}

// HTTPTopics are those of Topics that the HTTP API reads or writes.
func HTTPTopics(cfg config.Config) []connect.TopicSpec {
	used := []string{cfg.Topics.Events, cfg.Topics.Scores, cfg.Topics.Audit}
	if cfg.HTTP.PublishPredictions {
		used = append(used, cfg.Topics.DriftState)
	}
	return slices.DeleteFunc(Topics(cfg), func(t connect.TopicSpec) bool { return !slices.Contains(used, t.Name) })
}

// statePartitions is how many partitions the state topic gets when it is created. Every one of them takes part in nearly
// every transaction and costs it a marker and a batch, so there are few: each keeps the counts of 16 input partitions,
// 1.5 MB of buckets at the default window, which are read whole when a partition changes hands.
func statePartitions(cfg config.Config) int {
	return (cfg.CreateTopics.Partitions + 15) / 16
}

// askingAgain tells what the start waits for, once a second.
func (w *Worker) askingAgain() func(error) {
	var said time.Time
	return func(err error) {
		w.metrics.startRetries.Inc()
		if now := time.Now(); now.Sub(said) >= time.Second {
			said = now
			w.log.Warn().Err(err).Msg("the brokers cannot be used yet; asking again")
		}
	}
}

// checkTopics tells what is wrong with the topics, beside the work: none of it keeps a worker from starting.
func (w *Worker) checkTopics(ctx context.Context) {
	findings, err := connect.CheckTopics(ctx, w.cfg.Brokers, w.transport, Topics(w.cfg))
	if err != nil {
		w.log.Info().Err(err).Msg("the topics' settings are not checked")
		return
	}
	w.metrics.topicFindings.Set(float64(len(findings)))
	for _, f := range findings {
		w.log.Warn().Str("topic", f.Topic).Str("key", f.Key).Str("command", f.Command).Msg("topic " + f.Topic + ": " + f.Problem)
	}
}

// Validate reports every value that a part of the worker would refuse, each with its key. It contacts nobody.
func Validate(cfg config.Config) error {
	producing, err := producerConfig(cfg, nil)
	faults := []error{err, producing.Validate(), fetchConfig(cfg, nil).Validate(), groupConfig(cfg, nil).Validate()}
	if cfg.Drift.Enabled {
		faults = append(faults, DriftWindow(cfg).Validate(), alarmConfig(cfg).Validate(), ruleConfig(cfg).Validate())
	}
	return errors.Join(faults...)
}

// registerTimeout is how long the registry may take to answer at start before it is called down.
const registerTimeout = 8 * time.Second

// publish registers one contract, again and again while the registry cannot be reached.
func (w *Worker) publish(ctx context.Context, subject, schema string) (id int32, err error) {
	for attempt := 0; ; attempt++ {
		if id, err = w.registry.Register(ctx, subject, schema); !errors.Is(err, schemas.ErrRegistryDown) {
			return id, err
		}
		last := err
		if wait(ctx, backoff(attempt)); ctx.Err() != nil {
			return 0, fmt.Errorf("%w; is it running, and is the address right (registry.urls)?", last)
		}
	}
}

// Reading completes how events are read: for a model's inputs, with schemas from registry and from the subject of the
// events.
func Reading(cfg config.Config, model *scoring.Model, registry schemas.Registry, reading schemas.DecoderConfig) (schemas.DecoderConfig, error) {
	list, err := Publications(cfg, model, reading.Reader)
	if err != nil {
		return reading, err
	}
	reading.Contract, reading.Registry, reading.Subject = model.Contract(), registry, list[0].Subject
	return reading, nil
}

// Publication is a schema that a worker registers when it starts.
type Publication struct {
	Topic   string // "" for the header of dead letters
	Subject string
	Schema  string
}

// Publications gives what a worker registers: first the event contract, then what it writes. reader is the schema that
// events are read with, empty for the model's own contract.
func Publications(cfg config.Config, model *scoring.Model, reader string) ([]Publication, error) {
	event := reader
	if event == "" {
		var err error
		if event, err = model.Contract().AvroSchema(); err != nil {
			return nil, fmt.Errorf("model %s: event contract: %w", model.Name(), err)
		}
	}
	list := []Publication{
		{Topic: cfg.Topics.Events, Schema: event},
		{Topic: cfg.Topics.Scores, Schema: schemas.ScoreSchema()},
		{Subject: schemas.DeadLetterSubject, Schema: schemas.DeadLetterSchema()},
	}
	if cfg.Drift.Enabled {
		list = append(
			list,
			Publication{Topic: cfg.Topics.DriftState, Schema: schemas.DriftStateSchema()},
			Publication{Topic: cfg.Topics.DriftAlerts, Schema: schemas.DriftAlertSchema()},
		)
	}
	if cfg.Topics.Audit != "" {
		list = append(list, Publication{Topic: cfg.Topics.Audit, Schema: schemas.AuditSchema()})
	}
	var strategy schemas.SubjectStrategy
	if err := strategy.UnmarshalText([]byte(cfg.Registry.SubjectStrategy)); err != nil {
		return nil, fmt.Errorf("registry.subject_strategy: %w", err)
	}
	for i := range list {
		p := &list[i]
		if p.Topic == "" {
			continue
		}
		var err error
		if p.Subject, err = strategy.Subject(p.Topic, p.Schema); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// register publishes the contracts and remembers their ids. The event contract is published too, so that producers
// find what the model wants under the subject of the events.
func (w *Worker) register(ctx context.Context) error {
	list, err := Publications(w.cfg, w.model, w.reader)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	for i, p := range list {
		id, err := w.publish(ctx, p.Subject, p.Schema)
		if i == 0 && errors.Is(err, schemas.ErrIncompatible) {
			// The subject belongs to the event's producers; what they write is resolved when it is read.
			w.log.Warn().Err(err).Msg("the registry's event schema is not the model's own contract")
			continue
		}
		if err != nil {
			return fmt.Errorf("register %s: %w", p.Subject, err)
		}
		switch p.Topic {
		case "":
			w.schemaIDs.deadLetter = id
		case w.cfg.Topics.Scores:
			w.schemaIDs.score = id
		case w.cfg.Topics.DriftState:
			w.schemaIDs.driftState = id
		case w.cfg.Topics.DriftAlerts:
			w.schemaIDs.driftAlert = id
		}
	}
	return nil
}

func fetchConfig(cfg config.Config, metrics *consumer.Metrics) consumer.FetchConfig {
	f := consumer.DefaultFetchConfig()
	f.Metrics = metrics
	f.MaxWait = cfg.Fetch.MaxWait.Std()
	f.MaxBytes = cfg.Fetch.MaxBytes
	f.MaxPartitionBytes = cfg.Fetch.MaxPartitionBytes
	f.MemoryBytes = cfg.Fetch.MemoryBytes
	f.OffsetReset = consumer.OffsetReset(cfg.Fetch.OffsetReset)
	f.Rack = cfg.Fetch.Rack
	return f
}

// stateFetchConfig is for the topic of drift states, which is small: a bucket is a kilobyte.
func stateFetchConfig(cfg config.Config, metrics *consumer.Metrics) consumer.FetchConfig {
	f := fetchConfig(cfg, metrics)
	f.OffsetReset = consumer.ResetEarliest
	f.MaxBytes, f.MaxPartitionBytes, f.MemoryBytes = 1<<20, 256<<10, 4<<20
	return f
}

func groupConfig(cfg config.Config, metrics *consumer.Metrics) consumer.GroupConfig {
	g := consumer.DefaultGroupConfig()
	g.Metrics = metrics
	g.Group = cfg.Group.ID
	g.InstanceID = cfg.Group.InstanceID
	g.MemberID = cfg.Group.MemberID
	g.Topics = []string{cfg.Topics.Events}
	g.SessionTimeout = cfg.Group.SessionTimeout.Std()
	g.RebalanceTimeout = cfg.Group.RebalanceTimeout.Std()
	g.HeartbeatInterval = cfg.Group.HeartbeatInterval.Std()
	return g
}

// newMembership speaks the configured group protocol.
func (w *Worker) newMembership(metrics *consumer.Metrics) (consumer.Membership, error) {
	cfg := groupConfig(w.cfg, metrics)
	if w.cfg.Group.Protocol == "consumer" {
		return consumer.NewConsumerMembership(cfg, w.client, w, w.log)
	}
	return consumer.NewClassicMembership(cfg, w.client, w, w.log)
}

func producerConfig(cfg config.Config, metrics *producer.Metrics) (producer.Config, error) {
	p := producer.DefaultConfig()
	p.Metrics = metrics
	if err := p.Compression.UnmarshalText([]byte(cfg.Produce.Compression)); err != nil {
		return p, fmt.Errorf("produce.compression: %w", err)
	}
	p.MaxBatchBytes = cfg.Produce.MaxBatchBytes
	p.TransactionTimeout = cfg.Produce.TransactionTimeout.Std()
	return p, nil
}

// newPublisher gives the publisher of a partition with the configured guarantee.
func (w *Worker) newPublisher(source consumer.TopicPartition) (producer.Publisher, error) {
	if w.shared != nil {
		return w.shared.Publisher()
	}
	// The transactional id names what is owned, so that a new owner fences the old one.
	return w.newOwnPublisher(fmt.Sprintf("%s-%d", source.Topic, source.Partition))
}

// newOwnPublisher gives a publisher whose transactions are its own.
func (w *Worker) newOwnPublisher(id string) (producer.Publisher, error) {
	if w.cfg.Delivery == config.AtLeastOnce {
		return producer.NewIdempotent(w.producing, w.client)
	}
	return producer.NewTransactional(w.producing, w.client, transactionalPrefix(w.cfg)+"-"+id)
}

// newShared gives the producer of all of this worker's partitions, or nil where each has its own.
func newShared(cfg config.Config, producing producer.Config, client *kafkawire.Client, transactionalID string) (*producer.Shared, error) {
	switch {
	case cfg.Produce.Transactions != "worker":
		return nil, nil //nolint:nilnil // no shared producer is one of the two ways
	case cfg.Delivery == config.AtLeastOnce:
		return producer.NewSharedIdempotent(producing, client)
	default:
		return producer.NewShared(producing, client, transactionalID)
	}
}

// sharedTransactionalID is the id of the transactions that all of this worker's partitions share; empty where they have
// none. Under the instance or member id a restarted worker ends at once what it left open; without one, its successors
// do.
func sharedTransactionalID(cfg config.Config) string {
	if cfg.Delivery != config.ExactlyOnce || cfg.Produce.Transactions != "worker" {
		return ""
	}
	instance := cmp.Or(cfg.Group.InstanceID, cfg.Group.MemberID)
	if instance == "" {
		instance = strings.ToLower(rand.Text()[:12])
	}
	return transactionalPrefix(cfg) + "-worker-" + instance
}

// Redrive gives the group that keeps the position of a job which sends dead letters again, its transactional id and how
// it publishes. Both names begin as the worker's own, so that rights by prefix cover them.
func Redrive(cfg config.Config, job string) (group, transactionalID string, producing producer.Config, err error) {
	producing, err = producerConfig(cfg, nil)
	return cfg.Group.ID + "-redrive-" + job, transactionalPrefix(cfg) + "-redrive-" + job, producing, err
}

// Predictions gives how the HTTP API publishes, and what the id of its transactions begins with; empty where delivery is
// at least once.
func Predictions(cfg config.Config, metrics *producer.Metrics) (transactionalID string, producing producer.Config, err error) {
	producing, err = producerConfig(cfg, metrics)
	if cfg.Delivery == config.ExactlyOnce {
		transactionalID = transactionalPrefix(cfg) + "-http-"
	}
	return transactionalID, producing, err
}

func transactionalPrefix(cfg config.Config) string {
	return cmp.Or(cfg.Produce.TransactionalPrefix, cfg.Group.ID)
}
