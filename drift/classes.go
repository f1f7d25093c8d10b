package drift

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Classes divide event time by weekday and hour of a time zone, where customers of one hour are others than those of
// another. A profile that has them holds the reference population once more for each class, so that Monday's nine o'clock
// is compared with Mondays' nine o'clock. They are immutable.
type Classes struct {
	By     string   // as NewClasses takes it
	Zone   string   // name in the IANA time zone database
	Labels []string // one a class

	location *time.Location
	days     [7]int // which group of days a weekday is in, Monday first
	hours    int    // width of a group of hours, 24: hours make no difference
}

// NewClasses takes a division such as weekend/6h and the name of a time zone such as Europe/Berlin or UTC. The division
// has one or both of these parts: weekdays (seven groups of days) or weekend (two: Monday to Friday, Saturday and Sunday);
// a width of 1h, 2h, 3h, 4h, 6h, 8h or 12h, by which the day is cut from midnight on.
func NewClasses(by, zone string) (*Classes, error) {
	c := &Classes{By: by, Zone: zone, hours: 24}
	names, hours, both := strings.Cut(by, "/")
	days := []string{""}
	switch names {
	case "weekdays":
		days = []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}
		c.days = [7]int{0, 1, 2, 3, 4, 5, 6}
	case "weekend":
		days = []string{"Mon-Fri", "Sat-Sun"}
		c.days = [7]int{5: 1, 6: 1}
	default:
		if both {
			return nil, fmt.Errorf("classes: %q is not a division of time such as weekend/6h, weekdays or 1h", by)
		}
		hours, both = names, true
	}
	if both {
		width, err := strconv.Atoi(strings.TrimSuffix(hours, "h"))
		if err != nil || hours != strconv.Itoa(width)+"h" || !slices.Contains([]int{1, 2, 3, 4, 6, 8, 12}, width) {
			return nil, fmt.Errorf("classes: %q is not a division of time such as weekend/6h, weekdays or 1h", by)
		}
		c.hours = width
	}
	for _, day := range days {
		for hour := 0; hour < 24; hour += c.hours {
			label := day
			if c.hours < 24 {
				label = strings.TrimSpace(fmt.Sprintf("%s %02d-%02dh", day, hour, hour+c.hours))
			}
			c.Labels = append(c.Labels, label)
		}
	}
	var err error
	if zone == "" || zone == "Local" {
		err = errors.New("it means another zone on every machine")
	} else {
		c.location, err = time.LoadLocation(zone)
	}
	if err != nil {
		return nil, fmt.Errorf("classes: the time zone %q: %w; name one such as UTC or Europe/Berlin", zone, err)
	}
	return c, nil
}

// classStep is the time within which the class does not change: clocks differ from UTC by whole quarters of an hour.
const classStep = int64(15 * time.Minute / time.Millisecond)

// At is the class of a time in ms since 1970. A time has the class of the quarter of an hour, UTC, that it lies in.
func (c *Classes) At(t int64) int {
	at := time.UnixMilli(align(t, classStep)).In(c.location)
	monday := (int(at.Weekday()) + 6) % 7
	return c.days[monday]*(24/c.hours) + at.Hour()/c.hours
}

// noClass is the class of an event without a time, and of every event where there are no classes.
const noClass = -1

// classFinder is At for times that follow each other: it remembers the last quarter of an hour.
type classFinder struct {
	classes *Classes // nil: there are none
	start   int64
	class   int
}

func newClassFinder(c *Classes) classFinder { return classFinder{classes: c, start: noBucket} }

func (f *classFinder) at(t int64) int {
	if f.classes == nil {
		return noClass
	}
	if t < f.start || t >= f.start+classStep {
		f.start, f.class = align(t, classStep), f.classes.At(t)
	}
	return f.class
}

// Expected is what a window is compared with.
type Expected struct {
	Shares    []float64 // one a place, none 0
	Customers float64   // independent ones of the reference that the shares rest on
	Counts    []uint64  // reference rows per place; of several classes: as many as would give the shares
}

// Expect gives what is expected of total events, of which so many are of each class: the events of a class by the class's
// own reference, events without a class by the whole. Without a shift every event has the shares of its class, so that the
// counts spread no more about the mixed shares than independent events of these shares would: whatever holds for a window of
// one population holds for it. The mixed shares are as noisy as those of 1/Σ(w²/M) customers, with parts w of the window that
// rest on M customers each, so that a class of few reference rows makes the reference of a window insufficient if much of the
// window is in it, and else does not matter. Shares are written into the given memory; there are no counts.
func Expect(into []float64, total uint64, events []uint64, classes []Expected, whole Expected) Expected {
	clear(into)
	noise, rest := 0.0, total
	take := func(n uint64, e *Expected) {
		part := float64(n) / float64(total)
		for place, share := range e.Shares {
			into[place] += part * share
		}
		noise += part * part / e.Customers
	}
	for class, n := range events {
		if n > 0 {
			take(n, &classes[class])
			rest -= n
		}
	}
	if rest > 0 {
		take(rest, &whole)
	}
	return Expected{Shares: into, Customers: 1 / noise}
}

// expect gives what is expected of a feature in a window.
func (p *Profile) expect(i int, w *Window) Expected {
	f := &p.Features[i]
	if p.Classes == nil {
		return f.whole
	}
	events, n := w.Classes[:p.classes()], w.Events
	if f.Segment != nil {
		at := 1 + p.segment(i)
		events, n = w.Classes[at*p.classes():(at+1)*p.classes()], 0
		for _, c := range w.Counts[f.first : f.first+len(f.Labels)] {
			n += c
		}
	}
	if n == 0 {
		return f.whole
	}
	e := Expect(make([]float64, len(f.Labels)), n, events, f.classes, f.whole)
	e.Counts = make([]uint64, len(e.Shares))
	for place, share := range e.Shares {
		e.Counts[place] = uint64(math.Round(share * e.Customers * p.DesignEffect))
	}
	return e
}

// classes is their number, 0 if there are none.
func (p *Profile) classes() int {
	if p.Classes == nil {
		return 0
	}
	return len(p.Classes.Labels)
}

// ThinClass is a class of time of which the reference holds too few customers: of windows within it nothing can be said of
// some features.
type ThinClass struct {
	Label    string
	Events   uint64 // reference rows of the class
	Features int    // of which nothing can be said
}

// ThinClasses are all of them, in the order of the classes, by what the default rule asks of a reference.
func (p *Profile) ThinClasses() []ThinClass {
	var thin []ThinClass
	for class := range p.classes() {
		t := ThinClass{Label: p.Classes.Labels[class], Events: p.ClassEvents[class]}
		for i := range p.Features {
			if f := &p.Features[i]; !DefaultRuleConfig().knows(f.classes[class].Customers, len(f.Labels)) {
				t.Features++
			}
		}
		if t.Features > 0 {
			thin = append(thin, t)
		}
	}
	return thin
}
