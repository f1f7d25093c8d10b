package kafkawire

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func cluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.SeedTopics(3, "events")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func connect(t *testing.T, brokers ...string) *Client {
	t.Helper()
	c, err := NewClient(Config{Brokers: brokers, ClientID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestNewClientNamesEveryFault(t *testing.T) {
	_, err := NewClient(Config{Brokers: []string{"ok:9092", "nowhere", ":9092"}})
	if err == nil || !strings.Contains(err.Error(), `"nowhere"`) || !strings.Contains(err.Error(), `":9092"`) || strings.Contains(err.Error(), `"ok:9092"`) {
		t.Errorf("error %v", err)
	}
	if _, err := NewClient(Config{}); err == nil {
		t.Error("no brokers accepted")
	}
}

func TestLeadersPartitionsAndCoordinatorsAreFoundAndCached(t *testing.T) {
	k := cluster(t, kfake.NumBrokers(3))
	c := connect(t, k.ListenAddrs()...)
	ctx := t.Context()

	if n, err := c.Partitions(ctx, "events"); n != 3 || err != nil {
		t.Fatalf("partitions %d, %v", n, err)
	}
	for p := range int32(3) {
		leader, err := c.Leader(ctx, "events", p)
		if err != nil || leader != k.LeaderFor("events", p) {
			t.Errorf("leader of %d is %d (%v), want %d", p, leader, err, k.LeaderFor("events", p))
		}
	}
	if _, err := c.Leader(ctx, "events", 3); !errors.Is(err, kafka.UnknownTopicOrPartition) {
		t.Errorf("leader of a missing partition: %v", err)
	}
	if _, err := c.Leader(ctx, "nothing", 0); !errors.Is(err, kafka.UnknownTopicOrPartition) {
		t.Errorf("leader in a missing topic: %v", err)
	}

	group, err := c.Coordinator(ctx, Group, "g")
	if err != nil || group != k.CoordinatorFor("g") {
		t.Errorf("coordinator %d (%v), want %d", group, err, k.CoordinatorFor("g"))
	}
	asked := 0
	k.ControlKey(int16(kmsg.FindCoordinator), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		asked++
		return nil, nil, false
	})
	for range 3 {
		if _, err := c.Coordinator(ctx, Group, "g"); err != nil {
			t.Fatal(err)
		}
	}
	c.ForgetCoordinator(Group, "g")
	if _, err := c.Coordinator(ctx, Group, "g"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Coordinator(ctx, Transaction, "g"); err != nil {
		t.Fatal(err)
	}
	k.Control(func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, false }) // orders the read of asked
	if asked != 2 {
		t.Errorf("%d questions for the coordinator, want one after forgetting and one for the other kind", asked)
	}
}

func TestForgottenMetadataIsAskedForAgain(t *testing.T) {
	k := cluster(t, kfake.NumBrokers(3))
	c := connect(t, k.ListenAddrs()...)
	old, err := c.Leader(t.Context(), "events", 0)
	if err != nil {
		t.Fatal(err)
	}
	moved := (old + 1) % 3
	if err := k.MoveTopicPartition("events", 0, moved); err != nil {
		t.Fatal(err)
	}
	if l, _ := c.Leader(t.Context(), "events", 0); l != old {
		t.Errorf("a cached leader changed to %d by itself", l)
	}
	c.ForgetMetadata()
	if l, err := c.Leader(t.Context(), "events", 0); l != moved || err != nil {
		t.Errorf("leader %d (%v), want %d", l, err, moved)
	}
}

func TestVersionsComeFromTheBrokerItself(t *testing.T) {
	k := cluster(t, kfake.NumBrokers(1))
	c := connect(t, k.ListenAddrs()...)
	v, err := c.Versions(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	// kafka-go would say 11, the highest that it knows itself.
	if max, err := v.Max(protocol.Fetch, 99); err != nil || max < 12 {
		t.Errorf("Fetch up to v%d, %v", max, err)
	}
	if max, err := v.Max(protocol.Fetch, 6); err != nil || max != 6 {
		t.Errorf("Fetch capped at v%d, %v", max, err)
	}
	if _, err := v.Max(protocol.Fetch, 1); !errors.Is(err, kafka.UnsupportedVersion) {
		t.Errorf("a version below the broker's lowest: %v", err)
	}
	if _, err := v.Max(999, 1); !errors.Is(err, kafka.UnsupportedVersion) {
		t.Errorf("an unknown API: %v", err)
	}
	if level := v.FinalizedFeature("transaction.version"); level < 1 {
		t.Errorf("transaction.version %d", level)
	}
	if level := v.FinalizedFeature("none"); level != 0 {
		t.Errorf("an unknown feature has level %d", level)
	}
}

func TestVersionsOfABrokerBeforeKafka24(t *testing.T) {
	k := cluster(t, kfake.NumBrokers(1))
	k.ControlKey(int16(kmsg.ApiVersions), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		req := r.(*kmsg.ApiVersionsRequest)
		if req.Version < 3 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
		resp.Version = 0
		resp.ErrorCode = int16(kafka.UnsupportedVersion)
		return resp, nil, true
	})
	c := connect(t, k.ListenAddrs()...)
	v, err := c.Versions(t.Context(), AnyBroker)
	if err != nil {
		t.Fatal(err)
	}
	if max, err := v.Max(protocol.Metadata, 12); err != nil || max < 5 {
		t.Errorf("Metadata v%d, %v", max, err)
	}
}

func TestRequestReusesItsBuffersConcurrentlyWithOthers(t *testing.T) {
	k := cluster(t, kfake.NumBrokers(1))
	c := connect(t, k.ListenAddrs()...)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			var code int16
			r := Request{
				Key: protocol.FindCoordinator, Version: 1, FlexibleFrom: 3, Broker: 0,
				Encode: func(w *Writer) { w.String(fmt.Sprint("group-", worker)); w.Int8(0) },
				Decode: func(r *Reader) error { r.Int32(); code = r.Int16(); return nil },
			}
			for range 50 {
				if err := c.Do(t.Context(), &r); err != nil || code != 0 {
					t.Errorf("%v, code %d", err, code)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestUnknownBrokerIsNamed(t *testing.T) {
	k := cluster(t, kfake.NumBrokers(1))
	c := connect(t, k.ListenAddrs()...)
	err := c.Do(t.Context(), &Request{Key: protocol.Heartbeat, Version: 1, FlexibleFrom: 4, Broker: 17})
	if !errors.Is(err, kafka.BrokerNotAvailable) || !strings.Contains(err.Error(), "broker 17") {
		t.Errorf("error %v", err)
	}
	if moved, retriable := Retriable(err); !moved || !retriable {
		t.Errorf("moved %t, retriable %t", moved, retriable)
	}
}

// server answers kafka-go's handshake and then hands each request's correlation id to reply, whose
// result is written as it is; nil leaves the request without an answer.
func server(t *testing.T, reply func(correlation uint32) []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				for {
					var head [12]byte
					if _, err := io.ReadFull(conn, head[:]); err != nil {
						return
					}
					size := binary.BigEndian.Uint32(head[:])
					if _, err := io.CopyN(io.Discard, conn, int64(size)-8); err != nil {
						return
					}
					key, id := binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint32(head[8:])
					switch protocol.ApiKey(key) {
					case protocol.ApiVersions: // no error, no keys
						_, _ = conn.Write(frame(id, make([]byte, 6)))
					case protocol.Metadata: // kafka-go's own question at v0 or v1: no brokers, no topics
						_, _ = conn.Write(frame(id, make([]byte, 12)))
					default:
						if b := reply(id); b != nil {
							_, _ = conn.Write(b)
						}
					}
				}
			})
		}
	})
	return l.Addr().String()
}

