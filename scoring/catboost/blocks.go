package catboost

import (
	"math"
	"slices"

	"github.com/churnstream/churnstream/scoring/internal/ballot"
	"github.com/churnstream/churnstream/scoring/trees"
)

// blocks finds the leaves of 64 rows together: every split of any tree is answered once for all of them, as a word with a
// bit for each row, and the words of a tree's splits are the bits of the numbers of its leaves.
type blocks struct {
	columns []blockColumn
	words   []int32 // of the answers to each of the model's tests, in their order
	count   int     // of words
	// last are the leaves from border on, with room behind them for the reach of 8 bits.
	last   []float64
	border int
	least  int // how many rows are worth a block
}

type blockColumn struct {
	column   int32
	equal    bool
	searched ballot.Column[int32]
	view     ballot.View
	start    int // of its words
}

// maxAnswers bounds what a model's questions take: some 30 bytes each.
const maxAnswers = 1 << 16

// blockScratch is what blocks work in.
type blockScratch struct {
	columns []int32 // keys of 64 rows, column by column
	words   []uint64
	sums    []float64 // output by output
}

// newBlocks lays the trees out, nil where there are too many questions.
func newBlocks(e *oblivious) *blocks {
	asked := make(map[int32][]int32)
	equal := make(map[int32]bool)
	for _, t := range e.tests {
		asked[t.column] = append(asked[t.column], keyOf(t.number, t.equal))
		equal[t.column] = t.equal
	}
	b := &blocks{words: make([]int32, len(e.tests))}
	starts := make(map[int32]blockColumn, len(asked))
	for column := range int32(e.in.columns()) {
		values := asked[column]
		if values == nil {
			continue
		}
		slices.Sort(values)
		values = slices.Compact(values)
		if b.count += len(values) + 1; b.count > maxAnswers {
			return nil
		}
		c := blockColumn{column: column, equal: equal[column], start: b.count - len(values) - 1}
		if c.equal {
			c.searched = ballot.NewColumn(ballot.Around(nil, values))
			c.view = c.searched.Exactly(values)
		} else {
			c.searched = ballot.NewColumn(values)
			c.view = c.searched.Above(c.searched.Thresholds())
		}
		asked[column] = values
		starts[column] = c
		b.columns = append(b.columns, c)
	}
	for i, t := range e.tests {
		at, _ := slices.BinarySearch(asked[t.column], keyOf(t.number, t.equal))
		b.words[i] = int32(starts[t.column].start + at + 1)
	}
	b.border = max(0, len(e.leaves)-ballot.MaxLeaves+1)
	b.last = append(slices.Clone(e.leaves[b.border:]), make([]float64, ballot.MaxLeaves)...)
	b.weigh(e)
	return b
}

// leaves are those of a tree of up to 8 splits and of others behind it.
func (b *blocks) leaves(e *oblivious, t *compiledTree) *[ballot.MaxLeaves]float64 {
	if t.firstLeaf < b.border {
		return (*[ballot.MaxLeaves]float64)(e.leaves[t.firstLeaf:])
	}
	return (*[ballot.MaxLeaves]float64)(b.last[t.firstLeaf-b.border:])
}

// weigh sets least by what was measured, in cycles of one processor.
func (b *blocks) weigh(e *oblivious) {
	columns, count := float64(len(b.columns)), float64(len(e.trees))
	block := 2*float64(b.count) + 50*count
	saved := 40*columns + 11*count
	if e.lookup == nil {
		saved = 4 * float64(len(e.tests))
	}
	b.least = max(2, int(math.Ceil(block/max(1, saved-30*columns-1.6*count))))
}

// add computes the sums of n rows, at most 64, for out. A row that cannot be read gets NaN.
func (b *blocks) add(e *oblivious, rows []float64, n int, out []float64, s *trees.Scratch) {
	own, ok := s.Other.(*blockScratch)
	if !ok {
		own = new(blockScratch)
		s.Other = own
	}
	unreadable := b.read(e, rows, n, own, s)
	b.ask(n, own)
	dims := e.out.dims
	own.sums = slices.Grow(own.sums[:0], dims*ballot.Rows)[:dims*ballot.Rows]
	clear(own.sums)
	for i := range e.trees {
		t := &e.trees[i]
		words := b.words[t.firstTest : t.firstTest+t.depth]
		low := joined(own.words, words[:min(8, len(words))])
		if dims == 1 && t.depth <= 8 {
			ballot.Add(&low, b.leaves(e, t), n, (*[ballot.Rows]float64)(own.sums))
			continue
		}
		high := joined(own.words, words[min(8, len(words)):])
		lows, highs := low.Numbers(), high.Numbers()
		for r := range n {
			leaf := t.firstLeaf + int(lows[r]) + int(highs[r])<<8
			for k, x := range e.leaves[leaf*dims : (leaf+1)*dims] {
				own.sums[k*ballot.Rows+r] += x
			}
		}
	}
	for r := range n {
		to := out[r*dims : (r+1)*dims]
		for k := range to {
			to[k] = own.sums[k*ballot.Rows+r]
		}
		if e.out.finish(to); unreadable>>r&1 != 0 {
			fill(to, math.NaN())
		}
	}
}

// joined is the code whose bits some words are.
func joined(words []uint64, at []int32) (code ballot.Code) {
	for k, word := range at {
		code[k&7] = words[word]
	}
	return code
}

// read writes the keys of n rows, column by column, and gives those as bits that cannot be read.
func (b *blocks) read(e *oblivious, rows []float64, n int, own *blockScratch, s *trees.Scratch) (unreadable uint64) {
	columns := s.Columns(e.in.columns())
	own.columns = slices.Grow(own.columns[:0], len(b.columns)*ballot.Rows)[:len(b.columns)*ballot.Rows]
	for r := range n {
		if !e.in.read(rows[r*e.in.width:(r+1)*e.in.width], columns) {
			unreadable |= 1 << r
			continue
		}
		at := r
		for i := range b.columns {
			c := &b.columns[i]
			own.columns[at] = keyOf(columns[c.column], c.equal)
			at += ballot.Rows
		}
	}
	return unreadable
}

// ask writes the words.
func (b *blocks) ask(n int, own *blockScratch) {
	own.words = slices.Grow(own.words[:0], b.count)[:b.count]
	var places [ballot.Rows]uint16
	for i := range b.columns {
		c := &b.columns[i]
		c.searched.Find((*[ballot.Rows]int32)(own.columns[i*ballot.Rows:]), n, &places)
		c.view.Answer(&places, n, own.words[c.start:])
	}
}
