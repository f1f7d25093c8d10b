package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// kind of a fault.
type kind struct {
	name    string
	weight  int
	target  target
	cluster bool             // makes sense with several brokers only
	ends    bool             // the worker's process ends
	hold    [2]time.Duration // how long it lasts: between
	do      func(ctx context.Context, r *round, f *fault) error
}

// target is what one fault at a time may befall.
type target int

const (
	aWorker target = iota
	aBroker
	aTopic
)

// fault is one of a plan.
type fault struct {
	kind *kind
	gap  time.Duration // after the one before
	hold time.Duration
	seat int
	draw uint64 // for further choices

	done      bool
	recovered time.Duration // from its end until every partition had gone on; notRecovered
}

// kinds of faults. What they do is undone when they return.
func kinds() []kind {
	short, medium, long := [2]time.Duration{200 * time.Millisecond, 3 * time.Second}, [2]time.Duration{time.Second, 8 * time.Second}, [2]time.Duration{2 * time.Second, 14 * time.Second}
	return []kind{
		{name: "worker SIGKILL, back at once", weight: 4, target: aWorker, ends: true, hold: [2]time.Duration{0, 2 * time.Second}, do: killWorker},
		{name: "worker SIGKILL, away longer than its session", weight: 2, target: aWorker, ends: true, hold: [2]time.Duration{8 * time.Second, 14 * time.Second}, do: killWorker},
		{name: "worker SIGSTOP, CONT", weight: 3, target: aWorker, hold: medium, do: freezeWorker},
		{name: "worker SIGSTOP, CONT as a zombie", weight: 2, target: aWorker, hold: [2]time.Duration{8 * time.Second, 14 * time.Second}, do: freezeWorker},
		{name: "worker SIGTERM, back", weight: 3, target: aWorker, ends: true, hold: short, do: drainWorker},
		{name: "worker added, taken away", weight: 2, target: aWorker, hold: long, do: addWorker},
		{name: "clock of a worker set", weight: 2, target: aWorker, hold: medium, do: setClock},
		{name: "network slow", weight: 2, target: aWorker, hold: medium, do: slowNetwork},
		{name: "network cut", weight: 3, target: aWorker, hold: medium, do: cutNetwork},
		{name: "network reset", weight: 2, target: aWorker, hold: short, do: resetNetwork},
		{name: "network half-open, brokers hear nothing", weight: 2, target: aWorker, hold: long, do: halfOpen("upstream")},
		{name: "network half-open, worker hears nothing", weight: 2, target: aWorker, hold: long, do: halfOpen("downstream")},
		{name: "broker kill -9, restart", weight: 3, target: aBroker, hold: medium, do: killBroker},
		{name: "broker SIGSTOP, CONT", weight: 2, target: aBroker, hold: medium, do: freezeBroker},
		{name: "leader moved", weight: 4, target: aTopic, cluster: true, do: moveLeaders},
		{name: "group coordinator moved", weight: 2, target: aTopic, cluster: true, do: moveGroupCoordinator},
		{name: "transaction coordinator moved", weight: 2, target: aTopic, cluster: true, do: moveTransactionCoordinator},
		{name: "partition added", weight: 1, target: aTopic, do: addPartition},
	}
}

// newPlan draws n faults: the same for the same seed, settings and number of brokers.
// With a spared seat the worker of the first lives on.
func newPlan(random *rand.Rand, from []kind, n, seats, nodes int, gap time.Duration, spared bool) []*fault {
	var all []*kind
	for i := range from {
		if !from[i].cluster || nodes > 1 {
			for range from[i].weight {
				all = append(all, &from[i])
			}
		}
	}
	plan := make([]*fault, n)
	for i := range plan {
		k := all[random.IntN(len(all))]
		plan[i] = &fault{
			kind: k, gap: time.Duration(float64(gap) * (0.3 + 1.4*random.Float64())),
			hold: k.hold[0] + time.Duration(random.Float64()*float64(k.hold[1]-k.hold[0])),
			seat: random.IntN(seats), draw: random.Uint64(),
		}
		if spared && k.ends && plan[i].seat == 0 {
			plan[i].seat = 1 + i%(seats-1)
		}
	}
	return plan
}

