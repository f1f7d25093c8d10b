// Package feed takes events from a source, a file or a generator, and publishes them to a topic at a given rate.
package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/churnstream/churnstream/producer"
)

// Event is one record to publish. Its memory is the source's until the next call of Next.
type Event struct {
	Key       []byte
	Timestamp int64 // milliseconds since 1970; 0: the time of publishing
	Value     []byte
}

// Source gives events until io.EOF. It is called by one goroutine.
type Source interface {
	Next(e *Event) error
}

// SourceFunc makes a source of a function.
type SourceFunc func(e *Event) error

// Next calls the function.
func (f SourceFunc) Next(e *Event) error { return f(e) }

// Config says where to and how fast.
type Config struct {
	Topic string
	Rate  float64 // events a second; 0: as fast as the broker takes them
	Limit int     // stop after so many events; 0: at the source's end
}

// pulse is how long events of a rated feed are gathered into one request.
const pulse = 5 * time.Millisecond

// burst is how many events an unrated feed gathers into one request.
const burst = 10_000

// Run publishes until the source ends, the limit is reached or ctx ends, which is no error. It returns how many events
// were acknowledged. After each request progress, unless nil, is told that number. What the source refuses ends the run
// with the source's error, after everything before it has been acknowledged.
func Run(ctx context.Context, cfg Config, publisher producer.Publisher, source Source, progress func(sent int)) (sent int, err error) {
	var (
		event   Event
		record  = producer.Record{Topic: cfg.Topic, Partition: -1}
		started = time.Now()
		ended   error
	)
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for ended == nil && ctx.Err() == nil && (cfg.Limit == 0 || sent < cfg.Limit) {
		due := burst
		if cfg.Rate > 0 {
			due = int(time.Since(started).Seconds()*cfg.Rate) - sent
		}
		if cfg.Limit > 0 {
			due = min(due, cfg.Limit-sent)
		}
		if due <= 0 {
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
			continue
		}
		err := publisher.Begin(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return sent, fmt.Errorf("publish to %s: %w", cfg.Topic, err)
		}
		appended := 0
		for ; appended < min(due, burst); appended++ {
			event.Timestamp = 0
			if ended = source.Next(&event); ended != nil {
				break
			}
			record.Key, record.Value, record.Timestamp = event.Key, event.Value, event.Timestamp
			if record.Timestamp == 0 {
				record.Timestamp = time.Now().UnixMilli()
			}
			if err := publisher.Append(&record); err != nil {
				return sent, fmt.Errorf("publish to %s: %w", cfg.Topic, err)
			}
		}
		// Whatever was appended is sent even when ctx has ended: a feed stops between requests, not inside one.
		if err := publisher.Commit(context.WithoutCancel(ctx), producer.Member{}, nil); err != nil {
			return sent, fmt.Errorf("publish to %s: %w", cfg.Topic, err)
		}
		sent += appended
		if progress != nil {
			progress(sent)
		}
	}
	if ended != nil && !errors.Is(ended, io.EOF) {
		return sent, ended
	}
	return sent, nil
}
