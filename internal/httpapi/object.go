package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may be nested in a body. Inputs are not nested at all; what is deeper is
// refused before memory is spent on it.
const maxDepth = 16

// jsonText walks a JSON text from start to end once, without building values of it. It holds the text to RFC 8259 as
// encoding/json does, and beyond: valid UTF-8, no half of a surrogate pair, no more nesting than maxDepth.
type jsonText struct {
	b      []byte
	i      int
	depth  int
	before int64 // bytes of the body before b
}

// newJSONText refuses what is not text, and the byte order mark that RFC 8259 forbids.
func newJSONText(b []byte) (jsonText, error) {
	if !utf8.Valid(b) {
		return jsonText{}, errors.New("the text is not valid UTF-8")
	}
	if bytes.HasPrefix(b, []byte("\ufeff")) {
		return jsonText{}, errors.New("the text begins with a byte order mark, which JSON does not allow")
	}
	return jsonText{b: b}, nil
}

// at is the place in the body.
func (t *jsonText) at() int64 { return t.before + int64(t.i) }

func (t *jsonText) fault(want string) error {
	if t.i >= len(t.b) {
		return fmt.Errorf("the JSON text ends at byte %d where %s is expected", t.at(), want)
	}
	return fmt.Errorf("byte %d: %q where %s is expected", t.at(), rune(t.b[t.i]), want)
}

func (t *jsonText) space() {
	for t.i < len(t.b) {
		switch t.b[t.i] {
		case ' ', '\t', '\n', '\r':
			t.i++
		default:
			return
		}
	}
}

// next is the first byte of what follows, 0 at the end.
func (t *jsonText) next() byte {
	t.space()
	if t.i >= len(t.b) {
		return 0
	}
	return t.b[t.i]
}

func (t *jsonText) take(c byte) bool {
	if t.next() != c {
		return false
	}
	t.i++
	return true
}

// end refuses anything behind the value.
func (t *jsonText) end() error {
	if t.space(); t.i < len(t.b) {
		return t.fault("the end of the text")
	}
	return nil
}

// object walks an object and hands every member to visit: the name without its quotes and with its escapes, and the
// text of the value. Both alias the text.
func (t *jsonText) object(visit func(name, value []byte)) error {
	if !t.take('{') {
		return t.fault("an object")
	}
	if t.depth++; t.depth > maxDepth {
		return fmt.Errorf("byte %d: nested deeper than %d", t.at(), maxDepth)
	}
	for first := true; ; first = false {
		if first && t.take('}') {
			break
		}
		name, err := t.string()
		if err != nil {
			return err
		}
		if !t.take(':') {
			return t.fault("':'")
		}
		t.space()
		start := t.i
		if err := t.value(); err != nil {
			return err
		}
		visit(name[1:len(name)-1], t.b[start:t.i:t.i])
		if t.take('}') {
			break
		}
		if !t.take(',') {
			return t.fault("',' or '}'")
		}
	}
	t.depth--
	return nil
}

// array walks an array; each must walk one element.
func (t *jsonText) array(each func() error) error {
	if !t.take('[') {
		return t.fault("an array")
	}
	if t.depth++; t.depth > maxDepth {
		return fmt.Errorf("byte %d: nested deeper than %d", t.at(), maxDepth)
	}
	for first := true; ; first = false {
		if first && t.take(']') {
			break
		}
		if err := each(); err != nil {
			return err
		}
		if t.take(']') {
			break
		}
		if !t.take(',') {
			return t.fault("',' or ']'")
		}
	}
	t.depth--
	return nil
}

func (t *jsonText) value() error {
	switch c := t.next(); {
	case c == '"':
		_, err := t.string()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return t.number()
	case c == '{':
		return t.object(func(_, _ []byte) {})
	case c == '[':
		return t.array(t.value)
	default:
		for _, word := range [...]string{"true", "false", "null"} {
			if bytes.HasPrefix(t.b[t.i:], []byte(word)) {
				t.i += len(word)
				return nil
			}
		}
		return t.fault("a value")
	}
}

// string walks a string and returns it with its quotes.
func (t *jsonText) string() ([]byte, error) {
	if t.next() != '"' {
		return nil, t.fault("a string")
	}
	start := t.i
	for t.i++; t.i < len(t.b); t.i++ {
		switch c := t.b[t.i]; {
		case c == '"':
			t.i++
			return t.b[start:t.i:t.i], nil
		case c == '\\':
			if err := t.escape(); err != nil {
				return nil, err
			}
		case c < ' ':
			return nil, fmt.Errorf("byte %d: a control character in a string", t.at())
		}
	}
	return nil, t.fault("the end of a string")
}

// escape stands on a backslash and leaves at the last byte of the escape.
func (t *jsonText) escape() error {
	if t.i+1 >= len(t.b) {
		t.i++
		return t.fault("an escape")
	}
	t.i++
	switch t.b[t.i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
	default:
		return t.fault("an escape")
	}
	unit, ok := t.unit()
	if !ok {
		return t.fault("four hexadecimal digits of an escape")
	}
	if !utf16.IsSurrogate(unit) {
		return nil
	}
	at := t.at()
	if t.i+2 < len(t.b) && t.b[t.i+1] == '\\' && t.b[t.i+2] == 'u' {
		t.i += 2
		if low, ok := t.unit(); ok && utf16.DecodeRune(unit, low) != utf8.RuneError {
			return nil
		}
	}
	return fmt.Errorf("byte %d: half of a character (a lone surrogate)", at)
}

// unit stands on the u of an escape and leaves at its last digit.
func (t *jsonText) unit() (rune, bool) {
	if t.i+4 >= len(t.b) {
		return 0, false
	}
	var unit rune
	for _, c := range t.b[t.i+1 : t.i+5] {
		switch {
		case c >= '0' && c <= '9':
			unit = unit<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			unit = unit<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	t.i += 4
	return unit, true
}

func (t *jsonText) number() error {
	digits := func() bool {
		start := t.i
		for t.i < len(t.b) && t.b[t.i] >= '0' && t.b[t.i] <= '9' {
			t.i++
		}
		return t.i > start
	}
	if t.b[t.i] == '-' {
		t.i++
	}
	if t.i < len(t.b) && t.b[t.i] == '0' {
		t.i++
	} else if !digits() {
		return t.fault("a digit")
	}
	if t.i < len(t.b) && t.b[t.i] == '.' {
		t.i++
		if !digits() {
			return t.fault("a digit")
		}
	}
	if t.i < len(t.b) && t.b[t.i]|0x20 == 'e' {
		t.i++
		if t.i < len(t.b) && (t.b[t.i] == '+' || t.b[t.i] == '-') {
			t.i++
		}
		if !digits() {
			return t.fault("a digit")
		}
	}
	return nil
}

// unquoted gives the text of a name or string whose quotes are gone. It copies where there are escapes.
func unquoted(inner []byte) []byte {
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var text string
	if json.Unmarshal(bytes.Join([][]byte{{'"'}, inner, {'"'}}, nil), &text) != nil {
		return inner // walked before: it is valid
	}
	return []byte(text)
}
