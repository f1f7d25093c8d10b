package trees

import (
	"fmt"
	"math"
)

// Engine computes the margins of one ensemble. It is immutable and may be shared by goroutines.
type Engine struct {
	ensemble  Ensemble
	explained []explanation
	points    [][]float64 // of the quadrature with n+1 points
	weights   [][]float64
	bias      []float64
	opaque    error // why there are no contributions
}

// Scratch is the memory that an engine works in. It belongs to one goroutine; the zero value is
// ready and grows once.
type Scratch struct {
	taken        []uint8   // for each split, bit 0 or 1: the side that the row takes
	above, below []float64 // for each split and point: products of edges above, sums over leaves below
}

// Compile checks the ensemble and prepares it for scoring. The engine keeps references to its
// slices: they must not change afterwards.
func Compile(e Ensemble) (*Engine, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	engine := &Engine{ensemble: e}
	engine.prepareContributions()
	return engine, nil
}

// prepareContributions readies the trees for Contributions, or notes why there are none.
func (e *Engine) prepareContributions() {
	m := &e.ensemble
	e.bias = make([]float64, m.Outputs)
	most := 0
	for i := range m.Trees {
		t := &m.Trees[i]
		x, err := explain(t)
		if err != nil {
			e.opaque, e.explained, e.bias = fmt.Errorf("tree %d: %w", i, err), nil, nil
			return
		}
		e.explained = append(e.explained, x)
		most = max(most, x.points)
		for k := range m.Outputs {
			if len(t.Vectors) > 0 || k == t.Output {
				e.bias[k] += x.expectation(t, m.Outputs, k)
			}
		}
	}
	for n := range most {
		points, weights := legendre(n + 1)
		e.points, e.weights = append(e.points, points), append(e.weights, weights)
	}
	for k := range e.bias {
		switch {
		case m.Base != nil && !m.BaseLast:
			e.bias[k] = m.divided(e.bias[k] + m.Base[k])
		case m.Base != nil:
			e.bias[k] = m.divided(e.bias[k]) + m.Base[k]
		default:
			e.bias[k] = m.divided(e.bias[k])
		}
	}
}

func (e *Ensemble) divided(x float64) float64 {
	if e.Divisor == 0 {
		return x
	}
	return x / e.Divisor
}

// Features is the number of inputs of a row.
func (e *Engine) Features() int { return e.ensemble.Features }

// Outputs is the number of margins of a row.
func (e *Engine) Outputs() int { return e.ensemble.Outputs }

// Margins computes the margins of n rows. rows has n × Features numbers, row after row, NaN where a
// value is missing; out gets n × Outputs. It panics when a slice is shorter than that.
func (e *Engine) Margins(rows []float64, n int, out []float64, _ *Scratch) {
	features, outputs := e.ensemble.Features, e.ensemble.Outputs
	rows, out = rows[:n*features], out[:n*outputs]
	for i := range n {
		e.margins(rows[i*features:(i+1)*features], out[i*outputs:(i+1)*outputs])
	}
}

func (e *Engine) margins(row, out []float64) {
	m := &e.ensemble
	clear(out)
	if !m.BaseLast {
		copy(out, m.Base)
	}
	for i := range m.Trees {
		t := &m.Trees[i]
		n := &t.Nodes[0]
		for n.Left >= 0 {
			n = &t.Nodes[t.next(n, m.input(row[n.Feature]))]
		}
		switch {
		case len(t.Vectors) > 0:
			for k, v := range t.Vectors[int(n.Leaf)*m.Outputs : (int(n.Leaf)+1)*m.Outputs] {
				out[k] = m.Sum.round(out[k] + m.Sum.round(v))
			}
		case len(t.Linear) > 0:
			out[t.Output] = m.Sum.round(out[t.Output] + m.Sum.round(t.Linear[n.Leaf].at(row, n.Value, m.TinyIsZero)))
		default:
			out[t.Output] = m.Sum.round(out[t.Output] + m.Sum.round(n.Value))
		}
	}
	for k := range out {
		if m.Divisor != 0 {
			out[k] = m.Sum.round(out[k] / m.Divisor)
		}
		if m.BaseLast && m.Base != nil {
			out[k] = m.Sum.round(out[k] + m.Base[k])
		}
	}
}

func (p Precision) round(x float64) float64 {
	if p == Float32 {
		return float64(float32(x))
	}
	return x
}

// at is the leaf's value at a row.
func (l *LinearLeaf) at(row []float64, fallback float64, tinyIsZero bool) float64 {
	sum := l.Constant
	for i, f := range l.Features {
		x := row[f]
		if math.IsNaN(x) {
			return fallback
		}
		if tinyIsZero && tiny(x) {
			x = 0
		}
		sum += float64(l.Coefficients[i] * x)
	}
	return sum
}
