package trees

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/churnstream/churnstream/internal/testkit/cputime"
)

// full makes an ensemble of complete trees as XGBoost grows them, with thresholds of a histogram.
func full(count, depth, features int, precision Precision) Ensemble {
	random := rand.New(rand.NewPCG(3, 4))
	e := Ensemble{Features: features, Outputs: 1, Input: precision, Sum: precision, Base: []float64{0.25}}
	for range count {
		var t Tree
		var grow func(depth int, cover float64) int32
		grow = func(depth int, cover float64) int32 {
			i := int32(len(t.Nodes))
			n := Node{Left: -1, Right: -1, Cover: cover, Value: precision.round(random.NormFloat64() / 10)}
			t.Nodes = append(t.Nodes, n)
			if depth > 0 {
				n.Feature, n.Kind, n.MissingLeft = int32(random.IntN(features)), Less, random.IntN(2) == 0
				n.Threshold = math.Round(random.NormFloat64()*32) / 64
				share := 0.2 + 0.6*random.Float64()
				n.Left = grow(depth-1, share*cover)
				n.Right = grow(depth-1, cover-share*cover)
				t.Nodes[i] = n
			}
			return i
		}
		grow(depth, 10000)
		e.Trees = append(e.Trees, t)
	}
	return e
}

func gaussianRows(n, features int) []float64 {
	random := rand.New(rand.NewPCG(5, 6))
	rows := make([]float64, n*features)
	for i := range rows {
		rows[i] = random.NormFloat64()
	}
	return rows
}

// BenchmarkMargins is the cost of a row of 20 inputs, which goes round among 1024.
func BenchmarkMargins(b *testing.B) {
	const features, distinct = 20, 1024
	for _, c := range []struct {
		name         string
		count, depth int
		precision    Precision
		exact        bool // no threshold occurs twice
		flags        bool // every other input is 0 or 1
	}{
		{"100x6", 100, 6, Float32, false, false},
		{"100x6-double", 100, 6, Float64, false, false},
		{"100x6-exact", 100, 6, Float32, true, false},
		{"100x6-flags", 100, 6, Float32, false, true},
		{"500x8", 500, 8, Float32, false, false},
		{"500x8-exact", 500, 8, Float32, true, false},
	} {
		e := full(c.count, c.depth, features, c.precision)
		if c.exact {
			random := rand.New(rand.NewPCG(7, 8))
			for _, t := range e.Trees {
				for i := range t.Nodes {
					t.Nodes[i].Threshold += random.Float64() / 64
				}
			}
		}
		rows := gaussianRows(distinct, features)
		if c.flags {
			for _, t := range e.Trees {
				for i := range t.Nodes {
					if t.Nodes[i].Feature%2 != 0 {
						t.Nodes[i].Threshold = 0.5
					}
				}
			}
			for i := range rows {
				if i%2 != 0 {
					rows[i] = float64(i / 2 % 2)
				}
			}
		}
		engine, err := Compile(e)
		if err != nil {
			b.Fatal(err)
		}
		for _, batch := range []int{1, 16, 64, 1024} {
			b.Run(fmt.Sprintf("%s/batch=%d", c.name, batch), func(b *testing.B) {
				var s Scratch
				out := make([]float64, batch)
				b.ReportAllocs()
				defer cputime.Report(b, batch, "row")()
				done := 0
				for b.Loop() {
					at := done % (distinct / batch) * batch
					engine.Margins(rows[at*features:(at+batch)*features], batch, out, &s)
					done++
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(done*batch), "ns/row")
			})
		}
	}
}

// BenchmarkContributions is the cost of the exact contributions to one row of 20 inputs.
func BenchmarkContributions(b *testing.B) {
	const features, distinct = 20, 1024
	rows := gaussianRows(distinct, features)
	for _, depth := range []int{6, 8} {
		engine, err := Compile(full(100, depth, features, Float32))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("100x%d", depth), func(b *testing.B) {
			var s Scratch
			out := make([]float64, features)
			b.ReportAllocs()
			defer cputime.Report(b, 1, "row")()
			done := 0
			for b.Loop() {
				at := done % distinct
				engine.Contributions(rows[at*features:(at+1)*features], out, &s)
				done++
			}
		})
	}
}
