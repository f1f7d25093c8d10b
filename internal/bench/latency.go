package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/internal/train"
)

// Load is a stream of events at a fixed rate, and where the answers come.
type Load struct {
	Events, Scores string // topics, both empty
	Rate           float64
	WarmUp         time.Duration // from the start of the processes on, not measured
	Measure        time.Duration
	Source         feed.Source
	BrokerPID      int // of a broker on this machine; 0: its CPU time is not measured
	// Sent gives the time of publishing, in ms since 1970, that a score carries from its event. Nil takes the timestamp
	// of the record.
	Sent func(score *consumer.Record) (int64, error)
}

// Latency is from the publishing of an event to the arrival of its score at a read_committed reader, in milliseconds.
type Latency struct {
	Rate  float64 `json:"rate"`
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
	// While it was measured: CPU time of the processes and of the broker (0 where that was not asked for), the peak of
	// their resident memory, and what the rest of the machine used.
	CPU        float64 `json:"cpu_us_per_event"`
	BrokerCPU  float64 `json:"broker_cpu_us_per_event"`
	PeakMemory int64   `json:"peak_resident_bytes"`
	OtherCores float64 `json:"other_cores"`
}

// patience is how long scores may stay out after the last event.
const patience = 30 * time.Second

// Latency runs the commands, which share the events, publishes at the rate and reads the scores in this same process, so
// that one clock times both.
func (s *Session) Latency(interrupt context.Context, l Load, commands ...*exec.Cmd) (Latency, error) {
	if l.Sent == nil {
		l.Sent = func(r *consumer.Record) (int64, error) { return r.Timestamp, nil }
	}
	starts, err := tail.Starts(interrupt, s.client, l.Scores, consumer.Earliest)
	if err != nil {
		return Latency{}, err
	}
	p, err := start(commands...)
	if err != nil {
		return Latency{}, err
	}
	defer p.stop(interrupt)
	total := l.WarmUp + l.Measure
	begin := time.Now().Add(l.WarmUp)
	want := int(l.Rate * total.Seconds())
	var seen int
	var ms []float64
	var used usage
	ctx, stop := context.WithTimeoutCause(interrupt, total+patience, fmt.Errorf("not all scores arrived within %v of the last event", patience))
	defer stop()
	work, done := context.WithCancel(ctx)
	defer done()
	g, work := errgroup.WithContext(work)
	g.Go(func() error {
		defer done()
		return tail.Follow(work, s.fetcher, starts, func(batch *consumer.Batch) error {
			now := float64(time.Now().UnixMicro()) / 1000
			for i := range batch.Records {
				at, err := l.Sent(&batch.Records[i])
				if err != nil {
					return err
				}
				if at >= begin.UnixMilli() {
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
		_, err := feed.Run(work, feed.Config{Topic: l.Events, Rate: l.Rate, Limit: want}, s.publisher, l.Source, nil)
		return err
	})
	g.Go(func() error {
		select {
		case <-work.Done():
			return nil
		case <-p.exited:
			return p.ended()
		case <-time.After(time.Until(begin)):
		}
		before, err := p.use(l.BrokerPID)
		if err != nil {
			return err
		}
		select {
		case <-work.Done():
		case <-p.exited:
			return p.ended()
		}
		after, err := p.use(l.BrokerPID)
		used = after.since(before)
		return err
	})
	if err := g.Wait(); err != nil {
		return Latency{}, err
	}
	if seen < want {
		return Latency{}, context.Cause(ctx)
	}
	if len(ms) == 0 {
		return Latency{}, errors.New("no score of the measured time arrived; measure longer or at a higher rate")
	}
	slices.Sort(ms)
	return Latency{
		Rate: l.Rate, Count: len(ms),
		P50: train.Quantile(ms, 0.5), P95: train.Quantile(ms, 0.95), P99: train.Quantile(ms, 0.99), Max: train.Quantile(ms, 1),
		CPU: perEvent(used.processes, len(ms)), BrokerCPU: perEvent(used.broker, len(ms)),
		PeakMemory: used.peak, OtherCores: used.otherCores(),
	}, nil
}
