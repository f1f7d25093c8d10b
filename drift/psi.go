package drift

import "math"

// smoothing is the pseudo-count that every place receives on both sides. With it the statistic holds its nominal
// false-alarm rate at sample sizes from 10 events a place on; fixed floors such as 1e-4 do not.
const smoothing = 0.5

// PSI is the population stability index Σ (a−e)·ln(a/e) of two distributions over the same places. Both are shares:
// non-negative, adding up to 1. A place that is empty on one side only makes it infinite, one that is empty on both
// sides gives nothing; [AppendShares] never leaves an empty place.
//
// It panics when the lengths differ.
func PSI(current, reference []float64) float64 {
	if len(current) != len(reference) {
		panic("BUG: PSI of distributions over different places")
	}
	sum := 0.0
	for i, a := range current {
		sum += Contribution(a, reference[i])
	}
	return sum
}

// Contribution is what one place with current share a and reference share e gives to the PSI. It is never negative.
func Contribution(a, e float64) float64 {
	if a == e {
		return 0
	}
	return (a - e) * math.Log(a/e)
}

// AppendShares appends the smoothed shares (c+0.5)/(n+0.5·B) of B counts to dst. They add up to 1 and none is 0.
func AppendShares[C uint32 | uint64](dst []float64, counts []C) []float64 {
	total := smoothing * float64(len(counts))
	for _, c := range counts {
		total += float64(c)
	}
	for _, c := range counts {
		dst = append(dst, (float64(c)+smoothing)/total)
	}
	return dst
}

// smoothedPSI is the PSI of counts, smoothed as the reference shares are. It does not allocate.
func smoothedPSI[C uint32 | uint64](counts []C, reference []float64) float64 {
	total := smoothing * float64(len(counts))
	for _, c := range counts {
		total += float64(c)
	}
	psi := 0.0
	for i, c := range counts {
		psi += Contribution((float64(c)+smoothing)/total, reference[i])
	}
	return psi
}
