package producer

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// sentSession is a session whose Produce request with one batch in each of three partitions is on its way.
func sentSession() (*session, []*partitionBuffer) {
	s := &session{cfg: DefaultConfig(), metrics: NewMetrics(nil), records: newAccumulator(DefaultConfig())}
	s.produceOp = operation{name: "produce", topicRight: "WRITE"}
	topic := s.records.learn("scores", 3)
	for partition := range int32(3) {
		if err := s.records.append(topic, &Record{Partition: partition, Value: []byte("v")}); err != nil {
			panic("BUG: " + err.Error())
		}
	}
	s.sending = slices.Clone(s.records.touched)
	for _, p := range s.sending {
		p.inDoubt = true
	}
	return s, s.sending
}

func TestProduceAnswersInAnyOrderAcknowledgeTheirOwnPartitions(t *testing.T) {
	t.Parallel()
	for version := int16(3); version <= 12; version++ {
		s, sending := sentSession()
		response := kmsg.NewPtrProduceResponse()
		response.Version = version
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = "scores"
		for partition, code := range map[int32]int16{2: 0, 0: 46, 1: 6} {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode = partition, code
			rp.CurrentLeader.LeaderID, rp.CurrentLeader.LeaderEpoch = 7, 8 // a tagged field from v10
			rt.Partitions = append(rt.Partitions, rp)
		}
		response.Topics = append(response.Topics, rt)
		r := kafkawire.Reader{B: response.AppendTo(nil), Flexible: version >= 9}
		err := s.decodeProduce(&r, version)
		if r.Err() != nil {
			t.Fatalf("v%d: %v", version, r.Err())
		}
		if !errors.Is(err, kafka.NotLeaderForPartition) {
			t.Errorf("v%d: got %v", version, err)
		}
		for i, want := range []int{1, 0, 1} { // a known sequence is an acceptance
			if sending[i].sent != want || sending[i].inDoubt != (want == 0) || int(sending[i].sequence) != want {
				t.Errorf("v%d: partition %d: %+v", version, i, sending[i])
			}
		}
	}
}

func TestProduceAnswerWithoutAPartitionIsMalformed(t *testing.T) {
	t.Parallel()
	s, _ := sentSession()
	response := kmsg.NewPtrProduceResponse()
	response.Version = 12
	r := kafkawire.Reader{B: response.AppendTo(nil), Flexible: true}
	if err := s.decodeProduce(&r, 12); !errors.Is(err, kafkawire.ErrMalformed) {
		t.Fatalf("got %v", err)
	}
}

func TestSequencesWrapToZero(t *testing.T) {
	t.Parallel()
	_, sending := sentSession()
	sending[0].sequence = 1<<31 - 1
	sending[0].acknowledge()
	if sending[0].sequence != 0 {
		t.Fatalf("sequence %d", sending[0].sequence)
	}
}

func TestAddPartitionsListsEveryPartitionOnce(t *testing.T) {
	t.Parallel()
	s, _ := sentSession()
	other := s.records.learn("dead-letters", 1)
	if err := s.records.append(other, &Record{Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	for version := int16(1); version <= 3; version++ {
		w := kafkawire.Writer{Flexible: version >= 3}
		encodeAddPartitions(&w, "tx", ProducerIdentity{ID: 5, Epoch: 6}, s.records.touched)
		req := kmsg.NewPtrAddPartitionsToTxnRequest()
		req.Version = version
		if err := req.ReadFrom(w.B); err != nil {
			t.Fatalf("v%d: %v", version, err)
		}
		if req.TransactionalID != "tx" || req.ProducerID != 5 || req.ProducerEpoch != 6 || len(req.Topics) != 2 ||
			!slices.Equal(req.Topics[0].Partitions, []int32{0, 1, 2}) || req.Topics[1].Topic != "dead-letters" {
			t.Fatalf("v%d: %+v", version, req)
		}
	}
}

func TestInitProducerIDIsReadByAnIndependentDecoder(t *testing.T) {
	t.Parallel()
	for version := range int16(6) {
		w := kafkawire.Writer{Flexible: version >= 2}
		encodeInitProducerID(&w, version, "tx", 30*time.Second, ProducerIdentity{ID: 5, Epoch: 6})
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version = version
		if err := req.ReadFrom(w.B); err != nil {
			t.Fatalf("v%d: %v", version, err)
		}
		if *req.TransactionalID != "tx" || req.TransactionTimeoutMillis != 30_000 || (version >= 3 && (req.ProducerID != 5 || req.ProducerEpoch != 6)) {
			t.Fatalf("v%d: %+v", version, req)
		}
	}
}

// FuzzResponses gives hostile answers to every decoder: no panic, no endless loop.
func FuzzResponses(f *testing.F) {
	for version := int16(3); version <= 12; version++ {
		response := kmsg.NewPtrProduceResponse()
		response.Version = version
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = "scores"
		rt.Partitions = append(rt.Partitions, kmsg.NewProduceResponseTopicPartition())
		response.Topics = append(response.Topics, rt)
		f.Add(response.AppendTo(nil), version)
	}
	f.Fuzz(func(_ *testing.T, body []byte, version int16) {
		version = 3 + int16(uint16(version)%10)
		s, _ := sentSession()
		_ = s.decodeProduce(&kafkawire.Reader{B: body, Flexible: version >= 9}, version)
		for _, flexible := range []bool{false, true} {
			_ = decodePartitionCodes(&kafkawire.Reader{B: body, Flexible: flexible}, s.produceOp)
			_, _ = decodeInitProducerID(&kafkawire.Reader{B: body, Flexible: flexible})
		}
	})
}

func TestWorstPartitionDecidesTheProduceError(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int16{{6, 29, 45}, {45, 29, 6}, {29, 6, 45}} {
		s, _ := sentSession()
		response := kmsg.NewPtrProduceResponse()
		response.Version = 12
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = "scores"
		for partition, code := range order {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode = int32(partition), code
			rt.Partitions = append(rt.Partitions, rp)
		}
		response.Topics = append(response.Topics, rt)
		r := kafkawire.Reader{B: response.AppendTo(nil), Flexible: true}
		if err := s.decodeProduce(&r, 12); !errors.Is(err, kafka.TopicAuthorizationFailed) {
			t.Errorf("%v: got %v", order, err)
		}
	}
}

func TestTheThrottleOfAnAnswerIsKept(t *testing.T) {
	t.Parallel()
	for _, version := range []int16{3, 9, 12} {
		s, _ := sentSession()
		response := kmsg.NewPtrProduceResponse()
		response.Version, response.ThrottleMillis = version, 300
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = "scores"
		for partition := range int32(3) {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition = partition
			rt.Partitions = append(rt.Partitions, rp)
		}
		response.Topics = append(response.Topics, rt)
		r := kafkawire.Reader{B: response.AppendTo(nil), Flexible: version >= 9}
		if err := s.decodeProduce(&r, version); err != nil || r.Err() != nil {
			t.Fatalf("v%d: %v, %v", version, err, r.Err())
		}
		if left := time.Until(s.throttled); left < 100*time.Millisecond || left > 300*time.Millisecond {
			t.Errorf("v%d: throttled for %v", version, left)
		}
	}
}
