package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/producer"
)

// feeder publishes the events of a catalogue one after the other, round its own faults: a request that fails is given
// up, and whether the brokers hold its events is seen when the topic is read.
type feeder struct {
	catalogue *catalogue
	topic     string
	rate      int
	brokers   []string
	steady    bool   // the rate does not swing, and what an outage kept back is made up for
	acked     func() // called, where it is not nil, when events were acknowledged

	fed atomic.Int64 // events acknowledged

	began, last time.Time
	due         float64 // events

	mu      sync.Mutex
	numbers numbers
}

// numbers are those of the events that were tried to be published: all before next.
type numbers struct {
	next   uint64
	unsure []span // in ascending order: the brokers may hold them or not
}

type span struct{ first, end uint64 }

const (
	pulse      = 10 * time.Millisecond // how long events are gathered
	mostAPulse = 5_000
	makeUp     = time.Minute // of an outage, at most, with a steady rate
)

// run feeds until ctx ends. Unless it is steady the rate swings between a fifth of the average and nearly three times as much, so that
// workers have both nothing to do and a backlog.
func (f *feeder) run(ctx context.Context) {
	f.began = time.Now()
	f.last = f.began
	for ctx.Err() == nil {
		if err := f.feed(ctx); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "feed:", err)
			pause(ctx, 100*time.Millisecond)
		}
	}
}

// tried gives the numbers up to now.
func (f *feeder) tried() numbers {
	f.mu.Lock()
	defer f.mu.Unlock()
	return numbers{f.numbers.next, slices.Clone(f.numbers.unsure)}
}

// take gives the next n numbers, unsure until sure.
func (f *feeder) take(n int) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.numbers.next
	f.numbers.next += uint64(n)
	f.numbers.unsure = append(f.numbers.unsure, span{first, f.numbers.next})
	return first
}

// sure says that the brokers hold the numbers that were taken last.
func (f *feeder) sure(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.numbers.unsure = f.numbers.unsure[:len(f.numbers.unsure)-1]
	f.fed.Add(int64(n))
}

func (f *feeder) feed(ctx context.Context) error {
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: f.brokers, ClientID: "chaos-feed", MetadataTTL: 5 * time.Second})
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	cfg := producer.DefaultConfig()
	cfg.Compression = producer.LZ4
	publisher, err := producer.NewIdempotent(cfg, client)
	if err != nil {
		return err
	}
	defer publisher.Close()
	var e event
	headers := make([]producer.Header, 0, 2)
	record := producer.Record{Topic: f.topic, Partition: -1}
	for ctx.Err() == nil {
		pause(ctx, pulse)
		now := time.Now()
		more := now.Sub(f.last).Seconds() * float64(f.rate)
		if !f.steady {
			more *= swing(now.Sub(f.began))
		}
		most := 2 * float64(f.rate) // what an outage kept back is not all made up for
		if f.steady {
			most = makeUp.Seconds() * float64(f.rate)
		}
		f.due, f.last = min(f.due+more, most), now
		n := min(int(f.due), mostAPulse)
		if n == 0 {
			continue
		}
		if err := publisher.Begin(ctx); err != nil {
			return err
		}
		first := f.take(n)
		for i := range uint64(n) {
			f.catalogue.event(first+i, &e)
			headers = headers[:0]
			for _, h := range e.headers[:e.count] {
				headers = append(headers, producer.Header{Key: h.key, Value: h.value})
			}
			record.Key, record.Value, record.Timestamp, record.Headers = e.key, e.value, e.time, headers
			if err := publisher.Append(&record); err != nil {
				return err
			}
		}
		// Also when ctx has ended: what was begun is finished.
		if err := publisher.Commit(context.WithoutCancel(ctx), producer.Member{}, nil); err != nil {
			return err
		}
		f.sure(n)
		if f.acked != nil {
			f.acked()
		}
		f.due -= float64(n)
	}
	return nil
}

// swing is the factor of the rate at a time; its average is 1.
func swing(at time.Duration) float64 {
	return [...]float64{1, 0.2, 1, 2.8, 0.5, 0.5}[int(at/(4*time.Second))%6]
}
