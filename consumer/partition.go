package consumer

import (
	"context"
	"sync"
	"time"
)

// phase says who has to act next on a partition.
type phase uint8

const (
	routing phase = iota // the router: leader or offset unknown
	queued               // its leader's lanes
	flying               // a request is under way
	parked               // the reader: enough is prefetched
	failed               // the caller: SeekTo or Close
	closed
)

// Partition is one open partition. Next, SeekTo and Close belong to one goroutine.
type Partition struct {
	TopicPartition

	fetcher *Fetcher
	notify  chan struct{} // something to take, or an error

	// Of the reader's goroutine.
	scratch *scratch // while a piece is being read
	more    bool
	reading piece
	batch   Batch

	mu            sync.Mutex
	phase         phase
	epoch         uint64 // counts calls of SeekTo: an answer to an older question is dropped
	offset        int64  // to fetch next; negative: to be looked up
	lastEpoch     int32  // of the leader that wrote the record before offset; -1: not known
	leader        *leader
	topicID       [16]byte // of the topic that offset is meant for; zero where brokers have none
	leaderEpoch   int32    // as metadata had it when leader was found
	replica       replica
	slot          piece // prefetched, empty where slot.raw is
	waiting       bool  // the reader has nothing
	void          bool  // the rest of the piece being read is of a topic that is no more
	alone         bool  // to be asked in a request of its own: a response was too large
	largest       int   // bytes of the largest record batch of the last answer
	failures      int
	retryAt       time.Time
	err           error
	position      int64
	highWatermark int64
	answered      time.Time // when a broker last answered for this partition
	lastStable    int64
	heldSince     time.Time // since when lastStable is before highWatermark and has not moved; zero: it is not
}

// replica is a follower near by that the leader has sent us to (KIP-392).
type replica struct {
	broker int32 // -1: none
	until  time.Time
}

var noReplica = replica{broker: -1}

// piece is a run of raw record batches with what is needed to read it.
type piece struct {
	from    int64
	next    int64
	raw     []byte
	aborted []AbortedTransaction

	highWatermark, lastStable int64
}

