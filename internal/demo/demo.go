// Package demo takes nothing but a number of events and shows the whole of churnstream on them: an embedded broker and
// registry, a model trained on half of the Telco customers, the other half streamed and scored live, a shift of the
// population and its alert.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/devbroker"
	"github.com/churnstream/churnstream/internal/devregistry"
	"github.com/churnstream/churnstream/internal/example"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/internal/worker"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// Config says how much to show.
type Config struct {
	Events   int           // 0: until Duration or the end of the context
	Duration time.Duration // 0: until Events or the end of the context
	Rate     float64       // events a second
	Seed     uint64
	Started  time.Time // of the process
	Version  string
	Log      zerolog.Logger
}

// DefaultConfig is one minute at a rate that an eye can follow.
func DefaultConfig() Config {
	return Config{Duration: time.Minute, Rate: 1000, Seed: 1}
}

// patience is how long outputs may lag behind the last event before the summary is made without them.
const patience = 15 * time.Second

// Demo is one run.
type Demo struct {
	cfg     Config
	display *Display
}

// New prepares a run that is shown on display.
func New(cfg Config, display *Display) *Demo { return &Demo{cfg: cfg, display: display} }

// Run shows everything and sums it up. The end of ctx is one of the ways to end it, not an error. A display that cannot
// be written to ends it, too, with that error.
func (d *Demo) Run(ctx context.Context) (Summary, error) {
	dir, err := os.MkdirTemp("", "churnstream-demo-")
	if err != nil {
		return Summary{}, err
	}
	defer os.RemoveAll(dir)
	ctx, end := context.WithCancel(ctx)
	defer end()
	d.display.onFault(end)
	p, err := d.prepare(ctx, dir)
	if err != nil {
		return Summary{}, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx)) // the servers outlive Ctrl-C by the drain
	defer stop()
	g, run := errgroup.WithContext(run)
	g.Go(func() error { return p.broker.Run(run) })
	g.Go(func() error { return p.registry.Run(run) })
	summary, err := d.stream(ctx, run, p)
	stop()
	return summary, errors.Join(cmp.Or(d.display.err(), err), g.Wait())
}

// parts are what the demo embeds.
type parts struct {
	broker   *devbroker.Broker
	registry *devregistry.Server
	cfg      config.Config
	telco    *example.Telco
}

// prepare starts broker and registry and trains the model meanwhile.
func (d *Demo) prepare(ctx context.Context, dir string) (*parts, error) {
	p := &parts{}
	g, _ := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		broker := devbroker.DefaultConfig()
		broker.Listen = "127.0.0.1:0"
		p.broker, err = devbroker.New(broker, zerolog.Nop())
		return err
	})
	g.Go(func() (err error) {
		p.registry, err = devregistry.New(devregistry.Config{Listen: "127.0.0.1:0"})
		return err
	})
	g.Go(func() (err error) {
		p.telco, err = example.Train(filepath.Join(dir, "model"), d.cfg.Version)
		return err
	})
	if err := g.Wait(); err != nil {
		if p.broker != nil {
			err = errors.Join(err, p.broker.Close())
		}
		if p.registry != nil {
			err = errors.Join(err, p.registry.Close())
		}
		return nil, err
	}
	d.display.trained(p.telco)
	cfg := config.Default()
	cfg.Brokers = p.broker.Addrs()
	cfg.Registry.URLs = []string{p.registry.URL()}
	cfg.CreateTopics = config.CreateTopics{Enabled: true, Partitions: 4, ReplicationFactor: 1}
	cfg.Fetch.MaxWait = config.Duration(20 * time.Millisecond)
	cfg.Admin.Listen = ""
	// Minutes would make for a long demo: every minute is a second, so that the shortest window is ten of them.
	cfg.Drift.Bucket, cfg.Drift.ClearHold = config.Duration(time.Second), 2
	cfg.Drift.EvaluateEvery = config.Duration(250 * time.Millisecond)
	p.cfg = cfg
	return p, nil
}

