package httpapi

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/churnstream/churnstream/scoring"
)

// metrics are those of the API. Labels hold routes and inputs, never a customer or a principal.
type metrics struct {
	requests    *prometheus.CounterVec   // route, method, code
	seconds     *prometheus.HistogramVec // route
	inFlight    prometheus.Gauge
	refused     *prometheus.CounterVec // reason
	churn       prometheus.Counter     // predictions
	retain      prometheus.Counter     // likewise
	missing     []prometheus.Counter   // by input
	unseen      []prometheus.Counter   // likewise
	cacheHits   prometheus.Counter
	cacheMisses prometheus.Counter
	streams     prometheus.Gauge
	dropped     prometheus.Counter
	published   *prometheus.CounterVec // what
	lost        prometheus.Counter
	viewed      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, model *scoring.Model) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "churnstream", Subsystem: "http", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "churnstream", Subsystem: "http", Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "churnstream", Subsystem: "http", Name: name, Help: help})
		reg.MustRegister(g)
		return g
	}
	m := &metrics{
		requests:    counters("requests_total", "Answered requests.", "route", "method", "code"),
		inFlight:    gauge("requests_in_flight", "Requests under way; streams are not counted."),
		refused:     counters("refused_total", "Requests refused before their work: shed (no place, or too long to wait), unread (likewise, before it was parsed), rate, unauthenticated, forbidden; connections beyond the limit.", "reason"),
		cacheHits:   counter("cache_hits_total", "Single predictions answered from the cache."),
		cacheMisses: counter("cache_misses_total", "Single predictions that were not in the cache."),
		streams:     gauge("streams", "Open score streams."),
		dropped:     counter("stream_dropped_total", "Streams that were ended because their client read too slowly."),
		published:   counters("published_total", "Records published for requests: event, prediction, erasure.", "what"),
		lost:        counter("publish_failed_total", "Records of requests whose publication was given up."),
		viewed:      counter("view_records_total", "Records of the score topic that were taken into the store."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "churnstream", Subsystem: "http", Name: "request_seconds",
			Help:                        "Time from the request's headers to the end of the answer.",
			Buckets:                     []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
		}, []string{"route"}),
	}
	reg.MustRegister(m.seconds)
	predictions := counters("predictions_total", "Rows scored by requests.", "decision")
	m.churn, m.retain = predictions.WithLabelValues(string(Churn)), predictions.WithLabelValues(string(Retain))
	missing := counters("missing_total", "Predicted rows without a value of an input.", "input")
	unseen := counters("unseen_total", "Predicted rows with a category of an input that the training data did not have.", "input")
	for _, in := range model.Contract().Inputs {
		m.missing = append(m.missing, missing.WithLabelValues(in.Name))
		m.unseen = append(m.unseen, unseen.WithLabelValues(in.Name))
	}
	return m
}

func (m *metrics) answered(route, method string, code int, took time.Duration) {
	m.requests.WithLabelValues(route, method, strconv.Itoa(code)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}

// refusedUnread counts a single prediction that was refused before it was parsed.
func (m *metrics) refusedUnread() func(took time.Duration) {
	const route = "/v1/predict"
	refused, seconds := m.refused.WithLabelValues("unread"), m.seconds.WithLabelValues(route)
	requests := m.requests.WithLabelValues(route, http.MethodPost, strconv.Itoa(http.StatusServiceUnavailable))
	return func(took time.Duration) {
		refused.Inc()
		requests.Inc()
		seconds.Observe(took.Seconds())
	}
}

// predictionCounts is what some predictions add to the metrics.
type predictionCounts struct {
	churn, retain   int
	missing, unseen []int // by input
	irregular       bool  // any of those is not 0
}

func (c *predictionCounts) reset(inputs int) {
	c.churn, c.retain = 0, 0
	if c.missing == nil {
		c.missing, c.unseen = make([]int, inputs), make([]int, inputs)
	}
	if c.irregular {
		clear(c.missing)
		clear(c.unseen)
		c.irregular = false
	}
}

// add counts one prediction; columns holds those of the inputs by name.
func (c *predictionCounts) add(churn bool, columns map[string]int, missing, unseen []string) {
	if churn {
		c.churn++
	} else {
		c.retain++
	}
	for _, name := range missing {
		c.missing[columns[name]]++
		c.irregular = true
	}
	for _, name := range unseen {
		c.unseen[columns[name]]++
		c.irregular = true
	}
}

func (m *metrics) counted(c *predictionCounts) {
	m.churn.Add(float64(c.churn))
	m.retain.Add(float64(c.retain))
	if !c.irregular {
		return
	}
	for i := range c.missing {
		m.missing[i].Add(float64(c.missing[i]))
		m.unseen[i].Add(float64(c.unseen[i]))
	}
}
