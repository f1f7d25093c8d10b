package consumer

import (
	"math/bits"
	"slices"
	"sync"
	"time"
)

// memory lends a Fetcher's buffers and keeps account of them, so that what all partitions hold
// together stays within FetchConfig.MemoryBytes whatever their number: buffers of raw record batches
// (prefetched or being read), scratches (decoders with what they decompressed and the records), and
// what the requests under way may bring.
//
// A request reserves what its response may bring before it is sent: pieces get half of the memory, the
// rest is for decoding them. Where too little is free, lanes wait until readers give something back.
// It never refuses to keep what has come.
type memory struct {
	limit int
	stall time.Duration // without a change; see reserve
	zstd  *sharedZstd

	mu        sync.Mutex
	raw       int       // capacity of the buffers in use
	scratch   int       // ... and of the scratches
	reserved  int       // by requests under way
	changed   time.Time // when something was last lent or given back
	hungry    []*leader // whose lanes wait for memory
	buffers   [classes][][]byte
	responses [][]byte
	idle      []*scratch // the last one used most recently
	kept      int        // capacity of buffers, responses and idle: what nobody uses
}

// Buffers come in two sizes an octave, from 4 KiB to 8 MiB; larger ones are not kept.
const (
	smallestBits  = 12
	classes       = 23
	recordSize    = 96 // of a Record
	keptResponses = 2
	leastRecords  = 128      // of a batch
	leastGrant    = 32 << 10 // bytes of a response: below it the request costs more than the memory
)

func newMemory(cfg FetchConfig) *memory {
	return &memory{limit: cfg.MemoryBytes, stall: cfg.MaxWait, zstd: &sharedZstd{limit: cfg.MaxBatchBytes}, changed: time.Now()}
}

// scratch is what decoding needs, lent to a partition while a piece is being read.
type scratch struct {
	decoder *Decoder
	records []Record
	size    int // as last accounted for
}

func classSize(class int) int {
	size := 1 << (smallestBits + class/2)
	return size + (class%2)*size/2
}

// roundDown is the largest size of a class that is not above n.
func roundDown(n int) int {
	class := min(classOf(n), classes-1)
	for class > 0 && classSize(class) > n {
		class--
	}
	return classSize(class)
}

// classOf is the smallest class that holds n bytes; classes where none does.
func classOf(n int) int {
	if n <= 1<<smallestBits {
		return 0
	}
	octave := bits.Len(uint(n-1)) - 1 // the power of two below n
	class := 2 * (octave - smallestBits)
	if n > 3<<(octave-1) {
		return min(class+2, classes)
	}
	return min(class+1, classes)
}

// Take implements kafkawire.Buffers. A response is read and copied in a moment, so that a few buffers
// do for all brokers.
func (m *memory) Take(n int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, b := range m.responses {
		if cap(b) >= n {
			m.responses = slices.Delete(m.responses, i, i+1)
			m.kept -= cap(b)
			return b[:n]
		}
	}
	size := n
	if class := classOf(n); class < classes {
		size = classSize(class)
	}
	return make([]byte, n, size)
}

// Give implements kafkawire.Buffers.
func (m *memory) Give(b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cap(b) > m.limit/8 {
		return
	}
	m.responses = append(m.responses, b)
	m.kept += cap(b)
	if len(m.responses) > keptResponses { // the largest ones stay
		least := 0
		for i := range m.responses {
			if cap(m.responses[i]) < cap(m.responses[least]) {
				least = i
			}
		}
		m.kept -= cap(m.responses[least])
		m.responses = slices.Delete(m.responses, least, least+1)
	}
}

