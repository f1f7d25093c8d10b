package trees

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestMarginsOfLaidOutTreesAreThoseOfTheTreesAsTheyAre compares every way that an engine takes with the
// plain walk over the nodes: batches of all sizes, one row alone, thresholds of all kinds, and rows
// that lie on them, beside them, beyond all numbers or nowhere.
func TestMarginsOfLaidOutTreesAreThoseOfTheTreesAsTheyAre(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	inBlocks, sets := 0, 0
	for round := range 120 {
		e := strangeEnsemble(random, round)
		engine, err := Compile(e)
		if err != nil {
			t.Fatal(err)
		}
		n := 1 + random.IntN(400)
		if round%3 == 0 {
			n = 1 + random.IntN(lanes)
		}
		rows := strangeRows(random, &e, n)
		sameMargins(t, engine, rows, n, fmt.Sprintf("round %d", round))
		// By ballot wherever it can be, in runs as short as they come.
		if n = min(n, 100); n < lanes {
			continue
		}
		words := []int{0, 50, wordsOfRun}[random.IntN(3)]
		if f := engine.single; f != nil {
			f.ballots, f.least = layBallots(&engine.ensemble, f, words), lanes
			for _, b := range f.ballots {
				inBlocks, sets = inBlocks+b.last-b.first, sets+len(b.sets)
			}
		} else {
			f := engine.double
			f.ballots, f.least = layBallots(&engine.ensemble, f, words), lanes
			for _, b := range f.ballots {
				inBlocks, sets = inBlocks+b.last-b.first, sets+len(b.sets)
			}
		}
		sameMargins(t, engine, rows, n, fmt.Sprintf("round %d, runs of %d words", round, words))
	}
	if inBlocks < 300 || sets < 300 {
		t.Errorf("%d trees in blocks, %d sets", inBlocks, sets)
	}
}

func strangeEnsemble(random *rand.Rand, round int) Ensemble {
	features := 1 + random.IntN(9)
	if round%20 == 0 {
		features = 400 // more views than a node can name
	}
	e := Ensemble{
		Features: features, Outputs: 1 + random.IntN(3), Input: Precision(random.IntN(2)), Sum: Precision(random.IntN(2)),
		TinyIsZero: random.IntN(2) == 0, Divisor: float64(random.IntN(4)), BaseLast: random.IntN(2) == 0,
	}
	if random.IntN(2) == 0 {
		for range e.Outputs {
			e.Base = append(e.Base, random.NormFloat64())
		}
	}
	for range 1 + random.IntN(20) + features/10 {
		tree := grown(random, features, e.Outputs, random.IntN(12))
		strange(random, &tree, features, specialNumbers[1:])
		e.Trees = append(e.Trees, tree)
	}
	return e
}

// specialNumbers begins with NaN.
var specialNumbers = []float64{
	math.NaN(), math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1), 1e-36, -1e-36, 1e-35, 1e-34, -1e-34, 1e300, -1e300,
	math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat64, math.MaxFloat64,
}

func strangeRows(random *rand.Rand, e *Ensemble, n int) []float64 {
	rows := make([]float64, n*e.Features)
	for i := range rows {
		switch tree := &e.Trees[random.IntN(len(e.Trees))]; random.IntN(4) {
		case 0:
			rows[i] = specialNumbers[random.IntN(len(specialNumbers))]
		case 1:
			x := tree.Nodes[random.IntN(len(tree.Nodes))].Threshold
			rows[i] = []float64{x, math.Nextafter(x, 9), math.Nextafter(x, -9), float64(math.Nextafter32(float32(x), 9))}[random.IntN(4)]
		case 2:
			rows[i] = float64(random.IntN(80) - 10)
		default:
			rows[i] = random.NormFloat64()
		}
	}
	return rows
}

// sameMargins compares the margins of n rows with those of the walk over the nodes.
func sameMargins(t *testing.T, engine *Engine, rows []float64, n int, what string) {
	t.Helper()
	var s Scratch
	e := &engine.ensemble
	got, want := make([]float64, n*e.Outputs), make([]float64, e.Outputs)
	engine.Margins(rows, n, got, &s)
	for r := range n {
		row := rows[r*e.Features : (r+1)*e.Features]
		engine.begin(want)
		for i := range e.Trees {
			e.walk(&e.Trees[i], row, want)
		}
		engine.finish(want)
		for k := range want {
			if x := got[r*e.Outputs+k]; x != want[k] && !(x != x && want[k] != want[k]) {
				t.Fatalf("%s, row %d of %d %v, output %d: got %v, want %v", what, r, n, row, k, x, want[k])
			}
		}
	}
}

