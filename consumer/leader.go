package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

	topicID     [16]byte
	leaderEpoch int32
	lastEpoch   int32
}

type answer struct {
	code                      int16
	highWatermark, lastStable int64
	aborted                   []AbortedTransaction
	records                   []byte
	replica                   int32 // to ask instead; -1: none
	diverging                 epochEnd
}

// epochEnd is where the log of a leader ends that wrote what we read last, if it is not what we read
// (KIP-595); epoch is -1 where there is nothing of the kind.
type epochEnd struct {
	epoch  int32
	offset int64
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
		Buffers: l.fetcher.memory, Timeout: f.wait + 10*time.Second,
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		pause, wakeable := l.take(which, &f)
		if pause == 0 {
			f.exchange(ctx)
			if pause = l.landed(which, &f); pause <= 0 {
				if ctx.Err() != nil {
					return
				}
				continue
			}
		}
		var wake <-chan struct{}
		if wakeable {
			wake = l.wake[which]
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

// untilWoken is the pause of a lane that only something new can give work.
const untilWoken = time.Hour

// take fills f with the queued partitions. It returns 0 where there are some, else how long to wait
// and whether to look again when the lane is woken.
func (l *leader) take(which lane, f *fetch) (pause time.Duration, wakeable bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if wait := l.throttled.Sub(now); wait > 0 {
		return wait, false
	}
	if which == shortLane && !l.flying[longLane] {
		return untilWoken, true
	}
	if which == longLane && l.idle && l.flying[shortLane] { // wait the little, then ask for all at once
		return untilWoken, true
	}
	if len(l.queue) == 0 {
		return untilWoken, true
	}
	cfg := &l.fetcher.cfg
	most := min(max(cfg.MemoryBytes/(8*int(l.fetcher.brokers.Load())), leastGrant), cfg.MaxBytes)
	granted, overdraft, wait := l.fetcher.memory.reserve(l, most)
	if granted == 0 {
		return wait, true
	}
	f.granted, f.questions = granted, f.questions[:0]
	f.share = cfg.share(int(l.fetcher.open.Load()))
	left := l.queue[:0]
	single := false
	for _, p := range l.queue {
		first := len(f.questions) == 0
		alone, starving := p.needs()
		if single || alone && !first || overdraft && !(first && starving) {
			left = append(left, p)
			continue
		}
		q, ok := p.ask(l, f.share, now)
		if !ok {
			continue
		}
		f.questions = append(f.questions, q)
		single = alone
	}
	clear(l.queue[len(left):])
	l.queue = left
	if len(f.questions) == 0 {
		l.fetcher.memory.release(granted)
		if overdraft {
			return cfg.MaxWait, true
		}
		return untilWoken, true
	}
	l.flying[which] = true
	return 0, false
}

// landed notes that the lane is free again and returns how long it should stay so.
func (l *leader) landed(which lane, f *fetch) time.Duration {
	l.fetcher.memory.release(f.granted)
	pause := l.fetcher.cfg.MinInterval - time.Since(f.started)
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
	}
	return pause
}

// fetch is the request of one lane.
type fetch struct {
	*leader
	lane      lane
	wait      time.Duration
	request   *kafkawire.Request
	questions []question
	topics    []askedTopic
	share     int
	granted   int
	started   time.Time
	bytes     int
	quota     bool // the answer asks for a pause
	aborted   []AbortedTransaction
	again     []*Partition // asked again after those that got nothing
	empty     []*Partition
}

// askedTopic is a topic of a request.
type askedTopic struct {
	name  string
	id    [16]byte
	count int // of its questions
}

func (f *fetch) exchange(ctx context.Context) {
	f.started, f.bytes, f.quota = time.Now(), 0, false
	f.again, f.empty = f.again[:0], f.empty[:0]
	f.request.MaxResponse = f.granted + f.fetcher.cfg.MaxBatchBytes + 1<<20
	err := f.negotiate(ctx)
	if err == nil {
		f.gatherTopics()
		err = f.fetcher.client.Do(ctx, f.request)
	}
	if err != nil {
		if ctx.Err() == nil {
			f.failed(err)
		}
		return
	}
	metrics := f.fetcher.metrics
	metrics.Fetches.Inc()
	metrics.FetchSeconds.Observe(time.Since(f.started).Seconds())
	metrics.FetchedBytes.Add(float64(f.bytes))
	for i := range f.questions {
		switch q := &f.questions[i]; {
		case q.asked:
		case f.quota: // which leaves out everything
			if q.partition.postponed(q) {
				f.empty = append(f.empty, q.partition)
			}
		default:
			f.fetcher.retry(q, fmt.Errorf("missing in the answer of broker %d: %w", f.broker, kafka.UnknownTopicOrPartition))
		}
	}
	f.mu.Lock()
	f.queue = append(append(f.queue, f.empty...), f.again...)
	f.mu.Unlock()
}

// failed treats an error of the whole request.
func (f *fetch) failed(err error) {
	if errors.Is(err, kafkawire.ErrResponseTooLarge) {
		if len(f.questions) > 1 { // find out whose it is; the others need not suffer
			f.fetcher.log.Warn().Err(err).Int32("broker", f.broker).Msg("asking for each partition by itself")
			for i := range f.questions {
				f.questions[i].partition.askAlone(&f.questions[i])
			}
			return
		}
		err = fmt.Errorf("%w: %w", err, ErrBatchTooLarge)
	} else {
		f.fetcher.client.ForgetMetadata()
	}
	for i := range f.questions {
		f.fetcher.retry(&f.questions[i], err)
	}
}

// Fetch versions: from 9 on leader epochs are compared, from 11 on a rack is named, from 12 on the
// epoch of the last record is compared too, which shows a truncated log, and from 13 on topics go by
// id, which shows one that was created again under its old name.
const (
	fetchEpochs     = 9
	fetchRack       = 11
	fetchLastEpochs = 12
	fetchTopicIDs   = 13
)

func (f *fetch) negotiate(ctx context.Context) error {
	versions, err := f.fetcher.client.Versions(ctx, f.broker)
	if err != nil {
		return err
	}
	f.request.Version, err = versions.Max(protocol.Fetch, fetchTopicIDs)
	if err == nil && f.request.Version < 4 {
		err = fmt.Errorf("fetch: the broker speaks up to v%d, v4 (Kafka 0.11) is needed: %w", f.request.Version, kafka.UnsupportedVersion)
	}
	for i := range f.questions {
		if f.questions[i].topicID == ([16]byte{}) { // metadata comes from an older broker
			f.request.Version = min(f.request.Version, fetchTopicIDs-1)
		}
	}
	return err
}

// gatherTopics lists the topics of the questions in the order of their first ones: the partitions of
// a topic stand together in a request. The first of all may exceed the limits, so the order is that
// of the queue as far as that allows.
func (f *fetch) gatherTopics() {
	f.topics = f.topics[:0]
	for i := range f.questions {
		q := &f.questions[i]
		at := slices.IndexFunc(f.topics, func(t askedTopic) bool { return t.name == q.partition.Topic && t.id == q.topicID })
		if at < 0 {
			at = len(f.topics)
			f.topics = append(f.topics, askedTopic{name: q.partition.Topic, id: q.topicID})
		}
		f.topics[at].count++
	}
}

func (f *fetch) encode(w *kafkawire.Writer) {
	cfg := &f.fetcher.cfg
	version := f.request.Version
	w.Int32(-1) // not a replica
	w.Int32(int32(f.wait.Milliseconds()))
	w.Int32(int32(cfg.MinBytes))
	w.Int32(int32(f.granted - f.granted/16)) // the rest is for what stands around the records
	w.Int8(int8(cfg.Isolation))
	if version >= 7 {
		w.Int32(0)  // no fetch session
		w.Int32(-1) // ... and none wanted
	}
	w.ArrayLen(len(f.topics))
	for i := range f.topics {
		t := &f.topics[i]
		if version >= fetchTopicIDs {
			w.Raw(t.id[:])
		} else {
			w.String(t.name)
		}
		w.ArrayLen(t.count)
		for j := range f.questions {
			if q := &f.questions[j]; q.partition.Topic == t.name && q.topicID == t.id {
				q.encode(w, version)
			}
		}
		w.Tags()
	}
	if version >= 7 {
		w.ArrayLen(0) // forgotten topics
	}
	if version >= fetchRack {
		w.String(cfg.Rack)
	}
	w.Tags()
}

func (q *question) encode(w *kafkawire.Writer, version int16) {
	w.Int32(q.partition.Partition)
	if version >= fetchEpochs {
		w.Int32(q.leaderEpoch)
	}
	w.Int64(q.offset)
	if version >= fetchLastEpochs {
		w.Int32(q.lastEpoch)
	}
	if version >= 5 {
		w.Int64(-1) // log start: followers only
	}
	w.Int32(int32(q.limit))
	w.Tags()
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
		var topic []byte // name or id
		if version >= fetchTopicIDs {
			topic = r.Raw(16)
		} else {
			topic = r.StringBytes()
		}
		for partitions := r.ArrayLen(); partitions > 0 && r.Err() == nil; partitions-- {
			partition := r.Int32()
			a := f.decodeAnswer(r)
			if r.Err() != nil {
				break // reported by Do
			}
			if q := f.find(topic, partition, expected); q >= 0 && !f.questions[q].asked {
				expected = q + 1
				f.questions[q].asked = true
				f.answered(&f.questions[q], &a)
			}
		}
		r.Tags()
	}
	r.Tags()
	return nil
}

