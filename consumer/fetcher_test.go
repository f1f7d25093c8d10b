package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func numbered(from, n int) (values []string) {
	for i := range n {
		values = append(values, fmt.Sprintf("v%05d", from+i))
	}
	return values
}

func TestFetcherReadsEveryPartitionInOrder(t *testing.T) {
	brokers := testBrokers(t)
	topics := []string{createTopic(t, brokers, 3), createTopic(t, brokers, 2)}
	c := admin(t, brokers)
	f := startFetcher(t, brokers, nil)
	for i, topic := range topics {
		for p := range 3 - i {
			for n := range 4 {
				produce(t, c, topic, p, "", rawBatch{values: numbered(25*n, 25), codec: uint16(n)})
			}
			opened := f.Open(TopicPartition{topic, int32(p)}, 10)
			if got := read(t, opened, 100); !slices.Equal(got, numbered(10, 90)) {
				t.Errorf("%s/%d: %d records, %v", topic, p, len(got), got[:min(len(got), 3)])
			}
		}
	}
	report := f.Positions()
	if len(report) != 5 {
		t.Fatalf("%d positions", len(report))
	}
	for _, p := range report {
		if p.Next != 100 || p.Lag != 0 || p.HighWatermark != 100 {
			t.Errorf("position %+v", p)
		}
	}
}

func TestFetcherHidesAbortedAndOpenTransactions(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 1)
	c := admin(t, brokers)
	id := uniqueName("txn")
	transaction(t, c, id, topic, 0, true, "a", "b")                // 0 1, marker 2
	transaction(t, c, id, topic, 0, false, "x", "y")               // 3 4, marker 5
	produce(t, c, topic, 0, "", rawBatch{values: []string{"c"}})   // 6
	transaction(t, c, id, topic, 0, false, "z")                    // 7, marker 8
	end := openTransaction(t, c, uniqueName("txn"), topic, 0, "d") // 9
	f := startFetcher(t, brokers, nil)
	p := f.Open(TopicPartition{topic, 0}, -1)
	if got := strings.Join(read(t, p, 9), " "); got != "a b c" {
		t.Errorf("read %q", got)
	}
	eventually(t, "the held partition shows the end that can be read", func() bool {
		r := f.Positions()[0]
		return r.LastStableOffset == 9 && r.HighWatermark == 10 && r.Lag == 0
	})
	end(true) // marker 10
	if got := strings.Join(read(t, p, 11), " "); got != "d" {
		t.Errorf("after the commit: %q", got)
	}
}

func TestFetcherReadsRecordsLargerThanItsLimits(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 2)
	c := admin(t, brokers)
	large := strings.Repeat("x", 300_000)
	for p := range 2 {
		produce(t, c, topic, p, "", rawBatch{values: []string{"small"}})
		produce(t, c, topic, p, "", rawBatch{values: []string{large}})
		produce(t, c, topic, p, "", rawBatch{values: []string{"after"}})
	}
	f := startFetcher(t, brokers, func(c *FetchConfig) { c.MaxBytes, c.MaxPartitionBytes = 20_000, 10_000 })
	open := []*Partition{f.Open(TopicPartition{topic, 0}, 0), f.Open(TopicPartition{topic, 1}, 0)}
	for _, p := range open {
		got := read(t, p, 3)
		if len(got) != 3 || got[1] != large || got[2] != "after" {
			t.Errorf("%s: %d records", p.TopicPartition, len(got))
		}
	}
}

