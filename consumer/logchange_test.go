package consumer

import (
	"errors"
	"fmt"
	"os"
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

// resets of a topic, over all policies.
func resets(t *testing.T, f *Fetcher, topic string, why ResetCause) float64 {
	t.Helper()
	return counterValue(t, f.metrics.OffsetResets.WithLabelValues(topic, string(f.cfg.OffsetReset), string(why)))
}

func deleteTopic(t *testing.T, brokers []string, name string) {
	t.Helper()
	r, err := admin(t, brokers).DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{name}})
	if err == nil {
		err = r.Errors[name]
	}
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t, brokers)
	eventually(t, name+" is gone", func() bool {
		client.ForgetMetadata()
		_, err := client.Leader(t.Context(), name, 0)
		return errors.Is(err, kafka.UnknownTopicOrPartition)
	})
}

// The new topic is longer than the position in the old one: by offsets alone nobody would notice.
func TestTopicCreatedAgainIsReadByPolicy(t *testing.T) {
	brokers := testBrokers(t)
	for _, policy := range []OffsetReset{ResetEarliest, ResetLatest, ResetFail} {
		t.Run(string(policy), func(t *testing.T) {
			topic := createTopic(t, brokers, 1)
			produce(t, admin(t, brokers), topic, 0, "", rawBatch{values: numbered(0, 10)})
			f := startFetcher(t, brokers, func(c *FetchConfig) { c.OffsetReset = policy })
			p := f.Open(TopicPartition{topic, 0}, 0)
			read(t, p, 10)
			deleteTopic(t, brokers, topic)
			createTopicNamed(t, brokers, topic, 1)
			produce(t, admin(t, brokers), topic, 0, "", rawBatch{values: numbered(100, 30)})
			switch policy {
			case ResetEarliest:
				if got := read(t, p, 30); !slices.Equal(got, numbered(100, 30)) {
					t.Errorf("%d records: %v", len(got), got[:min(len(got), 3)])
				}
			case ResetLatest:
				eventually(t, "the reset", func() bool { return resets(t, f, topic, Recreated) == 1 })
			case ResetFail:
				var out *OffsetOutOfRangeError
				if _, err := p.Next(deadline(t)); !errors.As(err, &out) || out.Cause != Recreated || out.Offset != 10 || !strings.Contains(err.Error(), "created again") {
					t.Errorf("error %v", err)
				}
			}
			if n := resets(t, f, topic, Recreated); n != 1 {
				t.Errorf("%v resets counted", n)
			}
		})
	}
}

func TestPrefetchedRecordsOfADeletedTopicAreNotHandedOut(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 1)
	c := admin(t, brokers)
	for n := range 20 {
		produce(t, c, topic, 0, "", rawBatch{values: numbered(10*n, 10)})
	}
	f := startFetcher(t, brokers, nil)
	p := f.Open(TopicPartition{topic, 0}, 0)
	eventually(t, "everything is prefetched", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.slot.next == 200 })
	deleteTopic(t, brokers, topic)
	createTopicNamed(t, brokers, topic, 1)
	produce(t, admin(t, brokers), topic, 0, "", rawBatch{values: numbered(1000, 5)})
	eventually(t, "the reset", func() bool { return resets(t, f, topic, Recreated) == 1 })
	if got := read(t, p, 5); !slices.Equal(got, numbered(1000, 5)) {
		t.Errorf("%d records: %v", len(got), got[:min(len(got), 3)])
	}
}

// The reader is in the middle of a piece when the topic goes: the rest of the piece is of the old one.
func TestRestOfAPieceOfADeletedTopicIsNotHandedOut(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 1)
	c := admin(t, brokers)
	const batches, each = 28, 50
	for n := range batches {
		produce(t, c, topic, 0, "", rawBatch{values: numbered(each*n, each)})
	}
	f := startFetcher(t, brokers, func(c *FetchConfig) { c.MaxPartitionBytes = 32 << 10 })
	p := f.Open(TopicPartition{topic, 0}, 0)
	eventually(t, "a piece and more is prefetched", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.slot.raw) > 8<<10 })
	b, err := p.Next(deadline(t))
	if err != nil || b.Next >= 1000 || !p.more {
		t.Fatalf("the first batch ends at %d, more: %t, %v", b.Next, p.more, err)
	}
	eventually(t, "everything is prefetched", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.offset == batches*each })
	deleteTopic(t, brokers, topic)
	createTopicNamed(t, brokers, topic, 1)
	produce(t, admin(t, brokers), topic, 0, "", rawBatch{values: numbered(9000, 5)})
	eventually(t, "the reset", func() bool { return resets(t, f, topic, Recreated) == 1 })
	if b, err = p.Next(deadline(t)); err != nil || b.First != 0 || string(b.Records[0].Value) != "v09000" {
		t.Errorf("a batch from %d of %d records: %v", b.First, len(b.Records), err)
	}
}

// editFetch has every answer of k to a Fetch replaced where edit returns one.
func editFetch(k *kfake.Cluster, edit func(node int32, req *kmsg.FetchRequest, p *kmsg.FetchResponseTopicPartition, asked kmsg.FetchRequestTopicPartition) bool) {
	k.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		req := r.(*kmsg.FetchRequest)
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		edited := false
		for _, topic := range req.Topics {
			rt := kmsg.NewFetchResponseTopic()
			rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
			for _, asked := range topic.Partitions {
				rp := kmsg.NewFetchResponseTopicPartition()
				rp.Partition = asked.Partition
				edited = edit(k.CurrentNode(), req, &rp, asked) || edited
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		if !edited {
			return nil, nil, false
		}
		return resp, nil, true
	})
}

