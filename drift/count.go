package drift

import (
	"fmt"
	"math"

	"github.com/churnstream/churnstream/schemas"
)

// Count counts a population that is at hand as a whole, such as a file, into one window. It is not safe for concurrent
// use.
type Count struct {
	profile    *Profile
	counter    *counter
	cells      *cells
	window     *Window
	finder     classFinder
	first, end int64
	keyed      bool
}

// NewCount returns an empty count. The profile's inputs must be the contract's.
func NewCount(profile *Profile, contract schemas.Contract) (*Count, error) {
	counter, err := newCounter(profile, contract)
	if err != nil {
		return nil, fmt.Errorf("count a population: %w", err)
	}
	return &Count{
		profile: profile, counter: counter, cells: newCells(profile), window: profile.newWindow(0, 0),
		finder: newClassFinder(profile.Classes), first: math.MaxInt64, end: math.MinInt64,
	}, nil
}

// Observe counts one row: its time in ms since the epoch, 0 where it has none, its customer (nil or empty: not known), its
// inputs and the model's probability.
func (c *Count) Observe(time int64, key []byte, numbers []float64, categories [][]byte, probability float64) {
	e := Event{Numbers: numbers, Categories: categories, Probability: probability, group: groupOf(key), class: noClass}
	c.keyed = c.keyed || len(key) > 0
	if time > 0 {
		e.class = c.finder.at(time)
	}
	c.counter.count(c.cells, []Event{e})
	c.first, c.end = min(c.first, time), max(c.end, time+1)
	if c.window.Events++; c.window.Events%(1<<31) == 0 {
		c.flush()
	}
}

// Window is what was counted so far.
func (c *Count) Window() *Window {
	c.flush()
	if c.window.Events > 0 {
		c.window.Start, c.window.End, c.window.Partitions = c.first, c.end, 1
	}
	return c.window
}

// Keyed says whether any row named its customer. Without, every row is counted as another one, and a design effect that
// there may be is not seen.
func (c *Count) Keyed() bool { return c.keyed }

func (c *Count) flush() {
	c.window.addCells(c.cells, c.profile.places)
	c.cells.reset()
}
