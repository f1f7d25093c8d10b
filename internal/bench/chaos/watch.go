package main

import (
	"context"
	"sync"
	"time"
)

// watch looks at the group's committed offsets and finds when every partition has gone on after a fault.
type watch struct {
	round *round

	mu      sync.Mutex
	seen    map[int32]int64 // committed
	waiting []*expectation
}

// expectation is a fault that is over, with where the partitions were then.
type expectation struct {
	fault  *fault
	waited time.Duration // while the group's coordinator answered: how long a broker takes to start is not the product's
	from   map[int32]int64
}

const (
	lookEvery    = 200 * time.Millisecond
	stuckAfter   = 100 * time.Second // without progress of a partition that has events
	notRecovered = -1
)

// expect notes that a fault is over.
func (w *watch) expect(f *fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f.done, f.recovered = true, notRecovered
	w.waiting = append(w.waiting, &expectation{f, 0, w.seen})
}

// run looks until ctx ends. Events are fed all the time, so that a partition that stands still is one that waits.
func (w *watch) run(ctx context.Context) error {
	last := time.Now()
	for ctx.Err() == nil {
		pause(ctx, lookEvery)
		since := time.Since(last)
		last = last.Add(since)
		now, err := w.round.brokers.committed(ctx, w.round.name, w.round.cfg.Topics.Events, 2*w.round.settings.partitions)
		if err != nil {
			continue // its coordinator is on the move
		}
		w.mu.Lock()
		w.seen = now
		kept := w.waiting[:0]
		for _, e := range w.waiting {
			behind := false
			for p, offset := range e.from {
				behind = behind || now[p] <= offset
			}
			e.waited += since
			switch {
			case !behind:
				e.fault.recovered = e.waited
			case e.waited < stuckAfter:
				kept = append(kept, e)
			default:
				w.round.stuck("no commit of every partition within %s after: %s", stuckAfter, e.fault.kind.name)
			}
		}
		w.waiting = kept
		w.mu.Unlock()
	}
	return nil
}

// settled says that no fault waits any more.
func (w *watch) settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting) == 0
}