// Next blocks until there is a batch; it is the caller's until the next call of Next, Poll, SeekTo or Close,
// and the following one is fetched meanwhile. Errors are ctx's, *FetchError,
// *OffsetOutOfRangeError and ErrClosed; after the middle two only SeekTo goes on.
func (p *Partition) Next(ctx context.Context) (*Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if b, err := p.Poll(); b != nil || err != nil {
			return b, err
		}
		select {
		case <-p.notify:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Poll is Next without waiting: it returns nil where nothing is prefetched.
func (p *Partition) Poll() (*Batch, error) {
	for {
		if p.scratch != nil {
			if p.more && !p.voided() {
				if b, err := p.decode(); b != nil || err != nil {
					return b, err
				}
				continue
			}
			p.release()
		}
		if taken, err := p.take(); !taken || err != nil {
			return nil, err
		}
	}
}

func (p *Partition) voided() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.void
}

// take makes the prefetched piece the one being read and lets the next one be fetched.
func (p *Partition) take() (bool, error) {
	p.mu.Lock()
	if p.phase == closed {
		p.mu.Unlock()
		return false, ErrClosed
	}
	if len(p.slot.raw) == 0 {
		err := p.err
		p.waiting = true
		p.mu.Unlock()
		return false, err
	}
	p.waiting, p.void = false, false
	p.reading, p.slot = p.slot, piece{aborted: p.reading.aborted[:0]}
	var leader *leader
	if p.phase == parked {
		p.phase, leader = queued, p.leader
	}
	p.mu.Unlock()
	if leader != nil {
		leader.enqueue(p)
	}
	p.scratch, p.more = p.fetcher.lendScratch(), true
	p.batch.Records = p.scratch.records[:0]
	p.scratch.decoder.Reset(p.reading.raw, p.reading.from, p.reading.aborted)
	return true, nil
}

// decode returns the next batch of the piece being read, or nil where the piece moved nothing.
func (p *Partition) decode() (*Batch, error) {
	b := &p.batch
	var err error
	p.more, err = p.scratch.decoder.Next(b)
	p.scratch.records = b.Records
	p.fetcher.memory.account(p.scratch)
	b.TopicPartition = p.TopicPartition
	b.HighWatermark, b.LastStableOffset = p.reading.highWatermark, p.reading.lastStable
	if err != nil && b.Next == b.First {
		err = &FetchError{p.TopicPartition, err}
		p.release()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.fetcher.metrics.FetchErrors.WithLabelValues("corrupt").Inc()
		p.emptySlotLocked() // it comes after the fault
		p.failLocked(err)
		return nil, err
	}
	if err != nil { // what came before the fault first; it shows again at the next position
		p.SeekTo(b.Next)
		p.setPosition(b)
		return b, nil
	}
	if b.Next == b.First {
		return nil, nil
	}
	p.setPosition(b)
	return b, nil
}

func (p *Partition) setPosition(b *Batch) {
	p.mu.Lock()
	p.position = b.Next
	p.mu.Unlock()
}

// release ends the piece being read; its batch is not used any more.
func (p *Partition) release() {
	if p.scratch == nil {
		return
	}
	p.fetcher.memory.giveBackScratch(p.scratch)
	p.fetcher.memory.giveBack(p.reading.raw)
	p.reading.raw, p.batch.Records = nil, nil
	p.scratch, p.more = nil, false
}

// SeekTo drops what is prefetched and reads on from offset, or, where it is negative, from where the
// OffsetReset policy says. A batch in the caller's hands stays valid until the next call of Next.
func (p *Partition) SeekTo(offset int64) {
	p.more = false // the rest of the piece being read is dropped, its memory at the next Next
	position := max(offset, -1)
	var err error
	if offset < 0 {
		offset, err = p.fetcher.resetOffset(p.TopicPartition, offset, NotCommitted)
	}
	p.mu.Lock()
	if p.phase == closed {
		p.mu.Unlock()
		return
	}
	p.epoch++
	p.offset, p.lastEpoch, p.position = offset, -1, position
	p.emptySlotLocked()
	p.err, p.alone, p.largest = nil, false, 0
	if err != nil {
		p.failLocked(err)
		p.mu.Unlock()
		return
	}
	leader, route := p.leader, false
	switch {
	case p.phase == routing:
		leader = nil
	case leader == nil || offset < 0:
		p.phase, leader, route = routing, nil, true
	default:
		p.phase = queued
	}
	p.mu.Unlock()
	if leader != nil {
		leader.enqueue(p)
	}
	if route {
		p.fetcher.route(p)
	}
}

// Close gives up the partition and its memory; Next returns ErrClosed from then on.
func (p *Partition) Close() {
	p.release()
	p.end()
	f := p.fetcher
	f.mu.Lock()
	_, open := f.partitions[p]
	delete(f.partitions, p)
	f.mu.Unlock()
	if open {
		f.open.Add(-1)
	}
}

// end closes the partition without touching what belongs to the reader's goroutine.
func (p *Partition) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoch++
	p.phase = closed
	p.emptySlotLocked()
	poke(p.notify)
}

func (p *Partition) emptySlotLocked() {
	p.fetcher.memory.giveBack(p.slot.raw)
	p.slot = piece{aborted: p.slot.aborted[:0]}
}

// failLocked lets Next return err once what was prefetched has been handed out.
func (p *Partition) failLocked(err error) {
	if p.phase == closed {
		return
	}
	p.epoch++
	p.phase, p.err = failed, err
	poke(p.notify)
}

// needs says how the partition is to be asked: in a request of its own, and whether its reader waits
// for want of anything prefetched.
func (p *Partition) needs() (alone, starving bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alone, p.waiting && len(p.slot.raw) == 0
}

// askAlone has the partition asked again, in a request of its own.
func (p *Partition) askAlone(q *question) {
	p.mu.Lock()
	if p.epoch != q.epoch || p.phase != flying {
		p.mu.Unlock()
		return
	}
	p.alone, p.phase = true, queued
	leader := p.leader
	p.mu.Unlock()
	leader.enqueue(p)
}

