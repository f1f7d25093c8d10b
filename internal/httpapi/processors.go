package httpapi

import (
	"runtime"
	"sync"
	"time"
)

// processors lets as many compute at once as there are processors. The others wait here in their order and not in the
// scheduler of the runtime, where nobody can see how long it will take: so a request that would wait too long is refused
// at once, and one that has only to be read or refused passes those that wait. It is safe for concurrent use.
type processors struct {
	limit   int
	longest time.Duration // that a request may have to wait
	now     func() time.Time

	mu      sync.Mutex
	busy    int
	waiting []waiter
	held    time.Duration // a place, on the average of the last ones
}

// waiter waits for a place.
type waiter struct {
	turn      chan bool // has room for the answer
	since     time.Time
	refusable bool
}

func newProcessors(limit int, longest time.Duration) *processors {
	return &processors{limit: limit, longest: longest, now: time.Now}
}

// late says whether who comes now would wait too long.
func (p *processors) late() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lateLocked()
}

// lateLocked knows by the places before one, and where these are suddenly held longer, by how long the first has waited.
func (p *processors) lateLocked() bool {
	return time.Duration(len(p.waiting))*p.held/time.Duration(p.limit) > p.longest ||
		len(p.waiting) > 0 && p.overdueLocked(p.waiting[0], p.now())
}

// overdueLocked allows for two places before one, so that one may wait where a place is held for longer than longest.
func (p *processors) overdueLocked(w waiter, now time.Time) bool {
	return w.refusable && now.Sub(w.since) > p.longest+2*p.held
}

// enter waits for a place. It is false where a request that may be refused would wait too long, at once, and where it
// has waited too long, when its turn comes: longest bounds the wait of who gets a place, whatever the machine does.
func (p *processors) enter(refusable bool) (since time.Time, ok bool) {
	p.mu.Lock()
	if p.busy < p.limit {
		p.busy++
		p.mu.Unlock()
		return p.now(), true
	}
	if refusable && p.lateLocked() {
		p.mu.Unlock()
		return time.Time{}, false
	}
	turn := make(chan bool, 1)
	p.waiting = append(p.waiting, waiter{turn, p.now(), refusable})
	p.mu.Unlock()
	if !<-turn {
		return time.Time{}, false
	}
	runtime.Gosched() // else who is woken runs next, and those who have only to be refused would wait behind all the work
	return p.now(), true
}

// leave gives the place to who waits longest, but for those who have waited too long.
func (p *processors) leave(since time.Time) {
	now := p.now()
	held := now.Sub(since)
	p.mu.Lock()
	defer p.mu.Unlock()
	// One that the machine held up for long says little of the next ones.
	p.held += (min(held, 4*p.held+100*time.Microsecond) - p.held) / 32
	gone, given := 0, false
	for gone < len(p.waiting) && !given {
		next := p.waiting[gone]
		gone++
		given = !p.overdueLocked(next, now)
		next.turn <- given
	}
	if !given {
		p.busy--
	}
	p.waiting = append(p.waiting[:0], p.waiting[gone:]...)
}
