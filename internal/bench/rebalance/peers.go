package main

import (
	"context"
	"errors"
	"sync"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/kafkawire"
)

// eager is kafka-go's ConsumerGroup as a membership: at each rebalance everything is given up and handed out again. What
// is in hand is drained and committed before, as it is with the others.
type eager struct {
	cfg     consumer.GroupConfig
	brokers []string
	handler consumer.Handler
	log     zerolog.Logger

	mu       sync.Mutex
	identity consumer.Identity
	changed  chan struct{}
}

// Run implements consumer.Membership.
func (e *eager) Run(ctx context.Context) error {
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: e.cfg.Group, Brokers: e.brokers, Topics: e.cfg.Topics,
		HeartbeatInterval: e.cfg.HeartbeatInterval, SessionTimeout: e.cfg.SessionTimeout, RebalanceTimeout: e.cfg.RebalanceTimeout,
		JoinGroupBackoff: retryJoin, GroupBalancers: []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
	})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		generation, err := group.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				e.log.Warn().Err(err).Msg("kafka-go's group")
			}
			continue
		}
		e.log.Info().Int32("generation", generation.ID).Int("assigned", len(generation.Assignments[e.cfg.Topics[0]])).Msg("joined the group")
		e.become(consumer.Identity{MemberID: generation.MemberID, Generation: generation.ID})
		var owned []consumer.TopicPartition
		for _, a := range generation.Assignments[e.cfg.Topics[0]] {
			owned = append(owned, consumer.TopicPartition{Topic: e.cfg.Topics[0], Partition: int32(a.ID)})
		}
		e.handler.Assigned(owned)
		ended := make(chan struct{})
		generation.Start(func(current context.Context) {
			defer close(ended)
			select {
			case <-current.Done():
			case <-ctx.Done():
			}
			e.handler.Revoked(owned)
		})
		<-ended // one call of the handler at a time
	}
	return group.Close()
}

// Identity implements consumer.Membership.
func (e *eager) Identity() consumer.Identity {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.identity
}

// Changed implements consumer.Membership.
func (e *eager) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

func (e *eager) become(id consumer.Identity) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.identity = id
	close(e.changed)
	e.changed = make(chan struct{})
}

// fixed owns every step-th partition without any group: what is lost then is the cluster's own time.
type fixed struct {
	topic       string
	client      *kafkawire.Client
	first, step int32
	handler     consumer.Handler
}

// Run implements consumer.Membership.
func (f *fixed) Run(ctx context.Context) error {
	n, err := f.client.Partitions(ctx, f.topic)
	if err != nil {
		return err
	}
	if f.step <= 0 {
		return errors.New("none:I/N needs an N above 0")
	}
	var owned []consumer.TopicPartition
	for p := f.first; p < n; p += f.step {
		owned = append(owned, consumer.TopicPartition{Topic: f.topic, Partition: p})
	}
	f.handler.Assigned(owned)
	<-ctx.Done()
	f.handler.Revoked(owned)
	return nil
}

// Identity implements consumer.Membership: nobody's, which brokers accept for a group without members.
func (f *fixed) Identity() consumer.Identity { return consumer.Identity{Generation: -1} }

// Changed implements consumer.Membership.
func (f *fixed) Changed() <-chan struct{} { return nil }
