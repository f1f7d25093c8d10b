package onnx

import (
	"math"
	"testing"
)

// TestProbabilitiesThatRoundingMovedOutAreTaken: the votes of a forest, added up in float32, reach 1.0000001192 and -1.19e-07.
func TestProbabilitiesThatRoundingMovedOutAreTaken(t *testing.T) {
	for _, c := range []struct{ p, want float64 }{
		{0, 0},
		{1, 1},
		{0.25, 0.25},
		{math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat64},
		{float64(math.Nextafter32(1, 2)), 1},
		{1 + 4e-6, 1},
		{-1.19e-07, 0},
		{-4e-6, 0},
		{1.001, math.NaN()},
		{-0.001, math.NaN()},
		{math.Inf(1), math.NaN()},
		{math.Inf(-1), math.NaN()},
		{math.NaN(), math.NaN()},
	} {
		got := 1 / (1 + math.Exp(-logOdds(c.p)))
		if math.IsNaN(got) != math.IsNaN(c.want) || math.Abs(got-c.want) > 1e-16 {
			t.Errorf("%v: %v, want %v", c.p, got, c.want)
		}
	}
}
