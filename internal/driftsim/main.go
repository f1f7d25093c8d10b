// Command driftsim draws years of events of one model, with and without drift, shows them to the drift rule and to rules
// that others use, and prints how often each raises a false alarm and how late it finds a shift. Seeds are fixed.
package main

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/churnstream/churnstream/drift"
)

// scenario is one line of a table.
type scenario struct {
	name      string
	rate      float64  // events a second, on average of the week's hours
	psi       float64  // of the moved population against the frozen profile
	kinds     []string // of shift; the features take them in turn
	reference float64  // customers of the profile

	// Customers who come again: events each by a geometric law, 5% of them heavy; spread over so many minutes. 0: every
	// event is another customer's.
	events, heavy float64
	spread        int

	bot        float64 // share of one customer's events in all
	swing      float64 // PSI of the population by day from that by night; 0: it is the same all day
	classes    string  // of time that the evidence rule goes by; none: the whole profile
	oneFeature bool    // only the first feature moves
	onset      int     // minute at which the population moves
	lasts      int     // minutes that it stays moved; 0: for good
	ramp       int     // minutes that it takes to move
	runs       int     // model-years, or drifts
	minutes    int     // of a run
}

var allKinds = []string{"tilt", "missing", "new category", "three bins empty", "shift"}

// watched is how many features are drawn and judged: where only the first one moves, the others are left out.
func (s *scenario) watched() int {
	if s.oneFeature {
		return 1
	}
	return features
}

// years are the scenarios in which every alarm is false: the population is never more than just relevantly away.
func years(long bool) []scenario {
	var out []scenario
	add := func(short, full int, s scenario) {
		s.runs, s.minutes, s.kinds = short, yearLong/4, allKinds
		if long {
			s.runs, s.minutes = full, yearLong
		}
		if s.reference == 0 {
			s.reference = 100_000
		}
		if s.runs > 0 {
			out = append(out, s)
		}
	}
	add(1, 2, scenario{name: "every event another customer's", rate: 1})
	add(0, 1, scenario{name: "every event another customer's", rate: 10})
	add(0, 1, scenario{name: "every event another customer's", rate: 100})
	add(1, 2, scenario{name: "every event another customer's", rate: 10, psi: .05})
	add(1, 1, scenario{name: "4 or 30 events in a minute each (D 22)", rate: 1, events: 4, heavy: 30, spread: 1})
	add(1, 1, scenario{name: "3 events in a minute each (D 5)", rate: 1, psi: .05, events: 3, spread: 1})
	add(1, 1, scenario{name: "4 or 30 events in 4 h each (D 22)", rate: 1, psi: .05, events: 4, heavy: 30, spread: 240})
	add(0, 1, scenario{name: "every event another customer's", rate: 1, psi: .08})
	add(0, 1, scenario{name: "profile of 5,000 customers", rate: 10, psi: .08, reference: 5000})
	add(0, 1, scenario{name: "3 events in 4 h each (D 5)", rate: 1, events: 3, spread: 240})
	add(0, 1, scenario{name: "3 events in 4 h each (D 5)", rate: 1, psi: .08, events: 3, spread: 240})
	add(0, 1, scenario{name: "4 or 30 events in a minute each (D 22)", rate: 1, psi: .08, events: 4, heavy: 30, spread: 1})
	add(1, 2, scenario{name: "every event another customer's", rate: 1, psi: .1})
	add(0, 1, scenario{name: "every event another customer's", rate: 10, psi: .1})
	add(0, 1, scenario{name: "3 events in a minute each (D 5)", rate: 1, psi: .1, events: 3, spread: 1})
	add(0, 1, scenario{name: "4 or 30 events in 4 h each (D 22)", rate: 1, psi: .1, events: 4, heavy: 30, spread: 240})
	return out
}

