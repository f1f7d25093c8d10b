// Package worker takes the events of the partitions that it owns and gives scores with reasons, dead letters,
// population statistics and input offsets, one transaction a batch.
//
// The Worker owns what is shared: membership, fetcher, model, registry. A task owns one partition. Nothing of a batch is
// visible, neither to readers nor in statistics and metrics, before its transaction has ended.
package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// byKey leaves the choice of the partition to the record's key.
const byKey = -1

// Dependencies are what a worker is given beside its settings.
type Dependencies struct {
	Transport *kafka.Transport
	Model     *scoring.Model
	Profile   *drift.Profile // nil when drift is off
	Registry  schemas.Registry
	// Reading says how events are framed and read. Contract, subject and registry are the worker's to fill in; its zero
	// value reads the Confluent framing as it was written.
	Reading schemas.DecoderConfig
	Metrics prometheus.Registerer
	Log     zerolog.Logger
	Version string           // of the program, for dead letters
	Now     func() time.Time // nil: time.Now
	// AppendScore appends the value of a score's record to dst: the way in which a site writes scores in a contract of its
	// own. Numbers are the event's row, in the order of the model's inputs. Tasks call it at the same time; it must not
	// keep what it is given. Nil writes churn.v1.Score in the Confluent wire format.
	AppendScore func(dst []byte, numbers []float64, s *schemas.Score) []byte
}

// Worker runs one member of the consumer group.
type Worker struct {
	cfg      config.Config
	model    *scoring.Model
	profile  *drift.Profile
	registry schemas.Registry
	reader   string // schema that events are read with; empty: the one that they were written with
	log      zerolog.Logger
	version  string
	now      func() time.Time

	patience    time.Duration // how long brokers may leave a request unanswered before the worker calls itself not ready
	memoryLimit time.Duration // how long a partition waits for an offset that was forgotten

	floodLook time.Duration // pause before the first look at a flood that holds a partition
	memory    memory
	quietWait time.Duration // how long a partition waits before the log says so
	commits   retries
	looks     atomic.Int64 // of the wait log

	appendScore func(dst []byte, numbers []float64, s *schemas.Score) []byte

	transport       *kafka.Transport
	client          *kafkawire.Client
	fetching        consumer.FetchConfig
	fetcher         *consumer.Fetcher // of the events
	restoring       *consumer.Fetcher // of the drift states that tasks restore
	membership      consumer.Membership
	metrics         *metrics
	producing       producer.Config
	shared          *producer.Shared // nil: each partition has a producer of its own
	transactionalID string           // of shared; empty: it has none
	succession      succession
	driftMetrics    *drift.Metrics
	workbenches     workbenches
	decoder         *schemas.Decoder // cloned for each workbench: compiled schemas are shared

	// Set by prepare, before the first task starts.
	schemaIDs  schemaIDs
	partitions map[string]int // of each topic
	restores   []*restores    // of each partition of the state topic

	group *errgroup.Group // every goroutine of Run
	work  context.Context //nolint:containedctx // the life of Run, which the membership's callbacks have no other way to learn

	mu      sync.Mutex
	tasks   map[consumer.TopicPartition]*ownedTask
	watcher *ownedTask // evaluates drift while partition 0 is ours
}

// schemaIDs are the registry's ids of the published contracts.
type schemaIDs struct{ score, deadLetter, driftState, driftAlert int32 }

// ownedTask is how the worker holds a running task.
type ownedTask struct {
	task    *task              // nil for the drift watcher
	drain   context.CancelFunc // finish the batch in hand, then end
	abandon context.CancelFunc // end at once, commit nothing
	done    chan struct{}
}

