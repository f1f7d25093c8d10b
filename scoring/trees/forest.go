package trees

import (
	"math"
	"slices"

	"github.com/churnstream/churnstream/scoring/internal/ballot"
)

// The shape of a block of rows: lanes rows walk through a tree side by side, so that the latency of
// one hides behind the others; a tree stays in the cache for blockRows rows.
const (
	lanes     = 8
	blockRows = 256
	maxSlots  = 256     // that a node has the room to name
	maxWide   = 1 << 16 // that slotOf can name
)

// key is what nodes compare: an integer that is ordered as the floating-point number of its size is.
// Comparing integers takes a third of the time until the next node is known.
type key interface{ int32 | int64 }

// wide reports whether keys stand for float64.
func wide[K key]() bool {
	one := K(1)
	return one<<31<<1 != 0
}

// keyOf is the key of a number that is not NaN, rounded to the key's size. Zeros of both signs are equal.
func keyOf[K key](x float64) K {
	if wide[K]() {
		b := int64(math.Float64bits(x + 0))
		return K(b ^ (b >> 63 & math.MaxInt64))
	}
	b := int32(math.Float32bits(float32(x) + 0))
	return K(b ^ (b >> 31 & math.MaxInt32))
}

// forest is the trees of an ensemble, laid out for walking.
//
// All nodes are in one slice. A split's children are neighbours, the left one first, so that a step
// is next = left + (x > threshold) and has no branch. A leaf is its own left child and compares slot 0,
// which is always -∞: it stays where it is, and a walk may take as many steps as the tree is deep
// without looking for the end. Its threshold is the leaf's number in the tree.
//
// A split does not look at an input but at a view of it, a slot: NaN and whatever else is missing
// has become -∞ (left) or +∞ (right) there, so that missing values cost nothing in a tree. Splits by
// < are made splits by ≤ with the next number below. The view of a category is its number; what a split
// does with it is in sets. A tree with a split that neither can express is walked as it is.
type forest[K key] struct {
	slots []slot
	nodes []node[K]
	trees []flatTree
	sets  []flatSet
	// category marks the slots that are views of categories.
	category [maxSlots]bool
	// slotOf says, for an ensemble with more views than a node can name, which one each node looks at.
	slotOf []uint16
	// leaves are the values of the leaves, tree by tree; of a vector, Outputs in a row.
	leaves []float64
	// ballots are the runs of trees that are laid out for blocks of rows as well.
	ballots []*ballots[K]
	least   int // rows that are worth a block, from lanes on
}

// node packs left, the index of the left child, above slot, which has 8 bits.
type node[K key] struct {
	threshold K
	next      uint32
}

const maxNodes = 1 << 24 // that fit beside the slot

// slot is a view of an input.
type slot struct {
	feature int32
	view    view
}

// view is what becomes of what is missing.
type view uint8

const (
	missingLeft  view = iota // NaN is -∞
	missingRight             // NaN is +∞
	zeroLeft                 // NaN and 0 are -∞
	zeroRight                // NaN and 0 are +∞
	nanIsZero                // NaN is 0

	categoryLeft      // of a category: NaN goes left
	categoryRight     // NaN goes right
	categoryZeroLeft  // and numbers from -1 to 0 are category 0
	categoryZeroRight // likewise
)

// A category that is none. What is missing is not looked up in a set.
const (
	notListed = -1
	goesLeft  = -2
	goesRight = -3
)

// flatSet is the set of a split by category. The split's threshold is its number.
type flatSet struct {
	bits  []uint32
	right uint // where a category of the set goes: 1 is right
}

// side is 1 if category c goes right.
func (s *flatSet) side(c int) uint {
	if word := c >> 5; c >= 0 && word < len(s.bits) {
		return uint(s.bits[word]>>(c&31)&1) ^ s.right ^ 1
	}
	switch c {
	case goesLeft:
		return 0
	case goesRight:
		return 1
	}
	return s.right ^ 1
}

