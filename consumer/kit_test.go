package consumer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testBrokers is a real cluster where the environment names one, else an embedded broker.
func testBrokers(t testing.TB) []string {
	t.Helper()
	if brokers := os.Getenv("CHURNSTREAM_TEST_BROKERS"); brokers != "" {
		return strings.Split(brokers, ",")
	}
	return embedded(t).ListenAddrs()
}

// embedded is for tests that inject faults.
func embedded(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1),
		kfake.BrokerConfigs(map[string]string{"group.min.session.timeout.ms": "1000"}),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func newClient(t testing.TB, brokers []string) *kafkawire.Client {
	t.Helper()
	c, err := kafkawire.NewClient(kafkawire.Config{Brokers: brokers, ClientID: "consumer-test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// admin is kafka-go's own client, for what the package under test does not do.
func admin(t testing.TB, brokers []string) *kafka.Client {
	t.Helper()
	transport := &kafka.Transport{MetadataTTL: 200 * time.Millisecond}
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport, Timeout: 15 * time.Second}
}

var names atomic.Int64

func uniqueName(kind string) string {
	return fmt.Sprintf("%s-%d-%d", kind, names.Add(1), rand.Uint32())
}

func createTopic(t testing.TB, brokers []string, partitions int, config ...kafka.ConfigEntry) string {
	t.Helper()
	name := uniqueName("topic")
	createTopicNamed(t, brokers, name, partitions, config...)
	return name
}

func createTopicNamed(t testing.TB, brokers []string, name string, partitions int, config ...kafka.ConfigEntry) {
	t.Helper()
	c := admin(t, brokers)
	defer c.Transport.(*kafka.Transport).CloseIdleConnections() // it would go on asking for metadata
	r, err := c.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: name, NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: config,
	}}})
	if err == nil {
		err = r.Errors[name]
	}
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t, brokers)
	eventually(t, "topic "+name+" exists", func() bool {
		client.ForgetMetadata()
		for p := range partitions {
			if _, err := client.Leader(t.Context(), name, int32(p)); err != nil {
				return false
			}
		}
		return true
	})
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in 30 s: %s", what)
		}
	}
}

// rawBatch describes a record batch to encode.
type rawBatch struct {
	base       int64
	values     []string
	offsets    []int64 // of the values; by default base, base+1, ...
	last       int64   // last offset where it is not the last value's
	codec      uint16
	attributes uint16
	producer   int64 // 0 outside a transaction: none
	epoch      int16
	sequence   int32
	time       int64
	nullKeys   bool
}

func (b rawBatch) encode() []byte {
	var records []byte
	last := b.base
	for i, v := range b.values {
		offset := b.base + int64(i)
		if b.offsets != nil {
			offset = b.offsets[i]
		}
		last = max(last, offset)
		r := []byte{0}
		r = binary.AppendVarint(r, int64(i)) // timestamp delta
		r = binary.AppendVarint(r, offset-b.base)
		if b.nullKeys {
			r = binary.AppendVarint(r, -1)
		} else {
			r = appendField(r, "k"+v)
		}
		r = appendField(r, v)
		r = binary.AppendVarint(r, 1)
		r = appendField(r, "h")
		r = appendField(r, "x")
		records = append(binary.AppendVarint(records, int64(len(r))), r...)
	}
	return b.frame(records, int32(len(b.values)), max(last, b.last))
}

func appendField(dst []byte, s string) []byte {
	return append(binary.AppendVarint(dst, int64(len(s))), s...)
}

func (b rawBatch) frame(records []byte, count int32, last int64) []byte {
	records = compressed(b.codec, records)
	out := make([]byte, batchHeaderSize+len(records))
	copy(out[batchHeaderSize:], records)
	binary.BigEndian.PutUint64(out, uint64(b.base))
	binary.BigEndian.PutUint32(out[atLeaderEpoch:], 0xffffffff)
	out[atMagic] = 2
	binary.BigEndian.PutUint16(out[atAttributes:], b.attributes|b.codec)
	binary.BigEndian.PutUint32(out[atLastDelta:], uint32(last-b.base))
	binary.BigEndian.PutUint64(out[atFirstTimestamp:], uint64(b.time))
	binary.BigEndian.PutUint64(out[atMaxTimestamp:], uint64(b.time+int64(max(count-1, 0))))
	producer, epoch, sequence := b.producer, b.epoch, b.sequence
	if producer == 0 && b.attributes&attributeTransactional == 0 {
		producer, epoch, sequence = -1, -1, -1
	}
	binary.BigEndian.PutUint64(out[atProducerID:], uint64(producer))
	binary.BigEndian.PutUint16(out[atProducerID+8:], uint16(epoch))
	binary.BigEndian.PutUint32(out[atProducerID+10:], uint32(sequence))
	binary.BigEndian.PutUint32(out[atCount:], uint32(count))
	binary.BigEndian.PutUint32(out[atLength:], uint32(len(out)-atLeaderEpoch))
	binary.BigEndian.PutUint32(out[atChecksum:], crc32.Checksum(out[atAttributes:], castagnoli))
	return out
}

// marker is a control batch: kind 0 aborts, 1 commits.
func marker(base, producer int64, kind uint16) []byte {
	r := []byte{0, 0, 0}
	r = binary.AppendVarint(r, 4)
	r = binary.BigEndian.AppendUint16(r, 0)
	r = binary.BigEndian.AppendUint16(r, kind)
	r = binary.AppendVarint(r, 6)
	r = append(r, 0, 0, 0, 0, 0, 0, 0)
	records := append(binary.AppendVarint(nil, int64(len(r))), r...)
	return rawBatch{base: base, producer: producer, attributes: attributeControl | attributeTransactional}.frame(records, 1, base)
}

