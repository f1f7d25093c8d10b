package demo

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/schemas"
)

// observer collects what a reader of the output topics sees. Its methods are called from the goroutines that follow the
// topics and from the display.
type observer struct {
	started time.Time

	mu          sync.Mutex
	scores      int
	deadLetters int
	firstScore  time.Duration
	latencies   []float64          // ms, from publishing to the arrival here
	firstScores map[string]float64 // customer → probability of the first score before the shift
	recent      []schemas.Score    // for the display, newest last
	shiftAt     time.Time
	alerts      []alert
}

type alert struct {
	schemas.DriftAlert
	seen time.Time
}

// recentScores is how many scores the display can choose from.
const recentScores = 16

func newObserver(started time.Time) *observer {
	return &observer{started: started, firstScores: map[string]float64{}}
}

func (o *observer) score(s *schemas.Score) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.scores == 0 {
		o.firstScore = now.Sub(o.started)
	}
	o.scores++
	o.latencies = append(o.latencies, float64(now.UnixMicro())/1000-float64(s.EventTime))
	if o.shiftAt.IsZero() || s.EventTime < o.shiftAt.UnixMilli() {
		if _, ok := o.firstScores[string(s.CustomerID)]; !ok {
			o.firstScores[string(s.CustomerID)] = s.Probability
		}
	}
	kept := *s
	kept.CustomerID = slices.Clone(s.CustomerID)
	kept.Reasons = slices.Clone(s.Reasons)
	if len(o.recent) == recentScores {
		o.recent = slices.Delete(o.recent, 0, 1)
	}
	o.recent = append(o.recent, kept)
}

func (o *observer) deadLetter() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deadLetters++
}

func (o *observer) alert(a schemas.DriftAlert) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.alerts = append(o.alerts, alert{a, time.Now()})
}

func (o *observer) shifted(at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shiftAt = at
}

func (o *observer) outputs() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.scores + o.deadLetters
}

// alertAfterShift is the time from the shift to the first alert that it raised.
func (o *observer) alertAfterShift() (time.Duration, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.alerts {
		if a.State == schemas.AlertRaised && !o.shiftAt.IsZero() && a.seen.After(o.shiftAt) {
			return a.seen.Sub(o.shiftAt), true
		}
	}
	return 0, false
}

// pick takes the newest score that was not shown yet.
func (o *observer) pick(shown int) (s schemas.Score, total int, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.scores == shown || len(o.recent) == 0 {
		return s, o.scores, false
	}
	return o.recent[len(o.recent)-1], o.scores, true
}

// alertsFrom gives the alerts that came after the first n.
func (o *observer) alertsFrom(n int) []alert {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.alerts[n:])
}

// scoreBatch, deadLetterBatch and alertBatch read the output topics.
func (o *observer) scoreBatch(b *consumer.Batch) error {
	var s schemas.Score
	for i := range b.Records {
		_, body, err := schemas.SplitFrame(b.Records[i].Value)
		if err == nil {
			err = schemas.DecodeScore(body, &s)
		}
		if err != nil {
			return fmt.Errorf("score %s@%d: %w", b.TopicPartition, b.Records[i].Offset, err)
		}
		o.score(&s)
	}
	return nil
}

func (o *observer) deadLetterBatch(b *consumer.Batch) error {
	for range b.Records {
		o.deadLetter()
	}
	return nil
}

func (o *observer) alertBatch(b *consumer.Batch) error {
	for i := range b.Records {
		var a schemas.DriftAlert
		_, body, err := schemas.SplitFrame(b.Records[i].Value)
		if err == nil {
			err = schemas.DecodeDriftAlert(body, &a)
		}
		if err != nil {
			return fmt.Errorf("alert %s@%d: %w", b.TopicPartition, b.Records[i].Offset, err)
		}
		o.alert(a)
	}
	return nil
}
