package booster

import (
	"fmt"
	"math"
)

// Link makes the library's prediction of the margins of a row.
type Link struct {
	Function Function
	// Slope multiplies the margin ahead of a sigmoid; 0 stands for 1.
	Slope float64
	// Rounded rounds a prediction of a sigmoid to float32, not its steps: the model has computed the
	// probability, and the margin was made of it.
	Rounded bool
	// Float32 rounds every step to float32, as XGBoost computes it.
	Float32 bool
}

// Function is the form of a link.
type Function uint8

// The functions.
const (
	Identity     Function = iota // x
	Sigmoid                      // 1/(1+exp(-slope·x)), of each output for itself
	Softmax                      // exp(x_k)/Σ exp(x_j)
	Step                         // 1 if x > 0, else 0
	Exponential                  // exp(x)
	Softplus                     // log(1+exp(x))
	SignedSquare                 // sign(x)·x²
)

func (f Function) String() string {
	names := [...]string{"identity", "sigmoid", "softmax", "step", "exponential", "softplus", "signed square"}
	if int(f) < len(names) {
		return names[f]
	}
	return fmt.Sprintf("function %d", uint8(f))
}

// Probability reports whether predictions are probabilities of classes.
func (l Link) Probability() bool {
	return l.Function == Sigmoid || l.Function == Softmax || l.Function == Step
}

// Apply writes the predictions of one row's margins to out, which may be the same slice.
func (l Link) Apply(margins, out []float64) {
	out = out[:len(margins)]
	switch l.Function {
	case Identity:
		copy(out, margins)
	case Sigmoid:
		slope := l.Slope
		if slope == 0 {
			slope = 1
		}
		for i, x := range margins {
			if l.Float32 {
				out[i] = float64(sigmoid32(float32(x)))
			} else {
				out[i] = 1 / (1 + math.Exp(-slope*x))
				if l.Rounded {
					out[i] = float64(float32(out[i]))
				}
			}
		}
	case Softmax:
		l.softmax(margins, out)
	case Step:
		for i, x := range margins {
			out[i] = 0
			if x > 0 {
				out[i] = 1
			}
		}
	case Exponential:
		for i, x := range margins {
			out[i] = l.round(math.Exp(x))
		}
	case Softplus:
		for i, x := range margins {
			out[i] = math.Log1p(math.Exp(x))
		}
	case SignedSquare:
		for i, x := range margins {
			out[i] = math.Copysign(x*x, x)
		}
	}
}

// sigmoid32 is XGBoost's common::Sigmoid; its bound of 88.7 keeps expf finite.
func sigmoid32(x float32) float32 {
	e := float32(math.Exp(float64(min(-x, 88.7))))
	return 1 / (e + 1 + 1e-16)
}

func (l Link) softmax(margins, out []float64) {
	largest := math.Inf(-1)
	for _, x := range margins {
		largest = max(largest, x)
	}
	sum := 0.0
	for i, x := range margins {
		out[i] = l.round(math.Exp(l.round(x - largest)))
		sum += out[i]
	}
	sum = l.round(sum)
	for i := range out {
		out[i] = l.round(out[i] / sum)
	}
}

func (l Link) round(x float64) float64 {
	if l.Float32 {
		return float64(float32(x))
	}
	return x
}
