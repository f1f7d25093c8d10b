// Package producer takes records and the input offsets they came from, and leaves them in Kafka together: in one
// transaction (Transactional, exactly-once), or records first and offsets after their acknowledgement (Idempotent,
// at-least-once).
//
// Both are a Publisher, and a Publisher belongs to one goroutine. A unit of work is Begin, any number of Append, then
// Commit or Abort:
//
//	if err := p.Begin(ctx); err != nil { ... }
//	if err := p.Append(&record); err != nil { ... }
//	err := p.Commit(ctx, member, offsets)
//	for errors.Is(err, producer.ErrStaleMember) {
//		err = p.Commit(ctx, newMember(), offsets) // the same unit goes on
//	}
//	if errors.Is(err, producer.ErrAbortable) {
//		err = p.Abort(ctx) // then read again from the committed offset
//	}
package producer

import "context"

// Publisher publishes units of records and input offsets. Its methods are called by one goroutine, one at a time.
type Publisher interface {
	// Begin opens a unit. The first call asks for the producer id; in Transactional that fences every earlier owner
	// of the transactional id and ends its open transaction, so committed offsets are to be read after it.
	Begin(ctx context.Context) error

	// Append copies r into the unit. The record's memory is the caller's again when it returns. A record that can
	// never be sent gives *RecordTooLargeError and leaves the unit as it was.
	Append(r *Record) error

	// Buffered is the size of the open unit so far: keys, values and headers in bytes. Whoever has more to do decides by
	// it when a unit is large enough.
	Buffered() int

	// Commit sends all records and then offsets as group member m, and ends the unit. Offsets name the next record
	// to read. It may be called again after ErrStaleMember with the member's new identity, and after the end of ctx:
	// it goes on where it stopped and nothing is doubled.
	Commit(ctx context.Context, m Member, offsets []Offset) error

	// Abort drops the unit. Afterwards the committed offsets say where to read on: when the answer to a commit was
	// lost, the unit may have been committed all the same. Without an open unit it does nothing.
	Abort(ctx context.Context) error

	// Close drops what was not committed without asking the broker. It is safe to call it twice.
	Close() error
}

// Record is one record to publish. Slices are only read during Append.
type Record struct {
	Topic     string
	Partition int32 // negative: by the key as Java's default partitioner does, in turn when the key is nil
	Timestamp int64 // milliseconds since 1970, written as it is

	Key, Value []byte // nil is null
	Headers    []Header

	// RawHeaders holds RawHeaderCount headers in the encoding of the record batch, as a fetch hands them out. They
	// precede Headers.
	RawHeaders     []byte
	RawHeaderCount int
}

// Header is a record header. A nil value is null.
type Header struct {
	Key   string
	Value []byte
}

// Member is the group member in whose name offsets are committed. The zero value of MemberID with Generation -1 is
// accepted by brokers from anyone and fences nobody: a group member fills all of it.
type Member struct {
	Group      string
	MemberID   string
	InstanceID string // empty: none
	Generation int32  // or the member epoch of KIP-848
}

// Offset is a position of the input: the offset of the next record to read.
type Offset struct {
	Topic     string
	Partition int32
	Offset    int64
	Metadata  string // kept by the group with the offset, for whoever reads it next
}
