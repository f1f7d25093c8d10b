package scoring

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Units of dates.
const (
	unitDays         = "days"         // since 1970-01-01: an input of kind date
	unitMilliseconds = "milliseconds" // since 1970: an input of kind timestamp
	unitDigits       = "yyyymmdd"     // a number such as 20170131
)

const (
	dayMilliseconds = 86_400_000
	daySeconds      = 86_400
)

// inDays returns the function that makes days since 1970 of a number; NaN for what is no date.
func inDays(unit string) (func(float64) float64, error) {
	switch unit {
	case unitDays:
		return func(x float64) float64 { return x }, nil
	case unitMilliseconds:
		return func(x float64) float64 { return x / dayMilliseconds }, nil
	case unitDigits:
		return func(x float64) float64 {
			if !(x >= 10_000_101 && x <= 99_991_231) || x != math.Trunc(x) {
				return nan
			}
			n := int(x)
			year, month, day := n/10_000, n/100%100, n%100
			date := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
			if date.Day() != day || int(date.Month()) != month {
				return nan
			}
			return float64(date.Unix() / daySeconds)
		}, nil
	default:
		return nil, fmt.Errorf("unit: got %.20q, want %s, %s or %s", unit, unitDays, unitMilliseconds, unitDigits)
	}
}

func (t DatePart) compile(c *compiler, in []column, out []string) error {
	if len(in) != 1 || len(out) != len(t.Parts) {
		return fmt.Errorf("%d columns, %d parts and %d outputs, want one column and an output for each part", len(in), len(t.Parts), len(out))
	}
	days, err := inDays(t.Unit)
	if err != nil {
		return err
	}
	for i, name := range t.Parts {
		part, ok := dateParts()[name]
		if !ok {
			return fmt.Errorf("parts[%d]: %.20q is not supported", i, name)
		}
		if err := each(c, in, out[i:i+1], func(int) func(float64) float64 {
			return func(x float64) float64 {
				d := days(x)
				if !(math.Abs(d) <= 4_000_000) { // about the year 12900; also NaN
					return nan
				}
				return part(d)
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

func dateParts() map[string]func(days float64) float64 {
	of := func(part func(time.Time) int) func(float64) float64 {
		return func(days float64) float64 {
			return float64(part(time.UnixMilli(int64(math.Floor(days * dayMilliseconds))).UTC()))
		}
	}
	return map[string]func(float64) float64{
		"year":        of(time.Time.Year),
		"quarter":     of(func(t time.Time) int { return (int(t.Month()) + 2) / 3 }),
		"month":       of(func(t time.Time) int { return int(t.Month()) }),
		"day":         of(time.Time.Day),
		"weekday":     of(func(t time.Time) int { return (int(t.Weekday()) + 6) % 7 }),
		"day_of_year": of(time.Time.YearDay),
		"hour":        of(time.Time.Hour),
		"days":        func(days float64) float64 { return days },
	}
}

func (t DaysBetween) compile(c *compiler, in []column, out []string) error {
	if len(in) != 2 || len(out) != 1 || len(t.Units) != 2 {
		return errors.New("want two columns, two units and one output")
	}
	from, err := numberSlots(in)
	if err != nil {
		return err
	}
	op := &daysBetween{from: [2]int32(from)}
	for i := range op.days {
		if op.days[i], err = inDays(t.Units[i]); err != nil {
			return err
		}
	}
	if op.to, err = c.make(out[0], c.groups.mixed(in[0].group, in[1].group)); err != nil {
		return err
	}
	c.emit(op, from, []int32{op.to})
	return nil
}

type daysBetween struct {
	from [2]int32
	days [2]func(float64) float64
	to   int32
}

func (o *daysBetween) run(f *frame) {
	start, end := f.column(o.from[0]), f.column(o.from[1])
	for r := range f.column(o.to) {
		f.column(o.to)[r] = o.days[1](end[r]) - o.days[0](start[r])
	}
}
