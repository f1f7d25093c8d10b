package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/internal/testkit"
)

const customers = "customers.csv"

// trained makes a directory that holds a model and customers with a header and two rows.
func trained(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if code, _, errs := runCommand(t, "train", "--telco", "--output", filepath.Join(dir, "model")); code != exitDone {
		t.Fatal(errs)
	}
	text := "customerID,gender,SeniorCitizen,Partner,Dependents,tenure,PhoneService,MultipleLines,InternetService,OnlineSecurity,OnlineBackup,DeviceProtection,TechSupport,StreamingTV,StreamingMovies,Contract,PaperlessBilling,PaymentMethod,MonthlyCharges,TotalCharges\n" +
		"a,Female,0,Yes,No,1,No,No phone service,DSL,No,Yes,No,No,No,No,Month-to-month,Yes,Electronic check,29.85,29.85\n" +
		"b,Male,0,No,No,34,Yes,No,DSL,Yes,No,Yes,No,No,No,One year,No,Mailed check,56.95,1889.5\n"
	put(t, filepath.Join(dir, customers), text)
	return dir
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestScoresTakeThePlaceOfTheirOutputWhenAllAreThere(t *testing.T) {
	dir := trained(t)
	file := filepath.Join(dir, customers)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "broken.csv"), string(text)+"c,?\n")
	score := func(input, output string) int {
		code, _, _ := runCommand(t, "model", "score", "-m", filepath.Join(dir, "model"), "-i", filepath.Join(dir, input), "-o", filepath.Join(dir, output))
		return code
	}
	put(t, filepath.Join(dir, "kept.jsonl"), "kept")
	if code := score("broken.csv", "kept.jsonl"); code != exitFailed {
		t.Errorf("broken rows: exit %d", code)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "kept.jsonl")); string(got) != "kept" || err != nil {
		t.Errorf("a failed run left %q, %v", got, err)
	}
	if err := os.Symlink(file, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if code := score(customers, "link"); code != exitDone { // the output is the input
		t.Errorf("exit %d", code)
	}
	if got, err := os.ReadFile(file); strings.Count(string(got), "\"probability\"") != 2 || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if code := score("broken.csv", "../"+filepath.Base(dir)); code != exitUsage {
		t.Errorf("a directory as output: exit %d", code)
	}
}

func TestMessagesOfWrongUsageSayWhatIsWanted(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"a member that a group does not have": {[]string{"model", "bogus"}, []string{"bogus", "inspect, verify, score"}},
		"no directory":                        {[]string{"model", "verify"}, []string{"needs the directories of artefacts", "churnstream model verify models/*"}},
		"two directories":                     {[]string{"model", "inspect", "a", "b"}, []string{"one argument", `"b"`}},
		"input that is missing":               {[]string{"model", "score", "-m", "m", "-i", filepath.Join(dir, "absent")}, []string{"absent", "no such file"}},
		"input that is a directory":           {[]string{"model", "score", "-m", "m", "-i", dir}, []string{"is a directory"}},
		"standard input without a format":     {[]string{"model", "score", "-m", "m"}, []string{"standard input", "csv or jsonl or"}},
		"a rate out of range":                 {[]string{"demo", "--rate", "1e300"}, []string{"1e+300", "up to 10000000"}},
		"all that is wrong":                   {[]string{"bench", "--rate", "nan", "--reasons", "-1", "--delivery", "x"}, []string{"--rate", "--reasons", "--delivery"}},
	} {
		code, _, errs := runCommand(t, c.args...)
		if code != exitUsage {
			t.Errorf("%s: exit %d", name, code)
		}
		for _, want := range c.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%s: %q is not in: %s", name, want, errs)
			}
		}
	}
}

func TestProduceRefusesWrongNumbers(t *testing.T) {
	for _, args := range [][]string{{"--rate", "nan"}, {"--rate", "-1"}, {"--rate", "1e8"}, {"--events", "-1"}} {
		code, _, errs := runCommand(t, append([]string{"produce"}, args...)...)
		if code != exitUsage || !strings.Contains(errs, args[0]) {
			t.Errorf("%v: exit %d: %s", args, code, errs)
		}
	}
}

func TestVerifyLooksAtEveryArtefact(t *testing.T) {
	model := filepath.Join(trained(t), "model")
	code, out, errs := runCommand(t, "model", "verify", "/absent/a", model, "/absent/b")
	if code != exitFailed || !strings.Contains(out, "ok: "+model) || !strings.Contains(errs, "/absent/a") || !strings.Contains(errs, "/absent/b") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

// TestCheckAndRunRefuseTheSame looks at what neither needs a broker for.
func TestCheckAndRunRefuseTheSame(t *testing.T) {
	dir := t.TempDir()
	absent := filepath.Join(dir, "absent")
	put(t, filepath.Join(dir, "not.pem"), "text")
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"files of credentials that are not there": {
			"model: " + absent + "\nsecurity:\n  tls: {enabled: true, ca_file: " + absent + "-ca, cert_file: " + absent + "-cert, key_file: " + absent + "-key}\n" +
				"  sasl: {mechanism: PLAIN, username: u, password_file: " + absent + "-sasl}\nregistry: {urls: [\"http://h\"], username: u, password_file: " + absent + "-registry}\nreasons: {top: -1}\n",
			[]string{"model:", "security.tls.ca_file:", "security.tls.cert_file", "security.sasl.password_file:", "registry.password_file:", "reasons.top:"},
		},
		"roots that are none":       {"model: " + absent + "\nsecurity: {tls: {enabled: true, ca_file: " + dir + "/not.pem}}\n", []string{"holds no PEM"}},
		"a directory without model": {"model: " + dir + "\n", []string{"model: ", dir}},
	} {
		path := filepath.Join(dir, "churnstream.yaml")
		put(t, path, c.text)
		for _, args := range [][]string{{"config", "check", "-c", path}, {"run", "-c", path}, {"produce", "-c", path}} {
			code, _, errs := runCommand(t, args...)
			if code != exitUsage {
				t.Errorf("%s: %v: exit %d", name, args, code)
			}
			for _, want := range c.want {
				if strings.Count(errs, want) != 1 && strings.HasSuffix(want, ":") || !strings.Contains(errs, want) {
					t.Errorf("%s: %v: %q is not named once in: %s", name, args, want, errs)
				}
			}
		}
	}
}