func (f *fetch) decodeAnswer(r *kafkawire.Reader) answer {
	version := f.request.Version
	a := answer{
		code: r.Int16(), highWatermark: r.Int64(), lastStable: r.Int64(),
		replica: -1, diverging: epochEnd{epoch: -1},
	}
	if version >= 5 {
		r.Int64() // log start
	}
	f.aborted = f.aborted[:0]
	for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
		f.aborted = append(f.aborted, AbortedTransaction{ProducerID: r.Int64(), FirstOffset: r.Int64()})
		r.Tags()
	}
	a.aborted = f.aborted
	if version >= fetchRack {
		a.replica = r.Int32()
	}
	a.records = r.Bytes()
	r.EachTag(func(tag uint64, field *kafkawire.Reader) {
		if tag == 0 { // the diverging epoch; the others are hints at the new leader and for followers
			a.diverging = epochEnd{epoch: field.Int32(), offset: field.Int64()}
		}
	})
	return a
}

// find looks for the question, first where the order of the request lets one expect it.
func (f *fetch) find(topic []byte, partition int32, expected int) int {
	for i := range f.questions {
		at := (expected + i) % len(f.questions)
		q := &f.questions[at]
		if q.partition.Partition != partition {
			continue
		}
		if f.request.Version >= fetchTopicIDs && string(q.topicID[:]) == string(topic) ||
			f.request.Version < fetchTopicIDs && q.partition.Topic == string(topic) {
			return at
		}
	}
	return -1
}

func (f *fetch) answered(q *question, a *answer) {
	f.bytes += len(a.records)
	p := q.partition
	err := kafkawire.Code(a.code)
	switch {
	case errors.Is(err, kafka.OffsetOutOfRange):
		f.fetcher.outOfRange(q)
	case err != nil:
		f.fetcher.retry(q, err)
	case a.diverging.epoch >= 0:
		f.fetcher.truncated(q, a.diverging)
	case a.replica >= 0 && a.replica != f.broker:
		f.fetcher.redirect(q, a.replica)
	default:
		again, got := p.deliver(q, a, f.share)
		switch {
		case again && got:
			f.again = append(f.again, p)
		case again:
			f.empty = append(f.empty, p)
		}
	}
}

func (f *fetch) throttle(d time.Duration) {
	f.fetcher.metrics.ThrottleSeconds.Add(d.Seconds())
	f.quota = true
	f.mu.Lock()
	f.throttled = time.Now().Add(d)
	f.mu.Unlock()
}