// named keeps the kinds whose name contains one of the words.
func named(all []kind, words string) ([]kind, error) {
	var some []kind
	for _, k := range all {
		if mentions(k.name, words) {
			some = append(some, k)
		}
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("-kinds %s: no kind of fault is called so", words)
	}
	return some, nil
}

// mentions reports whether the name contains one of the words, comma-separated; no words are all words.
func mentions(name, words string) bool {
	return slices.ContainsFunc(strings.Split(words, ","), func(word string) bool { return strings.Contains(name, word) })
}

// carryOut lets the faults of the plan happen. They overlap, but never on the same worker, and one broker at a time: the
// topics stand the loss of one.
func (r *round) carryOut(ctx context.Context, plan []*fault) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range plan {
		if !r.another(ctx, f.gap) {
			break
		}
		turn := r.turns[f.kind.target]
		if f.kind.target == aWorker {
			turn = r.seats[f.seat].turn
		}
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		g.Go(func() error {
			defer func() { <-turn }()
			r.log("%s (%s, seat %d)", f.kind.name, f.hold.Round(time.Millisecond), f.seat)
			err := f.kind.do(ctx, r, f)
			switch {
			case errors.Is(err, errNotDone) || ctx.Err() != nil:
				return nil
			case err != nil: // what it was to undo may not be: the round goes on for what it can still show
				r.stuck("%s: %v", f.kind.name, err)
				return nil
			}
			r.watch.expect(f)
			return nil
		})
	}
	return g.Wait()
}

// another waits for the time of the next fault and reports whether it is to happen.
func (r *round) another(ctx context.Context, gap time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-r.settings.enough:
		return false
	case <-time.After(gap):
		return r.settings.most == 0 || time.Since(r.began) <= r.settings.most
	}
}

func killWorker(ctx context.Context, r *round, f *fault) error {
	s := r.seats[f.seat]
	if err := s.kill(); err != nil {
		return err
	}
	pause(ctx, f.hold)
	return s.start()
}

func freezeWorker(ctx context.Context, r *round, f *fault) error {
	s := r.seats[f.seat]
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	pause(ctx, f.hold)
	return s.signal(syscall.SIGCONT)
}

func drainWorker(ctx context.Context, r *round, f *fault) error {
	s := r.seats[f.seat]
	// A drain at a time at which brokers are away ends by the worker's grace, which is an error; it is for the final
	// drain to tell.
	if err := s.drain(ctx); err != nil {
		r.log("%v", err)
	}
	pause(ctx, f.hold)
	return s.start()
}

func addWorker(ctx context.Context, r *round, f *fault) error {
	s, err := r.extra()
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.start(); err != nil {
		return err
	}
	pause(ctx, f.hold)
	// It may die within whatever it is doing, and nobody takes its place. In the consumer protocol its partitions then
	// wait for the broker's 45 s, and for as long again whenever the coordinator begins anew: that is known.
	if f.draw%3 == 0 && r.cfg.Group.Protocol == "classic" {
		return s.kill()
	}
	if err := s.drain(ctx); err != nil {
		r.log("%v", err)
	}
	return nil
}

func setClock(ctx context.Context, r *round, f *fault) error {
	s := r.seats[f.seat]
	ahead := time.Duration(f.draw%uint64(2*maxClockJump)) - maxClockJump
	if err := s.setClock(ahead); err != nil {
		return err
	}
	pause(ctx, f.hold)
	return s.setClock(0)
}

func slowNetwork(ctx context.Context, r *round, f *fault) error {
	latency := 20 + int(f.draw%300)
	return r.tear(ctx, f, func(n *network) error { return n.slow(latency, latency/2) })
}

func cutNetwork(ctx context.Context, r *round, f *fault) error { return r.tear(ctx, f, (*network).cut) }

func resetNetwork(ctx context.Context, r *round, f *fault) error {
	return r.tear(ctx, f, (*network).reset)
}

