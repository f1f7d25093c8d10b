package tabular

import (
	"fmt"
	"strconv"
	"time"
)

// ParseMoment reads the time of a row, which is no input, in ms since 1970: RFC 3339, a date with or without a time of day,
// both UTC, or milliseconds since 1970.
func ParseMoment(text string) (int64, error) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil && len(text) != len("20060102") {
		return ms, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, time.DateOnly, "20060102"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UnixMilli(), nil
		}
	}
	return 0, fmt.Errorf("%q is no time such as 2026-11-22T08:00:00Z, 2026-11-22 or 1763798400000", text)
}
