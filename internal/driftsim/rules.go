package main

import (
	"math"
	"time"

	"github.com/churnstream/churnstream/drift"
)

// The rules that are compared, each on the same stream.
const (
	evidenceRule = iota // the one of package drift
	fixedRule           // PSI of the last hour over 0.2, empty places lifted to 1e-4; off below 0.14
	hourlyRule          // once an hour the PSI of that hour over 0.1, empty places lifted to 1e-4
	holdRule            // PSI of the last hour relevant and significant for 15 minutes; off below 0.7 of the limit
	rules
)

var ruleNames = [rules]string{"evidence", "fixed 0.2", "hourly report 0.1", "held 15 min"}

// watch follows one feature by all rules.
type watch struct {
	alarms [rules]alarm
	mark   int
	held   int
	calm   int
	cuts   [len(horizons)]cut
}

type alarm struct {
	on     bool
	raised int // times
	first  int // minute of the first one at or after the onset; -1: none
	cleared,
	lastCleared int
}

func (a *alarm) step(t, onset int, raise, clear bool) {
	switch {
	case a.on && clear:
		a.on = false
		a.cleared++
		a.lastCleared = t
	case !a.on && raise:
		a.on = true
		a.raised++
		if a.first < 0 && t >= onset {
			a.first = t
		}
	}
}

// horizons in minutes, as drift.DefaultWindowConfig has them.
var horizons = [...]int{10, 60, 360, 1440, 10_080}

// begin is the first minute of the window that ends before minute end and may not begin before bound: the rings hold 60
// minutes, behind them whole hours, behind those whole days, and a bucket counts if it begins at or after the bound.
func begin(end, bound int) int {
	down := func(t, width int) int { return t - ((t%width)+width)%width }
	up := func(t, width int) int { return down(t+width-1, width) }
	minutes, hours := end-60, down(end-1, 60)-23*60
	switch {
	case bound >= minutes:
		return bound
	case down(minutes, 60) < bound:
		return minutes
	case up(bound, 60) > hours:
		return up(bound, 60)
	case down(hours, day) < bound:
		return hours
	default:
		return max(up(bound, day), down(end-1, day)-6*day)
	}
}

// windows are the sums over the horizons, moved on minute by minute.
type windows struct {
	features int
	minutes  []minute // ring of a week and a day
	start    [len(horizons)]int
	counts   [len(horizons)][features][places]uint64
	groups   [len(horizons)]drift.Groups
	reach    [len(horizons)]float64 // what the index must pass before the rule can have its evidence
	lasting  [len(horizons)]drift.Lasting
	frozen   *frozen
	classes  [len(horizons)][]uint64
	expected [len(horizons)]drift.Expected
}

func newWindows(features int, frozen *frozen) *windows {
	w := &windows{features: features, frozen: frozen, minutes: make([]minute, week+day)}
	for h := range horizons {
		w.classes[h] = make([]uint64, len(frozen.classes))
		w.expected[h].Shares = make([]float64, places)
	}
	return w
}

func (w *windows) at(t int) *minute { return &w.minutes[t%len(w.minutes)] }

// add takes the minute t, which has been filled in.
func (w *windows) add(t int, needed float64) {
	for h, length := range horizons {
		w.change(h, t, 1)
		for start := max(0, begin(t+1, t+1-length)); w.start[h] < start; w.start[h]++ {
			w.change(h, w.start[h], ^uint64(0))
		}
		w.expected[h] = w.frozen.expect(w.expected[h].Shares, &w.groups[h], w.classes[h])
		w.lasting[h] = drift.Lasting{Design: w.groups[h].DesignEffect(), Length: time.Duration(t+1-w.start[h]) * time.Minute}
	}
	for h := range horizons {
		w.reach[h] = reach(needed, &w.groups[h], w.design(&w.groups[h], w.lasting[h].Length))
	}
}

