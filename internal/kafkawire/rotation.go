package kafkawire

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
)

// When a password or a certificate is replaced, broker and client do not get it at the same moment. A login that is
// refused at the first try is an error for an operator. Once the brokers have taken one, a refusal is an outage for a
// while.

// rotationGrace is how long refusals may go on before they end the work.
const rotationGrace = time.Minute

// rotationPause without a refusal ends a row of them.
const rotationPause = 15 * time.Second

// rotation tells the two apart for one client.
type rotation struct {
	welcomed atomic.Bool

	mu          sync.Mutex
	first, last time.Time // of the row of refusals
}

// rotatingError is a refusal that may be over soon. It does not unwrap to the refusal, which is one that no retry mends.
type rotatingError struct{ text string }

func (e *rotatingError) Error() string { return e.text }

// welcome notes that a login was taken.
func (r *rotation) welcome() {
	if !r.welcomed.Load() {
		r.welcomed.Store(true)
	}
}

// judge gives what the error of a request is to the caller.
func (r *rotation) judge(err error, now time.Time) error {
	if !r.welcomed.Load() || !errors.Is(err, kafka.SASLAuthenticationFailed) && !permanent(err) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.last) > rotationPause {
		r.first = now
	}
	r.last = now
	if now.Sub(r.first) > rotationGrace {
		return err
	}
	return &rotatingError{fmt.Sprintf("the login is refused now, and was taken before; waiting up to %v for credentials that fit: %v", rotationGrace, err)}
}
