package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/driftstate"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// watcher evaluates drift over the whole population, whoever counted it. It runs beside the task of partition 0, so the
// group elects exactly one; its transactional id fences a predecessor that does not know yet that it was replaced.
type watcher struct {
	worker *Worker
	log    zerolog.Logger
}

func newWatcher(w *Worker) *watcher {
	return &watcher{worker: w, log: w.log.With().Str("part", "drift watcher").Logger()}
}

// run watches until fetch ends. Whatever interrupts it, it begins again: the topics hold all of its state.
func (w *watcher) run(fetch, work context.Context) error {
	for attempt := 0; ; attempt++ {
		err := w.worker.reading(fetch, func(fetch context.Context, fetcher *consumer.Fetcher) error {
			return w.watch(fetch, work, fetcher)
		})
		w.worker.driftMetrics.Forget() // another worker may evaluate from here on
		if fetch.Err() != nil {
			return nil //nolint:nilerr // the end was asked for
		}
		w.log.Warn().Err(connect.NameMissingRight(err, w.worker.cfg.Security)).Int("attempt", attempt+1).Msg("drift is not evaluated now; beginning again")
		wait(fetch, backoff(attempt))
	}
}

func (w *watcher) watch(fetch, work context.Context, fetcher *consumer.Fetcher) error {
	population, alarms, err := w.worker.newPopulation()
	if err != nil {
		return err
	}
	publisher, err := w.worker.newOwnPublisher("drift-alerts")
	if err != nil {
		return err
	}
	defer publisher.Close()
	if err := publisher.Begin(fetch); err != nil {
		return err
	}
	if err := w.restoreAlarms(fetch, fetcher, alarms); err != nil {
		return err
	}
	apply := Applying(population, func(err error) {
		w.log.Error().Err(err).Msg("a drift state does not count")
	})
	starts, err := tail.ReadTopic(fetch, w.worker.client, fetcher, w.worker.cfg.Topics.DriftState, apply)
	if err != nil {
		return err
	}
	w.log.Info().Msg("watching the population for drift")
	fetch, stop := context.WithCancel(fetch)
	followed := make(chan error, 1)
	go func() {
		defer stop() // the states can no longer be followed
		followed <- tail.Follow(fetch, fetcher, starts, apply)
	}()
	err = w.evaluate(fetch, work, population, alarms, publisher)
	stop()
	return errors.Join(err, <-followed)
}

// Applying gives what hands batches of the state topic to a population, one goroutine at a time. A record that does not
// count is told of, and stops nothing.
func Applying(population *drift.Population, tell func(error)) func(*consumer.Batch) error {
	var state schemas.DriftState
	return func(b *consumer.Batch) error {
		apply := func(_ *consumer.Record, state *schemas.DriftState) error {
			if state == nil {
				return nil
			}
			return population.Apply(state)
		}
		driftstate.Each(b, &state, apply, func(r *consumer.Record, err error) {
			tell(fmt.Errorf("drift state %s/%d@%d: %w", b.TopicPartition.Topic, b.TopicPartition.Partition, r.Offset, err))
		})
		return nil
	}
}

// evaluate judges the window once an interval until fetch ends; alerts in hand are published even then.
func (w *watcher) evaluate(fetch, work context.Context, population *drift.Population, alarms *drift.Alarms, publisher producer.Publisher) error {
	out := w.alerting(publisher)
	tick := time.NewTicker(w.worker.cfg.Drift.EvaluateEvery.Std())
	defer tick.Stop()
	for {
		select {
		case <-fetch.Done():
			return nil
		case <-tick.C:
		}
		at, ok := population.Watermark()
		if !ok {
			continue
		}
		evaluation := population.Evaluate(at-1, alarms.Marks()) // the bucket that ends at the watermark
		alerts := alarms.Step(w.worker.now().UnixMilli(), evaluation)
		if err := out.publish(work, alerts); err != nil {
			return err
		}
		w.worker.driftMetrics.Report(evaluation, alarms)
	}
}

func (w *watcher) alerting(publisher producer.Publisher) *alerting {
	return &alerting{cfg: &w.worker.cfg, publisher: publisher, schemaID: w.worker.schemaIDs.driftAlert, log: w.log}
}

// restoreAlarms takes over which alarms are on.
func (w *watcher) restoreAlarms(ctx context.Context, fetcher *consumer.Fetcher, alarms *drift.Alarms) error {
	return readAlerts(ctx, w.worker.client, fetcher, w.worker.cfg.Topics.DriftAlerts, w.log, alarms.Restore)
}

func (w *Worker) newPopulation() (*drift.Population, *drift.Alarms, error) {
	p, err := NewPopulation(w.cfg, w.model, w.profile)
	if err != nil {
		return nil, nil, err
	}
	a, err := drift.NewAlarms(p, drift.ModelName{Name: w.model.Name(), Version: w.model.Version(), Digest: w.model.Digest()}, alarmConfig(w.cfg))
	return p, a, err
}

// NewPopulation gives an empty population of a model, judged as the configuration says.
func NewPopulation(cfg config.Config, model *scoring.Model, profile *drift.Profile) (*drift.Population, error) {
	population := drift.DefaultPopulationConfig()
	population.Window = DriftWindow(cfg)
	return drift.NewPopulation(profile, model.Digest(), population, ruleConfig(cfg))
}

// DriftWindow is what drift is counted by.
func DriftWindow(cfg config.Config) drift.WindowConfig {
	return drift.DefaultWindowConfig(cfg.Drift.Bucket.Std())
}

func ruleConfig(cfg config.Config) drift.RuleConfig {
	c := drift.DefaultRuleConfig()
	c.Shift, c.AlarmsAYear = cfg.Drift.RelevantPSI, cfg.Drift.FalseAlarmsAYear
	return c
}

func alarmConfig(cfg config.Config) drift.AlarmConfig {
	c := drift.DefaultAlarmConfig()
	c.ClearHold = cfg.Drift.ClearHold
	return c
}
