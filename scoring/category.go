package scoring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// categoryIndex gives the position of a value in a list of categories. It is an open-addressing
// table over a hash of the length, the first and the last bytes: categories are short and few, and
// half the time of a map goes into hashing all of a key. Where that hash does not tell the
// categories apart, a map takes over.
type categoryIndex struct {
	slots  []int32 // a power of two; -1: empty
	mask   uint64
	values []string
	byText map[string]int32 // instead of slots, nil mostly
}

// longestProbe bounds the slots looked at, so that no list of categories makes scoring slow.
const longestProbe = 4

func newCategoryIndex(categories []string) (categoryIndex, error) {
	if len(categories) > 1<<24 {
		return categoryIndex{}, fmt.Errorf("%d categories, at most %d are supported", len(categories), 1<<24)
	}
	x := categoryIndex{values: categories}
	seen := make(map[string]int32, len(categories))
	for i, value := range categories {
		if first, twice := seen[value]; twice {
			return categoryIndex{}, fmt.Errorf("category %.60q is listed twice, at %d and %d", value, first, i)
		}
		seen[value] = int32(i)
	}
	if len(categories) == 0 {
		return categoryIndex{}, errors.New("no categories")
	}
	size := 1 << bits.Len(uint(4*len(categories)))
	x.slots, x.mask = make([]int32, size), uint64(size-1)
	for i := range x.slots {
		x.slots[i] = -1
	}
	for i, value := range categories {
		if !x.insert(value, int32(i)) {
			x.slots, x.byText = nil, seen
			break
		}
	}
	return x, nil
}

func (x *categoryIndex) insert(value string, code int32) bool {
	at := hashEnds([]byte(value))
	for range longestProbe {
		if slot := &x.slots[at&x.mask]; *slot < 0 {
			*slot = code
			return true
		}
		at++
	}
	return false
}

// code returns the position of value, or the number of categories if it is not among them.
func (x *categoryIndex) code(value []byte) int {
	if x.byText != nil {
		if code, ok := x.byText[string(value)]; ok {
			return int(code)
		}
		return len(x.values)
	}
	at := hashEnds(value)
	for range longestProbe {
		code := x.slots[at&x.mask]
		if code < 0 {
			break
		}
		if x.values[code] == string(value) {
			return int(code)
		}
		at++
	}
	return len(x.values)
}

func hashEnds(b []byte) uint64 {
	n := len(b)
	var first, last uint64
	switch {
	case n >= 8:
		first, last = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
	case n >= 4:
		first, last = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:]))
	case n > 0:
		first, last = uint64(b[0]), uint64(b[n/2])<<8|uint64(b[n-1])
	}
	high, low := bits.Mul64(first^0x9e3779b97f4a7c15^uint64(n), last^0xd1b54a32d192ed03)
	return high ^ low
}