func halfOpen(stream string) func(context.Context, *round, *fault) error {
	return func(ctx context.Context, r *round, f *fault) error {
		return r.tear(ctx, f, func(n *network) error { return n.halfOpen(stream) })
	}
}

// tear does something to a worker's network for a while.
func (r *round) tear(ctx context.Context, f *fault, how func(*network) error) error {
	n := r.seats[f.seat].network
	if err := how(n); err != nil {
		return err
	}
	pause(ctx, f.hold)
	return n.mend(ctx)
}

func killBroker(ctx context.Context, r *round, f *fault) error {
	broker := int32(f.draw%uint64(len(r.brokers.addresses))) + 1
	if err := r.brokers.signal(ctx, broker, "KILL"); err != nil {
		return err
	}
	pause(ctx, f.hold)
	if err := r.brokers.restart(context.WithoutCancel(ctx), broker); err != nil {
		return err
	}
	return r.whole(ctx)
}

func freezeBroker(ctx context.Context, r *round, f *fault) error {
	broker := int32(f.draw%uint64(len(r.brokers.addresses))) + 1
	if err := r.brokers.signal(ctx, broker, "STOP"); err != nil {
		return err
	}
	pause(ctx, f.hold)
	if err := r.brokers.signal(context.WithoutCancel(ctx), broker, "CONT"); err != nil {
		return err
	}
	return r.whole(ctx)
}

// whole waits until every replica of the round's topics is in sync again.
func (r *round) whole(ctx context.Context) error {
	return until(ctx, 2*time.Minute, "all replicas are in sync", func() bool {
		for _, topic := range append(r.topics(), offsetsTopic, transactionsTopic) {
			led, err := r.brokers.leaders(ctx, topic)
			if err != nil || len(led) == 0 {
				return false
			}
			for _, p := range led {
				if len(p.inSync) < len(p.all) {
					return false
				}
			}
		}
		return true
	})
}

func moveLeaders(ctx context.Context, r *round, f *fault) error {
	random := rand.New(rand.NewPCG(f.draw, 1))
	for range 1 + random.IntN(4) {
		topics := r.topics()
		topic := topics[random.IntN(len(topics))]
		led, err := r.brokers.leaders(ctx, topic)
		if err != nil || len(led) == 0 {
			return r.excuse(err)
		}
		if err := r.brokers.moveLeader(ctx, topic, int32(random.IntN(len(led))), random); err != nil {
			return r.excuse(err)
		}
	}
	return nil
}

func moveGroupCoordinator(ctx context.Context, r *round, f *fault) error {
	return r.moveCoordinator(ctx, offsetsTopic, r.name, f)
}

func moveTransactionCoordinator(ctx context.Context, r *round, f *fault) error {
	ids, err := r.brokers.transactionalIDs(ctx, r.name)
	if err != nil || len(ids) == 0 {
		return r.excuse(err)
	}
	return r.moveCoordinator(ctx, transactionsTopic, ids[f.draw%uint64(len(ids))], f)
}

func (r *round) moveCoordinator(ctx context.Context, topic, id string, f *fault) error {
	partition, err := r.brokers.coordinatorPartition(ctx, topic, id)
	if err != nil {
		return r.excuse(err)
	}
	if err = r.brokers.moveLeader(ctx, topic, partition, rand.New(rand.NewPCG(f.draw, 1))); err != nil {
		return r.excuse(err)
	}
	return nil
}

var errNotDone = errors.New("not done")

// excuse is for what cannot be done because of another fault at the same time: it is told, and does not count.
func (r *round) excuse(err error) error {
	if err != nil {
		r.log("not done: %v", err)
	}
	return errNotDone
}

func addPartition(ctx context.Context, r *round, _ *fault) error {
	led, err := r.brokers.leaders(ctx, r.cfg.Topics.Events)
	if err != nil || len(led) >= 2*r.settings.partitions {
		return r.excuse(err)
	}
	if err := r.brokers.addPartitions(ctx, r.cfg.Topics.Events); err != nil {
		return r.excuse(err)
	}
	return nil
}
