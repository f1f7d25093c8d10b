package main

import (
	"testing"
	"time"
)

func TestGapsCountWhatOverlapsTheSpanAndWhoHeldThePartition(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	c := newCommits(3)
	for _, ms := range []int{0, 900, 1000, 1100, 1500, 2900} { // 900 before the span, 1400 across its end
		c.add(0, commit{at(ms), "w1", 0})
	}
	for i, ms := range []int{1000, 1050, 1700, 1800} {
		c.add(1, commit{at(ms), []string{"w1", "w1", "w2", "w2"}[i], 0})
	}
	c.add(2, commit{at(100), "w1", 0})
	g := c.gaps(at(950), at(2000))
	if got, want := g.String(), "2: 1900 / 1900 | 1: 650 / 650 (1 without a commit in the last second)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if c.all(func(_ int, last commit) bool { return last.at.After(at(1000)) }) {
		t.Error("partition 2 has stood still since the beginning")
	}
}
