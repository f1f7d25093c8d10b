// Package deadletters takes the topic of dead letters and gives what is in it to operators, and the records in it back
// to the topics that they came from, each exactly once.
package deadletters

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/schemas"
)

// Letter is one dead letter. Its slices alias the record that it was read from.
type Letter struct {
	Partition int32 // of the topic of dead letters
	Offset    int64
	Failed    time.Time

	Class     schemas.ErrorClass
	Error     string
	Source    Source
	Timestamp int64 // of the original record, ms since 1970
	Attempt   int32 // failures so far; 1 where nothing else is said
	Version   string
	Origin    string // topic/partition@offset of the first failure; "" for that itself
	LeftOut   bool   // key, value and headers were too large to be kept

	Key, Value []byte
	record     *consumer.Record
}

// Source is where the record failed.
type Source struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// String is topic/partition@offset.
func (s Source) String() string { return fmt.Sprintf("%s/%d@%d", s.Topic, s.Partition, s.Offset) }

// Place names the letter among the others: partition@offset.
func (l *Letter) Place() string { return fmt.Sprintf("%d@%d", l.Partition, l.Offset) }

// parse reads the headers that a worker adds. Where a name occurs twice the later one is the worker's. False: it is no
// dead letter of a worker.
func (l *Letter) parse(partition int32, r *consumer.Record) bool {
	*l = Letter{
		Partition: partition, Offset: r.Offset, Failed: time.UnixMilli(r.Timestamp), Attempt: 1,
		Key: r.Key, Value: r.Value, record: r,
	}
	whole := 0
	number := func(value []byte, bits int) int64 {
		n, err := strconv.ParseInt(string(value), 10, bits)
		if err != nil {
			return -1
		}
		whole++
		return n
	}
	for name, value := range r.EachHeader() {
		if !strings.HasPrefix(string(name), schemas.HeaderPrefix) {
			continue
		}
		switch string(name) {
		case schemas.HeaderClass:
			l.Class = schemas.ErrorClass(value)
		case schemas.HeaderError:
			l.Error = string(value)
		case schemas.HeaderTopic:
			l.Source.Topic = string(value)
		case schemas.HeaderPartition:
			l.Source.Partition = int32(number(value, 32))
		case schemas.HeaderOffset:
			l.Source.Offset = number(value, 64)
		case schemas.HeaderTimestamp:
			l.Timestamp = number(value, 64)
		case schemas.HeaderAttempt:
			l.Attempt = int32(number(value, 32))
		case schemas.HeaderVersion:
			l.Version = string(value)
		case schemas.HeaderOrigin:
			l.Origin = string(value)
		case schemas.HeaderLeftOut:
			l.LeftOut = true
		}
	}
	return l.Class != "" && l.Source.Topic != "" && l.Source.Partition >= 0 && l.Source.Offset >= 0 && l.Attempt > 0 && whole >= 4
}

// Header is one header of the original record.
type Header struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// Headers are those of the original record, without what workers add.
func (l *Letter) Headers() []Header {
	var headers []Header
	for name, value := range l.record.EachHeader() {
		if !added(name) {
			headers = append(headers, Header{string(name), slices.Clone(value)})
		}
	}
	return headers
}

func added(name []byte) bool { return strings.HasPrefix(string(name), schemas.HeaderPrefix) }

// Filter says which dead letters are meant; its zero value means all.
type Filter struct {
	Classes      []schemas.ErrorClass // any of them
	Topic        string               // that they came from
	Partition    int32                // of that topic; negative: any
	Customer     []byte               // the record's key; nil: any
	Since, Until time.Time            // of the failure: from, inclusive, and to, exclusive; zero: no bound
}

// Match says whether the letter is meant.
func (f *Filter) Match(l *Letter) bool {
	return (len(f.Classes) == 0 || slices.Contains(f.Classes, l.Class)) &&
		(f.Topic == "" || f.Topic == l.Source.Topic) &&
		(f.Partition < 0 || f.Partition == l.Source.Partition) &&
		(f.Customer == nil || string(f.Customer) == string(l.Key)) &&
		(f.Since.IsZero() || !l.Failed.Before(f.Since)) &&
		(f.Until.IsZero() || l.Failed.Before(f.Until))
}
