package config

import (
	"encoding/json"
	"fmt"
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
drift: {clear_hold: 0}
admin: {listen: "9095"}
`)
	_, err := Load(path, []string{"CHURNSTREAM_LOG_LEVEL=loud", "CHURNSTREAM_ADMIN_PPROF=perhaps"})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"brokers[0]:", "registry.urls[0]:", "line 4: unknown key modle", "model:", "delivery:", "group.heartbeat_interval:",
		"topics.events:", "topics.dead_letters:", "lots", "drift.clear_hold:", "admin.listen:", "log.level:", "CHURNSTREAM_ADMIN_PPROF",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "config.") || strings.Contains(err.Error(), "!!") {
		t.Errorf("the message speaks Go or YAML internals:\n%v", err)
	}
}

func TestEachFaultOfAFileIsNamedWithKeyAndLineBesideTheOthers(t *testing.T) {
	for name, c := range map[string]struct {
		text       string
		want, none []string
	}{
		"wrong durations, types, values and keys": {
			"model: m\nfetch:\n  max_wait: 5\n  max_bytes: lots\ngroup: {session_timeout: soon, id: [a]}\ndrift: {enabled: maybe, clear_hold: 0}\nadmin: nine\nbrokers: a:1\nlgo: {}\n",
			[]string{
				"line 3: fetch.max_wait:", "line 4: fetch.max_bytes: \"lots\" is not a whole number", "line 5: group.session_timeout: \"soon\" is not a duration", "line 5: group.id: a list is not a text",
				"line 6: drift.enabled:", "drift.clear_hold: 0", "line 7: admin: \"nine\" is not a section", "line 8: brokers: \"a:1\" is not a list", "line 9: unknown key lgo",
			},
			[]string{"model:", "group.id: is empty"},
		},
		"a wrong type of the model":     {"model: [a]\n", []string{"line 1: model: a list is not a text"}, []string{"is empty"}},
		"what is not YAML":              {"model: m\n\tbrokers: [\n", []string{"line 2"}, []string{"model:"}},
		"an alias that holds itself":    {"model: &a [*a]\n", []string{"contains itself"}, []string{"is empty"}},
		"a key that occurs twice":       {"model: m\nmodel: n\ndrift: {clear_hold: 0}\n", []string{"line 2", "already defined at line 1", "drift.clear_hold"}, []string{"is empty"}},
		"a file that is a list":         {"- model\n", []string{"line 1: the file: a list is not a section"}, nil},
		"two documents":                 {"model: m\n---\nmodel: n\n", []string{"more than one YAML document"}, []string{"is empty"}},
		"memory for nothing":            {"model: m\nfetch: {memory_bytes: 524287}\n", []string{"fetch.memory_bytes: 524287"}, nil},
		"topics that are directories":   {"model: m\ntopics: {events: ., scores: ..}\n", []string{"topics.events:", "topics.scores:"}, nil},
		"an instance id with a blank":   {"model: m\ngroup: {instance_id: \"a b\"}\n", []string{"group.instance_id:"}, nil},
		"a login in a registry's URL":   {"model: m\nregistry: {urls: [\"http://u:s3cret@h\"]}\n", []string{"registry.urls[0]: holds a login"}, []string{"s3cret"}},
		"a login that does not parse":   {"model: m\nregistry: {urls: [\"http://u:s3cret%zz@h\"]}\n", []string{"registry.urls[0]: holds a login"}, []string{"s3cret"}},
		"bare events without a schema":  {"model: m\nevents: {framing: bare}\n", []string{"events.schemas: has 0 files"}, nil},
		"schemas beside the registry's": {"model: m\nevents: {schemas: [a.avsc]}\n", []string{"events.schemas: belongs to"}, nil},
		"unknown framing and strategy":  {"model: m\nevents: {framing: json}\nregistry: {subject_strategy: x}\n", []string{"events.framing: \"json\"", "registry.subject_strategy: \"x\""}, []string{"events.schemas"}},
		"two logins and half a pair": {
			"model: m\nregistry: {username: u, password_file: p, token_file: t, tls: {cert_file: c}}\n",
			[]string{"registry.token_file: is given beside", "registry.tls.key_file:"},
			nil,
		},
		"a fault in what is merged in": {"model: m\nfetch: &f {max_wait: x}\nproduce: {<<: *f}\n", []string{"fetch.max_wait:", "unknown key produce.max_wait"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, c.text), nil)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not named in:\n%v", want, err)
				}
			}
			for _, none := range c.none {
				if strings.Contains(err.Error(), none) {
					t.Errorf("%q is in:\n%v", none, err)
				}
			}
		})
	}
}

func TestMergedKeysYieldToTheSectionsOwn(t *testing.T) {
	cfg, err := Load(write(t, "model: m\ntopics: &t {events: a, scores: b}\n"), nil)
	if err != nil || cfg.Topics.Events != "a" {
		t.Fatal(cfg.Topics, err)
	}
	cfg, err = Load(write(t, "model: &m m\nclient_id: *m\nfetch: {rack: b, <<: {rack: a, offset_reset: latest}}\n"), nil)
	if err != nil || cfg.Fetch.Rack != "b" || cfg.Fetch.OffsetReset != "latest" || cfg.ClientID != "m" {
		t.Error(cfg.Fetch, cfg.ClientID, err)
	}
}

func TestALoginIsNeverPrinted(t *testing.T) {
	cfg := Default()
	cfg.Registry.URLs = []string{"http://user:s3cret@registry"}
	text, err := cfg.YAML()
	if err == nil || strings.Contains(string(text)+err.Error(), "s3cret") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestMisspeltVariablesAreFoundAndOthersLeftAlone(t *testing.T) {
	for variable, meant := range map[string]string{
		"CHURNSTREAM_TOPIC_EVENTS":      "CHURNSTREAM_TOPICS_EVENTS",
		"CHURNSTREAM_MODLE":             "CHURNSTREAM_MODEL",
		"CHURNSTREAM_BROKER":            "CHURNSTREAM_BROKERS",
		"CHURNSTREAM_MODEL":             "",
		"CHURNSTREAM_PORT":              "",
		"CHURNSTREAM_PORT_9095_TCP":     "",
		"CHURNSTREAM_SERVICE_HOST":      "",
		"CHURNSTREAM_SERVICE_PORT_HTTP": "",
		"OTHERSTREAM_MODLE":             "",
	} {
		got := Misspellings([]string{variable + "=x"})
		if meant == "" && len(got) != 0 || meant != "" && (len(got) != 1 || got[0] != Misspelling{variable, meant}) {
			t.Errorf("%s: got %v, want %q", variable, got, meant)
		}
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
	cfg.Drift.ClearHold = 3
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
	if string(again) != string(text) || back.Drift.ClearHold != 3 {
		t.Errorf("not the same:\n%s\n%s", text, again)
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	if _, err := Load("/does/not/exist.yaml", nil); err == nil || !strings.Contains(err.Error(), "/does/not/exist.yaml") {
		t.Errorf("got %v", err)
	}
}

func TestSecretLosesItsLineEnd(t *testing.T) {
	got, err := Secret(nil, write(t, "s3cret \r\n"))
	if err != nil || got != "s3cret " {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestSecretsComeByEnvironmentOrFileAndAreNeverPrinted(t *testing.T) {
	cfg, err := Load(write(t, "model: m\nregistry: {username: u}\nsecurity: {tls: {enabled: true}, sasl: {mechanism: AWS_MSK_IAM}}\n"), []string{
		"CHURNSTREAM_REGISTRY_PASSWORD=s3cret", "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=s3cret", "AWS_SESSION_TOKEN=s3cret",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Secret(cfg.Registry.Password, ""); got != "s3cret" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	text, err := cfg.YAML()
	if err != nil {
		t.Fatal(err)
	}
	printed := string(text) + fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg)
	if encoded, err := json.Marshal(cfg); err == nil {
		printed += string(encoded)
	}
	if strings.Contains(printed, "s3cret") {
		t.Errorf("a secret is printed: %s", printed)
	}
	if _, err := Load(write(t, string(text)), nil); err == nil || strings.Contains(err.Error(), "password:") {
		t.Errorf("printed and read back without the environment: %v", err)
	}
	_, err = Load(write(t, "model: m\nregistry: {username: u, password: s3cret}\n"), nil)
	if err == nil || !strings.Contains(err.Error(), "registry.password: a secret does not belong in this file") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a secret in the file: %v", err)
	}
	_, err = Load(write(t, "model: m\nregistry: {username: u, password_file: f}\n"), []string{"CHURNSTREAM_REGISTRY_PASSWORD=s3cret"})
	if err == nil || !strings.Contains(err.Error(), "registry.password_file: is given, and the variable CHURNSTREAM_REGISTRY_PASSWORD, too") {
		t.Errorf("two sources: %v", err)
	}
}

func TestLoginsByTokenAreChecked(t *testing.T) {
	for name, c := range map[string]struct{ yaml, want string }{
		"no TLS":         {"{sasl: {mechanism: OAUTHBEARER, oauth: {token_file: f}}}", "security.tls.enabled"},
		"no https":       {"{tls: {enabled: true}, sasl: {mechanism: OAUTHBEARER, oauth: {token_url: 'http://x', client_id: c, client_secret_file: f}}}", "security.sasl.oauth.token_url"},
		"no client":      {"{tls: {enabled: true}, sasl: {mechanism: OAUTHBEARER, oauth: {token_url: 'https://x', client_secret_file: f}}}", "security.sasl.oauth.client_id"},
		"no secret":      {"{tls: {enabled: true}, sasl: {mechanism: OAUTHBEARER, oauth: {token_url: 'https://x', client_id: c}}}", "security.sasl.oauth.client_secret_file"},
		"two ways":       {"{tls: {enabled: true}, sasl: {mechanism: OAUTHBEARER, oauth: {token_file: f, token_url: 'https://x'}}}", "security.sasl.oauth.token_file"},
		"no region":      {"{tls: {enabled: true}, sasl: {mechanism: AWS_MSK_IAM}}", "security.sasl.aws.region"},
		"a key alone":    {"{tls: {enabled: true}, sasl: {mechanism: AWS_MSK_IAM, aws: {region: eu-central-1, access_key_id: i}}}", "security.sasl.aws.access_key_id"},
		"a role is lost": {"{tls: {enabled: true}, sasl: {mechanism: AWS_MSK_IAM, aws: {region: eu-central-1, web_identity_token_file: f}}}", "security.sasl.aws.role_arn"},
		"all is well":    {"{tls: {enabled: true}, sasl: {mechanism: AWS_MSK_IAM, aws: {region: us-gov-west-1}}}", ""},
	} {
		_, err := Load(write(t, "model: m\nsecurity: "+c.yaml+"\n"), nil)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want+":")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
