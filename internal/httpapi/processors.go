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
	waiting []chan struct{} // each gets the place that it waits for
	held    time.Duration   // a place, on the average of the last ones
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

func (p *processors) lateLocked() bool {
	return time.Duration(len(p.waiting))*p.held/time.Duration(p.limit) > p.longest
}

// enter waits for a place. It is false, at once, where a request that may be refused would wait too long.
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
	turn := make(chan struct{}, 1)
	p.waiting = append(p.waiting, turn)
	p.mu.Unlock()
	<-turn
	runtime.Gosched() // else who is woken runs next, and those who have only to be refused would wait behind all the work
	return p.now(), true
}

// leave gives the place to who waits longest.
func (p *processors) leave(since time.Time) {
	held := p.now().Sub(since)
	p.mu.Lock()
	defer p.mu.Unlock()
	// One that the machine held up for long says little of the next ones.
	p.held += (min(held, 4*p.held+100*time.Microsecond) - p.held) / 32
	if len(p.waiting) == 0 {
		p.busy--
		return
	}
	p.waiting[0] <- struct{}{} // has room
	p.waiting = append(p.waiting[:0], p.waiting[1:]...)
}
