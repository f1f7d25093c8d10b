package consumer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// javaMember is a member of Java's client with CooperativeStickyAssignor.
type javaMember struct {
	o     *ownership
	name  string
	topic string
	input io.Closer
	ended chan error
}

// javaJars are where Kafka's own jars lie: what deploy/kafka/kafka.sh fetched, newest first.
func javaJars(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip("no java on the path")
	}
	dirs := []string{os.Getenv("CHURNSTREAM_TEST_KAFKA_JARS")}
	if dirs[0] == "" {
		found, err := filepath.Glob("../.build/kafka/lib-*")
		if err != nil {
			t.Fatal(err)
		}
		dirs = found
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if clients, err := filepath.Glob(filepath.Join(dirs[i], "kafka-clients-*.jar")); err == nil && len(clients) > 0 {
			return dirs[i]
		}
	}
	t.Skip("no jars of Kafka's client: make kafka-up fetches them, or CHURNSTREAM_TEST_KAFKA_JARS names their directory")
	return ""
}

func (o *ownership) joinJava(name, jars string, brokers []string, cfg GroupConfig) *javaMember {
	o.t.Helper()
	command := exec.Command("java", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(jars, "*"), "testdata/CooperativeMember.java",
		strings.Join(brokers, ","), cfg.Group, cfg.Topics[0])
	input, err := command.StdinPipe()
	if err != nil {
		o.t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		o.t.Fatal(err)
	}
	var errs strings.Builder
	command.Stderr = &errs
	if err := command.Start(); err != nil {
		o.t.Fatal(err)
	}
	j := &javaMember{o: o, name: name, topic: cfg.Topics[0], input: input, ended: make(chan error, 1)}
	go func() {
		for lines := bufio.NewScanner(output); lines.Scan(); {
			j.told(lines.Text())
		}
		err := command.Wait()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, errs.String())
		}
		j.ended <- err
	}()
	o.t.Cleanup(func() { _ = j.stop() })
	return j
}

func (j *javaMember) told(line string) {
	words := strings.Fields(line)
	var partitions []TopicPartition
	for _, w := range words[1:] {
		n, err := strconv.Atoi(w)
		if err != nil {
			j.o.t.Errorf("%s says %q", j.name, line)
			return
		}
		partitions = append(partitions, TopicPartition{j.topic, int32(n)})
	}
	m := &member{ownership: j.o, name: j.name}
	switch words[0] {
	case "assigned":
		m.Assigned(partitions)
	case "revoked":
		m.Revoked(partitions)
	case "lost":
		m.Lost(partitions)
	default:
		j.o.t.Errorf("%s says %q", j.name, line)
	}
}

func (j *javaMember) stop() error {
	j.input.Close()
	err := <-j.ended
	j.ended <- err
	return err
}

// Either side leads, either side joins and leaves, and no partition ever has two owners.
func TestOneGroupWithJavasCooperativeStickyAssignor(t *testing.T) {
	jars := javaJars(t)
	brokers := testBrokers(t)
	for _, javaFirst := range []bool{false, true} {
		t.Run(map[bool]string{false: "ours leads", true: "Java leads"}[javaFirst], func(t *testing.T) {
			topic := createTopic(t, brokers, 8)
			cfg := groupConfig(uniqueName("group"), topic)
			cfg.SessionTimeout = DefaultGroupConfig().SessionTimeout // members must agree on nothing but the assignor
			o := newOwnership(t, classic)
			var a *member
			var java *javaMember
			if javaFirst {
				java = o.joinJava("java", jars, brokers, cfg)
				o.settles(8, map[string]int{"java": 8})
				a = o.join("a", newClient(t, brokers), cfg, nil)
			} else {
				a = o.join("a", newClient(t, brokers), cfg, nil)
				o.settles(8, map[string]int{"a": 8})
				java = o.joinJava("java", jars, brokers, cfg)
			}
			o.settles(8, map[string]int{"a": 4, "java": 4})
			b := o.join("b", newClient(t, brokers), cfg, nil)
			eventually(t, "three members own everything", func() bool { n, by := o.owned(); return n == 8 && len(by) == 3 && by["java"] >= 2 })
			if javaFirst { // the lead goes from Java to ours
				if err := java.stop(); err != nil {
					t.Error(err)
				}
				o.settles(8, map[string]int{"a": 4, "b": 4})
			} else { // and from ours to Java
				if err := a.stop(); err != nil {
					t.Error(err)
				}
				o.settles(8, map[string]int{"b": 4, "java": 4})
			}
			for _, m := range []string{"a", "b", "java"} {
				if n := o.count(m, "lost"); n > 0 {
					t.Errorf("%s lost %d partitions without a chance to commit", m, n)
				}
			}
			_ = b
		})
	}
}

