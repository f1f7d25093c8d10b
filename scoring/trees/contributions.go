package trees

import (
	"errors"
	"fmt"
	"math"
)

// explanation holds what contributions need of one tree, computed once.
//
// Contributions are path-dependent Shapley values: the value of a set S of features is the
// expectation over leaves of the tree where splits on S go the row's way and others go both ways
// in proportion to cover (Lundberg et al., "Consistent individualized feature attribution for tree
// ensembles", 2018). For a leaf with value v and the distinct features 1..d on its path, let z_j be
// the product of the cover ratios of the edges that split on j, and o_j be 1 if the row takes all
// of them, else 0. The leaf gives feature j
//
//	v·(o_j - z_j)·Σ_S |S|!(d-1-|S|)!/d!·Π_{k∈S} o_k·Π_{k∉S} z_k        over S without j
//	  = v·(o_j - z_j)·∫₀¹ Π_{k≠j} (o_k·t + z_k·(1-t)) dt
//
// because ∫ tˢ(1-t)^(d-1-s) dt = s!(d-1-s)!/d!. The integrand is a polynomial of degree d-1, so
// Gauss-Legendre quadrature with ⌈d/2⌉ points is exact. At each point the products of all leaves
// are carried down and their sums up in one pass over the tree: P is the product of the edges above
// a node, G the sum over its leaves of v times the product of the edges below. Where a feature
// splits again below an edge with z = zp, the factor f = o·t + zp·(1-t) of the earlier edge is
// replaced. With o = 0 the row reaches neither child: both get their share and no contribution
// changes. With o = 1, hot child h, cold child c and their ratios r, what the feature gains is
//
//	Σ_q w_q·P/f²·zp·((1-r_h)·G_h - r_c·G_c)
//
// which needs no division by a number that could be zero: t and 1-t are inside (0, 1).
type explanation struct {
	splits []explainedSplit // parents before children
	points int              // of the quadrature
}

type explainedSplit struct {
	z          float64 // product of the ratios of the edges above on the same feature
	leftRate   float64 // cover of the child over the cover of the node
	rightRate  float64
	leftValue  float64 // of a child that is a leaf with one number
	rightValue float64
	threshold  int64 // key that the view is compared with
	slot       int32 // the view; -1: the node itself has to be asked
	node       int32 // in Tree.Nodes
	feature    int32
	left       int32 // index of a split, or ^node of a leaf
	right      int32
	before     int32 // 2·split + side of the last edge above on the same feature; -1: none
}

// viewer collects the views that splits look at, as forest does but for one row and any number of them.
type viewer struct {
	precision Precision
	slots     []slot
	known     map[slot]int32
}

// of gives the view and the threshold of a split, -1 for a split that no threshold can express.
func (v *viewer) of(n *Node) (int32, int64) {
	var s slot
	var threshold int64
	var ok bool
	if v.precision == Float32 {
		var narrow int32
		narrow, s, ok = lower[int32](n)
		threshold = int64(narrow)
	} else {
		threshold, s, ok = lower[int64](n)
	}
	if !ok {
		return -1, 0
	}
	at, seen := v.known[s]
	if !seen {
		at = int32(len(v.slots))
		v.known[s] = at
		v.slots = append(v.slots, s)
	}
	return at, threshold
}

// look writes the views of a row.
func (v *viewer) look(e *Ensemble, row []float64, to []int64) {
	for i, s := range v.slots {
		if v.precision == Float32 {
			to[i] = int64(look[int32](e, s.view, row[s.feature]))
		} else {
			to[i] = look[int64](e, s.view, row[s.feature])
		}
	}
}

