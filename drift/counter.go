package drift

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/churnstream/churnstream/schemas"
)

// counter finds the places of one event and adds to them. It is immutable: names have become column numbers and edges
// have become integers in the order of the floats, so that a bin is found by compares without branches.
type counter struct {
	numbers    []numberColumn
	categories []categoryColumn
	booleans   []booleanColumn
	score      numberColumn
	decision   int // first place, -1: none
	threshold  float64
	segments   []segmentColumn
	groups     int // the first customer group's count, in cells
	classes    int // the first class's
}

// cells are the counts of one bucket, or of what is to be added to it: one a place of the profile, then one a customer
// group, then one a customer group of each segment, then one a class of time, then one a class of each segment; and the
// moments of each numeric feature.
type cells struct {
	counts  []uint32
	moments []Moments
}

func newCells(p *Profile) *cells {
	c := &cells{counts: make([]uint32, p.cells()), moments: make([]Moments, p.moments)}
	c.reset()
	return c
}

// cells is the number of counts of a bucket.
func (p *Profile) cells() int { return p.firstClass() + p.classes()*(1+p.segments) }

// firstClass is where the counts of classes begin among those of a bucket.
func (p *Profile) firstClass() int { return p.places + schemas.DriftGroups*(1+p.segments) }

func (c *cells) reset() {
	clear(c.counts)
	for i := range c.moments {
		c.moments[i] = noMoments()
	}
}

func (c *cells) add(other *cells) {
	for i, n := range other.counts {
		c.counts[i] += n
	}
	for i := range other.moments {
		c.moments[i].merge(&other.moments[i])
	}
}

// smallThresholds is the number of thresholds that the unrolled search takes: up to 14 bins.
const smallThresholds = 15

type numberColumn struct {
	column, first int
	missing       int // place, counted from the profile's first
	moment        int
	centre        float64
	// thresholds in ascending order: the largest float below the minimum, the edges, the maximum. How many of them are
	// below a value is its place.
	thresholds []uint64
	small      *[smallThresholds + 1]uint64 // the same, padded with the largest integer, which no float reaches; nil if there are more
}

type categoryColumn struct {
	column  int
	index   *schemas.CategoryIndex // the profile's categories, then its rest
	places  []int                  // of each position of index, and of what is unseen; counted from the profile's first
	missing int                    // likewise
}

type booleanColumn struct{ column, first int }

// segmentColumn counts the score again for the events of some categories of an input.
type segmentColumn struct {
	column int
	index  *schemas.CategoryIndex
	parts  []segmentPart // of each position of index
}

type segmentPart struct{ first, groups, classes int } // of the places, the customer groups and the classes, in cells

// newCounter joins the profile with the contract by name.
func newCounter(p *Profile, contract schemas.Contract) (*counter, error) {
	if p.inputs != len(contract.Inputs) {
		return nil, fmt.Errorf("the profile has %d inputs and the score, the contract %d inputs; profile and model must come from the same artefact", p.inputs, len(contract.Inputs))
	}
	c := &counter{decision: -1, groups: p.places, classes: p.firstClass()}
	columns := make(map[string]int, len(contract.Inputs))
	for i, input := range contract.Inputs {
		columns[input.Name] = i
	}
	for i := range p.Features[:p.inputs] {
		f := &p.Features[i]
		column, found := columns[f.Name]
		if !found {
			return nil, fmt.Errorf("the profile's feature %q is no input of the contract; profile and model must come from the same artefact", f.Name)
		}
		if kind := contract.Inputs[column].Kind; kind != f.Kind {
			return nil, fmt.Errorf("the profile's feature %q is a %v, the contract's input a %v", f.Name, f.Kind, kind)
		}
		switch f.Kind {
		case schemas.Category:
			categories, err := newCategoryColumn(f, column)
			if err != nil {
				return nil, fmt.Errorf("the profile's feature %q: %w", f.Name, err)
			}
			c.categories = append(c.categories, categories)
		case schemas.Boolean:
			c.booleans = append(c.booleans, booleanColumn{column: column, first: f.first})
		default:
			c.numbers = append(c.numbers, newNumberColumn(f, column))
		}
	}
	c.score = newNumberColumn(&p.Features[p.inputs], -1)
	if at := p.inputs + 1; at < len(p.Features) && p.Features[at].decision {
		c.decision, c.threshold = p.Features[at].first, *p.Threshold
	}
	return c, c.segment(p, columns)
}

// segment joins the segments of one input into one column.
func (c *counter) segment(p *Profile, columns map[string]int) error {
	groups, classes := p.places+schemas.DriftGroups, p.firstClass()+p.classes()
	var categories []string
	for i := range p.Features {
		f := &p.Features[i]
		if f.Segment == nil {
			continue
		}
		column := columns[f.Segment.Input]
		if n := len(c.segments); n == 0 || c.segments[n-1].column != column {
			c.segments = append(c.segments, segmentColumn{column: column})
			categories = nil
		}
		s := &c.segments[len(c.segments)-1]
		s.parts = append(s.parts, segmentPart{first: f.first, groups: groups, classes: classes})
		groups += schemas.DriftGroups
		classes += p.classes()
		categories = append(categories, f.Segment.Category)
		var err error
		if s.index, err = schemas.NewCategoryIndex(categories); err != nil {
			return fmt.Errorf("the profile's feature %q: %w", f.Name, err)
		}
	}
	return nil
}

