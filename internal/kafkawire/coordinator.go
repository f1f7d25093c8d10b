package kafkawire

import (
	"context"
	"fmt"

	"github.com/segmentio/kafka-go/protocol"
)

// CoordinatorKind tells the two sorts of coordinators apart.
type CoordinatorKind int8

// The values are those of FindCoordinator's key type.
const (
	Group       CoordinatorKind = 0
	Transaction CoordinatorKind = 1
)

// String names the kind for error messages.
func (k CoordinatorKind) String() string {
	if k == Transaction {
		return "transactional id"
	}
	return "group"
}

type coordinatorKey struct {
	kind CoordinatorKind
	key  string
}

// Coordinator is the broker that coordinates a group or a transactional id. It is asked for once
// and remembered until ForgetCoordinator.
func (c *Client) Coordinator(ctx context.Context, kind CoordinatorKind, key string) (int32, error) {
	k := coordinatorKey{kind, key}
	c.mu.Lock()
	broker, ok := c.coordinators[k]
	c.mu.Unlock()
	if ok {
		return broker, nil
	}
	var found coordinator
	err := c.Do(ctx, &Request{
		Key: protocol.FindCoordinator, Version: 1, FlexibleFrom: 3, Broker: AnyBroker,
		Encode: func(w *Writer) {
			w.String(key)
			w.Int8(int8(kind))
		},
		Decode: found.decode,
	})
	if err != nil {
		return AnyBroker, fmt.Errorf("find the coordinator of %s %q: %w", kind, key, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.learnAddressLocked(found.broker, found.host, found.port)
	c.coordinators[k] = found.broker
	return found.broker, nil
}

type coordinator struct {
	broker int32
	host   string
	port   int32
}

func (c *coordinator) decode(r *Reader) error {
	r.Int32() // throttle
	code := r.Int16()
	r.StringBytes() // message; it only repeats the code's name
	*c = coordinator{r.Int32(), r.String(), r.Int32()}
	return Code(code)
}

// ForgetCoordinator makes the next Coordinator call ask again.
func (c *Client) ForgetCoordinator(kind CoordinatorKind, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.coordinators, coordinatorKey{kind, key})
}
