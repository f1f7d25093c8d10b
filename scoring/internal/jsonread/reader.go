// Package jsonread takes the bytes of a JSON document and gives its values one by one, with the byte
// of every fault. Memory is allocated for what is there, and nesting is bounded: model files come
// from anywhere.
package jsonread

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// Reader reads JSON as the boosting libraries write it: RFC 8259 and the numbers NaN, Infinity,
// -Infinity. Keys that are there twice are the caller's to refuse.
type Reader struct {
	data  []byte
	at    int
	depth int
	limit int // of depth
}

// New reads a document whose arrays and objects are nested at most limit deep.
func New(data []byte, limit int) *Reader { return &Reader{data: data, limit: limit} }

// Kind is what a value is.
type Kind uint8

// The kinds.
const (
	IsObject Kind = iota
	IsArray
	IsText
	IsNumber
	IsOther // true, false, null, or a fault
)

// Fault is a fault of a document's form.
type Fault struct {
	At   int // the byte
	What string
}

func (e *Fault) Error() string { return fmt.Sprintf("byte %d: %s", e.At, e.What) }

// FaultAt makes a fault.
func FaultAt(at int, format string, args ...any) error {
	return &Fault{at, fmt.Sprintf(format, args...)}
}

// At is the byte ahead.
func (r *Reader) At() int { return r.at }

func (r *Reader) space() {
	for r.at < len(r.data) {
		switch r.data[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// peek skips space and returns the next byte.
func (r *Reader) peek() (byte, error) {
	r.space()
	if r.at == len(r.data) {
		return 0, FaultAt(r.at, "the file ends here")
	}
	return r.data[r.at], nil
}

func (r *Reader) expect(c byte) error {
	got, err := r.peek()
	if err != nil {
		return err
	}
	if got != c {
		return FaultAt(r.at, "%q where %q is due", got, c)
	}
	r.at++
	return nil
}

// Next is the kind of the value ahead.
func (r *Reader) Next() (Kind, error) {
	c, err := r.peek()
	switch {
	case err != nil:
		return IsOther, err
	case c == '{':
		return IsObject, nil
	case c == '[':
		return IsArray, nil
	case c == '"':
		return IsText, nil
	case c == '-' || c == 'N' || c == 'I' || c >= '0' && c <= '9':
		return IsNumber, nil
	}
	return IsOther, nil
}

// items reads what stands between two brackets, separated by commas.
func (r *Reader) items(first, last byte, item func(i int) error) error {
	if err := r.expect(first); err != nil {
		return err
	}
	if r.depth++; r.depth > r.limit {
		return FaultAt(r.at, "nested more than %d deep", r.limit)
	}
	defer func() { r.depth-- }()
	if c, err := r.peek(); err != nil {
		return err
	} else if c == last {
		r.at++
		return nil
	}
	for i := 0; ; i++ {
		if err := item(i); err != nil {
			return err
		}
		c, err := r.peek()
		if err != nil {
			return err
		}
		r.at++
		switch c {
		case last:
			return nil
		case ',':
		default:
			return FaultAt(r.at-1, "%q where ',' or %q is due", c, last)
		}
	}
}

// Object calls member with each key; member consumes the value.
func (r *Reader) Object(member func(key []byte) error) error {
	return r.items('{', '}', func(int) error {
		key, err := r.Text()
		if err != nil {
			return err
		}
		if err := r.expect(':'); err != nil {
			return err
		}
		return member(key)
	})
}

// Array calls element with each index; element consumes the value.
func (r *Reader) Array(element func(i int) error) error { return r.items('[', ']', element) }

// Elements is the number of elements of the array ahead, which stays ahead.
func (r *Reader) Elements() (n int, err error) {
	at := r.at
	err = r.Array(func(int) error { n++; return r.Skip() })
	r.at = at
	return n, err
}

// span is a string without its quotes, escapes as they stand.
func (r *Reader) span() (raw []byte, escaped bool, err error) {
	if err := r.expect('"'); err != nil {
		return nil, false, err
	}
	from := r.at
	for r.at < len(r.data) {
		switch c := r.data[r.at]; {
		case c == '"':
			r.at++
			return r.data[from : r.at-1], escaped, nil
		case c == '\\':
			escaped = true
			r.at++
		case c < ' ':
			return nil, false, FaultAt(r.at, "control character in a string")
		}
		r.at++
	}
	r.at = len(r.data)
	return nil, false, FaultAt(r.at, "the file ends inside a string")
}

// Text is a string with its escapes resolved.
func (r *Reader) Text() ([]byte, error) {
	from := r.at
	raw, escaped, err := r.span()
	if err != nil || !escaped {
		return raw, err
	}
	out, ok := unescape(raw)
	if !ok {
		return nil, FaultAt(from, "unknown escape in a string")
	}
	return out, nil
}

// unescape resolves the escapes of JSON. Half of a surrogate pair becomes U+FFFD.
func unescape(raw []byte) ([]byte, bool) {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		if i == len(raw) {
			return nil, false
		}
		if at := bytes.IndexByte([]byte(`"\/bfnrt`), raw[i]); at >= 0 {
			out = append(out, "\"\\/\b\f\n\r\t"[at])
			continue
		}
		unit, ok := hex4(raw[i:])
		if !ok {
			return nil, false
		}
		i += 4
		if unit >= 0xd800 && unit < 0xdc00 && i+1 < len(raw) && raw[i+1] == '\\' {
			if low, ok := hex4(raw[i+2:]); ok && low >= 0xdc00 && low < 0xe000 {
				unit = (unit-0xd800)<<10 + (low - 0xdc00) + 0x10000
				i += 6
			}
		}
		out = utf8.AppendRune(out, unit)
	}
	return out, true
}

// hex4 reads the u1234 of an escape.
func hex4(raw []byte) (rune, bool) {
	if len(raw) < 5 || raw[0] != 'u' {
		return 0, false
	}
	x, err := strconv.ParseUint(string(raw[1:5]), 16, 16)
	return rune(x), err == nil
}

// word is a number or one of true, false, null, NaN, Infinity, as it stands.
func (r *Reader) word() ([]byte, error) {
	if _, err := r.peek(); err != nil {
		return nil, err
	}
	from := r.at
	for r.at < len(r.data) {
		c := r.data[r.at]
		if c >= '0' && c <= '9' || c == '.' || c == '-' || c == '+' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			r.at++
			continue
		}
		break
	}
	if r.at == from {
		return nil, FaultAt(r.at, "%q where a number is due", r.data[r.at])
	}
	if r.at == len(r.data) {
		return nil, FaultAt(r.at, "the file ends inside a number")
	}
	return r.data[from:r.at], nil
}

// Integer takes booleans for 0 and 1.
func (r *Reader) Integer() (int64, error) {
	from := r.at
	w, err := r.word()
	if err != nil {
		return 0, err
	}
	switch string(w) {
	case "true":
		return 1, nil
	case "false":
		return 0, nil
	}
	x, err := strconv.ParseInt(string(w), 10, 64)
	if err != nil {
		return 0, FaultAt(from, "%.40q is not an integer", w)
	}
	return x, nil
}

// Number is a number; bits, 32 or 64, is the width that it is read with.
func (r *Reader) Number(bits int) (float64, error) {
	from := r.at
	w, err := r.word()
	if err != nil {
		return 0, err
	}
	x, err := strconv.ParseFloat(string(w), bits)
	if err != nil || !isNumeral(w) {
		return 0, FaultAt(from, "%.40q is not a number that fits into %d bits", w, bits)
	}
	return x, nil
}

// isNumeral refuses what strconv takes beyond JSON: hexadecimal digits, "inf", a leading plus sign.
func isNumeral(w []byte) bool {
	switch string(w) {
	case "NaN", "Infinity", "-Infinity":
		return true
	}
	for _, c := range w {
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return false
		}
	}
	return w[0] != '+'
}

