package consumer

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the collectors of this package. Labels hold topics, partitions and causes only.
type Metrics struct {
	Fetches         prometheus.Counter
	FetchedBytes    prometheus.Counter
	FetchSeconds    prometheus.Histogram
	FetchErrors     *prometheus.CounterVec // cause
	OffsetResets    *prometheus.CounterVec // topic, policy, cause
	ThrottleSeconds prometheus.Counter
	Rebalances      *prometheus.CounterVec // cause
	Heartbeats      *prometheus.CounterVec // result
	LostPartitions  prometheus.Counter
}

// NewMetrics registers the collectors; a nil registerer makes some that nobody reads.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		Fetches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "churnstream_fetch_requests_total", Help: "Fetch requests answered by brokers.",
		}),
		FetchedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "churnstream_fetch_bytes_total", Help: "Bytes of record batches received, as compressed by their producers.",
		}),
		FetchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "churnstream_fetch_seconds", Help: "Duration of fetch requests, the broker's wait for data included.",
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}),
		FetchErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "churnstream_fetch_errors_total", Help: "Fetches and leader look-ups that failed, by cause.",
		}, []string{"cause"}),
		OffsetResets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "churnstream_offset_resets_total", Help: "Positions that were lost, by topic, what was done, and why: out_of_range, truncated or recreated.",
		}, []string{"topic", "policy", "cause"}),
		ThrottleSeconds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "churnstream_fetch_throttle_seconds_total", Help: "Time that brokers asked fetches to wait for quota.",
		}),
		Rebalances: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "churnstream_rebalances_total", Help: "Times that the group was joined, by cause.",
		}, []string{"cause"}),
		Heartbeats: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "churnstream_heartbeats_total", Help: "Heartbeats by result.",
		}, []string{"result"}),
		LostPartitions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "churnstream_partitions_lost_total", Help: "Partitions taken away without the chance to commit.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.Fetches, m.FetchedBytes, m.FetchSeconds, m.FetchErrors, m.OffsetResets, m.ThrottleSeconds,
			m.Rebalances, m.Heartbeats, m.LostPartitions)
	}
	return m
}
