package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "churnstream.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadReadsFileThenEnvironment(t *testing.T) {
	path := write(t, "model: ./m\nbrokers: [a:1]\nfetch:\n  max_wait: 20ms\ntopics:\n  events: from-file\n")
	cfg, err := Load(path, []string{"CHURNSTREAM_TOPICS_EVENTS=from-env", "CHURNSTREAM_BROKERS=b:2, c:3", "CHURNSTREAM_REASONS_TOP=5", "CHURNSTREAM_PORT=tcp://1.2.3.4:80"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Topics.Events != "from-env" || strings.Join(cfg.Brokers, " ") != "b:2 c:3" || cfg.Reasons.Top != 5 {
		t.Errorf("environment not applied: %+v", cfg)
	}
	if cfg.Fetch.MaxWait.Std() != 20*time.Millisecond || cfg.Topics.Scores != "churn-scores" {
		t.Errorf("file or defaults not applied: %+v", cfg)
	}
}

func TestLoadNamesEveryFaultAtOnce(t *testing.T) {
	path := write(t, `
brokers: [nonsense]
registry: {urls: ["ftp://x"]}
modle: ./m
delivery: exactly-twice
group: {heartbeat_interval: 5s}
topics: {events: "a b", scores: churn-dead-letters}
fetch: {max_bytes: lots}
drift: {hold: 0}
admin: {listen: "9095"}
`)
	_, err := Load(path, []string{"CHURNSTREAM_LOG_LEVEL=loud", "CHURNSTREAM_ADMIN_PPROF=perhaps"})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"brokers[0]:", "registry.urls[0]:", "line 4: unknown key modle", "model:", "delivery:", "group.heartbeat_interval:",
		"topics.events:", "topics.dead_letters:", "lots", "drift.hold:", "admin.listen:", "log.level:", "CHURNSTREAM_ADMIN_PPROF",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "config.") || strings.Contains(err.Error(), "!!") {
		t.Errorf("the message speaks Go or YAML internals:\n%v", err)
	}
}

func TestEachGroupProtocolHasItsOwnWayToBeTheSameMemberAgain(t *testing.T) {
	for _, c := range []struct{ protocol, instance, member, fault string }{
		{"classic", "scorer-1", "", ""},
		{"consumer", "", "scorer-1", ""},
		{"classic", "", "scorer-1", "group.member_id:"},
		{"consumer", "scorer-1", "", "group.instance_id:"},
		{"consumer", "", "scorer 1", "group.member_id:"},
		{"eager", "", "", "group.protocol:"},
	} {
		cfg := Default()
		cfg.Model = "./m"
		cfg.Group.Protocol, cfg.Group.InstanceID, cfg.Group.MemberID = c.protocol, c.instance, c.member
		err := cfg.Validate()
		if (c.fault == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestPrintedConfigurationLoadsBack(t *testing.T) {
	cfg := Default()
	cfg.Model = "./m"
	cfg.Drift.Hold = 3
	text, err := cfg.YAML()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Load(write(t, string(text)), nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(text) || back.Drift.Hold != 3 {
		t.Errorf("not the same:\n%s\n%s", text, again)
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	if _, err := Load("/does/not/exist.yaml", nil); err == nil || !strings.Contains(err.Error(), "/does/not/exist.yaml") {
		t.Errorf("got %v", err)
	}
}

func TestSecretLosesItsLineEnd(t *testing.T) {
	got, err := Secret(write(t, "s3cret \r\n"))
	if err != nil || got != "s3cret " {
		t.Errorf("got %q, %v", got, err)
	}
}
