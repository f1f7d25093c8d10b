// Package ballot takes numbers of up to 64 rows and thresholds, and gives for each threshold a word with
// the answers of all rows, a bit each; and it takes the bits of leaf numbers as such words, and adds the
// leaves to the rows' sums.
//
// Whatever else decides which leaf a row is in is logic on words: 64 rows at the price of one.
package ballot

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Rows is how many rows a word has the answers of.
const Rows = 64

// Key is an integer that is ordered as the number that it stands for is.
type Key interface{ int32 | int64 }

// Column finds keys among thresholds. It is immutable.
type Column[K Key] struct {
	thresholds []K // ascending, each once
	// tree is a search tree of them, complete to the last of its levels: element i has its children at
	// 2i and 2i+1, element 0 is none. The greatest key, which no key is greater than, fills it up.
	tree   []K
	levels int
}

// MaxThresholds is how many thresholds a column can have: places are 16 bits.
const MaxThresholds = math.MaxUint16 - 1

// NewColumn makes a column of thresholds, in any order and repeated as it may be. It keeps the slice.
func NewColumn[K Key](thresholds []K) Column[K] {
	slices.Sort(thresholds)
	c := Column[K]{thresholds: slices.Compact(thresholds)}
	if len(c.thresholds) > MaxThresholds {
		panic(fmt.Sprintf("BUG: a column of %d thresholds", len(c.thresholds)))
	}
	c.levels = bits.Len(uint(len(c.thresholds)))
	c.tree = make([]K, 1<<c.levels)
	for i := 1; i < len(c.tree); i++ {
		level := bits.Len(uint(i)) - 1
		step := 1 << (c.levels - level)
		c.tree[i] = greatest[K]()
		if at := (i-1<<level)*step + step/2 - 1; at < len(c.thresholds) {
			c.tree[i] = c.thresholds[at]
		}
	}
	return c
}

func greatest[K Key]() K {
	most := K(math.MaxInt32)
	if wide := most << 31 << 1; wide != 0 {
		most = wide | (wide - 1)
	}
	return most
}

// Thresholds are the thresholds, ascending, each once.
func (c *Column[K]) Thresholds() []K { return c.thresholds }

// Missing is the place of what has no key.
func (c *Column[K]) Missing() uint16 { return uint16(len(c.thresholds) + 1) }

// Find writes the places of the first n keys: how many thresholds are below each.
func (c *Column[K]) Find(keys *[Rows]K, n int, places *[Rows]uint16) {
	tree := c.tree
	// Four keys go down side by side, without branches.
	for r := 0; r < n; r += 4 {
		k := (*[4]K)(keys[r : r+4])
		w, x, y, z := 1, 1, 1, 1
		for range c.levels {
			w = 2*w + above(k[0], tree[w])
			x = 2*x + above(k[1], tree[x])
			y = 2*y + above(k[2], tree[y])
			z = 2*z + above(k[3], tree[z])
		}
		*(*[4]uint16)(places[r : r+4]) = [4]uint16{uint16(w - len(tree)), uint16(x - len(tree)), uint16(y - len(tree)), uint16(z - len(tree))}
	}
}

// above is 1 if key is above threshold, else 0.
func above[K Key](key, threshold K) int {
	if key > threshold {
		return 1
	}
	return 0
}

// View says which answers the rows at a column's places give to questions that are in some order. It is
// immutable once it answers.
type View struct {
	// Of says for each place how many of the questions are answered by yes, the first ones; or, if Exact, which
	// one is, counted from 1. The last place is Missing.
	Of    []uint16
	Exact bool
	// Questions is how many there are; no element of Of is greater.
	Questions int
}

// Above is the view for the questions whether a key is above each of some of the thresholds, which are ascending, each once.
// What is missing is above none.
func (c *Column[K]) Above(asked []K) View {
	v := View{Of: make([]uint16, len(c.thresholds)+2), Questions: len(asked)}
	below := 0
	for i, threshold := range c.thresholds {
		if below < len(asked) && asked[below] == threshold {
			below++
		}
		v.Of[i+1] = uint16(below)
	}
	return v
}

// Exactly is the view for the questions whether a key is each of some values, which are ascending, each once, in a column
// whose thresholds have what [Around] gives for all of them. What is missing is none.
func (c *Column[K]) Exactly(values []K) View {
	v := View{Of: make([]uint16, len(c.thresholds)+2), Questions: len(values), Exact: true}
	at := 0
	for place, threshold := range c.thresholds { // of what lies between the threshold before and this one
		if at < len(values) && values[at] == threshold {
			at++
			v.Of[place] = uint16(at)
		}
	}
	return v
}

// Around appends the thresholds that tell values from all others.
func Around[K Key](thresholds, values []K) []K {
	for _, x := range values {
		if before := x - 1; before < x { // it is not the least of all
			thresholds = append(thresholds, before)
		}
		thresholds = append(thresholds, x)
	}
	return thresholds
}

// Words is how many words Answer writes. The answers to question i, from 0, are word i+1.
func (v *View) Words() int { return v.Questions + 1 }

// Answer writes the answers of the rows at the first n places. What the first word and the bits of other
// rows hold means nothing.
func (v *View) Answer(places *[Rows]uint16, n int, words []uint64) {
	words = words[:v.Questions+1]
	clear(words)
	bit := uint64(1)
	for _, place := range places[:n] {
		words[v.Of[place]] |= bit
		bit <<= 1
	}
	if v.Exact {
		return
	}
	answers := uint64(0)
	for i := len(words) - 1; i >= 0; i-- {
		answers |= words[i]
		words[i] = answers
	}
}
