package drift

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/churnstream/churnstream/schemas"
)

// ProfileFormat is the version of the profile file that this package writes and the only one that it reads.
const ProfileFormat = 1

// Names of the features that no input may have: the model's probability, which follows the inputs in every profile, and
// the decision by the model's threshold, whose places are retain and churn.
const (
	ScoreFeature    = "score"
	DecisionFeature = "decision"
)

// Names of the places beside bins and categories. A category that is literally called so is shown in quotes.
const (
	placeMissing = "missing"
	placeUnseen  = "unseen"
	placeOther   = "other"
)

// Limits of a profile. They bound what a hostile file can make a reader allocate and how many series a worker exports.
const (
	maxProfileBytes   = 16 << 20
	maxFeatures       = 1024
	maxFeaturePlaces  = 256
	maxProfilePlaces  = 16384
	maxCategoryBytes  = 256
	maxRestCategories = 10_000
	maxReferenceCount = 1 << 53
	maxSegments       = 64
	maxClassCounts    = 512 // classes of the events and of each segment: 2 KiB a bucket
)

// Profile is the frozen reference population of one model: for every input of its contract, in the contract's order,
// then for the score, the decision and the score within segments, the places that an observation can fall into and how
// many reference rows fell into each. It comes from BuildProfile or ReadProfile, is immutable and may be shared.
type Profile struct {
	Events       uint64   // reference rows; every feature's counts add up to it, those of segments aside
	DesignEffect float64  // reference rows that are worth one independent customer
	Threshold    *float64 // of the decision; nil: no decision is counted
	Classes      *Classes // of time; nil: there are none
	ClassEvents  []uint64 // reference rows of each class; rows without a time are in none
	Features     []Feature

	inputs   int // features before the score
	places   int // of all features together
	moments  int // features that have them
	segments int // features that are one
}

// Segment says that a feature counts only the events whose category of an input is this one.
type Segment struct {
	Input    string `json:"input"`
	Category string `json:"category"`
}

// Feature is one input's, the score's or another part of a profile. Its places are, in this order:
//
//   - for numbers, dates and timestamps: under the minimum, one a bin, over the maximum, missing;
//   - for categories: one a category, other (only if the reference has rarer categories), unseen, missing;
//   - for booleans: false, true, missing;
//   - for the decision: retain, churn.
type Feature struct {
	Name string
	Kind schemas.Kind

	// Numbers, dates (days since 1970-01-01) and timestamps (ms since the epoch): the reference's own range and the
	// upper ends of all bins but the last, strictly increasing. Bins are [Minimum, Edges[0]], (Edges[0], Edges[1]], …,
	// (Edges[last], Maximum].
	Minimum, Maximum float64
	Edges            []float64

	Categories []string // the most frequent ones, most frequent first
	Rest       []string // rarer ones, counted together as other

	Counts []uint64  // reference rows per place
	Labels []string  // one a place, distinct
	Shares []float64 // smoothed reference shares, one a place

	Mean, Deviation float64   // of the reference, numbers only; NaN if the profile does not tell
	Contributions   []float64 // mean contribution of the input to the margin by place, in nats; nil if not known
	Segment         *Segment  // nil: all events count

	ByClass [][]uint64 // reference rows per place in each class of time

	first    int     // index of the feature's first place among all places of the profile
	moment   int     // index of its moments among those of the profile, -1: none
	centre   float64 // that its moments are about
	missing  int     // place of what is missing, -1: none
	unseen   []int   // places of what the reference's categories or range do not hold
	decision bool
	whole    Expected
	classes  []Expected // of each class of time; see Expect
}

// Customers is the number of independent customers that the reference rows of the feature are worth.
func (p *Profile) Customers(f *Feature) float64 {
	return p.customers(f.Counts)
}

func (p *Profile) customers(counts []uint64) float64 {
	total := uint64(0)
	for _, c := range counts {
		total += c
	}
	return float64(total) / p.DesignEffect
}

// Inputs is the number of features that are inputs. The score follows them.
func (p *Profile) Inputs() int { return p.inputs }

// Importance is how much the model's margin varies by the feature over the reference population, in nats: the mean
// absolute difference of its contribution from the mean one. It is 0 where contributions are not known.
func (f *Feature) Importance() float64 {
	if f.Contributions == nil {
		return 0
	}
	mean, spread := 0.0, 0.0
	for place, share := range f.Shares {
		mean += share * f.Contributions[place]
	}
	for place, share := range f.Shares {
		spread += share * math.Abs(f.Contributions[place]-mean)
	}
	return spread
}

