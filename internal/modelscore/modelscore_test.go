package modelscore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/churnstream/churnstream/internal/modelscore"
	"github.com/churnstream/churnstream/internal/telco"
	"github.com/churnstream/churnstream/internal/train"
	"github.com/churnstream/churnstream/scoring"
)

// trained is the artefact of the Telco table, fitted once for all tests.
var trained = sync.OnceValues(func() (*scoring.Artefact, error) {
	s, err := train.ParseSpecification(telco.Specification())
	if err != nil {
		return nil, err
	}
	r, err := telco.CSV()
	if err != nil {
		return nil, err
	}
	table, err := train.ReadTable(s, r)
	if err != nil {
		return nil, err
	}
	return train.Fit(s, table, train.Provenance{CreatedAt: time.Unix(1, 0), LibraryVersion: "test"})
})

func telcoModel(t testing.TB) *scoring.Model {
	t.Helper()
	a, err := trained()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if _, err := scoring.WriteArtefact(dir, *a); err != nil {
		t.Fatal(err)
	}
	m, err := scoring.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

type line struct {
	Row           int                `json:"row"`
	Margin        float64            `json:"margin"`
	Probability   float64            `json:"probability"`
	Contributions map[string]float64 `json:"contributions"`
}

func score(t *testing.T, m *scoring.Model, in io.Reader, o modelscore.Options) ([]line, error) {
	t.Helper()
	var out bytes.Buffer
	n, runErr := modelscore.Run(context.Background(), m, in, &out, o)
	var lines []line
	d := json.NewDecoder(&out)
	for d.More() {
		var l line
		if err := d.Decode(&l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	if n != len(lines) {
		t.Errorf("said %d rows, wrote %d", n, len(lines))
	}
	return lines, runErr
}

func TestEveryRowIsScoredInOrderAndContributionsAddUp(t *testing.T) {
	m := telcoModel(t)
	r, err := telco.CSV()
	if err != nil {
		t.Fatal(err)
	}
	reported := 0
	lines, err := score(t, m, r, modelscore.Options{Format: modelscore.CSV, Contributions: true, Progress: func(n int) { reported = n }})
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != telco.Customers || reported < 6000 {
		t.Fatalf("%d rows, progress at the last said %d", len(lines), reported)
	}
	for i, l := range lines {
		if l.Row != i || l.Probability != 1/(1+math.Exp(-l.Margin)) {
			t.Fatalf("line %d: %+v", i, l)
		}
		sum := 0.0
		for _, c := range l.Contributions {
			sum += c
		}
		if math.Abs(sum-l.Margin) > 1e-9 || len(l.Contributions) != len(m.Contract().Inputs)+1 {
			t.Fatalf("row %d: the contributions %v make %v, the margin is %v", i, l.Contributions, sum, l.Margin)
		}
	}
}

const header = "tenure,MonthlyCharges,TotalCharges,SeniorCitizen,Partner,Dependents,PhoneService,PaperlessBilling,gender,MultipleLines,InternetService,OnlineSecurity,OnlineBackup,DeviceProtection,TechSupport,StreamingTV,StreamingMovies,Contract,PaymentMethod"

const rest = ",0,Yes,No,Yes,Yes,Female,No,DSL,Yes,No,No,No,No,No,One year,Mailed check\n"

const restJSON = `"SeniorCitizen":0,"Partner":true,"Dependents":"No","PhoneService":"yes","PaperlessBilling":1,"gender":"Female","MultipleLines":"No","InternetService":"DSL","OnlineSecurity":"Yes","OnlineBackup":"No","DeviceProtection":"No","TechSupport":"No","StreamingTV":"No","StreamingMovies":"No","Contract":"One year","PaymentMethod":"Mailed check"}` + "\n"

func TestCSVAndJSONLinesGiveTheSame(t *testing.T) {
	m := telcoModel(t)
	csv, err := score(t, m, strings.NewReader("\ufeff"+header+"\n5,20.5,"+rest+"6,1e2,600"+rest), modelscore.Options{Format: modelscore.CSV})
	if err != nil {
		t.Fatal(err)
	}
	lines, err := score(t, m, strings.NewReader(`{"tenure":5,"MonthlyCharges":20.5,"else":[1],`+restJSON+"\n"+`{"tenure":6,"MonthlyCharges":1e2,"TotalCharges":600,`+restJSON), modelscore.Options{Format: modelscore.JSONL})
	if err != nil {
		t.Fatal(err)
	}
	if len(csv) != 2 || len(lines) != 2 || csv[0].Margin != lines[0].Margin || csv[1].Margin != lines[1].Margin || csv[0].Margin == csv[1].Margin {
		t.Errorf("CSV gave %+v, JSON lines %+v", csv, lines)
	}
}

func TestBadRowsAreNamedAfterTheGoodOnesWereWritten(t *testing.T) {
	m := telcoModel(t)
	good := "5,20.5,100" + rest
	goodJSON := `{"tenure":5,"MonthlyCharges":20.5,` + restJSON
	for _, c := range []struct {
		name, in string
		format   modelscore.Format
		want     string
		written  int
	}{
		{"text in a number", header + "\n" + good + "x,20.5,100" + rest, modelscore.CSV, `row 1 (line 3), column "tenure": "x" is not a finite number`, 1},
		{"a required cell empty", header + "\n" + good + good + "1,,100" + rest, modelscore.CSV, `row 2 (line 4), column "MonthlyCharges": the value is missing`, 2},
		{"out of range", header + "\n-1,1,100" + rest, modelscore.CSV, `row 0 (line 2), column "tenure": -1 is below`, 0},
		{"a column missing", strings.Replace(header, "tenure", "tenures", 1) + "\n" + good, modelscore.CSV, `header line: 1 of the model's 19 inputs have no column: ["tenure"]`, 0},
		{"a column missing of an input that may be missing", strings.Replace(header, "TotalCharges", "Totals", 1) + "\n" + good, modelscore.CSV, `1 of the model's 19 inputs have no column: ["TotalCharges"]`, 0},
		{"JSON: a key in no row", goodJSON + goodJSON, modelscore.JSONL, `1 of the model's 19 inputs have no key in any row (write null for a missing value): ["TotalCharges"]`, 2},
		{"Parquet: a column missing", totals(t), modelscore.Parquet, `Parquet file: 18 of the model's 19 inputs have no column: ["MonthlyCharges" "TotalCharges"`, 0},
		{"no boolean", header + "\n5,20.5,100" + strings.Replace(rest, "Yes", "Perhaps", 1), modelscore.CSV, `column "Partner": "Perhaps" is not a boolean`, 0},
		{"nothing", "", modelscore.CSV, "no header line", 0},
		{"JSON: text in a number", goodJSON + `{"tenure":"5","MonthlyCharges":20.5,` + restJSON, modelscore.JSONL, `row 1 (line 2): input "tenure": "5" is not a number`, 1},
		{"JSON: a number in a category", `{"tenure":5,"MonthlyCharges":20.5,` + strings.Replace(restJSON, `"Female"`, "1", 1), modelscore.JSONL, `input "gender": 1 is not a string`, 0},
		{"JSON: required and null", `{"tenure":null,"MonthlyCharges":20.5,` + restJSON, modelscore.JSONL, `row 0 (line 1): input "tenure": the value is missing`, 0},
		{"JSON: required and absent", goodJSON + "\n\n{}\n", modelscore.JSONL, `row 1 (line 4)`, 1},
		{"JSON: out of range", `{"tenure":-5,"MonthlyCharges":20.5,` + restJSON, modelscore.JSONL, `input "tenure": -5 is below`, 0},
		{"JSON: an array", "[1]\n", modelscore.JSONL, "row 0 (line 1): not a JSON object", 0},
		{"JSON: null", "null\n", modelscore.JSONL, "row 0 (line 1): not a JSON object", 0},
		{"JSON: cut off", goodJSON[:40], modelscore.JSONL, "row 0 (line 1)", 0},
		{"JSON: invalid UTF-8", strings.Replace(goodJSON, "Female", "\xff", 1), modelscore.JSONL, "not valid UTF-8", 0},
		{"an unknown format", "", "xlsx", `format: got "xlsx"`, 0},
		{"Parquet: something else", "PAR1, but no more", modelscore.Parquet, "not a Parquet file", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines, err := score(t, m, strings.NewReader(c.in), modelscore.Options{Format: c.format})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if len(lines) != c.written {
				t.Errorf("%d rows written, want %d", len(lines), c.written)
			}
		})
	}
}

// totals is a Parquet file of one column.
func totals(t *testing.T) string {
	t.Helper()
	type row struct {
		Tenure float64 `parquet:"tenure"`
	}
	var file bytes.Buffer
	if err := parquet.Write(&file, []row{{1}}); err != nil {
		t.Fatal(err)
	}
	return file.String()
}

// TestAKeyOfLaterRowsIsEnough: an object may leave out what is missing.
func TestAKeyOfLaterRowsIsEnough(t *testing.T) {
	row := `{"tenure":5,"MonthlyCharges":20.5,` + restJSON
	for _, last := range []string{strings.Replace(row, "{", `{"TotalCharges":null,`, 1), strings.Replace(row, "{", `{"TotalCharges":1,`, 1)} {
		lines, err := score(t, telcoModel(t), strings.NewReader(row+last), modelscore.Options{Format: modelscore.JSONL})
		if err != nil || len(lines) != 2 {
			t.Errorf("%d lines and %v", len(lines), err)
		}
	}
	if lines, err := score(t, telcoModel(t), strings.NewReader("\n"), modelscore.Options{Format: modelscore.JSONL}); err != nil || len(lines) != 0 {
		t.Errorf("no rows: %d lines and %v", len(lines), err)
	}
}

func TestModelsAreNotComparedByRowsWithoutAnInput(t *testing.T) {
	m := telcoModel(t)
	for format, rows := range map[modelscore.Format]string{
		modelscore.CSV:   strings.Replace(header, "TotalCharges", "Totals", 1) + "\n5,20.5,100" + rest,
		modelscore.JSONL: `{"tenure":5,"MonthlyCharges":20.5,` + restJSON,
	} {
		_, err := modelscore.Compare(context.Background(), m, m, strings.NewReader(rows), modelscore.Options{Format: format})
		if err == nil || !strings.Contains(err.Error(), `["TotalCharges"]`) {
			t.Errorf("%s: error %v", format, err)
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestRunEndsWithTheWriterAndTheContext(t *testing.T) {
	m := telcoModel(t)
	in := header + "\n" + strings.Repeat("5,20.5,100"+rest, 3000)
	if _, err := modelscore.Run(context.Background(), m, strings.NewReader(in), brokenWriter{}, modelscore.Options{Format: modelscore.CSV}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := modelscore.Run(ctx, m, strings.NewReader(in), io.Discard, modelscore.Options{Format: modelscore.CSV}); !errors.Is(err, context.Canceled) || n > 256 {
		t.Errorf("got %v after %d rows", err, n)
	}
}
