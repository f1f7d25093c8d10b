package worker

import (
	"sync"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// workbench is what a task needs while it decodes and scores, and nobody needs while it waits. Tasks share a few of
// them, so that memory is a matter of how many work at the same time, not of how many partitions are owned.
type workbench struct {
	decoder *schemas.Decoder
	scorer  *scoring.Scorer
	rows    *schemas.Rows
	scored  []int // record of the chunk that row i came from
	results scoring.Results
	counted []drift.Event // those of the scores
	value   []byte        // encoded score or state, reused
}

// workbenches lends them. It keeps as many as work at the same time; a task that waits for the registry with one in hand
// does not hold up the others.
type workbenches struct {
	fresh func() *workbench
	keep  int

	mu   sync.Mutex
	idle []*workbench
}

func (w *workbenches) take() *workbench {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.idle)
	if n == 0 {
		return w.fresh()
	}
	b := w.idle[n-1]
	w.idle = w.idle[:n-1]
	return b
}

// giveBack takes b back, where there is one, and returns what is left of it.
func (w *workbenches) giveBack(b *workbench) *workbench {
	if b == nil {
		return nil
	}
	b.rows.Reset() // it aliases the batch, and so do these
	clear(b.counted)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.idle) < w.keep {
		w.idle = append(w.idle, b)
	}
	return nil
}