func TestOffsetsOutOfRangeFollowThePolicy(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 1)
	produce(t, admin(t, brokers), topic, 0, "", rawBatch{values: numbered(0, 10)})
	tp := TopicPartition{topic, 0}
	cases := []struct {
		policy OffsetReset
		offset int64
		first  int64 // offset of the first record read; -1: none is there yet
	}{
		{ResetEarliest, 500, 0},
		{ResetEarliest, -1, 0},
		{ResetLatest, 500, -1},
		{ResetLatest, -1, -1},
	}
	for _, c := range cases {
		t.Run(fmt.Sprint(c.policy, " from ", c.offset), func(t *testing.T) {
			f := startFetcher(t, brokers, func(cfg *FetchConfig) { cfg.OffsetReset = c.policy })
			p := f.Open(tp, c.offset)
			if c.first < 0 {
				eventually(t, "the end is found", func() bool { r := f.Positions()[0]; return r.HighWatermark >= 10 && r.Next != -1 && r.Lag == 0 })
				produce(t, admin(t, brokers), topic, 0, "", rawBatch{values: []string{"new"}})
			}
			b, err := p.Next(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			if c.first >= 0 && b.Records[0].Offset != c.first {
				t.Errorf("first record at %d", b.Records[0].Offset)
			}
			if c.first < 0 && string(b.Records[0].Value) != "new" {
				t.Errorf("first record %q", b.Records[0].Value)
			}
		})
	}
	for _, offset := range []int64{500, -1} {
		f := startFetcher(t, brokers, func(cfg *FetchConfig) { cfg.OffsetReset = ResetFail })
		p := f.Open(tp, offset)
		var out *OffsetOutOfRangeError
		if _, err := p.Next(deadline(t)); !errors.As(err, &out) || out.Offset != offset || !strings.Contains(err.Error(), topic) {
			t.Fatalf("fail from %d: %v", offset, err)
		}
		p.SeekTo(3)
		if b, err := p.Next(deadline(t)); err != nil || b.Records[0].Offset != 3 {
			t.Errorf("after SeekTo: %v", err)
		}
	}
}

func TestSeekReadsAgainAndCloseEnds(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 1)
	c := admin(t, brokers)
	for n := range 5 {
		produce(t, c, topic, 0, "", rawBatch{values: numbered(10*n, 10)})
	}
	f := startFetcher(t, brokers, nil)
	p := f.Open(TopicPartition{topic, 0}, 0)
	for _, from := range []int64{20, 0, 45, 7} {
		read(t, p, 50)
		p.SeekTo(from)
		if got := read(t, p, 50); len(got) != int(50-from) || got[0] != fmt.Sprintf("v%05d", from) {
			t.Errorf("from %d: %d records, first %q", from, len(got), got[0])
		}
		p.SeekTo(0)
	}
	p.Close()
	if _, err := p.Next(deadline(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("Next after Close: %v", err)
	}
	if n := len(f.Positions()); n != 0 {
		t.Errorf("%d positions after Close", n)
	}
}

func TestNextEndsWithItsContextAndWithTheFetcher(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 1)
	f, err := NewFetcher(DefaultFetchConfig(), newClient(t, brokers), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(run) }()
	p := f.Open(TopicPartition{topic, 0}, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next: %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := p.Next(deadline(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("Next after Run: %v", err)
	}
	if _, err := f.Open(TopicPartition{topic, 0}, 0).Next(deadline(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("Open after Run: %v", err)
	}
}

func TestUnknownTopicIsWaitedFor(t *testing.T) {
	brokers := testBrokers(t)
	name := uniqueName("later")
	f := startFetcher(t, brokers, nil)
	p := f.Open(TopicPartition{name, 0}, 0)
	failures := func() int { p.mu.Lock(); defer p.mu.Unlock(); return p.failures }
	eventually(t, "two failures", func() bool { return failures() >= 2 })
	createTopicNamed(t, brokers, name, 1)
	produce(t, admin(t, brokers), name, 0, "", rawBatch{values: []string{"a"}})
	if got := read(t, p, 1); len(got) != 1 {
		t.Errorf("read %q", got)
	}
}

func TestLeaderMoveCostsLittle(t *testing.T) {
	k := embedded(t, kfake.NumBrokers(3))
	brokers := k.ListenAddrs()
	topic := createTopic(t, brokers, 1)
	f := startFetcher(t, brokers, nil)
	p := f.Open(TopicPartition{topic, 0}, 0)
	for n := range 4 {
		if n > 0 {
			if err := k.MoveTopicPartition(topic, 0, (k.LeaderFor(topic, 0)+1)%3); err != nil {
				t.Fatal(err)
			}
		}
		c := admin(t, brokers)
		produce(t, c, topic, 0, "", rawBatch{values: numbered(n, 1)})
		started := time.Now()
		if got := read(t, p, int64(n+1)); !slices.Equal(got, numbered(n, 1)) {
			t.Fatalf("after move %d: %q", n, got)
		}
		if d := time.Since(started); d > 2*time.Second {
			t.Errorf("move %d took %s", n, d)
		}
	}
}

func TestRefusedTopicIsNamedWithItsRemedy(t *testing.T) {
	k := embedded(t)
	topic := createTopic(t, k.ListenAddrs(), 1)
	k.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		req := r.(*kmsg.FetchRequest)
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic, rt.TopicID = topic, req.Topics[0].TopicID
		rp := kmsg.NewFetchResponseTopicPartition()
		rp.ErrorCode = int16(kafka.TopicAuthorizationFailed)
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
	p := startFetcher(t, k.ListenAddrs(), nil).Open(TopicPartition{topic, 0}, 0)
	_, err := p.Next(deadline(t))
	var fetch *FetchError
	if !errors.As(err, &fetch) || !errors.Is(err, kafka.TopicAuthorizationFailed) || !strings.Contains(err.Error(), "grant Read") {
		t.Errorf("error %v", err)
	}
}

func TestThrottledBrokerIsLeftAlone(t *testing.T) {
	k := embedded(t)
	topic := createTopic(t, k.ListenAddrs(), 1)
	var first, second atomic.Int64
	k.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		now := time.Now().UnixNano()
		if first.CompareAndSwap(0, now) {
			req := r.(*kmsg.FetchRequest)
			resp := req.ResponseKind().(*kmsg.FetchResponse)
			resp.ThrottleMillis = 300
			rt := kmsg.NewFetchResponseTopic()
			rt.Topic, rt.TopicID = topic, req.Topics[0].TopicID
			rt.Partitions = append(rt.Partitions, kmsg.NewFetchResponseTopicPartition())
			resp.Topics = append(resp.Topics, rt)
			return resp, nil, true
		}
		second.CompareAndSwap(0, now)
		return nil, nil, false
	})
	startFetcher(t, k.ListenAddrs(), nil).Open(TopicPartition{topic, 0}, 0)
	eventually(t, "a second fetch", func() bool { return second.Load() != 0 })
	if pause := time.Duration(second.Load() - first.Load()); pause < 300*time.Millisecond {
		t.Errorf("asked again after %s", pause)
	}
}

