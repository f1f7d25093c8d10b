package worker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/admin"
)

// stalled is how long one batch may be decoded, scored or committed before the loop counts as hung: far above the
// limits that the parts themselves keep.
const stalled = 2 * time.Minute

// PartitionState is what one owned partition does, for people who look at /readyz.
type PartitionState struct {
	source consumer.TopicPartition
	behind consumer.TopicPartition // where the transaction is open that it waits for; zero: it waits for none

	Partition string  `json:"partition"`
	Step      string  `json:"step"`
	Seconds   float64 `json:"seconds"`       // in this step
	Lag       int64   `json:"lag"`           // readable events that are not scored yet; -1 while unknown
	For       waiting `json:"for,omitempty"` // what it waits for
	Reason    string  `json:"reason,omitempty"`
}

// Live says whether the loops turn. An idle topic and an outage of something else are alive: a restart mends neither.
func (w *Worker) Live() admin.Status {
	status := admin.Status{OK: true}
	for _, p := range w.states() {
		if (p.Step == stepWorking.String() || p.Step == stepCommitting.String()) && p.Seconds > stalled.Seconds() {
			status.OK = false
			status.Reasons = append(status.Reasons, fmt.Sprintf("partition %s has been %s on one batch for %.0f s", p.Partition, p.Step, p.Seconds))
		}
	}
	return status
}

// Ready says whether the worker does its work: it is a member of the group, its partitions are past their start and wait
// for nothing, and their lag is within admin.max_lag.
func (w *Worker) Ready() admin.Status {
	states := w.states()
	status := admin.Status{OK: true, Details: states}
	unready := func(format string, args ...any) {
		status.OK = false
		status.Reasons = append(status.Reasons, fmt.Sprintf(format, args...))
	}
	if len(states) == 0 {
		unready("group %s has given no partition of topic %s to this worker", w.cfg.Group.ID, w.cfg.Topics.Events)
	}
	for _, p := range states {
		switch {
		case p.Step == stepStarting.String():
			unready("partition %s is starting for %.1f s; it waits for %s", p.Partition, p.Seconds, p.Reason)
		case p.Step == stepCommitting.String() && p.Seconds > w.patience.Seconds():
			unready("partition %s has been committing for %.1f s: %s", p.Partition, p.Seconds, p.Reason)
		case p.Step == stepWaiting.String():
			unready("partition %s waits for %.1f s: %s", p.Partition, p.Seconds, p.Reason)
		case w.cfg.Admin.MaxLag > 0 && p.Lag > w.cfg.Admin.MaxLag:
			unready("partition %s is %d events behind; admin.max_lag is %d", p.Partition, p.Lag, w.cfg.Admin.MaxLag)
		}
	}
	return status
}

func (w *Worker) states() []PartitionState {
	now := w.now()
	progress := w.progress()
	states := make([]PartitionState, len(progress))
	for i, p := range progress {
		step, since, why := p.task.phase.get()
		s := &states[i]
		*s = PartitionState{
			source: p.source, behind: why.behind, Partition: p.source.String(),
			Step: step.String(), Seconds: now.Sub(since).Seconds(), Lag: p.lag, For: why.what, Reason: why.text,
		}
		switch {
		case step == stepCommitting && now.Sub(since) > w.patience:
			s.For, s.Reason = waitCommit, w.commits.waitsFor()
		case step == stepIdle && p.silent > w.patience && now.Sub(since) > w.patience:
			s.Step, s.For, s.Reason = stepWaiting.String(), waitBrokers, fmt.Sprintf("no broker has answered its fetches for %.0f s", p.silent.Seconds())
			s.Seconds = min(s.Seconds, p.silent.Seconds()) // it may have been idle for long before
		case step == stepIdle && p.lag == 0 && !p.heldSince.IsZero(): // no fault of ours: it stays ready
			s.For, s.behind, s.Seconds = waitTransaction, p.source, time.Since(p.heldSince).Seconds()
			s.Reason = fmt.Sprintf("a producer's transaction is open since %s: %d records behind offset %d cannot be read before it ends",
				p.heldSince.UTC().Format(time.RFC3339), p.held, p.stable)
		}
	}
	return states
}

// progress is how far an owned partition has come.
type progress struct {
	source consumer.TopicPartition
	task   *task
	silent time.Duration // since a broker answered a fetch; none is under way while a batch is in hand
	lag    int64         // readable events that are not committed; -1 while unknown
	behind time.Duration // age of the event that it has come to, 0 without a lag

	heldSince time.Time // since when an open transaction of a producer holds the partition back; zero: none does
	held      int64     // records that cannot be read for that
	stable    int64     // the first of them
}

// progress reports every owned partition, in their order.
func (w *Worker) progress() []progress {
	now := w.now()
	positions := map[consumer.TopicPartition]consumer.Position{}
	for _, p := range w.fetcher.Positions() {
		positions[p.TopicPartition] = p
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	report := make([]progress, 0, len(w.tasks))
	for source, owned := range w.tasks {
		p := progress{source: source, task: owned.task, lag: -1}
		if position, open := positions[source]; open {
			p.silent = time.Since(position.Answered)
			p.lag = position.Lag // counts the batch in hand as done
			p.heldSince, p.stable, p.held = position.HeldSince, position.LastStableOffset, position.HighWatermark-position.LastStableOffset
			if first := owned.task.inHand.first.Load(); first != noBatch && position.LastStableOffset >= 0 {
				p.lag = max(0, position.LastStableOffset-first)
			}
		}
		if since := owned.task.inHand.since.Load(); since > 0 && p.lag != 0 {
			p.behind = max(0, now.Sub(time.UnixMilli(since)))
		}
		report = append(report, p)
	}
	slices.SortFunc(report, func(a, b progress) int {
		return cmp.Or(strings.Compare(a.source.Topic, b.source.Topic), cmp.Compare(a.source.Partition, b.source.Partition))
	})
	return report
}
