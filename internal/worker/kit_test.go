package worker

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/internal/train"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// example is a model of four inputs, trained once for all tests.
type example struct {
	model   *scoring.Model
	profile *drift.Profile
}

var (
	trained = sync.OnceValues(func() (*example, error) { return trainExample("drop: [seen]") })
	classed = sync.OnceValues(func() (*example, error) {
		return trainExample("classes: {by: weekdays/1h, zone: Europe/Berlin, time: seen}")
	})
)

// trainExample trains with a line more in the specification.
func trainExample(more string) (*example, error) {
	const specification = `
name: example
version: 1.0.0
customer: id
label: {column: churn, positive: "yes", definition: left, horizon: 30d}
inputs:
  - {column: tenure, kind: number, min: 0, max: 1000}
  - {column: charges, kind: number, nullable: true, min: 0, max: 10000}
  - {column: senior, kind: boolean}
  - {column: contract, kind: category, nullable: true}
threshold: 0.4
`
	var csv strings.Builder
	csv.WriteString("id,tenure,charges,senior,contract,churn,seen\n")
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 4000 {
		e := randomEvent(random, i)
		charges, contract, churn := fmt.Sprintf("%.2f", e.numbers[1]), string(e.categories[3]), "no"
		if math.IsNaN(e.numbers[1]) {
			charges = ""
		}
		if contract == "Ten year" { // is to be unseen
			contract = "Two year"
		}
		if random.Float64() < 1/(1+math.Exp(e.numbers[0]/10-2-e.numbers[2])) {
			churn = "yes"
		}
		seen := time.UnixMilli(int64(i) * 5 * time.Minute.Milliseconds()).UTC().Format(time.RFC3339)
		fmt.Fprintf(&csv, "%d,%.0f,%s,%.0f,%s,%s,%s\n", i, e.numbers[0], charges, e.numbers[2], contract, churn, seen)
	}
	spec, err := train.ParseSpecification([]byte(specification + more))
	if err != nil {
		return nil, err
	}
	table, err := train.ReadTable(spec, strings.NewReader(csv.String()))
	if err != nil {
		return nil, err
	}
	artefact, err := train.Fit(spec, table, train.Provenance{CreatedAt: time.Unix(0, 0), LibraryVersion: "test"})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "churnstream-worker-test-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	dir = filepath.Join(dir, "model")
	if _, err := scoring.WriteArtefact(dir, *artefact); err != nil {
		return nil, err
	}
	e := &example{}
	if e.model, err = scoring.Load(dir); err != nil {
		return nil, err
	}
	e.profile, err = drift.ReadProfile(bytes.NewReader(e.model.Profile()))
	return e, err
}

func loadExample(t testing.TB) *example {
	t.Helper()
	return load(t, trained)
}