func TestCheckNamesTheFilesThatServeWouldRefuse(t *testing.T) {
	dir := trained(t)
	path, absent := filepath.Join(t.TempDir(), "churnstream.yaml"), filepath.Join(dir, "absent")
	put(t, path, "model: "+filepath.Join(dir, "model")+"\nhttp: {listen: \"127.0.0.1:0\", auth: {keys_file: "+absent+"}, tls: {cert_file: "+absent+"-cert, key_file: "+absent+"-key}}\n")
	code, out, errs := runCommand(t, "config", "check", "-c", path)
	if code != exitUsage || !strings.Contains(errs, "http.auth.keys_file: ") || !strings.Contains(errs, "http.tls.cert_file") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

func TestAMisspeltVariableIsWarnedOf(t *testing.T) {
	var out, errs strings.Builder
	run(t.Context(), []string{"config", "print"}, streams{strings.NewReader(""), &out, &errs, []string{"CHURNSTREAM_TOPIC_EVENTS=x", "CHURNSTREAM_SERVICE_HOST=y"}})
	if text := errs.String(); !strings.Contains(text, "CHURNSTREAM_TOPIC_EVENTS") || !strings.Contains(text, "CHURNSTREAM_TOPICS_EVENTS") || strings.Contains(text, "SERVICE_HOST") {
		t.Errorf("the log says %q", text)
	}
}

func TestALoginInAnAddressIsNotPrinted(t *testing.T) {
	var out, errs strings.Builder
	code := run(t.Context(), []string{"config", "print"}, streams{strings.NewReader(""), &out, &errs, []string{"CHURNSTREAM_REGISTRY_URLS=http://u:s3cret@h"}})
	if text := out.String() + errs.String(); code != exitUsage || strings.Contains(text, "s3cret") || !strings.Contains(text, "registry.urls[0]") {
		t.Errorf("exit %d: %s", code, text)
	}
}

func TestOutputThatCannotBeWrittenFails(t *testing.T) {
	dir := trained(t)
	full := writerFunc(func([]byte) (int, error) { return 0, errors.New("no space left") })
	for _, args := range [][]string{
		{"--version"},
		{"--help"},
		{"config", "print"},
		{"model"},
		{"model", "verify", filepath.Join(dir, "model")},
		{"model", "inspect", filepath.Join(dir, "model")},
		{"model", "score", "-m", filepath.Join(dir, "model"), "-i", filepath.Join(dir, customers)},
	} {
		var errs strings.Builder
		if code := run(t.Context(), args, streams{strings.NewReader(""), full, &errs, nil}); code != exitFailed || strings.Count(errs.String(), "no space left") != 1 {
			t.Errorf("%v: exit %d: %s", args, code, errs.String())
		}
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// interrupt runs a command whose context ends when its stderr says a word, and gives the time that it took to end then.
func interrupt(t *testing.T, word string, args ...string) (code int, said string, took time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errs strings.Builder
	var since time.Time
	watched := writerFunc(func(p []byte) (int, error) {
		errs.Write(p)
		if since.IsZero() && strings.Contains(errs.String(), word) {
			since = time.Now()
			cancel()
		}
		return len(p), nil
	})
	code = run(ctx, args, streams{strings.NewReader(""), writerFunc(func(p []byte) (int, error) { return len(p), nil }), watched, nil})
	if since.IsZero() {
		t.Fatalf("%q was never said: %s", word, errs.String())
	}
	return code, errs.String(), time.Since(since)
}

func TestAnInterruptedBenchEndsAtOnceAndSaysSo(t *testing.T) {
	t.Setenv(runMain, "1") // its worker is this binary
	for _, c := range []struct{ when, more string }{
		{"publishing a backlog", "50000000"}, // while it publishes
		{"partition ready", "100000"},        // while the worker runs
	} {
		code, said, took := interrupt(t, c.when, "bench", "--rate", "0", "--events", c.more)
		if code != exitFailed || took > 4*time.Second || !strings.HasSuffix(said, "churnstream: interrupted before everything was measured\n") {
			t.Errorf("%s: exit %d after %v: %s", c.when, code, took, said)
		}
	}
}

func TestAnInterruptedProduceSaysHowFarItCame(t *testing.T) {
	e := newEnvironment(t)
	file := filepath.Join(trained(t), customers)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errs strings.Builder
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"produce", "-c", e.config(t, ""), "-i", file, "--key", "customerID", "--rate", "0.15"}, streams{strings.NewReader(""), &errs, &errs, nil})
	}()
	reader, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...), kgo.ConsumeTopics(e.topic("events")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	testkit.Eventually(t, 30*time.Second, func() bool {
		if len(done) > 0 {
			t.Fatalf("produce has ended, exit %d: %s", <-done, errs.String())
		}
		poll, end := context.WithTimeout(ctx, time.Second)
		defer end()
		return reader.PollFetches(poll).NumRecords() == 1
	}, "the first row is published")
	cancel()
	if code := <-done; code != exitFailed || !strings.Contains(errs.String(), "interrupted before the last row: the first 1 rows are published") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}