// reach is a lower bound of the index of windows that have the evidence. Such a window a lies Σ a·ln(a/q) from the mixture
// q = e + t(a−e) whose index is d. That is at most Σ (a−q)·ln(a/q) ≤ (1−t)(w − d/t) for a window of index w, because the
// index of mixtures is convex in t, and so at most (√w − √d)², whatever t is.
func reach(needed float64, groups *drift.Groups, design float64) float64 {
	const shift, nu = 0.1, places - 1
	events := 0.0
	for _, g := range groups {
		events += float64(g)
	}
	customers := events / design
	if customers == 0 {
		return math.Inf(1)
	}
	lambda := shift * customers
	distance := math.Sqrt(nu+lambda+2*math.Sqrt((nu+2*lambda)*needed)+2*needed) - math.Sqrt(lambda)
	root := math.Sqrt(shift) + distance/math.Sqrt(2*customers)
	return root * root
}

func (w *windows) design(groups *drift.Groups, length time.Duration) float64 {
	return groups.DesignEffectWithin(length, w.lasting[:])
}

// unsmoothed is the index of a window of which the reference has a millionth part, as an empty place would make it infinite.
func unsmoothed(counts []uint64, shares []float64) float64 {
	n := 0.0
	for _, c := range counts {
		n += float64(c)
	}
	sum := 0.0
	for i, c := range counts {
		sum += drift.Contribution(shares[i]+(1-1e-6)*(float64(c)/n-shares[i]), shares[i])
	}
	return sum
}

// change adds the minute times sign, which is 1 or -1 as an unsigned number.
func (w *windows) change(h, t int, sign uint64) {
	m := w.at(t)
	for f := range w.features {
		for i, c := range m.counts[f] {
			w.counts[h][f][i] += sign * uint64(c)
		}
	}
	for g, c := range m.groups {
		w.groups[h][g] += sign * uint64(c)
	}
	if w.frozen.divided != nil {
		w.classes[h][m.class] += sign * m.events()
	}
}

// cut is a feature's window that a mark has cut: minutes from start to before end.
type cut struct {
	start, end int
	counts     [places]uint64
	groups     drift.Groups
	classes    []uint64
	shares     []float64
}

// move sums anew, or takes what came and went if the window only moved on.
func (c *cut) move(w *windows, f, start, end int) {
	if c.end > end || c.end <= start || c.start > start {
		*c = cut{start: start, end: start, classes: make([]uint64, len(w.frozen.classes)), shares: make([]float64, places)}
	}
	for ; c.end < end; c.end++ {
		c.change(w.at(c.end), f, 1)
	}
	for ; c.start < start; c.start++ {
		c.change(w.at(c.start), f, ^uint64(0))
	}
}

// change adds the minute times sign, which is 1 or -1 as an unsigned number.
func (c *cut) change(m *minute, f int, sign uint64) {
	for i, n := range m.counts[f] {
		c.counts[i] += sign * uint64(n)
	}
	for g, n := range m.groups {
		c.groups[g] += sign * uint64(n)
	}
	if len(c.classes) > 0 {
		c.classes[m.class] += sign * m.events()
	}
}

// judge is one evaluation of one feature by all rules, after minute t.
func (w *windows) judge(f, t int, at *watch, rule *drift.Rule, s *scenario, significant float64) {
	hour, whole := w.counts[1][f][:], w.frozen.whole.Shares
	if most(hour, whole) < 0.07 { // without a logarithm: no rule raises, and all of one hour clear
		at.alarms[fixedRule].step(t, s.onset, false, true)
		at.alarms[hourlyRule].step(t, s.onset, false, (t+1)%60 == 0)
		at.held = 0
		at.alarms[holdRule].step(t, s.onset, false, true)
	} else {
		w.others(f, t, at, s, whole, significant)
	}

	raise, known := false, false
	for h, length := range horizons {
		counts, groups, expected := &w.counts[h][f], &w.groups[h], &w.expected[h]
		if !at.alarms[evidenceRule].on && at.mark <= w.start[h] && (most(counts[:], expected.Shares) < 0.1 || unsmoothed(counts[:], expected.Shares) < w.reach[h]) {
			continue // the rule has nothing against it, or not enough
		}
		whole := rule.JudgeBy(w.design(groups, w.lasting[h].Length), counts[:], expected.Shares, groups, expected.Customers)
		if at.alarms[evidenceRule].on && !known {
			var calm bool
			if calm, known = rule.Calm(&whole, places); known {
				if at.calm++; !calm {
					at.calm = 0
				}
				if at.calm == 30 {
					at.alarms[evidenceRule].step(t, s.onset, false, true)
					at.calm, at.mark = 0, t+1-length
				}
			}
		}
		if at.alarms[evidenceRule].on || raise {
			if known || raise {
				break
			}
			continue
		}
		if start := begin(t+1, max(at.mark, t+1-length)); start > w.start[h] {
			c := &at.cuts[h]
			c.move(w, f, start, t+1)
			e := w.frozen.expect(c.shares, &c.groups, c.classes)
			whole = rule.JudgeBy(w.design(&c.groups, time.Duration(t+1-start)*time.Minute), c.counts[:], e.Shares, &c.groups, e.Customers)
		}
		raise = whole.State == drift.StateDrifting
	}
	if !at.alarms[evidenceRule].on {
		at.alarms[evidenceRule].step(t, s.onset, raise, false)
		at.calm = 0
	}
}

