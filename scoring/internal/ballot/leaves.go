package ballot

// Code is the number of each row's leaf: bit r of word b is bit b of row r's.
type Code [8]uint64

// MaxLeaves is how many leaves a code can tell apart.
const MaxLeaves = 256

// Add adds to the sums of the first n rows the leaves that a code names, and something to those of up to seven more.
func Add[S float32 | float64](code *Code, leaves *[MaxLeaves]S, n int, sums *[Rows]S) {
	a, b, c, d, e, f, g, h := code.transposed()
	for k := 0; k < n; k += 8 {
		to := (*[8]S)(sums[k : k+8])
		to[0] += leaves[uint8(a)]
		to[1] += leaves[uint8(b)]
		to[2] += leaves[uint8(c)]
		to[3] += leaves[uint8(d)]
		to[4] += leaves[uint8(e)]
		to[5] += leaves[uint8(f)]
		to[6] += leaves[uint8(g)]
		to[7] += leaves[uint8(h)]
		a, b, c, d, e, f, g, h = a>>8, b>>8, c>>8, d>>8, e>>8, f>>8, g>>8, h>>8
	}
}

// Numbers are the numbers of the rows' leaves.
func (code *Code) Numbers() (numbers [Rows]uint8) {
	var words [8]uint64
	words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7] = code.transposed()
	for r := range numbers {
		numbers[r] = uint8(words[r%8] >> (r / 8 * 8))
	}
	return numbers
}

// transposed gives words of which byte k of word j is the number of row 8k+j's leaf.
func (code *Code) transposed() (a, b, c, d, e, f, g, h uint64) {
	a, b, c, d, e, f, g, h = code[0], code[1], code[2], code[3], code[4], code[5], code[6], code[7]
	// Byte k of the eight words is a square of 8 × 8 bits; all eight are transposed, halves by halves.
	a, b = exchange(a, b, 1, 0x5555555555555555)
	c, d = exchange(c, d, 1, 0x5555555555555555)
	e, f = exchange(e, f, 1, 0x5555555555555555)
	g, h = exchange(g, h, 1, 0x5555555555555555)
	a, c = exchange(a, c, 2, 0x3333333333333333)
	b, d = exchange(b, d, 2, 0x3333333333333333)
	e, g = exchange(e, g, 2, 0x3333333333333333)
	f, h = exchange(f, h, 2, 0x3333333333333333)
	a, e = exchange(a, e, 4, 0x0f0f0f0f0f0f0f0f)
	b, f = exchange(b, f, 4, 0x0f0f0f0f0f0f0f0f)
	c, g = exchange(c, g, 4, 0x0f0f0f0f0f0f0f0f)
	d, h = exchange(d, h, 4, 0x0f0f0f0f0f0f0f0f)
	return a, b, c, d, e, f, g, h
}

// exchange swaps the bits of x at mask<<shift with those of y at mask.
func exchange(x, y uint64, shift uint, mask uint64) (uint64, uint64) {
	t := (x>>shift ^ y) & mask
	return x ^ t<<shift, y ^ t
}
