package schemas

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ParseCell reads the text of a table's cell as a value of a kind, in the units of [Rows]: a finite decimal number
// (neither NaN nor an infinity is one); any text, as it stands, for a category; true, false, yes, no, 1 or 0 in any
// case for a boolean; YYYY-MM-DD for a date; RFC 3339 or whole milliseconds since 1970 for a timestamp. A blank cell is
// a missing value: NaN and nil. The error shows the text; which cell it is, the caller knows.
func ParseCell(kind Kind, cell string) (number float64, category []byte, err error) {
	text := strings.TrimSpace(cell)
	switch {
	case text == "":
		return math.NaN(), nil, nil
	case kind != Category:
		number, err = parseText(kind, text)
		return number, nil, err
	case !utf8.ValidString(cell):
		return math.NaN(), nil, errors.New("the text is not valid UTF-8")
	default:
		return math.NaN(), []byte(cell), nil
	}
}

// parseText reads the text of a value that is no category; on an error it gives NaN.
func parseText(kind Kind, text string) (float64, error) {
	var x float64
	var want string
	switch kind {
	case Number:
		x, want = parseNumber(text), "finite number such as 12.5"
	case Boolean:
		x, want = parseBoolean(text), "boolean: true, false, yes, no, 1 or 0"
	case Date:
		x, want = parseDate(text), "date such as 2026-03-31"
	case Timestamp:
		x, want = parseTimestamp(text), "timestamp such as 2026-03-31T12:00:00Z or milliseconds since 1970"
	default:
		return math.NaN(), fmt.Errorf("BUG: a %s is not kept as a number", kind)
	}
	if math.IsNaN(x) {
		return x, fmt.Errorf("%.40q is not a %s", text, want)
	}
	return x, nil
}

// The parsers give NaN for a text that they do not understand.

func parseNumber(text string) float64 {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(x, 0) {
		return math.NaN()
	}
	for i := range len(text) { // faster than strings.ContainsAny
		if c := text[i]; c|0x20 == 'x' || c == '_' {
			return math.NaN()
		}
	}
	return x
}

func parseBoolean(text string) float64 {
	switch strings.ToLower(text) {
	case "true", "yes", "1":
		return 1
	case "false", "no", "0":
		return 0
	default:
		return math.NaN()
	}
}

const secondsPerDay = 24 * 60 * 60

func parseDate(text string) float64 {
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return math.NaN()
	}
	return float64(day.Unix() / secondsPerDay) // whole days, so that rounding does not matter
}

func parseTimestamp(text string) float64 {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err == nil {
		return float64(at.UnixMilli())
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < -maxExact || ms > maxExact {
		return math.NaN()
	}
	return float64(ms)
}

// maxExact is the size up to which a float64 holds every whole number.
const maxExact = 1 << 53
