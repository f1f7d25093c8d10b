package worker

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// latencySample is how many events share one observation of the end-to-end latency: timing every single one would cost
// as much as scoring it.
const latencySample = 16

// metrics are the worker's own collectors. Labels are resolved here, ahead of the loop, and never hold a customer id.
type metrics struct {
	events        prometheus.Counter
	scores        prometheus.Counter
	churn         prometheus.Counter
	retain        prometheus.Counter
	deadLetters   map[schemas.ErrorClass]prometheus.Counter
	batches       prometheus.Counter
	floods        prometheus.Counter
	topicFindings prometheus.Gauge
	restarts      prometheus.Counter
	forgotten     prometheus.Counter
	startRetries  prometheus.Counter
	missing       map[string]prometheus.Counter // by input
	unseen        map[string]prometheus.Counter // by input
	latency       prometheus.Histogram
	stages        stageTimes
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
		events:       counter("events_total", "Events read and committed: scores plus dead letters."),
		scores:       counter("scores_total", "Scores published and committed."),
		churn:        decisions.WithLabelValues("churn"),
		retain:       decisions.WithLabelValues("retain"),
		deadLetters:  map[schemas.ErrorClass]prometheus.Counter{},
		missing:      map[string]prometheus.Counter{},
		unseen:       map[string]prometheus.Counter{},
		batches:      counter("batches_total", "Units of work committed: what a partition hands to one transaction."),
		floods:       counter("floods_total", "Times that a flood of bad records stopped a partition."),
		forgotten:    counter("forgotten_offsets_total", "Times that the group's coordinator gave an older offset than was committed: it had not loaded the group, or the group's offsets were reset."),
		startRetries: counter("start_retries_total", "Questions repeated while the brokers could not be used at the start yet."),
		restarts:     counter("partition_restarts_total", "Times that a partition was begun again after an aborted batch or a fence."),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "churnstream", Name: "end_to_end_latency_seconds",
			Help:                        "From the event's timestamp to the commit of its score; one event in 16 is observed.",
			Buckets:                     prometheus.ExponentialBuckets(0.001, 2, 18),
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
		}),
		stages: newStageTimes(reg),
	}
	for _, class := range schemas.ErrorClasses() {
		m.deadLetters[class] = dead.WithLabelValues(string(class))
	}
	for _, input := range model.Contract().Inputs {
		m.missing[input.Name] = missing.WithLabelValues(input.Name)
		m.unseen[input.Name] = unseen.WithLabelValues(input.Name)
	}
	m.topicFindings = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "churnstream", Name: "topic_findings", Help: "Faults of the topics' settings that the check at the start found; the log has each with the command that mends it."})
	gauges("model_info", "The loaded model; always 1.", "name", "version", "digest", "variant").
		WithLabelValues(model.Name(), model.Version(), model.Digest(), "champion").Set(1)
	reg.MustRegister(m.events, m.scores, m.batches, m.floods, m.topicFindings, m.restarts, m.forgotten, m.startRetries, m.latency)
	return m
}

// observe counts a committed unit of work.
func (m *metrics) observe(t *tally, now time.Time) {
	m.batches.Inc()
	m.events.Add(float64(t.events))
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
	for _, at := range t.sampled {
		m.latency.Observe(max(0, now.Sub(time.UnixMilli(at)).Seconds())) // clocks differ
	}
}

// ownership shows what is owned and how far it has come, as of the scrape: an idle partition has a lag of 0, and one
// that was given up has no series.
type ownership struct {
	progress                                  func() []progress
	states                                    func() []PartitionState
	owned, records, secondsLag, held, waiting *prometheus.Desc
}

func newOwnership(of func() []progress, states func() []PartitionState) *ownership {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("churnstream", "", name), help, labels, nil)
	}
	return &ownership{
		progress:   of,
		states:     states,
		owned:      desc("owned_partitions", "Partitions that this worker owns."),
		records:    desc("consumer_lag_records", "Readable events of an owned partition that are not yet scored and committed.", "topic", "partition"),
		secondsLag: desc("consumer_lag_seconds", "Age of the event that an owned partition has come to; 0 without a lag.", "topic", "partition"),
		held:       desc("partition_held_records", "Records of an owned partition that cannot be read before a producer's open transaction ends.", "topic", "partition"),
		waiting:    desc("partition_waiting_seconds", "How long an owned partition has been waiting, and for what; no series where it is at work or idle.", "topic", "partition", "for"),
	}
}

// Describe implements prometheus.Collector.
func (o *ownership) Describe(ch chan<- *prometheus.Desc) {
	ch <- o.owned
	ch <- o.records
	ch <- o.secondsLag
	ch <- o.held
	ch <- o.waiting
}

// Collect implements prometheus.Collector.
func (o *ownership) Collect(ch chan<- prometheus.Metric) {
	all := o.progress()
	ch <- prometheus.MustNewConstMetric(o.owned, prometheus.GaugeValue, float64(len(all)))
	for _, p := range all {
		partition := strconv.Itoa(int(p.source.Partition))
		if p.lag >= 0 {
			ch <- prometheus.MustNewConstMetric(o.records, prometheus.GaugeValue, float64(p.lag), p.source.Topic, partition)
			ch <- prometheus.MustNewConstMetric(o.held, prometheus.GaugeValue, float64(max(0, p.held)), p.source.Topic, partition)
			ch <- prometheus.MustNewConstMetric(o.secondsLag, prometheus.GaugeValue, p.behind.Seconds(), p.source.Topic, partition)
		}
	}
	for _, s := range o.states() {
		if s.For != "" {
			ch <- prometheus.MustNewConstMetric(o.waiting, prometheus.GaugeValue, s.Seconds, s.source.Topic, strconv.Itoa(int(s.source.Partition)), string(s.For))
		}
	}
}

// stage is a part of the processing of a unit of work.
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
		Help:                        "Time that a committed unit of work spent in a stage: decode, score, encode, commit.",
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

// stopwatch adds up what a unit spends in each stage; report observes it once.
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