// drifts are the scenarios in which the first feature moves after a week of rest.
func drifts(long bool) []scenario {
	var out []scenario
	add := func(s scenario) {
		s.runs, s.onset, s.minutes, s.oneFeature, s.reference = 15, week, week+2*day, true, 100_000
		if long {
			s.runs, s.minutes = 40, 2*week
		}
		out = append(out, s)
	}
	tilt := []string{"tilt"}
	for _, rate := range []float64{1, 10, 100} {
		for _, psi := range []float64{.15, .25, .5} {
			if long || rate == 10 || psi == .25 && rate == 1 {
				add(scenario{name: "step", rate: rate, psi: psi, kinds: tilt})
			}
		}
	}
	for _, kind := range allKinds[1:] {
		add(scenario{name: "step, " + kind, rate: 10, psi: .25, kinds: []string{kind}})
	}
	for _, psi := range []float64{.25, .5} {
		for _, spread := range []int{1, 240} {
			within := map[int]string{1: "a minute", 240: "4 h"}[spread]
			add(scenario{name: "step, customers of D 5 within " + within, rate: 10, psi: psi, kinds: tilt, events: 3, spread: spread})
			add(scenario{name: "step, customers of D 22 within " + within, rate: 10, psi: psi, kinds: tilt, events: 4, heavy: 30, spread: spread})
		}
	}
	if long {
		add(scenario{name: "ramp of a week", rate: 10, psi: .25, kinds: tilt, ramp: week})
	}
	return out
}

// seasonal are the scenarios in which the population follows the day and the week, as the reference did: every alarm is
// false; and those in which the first feature moves on top of that.
func seasonal(long bool) (quiet, moved []scenario) {
	base := scenario{rate: 10, kinds: []string{"missing"}, reference: 100_000, runs: 1, minutes: yearLong / 12}
	if long {
		base.minutes = yearLong
	}
	add := func(swing float64, classes string) {
		s := base
		s.name, s.swing, s.classes = fmt.Sprintf("PSI %v by day", swing), swing, classes
		quiet = append(quiet, s)
		s.psi, s.oneFeature, s.runs, s.onset, s.minutes = .25, true, 15, week, week+2*day
		if swing == .5 {
			moved = append(moved, s)
		}
	}
	add(.25, "")
	for _, swing := range []float64{.5, 1} {
		add(swing, "")
		add(swing, "weekend/6h")
		add(swing, "weekend/2h")
	}
	clustered, shifted := quiet[2], quiet[2]
	clustered.name, clustered.events, clustered.spread = clustered.name+", 3 events in 4 h each (D 5)", 3, 240
	shifted.name, shifted.psi, shifted.classes, shifted.reference = shifted.name+", profile of 1,000,000 customers", .08, "weekend/1h", 1e6
	return append(quiet, clustered, shifted), moved
}

// episodes are scenarios that end: one alarm, cleared, and no second one; or none at all.
func episodes(long bool) []scenario {
	tilt := []string{"tilt"}
	base := scenario{onset: week, lasts: day, minutes: week + 6*day, oneFeature: true, reference: 100_000, runs: 6, rate: 10, kinds: tilt}
	if long {
		base.runs = 20
	}
	mended, stays, bot := base, base, base
	mended.name, mended.psi = "drift for a day, then mended", .25
	stays.name, stays.psi, stays.lasts = "drift that stays", .15, 0
	bot.name, bot.bot, bot.lasts, bot.events, bot.spread = "one customer sends 20% for 3 h", .2, 180, 1.5, 10
	return []scenario{mended, stays, bot}
}

// result is what the rules did in one scenario.
type result struct {
	raised, cleared [rules]int
	found           [rules][]int // minutes from the onset, one a run; -1: not found
	ended           []int        // minutes from the end of the drift to the clearing, of the evidence rule
	touched         [rules]int   // runs with a raised alarm
	independent     float64      // events worth one customer, at the end
}