func compressed(codec uint16, in []byte) []byte {
	var out bytes.Buffer
	var err error
	switch codec {
	case 1:
		w := gzip.NewWriter(&out)
		_, err = w.Write(in)
		err = errors.Join(err, w.Close())
	case 2:
		out.Write(xerial)
		out.Write([]byte{0, 0, 0, 1, 0, 0, 0, 1})
		for len(in) > 0 { // two blocks at least
			n := min(len(in), max(len(in)/2, 100))
			block := snappy.Encode(nil, in[:n])
			out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(block))))
			out.Write(block)
			in = in[n:]
		}
	case 3:
		w := lz4.NewWriter(&out)
		_, err = w.Write(in)
		err = errors.Join(err, w.Close())
	case 4:
		var w *zstd.Encoder
		if w, err = zstd.NewWriter(nil); err == nil {
			out.Write(w.EncodeAll(in, nil))
			w.Close()
		}
	default:
		return in
	}
	if err != nil {
		panic(err)
	}
	return out.Bytes()
}

// produce writes one batch per call through kafka-go's raw produce.
func produce(t testing.TB, c *kafka.Client, topic string, partition int, transactionalID string, b rawBatch) {
	t.Helper()
	raw := b.encode()
	sized := binary.BigEndian.AppendUint32(nil, uint32(len(raw)))
	eventually(t, "produced", func() bool {
		r, err := c.RawProduce(t.Context(), &kafka.RawProduceRequest{
			Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll, TransactionalID: transactionalID,
			RawRecords: protocol.RawRecordSet{Reader: bytes.NewReader(append(sized, raw...))},
		})
		if err == nil {
			err = r.Error
		}
		if err != nil {
			if moved, _ := kafkawire.Retriable(err); moved {
				return false
			}
			t.Fatal(err)
		}
		return true
	})
}

// transaction writes values to a partition in one transaction and commits or aborts it.
func transaction(t testing.TB, c *kafka.Client, id, topic string, partition int, commit bool, values ...string) {
	t.Helper()
	end := openTransaction(t, c, id, topic, partition, values...)
	end(commit)
}

func openTransaction(t testing.TB, c *kafka.Client, id, topic string, partition int, values ...string) (end func(commit bool)) {
	t.Helper()
	ctx := t.Context()
	var producer *kafka.ProducerSession
	try := func(what string, call func() error) {
		t.Helper()
		eventually(t, what, func() bool {
			err := call()
			if err != nil && !errors.Is(err, kafka.GroupCoordinatorNotAvailable) && !errors.Is(err, kafka.GroupLoadInProgress) &&
				!errors.Is(err, kafka.NotCoordinatorForGroup) && !errors.Is(err, kafka.ConcurrentTransactions) {
				t.Fatalf("%s: %v", what, err)
			}
			return err == nil
		})
	}
	try("InitProducerID", func() error {
		r, err := c.InitProducerID(ctx, &kafka.InitProducerIDRequest{TransactionalID: id, TransactionTimeoutMs: 30_000, ProducerID: -1, ProducerEpoch: -1})
		if err == nil {
			err, producer = r.Error, r.Producer
		}
		return err
	})
	try("AddPartitionsToTxn", func() error {
		r, err := c.AddPartitionsToTxn(ctx, &kafka.AddPartitionsToTxnRequest{
			TransactionalID: id, ProducerID: producer.ProducerID, ProducerEpoch: producer.ProducerEpoch,
			Topics: map[string][]kafka.AddPartitionToTxn{topic: {{Partition: partition}}},
		})
		if err == nil {
			err = r.Topics[topic][0].Error
		}
		return err
	})
	produce(t, c, topic, partition, id, rawBatch{
		values: values, producer: int64(producer.ProducerID), epoch: int16(producer.ProducerEpoch),
		attributes: attributeTransactional, time: time.Now().UnixMilli(),
	})
	return func(commit bool) {
		t.Helper()
		try("EndTxn", func() error {
			r, err := c.EndTxn(ctx, &kafka.EndTxnRequest{
				TransactionalID: id, ProducerID: producer.ProducerID, ProducerEpoch: producer.ProducerEpoch, Committed: commit,
			})
			if err == nil {
				err = r.Error
			}
			return err
		})
	}
}

// startFetcher runs a Fetcher until the test ends.
func startFetcher(t testing.TB, brokers []string, change func(*FetchConfig)) *Fetcher {
	t.Helper()
	cfg := DefaultFetchConfig()
	if change != nil {
		change(&cfg)
	}
	f, err := NewFetcher(cfg, newClient(t, brokers), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// read collects values until the position reaches next.
func read(t testing.TB, p *Partition, next int64) (values []string) {
	t.Helper()
	ctx := deadline(t)
	for position := int64(-1); position < next; {
		b, err := p.Next(ctx)
		if err != nil {
			t.Fatalf("after %d values: %v", len(values), err)
		}
		if position >= 0 && b.First != position {
			t.Fatalf("a batch begins at %d, the one before ended at %d", b.First, position)
		}
		position = b.Next
		for _, r := range b.Records {
			values = append(values, string(r.Value))
		}
	}
	return values
}

func putChecksum(frame []byte) {
	binary.BigEndian.PutUint32(frame[atChecksum:], crc32.Checksum(frame[atAttributes:], castagnoli))
}

func counterValue(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}
