package kafkawire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

func TestARefusedLoginIsAnOutageForAWhileOnceOneWasTaken(t *testing.T) {
	refused := fmt.Errorf("dial: %w", kafka.SASLAuthenticationFailed)
	untrusted := &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}
	at := time.Unix(1000, 0)
	var r rotation
	for _, err := range []error{refused, untrusted} {
		if got := r.judge(err, at); !errors.Is(got, err) {
			t.Errorf("the first try: %v", got)
		}
	}
	r.welcome()
	final := func(err error, after time.Duration) bool {
		t.Helper()
		got := r.judge(err, at.Add(after))
		_, retriable := Retriable(got)
		if retriable && CodeOf(got) != 0 {
			t.Errorf("%v shows a code that no retry mends", got)
		}
		return !retriable
	}
	for after := time.Duration(0); after <= rotationGrace; after += 10 * time.Second {
		if final(refused, after) || final(untrusted, after) {
			t.Errorf("final after %v", after)
		}
	}
	if !final(refused, rotationGrace+time.Second) {
		t.Error("refusals go on for ever")
	}
	if final(refused, rotationGrace+2*time.Second+2*rotationPause) {
		t.Error("another row of refusals is final at once")
	}
	other := kafka.TopicAuthorizationFailed
	if got := r.judge(other, at); !errors.Is(got, other) {
		t.Errorf("another error became %v", got)
	}
}
