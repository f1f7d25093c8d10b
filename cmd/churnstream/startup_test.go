package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// faultLimit is how long a worker may take to name what is wrong with its surroundings.
const faultLimit = 10 * time.Second

func TestFaultsOfTheSurroundingsAreNamedWithinTenSeconds(t *testing.T) {
	e := newEnvironment(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts by the backlog and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	guarded, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "admin", "right"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guarded.Close)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		environ []string
		want    []string
	}{
		"a broker that is down": {
			[]string{"CHURNSTREAM_BROKERS=" + nobody},
			[]string{nobody, "nothing listens there"},
		},
		"a broker that accepts and never answers": {
			[]string{"CHURNSTREAM_BROKERS=" + silent.Addr().String()},
			[]string{silent.Addr().String(), "did not answer"},
		},
		"a refused login": {
			[]string{
				"CHURNSTREAM_BROKERS=" + guarded.ListenAddrs()[0], "CHURNSTREAM_SECURITY_SASL_MECHANISM=PLAIN",
				"CHURNSTREAM_SECURITY_SASL_USERNAME=admin", "CHURNSTREAM_SECURITY_SASL_PASSWORD_FILE=" + password,
			},
			[]string{"refuse the login", `"admin"`, "password_file"},
		},
		"a missing topic": {
			[]string{"CHURNSTREAM_CREATE_TOPICS_ENABLED=false", "CHURNSTREAM_TOPICS_EVENTS=" + e.topic("absent")},
			[]string{"topics.events", e.topic("absent"), "does not exist", "kafka-topics.sh"},
		},
		"a registry that is down": {
			[]string{"CHURNSTREAM_REGISTRY_URLS=http://" + nobody},
			[]string{"registry", nobody},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			var out, errs strings.Builder
			code := run(t.Context(), []string{"run", "-c", e.config(t, "")}, streams{strings.NewReader(""), &out, &errs, c.environ})
			if took := time.Since(began); code != exitFailed || took > faultLimit {
				t.Errorf("exit %d after %v", code, took)
			}
			for _, want := range c.want {
				if !strings.Contains(errs.String(), want) {
					t.Errorf("%q is not named in: %s", want, errs.String())
				}
			}
		})
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	for _, args := range [][]string{
		{"demo"},
		{"run"},
		{"serve"},
		{"apikey"},
		{"dev"},
		{"produce"},
		{"train"},
		{"bench"},
		{"model", "inspect"},
		{"model", "verify"},
		{"model", "score"},
		{"config", "check"},
		{"config", "print"},
	} {
		code, out, _ := runCommand(t, append(args, "--help")...)
		if code != exitDone || !strings.Contains(out, "Examples:\n  ") || !strings.Contains(out, "churnstream "+strings.Join(args, " ")) {
			t.Errorf("%v --help: exit %d:\n%s", args, code, out)
		}
	}
}

func TestWrongUsageEndsWithTwo(t *testing.T) {
	for name, args := range map[string][]string{
		"no such command":                 {"rum"},
		"no such flag":                    {"demo", "--evnets", "3"},
		"a flag of a wrong type":          {"demo", "--events", "many"},
		"an unwanted argument":            {"run", "churnstream.yaml"},
		"a missing argument":              {"model", "verify"},
		"an unknown output":               {"demo", "--output", "xml"},
		"a missing configuration":         {"run", "-c", "/does/not/exist.yaml"},
		"a configuration without a model": {"run"},
		"neither data nor example":        {"train"},
		"an unknown form of the report":   {"train", "--telco", "--format", "xml"},
		"an unknown format of rows":       {"model", "score", "--model", "m", "--input", "rows.parquet"},
		"rows that are not there":         {"model", "score", "--model", "m", "--input", "/does/not/exist.csv"},
		"no model":                        {"model", "score"},
		"no such member of model":         {"model", "bogus"},
		"no such member of config":        {"config", "bogus"},
		"an infinite rate of demo":        {"demo", "--rate", "inf", "--events", "1"},
		"a rate of demo that is none":     {"demo", "--rate", "nan", "--events", "1"},
		"a huge rate of demo":             {"demo", "--rate", "1e300", "--events", "1"},
		"no rate of demo":                 {"demo", "--rate", "0", "--events", "1"},
		"negative events of demo":         {"demo", "--events", "-1"},
		"a level that is none":            {"demo", "--events", "1", "--log-level", "loud"},
		"a rate of bench that is none":    {"bench", "--rate", "nan"},
		"a huge rate of bench":            {"bench", "--rate", "1e300"},
		"nothing to measure by bench":     {"bench", "--events", "0", "--rate", "0"},
		"no workers of bench":             {"bench", "--workers", "0"},
		"negative events of bench":        {"bench", "--events", "-1"},
		"a negative time of bench":        {"bench", "--measure", "-1s"},
		"a negative warm-up of bench":     {"bench", "--warm-up", "-1s"},
		"negative reasons of bench":       {"bench", "--reasons", "-1"},
		"an unknown guarantee of bench":   {"bench", "--delivery", "x"},
		"too many partitions of dev":      {"dev", "--partitions", "10001"},
		"no partitions of dev":            {"dev", "--partitions", "0"},
	} {
		if code, _, errs := runCommand(t, args...); code != exitUsage || errs == "" {
			t.Errorf("%s: %v ended with %d: %q", name, args, code, errs)
		}
	}
}
