package producer

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
)

// Layout of a record batch, format version 2 (Kafka protocol guide, "Record Batch"). Every offset is counted from
// the first byte of the batch.
const (
	batchLengthAt      = 8
	batchLeaderEpochAt = 12
	batchMagicAt       = 16
	batchChecksumAt    = 17
	batchAttributesAt  = 21 // the checksum covers everything from here on
	batchLastDeltaAt   = 23
	batchFirstTimeAt   = 27
	batchMaxTimeAt     = 35
	batchProducerIDAt  = 43
	batchEpochAt       = 51
	batchSequenceAt    = 53
	batchCountAt       = 57
	batchHeaderBytes   = 61

	attributeTransactional = 1 << 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errNothingToFinish is returned for a batch without records: brokers refuse an empty batch as corrupt.
var errNothingToFinish = errors.New("record batch: no records to finish")

// ProducerIdentity is what InitProducerID hands out. The zero epoch is a real epoch; noProducer is the absence of one.
type ProducerIdentity struct {
	ID    int64
	Epoch int16
}

// RecordBatch encodes records of one partition into one record batch of format version 2. Reset, Append and Finish
// reuse the same memory: a warm batch does not allocate. It belongs to one goroutine.
type RecordBatch struct {
	plain     []byte // header space followed by the encoded records
	packed    []byte // header space followed by the compressed records, when codec is set
	codec     Compression
	unpacked  int  // of an accumulator: size before compression
	closed    bool // of an accumulator: nothing may be appended any more
	count     int32
	firstTime int64
	maxTime   int64
}

// Reset empties the batch and keeps its memory.
func (b *RecordBatch) Reset() {
	if cap(b.plain) < batchHeaderBytes {
		b.plain = make([]byte, batchHeaderBytes, 4<<10)
	}
	b.plain = b.plain[:batchHeaderBytes]
	b.codec, b.closed, b.count, b.firstTime, b.maxTime = None, false, 0, 0, 0
}

// Len returns the number of records.
func (b *RecordBatch) Len() int { return int(b.count) }

// Size returns the bytes of the batch before compression, its header included.
func (b *RecordBatch) Size() int { return max(len(b.plain), batchHeaderBytes) }

// SizeWith returns what Size would be after Append(r).
func (b *RecordBatch) SizeWith(r *Record) int {
	body := b.bodySize(r)
	return b.Size() + varintSize(int64(body)) + body
}

// Append encodes a copy of r behind the records already there. Topic and Partition are not looked at. A nil key or
// value becomes null, an empty one stays empty.
func (b *RecordBatch) Append(r *Record) {
	if len(b.plain) < batchHeaderBytes {
		b.Reset()
	}
	if b.count == 0 {
		b.firstTime, b.maxTime = r.Timestamp, r.Timestamp
	}
	b.maxTime = max(b.maxTime, r.Timestamp)

	d := binary.AppendVarint(b.plain, int64(b.bodySize(r)))
	d = append(d, 0) // record attributes: none are defined
	d = binary.AppendVarint(d, r.Timestamp-b.firstTime)
	d = binary.AppendVarint(d, int64(b.count))
	d = appendNullable(d, r.Key)
	d = appendNullable(d, r.Value)
	d = binary.AppendVarint(d, int64(r.RawHeaderCount+len(r.Headers)))
	d = append(d, r.RawHeaders...)
	for i := range r.Headers {
		d = binary.AppendVarint(d, int64(len(r.Headers[i].Key)))
		d = append(d, r.Headers[i].Key...)
		d = appendNullable(d, r.Headers[i].Value)
	}
	b.plain = d
	b.count++
}

// sizeJoined is what Size is at most after join(other); more than any limit where one of them is compressed.
func (b *RecordBatch) sizeJoined(other *RecordBatch) int {
	// Of a record, at most: its time delta, offset delta and length may each need more bytes.
	const growth = binary.MaxVarintLen64 + 2*binary.MaxVarintLen32
	if b.closed || other.closed {
		return math.MaxInt
	}
	return b.Size() + len(other.plain) - batchHeaderBytes + growth*other.Len()
}

// join appends the records of other, whose encodings differ in their deltas only.
func (b *RecordBatch) join(other *RecordBatch) {
	if b.count == 0 {
		b.Reset()
		b.firstTime, b.maxTime = other.firstTime, other.maxTime
	}
	b.maxTime = max(b.maxTime, other.maxTime)
	d := b.plain
	for rest := other.plain[batchHeaderBytes:]; len(rest) > 0; {
		size, n := binary.Varint(rest)
		record := rest[n : n+int(size)]
		rest = rest[n+int(size):]
		timeDelta, timeBytes := binary.Varint(record[1:]) // behind the attributes
		_, offsetBytes := binary.Varint(record[1+timeBytes:])
		tail := record[1+timeBytes+offsetBytes:]
		timeDelta += other.firstTime - b.firstTime
		offsetDelta := int64(b.count)
		d = binary.AppendVarint(d, int64(1+varintSize(timeDelta)+varintSize(offsetDelta)+len(tail)))
		d = append(d, record[0])
		d = binary.AppendVarint(d, timeDelta)
		d = binary.AppendVarint(d, offsetDelta)
		d = append(d, tail...)
		b.count++
	}
	b.plain = d
}

// Compress packs the records with c's codec. A batch that would grow stays as it is. Nothing may be appended
// between Compress and Reset.
func (b *RecordBatch) Compress(c *Compressor) error {
	if c == nil || c.codec == None || b.count == 0 || b.codec != None {
		return nil
	}
	if cap(b.packed) < batchHeaderBytes {
		b.packed = make([]byte, batchHeaderBytes, 4<<10)
	}
	packed, err := c.Append(b.packed[:batchHeaderBytes], b.plain[batchHeaderBytes:])
	if err != nil {
		return err
	}
	b.packed = packed
	if len(packed) < len(b.plain) {
		b.codec = c.codec
	}
	return nil
}

// Finish fills the header and returns the batch as it goes on the wire. It may be called again with other arguments;
// the slice is valid until the next Reset, Append or Compress.
func (b *RecordBatch) Finish(id ProducerIdentity, sequence int32, transactional bool) ([]byte, error) {
	if b.count == 0 {
		return nil, errNothingToFinish
	}
	h := b.plain
	if b.codec != None {
		h = b.packed
	}
	attributes := uint16(b.codec)
	if transactional {
		attributes |= attributeTransactional
	}
	be := binary.BigEndian
	be.PutUint64(h, 0) // base offset: the broker assigns it
	be.PutUint32(h[batchLengthAt:], uint32(len(h)-batchLeaderEpochAt))
	be.PutUint32(h[batchLeaderEpochAt:], 0xffffffff) // unknown to a producer
	h[batchMagicAt] = 2
	be.PutUint16(h[batchAttributesAt:], attributes)
	be.PutUint32(h[batchLastDeltaAt:], uint32(b.count-1))
	be.PutUint64(h[batchFirstTimeAt:], uint64(b.firstTime))
	be.PutUint64(h[batchMaxTimeAt:], uint64(b.maxTime))
	be.PutUint64(h[batchProducerIDAt:], uint64(id.ID))
	be.PutUint16(h[batchEpochAt:], uint16(id.Epoch))
	be.PutUint32(h[batchSequenceAt:], uint32(sequence))
	be.PutUint32(h[batchCountAt:], uint32(b.count))
	be.PutUint32(h[batchChecksumAt:], crc32.Checksum(h[batchAttributesAt:], castagnoli))
	return h, nil
}

// wireSize is the length Finish will return.
func (b *RecordBatch) wireSize() int {
	if b.codec != None {
		return len(b.packed)
	}
	return len(b.plain)
}

// plainSize is the length before compression.
func (b *RecordBatch) plainSize() int { return max(len(b.plain), b.unpacked) }

// bodySize is the encoded length of r at the end of the batch, without its own length prefix.
func (b *RecordBatch) bodySize(r *Record) int {
	var timeDelta int64
	if b.count > 0 {
		timeDelta = r.Timestamp - b.firstTime
	}
	n := 1 + varintSize(timeDelta) + varintSize(int64(b.count)) + nullableSize(r.Key) + nullableSize(r.Value)
	n += varintSize(int64(r.RawHeaderCount+len(r.Headers))) + len(r.RawHeaders)
	for i := range r.Headers {
		k := len(r.Headers[i].Key)
		n += varintSize(int64(k)) + k + nullableSize(r.Headers[i].Value)
	}
	return n
}

func varintSize(v int64) int {
	u := uint64(v<<1) ^ uint64(v>>63)
	n := 1
	for u >= 0x80 {
		u >>= 7
		n++
	}
	return n
}

func nullableSize(p []byte) int {
	if p == nil {
		return 1
	}
	return varintSize(int64(len(p))) + len(p)
}

func appendNullable(dst, p []byte) []byte {
	if p == nil {
		return append(dst, 1) // the varint of -1
	}
	return append(binary.AppendVarint(dst, int64(len(p))), p...)
}
