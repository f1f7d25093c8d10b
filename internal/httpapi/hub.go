package httpapi

import (
	"bytes"
	"sync"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/schemas"
)

// hub hands the scores that come in to the open streams. It is safe for concurrent use.
type hub struct {
	dropped func()

	mu      sync.Mutex
	streams map[*stream]struct{}
}

// streamRoom is how many scores a stream may be behind before it is ended: the topic's readers do not wait for it.
const streamRoom = 1024

// stream is one client's share of the scores.
type stream struct {
	filter scoreFilter
	scores chan streamed // closed when the client is too slow
}

// streamed is a score with its place in the score topic. It is immutable.
type streamed struct {
	partition int32
	offset    int64
	score     *schemas.Score
}

// scoreFilter says which scores a client wants.
type scoreFilter struct {
	customer       []byte // nil: everybody's
	decision       Decision
	minProbability float64
}

func (f *scoreFilter) wants(s *schemas.Score) bool {
	decision := Retain
	if s.Churn {
		decision = Churn
	}
	return (f.customer == nil || bytes.Equal(f.customer, s.CustomerID)) &&
		(f.decision == "" || f.decision == decision) && s.Probability >= f.minProbability
}

func newHub(dropped func()) *hub { return &hub{dropped: dropped, streams: map[*stream]struct{}{}} }

func (h *hub) open(f scoreFilter) *stream {
	s := &stream{filter: f, scores: make(chan streamed, streamRoom)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams[s] = struct{}{}
	return s
}

func (h *hub) close(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
}

// publish never waits for a stream.
func (h *hub) publish(b *consumer.Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.streams) == 0 {
		return
	}
	for i := range b.Records {
		r := &b.Records[i]
		_, body, err := schemas.SplitFrame(r.Value)
		if r.Value == nil || err != nil {
			continue
		}
		s := &schemas.Score{}
		if schemas.DecodeScore(bytes.Clone(body), s) != nil {
			continue
		}
		for to := range h.streams {
			if !to.filter.wants(s) {
				continue
			}
			select {
			case to.scores <- streamed{b.Partition, r.Offset, s}:
			default:
				close(to.scores)
				delete(h.streams, to)
				h.dropped()
			}
		}
	}
}
