package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/internal/config"
)

// round is a number of faults on fresh topics and one group, with a verdict at its end.
type round struct {
	settings  settings
	name      string // of the group and before the names of the topics
	dir       string
	brokers   *brokers
	registry  string
	variant   variant
	cfg       config.Config
	catalogue *catalogue
	feeder    *feeder
	readBack  *readBack
	watch     *watch
	seats     []*workerSeat
	turns     map[target]chan struct{}
	began     time.Time

	mu       sync.Mutex
	extras   []*seat
	troubles []string // what went wrong that no record shows
}

// workerSeat is a seat with the token of the fault that befalls it.
type workerSeat struct {
	*seat
	turn chan struct{}
}

// variant is in which of its ways the product runs.
type variant struct {
	Transactions string `json:"transactions"`
	Protocol     string `json:"protocol"`
	FixedIDs     bool   `json:"fixed_ids"`
}

func (v variant) String() string {
	ids := "no fixed ids"
	if v.FixedIDs {
		ids = "fixed ids"
	}
	return fmt.Sprintf("a transaction a %s, %s protocol, %s", v.Transactions, v.Protocol, ids)
}

// variants: that of the consumer protocol without fixed ids is left out, because there every killed worker costs the
// broker's 45 s.
func variants() []variant {
	return []variant{
		{"worker", "classic", false},
		{"worker", "classic", true},
		{"partition", "classic", false},
		{"worker", "consumer", true},
		{"worker", "classic", false},
		{"partition", "consumer", true},
		{"partition", "classic", true},
	}
}

// outcome of a round, a line of the report.
type outcome struct {
	Seed      uint64               `json:"seed"`
	Nodes     int                  `json:"nodes"`
	Variant   variant              `json:"variant"`
	Began     time.Time            `json:"began"`
	Seconds   float64              `json:"seconds"`
	Rate      float64              `json:"rate"` // events a second that the brokers acknowledged
	Faults    map[string]int       `json:"faults"`
	Recovered map[string][]float64 `json:"recovered"` // by kind: seconds from the fault's end until every partition went on
	Verdict   verdict              `json:"verdict"`
	Troubles  []string             `json:"troubles,omitempty"`
	Sizes     map[string][]size    `json:"sizes,omitempty"` // of each seat's longest-lived process, over time
}

func (o *outcome) clean() bool { return o.Verdict.faults() == 0 && len(o.Troubles) == 0 }

const (
	drainLimit   = 40 * time.Second
	catchUpLimit = 3 * time.Minute
)

