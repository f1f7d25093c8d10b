package trees

import (
	"math"

	"github.com/churnstream/churnstream/scoring/internal/ballot"
)

// ballots is the scalar trees from first on up to last, laid out for blocks of 64 rows.
//
// Whatever the splits ask is answered for all rows first, each question once: a word with a bit for
// each row. A leaf's number in its tree has up to 8 bits, and bit b of the leaves below a split is such a word too: bit
// for bit chosen, by the answers to the split, between the words of its two children. So all rows go
// through a tree by a list of such choices, without a branch and without looking where one of them is.
type ballots[K key] struct {
	first, last int
	// least is how many rows are worth a block.
	least   int
	columns []ballotColumn[K]
	sets    []setQuestion
	members []uint16 // of the sets: words
	choices []choice
	trees   []ballotTree
	// The leaves by their numbers, in the precision of the sum; behind the last tree's is room for the
	// reach of 8 bits.
	single []float32
	double []float64
	// words is how many words there are; those from results on belong to the tree in hand.
	words, results int
}

// ballotColumn is an input as splits compare it.
type ballotColumn[K key] struct {
	feature  int32
	kind     columnKind
	searched ballot.Column[K]
	views    []ballotView

	// single: there is one threshold, as for a column that is 0 or 1, and numbers from cut on are above it.
	single bool
	cut    float64
}

type columnKind uint8

const (
	numbers            columnKind = iota
	categories                    // their numbers
	categoriesFromZero            // where numbers from -1 to 0 are category 0
)

// ballotView is one of the views of an input.
type ballotView struct {
	ballot.View
	start int // of its words
}

// setQuestion asks whether a category goes right: its word is those of its members joined, or the opposite.
type setQuestion struct {
	opposite bool
	end      uint32 // of its members, which begin where the last one's end
	word     uint16
}

// choice makes a word of two: the bits of yes where those of ask are set, else the bits of no.
type choice struct{ no, yes, ask uint16 }

type ballotTree struct {
	choices uint32 // where they end, which begin where the last tree's end
	leaves  uint32 // where its leaves begin
	output  int32
	code    [8]uint16 // the words of the leaf's number, the lowest bit first
}

// The first words.
const (
	allZeros = iota
	allOnes
	firstWords
)

// maxWords is how many words a choice can tell apart.
const maxWords = 1 << 16

// ballotScratch is what ballots work in.
type ballotScratch struct {
	words  []uint64
	single []float32 // sums, output by output
	double []float64
}

// add adds the leaves of n rows, at most 64, to out.
func (b *ballots[K]) add(e *Ensemble, rows []float64, n int, out []float64, s *ballotScratch) {
	s.words = grow(s.words, b.words)
	b.ask(e, rows, n, s.words)
	if e.Sum == Float32 {
		s.single = grow(s.single, e.Outputs*ballot.Rows)
		tally(b, b.single, e.Outputs, n, out, s.words, s.single)
	} else {
		s.double = grow(s.double, e.Outputs*ballot.Rows)
		tally(b, b.double, e.Outputs, n, out, s.words, s.double)
	}
}

// ask writes the words of all questions.
func (b *ballots[K]) ask(e *Ensemble, rows []float64, n int, words []uint64) {
	words[allZeros], words[allOnes] = 0, math.MaxUint64
	var keys [ballot.Rows]K
	var places [ballot.Rows]uint16
	for i := range b.columns {
		c := &b.columns[i]
		if c.single {
			above, missing := c.answer(e, rows, n)
			for k := range c.views {
				v := &c.views[k]
				words[v.start+1] = above
				if v.Of[c.searched.Missing()] > 0 {
					words[v.start+1] |= missing
				}
			}
			continue
		}
		missing := c.read(e, rows, n, &keys)
		c.searched.Find(&keys, n, &places)
		if missing != 0 {
			for r := range n {
				if missing>>r&1 != 0 {
					places[r] = c.searched.Missing()
				}
			}
		}
		for k := range c.views {
			v := &c.views[k]
			v.Answer(&places, n, words[v.start:])
		}
	}
	from := uint32(0)
	for _, q := range b.sets {
		answers := uint64(0)
		for _, at := range b.members[from:q.end] {
			answers |= words[at]
		}
		if q.opposite {
			answers = ^answers
		}
		words[q.word], from = answers, q.end
	}
}

// answer gives the rows, as bits, that are above the only threshold, and those that have no number.
func (c *ballotColumn[K]) answer(e *Ensemble, rows []float64, n int) (above, missing uint64) {
	at := int(c.feature)
	for range n {
		x := rows[at]
		at += e.Features
		above, missing = above>>1|bit(x >= c.cut), missing>>1|bit(x != x)
	}
	return above >> (ballot.Rows - n), missing >> (ballot.Rows - n)
}

// bit is the highest one, or none.
func bit(set bool) uint64 {
	var b uint64
	if set {
		b = 1
	}
	return b << (ballot.Rows - 1)
}

// read writes the keys of n rows, and gives those as bits that have none.
func (c *ballotColumn[K]) read(e *Ensemble, rows []float64, n int, keys *[ballot.Rows]K) (missing uint64) {
	at := int(c.feature)
	plain := c.kind == numbers && !e.TinyIsZero
	for r := range keys[:n] {
		x := rows[at]
		at += e.Features
		switch {
		case x != x:
			missing |= 1 << r
			keys[r] = 0
		case plain:
			keys[r] = keyOf[K](x)
		case c.kind == categories:
			keys[r] = K(lookCategory(e, categoryLeft, x))
		case c.kind == categoriesFromZero:
			keys[r] = K(lookCategory(e, categoryZeroLeft, x))
		case tiny(x):
			keys[r] = 0
		default:
			keys[r] = keyOf[K](x)
		}
	}
	return missing
}

// tally adds the leaves of all trees to out, tree after tree.
func tally[K key, S float32 | float64](b *ballots[K], leaves []S, outputs, n int, out []float64, words []uint64, sums []S) {
	for i, x := range out[:n*outputs] {
		sums[i%outputs*ballot.Rows+i/outputs] = S(x)
	}
	from := uint32(0)
	for i := range b.trees {
		t := &b.trees[i]
		choices := b.choices[from:t.choices]
		results := words[b.results:][:len(choices)]
		for i, c := range choices {
			no := words[c.no]
			results[i] = no ^ (no^words[c.yes])&words[c.ask]
		}
		var code ballot.Code
		for k, at := range t.code {
			code[k] = words[at]
		}
		ballot.Add(&code, (*[ballot.MaxLeaves]S)(leaves[t.leaves:]), n, (*[ballot.Rows]S)(sums[int(t.output)*ballot.Rows:]))
		from = t.choices
	}
	for i := range out[:n*outputs] {
		out[i] = float64(sums[i%outputs*ballot.Rows+i/outputs])
	}
}
