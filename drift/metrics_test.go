package drift

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

func TestMetricsStartAtZeroAndFollowCommits(t *testing.T) {
	profile, contract := telcoProfile(t)
	registry := prometheus.NewPedanticRegistry()
	m, err := NewMetrics(registry, profile, minutes.Horizons)
	require.NoError(t, err)
	n, err := testutil.GatherAndCount(registry, "churnstream_feature_bin_events_total")
	require.NoError(t, err)
	require.Equal(t, profile.Places(), n, "every series exists before the first event, so that a rate sees it")
	n, err = testutil.GatherAndCount(registry, "churnstream_reference_bin_ratio")
	require.NoError(t, err)
	require.Equal(t, profile.Places(), n)

	a, err := NewAccumulator(profile, contract, minutes, source, m)
	require.NoError(t, err)
	a.SetClock(hour)
	observe(a, 0, 5, hour)
	booleans := func(events int) string {
		return fmt.Sprintf(`
# HELP churnstream_feature_bin_events_total Events counted, by feature (an input or the score) and place of its reference profile.
# TYPE churnstream_feature_bin_events_total counter
churnstream_feature_bin_events_total{bin="false",feature="boolean_0"} %d
churnstream_feature_bin_events_total{bin="missing",feature="boolean_0"} 0
churnstream_feature_bin_events_total{bin="true",feature="boolean_0"} 0
`, events)
	}
	only := func(feature string) prometheus.Gatherer {
		return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return gatherFeature(registry, feature) })
	}
	require.NoError(t, testutil.GatherAndCompare(only("boolean_0"), strings.NewReader(booleans(0)), "churnstream_feature_bin_events_total"))
	a.Discard()
	observe(a, 0, 5, hour)
	observe(a, 5, 2, hour-10_000*minute)
	observe(a, 7, 3, hour+100*minute)
	observe(a, 10, 4, -1)
	a.Commit()
	require.NoError(t, testutil.GatherAndCompare(only("boolean_0"), strings.NewReader(booleans(5)), "churnstream_feature_bin_events_total"))
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP churnstream_drift_late_events_total Events scored but older than the drift window, so not part of any population.
# TYPE churnstream_drift_late_events_total counter
churnstream_drift_late_events_total 2
# HELP churnstream_drift_rejected_events_total Events scored but not counted for drift, by reason: ahead (time too far in the future) or untimed.
# TYPE churnstream_drift_rejected_events_total counter
churnstream_drift_rejected_events_total{reason="ahead"} 3
churnstream_drift_rejected_events_total{reason="untimed"} 4
# HELP churnstream_reference_events Rows of the reference population.
# TYPE churnstream_reference_events gauge
churnstream_reference_events 5000
`), "churnstream_drift_late_events_total", "churnstream_drift_rejected_events_total", "churnstream_reference_events"))
}

func TestMetricsReportAnEvaluation(t *testing.T) {
	profile, _ := telcoProfile(t)
	registry := prometheus.NewPedanticRegistry()
	m, err := NewMetrics(registry, profile, []time.Duration{time.Hour})
	require.NoError(t, err)
	only := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return gatherFeature(registry, "number_0") })
	alarms := newAlarms(t, AlarmConfig{ClearHold: 1, TopBins: 1})
	evaluation := found(t, 0, 0.3)
	alarms.Step(0, evaluation)
	m.Report(evaluation, alarms)
	require.NoError(t, testutil.GatherAndCompare(only, strings.NewReader(`
# HELP churnstream_drift_alarm_raised 1 while the drift alarm of the feature is raised.
# TYPE churnstream_drift_alarm_raised gauge
churnstream_drift_alarm_raised{feature="number_0"} 1
# HELP churnstream_drift_evidence_nats Evidence that the population is relevantly away from the reference, NaN while nothing can be said.
# TYPE churnstream_drift_evidence_nats gauge
churnstream_drift_evidence_nats{feature="number_0",horizon="1h"} 20
# HELP churnstream_drift_psi Population stability index against the reference, NaN while nothing can be said.
# TYPE churnstream_drift_psi gauge
churnstream_drift_psi{feature="number_0",horizon="1h"} 0.3
# HELP churnstream_drift_psi_visible Smallest PSI that would raise an alarm with the customers of the window, NaN while nothing can be said.
# TYPE churnstream_drift_psi_visible gauge
churnstream_drift_psi_visible{feature="number_0",horizon="1h"} 0.2
# HELP churnstream_drift_state 1 for the state that the feature is in.
# TYPE churnstream_drift_state gauge
churnstream_drift_state{feature="number_0",state="drifting"} 1
churnstream_drift_state{feature="number_0",state="dominated"} 0
churnstream_drift_state{feature="number_0",state="insufficient_data"} 0
churnstream_drift_state{feature="number_0",state="insufficient_reference"} 0
churnstream_drift_state{feature="number_0",state="ok"} 0
`), "churnstream_drift_alarm_raised", "churnstream_drift_evidence_nats", "churnstream_drift_psi", "churnstream_drift_psi_visible", "churnstream_drift_state"))
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP churnstream_drift_window_effective_customers Independent customers that the events of the evaluated window are worth.
# TYPE churnstream_drift_window_effective_customers gauge
churnstream_drift_window_effective_customers{horizon="1h"} 1000
# HELP churnstream_drift_window_events Events in the evaluated window.
# TYPE churnstream_drift_window_events gauge
churnstream_drift_window_events{horizon="1h"} 1000
`), "churnstream_drift_window_effective_customers", "churnstream_drift_window_events"))
	for length, want := range map[time.Duration]string{10 * time.Minute: "10m", time.Hour: "1h", 24 * time.Hour: "1d", 90 * time.Minute: "90m", 10 * time.Second: "10s"} {
		require.Equal(t, want, HorizonLabel(length))
	}
}

