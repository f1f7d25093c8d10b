package worker

import (
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
	Partition string  `json:"partition"`
	Step      string  `json:"step"`
	Seconds   float64 `json:"seconds"` // in this step
	Lag       int64   `json:"lag"`     // readable events that are not scored yet
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
	w.mu.Lock()
	joined := w.joined
	w.mu.Unlock()
	states := w.states()
	status := admin.Status{OK: true, Details: states}
	unready := func(format string, args ...any) {
		status.OK = false
		status.Reasons = append(status.Reasons, fmt.Sprintf(format, args...))
	}
	if !joined {
		unready("not yet a member of group %s with partitions", w.cfg.Group.ID)
	}
	for _, p := range states {
		switch {
		case p.Step == stepStarting.String():
			unready("partition %s is starting for %.1f s", p.Partition, p.Seconds)
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
	lags := map[consumer.TopicPartition]int64{}
	for _, p := range w.fetcher.Positions() {
		lags[p.TopicPartition] = p.Lag
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	states := make([]PartitionState, 0, len(w.tasks))
	for source, owned := range w.tasks {
		step, since, reason := owned.task.phase.get()
		states = append(states, PartitionState{
			Partition: fmt.Sprintf("%s/%d", source.Topic, source.Partition),
			Step:      step.String(), Seconds: now.Sub(since).Seconds(), Lag: lags[source], Reason: reason,
		})
	}
	slices.SortFunc(states, func(a, b PartitionState) int { return strings.Compare(a.Partition, b.Partition) })
	return states
}
