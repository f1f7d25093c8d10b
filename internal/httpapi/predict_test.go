package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/churnstream/churnstream/internal/modelscore"
)

func TestProbabilitiesAreThoseOfModelScoreBitByBit(t *testing.T) {
	const rows = 600 // more than two chunks
	s := start(t, nil)
	model := telco(t).Model
	var lines, table, array strings.Builder
	var header []string
	for _, in := range model.Contract().Inputs {
		header = append(header, in.Name)
	}
	table.WriteString(strings.Join(header, ",") + "\n")
	for row := range rows {
		object := customerJSON(t, row)
		lines.WriteString(object + "\n")
		array.WriteString("," + object)
		var values map[string]any
		if err := json.Unmarshal([]byte(object), &values); err != nil {
			t.Fatal(err)
		}
		var cells []string
		for _, name := range header {
			cell := ""
			if values[name] != nil {
				cell = fmt.Sprint(values[name])
			}
			cells = append(cells, cell)
		}
		table.WriteString(strings.Join(cells, ",") + "\n")
	}
	var out bytes.Buffer
	if _, err := modelscore.Run(t.Context(), model, strings.NewReader(lines.String()), &out, modelscore.Options{Format: modelscore.JSONL}); err != nil {
		t.Fatal(err)
	}
	var want []uint64
	for line := range strings.Lines(out.String()) {
		var scored struct{ Probability float64 }
		if err := json.Unmarshal([]byte(line), &scored); err != nil {
			t.Fatal(err)
		}
		want = append(want, math.Float64bits(scored.Probability))
	}
	compare := func(how string, got []BatchRow) {
		t.Helper()
		if len(got) != rows {
			t.Fatalf("%s: %d rows", how, len(got))
		}
		for i, row := range got {
			if row.Prediction == nil || row.Row != i || math.Float64bits(row.ChurnProbability) != want[i] {
				t.Fatalf("%s: row %d: %+v", how, i, row)
			}
		}
	}
	compare("array", decode[Batch](t, s.do(t, "POST", "/v1/predict:batch", typeJSON, "["+array.String()[1:]+"]").body).Predictions)
	for how, body := range map[string]string{typeNDJSON: lines.String(), typeCSV: table.String()} {
		r := s.do(t, "POST", "/v1/predict:batch", how, body)
		var got []BatchRow
		all := slices.Collect(strings.Lines(string(r.body)))
		for _, line := range all[:len(all)-1] {
			got = append(got, decode[BatchRow](t, []byte(line)))
		}
		compare(how, got)
		if end := decode[BatchEnd](t, []byte(all[len(all)-1])); end != (BatchEnd{Rows: rows}) {
			t.Errorf("%s: %+v", how, end)
		}
	}
	marked := "\ufeff\"" + strings.Replace(table.String(), ",", "\",", 1) // and the first name in quotes, as spreadsheets write it
	r := s.do(t, "POST", "/v1/predict:batch", typeCSV, marked)
	if all := slices.Collect(strings.Lines(string(r.body))); decode[BatchEnd](t, []byte(all[len(all)-1])) != (BatchEnd{Rows: rows}) {
		t.Errorf("with a byte order mark: %s", all[len(all)-1])
	}
	for row := range 50 {
		for range 2 { // scored, then from the cache
			p := decode[Prediction](t, s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, row)).body)
			if math.Float64bits(p.ChurnProbability) != want[row] {
				t.Fatalf("row %d: %v", row, p.ChurnProbability)
			}
		}
	}
}

func TestAnswersHaveTheShapeOfTheirSchema(t *testing.T) {
	s := start(t, nil)
	r := s.do(t, "POST", "/v1/predict?contributions=true&explain=19", typeJSON, with(customerJSON(t, 0), `"customer_id":"c-\u00e9"`))
	p := decode[Prediction](t, r.body)
	sum := *p.Explanations.Bias
	for _, c := range p.Explanations.Contributions {
		sum += c
	}
	if p.CustomerID != "c-é" || p.ModelVersion != s.deps.Model.Version() || math.Abs(sum-p.Margin) > 1e-9 || len(p.Explanations.TopFeatures) == 0 {
		t.Errorf("%s", r.body)
	}
	if want := p.ChurnProbability >= p.Threshold; want != (p.Prediction == Churn) {
		t.Errorf("probability %v, threshold %v: %s", p.ChurnProbability, p.Threshold, p.Prediction)
	}
	if !slices.ContainsFunc(p.Explanations.TopFeatures, func(f string) bool { return strings.HasPrefix(f, "Contract=") }) {
		t.Errorf("no category among %q", p.Explanations.TopFeatures)
	}
	again, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if json.Unmarshal(again, &a) != nil || json.Unmarshal(r.body, &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("written by hand: %s\nby its type: %s", r.body, again)
	}
}

