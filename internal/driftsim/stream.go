package main

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/churnstream/churnstream/schemas"
)

// features is a model of twenty inputs and the score, as independent features of the same profile.
const (
	features = 21
	places   = 12
	day      = 1440 // minutes
	week     = 7 * day
	yearLong = 365 * day
)

// population is eight quantile bins, then missing, unseen, under and over.
var population = [places]float64{.1225, .1225, .1225, .1225, .1225, .1225, .1225, .1225, .015, 1e-6, .0025, .0025}

// minute is what a minute brings: events by place of each feature, and by customer group; and the class of time it is in.
type minute struct {
	counts [features][places]uint32
	groups [schemas.DriftGroups]uint32
	class  int
}

// slots are the times of the week that have a population of their own, where it follows a cycle: quarters of an hour.
const slots = week / 15

// stream draws minutes of one model's events.
type stream struct {
	s        scenario
	random   *rand.Rand
	frozen   *frozen
	rested   [features][][]float64 // the population before the onset, by slot; one slot without a cycle
	moved    [features][][]float64 // and after
	offset   int                   // minute of the week at which it begins
	customer sessions
}

// sessions are customers whose inputs never change and who come several times: the events of the minutes to come.
type sessions struct {
	ahead []minute // ring of the scenario's spread
	warm  bool
}

func newStream(s scenario, random *rand.Rand, frozen *frozen) *stream {
	st := &stream{s: s, random: random, frozen: frozen, offset: random.IntN(week)}
	rested := cycle(s.swing)
	for f := range features {
		st.rested[f], st.moved[f] = rested, rested
		if s.psi > 0 && (!s.oneFeature || f == 0) {
			kind := s.kinds[(f+random.IntN(len(s.kinds)))%len(s.kinds)]
			from := rested // with a cycle the shift is on top of it
			if s.swing == 0 {
				from = [][]float64{frozen.whole.Shares}
			}
			st.moved[f] = make([][]float64, len(from))
			for slot, shares := range from {
				st.moved[f][slot] = movedBy(shares, direction(kind, shares), s.psi)
			}
		}
	}
	if s.spread > 0 {
		st.customer.ahead = make([]minute, s.spread)
	}
	return st
}

// next fills in the minute t.
func (st *stream) next(t int, m *minute) {
	*m = minute{}
	if st.s.spread > 0 {
		st.sessions(t, m)
	} else {
		st.independent(t, m)
	}
	m.class = st.frozen.class(st.clock(t))
	if st.s.bot > 0 && t >= st.s.onset && t < st.s.onset+st.s.lasts {
		events := uint32(st.s.rate * 60 * st.s.bot / (1 - st.s.bot))
		for f := range features {
			m.counts[f][f%8] += events
		}
		m.groups[17] += events
	}
}

// clock is the minute since some Monday at which minute t is.
func (st *stream) clock(t int) int { return t + st.offset + week }

// cycle is the population by slot of the week: by day it goes from one to another whose PSI from it is swing, and half as
// far on weekends.
func cycle(swing float64) [][]float64 {
	low := normalised(population[:])
	if swing == 0 {
		return [][]float64{low}
	}
	high := movedBy(low, direction("tilt", low), swing)
	out := make([][]float64, slots)
	for slot := range out {
		t := slot * 15
		level := (1 + math.Sin(2*math.Pi*float64(t%day)/day)) / 2
		if t/day%7 >= 5 {
			level /= 2
		}
		for i := range low {
			out[slot] = append(out[slot], low[i]+level*(high[i]-low[i]))
		}
	}
	return out
}

// at is the population of a feature at minute t.
func (st *stream) at(f, t int) (rested, moved []float64) {
	slot := st.clock(t) % week / 15 % len(st.rested[f])
	return st.rested[f][slot], st.moved[f][slot%len(st.moved[f])]
}

// season is a day and a week of more and fewer events.
func season(t int) float64 {
	weekday := 1.12
	if t/day%7 >= 5 {
		weekday = 0.7
	}
	return (1 + 0.7*math.Sin(2*math.Pi*float64(t%day)/day)) * weekday
}

