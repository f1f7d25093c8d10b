// Package bench takes a worker command and a model and gives its throughput, CPU per event, memory and latency, measured
// on a broker from outside: each program under measurement is a process of its own.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/internal/train"
	"github.com/churnstream/churnstream/internal/worker"
)

// Config says what to measure.
type Config struct {
	Worker     config.Config // brokers, registry, model and everything else that the worker is run with
	Events     int           // of the throughput part; 0: none
	Rounds     int           // of the throughput part
	Compare    bool          // run the other programs, too, one after the other in each round
	Rate       float64       // events a second of the latency part; 0: none
	WarmUp     time.Duration // of the latency part, not measured
	Measure    time.Duration // of the latency part
	Workers    int           // processes of the latency part, at least 1
	Partitions int
	BrokerPID  int // of a broker on this machine; 0: its CPU time is not measured
}

// ErrInterrupted is the end of a measurement whose context ended first.
var ErrInterrupted = errors.New("interrupted before everything was measured")

// Program is something that reads the events' topic and writes the scores' one.
type Program string

// The programs.
const (
	Worker      Program = "worker"
	PassThrough Program = "pass-through"
	PlainLoop   Program = "kafka-go"
)

// Result is what was measured.
type Result struct {
	Events      int             `json:"events"`
	Partitions  int             `json:"partitions"`
	Delivery    string          `json:"delivery"`
	Workers     int             `json:"workers"`  // of the latency part
	Programs    []ProgramResult `json:"programs"` // the worker first
	Scores      int             `json:"scores"`   // of the worker's last round
	DeadLetters int             `json:"dead_letters"`
	Latency     *Latency        `json:"latency_ms,omitempty"` // of the worker
}

// ProgramResult is one program's part.
type ProgramResult struct {
	Program Program      `json:"program"`
	Rounds  []Throughput `json:"rounds"`
	Median  Throughput   `json:"median"` // of each figure by itself
	// Ratio is the worker's steady rate to this program's, the median over the rounds.
	Ratio float64 `json:"worker_ratio"`
}

// Bench measures one configuration.
type Bench struct {
	cfg     Config
	command func(context.Context, Program, config.Config) (*exec.Cmd, error)
	source  feed.Source
	report  func(format string, args ...any)
	name    string // of this measurement: prefix of its topics and groups
}

// New prepares a measurement. Command makes the process that runs a program with a configuration until its context
// ends; source gives events for ever; report tells progress.
func New(cfg Config, command func(context.Context, Program, config.Config) (*exec.Cmd, error), source feed.Source, report func(string, ...any)) *Bench {
	w := &cfg.Worker
	w.CreateTopics = config.CreateTopics{Enabled: true, Partitions: cfg.Partitions, ReplicationFactor: max(1, w.CreateTopics.ReplicationFactor)}
	w.Fetch.OffsetReset = "earliest"
	cfg.Rounds, cfg.Workers = max(1, cfg.Rounds), max(1, cfg.Workers)
	return &Bench{cfg: cfg, command: command, source: source, report: report, name: "bench-" + strconv.FormatUint(rand.Uint64(), 36)}
}

// Run measures throughput on a backlog, round after round, then the worker's latency at a fixed rate. When ctx ends
// before that is done, it ends within two seconds with ErrInterrupted.
func (b *Bench) Run(ctx context.Context) (Result, error) {
	result, err := b.measure(ctx)
	if err != nil && ctx.Err() != nil { // whatever broke then, broke by that
		return result, ErrInterrupted
	}
	return result, err
}

func (b *Bench) measure(ctx context.Context) (result Result, err error) {
	result = Result{Events: b.cfg.Events, Partitions: b.cfg.Partitions, Delivery: string(b.cfg.Worker.Delivery), Workers: b.cfg.Workers}
	s, err := Open(ctx, b.cfg.Worker.Brokers, b.cfg.Worker.Security)
	if err != nil {
		return result, err
	}
	defer s.Close()
	if b.cfg.Events > 0 {
		if err := b.throughput(ctx, s, &result); err != nil {
			return result, err
		}
	}
	if b.cfg.Rate > 0 {
		b.report("%.0f events/s for %v after %v of warm-up", b.cfg.Rate, b.cfg.Measure, b.cfg.WarmUp)
		if result.Latency, err = b.latency(ctx, s); err != nil {
			return result, err
		}
	}
	return result, nil
}