func load(t testing.TB, trained func() (*example, error)) *example {
	t.Helper()
	e, err := trained()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// event is one row in the order of the example's inputs, with what makes a record of it.
type event struct {
	key        string
	time       int64
	numbers    []float64
	categories [][]byte
}

// randomEvent draws from the population that the example was trained on: now and then an input is missing or unseen.
func randomEvent(random *rand.Rand, customer int) event {
	e := event{
		key:        fmt.Sprintf("customer-%d", customer),
		numbers:    []float64{float64(random.IntN(72)), math.Round(random.Float64()*12000) / 100, float64(random.IntN(2)), math.NaN()},
		categories: [][]byte{3: []byte([]string{"Month-to-month", "One year", "Two year"}[random.IntN(3)])},
	}
	switch random.IntN(20) {
	case 0:
		e.numbers[1] = math.NaN()
	case 1:
		e.categories[3] = nil
	case 2:
		e.categories[3] = []byte("Ten year")
	}
	return e
}

// environment is a cluster, a registry, topics and a group of one test's own.
type environment struct {
	*example
	t        testing.TB
	brokers  []string
	cfg      config.Config
	registry *outage
	client   *kgo.Client // produces where it is told to, and asks
	encoder  *schemas.Encoder
	schemaID int32
	base     int64 // time of the first event, in ms
	random   *rand.Rand

	tap  *tap // between the workers and the brokers; nil: nothing is
	sent []sentEvent
}

// sentEvent is an event where the input topic has it.
type sentEvent struct {
	event
	partition int32
	offset    int64
	bad       bool
}

// partitions of the topics of an environment.
type partitions struct{ events, scores, states int }

// newEnvironment makes topics on brokers.
func newEnvironment(t testing.TB, brokers []string, n partitions) *environment {
	t.Helper()
	e := &environment{
		example: loadExample(t), t: t, brokers: brokers, registry: newOutage(t), cfg: config.Default(),
		base: time.Now().Add(-5 * time.Minute).UnixMilli(), random: rand.New(rand.NewPCG(2, 3)),
	}
	c := &e.cfg
	c.Brokers = brokers
	c.Topics.Events = testkit.Topic(t, brokers, "events", n.events)
	c.Topics.Scores = testkit.Topic(t, brokers, "scores", n.scores)
	c.Topics.DeadLetters = testkit.Topic(t, brokers, "dead", 1)
	c.Topics.DriftState = testkit.Topic(t, brokers, "state", n.states)
	c.Topics.DriftAlerts = testkit.Topic(t, brokers, "alerts", 1)
	c.Group.ID = testkit.Name(t, "group")
	c.Group.HeartbeatInterval = config.Duration(100 * time.Millisecond)
	c.Fetch.MaxWait = config.Duration(20 * time.Millisecond)
	c.Produce.TransactionTimeout = config.Duration(time.Second) // of what a crash or a loss leaves open
	var err error
	e.client, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(10*time.Millisecond), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.client.Close)
	contract := e.model.Contract()
	if e.encoder, err = schemas.NewEncoder(contract); err != nil {
		t.Fatal(err)
	}
	schema, err := contract.AvroSchema()
	if err != nil {
		t.Fatal(err)
	}
	if e.schemaID, err = e.registry.client(t).Register(t.Context(), schemas.Subject(c.Topics.Events), schema); err != nil {
		t.Fatal(err)
	}
	return e
}

// outage is a registry that can be switched off.
type outage struct {
	url      string
	down     atomic.Bool
	cacheDir string // of clients; empty: none
}

