package drift

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mathext"

	"github.com/churnstream/churnstream/schemas"
)

// oracle is what testdata/oracle.py wrote.
type oracle struct {
	Comparisons []struct {
		Current, Reference []uint64
		Positions          []float64
		JensenShannon      float64 `json:"jensen_shannon"`
		KolmogorovSmirnov  float64 `json:"kolmogorov_smirnov"`
		Wasserstein        float64
		ChiSquare          float64 `json:"chi_square"`
		DegreesOfFreedom   int     `json:"degrees_of_freedom"`
		ChiSquareChance    float64 `json:"chi_square_chance"`
		Critical           float64 `json:"psi_critical_001"`
	}
	Rule []struct {
		Current, Reference         []uint64
		Shift                      float64
		DesignEffect               float64 `json:"design_effect"`
		Part, Divergence, Evidence float64
	}
	Kolmogorov  []struct{ D, N, M, Chance float64 }
	Calibration struct {
		Uppers, Probabilities []float64
		Outcomes              []int
		Brier                 float64
		ExpectedError         float64 `json:"expected_error"`
		Curve                 []struct {
			MeanScore float64 `json:"mean_score"`
			ChurnRate float64 `json:"churn_rate"`
			Low, High float64
		}
	}
	Frouros []struct {
		Current, Reference []uint64
		PSI                float64
	}
}

func readOracle(t *testing.T) *oracle {
	t.Helper()
	text, err := os.ReadFile("testdata/oracle.json")
	require.NoError(t, err)
	o := new(oracle)
	require.NoError(t, json.Unmarshal(text, o))
	return o
}

// near wants 12 digits.
func near(t *testing.T, want, got float64, what string) {
	t.Helper()
	require.InDelta(t, want, got, 1e-12*max(1, math.Abs(want)), what)
}

func TestStatisticsEqualScipy(t *testing.T) {
	o := readOracle(t)
	require.NotEmpty(t, o.Comparisons)
	for i, c := range o.Comparisons {
		t.Run(fmt.Sprintf("%d of %d places", i, len(c.Current)), func(t *testing.T) {
			a, e := rawShares(c.Current, 0), rawShares(c.Reference, 0)
			near(t, c.JensenShannon, JensenShannon(a, e), "Jensen-Shannon")
			near(t, c.KolmogorovSmirnov, KolmogorovSmirnov(a, e), "Kolmogorov-Smirnov")
			near(t, c.Wasserstein, Wasserstein(c.Positions, a, e), "Wasserstein")
			statistic, freedom := ChiSquare(c.Current, c.Reference)
			near(t, c.ChiSquare, statistic, "chi-square")
			require.Equal(t, c.DegreesOfFreedom, freedom)
			near(t, c.ChiSquareChance, mathext.GammaIncRegComp(float64(freedom)/2, statistic/2), "chance of chi-square")
			null := PSINull{Current: float64(sum(c.Current)), Reference: float64(sum(c.Reference)), Places: len(c.Current)}
			near(t, c.Critical, null.Critical(0.001), "critical PSI")
		})
	}
	for _, k := range o.Kolmogorov {
		near(t, k.Chance, KolmogorovChance(k.D, k.N, k.M), "Kolmogorov's law")
	}
}

func TestRuleEqualsItsComputationInFiftyDigits(t *testing.T) {
	cases := readOracle(t).Rule
	require.NotEmpty(t, cases)
	for _, c := range cases {
		m := mix(c.Current, AppendShares(nil, c.Reference), c.Shift)
		near(t, c.Part, m.part, "part")
		near(t, c.Divergence, m.divergence, "divergence")
		require.InDelta(t, c.Evidence, evidence(m.divergence, float64(sum(c.Current))/c.DesignEffect, c.Shift, len(c.Current)), 1e-11*max(1, c.Evidence))
	}
}

func TestIndexEqualsFrouros(t *testing.T) {
	cases := readOracle(t).Frouros
	require.NotEmpty(t, cases)
	for _, c := range cases {
		const least = 2.2250738585072014e-308 // in place of an empty share
		near(t, c.PSI, PSI(rawShares(c.Current, least), rawShares(c.Reference, least)), "PSI")
	}
}

func TestKolmogorovsTwoFormsMeet(t *testing.T) {
	for _, x := range []float64{0.99999999, 1} { // either side of where the form changes
		require.InDelta(t, 0.26999967, KolmogorovChance(x, 2, 2), 1e-6)
	}
	require.Equal(t, 1.0, KolmogorovChance(0, 10, 10))
	require.True(t, math.IsNaN(KolmogorovChance(math.NaN(), 10, 10)))
}

func TestComparisonOfAnUnmovedWindowShowsNothingAndOfAMovedOneAll(t *testing.T) {
	contract := schemas.Contract{Inputs: []schemas.Input{{Name: "x", Kind: schemas.Number, Nullable: true}}}
	rows := schemas.NewRows(1, 3000)
	for i := range 3000 {
		numbers, _ := rows.Row(rows.Append())
		if numbers[0] = float64(i % 100); i%100 == 0 {
			numbers[0] = math.NaN()
		}
	}
	profile, err := BuildProfile(contract, Reference{Rows: rows, Probabilities: make([]float64, 3000)}, DefaultProfileConfig())
	require.NoError(t, err)
	f := &profile.Features[0]
	whole := Expected{Shares: f.Shares, Customers: 3000, Counts: f.Counts}
	same := f.Compare(f.Counts, 3000, whole, nil)
	require.Zero(t, same.PSI)
	require.Zero(t, same.KolmogorovSmirnov)
	require.Zero(t, same.Wasserstein)
	require.Zero(t, same.ChiSquare)
	require.Equal(t, 1.0, same.PSIChance)
	moved := make([]uint64, len(f.Counts))
	moved[len(moved)-3] = 1000 // the uppermost bin
	c := f.Compare(moved, 1000, whole, nil)
	require.Greater(t, c.PSI, 5.0)
	require.InDelta(t, 0.9, c.KolmogorovSmirnov, 0.02)
	require.InDelta(t, 45, c.Wasserstein, 3, "from all over the range to its end")
	require.Less(t, c.ChiSquareChance, 1e-300)
	require.Less(t, c.KSChance, 1e-300)
	require.InDelta(t, c.ChiSquare/10, f.Compare(moved, 100, whole, nil).ChiSquare, 1e-9, "ten events a customer")
}