// strange gives splits of a tree thresholds and kinds that are rare.
func strange(random *rand.Rand, t *Tree, features int, special []float64) {
	t.Sets = []Set{{}, {Bits: []uint32{0x5a5a, 1}}, {Bits: []uint32{6, 9}, FromZero: true}, {Bits: []uint32{3, 1 << 31}, Words: []uint32{0, 2}}}
	linear := len(t.Vectors) == 0 && random.IntN(5) == 0
	plain := random.IntN(2) == 0 // has no split that keeps the tree from being laid out
	for i := range t.Nodes {
		n := &t.Nodes[i]
		switch {
		case n.Left < 0 && linear:
			n.Leaf = int32(len(t.Linear))
			t.Linear = append(t.Linear, LinearLeaf{Constant: 1, Features: []int32{int32(random.IntN(features))}, Coefficients: []float64{0.5}})
		case n.Left < 0:
		case random.IntN(6) == 0 && !plain:
			n.Threshold = special[random.IntN(len(special))]
		case plain && random.IntN(4) == 0 && features < 100:
			n.Kind, n.Set, n.SetRight, n.Missing = InSet, int32(random.IntN(3)), random.IntN(2) == 0, NaNMissing
		case plain:
		case random.IntN(60) == 0:
			n.Kind, n.Threshold = Equal, float64(random.IntN(4))
		case random.IntN(12) == 0:
			n.Kind, n.Set, n.SetRight = InSet, int32(random.IntN(len(t.Sets))), random.IntN(2) == 0
			n.Missing %= 2 * Missing(1+random.IntN(2))
		}
	}
}

// TestRunsStayWithinTheirWords: trees that ask for a new set of many categories at every split, of many features or
// of one, where no category stands beside another.
func TestRunsStayWithinTheirWords(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for _, features := range []int{120, 1} {
		e := Ensemble{Features: features, Outputs: 1}
		for from := 0; len(e.Trees) < 15; {
			var tree Tree
			const splits = 60
			for i := range splits { // a chain: even nodes are splits
				set := Set{}
				for range maxMembers {
					c := 2 * random.IntN(640)
					if features == 1 {
						from += 2
						c = from
					}
					for len(set.Bits) <= c/32 {
						set.Bits = append(set.Bits, 0)
					}
					set.Bits[c/32] |= 1 << (c % 32)
				}
				tree.Sets = append(tree.Sets, set)
				split := Node{Left: int32(2*i + 1), Right: int32(2*i + 2), Feature: int32(random.IntN(features)), Kind: InSet, Set: int32(i), MissingLeft: i%2 == 0}
				tree.Nodes = append(tree.Nodes, split, Node{Left: -1, Right: -1, Value: random.NormFloat64()})
			}
			tree.Nodes = append(tree.Nodes, Node{Left: -1, Right: -1, Value: 1})
			e.Trees = append(e.Trees, tree)
		}
		engine, err := Compile(e)
		if err != nil {
			t.Fatal(err)
		}
		rows := make([]float64, 64*features)
		for i := range rows {
			rows[i] = float64(random.IntN(1300))
		}
		f := engine.double
		if f.ballots = layBallots(&engine.ensemble, f, wordsOfRun); len(f.ballots) < 3 {
			t.Fatalf("%d features: %d runs", features, len(f.ballots))
		}
		sameMargins(t, engine, rows, 64, "many sets")
	}
}