// flatTree says where a tree is.
type flatTree struct {
	root   uint32
	depth  int32
	leaves uint32 // where its leaves begin in forest.leaves
	output int32
	kind   treeKind
	mixed  bool // some splits are by category
}

type treeKind uint8

const (
	scalar treeKind = iota // leaves are numbers
	vector                 // leaves are vectors
	walked                 // not laid out: walked as it is
)

// walkedAsItIs is a tree that is not laid out.
func walkedAsItIs(t *Tree) flatTree { return flatTree{output: int32(t.Output), kind: walked} }

// flatten lays out the trees of an ensemble.
func flatten[K key](e *Ensemble) *forest[K] {
	f := &forest[K]{slots: []slot{{feature: -1}}}
	known := map[slot]uint32{}
	if e.views() >= maxSlots {
		f.slotOf = []uint16{}
	}
	for i := range e.Trees {
		t := &e.Trees[i]
		f.trees = append(f.trees, f.add(e, t, known))
	}
	f.ballots = slices.DeleteFunc(layBallots(e, f, wordsOfRun), func(b *ballots[K]) bool { return b.least > ballot.Rows })
	f.least = lanes
	for _, b := range f.ballots {
		f.least = max(f.least, b.least)
	}
	return f
}

// views is the number of views that splits look at.
func (e *Ensemble) views() int {
	known := map[slot]bool{}
	for i := range e.Trees {
		for k := range e.Trees[i].Nodes {
			if n := &e.Trees[i].Nodes[k]; n.Left >= 0 {
				if _, s, ok := lower[int64](n); ok {
					known[s] = true
				}
			}
		}
	}
	return len(known)
}

// add lays out one tree, or notes that it cannot be.
func (f *forest[K]) add(e *Ensemble, t *Tree, known map[slot]uint32) flatTree {
	out := flatTree{root: uint32(len(f.nodes)), leaves: uint32(len(f.leaves)), output: int32(t.Output)}
	nodes, slots, leaves, sets := len(f.nodes), len(f.slots), len(f.leaves), len(f.sets)
	giveUp := func() flatTree {
		for _, s := range f.slots[slots:] {
			delete(known, s)
		}
		for i := slots; i < len(f.slots) && i < maxSlots; i++ {
			f.category[i] = false
		}
		f.nodes, f.slots, f.leaves, f.sets = f.nodes[:nodes], f.slots[:slots], f.leaves[:leaves], f.sets[:sets]
		if f.slotOf != nil {
			f.slotOf = f.slotOf[:nodes]
		}
		return walkedAsItIs(t)
	}
	if len(t.Linear) > 0 || len(t.Nodes) > maxNodes-len(f.nodes) || uint64(len(t.Nodes)*e.Outputs+len(f.leaves)) > math.MaxUint32 {
		return giveUp()
	}
	if len(t.Vectors) > 0 {
		out.kind = vector
	}
	type place struct {
		from  int32  // node of the tree
		to    uint32 // node of the forest
		depth int32
	}
	count := 0 // of leaves
	f.grow(1)
	queue := []place{{0, out.root, 0}}
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		n := &t.Nodes[p.from]
		out.depth = max(out.depth, p.depth)
		if n.Left < 0 {
			f.nodes[p.to] = node[K]{K(count), p.to << 8}
			count++
			if out.kind == vector {
				f.leaves = append(f.leaves, t.Vectors[int(n.Leaf)*e.Outputs:(int(n.Leaf)+1)*e.Outputs]...)
			} else {
				f.leaves = append(f.leaves, n.Value)
			}
			continue
		}
		threshold, s, ok := lower[K](n)
		if n.Kind == InSet && f.slotOf == nil {
			threshold, s, ok = K(len(f.sets)), slot{n.Feature, categoryView(t, n)}, f.addSet(t, n)
			out.mixed = true
		}
		if !ok {
			return giveUp()
		}
		index, ok := known[s]
		if !ok {
			if len(f.slots) == maxSlots && f.slotOf == nil || len(f.slots) == maxWide {
				return giveUp()
			}
			index = uint32(len(f.slots))
			known[s] = index
			f.slots = append(f.slots, s)
			if n.Kind == InSet {
				f.category[index] = true
			}
		}
		left := uint32(len(f.nodes))
		f.grow(2)
		if f.slotOf != nil {
			f.slotOf[p.to], index = uint16(index), 1
		}
		f.nodes[p.to] = node[K]{threshold, left<<8 | index}
		queue = append(queue, place{n.Left, left, p.depth + 1}, place{n.Right, left + 1, p.depth + 1})
	}
	if e.Sum == Float32 {
		for i := leaves; i < len(f.leaves); i++ {
			f.leaves[i] = float64(float32(f.leaves[i]))
		}
	}
	return out
}

