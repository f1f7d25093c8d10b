package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/churnstream/churnstream/internal/config"
)

// seat is a place for a worker: a name that stays, a network of its own, and one process after the other.
type seat struct {
	name    string
	config  string // file
	log     string // file, of all its processes
	network *network

	mu      sync.Mutex
	process *process // nil: none runs
	deaths  []string // how processes ended that nobody had ended
	refused int      // starts that ended because the brokers could not be used, as they should
	closed  bool
	sizes   []size // of the process that lived longest
}

// process is one worker at work.
type process struct {
	*exec.Cmd
	commands io.WriteCloser
	began    time.Time
	logFrom  int64 // where its part of the log begins
	exited   chan struct{}

	mu      sync.Mutex
	ending  bool // somebody sent it a signal that ends it
	sizes   []size
	outcome error
}

// size of a process at one time.
type size struct {
	Goroutines  int   `json:"goroutines"`
	Heap        int64 `json:"heap"`
	Resident    int64 `json:"resident"`
	Descriptors int   `json:"descriptors"`
	Sockets     int   `json:"sockets"`
}

func newSeat(name string, cfg config.Config, dir string, addresses []string) (*seat, error) {
	s := &seat{name: name, config: filepath.Join(dir, name+".yaml"), log: filepath.Join(dir, name+".log")}
	text, err := cfg.YAML()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		return nil, err
	}
	s.network, err = newNetwork(name, addresses)
	return s, err
}

// start runs a process unless one runs.
func (s *seat) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil || s.closed {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	//nolint:noctx // it is signalled, not cancelled
	p := &process{Cmd: exec.Command(self, "worker", "-config", s.config, "-detours", s.network.detours()), exited: make(chan struct{}), began: time.Now(), logFrom: from}
	p.Stderr = log
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.commands, err = p.StdinPipe(); err != nil {
		return err
	}
	sizes, err := p.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	s.process = p
	go func() {
		p.watch(sizes)
		err := p.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.outcome = err
		if len(p.sizes) > len(s.sizes) {
			s.sizes = p.sizes
		}
		s.process = nil
		close(p.exited)
		if p.ending {
			return
		}
		// "stopped" is what a worker logs when it has worked. Until then a cluster that cannot be used ends it, also one
		// of which a broker has just begun and does not know all topics yet, and whoever runs it starts it again.
		if lines := lastLines(s.log, p.logFrom, 2); strings.Contains(lines, `"message":"stopped"`) || strings.Contains(lines, "panic") {
			s.deaths = append(s.deaths, fmt.Sprintf("%s after %s: %v: %s", s.name, time.Since(p.began).Round(time.Second), err, lines))
		} else {
			s.refused++
		}
		time.AfterFunc(time.Second, func() { _ = s.start() }) // a failure shows as a partition that nobody owns
	}()
	return nil
}

// close ends the seat for good.
func (s *seat) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	_ = s.kill() // it may have ended
	s.network.close()
}

func (p *process) watch(lines io.Reader) {
	for in := bufio.NewScanner(lines); in.Scan(); {
		var z size
		if _, err := fmt.Sscan(in.Text(), &z.Goroutines, &z.Heap); err != nil {
			continue // it died within the line
		}
		z.Resident, z.Descriptors, z.Sockets = systemSize(p.Process.Pid)
		p.mu.Lock()
		p.sizes = append(p.sizes, z)
		p.mu.Unlock()
	}
}

// systemSize is what Linux knows of a process; zeros elsewhere.
func systemSize(pid int) (resident int64, descriptors, sockets int) {
	dir := "/proc/" + strconv.Itoa(pid)
	if text, err := os.ReadFile(dir + "/statm"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64)
			resident = pages * int64(os.Getpagesize())
		}
	}
	entries, _ := os.ReadDir(dir + "/fd")
	for _, e := range entries {
		descriptors++
		if to, err := os.Readlink(dir + "/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			sockets++
		}
	}
	return resident, descriptors, sockets
}

// running is the process, nil if there is none.
func (s *seat) running() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// signal the process; one that ends it is expected to.
func (s *seat) signal(how syscall.Signal) error {
	p := s.running()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	p.ending = p.ending || how == syscall.SIGKILL || how == syscall.SIGTERM
	p.mu.Unlock()
	if err := p.Process.Signal(how); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// kill ends the process at once and waits for that.
func (s *seat) kill() error {
	p := s.running()
	if p == nil {
		return nil
	}
	err := s.signal(syscall.SIGKILL)
	<-p.exited
	return err
}

// drain asks the process to end and wants it to end well within drainLimit.
func (s *seat) drain(ctx context.Context) error {
	p := s.running()
	if p == nil {
		return nil
	}
	if err := s.signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(drainLimit)
	defer timer.Stop()
	select {
	case <-p.exited:
		if p.outcome != nil {
			return fmt.Errorf("%s ended with %w after SIGTERM: %s", s.name, p.outcome, lastLines(s.log, 0, 1))
		}
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return errors.Join(fmt.Errorf("%s does not end within %s of SIGTERM", s.name, drainLimit), s.kill())
}

// setClock sets the worker's clock ahead of the machine's.
func (s *seat) setClock(ahead time.Duration) error {
	p := s.running()
	if p == nil {
		return nil
	}
	_, err := fmt.Fprintf(p.commands, "clock %s\n", ahead)
	if errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.EPIPE) { // it has ended meanwhile
		return nil
	}
	return err
}

// lastLines of a file, none of them before an offset.
func lastLines(path string, from int64, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text[from:])), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
