package drift

import (
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// rawShares are shares without smoothing, empty places lifted to floor: the rule of other implementations.
func rawShares(counts []uint64, floor float64) []float64 {
	total := 0.0
	for _, c := range counts {
		total += float64(c)
	}
	shares := make([]float64, len(counts))
	for i, c := range counts {
		shares[i] = max(float64(c)/total, floor)
	}
	return shares
}

// printed says how far a value may be from one of which only the printed digits are known.
func printed(digits int) float64 { return 0.5000001 * math.Pow10(-digits) }

func TestPSIEqualsPublishedValues(t *testing.T) {
	// Counts are those of the samples in the named test under its own edges and its own rule for empty places.
	frourosReference := []uint64{2, 3, 4, 5, 7, 13, 21, 14, 8, 5, 3, 5, 4, 3, 1, 2, 0, 0, 0, 0}
	frourosCurrent := []uint64{0, 0, 0, 0, 3, 4, 5, 4, 13, 15, 13, 12, 14, 5, 4, 3, 3, 0, 1, 1}
	tests := []struct {
		name               string
		current, reference []uint64
		floor              float64
		want, tolerance    float64
	}{
		{"toad, three edges", []uint64{149, 86, 108, 157}, []uint64{144, 112, 105, 139}, 0, 0.018630024627491467, 1e-12},
		{"toad, two edges", []uint64{190, 216, 94}, []uint64{216, 188, 96}, 0, 0.014528279995858708, 1e-12},
		{
			"frouros, same distribution",
			[]uint64{7, 30, 55, 95, 99, 102, 65, 34, 10, 3},
			[]uint64{11, 32, 58, 97, 114, 82, 59, 34, 10, 3},
			0, 0.018400728874466695, 1e-12,
		},
		{"frouros, empty places at the smallest float", frourosCurrent, frourosReference, 2.2250738585072014e-308, 134.95409065116183, 1e-10},
		{"empty places at 1e-4", frourosCurrent, frourosReference, 1e-4, 2.10492, printed(5)},
		{"seven bins", []uint64{177, 262, 285, 158, 88, 25, 6}, []uint64{253, 302, 204, 134, 72, 26, 8}, 0, 0.0676929885, printed(10)},
		{"scouter, shares", []uint64{2, 4, 4}, []uint64{3, 4, 3}, 0, 0.06931471805599454, 1e-12},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.InDelta(t, tt.want, PSI(rawShares(tt.current, tt.floor), rawShares(tt.reference, tt.floor)), tt.tolerance)
		})
	}
	t.Run("empty places smoothed", func(t *testing.T) {
		require.InDelta(t, 1.20433, PSI(AppendShares(nil, frourosCurrent), AppendShares(nil, frourosReference)), printed(5))
	})
}

func TestPSIOfAPlaceEmptyOnOneSideIsInfiniteAndOnBothNothing(t *testing.T) {
	require.True(t, math.IsInf(PSI([]float64{0.5, 0.5}, []float64{1, 0}), 1))
	require.True(t, math.IsInf(PSI([]float64{1, 0}, []float64{0.5, 0.5}), 1))
	require.Zero(t, PSI([]float64{1, 0}, []float64{1, 0}))
}

func TestPSINullEqualsPublishedCriticalValues(t *testing.T) {
	tests := []struct {
		alpha   float64
		n, m    float64
		places  int
		want    float64
		allowed float64
	}{
		{0.001, 500, 500, 10, 0.11150865948502628, 1e-12},
		{0.05, 1000, 1500, 32, 0.07497557213394188, 1e-12},
		{0.01, 777, 666, 42, 0.18111345503169146, 1e-12},
		{0.05, 1001, 999, 7, 0.0251831997, printed(10)},
	}
	for _, tt := range tests {
		t.Run(strconv.FormatFloat(tt.want, 'g', -1, 64), func(t *testing.T) {
			null := PSINull{Current: tt.n, Reference: tt.m, Places: tt.places}
			require.InDelta(t, tt.want, null.Critical(tt.alpha), tt.allowed)
			require.InDelta(t, tt.alpha, null.PValue(null.Critical(tt.alpha)), 1e-12)
		})
	}
	require.InDelta(t, 7.2026e-6, PSINull{Current: 1001, Reference: 999, Places: 7}.PValue(0.0676929885), printed(10))
	require.Equal(t, 1.0, PSINull{Current: 1001, Reference: 999, Places: 7}.PValue(0))
}

func TestCriticalShiftIsAboveTheShiftAndFallsWithTheSample(t *testing.T) {
	// 0.1 + 11/1000·… worked by hand: k = 1/2000+1/2000 = 1e-3, B = 12, z(0.01) = 2.3263478740408408.
	want := 0.1 + 11e-3 + 2.3263478740408408*math.Sqrt(22e-6+4e-4)
	require.InDelta(t, want, PSINull{Current: 2000, Reference: 2000, Places: 12}.CriticalShift(0.1, 0.01), 1e-12)
	previous := math.Inf(1)
	for _, n := range []float64{100, 1000, 10_000, 1e6, 1e9} {
		critical := PSINull{Current: n, Reference: 1e9, Places: 12}.CriticalShift(0.1, 0.01)
		require.Greater(t, critical, 0.1)
		require.Less(t, critical, previous)
		previous = critical
	}
}

func TestPSIIsNeverNegativeAndZeroForEqualCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		places := rapid.IntRange(1, 40).Draw(t, "places")
		counts := rapid.SliceOfN(rapid.Uint32(), places, places)
		current, reference := counts.Draw(t, "current"), counts.Draw(t, "reference")
		a, e := AppendShares(nil, current), AppendShares(nil, reference)
		if psi := PSI(a, e); psi < 0 || math.IsNaN(psi) || math.IsInf(psi, 0) {
			t.Fatalf("PSI %v", psi)
		}
		if psi := PSI(a, a); psi != 0 {
			t.Fatalf("PSI of equal counts %v", psi)
		}
		if forward, back := PSI(a, e), PSI(e, a); math.Abs(forward-back) > 1e-9*(1+forward) {
			t.Fatalf("PSI is not symmetric: %v, %v", forward, back)
		}
	})
}
