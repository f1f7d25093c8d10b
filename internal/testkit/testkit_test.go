package testkit

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"github.com/churnstream/churnstream/internal/devbroker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBrokersAreTheTestsOwnByDefault(t *testing.T) {
	t.Setenv(EnvBrokers, "")
	t.Setenv(EnvContainers, "")
	a, b := Brokers(t), Brokers(t)
	if len(a) != 1 || len(b) != 1 || a[0] == b[0] {
		t.Errorf("brokers %v and %v; want one each, not the same", a, b)
	}
	if Real() {
		t.Error("the embedded broker counts as real")
	}
}

func TestBrokersTakesTheListOfTheEnvironment(t *testing.T) {
	t.Setenv(EnvBrokers, "one:9092, two:9092,")
	t.Setenv(EnvContainers, "1") // the list wins
	if got := strings.Join(Brokers(t), " "); got != "one:9092 two:9092" {
		t.Errorf("brokers %q", got)
	}
	if !Real() {
		t.Error("a listed broker does not count as real")
	}
}

func TestContainersWithoutAnEngineSkipAndSayWhy(t *testing.T) {
	t.Setenv(EnvBrokers, "")
	t.Setenv(EnvContainers, "1")
	if containerEngine(t.Context()) == nil {
		t.Skip("a container engine answers here")
	}
	skipper := &recorder{TB: t}
	skipper.run(func() { Brokers(skipper) })
	if !strings.Contains(skipper.skipped, EnvContainers) || !strings.Contains(skipper.skipped, "no container engine") {
		t.Errorf("skipped with %q", skipper.skipped)
	}
}

func TestTopicIsReadyAndUnique(t *testing.T) {
	brokers := Brokers(t)
	a := Topic(t, brokers, "events", 3, "cleanup.policy", "compact")
	b := Topic(t, brokers, "events", 1)
	if a == b || !strings.HasPrefix(a, "events-TestTopicIsReadyAndUnique-") {
		t.Errorf("topics %q and %q", a, b)
	}
	client, done := admin(brokers)
	defer done()
	response, err := client.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{a}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(response.Topics[0].Partitions); n != 3 {
		t.Errorf("%d partitions, want 3", n)
	}
}

func TestTopicFailsOnARefusal(t *testing.T) {
	brokers := Brokers(t)
	for name, settings := range map[string][]string{"odd settings": {"cleanup.policy"}, "no partitions": nil} {
		failing := &recorder{TB: t}
		failing.run(func() { Topic(failing, brokers, "events", 0, settings...) })
		if failing.fatal == "" {
			t.Errorf("%s: not refused", name)
		}
	}
}

func TestEmbeddedTakesOptions(t *testing.T) {
	broker := Embedded(t, func(cfg *devbroker.Config) { cfg.Brokers = 3 })
	if n := len(broker.Addrs()); n != 3 {
		t.Errorf("%d brokers, want 3", n)
	}
}

func TestRegistryAnswersAndIsTheTestsOwn(t *testing.T) {
	t.Setenv(registryVariable, "http://registry.example")
	if url := Registry(t); url != "http://registry.example" {
		t.Errorf("the registry of the environment: %s", url)
	}
	t.Setenv(registryVariable, "")
	a, b := Registry(t), Registry(t)
	if a == b {
		t.Errorf("two registries at %s", a)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	response, err := (&http.Client{Transport: transport}).Get(a + "/subjects")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || strings.TrimSpace(string(body)) != "[]" {
		t.Errorf("GET /subjects: %s %s, want 200 and no subject", response.Status, body)
	}
}

func TestNamesFitKafka(t *testing.T) {
	t.Run("with / and ü and "+strings.Repeat("long ", 80), func(t *testing.T) {
		name := Name(t, "group")
		if len(name) > 249 || strings.ContainsFunc(name, func(r rune) bool { return r > 127 || r == ' ' || r == '/' }) {
			t.Errorf("name %q", name)
		}
	})
}

func TestEventuallyReturnsOnceTheConditionHolds(t *testing.T) {
	var calls atomic.Int32
	Eventually(t, time.Minute, func() bool { return calls.Add(1) == 3 }, "the third call")
	if n := calls.Load(); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
}

func TestEventuallySaysWhatItWaitedFor(t *testing.T) {
	failing := &recorder{TB: t}
	failing.run(func() {
		Eventually(failing, time.Millisecond, func() bool { return false }, "%d scores", 7)
	})
	if failing.fatal != "not within 1ms: 7 scores" {
		t.Errorf("failed with %q", failing.fatal)
	}
}

// recorder notes how a helper ended a test instead of ending this one.
type recorder struct {
	testing.TB
	skipped, fatal string
}

func (r *recorder) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
