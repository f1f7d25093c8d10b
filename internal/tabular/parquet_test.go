package tabular_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/schemas"
)

func parquetOf[T any](t *testing.T, rows ...T) []byte {
	t.Helper()
	var file bytes.Buffer
	w := parquet.NewGenericWriter[T](&file)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

type parquetRow struct {
	Else int64     `parquet:"else"`
	At   time.Time `parquet:"at,timestamp(nanosecond)"`
	C    *string   `parquet:"c,optional"`
	N    *float64  `parquet:"n,optional"`
}

func TestParquetComesInTheContractsOrder(t *testing.T) {
	number, text, empty, nan := 10.0, "größer", "", math.NaN()
	at := time.Date(2026, 1, 31, 12, 0, 0, 999_999_999, time.UTC)
	before := time.Date(1969, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	file := parquetOf(t, parquetRow{1, at, &text, &number}, parquetRow{2, before, nil, &number}, parquetRow{3, at, &empty, &nan})
	place := filepath.Join(t.TempDir(), "rows.parquet")
	if err := os.WriteFile(place, file, 0o644); err != nil {
		t.Fatal(err)
	}
	named, err := os.Open(place)
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	for name, in := range map[string]io.Reader{"a file": named, "a pipe": bytes.NewReader(file)} {
		t.Run(name, func(t *testing.T) {
			r, err := tabular.NewParquet(in, contract())
			if err != nil {
				t.Fatal(err)
			}
			rows := schemas.NewRows(3, 2)
			for range 2 {
				if err := r.Read(rows); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Read(rows); err == nil || !strings.Contains(err.Error(), `row 2, column "n": the value is missing`) || rows.Len() != 2 {
				t.Errorf("got %v with %d rows", err, rows.Len())
			}
			if err := r.Read(rows); !errors.Is(err, io.EOF) {
				t.Errorf("got %v", err)
			}
			numbers, categories := rows.Row(0)
			if numbers[0] != 10 || string(categories[1]) != text || numbers[2] != float64(at.UnixMilli()) {
				t.Errorf("row 0: %v %q", numbers, categories)
			}
			if numbers, categories = rows.Row(1); categories[1] != nil || numbers[2] != -1 {
				t.Errorf("row 1: %v %q", numbers, categories)
			}
		})
	}
}

func TestParquetOfAnotherMeaningIsRefused(t *testing.T) {
	type textual struct {
		N string `parquet:"n"`
	}
	type days struct {
		N int32 `parquet:"n,date"`
	}
	type listed struct {
		N []float64 `parquet:"n"`
	}
	type plainTime struct {
		N  float64 `parquet:"n"`
		At int64   `parquet:"at"`
	}
	type numeric struct {
		N float64 `parquet:"n"`
		C float64 `parquet:"c"`
	}
	type other struct {
		M float64 `parquet:"m"`
	}
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"a text for a number":        {parquetOf(t, textual{"1"}), `column "n"`},
		"a date for a number":        {parquetOf(t, days{1}), `column "n"`},
		"a list":                     {parquetOf(t, listed{[]float64{1}}), `column "n" holds lists`},
		"a number for a timestamp":   {parquetOf(t, plainTime{1, 2}), `column "at"`},
		"a number for a category":    {parquetOf(t, numeric{1, 2}), `column "c"`},
		"a required column missing":  {parquetOf(t, other{1}), `no column "n"`},
		"something else":             {[]byte("PAR1 and no more"), "not a Parquet file"},
		"nothing":                    {nil, "not a Parquet file"},
		"a file that was cut in two": {parquetOf(t, numeric{1, 2})[:60], "not a Parquet file"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tabular.NewParquet(bytes.NewReader(c.file), contract()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestWholeNumbersAndBooleansOfParquetAreNumbers(t *testing.T) {
	type row struct {
		N uint32 `parquet:"n"`
		B bool   `parquet:"b"`
		D int32  `parquet:"d,date"`
	}
	c := schemas.Contract{Inputs: []schemas.Input{{Name: "n", Kind: schemas.Number}, {Name: "b", Kind: schemas.Boolean}, {Name: "d", Kind: schemas.Date}}}
	r, err := tabular.NewParquet(bytes.NewReader(parquetOf(t, row{4_000_000_000, true, -5})), c)
	if err != nil {
		t.Fatal(err)
	}
	rows := schemas.NewRows(3, 1)
	if err := r.Read(rows); err != nil {
		t.Fatal(err)
	}
	if numbers, _ := rows.Row(0); numbers[0] != 4_000_000_000 || numbers[1] != 1 || numbers[2] != -5 {
		t.Errorf("%v", numbers)
	}
}
