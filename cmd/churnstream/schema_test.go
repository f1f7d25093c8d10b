package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/schemas"
)

func TestSchemaCheckExitsByWhetherTheModelCanBeFed(t *testing.T) {
	dir := trained(t)
	model, cfg := filepath.Join(dir, "model"), filepath.Join(dir, "churnstream.yaml")
	events := testkit.Name(t, "events")
	put(t, cfg, "model: "+model+"\nregistry: {urls: [\""+testkit.Registry(t)+"\"]}\ntopics: {events: "+events+"}\n")
	code, schema, errs := runCommand(t, "schema", "show", "-c", cfg, "--subject", events+"-value")
	if code != exitDone || !strings.Contains(schema, "CustomerActivity") {
		t.Fatal(code, schema, errs)
	}
	good, promoted, bad := filepath.Join(dir, "good.avsc"), filepath.Join(dir, "promoted.avsc"), filepath.Join(dir, "bad.avsc")
	put(t, good, schema)
	put(t, promoted, strings.Replace(schema, `{"name":"tenure","type":"double"}`, `{"name":"months","type":"int"}`, 1))
	reader := filepath.Join(dir, "reader.avsc")
	put(t, reader, strings.Replace(schema, `{"name":"tenure","type":"double"}`, `{"name":"tenure","aliases":["months"],"type":"long"}`, 1))
	put(t, bad, strings.Replace(schema, `{"name":"tenure","type":"double"}`, `{"name":"tenure","type":"string"}`, 1))
	for _, c := range []struct {
		name           string
		args           []string
		code           int
		status, how    string // of tenure
		stdout, stderr string
	}{
		{"good", []string{good, "--model", model}, exitDone, "satisfied", "", `"usable":true`, ""},
		{"missing", []string{promoted, "--model", model}, exitFailed, "missing", "", `"usable":false`, "cannot be fed"},
		{"through a reader's schema", []string{promoted, "--model", model, "--reader", reader}, exitDone, "satisfied", "int to double", `"usable":true`, ""},
		{"wrong type", []string{bad, "--model", model}, exitFailed, "mismatched", "", `the writer's type is string`, "cannot be fed"},
		{"no such file", []string{bad + "x", "--model", model}, exitUsage, "", "", "", "no such file"},
		{"no model", []string{good, "--model", dir}, exitUsage, "", "", "", "--model"},
		{"no schema", []string{cfg, "--model", model}, exitUsage, "", "", "", "not JSON"},
		{"subject that is not there", []string{"-c", cfg}, exitFailed, "", "", "", events + "-value"},
		{"file and subject", []string{good, "-c", cfg, "--subject", "s"}, exitUsage, "", "", "", "not both"},
	} {
		code, out, errs := runCommand(t, append([]string{"schema", "check", "--output", "json"}, c.args...)...)
		if code != c.code || !strings.Contains(out, c.stdout) || !strings.Contains(errs, c.stderr) {
			t.Errorf("%s: exit %d\n%s\n%s", c.name, code, out, errs)
		}
		if c.status == "" {
			continue
		}
		var f schemas.Feeding
		if err := json.Unmarshal([]byte(out), &f); err != nil {
			t.Errorf("%s: %v\n%s", c.name, err, out)
			continue
		}
		for _, in := range f.Inputs {
			if in.Input == "tenure" && (string(in.Status) != c.status || in.Conversion != c.how) {
				t.Errorf("%s: %+v", c.name, in)
			}
		}
	}

	// By the registry: the same answers, and its own words when it refuses.
	if code, out, errs := runCommand(t, "schema", "register", "-c", cfg, "--output", "json"); code != exitDone || strings.Count(out, `"id":`) != 5 {
		t.Errorf("register: exit %d\n%s\n%s", code, out, errs)
	}
	if code, out, errs := runCommand(t, "schema", "check", "-c", cfg); code != exitDone || !strings.Contains(out, "usable: the model can be fed") {
		t.Errorf("registered: exit %d\n%s\n%s", code, out, errs)
	}
	if code, _, errs := runCommand(t, "schema", "register", bad, "--subject", events+"-value", "-c", cfg); code != exitFailed || !strings.Contains(errs, "incompatible") || !strings.Contains(strings.ToLower(errs), "string") {
		t.Errorf("incompatible: exit %d\n%s", code, errs)
	}
	if code, _, errs := runCommand(t, "schema", "register", good, "-c", cfg); code != exitUsage || !strings.Contains(errs, "--subject") {
		t.Errorf("without a subject: exit %d\n%s", code, errs)
	}
	text, err := os.ReadFile(good)
	if err != nil || strings.TrimSpace(string(text)) == "" {
		t.Fatal(err)
	}
}
