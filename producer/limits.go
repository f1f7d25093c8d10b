package producer

import (
	"sync"
	"sync/atomic"
)

// Limits is what brokers have taught about the largest record batch of each topic, for all publishers that share it. A
// topic whose max.message.bytes is below Config.MaxBatchBytes gets smaller batches once it has refused one; that it was
// raised later is learned by a new process only.
type Limits struct {
	version atomic.Uint32 // counts what was learned

	mu   sync.Mutex
	most map[string]int // bytes before compression, by topic
}

// of gives the largest batch of a topic; most where nothing smaller was learned.
func (l *Limits) of(topic string, most int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if learned, ok := l.most[topic]; ok {
		return min(learned, most)
	}
	return most
}

// lower makes batches of a topic no larger than most bytes before compression.
func (l *Limits) lower(topic string, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if learned, ok := l.most[topic]; ok && learned <= most {
		return
	}
	if l.most == nil {
		l.most = map[string]int{}
	}
	l.most[topic] = most
	l.version.Add(1)
}
