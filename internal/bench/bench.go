// Package bench takes a worker command and a model and gives its throughput, CPU per event, memory and latency, measured
// on a broker from outside: the worker is a process of its own.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/internal/train"
	"github.com/churnstream/churnstream/internal/worker"
	"github.com/churnstream/churnstream/producer"
)

// Config says what to measure.
type Config struct {
	Worker     config.Config // brokers, registry, model and everything else that the worker is run with
	Events     int           // of the throughput part
	Rate       float64       // events a second of the latency part
	WarmUp     time.Duration // of the latency part, not measured
	Measure    time.Duration // of the latency part
	Partitions int
}

// Result is what was measured. Durations are seconds in JSON where the name says so.
type Result struct {
	Events          int     `json:"events"`
	Partitions      int     `json:"partitions"`
	Delivery        string  `json:"delivery"`
	WallSeconds     float64 `json:"wall_seconds"`      // from the start of the process to the last commit
	EventsPerSecond float64 `json:"events_per_second"` // Events / WallSeconds
	SteadyPerSecond float64 `json:"steady_events_per_second"`
	CPUMicroseconds float64 `json:"cpu_us_per_event"` // user and system time of the worker, start to last commit
	SteadyCPU       float64 `json:"steady_cpu_us_per_event"`
	PeakRSS         int64   `json:"peak_resident_bytes"`
	Scores          int     `json:"scores"`
	DeadLetters     int     `json:"dead_letters"`
	Latency         Latency `json:"latency_ms"`
}

