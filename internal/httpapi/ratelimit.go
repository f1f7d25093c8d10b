package httpapi

import (
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"
)

// rateLimit gives each principal a bucket of tokens that fills at a rate. It is safe for concurrent use.
type rateLimit struct {
	rate  float64 // tokens a second; 0: no limit
	burst float64
	now   func() time.Time

	mu      sync.Mutex
	buckets map[string]bucket
	swept   time.Time
}

type bucket struct {
	tokens float64
	at     time.Time
}

// sweepAt is the number of buckets from which on full ones are looked for and forgotten: they say nothing.
const sweepAt = 4096

func newRateLimit(rate float64, burst int) *rateLimit {
	return &rateLimit{rate: rate, burst: float64(burst), now: time.Now, buckets: map[string]bucket{}}
}

// take says whether the principal may go on, how many tokens it has left and when there will be one again.
func (l *rateLimit) take(id string) (left int, wait time.Duration, ok bool) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buckets) >= sweepAt && now.Sub(l.swept) > time.Second {
		l.swept = now
		for id, b := range l.buckets {
			if l.filled(b, now) >= l.burst {
				delete(l.buckets, id)
			}
		}
	}
	b, known := l.buckets[id]
	tokens := l.burst
	if known {
		tokens = l.filled(b, now)
	}
	if tokens < 1 {
		l.buckets[id] = bucket{tokens, now}
		return 0, time.Duration((1 - tokens) / l.rate * float64(time.Second)), false
	}
	l.buckets[id] = bucket{tokens - 1, now}
	return int(tokens - 1), 0, true
}

func (l *rateLimit) filled(b bucket, now time.Time) float64 {
	return math.Min(l.burst, b.tokens+now.Sub(b.at).Seconds()*l.rate)
}

// admit takes a token and tells the client what is left, in the fields of draft-ietf-httpapi-ratelimit-headers.
func (l *rateLimit) admit(w http.ResponseWriter, id string) *problem {
	if l.rate == 0 {
		return nil
	}
	left, wait, ok := l.take(id)
	h := w.Header()
	h["Ratelimit-Policy"] = []string{fmt.Sprintf(`"principal";q=%d;w=%d`, int(l.burst), int(math.Ceil(l.burst/l.rate)))}
	h["Ratelimit"] = []string{fmt.Sprintf(`"principal";r=%d;t=%d`, left, int(math.Ceil((l.burst-float64(left))/l.rate)))}
	if ok {
		return nil
	}
	return later(http.StatusTooManyRequests, wait, "the rate of requests is limited to %g a second, %d at once", l.rate, int(l.burst))
}