func TestTruncatedLogIsReadOnFromWhereItPartsWays(t *testing.T) {
	for _, policy := range []OffsetReset{ResetEarliest, ResetFail} {
		t.Run(string(policy), func(t *testing.T) {
			k := embedded(t)
			topic := createTopic(t, k.ListenAddrs(), 1)
			produce(t, admin(t, k.ListenAddrs()), topic, 0, "", rawBatch{values: numbered(0, 4)})
			produce(t, admin(t, k.ListenAddrs()), topic, 0, "", rawBatch{values: numbered(4, 6)})
			var diverged atomic.Bool
			editFetch(k, func(_ int32, _ *kmsg.FetchRequest, p *kmsg.FetchResponseTopicPartition, asked kmsg.FetchRequestTopicPartition) bool {
				// As a leader answers that was not in sync: what we read last is not in its log.
				if asked.FetchOffset != 10 || asked.LastFetchedEpoch < 0 || !diverged.CompareAndSwap(false, true) {
					return false
				}
				p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = 0, 4
				return true
			})
			f := startFetcher(t, k.ListenAddrs(), func(c *FetchConfig) { c.OffsetReset = policy })
			p := f.Open(TopicPartition{topic, 0}, 0)
			read(t, p, 10)
			b, err := p.Next(deadline(t))
			if n := resets(t, f, topic, Truncated); n != 1 {
				t.Errorf("%v resets counted", n)
			}
			if policy == ResetEarliest {
				if err != nil || b.First != 4 || b.Records[0].Offset != 4 {
					t.Errorf("reading on: %+v, %v", b, err)
				}
				return
			}
			var out *OffsetOutOfRangeError
			if !errors.As(err, &out) || out.Cause != Truncated || !strings.Contains(err.Error(), "truncated") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A broker whose epochs do not reach back answers that the offset is out of range, though it is not.
func TestOffsetIsAskedForWithoutItsEpochBeforeItCountsAsLost(t *testing.T) {
	k := embedded(t)
	topic := createTopic(t, k.ListenAddrs(), 1)
	c := admin(t, k.ListenAddrs())
	produce(t, c, topic, 0, "", rawBatch{values: numbered(0, 10)})
	editFetch(k, func(_ int32, _ *kmsg.FetchRequest, p *kmsg.FetchResponseTopicPartition, asked kmsg.FetchRequestTopicPartition) bool {
		if asked.FetchOffset != 10 || asked.LastFetchedEpoch < 0 {
			return false
		}
		p.ErrorCode = int16(kafka.OffsetOutOfRange)
		return true
	})
	f := startFetcher(t, k.ListenAddrs(), func(c *FetchConfig) { c.OffsetReset = ResetFail })
	p := f.Open(TopicPartition{topic, 0}, 0)
	read(t, p, 10)
	produce(t, c, topic, 0, "", rawBatch{values: numbered(10, 5)})
	if got := read(t, p, 15); !slices.Equal(got, numbered(10, 5)) {
		t.Errorf("%d records", len(got))
	}
	if n := resets(t, f, topic, OutOfRange); n != 0 {
		t.Errorf("%v resets counted", n)
	}
}

func TestMetadataOlderThanWhatWasReadIsNotBelieved(t *testing.T) {
	f, err := NewFetcher(DefaultFetchConfig(), newClient(t, []string{"127.0.0.1:1"}), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	p := f.Open(TopicPartition{"t", 0}, 5)
	p.lastEpoch = 7
	r := router{Fetcher: f}
	for epoch, want := range map[int32]error{6: kafka.UnknownLeaderEpoch, 7: nil, 8: nil, -1: nil} {
		l := location{question: question{partition: p, offset: 5}, epoch: epoch}
		if err := r.recognise(&l); !errors.Is(err, want) {
			t.Errorf("epoch %d: %v", epoch, err)
		}
	}
}

func TestReplicaInTheSameRackIsReadAndLeftWhenItFails(t *testing.T) {
	k := embedded(t, kfake.NumBrokers(3))
	topic := createTopic(t, k.ListenAddrs(), 1)
	leader := k.LeaderFor(topic, 0)
	near := (leader + 1) % 3
	k.SetFollowers(topic, 0, []int32{near})
	c := admin(t, k.ListenAddrs())
	var atLeader, atNear atomic.Int64
	var behind atomic.Bool // the replica does not have the offset yet
	editFetch(k, func(node int32, req *kmsg.FetchRequest, p *kmsg.FetchResponseTopicPartition, _ kmsg.FetchRequestTopicPartition) bool {
		switch {
		case node == near && behind.Load():
			p.ErrorCode = int16(kafka.OffsetOutOfRange)
		case node == near:
			atNear.Add(1)
			return false
		case req.Rack != "b" || behind.Load():
			atLeader.Add(1)
			return false
		default:
			atLeader.Add(1)
			p.PreferredReadReplica = near
		}
		return true
	})
	f := startFetcher(t, k.ListenAddrs(), func(c *FetchConfig) { c.Rack, c.OffsetReset, c.MaxWait = "b", ResetFail, 20*time.Millisecond })
	p := f.Open(TopicPartition{topic, 0}, 0)
	write := func(n int64) {
		produce(t, c, topic, 0, "", rawBatch{values: numbered(int(n), 1)})
		if got := read(t, p, n+1); !slices.Equal(got, numbered(int(n), 1)) {
			t.Fatalf("record %d: %q", n, got)
		}
	}
	write(0)
	if atNear.Load() == 0 || atLeader.Load() != 1 {
		t.Fatalf("%d requests at the leader, %d at the replica", atLeader.Load(), atNear.Load())
	}
	behind.Store(true)
	eventually(t, "the leader is asked again", func() bool { return atLeader.Load() > 1 })
	write(1)
	behind.Store(false)
	eventually(t, "the replica is read again", func() bool { n := atNear.Load(); return n > 0 && p.onReplica() })
	asked := atLeader.Load()
	p.mu.Lock()
	p.replica.until = time.Now() // the lease ends
	p.mu.Unlock()
	eventually(t, "the leader is asked which replica is best now", func() bool { return atLeader.Load() > asked })
	write(2)
	if n := resets(t, f, topic, OutOfRange); n != 0 {
		t.Errorf("%v resets counted", n)
	}
}

func (p *Partition) onReplica() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.replica.broker >= 0
}

func TestOversizedResponseFailsTheGuiltyPartitionOnly(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 3, kafka.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: "8000000"})
	c := admin(t, brokers)
	for p := range 3 {
		produce(t, c, topic, p, "", rawBatch{values: []string{"before"}})
	}
	produce(t, c, topic, 1, "", rawBatch{values: []string{strings.Repeat("x", 3_000_000)}})
	for p := range 3 {
		produce(t, c, topic, p, "", rawBatch{values: []string{"after"}})
	}
	f := startFetcher(t, brokers, func(c *FetchConfig) { c.MaxBytes, c.MaxPartitionBytes, c.MaxBatchBytes = 50_000, 50_000, 100_000 })
	var open []*Partition
	for p := range int32(3) {
		open = append(open, f.Open(TopicPartition{topic, p}, 0))
	}
	for _, p := range []int32{0, 2} {
		if got := read(t, open[p], 2); strings.Join(got, " ") != "before after" {
			t.Errorf("partition %d: %q", p, got)
		}
	}
	if got := read(t, open[1], 1); strings.Join(got, " ") != "before" {
		t.Errorf("partition 1: %q", got)
	}
	var fetch *FetchError
	if _, err := open[1].Next(deadline(t)); !errors.As(err, &fetch) || !errors.Is(err, ErrBatchTooLarge) || !strings.Contains(err.Error(), "fetch.max_batch_bytes") {
		t.Errorf("error %v", err)
	}
	open[1].SeekTo(2) // past it
	if got := read(t, open[1], 3); strings.Join(got, " ") != "after" {
		t.Errorf("partition 1 past the record: %q", got)
	}
	for p := range 3 { // nobody is asked alone any more
		produce(t, c, topic, p, "", rawBatch{values: []string{"last"}})
	}
	for p := range open {
		want := int64(3)
		if p == 1 {
			want = 4
		}
		if got := read(t, open[p], want); strings.Join(got, " ") != "last" {
			t.Errorf("partition %d: %q", p, got)
		}
		if alone, _ := open[p].needs(); alone {
			t.Errorf("partition %d is still asked by itself", p)
		}
	}
}

func TestPartitionAddedWhileRunningIsRead(t *testing.T) {
	brokers := testBrokers(t)
	topic := createTopic(t, brokers, 1)
	c := admin(t, brokers)
	produce(t, c, topic, 0, "", rawBatch{values: []string{"a"}})
	f := startFetcher(t, brokers, nil)
	read(t, f.Open(TopicPartition{topic, 0}, 0), 1)
	r, err := c.CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 2}}})
	if err == nil {
		err = r.Errors[topic]
	}
	if err != nil {
		t.Fatal(err)
	}
	added := f.Open(TopicPartition{topic, 1}, -1)
	produce(t, admin(t, brokers), topic, 1, "", rawBatch{values: []string{"b"}})
	if got := read(t, added, 1); len(got) != 1 || got[0] != "b" {
		t.Errorf("read %q", got)
	}
}