func (b *Bench) throughput(ctx context.Context, s *Session, result *Result) (err error) {
	events := b.name + "-events"
	if err := s.CreateTopics(ctx, b.cfg.Worker.CreateTopics, connect.TopicSpec{Name: events, Key: "topics.events"}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Discard(ctx, events)) }()
	b.report("publishing a backlog of %d events", b.cfg.Events)
	if err := s.Fill(ctx, events, b.cfg.Events, b.source); err != nil {
		return err
	}
	for _, program := range b.programs() {
		result.Programs = append(result.Programs, ProgramResult{Program: program})
	}
	for round := range b.cfg.Rounds {
		for i := range result.Programs {
			p := &result.Programs[i]
			t, err := b.drain(ctx, s, p.Program, events, round, result)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", p.Program, round+1, err)
			}
			p.Rounds = append(p.Rounds, t)
		}
	}
	for i := range result.Programs {
		result.Programs[i].summarise(result.Programs[0].Rounds)
	}
	return nil
}

func (b *Bench) programs() []Program {
	if b.cfg.Compare {
		return []Program{Worker, PassThrough, PlainLoop}
	}
	return []Program{Worker}
}

// drain is one run of one program, with a group and topics of its own beside the events.
func (b *Bench) drain(ctx context.Context, s *Session, program Program, events string, round int, result *Result) (t Throughput, err error) {
	cfg := b.named(fmt.Sprintf("%s-%s-%d", b.name, program, round+1))
	cfg.Topics.Events = events
	if err := s.CreateTopics(ctx, cfg.CreateTopics, worker.Topics(cfg)...); err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, s.Discard(ctx, outputs(cfg)...)) }()
	command, err := b.command(ctx, program, cfg)
	if err != nil {
		return t, err
	}
	t, err = s.Drain(ctx, command, Backlog{
		Topic: events, Partitions: b.cfg.Partitions, Events: b.cfg.Events, Group: cfg.Group.ID, BrokerPID: b.cfg.BrokerPID,
	})
	if err != nil {
		return t, err
	}
	b.report("round %d, %s: done after %.2f s, %.0f events/s steady; counting the output", round+1, program, t.WallSeconds, t.SteadyPerSecond)
	scores, err := s.Count(ctx, cfg.Topics.Scores)
	if err != nil {
		return t, err
	}
	deadLetters, err := s.Count(ctx, cfg.Topics.DeadLetters)
	if err != nil {
		return t, err
	}
	if program == Worker {
		result.Scores, result.DeadLetters = scores, deadLetters
	}
	once := cfg.Delivery == config.ExactlyOnce && program != PlainLoop
	if out := scores + deadLetters; out < b.cfg.Events || once && out > b.cfg.Events {
		return t, fmt.Errorf("%d events gave %d records and %d dead letters: %s does not hold", b.cfg.Events, scores, deadLetters, cfg.Delivery)
	}
	return t, nil
}

// named is the worker's configuration with a group and topics of its own.
func (b *Bench) named(name string) config.Config {
	cfg := b.cfg.Worker
	cfg.Group.ID = name
	cfg.Topics = config.Topics{
		Events: name + "-events", Scores: name + "-scores", DeadLetters: name + "-dead-letters",
		DriftState: name + "-drift-state", DriftAlerts: name + "-drift-alerts",
	}
	return cfg
}

func outputs(cfg config.Config) []string {
	var names []string
	for _, spec := range worker.Topics(cfg) {
		if spec.Name != cfg.Topics.Events {
			names = append(names, spec.Name)
		}
	}
	return names
}

