package producer

import (
	"math/bits"
	"sync"
)

// Pool holds what publishers need for a moment only: the memory of record batches and the encoders of compression. One
// pool for all publishers of a process keeps their memory a matter of how many are filling a batch at the same time, not
// of how many there are. It is safe for concurrent use.
type Pool struct {
	limit int

	mu        sync.Mutex
	free      [poolClasses][][]byte // class i: capacity of at least smallestBuffer<<i
	bytes     int                   // in free
	encoders  [Zstd + 1][]*Compressor
	encodings int // in encoders
}

const (
	smallestBuffer = 4 << 10
	poolClasses    = 19 // up to 1 GiB, the largest batch
	maxEncoders    = 8  // that are kept; a zstd encoder has several MiB
)

// DefaultPoolBytes suits a process: batches of a few partitions at full size.
const DefaultPoolBytes = 8 << 20

// NewPool returns a pool that keeps up to limit bytes of unused memory; what exceeds it is left to the garbage collector.
func NewPool(limit int) *Pool { return &Pool{limit: limit} }

// take gives an empty buffer with a capacity of at least n.
func (p *Pool) take(n int) []byte {
	class := 0
	for n > smallestBuffer<<class {
		class++
	}
	p.mu.Lock()
	if last := len(p.free[class]) - 1; last >= 0 {
		b := p.free[class][last]
		p.free[class][last] = nil
		p.free[class] = p.free[class][:last]
		p.bytes -= cap(b)
		p.mu.Unlock()
		return b
	}
	p.mu.Unlock()
	return make([]byte, 0, smallestBuffer<<class)
}

// give takes back the memory of b, which nobody may use any more.
func (p *Pool) give(b []byte) {
	if cap(b) < smallestBuffer {
		return
	}
	class := min(bits.Len(uint(cap(b)/smallestBuffer))-1, poolClasses-1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes+cap(b) > p.limit {
		return
	}
	p.bytes += cap(b)
	p.free[class] = append(p.free[class], b[:0])
}

// compressor lends an encoder.
func (p *Pool) compressor(codec Compression) (*Compressor, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if codec <= Zstd {
		if last := len(p.encoders[codec]) - 1; last >= 0 {
			c := p.encoders[codec][last]
			p.encoders[codec] = p.encoders[codec][:last]
			p.encodings--
			return c, nil
		}
	}
	return NewCompressor(codec)
}

func (p *Pool) giveCompressor(c *Compressor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.encodings < maxEncoders {
		p.encodings++
		p.encoders[c.codec] = append(p.encoders[c.codec], c)
	}
}
