package httpapi

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/churnstream/churnstream/internal/config"
)

// cut gives the rows that a body is cut into, and what ended it.
func cut(form func(*rowSplitter) (bool, error), from io.Reader, most int) (rows []string, err error) {
	s := rowSplitter{from: from, cut: form, limit: 1 << 20, buf: make([]byte, 0, 16)}
	c := &chunk{}
	for err == nil {
		err = s.fill(c, most)
		for _, row := range c.rows {
			rows = append(rows, string(c.text[row.start:row.end]))
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return rows, err
}

func TestRowsAreCutWhereTheirFormEndsThem(t *testing.T) {
	for name, c := range map[string]struct {
		form func(*rowSplitter) (bool, error)
		body string
		want []string
		fine bool
	}{
		"an array":                {cutElement, ` [{"a":[1,"],["]},2 , "x\"]" ] `, []string{`{"a":[1,"],["]}`, `2 `, ` "x\"]" `}, true},
		"no element":              {cutElement, "[ \n]", nil, true},
		"an element is missing":   {cutElement, `[1,]`, []string{"1", ""}, true}, // its reader refuses it
		"an array that goes on":   {cutElement, `[1]2`, []string{"1"}, false},
		"an array that ends":      {cutElement, `[1,2`, []string{"1"}, false},
		"no array":                {cutElement, `{}`, nil, false},
		"nothing of an array":     {cutElement, ` `, nil, false},
		"a bracket too many":      {cutElement, `[1}`, nil, false},
		"lines":                   {cutLine, "a\n\n \t\r\nb\r\n\x00\nc", []string{"a", "b\r", "\x00", "c"}, true},
		"no line":                 {cutLine, "\n\n", nil, true},
		"records":                 {cutRecord, "a,b\n\n\"x\n\",\"y\"\"\"\r\n\r\nc,d", []string{"a,b\n", "\"x\n\",\"y\"\"\"\r\n", "c,d"}, true},
		"a cell that never ends":  {cutRecord, "a\n\"b\nc\n", []string{"a\n", "\"b\nc\n"}, true}, // its reader refuses it
		"a carriage return alone": {cutRecord, "a\n\r", []string{"a\n"}, true},
	} {
		for _, most := range []int{1, 2, 100} {
			for how, from := range map[string]io.Reader{"whole": strings.NewReader(c.body), "by bytes": iotest.OneByteReader(strings.NewReader(c.body))} {
				rows, err := cut(c.form, from, most)
				if !slices.Equal(rows, c.want) || (err == nil) != c.fine {
					t.Errorf("%s, %d at once, %s: %q, %v", name, most, how, rows, err)
				}
			}
		}
	}
}

func TestARowIsNoLongerThanABodyOfOneMayBe(t *testing.T) {
	s := start(t, nil, func(cfg *config.HTTP) { cfg.Limits.BodyBytes = 1000 })
	good := customerJSON(t, 0)
	good += strings.Repeat(" ", 1000-len(good))
	for _, bytes := range []int{1001, 300_000} { // with others in what is read at once, and beyond that
		long := `{"x":"` + strings.Repeat("x", bytes-8) + `"}`
		wantProblem(t, s.do(t, "POST", "/v1/predict:batch", typeJSON, "["+good+","+long+"]"), 413)
		wantProblem(t, s.do(t, "POST", "/v1/predict:batch", typeCSV, long), 413)
		r := s.do(t, "POST", "/v1/predict:batch", typeNDJSON, good+"\n"+long+"\n"+good)
		lines := slices.Collect(strings.Lines(string(r.body)))
		if end := decode[BatchEnd](t, []byte(lines[len(lines)-1])); len(lines) != 2 || end.Rows != 1 || !strings.HasPrefix(end.Error, "row 1 is longer") {
			t.Errorf("%d bytes: %s", bytes, r.body)
		}
	}
}

func TestARowThatIsTooLongIsNotReadToItsEnd(t *testing.T) {
	fill := func(from io.Reader) error {
		s := rowSplitter{from: from, cut: cutLine, limit: 1000, buf: make([]byte, 0, 16)}
		return s.fill(&chunk{}, 1)
	}
	if err := fill(iotest.OneByteReader(strings.NewReader(strings.Repeat("x", 1000) + "\n"))); err != nil {
		t.Errorf("the longest row: %v", err)
	}
	body := strings.NewReader(strings.Repeat("x", 10<<20))
	if err := fill(body); !errors.Is(err, errRowTooLong) || body.Len() < 9<<20 {
		t.Errorf("%v with %d bytes unread", err, body.Len())
	}
}

// offline is a server without a network.
func offline(t testing.TB) *Server {
	t.Helper()
	cfg := config.Default().HTTP
	cfg.Listen, cfg.DataDir = "127.0.0.1:0", filepath.Join(t.TempDir(), "data")
	s, err := New(cfg, Dependencies{
		Model: telco(t).Model, ModelDir: filepath.Join(modelRoot, "model"), Metrics: prometheus.NewRegistry(), Log: zerolog.Nop(), Version: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// FuzzBatch holds the cutting of a batch into rows to reading it in one piece: the same bodies are taken, with as many
// rows, in their order.
func FuzzBatch(f *testing.F) {
	s := offline(f)
	good := customerJSON(f, 0)
	header := "customer_id"
	for _, in := range telco(f).Model.Contract().Inputs {
		header += "," + in.Name
	}
	for form, bodies := range [][]string{
		{"[" + good + "," + good + "]", "[]", "[1,[{}],\"]\"]", `[{"a":"\\"}]`, "[1 2]", "[{]}", `["\ud800"]`, "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]", "\ufeff[]", "[1,]", "[]]"},
		{good + "\n" + good, "1\n\n{}\n", "\xff\n{", "\x00"},
		{header + "\n" + strings.Repeat(",", 19), header + "\n\"a\nb\",1\n\n\"", header + "\nx\"y\n", header + "\r\n\r\n1,2", "a,a\n"},
	} {
		for _, body := range bodies {
			f.Add(byte(form), []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, form byte, body []byte) {
		form %= 3
		if form == 2 {
			body = append([]byte(header+"\n"), body...)
		}
		request := httptest.NewRequest(http.MethodPost, "/v1/predict:batch", bytes.NewReader(body))
		request.Header.Set("Content-Type", []string{typeJSON, typeNDJSON, typeCSV}[form])
		w := httptest.NewRecorder()
		s.ServeHTTP(w, request)
		if w.Code >= 500 {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
		if form == 0 {
			rows, err := inOnePiece(body)
			if (err == nil) != (w.Code == http.StatusOK) {
				t.Fatalf("%q: %d %s; in one piece: %v", body, w.Code, w.Body, err)
			}
			var answer Batch
			if err == nil && (json.Unmarshal(w.Body.Bytes(), &answer) != nil || len(answer.Predictions) != rows || answer.Rows != rows || !inOrder(answer.Predictions)) {
				t.Fatalf("%q: %s, %d rows", body, w.Body, rows)
			}
			return
		}
		if w.Code != http.StatusOK {
			return
		}
		var rows []BatchRow
		var end BatchEnd
		for line := range bytes.Lines(w.Body.Bytes()) {
			if strings.HasPrefix(string(line), `{"row":`) {
				var row BatchRow
				if err := json.Unmarshal(line, &row); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				rows = append(rows, row)
			} else if err := json.Unmarshal(line, &end); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
		}
		want, fault := 0, error(nil)
		if form == 1 {
			for line := range bytes.Lines(body) {
				if len(bytes.Trim(line, " \t\r\n")) > 0 {
					want++
				}
			}
		} else {
			table := csv.NewReader(bytes.NewReader(body))
			table.FieldsPerRecord = -1
			for want = -1; fault == nil; want++ {
				if _, fault = table.Read(); fault != nil {
					break
				}
			}
			if errors.Is(fault, io.EOF) {
				fault = nil
			}
		}
		if end.Rows != len(rows) || !inOrder(rows) || (fault != nil) != (end.Error != "") || want != len(rows) {
			t.Fatalf("%q: %s; want %d rows, %v", body, w.Body, want, fault)
		}
	})
}

func inOrder(rows []BatchRow) bool {
	for i, row := range rows {
		if row.Row != i || (row.Prediction == nil) == (row.Errors == nil) {
			return false
		}
	}
	return true
}

// inOnePiece counts the elements of an array.
func inOnePiece(body []byte) (rows int, err error) {
	text, err := newJSONText(body)
	if err != nil {
		return 0, err
	}
	text.depth = -1 // an element is as deep as it would be alone
	if err := text.array(func() error { rows++; return text.value() }); err != nil {
		return 0, fmt.Errorf("array: %w", err)
	}
	return rows, text.end()
}