// Effect is what a move from the expected to the given shares does to the mean margin, in nats, by the mean contributions
// of the places, and how much it moves either way: a shift that takes as many customers up as down has no effect on the mean.
func (f *Feature) Effect(shares, expected []float64) (mean, either float64) {
	if f.Contributions == nil {
		return 0, 0
	}
	centre := 0.0
	for place, share := range expected {
		centre += share * f.Contributions[place]
	}
	for place, share := range shares {
		mean += (share - expected[place]) * f.Contributions[place]
		either += math.Abs(share-expected[place]) * math.Abs(f.Contributions[place]-centre)
	}
	return mean, either
}

// Places is the number of places over all features.
func (p *Profile) Places() int { return p.places }

// Division says how the range of a number is cut into bins.
type Division string

// The divisions.
const (
	Quantiles  Division = "quantiles"   // bins of equally many reference rows
	EqualWidth Division = "equal-width" // bins of equal width over the reference's range
)

// ProfileConfig says how finely BuildProfile divides the reference population, and what it counts beside the inputs and
// the score.
type ProfileConfig struct {
	Bins       int                  // of a number; fewer where values repeat
	Division   Division             // of a number
	Edges      map[string][]float64 // of numeric inputs by name, and of the score, instead of that: upper ends of all bins but the last
	Categories int                  // categories with a place of their own, the most frequent ones
	Threshold  *float64             // of the decision; nil: no decision is counted
	Segments   []string             // categorical inputs: the score is counted for each of their most frequent categories, too
	Classes    *Classes             // of time, each of which is counted by itself, too; nil: none
}

// Reference is the population that a profile freezes.
type Reference struct {
	Rows          *schemas.Rows
	Probabilities []float64   // the model's, one a row
	Customers     [][]byte    // key of each row; nil: every row is another customer
	Contributions [][]float64 // of each row's inputs to its margin; nil: not known
	Times         []int64     // of each row in ms since 1970, 0: it has none; only classes of time want them
}

// DefaultProfileConfig is deciles and twenty categories.
func DefaultProfileConfig() ProfileConfig {
	return ProfileConfig{Bins: 10, Division: Quantiles, Categories: 20}
}

// Validate reports all faults at once.
func (c ProfileConfig) Validate() error {
	var faults []error
	if c.Bins < 2 || c.Bins > maxFeaturePlaces-3 {
		faults = append(faults, fmt.Errorf("profile.bins: %d is not between 2 and %d, for example 10", c.Bins, maxFeaturePlaces-3))
	}
	if c.Division != Quantiles && c.Division != EqualWidth {
		faults = append(faults, fmt.Errorf("profile.division: %q is neither %s nor %s", c.Division, Quantiles, EqualWidth))
	}
	if c.Threshold != nil && !(*c.Threshold > 0 && *c.Threshold < 1) {
		faults = append(faults, fmt.Errorf("profile.threshold: %v is not between 0 and 1, for example 0.5", *c.Threshold))
	}
	if c.Categories < 1 || c.Categories > maxFeaturePlaces-3 {
		faults = append(faults, fmt.Errorf("profile.categories: %d is not between 1 and %d, for example 20", c.Categories, maxFeaturePlaces-3))
	}
	return errors.Join(faults...)
}