func (f *forest[K]) grow(n int) {
	for range n {
		f.nodes = append(f.nodes, node[K]{})
		if f.slotOf != nil {
			f.slotOf = append(f.slotOf, 0)
		}
	}
}

// categoryView is the view of a split by category.
func categoryView(t *Tree, n *Node) view {
	v := categoryRight
	if n.MissingLeft {
		v = categoryLeft
	}
	if t.Sets[n.Set].FromZero {
		v += categoryZeroLeft - categoryLeft
	}
	return v
}

// addSet adds the set of a split, and reports whether it can be.
func (f *forest[K]) addSet(t *Tree, n *Node) bool {
	set := &t.Sets[n.Set]
	if set.Words != nil || n.Missing != NaNMissing || len(f.sets) == math.MaxInt32 {
		return false
	}
	s := flatSet{bits: set.Bits}
	if n.SetRight {
		s.right = 1
	}
	f.sets = append(f.sets, s)
	return true
}

// lower expresses a split as view ≤ threshold.
func lower[K key](n *Node) (K, slot, bool) {
	s := slot{feature: n.Feature}
	switch {
	case n.Missing == NaNIsZero:
		s.view = nanIsZero
	case n.Missing == ZeroMissing && n.MissingLeft:
		s.view = zeroLeft
	case n.Missing == ZeroMissing:
		s.view = zeroRight
	case n.MissingLeft:
		s.view = missingLeft
	default:
		s.view = missingRight
	}
	if n.Kind == Equal || n.Kind == InSet {
		return 0, s, false
	}
	t := n.Threshold
	if !wide[K]() {
		t = float64(float32(t))
	}
	threshold := keyOf[K](t)
	if t > n.Threshold || n.Kind == Less && t >= n.Threshold {
		// Nothing is below -∞.
		if math.IsInf(t, -1) {
			return 0, s, false
		}
		threshold-- // the next number below
	}
	// What is missing must go right of the threshold if it goes right.
	if threshold == keyOf[K](math.Inf(1)) && (s.view == missingRight || s.view == zeroRight) {
		return 0, s, false
	}
	return threshold, s, true
}

// margins adds the leaves of n rows, at most blockRows, to out. It returns the views, which may have
// grown.
func (f *forest[K]) margins(e *Ensemble, rows []float64, n int, out []float64, views []K, s *ballotScratch) []K {
	// Blocks of 64 rows, then the rows that are too few for one.
	whole := n / ballot.Rows * ballot.Rows
	if n-whole >= f.least {
		whole = n
	}
	if len(f.ballots) > 0 && whole > 0 {
		views = f.inBlocks(e, rows, whole, out, views, s)
		rows, n, out = rows[whole*e.Features:], n-whole, out[whole*e.Outputs:]
	}
	if n < lanes {
		views = grow(views, max(maxSlots, len(f.slots)))
		for r := range n {
			f.one(e, rows[r*e.Features:(r+1)*e.Features], out[r*e.Outputs:(r+1)*e.Outputs], views)
		}
		return views
	}
	views = f.fillAll(e, rows, n, views)
	f.walk(e, rows, n, out, views, 0, len(f.trees))
	return views
}

