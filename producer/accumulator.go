package producer

import (
	"context"
	"fmt"
	"slices"
)

// accumulator holds the records of the open unit as record batches by partition. It belongs to the publisher's
// goroutine; the memory of its batches comes from the pool and goes back there.
type accumulator struct {
	maxBatchBytes int
	compression   Compression
	pool          *Pool
	limits        *Limits
	learned       uint32 // version of limits that the topics have

	topics  map[string]*topicBuffer
	last    *topicBuffer       // of the latest Append: most records go to the topic of the one before
	touched []*partitionBuffer // partitions with records of this unit, in order of their first record
	records int                // in this unit
	bytes   int                // of their keys, values and headers

	free []*RecordBatch // without memory
}

// topicBuffer is what is known about one output topic.
type topicBuffer struct {
	name       string
	count      int32              // partitions
	most       int                // bytes of a batch, before compression, unless it is one record
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

// ownPoolBytes is the limit of the pool of a single publisher.
const ownPoolBytes = 2 << 20

func newAccumulator(cfg Config) accumulator {
	pool := cfg.Pool
	if pool == nil {
		pool = NewPool(ownPoolBytes)
	}
	limits := cfg.Limits
	if limits == nil {
		limits = &Limits{}
	}
	return accumulator{maxBatchBytes: cfg.MaxBatchBytes, compression: cfg.Compression, pool: pool, limits: limits, topics: map[string]*topicBuffer{}}
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
		if size := last.SizeWith(r); size <= t.most && !last.closed {
			a.grow(last, size)
			last.Append(r)
			a.appended(t, r)
			return nil
		}
		if err := a.seal(p, 0); err != nil {
			return err
		}
	}
	fresh := a.batch()
	size := fresh.SizeWith(r)
	if size > a.maxBatchBytes {
		a.recycle(fresh)
		return &RecordTooLargeError{Topic: t.name, Partition: partition, Size: size, Limit: a.maxBatchBytes}
	}
	if len(p.batches) == 0 {
		a.touched = append(a.touched, p)
	}
	p.batches = append(p.batches, fresh)
	a.grow(fresh, size)
	fresh.Append(r)
	a.appended(t, r)
	return nil
}

func (a *accumulator) appended(t *topicBuffer, r *Record) {
	a.records++
	a.bytes += len(r.Key) + len(r.Value) + len(r.RawHeaders)
	for i := range r.Headers {
		a.bytes += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
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
	t := &topicBuffer{name: name, count: partitions, most: a.limits.of(name, a.maxBatchBytes)}
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

// takeFrom moves the records of another accumulator behind its own, in order. A batch that fits behind the last one of
// its partition is joined to it; the others change hands as they are.
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
		for _, b := range p.batches {
			if n := len(to.batches); n > 0 {
				if size := to.batches[n-1].sizeJoined(b); size <= t.most {
					a.grow(to.batches[n-1], size)
					to.batches[n-1].join(b)
					continue
				}
			}
			taken := a.batch()
			*taken, *b = *b, RecordBatch{}
			to.batches = append(to.batches, taken)
		}
	}
	a.records += from.records
	a.bytes += from.bytes
	from.reset()
}

// sealAll closes and compresses every batch of at least minimum bytes.
func (a *accumulator) sealAll(minimum int) error {
	for _, p := range a.touched {
		if err := a.seal(p, minimum); err != nil {
			return err
		}
	}
	return nil
}

// seal closes and compresses the batches of one partition that have at least minimum bytes.
func (a *accumulator) seal(p *partitionBuffer, minimum int) error {
	for _, b := range p.batches {
		if b.closed || b.Size() < minimum {
			continue
		}
		b.closed = true
		if a.compression == None {
			continue
		}
		if err := a.pack(b); err != nil {
			return fmt.Errorf("compress %s/%d: %w", p.topic.name, p.partition, err)
		}
	}
	return nil
}

// pack compresses b and gives its plain form back to the pool, unless it would grow.
func (a *accumulator) pack(b *RecordBatch) error {
	c, err := a.pool.compressor(a.compression)
	if err != nil {
		return err
	}
	defer a.pool.giveCompressor(c)
	b.unpacked = len(b.plain)
	b.packed = a.pool.take(len(b.plain))[:batchHeaderBytes]
	if err := b.Compress(c); err != nil {
		return err
	}
	if b.codec == None {
		a.pool.give(b.packed)
		b.packed = nil
		return nil
	}
	a.pool.give(b.plain)
	b.plain = nil
	if n := len(b.packed); n <= cap(b.packed)/4 {
		large := b.packed
		b.packed = append(a.pool.take(n), large...)
		a.pool.give(large)
	}
	return nil
}

// reset drops the unit and keeps the sequences.
func (a *accumulator) reset() {
	for _, p := range a.touched {
		for i, b := range p.batches {
			a.recycle(b)
			p.batches[i] = nil
		}
		p.batches, p.sent, p.inDoubt = p.batches[:0], 0, false
	}
	a.touched = a.touched[:0]
	a.records, a.bytes = 0, 0
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
		return &RecordBatch{}
	}
	b := a.free[n-1]
	a.free[n-1] = nil
	a.free = a.free[:n-1]
	return b
}

func (a *accumulator) recycle(b *RecordBatch) {
	a.pool.give(b.plain)
	a.pool.give(b.packed)
	*b = RecordBatch{}
	a.free = append(a.free, b)
}

// grow makes room for a plain form of size bytes.
func (a *accumulator) grow(b *RecordBatch, size int) {
	if size <= cap(b.plain) {
		return
	}
	small := b.plain
	b.plain = append(a.pool.take(size), small...)
	a.pool.give(small)
}

// acknowledge moves p past its first waiting batch. Sequences wrap to 0 after the largest int32.
func (p *partitionBuffer) acknowledge() {
	p.sequence = int32((int64(p.sequence) + int64(p.batches[p.sent].Len())) & 0x7fffffff)
	p.sent++
	p.inDoubt = false
}

// refreshLimits takes over what was learned of the topics, between two units.
func (a *accumulator) refreshLimits() {
	version := a.limits.version.Load()
	if version == a.learned {
		return
	}
	a.learned = version
	for name, t := range a.topics {
		t.most = a.limits.of(name, a.maxBatchBytes)
	}
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
