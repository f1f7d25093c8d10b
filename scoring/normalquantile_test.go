package scoring

import (
	"math"
	"testing"
)

// The values are scipy.special.ndtri's (scipy 1.17.1). Beyond exp(-2) a logarithm is taken, which the C
// library may round otherwise.
func TestNormalQuantileIsThatOfScipy(t *testing.T) {
	for _, c := range []struct{ p, want float64 }{
		{1e-07, -5.1993375821928165},
		{1e-05, -4.264890793922825},
		{0.001, -3.090232306167813},
		{0.05, -1.6448536269514729},
		{0.1353, -1.10168187367228},
		{0.13534, -1.1014979412998038},
		{0.2, -0.8416212335729142},
		{0.49999, -2.5066282748960008e-05},
		{0.5, 0},
		{0.510204081632653, 0.025580629123252114},
		{0.7, 0.5244005127080407},
		{0.86, 1.0803193408149558},
		{0.8647, 1.10168187367228},
		{0.95, 1.6448536269514722},
		{0.999, 3.090232306167813},
		{1 - 1e-7, 5.199337582290661},
		{1.0 / 3, -0.43072729929545756},
		{0.1, -1.2815515655446004},
		{0.9, 1.2815515655446004},
	} {
		if got := normalQuantile(c.p); math.Abs(got-c.want) > 0x1p-52*math.Abs(c.want) || got != c.want && math.Abs(c.p-0.5) < 0.36 {
			t.Errorf("normalQuantile(%v) = %v, want %v", c.p, got, c.want)
		}
	}
}