func newOutage(t testing.TB) *outage {
	t.Helper()
	target, err := url.Parse(testkit.Registry(t))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	registry := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport}
	o := &outage{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.down.Load() {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
		registry.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	o.url = server.URL
	return o
}

func (o *outage) client(t testing.TB) *schemas.HTTPRegistry {
	t.Helper()
	cfg := schemas.DefaultRegistryConfig()
	cfg.URLs, cfg.RetryFor, cfg.UnknownFor = []string{o.url}, 100*time.Millisecond, 50*time.Millisecond
	cfg.CacheDir = o.cacheDir
	registry, err := schemas.NewRegistry(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registry.Close)
	return registry
}

// record encodes an event for a partition.
func (e *environment) record(v event, partition int32) *kgo.Record {
	value, err := e.encoder.AppendEvent(schemas.AppendFrame(nil, e.schemaID), v.numbers, v.categories)
	if err != nil {
		e.t.Fatal(err)
	}
	return &kgo.Record{Topic: e.cfg.Topics.Events, Partition: partition, Key: []byte(v.key), Value: value, Timestamp: time.UnixMilli(v.time)}
}

// feed publishes n random events of 40 customers, a customer always to the same partition, their times 100 ms apart.
func (e *environment) feed(n int) {
	e.t.Helper()
	count := e.partitionsOf(e.cfg.Topics.Events)
	records, events := make([]*kgo.Record, n), make([]event, n)
	for i := range n {
		events[i] = randomEvent(e.random, e.random.IntN(40))
		events[i].time = e.base + int64(len(e.sent)+i)*100
		records[i] = e.record(events[i], producer.PartitionFor([]byte(events[i].key), count))
	}
	e.publish(events, records)
}

// publish waits for the acknowledgements and notes where the events are.
func (e *environment) publish(events []event, records []*kgo.Record) {
	e.t.Helper()
	if err := e.client.ProduceSync(e.t.Context(), records...).FirstErr(); err != nil {
		e.t.Fatal(err)
	}
	for i, r := range records {
		e.sent = append(e.sent, sentEvent{event: events[i], partition: r.Partition, offset: r.Offset})
	}
}

// feedBad publishes a record that no event can be read from.
func (e *environment) feedBad(key string, value []byte) {
	e.t.Helper()
	e.publish([]event{{key: key}}, []*kgo.Record{{Topic: e.cfg.Topics.Events, Key: []byte(key), Value: value, Timestamp: time.UnixMilli(e.base)}})
	e.sent[len(e.sent)-1].bad = true
}

func (e *environment) partitionsOf(topic string) int32 {
	e.t.Helper()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
	response, err := request.RequestWith(e.t.Context(), e.client)
	if err != nil {
		e.t.Fatal(err)
	}
	return int32(len(response.Topics[0].Partitions))
}

// running is a worker at work.
type running struct {
	*Worker
	t        testing.TB
	env      *environment
	metrics  *prometheus.Registry
	wire     *wire
	log      *logBuffer
	stop     context.CancelFunc
	returned chan error
	ended    bool
}

// start runs a worker; change may alter its configuration, prepared the worker itself.
func (e *environment) start(change func(*config.Config), prepared ...func(*Worker)) *running {
	e.t.Helper()
	cfg := e.cfg
	if change != nil {
		change(&cfg)
	}
	r := &running{t: e.t, env: e, metrics: prometheus.NewRegistry(), wire: &wire{tap: e.tap}, log: &logBuffer{}, returned: make(chan error, 1)}
	transport := &kafka.Transport{ClientID: "worker-test", Dial: r.wire.dial}
	var err error
	r.Worker, err = New(cfg, Dependencies{
		Transport: transport, Model: e.model, Profile: e.profile, Registry: e.registry.client(e.t),
		Metrics: r.metrics, Log: zerolog.New(r.log).Level(zerolog.InfoLevel), Version: "test",
	})
	if err != nil {
		e.t.Fatal(err)
	}
	// A topic is looked up in Append, which no context bounds: a worker that crashes meanwhile ends after this time.
	r.producing.RequestTimeout = time.Second
	if r.shared, err = newShared(cfg, r.producing, r.client, r.transactionalID); err != nil {
		e.t.Fatal(err)
	}
	for _, p := range prepared {
		p(r.Worker)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.returned <- r.Run(ctx) }()
	e.t.Cleanup(func() {
		r.end()
		transport.CloseIdleConnections()
		if e.t.Failed() {
			e.t.Logf("log of a worker:\n%s", r.log)
		}
	})
	return r
}

// ready waits until the worker has begun with n partitions.
func (r *running) ready(n int) *running {
	r.t.Helper()
	testkit.Eventually(r.t, patience, func() bool {
		status := r.Ready()
		return status.OK && len(status.Details.([]PartitionState)) == n
	}, "the worker is ready with %d partitions: %v", n, shown(func() any { return r.Ready() }))
	return r
}

// end drains the worker and wants it to end without an error.
func (r *running) end() {
	r.t.Helper()
	if r.ended {
		return
	}
	r.ended = true
	r.stop()
	select {
	case err := <-r.returned:
		if err != nil {
			r.t.Errorf("the worker ended with %v", err)
		}
	case <-time.After(patience):
		r.t.Fatal("the worker does not end")
	}
}

// crash cuts the worker off from the brokers for good and makes the group forget it, as if its session had run out.
func (r *running) crash() {
	r.t.Helper()
	member := r.membership.Identity().MemberID
	r.wire.cut()
	r.ended = true
	r.mu.Lock()
	for _, owned := range r.tasks {
		owned.abandon()
	}
	r.mu.Unlock()
	r.stop()
	request := kmsg.NewPtrLeaveGroupRequest()
	request.Group = r.env.cfg.Group.ID
	request.Members = []kmsg.LeaveGroupRequestMember{{MemberID: member}}
	if _, err := request.RequestWith(r.t.Context(), r.env.client); err != nil {
		r.t.Fatal(err)
	}
	select {
	case err := <-r.returned:
		if err != nil {
			r.t.Logf("the crashed worker ended with %v", err)
		}
	case <-time.After(patience):
		r.t.Fatal("a worker without a network does not end")
	}
}

// wire is the network of one worker; cut, nothing goes through any more.
type wire struct {
	tap   *tap // nil: none
	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		conn.Close()
		return nil, net.ErrClosed
	}
	if w.tap != nil {
		conn = w.tap.wrap(conn)
	}
	w.conns = append(w.conns, conn)
	return conn, nil
}

func (w *wire) cut() {
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	w.hangUp()
}

// mend lets everything through again.
func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
}

// hangUp closes the connections that there are; new ones can be made.
func (w *wire) hangUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

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

// shown is an argument of Eventually whose value is taken when the wait failed.
type shown func() any

func (s shown) String() string { return fmt.Sprintf("%+v", s()) }