// BuildProfile freezes a population, whose rows have the contract's width. The counts are what an Accumulator would count
// on the same rows.
func BuildProfile(contract schemas.Contract, reference Reference, cfg ProfileConfig) (*Profile, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := reference.check(contract); err != nil {
		return nil, fmt.Errorf("build profile: %w", err)
	}
	rows, n := reference.Rows, reference.Rows.Len()
	if cfg.Classes != nil && !slices.ContainsFunc(reference.Times, func(t int64) bool { return t > 0 }) {
		return nil, errors.New("build profile: no row of the reference population has a time, by which classes are told apart")
	}
	p := &Profile{Events: uint64(n), DesignEffect: 1, Threshold: cfg.Threshold, Classes: cfg.Classes}
	numbers := make([]float64, n)
	for column, input := range contract.Inputs {
		f := Feature{Name: input.Name, Kind: input.Kind}
		switch input.Kind {
		case schemas.Category:
			values := make([][]byte, n)
			for i := range n {
				_, categories := rows.Row(i)
				values[i] = categories[column]
			}
			if err := f.divideCategories(values, cfg.Categories); err != nil {
				return nil, fmt.Errorf("build profile: input %q: %w", input.Name, err)
			}
		case schemas.Boolean:
		default:
			for i := range n {
				row, _ := rows.Row(i)
				numbers[i] = row[column]
			}
			if err := f.divide(numbers, cfg); err != nil {
				return nil, fmt.Errorf("build profile: input %q: %w", input.Name, err)
			}
		}
		p.Features = append(p.Features, f)
	}
	score := Feature{Name: ScoreFeature, Kind: schemas.Number}
	if err := score.divide(reference.Probabilities, cfg); err != nil {
		return nil, fmt.Errorf("build profile: the score: %w", err)
	}
	p.Features = append(p.Features, score)
	if p.Threshold != nil && contract.Index(DecisionFeature) >= 0 {
		p.Threshold = nil // an input has the name
	}
	if p.Threshold != nil {
		p.Features = append(p.Features, Feature{Name: DecisionFeature, Kind: schemas.Boolean})
	}
	if err := p.addSegments(contract, score, cfg.Segments); err != nil {
		return nil, fmt.Errorf("build profile: %w", err)
	}
	p.label()
	if err := p.count(contract, &reference); err != nil {
		return nil, fmt.Errorf("build profile: %w", err)
	}
	if err := p.freeze(); err != nil {
		return nil, fmt.Errorf("build profile: %w", err)
	}
	return p, nil
}

func (r *Reference) check(contract schemas.Contract) error {
	n := r.Rows.Len()
	switch {
	case n == 0:
		return errors.New("the reference population has no rows")
	case contract.Index(ScoreFeature) >= 0:
		return fmt.Errorf("input %q: the model's probability has this name; rename the input", ScoreFeature)
	case r.Rows.Width() != len(contract.Inputs):
		return fmt.Errorf("rows have %d inputs, the contract %d", r.Rows.Width(), len(contract.Inputs))
	case len(r.Probabilities) != n:
		return fmt.Errorf("%d probabilities for %d rows", len(r.Probabilities), n)
	case r.Customers != nil && len(r.Customers) != n:
		return fmt.Errorf("%d customers for %d rows", len(r.Customers), n)
	case r.Contributions != nil && len(r.Contributions) != n:
		return fmt.Errorf("contributions of %d rows, there are %d", len(r.Contributions), n)
	case r.Times != nil && len(r.Times) != n:
		return fmt.Errorf("%d times for %d rows", len(r.Times), n)
	}
	for i, c := range r.Contributions {
		if len(c) != len(contract.Inputs) {
			return fmt.Errorf("row %d: %d contributions for %d inputs", i, len(c), len(contract.Inputs))
		}
	}
	return nil
}

// addSegments adds the score within every category that has a place of its own, of each of the inputs.
func (p *Profile) addSegments(contract schemas.Contract, score Feature, inputs []string) error {
	for _, name := range inputs {
		column := contract.Index(name)
		if column < 0 || contract.Inputs[column].Kind != schemas.Category {
			return fmt.Errorf("profile.segments: %q is no categorical input", name)
		}
		for _, category := range p.Features[column].Categories {
			f := score
			f.Name = ScoreFeature + "[" + name + "=" + category + "]"
			f.Segment = &Segment{Input: name, Category: category}
			p.Features = append(p.Features, f)
		}
	}
	return nil
}

// event is a row of the reference as an event of nobody, at no time.
func (r *Reference) event(i int) []Event {
	numbers, categories := r.Rows.Row(i)
	return []Event{{Numbers: numbers, Categories: categories, Probability: r.Probabilities[i], group: noGroup, class: noClass}}
}

