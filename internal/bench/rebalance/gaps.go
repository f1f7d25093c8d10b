package main

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// commit of one partition by one worker.
type commit struct {
	at     time.Time
	worker string
	next   int64 // offset of the next event
}

// commits of all partitions, as the workers report them.
type commits struct {
	mu          sync.Mutex
	byPartition [][]commit
}

func newCommits(partitions int) *commits { return &commits{byPartition: make([][]commit, partitions)} }

func (c *commits) add(partition int32, made commit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byPartition[partition] = append(c.byPartition[partition], made)
}

// all says whether every partition's last commit meets the condition.
func (c *commits) all(met func(partition int, last commit) bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, made := range c.byPartition {
		if len(made) == 0 || !met(p, made[len(made)-1]) {
			return false
		}
	}
	return true
}

// owners of all partitions by their last commits.
func (c *commits) owners() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	owners := make([]string, len(c.byPartition))
	for p, made := range c.byPartition {
		if len(made) > 0 {
			owners[p] = made[len(made)-1].worker
		}
	}
	return owners
}

// gaps are the longest times between two commits of each partition that overlap a span of time, apart for partitions
// that one worker kept and those that changed hands.
type gaps struct {
	stayed, moved []time.Duration
	still         int // without a commit in the last second of the span
}

func (c *commits) gaps(from, to time.Time) (g gaps) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, made := range c.byPartition {
		made = slices.Clone(made)
		slices.SortFunc(made, func(a, b commit) int { return a.at.Compare(b.at) })
		longest, moved := longestGap(made, from, to)
		if len(made) == 0 || made[len(made)-1].at.Before(to.Add(-time.Second)) {
			g.still++
			if len(made) > 0 {
				longest = max(longest, to.Sub(made[len(made)-1].at))
			}
		}
		if moved {
			g.moved = append(g.moved, longest)
		} else {
			g.stayed = append(g.stayed, longest)
		}
	}
	return g
}

func longestGap(made []commit, from, to time.Time) (longest time.Duration, moved bool) {
	for i := 1; i < len(made); i++ {
		if made[i].at.After(from) && made[i-1].at.Before(to) {
			longest = max(longest, made[i].at.Sub(made[i-1].at))
			moved = moved || made[i].worker != made[i-1].worker
		}
	}
	return longest, moved
}

// String is two cells of the table.
func (g gaps) String() string {
	text := cell(g.stayed) + " | " + cell(g.moved)
	if g.still > 0 {
		text += fmt.Sprintf(" (%d without a commit in the last second)", g.still)
	}
	return text
}

func cell(durations []time.Duration) string {
	if len(durations) == 0 {
		return "0"
	}
	slices.Sort(durations)
	return fmt.Sprintf("%d: %d / %d", len(durations), durations[len(durations)/2].Milliseconds(), durations[len(durations)-1].Milliseconds())
}
