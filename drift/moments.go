package drift

import "math"

// Moments are what is known of a number's distribution beside its places. They add up over buckets, partitions and
// workers as counts do; sums are about the feature's centre, so that the variance of large numbers keeps its digits.
type Moments struct {
	Sum, Squares     float64 // of (value − centre), of (value − centre)²
	Minimum, Maximum float64 // +Inf, −Inf without any value
}

func noMoments() Moments { return Moments{Minimum: math.Inf(1), Maximum: math.Inf(-1)} }

// with are the moments with one more value. The struct goes by value, so that it stays in registers from value to value.
func (m Moments) with(v, centre float64) Moments {
	d := v - centre
	m.Sum += d
	m.Squares += d * d
	if v < m.Minimum {
		m.Minimum = v
	}
	if v > m.Maximum {
		m.Maximum = v
	}
	return m
}

func (m *Moments) merge(other *Moments) {
	m.Sum += other.Sum
	m.Squares += other.Squares
	m.Minimum = min(m.Minimum, other.Minimum)
	m.Maximum = max(m.Maximum, other.Maximum)
}

// Summary describes the values of a numeric feature in a window. The numbers are NaN without any value.
type Summary struct {
	Values                      uint64 // events that are not missing
	Mean, Deviation             float64
	Minimum, Maximum            float64
	MissingShare, UnseenShare   float64 // of all events; unseen: a category, or a number outside the reference's range
	Quantiles                   []Quantile
	ReferenceMean               float64 // of the whole reference; NaN if the profile does not tell
	ReferenceMissing, RefUnseen float64
}

// Quantile is what frozen bins tell of a quantile: it certainly lies between Low and High, the ends of the bin that holds
// it, and is about Value if the bin is filled evenly.
type Quantile struct{ Share, Value, Low, High float64 }

// Summarize describes a feature by the counts of its places, beside those of the reference that it is compared with, and, for
// a number, by its moments; nil: none were kept.
func (f *Feature) Summarize(counts, reference []uint64, moments *Moments) Summary {
	s := Summary{Mean: math.NaN(), Deviation: math.NaN(), Minimum: math.NaN(), Maximum: math.NaN(), ReferenceMean: f.Mean}
	total := uint64(0)
	for _, c := range counts {
		total += c
	}
	s.Values = total
	s.ReferenceMissing, s.RefUnseen = f.apart(reference)
	s.MissingShare, s.UnseenShare = f.apart(counts)
	if f.missing >= 0 {
		s.Values -= counts[f.missing]
	}
	if moments == nil || s.Values == 0 {
		return s
	}
	n := float64(s.Values)
	s.Mean = f.centre + moments.Sum/n
	s.Deviation = math.Sqrt(max(0, moments.Squares-moments.Sum*moments.Sum/n) / max(1, n-1))
	s.Minimum, s.Maximum = moments.Minimum, moments.Maximum
	for _, share := range []float64{0.05, 0.25, 0.5, 0.75, 0.95} {
		s.Quantiles = append(s.Quantiles, f.quantile(share, counts, moments, s.Values))
	}
	return s
}

// apart gives the shares of what is missing and of what the reference did not hold.
func (f *Feature) apart(counts []uint64) (missing, unseen float64) {
	total := 0.0
	for _, c := range counts {
		total += float64(c)
	}
	if total == 0 {
		return math.NaN(), math.NaN()
	}
	if f.missing >= 0 {
		missing = float64(counts[f.missing]) / total
	}
	for _, place := range f.unseen {
		unseen += float64(counts[place]) / total
	}
	return missing, unseen
}

func (f *Feature) quantile(share float64, counts []uint64, moments *Moments, values uint64) Quantile {
	q := Quantile{Share: share}
	rank, below := share*float64(values), 0.0
	bounds := append(append([]float64{moments.Minimum, f.Minimum}, f.Edges...), f.Maximum, moments.Maximum)
	for place, c := range counts[:len(bounds)-1] {
		here := float64(c)
		if here > 0 && below+here >= rank {
			q.Low, q.High = max(bounds[place], moments.Minimum), min(bounds[place+1], moments.Maximum)
			q.Low = min(q.Low, q.High)
			q.Value = q.Low + (q.High-q.Low)*(rank-below)/here
			return q
		}
		below += here
	}
	q.Value, q.Low, q.High = moments.Maximum, moments.Maximum, moments.Maximum
	return q
}
