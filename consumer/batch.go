// Package consumer takes a consumer group's share of Kafka partitions and returns their visible
// records, batch by batch, with the position that is to be committed after each.
//
// A Membership says which partitions are ours and hands out the identity for commits; a Fetcher
// reads them; CommittedOffsets and ListOffsets say where to start. Nothing here commits: offsets
// leave with the producer's transaction.
package consumer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// TopicPartition names one partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// String is topic/partition.
func (tp TopicPartition) String() string { return fmt.Sprintf("%s/%d", tp.Topic, tp.Partition) }

// Record is one visible record. Its slices alias memory of the batch: they are valid as long as
// the batch is.
type Record struct {
	Offset    int64
	Timestamp int64 // milliseconds since the epoch
	Key       []byte
	Value     []byte // nil is null (a tombstone), not empty
	// Headers are HeaderCount headers in Kafka's own encoding: varint length and key, varint length
	// (-1: null) and value.
	Headers     []byte
	HeaderCount int
}

// Batch is a run of one partition. Records may be empty: control records, aborted transactions and
// compacted offsets move Next without showing anything.
type Batch struct {
	TopicPartition
	Records []Record
	// First is the position before the batch, Next the one after it: the offset to commit.
	First, Next int64
	// HighWatermark and LastStableOffset are those of the response that brought the batch.
	HighWatermark, LastStableOffset int64
}

// Lag is the number of offsets between the end of the batch and the end of what can be read.
func (b *Batch) Lag(isolation Isolation) int64 {
	end := b.HighWatermark
	if isolation == ReadCommitted {
		end = b.LastStableOffset
	}
	return max(end-b.Next, 0)
}

// AbortedTransaction marks the records of ProducerID from FirstOffset up to its abort marker.
type AbortedTransaction struct{ ProducerID, FirstOffset int64 }

// ErrCorrupt says that stored or transferred record batches contradict themselves.
var ErrCorrupt = errors.New("corrupt record batch")

// DecoderConfig bounds what one call of Decoder.Next returns.
type DecoderConfig struct {
	Isolation Isolation
	// MaxBatchBytes is the limit of one decompressed record batch; 0 means 64 MiB.
	MaxBatchBytes int
	// MaxBytes ends a Batch once that many decompressed bytes are in it; 0 means no such limit.
	MaxBytes int
	// MaxRecords ends a Batch, also inside a record batch; 0 means no such limit.
	MaxRecords int
}

// Decoder turns raw record batches (format v2) of one partition into records. It belongs to one
// goroutine; its memory and the batches it filled are reused.
type Decoder struct {
	cfg DecoderConfig

	raw     []byte // record batches not looked at yet
	next    int64
	aborted []AbortedTransaction // by FirstOffset, those not reached yet
	open    []int64              // producer ids inside an aborted transaction; few

	// The rest of the record batch in hand.
	records        []byte
	left           int
	base           int64
	firstTimestamp int64
	appendTime     int64 // the timestamp of all records where logAppendTime
	logAppendTime  bool
	last           int64

	inflated   []byte
	decompress decompressor
}

// NewDecoder returns a Decoder that holds nothing.
func NewDecoder(cfg DecoderConfig) *Decoder {
	d := &Decoder{}
	d.configure(cfg, nil)
	return d
}

// configure changes the limits; zstd may be shared with others, nil is one of its own.
func (d *Decoder) configure(cfg DecoderConfig, shared *sharedZstd) {
	if cfg.MaxBatchBytes <= 0 {
		cfg.MaxBatchBytes = 64 << 20
	}
	if shared == nil {
		shared = &sharedZstd{limit: cfg.MaxBatchBytes}
	}
	d.decompress.limit, d.decompress.zstd = cfg.MaxBatchBytes, shared
	d.cfg = cfg
}

// Reset starts over with raw, the records of a fetch from offset from. A last batch that is cut
// off is ignored. Raw is kept until the next Reset; aborted is sorted in place, since brokers list
// aborted transactions in the order of their abort.
func (d *Decoder) Reset(raw []byte, from int64, aborted []AbortedTransaction) {
	slices.SortFunc(aborted, func(a, b AbortedTransaction) int {
		switch {
		case a.FirstOffset < b.FirstOffset:
			return -1
		case a.FirstOffset > b.FirstOffset:
			return 1
		}
		return 0
	})
	d.raw, d.next, d.aborted = raw, from, aborted
	d.open, d.records, d.left = d.open[:0], nil, 0
}