// Latency is from the publishing of an event to the arrival of its score at a read_committed reader, in milliseconds.
type Latency struct {
	Rate  float64 `json:"rate"`
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Bench measures one configuration.
type Bench struct {
	cfg     Config
	command func(ctx context.Context, cfg config.Config) (*exec.Cmd, error)
	source  feed.Source
	report  func(format string, args ...any)
}

// New prepares a measurement. Command makes the process that runs a worker with a configuration until its context ends;
// source gives events for ever; report tells progress.
func New(cfg Config, command func(context.Context, config.Config) (*exec.Cmd, error), source feed.Source, report func(string, ...any)) *Bench {
	name := "bench-" + strconv.FormatUint(rand.Uint64(), 36)
	w := &cfg.Worker
	w.Group.ID = name
	w.Topics = config.Topics{
		Events: name + "-events", Scores: name + "-scores", DeadLetters: name + "-dead-letters",
		DriftState: name + "-drift-state", DriftAlerts: name + "-drift-alerts",
	}
	w.CreateTopics = config.CreateTopics{Enabled: true, Partitions: cfg.Partitions, ReplicationFactor: max(1, w.CreateTopics.ReplicationFactor)}
	w.Fetch.OffsetReset = "earliest"
	return &Bench{cfg: cfg, command: command, source: source, report: report}
}

// Run measures throughput on a backlog, then latency at a fixed rate, on the same worker.
func (b *Bench) Run(ctx context.Context) (Result, error) {
	result := Result{Events: b.cfg.Events, Partitions: b.cfg.Partitions, Delivery: string(b.cfg.Worker.Delivery)}
	s, err := b.open(ctx)
	if err != nil {
		return result, err
	}
	defer s.close()

	b.report("publishing a backlog of %d events", b.cfg.Events)
	if _, err := feed.Run(ctx, feed.Config{Topic: b.cfg.Worker.Topics.Events, Limit: b.cfg.Events}, s.publisher, b.source, nil); err != nil {
		return result, err
	}
	b.report("starting the worker")
	work, stopWorker := context.WithCancel(ctx)
	defer stopWorker()
	process, err := b.command(work, b.cfg.Worker)
	if err != nil {
		return result, err
	}
	if err := process.Start(); err != nil {
		return result, fmt.Errorf("start the worker: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = process.Wait() // ProcessState tells how
	}()
	defer func() {
		stopWorker()
		<-exited
	}()
	err = b.throughput(ctx, s, process.Process.Pid, exited, &result)
	if errors.Is(err, errWorkerEnded) {
		err = fmt.Errorf("%w: %s", err, process.ProcessState)
	}
	if err != nil {
		return result, err
	}
	if b.cfg.Rate > 0 {
		b.report("%.0f events/s for %v after %v of warm-up", b.cfg.Rate, b.cfg.Measure, b.cfg.WarmUp)
		if result.Latency, err = b.latency(ctx, s); err != nil {
			return result, err
		}
	}
	_, result.PeakRSS, err = sampleProcess(process.Process.Pid)
	return result, err
}

// session is what the measuring side itself keeps open.
type session struct {
	client    *kafkawire.Client
	fetcher   *consumer.Fetcher
	publisher producer.Publisher
	stop      context.CancelFunc
	group     *errgroup.Group
}

func (s *session) close() {
	s.stop()
	_ = s.group.Wait() // the fetcher ends with its context
	_ = s.publisher.Close()
	s.client.CloseIdleConnections()
}

func (b *Bench) open(ctx context.Context) (*session, error) {
	w := b.cfg.Worker
	transport, err := connect.Transport("churnstream-bench", w.Security)
	if err != nil {
		return nil, err
	}
	if _, err := connect.Probe(ctx, w.Brokers, transport, w.Security.SASL, worker.Topics(w), w.CreateTopics); err != nil {
		return nil, err
	}
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: w.Brokers, ClientID: "churnstream-bench", Transport: transport})
	if err != nil {
		return nil, err
	}
	fetcher, err := consumer.NewFetcher(consumer.DefaultFetchConfig(), client, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	publisher, err := producer.NewIdempotent(producer.DefaultConfig(), client)
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(ctx)
	g, run := errgroup.WithContext(run)
	g.Go(func() error { return fetcher.Run(run) })
	return &session{client: client, fetcher: fetcher, publisher: publisher, stop: stop, group: g}, nil
}

// sample is the progress of the worker at one moment: what it has committed and used since its start.
type sample struct {
	at   time.Duration
	done int64
	cpu  time.Duration
}

// pollEvery is how often the committed offsets are asked for: one small request, so that measuring costs nothing.
const pollEvery = 20 * time.Millisecond

// errWorkerEnded ends a measurement, which needs the worker.
var errWorkerEnded = errors.New("the worker ended before the backlog was done")

// throughput follows the committed offsets until the backlog is done. Steady figures are those between 10 % and 90 %.
func (b *Bench) throughput(ctx context.Context, s *session, pid int, exited <-chan struct{}, r *Result) error {
	started := time.Now()
	partitions := make([]consumer.TopicPartition, b.cfg.Partitions)
	for i := range partitions {
		partitions[i] = consumer.TopicPartition{Topic: b.cfg.Worker.Topics.Events, Partition: int32(i)}
	}
	samples := []sample{{}}
	for last := samples[0]; last.done < int64(b.cfg.Events); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-exited:
			return errWorkerEnded
		case <-time.After(pollEvery):
		}
		// As nobody in particular: the worker is the member, and its open transactions are not waited for.
		offsets, err := consumer.CommittedOffsets(ctx, s.client, b.cfg.Worker.Group.ID, consumer.Identity{Generation: -1}, partitions)
		if err != nil {
			return err
		}
		last = sample{at: time.Since(started)}
		for _, o := range offsets {
			last.done += max(0, o)
		}
		last.cpu, _, err = sampleProcess(pid)
		if errors.Is(err, fs.ErrNotExist) {
			<-exited
			return errWorkerEnded
		}
		if err != nil {
			return err
		}
		samples = append(samples, last)
	}
	last := samples[len(samples)-1]
	r.WallSeconds = last.at.Seconds()
	r.EventsPerSecond = float64(b.cfg.Events) / r.WallSeconds
	r.CPUMicroseconds = float64(last.cpu.Microseconds()) / float64(b.cfg.Events)
	from := samples[slices.IndexFunc(samples, func(s sample) bool { return s.done*10 >= int64(b.cfg.Events) })]
	to := samples[slices.IndexFunc(samples, func(s sample) bool { return s.done*10 >= 9*int64(b.cfg.Events) })]
	if n := to.done - from.done; n > 0 {
		r.SteadyPerSecond = float64(n) / (to.at - from.at).Seconds()
		r.SteadyCPU = float64((to.cpu - from.cpu).Microseconds()) / float64(n)
	}
	b.report("backlog done after %.2f s; counting the output", r.WallSeconds)
	var err error
	if r.Scores, err = count(ctx, s, b.cfg.Worker.Topics.Scores); err != nil {
		return err
	}
	if r.DeadLetters, err = count(ctx, s, b.cfg.Worker.Topics.DeadLetters); err != nil {
		return err
	}
	if b.cfg.Worker.Delivery == config.ExactlyOnce && r.Scores+r.DeadLetters != b.cfg.Events {
		return fmt.Errorf("%d events gave %d scores and %d dead letters: exactly-once does not hold", b.cfg.Events, r.Scores, r.DeadLetters)
	}
	return nil
}

