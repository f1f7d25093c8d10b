package tabular_test

import (
	"encoding/csv"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/schemas"
)

func contract() schemas.Contract {
	low, high := 0.0, 10.0
	return schemas.Contract{Inputs: []schemas.Input{
		{Name: "n", Kind: schemas.Number, Min: &low, Max: &high},
		{Name: "c", Kind: schemas.Category, Nullable: true},
		{Name: "at", Kind: schemas.Timestamp, Nullable: true},
	}}
}

func TestRowsComeInTheContractsOrder(t *testing.T) {
	in := "\ufeffat,x,c,n\n2026-01-31T12:00:00.5+01:00,left alone, two words ,1e1\r\n  ,,,0\n"
	r, err := tabular.NewReader(strings.NewReader(in), contract(), nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := schemas.NewRows(3, 2)
	for range 2 {
		if err := r.Read(rows); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Read(rows); !errors.Is(err, io.EOF) || rows.Len() != 2 {
		t.Fatalf("%v after %d rows", err, rows.Len())
	}
	numbers, categories := rows.Row(0)
	if numbers[0] != 10 || string(categories[1]) != " two words " || numbers[2] != 1769857200500 {
		t.Errorf("row 0: %v %q", numbers, categories)
	}
	numbers, categories = rows.Row(1)
	if numbers[0] != 0 || categories[1] != nil || !math.IsNaN(numbers[2]) {
		t.Errorf("row 1: %v %q", numbers, categories)
	}
}

func TestAbsentColumnOfANullableInputIsMissing(t *testing.T) {
	r, err := tabular.NewReader(strings.NewReader("n,x\n1,y\n"), contract(), nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := schemas.NewRows(3, 1)
	if err := r.Read(rows); err != nil {
		t.Fatal(err)
	}
	if numbers, categories := rows.Row(0); numbers[0] != 1 || categories[1] != nil || !math.IsNaN(numbers[2]) {
		t.Errorf("got %v %q", numbers, categories)
	}
	if text, ok := r.Cell("x"); !ok || text != "y" {
		t.Errorf("cell %q %v", text, ok)
	}
	if _, ok := r.Cell("c"); ok {
		t.Error("a cell of a column that is not there")
	}
}

func TestABadRowLeavesTheBatchAndReadingCanGoOn(t *testing.T) {
	r, err := tabular.NewReader(strings.NewReader("n,c\n\"1\",\"a\nb\"\n11,c\n2,d\n"), contract(), nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := schemas.NewRows(3, 3)
	if err := r.Read(rows); err != nil {
		t.Fatal(err)
	}
	err = r.Read(rows)
	var cell *tabular.CellError
	if !errors.As(err, &cell) || cell.Row != 1 || cell.Line != 4 || cell.Column != "n" || rows.Len() != 1 {
		t.Fatalf("got %v with %d rows", err, rows.Len())
	}
	if err := r.Read(rows); err != nil || rows.Len() != 2 {
		t.Fatalf("got %v with %d rows", err, rows.Len())
	}
}

// Whatever the bytes, rows that are read keep the contract.
func FuzzRead(f *testing.F) {
	f.Add([]byte("n,c,at\n1,x,2026-01-31T12:00:00Z\n,,\n"))
	f.Add([]byte("n,c\n\"1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := tabular.NewReader(strings.NewReader(string(data)), contract(), nil)
		if err != nil {
			return
		}
		rows := schemas.NewRows(3, 1)
		read := 0
		for range 1000 {
			err := r.Read(rows)
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				read++
			}
		}
		if rows.Len() != read {
			t.Fatalf("%d rows, %d were read", rows.Len(), read)
		}
		for i := range read {
			if numbers, _ := rows.Row(i); !(numbers[0] >= 0 && numbers[0] <= 10) {
				t.Errorf("row %d has %v", i, numbers[0])
			}
		}
	})
}

func TestARowOfAnotherLengthSaysWhatWasFound(t *testing.T) {
	r, err := tabular.NewReader(strings.NewReader("n,c,at\n1,\"a\nb\",\n2,Paris, France,\n3,x\n4,y,\n"), contract(), nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := schemas.NewRows(3, 3)
	for _, want := range []string{
		"",
		"row 1 (line 4): wrong number of fields: found 4, the header line has 3",
		"row 2 (line 5): wrong number of fields: found 2, the header line has 3",
		"",
	} {
		err := r.Read(rows)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, csv.ErrFieldCount)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if rows.Len() != 2 {
		t.Errorf("%d rows", rows.Len())
	}
}
