package drift

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/churnstream/churnstream/schemas"
)

// PopulationConfig says which buckets make the evaluated windows.
type PopulationConfig struct {
	Window WindowConfig
	// Idle is how far a partition's newest event may lie behind the newest of all before the watermark stops waiting
	// for it. Its buckets still count as far as they are in the window.
	Idle time.Duration
}

// DefaultPopulationConfig is the default window of minutes, waiting five minutes for slow partitions.
func DefaultPopulationConfig() PopulationConfig {
	return PopulationConfig{Window: DefaultWindowConfig(time.Minute), Idle: 5 * time.Minute}
}

// Validate reports all faults at once.
func (c PopulationConfig) Validate() error {
	idle := error(nil)
	if c.Idle < 0 {
		idle = fmt.Errorf("drift.idle: %v is negative, for example 5m", c.Idle)
	}
	return errors.Join(c.Window.Validate(), idle)
}

// Population adds up the states of all partitions of one model, whoever counted them. It is safe for concurrent use.
type Population struct {
	profile *Profile
	digest  string
	cfg     PopulationConfig
	rule    *Rule

	mu         sync.Mutex
	partitions map[sourcePartition]*rings
}

type sourcePartition struct {
	topic     string
	partition int32
}

// NewPopulation returns an empty population of the model with the given digest.
func NewPopulation(profile *Profile, modelDigest string, cfg PopulationConfig, rule RuleConfig) (*Population, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	judge, err := NewRule(rule, Questions{Features: len(profile.Features), Horizons: len(cfg.Window.Horizons), Every: cfg.Window.Rings[0].Width})
	if err != nil {
		return nil, err
	}
	return &Population{
		profile: profile, digest: modelDigest, cfg: cfg, rule: judge,
		partitions: make(map[sourcePartition]*rings),
	}, nil
}

// Rule is what the population is judged by.
func (p *Population) Rule() *Rule { return p.rule }

