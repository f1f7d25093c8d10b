package golden

import (
	"math"

	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/trees"
)

// fataler is what Exercise needs of a test.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Exercise scores and explains rows of all kinds of numbers by a model that came from anywhere: alone
// and in a batch they must give the same. Models that would take long are left alone.
func Exercise(t fataler, m *booster.Model) {
	t.Helper()
	e := m.Engine
	if e.Features() > 1000 || e.Outputs() > 100 {
		return
	}
	values := []float64{0, 1, -1, 0.5, 33, math.NaN(), math.Inf(1), math.Inf(-1), 1e300, -1e-40, 3e9}
	const n = 67 // more than a block
	rows := make([]float64, n*e.Features())
	for i := range rows {
		rows[i] = values[(i*7+i/e.Features())%len(values)]
	}
	var s trees.Scratch
	batch, single := make([]float64, n*e.Outputs()), make([]float64, e.Outputs())
	e.Margins(rows, n, batch, &s)
	out := make([]float64, e.Outputs())
	contributions := make([]float64, e.Outputs()*e.Features())
	for i := range n {
		row := rows[i*e.Features() : (i+1)*e.Features()]
		e.Margins(row, 1, single, &s)
		for k, x := range single {
			if y := batch[i*e.Outputs()+k]; x != y && !(x != x && y != y) {
				t.Fatalf("row %d, output %d: alone %v, in a batch %v", i, k, x, y)
			}
		}
		m.Link.Apply(single, out)
		if i < 19 && e.Explains() == nil {
			e.Contributions(row, contributions, &s)
		}
	}
}