// read gives all records of a topic that a read_committed client of another make sees, in their partitions' order.
func (e *environment) read(topic string) []*kgo.Record {
	e.t.Helper()
	var records []*kgo.Record
	for partition := range e.partitionsOf(topic) {
		end := e.endOf(topic, partition, consumer.ReadUncommitted) // the broker may still be ending transactions: wait for them
		if end == 0 {
			continue
		}
		reader, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
		if err != nil {
			e.t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(e.t.Context(), patience)
		for next := int64(0); next < end; {
			fetches := reader.PollFetches(ctx)
			if err := fetches.Err0(); err != nil {
				reader.Close()
				cancel()
				e.t.Fatalf("read %s/%d up to %d: %v at %d", topic, partition, end, err, next)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				next = r.Offset + 1
				if !r.Attrs.IsControl() {
					records = append(records, r)
				}
			})
		}
		cancel()
		reader.Close()
	}
	return records
}

// endOf is the last stable offset, or the end of the log.
func (e *environment) endOf(topic string, partition int32, isolation consumer.Isolation) int64 {
	e.t.Helper()
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID, request.IsolationLevel = -1, int8(isolation)
	ask := kmsg.NewListOffsetsRequestTopic()
	ask.Topic = topic
	one := kmsg.NewListOffsetsRequestTopicPartition()
	one.Partition, one.Timestamp = partition, -1
	ask.Partitions = append(ask.Partitions, one)
	request.Topics = append(request.Topics, ask)
	response, err := request.RequestWith(e.t.Context(), e.client)
	if err != nil {
		e.t.Fatal(err)
	}
	return response.Topics[0].Partitions[0].Offset
}

// committed is the sum of the group's committed offsets of the events.
func (e *environment) committed() int64 {
	e.t.Helper()
	request := kmsg.NewPtrOffsetFetchRequest()
	topic := kmsg.NewOffsetFetchRequestGroupTopic()
	topic.Topic = e.cfg.Topics.Events
	for p := range e.partitionsOf(topic.Topic) {
		topic.Partitions = append(topic.Partitions, p)
	}
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group, group.Topics = e.cfg.Group.ID, append(group.Topics, topic)
	request.Groups = append(request.Groups, group)
	response, err := request.RequestWith(e.t.Context(), e.client)
	if err != nil {
		e.t.Fatal(err)
	}
	sum := int64(0)
	for _, g := range response.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				sum += max(0, p.Offset)
			}
		}
	}
	return sum
}

// drained waits until every event sent is committed.
func (e *environment) drained() {
	e.t.Helper()
	end := int64(0)
	for p := range e.partitionsOf(e.cfg.Topics.Events) {
		end += e.endOf(e.cfg.Topics.Events, p, consumer.ReadUncommitted)
	}
	// The marker of a transaction may be written after its end was answered, behind the end that was seen here.
	testkit.Eventually(e.t, patience, func() bool { return e.committed() >= end }, "all %d offsets are committed: %v", end, shown(func() any { return e.committed() }))
}

// settled waits until the markers of all transactions of a topic are written: what is committed can be read then.
func (e *environment) settled(topic string) {
	e.t.Helper()
	for p := range e.partitionsOf(topic) {
		testkit.Eventually(e.t, patience, func() bool {
			return e.endOf(topic, p, consumer.ReadCommitted) == e.endOf(topic, p, consumer.ReadUncommitted)
		}, "no transaction is open in %s/%d", topic, p)
	}
}

// scores decodes the score topic.
func (e *environment) scores() []scoreRecord {
	e.t.Helper()
	records := e.read(e.cfg.Topics.Scores)
	scores := make([]scoreRecord, len(records))
	for i, r := range records {
		scores[i].record = r
		_, body, err := schemas.SplitFrame(r.Value)
		if err == nil {
			err = schemas.DecodeScore(body, &scores[i].Score)
		}
		if err != nil {
			e.t.Fatalf("score %s/%d@%d: %v", r.Topic, r.Partition, r.Offset, err)
		}
	}
	return scores
}

type scoreRecord struct {
	schemas.Score
	record *kgo.Record
}

