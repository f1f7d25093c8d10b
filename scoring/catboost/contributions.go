package catboost

import (
	"math"
	"slices"

	"github.com/churnstream/churnstream/scoring/trees"
)

// attribution says whose merit a column is. Columns made of the same inputs are one player, named by
// the first of them; what the player gains is shared evenly by its inputs. Of a counter these are, as
// CatBoost has it, the categories whose values it combines: what it asks of others besides is not
// counted.
type attribution struct {
	player []int32   // of a column
	inputs [][]int32 // of a player
}

func (in *inputs) attribution() attribution {
	a := attribution{player: make([]int32, in.columns()), inputs: make([][]int32, in.columns())}
	first := make(map[string]int32)
	add := func(column int, of []int32) {
		slices.Sort(of)
		of = slices.Compact(of)
		key := make([]byte, 0, 4*len(of))
		for _, i := range of {
			key = append(key, byte(i), byte(i>>8), byte(i>>16), byte(i>>24))
		}
		player, ok := first[string(key)]
		if !ok {
			player = int32(column)
			first[string(key)] = player
			a.inputs[column] = of
		}
		a.player[column] = player
	}
	for i, f := range in.floats {
		add(i, []int32{int32(f.flat)})
	}
	for i, flat := range in.categories {
		add(len(in.floats)+i, []int32{int32(flat)})
	}
	for i := range in.counters {
		c := &in.counters[i]
		var of []int32
		for _, k := range c.categories {
			of = append(of, int32(in.categories[k]))
		}
		if of == nil {
			for _, b := range c.borders {
				of = append(of, int32(in.floats[b.column].flat))
			}
			for _, v := range c.values {
				of = append(of, int32(in.categories[v.category]))
			}
		}
		add(len(in.floats)+len(in.categories)+i, of)
	}
	return a
}

// share makes values of inputs of those of players, output by output.
func (a *attribution) share(players, out []float64, width int, scale float64) {
	clear(out)
	columns := len(a.player)
	for k := range len(out) / width {
		for p, of := range a.inputs {
			part := players[k*columns+p] * scale / float64(len(of))
			for _, i := range of {
				out[k*width+int(i)] += part
			}
		}
	}
}

// expect computes the bias: the mean of the leaves by weight.
func (e *oblivious) expect() {
	if e.opaque != nil {
		return
	}
	e.expectation = make([]float64, e.out.dims)
	for _, t := range e.trees {
		leaves := 1 << t.depth
		total := 0.0
		for _, w := range e.weights[t.firstLeaf : t.firstLeaf+leaves] {
			total += w
		}
		if total == 0 {
			continue
		}
		for l := t.firstLeaf; l < t.firstLeaf+leaves; l++ {
			for k := range e.out.dims {
				e.expectation[k] += e.weights[l] / total * e.leaves[l*e.out.dims+k]
			}
		}
	}
	e.out.finish(e.expectation)
	for n := range maxObliviousDepth / 2 {
		points, parts := trees.Quadrature(n + 1)
		e.points, e.parts = append(e.points, points), append(e.parts, parts)
	}
}

// Explains reports why there are no contributions, nil if there are.
func (e *oblivious) Explains() error { return e.opaque }

// Bias is the margins when nothing is known of a row.
func (e *oblivious) Bias() []float64 { return e.expectation }

// Contributions are exact path-dependent Shapley values, where the features that a counter combines
// are one player whose value they share evenly, as CatBoost has it. With z_j the product of the shares
// of weight along the edges of player j above a leaf of value v, and o_j = 1 if the row takes them
// all, else 0, the leaf gives player j
//
//	v·(o_j - z_j)·∫₀¹ Π_{k≠j} (o_k·t + z_k·(1-t)) dt
//
// (see trees.Engine.Contributions), and all leaves of an oblivious tree have the same players.
func (e *oblivious) Contributions(row, out []float64, s *trees.Scratch) {
	if e.opaque != nil {
		panic("BUG: contributions asked of a model that has none: " + e.opaque.Error())
	}
	width, players := e.in.columns(), e.in.columns()*e.out.dims
	memory := s.Columns(width + players + 4<<maxObliviousDepth + 4*maxObliviousDepth)
	columns, memory := memory[:width], memory[width:]
	gains, memory := memory[:players], memory[players:]
	out = out[:e.out.dims*e.in.width]
	if !e.in.read(row, columns) {
		fill(out, math.NaN())
		return
	}
	clear(gains)
	for i := range e.trees {
		e.explain(&e.trees[i], columns, gains, memory)
	}
	e.attribution.share(gains, out, e.in.width, e.out.scale)
}

// explain adds the gains of one tree's players. Its nodes are numbered like a heap: the root is 1 and
// looks at the last split, the children of n are 2n and 2n+1, leaf l is 1<<depth + l.
func (e *oblivious) explain(t *compiledTree, columns, gains, memory []float64) {
	if t.depth == 0 {
		return
	}
	depth, leaves := int(t.depth), 1<<t.depth
	taken := e.leaf(t, columns) - t.firstLeaf
	var players, of [maxObliviousDepth]int32 // distinct players; the place of a split's among them
	n := 0
	for k, test := range e.tests[t.firstTest : t.firstTest+t.depth] {
		p := e.attribution.player[test.column]
		at := slices.Index(players[:n], p)
		if at < 0 {
			at, players[n] = n, p
			n++
		}
		of[k] = int32(at)
	}
	weights := memory[:2*leaves]
	copy(weights[leaves:], e.weights[t.firstLeaf:t.firstLeaf+leaves])
	for i := leaves - 1; i > 0; i-- {
		weights[i] = weights[2*i] + weights[2*i+1]
	}
	points, parts := e.points[(n+1)/2-1], e.parts[(n+1)/2-1]
	for leaf := range leaves {
		var z, o, f, before [maxObliviousDepth]float64
		for j := range n {
			z[j], o[j] = 1, 1
		}
		for k := range depth {
			node, j := (leaves+leaf)>>k, of[k]
			if above := weights[node>>1]; above > 0 {
				z[j] *= weights[node] / above
			} else {
				z[j] = 0
			}
			if (leaf^taken)>>k&1 != 0 {
				o[j] = 0
			}
		}
		var share [maxObliviousDepth]float64 // of the leaf's value
		for q, p := range points {
			product := 1.0
			for j := range n {
				before[j] = product
				f[j] = o[j]*p + z[j]*(1-p)
				product *= f[j]
			}
			product = parts[q]
			for j := n - 1; j >= 0; j-- {
				share[j] += before[j] * product
				product *= f[j]
			}
		}
		for j := range n {
			gain := (o[j] - z[j]) * share[j]
			for k := range e.out.dims {
				gains[k*len(e.attribution.player)+int(players[j])] += gain * e.leaves[(t.firstLeaf+leaf)*e.out.dims+k]
			}
		}
	}
}