// count fills in what an accumulator would count on the reference population, and what only the reference tells.
func (p *Profile) count(contract schemas.Contract, reference *Reference) error {
	counter, err := newCounter(p, contract)
	if err != nil {
		return err
	}
	byClass := make([]*cells, p.classes())
	for class := range byClass {
		byClass[class] = newCells(p)
	}
	cells, groups, finder := newCells(p), Groups{}, newClassFinder(p.Classes)
	p.ClassEvents = make([]uint64, p.classes())
	for i := range reference.Rows.Len() {
		e := reference.event(i)
		counter.count(cells, e)
		if p.Classes != nil && reference.Times[i] > 0 {
			class := finder.at(reference.Times[i])
			p.ClassEvents[class]++
			counter.count(byClass[class], e)
		}
		if reference.Customers != nil {
			groups.Add(reference.Customers[i])
		}
	}
	p.DesignEffect = groups.DesignEffect()
	for i := range p.Features {
		f := &p.Features[i]
		f.Counts = make([]uint64, len(f.Labels))
		for place := range f.Counts {
			f.Counts[place] = uint64(cells.counts[f.first+place])
		}
		for _, cells := range byClass {
			counts := make([]uint64, len(f.Labels))
			for place := range counts {
				counts[place] = uint64(cells.counts[f.first+place])
			}
			f.ByClass = append(f.ByClass, counts)
		}
		if f.moment >= 0 {
			s := f.Summarize(f.Counts, f.Counts, &cells.moments[f.moment])
			f.Mean, f.Deviation = s.Mean, s.Deviation
		}
	}
	if reference.Contributions != nil {
		p.contribute(counter, reference)
	}
	return nil
}

// contribute takes the mean contribution of each place of each input.
func (p *Profile) contribute(counter *counter, reference *Reference) {
	for i := range p.Features[:p.inputs] {
		p.Features[i].Contributions = make([]float64, len(p.Features[i].Labels))
	}
	cells := newCells(p)
	for i, contributions := range reference.Contributions {
		cells.reset()
		counter.count(cells, reference.event(i))
		for input, contribution := range contributions {
			f := &p.Features[input]
			for place := range f.Contributions {
				f.Contributions[place] += contribution * float64(cells.counts[f.first+place])
			}
		}
	}
	for i := range p.Features[:p.inputs] {
		f := &p.Features[i]
		for place := range f.Contributions {
			f.Contributions[place] /= max(1, float64(f.Counts[place]))
		}
	}
}

// divide sets range and edges: those that are given, or by the configured division.
func (f *Feature) divide(values []float64, cfg ProfileConfig) error {
	f.divideNumbers(values, cfg.Bins)
	if edges, given := cfg.Edges[f.Name]; given {
		if len(edges) == 0 || !slices.IsSorted(edges) || math.IsNaN(edges[0]) || len(slices.Compact(slices.Clone(edges))) != len(edges) {
			return fmt.Errorf("edges: %v are not ascending numbers", edges)
		}
		// What lies outside of the edges belongs to the outer bins, whatever the reference holds there.
		f.Edges = slices.Clone(edges)
		f.Minimum = min(f.Minimum, edges[0])
		f.Maximum = max(f.Maximum, math.Nextafter(edges[len(edges)-1], math.Inf(1)))
		return nil
	}
	if cfg.Division == EqualWidth && len(f.Edges) == cfg.Bins-1 {
		f.Edges = f.Edges[:0]
		for i := 1; i < cfg.Bins; i++ {
			edge := f.Minimum + (f.Maximum-f.Minimum)*float64(i)/float64(cfg.Bins)
			if edge >= f.Minimum && edge < f.Maximum && (len(f.Edges) == 0 || edge > f.Edges[len(f.Edges)-1]) {
				f.Edges = append(f.Edges, edge)
			}
		}
	}
	return nil
}

// divideNumbers sets range and edges from the finite values: quantiles where there are more distinct values than bins,
// else a bin for each value. A value that fills several quantiles gives one edge. A population without any finite value
// gets the range [0, 0].
func (f *Feature) divideNumbers(values []float64, bins int) {
	finite := make([]float64, 0, len(values))
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			finite = append(finite, v+0) // -0 becomes 0
		}
	}
	if len(finite) == 0 {
		return
	}
	slices.Sort(finite)
	f.Minimum, f.Maximum = finite[0], finite[len(finite)-1]
	distinct := slices.Compact(slices.Clone(finite))
	if len(distinct) <= bins {
		f.Edges = distinct[:len(distinct)-1]
		return
	}
	for i := 1; i < bins; i++ {
		edge := finite[(i*len(finite)+bins-1)/bins-1]
		if edge < f.Maximum && (len(f.Edges) == 0 || edge > f.Edges[len(f.Edges)-1]) {
			f.Edges = append(f.Edges, edge)
		}
	}
}

