package drift

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/churnstream/churnstream/schemas"
)

func calibrationProfile(t testing.TB) *Profile {
	t.Helper()
	profile, _ := telcoProfile(t)
	return profile
}

// pairs draws customers whose outcomes have the rate that truth makes of their score.
func pairs(t testing.TB, c *Calibration, n int, seed uint64, truth func(p float64) float64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 3))
	for range n {
		p := 1 / (1 + math.Exp(-random.NormFloat64()))
		if err := c.Observe(nil, p, random.Float64() < truth(p)); err != nil {
			t.Fatal(err)
		}
	}
}

func same(p float64) float64 { return p }

func TestCalibrationEqualsItsOracle(t *testing.T) {
	o := readOracle(t).Calibration
	require.NotEmpty(t, o.Probabilities)
	c := &Calibration{}
	for _, upper := range o.Uppers {
		c.Bins = append(c.Bins, CalibrationBin{Upper: upper})
	}
	for i, p := range o.Probabilities {
		require.NoError(t, c.Observe(nil, p, o.Outcomes[i] == 1))
	}
	r, err := c.Report(DefaultCalibrationConfig())
	require.NoError(t, err)
	near(t, o.Brier, r.Brier, "Brier score")
	near(t, o.ExpectedError, r.ExpectedError, "expected calibration error")
	require.Len(t, r.Curve, len(o.Curve))
	for i, point := range o.Curve {
		near(t, point.MeanScore, r.Curve[i].MeanScore, "mean score")
		near(t, point.ChurnRate, r.Curve[i].ChurnRate, "churn rate")
		near(t, point.Low, r.Curve[i].Low, "lower end")
		near(t, point.High, r.Curve[i].High, "upper end")
	}
}

func TestCalibrationsAddUp(t *testing.T) {
	profile := calibrationProfile(t)
	whole, first, second := NewCalibration(profile), NewCalibration(profile), NewCalibration(profile)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 5000 {
		part, key := first, []byte{byte(i), byte(i >> 8)}
		if i%3 == 0 {
			part = second
		}
		p, churned := random.Float64(), random.IntN(2) == 0
		require.NoError(t, whole.Observe(key, p, churned))
		require.NoError(t, part.Observe(key, p, churned))
	}
	require.NoError(t, first.Merge(second))
	want, err := whole.Report(DefaultCalibrationConfig())
	require.NoError(t, err)
	got, err := first.Report(DefaultCalibrationConfig())
	require.NoError(t, err)
	near(t, want.Brier, got.Brier, "Brier")
	near(t, want.ExpectedError, got.ExpectedError, "ECE")
	require.Equal(t, want.Pairs, got.Pairs)
	require.Equal(t, want.Customers, got.Customers)
	require.ErrorContains(t, first.Merge(&Calibration{}), "different bins")
	require.ErrorContains(t, first.Observe(nil, math.NaN(), true), "no probability")
}

// Fixed seeds, 120 models each.
func TestMiscalibrationIsToldWhenItIsRelevantAndCertain(t *testing.T) {
	profile := calibrationProfile(t)
	tests := []struct {
		name        string
		pairs       int
		truth       func(float64) float64
		least, most float64
	}{
		{"right", 3000, same, 0, 0.01},
		{"off by as much as may be", 3000, func(p float64) float64 { return min(1, p+0.05) }, 0, 0.01},
		{"off by 20 points", 3000, func(p float64) float64 { return min(1, p+0.2) }, 0.99, 1},
		{"off by 20 points, few pairs", 320, func(p float64) float64 { return min(1, p+0.2) }, 0, 0.9},
	}
	for seed, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			told := 0
			for run := range uint64(120) {
				c := NewCalibration(profile)
				pairs(t, c, tt.pairs, run<<8|uint64(seed), tt.truth)
				r, err := c.Report(DefaultCalibrationConfig())
				require.NoError(t, err)
				if r.State == Miscalibrated {
					told++
				}
			}
			require.GreaterOrEqual(t, float64(told)/120, tt.least)
			require.LessOrEqual(t, float64(told)/120, tt.most)
		})
	}
}