// checkScores wants every good event scored with the right fields and every bad one in the dead letters: once, or, when
// repeats are allowed, at least once.
func (e *environment) checkScores(repeats bool) {
	e.t.Helper()
	type source struct {
		partition int32
		offset    int64
	}
	seen := map[source]int{}
	want := map[source]*sentEvent{}
	for i := range e.sent {
		want[source{e.sent[i].partition, e.sent[i].offset}] = &e.sent[i]
	}
	rows := schemas.NewRows(len(e.model.Contract().Inputs), 1)
	scorer := e.model.NewScorer(scoring.ScorerConfig{Reasons: e.cfg.Reasons.Top, Contributions: true})
	var results scoring.Results
	newest := map[string]int64{}
	outputs := e.partitionsOf(e.cfg.Topics.Scores)
	for _, s := range e.scores() {
		at := source{s.SourcePartition, s.SourceOffset}
		seen[at]++
		sent := want[at]
		fail := func(what string, got, wanted any) {
			e.t.Helper()
			e.t.Errorf("score of %d@%d: %s is %v, want %v", at.partition, at.offset, what, got, wanted)
		}
		if sent == nil || sent.bad {
			fail("the event", "none", "one that was sent")
			continue
		}
		rows.Reset()
		numbers, categories := rows.Row(rows.Append())
		copy(numbers, sent.numbers)
		copy(categories, sent.categories)
		scorer.Score(rows, &results)
		check := func(what string, got, wanted any) {
			e.t.Helper()
			if fmt.Sprint(got) != fmt.Sprint(wanted) {
				fail(what, got, wanted)
			}
		}
		check("source topic", s.SourceTopic, e.cfg.Topics.Events)
		check("customer", string(s.CustomerID), sent.key)
		check("key", string(s.record.Key), sent.key)
		check("event time", s.EventTime, sent.time)
		check("record timestamp", s.record.Timestamp.UnixMilli(), sent.time)
		check("model", s.ModelName+"@"+s.ModelVersion+" "+s.ModelDigest, e.model.Name()+"@"+e.model.Version()+" "+e.model.Digest())
		check("variant", s.Variant, "champion")
		check("probability", math.Float64bits(s.Probability), math.Float64bits(results.Probability[0]))
		check("margin", math.Float64bits(s.Margin), math.Float64bits(results.Margin[0]))
		check("threshold", s.Threshold, e.model.Threshold())
		check("decision", s.Churn, results.Probability[0] >= e.model.Threshold())
		check("missing", s.Missing, results.Missing(0))
		check("unseen", s.Unseen, results.Unseen(0))
		check("partition", s.record.Partition, producer.PartitionFor([]byte(sent.key), outputs))
		check("reasons", s.Reasons, results.Reasons(0))
		e.checkReasons(&s.Score, &results)
		if s.ScoredAt < sent.time || s.ScoredAt > time.Now().UnixMilli() {
			fail("scored at", s.ScoredAt, "between the event and now")
		}
		if !repeats && newest[sent.key] > s.SourceOffset { // a customer's scores are in one partition of each topic
			fail("order", s.SourceOffset, newest[sent.key])
		}
		newest[sent.key] = s.SourceOffset
	}
	dead := 0
	for _, r := range e.read(e.cfg.Topics.DeadLetters) {
		var at source
		for _, h := range r.Headers {
			switch h.Key {
			case schemas.HeaderOffset:
				at.offset = e.number(h.Value)
			case schemas.HeaderPartition:
				at.partition = int32(e.number(h.Value))
			}
		}
		if sent := want[at]; sent == nil || !sent.bad {
			e.t.Errorf("dead letter of %+v, which is no bad record", at)
		}
		seen[at]++
		dead++
	}
	lost, doubled := 0, 0
	for at := range want {
		switch n := seen[at]; {
		case n == 0:
			lost++
		case n > 1:
			doubled++
		}
	}
	if lost > 0 || doubled > 0 && !repeats {
		e.t.Errorf("of %d events %d are lost and %d came out more than once", len(want), lost, doubled)
	}
}

func (e *environment) number(text []byte) int64 {
	e.t.Helper()
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		e.t.Error(err)
	}
	return n
}

// checkReasons wants the reasons to be contributions to the margin: with what is not named they add up to it.
func (e *environment) checkReasons(s *schemas.Score, results *scoring.Results) {
	e.t.Helper()
	contract := e.model.Contract()
	sum := results.Bias
	rest := slices.Clone(results.Contributions(0))
	for _, reason := range s.Reasons {
		input := strings.TrimSuffix(strings.TrimSuffix(reason.Feature, " (missing)"), " (unseen)")
		input, _, _ = strings.Cut(input, "=")
		i := contract.Index(input)
		if i < 0 {
			e.t.Errorf("reason %q names no input", reason.Feature)
			continue
		}
		sum += reason.Contribution
		rest[i] -= reason.Contribution
	}
	for _, c := range rest {
		sum += c
	}
	if math.Abs(sum-s.Margin) > 1e-9 {
		e.t.Errorf("score of %d@%d: bias and contributions give %v, the margin is %v", s.SourcePartition, s.SourceOffset, sum, s.Margin)
	}
}

