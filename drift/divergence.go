package drift

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// Comparison holds what other tools show of two distributions over the same places. The drift rule uses none of it: each
// number grows with chance in small samples, and the probabilities take all customers as independent and one look only.
type Comparison struct {
	PSI, PSIChance              float64 // the index and the probability of at least that by chance, without a shift
	JensenShannon               float64 // distance, in the root of nats: 0 to √ln 2
	KolmogorovSmirnov, KSChance float64 // of ordered places only, else NaN
	Wasserstein                 float64 // in units of the input; of numbers only, else NaN
	ChiSquare, ChiSquareChance  float64
	DegreesOfFreedom            int
}

// Compare sets a window's counts, worth so many independent customers, against what is expected of them. moments are those
// of the window, nil where there are none.
func (f *Feature) Compare(counts []uint64, customers float64, expected Expected, moments *Moments) Comparison {
	current := AppendShares(make([]float64, 0, len(counts)), counts)
	c := Comparison{
		PSI: PSI(current, expected.Shares), JensenShannon: JensenShannon(current, expected.Shares),
		KolmogorovSmirnov: math.NaN(), KSChance: math.NaN(), Wasserstein: math.NaN(),
	}
	c.PSIChance = PSINull{Current: customers, Reference: expected.Customers, Places: len(counts)}.PValue(c.PSI)
	total := 0.0
	for _, n := range counts {
		total += float64(n)
	}
	c.ChiSquare, c.DegreesOfFreedom = ChiSquare(counts, expected.Counts)
	c.ChiSquare *= customers / total // Rao and Scott's correction for customers who come back
	c.ChiSquareChance = mathext.GammaIncRegComp(float64(c.DegreesOfFreedom)/2, c.ChiSquare/2)
	if f.moment < 0 && f.Segment == nil {
		return c
	}
	present, reference := presentShares(counts[:f.missing]), presentShares(expected.Counts[:f.missing])
	c.KolmogorovSmirnov = KolmogorovSmirnov(present, reference)
	c.KSChance = KolmogorovChance(c.KolmogorovSmirnov, customers, expected.Customers)
	c.Wasserstein = Wasserstein(f.positions(moments), present, reference)
	return c
}

// presentShares are the shares of counts as they are, NaN if they are all 0.
func presentShares(counts []uint64) []float64 {
	total := 0.0
	for _, c := range counts {
		total += float64(c)
	}
	shares := make([]float64, len(counts))
	for i, c := range counts {
		shares[i] = float64(c) / total
	}
	return shares
}

// positions stand for the values of each place of a number but the missing one: the middle of a bin; beyond the reference's
// range the middle towards the window's own extreme.
func (f *Feature) positions(moments *Moments) []float64 {
	low, high := f.Minimum, f.Maximum
	if moments != nil {
		low, high = min(low, moments.Minimum), max(high, moments.Maximum)
	}
	bounds := append(append([]float64{low, f.Minimum}, f.Edges...), f.Maximum, high)
	positions := make([]float64, len(bounds)-1)
	for i := range positions {
		positions[i] = bounds[i] + (bounds[i+1]-bounds[i])/2
	}
	return positions
}

// JensenShannon is the distance √((KL(a‖m)+KL(e‖m))/2) of two distributions from their middle m = (a+e)/2, in the root of
// nats (J. Lin, "Divergence measures based on the Shannon entropy", 1991).
func JensenShannon(current, reference []float64) float64 {
	sum := 0.0
	for i, a := range current {
		e := reference[i]
		middle := (a + e) / 2
		if a > 0 {
			sum += a * math.Log(a/middle)
		}
		if e > 0 {
			sum += e * math.Log(e/middle)
		}
	}
	return math.Sqrt(max(0, sum/2))
}

// KolmogorovSmirnov is the largest difference of the cumulative shares of two distributions over the same ordered places.
// It is at most that of the values themselves.
func KolmogorovSmirnov(current, reference []float64) float64 {
	a, e, largest := 0.0, 0.0, 0.0
	for i := range current {
		a += current[i]
		e += reference[i]
		largest = max(largest, math.Abs(a-e))
	}
	return largest
}

// KolmogorovChance is the probability that chance alone gives a difference of at least d in samples of n and m
// independent values, by Kolmogorov's limit law for continuous values; over bins the true one is smaller.
func KolmogorovChance(d, n, m float64) float64 {
	x := d * math.Sqrt(n*m/(n+m))
	switch {
	case math.IsNaN(x):
		return math.NaN()
	case x <= 0:
		return 1
	case x < 1: // the other form of the theta function converges at once
		sum := 0.0
		for k := 1.0; k < 40; k += 2 {
			sum += math.Exp(-k * k * math.Pi * math.Pi / (8 * x * x))
		}
		return 1 - math.Sqrt(2*math.Pi)/x*sum
	}
	sum, sign := 0.0, 1.0
	for k := 1.0; k < 40; k++ {
		sum += sign * math.Exp(-2*k*k*x*x)
		sign = -sign
	}
	return 2 * sum
}

// Wasserstein is the mean way that one distribution over ascending positions has to be moved to become the other one, in
// units of the positions.
func Wasserstein(positions, current, reference []float64) float64 {
	a, e, way := 0.0, 0.0, 0.0
	for i := range len(positions) - 1 {
		a += current[i]
		e += reference[i]
		way += math.Abs(a-e) * (positions[i+1] - positions[i])
	}
	return way
}

// ChiSquare is Pearson's statistic of two samples over the same places being of one population, with its degrees of
// freedom. Places that are empty in both say nothing.
func ChiSquare(current, reference []uint64) (statistic float64, degreesOfFreedom int) {
	n, m := 0.0, 0.0
	for i := range current {
		n += float64(current[i])
		m += float64(reference[i])
	}
	if n == 0 || m == 0 {
		return math.NaN(), 0
	}
	places := 0
	for i := range current {
		both := float64(current[i]) + float64(reference[i])
		if both == 0 {
			continue
		}
		places++
		expected, expectedReference := both*n/(n+m), both*m/(n+m)
		statistic += (float64(current[i])-expected)*(float64(current[i])-expected)/expected +
			(float64(reference[i])-expectedReference)*(float64(reference[i])-expectedReference)/expectedReference
	}
	return statistic, places - 1
}
