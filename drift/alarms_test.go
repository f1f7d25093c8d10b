package drift

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/churnstream/churnstream/schemas"
)

var model = ModelName{Name: "telco", Version: "3", Digest: source.ModelDigest}

func newAlarms(t testing.TB, cfg AlarmConfig) *Alarms {
	t.Helper()
	profile, _ := telcoProfile(t)
	a, err := NewAlarms(newPopulation(t, profile), model, cfg)
	require.NoError(t, err)
	return a
}

// found is an evaluation in minute n in which number_0 has a PSI over an hour, of which 0.2 and more is drift. NaN: nothing
// can be said. Its calm window is that hour.
func found(t testing.TB, n int64, psi float64) Evaluation {
	t.Helper()
	profile, _ := telcoProfile(t)
	w := profile.newWindow(time.Hour, hour+(n+60)*minute)
	w.Start, w.Events = hour+n*minute, 1000
	w.Counts[profile.Features[profile.inputs].first+3] = 1000
	w.Moments[profile.Features[profile.inputs].moment] = Moments{Sum: 1000 * (0.7 - profile.Features[profile.inputs].centre)}
	j := Judgement{State: StateOK, PSI: psi, Evidence: 3, Visible: 0.2, Events: 1000, Customers: 800}
	evaluation := Evaluation{End: w.End, Windows: []*Window{w}, Findings: make([]Finding, len(profile.Features))}
	for i := range evaluation.Findings {
		evaluation.Findings[i] = Finding{Feature: profile.Features[i].Name, Judgements: []Judgement{{State: StateOK}}, Window: w}
	}
	f := &evaluation.Findings[0]
	f.End, f.EndWindow, f.Calm = &j, w, psi < 0.07
	switch {
	case math.IsNaN(psi):
		j.State, f.End = StateInsufficientData, nil
	case psi > 0.2:
		j.State, j.Evidence = StateDrifting, 20
	}
	f.State, f.Judgements = j.State, []Judgement{j}
	f.Bins = []schemas.BinShift{
		{Label: "[0, 1]", Reference: 0.5, Current: 0.3, Contribution: 0.10},
		{Label: "(1, 2]", Reference: 0.5, Current: 0.5},
		{Label: "missing", Reference: 0.01, Current: 0.2, Contribution: 0.57},
		{Label: "> 2", Reference: 0.001, Current: 0.002, Contribution: 0.001},
	}
	return evaluation
}

