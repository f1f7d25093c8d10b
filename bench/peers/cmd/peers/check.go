package main

import (
	"context"
	"fmt"
	"math"

	"github.com/churnstream/churnstream/bench/peers/job"
	"github.com/churnstream/churnstream/consumer"
)

// output is what a contender has published.
type output struct {
	Scores     int `json:"scores"`
	Duplicates int `json:"duplicates"`
	Missing    int `json:"missing"`
	Checked    int `json:"checked"` // whose key and probability were computed again
}

const (
	checkEvery = 50   // events of which one is computed again
	tolerance  = 1e-9 // of its probability
)

// check reads the whole output of events 0 to n-1. What is wrong is an error, and so is an event without a score, or
// with two where the contender promises one.
func (c *comparison) check(ctx context.Context, topic string, n int, who contender) (o output, err error) {
	seen := make([]bool, n)
	var score job.Score
	err = c.session.Each(ctx, topic, func(r *consumer.Record) error {
		if err := c.encoder.ReadScore(r.Value, &score); err != nil {
			return err
		}
		if score.EventID < 0 || score.EventID >= int64(n) {
			return fmt.Errorf("there is no event %d", score.EventID)
		}
		o.Scores++
		if seen[score.EventID] {
			o.Duplicates++
		}
		seen[score.EventID] = true
		if score.EventID%checkEvery > 0 {
			return nil
		}
		o.Checked++
		event := job.Make(score.EventID, score.EventTS)
		if want := c.model.Probability(&event); math.Abs(score.Probability-want) > tolerance {
			return fmt.Errorf("event %d has probability %v, not %v", score.EventID, score.Probability, want)
		}
		if string(r.Key) != event.CustomerID || score.CustomerID != event.CustomerID {
			return fmt.Errorf("event %d has key %q and customer %q, not %q", score.EventID, r.Key, score.CustomerID, event.CustomerID)
		}
		return nil
	})
	o.Missing = n - (o.Scores - o.Duplicates)
	if err == nil && (o.Missing > 0 || o.Duplicates > 0 && !who.atLeastOnce) {
		err = fmt.Errorf("%d events have no score, %d more than one", o.Missing, o.Duplicates)
	}
	return o, err
}
