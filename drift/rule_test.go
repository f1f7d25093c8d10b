package drift

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

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

// judge asks as a model of 21 features does; every customer has designEffect events.
func judge(t testing.TB, f *Feature, counts []uint64, designEffect float64, reference float64) Judgement {
	t.Helper()
	rule, err := NewRule(DefaultRuleConfig(), Questions{Features: 21, Horizons: 5, Every: time.Minute})
	require.NoError(t, err)
	require.InDelta(t, 17.8, rule.Needed, 0.05)
	return rule.Judge(counts, f.Shares, groupsWorth(sum(counts), designEffect), reference)
}

// groupsWorth are groups of n events with a design effect.
func groupsWorth(n uint64, designEffect float64) *Groups {
	var groups Groups
	mean := float64(n) / float64(len(groups))
	apart := math.Sqrt(max(0, designEffect-1) * mean * 63 / 64) // half of the groups above, half below
	for i := range groups {
		groups[i] = uint64(math.Round(max(0, mean+apart*float64(1-2*(i%2)))))
	}
	if designEffect == 1 {
		groups = Groups{}
	}
	return &groups
}

func TestRuleSaysNothingOfTooLittleData(t *testing.T) {
	f, population := twelvePlaces(10_000)
	random := rand.New(rand.NewPCG(1, 1))
	moved := tilted(population, 3)
	few := judge(t, f, draw(random, moved, 119, 1), 1, 10_000)
	require.Equal(t, StateInsufficientData, few.State)
	require.True(t, math.IsNaN(few.PSI) && math.IsNaN(few.Evidence) && math.IsNaN(few.Visible), "a number that means nothing is not given")
	require.Equal(t, StateDrifting, judge(t, f, draw(random, moved, 120, 1), 1, 10_000).State)
	require.Equal(t, StateInsufficientData, judge(t, f, draw(random, moved, 100, 22), 22, 10_000).State, "events of returning customers are not data")
	counts := draw(random, moved, 2000, 1)
	require.Equal(t, StateInsufficientReference, judge(t, f, counts, 1, 2199).State, "the profile's own noise is no shift")
	require.Equal(t, StateDrifting, judge(t, f, counts, 1, 2200).State)
}

func TestOneCustomerWhoFloodsTheStreamIsNamedAndRaisesNothing(t *testing.T) {
	f, population := twelvePlaces(10_000)
	random := rand.New(rand.NewPCG(1, 1))
	rule, err := NewRule(DefaultRuleConfig(), Questions{Features: 21, Horizons: 5, Every: time.Minute})
	require.NoError(t, err)
	var groups Groups
	for range 60_000 {
		groups[random.IntN(len(groups))]++
	}
	counts := draw(random, population, 60_000, 1)
	require.Equal(t, StateOK, rule.Judge(counts, f.Shares, &groups, 10_000).State)
	counts[4] += 15_000
	groups[9] += 15_000
	flooded := rule.Judge(counts, f.Shares, &groups, 10_000)
	require.Equal(t, StateDominated, flooded.State)
	require.Less(t, flooded.Customers, 60.0)
	require.EqualValues(t, 75_000, flooded.Events)
}

// Fixed seeds; each case is one feature at one moment. Whole years, with every window and minute, are internal/driftsim's.
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
		{"harmless shift", 0.05, 1200, 1, 0, 0},
		{"barely relevant shift", 0.1, 1200, 1, 0, 0},
		{"barely relevant shift, large window", 0.1, 20_000, 1, 0, 0},
		{"shift as large as can just be seen", 0.25, 1200, 1, 0.2, 0.8},
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
				j := judge(t, f, counts, float64(tt.eventsEach), 10_000)
				require.NotEqual(t, StateInsufficientData, j.State)
				if j.State == StateDrifting {
					drifting++
				}
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
	a, err := NewAccumulator(profile, contract, minutes, source, nil)
	require.NoError(t, err)
	population := newPopulation(t, profile)
	alarms, err := NewAlarms(population, model, DefaultAlarmConfig())
	require.NoError(t, err)
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
		a.Observe(Event{Offset: int64(i), Time: at, Key: keys[i], Numbers: numbers, Categories: categories, Probability: probabilities[i]})
		if i%perMinute != perMinute-1 {
			continue
		}
		a.Commit()
		require.NoError(t, a.Committed(func(_ []byte, state *schemas.DriftState) error { return population.Apply(state) }))
		watermark, _ := population.Watermark()
		for _, record := range alarms.Step(at, population.Evaluate(watermark-1, alarms.Marks())) {
			if record.State == schemas.AlertRaised {
				raisedAt[record.Feature] = i / perMinute
				require.Equal(t, "missing", record.TopBins[0].Label)
			}
		}
	}
	require.Len(t, raisedAt, 1)
	require.Contains(t, raisedAt, "number_4")
	require.GreaterOrEqual(t, raisedAt["number_4"], 90)
	require.Less(t, raisedAt["number_4"], 90+10)
}
