package tabular_test

import (
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/schemas"
)

func TestLinesComeInTheContractsOrder(t *testing.T) {
	r := tabular.NewLines(strings.NewReader(`{"at":"2026-01-31T12:00:00.5+01:00","x":"left alone","c":" two words ","n":1e1}`+"\r\n \n"+`{"at":null,"n":0}`), contract())
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

func TestACellIsATextFieldOfTheLastLine(t *testing.T) {
	r := tabular.NewLines(strings.NewReader(`{"n":1,"id":"a","number":7,"gone":"x"}`+"\n\n"+`{"n":1,"id":""}`), contract())
	rows := schemas.NewRows(3, 2)
	for _, want := range []map[string]struct {
		text string
		ok   bool
	}{
		{"id": {"a", true}, "number": {}, "gone": {"x", true}, "none": {}},
		{"id": {"", true}, "number": {}, "gone": {}},
	} {
		if err := r.Read(rows); err != nil {
			t.Fatal(err)
		}
		for field, cell := range want {
			if text, ok := r.Cell(field); text != cell.text || ok != cell.ok {
				t.Errorf("%s: %q %v, want %+v", field, text, ok, cell)
			}
		}
	}
	cause := errors.New("cause")
	if err := r.Fault("id", cause); !errors.Is(err, cause) || err.Error() != `row 1 (line 3): field "id": cause` {
		t.Errorf("got %v", err)
	}
}

func TestABadLineLeavesTheBatchAndReadingCanGoOn(t *testing.T) {
	long := `{"n":1,"c":"` + strings.Repeat("x", 100_000) + `"}`
	r := tabular.NewLines(strings.NewReader(strings.Join([]string{
		`{"n":1}`, `{"n":11}`, `{"c":"x"}`, `{"n":1,"c":2}`, `{"n":1,`, "", `null`, `[]`, "{\"n\":1,\"c\":\"\xff\"}", `{"n":nan}`, long,
	}, "\n")), contract())
	rows := schemas.NewRows(3, 2)
	for _, want := range []string{
		"",
		`row 1 (line 2): input "n": 11 is above the largest allowed value 10`,
		`row 2 (line 3): input "n": the value is missing and the input is not nullable`,
		`row 3 (line 4): input "c": 2 is not a string`,
		`row 4 (line 5): not a JSON object`,
		`row 5 (line 7): not a JSON object of input values: null`,
		`row 6 (line 8): not a JSON object`,
		`row 7 (line 9): not valid UTF-8`,
		`row 8 (line 10): not a JSON object`,
		"",
	} {
		before := rows.Len()
		err := r.Read(rows)
		switch {
		case want == "" && (err != nil || rows.Len() != before+1):
			t.Errorf("%v with %d rows, %d before", err, rows.Len(), before)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || rows.Len() != before):
			t.Errorf("got %v with %d rows, %d before; want %q", err, rows.Len(), before, want)
		}
	}
	if err := r.Read(rows); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

func TestALineWithoutAnEndIsRefusedAndNamed(t *testing.T) {
	r := tabular.NewLines(io.MultiReader(strings.NewReader(`{"n":1}`+"\n"), endless{}), contract())
	rows := schemas.NewRows(3, 1)
	if err := r.Read(rows); err != nil {
		t.Fatal(err)
	}
	if err := r.Read(rows); err == nil || !strings.Contains(err.Error(), "row 1 (line 2): longer than 16777216 bytes") {
		t.Errorf("got %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestAFailingFileIsNamedByItsLine(t *testing.T) {
	failure := errors.New("disk gone")
	r := tabular.NewLines(io.MultiReader(strings.NewReader("\n"+`{"n":1}`+"\n"), failing{failure}), contract())
	rows := schemas.NewRows(3, 1)
	if err := r.Read(rows); err != nil {
		t.Fatal(err)
	}
	if err := r.Read(rows); !errors.Is(err, failure) || !strings.Contains(err.Error(), "row 1 (line 3)") {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// encoding/json keeps the last of two values and puts U+FFFD in the place of half a character.
func TestALineThatIsReadInTwoWaysIsRefused(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`{"n":1,"c":"x","n":2}`, `the key "n" occurs twice`},
		{`{"n":1,"x":{"a":[1]},"c":"a","\u0078":":"}`, `the key "x" occurs twice`},
		{`{"n":1,"c":"a\ud800"}`, `\ud800 is half of a character`},
		{`{"n":1,"c":"\uDC00b"}`, `\uDC00 is half of a character`},
		{`{"n":1,"c":"\ud83d\u0041"}`, `\ud83d is half of a character`},
		{`{"n":1,"c":"\ud83d\\ude00"}`, `\ud83d is half of a character`},
		{`{"n":1,"x":["\ud800"]}`, `\ud800 is half of a character`},
		{`{"n":1,"\ud800":1}`, `\ud800 is half of a character`},
		{`{"n":1,"c":"\ud83d\ude00 \u00e9 \\ud800 \": {"}`, ""},
		{`{"n":1,"x":{"n":2,"c":[{"n":3}]},"c":""}`, ""},
		{` { "n" : 1 , "c" : null } `, ""},
		{`{"n":1}`, ""},
	} {
		rows := schemas.NewRows(3, 1)
		err := tabular.NewLines(strings.NewReader(c.line), contract()).Read(rows)
		switch {
		case c.want == "" && (err != nil || rows.Len() != 1):
			t.Errorf("%s: %v", c.line, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), "row 0 (line 1): "+c.want) || rows.Len() != 0):
			t.Errorf("%s: got %v, want %q", c.line, err, c.want)
		}
	}
}
