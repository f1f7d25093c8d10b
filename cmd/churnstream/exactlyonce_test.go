package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/telco"
	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// runMain makes the test binary the program itself, so that a test can kill it.
const runMain = "CHURNSTREAM_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// environment is a broker, a registry, a model and topics of this test's own.
type environment struct {
	brokers  []string
	registry string
	model    string // artefact directory
	prefix   string // of topics and group
	dir      string
}

func newEnvironment(t *testing.T) *environment {
	t.Helper()
	e := &environment{brokers: testkit.Brokers(t), registry: testkit.Registry(t), prefix: testkit.Name(t, "t"), dir: t.TempDir()}
	e.model = filepath.Join(e.dir, "model")
	code, _, stderr := runCommand(t, "train", "--telco", "--output", e.model)
	if code != exitDone {
		t.Fatalf("train: exit %d: %s", code, stderr)
	}
	return e
}

// runCommand runs one command line in this process.
func runCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, streams{strings.NewReader(""), &out, &errs, nil})
	return code, out.String(), errs.String()
}

func (e *environment) topic(name string) string { return e.prefix + "-" + name }

// config writes a configuration file with the given further lines.
func (e *environment) config(t *testing.T, more string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "churnstream.yaml")
	text := fmt.Sprintf(`
brokers: [%s]
registry: {urls: [%q]}
group: {id: %s, session_timeout: 6s}
model: %s
topics: {events: %s, scores: %s, dead_letters: %s, drift_state: %s, drift_alerts: %s}
create_topics: {enabled: true, partitions: 8, replication_factor: 1}
admin: {listen: "127.0.0.1:0"}
log: {format: json}
%s`, strings.Join(e.brokers, ", "), e.registry, e.prefix, e.model,
		e.topic("events"), e.topic("scores"), e.topic("dead"), e.topic("state"), e.topic("alerts"), more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// workerProcess is a command, mostly `churnstream run`, as a process of its own.
type workerProcess struct {
	*exec.Cmd
	exited chan error
	log    *logBuffer
}

// logBuffer keeps a process's log; it is read while the process writes.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func startWorker(t *testing.T, cfg string) *workerProcess {
	t.Helper()
	return startProcess(t, "run", "-c", cfg)
}

// startProcess runs a command of this binary as a process of its own.
func startProcess(t *testing.T, args ...string) *workerProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &workerProcess{Cmd: exec.Command(self, args...), exited: make(chan error, 1), log: &logBuffer{}}
	p.Env = append(os.Environ(), runMain+"=1")
	p.Stderr, p.Stdout = p.log, p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.Wait() }()
	t.Cleanup(func() {
		_ = p.Process.Kill() // it may have ended already
		if t.Failed() {
			t.Logf("log of %v (last 40 lines):\n%s", args, lastLines(p.log.String(), 40))
		}
	})
	return p
}

// ready says whether the worker has begun with a partition.
func ready(p *workerProcess) bool { return strings.Contains(p.log.String(), "partition ready") }

