package producer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestSpacingHoldsTheFirstProduceBehindTheEndOfTheTransaction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSpacing()
		for _, test := range []struct{ idle, want time.Duration }{
			{0, time.Millisecond},
			{400 * time.Microsecond, 600 * time.Microsecond},
			{time.Millisecond, 0},
			{time.Second, 0},
		} {
			s.transactionEnded(time.Now())
			time.Sleep(test.idle) // of the bubble's clock
			start := time.Now()
			if err := s.wait(context.Background()); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(start); got != test.want {
				t.Errorf("after %v: waited %v, want %v", test.idle, got, test.want)
			}
		}
	})
}

func TestSpacingGrowsWithHeldProducesAndShrinksWithOthers(t *testing.T) {
	t.Parallel()
	s := newSpacing()
	learn := func(n int, produce time.Duration) time.Duration {
		for range n {
			s.learn(produce, time.Millisecond)
		}
		return s.distance
	}
	start := s.distance
	if got := learn(10, 25*time.Millisecond); got != start {
		t.Errorf("learned %v from a Produce long after the end", got)
	}
	s.close = true
	if got := learn(2, 25*time.Millisecond); got != start+2*spacingStep {
		t.Errorf("%v after two held ones", got)
	}
	if got := learn(1000, 25*time.Millisecond); got != maxSpacing {
		t.Errorf("%v is not bounded by %v", got, maxSpacing)
	}
	if got := learn(100_000, time.Millisecond); got != minSpacing {
		t.Errorf("%v does not shrink to %v", got, minSpacing)
	}
}

func TestSpacingIsNotTakenInByABusyMachine(t *testing.T) {
	t.Parallel()
	s := newSpacing()
	s.close = true
	start := s.distance
	for i := range 3000 { // every tenth request takes long, of either kind
		produce, offsets := time.Millisecond, time.Millisecond
		switch i % 10 {
		case 3:
			produce = 40 * time.Millisecond
		case 8:
			offsets = 40 * time.Millisecond
		}
		s.learn(produce, offsets)
		if s.distance > start+2*spacingStep {
			t.Fatalf("%v after %d transactions", s.distance, i+1)
		}
	}
	for range 100 { // everything takes long
		s.learn(40*time.Millisecond, 40*time.Millisecond)
	}
	if s.distance > start+2*spacingStep {
		t.Fatalf("%v where everything is slow", s.distance)
	}
}
