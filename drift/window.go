package drift

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/churnstream/churnstream/schemas"
)

// WindowConfig is the shape of event time: rings of equal buckets, finest first, and how far back one looks.
type WindowConfig struct {
	Rings []RingConfig
	// Horizons are the lengths of the windows that are judged, shortest first. A window begins at the start of a bucket,
	// so one of coarse buckets is up to a bucket shorter.
	Horizons []time.Duration
	// Ahead is how far an event's time may lie after the clock that it is compared with. An event further ahead carries
	// an absurd timestamp: it would push all honest ones out of the rings.
	Ahead time.Duration
}

// RingConfig is one ring of buckets.
type RingConfig struct {
	Width   time.Duration // of a bucket: whole seconds; a multiple of the finer ring's
	Buckets int
}

// DefaultWindowConfig is 60 minutes, 24 hours and 7 days, horizons from 10 minutes to 7 days, and five minutes of clock
// skew, all of it scaled so that the finest bucket is not a minute but as wide as told.
func DefaultWindowConfig(finest time.Duration) WindowConfig {
	return WindowConfig{
		Rings:    []RingConfig{{finest, 60}, {60 * finest, 24}, {1440 * finest, 7}},
		Horizons: []time.Duration{10 * finest, 60 * finest, 360 * finest, 1440 * finest, 10_080 * finest},
		Ahead:    5 * time.Minute,
	}
}

// Validate reports all faults at once.
func (c WindowConfig) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if n := len(c.Rings); n < 1 || n > 8 {
		fault("drift.rings: %d of them, not between 1 and 8", n)
	}
	for i, r := range c.Rings {
		if r.Width < time.Second || r.Width%time.Second != 0 || r.Width > 60*24*time.Hour {
			fault("drift.bucket: %v is not a whole number of seconds from 1s to 60 days, for example 1m", r.Width)
		}
		if r.Buckets < 2 || r.Buckets > 1440 {
			fault("drift.buckets: %d is not between 2 and 1440, for example 60", r.Buckets)
		}
		if i > 0 && (r.Width <= c.Rings[i-1].Width || c.Rings[i-1].Width > 0 && r.Width%c.Rings[i-1].Width != 0) {
			fault("drift.rings: a bucket of %v is not made of buckets of %v", r.Width, c.Rings[i-1].Width)
		}
	}
	if len(c.Horizons) == 0 || !slices.IsSorted(c.Horizons) || c.Horizons[0] <= 0 {
		fault("drift.horizons: %v are not ascending lengths, for example 10m, 1h", c.Horizons)
	}
	if c.Ahead < 0 {
		fault("drift.ahead: %v is negative, for example 5m", c.Ahead)
	}
	return errors.Join(faults...)
}

// finest is the width of the finest bucket in ms.
func (c WindowConfig) finest() int64 { return c.Rings[0].Width.Milliseconds() }

// level is the ring whose buckets are so many seconds wide, -1 if there is none.
func (c WindowConfig) level(seconds int32) int {
	return slices.IndexFunc(c.Rings, func(r RingConfig) bool { return r.Width == time.Duration(seconds)*time.Second })
}

// noBucket is the start of a bucket that is not there. It is far below every event time, yet differences with it do
// not overflow.
const noBucket = math.MinInt64 / 4

// align is the start of the bucket that holds t.
func align(t, width int64) int64 {
	start := t - t%width
	if t < start {
		start -= width
	}
	return start
}

// bucket holds the absolute counts of one event-time bucket of one partition. An event is in one bucket only: in the
// finest that the rings hold for its time. A bucket that falls off its ring is absorbed by the coarser one around it.
type bucket struct {
	start    int64 // ms, a multiple of the width; noBucket if empty
	next     int64 // events of the partition with a lower offset are counted already
	absorbed int64 // finer buckets inside this one that start before it are in its counts
	leaving  bool  // falls off its ring with the pending commit
	cells    *cells
}

// ring is one of the rings; a bucket's slot follows from its start alone.
type ring struct {
	width int64 // ms
	slots []bucket
}

func (r *ring) slot(start int64) *bucket {
	i := start / r.width % int64(len(r.slots))
	if i < 0 {
		i += int64(len(r.slots))
	}
	return &r.slots[i]
}

