package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/example"
)

// trained makes the example model once for all tests of the package.
var trained = sync.OnceValues(func() (*example.Telco, error) { return example.Train(filepath.Join(modelRoot, "model"), "test") })

var modelRoot string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "httpapi")
	if err != nil {
		panic(err)
	}
	modelRoot = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

func telco(t testing.TB) *example.Telco {
	t.Helper()
	model, err := trained()
	if err != nil {
		t.Fatal(err)
	}
	return model
}

// service is a running API of a test.
type service struct {
	*Server
	url  string
	log  *logText
	http *http.Client
	stop func()
}

// logText is a log that a test reads.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func start(t testing.TB, kafka *Kafka, change ...func(*config.HTTP)) *service {
	t.Helper()
	cfg := config.Default().HTTP
	cfg.Listen, cfg.DataDir = "127.0.0.1:0", filepath.Join(t.TempDir(), "data")
	for _, c := range change {
		c(&cfg)
	}
	log := &logText{}
	s, err := New(cfg, Dependencies{
		Model: telco(t).Model, ModelDir: filepath.Join(modelRoot, "model"), Reasons: 3, Kafka: kafka,
		Metrics: prometheus.NewRegistry(), Log: zerolog.New(log), Version: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, 2*time.Second) }()
	client := &http.Client{Transport: &http.Transport{}, Timeout: 20 * time.Second}
	stop := sync.OnceFunc(func() {
		client.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return &service{Server: s, url: s.URL(), log: log, http: client, stop: stop}
}

// reply is an answer that was read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (s *service) do(t testing.TB, method, path, contentType, body string, header ...string) reply {
	t.Helper()
	r, err := s.try(t.Context(), method, path, contentType, strings.NewReader(body), header...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *service) try(ctx context.Context, method, path, contentType string, body io.Reader, header ...string) (reply, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
	if err != nil {
		return reply{}, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	response, err := s.http.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, text}, err
}

// customerJSON is a held-out customer as a body.
func customerJSON(t testing.TB, row int) string {
	t.Helper()
	model := telco(t)
	numbers, categories := model.Rows.Row(row)
	text, err := model.Model.Contract().AppendJSON(nil, numbers, categories)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// with adds members to an object, or replaces one by giving it an empty name first.
func with(object, members string) string {
	return strings.TrimSuffix(object, "}") + "," + members + "}"
}

func decode[T any](t testing.TB, text []byte) T {
	t.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// wantProblem holds an answer to RFC 9457 and to saying nothing of the program's inside.
func wantProblem(t testing.TB, r reply, status int) {
	t.Helper()
	if r.status != status || r.header.Get("Content-Type") != typeProblem {
		t.Errorf("status %d, content type %q, want %d and problem details: %s", r.status, r.header.Get("Content-Type"), status, r.body)
	}
	for _, leak := range []string{".go:", "goroutine", "/tmp/", "runtime error", "internal/httpapi"} {
		if strings.Contains(string(r.body), leak) {
			t.Errorf("the answer leaks %q: %s", leak, r.body)
		}
	}
}
