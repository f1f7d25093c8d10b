package drift

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/stat/distuv"
	"pgregory.net/rapid"
)

// Values by 200 halvings of the part, in double precision.
func TestMixtureEqualsItsVectors(t *testing.T) {
	reference := AppendShares(nil, []uint64{1225, 1225, 1225, 1225, 1225, 1225, 1225, 1225, 150, 0, 25, 25})
	tilted := []uint64{70, 70, 80, 100, 140, 180, 230, 300, 60, 30, 5, 2}
	tests := []struct {
		name                  string
		counts                []uint64
		design                float64
		part, t, wantEvidence float64
	}{
		{"tilted", tilted, 1, .404504175838972, 153.028424103877, 72.1448754883795},
		{"tilted, four events a customer", tilted, 4, .404504175838972, 38.2571060259693, 15.0208365525943},
		{"two empty bins", []uint64{0, 0, 200, 200, 200, 200, 200, 200, 20, 0, 5, 2}, 1.5, .492025465424868, 217.806416740284, 102.865687411132},
		{"hardly beyond", []uint64{90, 100, 110, 130, 150, 170, 190, 210, 40, 3, 5, 2}, 1, .97474812192245, .0768550197685959, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := 0.0
			for _, c := range tt.counts {
				n += float64(c)
			}
			m := mix(tt.counts, reference, 0.1)
			require.InDelta(t, tt.part, m.part, 1e-13)
			require.InDelta(t, tt.t, 2*n/tt.design*m.divergence, 1e-12)
			require.InDelta(t, tt.wantEvidence, evidence(m.divergence, n/tt.design, 0.1, 12), 1e-12)
		})
	}
}

func TestSmallestVisibleShiftEqualsItsTable(t *testing.T) {
	x := math.Log(21 * 525_600 * 5)
	for customers, want := range map[float64]float64{
		120: .91, 600: .34, 1200: .25, 3600: .18, 6000: .157, 36_000: .121, 600_000: .105,
	} {
		digits := len(strconv.FormatFloat(want, 'f', -1, 64)) - 2
		require.InDelta(t, want, visible(x, customers, 0.1, 12), printed(digits), "%v customers", customers)
	}
}

func TestMixtureIsJustRelevantAndAHarmlessWindowIsItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		places := rapid.IntRange(2, 30).Draw(t, "places")
		counts := rapid.SliceOfN(rapid.Uint32Range(0, 1000), places, places).Draw(t, "counts")
		counts[0]++
		reference := AppendShares(nil, rapid.SliceOfN(rapid.Uint32Range(0, 100_000), places, places).Draw(t, "reference"))
		total := 0.0
		for _, c := range counts {
			total += float64(c)
		}
		shift := rapid.Float64Range(0.01, 1).Draw(t, "shift")
		m := mix(counts, reference, shift)
		mixed := make([]float64, places)
		for i, c := range counts {
			mixed[i] = reference[i] + min(m.part, almostOne)*(float64(c)/total-reference[i])
		}
		index := PSI(mixed, reference)
		switch {
		case m.part == 1 && (index > shift || m.divergence != 0):
			t.Fatalf("index %v of a window called harmless, divergence %v", index, m.divergence)
		case m.part < 1 && math.Abs(index-shift) > 1e-9*shift:
			t.Fatalf("index %v of the mixture, want %v", index, shift)
		}
	})
}

func TestEvidenceGrowsWithCustomersAndTheSmallestVisibleShiftFalls(t *testing.T) {
	x, previousEvidence, previousVisible := 17.8, -1.0, math.Inf(1)
	for _, customers := range []float64{500, 1000, 1e4, 1e5, 1e6} {
		e, v := evidence(0.05, customers, 0.1, 12), visible(x, customers, 0.1, 12)
		require.Greater(t, e, previousEvidence)
		require.Less(t, v, previousVisible)
		require.Greater(t, v, 0.1)
		previousEvidence, previousVisible = e, v
	}
	require.Zero(t, evidence(0, 1e6, 0.1, 12))
}

// TestEvidenceIsDiscountedForTheNoiseOfTheDesignEffect: what an estimate W·D makes of evidence that chance gives with
// probability exp(−x) is given by chance with the probability that the discount says.
func TestEvidenceIsDiscountedForTheNoiseOfTheDesignEffect(t *testing.T) {
	const degrees, draws = 63, 400_000
	random := rand.New(rand.NewPCG(1, 9))
	chi := distuv.ChiSquared{K: degrees, Src: random}
	for _, y := range []float64{2, 5, 9} {
		sum := 0.0
		for range draws {
			sum += math.Exp(-y * chi.Rand() / degrees)
		}
		require.InEpsilon(t, math.Exp(-discounted(y, 1e9)), sum/draws, 0.03, "evidence %v", y)
	}
	require.Equal(t, 17.8, discounted(17.8, 1))
	for _, design := range []float64{1, 1.0001, 1.2, 5, 22, 1e6} {
		require.InDelta(t, 17.8, discounted(undiscounted(17.8, design), design), 1e-9)
		require.LessOrEqual(t, discounted(17.8, 2*design), discounted(17.8, design))
	}
	require.InDelta(t, 17.8, discounted(17.8, 1.1), 0.05, "hardly anything is uncertain")
	require.Zero(t, discounted(0, 22))

	reference := AppendShares(nil, []uint64{1225, 1225, 1225, 1225, 1225, 1225, 1225, 1225, 150, 0, 25, 25})
	counts := []uint64{70, 70, 80, 100, 140, 180, 230, 300, 60, 30, 5, 2}
	groups := &Groups{}
	for g := range groups {
		groups[g] = uint64(1267/64 + 20*(g%2) - 10)
	}
	design := groups.DesignEffect()
	require.Greater(t, design, 4.0)
	rule, err := NewReportRule(DefaultRuleConfig(), 10, 0.01)
	require.NoError(t, err)
	j := rule.Judge(counts, reference, groups, 1e5)
	whole := evidence(mix(counts, reference, 0.1).divergence, j.Customers, 0.1, len(counts))
	require.InDelta(t, discounted(whole, design), j.Evidence, 1e-12)
	require.Less(t, j.Evidence, 0.95*whole)
	require.InDelta(t, visible(undiscounted(rule.Needed, design), j.Customers, 0.1, len(counts)), j.Visible, 1e-12)
}
