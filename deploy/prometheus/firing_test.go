package prometheus_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/schemas"
)

// The shipped rules, with minutes turned into seconds, in a real Prometheus that scrapes what a worker exports while an
// input drifts: both the worker's alarm and the PSI that Prometheus computes reach a real Alertmanager and its webhook.
func TestDriftReachesTheWebhookThroughRealServers(t *testing.T) {
	server, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("prometheus is not installed (Debian: prometheus)")
	}
	alertmanager, err := exec.LookPath("prometheus-alertmanager")
	if err != nil {
		t.Skip("prometheus-alertmanager is not installed (Debian: prometheus-alertmanager)")
	}
	worker := httptest.NewServer(driftingWorker(t))
	defer worker.Close()
	alerts := make(chan string, 100)
	webhook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var message struct {
			Alerts []struct {
				Status string            `json:"status"`
				Labels map[string]string `json:"labels"`
			} `json:"alerts"`
		}
		if json.NewDecoder(r.Body).Decode(&message) == nil {
			for _, a := range message.Alerts {
				alerts <- a.Status + " " + a.Labels["alertname"] + " " + a.Labels["feature"]
			}
		}
	}))
	defer webhook.Close()

	dir := t.TempDir()
	rules, err := os.ReadFile("rules.yml")
	require.NoError(t, err)
	quick := strings.NewReplacer("interval: 1m", "interval: 1s", "[1h]", "[8s]", "for: 5m", "for: 2s").Replace(string(rules))
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	write("rules.yml", quick)
	sending, receiving := freeAddress(t), freeAddress(t)
	config := write("prometheus.yml", fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}
scrape_configs: [{job_name: churnstream, static_configs: [{targets: [%q]}]}]
`, receiving, strings.TrimPrefix(worker.URL, "http://")))
	routes := write("alertmanager.yml", fmt.Sprintf(`
route: {receiver: operators, group_by: [alertname, feature], group_wait: 0s, group_interval: 1s}
receivers: [{name: operators, webhook_configs: [{url: %q}]}]
`, webhook.URL))
	start(t, alertmanager, "--config.file="+routes, "--storage.path="+filepath.Join(dir, "am"), "--web.listen-address="+receiving, "--cluster.listen-address=")
	start(t, server, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"), "--web.listen-address="+sending)

	wanted := map[string]bool{"firing ChurnstreamDriftAlarm tenure": true, "firing ChurnstreamFeatureDrift tenure": true}
	timeout := time.After(2 * time.Minute)
	for len(wanted) > 0 {
		select {
		case alert := <-alerts:
			require.NotContains(t, alert, " score", "only the input drifts")
			delete(wanted, alert)
		case <-timeout:
			t.Fatalf("no webhook of %v", wanted)
		}
	}
}

// driftingWorker exports what a worker does while every event falls into one bin of its only input.
func driftingWorker(t *testing.T) http.Handler {
	t.Helper()
	contract := schemas.Contract{Inputs: []schemas.Input{{Name: "tenure", Kind: schemas.Number}}}
	rows := schemas.NewRows(1, 5000)
	probabilities := make([]float64, 5000)
	for i := range probabilities {
		numbers, _ := rows.Row(rows.Append())
		numbers[0], probabilities[i] = float64(i%72), float64(i%100)/100
	}
	profile, err := drift.BuildProfile(contract, drift.Reference{Rows: rows, Probabilities: probabilities}, drift.DefaultProfileConfig())
	require.NoError(t, err)
	registry := prometheus.NewRegistry()
	cfg := drift.DefaultPopulationConfig()
	metrics, err := drift.NewMetrics(registry, profile, cfg.Window.Horizons)
	require.NoError(t, err)
	counts, err := drift.NewAccumulator(profile, contract, cfg.Window, drift.Source{ModelDigest: "d", Topic: "t"}, metrics)
	require.NoError(t, err)
	population, err := drift.NewPopulation(profile, "d", cfg, drift.DefaultRuleConfig())
	require.NoError(t, err)
	alarms, err := drift.NewAlarms(population, drift.ModelName{Name: "m", Digest: "d"}, drift.DefaultAlarmConfig())
	require.NoError(t, err)
	offset := int64(0)
	exported := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // Prometheus asks for one scrape at a time
		for range 2000 {
			key := fmt.Appendf(nil, "customer-%d", offset)
			counts.Observe(drift.Event{
				Offset: offset, Time: 1_700_000_000_000 + offset*10, Key: key,
				Numbers: []float64{71}, Categories: [][]byte{nil}, Probability: probabilities[offset%5000],
			})
			offset++
		}
		counts.Commit()
		if err := counts.Committed(func(_ []byte, state *schemas.DriftState) error { return population.Apply(state) }); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		at, _ := population.Watermark()
		evaluation := population.Evaluate(at-1, alarms.Marks())
		alarms.Step(at, evaluation)
		metrics.Report(evaluation, alarms)
		exported.ServeHTTP(w, r)
	})
}

// start runs a server until the test ends.
func start(t *testing.T, path string, args ...string) {
	t.Helper()
	server := exec.CommandContext(t.Context(), path, args...)
	var log strings.Builder
	server.Stdout, server.Stderr = &log, &log
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Wait() // the end of the test has killed it
		if t.Failed() {
			t.Logf("%s:\n%s", path, log.String())
		}
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}