func main() {
	long := flag.Bool("long", false, "all scenarios in full, half an hour of one core")
	only := flag.String("only", "", "regular expression that a scenario must match, written as in: ramp of a week, 10/s, PSI 0.25")
	table := flag.String("table", "years,drifts,seasons,episodes", "tables to print")
	workers := flag.Int("workers", runtime.NumCPU(), "scenarios' runs at a time")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "driftsim:", err)
		os.Exit(2)
	}
	began := time.Now()
	for _, name := range strings.Split(*table, ",") {
		switch name {
		case "years":
			err = yearTable(selected(years(*long), match), *workers)
		case "drifts":
			err = driftTable(selected(drifts(*long), match), *workers)
		case "seasons":
			quiet, moved := seasonal(*long)
			if err = yearTable(selected(quiet, match), *workers); err == nil {
				err = driftTable(selected(moved, match), *workers)
			}
		case "episodes":
			err = episodeTable(selected(episodes(*long), match), *workers)
		default:
			err = fmt.Errorf("-table: %q is none of years, drifts, seasons, episodes", name)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "driftsim:", err)
			os.Exit(1)
		}
	}
	fmt.Fprintf(os.Stderr, "driftsim: done after %v\n", time.Since(began).Round(time.Second))
}

func selected(all []scenario, match *regexp.Regexp) []scenario {
	return slices.DeleteFunc(all, func(s scenario) bool {
		return !match.MatchString(fmt.Sprintf("%s, %v/s, PSI %v", s.title(), s.rate, s.psi))
	})
}

// simulate runs a scenario, several runs at a time.
func simulate(s scenario, workers int) (result, error) {
	out := make([]result, s.runs)
	faults := make([]error, s.runs)
	turns := make(chan struct{}, workers)
	var group sync.WaitGroup
	for i := range s.runs {
		turns <- struct{}{}
		group.Go(func() {
			out[i], faults[i] = run(s, uint64(i))
			<-turns
		})
	}
	group.Wait()
	var all result
	for i := range out {
		if faults[i] != nil {
			return all, faults[i]
		}
		for r := range rules {
			all.raised[r] += out[i].raised[r]
			all.cleared[r] += out[i].cleared[r]
			all.touched[r] += min(1, out[i].raised[r])
			all.found[r] = append(all.found[r], out[i].found[r]...)
		}
		all.ended = append(all.ended, out[i].ended...)
		all.independent += out[i].independent / float64(s.runs)
	}
	return all, nil
}

// run is one life of one model.
func run(s scenario, seed uint64) (result, error) {
	random := rand.New(rand.NewPCG(seed, uint64(len(s.name))<<32^uint64(s.rate*1000)^uint64(s.psi*1e6)<<12))
	rule, err := newRule()
	if err != nil {
		return result{}, err
	}
	frozen, err := freeze(&s, random)
	if err != nil {
		return result{}, err
	}
	late := random.IntN(day)
	if s.onset > 0 {
		s.onset += late // at a random minute of the day
		s.minutes += late
	}
	st, w, limit := newStream(s, random, frozen), newWindows(s.watched(), frozen), significant()
	watches := make([]watch, s.watched())
	for f := range watches {
		for r := range rules {
			watches[f].alarms[r].first = -1
		}
	}
	for t := range s.minutes {
		st.next(t, w.at(t))
		w.add(t, rule.Needed)
		if t < 60 {
			continue
		}
		found := 0
		for f := range watches {
			w.judge(f, t, &watches[f], rule, &s, limit)
			for r := range rules {
				found += min(1, watches[f].alarms[r].first+1)
			}
		}
		if s.onset > 0 && s.lasts == 0 && found == rules {
			break
		}
	}
	var out result
	for f := range watches {
		for r := range rules {
			out.raised[r] += watches[f].alarms[r].raised
			out.cleared[r] += watches[f].alarms[r].cleared
		}
	}
	for r := range rules {
		found := -1
		if first := watches[0].alarms[r].first; first >= 0 {
			found = first - s.onset + 1
		}
		out.found[r] = append(out.found[r], found)
	}
	if a := watches[0].alarms[evidenceRule]; a.cleared > 0 && s.lasts > 0 {
		out.ended = append(out.ended, a.lastCleared-s.onset-s.lasts)
	}
	groups := w.groups[2]
	out.independent = groups.DesignEffect()
	return out, nil
}

