package schemas

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

// ReadJSON appends one row to rows from JSON values by input name: a number, a boolean, or a string in the form that
// [ParseCell] takes; a timestamp may also be a number of milliseconds. A number is never a string. null and absence
// are a missing value, an empty string is not. Names that the contract does not declare are left alone. On an error,
// which names the input, rows is left as it was.
func (c Contract) ReadJSON(rows *Rows, values map[string]json.RawMessage) error {
	numbers, categories := rows.Row(rows.Append())
	for i, in := range c.Inputs {
		value, ok := values[in.Name]
		if !ok {
			continue
		}
		var err error
		if numbers[i], categories[i], err = ParseJSON(in.Kind, value); err != nil {
			rows.DropLast()
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	return nil
}

// ParseJSON reads one valid JSON value as [Contract.ReadJSON] does: NaN and nil are missing. A category may alias value.
// The error shows the value; whose it is, the caller knows.
func ParseJSON(kind Kind, value []byte) (number float64, category []byte, err error) {
	if kind == Category {
		category, err = jsonCategory(value)
		return math.NaN(), category, err
	}
	number, err = jsonNumber(kind, value)
	return number, nil, err
}

func jsonCategory(value []byte) ([]byte, error) {
	if n := len(value); n >= 2 && value[0] == '"' && bytes.IndexByte(value, '\\') < 0 && utf8.Valid(value) {
		return value[1 : n-1 : n-1], nil
	}
	var text *string
	if err := json.Unmarshal(value, &text); err != nil {
		return nil, fmt.Errorf("%.40s is not a string", value)
	}
	if text == nil {
		return nil, nil
	}
	return append([]byte{}, *text...), nil // not nil for an empty text
}

func jsonNumber(kind Kind, value []byte) (float64, error) {
	first := byte(0)
	if len(value) > 0 {
		first = value[0]
	}
	numeral := first == '-' || first >= '0' && first <= '9'
	switch { // what most values are; the text does not escape, so nothing is allocated
	case string(value) == "null":
		return math.NaN(), nil
	case kind == Number && numeral:
		if x := parseNumber(string(value)); !math.IsNaN(x) {
			return x, nil
		}
	case kind == Boolean:
		switch string(value) {
		case "true", "1", `"true"`, `"yes"`, `"Yes"`:
			return 1, nil
		case "false", "0", `"false"`, `"no"`, `"No"`:
			return 0, nil
		}
	}
	text := string(value)
	switch {
	case first == '"' && kind != Number:
		if err := json.Unmarshal(value, &text); err != nil {
			return math.NaN(), err
		}
		return parseText(kind, text)
	case (text == "true" || text == "false") && kind == Boolean, numeral && kind != Date:
		return parseText(kind, text)
	default:
		return math.NaN(), fmt.Errorf("%.40s is not a %s", text, kind)
	}
}

// AppendJSON appends one row, as in [Rows], as a JSON object that [Contract.ReadJSON] reads back to the same bits. It
// refuses what would not: an infinite number, a category that is not UTF-8, a boolean that is neither 0 nor 1, a part of
// a day or of a millisecond, a year without four digits.
func (c Contract) AppendJSON(dst []byte, numbers []float64, categories [][]byte) ([]byte, error) {
	dst = append(dst, '{')
	for i, in := range c.Inputs {
		if i > 0 {
			dst = append(dst, ',')
		}
		value, err := jsonValue(in.Kind, numbers[i], categories[i])
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", in.Name, err)
		}
		name, err := json.Marshal(in.Name)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", in.Name, err)
		}
		text, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", in.Name, err)
		}
		dst = append(dst, name...)
		dst = append(dst, ':')
		dst = append(dst, text...)
	}
	return append(dst, '}'), nil
}

func jsonValue(kind Kind, x float64, category []byte) (any, error) {
	switch {
	case kind == Category && category == nil, kind != Category && math.IsNaN(x):
		return nil, nil
	case kind == Category && !utf8.Valid(category):
		return nil, fmt.Errorf("%.40q is not valid UTF-8", category)
	case kind == Category:
		return string(category), nil
	case kind == Number:
		return x, nil
	case kind == Boolean && x != 0 && x != 1:
		return nil, fmt.Errorf("%v is not a boolean, 0 or 1", x)
	case kind == Boolean:
		return x != 0, nil
	case x != math.Trunc(x) || math.Abs(x) > maxExact || kind == Date && math.Abs(x) > math.MaxInt32:
		return nil, fmt.Errorf("%v is not a %s in whole units", x, kind)
	case kind == Date:
		return jsonTime(time.Unix(int64(x)*secondsPerDay, 0), time.DateOnly)
	default:
		return jsonTime(time.UnixMilli(int64(x)), time.RFC3339Nano)
	}
}

func jsonTime(t time.Time, layout string) (any, error) {
	t = t.UTC()
	if year := t.Year(); year < 0 || year > 9999 {
		return nil, fmt.Errorf("the year %d has no four digits", year)
	}
	return t.Format(layout), nil
}
