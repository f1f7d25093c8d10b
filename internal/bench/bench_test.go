package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/internal/testkit"
)

func TestEveryProgramMovesTheBacklogAndIsMeasured(t *testing.T) {
	const events = 3000
	result, err := New(
		Config{Worker: settings(t), Events: events, Rounds: 2, Compare: true, Partitions: 3, Rate: 500, WarmUp: 500 * time.Millisecond, Measure: 500 * time.Millisecond},
		self(t), numbered(), t.Logf,
	).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Programs) != 3 || result.Scores != events || result.DeadLetters != 0 {
		t.Fatalf("%+v", result)
	}
	for _, p := range result.Programs {
		if len(p.Rounds) != 2 || p.Median.EventsPerSecond <= 0 || p.Median.PeakMemory <= 0 {
			t.Errorf("%s: %+v", p.Program, p)
		}
	}
	if l := result.Latency; l == nil || l.Count == 0 || l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.Max {
		t.Errorf("latency: %+v", l)
	}
	var text bytes.Buffer
	if err := result.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"worker", "pass-through", "kafka-go", "3000 scores", "p99", "1 workers"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
}

func TestAProgramThatEndsEarlyEndsTheMeasurement(t *testing.T) {
	ends := func(ctx context.Context, _ Program, _ config.Config) (*exec.Cmd, error) {
		return exec.CommandContext(ctx, "false"), nil
	}
	_, err := New(Config{Worker: settings(t), Events: 10, Partitions: 1}, ends, numbered(), t.Logf).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "ended before it was measured: exit status 1") {
		t.Fatalf("error %v", err)
	}
}

func TestTheEndOfOneProcessEndsTheOthersAndTheMeasurement(t *testing.T) {
	stays := exec.Command("sleep", "600")
	p, err := start(stays, exec.Command("false"))
	if err != nil {
		t.Fatal(err)
	}
	<-p.exited
	if err := p.ended(); !strings.Contains(err.Error(), "ended before it was measured: exit status 1") {
		t.Errorf("error %v", err)
	}
	if stays.ProcessState == nil {
		t.Error("the other process still runs")
	}
}

func TestAnOutputWithMoreRecordsThanEventsIsNotExactlyOnce(t *testing.T) {
	command := self(t)
	more := func(ctx context.Context, program Program, cfg config.Config) (*exec.Cmd, error) {
		s, err := Open(ctx, cfg.Brokers, cfg.Security)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(s.Fill(ctx, cfg.Topics.Scores, 1, numbered()), s.Close()); err != nil {
			return nil, err
		}
		return command(ctx, program, cfg)
	}
	_, err := New(Config{Worker: settings(t), Events: 10, Partitions: 1}, more, numbered(), t.Logf).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "10 events gave 11 records") {
		t.Fatalf("error %v", err)
	}
}

func TestMediansAreOfEachFigureAndRatiosOfEachRound(t *testing.T) {
	rounds := []Throughput{
		{WallSeconds: 3, SteadyPerSecond: 100, PeakMemory: 7},
		{WallSeconds: 1, SteadyPerSecond: 300, PeakMemory: 9},
		{WallSeconds: 2, SteadyPerSecond: 200, PeakMemory: 8},
	}
	p := ProgramResult{Rounds: rounds}
	p.summarise([]Throughput{{SteadyPerSecond: 200}, {SteadyPerSecond: 300}, {SteadyPerSecond: 800}})
	if want := (Throughput{WallSeconds: 2, SteadyPerSecond: 200, PeakMemory: 8}); p.Median != want {
		t.Errorf("median %+v, want %+v", p.Median, want)
	}
	if p.Ratio != 2 { // of 2, 1 and 4
		t.Errorf("ratio %v, want 2", p.Ratio)
	}
}

// The environment of a program of the test.
const (
	envProgram = "BENCH_TEST_PROGRAM"
	envConfig  = "BENCH_TEST_CONFIG"
)

// self runs the programs in this test binary; a pass-through stands for the worker.
func self(t *testing.T) func(context.Context, Program, config.Config) (*exec.Cmd, error) {
	path := filepath.Join(t.TempDir(), "worker.yaml")
	return func(ctx context.Context, program Program, cfg config.Config) (*exec.Cmd, error) {
		text, err := cfg.YAML()
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=TestProgram$")
		cmd.Env = append(os.Environ(), envProgram+"="+string(program), envConfig+"="+path)
		cmd.Stderr = os.Stderr
		return cmd, nil
	}
}

// TestProgram is a program under measurement, in a process of its own.
func TestProgram(t *testing.T) {
	program := os.Getenv(envProgram)
	if program == "" {
		t.Skip("not started by a measurement")
	}
	cfg, err := config.Load(os.Getenv(envConfig), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	if Program(program) == PlainLoop {
		err = RunPlainLoop(ctx, cfg)
	} else {
		err = RunPassThrough(ctx, cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func settings(t *testing.T) config.Config {
	cfg := config.Default()
	cfg.Brokers, cfg.Model, cfg.Admin.Listen = testkit.Brokers(t), t.TempDir(), ""
	return cfg
}

// numbered gives events with different keys.
func numbered() feed.Source {
	n := 0
	return feed.SourceFunc(func(e *feed.Event) error {
		e.Key, e.Value = fmt.Appendf(nil, "customer-%d", n%100), fmt.Appendf(nil, "event %d", n)
		n++
		return nil
	})
}