// inBlocks adds the leaves of n rows, at least lanes, where there are ballots by them.
func (f *forest[K]) inBlocks(e *Ensemble, rows []float64, n int, out []float64, views []K, s *ballotScratch) []K {
	at, filled := 0, false
	walkTo := func(next int) {
		if at == next {
			return
		}
		if !filled {
			views, filled = f.fillAll(e, rows, n, views), true
		}
		f.walk(e, rows, n, out, views, at, next)
	}
	for _, b := range f.ballots {
		walkTo(b.first)
		for r := 0; r < n; r += ballot.Rows {
			b.add(e, rows[r*e.Features:], min(n-r, ballot.Rows), out[r*e.Outputs:], s)
		}
		at = b.last
	}
	walkTo(len(f.trees))
	return views
}

// fillAll writes the views of n rows, at least lanes, in blocks of lanes rows len(slots)·lanes apart; behind the
// last one is room for the reach of an 8-bit slot.
func (f *forest[K]) fillAll(e *Ensemble, rows []float64, n int, views []K) []K {
	stride := len(f.slots) * lanes
	blocks := (n + lanes - 1) / lanes
	views = grow(views, blocks*stride+maxSlots*lanes)
	for b := range blocks {
		f.fill(e, rows, min(b*lanes, n-lanes), views[b*stride:])
	}
	return views
}

// walk adds the leaves of n rows, at least lanes, of the trees from first on up to last.
func (f *forest[K]) walk(e *Ensemble, rows []float64, n int, out []float64, views []K, first, last int) {
	stride := len(f.slots) * lanes
	blocks := (n + lanes - 1) / lanes
	var leaf [lanes]uint32
	for i := first; i < last; i++ {
		t := &f.trees[i]
		if t.kind == walked {
			for r := range n {
				e.walk(&e.Trees[i], rows[r*e.Features:(r+1)*e.Features], out[r*e.Outputs:(r+1)*e.Outputs])
			}
			continue
		}
		for b := range blocks {
			first := b * lanes
			switch x := views[b*stride:]; {
			case t.mixed:
				f.walkMixed(uint(t.root), t.depth, (*[maxSlots * lanes]K)(x), &leaf)
			case f.slotOf != nil:
				walkWide(f.nodes, f.slotOf, uint(t.root), x, &leaf)
			case t.depth <= shallow:
				walkShallow(f.nodes, uint(t.root), t.depth, (*[maxSlots * lanes]K)(x), &leaf)
			default:
				walkDeep(f.nodes, uint(t.root), (*[maxSlots * lanes]K)(x), &leaf)
			}
			skip := 0
			if first > n-lanes { // the last lane block overlaps the one before
				skip = first - (n - lanes)
			}
			f.add8(e, t, leaf[skip:], out[first*e.Outputs:])
		}
	}
}

// fill writes the views of the rows from first on, lane by lane.
func (f *forest[K]) fill(e *Ensemble, rows []float64, first int, views []K) {
	rows = rows[first*e.Features : (first+lanes)*e.Features]
	to := views[:lanes]
	for lane := range to {
		to[lane] = keyOf[K](math.Inf(-1))
	}
	for i, s := range f.slots[1:] {
		to := views[(i+1)*lanes:][:lanes]
		at := int(s.feature)
		for lane := range to {
			to[lane] = look[K](e, s.view, rows[at])
			at += e.Features
		}
	}
}

// look is the view of an input.
func look[K key](e *Ensemble, v view, x float64) K {
	if v >= categoryLeft {
		return K(lookCategory(e, v, x))
	}
	if x != x {
		return absent[K](v)
	}
	if e.TinyIsZero && tiny(x) {
		x = 0
	}
	if (v == zeroLeft || v == zeroRight) && tiny(e.Input.round(x)) {
		return absent[K](v)
	}
	return keyOf[K](x)
}

// lookCategory is the category that an input is, as Set.Has understands it.
func lookCategory(e *Ensemble, v view, x float64) int32 {
	if x = e.input(x); x != x {
		if v == categoryLeft || v == categoryZeroLeft {
			return goesLeft
		}
		return goesRight
	}
	if x < 1<<31 && (x >= 0 || x > -1 && v >= categoryZeroLeft) {
		return int32(x)
	}
	return notListed
}

