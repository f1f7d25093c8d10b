package producer

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testBrokers is a real cluster where CHURNSTREAM_TEST_BROKERS names one, and an embedded broker otherwise.
func testBrokers(t testing.TB) []string {
	t.Helper()
	if brokers := os.Getenv("CHURNSTREAM_TEST_BROKERS"); brokers != "" {
		return strings.Split(brokers, ",")
	}
	return newFake(t).ListenAddrs()
}

// newFake starts an embedded broker, for tests that make it fail.
func newFake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

var (
	runID = time.Now().UnixNano() // names do not collide with those of earlier runs on the same cluster
	names atomic.Int64
)

func uniqueName(prefix string) string { return fmt.Sprintf("%s-%d-%d", prefix, runID, names.Add(1)) }

// cluster is one test's view of the brokers.
type cluster struct {
	t       testing.TB
	brokers []string
	oracle  *kgo.Client // an independent client: creates topics and offsets, answers what is there
	client  *kafkawire.Client
	faults  *faultyDialer
}

func connect(t testing.TB, brokers []string) *cluster {
	t.Helper()
	oracle, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(oracle.Close)
	c := &cluster{t: t, brokers: brokers, oracle: oracle, faults: &faultyDialer{}}
	c.client = c.newClient()
	return c
}

func (c *cluster) newClient() *kafkawire.Client {
	c.t.Helper()
	transport := &kafka.Transport{Dial: c.faults.dial}
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: c.brokers, ClientID: "producer-test", Transport: transport})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(client.CloseIdleConnections)
	return client
}

func (c *cluster) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c.t.Cleanup(cancel)
	return ctx
}

// topic creates one; settings are names, each followed by its value.
func (c *cluster) topic(partitions int32, settings ...string) string {
	c.t.Helper()
	name := uniqueName("topic")
	req := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
	// The records of the tests are dated long ago: a real broker would delete them half a minute after its start.
	settings = append(settings, "retention.ms", "-1")
	for setting := range slices.Chunk(settings, 2) {
		s := kmsg.NewCreateTopicsRequestTopicConfig()
		s.Name, s.Value = setting[0], &setting[1]
		topic.Configs = append(topic.Configs, s)
	}
	req.Topics = append(req.Topics, topic)
	req.TimeoutMillis = 10_000
	resp, err := req.RequestWith(c.context(), c.oracle)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		c.t.Fatalf("create topic: %v", err)
	}
	return name
}

func (c *cluster) transactional(cfg Config, id string) *Transactional {
	c.t.Helper()
	p, err := NewTransactional(cfg, c.client, id)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = p.Close() })
	return p
}

// committed reads a topic from its beginning under read_committed, up to a sentinel that it writes to every partition
// now. Records are in partition order.
func (c *cluster) committed(topic string, partitions int32) []*kgo.Record {
	c.t.Helper()
	const sentinel = "end of test"
	ctx := c.context()
	for p := range partitions {
		r := &kgo.Record{Topic: topic, Partition: p, Value: []byte(sentinel)}
		if err := c.oracle.ProduceSync(ctx, r).FirstErr(); err != nil {
			c.t.Fatal(err)
		}
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		c.t.Fatal(err)
	}
	defer reader.Close()
	var out []*kgo.Record
	ends := int32(0)
	for ends < partitions {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			c.t.Fatalf("read %s: %v after %d records", topic, err, len(out))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if string(r.Value) == sentinel {
				ends++
				return
			}
			out = append(out, r)
		})
	}
	slices.SortStableFunc(out, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return out
}

// offset is the committed offset of a group, -1 for none; it waits for open transactions.
//
//nolint:contextcheck // each question has a minute of its own
func (c *cluster) offset(group, topic string, partition int32) int64 {
	c.t.Helper()
	for {
		req := kmsg.NewPtrOffsetFetchRequest()
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = group
		rt := kmsg.NewOffsetFetchRequestGroupTopic()
		rt.Topic, rt.Partitions = topic, []int32{partition}
		g.Topics = append(g.Topics, rt)
		req.Groups = append(req.Groups, g)
		req.RequireStable = true
		resp, err := req.RequestWith(c.context(), c.oracle)
		if err != nil && kerr.IsRetriable(err) {
			continue // a fresh broker has no coordinator yet
		}
		if err != nil {
			c.t.Fatal(err)
		}
		if len(resp.Groups) == 0 {
			return -1
		}
		if err := kerr.ErrorForCode(resp.Groups[0].ErrorCode); err != nil {
			if errors.Is(err, kerr.GroupIDNotFound) {
				return -1
			}
			if !kerr.IsRetriable(err) {
				c.t.Fatalf("fetch offsets of %s: %v", group, err)
			}
			continue
		}
		if len(resp.Groups[0].Topics) == 0 {
			return -1
		}
		p := resp.Groups[0].Topics[0].Partitions[0]
		switch err := kerr.ErrorForCode(p.ErrorCode); {
		case err == nil:
			return p.Offset
		case !kerr.IsRetriable(err):
			c.t.Fatalf("fetch offset: %v", err)
		}
	}
}

func values(records []*kgo.Record) []string {
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = string(r.Value)
	}
	return out
}

// anyMember commits offsets for a group without members, which brokers allow.
func anyMember(group string) Member { return Member{Group: group, Generation: -1} }

// faultyDialer makes connections whose requests or answers can be lost, on any broker.
type faultyDialer struct {
	mu     sync.Mutex
	armed  map[int16][]loss // by API key, in order of use
	random func(key int16) loss
	fired  int
}

type loss uint8

const (
	nothingLost loss = iota
	requestLost      // the connection breaks before the request goes out
	answerLost       // the broker carries the request out and the connection breaks before the answer is read
)

func (l loss) String() string { return [...]string{"nothing lost", "request lost", "answer lost"}[l] }

func (d *faultyDialer) arm(key int16, losses ...loss) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.armed == nil {
		d.armed = map[int16][]loss{}
	}
	d.armed[key] = append(d.armed[key], losses...)
}

func (d *faultyDialer) take(key int16) loss {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := nothingLost
	if pending := d.armed[key]; len(pending) > 0 {
		l, d.armed[key] = pending[0], pending[1:]
	} else if d.random != nil {
		l = d.random(key)
	}
	if l != nothingLost {
		d.fired++
	}
	return l
}

func (d *faultyDialer) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fired
}

func (d *faultyDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &faultyConn{Conn: conn, dialer: d}, nil
}

type faultyConn struct {
	net.Conn
	dialer *faultyDialer
	lose   atomic.Bool
}

var errLost = errors.New("lost by the test")

func (c *faultyConn) Write(p []byte) (int, error) {
	if len(p) >= 6 && int(binary.BigEndian.Uint32(p)) == len(p)-4 { // the start of a request written in one piece
		switch c.dialer.take(int16(binary.BigEndian.Uint16(p[4:]))) {
		case requestLost:
			_ = c.Close()
			return 0, &net.OpError{Op: "write", Net: "tcp", Err: errLost}
		case answerLost:
			c.lose.Store(true)
		default:
		}
	}
	return c.Conn.Write(p)
}

func (c *faultyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p) // the broker has answered
	if c.lose.Load() {
		_ = c.Close()
		return 0, io.EOF
	}
	return n, err
}