// divideCategories sets the top categories and the rest. Categories beyond the limit of the rest are left out, so that
// they are unseen in the reference as they will be on the stream.
func (f *Feature) divideCategories(values [][]byte, top int) error {
	frequency := make(map[string]int)
	for i, v := range values {
		switch {
		case v == nil:
		case len(v) > maxCategoryBytes:
			return fmt.Errorf("row %d: a category of %d bytes; declare free text not as a category (limit %d)", i, len(v), maxCategoryBytes)
		case !utf8.Valid(v):
			return fmt.Errorf("row %d: category %q is not UTF-8; convert the file", i, v)
		default:
			frequency[string(v)]++
		}
	}
	all := make([]string, 0, len(frequency))
	for name := range frequency {
		all = append(all, name)
	}
	slices.SortFunc(all, func(a, b string) int {
		return cmp.Or(cmp.Compare(frequency[b], frequency[a]), cmp.Compare(a, b))
	})
	f.Categories = all[:min(top, len(all))]
	if rest := all[len(f.Categories):]; len(rest) > 0 {
		f.Rest = rest[:min(len(rest), maxRestCategories)]
	}
	return nil
}

// label derives from the division the places' labels and positions, and what kind of feature each one is.
func (p *Profile) label() {
	p.places, p.moments, p.segments = 0, 0, 0
	p.inputs = slices.IndexFunc(p.Features, func(f Feature) bool { return f.Name == ScoreFeature })
	for i := range p.Features {
		f := &p.Features[i]
		f.decision = f.Name == DecisionFeature && p.inputs >= 0 && i > p.inputs
		f.first = p.places
		f.Labels = f.appendLabels(nil)
		p.places += len(f.Labels)
		last := len(f.Labels) - 1
		f.missing, f.moment, f.unseen = last, -1, nil
		switch {
		case f.decision:
			f.missing = -1
		case f.Kind == schemas.Boolean:
		case f.Kind == schemas.Category:
			f.unseen = []int{last - 1}
		default:
			f.unseen = []int{0, last - 1}
			f.centre = f.Minimum
			if len(f.Edges) > 0 {
				f.centre = f.Edges[len(f.Edges)/2]
			}
			if f.Segment == nil {
				f.moment = p.moments
				p.moments++
			}
		}
		if f.Segment != nil {
			p.segments++
		}
		if f.moment < 0 {
			f.Mean, f.Deviation = math.NaN(), math.NaN()
		}
	}
}

func (f *Feature) appendLabels(labels []string) []string {
	switch f.Kind {
	case schemas.Boolean:
		if f.decision {
			return append(labels, "retain", "churn")
		}
		labels = append(labels, "false", "true")
	case schemas.Category:
		for _, category := range f.Categories {
			switch {
			case category == placeMissing, category == placeUnseen, category == placeOther, category == "", category[0] == '"':
				category = strconv.Quote(category)
			}
			labels = append(labels, category)
		}
		if len(f.Rest) > 0 {
			labels = append(labels, placeOther)
		}
		labels = append(labels, placeUnseen)
	default:
		bounds := f.readableBounds()
		last := len(bounds) - 1
		labels = append(labels, "< "+bounds[0])
		opening := "["
		for i := range len(f.Edges) + 1 {
			labels = append(labels, opening+bounds[i]+", "+bounds[i+1]+"]")
			opening = "("
		}
		labels = append(labels, "> "+bounds[last])
	}
	return append(labels, placeMissing)
}

// readableBounds writes minimum, edges and maximum for people, with as few digits as keep the edges apart: the label of
// a bin is a name, the bounds themselves are exact.
func (f *Feature) readableBounds() []string {
	const fewest, exact = 4, -1
	values := append(append([]float64{f.Minimum}, f.Edges...), f.Maximum)
	bounds := make([]string, len(values))
	for _, digits := range []int{fewest, 6, 9, 12, exact} {
		apart := true
		previous := math.Inf(-1)
		for i, v := range values {
			bounds[i] = f.format(v, digits)
			if shown, err := strconv.ParseFloat(bounds[i], 64); err == nil { // dates are always apart
				apart = apart && (shown > previous || i > 0 && v == values[i-1])
				previous = shown
			}
		}
		if apart {
			break
		}
	}
	return bounds
}

