package drift

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/churnstream/churnstream/schemas"
)

// twelvePlaces is a feature with ten bins, over and missing, and a population of which it is a fair sample.
func twelvePlaces(events uint64) (*Feature, []float64) {
	population := []float64{.1, .1, .1, .1, .1, .1, .1, .1, .1, .08, .005, .015}
	f := &Feature{Name: "tenure", Labels: make([]string, len(population))}
	for _, share := range population {
		f.Counts = append(f.Counts, uint64(math.Round(share*float64(events))))
	}
	f.Shares = AppendShares(nil, f.Counts)
	return f, population
}

// tilted moves the population along a slope until its PSI is psi.
func tilted(population []float64, psi float64) []float64 {
	at := func(slope float64) []float64 {
		out, total := slices.Clone(population), 0.0
		for i := range out {
			out[i] *= math.Exp(slope * float64(i))
			total += out[i]
		}
		for i := range out {
			out[i] /= total
		}
		return out
	}
	low, high := 0.0, 2.0
	for range 60 {
		if middle := (low + high) / 2; PSI(at(middle), population) < psi {
			low = middle
		} else {
			high = middle
		}
	}
	return at(low)
}

// draw is a sample of a population: customers many, each with the same number of events in one place.
func draw(random *rand.Rand, population []float64, customers, eventsEach int) []uint64 {
	counts := make([]uint64, len(population))
	for range customers {
		u, place := random.Float64(), 0
		for u >= population[place] && place < len(population)-1 {
			u -= population[place]
			place++
		}
		counts[place] += uint64(eventsEach)
	}
	return counts
}

func judge(t testing.TB, f *Feature, counts []uint64, designEffect float64, reference uint64) Finding {
	t.Helper()
	rule, err := NewRelevantShift(DefaultRelevantShiftConfig())
	require.NoError(t, err)
	n := uint64(0)
	for _, c := range counts {
		n += c
	}
	finding := Finding{PSI: math.NaN(), Events: n, EffectiveCustomers: float64(n) / designEffect, ReferenceEvents: reference}
	rule.Judge(&finding, f, counts, 21)
	return finding
}

func TestRuleSaysNothingOfTooLittleData(t *testing.T) {
	f, population := twelvePlaces(10_000)
	random := rand.New(rand.NewPCG(1, 1))
	moved := tilted(population, 3)
	few := judge(t, f, draw(random, moved, 119, 1), 1, 10_000)
	require.Equal(t, StateInsufficientData, few.State)
	require.True(t, math.IsNaN(few.PSI), "a number that means nothing is not given")
	require.Equal(t, StateDrifting, judge(t, f, draw(random, moved, 120, 1), 1, 10_000).State)
	require.Equal(t, StateInsufficientData, judge(t, f, draw(random, moved, 100, 22), 22, 10_000).State, "events of returning customers are not data")
	small, _ := twelvePlaces(110)
	require.Equal(t, StateInsufficientData, judge(t, small, draw(random, moved, 5000, 1), 1, 110).State, "too small a reference")
}

func TestRuleDrawsItsLineWhereBothGatesAreMet(t *testing.T) {
	f, population := twelvePlaces(10_000)
	random := rand.New(rand.NewPCG(1, 1))
	for _, customers := range []int{120, 20_000} { // chance sets the line of small windows, relevance that of large ones
		null := PSINull{Current: float64(customers), Reference: 10_000, Places: 12}
		chance, relevant := null.Critical(1e-4/21), null.CriticalShift(0.1, 0.01)
		require.Equal(t, customers == 120, chance > relevant)
		require.Equal(t, max(chance, relevant), judge(t, f, draw(random, population, customers, 1), 1, 10_000).Critical)
	}
}

// Fixed seeds; each case is one feature at one moment, so hold and union over features come on top.
func TestRuleHoldsFalseAlarmsAndFindsShifts(t *testing.T) {
	const trials = 1500
	f, population := twelvePlaces(10_000)
	tests := []struct {
		name                  string
		psi                   float64
		customers, eventsEach int
		least, most           float64 // share of windows called drifting
	}{
		{"no shift, smallest window", 0, 120, 1, 0, 0},
		{"no shift", 0, 1200, 1, 0, 0},
		{"no shift, customers with 22 events each", 0, 300, 22, 0, 0},
		{"harmless shift", 0.05, 1200, 1, 0, 0.002},
		{"barely relevant shift", 0.1, 1200, 1, 0, 0.03},
		{"barely relevant shift, large window", 0.1, 20_000, 1, 0, 0.03},
		{"shift of 0.25", 0.25, 3600, 1, 0.98, 1},
		{"shift of 0.5", 0.5, 1200, 1, 0.99, 1},
		{"shift of 0.5, customers with 22 events each", 0.5, 1200, 22, 0.99, 1},
	}
	for seed, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(uint64(seed), 42))
			moved := tilted(population, tt.psi)
			trials := trials
			if tt.customers > 10_000 {
				trials /= 10
			}
			drifting := 0
			for range trials {
				counts := draw(random, moved, tt.customers, tt.eventsEach)
				finding := judge(t, f, counts, float64(tt.eventsEach), 10_000)
				require.NotEqual(t, StateInsufficientData, finding.State)
				if finding.State == StateDrifting {
					drifting++
				}
				require.False(t, finding.Calm && finding.State == StateDrifting)
			}
			share := float64(drifting) / float64(trials)
			require.GreaterOrEqual(t, share, tt.least)
			require.LessOrEqual(t, share, tt.most)
		})
	}
}

// From events to an alert, over the window's own machinery: an unmoved hour, then an input that goes missing.
func TestShiftInTheStreamBecomesAnAlertAndNothingElseDoes(t *testing.T) {
	profile, contract := telcoProfile(t)
	a, err := NewAccumulator(profile, contract, DefaultWindowConfig(), source, nil)
	require.NoError(t, err)
	population := newPopulation(t, profile)
	alarms := newAlarms(t, DefaultAlarmConfig())
	const perMinute = 60
	rows, probabilities := customers(contract, 180*perMinute, 11)
	keys := customerKeys(rows.Len())
	raisedAt := map[string]int{}
	for i := range rows.Len() {
		numbers, categories := rows.Row(i)
		if i/perMinute >= 90 && i%2 == 0 {
			numbers[4] = math.NaN()
		}
		at := hour + int64(i)*minute/perMinute
		a.SetClock(at)
		a.Observe(int64(i), at, keys[i], numbers, categories, probabilities[i])
		if i%perMinute != perMinute-1 {
			continue
		}
		a.Commit()
		require.NoError(t, a.Committed(func(_ []byte, state *schemas.DriftState) error { return population.Apply(state) }))
		watermark, _ := population.Watermark()
		for _, record := range alarms.Step(at, population.Evaluate(watermark-1)) {
			if record.State == schemas.AlertRaised {
				raisedAt[record.Feature] = i / perMinute
				require.Equal(t, "missing", record.TopBins[0].Label)
			}
		}
	}
	require.Len(t, raisedAt, 1)
	require.Contains(t, raisedAt, "number_4")
	require.Greater(t, raisedAt["number_4"], 90+13, "held")
	require.Less(t, raisedAt["number_4"], 90+40)
}