// Apply takes over the absolute counts of one bucket of one partition. Order does not matter: of two states of one
// bucket the one that counted further wins, and a bucket that a coarser one has absorbed is let go. States of other
// models and widths are ignored.
func (p *Population) Apply(state *schemas.DriftState) error {
	level := p.cfg.Window.level(state.BucketWidth)
	if state.ModelDigest != p.digest || level < 0 {
		return nil
	}
	if err := checkState(state, p.profile, p.cfg.Window.Rings[level].Width.Milliseconds()); err != nil {
		return fmt.Errorf("merge drift of %s/%d, bucket %d: %w", state.Topic, state.Partition, state.BucketStart, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := sourcePartition{state.Topic, state.Partition}
	r := p.partitions[at]
	if r == nil {
		fresh := newRings(p.cfg.Window, p.profile)
		r = &fresh
		p.partitions[at] = r
	}
	r.adopt(level, state, func(int, int64) {})
	return nil
}

// Watermark is the end, in ms of event time, of the newest bucket that every partition has reached, idle ones aside.
// It is false before the first state.
func (p *Population) Watermark() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	latest := int64(noBucket)
	for _, r := range p.partitions {
		latest = max(latest, r.newest)
	}
	if latest == noBucket {
		return 0, false
	}
	start := latest
	for _, r := range p.partitions {
		if r.newest >= latest-p.cfg.Idle.Milliseconds() {
			start = min(start, r.newest)
		}
	}
	return start + p.cfg.Window.finest(), true
}

// Window is the population of a stretch of event time, over all partitions.
type Window struct {
	Horizon    time.Duration // its greatest length
	Start, End int64         // ms; Start is that of its first bucket, End is exclusive
	Events     uint64        // events in it
	Counts     []uint64      // per place of the profile, features one after the other
	Groups     Groups
	Segments   []Groups  // one a segment of the profile
	Classes    []uint64  // events of each class of time, of all events and then of each segment
	Moments    []Moments // one a numeric feature
	Partitions int       // that have events in it
}

func (p *Profile) newWindow(horizon time.Duration, end int64) *Window {
	w := &Window{
		Horizon: horizon, Start: end, End: end,
		Counts: make([]uint64, p.places), Segments: make([]Groups, p.segments), Moments: make([]Moments, p.moments),
		Classes: make([]uint64, p.classes()*(1+p.segments)),
	}
	for i := range w.Moments {
		w.Moments[i] = noMoments()
	}
	return w
}

// EffectiveCustomers is the number of independent customers that the window's events are worth.
func (w *Window) EffectiveCustomers() float64 { return float64(w.Events) / w.Groups.DesignEffect() }

// length is how long it lasts, from its first bucket on.
func (w *Window) length() time.Duration { return time.Duration(w.End-w.Start) * time.Millisecond }

func (w *Window) addCells(c *cells, places int) {
	for place, n := range c.counts[:places] {
		w.Counts[place] += uint64(n)
	}
	groups := c.counts[places:]
	for g, n := range groups[:schemas.DriftGroups] {
		w.Groups[g] += uint64(n)
	}
	for i := range w.Segments {
		groups = groups[schemas.DriftGroups:]
		for g, n := range groups[:schemas.DriftGroups] {
			w.Segments[i][g] += uint64(n)
		}
	}
	for class, n := range groups[schemas.DriftGroups:] {
		w.Classes[class] += uint64(n)
	}
	for i := range w.Moments {
		w.Moments[i].merge(&c.moments[i])
	}
}

func (w *Window) add(other *Window) {
	for place, n := range other.Counts {
		w.Counts[place] += n
	}
	for g, n := range other.Groups {
		w.Groups[g] += n
	}
	for i := range other.Segments {
		for g, n := range other.Segments[i] {
			w.Segments[i][g] += n
		}
	}
	for class, n := range other.Classes {
		w.Classes[class] += n
	}
	for i := range other.Moments {
		w.Moments[i].merge(&other.Moments[i])
	}
	w.Start = min(w.Start, other.Start)
}

// Windows adds up the buckets of the windows that end with the bucket holding at, in ms of event time: one a horizon,
// shortest first. No bucket that starts before since is in any of them.
func (p *Population) Windows(at, since int64) []*Window {
	end := align(at, p.cfg.Window.finest()) + p.cfg.Window.finest()
	windows := make([]*Window, len(p.cfg.Window.Horizons))
	reached := make([][]bool, len(windows)) // by partition, for the count of partitions
	for i, horizon := range p.cfg.Window.Horizons {
		windows[i] = p.profile.newWindow(horizon, end)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range reached {
		reached[i] = make([]bool, len(p.partitions))
	}
	partition := 0
	for _, r := range p.partitions {
		for level := range r.levels {
			for i := range r.levels[level].slots {
				b := &r.levels[level].slots[i]
				if b.start == noBucket || b.start >= end || b.start < since {
					continue
				}
				// The shortest horizon that holds it; the longer ones get it by adding up.
				h := slices.IndexFunc(p.cfg.Window.Horizons, func(h time.Duration) bool { return b.start >= end-h.Milliseconds() })
				if h < 0 {
					continue
				}
				windows[h].addCells(b.cells, p.profile.places)
				windows[h].Start = min(windows[h].Start, b.start)
				reached[h][partition] = true
			}
		}
		partition++
	}
	for h, w := range windows {
		if h > 0 {
			w.add(windows[h-1])
		}
		for partition, here := range reached[h] {
			if here = here || h > 0 && reached[h-1][partition]; here {
				reached[h][partition] = true
				w.Partitions++
			}
		}
		for _, c := range w.Counts[:len(p.profile.Features[0].Labels)] {
			w.Events += c
		}
	}
	return windows
}

// Finding is the judgement on one feature at one evaluation.
type Finding struct {
	Feature    string
	State      State
	Judgements []Judgement // one a horizon, shortest first
	Expected   []Expected  // what each of them compared with
	Standing   int         // the one that State follows from
	Window     *Window     // of that one
	// End is the judgement on the shortest window that holds customers enough to end an alarm, nil if none does; no mark
	// cuts it. Calm says that it does end it.
	End       *Judgement
	EndWindow *Window
	Calm      bool
	Bins      []schemas.BinShift
	// Effect on the mean margin of the scores and how far it moves either way, in nats; 0 where contributions are not known.
	Effect, Either float64
	Summary        Summary
	Comparison     func() Comparison // what other tools would show
}

// Judgement is the one that the finding stands on.
func (f *Finding) Judgement() *Judgement { return &f.Judgements[f.Standing] }

// Evaluation is what one look at the population found, one finding a feature in the profile's order.
type Evaluation struct {
	End      int64     // ms of event time at which all windows end
	Windows  []*Window // one a horizon, shortest first
	Findings []Finding
}

// Evaluate judges every feature over the windows that end with the bucket holding at, in ms of event time; see
// Watermark. marks holds one time a feature, in the profile's order: its windows begin no earlier, since what came before
// belongs to an alarm that was cleared; nil: none has one.
func (p *Population) Evaluate(at int64, marks []int64) Evaluation {
	whole := p.Windows(at, noBucket)
	e := Evaluation{End: whole[0].End, Windows: whole, Findings: make([]Finding, len(p.profile.Features))}
	marked := map[int64][]*Window{}
	for i := range p.profile.Features {
		windows := whole
		if marks != nil && marks[i] > whole[len(whole)-1].Start {
			if marked[marks[i]] == nil {
				marked[marks[i]] = p.Windows(at, marks[i])
			}
			windows = marked[marks[i]]
		}
		e.Findings[i] = p.profile.judge(p.rule, i, windows, whole)
	}
	return e
}

// Judge judges every feature of a window, in the profile's order.
func (p *Profile) Judge(rule *Rule, w *Window) []Finding {
	findings := make([]Finding, len(p.Features))
	windows := []*Window{w}
	for i := range findings {
		findings[i] = p.judge(rule, i, windows, windows)
	}
	return findings
}

// judge judges one feature over its windows; whether it is calm is a question to those that no mark has cut.
func (p *Profile) judge(rule *Rule, feature int, windows, whole []*Window) Finding {
	f := &p.Features[feature]
	finding := Finding{Feature: f.Name, Judgements: make([]Judgement, len(windows)), Expected: make([]Expected, len(windows))}
	lasting := make([]Lasting, len(whole))
	for h, w := range whole {
		_, groups := p.feature(feature, w)
		lasting[h] = Lasting{Design: groups.DesignEffect(), Length: w.length()}
	}
	judge := func(w *Window, expected Expected) Judgement {
		counts, groups := p.feature(feature, w)
		return rule.JudgeBy(groups.DesignEffectWithin(w.length(), lasting), counts, expected.Shares, groups, expected.Customers)
	}
	for h, w := range windows {
		finding.Expected[h] = p.expect(feature, w)
		finding.Judgements[h] = judge(w, finding.Expected[h])
	}
	finding.Standing = standing(finding.Judgements)
	finding.State = finding.Judgement().State
	finding.Window = windows[finding.Standing]
	for h, w := range whole {
		j := &finding.Judgements[h]
		if w != windows[h] {
			judgement := judge(w, p.expect(feature, w))
			j = &judgement
		}
		if calm, known := rule.Calm(j, len(f.Labels)); known {
			finding.End, finding.EndWindow, finding.Calm = j, w, calm
			break
		}
	}
	counts, _ := p.feature(feature, finding.Window)
	shares, expected := AppendShares(make([]float64, 0, len(counts)), counts), finding.Expected[finding.Standing]
	finding.Bins = f.bins(shares, expected.Shares)
	finding.Effect, finding.Either = f.Effect(shares, expected.Shares)
	var moments *Moments
	if f.moment >= 0 {
		moments = &finding.Window.Moments[f.moment]
	}
	finding.Summary = f.Summarize(counts, expected.Counts, moments)
	finding.Comparison = func() Comparison { return f.Compare(counts, finding.Judgement().Customers, expected, moments) }
	return finding
}

// feature gives a feature's counts in a window and the customer groups that they came from.
func (p *Profile) feature(i int, w *Window) (counts []uint64, groups *Groups) {
	f := &p.Features[i]
	groups = &w.Groups
	if f.Segment != nil {
		groups = &w.Segments[p.segment(i)]
	}
	return w.Counts[f.first : f.first+len(f.Labels)], groups
}

// segment is which one a feature is that is one: they are the last features.
func (p *Profile) segment(feature int) int { return p.segments - (len(p.Features) - feature) }

// bins shows reference and window of a feature place by place, in the profile's order.
func (f *Feature) bins(shares, expected []float64) []schemas.BinShift {
	bins := make([]schemas.BinShift, len(shares))
	for i := range bins {
		bins[i] = schemas.BinShift{
			Label: f.Labels[i], Reference: expected[i], Current: shares[i], Contribution: Contribution(shares[i], expected[i]),
		}
	}
	return bins
}