// format writes dates as dates, whole numbers in full and others with the given number of significant digits.
func (f *Feature) format(v float64, digits int) string {
	const whole = 1e14 // as ms about the year 5138
	if v == math.Trunc(v) && math.Abs(v) < whole {
		switch {
		case f.Kind == schemas.Date && math.Abs(v) < whole/86_400_000:
			return time.Unix(int64(v)*86_400, 0).UTC().Format(time.DateOnly)
		case f.Kind == schemas.Timestamp:
			return time.UnixMilli(int64(v)).UTC().Format("2006-01-02T15:04:05.999Z07:00")
		}
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', digits, 64)
}

// freeze checks the profile as a whole and derives the reference shares.
func (p *Profile) freeze() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if p.Events == 0 || p.Events > maxReferenceCount {
		fault("events: %d is not between 1 and 2^53", p.Events)
	}
	if n := len(p.Features); n < 1 || n > maxFeatures {
		fault("features: %d of them, not between 1 and %d", n, maxFeatures)
	} else if p.inputs < 0 || p.Features[p.inputs].Kind != schemas.Number {
		fault("features: none is the number %q, which follows the inputs", ScoreFeature)
	} else {
		p.freezeDerived(fault)
	}
	if !(p.DesignEffect >= 1) || math.IsInf(p.DesignEffect, 0) {
		fault("design_effect: %v is not at least 1", p.DesignEffect)
	}
	p.freezeClasses(fault)
	if p.places > maxProfilePlaces {
		fault("features: %d places together, more than %d; use fewer bins or categories", p.places, maxProfilePlaces)
	}
	names := make(map[string]bool, len(p.Features))
	for i := range p.Features {
		f := &p.Features[i]
		if names[f.Name] {
			fault("feature %q: stands twice; %q is the model's probability, so rename an input of that name", f.Name, ScoreFeature)
		}
		names[f.Name] = true
		err := f.freeze(p.Events)
		if err == nil {
			err = f.freezeClasses(p)
		}
		if err != nil {
			fault("feature %q: %w", f.Name, err)
		}
	}
	return errors.Join(faults...)
}

// freezeDerived checks what follows the score: the decision, then segments.
func (p *Profile) freezeDerived(fault func(format string, args ...any)) {
	derived := p.Features[p.inputs+1:]
	decision := len(derived) > 0 && derived[0].decision
	if decision != (p.Threshold != nil) {
		fault("threshold: a profile has it together with the feature %q behind the score, or neither", DecisionFeature)
	}
	if decision {
		if derived[0].Kind != schemas.Boolean {
			fault("feature %q: not a boolean", DecisionFeature)
		}
		derived = derived[1:]
	}
	if p.segments > maxSegments {
		fault("features: %d segments, more than %d; segment by an input with fewer categories", p.segments, maxSegments)
	}
	for i := range p.Features[:p.inputs+1] {
		if p.Features[i].Segment != nil {
			fault("feature %q: an input is no segment", p.Features[i].Name)
		}
	}
	for i := range derived {
		f := &derived[i]
		if f.Segment == nil {
			fault("feature %q: comes after the score and is no segment", f.Name)
			continue
		}
		at := slices.IndexFunc(p.Features[:p.inputs], func(g Feature) bool { return g.Name == f.Segment.Input })
		if at < 0 || !slices.Contains(p.Features[at].Categories, f.Segment.Category) {
			fault("feature %q: no input %q has the category %q", f.Name, f.Segment.Input, f.Segment.Category)
		}
	}
}

// freezeClasses checks how much the reference holds of each class of time.
func (p *Profile) freezeClasses(fault func(format string, args ...any)) {
	if len(p.ClassEvents) != p.classes() {
		fault("classes: events of %d, there are %d", len(p.ClassEvents), p.classes())
	}
	if n := p.classes() * (1 + p.segments); n > maxClassCounts {
		fault("classes: %d of them for all events and %d segments are %d counts, more than %d; divide time less finely or name fewer segments", p.classes(), p.segments, n, maxClassCounts)
	}
	sum := uint64(0)
	for _, n := range p.ClassEvents {
		if n > p.Events-sum {
			fault("classes: their events are more than the profile's %d", p.Events)
			return
		}
		sum += n
	}
}

// freezeClasses checks what the feature has in each class and derives what is expected of its windows.
func (f *Feature) freezeClasses(p *Profile) error {
	f.whole = Expected{Shares: f.Shares, Customers: p.Customers(f), Counts: f.Counts}
	if len(f.ByClass) != p.classes() {
		return fmt.Errorf("classes: counts of %d, the profile has %d", len(f.ByClass), p.classes())
	}
	f.classes = nil
	for class, counts := range f.ByClass {
		if len(counts) != len(f.Labels) {
			return fmt.Errorf("classes[%d]: %d counts for %d places", class, len(counts), len(f.Labels))
		}
		sum := uint64(0)
		for place, c := range counts {
			if c > f.Counts[place] {
				return fmt.Errorf("classes[%d]: %d rows in place %d, more than the %d of all classes", class, c, place, f.Counts[place])
			}
			sum += c
		}
		if class < len(p.ClassEvents) && (sum > p.ClassEvents[class] || sum < p.ClassEvents[class] && f.Segment == nil) {
			return fmt.Errorf("classes[%d]: counts add up to %d, not to the %d events of the class", class, sum, p.ClassEvents[class])
		}
		f.classes = append(f.classes, Expected{Shares: AppendShares(nil, counts), Customers: max(1, p.customers(counts))})
	}
	return nil
}

