package train

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize"
)

// regression is L2 logistic regression as scikit-learn's LogisticRegression states it:
//
//	minimise C·Σ s·log(1+exp(-y·z)) + ½‖w‖²,  z = w·x + b,  y = ±1
//
// with a weight s for each row and the intercept b not penalised.
type regression struct {
	x       *design
	churn   []bool
	weights []float64 // s of each row, times C
}

// gradientTolerance bounds the gradient's norm at the solution. Since the penalty makes the objective
// strongly convex with modulus 1, no coefficient is further than about that from the optimum.
const gradientTolerance = 1e-8

// largestNewton is the number of features up to which the Hessian is built.
const largestNewton = 2000

// solve returns the coefficients followed by the intercept.
//
// L-BFGS leads to the neighbourhood of the optimum. Its line search cannot see decreases below the
// rounding of the objective, which leaves the flat directions (columns of one category add up to 1)
// short of the tolerance; a few Newton steps go by the gradient alone and end there.
func (p *regression) solve() ([]float64, error) {
	n := p.x.features + 1
	total := floats.Sum(p.weights)
	start := make([]float64, n)
	problem := optimize.Problem{
		Func: func(at []float64) float64 { return p.objective(at, nil) / total },
		Grad: func(gradient, at []float64) {
			p.objective(at, gradient)
			floats.Scale(1/total, gradient)
		},
	}
	settings := &optimize.Settings{
		GradientThreshold: gradientTolerance / total,
		Converger:         &optimize.FunctionConverge{Absolute: 1e-15, Relative: 1e-15, Iterations: 20},
		MajorIterations:   5000,
	}
	if n <= largestNewton {
		settings.GradientThreshold = 1e-6
	}
	result, err := optimize.Minimize(problem, start, settings, &optimize.LBFGS{Store: 20})
	if result == nil {
		return nil, fmt.Errorf("fit logistic regression: %w", err)
	}
	// An error here is a line search that can gain no more: what counts is the gradient.
	at, gradient := result.X, make([]float64, n)
	value := p.objective(at, gradient)
	for step := 0; n <= largestNewton && floats.Norm(gradient, 2) > gradientTolerance/100 && step < 30; step++ {
		if !p.newton(at, gradient, value) {
			break
		}
		value = p.objective(at, gradient)
	}
	if norm := floats.Norm(gradient, 2); !(norm <= gradientTolerance) { // NaN fails
		return nil, fmt.Errorf("fit logistic regression: the gradient's norm stays at %.3g, above %.0g, after %d iterations of L-BFGS (%v): lower model.c", norm, gradientTolerance, result.MajorIterations, result.Status)
	}
	return at, nil
}

// objective returns the value at a point and, unless nil, overwrites gradient.
func (p *regression) objective(at, gradient []float64) float64 {
	last := len(at) - 1
	penalty := floats.Dot(at[:last], at[:last]) / 2
	if gradient != nil {
		copy(gradient, at)
		gradient[last] = 0
	}
	sum := 0.0
	for r, s := range p.weights {
		z := p.x.margin(r, at)
		if p.churn[r] {
			z = -z
		}
		// log(1+exp(z)) and its derivative, without overflow.
		e := math.Exp(-math.Abs(z))
		sum += s * (max(z, 0) + math.Log1p(e))
		if gradient == nil {
			continue
		}
		slope := 1 / (1 + e)
		if z < 0 {
			slope = e / (1 + e)
		}
		if p.churn[r] {
			slope = -slope
		}
		p.x.addScaled(gradient, r, s*slope)
	}
	return sum + penalty
}

// newton moves at by one step against the gradient and reports whether that made it better.
func (p *regression) newton(at, gradient []float64, value float64) bool {
	n := len(at)
	hessian := mat.NewSymDense(n, nil)
	raw := hessian.RawSymmetric()
	for i := range n - 1 {
		raw.Data[i*raw.Stride+i] = 1
	}
	row := make([]float64, 0, p.x.width+p.x.groups+1)
	index := make([]int, 0, cap(row))
	for r, s := range p.weights {
		row, index = row[:0], index[:0]
		for i, x := range p.x.numbers[r*p.x.width : (r+1)*p.x.width] {
			row, index = append(row, x), append(index, i)
		}
		for _, feature := range p.x.hot[r*p.x.groups : (r+1)*p.x.groups] {
			if feature >= 0 {
				row, index = append(row, 1), append(index, int(feature))
			}
		}
		row, index = append(row, 1), append(index, n-1)
		q := sigmoid(p.x.margin(r, at))
		curvature := s * q * (1 - q)
		for i, x := range row { // indices ascend: this is the upper triangle
			line := raw.Data[index[i]*raw.Stride:]
			for k := i; k < len(row); k++ {
				line[index[k]] += curvature * x * row[k]
			}
		}
	}
	var cholesky mat.Cholesky
	if !cholesky.Factorize(hessian) {
		return false
	}
	var direction mat.VecDense
	if err := cholesky.SolveVecTo(&direction, mat.NewVecDense(n, gradient)); err != nil {
		return false
	}
	moved, slope := make([]float64, n), make([]float64, n)
	before := floats.Norm(gradient, 2)
	for length := 1.0; length > 1e-6; length /= 2 {
		floats.AddScaledTo(moved, at, -length, direction.RawVector().Data)
		if p.objective(moved, slope) <= value+1e-12*math.Abs(value) && floats.Norm(slope, 2) < before {
			copy(at, moved)
			return true
		}
	}
	return false
}