// explain prepares one tree.
func explain(t *Tree, together []int32, views *viewer) (explanation, error) {
	if len(t.Linear) > 0 {
		return explanation{}, errors.New("contributions of linear leaves are not defined")
	}
	type edge struct{ feature, before int32 }
	type visit struct {
		node  int32
		above int // length of the path
		from  int32
	}
	var x explanation
	var path []edge // the edges from the root, in order
	distinct := 0
	if t.Nodes[0].Left < 0 {
		return x, nil
	}
	pending := []visit{{0, 0, -1}}
	for len(pending) > 0 {
		v := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		path = path[:v.above]
		index := int32(len(x.splits))
		if v.from >= 0 {
			path = append(path, edge{x.splits[v.from>>1].feature, v.from})
			parent := &x.splits[v.from>>1]
			if v.from&1 == 0 {
				parent.left = index
			} else {
				parent.right = index
			}
		}
		n := &t.Nodes[v.node]
		left, right := &t.Nodes[n.Left], &t.Nodes[n.Right]
		for _, c := range [...]float64{n.Cover, left.Cover, right.Cover} {
			if !(c >= 0) || math.IsInf(c, 0) {
				return x, fmt.Errorf("node %d: its cover or that of a child is %v, not a number from 0", v.node, c)
			}
		}
		s := explainedSplit{
			node: v.node, feature: n.Feature, left: ^n.Left, right: ^n.Right, before: -1, z: 1,
			leftValue: left.Value, rightValue: right.Value,
		}
		s.slot, s.threshold = views.of(n)
		if together != nil {
			s.feature = together[n.Feature]
		}
		if n.Cover > 0 {
			s.leftRate, s.rightRate = left.Cover/n.Cover, right.Cover/n.Cover
		}
		unique := 1
		for i := len(path) - 1; i >= 0; i-- {
			e := path[i]
			if e.feature == s.feature && s.before < 0 {
				above := &x.splits[e.before>>1]
				s.before = e.before
				s.z = above.z * above.leftRate
				if e.before&1 != 0 {
					s.z = above.z * above.rightRate
				}
			}
			if x.splits[e.before>>1].before < 0 && e.feature != s.feature {
				unique++
			}
		}
		distinct = max(distinct, unique)
		x.splits = append(x.splits, s)
		if right.Left >= 0 {
			pending = append(pending, visit{n.Right, len(path), 2*index + 1})
		}
		if left.Left >= 0 {
			pending = append(pending, visit{n.Left, len(path), 2 * index})
		}
	}
	x.points = (distinct + 1) / 2
	return x, nil
}

// expectation is the mean of the leaves by cover.
func (x *explanation) expectation(t *Tree, outputs, k int) float64 {
	if len(x.splits) == 0 {
		return t.value(&t.Nodes[0], outputs, k)
	}
	mean := make([]float64, len(x.splits))
	of := func(child int32) float64 {
		if child < 0 {
			return t.value(&t.Nodes[^child], outputs, k)
		}
		return mean[child]
	}
	for i := len(x.splits) - 1; i >= 0; i-- {
		s := &x.splits[i]
		mean[i] = s.leftRate*of(s.left) + s.rightRate*of(s.right)
	}
	return mean[0]
}

// Quadrature gives the points and weights of the Gauss-Legendre quadrature on (0, 1).
func Quadrature(n int) (points, weights []float64) {
	points, weights = make([]float64, n), make([]float64, n)
	for i := range n {
		x := math.Cos(math.Pi * (float64(i) + 0.75) / (float64(n) + 0.5))
		slope := 0.0
		for range 100 {
			value, last := 1.0, 0.0
			for k := range n {
				value, last = (float64(2*k+1)*x*value-float64(k)*last)/float64(k+1), value
			}
			slope = float64(n) * (x*value - last) / (x*x - 1)
			step := value / slope
			x -= step
			if math.Abs(step) < 1e-16 {
				break
			}
		}
		points[i] = (1 - x) / 2
		weights[i] = 1 / ((1 - x*x) * slope * slope)
	}
	return points, weights
}

// value is what leaf n adds to output k.
func (t *Tree) value(n *Node, outputs, k int) float64 {
	if len(t.Vectors) > 0 {
		return t.Vectors[int(n.Leaf)*outputs+k]
	}
	return n.Value
}

// Explains reports why the engine has no contributions, nil if it has.
func (e *Engine) Explains() error { return e.opaque }

// Bias returns, for each output, what its margin is when nothing is known of a row: the
// expectation by cover. It must not be changed.
func (e *Engine) Bias() []float64 { return e.bias }