// newRound makes the topics of a round.
func newRound(ctx context.Context, s settings, b *brokers, registry string, seed uint64) (*round, error) {
	r := &round{
		settings: s, name: fmt.Sprintf("chaos-%d-%d", s.nodes, seed), brokers: b, registry: registry, began: time.Now(),
		turns: map[target]chan struct{}{aBroker: make(chan struct{}, 1), aTopic: make(chan struct{}, 1)},
	}
	r.dir = filepath.Join(s.logs, r.name)
	if err := errors.Join(os.RemoveAll(r.dir), os.MkdirAll(r.dir, 0o750)); err != nil { // of an earlier run of the seed
		return nil, err
	}
	r.variant = variants()[seed%uint64(len(variants()))]
	var err error
	if r.catalogue, err = newCatalogue(ctx, filepath.Join(r.dir, "model"), registry, seed, s.badOf, s.rate); err != nil {
		return nil, err
	}
	r.configure()
	r.feeder = &feeder{catalogue: r.catalogue, topic: r.cfg.Topics.Events, rate: s.rate, brokers: b.addresses, steady: s.soak}
	r.watch = &watch{round: r}
	for _, topic := range r.topics() {
		partitions, settings := s.partitions, map[string]string{"segment.bytes": "67108864"}
		if topic == r.cfg.Topics.DriftState {
			partitions, settings = 2, map[string]string{"cleanup.policy": "compact", "segment.bytes": "4194304"}
		}
		if err := b.createTopic(ctx, topic, partitions, settings); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *round) configure() {
	c := config.Default()
	c.Brokers, c.Registry.URLs, c.Model = r.brokers.addresses, []string{r.registry}, filepath.Join(r.dir, "model")
	c.Topics = config.Topics{
		Events: r.name + "-events", Scores: r.name + "-scores", DeadLetters: r.name + "-dead",
		DriftState: r.name + "-state", DriftAlerts: r.name + "-alerts",
	}
	c.Group.ID, c.Group.Protocol = r.name, r.variant.Protocol
	c.Produce.Transactions = r.variant.Transactions
	c.Admin.Listen = ""
	r.cfg = c
}

func (r *round) topics() []string {
	t := r.cfg.Topics
	return []string{t.Events, t.Scores, t.DeadLetters, t.DriftState, t.DriftAlerts}
}

// sit makes a seat; fixed ids are its name.
func (r *round) sit(name string) (*seat, error) {
	cfg := r.cfg
	if r.variant.FixedIDs {
		if cfg.Group.Protocol == "consumer" {
			cfg.Group.MemberID = r.name + "-" + name
		} else {
			cfg.Group.InstanceID = name
		}
	}
	return newSeat(name, cfg, r.dir, r.brokers.addresses)
}

// extra is a seat for a worker that is added.
func (r *round) extra() (*seat, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.sit(fmt.Sprintf("extra%d", len(r.extras)+1))
	if err == nil {
		r.extras = append(r.extras, s)
	}
	return s, err
}

func (r *round) log(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %s %s\n", time.Now().Format(time.TimeOnly), r.name, fmt.Sprintf(format, args...))
}

// stuck notes trouble.
func (r *round) stuck(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.log("TROUBLE: %s", text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.troubles = append(r.troubles, text)
}

// run feeds, carries out the plan, lets the workers reach the end, and judges. An error is one of the run itself: what
// is wrong with the product is in the outcome.
func (r *round) run(ctx context.Context, plan []*fault) (*outcome, error) {
	r.log("begins: %s", r.variant)
	defer r.abandon()
	for i := range r.settings.workers {
		s, err := r.sit(fmt.Sprintf("worker%d", i+1))
		if err != nil {
			return nil, err
		}
		r.seats = append(r.seats, &workerSeat{s, make(chan struct{}, 1)})
		if err := s.start(); err != nil {
			return nil, err
		}
	}
	var err error
	r.readBack, err = newReadBack(r)
	defer r.readBack.close()
	if err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(ctx)
	defer stop()
	g, background := errgroup.WithContext(background)
	feeding, stopFeed := context.WithCancel(background)
	fed, began, rate := make(chan struct{}), time.Now(), 0.0
	g.Go(func() error {
		defer close(fed)
		r.feeder.run(feeding)
		rate = float64(r.feeder.fed.Load()) / time.Since(began).Seconds()
		return nil
	})
	g.Go(func() error { return r.watch.run(background) })
	g.Go(func() error { return r.readBack.run(background) })
	err = until(ctx, time.Minute, "every partition has been committed", func() bool {
		r.watch.mu.Lock()
		defer r.watch.mu.Unlock()
		return len(r.watch.seen) == r.settings.partitions
	})
	if err != nil {
		stopFeed()
		return nil, errors.Join(err, errors.New(lastLines(r.seats[0].log, 0, 1)))
	}
	err = r.carryOut(background, plan)
	if err == nil {
		err = until(background, stuckAfter+time.Minute, "all partitions go on after the last fault", r.watch.settled)
	}
	stopFeed()
	<-fed
	if err != nil {
		stop()
		return nil, errors.Join(err, g.Wait())
	}
	if err := r.bringUp(ctx); err != nil {
		return nil, err
	}
	if err := until(ctx, catchUpLimit, "everything is committed", func() bool { return r.caughtUp(ctx) }); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		r.stuck("%v: %s", err, r.positions(ctx))
	}
	for _, s := range r.seats {
		if err := s.drain(ctx); err != nil {
			r.stuck("%v", err)
		}
	}
	stop()
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return r.judge(ctx, plan, rate)
}

// bringUp takes back what faults may have left, which is nothing, unless a process ended by itself.
func (r *round) bringUp(ctx context.Context) error {
	for _, s := range r.seats {
		if err := s.start(); err != nil {
			return err
		}
	}
	return r.whole(ctx)
}

func (r *round) caughtUp(ctx context.Context) bool {
	ends, err := r.brokers.ends(ctx, r.cfg.Topics.Events)
	if err != nil {
		return false
	}
	committed, err := r.brokers.committed(ctx, r.name, r.cfg.Topics.Events, len(ends))
	if err != nil {
		return false
	}
	for p, end := range ends {
		if committed[p] < end {
			return false
		}
	}
	return true
}

// positions says where each partition stands.
func (r *round) positions(ctx context.Context) string {
	ends, err := r.brokers.ends(ctx, r.cfg.Topics.Events)
	if err != nil {
		return err.Error()
	}
	committed, err := r.brokers.committed(ctx, r.name, r.cfg.Topics.Events, len(ends))
	return fmt.Sprintf("committed %v of %v %v", committed, ends, err)
}

// judge reads the rest back.
func (r *round) judge(ctx context.Context, plan []*fault, rate float64) (*outcome, error) {
	if err := r.readBack.rest(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		r.stuck("not all was read, and what was not counts as lost: %v", err)
	}
	o := &outcome{
		Seed: r.catalogue.seed, Nodes: r.settings.nodes, Variant: r.variant, Began: r.began, Rate: rate,
		Faults: map[string]int{}, Recovered: map[string][]float64{}, Sizes: map[string][]size{},
	}
	var err error
	if o.Verdict, err = r.readBack.ledger.finish(r.feeder.tried()); err != nil {
		return nil, err
	}
	for _, f := range plan {
		if f.done {
			o.Faults[f.kind.name]++
			o.Recovered[f.kind.name] = append(o.Recovered[f.kind.name], f.recovered.Seconds())
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o.Troubles = r.troubles
	for _, s := range r.all() {
		o.Troubles = append(o.Troubles, s.deaths...)
		if len(s.sizes) > 0 {
			o.Sizes[s.name] = s.sizes
		}
	}
	o.Seconds = time.Since(r.began).Seconds()
	return o, nil
}

func (r *round) all() []*seat {
	var all []*seat
	for _, s := range r.seats {
		all = append(all, s.seat)
	}
	return append(all, r.extras...)
}

// abandon leaves nothing behind: processes, proxies.
func (r *round) abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.all() {
		s.close()
	}
}

// forget deletes what a clean round leaves behind.
func (r *round) forget(ctx context.Context) error {
	return errors.Join(os.RemoveAll(r.dir), r.brokers.deleteTopics(ctx, r.topics()...))
}

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }
