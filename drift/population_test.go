package drift

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/churnstream/churnstream/schemas"
)

// counted gives the states of one partition that saw customers first to last at a minute each.
func counted(t require.TestingT, profile *Profile, contract schemas.Contract, partition int32, first, last int) []*schemas.DriftState {
	at := source
	at.Partition = partition
	a, err := NewAccumulator(profile, contract, minutes, at, nil)
	require.NoError(t, err)
	rows, probabilities := customers(contract, last-first, uint64(partition))
	keys := customerKeys(last)
	for i := range last - first {
		numbers, categories := rows.Row(i)
		a.Observe(Event{Offset: int64(i), Time: hour + int64(first+i)*minute/4, Key: keys[first+i], Numbers: numbers, Categories: categories, Probability: probabilities[i]})
	}
	topic := stateTopic{}
	require.NoError(t, a.States(topic.put))
	return topic.states(t)
}

// hourly is the window of an hour that ends with the minute of at, longest the longest one.
func hourly(p *Population, at int64) *Window { return p.Windows(at, noBucket)[1] }

func longest(p *Population, at int64) *Window { return p.Windows(at, noBucket)[4] }

func TestMergingIsAdditionInAnyOrderAndHowOftenEver(t *testing.T) {
	profile, contract := telcoProfile(t)
	rapid.Check(t, func(t *rapid.T) {
		var all []*schemas.DriftState
		want := profile.newWindow(0, 0)
		for partition := range rapid.Int32Range(1, 4).Draw(t, "partitions") {
			first := rapid.IntRange(0, 20).Draw(t, "first")
			states := counted(t, profile, contract, partition, first, first+rapid.IntRange(1, 60).Draw(t, "events"))
			all = append(all, states...)
			for _, state := range states {
				place := 0
				for _, counts := range state.Counts {
					for _, c := range counts {
						want.Counts[place] += uint64(c)
						place++
					}
				}
				for g, c := range state.Groups {
					want.Groups[g] += uint64(c)
					want.Events += uint64(c)
				}
			}
			want.Partitions++
		}
		population := newPopulation(t, profile)
		order := rapid.Permutation(append(all, all...)).Draw(t, "order")
		for _, state := range order {
			require.NoError(t, population.Apply(state))
		}
		got := longest(population, hour+20*minute)
		require.Equal(t, want.Counts, got.Counts)
		require.Equal(t, want.Groups, got.Groups)
		require.Equal(t, want.Events, got.Events)
		require.Equal(t, want.Partitions, got.Partitions)
	})
}

func TestAnOlderStateDoesNotReplaceANewerOne(t *testing.T) {
	profile, contract := telcoProfile(t)
	population := newPopulation(t, profile)
	newer, older := counted(t, profile, contract, 0, 0, 4)[0], counted(t, profile, contract, 0, 0, 2)[0]
	require.NoError(t, population.Apply(newer))
	require.NoError(t, population.Apply(older))
	events := hourly(population, hour).Events
	require.NotZero(t, events)
	require.Greater(t, newer.NextOffset, older.NextOffset)
	require.Equal(t, sum(newer.Counts[0]), events)
}

func TestABucketThatLeftTheWindowDoesNotReplaceOneInIt(t *testing.T) {
	profile, contract := telcoProfile(t)
	population := newPopulation(t, profile)
	old := counted(t, profile, contract, 0, 0, 1)[0]
	recent := counted(t, profile, contract, 0, 240, 243) // an hour later: the same slot of the ring
	require.Equal(t, old.BucketStart+60*minute, recent[0].BucketStart)
	for _, state := range append(recent, old) {
		require.NoError(t, population.Apply(state))
	}
	require.EqualValues(t, 3, hourly(population, hour+62*minute).Events)
}

func sum[C uint32 | uint64](counts []C) (total uint64) {
	for _, c := range counts {
		total += uint64(c)
	}
	return total
}

func TestWindowHoldsItsBucketsAndNoOthers(t *testing.T) {
	profile, contract := telcoProfile(t)
	population := newPopulation(t, profile)
	for _, state := range counted(t, profile, contract, 0, 0, 200) { // 50 minutes, four events each
		require.NoError(t, population.Apply(state))
	}
	require.EqualValues(t, 200, hourly(population, hour+50*minute).Events)
	require.InDelta(t, 160, hourly(population, hour+69*minute).Events, 4, "ten minutes have left")
	require.InDelta(t, 40, hourly(population, hour+9*minute).Events, 4, "forty have not come yet")
	require.Zero(t, hourly(population, hour+500*minute).Events)
}