// title is the scenario's name in a table.
func (s *scenario) title() string {
	switch {
	case s.swing == 0:
		return s.name
	case s.classes == "":
		return s.name + ", whole profile"
	default:
		return s.name + ", " + s.classes
	}
}

// frozen is the reference.
type frozen struct {
	whole   drift.Expected
	divided *drift.Classes // nil: there are none
	classes []drift.Expected
}

// freeze samples the reference, with the classes of time of the scenario from as many weeks as it takes.
func freeze(s *scenario, random *rand.Rand) (*frozen, error) {
	out, weeks := &frozen{}, cycle(s.swing)
	if s.classes != "" {
		var err error
		if out.divided, err = drift.NewClasses(s.classes, "UTC"); err != nil {
			return nil, err
		}
		out.classes = make([]drift.Expected, len(out.divided.Labels))
	}
	// shares and events of the whole and of each class, in which slots weigh as they have events
	whole, events := make([]float64, places), 0.0
	byClass, classEvents := make([][places]float64, len(out.classes)), make([]float64, len(out.classes))
	for slot := range weeks {
		rate, shares := brought(weeks, slot, s.spread)
		events += rate
		for i, p := range shares {
			whole[i] += rate * p
		}
		if out.divided != nil {
			class := out.class(slot * 15)
			classEvents[class] += rate
			for i, p := range shares {
				byClass[class][i] += rate * p
			}
		}
	}
	out.whole = drift.Expected{Shares: sampled(random, whole, s.reference), Customers: s.reference}
	for class := range out.classes {
		customers := math.Round(s.reference * classEvents[class] / events)
		out.classes[class] = drift.Expected{Shares: sampled(random, byClass[class][:], customers), Customers: customers}
	}
	return out, nil
}

// brought is how many events a slot has, and their population: those of customers who began up to spread minutes before.
func brought(weeks [][]float64, slot, spread int) (rate float64, shares []float64) {
	if len(weeks) == 1 || spread < 15 {
		return season(slot * 15), weeks[slot]
	}
	shares = make([]float64, places)
	for before := range spread / 15 {
		begun := (slot - before + len(weeks)) % len(weeks)
		rate += season(begun * 15)
		for i, p := range weeks[begun] {
			shares[i] += season(begun*15) * p
		}
	}
	return rate, normalised(shares)
}

// class is that of a minute since some Monday.
func (r *frozen) class(t int) int {
	if r.divided == nil {
		return 0
	}
	const monday = 4 * day // 5 January 1970
	return r.divided.At(int64(t+monday) * time.Minute.Milliseconds())
}

// expect is what a window is compared with.
func (r *frozen) expect(into []float64, groups *drift.Groups, classes []uint64) drift.Expected {
	total := uint64(0)
	for _, n := range groups {
		total += n
	}
	if r.divided == nil || total == 0 {
		copy(into, r.whole.Shares)
		return drift.Expected{Shares: into, Customers: r.whole.Customers}
	}
	return drift.Expect(into, total, classes, r.classes, r.whole)
}

// events are all of the minute.
func (m *minute) events() (sum uint64) {
	for _, n := range m.groups {
		sum += uint64(n)
	}
	return sum
}

// sampled is the profile or a class of it: shares of so many customers of a population, smoothed.
func sampled(random *rand.Rand, population []float64, customers float64) []float64 {
	shares, rest, left := normalised(population), 1.0, customers
	total := customers + .5*places
	for i, p := range shares {
		n := left
		if i < places-1 {
			n = distuv.Binomial{N: left, P: min(1, p/rest), Src: random}.Rand()
		}
		left -= n
		rest -= p
		shares[i] = (n + .5) / total
	}
	return shares
}

