package schemas

import (
	"math"
	"strconv"
	"strings"
	"testing"
)

func TestCellsBecomeValues(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		kind   Kind
		text   string
		number float64
		word   string // expected in the error
	}{
		{Number, "12.5", 12.5, ""},
		{Number, " -3e2 ", -300, ""},
		{Number, "", nan, ""},
		{Number, "  ", nan, ""},
		{Number, "nan", nan, "finite number"},
		{Number, "inf", nan, "finite number"},
		{Number, "-Infinity", nan, "finite number"},
		{Number, "1_000", nan, "finite number"},
		{Number, "1e999", nan, "finite number"},
		{Number, "0x10p1", nan, "finite number"},
		{Number, "12,5", nan, "finite number"},
		{Boolean, "true", 1, ""},
		{Boolean, "No", 0, ""},
		{Boolean, "YES", 1, ""},
		{Boolean, "0", 0, ""},
		{Boolean, "1", 1, ""},
		{Boolean, " False ", 0, ""},
		{Boolean, "", nan, ""},
		{Boolean, "2", nan, "yes, no"},
		{Date, "1970-01-02", 1, ""},
		{Date, "1969-12-31", -1, ""},
		{Date, "", nan, ""},
		{Date, "2026-02-30", nan, "2026-03-31"},
		{Date, "02/01/1970", nan, "2026-03-31"},
		{Timestamp, "1970-01-01T01:00:00.5+01:00", 500, ""},
		{Timestamp, "-12", -12, ""},
		{Timestamp, "", nan, ""},
		{Timestamp, "9007199254740992", 1 << 53, ""},
		{Timestamp, "9007199254740993", nan, "milliseconds"}, // float64 would make another one of it
		{Timestamp, "-9007199254740993", nan, "milliseconds"},
		{Timestamp, "1.5", nan, "milliseconds"},
		{Timestamp, "yesterday", nan, "milliseconds"},
	} {
		number, category, err := ParseCell(c.kind, c.text)
		if c.word != "" {
			if err == nil || !strings.Contains(err.Error(), c.word) || !strings.Contains(err.Error(), strconv.Quote(c.text)) {
				t.Errorf("%s %q: %v", c.kind, c.text, err)
			}
			continue
		}
		if err != nil || category != nil || !sameRow([]float64{number}, []float64{c.number}) {
			t.Errorf("%s %q: got %v %q %v, want %v", c.kind, c.text, number, category, err, c.number)
		}
	}
	if _, category, err := ParseCell(Category, " a "); err != nil || string(category) != " a " {
		t.Errorf("%q %v", category, err)
	}
	for _, blank := range []string{"", " ", "\t "} {
		if _, category, err := ParseCell(Category, blank); err != nil || category != nil {
			t.Errorf("%q: %q %v", blank, category, err)
		}
	}
	if _, _, err := ParseCell(Category, "\xff"); err == nil {
		t.Error("bytes that are not text are accepted")
	}
	if _, _, err := ParseCell(0, "1"); err == nil {
		t.Error("a kind that is none is accepted")
	}
}
