package scoring

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/churnstream/churnstream/schemas"
)

// ParseNumber reads the text form of a value that is no category into the unit of [schemas.Rows]:
// a number such as 12.5, a boolean as true/false, yes/no or 1/0 in any case, a date as 2006-01-02,
// a timestamp as RFC 3339.
func ParseNumber(kind schemas.Kind, text string) (float64, error) {
	switch kind {
	case schemas.Number:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || !finite(x) || strings.ContainsAny(text, "xX_") {
			return 0, fmt.Errorf("%.40q is not a finite number such as 12.5", text)
		}
		return x, nil
	case schemas.Boolean:
		switch strings.ToLower(text) {
		case "true", "yes", "1":
			return 1, nil
		case "false", "no", "0":
			return 0, nil
		}
		return 0, fmt.Errorf("%.40q is not a boolean such as true, yes or 1", text)
	case schemas.Date:
		t, err := time.Parse(time.DateOnly, text)
		if err != nil {
			return 0, fmt.Errorf("%.40q is not a date such as 2026-01-31", text)
		}
		return float64(t.Unix() / secondsPerDay), nil
	case schemas.Timestamp:
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return 0, fmt.Errorf("%.40q is not a timestamp such as 2026-01-31T12:00:00Z", text)
		}
		return float64(t.UnixMilli()), nil
	default:
		return 0, fmt.Errorf("BUG: a %s is not kept as a number", kind)
	}
}

const secondsPerDay = 24 * 60 * 60

// AppendJSONRow appends one row to rows from a JSON object of input name to value: a JSON number, a
// boolean, or a string in the form of [ParseNumber]; null and absence are a missing value. Names
// that the contract does not declare are skipped, or refused if strict. On an error, which names
// the input, rows is left as it was.
func AppendJSONRow(rows *schemas.Rows, contract schemas.Contract, object []byte, strict bool) error {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(object, &values); err != nil {
		return fmt.Errorf("not a JSON object of input values: %w", err)
	}
	if values == nil {
		return errors.New("not a JSON object of input values: null")
	}
	row := rows.Append()
	numbers, categories := rows.Row(row)
	found := 0
	for i, in := range contract.Inputs {
		value, ok := values[in.Name]
		if !ok {
			continue
		}
		found++
		var err error
		if in.Kind == schemas.Category {
			categories[i], err = jsonCategory(value)
		} else {
			numbers[i], err = jsonNumber(in.Kind, value)
		}
		if err != nil {
			rows.DropLast()
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	if strict && found < len(values) {
		rows.DropLast()
		for _, name := range sortedKeys(values) {
			if contract.Index(name) < 0 {
				return fmt.Errorf("input %.60q is not declared", name)
			}
		}
	}
	return nil
}

func jsonCategory(value json.RawMessage) ([]byte, error) {
	var text *string
	if err := json.Unmarshal(value, &text); err != nil {
		return nil, fmt.Errorf("%.40s is not a string", value)
	}
	if text == nil {
		return nil, nil
	}
	return append([]byte{}, *text...), nil // not nil for an empty text
}

func jsonNumber(kind schemas.Kind, value json.RawMessage) (float64, error) {
	switch {
	case string(value) == "null":
		return nan, nil
	case kind == schemas.Boolean && (string(value) == "true" || string(value) == "false"):
		return ParseNumber(kind, string(value))
	case value[0] == '"' && kind != schemas.Number:
		var text string
		if err := json.Unmarshal(value, &text); err != nil {
			return 0, err
		}
		return ParseNumber(kind, text)
	case (kind == schemas.Number || kind == schemas.Boolean) && strings.IndexByte("-0123456789", value[0]) >= 0:
		return ParseNumber(kind, string(value))
	default:
		return 0, fmt.Errorf("%.40s is not a %s", value, kind)
	}
}

// appendJSONRow is the inverse of AppendJSONRow.
func appendJSONRow(dst []byte, contract schemas.Contract, numbers []float64, categories [][]byte) ([]byte, error) {
	dst = append(dst, '{')
	for i, in := range contract.Inputs {
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

func jsonValue(kind schemas.Kind, x float64, category []byte) (any, error) {
	switch {
	case kind == schemas.Category && category == nil, kind != schemas.Category && math.IsNaN(x):
		return nil, nil
	case kind == schemas.Category && !utf8.Valid(category):
		return nil, fmt.Errorf("%.40q is not valid UTF-8", category)
	case kind == schemas.Category:
		return string(category), nil
	case kind == schemas.Number:
		return x, nil
	case x != math.Trunc(x) || math.Abs(x) > 1<<53:
		return nil, fmt.Errorf("%v is not a %s in whole units", x, kind)
	case kind == schemas.Boolean:
		return x != 0, nil
	case kind == schemas.Date:
		return time.Unix(int64(x)*secondsPerDay, 0).UTC().Format(time.DateOnly), nil
	default:
		return time.UnixMilli(int64(x)).UTC().Format(time.RFC3339Nano), nil
	}
}
