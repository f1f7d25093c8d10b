package schemas

import (
	"math"
	"math/big"
	"strconv"
)

// maxDecimalBytes is more than a finite float64 needs: 2^1024 has 128 bytes and a sign.
const maxDecimalBytes = 129

// exactPowers are the powers of ten that a float64 holds exactly.
var exactPowers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// decimal gives the float64 that is nearest to a decimal: a big-endian two's complement number with scale digits behind
// the point. No bytes are 0, as in Java's reader of the schema's own default; what is too large is an infinity, which no
// contract takes.
func decimal(b []byte, scale int) float64 {
	for len(b) > 1 && (b[0] == 0 && b[1] < 0x80 || b[0] == 0xff && b[1] >= 0x80) {
		b = b[1:] // says the sign again
	}
	if len(b) <= 8 {
		var v int64
		if len(b) > 0 && b[0] >= 0x80 {
			v = -1
		}
		for _, digit := range b {
			v = v<<8 | int64(digit)
		}
		// Both are exact, so that the division rounds once.
		if v >= -maxExact && v <= maxExact && scale < len(exactPowers) {
			return float64(v) / exactPowers[scale]
		}
		text := strconv.AppendInt(make([]byte, 0, 32), v, 10)
		return parseDecimal(text, scale)
	}
	if len(b) > maxDecimalBytes {
		if b[0] >= 0x80 {
			return math.Inf(-1)
		}
		return math.Inf(1)
	}
	unscaled := new(big.Int).SetBytes(b)
	if b[0] >= 0x80 {
		unscaled.Sub(unscaled, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return parseDecimal(unscaled.Append(make([]byte, 0, 352), 10), scale)
}

func parseDecimal(text []byte, scale int) float64 {
	text = append(text, 'e', '-')
	x, _ := strconv.ParseFloat(string(strconv.AppendInt(text, int64(scale), 10)), 64) // the only error is a value out of range, an infinity
	return x
}
