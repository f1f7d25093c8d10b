package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/producer"
)

const (
	retryJoin = 200 * time.Millisecond
	created   = 3 * time.Second // after the topics are: transactions on partitions that have no leader yet wait for seconds
	settled   = 4 * time.Second // after everything moves, before the next event
	window    = 8 * time.Second // in which an event's gaps are looked for, beside its timeouts
	workers   = 4
)

// scene is one run: topics, a feed and workers of its own.
type scene struct {
	settings
	name       string
	membership string
	fixedIDs   bool // workers have instance or member ids
	id         string
	client     *kafkawire.Client
	commits    *commits
	running    map[string]*process
	started    int
	feeding    context.CancelFunc
	fed        chan error
	stall      atomic.Int64 // longest time without an acknowledged write, ns
}

type process struct {
	*exec.Cmd
	exited chan struct{}
}

func measureCase(ctx context.Context, s settings, name string) error {
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: strings.Split(s.brokers, ","), ClientID: "rebalance"})
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	c := &scene{
		settings: s, name: name, id: "rebalance-" + strings.ToLower(rand.Text()[:8]), client: client,
		commits: newCommits(s.partitions), running: map[string]*process{},
	}
	membership, kind, _ := strings.Cut(name, "-")
	if membership == "kafka" { // kafka-go
		membership = "kafka-go"
		kind = strings.TrimPrefix(strings.TrimPrefix(name, "kafka-go"), "-")
	}
	c.membership = membership
	play, known := map[string]func(context.Context) error{
		"": c.comeAndGo, "static": c.comeBack, "member": c.comeBack, "coordinator": c.loseCoordinator,
	}[kind]
	if !known {
		return errors.New("no such case")
	}
	c.fixedIDs = kind == "static" || kind == "member"
	if err := c.createTopics(ctx); err != nil {
		return err
	}
	c.startFeed(ctx)
	defer c.killAll()
	pause(ctx, created)
	if err := play(ctx); err != nil {
		return err
	}
	return c.finish(ctx)
}

// comeAndGo: a fourth worker joins, leaves, another one comes and is killed.
func (c *scene) comeAndGo(ctx context.Context) error {
	if err := c.up(ctx, workers-1); err != nil {
		return err
	}
	return errors.Join(
		c.event(ctx, "a worker joins", window, func() error { return c.start("w4") }),
		c.event(ctx, "SIGTERM", window, func() error { return c.signal("w4", syscall.SIGTERM) }),
		c.event(ctx, "", window, func() error { return c.start("w5") }),
		c.event(ctx, "SIGKILL", window+c.expiry(), func() error { return c.signal("w5", syscall.SIGKILL) }),
	)
}

// comeBack: a worker is killed, then another one stopped, and each comes back under its id after a second.
func (c *scene) comeBack(ctx context.Context) error {
	if err := c.up(ctx, workers); err != nil {
		return err
	}
	back := func(name string, how syscall.Signal) func() error {
		return func() error {
			if err := c.signal(name, how); err != nil {
				return err
			}
			pause(ctx, time.Second)
			return c.start(name)
		}
	}
	return errors.Join(
		c.event(ctx, "SIGKILL, back under its id after 1 s", window, back("w4", syscall.SIGKILL)),
		c.event(ctx, "SIGTERM, back under its id after 1 s", window, back("w3", syscall.SIGTERM)),
	)
}

// loseCoordinator: the broker that coordinates the group is killed, and comes back later.
func (c *scene) loseCoordinator(ctx context.Context) error {
	if c.cluster == "" {
		return errors.New("-cluster is needed to kill a broker")
	}
	if err := c.up(ctx, workers); err != nil {
		return err
	}
	coordinator, err := c.client.Coordinator(ctx, kafkawire.Group, c.id)
	if err != nil {
		return err
	}
	answers := make(chan time.Duration, 1)
	c.stall.Store(0)
	err = c.event(ctx, "kill -9 of the group's coordinator", 40*time.Second, func() error {
		killed := time.Now()
		go func() { answers <- c.failOver(ctx, coordinator, killed) }()
		return c.script(ctx, "kill", coordinator)
	})
	if err != nil {
		return err
	}
	fmt.Printf("| | broker %d was killed; another one answers for the group after %d ms; longest write stall %d ms | | |\n",
		coordinator, (<-answers).Milliseconds(), time.Duration(c.stall.Load()).Milliseconds())
	if err := c.script(ctx, "start", coordinator); err != nil {
		return err
	}
	pause(ctx, 10*time.Second) // the replica catches up
	return ctx.Err()
}

