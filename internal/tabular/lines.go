package tabular

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/churnstream/churnstream/schemas"
)

// longestLine bounds the memory for one line.
const longestLine = 16 << 20

// Lines reads one JSON object, a line each, after another: values by input name, in the forms of
// [schemas.Contract.ReadJSON]. Blank lines are skipped. It is not safe for concurrent use.
type Lines struct {
	scanner  *bufio.Scanner
	contract schemas.Contract
	fields   map[string]json.RawMessage // of the row read last
	match    *match                     // nil: an input that no object has is a missing value
	row      int
	line     int
}

// NewLines reads objects from r. Fields that no input reads are left to [Lines.Cell].
func NewLines(r io.Reader, contract schemas.Contract) *Lines {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), longestLine)
	return &Lines{scanner: s, contract: contract, row: -1}
}

// Read appends the next object to rows and returns io.EOF after the last. null and absence are a missing value. On an
// error, rows is left as it was.
func (l *Lines) Read(rows *schemas.Rows) error {
	text, err := l.next()
	if errors.Is(err, io.EOF) {
		if l.match != nil && l.row >= 0 {
			if absent := l.match.absent("JSON lines", "key in any row (write null for a missing value)"); absent != nil {
				return absent
			}
		}
		return io.EOF
	}
	if err == nil {
		err = l.read(text, rows)
	}
	if err != nil {
		return l.at(err)
	}
	return nil
}

// Cell returns a field of the object read last that is a string; ok is false if there is none of that name.
func (l *Lines) Cell(field string) (text string, ok bool) {
	value, ok := l.fields[field]
	if !ok || json.Unmarshal(value, &text) != nil {
		return "", false
	}
	return text, true
}

// Fault makes an error of the object read last that names the place of a field.
func (l *Lines) Fault(field string, err error) error {
	return l.at(fmt.Errorf("field %q: %w", field, err))
}

func (l *Lines) at(err error) error {
	return fmt.Errorf("row %d (line %d): %w", l.row, l.line, err)
}

// next gives the next line that is not blank.
func (l *Lines) next() ([]byte, error) {
	for l.scanner.Scan() {
		l.line++
		if text := bytes.TrimSpace(l.scanner.Bytes()); len(text) > 0 {
			l.row++
			return text, nil
		}
	}
	err := l.scanner.Err()
	if err == nil {
		return nil, io.EOF
	}
	l.row++
	l.line++
	if errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("longer than %d bytes", longestLine)
	}
	return nil, err
}

func (l *Lines) read(text []byte, rows *schemas.Rows) error {
	if !utf8.Valid(text) {
		return errors.New("not valid UTF-8")
	}
	clear(l.fields)
	if err := json.Unmarshal(text, &l.fields); err != nil {
		return fmt.Errorf("not a JSON object of input values: %w", err)
	}
	if l.fields == nil {
		return errors.New("not a JSON object of input values: null")
	}
	members, err := inspect(text)
	if err != nil {
		return err
	}
	if members != len(l.fields) {
		return fmt.Errorf("the key %q occurs twice in the object; which of the values is meant cannot be known", repeated(text))
	}
	if l.match != nil {
		if err := l.match.keys(l.fields); err != nil {
			return err
		}
	}
	if err := l.contract.ReadJSON(rows, l.fields); err != nil {
		return err
	}
	numbers, categories := rows.Row(rows.Len() - 1)
	for i := range l.contract.Inputs {
		in := &l.contract.Inputs[i]
		if err := in.Check(numbers[i], categories[i]); err != nil {
			rows.DropLast()
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	return nil
}

// inspect looks at what encoding/json lets pass: it counts the members of an object, of which a repeated one would hide
// another, and refuses an escape that is half a character, which would become another text. The object must be valid.
func inspect(object []byte) (members int, err error) {
	depth, quoted := 0, false
	for i := 0; i < len(object); i++ {
		switch c := object[i]; {
		case quoted && c == '\\':
			i++
			if object[i] != 'u' {
				continue
			}
			at := i - 1
			i += 4
			switch r := escaped(object[at:]); {
			case !utf16.IsSurrogate(r):
			case utf16.DecodeRune(r, escaped(object[i+1:])) == utf8.RuneError:
				return 0, fmt.Errorf("%s is half of a character (a lone surrogate): not valid text", object[at:at+6])
			default:
				i += 6
			}
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == ':' && depth == 1:
			members++
		}
	}
	return members, nil
}

// escaped returns the code unit of an escape such as \u00e9 that text begins with, -1 without one.
func escaped(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(unit)
}

// repeated returns the first key of a valid object that occurred before.
func repeated(object []byte) string {
	d := json.NewDecoder(bytes.NewReader(object))
	seen := make(map[string]bool)
	var value json.RawMessage
	for _, err := d.Token(); err == nil && d.More(); err = d.Decode(&value) {
		token, _ := d.Token()
		key, _ := token.(string)
		if seen[key] {
			return key
		}
		seen[key] = true
	}
	return ""
}
