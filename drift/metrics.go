package drift

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the collectors of one profile. Label values come from the profile alone, so their number is bounded by
// its limits; none holds anything of a customer.
type Metrics struct {
	counts   []prometheus.Counter // one a place of the profile
	ratios   []prometheus.Gauge   // likewise; nil where they stay as they are
	late     prometheus.Counter
	rejected map[string]prometheus.Counter
	replayed prometheus.Counter

	psi, evidence, visible  [][]prometheus.Gauge // one a feature and horizon
	raised, effect, mean    []prometheus.Gauge   // one a feature
	missing, unseen         []prometheus.Gauge   // one a feature
	states                  [][]prometheus.Gauge // one a feature and state
	windowEvents, effective []prometheus.Gauge   // one a horizon
	end, needed             prometheus.Gauge
}

// Reasons for which an event is in no bucket at all.
const (
	rejectedAhead   = "ahead"
	rejectedUntimed = "untimed"
)

// NewMetrics registers the collectors of a profile and of windows of such horizons with reg. Every series exists at once,
// with 0 where it counts, so that a rate sees the first event.
func NewMetrics(reg prometheus.Registerer, profile *Profile, horizons []time.Duration) (*Metrics, error) {
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
	ratio := gauge("churnstream_reference_bin_ratio", "Smoothed share of the reference population, by feature and place; with classes of time, of those of the evaluated hour, NaN where they are too few or it is not evaluated here.", "feature", "bin")
	reference := gauge("churnstream_reference_events", "Rows of the reference population.")
	psi := gauge("churnstream_drift_psi", "Population stability index against the reference, NaN while nothing can be said.", "feature", "horizon")
	evidence := gauge("churnstream_drift_evidence_nats", "Evidence that the population is relevantly away from the reference, NaN while nothing can be said.", "feature", "horizon")
	visible := gauge("churnstream_drift_psi_visible", "Smallest PSI that would raise an alarm with the customers of the window, NaN while nothing can be said.", "feature", "horizon")
	needed := gauge("churnstream_drift_evidence_needed_nats", "Evidence that raises an alarm: the yearly budget of false ones, shared over everything asked.")
	state := gauge("churnstream_drift_state", "1 for the state that the feature is in.", "feature", "state")
	raised := gauge("churnstream_drift_alarm_raised", "1 while the drift alarm of the feature is raised.", "feature")
	effect := gauge("churnstream_drift_effect", "What the feature's shift does to the mean log-odds of the scores; 0 where contributions are not known.", "feature")
	mean := gauge("churnstream_drift_mean", "Mean of a numeric feature in the window that its state stands on.", "feature")
	missing := gauge("churnstream_drift_missing_ratio", "Share of events without a value in the window that the feature's state stands on.", "feature")
	unseen := gauge("churnstream_drift_unseen_ratio", "Share of categories that the reference does not hold, or of numbers outside its range, in the same window.", "feature")
	windowEvents := gauge("churnstream_drift_window_events", "Events in the evaluated window.", "horizon")
	effective := gauge("churnstream_drift_window_effective_customers", "Independent customers that the events of the evaluated window are worth.", "horizon")
	end := gauge("churnstream_drift_window_end_seconds", "Event time at which the evaluated windows end, in seconds since 1970.")

	m := &Metrics{
		late: late, replayed: replayed,
		rejected: map[string]prometheus.Counter{
			rejectedAhead:   rejected.WithLabelValues(rejectedAhead),
			rejectedUntimed: rejected.WithLabelValues(rejectedUntimed),
		},
		end: end.WithLabelValues(), needed: needed.WithLabelValues(),
	}
	for _, h := range horizons {
		m.windowEvents = append(m.windowEvents, windowEvents.WithLabelValues(HorizonLabel(h)))
		m.effective = append(m.effective, effective.WithLabelValues(HorizonLabel(h)))
	}
	byHorizon := func(v *prometheus.GaugeVec, feature string) (gauges []prometheus.Gauge) {
		for _, h := range horizons {
			gauges = append(gauges, v.WithLabelValues(feature, HorizonLabel(h)))
		}
		return gauges
	}
	reference.WithLabelValues().Set(float64(profile.Events))
	for i := range profile.Features {
		f := &profile.Features[i]
		for place, label := range f.Labels {
			m.counts = append(m.counts, events.WithLabelValues(f.Name, label))
			share := ratio.WithLabelValues(f.Name, label)
			share.Set(f.Shares[place])
			if profile.Classes != nil {
				m.ratios = append(m.ratios, share)
			}
		}
		m.psi = append(m.psi, byHorizon(psi, f.Name))
		m.evidence = append(m.evidence, byHorizon(evidence, f.Name))
		m.visible = append(m.visible, byHorizon(visible, f.Name))
		m.raised = append(m.raised, raised.WithLabelValues(f.Name))
		m.effect = append(m.effect, effect.WithLabelValues(f.Name))
		m.mean = append(m.mean, mean.WithLabelValues(f.Name))
		m.missing = append(m.missing, missing.WithLabelValues(f.Name))
		m.unseen = append(m.unseen, unseen.WithLabelValues(f.Name))
		var states []prometheus.Gauge
		for _, s := range States() {
			states = append(states, state.WithLabelValues(f.Name, string(s)))
		}
		m.states = append(m.states, states)
	}
	m.Forget()
	var faults []error
	for _, c := range []prometheus.Collector{
		events, late, rejected, replayed, ratio, reference, psi, evidence, visible, needed, state, raised, effect, mean, missing, unseen,
		windowEvents, effective, end,
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
	for h, w := range evaluation.Windows {
		m.windowEvents[h].Set(float64(w.Events))
		m.effective[h].Set(w.EffectiveCustomers())
	}
	m.end.Set(float64(evaluation.End) / 1000)
	m.needed.Set(alarms.rule.Needed)
	for i := range evaluation.Findings {
		f := &evaluation.Findings[i]
		for h := range f.Judgements {
			j := &f.Judgements[h]
			m.setHorizon(i, h, j.PSI, j.Evidence, j.Visible)
		}
		m.setFeature(i, f)
		m.raised[i].Set(oneIf(alarms.Raised(f.Feature)))
	}
	m.setRatios(evaluation)
}

// setRatios shows what was expected of the window of an hour, as Prometheus recomputes the index over one.
func (m *Metrics) setRatios(evaluation Evaluation) {
	if m.ratios == nil {
		return
	}
	h := slices.IndexFunc(evaluation.Windows, func(w *Window) bool { return w.Horizon >= time.Hour })
	if h < 0 {
		h = len(evaluation.Windows) - 1
	}
	ratios := m.ratios
	for i := range evaluation.Findings {
		f := &evaluation.Findings[i]
		shares := f.Expected[h].Shares
		for place, share := range shares {
			if f.Judgements[h].State == StateInsufficientReference {
				share = math.NaN()
			}
			ratios[place].Set(share)
		}
		ratios = ratios[len(shares):]
	}
}

// Forget shows that nothing is evaluated here, as at the start: another worker may be doing it.
func (m *Metrics) Forget() {
	for h := range m.windowEvents {
		m.windowEvents[h].Set(0)
		m.effective[h].Set(0)
	}
	m.end.Set(0)
	nan := math.NaN()
	m.needed.Set(nan)
	for _, ratio := range m.ratios {
		ratio.Set(nan)
	}
	for i := range m.psi {
		for h := range m.psi[i] {
			m.setHorizon(i, h, nan, nan, nan)
		}
		m.setFeature(i, &Finding{State: StateInsufficientData, Summary: Summary{Mean: nan, MissingShare: nan, UnseenShare: nan}})
		m.raised[i].Set(0)
	}
}

func (m *Metrics) setHorizon(i, h int, psi, evidence, visible float64) {
	m.psi[i][h].Set(psi)
	m.evidence[i][h].Set(evidence)
	m.visible[i][h].Set(visible)
}

func (m *Metrics) setFeature(i int, f *Finding) {
	m.effect[i].Set(f.Effect)
	m.mean[i].Set(f.Summary.Mean)
	m.missing[i].Set(f.Summary.MissingShare)
	m.unseen[i].Set(f.Summary.UnseenShare)
	for s, state := range States() {
		m.states[i][s].Set(oneIf(f.State == state))
	}
}

// HorizonLabel writes a length of time as people do: 10m, 1h, 7d.
func HorizonLabel(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	case d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	default:
		return d.String()
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

// NewCalibrationMetrics registers collectors of what a report on calibration found with reg: of the model, at a time in ms.
// raised says whether the alarm of miscalibration is on after it. Numbers that mean nothing are NaN.
func NewCalibrationMetrics(reg prometheus.Registerer, model ModelName, report *CalibrationReport, raised bool, at int64) error {
	var faults []error
	set := func(name, help string, value float64) {
		gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"model", "version"})
		gauge.WithLabelValues(model.Name, model.Version).Set(value)
		faults = append(faults, reg.Register(gauge))
	}
	set("churnstream_calibration_expected_error", "Mean difference of score and churn rate over the bins of the score, by their outcomes.", report.ExpectedError)
	set("churnstream_calibration_brier_score", "Mean squared difference of score and outcome.", report.Brier)
	set("churnstream_calibration_pairs", "Pairs of score and outcome in the report.", float64(report.Pairs))
	set("churnstream_calibration_effective_customers", "Independent customers that the pairs are worth.", report.Customers)
	set("churnstream_calibration_evidence_nats", "Evidence that the scores of some bin are relevantly off, NaN while nothing can be said.", report.Evidence)
	set("churnstream_calibration_evidence_needed_nats", "Evidence that calls a bin miscalibrated.", report.Needed)
	set("churnstream_calibration_alarm_raised", "1 while the alarm of miscalibration is raised.", oneIf(raised))
	set("churnstream_calibration_report_timestamp_seconds", "Time of the report, in seconds since 1970.", float64(at)/1000)
	state := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "churnstream_calibration_state", Help: "1 for the state that the report found.",
	}, []string{"model", "version", "state"})
	for _, s := range []CalibrationState{Calibrated, Miscalibrated, CalibrationInsufficient} {
		state.WithLabelValues(model.Name, model.Version, string(s)).Set(oneIf(report.State == s))
	}
	faults = append(faults, reg.Register(state))
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("register calibration metrics: %w", err)
	}
	return nil
}
