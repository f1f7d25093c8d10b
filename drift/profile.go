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

// ScoreFeature names the feature that holds the model's probability. It is the last feature of every profile, so an
// input cannot have this name.
const ScoreFeature = "score"

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
)

// Profile is the frozen reference population of one model: for every input of its contract, in the contract's order,
// and last for the score, the places that an observation can fall into and how many reference rows fell into each.
// It comes from BuildProfile or ReadProfile, is immutable and may be shared.
type Profile struct {
	Events   uint64 // reference rows; every feature's counts add up to it
	Features []Feature

	places int // of all features together
}

// Feature is one input's, or the score's, part of a profile. Its places are, in this order:
//
//   - for numbers, dates and timestamps: under the minimum, one a bin, over the maximum, missing;
//   - for categories: one a category, other (only if the reference has rarer categories), unseen, missing;
//   - for booleans: false, true, missing.
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

	first int // index of the feature's first place among all places of the profile
}

// Places is the number of places over all features.
func (p *Profile) Places() int { return p.places }

// ProfileConfig says how finely BuildProfile divides the reference population.
type ProfileConfig struct {
	Bins       int // quantile bins of a number; fewer where values repeat
	Categories int // categories with a place of their own, the most frequent ones
}

// DefaultProfileConfig is deciles and twenty categories.
func DefaultProfileConfig() ProfileConfig { return ProfileConfig{Bins: 10, Categories: 20} }

// Validate reports all faults at once.
func (c ProfileConfig) Validate() error {
	var faults []error
	if c.Bins < 2 || c.Bins > maxFeaturePlaces-3 {
		faults = append(faults, fmt.Errorf("profile.bins: %d is not between 2 and %d, for example 10", c.Bins, maxFeaturePlaces-3))
	}
	if c.Categories < 1 || c.Categories > maxFeaturePlaces-3 {
		faults = append(faults, fmt.Errorf("profile.categories: %d is not between 1 and %d, for example 20", c.Categories, maxFeaturePlaces-3))
	}
	return errors.Join(faults...)
}

// BuildProfile freezes the population of rows, whose width is the contract's, together with the model's probability for
// each row. The counts are what an Accumulator would count on the same rows.
func BuildProfile(contract schemas.Contract, rows *schemas.Rows, probabilities []float64, cfg ProfileConfig) (*Profile, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := rows.Len()
	switch {
	case n == 0:
		return nil, errors.New("build profile: the reference population has no rows")
	case rows.Width() != len(contract.Inputs):
		return nil, fmt.Errorf("build profile: rows have %d inputs, the contract %d", rows.Width(), len(contract.Inputs))
	case len(probabilities) != n:
		return nil, fmt.Errorf("build profile: %d probabilities for %d rows", len(probabilities), n)
	}
	p := &Profile{Events: uint64(n)}
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
			f.divideNumbers(numbers, cfg.Bins)
		}
		p.Features = append(p.Features, f)
	}
	score := Feature{Name: ScoreFeature, Kind: schemas.Number}
	score.divideNumbers(probabilities, cfg.Bins)
	p.Features = append(p.Features, score)
	p.label()

	counts := make([]uint32, p.places)
	counter, err := newCounter(p, contract)
	if err != nil {
		return nil, fmt.Errorf("build profile: %w", err)
	}
	for i := range n {
		row, categories := rows.Row(i)
		counter.count(counts, row, categories, probabilities[i])
	}
	for i := range p.Features {
		f := &p.Features[i]
		f.Counts = make([]uint64, len(f.Labels))
		for place := range f.Counts {
			f.Counts[place] = uint64(counts[f.first+place])
		}
	}
	if err := p.freeze(); err != nil {
		return nil, fmt.Errorf("build profile: %w", err)
	}
	return p, nil
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

// label derives the places' labels and positions from the division.
func (p *Profile) label() {
	p.places = 0
	for i := range p.Features {
		f := &p.Features[i]
		f.first = p.places
		f.Labels = f.appendLabels(nil)
		p.places += len(f.Labels)
	}
}

func (f *Feature) appendLabels(labels []string) []string {
	switch f.Kind {
	case schemas.Boolean:
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
	} else if last := p.Features[n-1]; last.Name != ScoreFeature || last.Kind != schemas.Number {
		fault("features: the last one is %q, not the number %q", last.Name, ScoreFeature)
	}
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
		if err := f.freeze(p.Events); err != nil {
			fault("feature %q: %w", f.Name, err)
		}
	}
	return errors.Join(faults...)
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
	if sum != events {
		return fmt.Errorf("counts: add up to %d, not to the profile's %d events", sum, events)
	}
	f.Shares = AppendShares(nil, f.Counts)
	return nil
}

// profileFile and featureFile are the JSON form.
type profileFile struct {
	Format   int          `json:"format"`
	Events   uint64       `json:"events"`
	Features featureFiles `json:"features"`
}

type featureFiles []featureFile

// UnmarshalJSON stops at the limit: three bytes of a hostile file would else become a whole feature in memory.
func (f *featureFiles) UnmarshalJSON(content []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if start, err := decoder.Token(); err != nil || start != json.Delim('[') {
		return errors.Join(errors.New("features: not a list"), err)
	}
	*f = (*f)[:0]
	for decoder.More() {
		if len(*f) == maxFeatures {
			return fmt.Errorf("features: more than %d", maxFeatures)
		}
		*f = append(*f, featureFile{})
		if err := decoder.Decode(&(*f)[len(*f)-1]); err != nil {
			return fmt.Errorf("features[%d]: %w", len(*f)-1, err)
		}
	}
	return nil
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
}

// WriteProfile writes p as JSON.
func WriteProfile(w io.Writer, p *Profile) error {
	file := profileFile{Format: ProfileFormat, Events: p.Events}
	for i := range p.Features {
		f := &p.Features[i]
		file.Features = append(file.Features, featureFile{
			Name: f.Name, Kind: f.Kind, Minimum: f.Minimum, Maximum: f.Maximum, Edges: f.Edges,
			Categories: f.Categories, Rest: f.Rest, Places: f.Labels, Counts: f.Counts,
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
	p := &Profile{Events: file.Events}
	for _, f := range file.Features {
		p.Features = append(p.Features, Feature{
			Name: f.Name, Kind: f.Kind, Minimum: f.Minimum, Maximum: f.Maximum, Edges: f.Edges,
			Categories: f.Categories, Rest: f.Rest, Counts: f.Counts,
		})
	}
	p.label()
	if err := p.freeze(); err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	return p, nil
}
