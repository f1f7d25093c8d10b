package worker

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// latencySample is how many events share one observation of the end-to-end latency: timing every single one would cost
// as much as scoring it.
const latencySample = 16

// metrics are the worker's own collectors. Labels are resolved here, ahead of the loop, and never hold a customer id.
type metrics struct {
	events      prometheus.Counter
	scores      prometheus.Counter
	churn       prometheus.Counter
	retain      prometheus.Counter
	deadLetters map[schemas.ErrorClass]prometheus.Counter
	batches     prometheus.Counter
	restarts    prometheus.Counter
	missing     map[string]prometheus.Counter // by input
	unseen      map[string]prometheus.Counter // by input
	latency     prometheus.Histogram
	stages      stageTimes
	owned       prometheus.Gauge
	lagRecords  *prometheus.GaugeVec
	lagSeconds  *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, model *scoring.Model) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "churnstream", Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "churnstream", Name: name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "churnstream", Name: name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	dead := counters("dead_letters_total", "Events set aside as dead letters and committed, by error class.", "class")
	decisions := counters("decisions_total", "Scores published and committed, by decision.", "decision")
	missing := counters("missing_inputs_total", "Scored events that had no value for the input.", "input")
	unseen := counters("unseen_inputs_total", "Scored events whose category was unknown to the training data.", "input")
	m := &metrics{
		events:      counter("events_total", "Events read and committed: scores plus dead letters."),
		scores:      counter("scores_total", "Scores published and committed."),
		churn:       decisions.WithLabelValues("churn"),
		retain:      decisions.WithLabelValues("retain"),
		deadLetters: map[schemas.ErrorClass]prometheus.Counter{},
		missing:     map[string]prometheus.Counter{},
		unseen:      map[string]prometheus.Counter{},
		batches:     counter("batches_total", "Batches committed; in exactly-once delivery each is one transaction."),
		restarts:    counter("partition_restarts_total", "Times that a partition was begun again after an aborted batch or a fence."),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "churnstream", Name: "end_to_end_latency_seconds",
			Help:                        "From the event's timestamp to the commit of its score; one event in 16 is observed.",
			Buckets:                     prometheus.ExponentialBuckets(0.001, 2, 18),
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
		}),
		stages: newStageTimes(reg),
		owned: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "churnstream", Name: "owned_partitions", Help: "Partitions that this worker owns.",
		}),
		lagRecords: gauges("consumer_lag_records", "Readable events of an owned partition that are not yet scored.", "topic", "partition"),
		lagSeconds: gauges("consumer_lag_seconds", "Age of the newest committed event of an owned partition that still has a lag; 0 without a lag.", "topic", "partition"),
	}
	for _, class := range schemas.ErrorClasses() {
		m.deadLetters[class] = dead.WithLabelValues(string(class))
	}
	for _, input := range model.Contract().Inputs {
		m.missing[input.Name] = missing.WithLabelValues(input.Name)
		m.unseen[input.Name] = unseen.WithLabelValues(input.Name)
	}
	gauges("model_info", "The loaded model; always 1.", "name", "version", "digest", "variant").
		WithLabelValues(model.Name(), model.Version(), model.Digest(), "champion").Set(1)
	reg.MustRegister(m.events, m.scores, m.batches, m.restarts, m.latency, m.owned)
	return m
}

// observe counts a committed batch.
func (m *metrics) observe(source consumer.TopicPartition, batch *consumer.Batch, t *tally, now time.Time) {
	m.batches.Inc()
	m.events.Add(float64(len(batch.Records)))
	m.scores.Add(float64(t.scores))
	m.churn.Add(float64(t.churn))
	m.retain.Add(float64(t.scores - t.churn))
	for class, n := range t.deadLetters {
		m.deadLetters[class].Add(float64(n))
	}
	for input, n := range t.missing {
		m.missing[input].Add(float64(n))
	}
	for input, n := range t.unseen {
		m.unseen[input].Add(float64(n))
	}
	for i := 0; i < len(batch.Records); i += latencySample {
		m.latency.Observe(now.Sub(time.UnixMilli(batch.Records[i].Timestamp)).Seconds())
	}
	partition := strconv.Itoa(int(source.Partition))
	lag := max(0, batch.LastStableOffset-batch.Next)
	m.lagRecords.WithLabelValues(source.Topic, partition).Set(float64(lag))
	age := 0.0
	if lag > 0 {
		age = now.Sub(time.UnixMilli(batch.Records[len(batch.Records)-1].Timestamp)).Seconds()
	}
	m.lagSeconds.WithLabelValues(source.Topic, partition).Set(age)
}

// forget drops the series of a partition that is no longer ours.
func (m *metrics) forget(source consumer.TopicPartition) {
	partition := strconv.Itoa(int(source.Partition))
	m.lagRecords.DeleteLabelValues(source.Topic, partition)
	m.lagSeconds.DeleteLabelValues(source.Topic, partition)
}

// stage is a part of the processing of a batch.
type stage int

const (
	stageDecode stage = iota
	stageScore
	stageEncode
	stageCommit
	stages
)

type stageTimes struct{ seconds [stages]prometheus.Observer }

func newStageTimes(reg prometheus.Registerer) stageTimes {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "churnstream", Name: "stage_seconds",
		Help:                        "Time that a committed batch spent in a stage: decode, score, encode, commit.",
		Buckets:                     prometheus.ExponentialBuckets(0.0001, 2, 18),
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
	}, []string{"stage"})
	reg.MustRegister(v)
	var s stageTimes
	for i, name := range [stages]string{"decode", "score", "encode", "commit"} {
		s.seconds[i] = v.WithLabelValues(name)
	}
	return s
}

// stopwatch adds up what a batch spends in each stage; report observes it once.
type stopwatch struct {
	last  time.Time
	spent [stages]time.Duration
}

func (w *stopwatch) start() {
	w.last = time.Now()
	w.spent = [stages]time.Duration{}
}

func (w *stopwatch) lap(s stage) {
	now := time.Now()
	w.spent[s] += now.Sub(w.last)
	w.last = now
}

func (s *stageTimes) observe(w *stopwatch) {
	for i, d := range w.spent {
		s.seconds[i].Observe(d.Seconds())
	}
}
