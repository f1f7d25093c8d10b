package schemas

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// CategoryIndex gives the position of a category in a list. It is immutable.
//
// It is a hash table of at most a quarter load, probed forward, over the length, the first and the last eight bytes:
// categories are short and few, and most of the time of a map goes into hashing all of a key. Up to 16 bytes these are
// all there is to compare, too. It takes about a third of the time of a map[string]int (BenchmarkCategoryIndex). Lists
// that this hash does not tell apart are left to a map, so that no list makes a look-up slow.
type CategoryIndex struct {
	slots  []int32 // codes; a power of two; -1: empty
	mask   uint64
	ends   []ends // by code
	values []string
	byText map[string]int // instead of slots, nil mostly
}

// ends are the first and the last eight bytes of a text, which may be the same ones, or what a shorter text has instead.
type ends struct {
	first, last uint64
	length      int
}

// longestProbe bounds the slots that one look-up visits.
const longestProbe = 4

// mostCategories keeps the slots within a gigabyte.
const mostCategories = 1 << 24

// NewCategoryIndex returns the index of values, which it keeps. A value that is listed twice is an error.
func NewCategoryIndex(values []string) (*CategoryIndex, error) {
	if len(values) > mostCategories {
		return nil, fmt.Errorf("%d categories, at most %d are supported", len(values), mostCategories)
	}
	byText := make(map[string]int, len(values))
	for i, value := range values {
		if first, twice := byText[value]; twice {
			return nil, fmt.Errorf("category %.60q is listed twice, at %d and %d", value, first, i)
		}
		byText[value] = i
	}
	x := &CategoryIndex{values: values}
	if x.fill() {
		return x, nil
	}
	x.slots, x.ends, x.byText = nil, nil, byText
	return x, nil
}

// fill says whether every value has found a slot within the longest probe.
func (x *CategoryIndex) fill() bool {
	size := 1 << bits.Len(uint(4*len(x.values)))
	x.slots, x.mask, x.ends = make([]int32, size), uint64(size-1), make([]ends, len(x.values))
	for i := range x.slots {
		x.slots[i] = -1
	}
	for code, value := range x.values {
		e := endsOf([]byte(value))
		at := e.hash()
		probe := 0
		for ; probe < longestProbe && x.slots[at&x.mask] >= 0; probe++ {
			at++
		}
		if probe == longestProbe {
			return false
		}
		x.slots[at&x.mask], x.ends[code] = int32(code), e
	}
	return true
}

// Len returns the number of categories.
func (x *CategoryIndex) Len() int { return len(x.values) }

// Lookup returns the position of value in the list, or [CategoryIndex.Len] if it is not among them. It does not allocate.
func (x *CategoryIndex) Lookup(value []byte) int {
	if x.byText != nil {
		if code, ok := x.byText[string(value)]; ok {
			return code
		}
		return len(x.values)
	}
	e := endsOf(value)
	at := e.hash()
	for range longestProbe {
		code := x.slots[at&x.mask]
		if code < 0 {
			break
		}
		if x.ends[code] == e && (e.length <= 16 || x.values[code] == string(value)) {
			return int(code)
		}
		at++
	}
	return len(x.values)
}

// endsOf differs for any two texts of at most 16 bytes.
func endsOf(b []byte) ends {
	n := len(b)
	switch {
	case n >= 8:
		return ends{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:]), n}
	case n >= 4:
		return ends{uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:])), n}
	case n > 0:
		return ends{uint64(b[0]), uint64(b[n/2])<<8 | uint64(b[n-1]), n}
	}
	return ends{}
}

// isUTF8 is utf8.Valid, faster for the short ASCII that keys and categories mostly are (BenchmarkIsUTF8).
func isUTF8(b []byte) bool {
	if len(b) <= 16 {
		if e := endsOf(b); (e.first|e.last)&0x8080808080808080 == 0 {
			return true
		}
	}
	return utf8.Valid(b)
}

// hash mixes the ends by odd constants without structure: fractional parts of the golden ratio and of a root.
func (e ends) hash() uint64 {
	high, low := bits.Mul64(e.first^0x9e3779b97f4a7c15^uint64(e.length), e.last^0xd1b54a32d192ed03)
	return high ^ low
}