// TestEngineDoesNotAllocate holds a batch, a row alone and contributions to the memory of the scratch.
func TestEngineDoesNotAllocate(t *testing.T) {
	engine, err := Compile(full(30, 6, 12, Float32))
	if err != nil {
		t.Fatal(err)
	}
	rows := gaussianRows(100, 12)
	out, contributions := make([]float64, 100), make([]float64, 12)
	var s Scratch
	run := func() {
		engine.Margins(rows, 100, out, &s)
		engine.Margins(rows, 1, out, &s)
		engine.Contributions(rows[:12], contributions, &s)
	}
	run()
	if n := testing.AllocsPerRun(20, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCompileRefuses(t *testing.T) {
	split := func(left, right int32) Node { return Node{Left: left, Right: right} }
	leaf := Node{Left: -1, Right: -1}
	nan := math.NaN()
	for _, c := range []struct {
		name, want string
		change     func(*Ensemble)
	}{
		{"no nodes", "tree 0: no nodes", func(e *Ensemble) { e.Trees[0].Nodes = nil }},
		{"a cycle", "tree 0: node 1: its child is the root", func(e *Ensemble) { e.Trees[0].Nodes = []Node{split(1, 2), split(0, 2), leaf} }},
		{"a node that is its own child", "node 1: its child 1 is a child of node 0 already", func(e *Ensemble) { e.Trees[0].Nodes = []Node{split(1, 2), split(1, 2), leaf} }},
		{"a shared child", "node 0: its child 1 is a child of node 0 already", func(e *Ensemble) { e.Trees[0].Nodes = []Node{split(1, 1), leaf} }},
		{"a child out of range", "node 0: children 1 and 7 of 3 nodes", func(e *Ensemble) { e.Trees[0].Nodes[0].Right = 7 }},
		{"a child of -2", "children -2 and 2 of 3 nodes", func(e *Ensemble) { e.Trees[0].Nodes[0].Left = -2 }},
		{"a feature out of range", "splits on feature 2 of 2", func(e *Ensemble) { e.Trees[0].Nodes[0].Feature = 2 }},
		{"a feature below 0", "splits on feature -1 of 2", func(e *Ensemble) { e.Trees[0].Nodes[0].Feature = -1 }},
		{"a threshold of NaN", "node 0: its threshold is NaN", func(e *Ensemble) { e.Trees[0].Nodes[0].Threshold = nan }},
		{"a leaf of NaN", "node 1: leaf value NaN", func(e *Ensemble) { e.Trees[0].Nodes[1].Value = nan }},
		{"a leaf beyond float32", "node 1: leaf value 1e+39", func(e *Ensemble) { e.Sum = Float32; e.Trees[0].Nodes[1].Value = 1e39 }},
		{"an output out of range", "adds to output 1 of 1", func(e *Ensemble) { e.Trees[0].Output = 1 }},
		{"a set that is not there", "category set 0 of 0", func(e *Ensemble) { e.Trees[0].Nodes[0].Kind = InSet }},
		{"words of a set out of order", "category set 0: index 1", func(e *Ensemble) { e.Trees[0].Sets = []Set{{Bits: []uint32{1, 1}, Words: []uint32{3, 3}}} }},
		{"a vector that is not there", "leaf with vector 1 of 1", func(e *Ensemble) { e.Outputs, e.Trees[0].Vectors, e.Trees[0].Nodes[1].Leaf = 2, []float64{1, 2}, 1 }},
		{"a linear leaf that reads beyond", "linear leaf 0: reads feature 5 of 2", func(e *Ensemble) {
			e.Trees[0].Linear = []LinearLeaf{{Features: []int32{5}, Coefficients: []float64{1}}}
		}},
		{"a base for another number of outputs", "2 base values for 1 outputs", func(e *Ensemble) { e.Base = []float64{1, 2} }},
		{"a base of infinity", "base[0] is +Inf", func(e *Ensemble) { e.Base = []float64{math.Inf(1)} }},
		{"no outputs", "0 outputs", func(e *Ensemble) { e.Outputs = 0 }},
		{"a divisor below 0", "divisor -1", func(e *Ensemble) { e.Divisor = -1 }},
		{"a kind that is unknown", "unknown kind of split 9", func(e *Ensemble) { e.Trees[0].Nodes[0].Kind = 9 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := Ensemble{Features: 2, Outputs: 1, Trees: []Tree{{Nodes: []Node{split(1, 2), leaf, leaf}}}}
			c.change(&e)
			_, err := Compile(e)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestUnreachableNodesAreLeftAlone: XGBoost's pruned trees have such nodes.
func TestUnreachableNodesAreLeftAlone(t *testing.T) {
	e := Ensemble{Features: 1, Outputs: 1, Trees: []Tree{{Nodes: []Node{
		{Left: 2, Right: 3, Threshold: 1}, {Left: 55, Right: 1, Feature: 9, Threshold: math.NaN()}, {Left: -1, Right: -1, Value: 5}, {Left: -1, Right: -1, Value: 6},
	}}}}
	engine, err := Compile(e)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, 2)
	engine.Margins([]float64{0, 2}, 2, out, &Scratch{})
	if fmt.Sprint(out) != "[5 6]" {
		t.Errorf("margins %v", out)
	}
}

func TestContributionsSayWhyThereAreNone(t *testing.T) {
	leaf := Node{Left: -1, Right: -1, Cover: math.NaN()}
	e := Ensemble{Features: 1, Outputs: 1, Trees: []Tree{{Nodes: []Node{{Left: 1, Right: 2, Cover: 3}, leaf, leaf}}}}
	engine, err := Compile(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Explains(); err == nil || !strings.Contains(err.Error(), "tree 0: node 0: its cover or that of a child is NaN") {
		t.Errorf("error %v", err)
	}
}

func TestSetsHoldTheirCategoriesAndNoOthers(t *testing.T) {
	for _, categories := range [][]int32{{}, {0}, {3, 1, 2}, {31, 32, 63, 64}, {5, 2000000000}, {0, 16777215, 1 << 30}} {
		set, err := NewSet(categories)
		if err != nil {
			t.Fatal(err)
		}
		if n := 4 * (len(set.Bits) + len(set.Words)); n > 16*len(categories)+64 {
			t.Errorf("%v: %d bytes", categories, n)
		}
		in := map[int32]bool{}
		for _, c := range categories {
			in[c] = true
		}
		for _, c := range []int32{0, 1, 2, 3, 4, 5, 30, 31, 32, 33, 62, 63, 64, 65, 16777215, 1 << 30, 1<<30 + 1, 2000000000, math.MaxInt32} {
			for _, x := range []float64{float64(c), float64(c) + 0.5} {
				if set.Has(x) != in[c] {
					t.Errorf("%v has %v: %v", categories, x, set.Has(x))
				}
			}
		}
		for _, x := range []float64{-1, -0.5, math.NaN(), math.Inf(1), math.Inf(-1), 1e300, -1e300} {
			if set.Has(x) {
				t.Errorf("%v has %v", categories, x)
			}
		}
	}
	if _, err := NewSet([]int32{4, -1}); err == nil {
		t.Error("a category below 0 is taken")
	}
	if set := (Set{Bits: []uint32{1}, FromZero: true}); !set.Has(-0.5) || set.Has(-1) {
		t.Error("FromZero: -0.5 is category 0, -1 is none")
	}
}