func TestBrokersTimestampIsThatOfEveryRecord(t *testing.T) {
	brokers := realBrokers(t)
	topic := createTopic(t, brokers, 1, kafka.ConfigEntry{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"})
	began := time.Now().UnixMilli()
	produce(t, admin(t, brokers), topic, 0, "", rawBatch{values: numbered(0, 3), time: 1000, codec: 4})
	b, err := startFetcher(t, brokers, nil).Open(TopicPartition{topic, 0}, 0).Next(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.Records {
		if at := b.Records[i].Timestamp; at < began-1000 || at > time.Now().UnixMilli()+1000 || at != b.Records[0].Timestamp {
			t.Errorf("record %d has timestamp %d, the broker appended it at about %d", i, at, began)
		}
	}
}

// realBrokers skips what the embedded broker does in a way of its own.
func realBrokers(t *testing.T) []string {
	t.Helper()
	if os.Getenv("CHURNSTREAM_TEST_BROKERS") == "" {
		t.Skip("on a real broker only")
	}
	return testBrokers(t)
}

// A topic that a broker has compacted: gaps inside batches, between them and before a marker at the
// end. On a real broker the cleaner comes round every 15 seconds.
func TestCompactedTopicIsReadOverItsGaps(t *testing.T) {
	brokers := realBrokers(t)
	entry := func(name, value string) kafka.ConfigEntry {
		return kafka.ConfigEntry{ConfigName: name, ConfigValue: value}
	}
	topic := createTopic(t, brokers, 1, entry("cleanup.policy", "compact"), entry("segment.bytes", "1048576"), entry("segment.ms", "200"),
		entry("min.cleanable.dirty.ratio", "0.01"), entry("min.compaction.lag.ms", "0"), entry("max.compaction.lag.ms", "500"))
	c := admin(t, brokers)
	for n := range 30 {
		produce(t, c, topic, 0, "", rawBatch{values: []string{"same", fmt.Sprint("only", n), "same"}, codec: uint16(n % 5)})
	}
	id := uniqueName("txn")
	transaction(t, c, id, topic, 0, true, "committed")
	transaction(t, c, id, topic, 0, false, "aborted") // ends with a marker
	f := startFetcher(t, brokers, nil)
	const last = 94
	client := newClient(t, brokers)
	eventually(t, "the markers are written", func() bool {
		end, err := ListOffsets(deadline(t), client, []TopicPartition{{topic, 0}}, Latest, ReadUncommitted)
		return err == nil && end[TopicPartition{topic, 0}] == last
	})
	p := f.Open(TopicPartition{topic, 0}, 0)
	var got []string
	cleaner := time.NewTicker(500 * time.Millisecond)
	defer cleaner.Stop()
	for giveUp := time.After(2 * time.Minute); len(got) == 0 || len(got) >= 70; {
		select {
		case <-cleaner.C:
		case <-giveUp:
			t.Fatalf("not compacted in two minutes: %d records", len(got))
		}
		produce(t, c, topic, 0, "", rawBatch{values: []string{"another"}}) // the active segment is not cleaned
		p.SeekTo(0)
		got = read(t, p, last)
	}
	same := 0
	for _, v := range got {
		if v == "same" {
			same++
		}
	}
	if same == 0 || !slices.Contains(got, "only0") || !slices.Contains(got, "committed") || slices.Contains(got, "aborted") {
		t.Errorf("%d records, %d of them with the repeated key: %q", len(got), same, got)
	}
	for _, from := range []int64{1, 45, 91, 92} { // also from inside a gap
		p.SeekTo(from)
		if b, err := p.Next(deadline(t)); err != nil || b.First != from || b.Next <= from {
			t.Errorf("from %d: %v", from, err)
		}
	}
}

func TestOffsetsOfManyPartitionsTakeOneRequestALeader(t *testing.T) {
	k := embedded(t, kfake.NumBrokers(3))
	const partitions = 30
	topic := createTopic(t, k.ListenAddrs(), partitions)
	c := admin(t, k.ListenAddrs())
	var tps []TopicPartition
	for p := range partitions {
		tps = append(tps, TopicPartition{topic, int32(p)})
		produce(t, c, topic, p, "", rawBatch{values: numbered(0, p%4+1)})
	}
	tps = append(tps, TopicPartition{createTopic(t, k.ListenAddrs(), 1), 0})
	var asked atomic.Int64
	k.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		asked.Add(1)
		return nil, nil, false
	})
	client := newClient(t, k.ListenAddrs())
	check := func(most int64) {
		t.Helper()
		asked.Store(0)
		got, err := ListOffsets(deadline(t), client, tps, Latest, ReadCommitted)
		if err != nil || len(got) != len(tps) {
			t.Fatalf("%d offsets: %v", len(got), err)
		}
		for tp, offset := range got {
			if want := int64(tp.Partition%4 + 1); tp.Topic == topic && offset != want {
				t.Errorf("%s ends at %d, want %d", tp, offset, want)
			}
		}
		if n := asked.Load(); n > most {
			t.Errorf("%d requests for 3 leaders", n)
		}
	}
	check(3)
	if err := k.MoveTopicPartition(topic, 7, (k.LeaderFor(topic, 7)+1)%3); err != nil {
		t.Fatal(err)
	}
	check(4) // the others keep what they have said
	f := startFetcher(t, k.ListenAddrs(), nil)
	asked.Store(0)
	for _, tp := range tps {
		f.Open(tp, -1)
	}
	eventually(t, "all are found", func() bool {
		for _, p := range f.Positions() {
			if p.Next < 0 {
				return false
			}
		}
		return true
	})
	if n := asked.Load(); n > partitions/2 {
		t.Errorf("%d requests to open %d partitions", n, partitions)
	}
}

func TestCommitsOfManyPartitionsTakeOneRequest(t *testing.T) {
	k := embedded(t)
	topic := createTopic(t, k.ListenAddrs(), 20)
	var asked atomic.Int64
	k.ControlKey(int16(kmsg.OffsetFetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		asked.Add(1)
		return nil, nil, false
	})
	var tps []TopicPartition
	for p := range int32(20) {
		tps = append(tps, TopicPartition{topic, p})
	}
	got, err := CommittedOffsets(deadline(t), newClient(t, k.ListenAddrs()), uniqueName("group"), Identity{}, tps)
	if err != nil || len(got) != 20 || asked.Load() != 1 {
		t.Errorf("%d offsets in %d requests: %v", len(got), asked.Load(), err)
	}
}

func TestCorruptBatchStopsThePartitionBehindWhatPrecedesIt(t *testing.T) {
	k := embedded(t)
	topic := createTopic(t, k.ListenAddrs(), 1)
	good := rawBatch{values: numbered(0, 2)}.encode()
	bad := rawBatch{base: 2, values: numbered(2, 2)}.encode()
	bad[len(bad)-1] ^= 1
	after := rawBatch{base: 4, values: numbered(4, 2)}.encode()
	editFetch(k, func(_ int32, _ *kmsg.FetchRequest, p *kmsg.FetchResponseTopicPartition, asked kmsg.FetchRequestTopicPartition) bool {
		p.HighWatermark, p.LastStableOffset = 6, 6
		switch asked.FetchOffset {
		case 0:
			p.RecordBatches = slices.Concat(good, bad, after)
		case 2:
			p.RecordBatches = slices.Concat(bad, after)
		case 4:
			p.RecordBatches = after
		default:
			return false
		}
		return true
	})
	f := startFetcher(t, k.ListenAddrs(), nil)
	p := f.Open(TopicPartition{topic, 0}, 0)
	if got := read(t, p, 2); !slices.Equal(got, numbered(0, 2)) {
		t.Errorf("before the fault: %q", got)
	}
	for range 2 { // it stays so
		var fetch *FetchError
		if b, err := p.Next(deadline(t)); !errors.As(err, &fetch) || !errors.Is(err, ErrCorrupt) {
			t.Fatalf("batch %+v, error %v", b, err)
		}
	}
	p.SeekTo(4)
	if got := read(t, p, 6); !slices.Equal(got, numbered(4, 2)) {
		t.Errorf("past the fault: %q", got)
	}
}
