package worker

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit"
)

// chaosSteps names the environment variable with the number of kills and rebalances, 15 unless told.
const chaosSteps = "CHURNSTREAM_TEST_CHAOS"

// TestCountsEqualARecountAfterKillsAndRebalances lets seconds fall into minutes all the while, so that workers die between
// a bucket and the coarser one that absorbs it.
func TestCountsEqualARecountAfterKillsAndRebalances(t *testing.T) {
	steps := 15
	if text := os.Getenv(chaosSteps); text != "" {
		var err error
		if steps, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", chaosSteps, err)
		}
	}
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 3, scores: 2, states: 2})
	e.example = load(t, classed)
	e.base -= int64(steps+1) * 6000 // six seconds of events a step, none of them in the future
	e.cfg.Drift.Bucket = config.Duration(time.Second)
	e.cfg.Fetch.MaxPartitionBytes = 16 << 10 // small batches
	workers := []*running{e.start(nil).ready(3)}
	random := rand.New(rand.NewPCG(7, uint64(steps)))
	kills, joins, leaves := 0, 0, 0
	for range steps {
		e.feed(60) // six seconds, which are being processed during what follows
		if len(workers) < 2 || len(workers) < 4 && random.IntN(2) == 0 {
			w := e.start(nil)
			testkit.Eventually(t, patience, func() bool { return len(w.states()) > 0 || len(workers) >= 3 }, "the new worker owns a partition")
			workers = append(workers, w)
			joins++
			continue
		}
		i := random.IntN(len(workers))
		w := workers[i]
		workers = append(workers[:i], workers[i+1:]...)
		if random.IntN(3) == 0 {
			w.end()
			leaves++
		} else {
			w.crash()
			kills++
		}
	}
	e.feed(60)
	e.drained()
	for _, w := range workers {
		w.end()
	}
	t.Logf("%d kills, %d joins, %d leaves over %d events", kills, joins, leaves, len(e.sent))
	e.checkScores(false)
	e.checkCounts()
}
