package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/internal/testkit"
)

func TestConfigACLPrintsTheRightsOfThePrincipal(t *testing.T) {
	cfg := func(more string) string { return writeConfig(t, "model: m\n"+more) }
	acl := func(path string, args ...string) (string, string) {
		t.Helper()
		code, out, errs := runCommand(t, append([]string{"config", "acl", "-c", path}, args...)...)
		if code != exitDone {
			t.Fatalf("exit %d: %s", code, errs)
		}
		return out, errs
	}
	login := "brokers: [kafka:9092]\nsecurity: {sasl: {mechanism: PLAIN, username: o'hara, password_file: p}}\n"
	for _, c := range []struct {
		more       string
		args       []string
		want, less []string
	}{
		{login, nil, []string{
			`kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal 'User:o'\''hara' --operation Read --topic 'customer-activity'`,
			"--operation Write --topic 'churn-scores'", "--operation Write --topic 'churn-drift-state'", "--operation Read --group 'churnstream'",
			"--operation Write --transactional-id 'churnstream-' --resource-pattern-type prefixed", "\n# kafka-acls.sh", "--operation DescribeConfigs --topic",
		}, []string{"Create"}},
		{login + "drift: {enabled: false}\ndelivery: at-least-once\n", nil, []string{"'churn-scores'"}, []string{"drift", "transactional-id"}},
		{login + "create_topics: {enabled: true}\n", nil, []string{"# kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal 'User:o'\\''hara' --operation Create --topic 'churn-scores'"}, nil},
		{login, []string{"--for", "redrive", "--principal", "User:operator"}, []string{"'User:operator' --operation Write --topic 'customer-activity'", "'churnstream-redrive-' --resource-pattern-type prefixed"}, []string{"churn-scores", "o'"}},
		{login, []string{"--for", "produce"}, []string{"--operation Write --topic 'customer-activity'"}, []string{"churn-scores", "group"}},
		{"", []string{"--output", "json"}, []string{`{"operation":"Read","resource":"topic","name":"customer-activity"`}, []string{"kafka-acls"}},
	} {
		out, _ := acl(cfg(c.more), c.args...)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%v: %q is not in\n%s", c.args, want, out)
			}
		}
		for _, less := range c.less {
			if strings.Contains(out, less) {
				t.Errorf("%v: %q is in\n%s", c.args, less, out)
			}
		}
	}
	if code, _, errs := runCommand(t, "config", "acl", "-c", cfg(""), "--for", "all"); code != exitUsage || !strings.Contains(errs, "--for") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestConfigTopicsNamesFindingsAndMissingTopics(t *testing.T) {
	brokers := testkit.Brokers(t)
	topic := func(prefix string, settings ...string) string {
		return testkit.Topic(t, brokers, prefix, 1, settings...)
	}
	events, scores, dead := topic("events", "retention.ms", "3600000"), topic("scores", "retention.ms", "3600000", "message.timestamp.before.max.ms", "9223372036854775807"), topic("dead")
	alerts := topic("alerts", "cleanup.policy", "compact")
	check := func(state string) (int, string, string) {
		t.Helper()
		path := writeConfig(t, "model: m\nbrokers: ["+strings.Join(brokers, ",")+"]\ntopics: {events: "+events+", scores: "+scores+", dead_letters: "+dead+", drift_state: "+state+", drift_alerts: "+alerts+"}\n")
		return runCommand(t, "config", "topics", "-c", path)
	}
	if code, out, errs := check(topic("state", "cleanup.policy", "compact")); code != exitDone || out != "ok: 5 topics\n" {
		t.Errorf("all is well: exit %d: %s%s", code, out, errs)
	}
	deleted := topic("state", "cleanup.policy", "delete")
	if code, out, errs := check(deleted); code != exitFailed || !strings.Contains(out, "# "+deleted+" (topics.drift_state): cleanup.policy=delete") ||
		!strings.Contains(out, "\nkafka-configs.sh --bootstrap-server "+brokers[0]+" --alter --entity-type topics --entity-name "+deleted+" --add-config cleanup.policy=compact,") || !strings.Contains(errs, "1 findings") {
		t.Errorf("a finding: exit %d: %s%s", code, out, errs)
	}
	if code, _, errs := check("absent"); code != exitFailed || !strings.Contains(errs, "kafka-topics.sh --bootstrap-server "+brokers[0]+" --create --topic absent") {
		t.Errorf("a missing topic: exit %d: %s", code, errs)
	}
}

// writeConfig gives the path of a configuration file with that text.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "churnstream.yaml")
	put(t, path, text)
	return path
}
