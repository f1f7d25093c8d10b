package consumer

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// lane is one of the two requests that may be under way at a leader.
type lane int

const (
	longLane  lane = iota // all partitions that are ready; waits up to MaxWait at the broker
	shortLane             // those that become ready while the long lane waits; a short wait, so that the next ones need not wait long either
)

// leader fetches from one broker. kafka-go opens a connection for each request under way, so there
// are two of them at most, and neither is in the way of commits.
type leader struct {
	fetcher *Fetcher
	broker  int32
	wake    [2]chan struct{}

	mu        sync.Mutex
	queue     []*Partition // in the order in which they are asked
	flying    [2]bool
	idle      bool // the long lane's last answer had nothing
	throttled time.Time
}

// question is one partition's part of a request, answer what came back.
type question struct {
	partition *Partition
	epoch     uint64
	offset    int64
	limit     int
	asked     bool // whether the answer held the partition
}

type answer struct {
	code                      int16
	highWatermark, lastStable int64
	abortedRaw, records       []byte
}

func (a *answer) abortedCount() int { return len(a.abortedRaw) / 16 }

func (a *answer) aborted(i int) AbortedTransaction {
	raw := a.abortedRaw[16*i:]
	return AbortedTransaction{
		ProducerID:  int64(binary.BigEndian.Uint64(raw)),
		FirstOffset: int64(binary.BigEndian.Uint64(raw[8:])),
	}
}

func newLeader(f *Fetcher, broker int32) *leader {
	l := &leader{fetcher: f, broker: broker}
	for i := range l.wake {
		l.wake[i] = make(chan struct{}, 1)
	}
	return l
}

// enqueue makes p wait for the next request.
func (l *leader) enqueue(p *Partition) {
	l.mu.Lock()
	l.queue = append(l.queue, p)
	l.mu.Unlock()
	l.wakeLanes()
}

func (l *leader) wakeLanes() {
	poke(l.wake[longLane])
	poke(l.wake[shortLane])
}

// run is one lane. Its request, questions and buffers are its own.
func (l *leader) run(ctx context.Context, which lane) {
	f := fetch{leader: l, lane: which, wait: l.fetcher.cfg.MaxWait}
	if which == shortLane {
		f.wait = max(f.wait/8, time.Millisecond)
	}
	f.request = &kafkawire.Request{
		Key: protocol.Fetch, FlexibleFrom: 12, Broker: l.broker, Encode: f.encode, Decode: f.decode,
		MaxResponse: l.fetcher.cfg.MaxBytes + l.fetcher.cfg.MaxBatchBytes + 1<<20,
		Timeout:     f.wait + 10*time.Second,
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		pause := l.take(which, &f)
		if pause == 0 {
			f.exchange(ctx)
			pause = l.fetcher.cfg.MinInterval - time.Since(f.started)
			if which == shortLane || f.bytes >= 64<<10 {
				pause = 0
			}
			l.mu.Lock()
			l.flying[which] = false
			if which == longLane {
				l.idle = f.bytes == 0
			}
			l.mu.Unlock()
			if pause <= 0 {
				l.wakeLanes()
				if ctx.Err() != nil {
					return
				}
				continue
			}
		}
		var wake <-chan struct{}
		if pause < 0 {
			wake, pause = l.wake[which], time.Hour
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-timer.C:
		}
	}
}

// take fills f with the queued partitions. It returns 0 where there are some, the time to wait, or
// -1 to wait until something changes.
func (l *leader) take(which lane, f *fetch) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := time.Until(l.throttled); wait > 0 {
		return wait
	}
	if which == shortLane && !l.flying[longLane] {
		return -1
	}
	if which == longLane && l.idle && l.flying[shortLane] { // wait the little, then ask for all at once
		return -1
	}
	f.questions = f.questions[:0]
	f.share = l.fetcher.cfg.share(int(l.fetcher.open.Load()))
	for _, p := range l.queue {
		if q, ok := p.ask(l, f.share); ok {
			f.questions = append(f.questions, q)
		}
	}
	clear(l.queue)
	l.queue = l.queue[:0]
	if len(f.questions) == 0 {
		return -1
	}
	l.flying[which] = true
	return 0
}

// fetch is the request of one lane.
type fetch struct {
	*leader
	lane      lane
	wait      time.Duration
	request   *kafkawire.Request
	questions []question
	share     int
	started   time.Time
	bytes     int
	again     []*Partition // asked again after those that got nothing
	empty     []*Partition
}

func (f *fetch) exchange(ctx context.Context) {
	f.started, f.bytes = time.Now(), 0
	f.again, f.empty = f.again[:0], f.empty[:0]
	err := f.negotiate(ctx)
	if err == nil {
		err = f.fetcher.client.Do(ctx, f.request)
	}
	metrics := f.fetcher.metrics
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		f.fetcher.client.ForgetMetadata()
		for i := range f.questions {
			f.fetcher.retry(f.questions[i], err)
		}
		return
	}
	metrics.Fetches.Inc()
	metrics.FetchSeconds.Observe(time.Since(f.started).Seconds())
	metrics.FetchedBytes.Add(float64(f.bytes))
	for i := range f.questions {
		if q := f.questions[i]; !q.asked {
			f.fetcher.retry(q, fmt.Errorf("missing in the answer of broker %d: %w", f.broker, kafka.UnknownTopicOrPartition))
		}
	}
	f.mu.Lock()
	f.queue = append(append(f.queue, f.empty...), f.again...)
	f.mu.Unlock()
}

