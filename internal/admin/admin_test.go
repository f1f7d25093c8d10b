package admin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type source struct{ live, ready Status }

func (s source) Live() Status  { return s.live }
func (s source) Ready() Status { return s.ready }

func start(t *testing.T, cfg Config, src Source) string {
	t.Helper()
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "churnstream_events_total"})
	reg.MustRegister(c)
	c.Add(7)
	cfg.Listen = "127.0.0.1:0"
	s, err := New(cfg, Version{Version: "v1", Model: "telco@3"}, src, reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + s.Addr()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestProbesAnswerWithReasons(t *testing.T) {
	base := start(t, Config{}, source{live: Status{OK: true}, ready: Status{Reasons: []string{"no partitions yet"}}})
	if code, _ := get(t, base+"/livez"); code != http.StatusOK {
		t.Errorf("livez %d", code)
	}
	code, body := get(t, base+"/readyz")
	var s Status
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatal(err)
	}
	if code != http.StatusServiceUnavailable || len(s.Reasons) != 1 || s.Reasons[0] != "no partitions yet" {
		t.Errorf("readyz %d %s", code, body)
	}
	if _, body := get(t, base+"/version"); !strings.Contains(body, `"telco@3"`) {
		t.Errorf("version %s", body)
	}
	if _, body := get(t, base+"/metrics"); !strings.Contains(body, "churnstream_events_total 7") {
		t.Errorf("metrics %s", body)
	}
}

func TestProfilesAreServedOnlyWhenAskedFor(t *testing.T) {
	if code, _ := get(t, start(t, Config{}, source{})+"/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("off: %d", code)
	}
	if code, _ := get(t, start(t, Config{Pprof: true}, source{})+"/debug/pprof/"); code != http.StatusOK {
		t.Errorf("on: %d", code)
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	addr := strings.TrimPrefix(start(t, Config{}, source{}), "http://")
	if _, err := New(Config{Listen: addr}, Version{}, source{}, prometheus.NewRegistry()); err == nil || !strings.Contains(err.Error(), "admin.listen") {
		t.Errorf("got %v", err)
	}
}

type floods struct {
	source
	held map[string]bool
}

func (f floods) AcceptFlood(partition string) (accepted []string) {
	for name := range f.held {
		if partition == "" || partition == name {
			accepted = append(accepted, name)
		}
	}
	return accepted
}

func TestAFloodIsAcceptedByPostAndNotFromAPageElsewhere(t *testing.T) {
	base := start(t, Config{}, floods{held: map[string]bool{"events/3": true}})
	post := func(query, origin string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/dead-letters/accept"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			request.Header.Set("Origin", origin)
		}
		r, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, strings.TrimSpace(string(b))
	}
	for _, c := range []struct {
		query, origin string
		code          int
		body          string
	}{
		{"", "", http.StatusOK, `{"accepted":["events/3"]}`},
		{"?partition=events/3", "", http.StatusOK, `{"accepted":["events/3"]}`},
		{"?partition=events/4", "", http.StatusNotFound, `{"accepted":[]}`},
		{"", "https://elsewhere.example", http.StatusForbidden, ""},
	} {
		if code, body := post(c.query, c.origin); code != c.code || c.body != "" && body != c.body {
			t.Errorf("POST %q of %q: %d %s, want %d %s", c.query, c.origin, code, body, c.code, c.body)
		}
	}
	if code, _ := get(t, base+"/dead-letters/accept"); code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", code)
	}
}
