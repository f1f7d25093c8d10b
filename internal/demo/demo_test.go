package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDemoScoresEveryEventOnce(t *testing.T) {
	const events = 1500
	var out bytes.Buffer
	started := time.Now()
	cfg := Config{Events: events, Rate: 1500, Seed: 1, Started: started, Version: "test", Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel)}
	s, err := New(cfg, NewDisplay(&out)).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Events != events || s.Scores+s.DeadLetters != events || s.DeadLetters != events/brokenEvery {
		t.Errorf("%d events gave %d scores and %d dead letters", s.Events, s.Scores, s.DeadLetters)
	}
	if s.AUC == nil || *s.AUC < 0.8 || *s.AUC > 0.9 {
		t.Errorf("AUC %v", s.AUC)
	}
	if s.FirstScore == nil || *s.FirstScore <= 0 || *s.FirstScore > time.Since(started).Seconds() {
		t.Errorf("first score after %v", s.FirstScore)
	}
	if l := s.Latency; l.P50 <= 0 || l.P50 > l.P95 || l.P95 > l.P99 {
		t.Errorf("latency %+v", l)
	}
	for _, want := range []string{"trained telco-churn@", header, ">>> shift: "} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("%q is not there once in:\n%s", want, out.String())
		}
	}
	if !scoreShown.Match(out.Bytes()) {
		t.Errorf("no line looks like a score in:\n%s", out.String())
	}
}

var scoreShown = regexp.MustCompile(`(?m)^  \d{4}-[A-Z]{5} +\d+\.\d% +(churn|retain) +\S.* [+-]\d+\.\d\d`)

func TestDemoEndsByItsContextWithASummary(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	until := writerFunc(func(p []byte) (int, error) {
		if scoreShown.Match(p) {
			cancel() // Ctrl-C at the first score on the screen
		}
		return len(p), nil
	})
	s, err := New(Config{Rate: 10_000, Seed: 1, Started: time.Now(), Log: zerolog.Nop()}, NewDisplay(until)).Run(ctx)
	if err != nil || s.Events == 0 || s.Scores+s.DeadLetters != s.Events {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestDemoEndsWhenNobodyReadsAndLeavesNothingBehind(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	gone := errors.New("gone")
	lines := 0
	head := writerFunc(func(p []byte) (int, error) {
		if lines++; lines > 1 {
			return 0, gone
		}
		return len(p), nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := New(Config{Rate: 100, Seed: 1, Started: time.Now(), Log: zerolog.Nop()}, NewDisplay(head)).Run(ctx)
	if !errors.Is(err, gone) || ctx.Err() != nil {
		t.Errorf("ended with %v (%v)", err, ctx.Err())
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
