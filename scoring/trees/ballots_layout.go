package trees

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/churnstream/churnstream/scoring/internal/ballot"
)

const (
	// maxMembers is how many categories a set may have to be asked for as a word, so that the list of the
	// members stays a small multiple of the set.
	maxMembers = 128
	// wordsOfRun is how many words the questions of a run may take before no further tree is added, wordsOfTree
	// those of one tree. One more tree and the choices of any, at most 255 × 8, still stay below maxWords, and
	// thresholds of one column below ballot.MaxThresholds.
	wordsOfRun  = 40_000
	wordsOfTree = 16_000
)

// layBallots lays out the trees that can be, in runs of neighbours that ask for so many words.
func layBallots[K key](e *Ensemble, f *forest[K], words int) []*ballots[K] {
	var out []*ballots[K]
	type question struct {
		slot      uint32
		member    bool // of a set: is it this category?
		threshold K
	}
	asked, taken, first := map[question]struct{}{}, 0, 0
	ask := func(q question, words int) {
		if _, known := asked[q]; !known {
			asked[q] = struct{}{}
			taken += words
		}
	}
	end := func(last int) {
		if first < last {
			out = append(out, newBallots(e, f, first, last))
		}
		first, taken = last, 0
		clear(asked)
	}
	for i := range f.trees {
		root := uint(f.trees[i].root)
		splits, own := 0, 0
		fits := f.trees[i].kind == scalar && f.visit(root, func(s uint32, threshold K) bool {
			members := 0
			if f.isSet(s) {
				members = f.sets[threshold].members()
			}
			splits++
			own += 2 + 2*members
			return splits < ballot.MaxLeaves && members <= maxMembers && own <= wordsOfTree
		})
		if !fits {
			end(i)
			first = i + 1
			continue
		}
		f.visit(root, func(s uint32, threshold K) bool {
			ask(question{s, false, threshold}, 2) // one may be the word before those of its view
			if f.isSet(s) {
				for c := range f.sets[threshold].each {
					ask(question{s, true, K(c)}, 2) // and two thresholds in a column
				}
			}
			return true
		})
		if taken > words {
			end(i + 1)
		}
	}
	end(len(f.trees))
	return out
}

func (f *forest[K]) isSet(s uint32) bool { return s < maxSlots && f.category[s] }

// members is the number of categories in the set.
func (s *flatSet) members() int {
	n := 0
	for _, word := range s.bits {
		n += bits.OnesCount32(word)
	}
	return n
}

// question is what a node asks; slot 0 is a leaf's.
func (f *forest[K]) question(at uint) (slot uint32, threshold K) {
	n := f.nodes[at]
	slot = n.next & 0xff
	if slot != 0 && f.slotOf != nil {
		slot = uint32(f.slotOf[at])
	}
	return slot, n.threshold
}

// visit shows the questions of a tree to each, until that reports false.
func (f *forest[K]) visit(root uint, each func(slot uint32, threshold K) bool) bool {
	pending := []uint{root}
	for len(pending) > 0 {
		at := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		s, threshold := f.question(at)
		if s == 0 {
			continue
		}
		if !each(s, threshold) {
			return false
		}
		left := uint(f.nodes[at].next >> 8)
		pending = append(pending, left, left+1)
	}
	return true
}

// ballotBuilder lays out the trees of one run.
type ballotBuilder[K key] struct {
	*ballots[K]
	e          *Ensemble
	f          *forest[K]
	thresholds map[uint32][]K // by slot; of categories, the numbers of the sets
	words      map[uint32]func(threshold K) uint16
}

func newBallots[K key](e *Ensemble, f *forest[K], first, last int) *ballots[K] {
	b := ballotBuilder[K]{&ballots[K]{first: first, last: last}, e, f, map[uint32][]K{}, map[uint32]func(K) uint16{}}
	for _, t := range f.trees[first:last] {
		f.visit(uint(t.root), func(s uint32, threshold K) bool {
			b.thresholds[s] = append(b.thresholds[s], threshold)
			return true
		})
	}
	b.results = firstWords
	b.addColumns()
	most, walked := 0, 0.0
	for i := range f.trees[first:last] {
		t := &f.trees[first+i]
		choices, depth := b.addTree(t)
		if most = max(most, choices); t.mixed {
			depth *= 3 // a step that may ask for a set takes as many times as long
		}
		walked += depth
	}
	if e.Sum == Float32 {
		b.single = slices.Clip(append(b.single, make([]float32, ballot.MaxLeaves)...))
	} else {
		b.double = slices.Clip(append(b.double, make([]float64, ballot.MaxLeaves)...))
	}
	b.choices = slices.Clip(b.choices)
	if b.ballots.words = b.results + most; b.ballots.words > maxWords {
		panic(fmt.Sprintf("BUG: %d words for the questions of %d trees", b.ballots.words, last-first))
	}
	b.weigh(walked)
	return b.ballots
}