func (f *Feature) freeze(events uint64) error {
	if f.Name == "" || len(f.Name) > maxCategoryBytes || !utf8.ValidString(f.Name) {
		return fmt.Errorf("name: not UTF-8 of 1 to %d bytes", maxCategoryBytes)
	}
	if _, err := f.Kind.MarshalText(); err != nil {
		return fmt.Errorf("kind: %w", err)
	}
	numeric := f.Kind != schemas.Category && f.Kind != schemas.Boolean
	if !numeric && (f.Minimum != 0 || f.Maximum != 0 || len(f.Edges) > 0) {
		return errors.New("edges: only numbers, dates and timestamps have a range and edges")
	}
	if f.Kind != schemas.Category && len(f.Categories)+len(f.Rest) > 0 {
		return errors.New("categories: only categories have them")
	}
	if numeric {
		if math.IsNaN(f.Minimum) || math.IsInf(f.Minimum, 0) || math.IsNaN(f.Maximum) || math.IsInf(f.Maximum, 0) || f.Minimum > f.Maximum {
			return fmt.Errorf("minimum, maximum: [%v, %v] is not a range", f.Minimum, f.Maximum)
		}
		for i, edge := range f.Edges {
			if !(edge >= f.Minimum && edge < f.Maximum) || i > 0 && !(edge > f.Edges[i-1]) {
				return fmt.Errorf("edges: %v at %d is not above the one before and inside the range [%v, %v)", edge, i, f.Minimum, f.Maximum)
			}
		}
	}
	seen := make(map[string]bool, len(f.Categories)+len(f.Rest))
	for _, category := range slices.Concat(f.Categories, f.Rest) {
		if seen[category] {
			return fmt.Errorf("categories: %q stands twice", category)
		}
		if len(category) > maxCategoryBytes || !utf8.ValidString(category) {
			return fmt.Errorf("categories: one is not UTF-8 of at most %d bytes", maxCategoryBytes)
		}
		seen[category] = true
	}
	if len(f.Rest) > maxRestCategories {
		return fmt.Errorf("rest: %d categories, more than %d", len(f.Rest), maxRestCategories)
	}
	if len(f.Labels) > maxFeaturePlaces {
		return fmt.Errorf("%d places, more than %d; use fewer bins or categories", len(f.Labels), maxFeaturePlaces)
	}
	if distinct := slices.Compact(slices.Sorted(slices.Values(f.Labels))); len(distinct) != len(f.Labels) {
		return errors.New("edges: two bins read the same")
	}
	if len(f.Counts) != len(f.Labels) {
		return fmt.Errorf("counts: %d of them for %d places", len(f.Counts), len(f.Labels))
	}
	sum := uint64(0)
	for _, c := range f.Counts {
		if c > events {
			return fmt.Errorf("counts: %d in one place, more than the profile's %d events", c, events)
		}
		sum += c
	}
	if sum != events && f.Segment == nil {
		return fmt.Errorf("counts: add up to %d, not to the profile's %d events", sum, events)
	}
	if f.Contributions != nil && len(f.Contributions) != len(f.Labels) {
		return fmt.Errorf("contributions: %d of them for %d places", len(f.Contributions), len(f.Labels))
	}
	f.Shares = AppendShares(nil, f.Counts)
	return nil
}

// profileFile and featureFile are the JSON form.
type profileFile struct {
	Format int    `json:"format"`
	Events uint64 `json:"events"`
	// What follows came later; without it every row is another customer, and no decision is counted.
	DesignEffect float64      `json:"design_effect,omitempty"`
	Threshold    *float64     `json:"threshold,omitempty"`
	Classes      *classesFile `json:"classes,omitempty"`
	Features     featureFiles `json:"features"`
}

type classesFile struct {
	By     string   `json:"by"`
	Zone   string   `json:"zone"`
	Labels []string `json:"labels,omitempty"` // for people; derived again when read
	Events []uint64 `json:"events"`
}

