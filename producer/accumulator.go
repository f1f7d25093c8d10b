package producer

import (
	"context"
	"fmt"
	"slices"
)

// accumulator holds the records of the open unit as record batches by partition. It keeps the memory of sent batches
// for the next unit. It belongs to the publisher's goroutine.
type accumulator struct {
	maxBatchBytes int
	maxFreeBytes  int // memory kept in free batches

	topics  map[string]*topicBuffer
	last    *topicBuffer       // of the latest Append: most records go to the topic of the one before
	touched []*partitionBuffer // partitions with records of this unit, in order of their first record
	records int                // in this unit

	free      []*RecordBatch
	freeBytes int
}

// topicBuffer is what is known about one output topic.
type topicBuffer struct {
	name       string
	count      int32              // partitions
	turn       uint32             // next partition for a record without a key
	partitions []*partitionBuffer // by number, nil where no record went yet; grows on demand up to count
}

// partitionBuffer is one output partition. Its batches wait in order; those before sent are acknowledged.
type partitionBuffer struct {
	topic     *topicBuffer
	partition int32
	batches   []*RecordBatch
	sent      int
	sequence  int32 // base sequence of batches[sent]
	inDoubt   bool  // a request with batches[sent] went out and no answer accepted it
	answered  bool  // in the Produce response being read
}

func newAccumulator(cfg Config) accumulator {
	return accumulator{maxBatchBytes: cfg.MaxBatchBytes, maxFreeBytes: cfg.MaxRequestBytes, topics: map[string]*topicBuffer{}}
}

// append copies r into the batch of its partition. The topic must be known.
func (a *accumulator) append(t *topicBuffer, r *Record) error {
	partition := r.Partition
	switch {
	case partition >= 0:
	case r.Key != nil:
		partition = PartitionFor(r.Key, t.count)
	default:
		partition = int32(t.turn % uint32(t.count))
	}
	p, err := t.buffer(partition)
	if err != nil {
		return err
	}
	if n := len(p.batches); n > 0 {
		last := p.batches[n-1]
		if last.SizeWith(r) <= a.maxBatchBytes {
			last.Append(r)
			a.appended(t, r)
			return nil
		}
	}
	fresh := a.batch()
	if size := fresh.SizeWith(r); size > a.maxBatchBytes {
		a.recycle(fresh)
		return &RecordTooLargeError{Topic: t.name, Partition: partition, Size: size, Limit: a.maxBatchBytes}
	}
	if len(p.batches) == 0 {
		a.touched = append(a.touched, p)
	}
	p.batches = append(p.batches, fresh)
	fresh.Append(r)
	a.appended(t, r)
	return nil
}

func (a *accumulator) appended(t *topicBuffer, r *Record) {
	a.records++
	if r.Partition < 0 && r.Key == nil {
		t.turn++
	}
}

// topic finds a topic that an earlier unit or record made known; nil otherwise.
func (a *accumulator) topic(name string) *topicBuffer {
	if a.last != nil && a.last.name == name {
		return a.last
	}
	t := a.topics[name]
	if t != nil {
		a.last = t
	}
	return t
}

func (a *accumulator) learn(name string, partitions int32) *topicBuffer {
	t := &topicBuffer{name: name, count: partitions}
	a.topics[name] = t
	return t
}

func (t *topicBuffer) buffer(partition int32) (*partitionBuffer, error) {
	if partition >= t.count {
		return nil, &Error{
			Operation: "append to", Object: fmt.Sprintf("%s/%d", t.name, partition), Code: codeUnknownTopicOrPartition,
			Remedy: fmt.Sprintf("the topic has %d partitions", t.count), verdict: fatal,
		}
	}
	for int(partition) >= len(t.partitions) {
		t.partitions = append(t.partitions, nil)
	}
	p := t.partitions[partition]
	if p == nil {
		p = &partitionBuffer{topic: t, partition: partition}
		t.partitions[partition] = p
	}
	return p, nil
}

// pending says whether a batch waits for its acknowledgement.
func (a *accumulator) pending() bool {
	return slices.ContainsFunc(a.touched, func(p *partitionBuffer) bool { return p.sent < len(p.batches) })
}

// inDoubt says whether the broker may have taken a batch whose acknowledgement did not come: the next sequence of
// its partition is then unknown.
func (a *accumulator) inDoubt() bool {
	return slices.ContainsFunc(a.touched, func(p *partitionBuffer) bool { return p.inDoubt })
}

// takeFrom moves the records of another accumulator behind its own, in order, and gives it as much empty memory in
// exchange. A batch that fits behind the last one of its partition is joined to it; the others change hands as they are.
func (a *accumulator) takeFrom(from *accumulator) {
	for _, p := range from.touched {
		t := a.topic(p.topic.name)
		if t == nil {
			t = a.learn(p.topic.name, p.topic.count)
		}
		t.count = max(t.count, p.topic.count)
		to, err := t.buffer(p.partition)
		if err != nil {
			panic("BUG: " + err.Error()) // the count was just raised to the unit's own
		}
		if len(to.batches) == 0 {
			a.touched = append(a.touched, to)
		}
		for i, b := range p.batches {
			if n := len(to.batches); n > 0 && to.batches[n-1].joinable(b, a.maxBatchBytes) {
				to.batches[n-1].join(b)
				continue
			}
			to.batches = append(to.batches, b)
			p.batches[i] = a.batch()
		}
	}
	a.records += from.records
	from.reset()
}

// reset drops the unit and keeps sequences and memory.
func (a *accumulator) reset() {
	for _, p := range a.touched {
		for i, b := range p.batches {
			a.recycle(b)
			p.batches[i] = nil
		}
		p.batches, p.sent, p.inDoubt = p.batches[:0], 0, false
	}
	a.touched = a.touched[:0]
	a.records = 0
}

// restartSequences begins every partition at 0, as a new producer id or epoch demands.
func (a *accumulator) restartSequences() {
	for _, t := range a.topics {
		for _, p := range t.partitions {
			if p != nil {
				p.sequence = 0
			}
		}
	}
}

func (a *accumulator) batch() *RecordBatch {
	n := len(a.free)
	if n == 0 {
		b := &RecordBatch{}
		b.Reset()
		return b
	}
	b := a.free[n-1]
	a.free[n-1] = nil
	a.free = a.free[:n-1]
	a.freeBytes -= b.memory()
	b.Reset()
	return b
}

func (a *accumulator) recycle(b *RecordBatch) {
	if a.freeBytes+b.memory() > a.maxFreeBytes {
		return
	}
	a.freeBytes += b.memory()
	a.free = append(a.free, b)
}

// acknowledge moves p past its first waiting batch. Sequences wrap to 0 after the largest int32.
func (p *partitionBuffer) acknowledge() {
	p.sequence = int32((int64(p.sequence) + int64(p.batches[p.sent].Len())) & 0x7fffffff)
	p.sent++
	p.inDoubt = false
}

// refreshPartitions takes over grown partition counts, so that keys spread over new partitions between two units and
// never within one.
func (a *accumulator) refreshPartitions(ctx context.Context, count func(context.Context, string) (int32, error)) {
	for name, t := range a.topics {
		if n, err := count(ctx, name); err == nil && n > t.count {
			t.count = n
		}
	}
}
