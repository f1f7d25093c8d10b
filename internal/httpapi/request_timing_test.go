package httpapi

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit/cputime"
	"github.com/churnstream/churnstream/scoring"
)

// timed is a server without a network, of the artefact in CHURNSTREAM_BENCH_MODEL or of the example model, with the
// bodies of different customers that its reference rows make.
type timed struct {
	*Server
	bodies [][]byte
}

func newTimed(b *testing.B, change ...func(*config.HTTP)) *timed {
	b.Helper()
	dir := os.Getenv("CHURNSTREAM_BENCH_MODEL")
	if dir == "" {
		telco(b)
		dir = filepath.Join(modelRoot, "model")
	}
	model, err := scoring.Load(dir)
	if err != nil {
		b.Fatal(err)
	}
	cfg := config.Default().HTTP
	cfg.Listen, cfg.DataDir = "127.0.0.1:0", filepath.Join(b.TempDir(), "data")
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg, Dependencies{
		Model: model, ModelDir: dir, Reasons: 3, Metrics: prometheus.NewRegistry(), Log: zerolog.New(io.Discard), Version: "test",
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	text, err := os.ReadFile(filepath.Join(dir, scoring.ReferenceFile))
	if err != nil {
		b.Fatal(err)
	}
	t := &timed{Server: s}
	for line := range bytes.Lines(text) {
		var row struct {
			Inputs json.RawMessage `json:"inputs"`
		}
		if err := json.Unmarshal(line, &row); err != nil {
			b.Fatal(err)
		}
		t.bodies = append(t.bodies, row.Inputs)
	}
	return t
}

// ask sends a body through admission to its operation and gives the status.
func (t *timed) ask(path, contentType string, body []byte) int {
	request, err := http.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	request.RemoteAddr = "192.0.2.1:1234"
	request.Header.Set("Content-Type", contentType)
	w := statusOnly{header: http.Header{}}
	t.ServeHTTP(&w, request)
	return w.status
}

// table writes the bodies as CSV.
func (t *timed) table(b *testing.B, rows int) []byte {
	b.Helper()
	var text strings.Builder
	for i, in := range t.deps.Model.Contract().Inputs {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString(in.Name)
	}
	for i := range rows {
		var values map[string]json.RawMessage
		if err := json.Unmarshal(t.bodies[i%len(t.bodies)], &values); err != nil {
			b.Fatal(err)
		}
		text.WriteByte('\n')
		for j, in := range t.deps.Model.Contract().Inputs {
			if j > 0 {
				text.WriteByte(',')
			}
			text.WriteString(strings.Trim(strings.TrimSuffix(string(values[in.Name]), "null"), `"`))
		}
	}
	return []byte(text.String())
}

// BenchmarkBatch is a batch of 10,000 rows from its headers to the end of its answer, without a network.
func BenchmarkBatch(b *testing.B) {
	const rows = 10_000
	t := newTimed(b)
	var list [][]byte
	for i := range rows {
		list = append(list, t.bodies[i%len(t.bodies)])
	}
	for _, c := range []struct {
		name, contentType string
		body              []byte
	}{
		{"array", typeJSON, bytes.Join([][]byte{{'['}, bytes.Join(list, []byte(",")), {']'}}, nil)},
		{"lines", typeNDJSON, bytes.Join(list, []byte("\n"))},
		{"table", typeCSV, t.table(b, rows)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			defer cputime.Report(b, rows, "row")()
			for b.Loop() {
				if status := t.ask("/v1/predict:batch", c.contentType, c.body); status != http.StatusOK {
					b.Fatal(status)
				}
			}
		})
	}
}

// BenchmarkSingle is a prediction from its headers to the end of its answer, without a network.
func BenchmarkSingle(b *testing.B) {
	t := newTimed(b, func(cfg *config.HTTP) { cfg.CacheEntries = 0 })
	for _, reasons := range []int{0, 3} {
		b.Run("reasons="+strconv.Itoa(reasons), func(b *testing.B) {
			b.ReportAllocs()
			defer cputime.Report(b, 1, "op")()
			for i := 0; b.Loop(); i++ {
				if status := t.ask("/v1/predict?explain="+strconv.Itoa(reasons), typeJSON, t.bodies[i%len(t.bodies)]); status != http.StatusOK {
					b.Fatal(status)
				}
			}
		})
	}
}

// BenchmarkShed is a refusal for want of a place, without a network.
func BenchmarkShed(b *testing.B) {
	t := newTimed(b)
	t.inFlight.Add(int64(t.cfg.Limits.Concurrency))
	b.ReportAllocs()
	defer cputime.Report(b, 1, "op")()
	for b.Loop() {
		if status := t.ask("/v1/predict", typeJSON, t.bodies[0]); status != http.StatusServiceUnavailable {
			b.Fatal(status)
		}
	}
}