type featureFiles []featureFile

func (f *featureFiles) UnmarshalJSON(content []byte) (err error) {
	*f, err = readList[featureFile]("features", content, maxFeatures)
	return err
}

// classFiles are the counts in each class of time.
type classFiles [][]uint64

func (c *classFiles) UnmarshalJSON(content []byte) (err error) {
	*c, err = readList[[]uint64]("classes", content, maxClassCounts)
	return err
}

// readList stops at the limit: three bytes of a hostile file would else become a whole element in memory.
func readList[T any](name string, content []byte, limit int) ([]T, error) {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if start, err := decoder.Token(); err != nil || start != json.Delim('[') {
		return nil, errors.Join(fmt.Errorf("%s: not a list", name), err)
	}
	var list []T
	for decoder.More() {
		if len(list) == limit {
			return nil, fmt.Errorf("%s: more than %d", name, limit)
		}
		list = append(list, *new(T))
		if err := decoder.Decode(&list[len(list)-1]); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", name, len(list)-1, err)
		}
	}
	return list, nil
}

type featureFile struct {
	Name       string       `json:"name"`
	Kind       schemas.Kind `json:"kind"`
	Minimum    float64      `json:"minimum,omitempty"`
	Maximum    float64      `json:"maximum,omitempty"`
	Edges      []float64    `json:"edges,omitempty"`
	Categories []string     `json:"categories,omitempty"`
	Rest       []string     `json:"rest,omitempty"`
	Places     []string     `json:"places,omitempty"` // for people; derived again when read
	Counts     []uint64     `json:"counts"`

	Mean          *float64  `json:"mean,omitempty"`
	Deviation     *float64  `json:"deviation,omitempty"`
	Contributions []float64 `json:"contributions,omitempty"`
	Segment       *Segment  `json:"segment,omitempty"`

	Classes classFiles `json:"classes,omitempty"` // counts in each class of time
}

// told is nil for a number that is not known, which JSON cannot hold.
func told(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func known(v *float64) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}

// WriteProfile writes p as JSON.
func WriteProfile(w io.Writer, p *Profile) error {
	file := profileFile{Format: ProfileFormat, Events: p.Events, DesignEffect: p.DesignEffect, Threshold: p.Threshold}
	if c := p.Classes; c != nil {
		file.Classes = &classesFile{By: c.By, Zone: c.Zone, Labels: c.Labels, Events: p.ClassEvents}
	}
	for i := range p.Features {
		f := &p.Features[i]
		file.Features = append(file.Features, featureFile{
			Name: f.Name, Kind: f.Kind, Minimum: f.Minimum, Maximum: f.Maximum, Edges: f.Edges,
			Categories: f.Categories, Rest: f.Rest, Places: f.Labels, Counts: f.Counts,
			Mean: told(f.Mean), Deviation: told(f.Deviation), Contributions: f.Contributions, Segment: f.Segment, Classes: f.ByClass,
		})
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(file); err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	return nil
}

// ReadProfile reads what WriteProfile wrote. Content that is not a whole, consistent profile is an error that names
// the place.
func ReadProfile(r io.Reader) (*Profile, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxProfileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	if len(content) > maxProfileBytes {
		return nil, fmt.Errorf("read profile: larger than %d MiB", maxProfileBytes>>20)
	}
	var file profileFile
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read profile: more content after the profile's end")
	}
	if file.Format != ProfileFormat {
		return nil, fmt.Errorf("read profile: format %d, this version reads %d; build the profile again or update", file.Format, ProfileFormat)
	}
	p := &Profile{Events: file.Events, DesignEffect: cmp.Or(file.DesignEffect, 1), Threshold: file.Threshold}
	if c := file.Classes; c != nil {
		if p.Classes, err = NewClasses(c.By, c.Zone); err != nil {
			return nil, fmt.Errorf("read profile: %w", err)
		}
		p.ClassEvents = c.Events
	}
	for _, f := range file.Features {
		p.Features = append(p.Features, Feature{
			Name: f.Name, Kind: f.Kind, Minimum: f.Minimum, Maximum: f.Maximum, Edges: f.Edges,
			Categories: f.Categories, Rest: f.Rest, Counts: f.Counts,
			Mean: known(f.Mean), Deviation: known(f.Deviation), Contributions: f.Contributions, Segment: f.Segment, ByClass: f.Classes,
		})
	}
	p.label()
	if err := p.freeze(); err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	return p, nil
}