// weigh sets least by what was measured, in cycles of one processor; walked is the steps of a row.
func (b *ballotBuilder[K]) weigh(walked float64) {
	block := 3*float64(len(b.choices)) + 25*float64(len(b.trees)) + 3.5*float64(b.results) + 1.3*float64(len(b.members))
	row := 1.6 * float64(len(b.trees))
	for i := range b.columns {
		if b.columns[i].single {
			row += 8
		} else {
			row += 25
		}
	}
	b.least = ballot.Rows + 1
	if saved := 3.5*walked - row; saved*ballot.Rows > block {
		b.least = int(math.Ceil(block / saved))
	}
}

// addColumns makes the columns that are asked for, with a view for each slot.
func (b *ballotBuilder[K]) addColumns() {
	type column struct {
		feature int32
		kind    columnKind
	}
	slots := map[column][]uint32{}
	var order []column
	for s := range b.f.slots {
		if b.thresholds[uint32(s)] == nil {
			continue
		}
		c := column{feature: b.f.slots[s].feature}
		switch b.f.slots[s].view {
		case categoryLeft, categoryRight:
			c.kind = categories
		case categoryZeroLeft, categoryZeroRight:
			c.kind = categoriesFromZero
		case missingLeft, missingRight, zeroLeft, zeroRight, nanIsZero:
		}
		if slots[c] == nil {
			order = append(order, c)
		}
		slots[c] = append(slots[c], uint32(s))
	}
	for _, c := range order {
		if c.kind == numbers {
			b.addNumbers(c.feature, slots[c])
		} else {
			b.addCategories(c.feature, c.kind, slots[c])
		}
	}
}

// addNumbers makes a column of numbers.
func (b *ballotBuilder[K]) addNumbers(feature int32, slots []uint32) {
	var all []K
	for _, s := range slots {
		slices.Sort(b.thresholds[s])
		b.thresholds[s] = slices.Compact(b.thresholds[s])
		all = append(all, b.thresholds[s]...)
		if v := b.f.slots[s].view; v == zeroLeft || v == zeroRight {
			all = append(all, keyOf[K](-zeroBorder)-1, keyOf[K](zeroBorder))
		}
	}
	c := ballotColumn[K]{feature: feature, searched: ballot.NewColumn(all)}
	borders := c.searched.Thresholds()
	for _, s := range slots {
		asked, view := b.thresholds[s], b.f.slots[s].view
		v := ballotView{c.searched.Above(asked), b.results}
		missing, _ := slices.BinarySearch(asked, absent[K](view))
		v.Of[c.searched.Missing()] = uint16(missing)
		if view == zeroLeft || view == zeroRight {
			for place, border := range borders { // of what lies between the border before and this one
				if border >= keyOf[K](-zeroBorder) && border <= keyOf[K](zeroBorder) {
					v.Of[place] = uint16(missing)
				}
			}
		}
		c.views = append(c.views, v)
		b.results += v.Words()
		b.words[s] = func(threshold K) uint16 {
			at, _ := slices.BinarySearch(asked, threshold)
			return uint16(v.start + at + 1)
		}
	}
	if len(borders) == 1 && !b.e.TinyIsZero {
		c.single, c.cut = true, leastAbove(borders[0])
	}
	b.columns = append(b.columns, c)
}

// leastAbove is the least number whose key is above a threshold; NaN, which no number reaches, if there is none.
func leastAbove[K key](threshold K) float64 {
	low, end := keyOf[int64](math.Inf(-1)), keyOf[int64](math.Inf(1))+1
	for low < end {
		middle := low>>1 + end>>1 + low&end&1
		if keyOf[K](numberOf(middle)) > threshold {
			end = middle
		} else {
			low = middle + 1
		}
	}
	if low > keyOf[int64](math.Inf(1)) {
		return math.NaN()
	}
	return numberOf(low)
}

// numberOf is the number that a key of 64 bits stands for.
func numberOf(key int64) float64 { return math.Float64frombits(uint64(key ^ key>>63&math.MaxInt64)) }

