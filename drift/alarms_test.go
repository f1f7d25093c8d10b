package drift

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/churnstream/churnstream/schemas"
)

var model = ModelName{Name: "telco", Version: "3", Digest: source.ModelDigest}

func newAlarms(t testing.TB, cfg AlarmConfig) *Alarms {
	t.Helper()
	profile, _ := telcoProfile(t)
	a, err := NewAlarms(profile, model, cfg)
	require.NoError(t, err)
	return a
}

// found is an evaluation in minute n in which number_0 has a PSI and the rule drew its line at 0.2.
func found(n int64, psi float64) Evaluation {
	f := Finding{Feature: "number_0", State: StateOK, PSI: psi, Critical: 0.2, PValue: 1e-9, Calm: psi < 0.14, Events: 1000, EffectiveCustomers: 800, ReferenceEvents: 5000}
	switch {
	case math.IsNaN(psi):
		f.State = StateInsufficientData
	case psi > 0.2:
		f.State = StateDrifting
	}
	f.Bins = []schemas.BinShift{
		{Label: "[0, 1]", Reference: 0.5, Current: 0.3, Contribution: 0.10},
		{Label: "(1, 2]", Reference: 0.5, Current: 0.5},
		{Label: "missing", Reference: 0.01, Current: 0.2, Contribution: 0.57},
		{Label: "> 2", Reference: 0.001, Current: 0.002, Contribution: 0.001},
	}
	return Evaluation{Window: Window{Start: hour + n*minute, End: hour + (n+60)*minute, Events: 1000, DesignEffect: 1.25}, Findings: []Finding{f}}
}

func TestAlarmIsRaisedAndClearedOnlyAfterTheHold(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name string
		psi  []float64
		want map[int]string // by evaluation
	}{
		{"short drift", []float64{.3, .3, .1, .3, .3, .1}, nil},
		{"held drift", []float64{.3, .3, .3, .3, .3}, map[int]string{2: schemas.AlertRaised}},
		{"too little data breaks the hold", []float64{.3, .3, nan, .3, .3}, nil},
		{"calm again", []float64{.3, .3, .3, .1, .1, .1, .1}, map[int]string{2: schemas.AlertRaised, 4: schemas.AlertCleared}},
		{"neither drifting nor calm", []float64{.3, .3, .3, .15, .15, .15, .1, .15, .1}, map[int]string{2: schemas.AlertRaised}},
		{"too little data does not clear", []float64{.3, .3, .3, nan, nan, nan}, map[int]string{2: schemas.AlertRaised}},
		{"much worse", []float64{.3, .3, .3, .59, .61, .62, 1.3}, map[int]string{2: schemas.AlertRaised, 4: schemas.AlertUpdated, 6: schemas.AlertUpdated}},
		{
			"a second episode",
			[]float64{.3, .3, .3, .1, .1, .3, .3, .3},
			map[int]string{2: schemas.AlertRaised, 4: schemas.AlertCleared, 7: schemas.AlertRaised},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			alarms := newAlarms(t, AlarmConfig{Hold: 3, ClearHold: 2, Update: 2, TopBins: 3})
			episodes := map[string]bool{}
			for n, psi := range tt.psi {
				records := alarms.Step(int64(n), found(int64(n), psi))
				again := alarms.Step(int64(n), found(int64(n), psi))
				require.Empty(t, again, "a window that has not moved on tells nothing new")
				if tt.want[n] == "" {
					require.Empty(t, records, "evaluation %d", n)
					continue
				}
				require.Len(t, records, 1, "evaluation %d", n)
				require.Equal(t, tt.want[n], records[0].State, "evaluation %d", n)
				require.Equal(t, tt.want[n] != schemas.AlertRaised, episodes[records[0].AlertID], "an episode keeps its name")
				episodes[records[0].AlertID] = true
				require.Equal(t, tt.want[n] != schemas.AlertCleared, alarms.Raised("number_0"))
			}
		})
	}
}