func lastLines(text string, n int) string {
	var lines []string
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// feed publishes n events of 5,000 customers whose inputs are all from the embedded table.
func (e *environment) feed(t *testing.T, n int, rate float64) {
	t.Helper()
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: e.brokers, ClientID: "test-feed"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	publisher, err := producer.NewIdempotent(producer.DefaultConfig(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	values := e.events(t)
	i := 0
	source := feed.SourceFunc(func(event *feed.Event) error {
		event.Key = append(event.Key[:0], "customer-"...)
		event.Key = strconv.AppendInt(event.Key, int64(i%5000), 10)
		event.Value = values[i%len(values)]
		i++
		return nil
	})
	sent, err := feed.Run(t.Context(), feed.Config{Topic: e.topic("events"), Rate: rate, Limit: n}, publisher, source, nil)
	if err != nil || sent != n {
		t.Errorf("fed %d of %d events: %v", sent, n, err)
	}
}

// events encodes the embedded customers by the model's contract.
func (e *environment) events(t *testing.T) [][]byte {
	t.Helper()
	model, err := scoring.Load(e.model)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := model.Contract().AvroSchema()
	if err != nil {
		t.Fatal(err)
	}
	registry, err := newRegistry(config.Registry{URLs: []string{e.registry}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := registry.Register(t.Context(), schemas.Subject(e.topic("events")), schema)
	if err != nil {
		t.Fatal(err)
	}
	csv, err := telco.CSV()
	if err != nil {
		t.Fatal(err)
	}
	source, err := feed.CSV(csv, model.Contract(), schemas.AppendFrame(nil, id), "customerID")
	if err != nil {
		t.Fatal(err)
	}
	var values [][]byte
	for event := (feed.Event{}); ; {
		switch err := source.Next(&event); {
		case errors.Is(err, io.EOF):
			return values
		case err != nil:
			t.Fatal(err)
		}
		values = append(values, bytes.Clone(event.Value))
	}
}

// scored is what an independent read_committed reader found in the score topic.
type scored struct {
	mu      sync.Mutex
	records int
	sources map[string]int   // topic/partition/offset → times seen
	last    map[string]int64 // customer → newest source offset
	faults  []string
}

func (s *scored) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records
}

// readScores follows the score topic with a client that shares no code with the product.
func (e *environment) readScores(t *testing.T) *scored {
	t.Helper()
	reader, err := kgo.NewClient(
		kgo.SeedBrokers(e.brokers...), kgo.ConsumeTopics(e.topic("scores")), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.MetadataMinAge(100*time.Millisecond),
	)
	if err != nil {
		t.Fatal(err)
	}
	s := &scored{sources: map[string]int{}, last: map[string]int64{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			fetches := reader.PollFetches(ctx)
			s.mu.Lock()
			fetches.EachRecord(s.see)
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		reader.Close()
	})
	return s
}

func (s *scored) see(r *kgo.Record) {
	s.records++
	_, body, err := schemas.SplitFrame(r.Value)
	var score schemas.Score
	if err == nil {
		err = schemas.DecodeScore(body, &score)
	}
	if err != nil {
		s.faults = append(s.faults, err.Error())
		return
	}
	s.sources[fmt.Sprintf("%s/%d/%d", score.SourceTopic, score.SourcePartition, score.SourceOffset)]++
	if customer := string(r.Key); s.last[customer] >= score.SourceOffset+1 {
		s.faults = append(s.faults, fmt.Sprintf("customer %s: offset %d after %d", customer, score.SourceOffset, s.last[customer]-1))
	} else {
		s.last[customer] = score.SourceOffset + 1 // 0 is nobody's
	}
}

// check wants every event exactly once and in its customer's order.
func (s *scored) check(t *testing.T, events int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records != events || len(s.sources) != events {
		t.Errorf("%d scores with %d distinct source coordinates for %d events", s.records, len(s.sources), events)
	}
	for i, f := range s.faults {
		if i == 10 {
			t.Errorf("and %d more", len(s.faults)-i)
			break
		}
		t.Error(f)
	}
}

func TestExactlyOnceWhenAWorkerIsKilledAndRestarted(t *testing.T) {
	const events = 200_000
	e := newEnvironment(t)
	cfg := e.config(t, "")
	first := startWorker(t, cfg)
	testkit.Eventually(t, 20*time.Second, func() bool { return ready(first) }, "the first worker owns partitions")
	second := startWorker(t, cfg)
	scores := e.readScores(t)
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		e.feed(t, events, 25_000)
	}()
	testkit.Eventually(t, 60*time.Second, func() bool { return scores.count() > events/3 }, "a third of the events are scored")
	if !ready(second) {
		t.Fatal("the second worker owns nothing, killing it would prove nothing")
	}
	if err := second.Process.Kill(); err != nil { // SIGKILL: no drain, no goodbye
		t.Fatal(err)
	}
	if err := <-second.exited; err == nil {
		t.Fatal("the second worker was killed and ended well")
	}
	third := startWorker(t, cfg)
	<-fed
	testkit.Eventually(t, 90*time.Second, func() bool { return scores.count() >= events }, "all events are scored")
	for _, p := range []*workerProcess{first, third} {
		stopWorker(t, p)
	}
	scores.check(t, events)
	if third.ProcessState.ExitCode() != exitDone {
		t.Errorf("the restarted worker ended with %d", third.ProcessState.ExitCode())
	}
}

// stopWorker asks a worker to drain and wants exit code 0 in time.
func stopWorker(t *testing.T, p *workerProcess) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		var exit *exec.ExitError
		if errors.As(err, &exit) || err != nil {
			t.Errorf("SIGTERM: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the worker did not end within 20 s of SIGTERM")
	}
}