// A running group goes from one protocol to the other member by member, and back.
func TestRollingChangeOfTheProtocolKeepsOneOwnerPerPartition(t *testing.T) {
	if os.Getenv("CHURNSTREAM_TEST_BROKERS") == "" {
		t.Skip("the embedded broker keeps the two protocols in groups apart; needs a real one")
	}
	brokers := testBrokers(t)
	needsConsumerProtocol(t, brokers)
	topic := createTopic(t, brokers, 12)
	cfg := groupConfig(uniqueName("group"), topic)
	o := newOwnership(t, classic)
	members := map[string]*member{}
	for _, name := range []string{"a", "b", "c"} {
		members[name] = o.join(name, newClient(t, brokers), cfg, nil)
	}
	o.settles(12, map[string]int{"a": 4, "b": 4, "c": 4})
	for _, p := range []groupProtocol{brokerSide, classic} {
		o.protocol = p
		for _, name := range []string{"a", "b", "c"} {
			if err := members[name].stop(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			members[name] = o.join(name, newClient(t, brokers), cfg, nil)
			o.settles(12, map[string]int{"a": 4, "b": 4, "c": 4})
		}
		for name := range members {
			// When the last member of the consumer protocol leaves, the broker may give the group a generation that
			// its classic members have not heard of; they begin again from what they have committed.
			if n := o.count(name, "lost"); n > 0 && p.name == brokerSide.name {
				t.Errorf("%s lost %d partitions without a chance to commit", name, n)
			}
		}
	}
}

// counted is a connection that is counted while it is open.
type counted struct {
	net.Conn
	open   *atomic.Int64
	closed atomic.Bool
}

func (c *counted) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// CHURNSTREAM_TEST_REBALANCES=1000 is the long form.
func TestManyRebalancesLeaveNoGoroutinesAndConnectionsBehind(t *testing.T) {
	rebalances := 50
	if text := os.Getenv("CHURNSTREAM_TEST_REBALANCES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("CHURNSTREAM_TEST_REBALANCES=%s is not a number", text)
		}
		rebalances = n
	}
	for _, p := range []groupProtocol{classic, brokerSide} {
		t.Run(p.name, func(t *testing.T) {
			brokers := embeddedGroups(t).ListenAddrs()
			topic := createTopic(t, brokers, 4)
			cfg := groupConfig(uniqueName("group"), topic)
			cfg.HeartbeatInterval /= 5
			o := newOwnership(t, p)
			var open atomic.Int64
			client := clientOver(t, brokers, func(c net.Conn) net.Conn {
				open.Add(1)
				return &counted{Conn: c, open: &open}
			})
			a := o.join("a", client, cfg, nil)
			o.settles(4, map[string]int{"a": 4})
			round := func() { // a rebalance for the one who comes, and one for the one who goes
				ctx, leave := context.WithCancel(context.Background())
				b := &member{ownership: o, name: "b", done: make(chan error, 1), cancel: leave}
				var err error
				if b.Membership, err = p.member(cfg, client, b); err != nil {
					t.Fatal(err)
				}
				go func() { b.done <- b.Run(ctx) }()
				o.settles(4, map[string]int{"a": 2, "b": 2})
				if err := b.stop(); err != nil {
					t.Fatal(err)
				}
				o.settles(4, map[string]int{"a": 4})
			}
			round() // whatever is made once
			goroutines, connections, first := runtime.NumGoroutine(), open.Load(), a.Identity().Generation
			done := func() int { return int(a.Identity().Generation - first) }
			for done() < rebalances {
				round()
			}
			eventually(t, "as many goroutines and connections as before", func() bool {
				client.CloseIdleConnections() // two requests at a time have left a second one idle
				return runtime.NumGoroutine() <= goroutines && open.Load() <= connections
			})
			t.Logf("after %d rebalances: %d goroutines (before: %d), %d connections (%d)", done(), runtime.NumGoroutine(), goroutines, open.Load(), connections)
		})
	}
}
