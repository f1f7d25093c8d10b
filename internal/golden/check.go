package golden

import (
	"fmt"
	"math"

	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/trees"
)

// Check holds a model against a case: its margins to the bit, predictions and contributions within
// the given distances, relative where numbers are above 1, and contributions that add up to the
// margin. It reports the first difference of each kind.
func Check(m *booster.Model, c Case, prediction, contribution float64) []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	e := m.Engine
	if e.Features() != c.Rows.Width || e.Outputs() != c.Margins.Width {
		fault("%d features and %d outputs, want %d and %d", e.Features(), e.Outputs(), c.Rows.Width, c.Margins.Width)
		return faults
	}
	var s trees.Scratch
	margins := make([]float64, c.Margins.Rows*e.Outputs())
	e.Margins(c.Rows.Numbers, c.Rows.Rows, margins, &s)
	single := make([]float64, e.Outputs())
	different, first := 0, ""
	for i := range c.Rows.Rows {
		got := margins[i*e.Outputs() : (i+1)*e.Outputs()]
		e.Margins(c.Rows.Row(i), 1, single, &s)
		for k, want := range c.Margins.Row(i) {
			if math.Float64bits(got[k]+0) != math.Float64bits(want+0) || math.Float64bits(single[k]) != math.Float64bits(got[k]) {
				if different++; first == "" {
					first = fmt.Sprintf("row %d, output %d: in a batch %v, alone %v, want %v", i, k, got[k], single[k], want)
				}
			}
		}
	}
	if different > 0 {
		fault("%d margins of %d differ: %s", different, len(margins), first)
	}
	predicted := make([]float64, e.Outputs())
	if c.Predictions.Width == e.Outputs() {
		for i := range c.Rows.Rows {
			m.Link.Apply(margins[i*e.Outputs():(i+1)*e.Outputs()], predicted)
			if k, ok := far(predicted, c.Predictions.Row(i), prediction); ok {
				fault("row %d: prediction %d is %v, want %v", i, k, predicted[k], c.Predictions.Row(i)[k])
				break
			}
		}
	}
	if err := e.Explains(); err != nil {
		if c.Contributions.Rows > 0 {
			fault("no contributions: %w", err)
		}
		return faults
	}
	contributions := make([]float64, e.Outputs()*e.Features())
	scale := 1.0
	if c.Averaged {
		scale = float64(m.Rounds)
	}
	for i := range c.Contributions.Rows {
		e.Contributions(c.Rows.Row(i), contributions, &s)
		for k := range e.Outputs() {
			want := c.Contributions.Row(i)[k*(e.Features()+1) : (k+1)*(e.Features()+1)]
			got := append(append([]float64{}, contributions[k*e.Features():(k+1)*e.Features()]...), e.Bias()[k])
			sum := 0.0
			for j := range got {
				sum += got[j]
				got[j] *= scale
			}
			if j, ok := far(got, want, contribution); ok {
				fault("row %d, output %d: contribution of input %d (%d is the bias) is %v, want %v", i, k, j, e.Features(), got[j], want[j])
				return faults
			}
			if x := margins[i*e.Outputs()+k]; math.Abs(sum-x) > contribution*max(1, math.Abs(x)) {
				fault("row %d, output %d: contributions and bias make %v, the margin is %v", i, k, sum, x)
				return faults
			}
		}
	}
	return faults
}

// far finds a number that is off by more than the tolerance.
func far(got, want []float64, tolerance float64) (int, bool) {
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= tolerance*max(1, math.Abs(want[i]))) {
			return i, true
		}
	}
	return 0, false
}