// Contributions computes the exact path-dependent Shapley values of one row: out gets
// Outputs × Features numbers, feature by feature for each output. Together with the output's Bias
// they add up to its margin as float64 arithmetic has it; with a Float32 sum, the margin is off from that by
// its own rounding. It panics when out is shorter or Explains gives an error.
func (e *Engine) Contributions(row, out []float64, s *Scratch) {
	if e.opaque != nil {
		panic("BUG: contributions asked of an engine that has none: " + e.opaque.Error())
	}
	m := &e.ensemble
	row, out = row[:m.Features], out[:m.Outputs*m.Features]
	clear(out)
	s.views = grow(s.views, len(e.viewer.slots))
	e.viewer.look(m, row, s.views)
	for i := range m.Trees {
		t, x := &m.Trees[i], &e.explained[i]
		if len(x.splits) == 0 {
			continue
		}
		s.directions(m, t, x, row)
		switch {
		case len(t.Vectors) > 0:
			for k := range m.Outputs {
				s.contribute(e, t, x, k, out[k*m.Features:(k+1)*m.Features])
			}
		case x.points <= 4:
			s.contributeQuads(&e.quads[x.points-1], x, out[t.Output*m.Features:(t.Output+1)*m.Features])
		default:
			s.contribute(e, t, x, t.Output, out[t.Output*m.Features:(t.Output+1)*m.Features])
		}
	}
	if m.Divisor != 0 {
		for i := range out {
			out[i] /= m.Divisor
		}
	}
}

