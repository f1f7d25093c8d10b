package drift

import (
	"encoding/binary"
	"math/bits"
)

// categoryTable maps the categories of one feature to their places. It is a hash table of at most a quarter load that
// is probed forward; it looks at no more than the first and last eight bytes before it compares, which takes about a third
// of the time of Go's map on names of this length.
type categoryTable struct {
	slots []categorySlot // a power of two of them
	shift uint
}

type categorySlot struct {
	name  string
	place int // -1: the slot is empty
}

func newCategoryTable(size int) categoryTable {
	exponent := max(3, bits.Len(uint(4*size)))
	t := categoryTable{slots: make([]categorySlot, 1<<exponent), shift: uint(64 - exponent)}
	for i := range t.slots {
		t.slots[i].place = -1
	}
	return t
}

// add maps name to place; no more than the size that the table was made for may be added.
func (t *categoryTable) add(name string, place int) {
	mask := len(t.slots) - 1
	i := int(categoryHash([]byte(name)) >> t.shift)
	for t.slots[i&mask].place >= 0 {
		i++
	}
	t.slots[i&mask] = categorySlot{name: name, place: place}
}

// find returns the place of name, -1 if it has none.
func (t *categoryTable) find(name []byte) int {
	mask := len(t.slots) - 1
	for i := int(categoryHash(name) >> t.shift); ; i++ {
		slot := &t.slots[i&mask]
		if slot.place < 0 || slot.name == string(name) {
			return slot.place
		}
	}
}

func categoryHash(name []byte) uint64 {
	n := len(name)
	var head, tail uint64
	switch {
	case n >= 8:
		head, tail = binary.LittleEndian.Uint64(name), binary.LittleEndian.Uint64(name[n-8:])
	case n >= 4:
		head, tail = uint64(binary.LittleEndian.Uint32(name)), uint64(binary.LittleEndian.Uint32(name[n-4:]))
	case n > 0:
		head, tail = uint64(name[0])|uint64(name[n/2])<<8, uint64(name[n-1])
	}
	// Odd constants without structure: the fractional parts of the golden ratio and of √3.
	return (head ^ bits.RotateLeft64(tail*0x9e3779b97f4a7c15, 32) ^ uint64(n)) * 0xbb67ae8584caa73b
}