// part is how far the population has moved at t.
func (st *stream) part(t int) float64 {
	switch {
	case t < st.s.onset || st.s.bot > 0 || st.s.lasts > 0 && t >= st.s.onset+st.s.lasts:
		return 0
	case st.s.ramp > 0:
		return min(1, float64(t-st.s.onset)/float64(st.s.ramp))
	default:
		return 1
	}
}

func (st *stream) independent(t int, m *minute) {
	mean, part := st.s.rate*60*season(st.clock(t)), st.part(t)
	for f := range st.s.watched() {
		rested, moved := st.at(f, t)
		for i := range places {
			m.counts[f][i] = poisson(st.random, mean*(rested[i]+part*(moved[i]-rested[i])))
		}
	}
	for g := range m.groups {
		m.groups[g] = poisson(st.random, mean/schemas.DriftGroups)
	}
}

// sessions draws the customers who begin in minute t and takes what they and earlier ones bring to it.
func (st *stream) sessions(t int, m *minute) {
	if !st.customer.warm { // those who began before
		st.customer.warm = true
		for before := -st.s.spread; before < 0; before++ {
			st.begin(t+before, -before)
		}
	}
	st.begin(t, 0)
	at := &st.customer.ahead[t%st.s.spread]
	*m, *at = *at, minute{}
}

// begin draws the customers of minute t; of their events those of the first skip minutes are past.
func (st *stream) begin(t, skip int) {
	each := st.s.events
	if st.s.heavy > 0 {
		each = .95*st.s.events + .05*st.s.heavy
	}
	part := st.part(t)
	var at [features]int
	for range poisson(st.random, st.s.rate*60*season(st.clock(t))/each) {
		for f := range st.s.watched() {
			rested, moved := st.at(f, t)
			at[f] = draw(st.random, rested, moved, part)
		}
		mean := st.s.events
		if st.s.heavy > 0 && st.random.Float64() < .05 {
			mean = st.s.heavy
		}
		group := st.random.IntN(schemas.DriftGroups)
		for range 1 + int(math.Log(1-st.random.Float64())/math.Log(1-1/mean)) {
			after := st.random.IntN(st.s.spread)
			if after < skip {
				continue
			}
			m := &st.customer.ahead[(t+after)%st.s.spread]
			for f := range st.s.watched() {
				m.counts[f][at[f]]++
			}
			m.groups[group]++
		}
	}
}

func draw(random *rand.Rand, rested, moved []float64, part float64) int {
	u := random.Float64()
	for i := range places - 1 {
		if u -= rested[i] + part*(moved[i]-rested[i]); u < 0 {
			return i
		}
	}
	return places - 1
}

func poisson(random *rand.Rand, mean float64) uint32 {
	if mean > 1000 {
		return uint32(max(0, math.Round(mean+math.Sqrt(mean)*random.NormFloat64())))
	}
	return uint32(distuv.Poisson{Lambda: mean, Src: random}.Rand())
}

// direction is the population that a shift of a kind moves towards.
func direction(kind string, from []float64) []float64 {
	to := append([]float64(nil), from...)
	switch kind {
	case "tilt":
		for i := range to {
			to[i] *= math.Exp(-4 + 8*float64(i)/(places-1))
		}
	case "missing":
		to[8] += 3
	case "new category":
		to[9] += 3
	case "three bins empty":
		to[0], to[1], to[2] = 1e-9, 1e-9, 1e-9
	case "shift":
		for i := range 8 {
			to[i] = from[(i+7)%8] * math.Exp(2.5-5*float64(i)/7)
		}
	}
	return normalised(to)
}

// movedBy is the population on the way from one to another whose PSI against the first is psi.
func movedBy(from, towards []float64, psi float64) []float64 {
	at := func(part float64) []float64 {
		out := make([]float64, len(from))
		for i := range out {
			out[i] = from[i] + part*(towards[i]-from[i])
		}
		return out
	}
	low, high := 0.0, 1.0
	for range 80 {
		if middle := (low + high) / 2; index(at(middle), from) < psi {
			low = middle
		} else {
			high = middle
		}
	}
	return at(low)
}

func normalised(shares []float64) []float64 {
	total := 0.0
	for _, s := range shares {
		total += s
	}
	out := make([]float64, len(shares))
	for i, s := range shares {
		out[i] = s / total
	}
	return out
}
