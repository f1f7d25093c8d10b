package catboost

import (
	"fmt"
	"math"
	"math/rand/v2"
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

// TestTablesGiveWhatTreesGive compares the two ways to the leaves, values on borders included.
func TestTablesGiveWhatTreesGive(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {7, 8}, {64, 6}, {65, 6}, {300, 5}} {
		e := random(size[0], size[1])
		l := newLookup(e)
		if l == nil {
			t.Fatalf("%v: no table", size)
		}
		r := rand.New(rand.NewPCG(3, 4))
		columns, places := make([]float64, 20), make([]float64, len(l.columns))
		got, want := make([]float64, 1), make([]float64, 1)
		for range 500 {
			for i := range columns {
				columns[i] = float64(float32(float64(r.IntN(512))/128 - 2))
				switch r.IntN(40) {
				case 0:
					columns[i] = math.Copysign(0, -1)
				case 1:
					columns[i] = math.Inf(-1)
				case 2:
					columns[i] = math.Inf(1)
				}
			}
			e.sum(columns, want)
			l.find(columns, places)
			l.sum(e.leaves, places, got)
			if got[0] != want[0] {
				t.Fatalf("%v: %v by table, %v by tree", size, got, want)
			}
		}
	}
}

func BenchmarkOblivious(b *testing.B) {
	for _, size := range [][2]int{{100, 6}, {500, 8}} {
		e := random(size[0], size[1])
		rows := make([]float64, 1000*20)
		r := rand.New(rand.NewPCG(5, 6))
		for i := range rows {
			rows[i] = r.NormFloat64()
		}
		out := make([]float64, 1000)
		var s trees.Scratch
		for name, l := range map[string]*lookup{"table": newLookup(e), "tree": nil} {
			e.lookup = l
			b.Run(fmt.Sprintf("%dx%d/%s", size[0], size[1], name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					e.Margins(rows, 1000, out, &s)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/row")
			})
		}
	}
}