func yearTable(all []scenario, workers int) error {
	fmt.Println("| population, customers | events/s | PSI | D seen | model-years | " + strings.Join(ruleNames[:], " | ") + " |")
	fmt.Println("|---|---|---|---|---|" + strings.Repeat("---|", rules))
	var total [rules]int
	sum := 0.0
	for _, s := range all {
		r, err := simulate(s, workers)
		if err != nil {
			return err
		}
		lived := float64(s.runs) * float64(s.minutes) / yearLong
		sum += lived
		cells := make([]string, rules)
		for i := range rules {
			total[i] += r.raised[i]
			cells[i] = perYear(r.raised[i], lived)
		}
		fmt.Printf("| %s | %v | %v | %.1f | %.2f | %s |\n", s.title(), s.rate, s.psi, r.independent, lived, strings.Join(cells, " | "))
	}
	cells := make([]string, rules)
	for i := range rules {
		cells[i] = fmt.Sprintf("%d: %s", total[i], perYear(total[i], sum))
	}
	fmt.Printf("| **all** | | | | %.2f | %s |\n\n", sum, strings.Join(cells, " | "))
	return nil
}

// perYear is a rate with its exact 95%% Poisson interval.
func perYear(n int, lived float64) string {
	low := 0.0
	if n > 0 {
		low = distuv.ChiSquared{K: 2 * float64(n)}.Quantile(.025) / 2
	}
	high := distuv.ChiSquared{K: 2*float64(n) + 2}.Quantile(.975) / 2
	return fmt.Sprintf("%.3g [%.2g, %.3g]", float64(n)/lived, low/lived, high/lived)
}

func driftTable(all []scenario, workers int) error {
	fmt.Println("| shift | PSI | events/s | drifts | " + strings.Join(ruleNames[:], " | ") + " |")
	fmt.Println("|---|---|---|---|" + strings.Repeat("---|", rules))
	for _, s := range all {
		r, err := simulate(s, workers)
		if err != nil {
			return err
		}
		cells := make([]string, rules)
		for i := range rules {
			cells[i] = quantile(r.found[i], .5) + " / " + quantile(r.found[i], .95)
		}
		fmt.Printf("| %s | %v | %v | %d | %s |\n", s.title(), s.psi, s.rate, s.runs, strings.Join(cells, " | "))
	}
	fmt.Println()
	return nil
}

// quantile of delays, of which those that were not found are the longest.
func quantile(minutes []int, share float64) string {
	sorted := slices.Clone(minutes)
	for i, m := range sorted {
		if m < 0 {
			sorted[i] = math.MaxInt
		}
	}
	slices.Sort(sorted)
	at := sorted[min(len(sorted)-1, int(math.Ceil(share*float64(len(sorted))))-1)]
	switch {
	case at == math.MaxInt:
		return "—"
	case at < 120:
		return fmt.Sprintf("%d min", at)
	case at < 3*day:
		return fmt.Sprintf("%.1f h", float64(at)/60)
	default:
		return fmt.Sprintf("%.1f d", float64(at)/day)
	}
}

func episodeTable(all []scenario, workers int) error {
	fmt.Println("| episode | runs | raised a run: " + strings.Join(ruleNames[:], ", ") + " | cleared a run | cleared after the mend (p50 / p95) |")
	fmt.Println("|---|---|---|---|---|")
	for _, s := range all {
		r, err := simulate(s, workers)
		if err != nil {
			return err
		}
		raised := make([]string, rules)
		for i := range rules {
			raised[i] = fmt.Sprintf("%.2f", float64(r.raised[i])/float64(s.runs))
		}
		ended := "—"
		if len(r.ended) > 0 {
			ended = quantile(r.ended, .5) + " / " + quantile(r.ended, .95)
		}
		fmt.Printf("| %s | %d | %s | %.2f | %s |\n", s.name, s.runs, strings.Join(raised, ", "), float64(r.cleared[evidenceRule])/float64(s.runs), ended)
	}
	fmt.Println()
	return nil
}
