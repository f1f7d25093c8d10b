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
	decoder *Decoder // while a piece is being read
	more    bool
	reading piece
	batch   Batch

	mu            sync.Mutex
	phase         phase
	epoch         uint64 // counts calls of SeekTo: an answer to an older question is dropped
	offset        int64  // to fetch next; negative: to be looked up
	leader        *leader
	slot          piece // prefetched, empty where slot.raw is
	wanted        int   // bytes that the next batch needs, where it did not fit
	failures      int
	retryAt       time.Time
	err           error
	position      int64
	highWatermark int64
	lastStable    int64
}

// piece is a run of raw record batches with what is needed to read it.
type piece struct {
	from    int64
	next    int64
	raw     []byte
	aborted []AbortedTransaction

	highWatermark, lastStable int64
}

// Next blocks until there is a batch; it is the caller's until the next call of Next, SeekTo or Close,
// and the following one is fetched meanwhile. Errors are ctx's, *FetchError,
// *OffsetOutOfRangeError and ErrClosed; after the middle two only SeekTo goes on.
func (p *Partition) Next(ctx context.Context) (*Batch, error) {
	for {
		if p.decoder != nil {
			if p.more {
				if b, err := p.decode(); b != nil || err != nil {
					return b, err
				}
				continue
			}
			p.release()
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		taken, err := p.take()
		if err != nil {
			return nil, err
		}
		if taken {
			continue
		}
		select {
		case <-p.notify:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
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
		p.mu.Unlock()
		return false, err
	}
	share := p.fetcher.cfg.share(int(p.fetcher.open.Load()))
	if cap(p.reading.raw) > 2*share { // a record larger than the limit, or more partitions than before
		p.reading.raw = nil
	}
	p.reading, p.slot = p.slot, p.reading
	p.slot.raw, p.slot.aborted = p.slot.raw[:0], p.slot.aborted[:0]
	var leader *leader
	if p.phase == parked {
		p.phase, leader = queued, p.leader
	}
	p.mu.Unlock()
	if leader != nil {
		leader.enqueue(p)
	}
	p.decoder, p.more = p.fetcher.takeDecoder(share), true
	p.decoder.Reset(p.reading.raw, p.reading.from, p.reading.aborted)
	return true, nil
}

// decode returns the next batch of the piece being read, or nil where the piece moved nothing.
func (p *Partition) decode() (*Batch, error) {
	b := &p.batch
	var err error
	p.more, err = p.decoder.Next(b)
	b.TopicPartition = p.TopicPartition
	b.HighWatermark, b.LastStableOffset = p.reading.highWatermark, p.reading.lastStable
	if err != nil && b.Next == b.First {
		err = &FetchError{p.TopicPartition, err}
		p.release()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.fetcher.metrics.FetchErrors.WithLabelValues("corrupt").Inc()
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
	if p.decoder == nil {
		return
	}
	p.fetcher.keepDecoder(p.decoder, p.fetcher.cfg.share(int(p.fetcher.open.Load())))
	p.decoder, p.more = nil, false
}

// SeekTo drops what is prefetched and reads on from offset, or, where it is negative, from where the
// OffsetReset policy says. A batch in the caller's hands stays valid until the next call of Next.
func (p *Partition) SeekTo(offset int64) {
	p.more = false // the rest of the piece being read is dropped, its memory at the next Next
	position := max(offset, -1)
	var err error
	if offset < 0 {
		offset, err = p.fetcher.resetOffset(p.TopicPartition, offset)
	}
	p.mu.Lock()
	if p.phase == closed {
		p.mu.Unlock()
		return
	}
	p.epoch++
	p.offset, p.position = offset, position
	p.slot.raw, p.slot.aborted = p.slot.raw[:0], p.slot.aborted[:0]
	p.err, p.wanted = nil, 0
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
	p.reading, p.batch.Records = piece{}, nil
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
	p.phase, p.slot = closed, piece{}
	poke(p.notify)
}

func (p *Partition) failLocked(err error) {
	if p.phase == closed {
		return
	}
	p.epoch++
	p.phase, p.err = failed, err
	p.slot.raw, p.slot.aborted = p.slot.raw[:0], p.slot.aborted[:0]
	poke(p.notify)
}

// ask notes what a request is about to ask for; false where the partition is not to be asked.
func (p *Partition) ask(l *leader, share int) (question, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != queued || p.leader != l {
		return question{}, false
	}
	if len(p.slot.raw) > 0 && p.slot.next != p.offset { // a reset: what was prefetched goes first
		p.phase = parked
		return question{}, false
	}
	p.phase = flying
	limit := max(share-len(p.slot.raw), share/4, p.wanted)
	return question{partition: p, epoch: p.epoch, offset: p.offset, limit: limit}, true
}

// deliver adds the answer to the prefetched piece. It says whether the partition is to be asked
// again and whether anything came.
func (p *Partition) deliver(q question, a *answer, share int) (again, got bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != q.epoch || p.phase != flying {
		return false, false
	}
	p.failures = 0
	p.highWatermark, p.lastStable = a.highWatermark, a.lastStable
	complete, next, wanted := scan(a.records, q.offset)
	p.wanted = min(wanted, p.fetcher.cfg.MaxBatchBytes)
	if complete > 0 {
		p.slot.append(q.offset, next, a, complete)
		p.offset = next
		poke(p.notify)
	}
	p.slot.highWatermark, p.slot.lastStable = a.highWatermark, a.lastStable
	if len(p.slot.raw) > share/2 {
		p.phase = parked
		return false, complete > 0
	}
	p.phase = queued
	return true, complete > 0
}

// append adds records [from, next) to the piece, which ends at from unless it is empty. Aborted
// transactions that reach over from are in the list already, those that begin at next or later
// will come again: twice in the list, one would hide the producer's next transaction.
func (s *piece) append(from, next int64, a *answer, complete int) {
	first := len(s.raw) == 0
	if first {
		s.from, s.aborted = from, s.aborted[:0]
	}
	s.raw = append(s.raw, a.records[:complete]...)
	s.next = next
	for i := range a.abortedCount() {
		t := a.aborted(i)
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
		LastStableOffset: p.lastStable, Lag: p.lagLocked(), Buffered: len(p.slot.raw), Err: p.err,
	}
}
