package catboost

import (
	"errors"
	"fmt"
	"math"

	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/internal/ballot"
	"github.com/churnstream/churnstream/scoring/trees"
)

// maxObliviousDepth is CatBoost's limit of the depth of oblivious trees.
const maxObliviousDepth = 16

// output is what becomes of the sums of leaves.
type output struct {
	dims  int
	scale float64
	bias  []float64 // one for each dimension
}

func (d *document) output(dims int) (output, error) {
	o := output{dims: dims, scale: d.scale, bias: make([]float64, dims)}
	if math.IsNaN(d.scale) || math.IsInf(d.scale, 0) {
		return o, fmt.Errorf("scale_and_bias: scale %v, want a finite number", d.scale)
	}
	switch len(d.bias) {
	case 0:
	case dims:
		copy(o.bias, d.bias)
	default:
		return o, fmt.Errorf("scale_and_bias: %d biases for %d outputs", len(d.bias), dims)
	}
	return o, nil
}

// finish scales the sums and adds the bias.
func (o *output) finish(sums []float64) {
	for k := range sums {
		sums[k] = float64(sums[k]*o.scale) + o.bias[k]
	}
}

// oblivious scores oblivious trees. It is immutable.
type oblivious struct {
	in  *inputs
	out output

	tests  []test
	trees  []compiledTree
	leaves []float64

	lookup *lookup // of a row alone; nil: tree by tree
	blocks *blocks // of many; nil: one by one

	attribution attribution
	expectation []float64
	opaque      error
	weights     []float64   // of the leaves
	points      [][]float64 // of the quadrature with n+1 points
	parts       [][]float64 // their weights
}

// test is a split: is the column greater than the number, or equal to it?
type test struct {
	column int32
	equal  bool
	number float64
}

type compiledTree struct {
	firstTest, depth int32
	firstLeaf        int // of leaves, in units of dims
}

var _ booster.Engine = (*oblivious)(nil)

func (d *document) compileOblivious(in *inputs) (*oblivious, error) {
	e := &oblivious{in: in, leaves: d.leaves, weights: d.weights, tests: make([]test, 0, len(d.splits)), trees: make([]compiledTree, 0, len(d.oblivious))}
	dims, firstLeaf := 1, 0
	for i, t := range d.oblivious {
		depth := int(t.splits)
		if depth > maxObliviousDepth {
			return nil, fmt.Errorf("oblivious_trees %d: %d splits, want at most %d", i, depth, maxObliviousDepth)
		}
		if i == 0 {
			dims = int(t.leaves) >> depth
		}
		if dims == 0 || int(t.leaves) != dims<<depth {
			return nil, fmt.Errorf("oblivious_trees %d: %d leaf_values for %d splits and %d outputs", i, t.leaves, depth, max(dims, 1))
		}
		switch t.weights {
		case 0:
			e.opaque = errors.New("the model has no leaf_weights: contributions cannot be computed")
		case 1 << depth:
		default:
			return nil, fmt.Errorf("oblivious_trees %d: %d leaf_weights for %d splits", i, t.weights, depth)
		}
		e.trees = append(e.trees, compiledTree{firstTest: int32(len(e.tests)), depth: int32(depth), firstLeaf: firstLeaf})
		firstLeaf += 1 << depth
		for _, index := range d.splits[len(e.tests) : len(e.tests)+depth] {
			test, err := d.test(in, index)
			if err != nil {
				return nil, fmt.Errorf("oblivious_trees %d: %w", i, err)
			}
			e.tests = append(e.tests, test)
		}
	}
	var err error
	if e.out, err = d.output(dims); err != nil {
		return nil, err
	}
	e.attribution = in.attribution()
	e.expect()
	e.lookup = newLookup(e)
	e.blocks = newBlocks(e)
	return e, nil
}

// test resolves a split.
func (d *document) test(in *inputs, index int32) (test, error) {
	column, at, err := in.splits.find(index)
	if err != nil {
		return test{}, err
	}
	t := test{column: int32(column)}
	switch floats, categories := len(d.floats), len(d.floats)+len(d.categories); {
	case column < floats:
		t.number = float64(d.floats[column].borders[at])
	case column < categories:
		t.equal, t.number = true, float64(uint32(d.categories[column-floats].values[at]))
	default:
		t.number = float64(d.counters[column-categories].borders[at])
	}
	return t, nil
}

// Features is the number of inputs of a row.
func (e *oblivious) Features() int { return e.in.width }

// Outputs is the number of raw values of a row.
func (e *oblivious) Outputs() int { return e.out.dims }

// Margins computes the raw values of n rows. A row with a category's number that no
// text has gets NaN.
func (e *oblivious) Margins(rows []float64, n int, out []float64, s *trees.Scratch) {
	if e.blocks != nil {
		for n >= ballot.Rows || n >= e.blocks.least {
			some := min(n, ballot.Rows)
			e.blocks.add(e, rows, some, out, s)
			rows, out, n = rows[some*e.in.width:], out[some*e.out.dims:], n-some
		}
	}
	width := e.in.columns()
	columns := s.Columns(2 * width)
	columns, places := columns[:width], columns[width:]
	if e.lookup != nil {
		places = places[:len(e.lookup.columns)]
	}
	for i := range n {
		to := out[i*e.out.dims : (i+1)*e.out.dims]
		if !e.in.read(rows[i*e.in.width:(i+1)*e.in.width], columns) {
			fill(to, math.NaN())
			continue
		}
		if e.lookup != nil {
			e.lookup.find(columns, places)
			e.lookup.sum(e.leaves, places, to)
		} else {
			e.sum(columns, to)
		}
		e.out.finish(to)
	}
}

func fill(to []float64, x float64) {
	for i := range to {
		to[i] = x
	}
}

func (e *oblivious) sum(columns, out []float64) {
	clear(out)
	for i := range e.trees {
		leaf := e.leaf(&e.trees[i], columns)
		for k, x := range e.leaves[leaf*len(out) : (leaf+1)*len(out)] {
			out[k] += x
		}
	}
}

// leaf is the leaf of a tree that a row is in.
func (e *oblivious) leaf(t *compiledTree, columns []float64) int {
	leaf := 0
	for k, test := range e.tests[t.firstTest : t.firstTest+t.depth] {
		if x := columns[test.column]; test.equal && x == test.number || !test.equal && x > test.number {
			leaf |= 1 << k
		}
	}
	return t.firstLeaf + leaf
}
