package drift

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// WindowConfig is the shape of the event-time window: a ring of equal buckets.
type WindowConfig struct {
	Bucket  time.Duration // whole seconds, up to a day
	Buckets int           // the window is Bucket × Buckets long
	// Ahead is how far an event's time may lie after the clock that it is compared with. An event further ahead carries
	// an absurd timestamp: it would push all honest ones out of the window.
	Ahead time.Duration
}

// DefaultWindowConfig is the last hour by minutes, with five minutes of clock skew.
func DefaultWindowConfig() WindowConfig {
	return WindowConfig{Bucket: time.Minute, Buckets: 60, Ahead: 5 * time.Minute}
}

// Validate reports all faults at once.
func (c WindowConfig) Validate() error {
	var faults []error
	if c.Bucket < time.Second || c.Bucket > 24*time.Hour || c.Bucket%time.Second != 0 {
		faults = append(faults, fmt.Errorf("drift.bucket: %v is not a whole number of seconds up to a day, for example 1m", c.Bucket))
	}
	if c.Buckets < 2 || c.Buckets > 1440 {
		faults = append(faults, fmt.Errorf("drift.buckets: %d is not between 2 and 1440, for example 60", c.Buckets))
	}
	if c.Ahead < 0 {
		faults = append(faults, fmt.Errorf("drift.ahead: %v is negative, for example 5m", c.Ahead))
	}
	return errors.Join(faults...)
}

// widthMillis and widthSeconds are the bucket's width in the units of timestamps and of drift states.
func (c WindowConfig) widthMillis() int64  { return c.Bucket.Milliseconds() }
func (c WindowConfig) widthSeconds() int32 { return int32(c.Bucket / time.Second) }

// noBucket is the start of a bucket that is not there. It is far below every event time, yet differences with it do
// not overflow.
const noBucket = math.MinInt64 / 4

// bucket holds the absolute counts of one event-time bucket of one partition.
type bucket struct {
	start int64    // ms, a multiple of the width; noBucket if empty
	next  int64    // events of the partition with a lower offset are counted already
	cells []uint32 // one a place of the profile, then one a customer group
}

// ring holds the newest buckets of one partition. A bucket's slot follows from its start alone.
type ring struct {
	width  int64 // ms
	newest int64 // start of the newest bucket; noBucket before the first
	slots  []bucket
}

func newRing(cfg WindowConfig) ring {
	r := ring{width: cfg.widthMillis(), newest: noBucket, slots: make([]bucket, cfg.Buckets)}
	for i := range r.slots {
		r.slots[i].start = noBucket
	}
	return r
}

// align is the start of the bucket that holds t.
func align(t, width int64) int64 {
	start := t - t%width
	if t < start {
		start -= width
	}
	return start
}

// oldest is the start of the oldest bucket that is still in the window whose newest bucket is given.
func (r *ring) oldest(newest int64) int64 { return newest - int64(len(r.slots)-1)*r.width }

func (r *ring) slot(start int64) *bucket {
	i := start / r.width % int64(len(r.slots))
	if i < 0 {
		i += int64(len(r.slots))
	}
	return &r.slots[i]
}

// find returns the bucket that starts at start, nil if the ring does not hold it.
func (r *ring) find(start int64) *bucket {
	if b := r.slot(start); b.start == start {
		return b
	}
	return nil
}

// enter returns the bucket that starts at start, making place for it, with cells of the given number. It returns nil
// if the bucket is older than the window.
func (r *ring) enter(start int64, cells int) *bucket {
	if start < r.oldest(r.newest) {
		return nil
	}
	r.newest = max(r.newest, start)
	b := r.slot(start)
	if b.start != start {
		if b.cells == nil {
			b.cells = make([]uint32, cells)
		}
		clear(b.cells)
		b.start, b.next = start, 0
	}
	return b
}