// One partition is idle, the other busy: the busy one must not wait for the idle one's long poll.
func TestBusyPartitionDoesNotWaitForIdleOnes(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 2)
	c := admin(t, brokers)
	const pieces = 30
	value := strings.Repeat("x", 60_000)
	for range pieces {
		produce(t, c, topic, 0, "", rawBatch{values: []string{value}})
	}
	f := startFetcher(t, brokers, func(c *FetchConfig) {
		c.MaxWait, c.MaxPartitionBytes = 4*time.Second, 64_000
	})
	f.Open(TopicPartition{topic, 1}, 0)
	p := f.Open(TopicPartition{topic, 0}, 0)
	started := time.Now()
	if got := read(t, p, pieces); len(got) != pieces {
		t.Fatalf("%d records", len(got))
	}
	if d := time.Since(started); d > 8*time.Second {
		t.Errorf("%d pieces took %s", pieces, d)
	}
}

func TestMemoryIsSharedAmongPartitions(t *testing.T) {
	brokers := testBrokers(t)
	const partitions, batches, size, memory = 32, 5, 20_000, 1 << 19
	topic := createTopic(t, brokers, partitions)
	c := admin(t, brokers)
	for p := range partitions {
		for range batches {
			produce(t, c, topic, p, "", rawBatch{values: []string{strings.Repeat("x", size)}})
		}
	}
	f := startFetcher(t, brokers, func(c *FetchConfig) { c.MemoryBytes, c.MaxWait = memory, 4*time.Millisecond })
	var open []*Partition
	for p := range partitions {
		open = append(open, f.Open(TopicPartition{topic, int32(p)}, 0))
	}
	eventually(t, "lanes wait for memory", func() bool {
		f.memory.mu.Lock()
		defer f.memory.mu.Unlock()
		return len(f.memory.hungry) > 0 && f.memory.raw > memory/4
	})
	buffered := 0
	for _, p := range f.Positions() {
		buffered += p.Buffered
	}
	if buffered > memory {
		t.Errorf("%d bytes prefetched, the limit is %d for all", buffered, memory)
	}
	// One goroutine holds a batch of each partition before it goes on with any of them: what is held
	// exceeds the limit, and still nobody waits for ever.
	for left := open; len(left) > 0; {
		var goOn []*Partition
		for _, p := range left {
			b, err := p.Next(deadline(t))
			if err != nil || len(b.Records) == 0 {
				t.Fatalf("%s: %v", p.TopicPartition, err)
			}
			if b.Next < batches { // a piece may hold several
				goOn = append(goOn, p)
			}
		}
		left = goOn
	}
	for _, p := range open {
		p.Close()
	}
	m := f.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.raw != 0 || m.scratch != 0 || m.kept > memory*3/2 {
		t.Errorf("%d and %d bytes are lent after the end, %d are kept", m.raw, m.scratch, m.kept)
	}
}

