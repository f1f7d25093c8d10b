package consumer

import (
	"encoding/binary"
	"runtime/metrics"
	"slices"
	"testing"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// checkMemory fails where fn allocates more than perByte for each byte of input, and the 1 MiB that
// the runtime and the fuzzing engine may take beside.
func checkMemory(t *testing.T, input []byte, perByte int, fn func()) {
	t.Helper()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	fn()
	metrics.Read(sample)
	if n := sample[0].Value.Uint64() - before; n > uint64(perByte*len(input)+1<<20) {
		t.Errorf("%d bytes allocated for %d bytes of input", n, len(input))
	}
}

// fixChecksums makes whatever looks like record batches pass their checksums: otherwise hardly
// anything would.
func fixChecksums(raw []byte) {
	for {
		n, ok := batchSize(raw)
		if !ok {
			return
		}
		putChecksum(raw[:n])
		raw = raw[n:]
	}
}

func FuzzDecoder(f *testing.F) {
	for codec := range uint16(5) {
		f.Add(rawBatch{values: []string{"a", "b"}, codec: codec}.encode(), true)
	}
	f.Add(slices.Concat(rawBatch{producer: 7, attributes: attributeTransactional, values: []string{"x"}}.encode(), marker(1, 7, 0)), true)
	f.Fuzz(func(t *testing.T, raw []byte, sum bool) {
		raw = slices.Clone(raw)
		if sum {
			fixChecksums(raw)
		}
		const limit = 1 << 20 // decompressed, of one batch: what a few bytes may claim
		d := NewDecoder(DecoderConfig{Isolation: ReadCommitted, MaxBatchBytes: limit, MaxRecords: 100})
		d.Reset(raw, 0, []AbortedTransaction{{7, 0}})
		batches := 1
		for rest := raw; ; batches++ {
			n, ok := batchSize(rest)
			if !ok {
				break
			}
			rest = rest[n:]
		}
		if batches > 20 { // each may claim the limit
			return
		}
		var b Batch
		checkMemory(t, make([]byte, len(raw)+batches), 4*limit, func() {
			for more, position := true, int64(0); more; position = b.Next {
				var err error
				more, err = d.Next(&b)
				if b.First != position || b.Next < b.First {
					t.Fatalf("batch [%d,%d) after %d", b.First, b.Next, position)
				}
				for _, r := range b.Records {
					if r.Offset < b.First || r.Offset >= b.Next {
						t.Fatalf("record at %d in [%d,%d)", r.Offset, b.First, b.Next)
					}
				}
				if err != nil && more {
					t.Fatal("more after an error")
				}
			}
		})
		if e := scan(raw, 0); e.complete > len(raw) || e.next < 0 {
			t.Fatalf("%+v of %d bytes", e, len(raw))
		}
	})
}

// What is not compressed must not take more than its records' descriptions.
func FuzzPlainDecoder(f *testing.F) {
	f.Add(rawBatch{values: []string{"a", "b"}}.encode())
	f.Add(slices.Concat(rawBatch{values: []string{"a"}, nullKeys: true}.encode(), rawBatch{base: 1, values: []string{"b"}}.encode()))
	f.Fuzz(func(t *testing.T, raw []byte) {
		raw = slices.Clone(raw)
		for rest := raw; ; {
			n, ok := batchSize(rest)
			if !ok {
				break
			}
			rest[atAttributes+1] &^= 7
			rest = rest[n:]
		}
		fixChecksums(raw)
		d := NewDecoder(DecoderConfig{Isolation: ReadUncommitted})
		d.Reset(raw, 0, nil)
		var b Batch
		checkMemory(t, raw, 4*recordSize/minRecordSize, func() {
			for more := true; more; {
				more, _ = d.Next(&b)
			}
		})
	})
}

// FuzzDecompress looks at the codecs alone, behind the record batch's checksum and counts.
func FuzzDecompress(f *testing.F) {
	for codec := uint16(1); codec <= 4; codec++ {
		f.Add(compressed(codec, []byte("to be compressed, to be compressed, to be compressed")), byte(codec))
	}
	f.Fuzz(func(t *testing.T, src []byte, codec byte) {
		const limit = 1 << 18
		d := decompressor{limit: limit, zstd: &sharedZstd{limit: limit}}
		prefix := []byte("what came before")
		out, err := d.append(slices.Clone(prefix), uint16(codec%6), src)
		if err == nil && (len(out) < len(prefix) || len(out)-len(prefix) > limit) {
			t.Fatalf("%d bytes", len(out))
		}
		if string(out[:len(prefix)]) != string(prefix) {
			t.Fatal("what came before is damaged")
		}
	})
}

func FuzzFetchResponse(f *testing.F) {
	for _, version := range []int16{4, 11, 12, 13} {
		w := kafkawire.Writer{Flexible: version >= 12}
		fetchResponse(&w, version)
		f.Add(w.B, byte(version))
	}
	f.Fuzz(func(t *testing.T, response []byte, v byte) {
		response = slices.Clone(response)
		version := int16(4 + v%10)
		cfg := DefaultFetchConfig()
		fetcher, err := NewFetcher(cfg, newClient(t, []string{"127.0.0.1:1"}), zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		l := newLeader(fetcher, 1)
		request := &kafkawire.Request{Version: version}
		lane := fetch{leader: l, request: request, share: 1 << 20}
		for n := range int32(3) {
			p := fetcher.Open(TopicPartition{"t", n}, 0)
			p.leader, p.phase = l, queued
			q, ok := p.ask(l, lane.share, p.retryAt)
			if !ok {
				t.Fatal("not asked")
			}
			q.topicID[0] = 1
			lane.questions = append(lane.questions, q)
		}
		// A piece has a buffer for a whole share, whatever came of it.
		checkMemory(t, response, 200, func() {
			for range 2 { // the second time nobody has asked
				r := kafkawire.Reader{B: response, Flexible: version >= 12}
				_ = lane.decode(&r)
			}
		})
		for i := range lane.questions {
			p := lane.questions[i].partition
			if len(p.slot.raw) > len(response) || len(p.slot.raw) > 0 && p.slot.next < p.slot.from {
				t.Fatalf("a piece of %d bytes, [%d,%d), from %d bytes", len(p.slot.raw), p.slot.from, p.slot.next, len(response))
			}
			p.Close()
		}
		if m := fetcher.memory; m.raw != 0 || m.scratch != 0 {
			t.Fatalf("%d and %d bytes are lent after the end", m.raw, m.scratch)
		}
	})
}

// fetchResponse writes records, an error, and what each version adds.
func fetchResponse(w *kafkawire.Writer, version int16) {
	w.Int32(0)
	if version >= 7 {
		w.Int16(0)
		w.Int32(0)
	}
	w.ArrayLen(1)
	if version >= fetchTopicIDs {
		w.Raw(append([]byte{1}, make([]byte, 15)...))
	} else {
		w.String("t")
	}
	w.ArrayLen(3)
	for p := range int32(3) {
		w.Int32(p)
		w.Int16(int16(p) % 2 * int16(kafka.NotLeaderForPartition))
		w.Int64(10)
		w.Int64(9)
		if version >= 5 {
			w.Int64(0)
		}
		w.ArrayLen(1)
		w.Int64(7)
		w.Int64(0)
		w.Tags()
		if version >= fetchRack {
			w.Int32(p - 1)
		}
		w.Bytes(rawBatch{values: []string{"a", "b"}}.encode())
		if w.Flexible {
			if p == 2 {
				w.Raw([]byte{1, 0, 13}) // one tag: the diverging epoch
				w.Int32(3)
				w.Int64(1)
			}
			w.Tags()
		}
	}
	w.Tags()
	w.Tags()
}

func FuzzCommittedOffsetsResponse(f *testing.F) {
	for _, version := range []int16{7, 8} {
		w := kafkawire.Writer{Flexible: true}
		w.Int32(0)
		if version >= 8 {
			w.ArrayLen(1)
			w.String("group")
		}
		w.ArrayLen(1)
		w.String("t")
		w.ArrayLen(2)
		for p := range int32(2) {
			w.Int32(p)
			w.Int64(5)
			w.Int32(-1)
			w.NullableString("")
			w.Int16(int16(p) * int16(kafka.UnstableOffsetCommit))
			w.Tags()
		}
		w.Tags()
		w.Int16(0)
		w.Tags()
		w.Tags()
		f.Add(w.B, version == 8)
	}
	f.Fuzz(func(t *testing.T, response []byte, groups bool) {
		version := int16(7)
		if groups {
			version = 8
		}
		a := committedAnswer{offsets: map[TopicPartition]int64{}}
		checkMemory(t, response, 200, func() {
			r := kafkawire.Reader{B: response, Flexible: true}
			_ = a.decode(&r, version, []TopicPartition{{"t", 0}})
		})
	})
}

func FuzzListOffsetsResponse(f *testing.F) {
	for _, version := range []int16{2, 5} {
		w := kafkawire.Writer{}
		w.Int32(0)
		w.ArrayLen(1)
		w.String("t")
		w.ArrayLen(2)
		for p := range int32(2) {
			w.Int32(p)
			w.Int16(int16(p) * int16(kafka.NotLeaderForPartition))
			w.Int64(-1)
			w.Int64(40)
			if version >= 4 {
				w.Int32(3)
			}
		}
		f.Add(w.B, version == 5)
	}
	f.Fuzz(func(t *testing.T, response []byte, epochs bool) {
		version := int16(2)
		if epochs {
			version = 5
		}
		lookups := []offsetLookup{{TopicPartition: TopicPartition{"t", 0}}, {TopicPartition: TopicPartition{"t", 1}}}
		checkMemory(t, response, 20, func() {
			r := kafkawire.Reader{B: response}
			decodeListOffsets(&r, version, lookups)
		})
	})
}

// FuzzGroupBlobs are what other members of a group, and its leader, send through the coordinator.
func FuzzGroupBlobs(f *testing.F) {
	f.Add(encodeAssignment([]TopicPartition{{"t", 0}, {"t", 1}, {"u", 3}}))
	f.Add(binary.BigEndian.AppendUint32([]byte{0, 3, 0, 0, 0, 1, 0, 1, 't'}, 0xffffffff))
	f.Fuzz(func(t *testing.T, blob []byte) {
		checkMemory(t, blob, 200, func() {
			_, _ = readSubscription(blob)
			_, _ = readAssignment(blob)
		})
	})
}

// FuzzGroupResponses are what a coordinator answers to JoinGroup, SyncGroup and ConsumerGroupHeartbeat.
func FuzzGroupResponses(f *testing.F) {
	own := subscription{topics: []string{"t"}, owned: []TopicPartition{{"t", 1}}, generation: 3, rack: "a"}
	for _, version := range []int16{5, 9} {
		join := kmsg.NewPtrJoinGroupResponse()
		join.Version, join.Generation, join.LeaderID, join.MemberID = version, 4, "m", "m"
		member := kmsg.NewJoinGroupResponseMember()
		member.MemberID, member.ProtocolMetadata = "m", own.encode()
		join.Members = append(join.Members, member, member)
		f.Add(join.AppendTo(nil), version)
	}
	for _, version := range []int16{3, 5} {
		sync := kmsg.NewPtrSyncGroupResponse()
		sync.Version, sync.MemberAssignment = version, encodeAssignment([]TopicPartition{{"t", 0}, {"u", 2}})
		f.Add(sync.AppendTo(nil), version)
	}
	beat := kmsg.NewPtrConsumerGroupHeartbeatResponse()
	beat.Version = 1
	assignment := kmsg.NewConsumerGroupHeartbeatResponseAssignment()
	topic := kmsg.NewConsumerGroupHeartbeatResponseAssignmentTopic()
	topic.Partitions = []int32{0, 1}
	assignment.Topics = append(assignment.Topics, topic)
	beat.Assignment = &assignment
	f.Add(beat.AppendTo(nil), int16(1))
	f.Fuzz(func(t *testing.T, response []byte, version int16) {
		version = int16(uint16(version) % 10)
		checkMemory(t, response, 400, func() {
			var j joined
			_ = j.decode(&kafkawire.Reader{B: response, Flexible: version >= 6}, version)
			_, _ = decodeSync(&kafkawire.Reader{B: response, Flexible: version >= 4}, version)
			var in instruction
			_ = in.decode(&kafkawire.Reader{B: response, Flexible: true})
		})
	})
}
