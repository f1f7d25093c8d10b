package catboost

import (
	"errors"
	"fmt"
	"math"
)

// inputs makes columns of a row: what splits look at. The columns are the numbers, the codes of the
// categories, then the counters.
type inputs struct {
	width      int // of a row
	floats     []floatInput
	categories []int // their places in a row
	counters   []counter
	splits     splits
	absent     float64 // the code of the empty text
}

type floatInput struct {
	flat    int
	missing float32 // what a missing value is compared as
}

func (in *inputs) columns() int { return len(in.floats) + len(in.categories) + len(in.counters) }

// number gives every split its number.
func (in *inputs) number(d *document) {
	for i := range d.floats {
		in.splits.add(len(d.floats[i].borders))
	}
	for i := range d.categories {
		in.splits.add(len(d.categories[i].values))
	}
	for i := range d.counters {
		in.splits.add(len(d.counters[i].borders))
	}
}

// read fills columns from a row. A category that is missing is the empty text, which is what CatBoost
// reads from an empty cell of a file. It reports false where a category has a number that no text has.
func (in *inputs) read(row, columns []float64) bool {
	row = row[:in.width]
	for i, f := range in.floats {
		x := float32(row[f.flat])
		if x != x {
			x = f.missing
		}
		columns[i] = float64(x)
	}
	codes := columns[len(in.floats):]
	for i, flat := range in.categories {
		x := row[flat]
		if x != x {
			x = in.absent
		}
		if !(x >= 0 && x <= math.MaxUint32) || x != math.Trunc(x) {
			return false
		}
		codes[i] = x
	}
	made := codes[len(in.categories):]
	for i := range in.counters {
		made[i] = float64(in.counters[i].at(columns, codes))
	}
	return true
}

// counter computes one counter feature. Its arithmetic is float32, as CatBoost's.
type counter struct {
	categories []int32
	borders    []elementBorder
	values     []elementValue
	table      *table
	kind       counterKind
	target     int

	priorNumerator, priorDenominator, shift, scale float32
}

type elementBorder struct {
	column int32
	border float32
}

type elementValue struct {
	category int32
	value    uint32
}

type counterKind uint8

const (
	borders   counterKind = iota // share of targets above a border
	buckets                      // share of one class of targets
	meanValue                    // mean of targets
	frequency                    // share of rows
)

// counter resolves a counter feature.
func (d *document) counter(f *counterFeature) (counter, error) {
	c := counter{
		target: f.target, priorNumerator: f.priorNumerator, priorDenominator: f.priorDenominator, shift: f.shift, scale: f.scale,
	}
	for i, e := range f.elements {
		kind, of := "numbers", len(d.floats)
		switch e.kind {
		case "float_feature":
			c.borders = append(c.borders, elementBorder{int32(e.feature), e.border})
		case "cat_feature_value":
			kind, of = "categories", len(d.categories)
			c.categories = append(c.categories, int32(e.feature))
		case "cat_feature_exact_value":
			kind, of = "categories", len(d.categories)
			c.values = append(c.values, elementValue{int32(e.feature), uint32(e.value)})
		default:
			return c, fmt.Errorf("elements %d: combination_element %.40q is not supported", i, e.kind)
		}
		if e.feature < 0 || e.feature >= of {
			return c, fmt.Errorf("elements %d: feature %d of %d %s", i, e.feature, of, kind)
		}
	}
	if c.table = d.tables[f.identifier]; c.table == nil {
		return c, fmt.Errorf("ctr_data has no table %.200q", f.identifier)
	}
	numbers := c.table.stride - 1
	switch f.kind {
	case "Borders":
		c.kind = borders
	case "Buckets":
		c.kind = buckets
	case "BinarizedTargetMeanValue", "FloatTargetMeanValue":
		c.kind = meanValue
		if numbers != 2 {
			return c, fmt.Errorf("ctr_data %.200q: hash_stride is %d, want 3", f.identifier, c.table.stride)
		}
	case "Counter", "FeatureFreq":
		c.kind = frequency
		if numbers != 1 {
			return c, fmt.Errorf("ctr_data %.200q: hash_stride is %d, want 2", f.identifier, c.table.stride)
		}
	default:
		return c, fmt.Errorf("ctr_type %.60q is not supported; these are: Borders, Buckets, BinarizedTargetMeanValue, FloatTargetMeanValue, Counter, FeatureFreq", f.kind)
	}
	if (c.kind == borders || c.kind == buckets) && (numbers < 2 || c.target >= numbers) {
		return c, fmt.Errorf("target_border_idx is %d, ctr_data %.200q has a hash_stride of %d", f.target, f.identifier, c.table.stride)
	}
	if f.priorDenominator == 0 {
		return c, errors.New("prior_denomerator is 0")
	}
	return c, nil
}

// at is the counter's value for a row.
func (c *counter) at(floats, codes []float64) float32 {
	hash := uint64(0)
	for _, i := range c.categories {
		hash = combine(hash, uint64(int64(int32(uint32(codes[i])))))
	}
	for _, b := range c.borders {
		hash = combine(hash, bit(float32(floats[b.column]) > b.border))
	}
	for _, v := range c.values {
		hash = combine(hash, bit(uint32(codes[v.category]) == v.value))
	}
	var seen []float64 // nothing, of a combination that training did not have
	if at, ok := c.table.index[hash]; ok {
		seen = c.table.numbers[at : int(at)+c.table.stride-1]
	}
	good, total := 0.0, 0.0
	switch c.kind {
	case borders, buckets:
		for k, n := range seen {
			total += n
			if c.kind == buckets && k == c.target || c.kind == borders && k > c.target {
				good += n
			}
		}
	case meanValue:
		if seen != nil {
			good, total = seen[0], seen[1]
		}
	case frequency:
		if total = float64(c.table.denominator); seen != nil {
			good = seen[0]
		}
	}
	share := (float32(good) + c.priorNumerator) / (float32(total) + c.priorDenominator)
	return (share + c.shift) * c.scale
}

// combine adds a value to the hash of those before it.
func combine(hash, value uint64) uint64 {
	const factor = 0x4906ba494954cb65
	return factor * (hash + factor*value)
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