// directions notes which edges the row takes, together with all edges above on the same feature.
func (s *Scratch) directions(m *Ensemble, t *Tree, x *explanation, row []float64) {
	taken := grow(s.taken, len(x.splits))
	s.taken = taken
	for i := range x.splits {
		sp := &x.splits[i]
		right := uint8(0)
		if sp.slot < 0 {
			n := &t.Nodes[sp.node]
			if t.next(n, m.input(row[n.Feature])) == n.Right {
				right = 1
			}
		} else if s.views[sp.slot] > sp.threshold {
			right = 1
		}
		side := 1 + right
		if sp.before >= 0 && taken[sp.before>>1]>>(sp.before&1)&1 == 0 {
			side = 0
		}
		taken[i] = side
	}
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// quad is a number at each of up to four points of the quadrature.
type quad struct{ a, b, c, d float64 }

func (p quad) times(q quad) quad { return quad{p.a * q.a, p.b * q.b, p.c * q.c, p.d * q.d} }
func (p quad) plus(q quad) quad  { return quad{p.a + q.a, p.b + q.b, p.c + q.c, p.d + q.d} }
func (p quad) scaled(x float64) quad {
	return quad{p.a * x, p.b * x, p.c * x, p.d * x}
}
func (p quad) sum() float64 { return (p.a + p.b) + (p.c + p.d) }

// quadrature is the points, their distances to 1 and their weights. Points that are not needed have
// weight 0.
type quadrature struct{ point, rest, weight quad }

func newQuadrature(points, weights []float64) quadrature {
	var p, w [4]float64
	for i := range p {
		p[i] = 0.5
	}
	copy(p[:], points)
	copy(w[:], weights)
	return quadrature{
		quad{p[0], p[1], p[2], p[3]}, quad{1 - p[0], 1 - p[1], 1 - p[2], 1 - p[3]}, quad{w[0], w[1], w[2], w[3]},
	}
}

// quadState is what is known of a split while its tree is explained.
type quadState struct {
	above       quad // product of the edges above, those on the split's feature left out
	inverse     quad // of the factor of the last edge above on the split's feature
	left, right quad // factors of the edges
	below       quad // sum over the leaves below
	on          bool // the row takes all edges above on the split's feature
}

// contributeQuads is contribute with up to four points and leaves of one number.
func (s *Scratch) contributeQuads(q *quadrature, x *explanation, out []float64) {
	splits := x.splits
	states := grow(s.quads, len(splits))
	s.quads = states
	taken := s.taken[:len(splits)]
	one := quad{1, 1, 1, 1}
	states[0].above = one
	for i := range splits {
		sp, st := &splits[i], &states[i]
		switch {
		case sp.before < 0:
			st.on = true
			st.inverse = one
		case taken[i] == 0:
			st.on = false
			st.left, st.right = one.scaled(sp.leftRate), one.scaled(sp.rightRate)
		default:
			st.on = true
			f := q.point.plus(q.rest.scaled(sp.z))
			st.inverse = quad{1 / f.a, 1 / f.b, 1 / f.c, 1 / f.d}
			st.above = st.above.times(st.inverse)
		}
		if st.on {
			left := float64(taken[i] & 1)
			st.left = q.point.scaled(left).plus(q.rest.scaled(sp.z * sp.leftRate))
			st.right = q.point.scaled(1 - left).plus(q.rest.scaled(sp.z * sp.rightRate))
		}
		if sp.left >= 0 {
			states[sp.left].above = st.above.times(st.left)
		}
		if sp.right >= 0 {
			states[sp.right].above = st.above.times(st.right)
		}
	}
	for i := len(splits) - 1; i >= 0; i-- {
		sp, st := &splits[i], &states[i]
		left, right := one.scaled(sp.leftValue), one.scaled(sp.rightValue)
		if sp.left >= 0 {
			left = states[sp.left].below
		}
		if sp.right >= 0 {
			right = states[sp.right].below
		}
		below := st.left.times(left).plus(st.right.times(right))
		if !st.on {
			st.below = below
			continue
		}
		st.below = below.times(st.inverse)
		on := float64(taken[i] & 1)
		gain := left.scaled(on - sp.leftRate).plus(right.scaled(1 - on - sp.rightRate))
		out[sp.feature] += gain.times(st.above).times(st.inverse).times(q.weight).sum() * sp.z
	}
}

func (s *Scratch) contribute(e *Engine, t *Tree, x *explanation, output int, out []float64) {
	points, weights := e.points[x.points-1], e.weights[x.points-1]
	q := len(points)
	s.above = grow(s.above, len(x.splits)*q)
	s.below = grow(s.below, len(x.splits)*q)
	for k := range q {
		s.above[k] = 1
	}
	for i := range x.splits {
		sp := &x.splits[i]
		above := s.above[i*q : (i+1)*q]
		for side, child := range [2]int32{sp.left, sp.right} {
			if child < 0 {
				continue
			}
			rate := sp.leftRate
			if side == 1 {
				rate = sp.rightRate
			}
			to := s.above[int(child)*q : (int(child)+1)*q]
			for k, t := range points {
				switch {
				case s.taken[i] == 0:
					to[k] = above[k] * rate
				case s.taken[i]>>side&1 == 1:
					to[k] = above[k] / (t + sp.z*(1-t)) * (t + sp.z*rate*(1-t))
				default:
					to[k] = above[k] / (t + sp.z*(1-t)) * (sp.z * rate * (1 - t))
				}
			}
		}
	}
	for i := len(x.splits) - 1; i >= 0; i-- {
		sp := &x.splits[i]
		above, below := s.above[i*q:(i+1)*q], s.below[i*q:(i+1)*q]
		sum := 0.0
		for k, p := range points {
			left, right := s.under(t, e.ensemble.Outputs, output, sp.left, q, k), s.under(t, e.ensemble.Outputs, output, sp.right, q, k)
			if s.taken[i] == 0 {
				below[k] = sp.leftRate*left + sp.rightRate*right
				continue
			}
			hot, cold, hotRate, coldRate := left, right, sp.leftRate, sp.rightRate
			if s.taken[i] == 2 {
				hot, cold, hotRate, coldRate = right, left, sp.rightRate, sp.leftRate
			}
			f := p + sp.z*(1-p)
			below[k] = ((p+sp.z*hotRate*(1-p))*hot + sp.z*coldRate*(1-p)*cold) / f
			sum += weights[k] * above[k] / (f * f) * sp.z * ((1-hotRate)*hot - coldRate*cold)
		}
		out[sp.feature] += sum
	}
}

func (s *Scratch) under(t *Tree, outputs, output int, child int32, q, k int) float64 {
	if child < 0 {
		return t.value(&t.Nodes[^child], outputs, output)
	}
	return s.below[int(child)*q+k]
}
