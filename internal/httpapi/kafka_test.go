package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// cluster is a broker with the two topics and a registry.
type cluster struct {
	kafka    *Kafka
	registry *schemas.HTTPRegistry
	audit    Contract
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	brokers := testkit.Brokers(t)
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	events, scores, states, audit := testkit.Name(t, "events"), testkit.Name(t, "scores"), testkit.Name(t, "states"), testkit.Name(t, "audit")
	topics := []connect.TopicSpec{{Name: events}, {Name: scores}, {Name: states}, {Name: audit}}
	if _, err := connect.Probe(t.Context(), brokers, transport, config.SASL{}, topics, config.CreateTopics{Enabled: true, Partitions: 3, ReplicationFactor: 1}, nil); err != nil {
		t.Fatal(err)
	}
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: brokers, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	cfg := schemas.DefaultRegistryConfig()
	cfg.URLs = []string{testkit.Registry(t)}
	registry, err := schemas.NewRegistry(cfg)
	if err != nil {
		t.Fatal(err)
	}
	contract, err := telco(t).Model.Contract().AvroSchema()
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{registry: registry, audit: Contract{audit, schemas.Subject(audit), schemas.AuditSchema()}, kafka: &Kafka{
		Client: client, Registry: registry, Producing: producer.DefaultConfig(), Fetching: consumer.DefaultFetchConfig(),
		Events: Contract{events, schemas.Subject(events), contract}, Scores: Contract{scores, schemas.Subject(scores), schemas.ScoreSchema()},
		Counting: &Counting{
			Profile: telco(t).Profile, Window: drift.DefaultWindowConfig(time.Minute), States: Contract{states, schemas.Subject(states), schemas.DriftStateSchema()},
		},
		TransactionalPrefix: testkit.Name(t, "transactions") + "-",
	}}
}

