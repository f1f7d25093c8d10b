package kafkawire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go/protocol"
)

// AnyBroker in Request.Broker sends the request to one of the bootstrap brokers.
const AnyBroker int32 = -1

// DefaultMaxResponse bounds the memory that one response may take.
const DefaultMaxResponse = 64 << 20

// ErrResponseTooLarge says that a response exceeds Request.MaxResponse; none of it was read.
var ErrResponseTooLarge = errors.New("the response is too large")

// Buffers lends memory for responses. Take is called by the goroutine of a connection, Give by the
// caller of Do; what a failed request took is not given back.
type Buffers interface {
	Take(size int) []byte // of that capacity or more
	Give(b []byte)
}

// Request is one raw request. It is reusable, by one goroutine at a time, and keeps its buffers
// between calls.
type Request struct {
	Key     protocol.ApiKey
	Version int16
	// FlexibleFrom is the first version of this API with compact encoding; 99 says none.
	FlexibleFrom int16
	// Broker is the id of the broker to ask, or AnyBroker.
	Broker int32
	// Encode appends the body. Nil sends an empty one.
	Encode func(*Writer)
	// Decode reads the body; what it keeps of it is valid until the next Do of the same Request.
	// It need not check Reader.Err at the end: Do does.
	Decode func(*Reader) error
	// MaxResponse in bytes; 0 means DefaultMaxResponse.
	MaxResponse int
	// Buffers, where set, lends the memory for the response, which is then valid during Decode only.
	// Otherwise a buffer of the largest response stays with the Request.
	Buffers Buffers
	// Timeout bounds the whole exchange where ctx has no deadline; 0 means Config.RequestTimeout.
	Timeout time.Duration

	exchange *exchange
}

// Do sends r to r.Broker and decodes the answer. Errors are wrapped with the API's name, version
// and broker; see Retriable for what to do about them. After any error the request's buffers are
// given up, since a connection's goroutine may still be writing into them.
func (c *Client) Do(ctx context.Context, r *Request) error {
	fail := func(err error) error {
		return fmt.Errorf("%s v%d to %s: %w", r.Key, r.Version, brokerName(r.Broker), err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	addr, err := c.address(ctx, r.Broker)
	if err != nil {
		return fail(err)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		timeout := r.Timeout
		if timeout <= 0 {
			timeout = c.cfg.RequestTimeout
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if r.exchange == nil {
		r.exchange = &exchange{}
	}
	e := r.exchange
	e.encode(r, c.cfg.ClientID, c.correlation.Add(1))
	if _, err := c.transport.RoundTrip(ctx, addr, e); err != nil {
		r.exchange = nil
		e.interrupt()
		c.forgetVersions(r.Broker)
		return fail(c.rotation.judge(err, time.Now()))
	}
	c.rotation.welcome()
	in := Reader{B: e.in[4:], Flexible: e.flexible && r.Key != protocol.ApiVersions}
	in.Tags()
	in.Flexible = e.flexible
	if r.Decode != nil {
		err = r.Decode(&in)
	}
	if err == nil {
		err = in.Err()
	}
	if r.Buffers != nil {
		r.Buffers.Give(e.in)
		e.in = nil
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

func brokerName(id int32) string {
	if id < 0 {
		return "any broker"
	}
	return fmt.Sprintf("broker %d", id)
}

// exchange carries one encoded request to a connection of kafka-go and the answer back. It touches
// nothing of the Request, which may be in use again when the connection's goroutine comes to run.
type exchange struct {
	key         protocol.ApiKey
	flexible    bool
	correlation int32
	maxResponse int
	buffers     Buffers
	out, in     []byte

	mu          sync.Mutex
	conn        net.Conn // while the exchange runs
	interrupted bool
}

var (
	_ protocol.RawExchanger  = (*exchange)(nil)
	_ protocol.BrokerMessage = (*exchange)(nil)
)

func (e *exchange) encode(r *Request, clientID string, correlation int32) {
	e.key, e.correlation, e.maxResponse, e.buffers = r.Key, correlation, r.MaxResponse, r.Buffers
	if e.maxResponse <= 0 {
		e.maxResponse = DefaultMaxResponse
	}
	e.flexible = r.Version >= r.FlexibleFrom
	w := Writer{B: append(e.out[:0], 0, 0, 0, 0)}
	w.Int16(int16(r.Key))
	w.Int16(r.Version)
	w.Int32(correlation)
	w.NullableString(clientID) // not compact even in a flexible header
	w.Flexible = e.flexible
	w.Tags()
	if r.Encode != nil {
		r.Encode(&w)
	}
	binary.BigEndian.PutUint32(w.B, uint32(len(w.B)-4))
	e.out = w.B
}

// interrupt ends the read of an exchange whose caller has gone, so that neither its goroutine nor
// its connection lives on. The connection is not reused.
func (e *exchange) interrupt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.interrupted = true
	if e.conn != nil {
		_ = e.conn.SetDeadline(time.Unix(1, 0))
	}
}

// ApiKey implements protocol.Message.
func (e *exchange) ApiKey() protocol.ApiKey { return e.key }

// Broker implements protocol.BrokerMessage: each broker has a pool of connections of its own in
// the Transport, so that routing never waits for the Transport's own view of the cluster.
func (e *exchange) Broker(protocol.Cluster) (protocol.Broker, error) {
	return protocol.Broker{ID: -1}, nil
}

// Required implements protocol.RawExchanger. The Transport's versions are those of the messages
// that kafka-go knows; the caller of Do has negotiated its own.
func (e *exchange) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange implements protocol.RawExchanger on the goroutine of a connection.
func (e *exchange) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	e.mu.Lock()
	if e.interrupted {
		e.mu.Unlock()
		return nil, context.Canceled
	}
	e.conn, _ = rw.(net.Conn)
	e.mu.Unlock()

	err := e.roundTrip(rw)

	e.mu.Lock()
	defer e.mu.Unlock()
	e.conn = nil
	if err == nil && e.interrupted {
		err = context.Canceled
	}
	return e, err
}

func (e *exchange) roundTrip(rw io.ReadWriter) error {
	if _, err := rw.Write(e.out); err != nil {
		return err
	}
	var size [4]byte
	if _, err := io.ReadFull(rw, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 4 {
		return ErrMalformed
	}
	if uint64(n) > uint64(e.maxResponse) {
		return fmt.Errorf("%d bytes, the limit is %d: %w", n, e.maxResponse, ErrResponseTooLarge)
	}
	switch {
	case e.buffers != nil:
		e.in = e.buffers.Take(int(n))
	case cap(e.in) < int(n):
		e.in = make([]byte, 0, n+n/4)
	}
	e.in = e.in[:n]
	if _, err := io.ReadFull(rw, e.in); err != nil {
		return err
	}
	if got := int32(binary.BigEndian.Uint32(e.in)); got != e.correlation {
		return fmt.Errorf("answer to request %d instead of %d: %w", got, e.correlation, ErrMalformed)
	}
	return nil
}
