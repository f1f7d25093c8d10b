package httpapi

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/churnstream/churnstream/consumer"
)

// The keys of the store begin with what they hold.
const (
	keyName     = "n"  // the store's own name
	keyReserved = "i"  // ids up to which all may have been given
	keyTopic    = "t"  // the topic that the scores are of
	keyPosition = "p/" // partition (4 bytes): the offset to read next
	keyScore    = "s/" // customer length (2), customer, partition (4), offset (8): timestamp (8), Avro body
)

// store keeps what must outlive the process: the ids that were given to customers, and the scores of the score topic by
// customer with the position up to which they are in it. It is safe for concurrent use.
type store struct {
	db   *pebble.DB
	name string // of this store: part of its ids, so that two stores never give the same

	mu       sync.Mutex
	next     int64
	reserved int64
	closed   bool
}

// reserve is how many ids are set aside by one synchronous write. A crash loses at most so many, and none is given twice.
const reserve = 1 << 17

// openStore locks the directory for this process.
func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := pebble.Open(dir, &pebble.Options{
		Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 4 << 20, CacheSize: 8 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("open the store %s: %w; is another process using it?", dir, err)
	}
	s := &store{db: db}
	if err := s.restore(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store %s: %w", dir, err), db.Close())
	}
	return s, nil
}

func (s *store) restore() error {
	name, err := s.get([]byte(keyName))
	if err != nil {
		return err
	}
	if name == nil {
		name = []byte(strings.ToLower(rand.Text()[:10]))
		if err := s.db.Set([]byte(keyName), name, pebble.Sync); err != nil {
			return err
		}
	}
	s.name = string(name)
	reserved, err := s.get([]byte(keyReserved))
	if err != nil {
		return err
	}
	if len(reserved) == 8 {
		s.reserved = int64(binary.BigEndian.Uint64(reserved))
	}
	s.next = s.reserved // what was reserved may have been given
	return nil
}

// get is nil where there is nothing.
func (s *store) get(key []byte) ([]byte, error) {
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte{}, value...), nil
}

// sequence gives the first of n numbers that this store never gave before.
func (s *store) sequence(n int) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next+int64(n) > s.reserved {
		reserved := s.next + int64(n) + reserve
		if err := s.db.Set([]byte(keyReserved), binary.BigEndian.AppendUint64(nil, uint64(reserved)), pebble.Sync); err != nil {
			return 0, fmt.Errorf("reserve customer ids: %w", err)
		}
		s.reserved = reserved
	}
	first := s.next
	s.next += int64(n)
	return first, nil
}

// appendCustomer writes the id of a customer who has none: g-, the store's name and a number of its sequence.
func (s *store) appendCustomer(dst []byte, number int64) []byte {
	dst = append(append(append(dst, "g-"...), s.name...), '-')
	return strconv.AppendInt(dst, number, 10)
}

func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.db.Close()
}

// follow says which topic the scores are of; those of another one are removed.
func (s *store) follow(topic string) error {
	old, err := s.get([]byte(keyTopic))
	if err != nil || string(old) == topic {
		return err
	}
	return s.forgetAll(topic)
}

// forgetAll removes every score and position.
func (s *store) forgetAll(topic string) error {
	b := s.db.NewBatch()
	defer b.Close()
	err := errors.Join(
		b.DeleteRange([]byte(keyScore), after([]byte(keyScore)), nil),
		b.DeleteRange([]byte(keyPosition), after([]byte(keyPosition)), nil),
		b.Set([]byte(keyTopic), []byte(topic), nil),
	)
	return errors.Join(err, b.Commit(pebble.Sync))
}

// position is the offset to read next, -1 where nothing was read.
func (s *store) position(partition int32) (int64, error) {
	value, err := s.get(positionKey(partition))
	if err != nil || len(value) != 8 {
		return -1, err
	}
	return int64(binary.BigEndian.Uint64(value)), nil
}

// apply takes a batch of the score topic in, and its position in the same write: after a crash either both are there or
// neither. It needs no flush to the disk of its own: what the disk lost is read again from the topic.
func (s *store) apply(batch *consumer.Batch, body func(value []byte) ([]byte, bool)) error {
	b := s.db.NewBatch()
	defer b.Close()
	var key, value []byte
	for i := range batch.Records {
		r := &batch.Records[i]
		if len(r.Key) == 0 || len(r.Key) > 1<<16-1 {
			continue
		}
		if r.Value == nil { // the customer is erased
			prefix := customerPrefix(nil, r.Key)
			if err := b.DeleteRange(prefix, after(prefix), nil); err != nil {
				return err
			}
			continue
		}
		avro, ok := body(r.Value)
		if !ok {
			continue
		}
		key = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(customerPrefix(key[:0], r.Key), uint32(batch.Partition)), uint64(r.Offset))
		value = append(binary.BigEndian.AppendUint64(value[:0], uint64(r.Timestamp)), avro...)
		if err := b.Set(key, value, nil); err != nil {
			return err
		}
	}
	if err := b.Set(positionKey(batch.Partition), binary.BigEndian.AppendUint64(nil, uint64(batch.Next)), nil); err != nil {
		return err
	}
	return b.Commit(pebble.NoSync)
}

// scores hands the Avro bodies of a customer's scores to fn, the newest first, until it returns false.
func (s *store) scores(customer []byte, fn func(partition int32, offset int64, avro []byte) bool) error {
	prefix := customerPrefix(nil, customer)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	for ok := it.Last(); ok; ok = it.Prev() {
		place := it.Key()[len(prefix):]
		if len(place) != 12 || len(it.Value()) < 8 {
			continue
		}
		if !fn(int32(binary.BigEndian.Uint32(place)), int64(binary.BigEndian.Uint64(place[4:])), it.Value()[8:]) {
			break
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// forget removes a customer's scores and the bytes that they were on the disk.
func (s *store) forget(customer []byte) error {
	prefix := customerPrefix(nil, customer)
	return s.db.DeleteRange(prefix, after(prefix), pebble.Sync)
}

// expire removes the scores below the first offsets of the topic's partitions: those that the topic itself has no more.
func (s *store) expire(first map[int32]int64) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte(keyScore), UpperBound: after([]byte(keyScore))})
	if err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		key := it.Key()
		if len(key) < 12 {
			continue
		}
		place := key[len(key)-12:]
		if int64(binary.BigEndian.Uint64(place[4:])) < first[int32(binary.BigEndian.Uint32(place))] {
			err = b.Delete(key, nil)
		}
		if err == nil && b.Len() > 1<<20 {
			err = b.Commit(pebble.NoSync)
			b.Reset()
		}
	}
	return errors.Join(err, it.Error(), it.Close(), b.Commit(pebble.NoSync))
}

func positionKey(partition int32) []byte {
	return binary.BigEndian.AppendUint32([]byte(keyPosition), uint32(partition))
}

// customerPrefix has the length first, so that no customer's keys lie among those of another.
func customerPrefix(dst, customer []byte) []byte {
	dst = append(dst, keyScore...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(customer)))
	return append(dst, customer...)
}

// after is the least key that is greater than all with the prefix.
func after(prefix []byte) []byte {
	end := append([]byte{}, prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// quiet drops what Pebble tells of its compactions.
type quiet struct{}

func (quiet) Infof(string, ...any)         {}
func (quiet) Errorf(string, ...any)        {}
func (quiet) Fatalf(f string, args ...any) { panic(fmt.Sprintf("pebble: "+f, args...)) }
