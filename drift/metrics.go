package drift

import (
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the collectors of one profile. Label values come from the profile alone, so their number is bounded by
// its limits; none holds anything of a customer.
type Metrics struct {
	counts   []prometheus.Counter // one a place of the profile
	late     prometheus.Counter
	rejected map[string]prometheus.Counter
	replayed prometheus.Counter

	psi, critical, pValue, raised []prometheus.Gauge   // one a feature
	states                        [][]prometheus.Gauge // one a feature and state
	windowEvents, effective, end  prometheus.Gauge
}

// Reasons for which an event is in no bucket at all.
const (
	rejectedAhead   = "ahead"
	rejectedUntimed = "untimed"
)

// NewMetrics registers the collectors of a profile with reg. Every series exists at once, with 0 where it counts, so
// that a rate sees the first event.
func NewMetrics(reg prometheus.Registerer, profile *Profile) (*Metrics, error) {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "churnstream_feature_bin_events_total",
		Help: "Events counted, by feature (an input or the score) and place of its reference profile.",
	}, []string{"feature", "bin"})
	late := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "churnstream_drift_late_events_total",
		Help: "Events scored but older than the drift window, so not part of any population.",
	})
	rejected := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "churnstream_drift_rejected_events_total",
		Help: "Events scored but not counted for drift, by reason: ahead (time too far in the future) or untimed.",
	}, []string{"reason"})
	replayed := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "churnstream_drift_replayed_events_total",
		Help: "Events seen again after a restart whose count was restored already.",
	})
	ratio := gauge("churnstream_reference_bin_ratio", "Smoothed share of the reference population, by feature and place.", "feature", "bin")
	reference := gauge("churnstream_reference_events", "Rows of the reference population.")
	psi := gauge("churnstream_drift_psi", "Population stability index against the reference, NaN while there is too little data.", "feature")
	critical := gauge("churnstream_drift_psi_critical", "PSI from which on the feature is drifting at this sample size, NaN while there is too little data.", "feature")
	pValue := gauge("churnstream_drift_p_value", "Probability of the PSI if the population had not moved.", "feature")
	state := gauge("churnstream_drift_state", "1 for the state the feature is in: ok, drifting or insufficient_data.", "feature", "state")
	raised := gauge("churnstream_drift_alarm_raised", "1 while the drift alarm of the feature is raised.", "feature")
	windowEvents := gauge("churnstream_drift_window_events", "Events in the evaluated window.")
	effective := gauge("churnstream_drift_window_effective_customers", "Independent customers that the events of the evaluated window are worth.")
	end := gauge("churnstream_drift_window_end_seconds", "Event time at which the evaluated window ends, in seconds since 1970.")

	m := &Metrics{
		late: late, replayed: replayed,
		rejected: map[string]prometheus.Counter{
			rejectedAhead:   rejected.WithLabelValues(rejectedAhead),
			rejectedUntimed: rejected.WithLabelValues(rejectedUntimed),
		},
		windowEvents: windowEvents.WithLabelValues(), effective: effective.WithLabelValues(), end: end.WithLabelValues(),
	}
	reference.WithLabelValues().Set(float64(profile.Events))
	for i := range profile.Features {
		f := &profile.Features[i]
		for place, label := range f.Labels {
			m.counts = append(m.counts, events.WithLabelValues(f.Name, label))
			ratio.WithLabelValues(f.Name, label).Set(f.Shares[place])
		}
		m.psi = append(m.psi, psi.WithLabelValues(f.Name))
		m.critical = append(m.critical, critical.WithLabelValues(f.Name))
		m.pValue = append(m.pValue, pValue.WithLabelValues(f.Name))
		m.raised = append(m.raised, raised.WithLabelValues(f.Name))
		var states []prometheus.Gauge
		for _, s := range States() {
			states = append(states, state.WithLabelValues(f.Name, string(s)))
		}
		m.states = append(m.states, states)
	}
	m.Forget()
	var faults []error
	for _, c := range []prometheus.Collector{
		events, late, rejected, replayed, ratio, reference, psi, critical, pValue, state, raised, windowEvents, effective, end,
	} {
		if err := reg.Register(c); err != nil {
			faults = append(faults, err)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("register drift metrics: %w", err)
	}
	return m, nil
}

// Report shows an evaluation and which alarms are raised after it.
func (m *Metrics) Report(evaluation Evaluation, alarms *Alarms) {
	m.windowEvents.Set(float64(evaluation.Window.Events))
	m.effective.Set(evaluation.Window.EffectiveCustomers())
	m.end.Set(float64(evaluation.Window.End) / 1000)
	for i, f := range evaluation.Findings {
		m.setFeature(i, f)
		m.raised[i].Set(oneIf(alarms.Raised(f.Feature)))
	}
}

// Forget shows that nothing is evaluated here, as at the start: another worker may be doing it.
func (m *Metrics) Forget() {
	m.windowEvents.Set(0)
	m.effective.Set(0)
	m.end.Set(0)
	for i := range m.psi {
		m.setFeature(i, Finding{PSI: math.NaN(), Critical: math.NaN(), PValue: math.NaN(), State: StateInsufficientData})
		m.raised[i].Set(0)
	}
}

func (m *Metrics) setFeature(i int, f Finding) {
	m.psi[i].Set(f.PSI)
	m.critical[i].Set(f.Critical)
	m.pValue[i].Set(f.PValue)
	for s, state := range States() {
		m.states[i][s].Set(oneIf(f.State == state))
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// addCounts adds the committed counts of one bucket, one a place.
func (m *Metrics) addCounts(counts []uint32) {
	for place, c := range counts {
		if c > 0 {
			m.counts[place].Add(float64(c))
		}
	}
}

func (m *Metrics) addTally(t Tally) {
	m.late.Add(float64(t.Late))
	m.replayed.Add(float64(t.Replayed))
	m.rejected[rejectedAhead].Add(float64(t.Ahead))
	m.rejected[rejectedUntimed].Add(float64(t.Untimed))
}