// stream runs the worker, feeds it, watches its output topics, and sums up.
func (d *Demo) stream(ctx, run context.Context, p *parts) (Summary, error) {
	if d.cfg.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.cfg.Duration)
		defer cancel()
	}
	o := newObserver(d.cfg.Started)
	transport, err := connect.Transport("churnstream-demo", p.cfg.Security)
	if err != nil {
		return Summary{}, err
	}
	if _, err := connect.Probe(run, p.cfg.Brokers, transport, p.cfg.Security.SASL, worker.Topics(p.cfg), p.cfg.CreateTopics, nil); err != nil {
		return Summary{}, err
	}
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: p.cfg.Brokers, ClientID: "churnstream-demo", Transport: transport})
	if err != nil {
		return Summary{}, err
	}
	defer client.CloseIdleConnections()
	source, publisher, err := d.source(run, p, client, o)
	if err != nil {
		return Summary{}, err
	}
	defer publisher.Close()

	fetching := consumer.DefaultFetchConfig()
	fetching.MaxWait = 20 * time.Millisecond
	fetcher, err := consumer.NewFetcher(fetching, client, zerolog.Nop())
	if err != nil {
		return Summary{}, err
	}
	registry, err := schemas.NewRegistry(registryAt(p.registry.URL()))
	if err != nil {
		return Summary{}, err
	}
	w, err := worker.New(p.cfg, worker.Dependencies{
		Transport: transport, Model: p.telco.Model, Profile: p.telco.Profile, Registry: registry,
		Metrics: prometheus.NewRegistry(), Log: d.cfg.Log, Version: d.cfg.Version,
	})
	if err != nil {
		return Summary{}, err
	}

	watch, stopWatching := context.WithCancel(run)
	defer stopWatching()
	work, drain := context.WithCancel(run)
	defer drain()
	g, watch := errgroup.WithContext(watch)
	g.Go(func() error { return fetcher.Run(watch) })
	g.Go(func() error { return w.Run(work) })
	for topic, see := range map[string]func(*consumer.Batch) error{
		p.cfg.Topics.Scores: o.scoreBatch, p.cfg.Topics.DeadLetters: o.deadLetterBatch, p.cfg.Topics.DriftAlerts: o.alertBatch,
	} {
		g.Go(func() error {
			starts, err := tail.Starts(watch, client, topic, consumer.Earliest)
			if err != nil {
				return err
			}
			return tail.Follow(watch, fetcher, starts, see)
		})
	}
	showing := make(chan struct{})
	go func() {
		defer close(showing)
		d.display.follow(watch, o)
	}()
	sent, err := feed.Run(ctx, feed.Config{Topic: p.cfg.Topics.Events, Rate: d.cfg.Rate}, publisher, source, nil)
	if err == nil {
		settle(watch, o, sent)
	}
	drain()
	stopWatching()
	<-showing
	if failed := g.Wait(); err == nil && !errors.Is(failed, context.Canceled) {
		err = failed
	}
	if err != nil {
		return Summary{}, err
	}
	summary := o.summary(sent, p.telco)
	if summary.Scores+summary.DeadLetters != sent {
		return summary, fmt.Errorf("%d events gave %d scores and %d dead letters within %v", sent, summary.Scores, summary.DeadLetters, patience)
	}
	return summary, nil
}

// source makes the events and their publisher. Half of the run comes before the shift.
func (d *Demo) source(ctx context.Context, p *parts, client *kafkawire.Client, o *observer) (feed.Source, producer.Publisher, error) {
	registry, err := schemas.NewRegistry(registryAt(p.registry.URL()))
	if err != nil {
		return nil, nil, err
	}
	contract := p.telco.Model.Contract()
	schema, err := contract.AvroSchema()
	if err != nil {
		return nil, nil, err
	}
	id, err := registry.Register(ctx, schemas.Subject(p.cfg.Topics.Events), schema)
	if err != nil {
		return nil, nil, err
	}
	total := float64(d.cfg.Events)
	if byTime := d.cfg.Duration.Seconds() * d.cfg.Rate; total == 0 || byTime > 0 && byTime < total {
		total = byTime
	}
	if total == 0 {
		total = 60 * d.cfg.Rate // until Ctrl-C: shift after half a minute
	}
	source, err := newStream(contract, id, p.telco, max(1, int(total/2)), d.cfg.Events, d.cfg.Seed, func(at time.Time) {
		o.shifted(at)
		d.display.shift()
	})
	if err != nil {
		return nil, nil, err
	}
	publisher, err := producer.NewIdempotent(producer.DefaultConfig(), client)
	return source, publisher, err
}

// settle waits until every event has its output.
func settle(ctx context.Context, o *observer, sent int) {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for o.outputs() < sent && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func registryAt(url string) schemas.RegistryConfig {
	c := schemas.DefaultRegistryConfig()
	c.URLs = []string{url}
	return c
}
