// Command chaos takes a number of faults and a seed and says whether the product kept its guarantees: it starts real
// brokers and workers, feeds them with known events, lets the faults happen, and reads everything back with a client of
// another make. Nothing may be lost, doubled or out of its customer's order, dead letters must be what came, to the
// byte, and the drift states what a recount gives.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/internal/devregistry"
)

// settings of a run.
type settings struct {
	seed       uint64
	nodes      int
	port       int
	script     string
	faults     int
	aRound     int
	gap        time.Duration
	kinds      string
	events     int
	rate       int
	badOf      int
	partitions int
	workers    int
	limit      time.Duration
	most       time.Duration
	soak       bool
	logs       string
	report     string
	recovery   int
	enough     <-chan struct{} // is closed: no further fault, no further round
}

func main() { os.Exit(run()) }

func run() int {
	first, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "worker":
		err = work(first, os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "report":
		err = writeReport(os.Stdout, os.Args[2:])
	default:
		err = tormentUntilEnough(first, os.Args[1:])
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	return 0
}

// tormentUntilEnough lets the first signal end the faults, so that the round gets its verdict, and the second everything.
func tormentUntilEnough(first context.Context, args []string) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(first))
	defer cancel()
	go func() {
		select {
		case <-first.Done():
		case <-ctx.Done(): // it has ended by itself
			return
		}
		fmt.Fprintln(os.Stderr, "chaos: no further faults; a second signal ends without a verdict")
		again, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
		<-again.Done()
		cancel()
	}()
	return torment(ctx, first.Done(), args)
}

func torment(ctx context.Context, enough <-chan struct{}, args []string) error {
	s := settings{enough: enough}
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "usage: chaos [FLAGS]            let faults happen\n       chaos report FILE...    sum up what -report has written, as Markdown\n\n")
		flags.PrintDefaults()
	}
	flags.Uint64Var(&s.seed, "seed", 0, "of the first round; the next has the next number; 0: by the time")
	flags.IntVar(&s.nodes, "nodes", 1, "brokers: 1 or 3")
	flags.IntVar(&s.port, "port", 19392, "first port of the brokers; each takes two")
	flags.StringVar(&s.script, "cluster", "deploy/kafka/cluster.sh", "script that runs the brokers")
	flags.IntVar(&s.faults, "faults", 20, "how many in all")
	flags.IntVar(&s.aRound, "round", 20, "faults of a round, which has topics and a verdict of its own")
	flags.DurationVar(&s.gap, "gap", 4*time.Second, "between two faults, on average")
	flags.StringVar(&s.kinds, "kinds", "", "only faults whose name contains one of these words, comma-separated")
	flags.IntVar(&s.events, "events", 0, "go on with further rounds until so many events went through")
	flags.IntVar(&s.rate, "rate", 5000, "events a second, on average")
	flags.IntVar(&s.badOf, "bad", 50, "one event in so many cannot be scored")
	flags.IntVar(&s.partitions, "partitions", 6, "of the events topic at first")
	flags.IntVar(&s.workers, "workers", 3, "that are always there")
	flags.DurationVar(&s.limit, "limit", 0, "begin no round after this time; 0: no limit")
	flags.DurationVar(&s.most, "most", 0, "begin no fault of a round after this time; 0: no limit")
	flags.BoolVar(&s.soak, "soak", false, "a steady rate, outages made up for, and a first worker that no fault ends, to see what grows")
	flags.StringVar(&s.logs, "logs", os.TempDir(), "directory for configurations and logs; those of rounds with a fault of the product stay")
	flags.StringVar(&s.report, "report", "", "file to append an outcome a round to, as JSON lines")
	flags.IntVar(&s.recovery, "recovery", 0, "instead: measure how long scores stand still, so many times for each fault alone")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.seed == 0 {
		s.seed = uint64(time.Now().Unix())
	}
	if s.soak && s.workers < 2 {
		return fmt.Errorf("-soak -workers %d: one lives on, so there must be at least one more", s.workers)
	}
	if s.recovery > 0 {
		return tormentBrokers(ctx, s, nil)
	}
	from, err := named(kinds(), s.kinds)
	if err != nil {
		return err
	}
	return tormentBrokers(ctx, s, from)
}

func tormentBrokers(ctx context.Context, s settings, from []kind) (err error) {
	b, err := startBrokers(ctx, s.script, s.nodes, s.port)
	defer func() { err = errors.Join(err, b.stop(ctx)) }()
	if err != nil {
		return err
	}
	registry, err := devregistry.New(devregistry.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	serve, stop := context.WithCancel(context.WithoutCancel(ctx))
	g, serve := errgroup.WithContext(serve)
	g.Go(func() error { return registry.Run(serve) })
	defer func() {
		stop()
		err = errors.Join(err, g.Wait())
	}()
	if s.recovery > 0 {
		measuring, stop := context.WithCancel(ctx)
		defer stop()
		go func() {
			select {
			case <-s.enough:
				stop()
			case <-measuring.Done():
			}
		}()
		r, err := newRound(measuring, s, b, registry.URL(), s.seed)
		if err != nil {
			return err
		}
		return r.measure(measuring, s.recovery)
	}
	var total verdict
	began, faults, unclean := time.Now(), 0, 0
	for seed := s.seed; faults < s.faults || total.Events < s.events; seed++ {
		if s.limit > 0 && time.Since(began) > s.limit || ended(s.enough) {
			break
		}
		n := s.aRound
		if left := s.faults - faults; left > 0 {
			n = min(n, left)
		}
		o, err := playRound(ctx, s, from, b, registry.URL(), seed, n)
		if err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
		for _, n := range o.Faults {
			faults += n
		}
		total.add(&o.Verdict)
		if !o.clean() {
			unclean++
		}
		fmt.Printf("seed %d, %d broker(s), %s: %s; troubles: %d; so far %d faults, %d events in %s\n",
			o.Seed, o.Nodes, o.Variant, &o.Verdict, len(o.Troubles), faults, total.Events, time.Since(began).Round(time.Second))
	}
	fmt.Printf("in all %d faults: %s\n", faults, &total)
	if unclean > 0 {
		return fmt.Errorf("%d rounds were not clean", unclean)
	}
	return nil
}

func ended(enough <-chan struct{}) bool {
	select {
	case <-enough:
		return true
	default:
		return false
	}
}

func playRound(ctx context.Context, s settings, from []kind, b *brokers, registry string, seed uint64, faults int) (*outcome, error) {
	r, err := newRound(ctx, s, b, registry, seed)
	if err != nil {
		return nil, err
	}
	o, err := r.run(ctx, newPlan(newRandom(seed), from, faults, s.workers, s.nodes, s.gap, s.soak))
	if err != nil {
		return nil, err
	}
	for _, text := range append(o.Verdict.Examples, o.Troubles...) {
		fmt.Println("  ", text)
	}
	if s.report != "" {
		if err := appendOutcome(s.report, o); err != nil {
			return nil, err
		}
	}
	if o.clean() {
		return o, r.forget(ctx)
	}
	fmt.Printf("   logs are in %s\n", r.dir)
	return o, nil
}

func appendOutcome(path string, o *outcome) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(f).Encode(o), f.Close())
}