// addCategories makes a column of categories, and the words of the sets that are asked for.
func (b *ballotBuilder[K]) addCategories(feature int32, kind columnKind, slots []uint32) {
	listed := make([][]K, len(slots)) // by slot, the categories of its sets
	var all []K
	for i, s := range slots {
		for _, set := range b.thresholds[s] {
			for c := range b.f.sets[set].each {
				listed[i] = append(listed[i], K(c))
			}
		}
		slices.Sort(listed[i])
		listed[i] = slices.Compact(listed[i])
		all = ballot.Around(all, listed[i])
	}
	c := ballotColumn[K]{feature: feature, kind: kind, searched: ballot.NewColumn(all)}
	for i, s := range slots {
		v := ballotView{c.searched.Exactly(listed[i]), b.results}
		v.Questions++ // and the last one: is it missing?
		v.Of[c.searched.Missing()] = uint16(v.Questions)
		c.views = append(c.views, v)
		b.results += v.Words()
		goesLeft := b.f.slots[s].view == categoryLeft || b.f.slots[s].view == categoryZeroLeft
		words := map[K]uint16{}
		for _, set := range b.thresholds[s] {
			words[set] = uint16(b.results)
			b.addSet(&b.f.sets[set], &v, listed[i], goesLeft)
		}
		b.words[s] = func(set K) uint16 { return words[set] }
	}
	b.columns = append(b.columns, c)
}

// addSet makes the question of one set.
func (b *ballotBuilder[K]) addSet(set *flatSet, v *ballotView, listed []K, goesLeft bool) {
	opposite := set.right == 0
	for c := range set.each {
		at, _ := slices.BinarySearch(listed, K(c))
		b.members = append(b.members, uint16(v.start+at+1))
	}
	if goesLeft == opposite { // what is missing goes where the members go
		b.members = append(b.members, uint16(v.start+v.Questions))
	}
	b.sets = append(b.sets, setQuestion{opposite, uint32(len(b.members)), uint16(b.results)})
	b.results++
}

// each yields the categories of the set.
func (s *flatSet) each(yield func(int) bool) {
	for i, word := range s.bits {
		for ; word != 0; word &= word - 1 {
			if !yield(32*i + bits.TrailingZeros32(word)) {
				return
			}
		}
	}
}

// addTree lays out one tree, by whichever numbers of its leaves take less choices. It gives their number and the mean depth
// of the leaves.
func (b *ballotBuilder[K]) addTree(t *flatTree) (choices int, depth float64) {
	g := ballotTree{leaves: uint32(len(b.single) + len(b.double)), output: t.output}
	best := b.number(t, false)
	if count := len(best.values); t.depth <= 8 && 1<<t.depth <= 4*count {
		if other := b.number(t, true); len(other.choices) < len(best.choices) {
			best = other
		}
	}
	b.choices = append(b.choices, best.choices...)
	g.choices, g.code = uint32(len(b.choices)), best.code
	for _, x := range best.values {
		if b.e.Sum == Float32 {
			b.single = append(b.single, float32(x))
		} else {
			b.double = append(b.double, x)
		}
	}
	b.trees = append(b.trees, g)
	return len(best.choices), best.depth
}

// numbering is a tree with numbers for its leaves.
type numbering struct {
	choices []choice
	values  []float64 // of the leaves, by number
	code    [8]uint16
	depth   float64 // mean of the leaves'
}

// number numbers the leaves of a tree: by their paths, where the bit of a level says which way
// it goes, or one after the other.
func (b *ballotBuilder[K]) number(t *flatTree, byPath bool) numbering {
	var n numbering
	leaves, depths := 0, 0
	var down func(at uint, depth int, path int) [8]uint16
	down = func(at uint, depth, path int) (code [8]uint16) {
		s, threshold := b.f.question(at)
		if s == 0 {
			which := leaves
			if byPath {
				which = path
			}
			leaves, depths = leaves+1, depths+depth
			for len(n.values) <= which {
				n.values = append(n.values, 0)
			}
			n.values[which] = b.f.leaves[t.leaves+uint32(threshold)]
			for k := range code {
				code[k] = uint16(which >> k & 1) // allZeros or allOnes
			}
			return code
		}
		left := uint(b.f.nodes[at].next >> 8)
		no := down(left, depth+1, path)
		yes := down(left+1, depth+1, path|1<<(int(t.depth)-1-depth))
		ask := b.words[s](threshold)
		for k := range code {
			switch {
			case no[k] == yes[k]:
				code[k] = no[k]
			case no[k] == allZeros && yes[k] == allOnes:
				code[k] = ask
			default:
				code[k] = uint16(b.results + len(n.choices))
				n.choices = append(n.choices, choice{no[k], yes[k], ask})
			}
		}
		return code
	}
	n.code = down(uint(t.root), 0, 0)
	n.depth = float64(depths) / float64(leaves)
	return n
}
