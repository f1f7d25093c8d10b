package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// FetchError is what stops one partition until SeekTo: an error that no retry mends.
type FetchError struct {
	TopicPartition
	Err error
}

// Error names the partition and what to do where that is known.
func (e *FetchError) Error() string {
	text := fmt.Sprintf("fetch %s: %v", e.TopicPartition, e.Err)
	if errors.Is(e.Err, kafka.TopicAuthorizationFailed) {
		text += fmt.Sprintf("; grant Read and Describe on topic %q to this worker's principal", e.Topic)
	}
	return text
}

// Unwrap gives the cause.
func (e *FetchError) Unwrap() error { return e.Err }

// ResetCause says why a position had to be given up.
type ResetCause string

// The causes, as the label of a metric has them.
const (
	NotCommitted ResetCause = "not_committed" // no offset is committed; not counted as a reset
	OutOfRange   ResetCause = "out_of_range"  // deleted by retention, or beyond the end of the log
	Truncated    ResetCause = "truncated"     // records that were read are gone: the cluster lost them
	Recreated    ResetCause = "recreated"     // the topic was deleted and created again
)

// OffsetOutOfRangeError says that the policy is to fail and that reading cannot go on at Offset.
// Offset is negative where none is committed.
type OffsetOutOfRangeError struct {
	TopicPartition
	Offset int64
	Cause  ResetCause
}

// Error names the remedy.
func (e *OffsetOutOfRangeError) Error() string {
	var what string
	switch e.Cause {
	case NotCommitted:
		what = "no offset is committed"
	case Truncated:
		what = fmt.Sprintf("the log was truncated to before offset %d", e.Offset)
	case Recreated:
		what = fmt.Sprintf("the topic was deleted and created again, and offset %d was of the old one", e.Offset)
	default:
		what = fmt.Sprintf("offset %d is not in the log any more", e.Offset)
	}
	return fmt.Sprintf("fetch %s: %s and fetch.offset_reset is \"fail\"; set it to earliest or latest, or commit an offset for the group", e.TopicPartition, what)
}

// ErrClosed is returned by Next after Close or after the Fetcher's Run has ended.
var ErrClosed = errors.New("the partition is closed")

// Position is where one open partition stands.
type Position struct {
	TopicPartition
	Next             int64 // offset after the last batch handed out; -1 while it is being looked up
	HighWatermark    int64 // -1 before the first answer
	LastStableOffset int64
	Lag              int64     // offsets from Next to what can be read; -1 while unknown
	Buffered         int       // bytes prefetched
	Answered         time.Time // when a broker last answered for it, or when it was opened
	HeldSince        time.Time // since when the last stable offset is seen to stand at an open transaction; zero: there is none
	Err              error     // why the partition stands still
}

// Fetcher reads open partitions. Per leader, one request carries all its partitions and waits at
// the broker; a second one serves partitions that become ready while the first is waiting.
type Fetcher struct {
	cfg     FetchConfig
	client  *kafkawire.Client
	log     zerolog.Logger
	metrics *Metrics
	memory  *memory
	open    atomic.Int32
	brokers atomic.Int32      // that lanes were started for
	wake    chan struct{}     // pokes the router
	leaders map[int32]*leader // of the router's goroutine

	mu         sync.Mutex
	partitions map[*Partition]struct{}
	unrouted   []*Partition
	ended      bool
}

// NewFetcher checks cfg.
func NewFetcher(cfg FetchConfig, client *kafkawire.Client, log zerolog.Logger) (*Fetcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	return &Fetcher{
		cfg: cfg, client: client, log: log, metrics: cfg.Metrics,
		memory:     newMemory(cfg),
		wake:       make(chan struct{}, 1),
		partitions: map[*Partition]struct{}{},
		leaders:    map[int32]*leader{},
	}, nil
}

// Open starts reading tp at offset; a negative one is found by the OffsetReset policy. It does not
// block. A partition may be open once at a time.
func (f *Fetcher) Open(tp TopicPartition, offset int64) *Partition {
	p := &Partition{
		TopicPartition: tp, fetcher: f, notify: make(chan struct{}, 1),
		offset: offset, position: max(offset, -1), highWatermark: -1, lastStable: -1,
		lastEpoch: -1, leaderEpoch: -1, replica: noReplica, answered: time.Now(),
	}
	if offset < 0 {
		p.offset, p.err = f.resetOffset(tp, offset, NotCommitted)
		if p.err != nil {
			p.phase = failed
		}
	}
	unrouted := p.phase == routing
	f.open.Add(1)
	f.mu.Lock()
	f.partitions[p] = struct{}{}
	ended := f.ended
	f.mu.Unlock()
	if ended {
		p.end()
	} else if unrouted {
		f.route(p)
	}
	return p
}

// resetOffset is the special offset that stands for the policy.
func (f *Fetcher) resetOffset(tp TopicPartition, offset int64, cause ResetCause) (int64, error) {
	switch f.cfg.OffsetReset {
	case ResetEarliest:
		return Earliest, nil
	case ResetLatest:
		return Latest, nil
	default:
		return offset, &OffsetOutOfRangeError{tp, offset, cause}
	}
}

// Positions reports every open partition, sorted by name.
func (f *Fetcher) Positions() []Position {
	f.mu.Lock()
	open := make([]*Partition, 0, len(f.partitions))
	for p := range f.partitions {
		open = append(open, p)
	}
	f.mu.Unlock()
	report := make([]Position, len(open))
	for i, p := range open {
		report[i] = p.report()
	}
	slices.SortFunc(report, func(a, b Position) int { return compareTopicPartitions(a.TopicPartition, b.TopicPartition) })
	return report
}

// Run fetches until ctx ends and returns nil; Next then returns ErrClosed. Whatever goes wrong with
// a partition is retried or returned by its Next.
func (f *Fetcher) Run(ctx context.Context) error {
	var lanes sync.WaitGroup
	defer func() {
		lanes.Wait()
		f.mu.Lock()
		f.ended = true
		open := make([]*Partition, 0, len(f.partitions))
		for p := range f.partitions {
			open = append(open, p)
		}
		f.mu.Unlock()
		for _, p := range open {
			p.end()
		}
	}()
	r := router{Fetcher: f, start: func(l *leader) {
		lanes.Go(func() { l.run(ctx, longLane) })
		lanes.Go(func() { l.run(ctx, shortLane) })
	}}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(r.pass(ctx))
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		case <-timer.C:
		}
	}
}

// route gives p to the router's goroutine.
func (f *Fetcher) route(p *Partition) {
	f.mu.Lock()
	f.unrouted = append(f.unrouted, p)
	f.mu.Unlock()
	poke(f.wake)
}

// lendScratch gives a decoder whose batches are of a size that the open partitions can all have.
func (f *Fetcher) lendScratch() *scratch {
	s := f.memory.lendScratch()
	decoded := f.cfg.share(int(f.open.Load())) / 4 * 3
	s.decoder.configure(DecoderConfig{
		Isolation: f.cfg.Isolation, MaxBatchBytes: f.cfg.MaxBatchBytes,
		MaxBytes: decoded, MaxRecords: max(decoded/recordSize, leastRecords),
	}, f.memory.zstd)
	return s
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func compareTopicPartitions(a, b TopicPartition) int {
	switch {
	case a.Topic < b.Topic:
		return -1
	case a.Topic > b.Topic:
		return 1
	}
	return int(a.Partition) - int(b.Partition)
}
