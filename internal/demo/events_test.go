package demo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/churnstream/churnstream/internal/example"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/schemas"
)

const schemaID = 7

func TestEveryCustomerComesOnceARound(t *testing.T) {
	telco := trainedModel(t)
	customers := len(telco.Customers)
	got := events(t, telco, 0, 2*customers, 1)
	for round := range 2 {
		seen := map[string]int{}
		for _, e := range got[round*customers:][:customers] {
			seen[e.customer]++
		}
		if len(seen) != customers {
			t.Errorf("round %d has %d customers of %d", round, len(seen), customers)
		}
	}
	again, other := events(t, telco, 0, 100, 1), events(t, telco, 0, 100, 2)
	same := func(a, b event) bool { return a.customer == b.customer && bytes.Equal(a.value, b.value) }
	if !slices.EqualFunc(again, got[:100], same) || slices.EqualFunc(other, got[:100], same) {
		t.Error("the order of customers does not follow from the seed")
	}
}

func TestTheShiftChangesContractAndPaymentAndNothingElse(t *testing.T) {
	telco := trainedModel(t)
	contract := telco.Model.Contract()
	kept := slices.Clone(telco.Rows.Categories)
	const shiftAfter = 300
	position := positions(telco)
	changed := map[string]bool{}
	decoder, rows := newDecoder(t, contract), schemas.NewRows(len(contract.Inputs), 1)
	for i, e := range events(t, telco, shiftAfter, 1000, 1) {
		numbers, categories := telco.Rows.Row(position[e.customer])
		rows.Reset()
		if err := decoder.Decode(t.Context(), e.value, rows); err != nil {
			t.Fatal(err)
		}
		gotNumbers, gotCategories := rows.Row(0)
		for k, in := range contract.Inputs {
			if in.Kind != schemas.Category {
				if numbers[k] != gotNumbers[k] && !math.IsNaN(numbers[k]) {
					t.Fatalf("event %d: %s is %v, the customer's %v", i, in.Name, gotNumbers[k], numbers[k])
				}
				continue
			}
			want := string(categories[k])
			switch {
			case i >= shiftAfter && in.Name == "Contract":
				want = "Month-to-month"
			case i >= shiftAfter && in.Name == "PaymentMethod":
				want = "Electronic check"
			}
			if string(gotCategories[k]) != want {
				t.Fatalf("event %d: %s is %q, want %q", i, in.Name, gotCategories[k], want)
			}
			if want != string(categories[k]) {
				changed[in.Name] = true
			}
		}
	}
	if names := slices.Sorted(maps.Keys(changed)); !slices.Equal(names, []string{"Contract", "PaymentMethod"}) {
		t.Errorf("the shift changed %q", names)
	}
	if !slices.EqualFunc(kept, telco.Rows.Categories, bytes.Equal) {
		t.Error("the shift changed the customers of the table")
	}
}

func TestTheShiftIsToldOnceRightBeforeItsFirstEvent(t *testing.T) {
	telco := trainedModel(t)
	told, sent := 0, 0
	s, err := newStream(telco.Model.Contract(), schemaID, telco, 10, 0, 1, func(at time.Time) {
		if told++; sent != 10 || time.Since(at) > time.Minute {
			t.Errorf("told after %d events of %v", sent, at)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := s.Next(&feed.Event{}); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}

func TestOneEventInAThousandIsCutShort(t *testing.T) {
	telco := trainedModel(t)
	contract := telco.Model.Contract()
	decoder := newDecoder(t, contract)
	rows := schemas.NewRows(len(contract.Inputs), 1)
	var bad []int
	for i, e := range events(t, telco, 0, 2*brokenEvery+1, 1) {
		rows.Reset()
		err := decoder.Decode(t.Context(), e.value, rows)
		var record *schemas.RecordError
		if errors.As(err, &record) && record.Class == schemas.Truncated {
			bad = append(bad, i)
		} else if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
	if !slices.Equal(bad, []int{brokenEvery - 1, 2*brokenEvery - 1}) {
		t.Errorf("cut short: %v", bad)
	}
}

// trainedModel is trained once for all tests, which must not change it.
func trainedModel(t *testing.T) *example.Telco {
	t.Helper()
	telco, err := training()
	if err != nil {
		t.Fatal(err)
	}
	return telco
}

var training = sync.OnceValues(func() (*example.Telco, error) {
	dir, err := os.MkdirTemp("", "churnstream-demo-test-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // a loaded model needs it no longer
	return example.Train(filepath.Join(dir, "model"), "test")
})

type event struct {
	customer string
	value    []byte
}

// events takes n events of a stream that ends with them.
func events(t *testing.T, telco *example.Telco, shiftAfter, n int, seed uint64) []event {
	t.Helper()
	s, err := newStream(telco.Model.Contract(), schemaID, telco, shiftAfter, n, seed, func(time.Time) {})
	if err != nil {
		t.Fatal(err)
	}
	var all []event
	var e feed.Event
	for err = s.Next(&e); err == nil; err = s.Next(&e) {
		all = append(all, event{string(e.Key), bytes.Clone(e.Value)})
	}
	if !errors.Is(err, io.EOF) || len(all) != n {
		t.Fatalf("%d events of %d, then %v", len(all), n, err)
	}
	return all
}

func positions(telco *example.Telco) map[string]int {
	position := make(map[string]int, len(telco.Customers))
	for i, customer := range telco.Customers {
		position[customer] = i
	}
	return position
}

func newDecoder(t *testing.T, contract schemas.Contract) *schemas.Decoder {
	t.Helper()
	schema, err := contract.AvroSchema()
	if err != nil {
		t.Fatal(err)
	}
	d, err := schemas.NewDecoder(schemas.DecoderConfig{Contract: contract, Registry: registry(schema)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// registry knows the schema of the events.
type registry string

func (r registry) SchemaByID(context.Context, int32) (schemas.Schema, error) {
	return schemas.Schema{Text: string(r)}, nil
}
func (r registry) Register(context.Context, string, string) (int32, error) { return schemaID, nil }