// count is an upper bound of the elements of an array of numbers, seen from its bracket: one more
// than the commas ahead of the next closing one.
func (r *Reader) count() int {
	rest := r.data[r.at:]
	if end := bytes.IndexByte(rest, ']'); end >= 0 {
		rest = rest[:end]
	}
	return bytes.Count(rest, []byte{','}) + 1
}

// Floats is an array of numbers that fit into 32 bits.
func (r *Reader) Floats() ([]float32, error) {
	out := make([]float32, 0, r.count())
	err := r.Array(func(int) error {
		x, err := r.Number(32)
		out = append(out, float32(x))
		return err
	})
	return out, err
}

// Doubles is an array of numbers.
func (r *Reader) Doubles() ([]float64, error) {
	out := make([]float64, 0, r.count())
	err := r.Array(func(int) error {
		x, err := r.Number(64)
		out = append(out, x)
		return err
	})
	return out, err
}

// Integers is an array of integers or booleans that fit into 32 bits.
func (r *Reader) Integers() ([]int32, error) {
	out := make([]int32, 0, r.count())
	err := r.Array(func(int) error {
		at := r.at
		x, err := r.Integer()
		if err != nil {
			return err
		}
		narrowed, err := Narrow(at, x)
		out = append(out, narrowed)
		return err
	})
	return out, err
}

// Skip reads a value of any kind.
func (r *Reader) Skip() error {
	k, err := r.Next()
	if err != nil {
		return err
	}
	switch k {
	case IsObject:
		return r.Object(func([]byte) error { return r.Skip() })
	case IsArray:
		return r.Array(func(int) error { return r.Skip() })
	case IsText:
		_, _, err := r.span()
		return err
	case IsNumber:
		from := r.at
		w, err := r.word()
		if err == nil && !isNumeral(w) {
			err = FaultAt(from, "%.40q is not a number", w)
		}
		return err
	case IsOther:
	}
	from := r.at
	w, err := r.word()
	if err != nil {
		return err
	}
	switch string(w) {
	case "true", "false", "null":
		return nil
	}
	return FaultAt(from, "%.40q is not a value", w)
}

// End makes sure that nothing follows.
func (r *Reader) End() error {
	if r.space(); r.at < len(r.data) {
		return FaultAt(r.at, "%q behind the end of the model", r.data[r.at])
	}
	return nil
}

// Narrow makes 32 bits of an integer that stood at a byte.
func Narrow(at int, x int64) (int32, error) {
	if x < math.MinInt32 || x > math.MaxInt32 {
		return 0, FaultAt(at, "%d does not fit into 32 bits", x)
	}
	return int32(x), nil
}
