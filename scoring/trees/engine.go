package trees

import (
	"fmt"
)

// Engine computes the margins of one ensemble. It is immutable and may be shared by goroutines.
type Engine struct {
	ensemble Ensemble
	single   *forest[int32] // the trees that compare float32
	double   *forest[int64] // or float64

	explained []explanation
	viewer    viewer
	points    [][]float64 // of the quadrature with n+1 points
	weights   [][]float64
	quads     []quadrature
	bias      []float64
	opaque    error // why there are no contributions
}

// Scratch is the memory that an engine works in. It belongs to one goroutine; the zero value is
// ready and grows once.
type Scratch struct {
	single []int32 // views of the inputs of lanes rows, slot by slot
	double []int64

	ballots ballotScratch

	views        []int64   // views of one row
	taken        []uint8   // for each split, bit 0 or 1: the side that the row takes
	above, below []float64 // for each split and point: products of edges above, sums over leaves below
	quads        []quadState
	columns      []float64

	// Other is memory of an engine beside this package's; who finds something else there replaces it.
	Other any
}

// Columns is memory for n numbers, of whoever makes columns of rows before or in place of an Engine. It
// holds until the next call.
func (s *Scratch) Columns(n int) []float64 {
	s.columns = grow(s.columns, n)
	return s.columns
}

// Compile checks the ensemble and prepares it for scoring. The engine keeps references to its
// slices: they must not change afterwards.
func Compile(e Ensemble) (*Engine, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	engine := &Engine{ensemble: e}
	if e.Input == Float32 {
		engine.single = flatten[int32](&engine.ensemble)
	} else {
		engine.double = flatten[int64](&engine.ensemble)
	}
	engine.prepareContributions()
	return engine, nil
}

// Features is the number of inputs of a row.
func (e *Engine) Features() int { return e.ensemble.Features }

// Outputs is the number of margins of a row.
func (e *Engine) Outputs() int { return e.ensemble.Outputs }

// Margins computes the margins of n rows. rows has n × Features numbers, row after row, NaN where a
// value is missing; out gets n × Outputs. It panics when a slice is shorter than that.
func (e *Engine) Margins(rows []float64, n int, out []float64, s *Scratch) {
	features, outputs := e.ensemble.Features, e.ensemble.Outputs
	rows, out = rows[:n*features], out[:n*outputs]
	e.begin(out)
	for first := 0; first < n; first += blockRows {
		last := min(n, first+blockRows)
		if e.single != nil {
			s.single = e.single.margins(&e.ensemble, rows[first*features:last*features], last-first, out[first*outputs:last*outputs], s.single, &s.ballots)
		} else {
			s.double = e.double.margins(&e.ensemble, rows[first*features:last*features], last-first, out[first*outputs:last*outputs], s.double, &s.ballots)
		}
	}
	e.finish(out)
}

// begin writes what the sums start from.
func (e *Engine) begin(out []float64) {
	m := &e.ensemble
	if m.Base == nil || m.BaseLast {
		clear(out)
		return
	}
	if len(m.Base) == 1 {
		base := m.Sum.round(m.Base[0])
		for i := range out {
			out[i] = base
		}
		return
	}
	for i := range out {
		out[i] = m.Sum.round(m.Base[i%m.Outputs])
	}
}

// finish makes margins of the sums.
func (e *Engine) finish(out []float64) {
	m := &e.ensemble
	if m.Divisor != 0 && m.Divisor != 1 {
		for i := range out {
			out[i] = m.Sum.round(out[i] / m.Divisor)
		}
	}
	if m.Base != nil && m.BaseLast {
		for i := range out {
			out[i] = m.Sum.round(out[i] + m.Sum.round(m.Base[i%m.Outputs]))
		}
	}
}

// prepareContributions readies the trees for Contributions, or notes why there are none.
func (e *Engine) prepareContributions() {
	m := &e.ensemble
	e.bias = make([]float64, m.Outputs)
	e.viewer = viewer{precision: m.Input, known: map[slot]int32{}}
	most := 0
	for i := range m.Trees {
		t := &m.Trees[i]
		x, err := explain(t, m.Together, &e.viewer)
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
		points, weights := Quadrature(n + 1)
		e.points, e.weights = append(e.points, points), append(e.weights, weights)
		if n < 4 {
			e.quads = append(e.quads, newQuadrature(points, weights))
		}
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

func (p Precision) round(x float64) float64 {
	if p == Float32 {
		return float64(float32(x))
	}
	return x
}
