package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/churnstream/churnstream/bench/peers/job"
	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/bench"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/feed"
)

// comparison runs contenders in turns: each of them once a round, each time with a new group and new topics.
type comparison struct {
	settings
	name    string // prefix of topics and groups
	models  string // directory of the weights
	session *bench.Session
	encoder *job.Encoder
	model   *job.Model
}

// result is one run.
type result struct {
	Contender  string            `json:"contender"`
	Round      int               `json:"round"`
	Throughput *bench.Throughput `json:"throughput,omitempty"`
	Latency    *bench.Latency    `json:"latency_ms,omitempty"`
	Output     output            `json:"output"`
}

func newComparison(ctx context.Context, s settings, models string) (*comparison, error) {
	c := &comparison{settings: s, name: "peers-" + strconv.FormatUint(rand.Uint64(), 36), models: models}
	var err error
	if c.encoder, err = job.NewEncoder(); err != nil {
		return nil, err
	}
	if c.model, err = job.ReadModel(""); err != nil {
		return nil, err
	}
	if err := c.model.WriteTo(models); err != nil {
		return nil, err
	}
	c.session, err = bench.Open(ctx, []string{s.broker}, config.Security{})
	return c, err
}

func (c *comparison) close() {
	if err := c.session.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
	}
}

// run goes through all rounds and tells each result when it is there.
func (c *comparison) run(ctx context.Context, tell func(result)) (runs []result, err error) {
	add := func(r result, err error) error {
		if err != nil {
			return fmt.Errorf("%s, round %d: %w", r.Contender, r.Round, err)
		}
		tell(r)
		runs = append(runs, r)
		return nil
	}
	if c.rounds > 0 {
		events := c.name + "-events"
		if err := c.create(ctx, events); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, c.session.DeleteTopics(context.WithoutCancel(ctx), events)) }()
		fmt.Fprintf(os.Stderr, "publishing %d events\n", c.events)
		if err := c.session.Fill(ctx, events, c.events, c.source(func(i int64) int64 { return firstEvent + i })); err != nil {
			return nil, err
		}
		// The broker's compiler needs a run of its own, which counts for nobody.
		if r, err := c.throughput(ctx, c.contenders[0], 0, events); err != nil {
			return nil, fmt.Errorf("%s, warm-up: %w", r.Contender, err)
		}
		for round := range c.rounds {
			for _, contender := range c.contenders {
				if err := add(c.throughput(ctx, contender, round+1, events)); err != nil {
					return nil, err
				}
			}
		}
	}
	for round := range c.latencyRounds {
		for _, contender := range c.contenders {
			if err := add(c.latency(ctx, contender, round+1)); err != nil {
				return nil, err
			}
		}
	}
	return runs, nil
}

// firstEvent is the time of the first event of a backlog, in ms since 1970. The others follow at a ms each.
const firstEvent = 1_790_000_000_000

// source gives the events from the first on, with their times.
func (c *comparison) source(at func(i int64) int64) feed.Source {
	var next int64
	var key, value []byte
	return feed.SourceFunc(func(e *feed.Event) (err error) {
		a := job.Make(next, at(next))
		next++
		key = append(key[:0], a.CustomerID...)
		if value, err = c.encoder.AppendActivity(value[:0], &a); err != nil {
			return err
		}
		e.Key, e.Value = key, value
		return nil
	})
}

func (c *comparison) throughput(ctx context.Context, who contender, round int, events string) (r result, err error) {
	r = result{Contender: who.name, Round: round}
	t := c.task(fmt.Sprintf("%s-%s-%d", c.name, who.name, round), events)
	if err := c.create(ctx, t.out); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.discard(ctx, t.out)) }()
	measured, err := c.session.Drain(ctx, who.start(ctx, c.bin, t), bench.Backlog{
		Topic: events, Partitions: partitions, Events: c.events, Group: t.group, BrokerPID: c.brokerPID,
	})
	if err != nil {
		return r, err
	}
	r.Throughput = &measured
	r.Output, err = c.check(ctx, t.out, c.events, who)
	return r, err
}

func (c *comparison) latency(ctx context.Context, who contender, round int) (r result, err error) {
	r = result{Contender: who.name, Round: round}
	name := fmt.Sprintf("%s-%s-latency-%d", c.name, who.name, round)
	t := c.task(name, name+"-events")
	if err := c.create(ctx, t.in, t.out); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.discard(ctx, t.out, t.in)) }()
	var score job.Score
	measured, err := c.session.Latency(ctx, bench.Load{
		Events: t.in, Scores: t.out, Rate: c.rate, WarmUp: c.warmUp, Measure: c.measure, BrokerPID: c.brokerPID,
		Source: c.source(func(int64) int64 { return time.Now().UnixMilli() }),
		Sent: func(record *consumer.Record) (int64, error) {
			err := c.encoder.ReadScore(record.Value, &score)
			return score.EventTS, err
		},
	}, who.start(ctx, c.bin, t))
	if err != nil {
		return r, err
	}
	r.Latency = &measured
	r.Output, err = c.check(ctx, t.out, int(c.rate*(c.warmUp+c.measure).Seconds()), who)
	return r, err
}

func (c *comparison) task(name, in string) task {
	return task{broker: c.broker, in: in, out: name + "-scores", group: name, models: c.models}
}

func (c *comparison) create(ctx context.Context, names ...string) error {
	specs := make([]connect.TopicSpec, len(names))
	for i, name := range names {
		specs[i] = connect.TopicSpec{Name: name, Key: "topic", Configs: map[string]string{"retention.ms": "-1"}}
	}
	return c.session.CreateTopics(ctx, topics, specs...)
}

// discard deletes the output, what churnstream has beside it, and more.
func (c *comparison) discard(ctx context.Context, out string, more ...string) error {
	return c.session.DeleteTopics(context.WithoutCancel(ctx), append(more, out, out+"-dead-letters", out+"-drift-state", out+"-drift-alerts")...)
}