func TestWatermarkWaitsForSlowPartitionsButNotForIdleOnes(t *testing.T) {
	profile, contract := telcoProfile(t)
	population := newPopulation(t, profile)
	_, found := population.Watermark()
	require.False(t, found)
	start := align(hour, minute)
	apply := func(partition int32, lastMinute int) {
		for _, state := range counted(t, profile, contract, partition, lastMinute*4, lastMinute*4+1) {
			require.NoError(t, population.Apply(state))
		}
	}
	apply(0, 0)
	apply(1, 3)
	watermark, _ := population.Watermark()
	require.Equal(t, start+minute, watermark, "the slow partition holds it")
	apply(1, 10)
	watermark, _ = population.Watermark()
	require.Equal(t, start+11*minute, watermark, "the idle one does not")
	require.Equal(t, 2, hourly(population, watermark-1).Partitions, "but is in the window")
}

func TestPopulationIgnoresForeignStatesAndRefusesImpossibleOnes(t *testing.T) {
	profile, contract := telcoProfile(t)
	population := newPopulation(t, profile)
	state := counted(t, profile, contract, 0, 0, 1)[0]
	state.ModelDigest = "sha256:def"
	require.NoError(t, population.Apply(state))
	require.Zero(t, hourly(population, hour).Events)
	state.ModelDigest = source.ModelDigest
	state.Counts[2][0] += 7
	require.ErrorContains(t, population.Apply(state), "merge drift of customer-activity/0")
	require.Zero(t, hourly(population, hour).Events)
}

func TestDesignEffectIsOneForDifferentCustomersAndGrowsWithRepeats(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	draw := func(customers, eventsEach int) float64 {
		var groups Groups
		for range customers {
			groups[random.IntN(schemas.DriftGroups)] += uint64(eventsEach)
		}
		return groups.DesignEffect()
	}
	require.Equal(t, 1.0, new(Groups).DesignEffect())
	require.InDelta(t, 1, draw(20_000, 1), 0.4)
	require.InDelta(t, 22, draw(20_000, 22), 22*0.5)
	require.Equal(t, 1000.0, (&Groups{7: 1000}).DesignEffect(), "one customer is one customer")
}

func TestCustomersOfOnePartitionSpreadOverAllGroups(t *testing.T) {
	var groups [schemas.DriftGroups]uint64
	for _, key := range customerKeys(6400) {
		groups[customerGroup(key)]++
	}
	for g, n := range groups {
		require.InDelta(t, 100, n, 60, "group %d", g)
	}
}

func TestLongerWindowsHoldTheDesignEffectOfAShortOne(t *testing.T) {
	spread := func(every, extra uint64) *Groups { // half of the groups have more
		g := &Groups{}
		for i := range g {
			g[i] = every + extra*uint64(i%2)
		}
		return g
	}
	ten, hour := spread(100, 0), spread(600, 130)
	long := []Lasting{{ten.DesignEffect(), 10 * time.Minute}, {hour.DesignEffect(), time.Hour}}
	require.Equal(t, 1.0, ten.DesignEffect())
	require.InDelta(t, 6.45, hour.DesignEffect(), 0.01)
	require.InDelta(t, 1+(hour.DesignEffect()-1)/6, ten.DesignEffectWithin(10*time.Minute, long), 1e-12)
	require.Equal(t, hour.DesignEffect(), hour.DesignEffectWithin(time.Hour, long), "nothing is longer")
	require.Equal(t, 1.0, ten.DesignEffectWithin(time.Hour, long))
	bot := []Lasting{{3000, 6 * time.Hour}}
	require.Equal(t, 2.0, ten.DesignEffectWithin(10*time.Minute, bot), "more than chance is not the short window's")
	require.Equal(t, 1.0, ten.DesignEffectWithin(10*time.Minute, []Lasting{{1, 6 * time.Hour}}))
}

// TestEvaluationHoldsAShortWindowToTheCustomersOfLongerOnes: in the first fifty minutes ten customers make all events, in
// the last ten minutes each is another's.
func TestEvaluationHoldsAShortWindowToTheCustomersOfLongerOnes(t *testing.T) {
	a, profile, contract := newAccumulator(t, minutes)
	rows, probabilities := customers(contract, 6000, 8)
	keys := customerKeys(6000)
	start := align(hour, minute)
	for i := range 6000 {
		numbers, categories := rows.Row(i)
		at, key := start+int64(i)*600, keys[i]
		if i < 5000 {
			key = keys[i%10]
		}
		a.Observe(Event{Offset: int64(i), Time: at, Key: key, Numbers: numbers, Categories: categories, Probability: probabilities[i]})
	}
	a.Commit()
	population := newPopulation(t, profile)
	require.NoError(t, a.Committed(func(_ []byte, state *schemas.DriftState) error { return population.Apply(state) }))
	watermark, _ := population.Watermark()
	e := population.Evaluate(watermark-1, nil)
	j, w := e.Findings[0].Judgements[0], e.Windows[0]
	require.Equal(t, uint64(1000), j.Events)
	require.InDelta(t, 2, w.EffectiveCustomers()/j.Customers, 1e-9)
}