func newNumberColumn(f *Feature, column int) numberColumn {
	thresholds := []uint64{orderedBits(math.Nextafter(f.Minimum, math.Inf(-1)))}
	for _, edge := range f.Edges {
		thresholds = append(thresholds, orderedBits(edge))
	}
	thresholds = append(thresholds, orderedBits(f.Maximum))
	c := numberColumn{
		column: column, first: f.first, missing: f.first + len(thresholds) + 1, moment: f.moment, centre: f.centre, thresholds: thresholds,
	}
	if len(thresholds) <= smallThresholds {
		c.small = new([smallThresholds + 1]uint64)
		for i := range c.small {
			c.small[i] = math.MaxUint64
		}
		copy(c.small[:], thresholds)
	}
	return c
}

func newCategoryColumn(f *Feature, column int) (categoryColumn, error) {
	index, err := schemas.NewCategoryIndex(slices.Concat(f.Categories, f.Rest))
	if err != nil {
		return categoryColumn{}, err
	}
	c := categoryColumn{column: column, index: index, places: make([]int, 0, index.Len()+1)}
	next := f.first
	for range f.Categories {
		c.places = append(c.places, next)
		next++
	}
	for range f.Rest {
		c.places = append(c.places, next)
	}
	if len(f.Rest) > 0 {
		next++
	}
	c.places = append(c.places, next)
	c.missing = next + 1
	return c, nil
}

// noGroup is the group of an event without a customer.
const noGroup = -1

func groupOf(key []byte) int {
	if len(key) == 0 {
		return noGroup
	}
	return customerGroup(key)
}

// atOnce is how many values of a column are gathered and counted at once.
const atOnce = 128

// count adds events, whose groups and classes are set, to cells of the counter's profile. Column by column, so that what is
// known of a column stays in registers. It does not allocate.
func (c *counter) count(into *cells, events []Event) {
	for len(events) > 0 {
		n := min(len(events), atOnce)
		c.countPart(into, events[:n])
		events = events[n:]
	}
}

func (c *counter) countPart(into *cells, events []Event) {
	counts := into.counts
	var gathered [atOnce]float64
	values := gathered[:len(events)]
	for i := range c.numbers {
		column := &c.numbers[i]
		for j := range values {
			values[j] = events[j].Numbers[column.column]
		}
		column.count(counts, &into.moments[column.moment], values)
	}
	for i := range values {
		e := &events[i]
		values[i] = e.Probability
		if c.decision >= 0 {
			place := c.decision
			if e.Probability >= c.threshold {
				place++
			}
			counts[place]++
		}
		if e.group != noGroup {
			counts[c.groups+e.group]++
		}
		if e.class != noClass {
			counts[c.classes+e.class]++
		}
		if len(c.segments) > 0 {
			c.countSegments(counts, e)
		}
	}
	c.score.count(counts, &into.moments[c.score.moment], values)
	for i := range c.categories {
		column := &c.categories[i]
		for j := range events {
			counts[column.place(events[j].Categories[column.column])]++
		}
	}
	for i := range c.booleans {
		column := &c.booleans[i]
		for j := range events {
			place := column.first + 1
			switch v := events[j].Numbers[column.column]; {
			case v == 0:
				place = column.first
			case v != v:
				place = column.first + 2
			}
			counts[place]++
		}
	}
}

// countSegments adds an event to the segments that it is in.
func (c *counter) countSegments(counts []uint32, e *Event) {
	score := below(c.score.thresholds, orderedBits(e.Probability))
	for i := range c.segments {
		column := &c.segments[i]
		v := e.Categories[column.column]
		if v == nil {
			continue
		}
		at := column.index.Lookup(v)
		if at >= len(column.parts) {
			continue
		}
		part := column.parts[at]
		counts[part.first+score]++
		if e.group != noGroup {
			counts[part.groups+e.group]++
		}
		if e.class != noClass {
			counts[part.classes+e.class]++
		}
	}
}

// count adds the column's values to their places and moments.
func (c *numberColumn) count(counts []uint32, moments *Moments, values []float64) {
	m, small := *moments, c.small
	for _, v := range values {
		if v != v {
			counts[c.missing]++
			continue
		}
		m = m.with(v, c.centre)
		key := orderedBits(v)
		if small == nil {
			counts[c.first+below(c.thresholds, key)]++
			continue
		}
		// A binary search by borrows: which bin comes next is chance, so every branch would be mispredicted half the time.
		place := oneIfLess(small[7], key) << 3
		place += oneIfLess(small[(place+3)&smallThresholds], key) << 2
		place += oneIfLess(small[(place+1)&smallThresholds], key) << 1
		place += oneIfLess(small[place&smallThresholds], key)
		counts[c.first+int(place)]++
	}
	*moments = m
}

func oneIfLess(a, b uint64) uint64 {
	_, borrow := bits.Sub64(a, b, 0)
	return borrow
}

// below is the number of ascending thresholds that are smaller than key.
func below(thresholds []uint64, key uint64) int {
	low, high := 0, len(thresholds)
	for low < high {
		if middle := int(uint(low+high) >> 1); thresholds[middle] < key {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

func (c *categoryColumn) place(v []byte) int {
	if v == nil {
		return c.missing
	}
	return c.places[c.index.Lookup(v)]
}

// orderedBits maps floats, NaN aside, to integers of the same order; both zeros are one.
func orderedBits(v float64) uint64 {
	b := math.Float64bits(v + 0)
	return b ^ (uint64(int64(b)>>63) | 1<<63)
}