// failOver is when another broker than dead answers for the group: the cluster's own time.
func (c *scene) failOver(ctx context.Context, dead int32, since time.Time) time.Duration {
	for ctx.Err() == nil {
		c.client.ForgetCoordinator(kafkawire.Group, c.id)
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		broker, err := c.client.Coordinator(attempt, kafkawire.Group, c.id)
		if err == nil && broker != dead {
			_, err = consumer.CommittedOffsets(attempt, c.client, c.id, consumer.Identity{}, []consumer.TopicPartition{{Topic: c.input(), Partition: 0}})
		}
		cancel()
		if err == nil && broker != dead {
			break
		}
		pause(ctx, 20*time.Millisecond)
	}
	return time.Since(since)
}

func (c *scene) script(ctx context.Context, action string, broker int32) error {
	out, err := exec.CommandContext(ctx, c.cluster, action, strconv.Itoa(int(broker))).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s %d: %w: %s", c.cluster, action, broker, err, out)
	}
	return nil
}

func (c *scene) expiry() time.Duration {
	if c.membership == "consumer" {
		return c.brokerWait
	}
	return c.session
}

func (c *scene) input() string  { return c.id + "-in" }
func (c *scene) output() string { return c.id + "-out" }

func (c *scene) createTopics(ctx context.Context) error {
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	admin := &kafka.Client{Addr: kafka.TCP(strings.Split(c.brokers, ",")...), Transport: transport}
	var topics []kafka.TopicConfig
	for _, name := range []string{c.input(), c.output()} {
		topics = append(topics, kafka.TopicConfig{Topic: name, NumPartitions: c.partitions, ReplicationFactor: c.replication})
	}
	r, err := admin.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: topics})
	if err != nil {
		return err
	}
	for name, err := range r.Errors {
		if err != nil {
			return fmt.Errorf("create %s: %w", name, err)
		}
	}
	return c.until(ctx, "the topics have leaders", 30*time.Second, func() bool {
		c.client.ForgetMetadata()
		for p := range c.partitions {
			for _, topic := range []string{c.input(), c.output()} {
				if _, err := c.client.Leader(ctx, topic, int32(p)); err != nil {
					return false
				}
			}
		}
		return true
	})
}

// startFeed writes events at the given rate until finish. A write that fails is given up and the feed goes on: what
// counts is what the input holds in the end.
func (c *scene) startFeed(ctx context.Context) {
	ctx, c.feeding = context.WithCancel(ctx)
	c.fed = make(chan error, 1)
	go func() {
		n := 0
		var value [100]byte
		source := feed.SourceFunc(func(e *feed.Event) error {
			n++
			e.Key = strconv.AppendInt(e.Key[:0], int64(n), 10)
			e.Value = value[:]
			return nil
		})
		last := time.Now()
		for ctx.Err() == nil {
			publisher, err := producer.NewIdempotent(producer.DefaultConfig(), c.client)
			if err != nil {
				c.fed <- err
				return
			}
			_, err = feed.Run(ctx, feed.Config{Topic: c.input(), Rate: float64(c.rate)}, publisher, source, func(int) {
				now := time.Now()
				c.stall.Store(max(c.stall.Load(), int64(now.Sub(last))))
				last = now
			})
			publisher.Close()
			if err != nil {
				fmt.Fprintln(os.Stderr, "feed:", err)
			}
		}
		c.fed <- nil
	}()
}

// up starts n workers and waits until all partitions move.
func (c *scene) up(ctx context.Context, n int) error {
	for i := range n {
		if err := c.start(fmt.Sprintf("w%d", i+1)); err != nil {
			return err
		}
	}
	err := c.until(ctx, "all workers commit all partitions", 90*time.Second, func() bool {
		seen := map[string]bool{}
		for _, w := range c.commits.owners() {
			seen[w] = true
		}
		return len(seen) == n && c.moves()
	})
	if err != nil {
		return err
	}
	pause(ctx, settled)
	return c.event(ctx, "none", window, func() error { return nil })
}