func absent[K key](v view) K {
	switch v {
	case missingLeft, zeroLeft:
		return keyOf[K](math.Inf(-1))
	case missingRight, zeroRight:
		return keyOf[K](math.Inf(1))
	case nanIsZero, categoryLeft, categoryRight, categoryZeroLeft, categoryZeroRight:
	}
	return 0
}

// shallow is the depth up to which a walk does not look for its end.
const shallow = 8

// step is the child that x leads to.
func step[K key](x K, n node[K]) uint {
	right := uint(0)
	if x > n.threshold {
		right = 1
	}
	return uint(n.next>>8) + right
}

// walkShallow takes lanes rows down a tree, a fixed number of steps.
func walkShallow[K key](nodes []node[K], root uint, depth int32, x *[maxSlots * lanes]K, leaf *[lanes]uint32) {
	a, b, c, d, e, f, g, h := root, root, root, root, root, root, root, root
	for ; depth > 0; depth-- {
		n := nodes[a]
		a = step(x[int(uint8(n.next))*lanes], n)
		n = nodes[b]
		b = step(x[int(uint8(n.next))*lanes+1], n)
		n = nodes[c]
		c = step(x[int(uint8(n.next))*lanes+2], n)
		n = nodes[d]
		d = step(x[int(uint8(n.next))*lanes+3], n)
		n = nodes[e]
		e = step(x[int(uint8(n.next))*lanes+4], n)
		n = nodes[f]
		f = step(x[int(uint8(n.next))*lanes+5], n)
		n = nodes[g]
		g = step(x[int(uint8(n.next))*lanes+6], n)
		n = nodes[h]
		h = step(x[int(uint8(n.next))*lanes+7], n)
	}
	*leaf = [lanes]uint32{
		uint32(nodes[a].threshold), uint32(nodes[b].threshold), uint32(nodes[c].threshold), uint32(nodes[d].threshold),
		uint32(nodes[e].threshold), uint32(nodes[f].threshold), uint32(nodes[g].threshold), uint32(nodes[h].threshold),
	}
}

// walkDeep does the same and ends when all rows are in leaves, which it looks for every fourth step.
func walkDeep[K key](nodes []node[K], root uint, x *[maxSlots * lanes]K, leaf *[lanes]uint32) {
	a, b, c, d, e, f, g, h := root, root, root, root, root, root, root, root
	for {
		for range 4 {
			n := nodes[a]
			a = step(x[int(uint8(n.next))*lanes], n)
			n = nodes[b]
			b = step(x[int(uint8(n.next))*lanes+1], n)
			n = nodes[c]
			c = step(x[int(uint8(n.next))*lanes+2], n)
			n = nodes[d]
			d = step(x[int(uint8(n.next))*lanes+3], n)
			n = nodes[e]
			e = step(x[int(uint8(n.next))*lanes+4], n)
			n = nodes[f]
			f = step(x[int(uint8(n.next))*lanes+5], n)
			n = nodes[g]
			g = step(x[int(uint8(n.next))*lanes+6], n)
			n = nodes[h]
			h = step(x[int(uint8(n.next))*lanes+7], n)
		}
		if uint8(nodes[a].next|nodes[b].next|nodes[c].next|nodes[d].next|nodes[e].next|nodes[f].next|nodes[g].next|nodes[h].next) == 0 {
			break
		}
	}
	*leaf = [lanes]uint32{
		uint32(nodes[a].threshold), uint32(nodes[b].threshold), uint32(nodes[c].threshold), uint32(nodes[d].threshold),
		uint32(nodes[e].threshold), uint32(nodes[f].threshold), uint32(nodes[g].threshold), uint32(nodes[h].threshold),
	}
}