func TestSteadyStateAllocatesNothingPerRecord(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 1)
	c := admin(t, brokers)
	const batches, each = 40, 500
	for n := range batches {
		produce(t, c, topic, 0, "", rawBatch{values: numbered(each*n, each)})
	}
	f := startFetcher(t, brokers, nil)
	p := f.Open(TopicPartition{topic, 0}, 0)
	ctx := deadline(t)
	drain := func() {
		p.SeekTo(0)
		for {
			b, err := p.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if b.Next == batches*each {
				return
			}
		}
	}
	drain()
	c.Transport.(*kafka.Transport).CloseIdleConnections() // it goes on asking for metadata of all topics
	perRecord := testing.AllocsPerRun(3, drain) / (batches * each)
	if perRecord > 0.05 { // requests cost some, and so does an embedded broker in this process
		t.Errorf("%.3f allocations per record", perRecord)
	}
}

func TestFetchConfigNamesEveryFault(t *testing.T) {
	err := FetchConfig{MinBytes: -1, OffsetReset: "newest"}.Validate()
	for _, key := range []string{"max_wait", "min_bytes", "max_bytes", "max_partition_bytes", "memory_bytes", "max_batch_bytes", "offset_reset"} {
		if err == nil || !strings.Contains(err.Error(), "fetch."+key) {
			t.Errorf("%s is not named in: %v", key, err)
		}
	}
	if err := DefaultFetchConfig().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
}

func TestListOffsets(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 2)
	c := admin(t, brokers)
	now := time.Now().UnixMilli()
	produce(t, c, topic, 0, "", rawBatch{values: numbered(0, 5), time: now})
	end := openTransaction(t, c, uniqueName("txn"), topic, 0, "held")
	client := newClient(t, brokers)
	tps := []TopicPartition{{topic, 0}, {topic, 1}}
	cases := []struct {
		at        int64
		isolation Isolation
		want      [2]int64
	}{
		{Earliest, ReadCommitted, [2]int64{0, 0}},
		{Latest, ReadUncommitted, [2]int64{6, 0}},
		{Latest, ReadCommitted, [2]int64{5, 0}},
		{now + 3, ReadUncommitted, [2]int64{3, -1}},
	}
	for _, c := range cases {
		got, err := ListOffsets(deadline(t), client, tps, c.at, c.isolation)
		if err != nil || got[tps[0]] != c.want[0] || got[tps[1]] != c.want[1] {
			t.Errorf("at %d, isolation %d: %v (%v), want %v", c.at, c.isolation, got, err, c.want)
		}
	}
	end(false)
}

func TestPollGivesWhatIsPrefetchedAndNeverWaits(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 1)
	p := startFetcher(t, brokers, nil).Open(TopicPartition{topic, 0}, 0)
	if b, err := p.Poll(); b != nil || err != nil {
		t.Fatalf("an empty partition gave %+v, %v", b, err)
	}
	produce(t, admin(t, brokers), topic, 0, "", rawBatch{values: numbered(0, 3)})
	var got []string
	eventually(t, "the records", func() bool {
		b, err := p.Poll()
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			return false
		}
		for _, r := range b.Records {
			got = append(got, string(r.Value))
		}
		return true
	})
	if !slices.Equal(got, numbered(0, 3)) {
		t.Errorf("got %v", got)
	}
	if b, err := p.Poll(); b != nil || err != nil {
		t.Errorf("behind the end: %+v, %v", b, err)
	}
	p.Close()
	if _, err := p.Poll(); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed partition: %v", err)
	}
}

func TestNextOfAnEndedContextTakesNothing(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 1)
	produce(t, admin(t, brokers), topic, 0, "", rawBatch{values: numbered(0, 3)})
	f := startFetcher(t, brokers, nil)
	p := f.Open(TopicPartition{topic, 0}, 0)
	eventually(t, "a prefetched batch", func() bool { return f.Positions()[0].Buffered > 0 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if b, err := p.Next(ctx); b != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v, %v", b, err)
	}
	if got := read(t, p, 3); len(got) != 3 {
		t.Errorf("%d records afterwards", len(got))
	}
}
