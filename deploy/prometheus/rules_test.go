package prometheus_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/schemas"
)

func TestRulesAndConfigurationsPassTheirOwnTools(t *testing.T) {
	for _, command := range [][]string{
		{"promtool", "check", "rules", "rules.yml"},
		{"promtool", "test", "rules", "rules_test.yml"},
		{"promtool", "check", "config", "prometheus.yml"},
		{"amtool", "check-config", "alertmanager.yml"},
	} {
		t.Run(strings.Join(command, " "), func(t *testing.T) {
			path, err := exec.LookPath(command[0])
			if err != nil {
				t.Skipf("%s is not installed (Debian: prometheus, prometheus-alertmanager)", command[0])
			}
			output, err := exec.CommandContext(t.Context(), path, command[1:]...).CombinedOutput()
			require.NoError(t, err, "%s", output)
		})
	}
}

// A rule on a metric that nobody exports never fires and nobody notices.
func TestRulesAskForDriftMetricsThatExist(t *testing.T) {
	contract := schemas.Contract{Inputs: []schemas.Input{{Name: "tenure", Kind: schemas.Number}}}
	rows := schemas.NewRows(1, 1)
	rows.Append()
	profile, err := drift.BuildProfile(contract, drift.Reference{Rows: rows, Probabilities: []float64{0.5}}, drift.DefaultProfileConfig())
	require.NoError(t, err)
	registry := prometheus.NewRegistry()
	_, err = drift.NewMetrics(registry, profile, drift.DefaultWindowConfig(time.Minute).Horizons)
	require.NoError(t, err)
	require.NoError(t, drift.NewCalibrationMetrics(registry, drift.ModelName{Name: "telco", Version: "3"}, &drift.CalibrationReport{}, false, 0))
	families, err := registry.Gather()
	require.NoError(t, err)
	exported := map[string]bool{}
	for _, family := range families {
		exported[family.GetName()] = true
	}
	rules, err := os.ReadFile("rules.yml")
	require.NoError(t, err)
	asked := regexp.MustCompile(`[^:a-z_](churnstream_(?:drift|feature|reference|calibration)_[a-z_]+)`).FindAllSubmatch(rules, -1)
	require.NotEmpty(t, asked)
	for _, name := range asked {
		require.True(t, exported[string(name[1])], "rules.yml asks for %s", name[1])
	}
}