func (c *scene) moves() bool {
	return c.commits.all(func(_ int, last commit) bool { return time.Since(last.at) < time.Second })
}

// event does something and prints the gaps of the time after it.
func (c *scene) event(ctx context.Context, label string, span time.Duration, do func() error) error {
	from := time.Now()
	if err := do(); err != nil {
		return err
	}
	pause(ctx, time.Until(from.Add(span)))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if label != "" {
		fmt.Printf("| %s | %s | %s |\n", c.name, label, c.commits.gaps(from, time.Now()))
	}
	return nil
}

// start runs a worker of this name.
func (c *scene) start(name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	membership := c.membership
	if membership == "none" {
		membership = fmt.Sprintf("none:%d/%d", c.started, workers)
	}
	c.started++
	incarnation := fmt.Sprintf("%s.%d", name, c.started) // a process that comes back is not the one that went
	args := []string{
		"worker", "-name", name, "-brokers", c.brokers, "-membership", membership, "-group", c.id, "-input", c.input(), "-output", c.output(),
		"-session", c.session.String(), "-heartbeat", c.heartbeat.String(), "-max-wait", c.maxWait.String(), "-transactions", c.transactions,
	}
	if c.fixedIDs {
		args = append(args, map[string]string{"classic": "-instance", "consumer": "-member"}[c.membership], name)
	}
	log, err := os.OpenFile(filepath.Join(c.logs, c.id+"-"+name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	p := &process{Cmd: exec.Command(self, args...), exited: make(chan struct{})} //nolint:noctx // it is signalled, not cancelled
	p.Stderr = log
	reports, err := p.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	go func() {
		defer close(p.exited)
		for lines := bufio.NewScanner(reports); lines.Scan(); {
			var at, next int64
			var partition int32
			if _, err := fmt.Sscan(lines.Text(), &at, &partition, &next); err == nil { // else the process died within the line
				c.commits.add(partition, commit{time.UnixMicro(at), incarnation, next})
			}
		}
		_ = p.Wait() // how it ended is in its log
		log.Close()
	}()
	c.running[name] = p
	return nil
}

func (c *scene) signal(name string, how syscall.Signal) error {
	p := c.running[name]
	delete(c.running, name)
	return p.Process.Signal(how)
}

func (c *scene) killAll() {
	c.feeding()
	for _, p := range c.running {
		_ = p.Process.Kill() // it may have ended already
		<-p.exited
	}
}

// finish ends the feed, lets the workers reach the end, and reads the output back.
func (c *scene) finish(ctx context.Context) error {
	c.feeding()
	if err := <-c.fed; err != nil {
		return err
	}
	ends, err := consumer.ListOffsets(ctx, c.client, c.all(c.input()), consumer.Latest, consumer.ReadCommitted)
	if err != nil {
		return err
	}
	caughtUp := c.until(ctx, "everything is copied", 60*time.Second, func() bool {
		return c.commits.all(func(p int, last commit) bool {
			return last.next >= ends[consumer.TopicPartition{Topic: c.input(), Partition: int32(p)}]
		})
	})
	for _, p := range c.running {
		_ = p.Process.Signal(syscall.SIGTERM) // likewise
	}
	for name, p := range c.running {
		select {
		case <-p.exited:
		case <-time.After(30 * time.Second):
			fmt.Fprintf(os.Stderr, "%s: worker %s does not end after SIGTERM\n", c.name, name)
		}
	}
	result, err := c.readBack(ctx, ends)
	if err != nil {
		return err
	}
	fmt.Printf("| %s | output: %s | | |\n", c.name, result)
	return caughtUp
}

func (c *scene) all(topic string) []consumer.TopicPartition {
	var all []consumer.TopicPartition
	for p := range c.partitions {
		all = append(all, consumer.TopicPartition{Topic: topic, Partition: int32(p)})
	}
	return slices.Clip(all)
}

func (c *scene) until(ctx context.Context, what string, limit time.Duration, met func() bool) error {
	for deadline := time.Now().Add(limit); !met(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s", limit, what)
		}
		pause(ctx, 100*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