func frame(correlation uint32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))
	return append(binary.BigEndian.AppendUint32(b, correlation), body...)
}

func TestCancelledRequestReturnsAtOnceAndLeavesNothingBehind(t *testing.T) {
	asked := make(chan struct{}, 1)
	c := connect(t, server(t, func(uint32) []byte { asked <- struct{}{}; return nil }))
	ctx, cancel := context.WithCancel(t.Context())
	r := Request{Key: protocol.Heartbeat, Version: 1, FlexibleFrom: 4, Broker: AnyBroker}
	done := make(chan error, 1)
	go func() { done <- c.Do(ctx, &r) }()
	<-asked
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Do did not return")
	}
	if r.exchange != nil {
		t.Error("the request kept buffers that a connection may still write into")
	}
	// goleak in TestMain sees the connection's goroutine if the read was not interrupted.
}

func TestRequestWithoutDeadlineIsBounded(t *testing.T) {
	c := connect(t, server(t, func(uint32) []byte { return nil }))
	err := c.Do(context.Background(), &Request{Key: protocol.Heartbeat, Version: 1, FlexibleFrom: 4, Broker: AnyBroker, Timeout: 50 * time.Millisecond})
	if moved, retriable := Retriable(err); err == nil || !moved || !retriable {
		t.Errorf("error %v, moved %t, retriable %t", err, moved, retriable)
	}
}

