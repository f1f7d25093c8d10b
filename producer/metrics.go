package producer

import (
	"github.com/prometheus/client_golang/prometheus"
)

// The results of a unit, as the label of churnstream_producer_transactions_total.
const (
	resultCommitted   = "committed"
	resultEmpty       = "empty"
	resultAborted     = "aborted"
	resultStaleMember = "stale_member"
	resultInterrupted = "interrupted"
	resultAbortable   = "abortable"
	resultFenced      = "fenced"
	resultFatal       = "fatal"
)

// Metrics counts what the publishers of one process do. It is shared by all of them.
type Metrics struct {
	committed       prometheus.Counter
	aborted         prometheus.Counter
	transactions    *prometheus.CounterVec
	produceSeconds  prometheus.Histogram
	commitSeconds   prometheus.Histogram
	steps           stepSeconds
	records         prometheus.Counter
	throttleSeconds prometheus.Counter
	bytes           prometheus.Counter
	retries         *prometheus.CounterVec
}

// stepSeconds times the steps of a transaction, in their order.
type stepSeconds struct{ join, produce, offsets, end prometheus.Observer }

// NewMetrics creates the collectors and registers them with reg, which may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const namespace, subsystem = "churnstream", "producer"
	histogramOpts := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: name, Help: help,
			Buckets:                         prometheus.ExponentialBuckets(0.0005, 2, 16),
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: 0,
		}
	}
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(histogramOpts(name, help))
	}
	steps := prometheus.NewHistogramVec(histogramOpts("transaction_step_seconds",
		"Seconds of one step of a transaction that succeeded: join (what precedes the first Produce), produce, offsets, end."), []string{"step"})
	m := &Metrics{
		steps: stepSeconds{
			join: steps.WithLabelValues("join"), produce: steps.WithLabelValues("produce"),
			offsets: steps.WithLabelValues("offsets"), end: steps.WithLabelValues("end"),
		},
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "transactions_total",
			Help: "Units of records and offsets by how Commit or Abort ended.",
		}, []string{"result"}),
		produceSeconds: histogram("produce_seconds", "Seconds from sending one Produce request to its answer."),
		commitSeconds:  histogram("commit_seconds", "Seconds of a whole Commit that succeeded: produce, offsets and the end of the transaction."),
		throttleSeconds: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "throttle_seconds_total",
			Help: "Time that brokers asked producers to wait for quota.",
		}),
		records: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "records_total",
			Help: "Records that a partition leader acknowledged, committed or not.",
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "bytes_total",
			Help: "Bytes of the acknowledged record batches, after compression.",
		}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "retries_total",
			Help: "Requests repeated in place, by operation and Kafka's error code; NETWORK where no answer came.",
		}, []string{"operation", "code"}),
	}
	m.committed = m.transactions.WithLabelValues(resultCommitted)
	m.aborted = m.transactions.WithLabelValues(resultAborted)
	if reg != nil {
		reg.MustRegister(m.transactions, m.produceSeconds, m.commitSeconds, steps, m.throttleSeconds, m.records, m.bytes, m.retries)
	}
	return m
}