func TestEveryWrongValueIsNamedAtOnce(t *testing.T) {
	s := start(t, nil)
	r := s.do(t, "POST", "/v1/predict", typeJSON,
		`{"tenure":-1,"nope":2,"Contract":5,"tenure":3,"SeniorCitizen":"maybe","customer_id":"","MonthlyCharges":1e999}`)
	wantProblem(t, r, 422)
	var p huma.ErrorModel
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatal(err)
	}
	var places []string
	for _, e := range p.Errors {
		places = append(places, e.Location)
	}
	for _, want := range []string{"body.tenure", "body.nope", "body.Contract", "body.SeniorCitizen", "body.customer_id", "body.MonthlyCharges", "body.gender", "body.PaymentMethod"} {
		if !slices.Contains(places, want) {
			t.Errorf("%s is not named among %q", want, places)
		}
	}
}

func TestBodiesThatAreNoObjectAreRefused(t *testing.T) {
	s := start(t, nil)
	good := customerJSON(t, 0)
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"empty":              {"", 400},
		"not JSON":           {"{", 400},
		"NaN":                {with(good, `"customer_id":NaN`), 400},
		"more behind":        {good + good, 400},
		"bad UTF-8":          {with(good, "\"customer_id\":\"\xff\""), 400},
		"half a character":   {with(good, `"customer_id":"\ud800"`), 400},
		"byte order mark":    {"\ufeff" + good, 400},
		"control character":  {with(good, "\"customer_id\":\"a\x01\""), 400},
		"deep":               {with(good, `"x":`+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)), 400},
		"deep and open":      {strings.Repeat(`{"a":`, 100_000), 400},
		"array":              {"[" + good + "]", 422},
		"null":               {"null", 422},
		"duplicate key":      {with(good, `"tenure":1`), 422},
		"escaped duplicate":  {with(good, `"\u0074enure":1`), 422},
		"leading zero":       {strings.Replace(good, `"tenure":`, `"tenure":0`, 1), 400},
		"number as text":     {strings.Replace(good, `"gender":`, `"gender":1,"x":`, 1), 422},
		"long customer":      {with(good, `"customer_id":"`+strings.Repeat("x", 257)+`"`), 422},
		"megabytes":          {with(good, `"customer_id":"`+strings.Repeat("x", 2<<20)+`"`), 413},
		"many unknown names": {"{" + strings.Repeat(`"a":1,`, 10_000) + `"b":1}`, 422},
	} {
		r := s.do(t, "POST", "/v1/predict", typeJSON, c.body)
		wantProblem(t, r, c.status)
		if len(r.body) > 32<<10 {
			t.Errorf("%s: an answer of %d bytes", name, len(r.body))
		}
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestARowThatIsWrongDoesNotHoldUpTheOthers(t *testing.T) {
	s := start(t, nil)
	good := customerJSON(t, 0)
	r := s.do(t, "POST", "/v1/predict:batch", typeNDJSON, good+"\n\n{bad\n"+with(good, `"customer_id":"b"`)+"\n3\n"+good+" {}\n"+good)
	lines := slices.Collect(strings.Lines(string(r.body)))
	if len(lines) != 7 {
		t.Fatalf("%s", r.body)
	}
	for i, fine := range []bool{true, false, true, false, false, true} {
		row := decode[BatchRow](t, []byte(lines[i]))
		if row.Row != i || (row.Prediction != nil) != fine || (row.Errors == nil) != fine {
			t.Errorf("row %d: %s", i, lines[i])
		}
	}
	if end := decode[BatchEnd](t, []byte(lines[6])); end != (BatchEnd{Rows: 6, Failed: 3}) {
		t.Errorf("%+v", end)
	}
	b := decode[Batch](t, s.do(t, "POST", "/v1/predict:batch", typeJSON, "["+good+",{},"+good+"]").body)
	if b.Rows != 3 || b.Failed != 1 || b.Predictions[1].Errors == nil || b.Predictions[2].Prediction == nil {
		t.Errorf("%+v", b)
	}
	wantProblem(t, s.do(t, "POST", "/v1/predict:batch", typeJSON, "["+good+","), 400)
	wantProblem(t, s.do(t, "POST", "/v1/predict:batch", typeCSV, "tenure,tenure,what\n1,2,3\n"), 422)
	wantProblem(t, s.do(t, "POST", "/v1/predict:batch", typeCSV, ""), 400)
	wantProblem(t, s.do(t, "POST", "/v1/predict:batch", "text/xml", good), 415)
}

func TestACustomerWithoutAnIDGetsOneThatIsNeverGivenAgain(t *testing.T) {
	dir := t.TempDir()
	seen := map[string]bool{}
	for range 3 {
		s, err := openStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			n, err := s.sequence(1000)
			if err != nil {
				t.Fatal(err)
			}
			for i := range int64(1000) {
				id := string(s.appendCustomer(nil, n+i))
				if seen[id] {
					t.Fatalf("%s was given twice", id)
				}
				seen[id] = true
			}
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheCacheTellsInputsApart looks at inputs that differ in one place only, and at one that is written in two ways.
func TestTheCacheTellsInputsApart(t *testing.T) {
	s := start(t, nil)
	good := customerJSON(t, 0)
	first := decode[Prediction](t, s.do(t, "POST", "/v1/predict", typeJSON, good).body)
	changed := strings.Replace(good, `"tenure":`, `"tenure":1`, 1)
	if p := decode[Prediction](t, s.do(t, "POST", "/v1/predict", typeJSON, changed).body); p.ChurnProbability == first.ChurnProbability {
		t.Error("another tenure has the same answer")
	}
	before := s.cacheHits(t)
	s.do(t, "POST", "/v1/predict", typeJSON, " "+strings.ReplaceAll(good, ":", " : "))
	if s.cacheHits(t) != before+1 {
		t.Error("the same input in other words was scored again")
	}
}

func (s *service) cacheHits(t *testing.T) (n int) {
	t.Helper()
	for line := range strings.Lines(string(s.do(t, "GET", "/metrics", "", "").body)) {
		if _, err := fmt.Sscanf(line, "churnstream_http_cache_hits_total %d", &n); err == nil {
			return n
		}
	}
	t.Fatal("no churnstream_http_cache_hits_total")
	return 0
}

// FuzzBody holds the reader of bodies to encoding/json: what it takes is valid there, with the same values, and nothing
// panics.
func FuzzBody(f *testing.F) {
	model := telco(f)
	contract := model.Model.Contract()
	f.Add([]byte(customerJSON(f, 0)))
	for _, seed := range []string{
		``, `{}`, `[]`, `null`, `{"tenure":1e5}`, `{"\u0074enure":-0.0}`, `{"Contract":"\ud83d\ude00"}`, `{"Contract":"\ud800"}`, `{"a":[{"b":[null,true]}]}`,
		`{"tenure":01}`, `{"tenure":1.}`, `{"tenure":"1"}`, `{"customer_id":"\u0000"}`, "{\"Contract\":\"\xff\"}", `{"tenure":1,"tenure":2}`, `{"a":NaN}`, ` {"a" : 1 } `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		reader := newRowReader(contract)
		text, err := newJSONText(body)
		if err == nil {
			if err = reader.readObject(&text, alone); err == nil {
				err = text.end()
			}
		}
		if err == nil && !json.Valid(body) {
			t.Fatalf("%q is taken and is not JSON", body)
		}
		if err != nil || reader.faults != nil {
			return
		}
		var values map[string]json.RawMessage
		if err := json.Unmarshal(body, &values); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		delete(values, customerField)
		for name := range values {
			if contract.Index(name) < 0 {
				t.Fatalf("%q: the unknown %q was taken", body, name)
			}
		}
		other := newRowReader(contract)
		if err := contract.ReadJSON(other.rows, values); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		a, at := reader.rows.Row(0)
		b, bt := other.rows.Row(0)
		for i := range a {
			if math.Float64bits(a[i]) != math.Float64bits(b[i]) || !bytes.Equal(at[i], bt[i]) || (at[i] == nil) != (bt[i] == nil) {
				t.Fatalf("%q: input %d: %v %q, encoding/json has %v %q", body, i, a[i], at[i], b[i], bt[i])
			}
		}
	})
}

func BenchmarkPredictOne(b *testing.B) {
	body := []byte(customerJSON(b, 0))
	for name, kept := range map[string]*cache{"scored": nil, "cached": newCache(1000, func() {}, func() {})} {
		b.Run(name, func(b *testing.B) {
			p := newPredictor(telco(b).Model, 3, kept)
			b.ReportAllocs()
			for b.Loop() {
				bench := p.take(p.usual)
				text, _ := newJSONText(body)
				bench.reader.rows.Reset()
				if err := bench.reader.readObject(&text, alone); err != nil {
					b.Fatal(err)
				}
				if _, err := p.one(bench); err != nil {
					b.Fatal(err)
				}
				p.give(bench)
			}
		})
	}
}

// BenchmarkReadBody compares the reader with the way through encoding/json, which finds the first fault only.
func BenchmarkReadBody(b *testing.B) {
	body := []byte(customerJSON(b, 0))
	contract := telco(b).Model.Contract()
	reader := newRowReader(contract)
	b.Run("reader", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			text, _ := newJSONText(body)
			reader.rows.Reset()
			if err := reader.readObject(&text, alone); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var values map[string]json.RawMessage
			reader.rows.Reset()
			if err := json.Unmarshal(body, &values); err != nil {
				b.Fatal(err)
			}
			if err := contract.ReadJSON(reader.rows, values); err != nil {
				b.Fatal(err)
			}
		}
	})
}