func TestAlertRecordSaysWhatMovedAndSurvivesTheWire(t *testing.T) {
	alarms := newAlarms(t, AlarmConfig{Hold: 1, ClearHold: 1, TopBins: 2})
	records := alarms.Step(hour+61*minute, found(0, 0.68))
	require.Len(t, records, 1)
	r := records[0]
	require.Equal(t, schemas.DriftAlert{
		AlertID: r.AlertID, State: schemas.AlertRaised, ModelName: "telco", ModelVersion: "3", ModelDigest: source.ModelDigest,
		Feature: "number_0", PSI: 0.68, Critical: 0.2, PValue: 1e-9, WindowStart: hour, WindowEnd: hour + 60*minute,
		Events: 1000, ReferenceEvents: 5000, At: hour + 61*minute, Message: r.Message,
		TopBins: []schemas.BinShift{{Label: "missing", Reference: 0.01, Current: 0.2, Contribution: 0.57}, {Label: "[0, 1]", Reference: 0.5, Current: 0.3, Contribution: 0.10}},
	}, r)
	require.Equal(t, `Input "number_0" has moved away from the training population: PSI 0.680 in the 1h0m0s to 2023-11-14 23:13:20 UTC `+
		`(1000 events, worth 800 independent customers), alarm limit 0.200. Most moved: missing from 1.0% to 20.0%; [0, 1] from 50.0% to 30.0%. `+
		`The producer has stopped filling the field for part of the customers: check its last change.`, r.Message)
	var back schemas.DriftAlert
	require.NoError(t, schemas.DecodeDriftAlert(r.AppendAvro(nil), &back))
	require.Equal(t, r, back)

	cleared := alarms.Step(hour+62*minute, found(1, 0.01))
	require.Contains(t, cleared[0].Message, "is back near the training population: PSI 0.010")
}

func TestRestoredAlarmIsNotRaisedAgainAndIsCleared(t *testing.T) {
	cfg := AlarmConfig{Hold: 1, ClearHold: 1, TopBins: 1}
	before := newAlarms(t, cfg)
	raised := before.Step(0, found(0, .3))[0]

	after := newAlarms(t, cfg)
	after.Restore(&raised)
	require.True(t, after.Raised("number_0"))
	require.Empty(t, after.Step(1, found(1, .3)))
	cleared := after.Step(2, found(2, .1))
	require.Equal(t, raised.AlertID, cleared[0].AlertID)

	after = newAlarms(t, cfg)
	after.Restore(&raised)
	after.Restore(&cleared[0])
	require.False(t, after.Raised("number_0"))

	foreign, gone := raised, raised
	foreign.ModelDigest = "sha256:def"
	gone.Feature = "an input of another model"
	after.Restore(&foreign)
	after.Restore(&gone)
	require.False(t, after.Raised("number_0"))
}

func TestConfigurationsNameEveryFaultAtOnce(t *testing.T) {
	require.NoError(t, DefaultAlarmConfig().Validate())
	require.NoError(t, DefaultPopulationConfig().Validate())
	require.NoError(t, DefaultRelevantShiftConfig().Validate())
	require.NoError(t, DefaultProfileConfig().Validate())
	err := AlarmConfig{Update: 1}.Validate()
	for _, key := range []string{"drift.hold:", "drift.clear_hold:", "drift.update:", "drift.top_bins:"} {
		require.ErrorContains(t, err, key)
	}
	_, err = NewRelevantShift(RelevantShiftConfig{ShiftAlpha: math.NaN()})
	for _, key := range []string{".shift:", ".shift_alpha:", ".significance:", ".calm:", ".events_a_place:"} {
		require.ErrorContains(t, err, "drift.rule"+key)
	}
	require.ErrorContains(t, PopulationConfig{Idle: -1}.Validate(), "drift.idle:")
}
