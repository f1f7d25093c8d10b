package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/devbroker"
	"github.com/churnstream/churnstream/internal/devregistry"
	"github.com/churnstream/churnstream/internal/example"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/schemas"
)

// Embedded is what a measurement brings along: a registry, a model, events, and a broker unless there is one.
type Embedded struct {
	stop   context.CancelFunc
	group  *errgroup.Group
	values [][]byte // framed events
	key    []byte
	sent   int
}

// Embed starts the parts, trains a model into dir and points cfg at them. They run until Close: when ctx ends, the
// programs and topics of a measurement are still to be ended and deleted.
func Embed(ctx context.Context, cfg *config.Config, dir, version string) (*Embedded, error) {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	g, run := errgroup.WithContext(run)
	e := &Embedded{stop: stop, group: g}
	if len(cfg.Brokers) == 0 {
		broker := devbroker.DefaultConfig()
		broker.Listen = "127.0.0.1:0"
		b, err := devbroker.New(broker, zerolog.Nop())
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		g.Go(func() error { return b.Run(run) })
		cfg.Brokers = b.Addrs()
	}
	registry, err := devregistry.New(devregistry.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	g.Go(func() error { return registry.Run(run) })
	cfg.Registry.URLs, cfg.Model = []string{registry.URL()}, dir
	if err := e.prepare(ctx, cfg, version); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Close ends the parts.
func (e *Embedded) Close() error {
	e.stop()
	return e.group.Wait()
}

func (e *Embedded) prepare(ctx context.Context, cfg *config.Config, version string) error {
	telco, err := example.Train(cfg.Model, version)
	if err != nil {
		return err
	}
	contract := telco.Model.Contract()
	schema, err := contract.AvroSchema()
	if err != nil {
		return err
	}
	c := schemas.DefaultRegistryConfig()
	c.URLs = cfg.Registry.URLs
	registry, err := schemas.NewRegistry(c)
	if err != nil {
		return err
	}
	id, err := registry.Register(ctx, schemas.Subject("bench"), schema)
	if err != nil {
		return err
	}
	encoder, err := schemas.NewEncoder(contract)
	if err != nil {
		return err
	}
	for i := range telco.Rows.Len() {
		numbers, categories := telco.Rows.Row(i)
		value, err := encoder.AppendEvent(schemas.AppendFrame(nil, id), numbers, categories)
		if err != nil {
			return err
		}
		e.values = append(e.values, value)
	}
	return nil
}

// Next gives the customers of the table in turn, under 100,000 different ids.
func (e *Embedded) Next(event *feed.Event) error {
	e.key = fmt.Appendf(e.key[:0], "customer-%05d", e.sent%100_000)
	event.Key, event.Value = e.key, e.values[e.sent%len(e.values)]
	e.sent++
	return nil
}