// walkMixed does the same in a tree with splits by category.
func (f *forest[K]) walkMixed(root uint, depth int32, x *[maxSlots * lanes]K, leaf *[lanes]uint32) {
	at := [lanes]uint{root, root, root, root, root, root, root, root}
	for ; depth > 0; depth-- {
		splits := uint32(0)
		for lane := range at {
			n := f.nodes[at[lane]]
			s := uint8(n.next)
			splits |= uint32(s)
			v := x[int(s)*lanes+lane]
			if f.category[s] {
				at[lane] = uint(n.next>>8) + f.sets[n.threshold].side(int(v))
			} else {
				at[lane] = step(v, n)
			}
		}
		if splits == 0 {
			break
		}
	}
	for lane, i := range at {
		leaf[lane] = uint32(f.nodes[i].threshold)
	}
}

// walkWide does the same where nodes do not name their slots.
func walkWide[K key](nodes []node[K], slotOf []uint16, root uint, x []K, leaf *[lanes]uint32) {
	at := [lanes]uint{root, root, root, root, root, root, root, root}
	slotOf = slotOf[:len(nodes)]
	for splits := uint32(1); splits != 0; {
		for range 4 {
			for lane := range at {
				i := at[lane]
				at[lane] = step(x[int(slotOf[i])*lanes+lane], nodes[i])
			}
		}
		splits = 0
		for _, i := range at {
			splits |= nodes[i].next & 0xff
		}
	}
	for lane, i := range at {
		leaf[lane] = uint32(nodes[i].threshold)
	}
}

// add8 adds the leaves of as many rows as there are numbers of leaves.
func (f *forest[K]) add8(e *Ensemble, t *flatTree, leaf []uint32, out []float64) {
	if t.kind == vector {
		for r, n := range leaf {
			f.addVector(e, t, n, out[r*e.Outputs:(r+1)*e.Outputs])
		}
		return
	}
	values := f.leaves[t.leaves:]
	at := int(t.output)
	if e.Sum == Float32 {
		for _, n := range leaf {
			out[at] = float64(float32(out[at]) + float32(values[n]))
			at += e.Outputs
		}
		return
	}
	for _, n := range leaf {
		out[at] += values[n]
		at += e.Outputs
	}
}

func (f *forest[K]) addVector(e *Ensemble, t *flatTree, leaf uint32, out []float64) {
	values := f.leaves[int(t.leaves)+int(leaf)*e.Outputs:][:e.Outputs]
	if e.Sum == Float32 {
		for k, v := range values {
			out[k] = float64(float32(out[k]) + float32(v))
		}
		return
	}
	for k, v := range values {
		out[k] += v
	}
}

// one adds the leaves of one row to out: lanes trees at a time.
func (f *forest[K]) one(e *Ensemble, row, out []float64, views []K) {
	f.lookOnce(e, row, views)
	x := (*[maxSlots]K)(views)
	var leaf [lanes]uint32
	for i := 0; i < len(f.trees); {
		some := f.trees[i:min(i+lanes, len(f.trees))]
		depth := int32(0)
		for k := range some {
			if some[k].kind == walked || some[k].mixed {
				some = some[:k]
				break
			}
			depth = max(depth, some[k].depth)
		}
		switch {
		case len(some) == 0 && f.trees[i].mixed:
			some = f.trees[i : i+1]
			leaf[0] = f.walkOneMixed(uint(some[0].root), x)
		case len(some) == 0:
			e.walk(&e.Trees[i], row, out)
			i++
			continue
		case f.slotOf != nil:
			for k := range some {
				leaf[k] = f.walkOneWide(uint(some[k].root), views)
			}
		case len(some) == lanes:
			walkTrees(f.nodes, (*[lanes]flatTree)(some), depth, x, &leaf)
		case len(some) > 1: // the other lanes walk for nothing, which costs less than to walk one after the other
			var all [lanes]flatTree
			for k := range all {
				all[k] = some[min(k, len(some)-1)]
			}
			walkTrees(f.nodes, &all, depth, x, &leaf)
		default:
			leaf[0] = walkOne(f.nodes, uint(some[0].root), x)
		}
		f.addLeaves(e, some, &leaf, out)
		i += len(some)
	}
}

