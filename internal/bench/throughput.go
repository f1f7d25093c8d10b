package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"syscall"
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

// perEvent is in microseconds.
func perEvent(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(n) }

// usage is CPU time: of everything on the machine, and within it of the measurement, the process and the broker.
type usage struct {
	wall                          time.Duration // since 1970
	machine, own, process, broker time.Duration
}

func (p *process) use(brokerPID int) (u usage, err error) {
	u.wall = time.Duration(time.Now().UnixNano())
	if u.machine, err = sampleMachine(); err != nil {
		return u, err
	}
	if u.own, _, err = sampleProcess(os.Getpid()); err != nil {
		return u, err
	}
	if u.process, _, err = p.sample(); err != nil {
		return u, err
	}
	if brokerPID != 0 {
		u.broker, _, err = sampleProcess(brokerPID)
	}
	return u, err
}

func (u usage) since(before usage) usage {
	return usage{
		wall: u.wall - before.wall, machine: u.machine - before.machine,
		own: u.own - before.own, process: u.process - before.process, broker: u.broker - before.broker,
	}
}

// otherCores is what nobody under measurement used.
func (u usage) otherCores() float64 {
	return max(0, (u.machine-u.own-u.process-u.broker).Seconds()/u.wall.Seconds())
}

// process is a program under measurement.
type process struct {
	command *exec.Cmd
	exited  chan struct{} // closed when it has
}

func start(command *exec.Cmd) (*process, error) {
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Path, err)
	}
	p := &process{command: command, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		_ = command.Wait() // ProcessState tells how
	}()
	return p, nil
}

// sample is what the process has used so far.
func (p *process) sample() (cpu time.Duration, peak int64, err error) {
	cpu, peak, err = sampleProcess(p.command.Process.Pid)
	if errors.Is(err, fs.ErrNotExist) {
		<-p.exited
		err = p.ended()
	}
	return cpu, peak, err
}

// ended is the error of a measurement whose program has.
func (p *process) ended() error {
	return fmt.Errorf("%s ended before it was measured: %s", p.command.Path, p.command.ProcessState)
}

// Of a program that is asked to end: the time it may take, and the time where the measurement has been interrupted and
// nobody looks at what it leaves.
const (
	farewell            = 30 * time.Second
	farewellInterrupted = time.Second
)

func (p *process) stop(ctx context.Context) {
	limit := farewell
	if ctx.Err() != nil {
		limit = farewellInterrupted
	}
	_ = p.command.Process.Signal(syscall.SIGTERM) // fails where it has ended already
	select {
	case <-p.exited:
	case <-time.After(limit):
		_ = p.command.Process.Kill()
		<-p.exited
	}
}