// checkCounts wants the newest states in the drift topic to be what a recount of the good events gives.
func (e *environment) checkCounts() {
	e.t.Helper()
	got := map[string]*schemas.DriftState{}
	for _, r := range e.read(e.cfg.Topics.DriftState) {
		if r.Value == nil { // a coarser bucket has taken it over, or it left the rings
			delete(got, string(r.Key))
			continue
		}
		state := &schemas.DriftState{}
		_, body, err := schemas.SplitFrame(r.Value)
		if err == nil {
			err = schemas.DecodeDriftState(body, state)
		}
		if err != nil {
			e.t.Errorf("state %d@%d: %v", r.Partition, r.Offset, err)
			continue
		}
		if before := got[string(r.Key)]; before != nil && before.NextOffset > state.NextOffset {
			e.t.Errorf("state %s of %d@%d went back from offset %d to %d", r.Key, r.Partition, r.Offset, before.NextOffset, state.NextOffset)
		}
		got[string(r.Key)] = state
	}
	want := e.recount()
	for key, state := range want {
		switch found := got[key]; {
		case found == nil:
			e.t.Errorf("no counts of %s", key)
		case !sameCounts(found, state):
			e.t.Errorf("counts of %s up to offset %d: %v, recounted up to %d: %v", key, found.NextOffset, found.Counts[0], state.NextOffset, state.Counts[0])
		}
	}
	for key := range got {
		if want[key] == nil {
			e.t.Errorf("counts of %s, which has no events", key)
		}
	}
}

// sameCounts compares what two states hold: up to which time finer buckets were absorbed depends on when the bucket was
// written last, and sums of floats on the batches.
func sameCounts(a, b *schemas.DriftState) bool {
	near := func(x, y float64) bool { return x == y || math.Abs(x-y) <= 1e-9*max(math.Abs(x), math.Abs(y)) }
	return a.NextOffset == b.NextOffset && a.Groups == b.Groups && slices.Equal(a.SegmentGroups, b.SegmentGroups) && slices.Equal(a.ClassEvents, b.ClassEvents) &&
		slices.EqualFunc(a.Counts, b.Counts, slices.Equal[[]uint32]) && slices.EqualFunc(a.Moments, b.Moments, near)
}

// recount counts the good events as one accumulator a partition does that saw all of them in one go.
func (e *environment) recount() map[string]*schemas.DriftState {
	e.t.Helper()
	window := drift.DefaultWindowConfig(e.cfg.Drift.Bucket.Std())
	scorer := e.model.NewScorer(scoring.ScorerConfig{})
	rows := schemas.NewRows(len(e.model.Contract().Inputs), 1)
	var results scoring.Results
	states := map[string]*schemas.DriftState{}
	for partition := range e.partitionsOf(e.cfg.Topics.Events) {
		source := drift.Source{ModelDigest: e.model.Digest(), Topic: e.cfg.Topics.Events, Partition: partition}
		counts, err := drift.NewAccumulator(e.profile, e.model.Contract(), window, source, nil)
		if err != nil {
			e.t.Fatal(err)
		}
		for _, sent := range e.sent {
			if sent.partition != partition || sent.bad {
				continue
			}
			rows.Reset()
			numbers, categories := rows.Row(rows.Append())
			copy(numbers, sent.numbers)
			copy(categories, sent.categories)
			scorer.Score(rows, &results)
			counts.Observe(drift.Event{Offset: sent.offset, Time: sent.time, Key: []byte(sent.key), Numbers: numbers, Categories: categories, Probability: results.Probability[0]})
		}
		counts.Commit()
		err = counts.Committed(func(key []byte, state *schemas.DriftState) error {
			copied := &schemas.DriftState{}
			states[string(key)] = copied
			return schemas.DecodeDriftState(state.AppendAvro(nil), copied)
		})
		if err != nil {
			e.t.Fatal(err)
		}
	}
	return states
}

