package drift

import (
	"math"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat/distuv"
)

// PSINull is the distribution of the PSI that chance alone gives: a sample of Current events against a profile of
// Reference events over the same Places. Without a shift PSI ≈ k·χ²(B−1) with k = 1/N + 1/M (B. Yurdakul, "Statistical
// properties of population stability index", 2018).
type PSINull struct {
	Current   float64 // N, in independent events; [DesignEffect] gives how many those are
	Reference float64 // M
	Places    int     // B, at least 2
}

func (d PSINull) scale() float64            { return 1/d.Current + 1/d.Reference }
func (d PSINull) degreesOfFreedom() float64 { return float64(d.Places - 1) }

// PValue is the probability of a PSI of at least psi when the population has not moved.
func (d PSINull) PValue(psi float64) float64 {
	if psi <= 0 {
		return 1
	}
	return mathext.GammaIncRegComp(d.degreesOfFreedom()/2, psi/d.scale()/2)
}

// Critical is the PSI that chance exceeds with probability alpha when the population has not moved.
func (d PSINull) Critical(alpha float64) float64 {
	return d.scale() * 2 * mathext.GammaIncRegCompInv(d.degreesOfFreedom()/2, alpha)
}

// CriticalShift is the PSI that a population whose true PSI is shift exceeds with probability of about alpha: the
// normal approximation of k·χ²(B−1, λ = shift/k), shift + (B−1)k + z·√(2(B−1)k² + 4·shift·k).
func (d PSINull) CriticalShift(shift, alpha float64) float64 {
	k, nu := d.scale(), d.degreesOfFreedom()
	z := distuv.UnitNormal.Quantile(1 - alpha)
	return shift + nu*k + z*math.Sqrt(2*nu*k*k+4*shift*k)
}