func count(ctx context.Context, s *session, topic string) (n int, err error) {
	_, err = tail.ReadTopic(ctx, s.client, s.fetcher, topic, func(batch *consumer.Batch) error {
		n += len(batch.Records)
		return nil
	})
	return n, err
}

// latency publishes at the fixed rate and reads the scores in the same process, so that one clock times both.
func (b *Bench) latency(ctx context.Context, s *session) (Latency, error) {
	total := b.cfg.WarmUp + b.cfg.Measure
	starts, err := tail.Starts(ctx, s.client, b.cfg.Worker.Topics.Scores, consumer.Latest)
	if err != nil {
		return Latency{}, err
	}
	begin := time.Now().Add(b.cfg.WarmUp).UnixMilli()
	want := int(b.cfg.Rate * total.Seconds())
	var seen int
	var ms []float64
	readCtx, stop := context.WithTimeout(ctx, total+30*time.Second)
	defer stop()
	g, readCtx := errgroup.WithContext(readCtx)
	g.Go(func() error {
		return tail.Follow(readCtx, s.fetcher, starts, func(batch *consumer.Batch) error {
			now := float64(time.Now().UnixMicro()) / 1000
			for i := range batch.Records {
				if at := batch.Records[i].Timestamp; at >= begin {
					ms = append(ms, now-float64(at))
				}
			}
			if seen += len(batch.Records); seen >= want {
				return tail.ErrStop
			}
			return nil
		})
	})
	g.Go(func() error {
		_, err := feed.Run(readCtx, feed.Config{Topic: b.cfg.Worker.Topics.Events, Rate: b.cfg.Rate, Limit: want}, s.publisher, b.source, nil)
		return err
	})
	if err := g.Wait(); err != nil {
		return Latency{}, err
	}
	if seen < want {
		return Latency{}, errors.New("not all scores arrived within 30 s of the last event")
	}
	if len(ms) == 0 {
		return Latency{}, errors.New("no score of the measured time arrived; measure longer or at a higher rate")
	}
	slices.Sort(ms)
	return Latency{
		Rate: b.cfg.Rate, Count: len(ms),
		P50: train.Quantile(ms, 0.5), P95: train.Quantile(ms, 0.95), P99: train.Quantile(ms, 0.99), Max: train.Quantile(ms, 1),
	}, nil
}

// WriteText prints the result for people.
func (r Result) WriteText(w io.Writer) error {
	_, err := fmt.Fprintf(w, `%d events, %d partitions, %s
throughput      %10.0f events/s   (steady %.0f)
worker CPU      %10.2f µs/event   (steady %.2f)
resident memory %10.1f MB         (peak)
output          %10d scores, %d dead letters
latency at %.0f events/s, publish to read_committed reader:
                p50 %.1f ms   p95 %.1f ms   p99 %.1f ms   max %.1f ms   (%d events)
`,
		r.Events, r.Partitions, r.Delivery, r.EventsPerSecond, r.SteadyPerSecond, r.CPUMicroseconds, r.SteadyCPU,
		float64(r.PeakRSS)/1e6, r.Scores, r.DeadLetters, r.Latency.Rate, r.Latency.P50, r.Latency.P95, r.Latency.P99, r.Latency.Max, r.Latency.Count)
	return err
}