// lookOnce writes the views of one row.
func (f *forest[K]) lookOnce(e *Ensemble, row []float64, views []K) {
	slots := f.slots
	views = views[:len(slots)]
	views[0] = keyOf[K](math.Inf(-1))
	for i := 1; i < len(slots); i++ {
		s := slots[i]
		if x := row[s.feature]; x == x && s.view <= missingRight && !e.TinyIsZero {
			views[i] = keyOf[K](x)
		} else {
			views[i] = look[K](e, s.view, x)
		}
	}
}

// addLeaves adds the leaves that one row has come to in some trees, in their order.
func (f *forest[K]) addLeaves(e *Ensemble, some []flatTree, leaf *[lanes]uint32, out []float64) {
	switch {
	case e.Outputs != 1:
		for k := range some {
			t := &some[k]
			if t.kind == vector {
				f.addVector(e, t, leaf[k], out)
				continue
			}
			v := f.leaves[t.leaves+leaf[k]]
			if e.Sum == Float32 {
				out[t.output] = float64(float32(out[t.output]) + float32(v))
			} else {
				out[t.output] += v
			}
		}
	case e.Sum == Float32: // what is added up stays in a register
		sum := float32(out[0])
		for k := range some {
			sum += float32(f.leaves[some[k].leaves+leaf[k]])
		}
		out[0] = float64(sum)
	default:
		sum := out[0]
		for k := range some {
			sum += f.leaves[some[k].leaves+leaf[k]]
		}
		out[0] = sum
	}
}

// walkTrees takes one row down lanes trees, side by side.
func walkTrees[K key](nodes []node[K], trees *[lanes]flatTree, depth int32, x *[maxSlots]K, leaf *[lanes]uint32) {
	a, b, c, d := uint(trees[0].root), uint(trees[1].root), uint(trees[2].root), uint(trees[3].root)
	e, f, g, h := uint(trees[4].root), uint(trees[5].root), uint(trees[6].root), uint(trees[7].root)
	for ; depth > 0; depth-- {
		n := nodes[a]
		a = step(x[uint8(n.next)], n)
		n = nodes[b]
		b = step(x[uint8(n.next)], n)
		n = nodes[c]
		c = step(x[uint8(n.next)], n)
		n = nodes[d]
		d = step(x[uint8(n.next)], n)
		n = nodes[e]
		e = step(x[uint8(n.next)], n)
		n = nodes[f]
		f = step(x[uint8(n.next)], n)
		n = nodes[g]
		g = step(x[uint8(n.next)], n)
		n = nodes[h]
		h = step(x[uint8(n.next)], n)
	}
	*leaf = [lanes]uint32{
		uint32(nodes[a].threshold), uint32(nodes[b].threshold), uint32(nodes[c].threshold), uint32(nodes[d].threshold),
		uint32(nodes[e].threshold), uint32(nodes[f].threshold), uint32(nodes[g].threshold), uint32(nodes[h].threshold),
	}
}

// walkOne takes one row down one tree.
func walkOne[K key](nodes []node[K], root uint, x *[maxSlots]K) uint32 {
	n := nodes[root]
	for uint8(n.next) != 0 {
		n = nodes[step(x[uint8(n.next)], n)]
	}
	return uint32(n.threshold)
}

func (f *forest[K]) walkOneWide(root uint, views []K) uint32 {
	at := root
	for uint8(f.nodes[at].next) != 0 {
		at = step(views[f.slotOf[at]], f.nodes[at])
	}
	return uint32(f.nodes[at].threshold)
}

func (f *forest[K]) walkOneMixed(root uint, x *[maxSlots]K) uint32 {
	n := f.nodes[root]
	for uint8(n.next) != 0 {
		s := uint8(n.next)
		if f.category[s] {
			n = f.nodes[uint(n.next>>8)+f.sets[n.threshold].side(int(x[s]))]
		} else {
			n = f.nodes[step(x[s], n)]
		}
	}
	return uint32(n.threshold)
}