func TestAlarmIsRaisedAtOnceAndClearedOnlyAfterTheHold(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name string
		psi  []float64
		want map[int]string // by evaluation
	}{
		{"no drift", []float64{.1, .2, .15}, nil},
		{"drift", []float64{.3, .3, .3}, map[int]string{0: schemas.AlertRaised}},
		{"too little data raises nothing", []float64{nan, nan}, nil},
		{"calm again", []float64{.3, .3, .05, .05, .05, .05}, map[int]string{0: schemas.AlertRaised, 3: schemas.AlertCleared}},
		{"neither drifting nor calm", []float64{.3, .05, .15, .05, .15, .05}, map[int]string{0: schemas.AlertRaised}},
		{"too little data does not clear", []float64{.3, nan, nan, nan}, map[int]string{0: schemas.AlertRaised}},
		{"too little data keeps what is calm", []float64{.3, .05, nan, .05}, map[int]string{0: schemas.AlertRaised, 3: schemas.AlertCleared}},
		{"much worse", []float64{.3, .59, .61, .62, 1.3}, map[int]string{0: schemas.AlertRaised, 2: schemas.AlertUpdated, 4: schemas.AlertUpdated}},
		{"a second episode", []float64{.3, .05, .05, .3}, map[int]string{0: schemas.AlertRaised, 2: schemas.AlertCleared, 3: schemas.AlertRaised}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			alarms := newAlarms(t, AlarmConfig{ClearHold: 2, Update: 2, TopBins: 3})
			episodes := map[string]bool{}
			for n, psi := range tt.psi {
				records := alarms.Step(int64(n), found(t, int64(n), psi))
				again := alarms.Step(int64(n), found(t, int64(n), psi))
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
	alarms := newAlarms(t, AlarmConfig{ClearHold: 1, TopBins: 2})
	records := alarms.Step(hour+61*minute, found(t, 0, 0.68))
	require.Len(t, records, 1)
	r := records[0]
	score := &alarms.profile.Features[alarms.profile.inputs]
	require.InDelta(t, 0.7, r.ScoreMean, 1e-12)
	require.Greater(t, r.ScorePSI, 1.0)
	require.Equal(t, schemas.DriftAlert{
		AlertID: r.AlertID, State: schemas.AlertRaised, ModelName: "telco", ModelVersion: "3", ModelDigest: source.ModelDigest,
		Feature: "number_0", PSI: 0.68, Critical: 0.2, PValue: math.Exp(-20), WindowStart: hour, WindowEnd: hour + 60*minute,
		Events: 1000, ReferenceEvents: 5000, At: hour + 61*minute, Message: r.Message,
		TopBins:  []schemas.BinShift{{Label: "missing", Reference: 0.01, Current: 0.2, Contribution: 0.57}, {Label: "[0, 1]", Reference: 0.5, Current: 0.3, Contribution: 0.10}},
		Evidence: 20, EvidenceNeeded: math.Log(20 * 5 * 525_600), Horizon: 3600, Customers: 800, Rank: 1,
		ScorePSI: r.ScorePSI, ScoreMean: r.ScoreMean, ScoreReferenceMean: score.Mean,
	}, r)
	require.Equal(t, `Input "number_0" has moved away from the training population: PSI 0.680 in up to 1h0m0s to 2023-11-14 23:13:20 UTC `+
		`(1000 events, worth 800 independent customers), where 0.200 would be seen. By chance once in 9.2 years. Most moved: missing from 1.0% to 20.0%; `+
		`[0, 1] from 50.0% to 30.0%. The producer has stopped filling the field for part of the customers: check its last change.`, r.Message)
	var back schemas.DriftAlert
	require.NoError(t, schemas.DecodeDriftAlert(r.AppendAvro(nil), &back))
	require.Equal(t, r, back)

	cleared := alarms.Step(hour+62*minute, found(t, 1, 0.01))
	require.Contains(t, cleared[0].Message, "is back near the training population: PSI 0.010")
}

func TestRestoredAlarmIsNotRaisedAgainAndKeepsItsMarkWhenItIsCleared(t *testing.T) {
	cfg := AlarmConfig{ClearHold: 1, TopBins: 1}
	before := newAlarms(t, cfg)
	raised := before.Step(0, found(t, 0, .3))[0]

	after := newAlarms(t, cfg)
	after.Restore(&raised)
	require.True(t, after.Raised("number_0"))
	require.Empty(t, after.Step(1, found(t, 1, .3)))
	cleared := after.Step(2, found(t, 2, .05))
	require.Equal(t, raised.AlertID, cleared[0].AlertID)
	require.Equal(t, hour+2*minute, after.Marks()[0], "the start of the window that was calm")

	again := newAlarms(t, cfg)
	again.Restore(&raised)
	again.Restore(&cleared[0])
	require.False(t, again.Raised("number_0"))
	require.Equal(t, after.Marks(), again.Marks())

	foreign, gone := raised, raised
	foreign.ModelDigest = "sha256:def"
	gone.Feature = "an input of another model"
	again.Restore(&foreign)
	again.Restore(&gone)
	require.False(t, again.Raised("number_0"))
}

func TestAlertsComeInTheOrderOfWhatTheyDoToTheScores(t *testing.T) {
	alarms := newAlarms(t, DefaultAlarmConfig())
	evaluation := found(t, 0, .3)
	drifting := evaluation.Findings[0]
	score := alarms.profile.inputs
	for i, either := range map[int]float64{2: 0.1, 5: 0.7, 7: 0, score: 0} {
		f := drifting
		f.Feature, f.Either = evaluation.Findings[i].Feature, either
		evaluation.Findings[i] = f
	}
	evaluation.Findings[0] = Finding{Feature: "number_0", Judgements: []Judgement{{State: StateOK}}, Window: drifting.Window}
	var order []string
	for _, r := range alarms.Step(0, evaluation) {
		order = append(order, r.Feature)
		require.EqualValues(t, len(order), r.Rank)
	}
	require.Equal(t, []string{"score", "number_5", "number_2", "number_7"}, order)
}

func TestConfigurationsNameEveryFaultAtOnce(t *testing.T) {
	require.NoError(t, DefaultAlarmConfig().Validate())
	require.NoError(t, DefaultPopulationConfig().Validate())
	require.NoError(t, DefaultRuleConfig().Validate())
	require.NoError(t, DefaultProfileConfig().Validate())
	err := AlarmConfig{Update: 1}.Validate()
	for _, key := range []string{"drift.clear_hold:", "drift.update:", "drift.top_bins:"} {
		require.ErrorContains(t, err, key)
	}
	_, err = NewRule(RuleConfig{Shift: math.NaN(), ReferenceAPlace: -1}, Questions{1, 1, time.Minute})
	for _, key := range []string{"relevant_psi:", "false_alarms_a_year:", "customers_a_place:", "calm:", "reference_a_place:"} {
		require.ErrorContains(t, err, "drift."+key)
	}
	_, err = NewRule(DefaultRuleConfig(), Questions{})
	require.Error(t, err)
	require.ErrorContains(t, PopulationConfig{Idle: -1}.Validate(), "drift.idle:")
	err = WindowConfig{Rings: []RingConfig{{time.Millisecond, 1}, {90 * time.Second, 3}, {100 * time.Second, 3}}, Ahead: -1}.Validate()
	for _, key := range []string{"drift.bucket:", "drift.buckets:", "drift.rings:", "drift.horizons:", "drift.ahead:"} {
		require.ErrorContains(t, err, key)
	}
}
