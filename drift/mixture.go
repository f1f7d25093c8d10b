package drift

import (
	"math"

	"github.com/churnstream/churnstream/schemas"
)

// almostOne is the largest part of the window that a mixture may hold: at 1 a place that is empty in the window would be
// empty in the mixture too, and its index infinite.
const almostOne = 1 - 1e-6

// mixture is a window set against the population on the way to it that is only just harmless: part of the window and
// the rest of the reference, so that its index against the reference is exactly the relevant shift.
type mixture struct {
	part       float64 // of the window in the mixture; 1 if the whole window is harmless
	divergence float64 // Σ a·ln(a/q) of the window's shares a from the mixture's q, in nats an event; 0 if harmless
}

// mix finds the mixture of a window's counts, which add up to more than 0, with the reference shares, none of which is
// 0, whose index is shift. The window is taken as it was counted, without smoothing or floor: an empty place says as
// much as its reference share makes it say.
func mix[C uint32 | uint64](counts []C, reference []float64, shift float64) mixture {
	total := 0.0
	for _, c := range counts {
		total += float64(c)
	}
	// The index of the mixture, f(t) = Σ t·(a−e)·ln(1 + t·(a−e)/e), is 0 at 0, increasing and convex. So Newton's
	// steps from above come down to the root and never pass it.
	part := almostOne
	for {
		index, slope := 0.0, 0.0
		for i, c := range counts {
			moved := float64(c)/total - reference[i]
			ratio := part * moved / reference[i]
			log := math.Log1p(ratio)
			index += part * moved * log
			slope += moved * (log + ratio/(1+ratio))
		}
		if index <= shift {
			if part == almostOne {
				return mixture{part: 1}
			}
			break
		}
		next := part - (index-shift)/slope
		if !(next < part) {
			break
		}
		part = next
	}
	divergence := 0.0
	for i, c := range counts {
		if c > 0 {
			a := float64(c) / total
			divergence += a * math.Log(a/(reference[i]+part*(a-reference[i])))
		}
	}
	return mixture{part: part, divergence: max(0, divergence)}
}

// evidence says how unlikely it is, as −ln of a bound on the probability, that a population whose index is shift gave a
// window that is as far from the mixture as this one, with so many independent customers over so many places.
//
// Twice the divergence times the customers is a squared distance T from the mixture; the mixture lies √λ from the
// reference, λ = shift × customers. Their sum is a non-central chi-square's, for whose upper tail L. Birgé
// ("An alternative point of view on Lepski's method", 2001, lemma 8.1) gives P(S ≥ ν+λ+2√((ν+2λ)x)+2x) ≤ e⁻ˣ. This is
// that bound, solved for x.
func evidence(divergence, customers, shift float64, places int) float64 {
	nu, lambda := float64(places-1), shift*customers
	distance := math.Sqrt(lambda) + math.Sqrt(2*customers*divergence)
	excess := distance*distance - nu - lambda
	if excess <= 0 {
		return 0
	}
	b := math.Sqrt(nu + 2*lambda)
	root := (math.Sqrt(b*b+2*excess) - b) / 2
	return root * root
}

// discounted is what evidence is worth that rests on an estimated design effect D. The estimate is D·W with a W that is
// distributed about as χ²/ν of ν = 63 degrees of freedom, one less than the groups. Evidence x for one D is x/W by another,
// so that chance gives y with a probability of E[exp(−yW)] = (1 + 2y/ν)^(−ν/2): the evidence is ν/2·ln(1 + 2y/ν). Since D
// is at least 1, only D−1 is uncertain, and ν is taken as 63·(D/(D−1))². Where every event is another customer's nothing is
// lost.
func discounted(evidence, design float64) float64 {
	if design <= 1 {
		return evidence
	}
	half := designFreedom(design) / 2
	return half * math.Log1p(evidence/half)
}

// undiscounted is the evidence that is worth x after the discount.
func undiscounted(x, design float64) float64 {
	if design <= 1 {
		return x
	}
	half := designFreedom(design) / 2
	return half * math.Expm1(x/half)
}

// designFreedom is for designs above 1.
func designFreedom(design float64) float64 {
	certain := design / (design - 1)
	return (schemas.DriftGroups - 1) * certain * certain
}

// visible is about the smallest index that gives the evidence x: the inverse of evidence on the line through the
// reference and the mixture, where the two distances add up.
func visible(x, customers, shift float64, places int) float64 {
	nu, lambda := float64(places-1), shift*customers
	return (nu + lambda + 2*math.Sqrt((nu+2*lambda)*x) + 2*x) / customers
}
