package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/churnstream/churnstream/internal/example"
	"github.com/churnstream/churnstream/schemas"
)

// showEvery is the pace of the table: as many lines as an eye can follow.
const showEvery = 250 * time.Millisecond

// Display prints what happens as lines, on a terminal or into a pipe alike.
type Display struct {
	mu     sync.Mutex
	out    io.Writer
	fault  error  // the first; nothing is written after it
	failed func() // called at the fault; nil: nobody wants to know
}

// NewDisplay prints to out.
func NewDisplay(out io.Writer) *Display { return &Display{out: out} }

func (d *Display) printf(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault != nil {
		return
	}
	if _, d.fault = fmt.Fprintf(d.out, format, args...); d.fault != nil && d.failed != nil {
		d.failed()
	}
}

// onFault sets what is called when the reader of the display has gone away.
func (d *Display) onFault(failed func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = failed
}

// err is the first fault of writing.
func (d *Display) err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault
}

func (d *Display) trained(t *example.Telco) {
	d.printf("trained %s@%s on %d customers; streaming the other %d\n\n%s\n", t.Model.Name(), t.Model.Version(), t.Trained, len(t.Customers), header)
}

func (d *Display) shift() {
	d.printf("\n  >>> shift: from now on everybody is on a monthly contract and pays by electronic check\n\n")
}

const header = "  customer      churn   decision   because"

// follow prints a sample of the scores and every alert until ctx ends.
func (d *Display) follow(ctx context.Context, o *observer) {
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	shown, alerts := 0, 0
	for {
		if s, total, ok := o.pick(shown); ok {
			shown = total
			d.printf("  %s\n", scoreLine(&s))
		}
		for _, a := range o.alertsFrom(alerts) {
			alerts++
			d.printf("\n  >>> drift alert %s: %s\n\n", a.State, a.Message)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func scoreLine(s *schemas.Score) string {
	decision := "retain"
	if s.Churn {
		decision = "churn"
	}
	reasons := make([]string, len(s.Reasons))
	for i, r := range s.Reasons {
		reasons[i] = fmt.Sprintf("%s %+.2f", r.Feature, r.Contribution)
	}
	return fmt.Sprintf("%-12s  %5.1f%%   %-8s   %s", s.CustomerID, 100*s.Probability, decision, strings.Join(reasons, ", "))
}
