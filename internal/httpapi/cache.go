package httpapi

import (
	"sync"

	"github.com/cespare/xxhash/v2"
)

// cache keeps the newest outcomes by model and input. Each shard holds two generations: what is asked for again moves
// to the young one, and when that is full the old one is forgotten at once. It is safe for concurrent use.
type cache struct {
	shards       [16]cacheShard
	perShard     int
	hits, misses func()
}

type cacheShard struct {
	mu         sync.Mutex
	young, old map[string]*outcome
}

// newCache keeps between entries/2 and entries outcomes.
func newCache(entries int, hits, misses func()) *cache {
	c := &cache{perShard: max(1, entries/(2*16)), hits: hits, misses: misses}
	for i := range c.shards {
		c.shards[i].young = map[string]*outcome{}
	}
	return c
}

func (c *cache) shard(key []byte) *cacheShard {
	return &c.shards[xxhash.Sum64(key)%uint64(len(c.shards))]
}

func (c *cache) get(key []byte) (*outcome, bool) {
	s := c.shard(key)
	s.mu.Lock()
	o, ok := s.young[string(key)]
	if !ok {
		if o, ok = s.old[string(key)]; ok {
			c.putLocked(s, key, o)
		}
	}
	s.mu.Unlock()
	if ok {
		c.hits()
	} else {
		c.misses()
	}
	return o, ok
}

func (c *cache) put(key []byte, o *outcome) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.putLocked(s, key, o)
}

func (c *cache) putLocked(s *cacheShard, key []byte, o *outcome) {
	if len(s.young) >= c.perShard {
		s.young, s.old = make(map[string]*outcome, c.perShard), s.young
	}
	s.young[string(key)] = o
}