// publish writes scores of customers, one a record; a nil score is a tombstone.
func (c *cluster) publish(t *testing.T, scores map[string][]float64) {
	t.Helper()
	id, err := c.registry.Register(t.Context(), c.kafka.Scores.Subject, c.kafka.Scores.Schema)
	if err != nil {
		t.Fatal(err)
	}
	p, err := producer.NewIdempotent(producer.DefaultConfig(), c.kafka.Client)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	for customer, list := range scores {
		for i, probability := range list {
			s := schemas.Score{CustomerID: []byte(customer), SourceTopic: "e", SourceOffset: int64(i), ModelName: "m", Probability: probability, Churn: probability > 0.5}
			if err := p.Append(&producer.Record{Topic: c.kafka.Scores.Topic, Partition: -1, Timestamp: int64(i + 1), Key: s.CustomerID, Value: s.AppendAvro(schemas.AppendFrame(nil, id))}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.Commit(t.Context(), producer.Member{}, nil); err != nil {
		t.Fatal(err)
	}
}

// read gives every record of a topic as it is now.
func (c *cluster) read(t *testing.T, topic string, fn func(partition int32, r *consumer.Record)) {
	t.Helper()
	fetcher, err := consumer.NewFetcher(consumer.DefaultFetchConfig(), c.kafka.Client, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- fetcher.Run(ctx) }()
	_, err = tail.ReadTopic(ctx, c.kafka.Client, fetcher, topic, func(b *consumer.Batch) error {
		for i := range b.Records {
			fn(b.Partition, &b.Records[i])
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func (s *service) waitReady(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, 30*time.Second, func() bool { return s.do(t, "GET", "/readyz", "", "").status == 200 }, "the API is ready")
}

func (s *service) history(t *testing.T, customer string) []CustomerScore {
	t.Helper()
	r := s.do(t, "GET", "/v1/customers/"+customer+"/history?limit=1000", "", "")
	if r.status == http.StatusNotFound {
		return nil
	}
	return decode[History](t, r.body).Scores
}

func TestTheStoreEqualsTheTopicThroughRestartsAndErasure(t *testing.T) {
	c := newCluster(t)
	data := filepath.Join(t.TempDir(), "data")
	same := func(cfg *config.HTTP) { cfg.DataDir = data }
	c.publish(t, map[string][]float64{"a": {0.1, 0.9}, "ab": {0.3}, "b/ü": {0.4}})
	s := start(t, c.kafka, same)
	s.waitReady(t)
	if h := s.history(t, "a"); len(h) != 2 || h[0].ChurnProbability != 0.9 || h[1].ChurnProbability != 0.1 {
		t.Fatalf("%+v", h)
	}
	if h := s.history(t, "b%2F%C3%BC"); len(h) != 1 || h[0].CustomerID != "b/ü" {
		t.Errorf("%+v", h)
	}
	newest := decode[CustomerScore](t, s.do(t, "GET", "/v1/customers/a/score", "", "").body)
	if newest.ChurnProbability != 0.9 || newest.Prediction != Churn || newest.Source.Offset != 1 {
		t.Errorf("%+v", newest)
	}
	wantProblem(t, s.do(t, "GET", "/v1/customers/nobody/score", "", ""), 404)
	s.stop()
	c.publish(t, map[string][]float64{"a": {0.2}, "c": {0.7}}) // while nobody looks
	s = start(t, c.kafka, same)
	s.waitReady(t)
	if h := s.history(t, "a"); len(h) != 3 || h[0].ChurnProbability != 0.2 {
		t.Errorf("%+v", h)
	}
	e := decode[Erasure](t, s.do(t, "DELETE", "/v1/customers/a", "", "").body)
	if e.CustomerID != "a" || len(e.Remains) == 0 {
		t.Errorf("%+v", e)
	}
	if h := s.history(t, "a"); h != nil {
		t.Errorf("after the erasure: %+v", h)
	}
	if h := s.history(t, "ab"); len(h) != 1 {
		t.Errorf("another customer lost %+v", h)
	}
	s.stop()
	fresh := start(t, c.kafka) // another server's store, from the topic alone
	fresh.waitReady(t)
	if fresh.history(t, "a") != nil || len(fresh.history(t, "c")) != 1 || len(fresh.history(t, "ab")) != 1 {
		t.Error("a store that is made anew differs")
	}
}

// TestPositionAndScoresAreOneWrite opens the store again after every batch and goes on with what
// it holds.
func TestPositionAndScoresAreOneWrite(t *testing.T) {
	dir := t.TempDir()
	body := func(v []byte) ([]byte, bool) { return v, true }
	for offset := range int64(20) {
		s, err := openStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		at, err := s.position(1)
		if err != nil || offset > 0 && at != offset {
			t.Fatalf("position %d before offset %d: %v", at, offset, err)
		}
		b := &consumer.Batch{
			TopicPartition: consumer.TopicPartition{Topic: "t", Partition: 1}, Next: offset + 1,
			Records: []consumer.Record{{Offset: offset, Key: []byte("a"), Value: []byte(fmt.Sprint(offset))}},
		}
		if err := s.apply(b, body); err != nil {
			t.Fatal(err)
		}
		n := int64(0)
		if err := s.scores([]byte("a"), func(_ int32, _ int64, _ []byte) bool { n++; return true }); err != nil || n != offset+1 {
			t.Fatalf("%d scores at offset %d: %v", n, offset, err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.expire(map[int32]int64{1: 15}); err != nil {
		t.Fatal(err)
	}
	var left []int64
	if err := s.scores([]byte("a"), func(_ int32, offset int64, _ []byte) bool { left = append(left, offset); return true }); err != nil || fmt.Sprint(left) != "[19 18 17 16 15]" {
		t.Errorf("after the topic's retention: %v, %v", left, err)
	}
}

func TestEventsArePublishedAsTheModelsContract(t *testing.T) {
	c := newCluster(t)
	s := start(t, c.kafka)
	s.waitReady(t)
	good := customerJSON(t, 0)
	one := with(good, `"customer_id":"c-1","event_time":"2026-03-31T12:00:00Z"`)
	r := s.do(t, "POST", "/v1/events", typeJSON, one)
	if r.status != 202 || decode[Accepted](t, r.body).Published != 1 {
		t.Fatalf("%d: %s", r.status, r.body)
	}
	two := with(good, `"customer_id":"c-2"`)
	if r := s.do(t, "POST", "/v1/events", typeNDJSON, two+"\n\n"+two); decode[Accepted](t, r.body).Published != 2 {
		t.Errorf("%d: %s", r.status, r.body)
	}
	for body, status := range map[string]int{
		good:                  422, // nobody's
		one + "\n" + one:      400,
		"":                    400,
		with(one, `"nope":1`): 422,
		with(good, `"customer_id":"c","event_time":"soon"`):                                                    422,
		with(good, `"customer_id":"c","event_time":"`+time.Now().Add(51*time.Minute).Format(time.RFC3339)+`"`): 422, // Kafka would refuse all that is published with it
	} {
		wantProblem(t, s.do(t, "POST", "/v1/events", typeJSON, body), status)
	}
	wantProblem(t, s.do(t, "POST", "/v1/events", typeNDJSON, two+"\n"+good), 422) // none of both is published
	decoder, err := schemas.NewDecoder(schemas.DecoderConfig{Contract: telco(t).Model.Contract(), Registry: c.registry})
	if err != nil {
		t.Fatal(err)
	}
	rows := schemas.NewRows(len(telco(t).Model.Contract().Inputs), 4)
	times := map[string]int64{}
	c.read(t, c.kafka.Events.Topic, func(_ int32, r *consumer.Record) {
		times[string(r.Key)] = r.Timestamp
		if err := decoder.Decode(t.Context(), append([]byte{}, r.Value...), rows); err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(r.Headers), "traceparent") {
			t.Error("no trace context")
		}
	})
	if rows.Len() != 3 || times["c-1"] != 1774958400000 {
		t.Fatalf("%d events, times %v", rows.Len(), times)
	}
	want, texts := telco(t).Rows.Row(0)
	for row := range rows.Len() {
		numbers, categories := rows.Row(row)
		for i := range want {
			if math.Float64bits(numbers[i]) != math.Float64bits(want[i]) || string(categories[i]) != string(texts[i]) {
				t.Errorf("row %d, input %d: %v %q", row, i, numbers[i], categories[i])
			}
		}
	}
}

func TestPublishedPredictionsAreScoresOfTheTopic(t *testing.T) {
	c := newCluster(t)
	s := start(t, c.kafka, func(cfg *config.HTTP) { cfg.PublishPredictions = true })
	s.waitReady(t)
	p := decode[Prediction](t, s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 3)).body)
	var h []CustomerScore
	testkit.Eventually(t, 20*time.Second, func() bool { h = s.history(t, p.CustomerID); return h != nil }, "the prediction comes back")
	if h[0].ChurnProbability != p.ChurnProbability || h[0].Source.Topic != "http-"+s.store.name || len(h[0].Reasons) != 3 {
		t.Errorf("%+v", h[0])
	}
}

// TestPublishedPredictionsCountInDriftOnce counts the audited inputs again and finds what the state topic has, after a
// restart too, which goes on with the counts of the minute.
func TestPublishedPredictionsCountInDriftOnce(t *testing.T) {
	c := newCluster(t)
	c.kafka.Audit = c.audit
	dir := filepath.Join(t.TempDir(), "data")
	model := telco(t).Model
	asked := map[string]float64{} // probability by customer
	for round := range 2 {
		s := start(t, c.kafka, func(cfg *config.HTTP) { cfg.PublishPredictions, cfg.DataDir = true, dir })
		s.waitReady(t)
		var lines strings.Builder
		for row := range 300 {
			id := fmt.Sprintf("c-%d-%d", round, row)
			body := with(customerJSON(t, row), fmt.Sprintf(`"customer_id":%q`, id))
			if row%10 > 0 {
				lines.WriteString(body + "\n")
			} else {
				asked[id] = decode[Prediction](t, s.do(t, "POST", "/v1/predict", typeJSON, body).body).ChurnProbability
			}
		}
		for line := range strings.Lines(string(s.do(t, "POST", "/v1/predict:batch", typeNDJSON, lines.String()).body)) {
			if !strings.HasPrefix(line, `{"row"`) {
				continue
			}
			if row := decode[BatchRow](t, []byte(line)); row.Prediction != nil {
				asked[row.CustomerID] = row.ChurnProbability
			}
		}
		s.stop()
	}
	if len(asked) != 600 {
		t.Fatalf("%d predictions", len(asked))
	}
	scored := map[[2]any]schemas.Score{} // by source
	c.read(t, c.kafka.Scores.Topic, func(_ int32, r *consumer.Record) {
		var s schemas.Score
		_, body, _ := schemas.SplitFrame(r.Value)
		if err := schemas.DecodeScore(body, &s); err != nil {
			t.Fatal(err)
		}
		s.CustomerID = bytes.Clone(s.CustomerID)
		if asked[string(s.CustomerID)] != s.Probability {
			t.Errorf("%s: %v, the answer was %v", s.CustomerID, s.Probability, asked[string(s.CustomerID)])
		}
		scored[[2]any{s.SourceTopic, s.SourceOffset}] = s
	})
	again, err := drift.NewAccumulator(c.kafka.Counting.Profile, model.Contract(), c.kafka.Counting.Window, drift.Source{ModelDigest: model.Digest(), Topic: "again"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	audited := 0
	rows := schemas.NewRows(len(model.Contract().Inputs), 1)
	c.read(t, c.kafka.Audit.Topic, func(_ int32, r *consumer.Record) {
		var a schemas.Audit
		_, body, _ := schemas.SplitFrame(r.Value)
		if err := schemas.DecodeAudit(body, &a); err != nil {
			t.Fatal(err)
		}
		var inputs map[string]json.RawMessage
		rows.Reset()
		if err := json.Unmarshal(a.Inputs, &inputs); err != nil {
			t.Fatal(err)
		}
		if err := model.Contract().ReadJSON(rows, inputs); err != nil {
			t.Fatal(err)
		}
		score, ok := scored[[2]any{a.SourceTopic, a.SourceOffset}]
		if !ok || string(score.CustomerID) != string(a.CustomerID) || score.Probability != a.Probability || a.Principal != "anonymous" || a.RequestID == "" {
			t.Fatalf("the audit record of %s, %v, by %s is of the score of %s, %v", a.CustomerID, a.Probability, a.Principal, score.CustomerID, score.Probability)
		}
		numbers, categories := rows.Row(0)
		again.Observe(drift.Event{Offset: int64(audited), Time: a.At, Key: a.CustomerID, Numbers: numbers, Categories: categories, Probability: a.Probability})
		audited++
	})
	if len(scored) != 600 || audited != 600 {
		t.Fatalf("%d scores, %d audit records", len(scored), audited)
	}
	want := map[int64]string{} // counts by bucket
	if err := again.States(func(_ []byte, s *schemas.DriftState) error {
		want[s.BucketStart] = fmt.Sprint(s.BucketWidth, s.Counts, s.Groups)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got := map[int64]string{}
	c.read(t, c.kafka.Counting.States.Topic, func(_ int32, r *consumer.Record) {
		var s schemas.DriftState
		_, body, _ := schemas.SplitFrame(r.Value)
		if err := schemas.DecodeDriftState(body, &s); err != nil {
			t.Fatal(err)
		}
		got[s.BucketStart] = fmt.Sprint(s.BucketWidth, s.Counts, s.Groups)
	})
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the state topic has\n%v\nthe predictions make\n%v", got, want)
	}
}

// TestPredictionsOfAUnitThatFailedAreNeitherPublishedNorCounted lets another server with the same store take over.
func TestPredictionsOfAUnitThatFailedAreNeitherPublishedNorCounted(t *testing.T) {
	c := newCluster(t)
	s := start(t, c.kafka, func(cfg *config.HTTP) { cfg.PublishPredictions = true })
	s.waitReady(t)
	s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 0))
	published := func() (n int) {
		c.read(t, c.kafka.Scores.Topic, func(int32, *consumer.Record) { n++ })
		return n
	}
	testkit.Eventually(t, 20*time.Second, func() bool { return published() == 1 }, "the first is published")
	other, err := producer.NewTransactional(c.kafka.Producing, c.kafka.Client, c.kafka.TransactionalPrefix+s.store.name)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 1)) // fenced: given up
	testkit.Eventually(t, 20*time.Second, func() bool {
		return strings.Contains(string(s.do(t, "GET", "/metrics", "", "").body), "publish_failed_total 1")
	}, "the loss is counted")
	s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 2)) // a new producer
	testkit.Eventually(t, 20*time.Second, func() bool { return published() == 2 }, "the third is published")
	counts := map[int64]uint32{} // by bucket: a minute may begin in between
	c.read(t, c.kafka.Counting.States.Topic, func(_ int32, r *consumer.Record) {
		var state schemas.DriftState
		_, body, _ := schemas.SplitFrame(r.Value)
		if err := schemas.DecodeDriftState(body, &state); err != nil {
			t.Fatal(err)
		}
		counts[state.BucketStart] = 0
		for _, n := range state.Counts[0] {
			counts[state.BucketStart] += n
		}
	})
	counted := uint32(0)
	for _, n := range counts {
		counted += n
	}
	if counted != 2 {
		t.Errorf("2 predictions are published, %d count: %v", counted, counts)
	}
}

func TestAStreamSendsTheScoresThatAreWanted(t *testing.T) {
	c := newCluster(t)
	s := start(t, c.kafka)
	s.waitReady(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/v1/stream?prediction=churn&min_probability=0.8", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != typeEvents {
		t.Fatalf("%d %v", response.StatusCode, response.Header)
	}
	c.publish(t, map[string][]float64{"a": {0.1, 0.7, 0.9}})
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var score CustomerScore
		if err := json.Unmarshal([]byte(text), &score); err != nil || score.ChurnProbability != 0.9 || score.CustomerID != "a" {
			t.Errorf("%v: %s", err, text)
		}
		break
	}
	wantProblem(t, s.do(t, "GET", "/v1/stream?prediction=maybe", "", ""), 422)
	wantProblem(t, s.do(t, "GET", "/v1/stream?min_probability=NaN", "", ""), 422)
	r := s.do(t, "GET", "/v1/stream?prediction=&min_probability=", "", "")
	wantProblem(t, r, 422)
	if !strings.Contains(string(r.body), "query.prediction") || !strings.Contains(string(r.body), "query.min_probability") {
		t.Errorf("%s", r.body)
	}
}

func TestASlowStreamIsEndedAndHoldsUpNobody(t *testing.T) {
	dropped := 0
	h := newHub(func() { dropped++ })
	slow, quick := h.open(scoreFilter{}), h.open(scoreFilter{customer: []byte("b")})
	value := func(customer string) []byte {
		s := schemas.Score{CustomerID: []byte(customer)}
		return s.AppendAvro(schemas.AppendFrame(nil, 1))
	}
	for range streamRoom + 1 {
		h.publish(&consumer.Batch{Records: []consumer.Record{{Value: value("a")}, {Value: nil}, {Value: []byte("x")}}})
	}
	h.publish(&consumer.Batch{Records: []consumer.Record{{Value: value("b")}}})
	n := 0
	for range slow.scores {
		n++
	}
	if dropped != 1 || n != streamRoom || len(quick.scores) != 1 {
		t.Errorf("%d dropped, %d scores, %d of the other", dropped, n, len(quick.scores))
	}
}

func TestPredictionsGoOnWhileKafkaIsDown(t *testing.T) {
	c := newCluster(t)
	down, err := kafkawire.NewClient(kafkawire.Config{Brokers: []string{"127.0.0.1:1"}, Transport: &kafka.Transport{DialTimeout: 100 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(down.CloseIdleConnections)
	c.kafka.Client = down
	s := start(t, c.kafka, func(cfg *config.HTTP) { cfg.Limits.RequestTimeout = config.Duration(200 * time.Millisecond) })
	if r := s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 0)); r.status != 200 {
		t.Errorf("%d: %s", r.status, r.body)
	}
	testkit.Eventually(t, 10*time.Second, func() bool { return s.kafka.eventID.Load() != 0 }, "the registry is asked")
	r := s.do(t, "POST", "/v1/events", typeJSON, with(customerJSON(t, 0), `"customer_id":"c"`))
	wantProblem(t, r, 504)
	if r := s.do(t, "GET", "/readyz", "", ""); r.status != 503 || strings.Contains(string(r.body), "127.0.0.1") {
		t.Errorf("%d: %s", r.status, r.body)
	}
}