// New puts a worker together; it talks to nobody yet.
func New(cfg config.Config, deps Dependencies) (*Worker, error) {
	w := &Worker{
		cfg:       cfg,
		model:     deps.Model,
		profile:   deps.Profile,
		registry:  deps.Registry,
		reader:    deps.Reading.Reader,
		log:       deps.Log,
		version:   deps.Version,
		now:       deps.Now,
		transport: deps.Transport,
		tasks:     map[consumer.TopicPartition]*ownedTask{},
		patience:  cfg.Group.SessionTimeout.Std(), // as long as they give its heartbeats
		memory:    memory{committed: map[consumer.TopicPartition]int64{}, reset: map[consumer.TopicPartition]bool{}},
		floodLook: firstFloodLook,
		quietWait: quietWait,

		memoryLimit: memoryLimit,
		appendScore: deps.AppendScore,
	}
	if w.now == nil {
		w.now = time.Now
	}
	if w.appendScore == nil {
		w.appendScore = w.appendPublishedScore
	}
	var err error
	if w.client, err = kafkawire.NewClient(kafkawire.Config{Brokers: cfg.Brokers, ClientID: cfg.ClientID, Transport: deps.Transport}); err != nil {
		return nil, err
	}
	reading, err := Reading(cfg, w.model, w.registry, deps.Reading)
	if err != nil {
		return nil, err
	}
	if w.decoder, err = schemas.NewDecoder(reading); err != nil {
		return nil, fmt.Errorf("model %s: %w", w.model.Name(), err)
	}
	consuming := consumer.NewMetrics(deps.Metrics)
	w.fetching = fetchConfig(cfg, consuming)
	if w.fetcher, err = consumer.NewFetcher(w.fetching, w.client, w.log); err != nil {
		return nil, err
	}
	if w.restoring, err = consumer.NewFetcher(stateFetchConfig(cfg, consuming), w.client, w.log); err != nil {
		return nil, err
	}
	if w.membership, err = w.newMembership(consuming); err != nil {
		return nil, err
	}
	w.metrics = newMetrics(deps.Metrics, w.model)
	deps.Metrics.MustRegister(newOwnership(w.progress, w.states))
	if w.producing, err = producerConfig(cfg, producer.NewMetrics(deps.Metrics)); err != nil {
		return nil, err
	}
	w.producing.OnRetry = w.commits.note
	w.producing.Pool = producer.NewPool(producer.DefaultPoolBytes)
	w.workbenches = workbenches{keep: runtime.GOMAXPROCS(0), fresh: func() *workbench {
		return &workbench{
			decoder: w.decoder.Clone(),
			scorer:  w.model.NewScorer(reasonsOf(cfg.Reasons)),
			rows:    schemas.NewRows(len(w.model.Contract().Inputs), chunkRows),
			scored:  make([]int, 0, chunkRows),
			counted: make([]drift.Event, 0, chunkRows),
		}
	}}
	if cfg.Reasons.Top > 0 {
		w.warnOfReasons()
	}
	w.transactionalID = sharedTransactionalID(cfg)
	if w.shared, err = newShared(cfg, w.producing, w.client, w.transactionalID); err != nil {
		return nil, err
	}
	w.succession = succession{ended: map[string]time.Time{}, fence: func(ctx context.Context, id string) error {
		return producer.Fence(ctx, w.producing, w.client, id)
	}}
	if cfg.Drift.Enabled {
		if w.driftMetrics, err = drift.NewMetrics(deps.Metrics, w.profile, DriftWindow(w.cfg).Horizons); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Run works until ctx ends, then drains: the batches in hand are finished and committed, the group is left, and Run
// returns nil. Any other end is an error that names its cause.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // the end was asked for before the start was over
		}
		return connect.NameMissingRight(err, w.cfg.Security)
	}
	defer w.client.CloseIdleConnections()
	work, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	w.group, w.work = errgroup.WithContext(work)
	member, leave := context.WithCancel(ctx) // ends by shutdown, or because a task failed
	defer leave()
	context.AfterFunc(w.work, leave) //nolint:contextcheck // w.work is made of ctx above
	stopDrain := context.AfterFunc(ctx, func() {
		w.log.Info().Dur("grace", w.cfg.Shutdown.Grace.Std()).Msg("draining")
		time.AfterFunc(w.cfg.Shutdown.Grace.Std(), abandon)
	})
	defer stopDrain()

	w.group.Go(func() error { return w.fetcher.Run(w.work) })
	w.group.Go(func() error { return w.restoring.Run(w.work) })
	w.group.Go(func() error { return newWaitLog(w).run(w.work) })
	w.group.Go(func() error {
		w.checkTopics(w.work)
		return nil
	})
	if w.shared != nil {
		w.group.Go(func() error { return w.shared.Run(w.work) })
	}
	w.group.Go(func() error {
		defer abandon() // the partitions are given back: the fetcher may end
		return w.membership.Run(member)
	})
	err := connect.NameMissingRight(w.group.Wait(), w.cfg.Security)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if err != nil {
		w.log.Error().Err(err).Msg("stopped")
		return err
	}
	w.log.Info().Msg("stopped")
	return nil
}

