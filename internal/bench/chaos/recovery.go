package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/schemas"
)

// gaps are the longest times in which a committed reader saw nothing new, by what it reads: the scores of each partition
// of the events, and each partition of a probe topic that another client writes to with acks=all. The probe is what
// the cluster costs without the product. Between two acknowledgements of events there is nothing to score.
type gaps struct {
	mu   sync.Mutex
	last map[string]time.Time
	most map[string]time.Duration
}

func (g *gaps) arrived(what string, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if before, ok := g.last[what]; ok {
		g.most[what] = max(g.most[what], at.Sub(before))
	}
	g.last[what] = at
}

// begin forgets what was before now, also of a gap that still lasts: it has another cause.
func (g *gaps) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.most)
	for what := range g.last {
		g.last[what] = time.Now()
	}
}

// longest gap since begin of everything whose name begins so; one that still lasts counts.
func (g *gaps) longest(kind byte) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	most := time.Duration(0)
	for what, last := range g.last {
		if what[0] == kind {
			most = max(most, g.most[what], time.Since(last))
		}
	}
	return most
}

const (
	ofScores = 's'
	ofProbe  = 'p'
	ofEvents = 'e'
)

// recovery is what one fault cost, each time alone.
type recovery struct {
	name   string
	window time.Duration
	do     func(ctx context.Context, r *round) (undo func(context.Context) error, err error)
}

func recoveries() []recovery {
	return []recovery{
		{"none", 5 * time.Second, func(context.Context, *round) (func(context.Context) error, error) { return nothing, nil }},
		{"leader of an events partition moved", 5 * time.Second, func(ctx context.Context, r *round) (func(context.Context) error, error) {
			return nothing, r.loseLeader(ctx, r.cfg.Topics.Events)
		}},
		{"leader of a scores partition moved", 5 * time.Second, func(ctx context.Context, r *round) (func(context.Context) error, error) {
			return nothing, r.loseLeader(ctx, r.cfg.Topics.Scores)
		}},
		{"worker SIGTERM", 6 * time.Second, func(_ context.Context, r *round) (func(context.Context) error, error) {
			s := r.seats[1]
			return func(ctx context.Context) error {
				if err := s.drain(ctx); err != nil {
					return err
				}
				return s.start()
			}, s.signal(syscall.SIGTERM)
		}},
		{"worker SIGKILL", 16 * time.Second, func(_ context.Context, r *round) (func(context.Context) error, error) {
			s := r.seats[1]
			return func(context.Context) error { return s.start() }, s.kill()
		}},
		{"kill -9 of a partition leader", 25 * time.Second, func(ctx context.Context, r *round) (func(context.Context) error, error) {
			led, err := r.brokers.leaders(ctx, r.cfg.Topics.Events)
			if err != nil {
				return nothing, err
			}
			return r.loseBroker(ctx, led[0].leader)
		}},
		{"kill -9 of the group coordinator", 25 * time.Second, func(ctx context.Context, r *round) (func(context.Context) error, error) {
			return r.loseCoordinator(ctx, offsetsTopic, r.name)
		}},
		{"kill -9 of a transaction coordinator", 25 * time.Second, func(ctx context.Context, r *round) (func(context.Context) error, error) {
			ids, err := r.brokers.transactionalIDs(ctx, r.name)
			if err != nil || len(ids) == 0 {
				return nothing, errors.Join(err, fmt.Errorf("%d transactional ids", len(ids)))
			}
			return r.loseCoordinator(ctx, transactionsTopic, ids[0])
		}},
	}
}

func nothing(context.Context) error { return nil }

// loseLeader moves the leaders of a topic's and of the probe's first partition.
func (r *round) loseLeader(ctx context.Context, topic string) error {
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	return errors.Join(r.brokers.moveLeader(ctx, topic, 0, random), r.brokers.moveLeader(ctx, r.probeTopic(), 0, random))
}

func (r *round) probeTopic() string { return r.name + "-probe" }

func (r *round) loseCoordinator(ctx context.Context, topic, id string) (func(context.Context) error, error) {
	partition, err := r.brokers.coordinatorPartition(ctx, topic, id)
	if err != nil {
		return nothing, err
	}
	led, err := r.brokers.leaders(ctx, topic)
	if err != nil {
		return nothing, err
	}
	return r.loseBroker(ctx, led[partition].leader)
}

func (r *round) loseBroker(ctx context.Context, broker int32) (func(context.Context) error, error) {
	return func(ctx context.Context) error {
		if err := r.brokers.restart(ctx, broker); err != nil {
			return err
		}
		return r.whole(ctx)
	}, r.brokers.signal(ctx, broker, "KILL")
}