// most is an upper bound of the PSI of counts against shares, because (a−e)·ln(a/e) is at most (a−e)²/min(a, e).
func most(counts []uint64, shares []float64) float64 {
	n := 0.0
	for _, c := range counts {
		n += float64(c)
	}
	sum := 0.0
	for i, c := range counts {
		a := float64(c) / n
		if c == 0 { // the others smooth it or lift it; the evidence rule takes an empty place almost as it is
			a = 1e-4
			if shares[i] > 1e-3 {
				return math.Inf(1)
			}
		}
		sum += (a - shares[i]) * (a - shares[i]) / min(a, shares[i])
	}
	return sum
}

// others judges by the rules of others.
func (w *windows) others(f, t int, at *watch, s *scenario, shares []float64, significant float64) {
	lifted := liftedIndex(w.counts[1][f][:], shares)
	at.alarms[fixedRule].step(t, s.onset, lifted > 0.2, lifted < 0.14)
	if (t+1)%60 == 0 {
		at.alarms[hourlyRule].step(t, s.onset, lifted > 0.1, lifted <= 0.1)
	}
	w.hold(f, t, at, s, shares, significant)
}

// hold is the rule that was held for fifteen minutes, without a design effect, as its inventors have it.
func (w *windows) hold(f, t int, at *watch, s *scenario, shares []float64, significant float64) {
	counts := w.counts[1][f][:]
	n := 0.0
	for _, c := range counts {
		n += float64(c)
	}
	if n < 10*places {
		at.held = 0
		return
	}
	null := drift.PSINull{Current: n, Reference: s.reference, Places: places}
	psi := 0.0
	for i, c := range counts {
		psi += drift.Contribution((float64(c)+.5)/(n+.5*places), shares[i])
	}
	critical := null.CriticalShift(0.1, 0.01)
	if at.held++; psi <= critical || psi <= significant*(1/n+1/s.reference) {
		at.held = 0
	}
	at.alarms[holdRule].step(t, s.onset, at.held >= 15, psi < 0.7*critical)
}

// liftedIndex is the PSI with empty places lifted to 1e-4 on both sides, as Evidently computes it.
func liftedIndex(counts []uint64, shares []float64) float64 {
	n := 0.0
	for _, c := range counts {
		n += float64(c)
	}
	if n == 0 {
		return 0
	}
	sum := 0.0
	for i, c := range counts {
		sum += drift.Contribution(max(float64(c)/n, 1e-4), max(shares[i], 1e-4))
	}
	return sum
}

func index(a, e []float64) float64 { return drift.PSI(a, e) }

// newRule asks as a worker does.
func newRule() (*drift.Rule, error) {
	return drift.NewRule(drift.DefaultRuleConfig(), drift.Questions{Features: features, Horizons: len(horizons), Every: time.Minute})
}

// significant is the chi-square that chance exceeds with probability 1e-4 shared over the features.
func significant() float64 {
	null := drift.PSINull{Current: 2, Reference: 2, Places: places} // of scale 1
	return null.Critical(1e-4 / features)
}