// lender is a Buffers that hands out one buffer after the other and notes what comes back.
type lender struct {
	taken, given atomic.Int64
	kept         []byte
}

func (l *lender) Take(n int) []byte {
	l.taken.Add(1)
	if cap(l.kept) < n {
		return make([]byte, n)
	}
	return l.kept
}

func (l *lender) Give(b []byte) {
	l.given.Add(1)
	l.kept = b
	for i := range b {
		b[i] = 0xff // whoever still reads it will notice
	}
}

func TestLentResponseBuffersComeBackAfterDecoding(t *testing.T) {
	c := connect(t, server(t, func(id uint32) []byte { return frame(id, []byte{0, 0, 0, 7, 0, 9}) }))
	buffers := &lender{}
	var throttle int32
	var code int16
	r := Request{
		Key: protocol.Heartbeat, Version: 1, FlexibleFrom: 4, Broker: AnyBroker, Buffers: buffers,
		Decode: func(r *Reader) error { throttle, code = r.Int32(), r.Int16(); return nil },
	}
	for range 3 {
		throttle, code = 0, 0
		if err := c.Do(t.Context(), &r); err != nil || throttle != 7 || code != 9 {
			t.Fatalf("throttle %d, code %d: %v", throttle, code, err)
		}
	}
	if buffers.taken.Load() != 3 || buffers.given.Load() != 3 {
		t.Errorf("%d buffers taken, %d given back", buffers.taken.Load(), buffers.given.Load())
	}
}

func TestBadFramesAreRefused(t *testing.T) {
	cases := []struct {
		name  string
		reply func(uint32) []byte
		want  error
	}{
		{"larger than the limit", func(id uint32) []byte { return frame(id, make([]byte, 2000)) }, ErrResponseTooLarge},
		{"somebody else's answer", func(id uint32) []byte { return frame(id+1, make([]byte, 10)) }, ErrMalformed},
		{"too short for a header", func(uint32) []byte { return []byte{0, 0, 0, 2, 1, 1} }, ErrMalformed},
		{"body shorter than its fields", func(id uint32) []byte { return frame(id, []byte{1}) }, ErrMalformed},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			c := connect(t, server(t, test.reply))
			err := c.Do(t.Context(), &Request{
				Key: protocol.Heartbeat, Version: 1, FlexibleFrom: 4, Broker: AnyBroker, MaxResponse: 1000,
				Decode: func(r *Reader) error { r.Int32(); r.Int16(); return nil },
			})
			if !errors.Is(err, test.want) {
				t.Errorf("error %v", err)
			}
			if _, retriable := Retriable(err); retriable {
				t.Error("a malformed answer counts as retriable")
			}
		})
	}
}

func TestRetriable(t *testing.T) {
	cases := []struct {
		err              error
		moved, retriable bool
	}{
		{nil, false, false},
		{kafka.NotLeaderForPartition, true, true},
		{fmt.Errorf("wrapped: %w", kafka.NotCoordinatorForGroup), true, true},
		{kafka.GroupLoadInProgress, false, true},
		{kafka.UnstableOffsetCommit, false, true},
		{kafka.ConcurrentTransactions, false, true},
		{kafka.TopicAuthorizationFailed, false, false},
		{kafka.SASLAuthenticationFailed, false, false},
		{kafka.UnsupportedVersion, false, false},
		{io.EOF, true, true},
		{os.ErrDeadlineExceeded, true, true},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, true, true},
		{&net.OpError{Op: "remote error", Err: x509.UnknownAuthorityError{}}, false, false},
		{ErrMalformed, false, false},
		{errors.New("other"), false, false},
	}
	for _, c := range cases {
		if moved, retriable := Retriable(c.err); moved != c.moved || retriable != c.retriable {
			t.Errorf("%v: moved %t, retriable %t; want %t, %t", c.err, moved, retriable, c.moved, c.retriable)
		}
	}
}

func BenchmarkDo(b *testing.B) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	c, err := NewClient(Config{Brokers: k.ListenAddrs()})
	if err != nil {
		b.Fatal(err)
	}
	defer c.CloseIdleConnections()
	r := Request{
		Key: protocol.FindCoordinator, Version: 1, FlexibleFrom: 3, Broker: 0,
		Encode: func(w *Writer) { w.String("g"); w.Int8(0) },
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Do(b.Context(), &r); err != nil {
			b.Fatal(err)
		}
	}
}
