package trees

import (
	"fmt"
	"slices"
)

// Set is a set of categories, which are integers from 0.
type Set struct {
	// Bits holds 32 categories a word: bit c%32 of the word for c/32. Word i stands for categories
	// from 32·Words[i], ascending; without Words, from 32·i.
	Bits  []uint32
	Words []uint32
	// FromZero makes numbers from -1 to 0, both left out, category 0, as a C cast to int does
	// (LightGBM). Otherwise nothing negative is in the set (XGBoost).
	FromZero bool
}

// NewSet makes a set of categories from 0, in any order. Its memory is bounded by their number.
func NewSet(categories []int32) (Set, error) {
	sorted := slices.Clone(categories)
	slices.Sort(sorted)
	if len(sorted) == 0 {
		return Set{}, nil
	}
	if sorted[0] < 0 {
		return Set{}, fmt.Errorf("category %d is below 0", sorted[0])
	}
	var s Set
	if words := int(sorted[len(sorted)-1])/32 + 1; words <= 8+2*len(sorted) {
		s.Bits = make([]uint32, words)
		for _, c := range sorted {
			s.Bits[c/32] |= 1 << (c % 32)
		}
		return s, nil
	}
	for _, c := range sorted {
		word := uint32(c) / 32
		if n := len(s.Words); n == 0 || s.Words[n-1] != word {
			s.Words = append(s.Words, word)
			s.Bits = append(s.Bits, 0)
		}
		s.Bits[len(s.Bits)-1] |= 1 << (c % 32)
	}
	return s, nil
}

// Has reports whether the integer part of x is in the set. NaN and infinities never are.
func (s *Set) Has(x float64) bool {
	if !(x < 1<<31) || !(x >= 0 || s.FromZero && x > -1) {
		return false
	}
	c := uint32(int64(x))
	word := int(c / 32)
	if s.Words != nil {
		at, ok := slices.BinarySearch(s.Words, c/32)
		if !ok {
			return false
		}
		word = at
	}
	return word < len(s.Bits) && s.Bits[word]>>(c%32)&1 != 0
}

func (s *Set) validate() error {
	if s.Words == nil {
		return nil
	}
	if len(s.Words) != len(s.Bits) {
		return fmt.Errorf("%d words for %d indices", len(s.Bits), len(s.Words))
	}
	for i := 1; i < len(s.Words); i++ {
		if s.Words[i-1] >= s.Words[i] {
			return fmt.Errorf("index %d is not above the one before", i)
		}
	}
	return nil
}
