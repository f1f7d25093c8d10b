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
