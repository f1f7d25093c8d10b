package worker

import (
	"encoding/binary"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/scoring"
)

// reasonsHeader marks an event whose score is to carry reasons, with reasons.when: request. Its value
// does not matter.
const reasonsHeader = "churnstream.reasons"

// reasonsOf says which scores get how many reasons.
func reasonsOf(cfg config.Reasons) scoring.ScorerConfig {
	out := scoring.ScorerConfig{Reasons: cfg.Top}
	switch cfg.When {
	case config.ReasonsAlways:
	case config.ReasonsAbove:
		out.ReasonsFrom = cfg.From
	case config.ReasonsOnRequest:
		out.ReasonsOnRequest = true
	}
	return out
}

// asksForReasons looks for the header among those of a record.
func asksForReasons(r *consumer.Record) bool {
	b := r.Headers
	for range r.HeaderCount {
		key, rest, ok := headerPart(b)
		if !ok {
			return false
		}
		if string(key) == reasonsHeader {
			return true
		}
		if _, b, ok = headerPart(rest); !ok {
			return false
		}
	}
	return false
}

// headerPart takes a key or a value, a varint length (-1: null) and so many bytes, off an encoded header.
func headerPart(b []byte) (part, rest []byte, ok bool) {
	length, n := binary.Varint(b)
	if n <= 0 || length > int64(len(b)-n) {
		return nil, nil, false
	}
	b = b[n:]
	if length < 0 {
		return nil, b, true
	}
	return b[:length], b[length:], true
}
