package bench

import (
	"context"
	"os/exec"
	"slices"
	"time"

	"github.com/churnstream/churnstream/consumer"
)

// Backlog is what a program under measurement has to work off.
type Backlog struct {
	Topic      string
	Partitions int
	Events     int    // in the topic
	Group      string // that commits its progress
	BrokerPID  int    // of a broker on this machine; 0: its CPU time is not measured
}

// Throughput is what one run over a backlog showed. Progress is what the group has committed. Steady figures are those
// between 10 % and 90 % of the events; they are 0 where too few commits lie between.
type Throughput struct {
	WallSeconds     float64 `json:"wall_seconds"`      // from the start of the process to the last commit
	EventsPerSecond float64 `json:"events_per_second"` // events / WallSeconds
	SteadyPerSecond float64 `json:"steady_events_per_second"`
	CPU             float64 `json:"cpu_us_per_event"` // user and system time of the process, start to last commit
	SteadyCPU       float64 `json:"steady_cpu_us_per_event"`
	BrokerCPU       float64 `json:"broker_cpu_us_per_event"` // 0 where it was not measured
	PeakMemory      int64   `json:"peak_resident_bytes"`
	OtherCores      float64 `json:"other_cores"` // used by the rest of the machine meanwhile, brokers that are not measured included
}

// sample is the progress of the process at one moment: what it has committed and used since its start.
type sample struct {
	at   time.Duration
	done int64
	cpu  time.Duration
}

// pollEvery is how often the committed offsets are asked for: one small request, so that measuring costs nothing.
const pollEvery = 20 * time.Millisecond

// Drain runs a command until its group has committed the whole backlog, then asks it to end.
func (s *Session) Drain(ctx context.Context, command *exec.Cmd, b Backlog) (t Throughput, err error) {
	partitions := make([]consumer.TopicPartition, b.Partitions)
	for i := range partitions {
		partitions[i] = consumer.TopicPartition{Topic: b.Topic, Partition: int32(i)}
	}
	started := time.Now()
	p, err := start(command)
	if err != nil {
		return t, err
	}
	defer p.stop(ctx)
	before, err := p.use(b.BrokerPID)
	if err != nil {
		return t, err
	}
	samples := []sample{{}}
	for last := samples[0]; last.done < int64(b.Events); {
		select {
		case <-ctx.Done():
			return t, ctx.Err()
		case <-p.exited:
			return t, p.ended()
		case <-time.After(pollEvery):
		}
		// As nobody in particular: the process is the member, and its open transactions are not waited for.
		offsets, err := consumer.CommittedOffsets(ctx, s.client, b.Group, consumer.Identity{Generation: -1}, partitions)
		if err != nil {
			return t, err
		}
		last = sample{at: time.Since(started)}
		for _, o := range offsets {
			last.done += max(0, o)
		}
		if last.cpu, t.PeakMemory, err = p.sample(); err != nil {
			return t, err
		}
		samples = append(samples, last)
	}
	after, err := p.use(b.BrokerPID)
	if err != nil {
		return t, err
	}
	used, last := after.since(before), samples[len(samples)-1]
	t.WallSeconds = last.at.Seconds()
	t.EventsPerSecond = float64(b.Events) / t.WallSeconds
	t.CPU = perEvent(last.cpu, b.Events)
	t.BrokerCPU = perEvent(used.broker, b.Events)
	t.OtherCores = used.otherCores()
	from := samples[slices.IndexFunc(samples, func(s sample) bool { return s.done*10 >= int64(b.Events) })]
	to := samples[slices.IndexFunc(samples, func(s sample) bool { return s.done*10 >= 9*int64(b.Events) })]
	if n := to.done - from.done; n > 0 {
		t.SteadyPerSecond = float64(n) / (to.at - from.at).Seconds()
		t.SteadyCPU = perEvent(to.cpu-from.cpu, int(n))
	}
	return t, nil
}