func (b *Bench) latency(ctx context.Context, s *Session) (_ *Latency, err error) {
	cfg := b.named(b.name + "-latency")
	topics := worker.Topics(cfg)
	if err := s.CreateTopics(ctx, cfg.CreateTopics, topics...); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, s.Discard(ctx, append(outputs(cfg), cfg.Topics.Events)...))
	}()
	commands := make([]*exec.Cmd, b.cfg.Workers)
	for i := range commands {
		if commands[i], err = b.command(ctx, Worker, cfg); err != nil {
			return nil, err
		}
	}
	l, err := s.Latency(ctx, Load{
		Events: cfg.Topics.Events, Scores: cfg.Topics.Scores,
		Rate: b.cfg.Rate, WarmUp: b.cfg.WarmUp, Measure: b.cfg.Measure, Source: b.source, BrokerPID: b.cfg.BrokerPID,
	}, commands...)
	return &l, err
}

// summarise takes the medians.
func (p *ProgramResult) summarise(worker []Throughput) {
	p.Median = Median(p.Rounds)
	ratios := make([]float64, 0, len(worker))
	for i, round := range p.Rounds {
		if rate := cmp.Or(round.SteadyPerSecond, round.EventsPerSecond); rate > 0 {
			ratios = append(ratios, cmp.Or(worker[i].SteadyPerSecond, worker[i].EventsPerSecond)/rate)
		}
	}
	p.Ratio = median(ratios)
}

// Median takes the median of each figure by itself.
func Median(rounds []Throughput) Throughput {
	of := func(figure func(t *Throughput) float64) float64 {
		values := make([]float64, len(rounds))
		for i := range rounds {
			values[i] = figure(&rounds[i])
		}
		return median(values)
	}
	return Throughput{
		WallSeconds:     of(func(t *Throughput) float64 { return t.WallSeconds }),
		EventsPerSecond: of(func(t *Throughput) float64 { return t.EventsPerSecond }),
		SteadyPerSecond: of(func(t *Throughput) float64 { return t.SteadyPerSecond }),
		CPU:             of(func(t *Throughput) float64 { return t.CPU }),
		SteadyCPU:       of(func(t *Throughput) float64 { return t.SteadyCPU }),
		BrokerCPU:       of(func(t *Throughput) float64 { return t.BrokerCPU }),
		PeakMemory:      int64(of(func(t *Throughput) float64 { return float64(t.PeakMemory) })),
		OtherCores:      of(func(t *Throughput) float64 { return t.OtherCores }),
	}
}

// median is 0 where there is nothing.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return train.Quantile(values, 0.5)
}

// WriteText prints the result for people.
func (r Result) WriteText(w io.Writer) error {
	if len(r.Programs) > 0 {
		fmt.Fprintf(w, "%d events, %d partitions, %s, medians of %d rounds\n", r.Events, r.Partitions, r.Delivery, len(r.Programs[0].Rounds))
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "\tevents/s\tsteady\tCPU µs/event\tsteady\tbroker µs/event\tmemory MB\tother cores\tworker is\t")
		for _, p := range r.Programs {
			m := p.Median
			fmt.Fprintf(table, "%s\t%.0f\t%.0f\t%.2f\t%.2f\t%s\t%.0f\t%.2f\t%.2f x\t\n", p.Program, m.EventsPerSecond, m.SteadyPerSecond,
				m.CPU, m.SteadyCPU, brokerCPU(m.BrokerCPU), float64(m.PeakMemory)/1e6, m.OtherCores, p.Ratio)
		}
		if err := table.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(w, "worker's output: %d scores, %d dead letters\n", r.Scores, r.DeadLetters)
	}
	if l := r.Latency; l != nil {
		fmt.Fprintf(w, "latency at %.0f events/s, publish to read_committed reader: p50 %.1f ms, p95 %.1f ms, p99 %.1f ms, max %.1f ms (%d events)\n",
			l.Rate, l.P50, l.P95, l.P99, l.Max, l.Count)
		fmt.Fprintf(w, "meanwhile, %d partitions, %s: %d workers %.1f µs/event, %.0f MB; broker %s µs/event; other cores %.2f\n", r.Partitions, r.Delivery,
			r.Workers, l.CPU, float64(l.PeakMemory)/1e6, brokerCPU(l.BrokerCPU), l.OtherCores)
	}
	return nil
}

// brokerCPU is "-" where it was not measured.
func brokerCPU(perEvent float64) string {
	if perEvent == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", perEvent)
}
