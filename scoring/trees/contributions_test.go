package trees

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// TestContributionsAreShapleyValues compares with the definition: the mean over all orders of the
// features, by way of all their subsets.
func TestContributionsAreShapleyValues(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		features := 6
		if round%10 == 9 {
			features = 11 // more points of the quadrature than four
		}
		e := Ensemble{Features: features, Outputs: 2, Base: []float64{0.5, -1}, Divisor: 3}
		for range 3 {
			e.Trees = append(e.Trees, grown(random, features, 2, 1+round%10))
		}
		engine, err := Compile(e)
		if err != nil {
			t.Fatal(err)
		}
		row := make([]float64, features)
		for i := range row {
			if row[i] = random.NormFloat64(); random.IntN(8) == 0 {
				row[i] = math.NaN()
			}
		}
		got := make([]float64, 2*features)
		var s Scratch
		engine.Contributions(row, got, &s)
		margin := make([]float64, 2)
		engine.Margins(row, 1, margin, &s)
		for k := range 2 {
			value := make([]float64, 1<<features)
			for set := range value {
				for i := range e.Trees {
					value[set] += expectation(&e.Trees[i], 0, row, set, 2, k) / 3
				}
			}
			sum := engine.Bias()[k]
			for j := range features {
				want := 0.0
				for set := range value {
					if set>>j&1 == 0 {
						size := bits.OnesCount(uint(set))
						want += (value[set|1<<j] - value[set]) * factorial(size) * factorial(features-1-size) / factorial(features)
					}
				}
				sum += got[k*features+j]
				if math.Abs(want-got[k*features+j]) > 1e-12 {
					t.Errorf("round %d, output %d, feature %d: got %v, want %v", round, k, j, got[k*features+j], want)
				}
			}
			if math.Abs(sum-margin[k]) > 1e-12 {
				t.Errorf("round %d, output %d: contributions and bias make %v, the margin is %v", round, k, sum, margin[k])
			}
		}
	}
}

func factorial(n int) float64 { return math.Gamma(float64(n + 1)) }

// expectation is the mean of the leaves where splits on set go the row's way and others both ways.
func expectation(t *Tree, i int32, row []float64, set, outputs, k int) float64 {
	n := &t.Nodes[i]
	if n.Left < 0 {
		if len(t.Vectors) == 0 && t.Output != k {
			return 0
		}
		return t.value(n, outputs, k)
	}
	if set>>n.Feature&1 == 1 {
		return expectation(t, t.next(n, row[n.Feature]), row, set, outputs, k)
	}
	mean := 0.0
	for _, child := range [2]int32{n.Left, n.Right} {
		mean += t.Nodes[child].Cover / n.Cover * expectation(t, child, row, set, outputs, k)
	}
	return mean
}

// grown makes a random tree; one in three has vectors in its leaves.
func grown(random *rand.Rand, features, outputs, depth int) Tree {
	t := Tree{Output: random.IntN(outputs)}
	vectors := random.IntN(3) == 0
	var grow func(depth int, cover float64) int32
	grow = func(depth int, cover float64) int32 {
		i := int32(len(t.Nodes))
		t.Nodes = append(t.Nodes, Node{Left: -1, Right: -1, Cover: cover})
		if depth == 0 || random.IntN(6) == 0 {
			if vectors {
				t.Nodes[i].Leaf = int32(len(t.Vectors) / outputs)
				for range outputs {
					t.Vectors = append(t.Vectors, random.NormFloat64())
				}
			} else {
				t.Nodes[i].Value = random.NormFloat64()
			}
			return i
		}
		n := Node{
			Feature: int32(random.IntN(features)), Threshold: random.NormFloat64(), Cover: cover,
			Kind: Kind(random.IntN(2)), Missing: Missing(random.IntN(3)), MissingLeft: random.IntN(2) == 0,
		}
		share := random.Float64()
		n.Left = grow(depth-1, share*cover)
		n.Right = grow(depth-1, cover-share*cover)
		t.Nodes[i] = n
		return i
	}
	grow(depth, 1000)
	return t
}
