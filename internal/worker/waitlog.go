package worker

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/producer"
)

// waitLog says what partitions wait for, as long as they do: once a wait has lasted for the quiet time, then each time
// that it has doubled, and when it is over. Waits whose task reports every attempt by itself are left to that. It is the
// watchdog, too: of a loop that hangs it leaves the stacks of all goroutines in the log.
type waitLog struct {
	worker *Worker
	next   map[consumer.TopicPartition]time.Duration // of a wait that was told: when it is told again
	hung   bool                                      // and told
}

// quietWait is how long a partition may wait without a word: elections, restarts and short transactions pass by then.
const quietWait = 10 * time.Second

// longestSilence is the most between two words about the same wait.
const longestSilence = 10 * time.Minute

func newWaitLog(w *Worker) *waitLog {
	return &waitLog{worker: w, next: map[consumer.TopicPartition]time.Duration{}}
}

func (l *waitLog) run(ctx context.Context) error {
	tick := time.NewTicker(min(time.Second, l.worker.quietWait))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		l.look(ctx)
	}
}

func (l *waitLog) look(ctx context.Context) {
	waits := map[consumer.TopicPartition]bool{}
	states := l.worker.states()
	for i := range states {
		s := &states[i]
		switch s.For {
		case waitStart, waitCommit, waitBrokers, waitTransaction:
		default: // at work, or the task tells every attempt
			continue
		}
		waits[s.source] = true
		waited := time.Duration(s.Seconds * float64(time.Second))
		quiet := l.worker.quietWait
		if s.For == waitTransaction { // some producers keep theirs open for as long as they like
			quiet *= 6
		}
		if waited < max(quiet, l.next[s.source]) {
			continue
		}
		l.next[s.source] = waited + min(waited, longestSilence)
		event := l.worker.log.Warn().Str("topic", s.source.Topic).Int32("partition", s.source.Partition).
			Str("for", string(s.For)).Dur("waited", waited)
		if at := s.behind; at.Topic != "" {
			for _, t := range l.openTransactions(ctx, at) {
				event.Int64("producer_id", t.ProducerID).Int64("first_offset", t.FirstOffset).Time("last_write", t.LastWrite).
					Str("end_it", fmt.Sprintf("kafka-transactions.sh --bootstrap-server %s abort --topic %s --partition %d --start-offset %d",
						l.worker.cfg.Brokers[0], at.Topic, at.Partition, t.FirstOffset))
			}
		}
		event.Msg("the partition waits: " + s.Reason)
	}
	for source := range l.next {
		if !waits[source] {
			delete(l.next, source)
			l.worker.log.Info().Str("topic", source.Topic).Int32("partition", source.Partition).Msg("the partition goes on")
		}
	}
	l.worker.looks.Add(1)
	if live := l.worker.Live(); !live.OK && !l.hung {
		stacks := make([]byte, 256<<10)
		stacks = stacks[:runtime.Stack(stacks, true)]
		l.worker.log.Error().Strs("reasons", live.Reasons).Bytes("goroutines", stacks).Msg("a loop hangs; /livez asks for a restart")
		l.hung = true
	} else if live.OK {
		l.hung = false
	}
}

// openTransactions gives the oldest open transaction of a partition; none when the broker does not tell.
func (l *waitLog) openTransactions(ctx context.Context, tp consumer.TopicPartition) []consumer.OpenTransaction {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	open, err := consumer.OpenTransactions(ctx, l.worker.client, tp)
	if err != nil || len(open) == 0 {
		l.worker.log.Debug().Err(err).Msg("the broker does not say whose transaction is open")
		return nil
	}
	oldest := open[0]
	for _, t := range open {
		if t.FirstOffset < oldest.FirstOffset {
			oldest = t
		}
	}
	return []consumer.OpenTransaction{oldest}
}

// retries is what the publishers repeat at the moment, for the probes.
type retries struct {
	last atomic.Pointer[producer.Retry]
}

func (r *retries) note(retry producer.Retry) { r.last.Store(&retry) }

// waitsFor says in words why a commit takes long.
func (r *retries) waitsFor() string {
	last := r.last.Load()
	if last == nil || time.Since(last.At) > 15*time.Second {
		return "no broker has refused anything: one does not answer, or another unit of the transaction is being processed"
	}
	return fmt.Sprintf("%d attempts in %.1f s: %v", last.Attempts, last.At.Sub(last.Since).Seconds(), last.Err)
}