// lend gives an empty buffer for n bytes. Where that is no small part of share it is large enough for
// a whole one: few different sizes are easily used again.
func (m *memory) lend(n, share int) []byte {
	if n > share/4 {
		n = max(n, share)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.takeLocked(n)
	m.raw += cap(b)
	m.changed = time.Now()
	return b[:0]
}

// giveBack takes a lent buffer back; nil is nothing.
func (m *memory) giveBack(b []byte) {
	if cap(b) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.raw -= cap(b)
	m.giveLocked(b)
	m.freedLocked()
}

func (m *memory) takeLocked(n int) []byte {
	class := classOf(n)
	if class == classes {
		m.trimLocked(n)
		return make([]byte, n)
	}
	if free := m.buffers[class]; len(free) > 0 {
		b := free[len(free)-1]
		free[len(free)-1] = nil
		m.buffers[class] = free[:len(free)-1]
		m.kept -= cap(b)
		return b[:n]
	}
	m.trimLocked(classSize(class))
	return make([]byte, n, classSize(class))
}

func (m *memory) giveLocked(b []byte) {
	class := classOf(cap(b))
	if class == classes || classSize(class) != cap(b) || !m.keepLocked(cap(b)) {
		return
	}
	m.buffers[class] = append(m.buffers[class], b)
	m.kept += cap(b)
}

// keepLocked says whether to keep n bytes that nobody uses. What is in use goes up and down all the
// time: dropping at the limit itself would turn memory into garbage only to ask for it again.
func (m *memory) keepLocked(n int) bool {
	return m.raw+m.scratch+m.kept+n <= m.limit+m.limit/2
}

// trimLocked drops kept memory until n bytes more fit.
func (m *memory) trimLocked(n int) {
	for len(m.idle) > 0 && !m.keepLocked(n) {
		m.kept -= m.idle[0].size
		m.idle = slices.Delete(m.idle, 0, 1)
	}
	for class := classes - 1; class >= 0; class-- {
		free := m.buffers[class]
		for len(free) > 0 && !m.keepLocked(n) {
			m.kept -= cap(free[len(free)-1])
			free[len(free)-1] = nil
			free = free[:len(free)-1]
		}
		m.buffers[class] = free
	}
}

// lendScratch gives a decoder with its memory.
func (m *memory) lendScratch() *scratch {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = time.Now()
	n := len(m.idle)
	if n == 0 {
		return &scratch{decoder: &Decoder{}}
	}
	s := m.idle[n-1]
	m.idle[n-1] = nil
	m.idle = m.idle[:n-1]
	m.kept -= s.size
	m.scratch += s.size
	return s
}

// account notes that a lent scratch may have grown.
func (m *memory) account(s *scratch) {
	size := cap(s.decoder.inflated) + recordSize*cap(s.records)
	if size == s.size {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scratch += size - s.size
	s.size = size
}

// giveBackScratch keeps a scratch unless it holds an unusual share of the memory.
func (m *memory) giveBackScratch(s *scratch) {
	m.account(s)
	s.decoder.Reset(nil, 0, nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scratch -= s.size
	if s.size <= m.limit/8 && m.keepLocked(s.size) {
		m.idle = append(m.idle, s)
		m.kept += s.size
	}
	m.freedLocked()
}

func (m *memory) freedLocked() {
	m.changed = time.Now()
	m.feedLocked()
}

// feedLocked wakes the lanes that wait for memory, where there is enough for one of them.
func (m *memory) feedLocked() {
	if len(m.hungry) == 0 || m.grantLocked() < leastGrant {
		return
	}
	for i, l := range m.hungry {
		l.wakeLanes()
		m.hungry[i] = nil
	}
	m.hungry = m.hungry[:0]
}

// grantLocked is half of what is free, so that one request does not take it all.
func (m *memory) grantLocked() int {
	return (min(m.limit/2, m.limit-m.scratch) - m.raw - m.reserved) / 2
}

// reserve grants up to most bytes for a response. Where too little is free it grants nothing and
// wakes l's lanes later.
//
// Readers may wait for each other: one goroutine that holds a batch of one partition while it waits
// for another one. So where nothing has moved for a while, one partition whose reader waits gets more
// than there is: overdraft says so.
func (m *memory) reserve(l *leader, most int) (granted int, overdraft bool, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if granted = m.grantLocked(); granted >= leastGrant {
		granted = min(granted, most)
		m.reserved += granted
		return granted, false, 0
	}
	wait = m.stall - time.Since(m.changed)
	if wait <= 0 {
		m.changed = time.Now()
		granted = leastGrant
		m.reserved += granted
		return granted, true, 0
	}
	if !slices.Contains(m.hungry, l) {
		m.hungry = append(m.hungry, l)
	}
	return 0, false, wait
}

// release ends a reservation.
func (m *memory) release(granted int) {
	if granted == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reserved -= granted
	m.feedLocked()
}