// measure prints what each fault costs, alone, times times each.
func (r *round) measure(ctx context.Context, times int) error {
	defer r.abandon()
	probe := r.probeTopic()
	if err := r.brokers.createTopic(ctx, probe, r.settings.partitions, nil); err != nil {
		return err
	}
	for i := range r.settings.workers {
		s, err := r.sit("worker" + strconv.Itoa(i+1))
		if err != nil {
			return err
		}
		r.seats = append(r.seats, &workerSeat{s, make(chan struct{}, 1)})
		if err := s.start(); err != nil {
			return err
		}
	}
	background, stop := context.WithCancel(ctx)
	g, background := errgroup.WithContext(background)
	seen := &gaps{last: map[string]time.Time{}, most: map[string]time.Duration{}}
	r.feeder.steady, r.feeder.acked = true, func() { seen.arrived(string(ofEvents), time.Now()) }
	g.Go(func() error { r.feeder.run(background); return nil })
	g.Go(func() error { return r.probe(background, probe) })
	g.Go(func() error { return r.follow(background, probe, seen) })
	err := until(ctx, catchUpLimit, "scores of every partition and the probe are seen", func() bool {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return len(seen.last) == 2*r.settings.partitions+1
	})
	if err == nil {
		err = r.measureAll(ctx, times, seen)
	}
	stop()
	return errors.Join(err, g.Wait())
}

func (r *round) measureAll(ctx context.Context, times int, seen *gaps) error {
	fmt.Println("| fault | scores: longest gap, s | events acknowledged | probe beside them | coordinators answer after |")
	fmt.Println("|---|---|---|---|---|")
	for _, f := range recoveries() {
		if !mentions(f.name, r.settings.kinds) {
			continue
		}
		var scores, events, probes, answers []float64
		for range times {
			pause(ctx, 5*time.Second)
			seen.begin()
			began := time.Now()
			undo, err := f.do(ctx, r)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			answered := time.Duration(0)
			for answered == 0 && time.Since(began) < f.window {
				if _, err := r.brokers.committed(ctx, r.name, r.cfg.Topics.Events, r.settings.partitions); err == nil {
					answered = time.Since(began)
				}
				pause(ctx, 20*time.Millisecond)
			}
			pause(ctx, time.Until(began.Add(f.window)))
			scores = append(scores, seen.longest(ofScores).Seconds())
			events = append(events, seen.longest(ofEvents).Seconds())
			probes = append(probes, seen.longest(ofProbe).Seconds())
			answers = append(answers, answered.Seconds())
			if err := undo(context.WithoutCancel(ctx)); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		fmt.Printf("| %s | %s | %s | %s | %s |\n", f.name, all(scores), all(events), all(probes), all(answers))
	}
	return nil
}

// all writes the figures in the order of the times, so that those of a row belong together.
func all(figures []float64) string {
	text := ""
	for i, f := range figures {
		if i > 0 {
			text += ", "
		}
		text += strconv.FormatFloat(f, 'f', 2, 64)
	}
	return text
}

// probe writes to every partition of its topic all the time.
func (r *round) probe(ctx context.Context, topic string) error {
	client, err := r.brokers.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.UnknownTopicRetries(-1))
	if err != nil {
		return err
	}
	defer client.Close()
	for ctx.Err() == nil {
		for p := range int32(r.settings.partitions) {
			client.Produce(ctx, &kgo.Record{Topic: topic, Partition: p}, func(*kgo.Record, error) {}) // what is lost shows as a gap
		}
		pause(ctx, 20*time.Millisecond)
	}
	return nil
}

// follow notes what a committed reader sees.
func (r *round) follow(ctx context.Context, probe string, seen *gaps) error {
	reader, err := r.brokers.client(kgo.ConsumeTopics(r.cfg.Topics.Scores, probe), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		return err
	}
	defer reader.Close()
	var s schemas.Score
	for ctx.Err() == nil {
		fetches := reader.PollFetches(ctx)
		now := time.Now()
		for i := fetches.RecordIter(); !i.Done(); {
			record := i.Next()
			if record.Topic == probe {
				seen.arrived(string(ofProbe)+strconv.Itoa(int(record.Partition)), now)
				continue
			}
			_, body, err := schemas.SplitFrame(record.Value)
			if err == nil {
				err = schemas.DecodeScore(body, &s)
			}
			if err != nil {
				return err
			}
			seen.arrived(string(ofScores)+strconv.Itoa(int(s.SourcePartition)), now)
		}
	}
	return nil
}
