package catboost

import (
	"math"
	"slices"
)

// lookup finds the leaves of all oblivious trees of a row by one pass over its columns. The borders that
// any tree asks for part a column into bins; with a column's bin, all answers to its questions are known.
// A table has them for each bin: a byte a tree, the answer to split i as bit i. The bytes of all columns
// joined by OR are the leaves.
type lookup struct {
	columns []lookupColumn
	table   []uint64 // for each bin, stride words of eight trees each
	stride  int
	trees   []compiledTree
}

type lookupColumn struct {
	column  int32
	equal   bool    // a category: bin 0 is any other value, bin k the value k-1
	borders []int64 // ascending, as keyOf has them; their differences do not overflow
	start   int     // of bin 0 in the table
}

// A piece is the words that are joined at a time; strides are multiples of it.
const piece = 8

// newLookup makes the table, nil where a tree is too deep for it or it would take more than a small
// multiple of the trees.
func newLookup(e *oblivious) *lookup {
	l := &lookup{trees: e.trees, stride: (len(e.trees) + 8*piece - 1) / (8 * piece) * piece}
	type question struct {
		test
		tree, bit int
	}
	var questions []question
	for i, t := range e.trees {
		if t.depth > 8 {
			return nil
		}
		for bit, test := range e.tests[t.firstTest : t.firstTest+t.depth] {
			questions = append(questions, question{test, i, bit})
		}
	}
	slices.SortFunc(questions, func(a, b question) int {
		switch {
		case a.column != b.column:
			return int(a.column) - int(b.column)
		case a.number < b.number:
			return -1
		case a.number > b.number:
			return 1
		}
		return 0
	})
	rows := 0
	for i, q := range questions {
		if i == 0 || q.column != questions[i-1].column {
			rows += 2
		} else if q.number != questions[i-1].number {
			rows++
		}
	}
	if most := 2*(len(e.tests)+len(e.leaves)) + 1<<16; rows > most/max(1, l.stride) {
		return nil
	}
	l.table = make([]uint64, rows*l.stride)
	at := -l.stride // of the bin in hand
	for i, q := range questions {
		column := i == 0 || q.column != questions[i-1].column
		if column {
			at += l.stride
			l.columns = append(l.columns, lookupColumn{column: q.column, equal: q.equal, start: at})
		}
		if c := &l.columns[len(l.columns)-1]; column || q.number != questions[i-1].number {
			c.borders = append(c.borders, int64(keyOf(q.number, q.equal)))
			before := l.table[at : at+l.stride]
			if at += l.stride; !q.equal { // what was greater than a lower border still is
				copy(l.table[at:at+l.stride], before)
			}
		}
		l.table[at+q.tree/8] |= 1 << (q.tree%8*8 + q.bit)
	}
	return l
}

// keyOf orders the numbers of a column as integers: hashes of 32 bits as they are, less the half of their range, else
// float32 by their bits, where both zeros are one.
func keyOf(x float64, equal bool) int32 {
	if equal {
		return int32(int64(x) + math.MinInt32)
	}
	y := float32(x)
	if y == 0 {
		y = 0
	}
	b := int32(math.Float32bits(y))
	return b ^ b>>31&math.MaxInt32
}

// find writes where in the table the bins of a row are.
func (l *lookup) find(columns, places []float64) {
	for i := range l.columns {
		c := &l.columns[i]
		x := int64(keyOf(columns[c.column], c.equal))
		// Without branches, which would be foretold wrong half of the time: the number of borders below x.
		low, n := 0, len(c.borders)
		for n > 1 {
			half := n >> 1
			low += half & int((c.borders[low+half-1]-x)>>63)
			n -= half
		}
		low += int(uint64(c.borders[low]-x) >> 63)
		if c.equal { // low is the value's own place
			if low < len(c.borders) && c.borders[low] == x {
				low++
			} else {
				low = 0
			}
		}
		places[i] = float64(c.start + low*l.stride)
	}
}

// sum adds the leaves of a row, tree after tree.
func (l *lookup) sum(leaves, places, out []float64) {
	clear(out)
	tree := 0
	for from := 0; from < l.stride && tree < len(l.trees); from += piece {
		var joined [piece]uint64
		for _, place := range places {
			bin := (*[piece]uint64)(l.table[int(place)+from:])
			for w := range joined {
				joined[w] |= bin[w]
			}
		}
		for _, word := range joined {
			part := l.trees[tree:min(tree+8, len(l.trees))]
			if tree += len(part); len(out) == 1 {
				total := out[0]
				for i := range part {
					total += leaves[part[i].firstLeaf+int(word&math.MaxUint8)]
					word >>= 8
				}
				out[0] = total
				continue
			}
			for i := range part {
				leaf := (part[i].firstLeaf + int(word&math.MaxUint8)) * len(out)
				word >>= 8
				for k := range out {
					out[k] += leaves[leaf+k]
				}
			}
		}
	}
}
