package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// exchange is what is known of a request beside its content. It belongs to the request's goroutine.
type exchange struct {
	http.ResponseWriter
	requestID string
	traceID   string // 32 hexadecimal digits
	spanID    string // ours, 16
	sampled   string // trace flags
	principal *principal
	shed      bool
	status    int
	bytes     int64
	began     time.Time
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

var (
	safeRequestID = regexp.MustCompile(`^[A-Za-z0-9._:/+=-]{1,128}$`)
	traceparent   = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$`)
)

// newExchange takes over the request id and the W3C trace context of the client where they are well formed.
func newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{ResponseWriter: w, began: time.Now(), requestID: r.Header.Get("X-Request-Id"), sampled: "00"}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	if !safeRequestID.MatchString(x.requestID) {
		x.requestID = hex.EncodeToString(random[:8])
	}
	x.spanID, x.traceID = hex.EncodeToString(random[8:16]), ""
	if m := traceparent.FindStringSubmatch(r.Header.Get("Traceparent")); m != nil && !strings.HasPrefix(m[0], "ff") &&
		strings.Trim(m[1], "0") != "" && strings.Trim(m[2], "0") != "" {
		x.traceID, x.sampled = m[1], m[3]
	} else {
		x.traceID = hex.EncodeToString(random[16:])
	}
	w.Header()["X-Request-Id"] = []string{x.requestID}
	return x
}

// traceparent is what goes on with records that the request publishes.
func (x *exchange) traceparent() string {
	return "00-" + x.traceID + "-" + x.spanID + "-" + x.sampled
}

// WriteHeader notes the status.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && status >= 200 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write counts what is answered.
func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriter.Write(b)
	x.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }
