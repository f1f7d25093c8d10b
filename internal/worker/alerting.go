package worker

import (
	"context"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// alerting writes alerts to their topic and tells the webhook of them.
type alerting struct {
	cfg       *config.Config
	publisher producer.Publisher // has a unit open
	schemaID  int32
	log       zerolog.Logger
}

// publish writes alerts together, in the unit that the publisher has open.
func (a *alerting) publish(ctx context.Context, alerts []schemas.DriftAlert) error {
	if len(alerts) == 0 {
		return nil
	}
	for i := range alerts {
		alert := &alerts[i]
		record := producer.Record{
			Topic: a.cfg.Topics.DriftAlerts, Partition: byKey, Timestamp: alert.At,
			Key:   []byte(alert.ModelName + "/" + alert.Feature),
			Value: alert.AppendAvro(schemas.AppendFrame(nil, a.schemaID)),
		}
		if err := a.publisher.Append(&record); err != nil {
			return err
		}
	}
	if err := a.publisher.Commit(ctx, producer.Member{}, nil); err != nil {
		return err
	}
	if err := a.publisher.Begin(ctx); err != nil { // the next unit; asks the broker for nothing
		return err
	}
	for i := range alerts {
		alert := &alerts[i]
		a.log.Warn().Str("state", alert.State).Str("feature", alert.Feature).Float64("psi", alert.PSI).Float64("evidence_nats", alert.Evidence).Int64("events", alert.Events).Msg(alert.Message)
		if address := a.cfg.Drift.Webhook; address != "" {
			if err := post(ctx, address, alert); err != nil {
				a.log.Error().Err(err).Str("feature", alert.Feature).Msg("the alert is in its topic, but the webhook does not know")
			}
		}
	}
	return nil
}

// readAlerts hands every alert of the topic to fn, those of a feature in their order.
func readAlerts(ctx context.Context, client *kafkawire.Client, fetcher *consumer.Fetcher, topic string, log zerolog.Logger, fn func(*schemas.DriftAlert)) error {
	_, err := tail.ReadTopic(ctx, client, fetcher, topic, func(b *consumer.Batch) error {
		for i := range b.Records {
			if b.Records[i].Value == nil {
				continue
			}
			var alert schemas.DriftAlert
			_, body, err := schemas.SplitFrame(b.Records[i].Value)
			if err == nil {
				err = schemas.DecodeDriftAlert(body, &alert)
			}
			if err != nil {
				log.Error().Err(err).Int64("offset", b.Records[i].Offset).Msg("a drift alert cannot be read and is passed over")
				continue
			}
			fn(&alert)
		}
		return nil
	})
	return err
}

// Alert lets a command tell of what it found, as the workers of the configuration tell of theirs: decide is given the
// newest alert of the model's feature, nil if there is none, and gives the one to publish, nil for none. Two commands at a
// time do not tell the same twice: the second fences the first.
func Alert(ctx context.Context, cfg config.Config, model *scoring.Model, registry schemas.Registry, client *kafkawire.Client, fetcher *consumer.Fetcher,
	log zerolog.Logger, feature string, decide func(before *schemas.DriftAlert) *schemas.DriftAlert,
) (*schemas.DriftAlert, error) {
	producing, err := producerConfig(cfg, nil)
	if err != nil {
		return nil, err
	}
	list, err := Publications(cfg, model, "")
	if err != nil {
		return nil, err
	}
	out := alerting{cfg: &cfg, log: log}
	for _, p := range list {
		if p.Topic == cfg.Topics.DriftAlerts {
			if out.schemaID, err = registry.Register(ctx, p.Subject, p.Schema); err != nil {
				return nil, fmt.Errorf("register %s: %w", p.Subject, err)
			}
		}
	}
	if out.publisher, err = producer.NewTransactional(producing, client, transactionalPrefix(cfg)+"-"+feature+"-alerts"); err != nil {
		return nil, err
	}
	defer out.publisher.Close()
	if err := out.publisher.Begin(ctx); err != nil {
		return nil, err
	}
	var before *schemas.DriftAlert
	err = readAlerts(ctx, client, fetcher, cfg.Topics.DriftAlerts, log, func(a *schemas.DriftAlert) {
		if a.Feature == feature && a.ModelDigest == model.Digest() {
			before = a
		}
	})
	if err != nil {
		return nil, err
	}
	alert := decide(before)
	if alert == nil {
		return nil, nil //nolint:nilnil // there is nothing to tell
	}
	return alert, out.publish(ctx, []schemas.DriftAlert{*alert})
}
