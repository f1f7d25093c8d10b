package drift

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/churnstream/churnstream/schemas"
)

// telco is a contract of 19 inputs of every kind; with the score that is a profile of 20 features.
func telco() schemas.Contract {
	var c schemas.Contract
	for i := range 8 {
		c.Inputs = append(c.Inputs, schemas.Input{Name: fmt.Sprintf("number_%d", i), Kind: schemas.Number, Nullable: true})
	}
	for i := range 7 {
		c.Inputs = append(c.Inputs, schemas.Input{Name: fmt.Sprintf("category_%d", i), Kind: schemas.Category, Nullable: true})
	}
	return schemas.Contract{Inputs: append(
		c.Inputs,
		schemas.Input{Name: "boolean_0", Kind: schemas.Boolean, Nullable: true},
		schemas.Input{Name: "boolean_1", Kind: schemas.Boolean, Nullable: true},
		schemas.Input{Name: "since", Kind: schemas.Date},
		schemas.Input{Name: "seen", Kind: schemas.Timestamp},
	)}
}

// customers draws n customers of one unmoved population and their scores.
func customers(contract schemas.Contract, n int, seed uint64) (*schemas.Rows, []float64) {
	random := rand.New(rand.NewPCG(seed, 1))
	plans := [][]byte{[]byte("Month-to-month"), []byte("One year"), []byte("Two year"), []byte("Electronic check"), []byte("Mailed check")}
	rows := schemas.NewRows(len(contract.Inputs), n)
	probabilities := make([]float64, n)
	for i := range n {
		numbers, categories := rows.Row(rows.Append())
		for j, input := range contract.Inputs {
			if input.Nullable && random.Float64() < 0.02 {
				continue
			}
			switch input.Kind {
			case schemas.Category:
				categories[j] = plans[min(random.IntN(len(plans)), random.IntN(len(plans)))]
			case schemas.Boolean:
				numbers[j] = float64(random.IntN(2))
			case schemas.Date:
				numbers[j] = float64(17_000 + random.IntN(2000))
			case schemas.Timestamp:
				numbers[j] = float64(1_600_000_000_000 + random.Int64N(1e10))
			default:
				numbers[j] = math.Exp(random.NormFloat64())
			}
		}
		probabilities[i] = 1 / (1 + math.Exp(-random.NormFloat64()))
	}
	return rows, probabilities
}

func telcoProfile(t testing.TB) (*Profile, schemas.Contract) {
	t.Helper()
	contract := telco()
	rows, probabilities := customers(contract, 5000, 7)
	profile, err := BuildProfile(contract, Reference{Rows: rows, Probabilities: probabilities}, DefaultProfileConfig())
	require.NoError(t, err)
	return profile, contract
}

// hour is an event time in the middle of a bucket.
const hour = int64(1_700_000_000_000)

// minutes is the default window.
var minutes = DefaultWindowConfig(time.Minute)

var source = Source{ModelDigest: "sha256:abc", Topic: "customer-activity", Partition: 3}

func newAccumulator(t testing.TB, cfg WindowConfig) (*Accumulator, *Profile, schemas.Contract) {
	t.Helper()
	profile, contract := telcoProfile(t)
	a, err := NewAccumulator(profile, contract, cfg, source, nil)
	require.NoError(t, err)
	return a, profile, contract
}