// prepare finds the brokers, topics and registry usable before the group is joined, so that a fault of the set-up is
// reported within seconds and moves no partition.
func (w *Worker) prepare(ctx context.Context) error {
	partitions, err := connect.Probe(ctx, w.cfg.Brokers, w.transport, w.cfg.Security.SASL, Topics(w.cfg), w.cfg.CreateTopics, w.askingAgain())
	if err != nil {
		return err
	}
	w.partitions = partitions
	for i := range partitions[w.cfg.Topics.DriftState] {
		w.restores = append(w.restores, w.newRestores(int32(i)))
	}
	return w.register(ctx)
}

// Assigned starts a task for each partition. Called by the membership, one call at a time, like Revoked and Lost.
func (w *Worker) Assigned(partitions []consumer.TopicPartition) {
	for _, p := range partitions {
		w.start(p)
	}
}

// Revoked returns once the partitions' batches in hand are committed.
func (w *Worker) Revoked(partitions []consumer.TopicPartition) {
	w.release(w.stop(partitions, func(t *ownedTask) { t.drain() }))
}

// Lost ends the tasks at once: somebody else may own the partitions already.
func (w *Worker) Lost(partitions []consumer.TopicPartition) {
	w.stop(partitions, func(t *ownedTask) { t.abandon() })
}

func (w *Worker) start(p consumer.TopicPartition) {
	log := w.log.With().Str("topic", p.Topic).Int32("partition", p.Partition).Logger()
	t := newTask(w, p, log)
	owned := w.launch(t, t.run)
	w.mu.Lock()
	w.tasks[p] = owned
	w.mu.Unlock()
	if p.Partition == 0 && w.cfg.Drift.Enabled {
		watcher := w.launch(nil, newWatcher(w).run)
		w.mu.Lock()
		w.watcher = watcher
		w.mu.Unlock()
	}
}

// A unit of work ends when its records have unitMemory divided by the partitions that are owned, in bytes, within these
// bounds. Below the least the transaction costs more than the events; above the most it is their cost alone that counts.
const (
	unitMemory    = 8 << 20
	leastUnitSize = 64 << 10
	mostUnitSize  = 1 << 20
)

func (w *Worker) unitBytes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return min(max(unitMemory/max(len(w.tasks), 1), leastUnitSize), mostUnitSize)
}

// launch runs a task in the worker's group. Its first context ends to drain, its second to abandon.
func (w *Worker) launch(t *task, run func(fetch, work context.Context) error) *ownedTask {
	work, abandon := context.WithCancel(w.work)
	fetch, drain := context.WithCancel(work)
	owned := &ownedTask{task: t, drain: drain, abandon: abandon, done: make(chan struct{})}
	w.group.Go(func() error {
		defer close(owned.done)
		defer abandon()
		return run(fetch, work)
	})
	return owned
}

// stop returns the tasks that have ended.
func (w *Worker) stop(partitions []consumer.TopicPartition, how func(*ownedTask)) (tasks []*task) {
	var ending []*ownedTask
	w.mu.Lock()
	for _, p := range partitions {
		if t := w.tasks[p]; t != nil {
			ending = append(ending, t)
			delete(w.tasks, p)
		}
		if p.Partition == 0 && w.watcher != nil {
			ending = append(ending, w.watcher)
			w.watcher = nil
		}
	}
	w.mu.Unlock()
	for _, t := range ending {
		how(t)
	}
	for _, t := range ending {
		<-t.done
		if t.task != nil {
			tasks = append(tasks, t.task)
		}
	}
	return tasks
}

// appendPublishedScore writes the published contract.
func (w *Worker) appendPublishedScore(dst []byte, _ []float64, s *schemas.Score) []byte {
	return s.AppendAvro(schemas.AppendFrame(dst, w.schemaIDs.score))
}

// reading runs fn with a fetcher of its own, for the watcher: it follows all partitions of the state topic, which tasks
// may be restoring from at the same time.
func (w *Worker) reading(ctx context.Context, fn func(context.Context, *consumer.Fetcher) error) error {
	return tail.With(ctx, stateFetchConfig(w.cfg, w.fetching.Metrics), w.client, w.log, fn)
}

// DriftMetrics are those that the worker counts drift in; nil where it does not.
func (w *Worker) DriftMetrics() *drift.Metrics { return w.driftMetrics }