// oldest is the start of the oldest bucket of the ring when the newest event time is in the finest bucket newest.
func (r *ring) oldest(newest int64) int64 {
	return align(newest, r.width) - int64(len(r.slots)-1)*r.width
}

// rings hold the newest buckets of one partition, finest first.
type rings struct {
	profile *Profile
	newest  int64 // start of the newest of the finest buckets; noBucket before the first
	levels  []ring
}

func newRings(cfg WindowConfig, profile *Profile) rings {
	r := rings{profile: profile, newest: noBucket, levels: make([]ring, len(cfg.Rings))}
	for level, c := range cfg.Rings {
		r.levels[level] = ring{width: c.Width.Milliseconds(), slots: make([]bucket, c.Buckets)}
		for i := range r.levels[level].slots {
			r.levels[level].slots[i].start = noBucket
		}
	}
	return r
}

// level is the finest ring that holds t when newest is the newest bucket, -1 if none does.
func (r *rings) level(t, newest int64) int {
	for level := range r.levels {
		l := &r.levels[level]
		if align(t, l.width) >= l.oldest(newest) {
			return level
		}
	}
	return -1
}

// find returns the bucket of a level that holds t, nil if the ring does not have it.
func (r *rings) find(level int, t int64) *bucket {
	l := &r.levels[level]
	start := align(t, l.width)
	if b := l.slot(start); b.start == start {
		return b
	}
	return nil
}

// counted is the offset below which events of time t are counted: the furthest of all buckets that hold t.
func (r *rings) counted(t int64) (next int64) {
	for level := range r.levels {
		if b := r.find(level, t); b != nil {
			next = max(next, b.next)
		}
	}
	return next
}

// enter returns the bucket of a level that starts at start, emptied if another one was in its place.
func (r *rings) enter(level int, start int64) *bucket {
	b := r.levels[level].slot(start)
	if b.start != start {
		if b.cells == nil {
			b.cells = newCells(r.profile)
		}
		b.cells.reset()
		b.start, b.next, b.absorbed, b.leaving = start, 0, 0, false
	}
	return b
}

// adopt takes over the absolute counts of a state that has been checked; of two states of one bucket the one that counted
// further wins. It calls gone for every bucket, by level and start, whose record says nothing any more: because it is older
// than its ring, or because a coarser bucket has absorbed it.
func (r *rings) adopt(level int, state *schemas.DriftState, gone func(level int, start int64)) {
	start, width := state.BucketStart, r.levels[level].width
	r.newest = max(r.newest, start) // of the finest ring: the start of any bucket is one of its starts
	for coarser := level + 1; coarser < len(r.levels); coarser++ {
		if b := r.find(coarser, start); b != nil && start < b.absorbed {
			gone(level, start)
			return
		}
	}
	at := r.levels[level].slot(start)
	if at.start > start {
		gone(level, start)
		return
	}
	if at.start != noBucket && at.start < start {
		gone(level, at.start)
	}
	b := r.enter(level, start)
	if state.NextOffset < b.next {
		return
	}
	b.next, b.absorbed = state.NextOffset, state.AbsorbedUntil
	b.cells.take(state)
	for finer := range level {
		for i := range r.levels[finer].slots {
			if f := &r.levels[finer].slots[i]; f.start >= start && f.start < min(start+width, b.absorbed) {
				gone(finer, f.start)
				f.start = noBucket
			}
		}
	}
}

// take fills the cells with what a checked state holds.
func (c *cells) take(state *schemas.DriftState) {
	c.reset()
	to := c.counts[:0]
	for _, counts := range state.Counts {
		to = append(to, counts...)
	}
	to = append(to, state.Groups[:]...)
	to = append(to, state.SegmentGroups...)
	copy(c.counts[len(to):], state.ClassEvents)
	for i := range len(state.Moments) / momentFields {
		m := state.Moments[i*momentFields:]
		c.moments[i] = Moments{Sum: m[0], Squares: m[1], Minimum: m[2], Maximum: m[3]}
	}
}

// momentFields are the numbers of Moments on the wire.
const momentFields = 4
