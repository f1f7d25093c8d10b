package drift

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/churnstream/churnstream/internal/testkit/cputime"
	"github.com/churnstream/churnstream/schemas"
)

// atATime is how many events are counted together, as a worker does.
const atATime = 125

// An event of 20 features, the score included, in transactions of 1,000.
func BenchmarkObserve(b *testing.B) {
	a, _, contract := newAccumulator(b, minutes)
	benchmarkObserve(b, a, contract)
}

// As BenchmarkObserve, with 20 numbers.
func BenchmarkObserveNumbers(b *testing.B) {
	contract := numbersOf(20)
	rows, probabilities := customers(contract, 5000, 7)
	profile, err := BuildProfile(contract, Reference{Rows: rows, Probabilities: probabilities}, DefaultProfileConfig())
	require.NoError(b, err)
	a, err := NewAccumulator(profile, contract, minutes, source, nil)
	require.NoError(b, err)
	benchmarkObserve(b, a, contract)
}

func numbersOf(n int) (contract schemas.Contract) {
	for i := range n {
		contract.Inputs = append(contract.Inputs, schemas.Input{Name: fmt.Sprintf("n%d", i), Kind: schemas.Number, Nullable: true})
	}
	return contract
}

// As BenchmarkObserve, with as many classes of time as there can be: the hours of the week.
func BenchmarkObserveWithClasses(b *testing.B) {
	contract, cfg := telco(), DefaultProfileConfig()
	rows, probabilities := customers(contract, 5000, 7)
	var err error
	cfg.Classes, err = NewClasses("weekdays/1h", "Europe/Berlin")
	require.NoError(b, err)
	profile, err := BuildProfile(contract, Reference{Rows: rows, Probabilities: probabilities, Times: weeks(5000)}, cfg)
	require.NoError(b, err)
	a, err := NewAccumulator(profile, contract, minutes, source, nil)
	require.NoError(b, err)
	benchmarkObserve(b, a, contract)
}

func benchmarkObserve(b *testing.B, a *Accumulator, contract schemas.Contract) {
	b.Helper()
	rows, probabilities := customers(contract, 1000, 8)
	keys := customerKeys(1000)
	b.ReportAllocs()
	offset := int64(0)
	defer cputime.Report(b, 1, "op")()
	var events []Event
	for b.Loop() {
		i := int(offset % 1000)
		numbers, categories := rows.Row(i)
		events = append(events, Event{Offset: offset, Time: hour + offset, Key: keys[i], Numbers: numbers, Categories: categories, Probability: probabilities[i]})
		offset++
		if len(events) == atATime {
			a.Observe(events...)
			events = events[:0]
		}
		if i == 999 {
			a.Commit()
		}
	}
	b.ReportMetric(float64(a.Size()), "bytes/partition")
}

// The part of a transaction that does not depend on its events: states out, counts in.
func BenchmarkStatesAndCommit(b *testing.B) {
	a, _, contract := newAccumulator(b, minutes)
	rows, probabilities := customers(contract, 1, 8)
	numbers, categories := rows.Row(0)
	var value []byte
	b.ReportAllocs()
	for offset := int64(0); b.Loop(); offset++ {
		a.Observe(Event{Offset: offset, Time: hour, Key: []byte("customer"), Numbers: numbers, Categories: categories, Probability: probabilities[0]})
		if err := a.States(func(_ []byte, state *schemas.DriftState) error {
			value = state.AppendAvro(value[:0])
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		a.Commit()
	}
}

// 100 partitions, 20 features, the whole window filled.
func BenchmarkEvaluate(b *testing.B) {
	a, profile, contract := newAccumulator(b, minutes)
	rows, probabilities := customers(contract, 6000, 8)
	keys := customerKeys(6000)
	for i := range 6000 {
		numbers, categories := rows.Row(i)
		a.Observe(Event{Offset: int64(i), Time: hour + int64(i)*600, Key: keys[i], Numbers: numbers, Categories: categories, Probability: probabilities[i]})
	}
	a.Commit()
	benchmarkEvaluate(b, profile, a)
}

// weeks are times two minutes apart.
func weeks(n int) []int64 {
	times := make([]int64, n)
	for i := range times {
		times[i] = hour + int64(i)*2*minute
	}
	return times
}

func customerKeys(n int) [][]byte {
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "%04d-CUSTO", i)
	}
	return keys
}

func newPopulation(t require.TestingT, profile *Profile) *Population {
	p, err := NewPopulation(profile, source.ModelDigest, DefaultPopulationConfig(), DefaultRuleConfig())
	require.NoError(t, err)
	return p
}

// 100 partitions, 100 inputs of twelve places and more, every ring filled.
func BenchmarkEvaluateHundredInputs(b *testing.B) {
	benchmarkEvaluateHundred(b, nil)
}

// As BenchmarkEvaluateHundredInputs, with the hours of the week as classes of time.
func BenchmarkEvaluateHundredInputsWithClasses(b *testing.B) {
	classes, err := NewClasses("weekdays/1h", "Europe/Berlin")
	require.NoError(b, err)
	benchmarkEvaluateHundred(b, classes)
}

func benchmarkEvaluateHundred(b *testing.B, classes *Classes) {
	b.Helper()
	contract := numbersOf(100)
	rows, probabilities := customers(contract, 5000, 7)
	cfg := DefaultProfileConfig()
	cfg.Classes = classes
	profile, err := BuildProfile(contract, Reference{Rows: rows, Probabilities: probabilities, Times: weeks(5000)}, cfg)
	require.NoError(b, err)
	a, err := NewAccumulator(profile, contract, minutes, source, nil)
	require.NoError(b, err)
	for i := range int64(7 * 24 * 20) { // a week, an event in three minutes
		numbers, categories := rows.Row(int(i % 5000))
		a.Observe(Event{Offset: i, Time: hour + i*3*minute, Key: fmt.Appendf(nil, "%d", i), Numbers: numbers, Categories: categories, Probability: probabilities[i%5000]})
		if i%20 == 0 {
			a.Commit()
		}
	}
	a.Commit()
	benchmarkEvaluate(b, profile, a)
}

// benchmarkEvaluate judges 100 partitions that have all counted what a has.
func benchmarkEvaluate(b *testing.B, profile *Profile, a *Accumulator) {
	b.Helper()
	population := newPopulation(b, profile)
	for partition := range int32(100) {
		require.NoError(b, a.Committed(func(_ []byte, state *schemas.DriftState) error {
			state.Partition = partition
			return population.Apply(state)
		}))
	}
	watermark, _ := population.Watermark()
	b.ReportAllocs()
	defer cputime.Report(b, 1, "op")()
	for b.Loop() {
		population.Evaluate(watermark-1, nil)
	}
}
