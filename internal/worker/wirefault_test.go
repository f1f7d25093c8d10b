package worker

import (
	"encoding/binary"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// wireFault is what happens once, on the wire between a worker and its brokers, to a request of one kind.
type wireFault struct {
	key     kmsg.Key
	applied bool  // the broker does what it is asked for, before
	code    int16 // what the worker is answered: Kafka's code, hangUp or silence

	happened atomic.Bool
}

// Answers that are none.
const (
	hangUp  int16 = -2 // the connection is closed
	silence int16 = -3 // nothing is answered, the connection stays
)

// tap lets faults happen on the connections that it wraps.
type tap struct {
	group string // requests of other transactional ids, and of the drift watcher, are left alone

	mu     sync.Mutex
	faults []*wireFault
}

// next lets the next request of the key fail.
func (t *tap) next(key kmsg.Key, applied bool, code int16) *wireFault {
	f := &wireFault{key: key, applied: applied, code: code}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = append(t.faults, f)
	return f
}

// take gives the fault that is meant for a request, nil if there is none.
func (t *tap) take(request kmsg.Request) *wireFault {
	if id := transactionOf(request); !strings.HasPrefix(id, t.group) || strings.HasSuffix(id, "drift-alerts") {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, f := range t.faults {
		if int16(f.key) == request.Key() {
			t.faults = append(t.faults[:i], t.faults[i+1:]...)
			return f
		}
	}
	return nil
}

// wrap stands between a worker and one connection to a broker.
func (t *tap) wrap(broker net.Conn) net.Conn {
	worker, ours := net.Pipe()
	c := &tapped{tap: t, broker: broker, worker: ours, expected: map[int32]expectedAnswer{}}
	go c.requests()
	go c.answers()
	return worker
}

// tapped is one connection. Two goroutines own it, one for each direction.
type tapped struct {
	tap            *tap
	broker, worker net.Conn
	writing        sync.Mutex // of answers

	mu       sync.Mutex
	expected map[int32]expectedAnswer // by correlation id: answers to be altered
}

type expectedAnswer struct {
	fault   *wireFault
	request kmsg.Request
}

func (c *tapped) close() {
	c.broker.Close()
	c.worker.Close()
}

func (c *tapped) requests() {
	defer c.close()
	for {
		frame, err := readFrame(c.worker)
		if err != nil {
			return
		}
		correlation, request := parseRequest(frame)
		var fault *wireFault
		if request != nil {
			fault = c.tap.take(request)
		}
		switch {
		case fault == nil:
		case fault.applied:
			c.mu.Lock()
			c.expected[correlation] = expectedAnswer{fault, request}
			c.mu.Unlock()
		default:
			if !c.answer(fault, correlation, request, refusal(request, fault.code)) {
				return
			}
			continue
		}
		if _, err := c.broker.Write(frame); err != nil {
			return
		}
	}
}

func (c *tapped) answers() {
	defer c.close()
	defer c.putBack()
	for {
		frame, err := readFrame(c.broker)
		if err != nil {
			return
		}
		correlation := int32(binary.BigEndian.Uint32(frame[4:]))
		c.mu.Lock()
		expected, altered := c.expected[correlation]
		delete(c.expected, correlation)
		c.mu.Unlock()
		if !altered {
			if !c.write(frame) {
				return
			}
			continue
		}
		response := expected.request.ResponseKind()
		response.SetVersion(expected.request.GetVersion())
		body := frame[8:]
		if response.IsFlexible() {
			body = body[1:] // no tags
		}
		if err := response.ReadFrom(body); err != nil {
			return
		}
		setCodes(reflect.ValueOf(response).Elem(), expected.fault.code)
		if !c.answer(expected.fault, correlation, expected.request, response) {
			return
		}
	}
}

// putBack keeps the faults for the repetition of requests that the worker gave up before their answer came.
func (c *tapped) putBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	for _, e := range c.expected {
		c.tap.faults = append(c.tap.faults, e.fault)
	}
	clear(c.expected)
}

// answer lets the fault happen. It says whether the connection goes on.
func (c *tapped) answer(fault *wireFault, correlation int32, request kmsg.Request, response kmsg.Response) bool {
	fault.happened.Store(true)
	switch fault.code {
	case hangUp:
		return false
	case silence:
		return true
	}
	response.SetVersion(request.GetVersion())
	frame := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 0}, uint32(correlation)) // behind its size
	if response.IsFlexible() {
		frame = append(frame, 0)
	}
	frame = response.AppendTo(frame)
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return c.write(frame)
}

func (c *tapped) write(frame []byte) bool {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.worker.Write(frame)
	return err == nil
}

func readFrame(from io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, 4+binary.BigEndian.Uint32(size[:]))
	copy(frame, size[:])
	_, err := io.ReadFull(from, frame[4:])
	return frame, err
}

// parseRequest gives nil for a request that cannot take part in a transaction.
func parseRequest(frame []byte) (correlation int32, request kmsg.Request) {
	key := kmsg.Key(binary.BigEndian.Uint16(frame[4:]))
	version := int16(binary.BigEndian.Uint16(frame[6:]))
	correlation = int32(binary.BigEndian.Uint32(frame[8:]))
	switch key {
	case kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn:
	default:
		return correlation, nil
	}
	request = key.Request()
	request.SetVersion(version)
	body := frame[12:]
	if n := int16(binary.BigEndian.Uint16(body)); n > 0 { // client id
		body = body[n:]
	}
	body = body[2:]
	if request.IsFlexible() {
		body = body[1:] // no tags
	}
	if request.ReadFrom(body) != nil {
		return correlation, nil
	}
	return correlation, request
}

// setCodes writes an error code wherever the message has a place for one, and takes back the identity that goes with
// success.
func setCodes(v reflect.Value, code int16) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			switch field := v.Field(i); v.Type().Field(i).Name {
			case "ErrorCode":
				field.SetInt(int64(code))
			case "ProducerID", "ProducerEpoch":
				field.SetInt(-1)
			default:
				setCodes(field, code)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			setCodes(v.Index(i), code)
		}
	default:
	}
}