// Layout of a record batch, format v2 (KIP-98), from its first byte. The length counts from the
// leader epoch on, the checksum covers everything from the attributes on.
const (
	atLength         = 8
	atLeaderEpoch    = 12
	atMagic          = 16
	atChecksum       = 17
	atAttributes     = 21
	atLastDelta      = 23
	atFirstTimestamp = 27
	atMaxTimestamp   = 35
	atProducerID     = 43
	atCount          = 57
	batchHeaderSize  = 61

	// A record of seven bytes: length, attributes, timestamp, offset, null key, null value, no headers.
	minRecordSize = 7

	attributeLogAppendTime = 0x08
	attributeTransactional = 0x10
	attributeControl       = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Next replaces b's records by the following ones and sets First and Next. More says that raw
// holds further record batches; a batch without records is possible before the end. After an error
// b holds the records before the fault.
func (d *Decoder) Next(b *Batch) (more bool, err error) {
	b.Records, b.First = b.Records[:0], d.next
	if d.left == 0 {
		d.inflated = d.inflated[:0]
	}
	bytes := 0
	for err == nil {
		if d.left > 0 {
			if err = d.take(b); err != nil || d.left > 0 {
				break
			}
			if d.cfg.MaxBytes > 0 && bytes >= d.cfg.MaxBytes {
				break
			}
		}
		size, complete := batchSize(d.raw)
		if !complete {
			if size < 0 {
				err = d.corrupt("its length field is impossible")
			}
			d.raw = nil
			break
		}
		if d.cfg.MaxRecords > 0 && len(b.Records) >= d.cfg.MaxRecords {
			break
		}
		batch := d.raw[:size]
		d.raw = d.raw[size:]
		err = d.begin(batch)
		bytes += len(d.records)
	}
	b.Next = d.next
	return err == nil && (d.left > 0 || len(d.raw) > 0), err
}

// batchSize is the size of the record batch that raw starts with, -1 where that cannot be one.
func batchSize(raw []byte) (size int, complete bool) {
	if len(raw) < atLeaderEpoch {
		return 0, false
	}
	size = int(int32(binary.BigEndian.Uint32(raw[atLength:]))) + atLeaderEpoch
	if size < batchHeaderSize {
		return -1, false
	}
	return size, size <= len(raw)
}

// extent is what the headers of a run of record batches say.
type extent struct {
	complete int   // bytes of whole batches
	next     int64 // the offset after them
	epoch    int32 // of the leader that wrote the last one; -1 where none is known
	largest  int   // bytes of the largest batch, also where that is the one that is cut off
}

// scan walks over the headers of the record batches in raw, the first of which begins at or before
// from.
func scan(raw []byte, from int64) extent {
	e := extent{next: from, epoch: -1}
	for {
		size, ok := batchSize(raw[e.complete:])
		if !ok {
			if size < 0 { // kept, so that decoding reports it
				e.complete, size = len(raw), 0
			}
			if e.complete == 0 {
				e.largest = size
			}
			return e
		}
		header := raw[e.complete:]
		last := int64(binary.BigEndian.Uint64(header)) + int64(int32(binary.BigEndian.Uint32(header[atLastDelta:])))
		e.next = max(e.next, last+1)
		e.epoch = int32(binary.BigEndian.Uint32(header[atLeaderEpoch:]))
		e.largest = max(e.largest, size)
		e.complete += size
	}
}

// begin checks one record batch and makes its records, if they are visible, the batch in hand.
func (d *Decoder) begin(batch []byte) error {
	if magic := batch[atMagic]; magic != 2 {
		return d.corrupt(fmt.Sprintf("format v%d is not supported; rewrite the topic with a producer newer than Kafka 0.11", magic))
	}
	if crc32.Checksum(batch[atAttributes:], castagnoli) != binary.BigEndian.Uint32(batch[atChecksum:]) {
		return d.corrupt("checksum mismatch")
	}
	d.base = int64(binary.BigEndian.Uint64(batch))
	attributes := binary.BigEndian.Uint16(batch[atAttributes:])
	delta := int32(binary.BigEndian.Uint32(batch[atLastDelta:]))
	count := int32(binary.BigEndian.Uint32(batch[atCount:]))
	if delta < 0 || count < 0 || d.base < 0 {
		return d.corrupt("a negative offset or count")
	}
	d.last = d.base + int64(delta)
	if d.last < d.next {
		return d.corrupt(fmt.Sprintf("it ends at offset %d, before the one asked for", d.last))
	}
	records := batch[batchHeaderSize:]
	if d.hidden(batch, attributes, records) || count == 0 {
		d.next = d.last + 1
		return nil
	}
	if codec := attributes & 7; codec != 0 {
		from := len(d.inflated)
		var err error
		d.inflated, err = d.decompress.append(d.inflated, codec, records)
		if err != nil {
			d.inflated = d.inflated[:from]
			return fmt.Errorf("offset %d: decompress %d bytes: %w", d.base, len(records), err)
		}
		records = d.inflated[from:]
	}
	if int(count) > len(records)/minRecordSize {
		return d.corrupt(fmt.Sprintf("%d records in %d bytes", count, len(records)))
	}
	d.records, d.left = records, int(count)
	d.firstTimestamp = int64(binary.BigEndian.Uint64(batch[atFirstTimestamp:]))
	d.appendTime = int64(binary.BigEndian.Uint64(batch[atMaxTimestamp:]))
	d.logAppendTime = attributes&attributeLogAppendTime != 0
	return nil
}

// hidden follows the aborted transactions, as Java's CompletedFetch does, and says whether the
// batch is not for the reader.
func (d *Decoder) hidden(batch []byte, attributes uint16, records []byte) bool {
	control := attributes&attributeControl != 0
	producer := int64(binary.BigEndian.Uint64(batch[atProducerID:]))
	if d.cfg.Isolation != ReadCommitted || producer < 0 {
		return control
	}
	for len(d.aborted) > 0 && d.aborted[0].FirstOffset <= d.last {
		d.open = append(d.open, d.aborted[0].ProducerID)
		d.aborted = d.aborted[1:]
	}
	at := slices.Index(d.open, producer)
	if control {
		if at >= 0 && isAbortMarker(records) {
			d.open = slices.Delete(d.open, at, at+1)
		}
		return true
	}
	return at >= 0 && attributes&attributeTransactional != 0
}

// isAbortMarker reads the key of a control record: version and type, 0 of which is an abort.
func isAbortMarker(records []byte) bool {
	var r Record
	if _, ok := readRecord(records, &r); !ok || len(r.Key) < 4 {
		return false
	}
	return binary.BigEndian.Uint16(r.Key[2:]) == 0
}

// take moves records of the batch in hand into b.
func (d *Decoder) take(b *Batch) error {
	limit := d.cfg.MaxRecords
	if limit <= 0 {
		limit = len(b.Records) + d.left
	}
	b.Records = slices.Grow(b.Records, max(min(d.left, limit-len(b.Records)), 0))
	for d.left > 0 && len(b.Records) < limit {
		n := len(b.Records)
		b.Records = b.Records[:n+1]
		r := &b.Records[n]
		rest, ok := readRecord(d.records, r)
		if !ok {
			b.Records = b.Records[:n]
			return d.corrupt("a record's lengths contradict each other")
		}
		d.records = rest
		d.left--
		r.Offset += d.base
		if r.Offset < d.next { // the batch began before the offset asked for
			b.Records = b.Records[:n]
			continue
		}
		if r.Offset > d.last {
			b.Records = b.Records[:n]
			return d.corrupt(fmt.Sprintf("a record at offset %d after the last offset %d", r.Offset, d.last))
		}
		r.Timestamp += d.firstTimestamp
		if d.logAppendTime {
			r.Timestamp = d.appendTime
		}
		d.next = r.Offset + 1
	}
	if d.left == 0 {
		d.records = nil
		d.next = d.last + 1
	}
	return nil
}

// corrupt is the error for the record batch at the position.
func (d *Decoder) corrupt(reason string) error {
	d.raw, d.records, d.left = nil, nil, 0
	return fmt.Errorf("record batch at offset %d: %s: %w", d.next, reason, ErrCorrupt)
}

// readRecord reads one record; its offset and timestamp are the deltas to those of the batch.
func readRecord(b []byte, r *Record) (rest []byte, ok bool) {
	length, b, ok := readVarint(b)
	if !ok || length < 1 || length > int64(len(b)) {
		return nil, false
	}
	rest, b = b[length:], b[1:length] // without the attributes, which are unused
	if r.Timestamp, b, ok = readVarint(b); !ok {
		return nil, false
	}
	if r.Offset, b, ok = readVarint(b); !ok || r.Offset < 0 {
		return nil, false
	}
	if r.Key, b, ok = readBytes(b); !ok {
		return nil, false
	}
	if r.Value, b, ok = readBytes(b); !ok {
		return nil, false
	}
	headers, b, ok := readVarint(b)
	if !ok || headers < 0 || headers > int64(len(b)/2) { // a header takes two bytes at least
		return nil, false
	}
	r.HeaderCount, r.Headers = int(headers), b
	return rest, true
}

func readBytes(b []byte) (v, rest []byte, ok bool) {
	n, b, ok := readVarint(b)
	if !ok || n > int64(len(b)) {
		return nil, nil, false
	}
	if n < 0 {
		return nil, b, true
	}
	return b[:n:n], b[n:], true
}

// readVarint reads a zigzag varint. Most take one or two bytes.
func readVarint(b []byte) (v int64, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 {
		return int64(b[0]>>1) ^ -int64(b[0]&1), b[1:], true
	}
	if len(b) > 1 && b[1] < 0x80 {
		u := uint64(b[0]&0x7f) | uint64(b[1])<<7
		return int64(u>>1) ^ -int64(u&1), b[2:], true
	}
	v, n := binary.Varint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}
