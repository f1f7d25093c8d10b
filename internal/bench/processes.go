package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// processes are a program under measurement: one process or several that share its work.
type processes struct {
	commands []*exec.Cmd
	exited   chan struct{} // closed when the first of them has
	all      sync.WaitGroup
	once     sync.Once
}

func start(commands ...*exec.Cmd) (*processes, error) {
	p := &processes{exited: make(chan struct{})}
	for _, command := range commands {
		if err := command.Start(); err != nil {
			p.kill()
			return nil, fmt.Errorf("start %s: %w", command.Path, err)
		}
		p.commands = append(p.commands, command)
		p.all.Go(func() {
			_ = command.Wait() // ProcessState tells how
			p.once.Do(func() { close(p.exited) })
		})
	}
	return p, nil
}

// sample is what the processes have used so far.
func (p *processes) sample() (cpu time.Duration, peak int64, err error) {
	for _, command := range p.commands {
		c, m, err := sampleProcess(command.Process.Pid)
		if errors.Is(err, fs.ErrNotExist) {
			<-p.exited
			return 0, 0, p.ended()
		}
		if err != nil {
			return 0, 0, err
		}
		cpu, peak = cpu+c, peak+m
	}
	return cpu, peak, nil
}

// ended is the error of a measurement whose program has: the rest of it is made to.
func (p *processes) ended() error {
	p.kill()
	var err error
	for _, command := range p.commands {
		err = errors.Join(err, fmt.Errorf("%s ended before it was measured: %s", command.Path, command.ProcessState))
	}
	return err
}

// Of a program that is asked to end: the time it may take, and the time where the measurement has been interrupted and
// nobody looks at what it leaves.
const (
	farewell            = 30 * time.Second
	farewellInterrupted = time.Second
)

func (p *processes) stop(ctx context.Context) {
	limit := farewell
	if ctx.Err() != nil {
		limit = farewellInterrupted
	}
	for _, command := range p.commands {
		_ = command.Process.Signal(syscall.SIGTERM) // fails where it has ended already
	}
	gone := make(chan struct{})
	go func() {
		p.all.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(limit):
		p.kill()
		<-gone
	}
}

func (p *processes) kill() {
	for _, command := range p.commands {
		_ = command.Process.Kill()
	}
	p.all.Wait()
}

// usage is CPU time: of everything on the machine, and within it of the measurement, the processes and the broker.
type usage struct {
	wall                            time.Duration // since 1970
	machine, own, processes, broker time.Duration
	peak                            int64 // of the processes' resident memory, in bytes
}

func (p *processes) use(brokerPID int) (u usage, err error) {
	u.wall = time.Duration(time.Now().UnixNano())
	if u.machine, err = sampleMachine(); err != nil {
		return u, err
	}
	if u.own, _, err = sampleProcess(os.Getpid()); err != nil {
		return u, err
	}
	if u.processes, u.peak, err = p.sample(); err != nil {
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
		own: u.own - before.own, processes: u.processes - before.processes, broker: u.broker - before.broker, peak: u.peak,
	}
}

// otherCores is what nobody under measurement used.
func (u usage) otherCores() float64 {
	return max(0, (u.machine-u.own-u.processes-u.broker).Seconds()/u.wall.Seconds())
}

// perEvent is in microseconds.
func perEvent(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(n) }
