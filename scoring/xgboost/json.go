package xgboost

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// jsonReader reads JSON as XGBoost writes it: RFC 8259 and the numbers NaN, Infinity, -Infinity.
type jsonReader struct {
	data  []byte
	at    int
	depth int
}

func (r *jsonReader) space() {
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
func (r *jsonReader) peek() (byte, error) {
	r.space()
	if r.at == len(r.data) {
		return 0, faultAt(r.at, "the file ends here")
	}
	return r.data[r.at], nil
}

func (r *jsonReader) expect(c byte) error {
	got, err := r.peek()
	if err != nil {
		return err
	}
	if got != c {
		return faultAt(r.at, "%q where %q is due", got, c)
	}
	r.at++
	return nil
}

func (r *jsonReader) next() (kind, error) {
	c, err := r.peek()
	switch {
	case err != nil:
		return isOther, err
	case c == '{':
		return isObject, nil
	case c == '[':
		return isArray, nil
	case c == '"':
		return isText, nil
	case c == '-' || c == 'N' || c == 'I' || c >= '0' && c <= '9':
		return isNumber, nil
	}
	return isOther, nil
}

// items reads what stands between two brackets, separated by commas.
func (r *jsonReader) items(first, last byte, item func(i int) error) error {
	if err := r.expect(first); err != nil {
		return err
	}
	if r.depth++; r.depth > maxDepth {
		return faultAt(r.at, "nested more than %d deep", maxDepth)
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
			return faultAt(r.at-1, "%q where ',' or %q is due", c, last)
		}
	}
}

func (r *jsonReader) object(member func(key []byte) error) error {
	return r.items('{', '}', func(int) error {
		key, err := r.text()
		if err != nil {
			return err
		}
		if err := r.expect(':'); err != nil {
			return err
		}
		return member(key)
	})
}

func (r *jsonReader) array(element func(i int) error) error { return r.items('[', ']', element) }

// span is a string without its quotes, escapes as they stand.
func (r *jsonReader) span() (raw []byte, escaped bool, err error) {
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
			return nil, false, faultAt(r.at, "control character in a string")
		}
		r.at++
	}
	r.at = len(r.data)
	return nil, false, faultAt(r.at, "the file ends inside a string")
}

func (r *jsonReader) text() ([]byte, error) {
	from := r.at
	raw, escaped, err := r.span()
	if err != nil || !escaped {
		return raw, err
	}
	out, ok := unescape(raw)
	if !ok {
		return nil, faultAt(from, "unknown escape in a string")
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
func (r *jsonReader) word() ([]byte, error) {
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
		return nil, faultAt(r.at, "%q where a number is due", r.data[r.at])
	}
	if r.at == len(r.data) {
		return nil, faultAt(r.at, "the file ends inside a number")
	}
	return r.data[from:r.at], nil
}

func (r *jsonReader) integer() (int64, error) {
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
		return 0, faultAt(from, "%.40q is not an integer", w)
	}
	return x, nil
}

func (r *jsonReader) float() (float32, error) {
	from := r.at
	w, err := r.word()
	if err != nil {
		return 0, err
	}
	x, err := strconv.ParseFloat(string(w), 32)
	if err != nil || !isNumeral(w) {
		return 0, faultAt(from, "%.40q is not a number that fits into 32 bits", w)
	}
	return float32(x), nil
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
func (r *jsonReader) count() int {
	rest := r.data[r.at:]
	if end := bytes.IndexByte(rest, ']'); end >= 0 {
		rest = rest[:end]
	}
	return bytes.Count(rest, []byte{','}) + 1
}

func (r *jsonReader) floats() ([]float32, error) {
	out := make([]float32, 0, r.count())
	err := r.array(func(int) error {
		x, err := r.float()
		out = append(out, x)
		return err
	})
	return out, err
}

func (r *jsonReader) integers() ([]int32, error) {
	out := make([]int32, 0, r.count())
	err := r.array(func(int) error {
		at := r.at
		x, err := r.integer()
		if err != nil {
			return err
		}
		narrowed, err := narrow(at, x)
		out = append(out, narrowed)
		return err
	})
	return out, err
}

func (r *jsonReader) skip() error {
	k, err := r.next()
	if err != nil {
		return err
	}
	switch k {
	case isObject:
		return r.object(func([]byte) error { return r.skip() })
	case isArray:
		return r.array(func(int) error { return r.skip() })
	case isText:
		_, _, err := r.span()
		return err
	case isNumber:
		from := r.at
		w, err := r.word()
		if err == nil && !isNumeral(w) {
			err = faultAt(from, "%.40q is not a number", w)
		}
		return err
	case isOther:
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
	return faultAt(from, "%.40q is not a value", w)
}

func (r *jsonReader) end() error {
	if r.space(); r.at < len(r.data) {
		return faultAt(r.at, "%q behind the end of the model", r.data[r.at])
	}
	return nil
}
