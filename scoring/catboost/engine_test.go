package catboost

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/churnstream/churnstream/scoring/trees"
)

// random makes a model of oblivious trees over 20 numbers.
func random(count, depth int) *oblivious {
	r := rand.New(rand.NewPCG(1, 2))
	in := &inputs{width: 20}
	for i := range in.width {
		in.floats = append(in.floats, floatInput{flat: i})
	}
	e := &oblivious{in: in, out: output{dims: 1, scale: 1, bias: []float64{0}}}
	for range count {
		e.trees = append(e.trees, compiledTree{firstTest: int32(len(e.tests)), depth: int32(depth), firstLeaf: len(e.leaves)})
		for range depth {
			e.tests = append(e.tests, test{column: int32(r.IntN(20)), number: float64(float32(float64(r.IntN(254))/64 - 2))})
		}
		for range 1 << depth {
			e.leaves = append(e.leaves, r.NormFloat64())
		}
	}
	return e
}

// TestEveryWayGivesTheSame compares the ways to the leaves, values on borders included.
func TestEveryWayGivesTheSame(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {7, 8}, {64, 6}, {65, 6}, {300, 5}, {5, 11}} {
		e := random(size[0], size[1])
		r := rand.New(rand.NewPCG(3, 4))
		const n = 500
		rows := make([]float64, n*e.in.width)
		for i := range rows {
			rows[i] = float64(float32(float64(r.IntN(512))/128 - 2))
			if k := r.IntN(40); k < 4 {
				rows[i] = []float64{math.Copysign(0, -1), math.Inf(-1), math.Inf(1), math.NaN()}[k]
			}
		}
		ways := waysOf(e)
		if size[1] > 8 {
			delete(ways, "table")
		}
		want := make([]float64, n)
		var s trees.Scratch
		ways["tree"].Margins(rows, n, want, &s)
		for name, e := range ways {
			for _, batch := range []int{1, 63, 64, 65, n} {
				got := make([]float64, n)
				for from := 0; from < n; from += batch {
					e.Margins(rows[from*e.in.width:], min(batch, n-from), got[from:], &s)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%v by %s in batches of %d: other margins", size, name, batch)
				}
			}
		}
	}
}

// waysOf are engines of the same trees that take one way each.
func waysOf(e *oblivious) map[string]*oblivious {
	table, tree, block := *e, *e, *e
	table.lookup = newLookup(e)
	block.blocks = newBlocks(e)
	block.blocks.least = 1
	return map[string]*oblivious{"table": &table, "tree": &tree, "block": &block}
}
