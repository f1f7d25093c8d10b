package drift

import (
	"encoding/csv"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/churnstream/churnstream/schemas"
)

// kkboxData names the environment variable with the directory of transactions_head.csv, of the KKBox churn challenge, and
// kkbox_monthly_psi.csv: PSI of each month of 2016 on against all of 2015, by numpy. The data may not be passed on.
const kkboxData = "CHURNSTREAM_TEST_KKBOX"

// A profile of a real year against each month that followed, counted by what counts the stream.
func TestMonthlyIndexOfRealTransactionsEqualsNumpy(t *testing.T) {
	dir := os.Getenv(kkboxData)
	if dir == "" {
		t.Skipf("%s is not set: the KKBox transactions are not part of this repository", kkboxData)
	}
	transactions := readTable(t, filepath.Join(dir, "transactions_head.csv"))
	expected := readTable(t, filepath.Join(dir, "kkbox_monthly_psi.csv"))
	var contract schemas.Contract
	edges := map[string][]float64{}
	for _, row := range expected.rows {
		feature := row[expected.column["feature"]]
		if edges[feature] != nil {
			continue
		}
		contract.Inputs = append(contract.Inputs, schemas.Input{Name: feature, Kind: schemas.Number})
		for _, text := range strings.Fields(row[expected.column["quantile_edges"]]) {
			edges[feature] = append(edges[feature], number(t, text))
		}
	}
	reference := schemas.NewRows(len(contract.Inputs), len(transactions.rows))
	months := map[string]*schemas.Rows{}
	for _, row := range transactions.rows {
		at := row[transactions.column["transaction_date"]]
		into := reference
		if !strings.HasPrefix(at, "2015") {
			month := at[:6]
			if months[month] == nil {
				months[month] = schemas.NewRows(len(contract.Inputs), 4096)
			}
			into = months[month]
		}
		numbers, _ := into.Row(into.Append())
		for i, in := range contract.Inputs {
			if in.Name == "duration" {
				bought, err := time.Parse("20060102", at)
				require.NoError(t, err)
				expires, err := time.Parse("20060102", row[transactions.column["membership_expire_date"]])
				require.NoError(t, err)
				numbers[i] = expires.Sub(bought).Hours() / 24
				continue
			}
			numbers[i] = number(t, row[transactions.column[in.Name]])
		}
	}
	cfg := DefaultProfileConfig()
	cfg.Edges = edges
	profile, err := BuildProfile(contract, Reference{Rows: reference, Probabilities: make([]float64, reference.Len())}, cfg)
	require.NoError(t, err)
	checked := 0
	for _, row := range expected.rows {
		rows := months[row[expected.column["month"]]]
		require.Equal(t, row[expected.column["n_reference"]], strconv.Itoa(reference.Len()))
		require.Equal(t, row[expected.column["n_current"]], strconv.Itoa(rows.Len()))
		count, err := NewCount(profile, contract)
		require.NoError(t, err)
		for i := range rows.Len() {
			numbers, categories := rows.Row(i)
			count.Observe(0, nil, numbers, categories, 0)
		}
		i := contract.Index(row[expected.column["feature"]])
		counts, _ := profile.feature(i, count.Window())
		want := number(t, row[expected.column["psi_quantile10_floor1e4"]])
		got := PSI(rawShares(outermost(counts), 1e-4), rawShares(outermost(profile.Features[i].Counts), 1e-4))
		require.InDelta(t, want, got, 1e-12*max(1, want), "%s in %s", row[expected.column["feature"]], row[expected.column["month"]])
		checked++
	}
	require.Greater(t, checked, 90)
}

// outermost joins what lies outside of the reference's range with the first and the last bin, and leaves the missing out.
func outermost(counts []uint64) []uint64 {
	bins := append([]uint64(nil), counts[1:len(counts)-2]...)
	bins[0] += counts[0]
	bins[len(bins)-1] += counts[len(counts)-2]
	return bins
}

type textTable struct {
	column map[string]int
	rows   [][]string
}

func readTable(t *testing.T, path string) textTable {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	table := textTable{column: map[string]int{}, rows: rows[1:]}
	for i, name := range rows[0] {
		table.column[name] = i
	}
	return table
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err)
	require.False(t, math.IsNaN(v))
	return v
}
