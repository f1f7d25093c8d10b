package catboost

import (
	"fmt"
	"math"

	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/trees"
)

// grown scores trees of any form, over the columns that the inputs make of a row. It is immutable.
type grown struct {
	in          *inputs
	out         output
	engine      *trees.Engine
	attribution attribution
	bias        []float64
}

var _ booster.Engine = (*grown)(nil)

func (d *document) compileGrown(in *inputs) (*grown, error) {
	e := &grown{in: in, attribution: in.attribution()}
	m := trees.Ensemble{Features: in.columns(), Together: e.attribution.player}
	for i := range d.grown {
		g := &d.grown[i]
		leaves := 0
		for _, n := range g.nodes {
			if n.first >= 0 {
				leaves++
			}
		}
		dims := len(g.vectors) / leaves
		if i == 0 {
			m.Outputs = dims
		}
		if dims == 0 || dims != m.Outputs || len(g.vectors) != dims*leaves {
			return nil, fmt.Errorf("trees %d: %d values for %d leaves and %d outputs", i, len(g.vectors), leaves, max(1, m.Outputs))
		}
		t, err := d.grow(in, g, dims)
		if err != nil {
			return nil, fmt.Errorf("trees %d: %w", i, err)
		}
		*g = grownTree{}
		m.Trees = append(m.Trees, t)
	}
	var err error
	if e.out, err = d.output(m.Outputs); err != nil {
		return nil, err
	}
	if e.engine, err = trees.Compile(m); err != nil {
		return nil, err
	}
	e.bias = append(e.bias, e.engine.Bias()...)
	e.out.finish(e.bias)
	return e, nil
}

// grow makes the neutral form of a tree.
func (d *document) grow(in *inputs, g *grownTree, dims int) (trees.Tree, error) {
	t := trees.Tree{Nodes: make([]trees.Node, len(g.nodes))}
	if dims > 1 {
		t.Vectors = g.vectors
	}
	for i := len(g.nodes) - 1; i >= 0; i-- { // children come behind their parents
		from, n := &g.nodes[i], &t.Nodes[i]
		if from.first >= 0 {
			*n = trees.Node{Left: -1, Right: -1, Cover: from.weight, Leaf: from.first / int32(dims)}
			if from.first%int32(dims) != 0 {
				return t, fmt.Errorf("leaves of different numbers of values")
			}
			if dims == 1 {
				n.Value = g.vectors[from.first]
			}
			continue
		}
		test, err := d.test(in, from.split)
		if err != nil {
			return t, err
		}
		*n = trees.Node{Left: from.left, Right: from.right, Feature: test.column, Threshold: test.number, Kind: trees.LessOrEqual}
		if test.equal {
			n.Kind, n.Left, n.Right = trees.Equal, from.right, from.left
		}
		n.Cover = t.Nodes[n.Left].Cover + t.Nodes[n.Right].Cover
	}
	return t, nil
}

// Features is the number of inputs of a row.
func (e *grown) Features() int { return e.in.width }

// Outputs is the number of raw values of a row.
func (e *grown) Outputs() int { return e.out.dims }

// Margins computes the raw values of n rows. A row with a category's number that no
// text has gets NaN.
func (e *grown) Margins(rows []float64, n int, out []float64, s *trees.Scratch) {
	width := e.in.columns()
	columns := s.Columns(n * width)
	for i := range n {
		if !e.in.read(rows[i*e.in.width:(i+1)*e.in.width], columns[i*width:(i+1)*width]) {
			columns[i*width] = math.NaN() // a mark: read leaves no NaN in a column
		}
	}
	e.engine.Margins(columns, n, out, s)
	for i := range n {
		to := out[i*e.out.dims : (i+1)*e.out.dims]
		e.out.finish(to)
		if x := columns[i*width]; x != x {
			fill(to, math.NaN())
		}
	}
}

// Explains reports why there are no contributions, nil if there are.
func (e *grown) Explains() error { return e.engine.Explains() }

// Bias is the margins when nothing is known of a row.
func (e *grown) Bias() []float64 { return e.bias }

// Contributions are exact path-dependent Shapley values, where the features that a counter combines
// are one player whose value they share evenly, as CatBoost has it.
func (e *grown) Contributions(row, out []float64, s *trees.Scratch) {
	width := e.in.columns()
	columns := s.Columns(width + e.out.dims*width)
	columns, players := columns[:width], columns[width:]
	if !e.in.read(row, columns) {
		fill(out[:e.out.dims*e.in.width], math.NaN())
		return
	}
	e.engine.Contributions(columns, players, s)
	e.attribution.share(players, out[:e.out.dims*e.in.width], e.in.width, e.out.scale)
}