func (f *fetch) negotiate(ctx context.Context) error {
	versions, err := f.fetcher.client.Versions(ctx, f.broker)
	if err != nil {
		return err
	}
	// From v13 topics go by id; v12 would only add epochs that are not checked here.
	f.request.Version, err = versions.Max(protocol.Fetch, 11)
	if err == nil && f.request.Version < 4 {
		err = fmt.Errorf("fetch: the broker speaks up to v%d, v4 (Kafka 0.11) is needed: %w", f.request.Version, kafka.UnsupportedVersion)
	}
	return err
}

func (f *fetch) encode(w *kafkawire.Writer) {
	cfg := &f.fetcher.cfg
	version := f.request.Version
	w.Int32(-1) // not a replica
	w.Int32(int32(f.wait.Milliseconds()))
	w.Int32(int32(cfg.MinBytes))
	w.Int32(int32(cfg.MaxBytes))
	w.Int8(int8(cfg.Isolation))
	if version >= 7 {
		w.Int32(0)  // no fetch session
		w.Int32(-1) // ... and none wanted
	}
	// Partitions of a topic stand together; the first of all may exceed the limits, so the order is
	// that of the queue as far as that allows.
	topics := 0
	atTopics := len(w.B)
	w.ArrayLen(0)
	for i := range f.questions {
		if f.written(i) {
			continue
		}
		topics++
		topic := f.questions[i].partition.Topic
		w.String(topic)
		partitions := 0
		atPartitions := len(w.B)
		w.ArrayLen(0)
		for j := i; j < len(f.questions); j++ {
			q := &f.questions[j]
			if q.partition.Topic != topic {
				continue
			}
			partitions++
			w.Int32(q.partition.Partition)
			if version >= 9 {
				w.Int32(-1) // leader epoch: not checked
			}
			w.Int64(q.offset)
			if version >= 5 {
				w.Int64(-1) // log start: followers only
			}
			w.Int32(int32(q.limit))
		}
		binary.BigEndian.PutUint32(w.B[atPartitions:], uint32(partitions))
	}
	binary.BigEndian.PutUint32(w.B[atTopics:], uint32(topics))
	if version >= 7 {
		w.ArrayLen(0) // forgotten topics
	}
	if version >= 11 {
		w.String("") // rack
	}
}

// written says whether the topic of question i came before.
func (f *fetch) written(i int) bool {
	for j := range i {
		if f.questions[j].partition.Topic == f.questions[i].partition.Topic {
			return true
		}
	}
	return false
}

func (f *fetch) decode(r *kafkawire.Reader) error {
	version := f.request.Version
	if throttle := r.Int32(); throttle > 0 {
		f.throttle(time.Duration(throttle) * time.Millisecond)
	}
	if version >= 7 {
		if err := kafkawire.Code(r.Int16()); err != nil {
			return err
		}
		r.Int32() // session
	}
	expected := 0
	for topics := r.ArrayLen(); topics > 0 && r.Err() == nil; topics-- {
		topic := r.StringBytes()
		for partitions := r.ArrayLen(); partitions > 0 && r.Err() == nil; partitions-- {
			partition := r.Int32()
			a := answer{code: r.Int16(), highWatermark: r.Int64(), lastStable: r.Int64()}
			if version >= 5 {
				r.Int64() // log start
			}
			if n := r.ArrayLen(); n > 0 {
				a.abortedRaw = r.Raw(16 * n)
			}
			if version >= 11 {
				r.Int32() // preferred read replica
			}
			a.records = r.Bytes()
			if r.Err() != nil {
				return nil // reported by Do
			}
			q := f.find(topic, partition, expected)
			if q < 0 {
				continue
			}
			expected = q + 1
			f.questions[q].asked = true
			f.answered(f.questions[q], &a)
		}
	}
	return nil
}

// find looks for the question, first where the order of the request lets one expect it.
func (f *fetch) find(topic []byte, partition int32, expected int) int {
	for i := range f.questions {
		at := (expected + i) % len(f.questions)
		p := f.questions[at].partition
		if p.Partition == partition && p.Topic == string(topic) {
			return at
		}
	}
	return -1
}

func (f *fetch) answered(q question, a *answer) {
	f.bytes += len(a.records)
	p := q.partition
	switch err := kafkawire.Code(a.code); err {
	case nil:
		again, got := p.deliver(q, a, f.share)
		switch {
		case again && got:
			f.again = append(f.again, p)
		case again:
			f.empty = append(f.empty, p)
		}
	case kafka.OffsetOutOfRange:
		f.fetcher.outOfRange(q)
	default:
		f.fetcher.retry(q, err)
	}
}

func (f *fetch) throttle(d time.Duration) {
	f.fetcher.metrics.ThrottleSeconds.Add(d.Seconds())
	f.mu.Lock()
	f.throttled = time.Now().Add(d)
	f.mu.Unlock()
}