func TestCalibrationMetricsTellTheReport(t *testing.T) {
	bad := reportOf(t, 3000, func(p float64) float64 { return min(1, p+0.2) })
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, NewCalibrationMetrics(registry, model, &bad, true, 1_700_000_000_500))
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(fmt.Sprintf(`
# HELP churnstream_calibration_alarm_raised 1 while the alarm of miscalibration is raised.
# TYPE churnstream_calibration_alarm_raised gauge
churnstream_calibration_alarm_raised{model="telco",version="3"} 1
# HELP churnstream_calibration_brier_score Mean squared difference of score and outcome.
# TYPE churnstream_calibration_brier_score gauge
churnstream_calibration_brier_score{model="telco",version="3"} %v
# HELP churnstream_calibration_effective_customers Independent customers that the pairs are worth.
# TYPE churnstream_calibration_effective_customers gauge
churnstream_calibration_effective_customers{model="telco",version="3"} %v
# HELP churnstream_calibration_evidence_nats Evidence that the scores of some bin are relevantly off, NaN while nothing can be said.
# TYPE churnstream_calibration_evidence_nats gauge
churnstream_calibration_evidence_nats{model="telco",version="3"} %v
# HELP churnstream_calibration_evidence_needed_nats Evidence that calls a bin miscalibrated.
# TYPE churnstream_calibration_evidence_needed_nats gauge
churnstream_calibration_evidence_needed_nats{model="telco",version="3"} %v
# HELP churnstream_calibration_expected_error Mean difference of score and churn rate over the bins of the score, by their outcomes.
# TYPE churnstream_calibration_expected_error gauge
churnstream_calibration_expected_error{model="telco",version="3"} %v
# HELP churnstream_calibration_pairs Pairs of score and outcome in the report.
# TYPE churnstream_calibration_pairs gauge
churnstream_calibration_pairs{model="telco",version="3"} 3000
# HELP churnstream_calibration_report_timestamp_seconds Time of the report, in seconds since 1970.
# TYPE churnstream_calibration_report_timestamp_seconds gauge
churnstream_calibration_report_timestamp_seconds{model="telco",version="3"} 1.7000000005e+09
# HELP churnstream_calibration_state 1 for the state that the report found.
# TYPE churnstream_calibration_state gauge
churnstream_calibration_state{model="telco",state="insufficient_data",version="3"} 0
churnstream_calibration_state{model="telco",state="miscalibrated",version="3"} 1
churnstream_calibration_state{model="telco",state="ok",version="3"} 0
`, bad.Brier, bad.Customers, bad.Evidence, bad.Needed, bad.ExpectedError))))
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.ErrorContains(t, NewCalibrationMetrics(registry, model, &bad, true, 0), "register calibration metrics")
}

func TestMetricsRefuseASecondRegistration(t *testing.T) {
	profile, _ := telcoProfile(t)
	registry := prometheus.NewRegistry()
	_, err := NewMetrics(registry, profile, minutes.Horizons)
	require.NoError(t, err)
	_, err = NewMetrics(registry, profile, minutes.Horizons)
	require.ErrorContains(t, err, "register drift metrics")
}

func TestMetricNamesAndHelpFollowTheConventions(t *testing.T) {
	profile, _ := telcoProfile(t)
	registry := prometheus.NewRegistry()
	_, err := NewMetrics(registry, profile, minutes.Horizons)
	require.NoError(t, err)
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// gatherFeature is what the registry holds of one feature.
func gatherFeature(registry *prometheus.Registry, feature string) ([]*dto.MetricFamily, error) {
	families, err := registry.Gather()
	for _, family := range families {
		family.Metric = slices.DeleteFunc(family.Metric, func(m *dto.Metric) bool {
			return !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
				return l.GetName() == "feature" && l.GetValue() == feature
			})
		})
	}
	return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return len(f.Metric) == 0 }), err
}
