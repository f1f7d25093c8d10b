package job

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/avro"
)

// frame is the header of the Confluent wire format.
func frame(id uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0}, id) }

// Encoder writes events and reads scores. It is safe for concurrent use.
type Encoder struct {
	activity, score *avro.Schema
}

// NewEncoder parses the schemas.
func NewEncoder() (*Encoder, error) {
	activity, err := avro.Parse(ActivitySchema)
	if err != nil {
		return nil, fmt.Errorf("activity.avsc: %w", err)
	}
	score, err := avro.Parse(ScoreSchema)
	if err != nil {
		return nil, fmt.Errorf("score.avsc: %w", err)
	}
	return &Encoder{activity, score}, nil
}

// AppendActivity appends the record value of an event.
func (e *Encoder) AppendActivity(dst []byte, a *Activity) ([]byte, error) {
	return e.activity.AppendEncode(append(dst, frame(ActivityID)...), a)
}

// ReadScore reads a record value. Strings of s alias it.
func (e *Encoder) ReadScore(value []byte, s *Score) error {
	if len(value) < 5 || [5]byte(value[:5]) != [5]byte(frame(ScoreID)) {
		return fmt.Errorf("a score of %d bytes does not begin with schema id %d", len(value), ScoreID)
	}
	rest, err := e.score.Decode(value[5:], s, avro.AliasInput())
	if err != nil {
		return fmt.Errorf("read a score: %w", err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes are left over after a score", len(rest))
	}
	return nil
}