// ask notes what a request is about to ask for; false where the partition is not to be asked.
func (p *Partition) ask(l *leader, share int, now time.Time) (question, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != queued || p.leader != l {
		return question{}, false
	}
	if len(p.slot.raw) > 0 && p.slot.next != p.offset { // a reset: what was prefetched goes first
		p.phase = parked
		return question{}, false
	}
	if p.replica.broker == l.broker && now.After(p.replica.until) { // let the leader choose again
		p.replica, p.phase = noReplica, routing
		p.fetcher.route(p)
		return question{}, false
	}
	p.phase = flying
	limit := max(share-len(p.slot.raw), p.largest)
	return question{
		partition: p, epoch: p.epoch, offset: p.offset, limit: limit,
		topicID: p.topicID, leaderEpoch: p.leaderEpoch, lastEpoch: p.lastEpoch,
	}, true
}

// deliver adds the answer to the prefetched piece. It says whether the partition is to be asked
// again and whether anything came.
func (p *Partition) deliver(q *question, a *answer, share int) (again, got bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != q.epoch || p.phase != flying {
		return false, false
	}
	p.failures, p.alone = 0, false
	p.answered = time.Now()
	switch {
	case a.lastStable >= a.highWatermark:
		p.heldSince = time.Time{}
	case p.heldSince.IsZero() || p.lastStable != a.lastStable:
		p.heldSince = p.answered
	}
	p.highWatermark, p.lastStable = a.highWatermark, a.lastStable
	e := scan(a.records, q.offset)
	if e.largest > 0 {
		p.largest = min(e.largest, p.fetcher.cfg.MaxBatchBytes)
	}
	if e.complete > 0 {
		p.slot.append(p.fetcher.memory, share, q.offset, e.next, a, e.complete)
		p.offset, p.lastEpoch = e.next, e.epoch
		poke(p.notify)
	}
	p.slot.highWatermark, p.slot.lastStable = a.highWatermark, a.lastStable
	if have := len(p.slot.raw); have > share/2 || have > 0 && have+p.largest > share {
		p.phase = parked
		return false, e.complete > 0
	}
	p.phase = queued
	return true, e.complete > 0
}

// postponed notes that the broker has answered, but with nothing for the sake of a quota. It says whether the partition is to
// be asked again.
func (p *Partition) postponed(q *question) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != q.epoch || p.phase != flying {
		return false
	}
	p.failures, p.answered, p.phase = 0, time.Now(), queued
	return true
}

// append adds records [from, next) to the piece, which ends at from unless it is empty. Aborted
// transactions that reach over from are in the list already, those that begin at next or later
// will come again: twice in the list, one would hide the producer's next transaction.
func (s *piece) append(m *memory, share int, from, next int64, a *answer, complete int) {
	first := len(s.raw) == 0
	if first {
		s.from, s.aborted = from, s.aborted[:0]
	}
	if need := len(s.raw) + complete; need > cap(s.raw) {
		grown := append(m.lend(need, share), s.raw...)
		m.giveBack(s.raw)
		s.raw = grown
	}
	s.raw = append(s.raw, a.records[:complete]...)
	s.next = next
	for _, t := range a.aborted {
		if t.FirstOffset < next && (first || t.FirstOffset >= from) {
			s.aborted = append(s.aborted, t)
		}
	}
}

func (p *Partition) lagLocked() int64 {
	end := p.highWatermark
	if p.fetcher.cfg.Isolation == ReadCommitted {
		end = p.lastStable
	}
	if end < 0 || p.position < 0 {
		return -1
	}
	return max(end-p.position, 0)
}

func (p *Partition) report() Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Position{
		TopicPartition: p.TopicPartition, Next: p.position, HighWatermark: p.highWatermark,
		LastStableOffset: p.lastStable, Lag: p.lagLocked(), Buffered: len(p.slot.raw), Answered: p.answered, HeldSince: p.heldSince, Err: p.err,
	}
}