func TestCalibrationSaysNothingOfTooFewPairsAndCountsCustomersOnce(t *testing.T) {
	profile := calibrationProfile(t)
	r, err := NewCalibration(profile).Report(DefaultCalibrationConfig())
	require.NoError(t, err)
	require.Equal(t, CalibrationInsufficient, r.State)
	require.True(t, math.IsNaN(r.Brier))
	c := NewCalibration(profile)
	for range 10_000 { // one customer
		require.NoError(t, c.Observe([]byte("one"), 0.5, true))
	}
	r, err = c.Report(DefaultCalibrationConfig())
	require.NoError(t, err)
	require.InDelta(t, 1, r.Customers, 0.01)
	require.Equal(t, CalibrationInsufficient, r.State)
	_, err = c.Report(CalibrationConfig{Relevant: -1, Chance: 2})
	for _, key := range []string{"calibration.relevant:", "calibration.chance:", "calibration.pairs:"} {
		require.ErrorContains(t, err, key)
	}
}

// reportOf is a report of pairs whose outcomes truth makes of the scores.
func reportOf(t *testing.T, n int, truth func(float64) float64) CalibrationReport {
	t.Helper()
	c := NewCalibration(calibrationProfile(t))
	pairs(t, c, n, 11, truth)
	r, err := c.Report(DefaultCalibrationConfig())
	require.NoError(t, err)
	return r
}

func TestMiscalibrationIsRaisedOnceAndClearedOnce(t *testing.T) {
	model := ModelName{Name: "m", Version: "1", Digest: "d"}
	good, bad := reportOf(t, 3000, same), reportOf(t, 3000, func(p float64) float64 { return min(1, p+0.2) })
	unsure := reportOf(t, 20, same)
	require.Equal(t, []CalibrationState{Calibrated, Miscalibrated, CalibrationInsufficient}, []CalibrationState{good.State, bad.State, unsure.State})

	require.Nil(t, good.Alert(model, nil, 0, 1000, 5))
	require.Nil(t, unsure.Alert(model, nil, 0, 1000, 5))
	raised := bad.Alert(model, nil, 0, 1000, 5)
	require.NotNil(t, raised)
	require.Equal(t, schemas.AlertRaised, raised.State)
	require.Equal(t, "d/calibration/1000", raised.AlertID)
	require.Equal(t, CalibrationFeature, raised.Feature)
	require.Equal(t, []int64{0, 1000, 5, 3000}, []int64{raised.WindowStart, raised.WindowEnd, raised.At, raised.Events})
	require.Equal(t, int32(1), raised.Horizon)
	require.Greater(t, raised.Evidence, raised.EvidenceNeeded)
	require.True(t, math.IsNaN(raised.PSI))
	require.Contains(t, raised.Message, "no longer probabilities")
	off, before := 0.0, math.Inf(1)
	for _, bin := range raised.TopBins {
		require.GreaterOrEqual(t, bin.Current, bin.Reference+0.05)
		require.LessOrEqual(t, bin.Contribution, before)
		off, before = off+bin.Contribution, bin.Contribution
	}
	require.LessOrEqual(t, off, bad.ExpectedError)
	require.Greater(t, off, bad.ExpectedError/2)

	require.Equal(t, raised.Evidence, bad.Evidence)
	require.True(t, math.IsNaN(unsure.Evidence))
	require.Equal(t, []bool{true, false, true, true, false, false}, []bool{
		bad.Raised(model, nil), unsure.Raised(model, nil), bad.Raised(model, raised), unsure.Raised(model, raised), good.Raised(model, raised),
		unsure.Raised(ModelName{Digest: "e"}, raised),
	})
	require.Nil(t, bad.Alert(model, raised, 0, 2000, 6), "it was told")
	require.Nil(t, unsure.Alert(model, raised, 0, 2000, 6), "too little says nothing")
	cleared := good.Alert(model, raised, 1000, 2000, 6)
	require.NotNil(t, cleared)
	require.Equal(t, schemas.AlertCleared, cleared.State)
	require.Equal(t, raised.AlertID, cleared.AlertID)
	require.Empty(t, cleared.TopBins)
	require.Nil(t, good.Alert(model, cleared, 1000, 3000, 7))
	require.NotNil(t, bad.Alert(model, cleared, 1000, 3000, 7))
	other := ModelName{Name: "m", Version: "2", Digest: "e"}
	require.NotNil(t, bad.Alert(other, raised, 1000, 3000, 7), "another model's alarm is not its own")
	require.Nil(t, good.Alert(other, raised, 1000, 3000, 7))
}