// deliveries are the ways in which a worker publishes.
func deliveries(t *testing.T, test func(t *testing.T, delivery delivery)) {
	t.Helper()
	for _, d := range []delivery{
		{"a transaction of all partitions", config.ExactlyOnce, "worker"},
		{"a transaction a partition", config.ExactlyOnce, "partition"},
		{"at least once", config.AtLeastOnce, "worker"},
	} {
		t.Run(d.name, func(t *testing.T) { test(t, d) })
	}
}

type delivery struct {
	name         string
	guarantee    config.Delivery
	transactions string
}

func (d delivery) set(c *config.Config) {
	c.Delivery, c.Produce.Transactions = d.guarantee, d.transactions
}

func (d delivery) repeats() bool { return d.guarantee == config.AtLeastOnce }

// refuseCommit answers a commit of offsets with an error code.
func refuseCommit(code int16) func(kmsg.Request) (kmsg.Response, error, bool) {
	return func(request kmsg.Request) (kmsg.Response, error, bool) {
		return refusal(request, code), nil, true
	}
}

// refusal is the answer with the code in every place for one.
func refusal(request kmsg.Request, code int16) kmsg.Response {
	response := request.ResponseKind()
	switch r := response.(type) {
	case *kmsg.OffsetCommitResponse:
		for _, t := range request.(*kmsg.OffsetCommitRequest).Topics {
			topic := kmsg.OffsetCommitResponseTopic{Topic: t.Topic}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: code})
			}
			r.Topics = append(r.Topics, topic)
		}
	case *kmsg.TxnOffsetCommitResponse:
		for _, t := range request.(*kmsg.TxnOffsetCommitRequest).Topics {
			topic := kmsg.TxnOffsetCommitResponseTopic{Topic: t.Topic}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.TxnOffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: code})
			}
			r.Topics = append(r.Topics, topic)
		}
	case *kmsg.ProduceResponse:
		for _, t := range request.(*kmsg.ProduceRequest).Topics {
			topic := kmsg.ProduceResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.ProduceResponseTopicPartition{Partition: p.Partition, ErrorCode: code, BaseOffset: -1, LogAppendTime: -1})
			}
			r.Topics = append(r.Topics, topic)
		}
	case *kmsg.AddPartitionsToTxnResponse:
		for _, t := range request.(*kmsg.AddPartitionsToTxnRequest).Topics {
			topic := kmsg.AddPartitionsToTxnResponseTopic{Topic: t.Topic}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.AddPartitionsToTxnResponseTopicPartition{Partition: p, ErrorCode: code})
			}
			r.Topics = append(r.Topics, topic)
		}
	case *kmsg.AddOffsetsToTxnResponse:
		r.ErrorCode = code
	case *kmsg.EndTxnResponse:
		r.ErrorCode, r.ProducerID, r.ProducerEpoch = code, -1, -1
	case *kmsg.InitProducerIDResponse:
		r.ErrorCode, r.ProducerID, r.ProducerEpoch = code, -1, -1
	}
	return response
}

// value is the sum of a metric's series; -1 if there is none.
func (r *running) value(name string) float64 {
	return r.valueOver("", name)
}

// valueOver is that of one horizon, where the metric has several.
func (r *running) valueOver(horizon, name string) float64 {
	r.t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		sum := 0.0
		for _, m := range f.GetMetric() {
			if slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == "horizon" && l.GetValue() != horizon }) {
				continue
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
		return sum
	}
	return -1
}

func transactionOf(request kmsg.Request) string {
	var id *string
	switch r := request.(type) {
	case *kmsg.ProduceRequest:
		id = r.TransactionID
	case *kmsg.InitProducerIDRequest:
		id = r.TransactionalID
	case *kmsg.AddPartitionsToTxnRequest:
		id = &r.TransactionalID
	case *kmsg.AddOffsetsToTxnRequest:
		id = &r.TransactionalID
	case *kmsg.TxnOffsetCommitRequest:
		id = &r.TransactionalID
	case *kmsg.EndTxnRequest:
		id = &r.TransactionalID
	}
	if id == nil {
		return ""
	}
	return *id
}

// owned lists the partitions that the worker has.
func (r *running) owned() []consumer.TopicPartition {
	r.mu.Lock()
	defer r.mu.Unlock()
	var owned []consumer.TopicPartition
	for p := range r.tasks {
		owned = append(owned, p)
	}
	return owned
}
