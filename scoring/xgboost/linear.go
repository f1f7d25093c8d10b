package xgboost

import (
	"fmt"

	"github.com/churnstream/churnstream/scoring/trees"
)

// linear is a gblinear model. For an input i and an output k, its weight is weights[i*outputs+k]; the
// biases of the outputs come last. A missing number adds nothing.
type linear struct {
	features, outputs int
	weights           []float32
	bias              []float64
	base              float32
}

func newLinear(features, outputs int, weights []float32, base float32) (*linear, error) {
	if len(weights) != (features+1)*outputs {
		return nil, fmt.Errorf("gblinear: %d weights for %d features and a bias of %d outputs", len(weights), features, outputs)
	}
	l := &linear{features: features, outputs: outputs, weights: weights, base: base}
	for i, w := range weights {
		if w-w != 0 {
			return nil, fmt.Errorf("gblinear: weight %d is %v, want a finite number", i, w)
		}
	}
	for k := range outputs {
		l.bias = append(l.bias, float64(weights[features*outputs+k]+base))
	}
	return l, nil
}

func (l *linear) Features() int   { return l.features }
func (l *linear) Outputs() int    { return l.outputs }
func (l *linear) Explains() error { return nil }

// Bias is the margin of a row of which everything is missing.
func (l *linear) Bias() []float64 { return l.bias }

// Margins is what trees.Engine documents: the bias and the base score first, then the inputs in order,
// every step in float32.
func (l *linear) Margins(rows []float64, n int, out []float64, _ *trees.Scratch) {
	rows, out = rows[:n*l.features], out[:n*l.outputs]
	for r := range n {
		row := rows[r*l.features : (r+1)*l.features]
		for k := range l.outputs {
			sum := l.weights[l.features*l.outputs+k] + l.base
			for i, x := range row {
				if x == x {
					sum += float32(float32(x) * l.weights[i*l.outputs+k]) // rounded: not one fused operation
				}
			}
			out[r*l.outputs+k] = float64(sum)
		}
	}
}

// Contributions are weight × input, as XGBoost gives them for gblinear.
func (l *linear) Contributions(row, out []float64, _ *trees.Scratch) {
	row, out = row[:l.features], out[:l.outputs*l.features]
	for k := range l.outputs {
		for i, x := range row {
			term := 0.0
			if x == x {
				term = float64(float32(x)) * float64(l.weights[i*l.outputs+k])
			}
			out[k*l.features+i] = term
		}
	}
}
