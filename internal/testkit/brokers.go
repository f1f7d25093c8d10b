// Package testkit takes a test and gives it the Kafka it runs against, topics
// and names of its own, and a way to wait for a condition. The same test runs
// on the embedded broker, on a real one and in a container:
//
//	go test ./...                                                  embedded, one broker a test
//	CHURNSTREAM_TEST_BROKERS=127.0.0.1:19092 go test ./consumer/...  a running cluster
//	CHURNSTREAM_TEST_CONTAINERS=1 go test ./consumer/...             a container, one a test binary
//
// Only tests import it.
package testkit

import (
	"os"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/churnstream/churnstream/internal/devbroker"
)

// The environment variables that choose the broker; the first wins.
const (
	EnvBrokers    = "CHURNSTREAM_TEST_BROKERS"
	EnvContainers = "CHURNSTREAM_TEST_CONTAINERS"
)

// Brokers gives the addresses of a Kafka for this test. The embedded broker is
// the test's own and ends with it; a real one is shared, so a test uses no
// topic, group or transactional id whose name is not from Topic or Name.
func Brokers(t testing.TB) []string {
	t.Helper()
	switch {
	case os.Getenv(EnvBrokers) != "":
		return splitList(os.Getenv(EnvBrokers))
	case os.Getenv(EnvContainers) != "":
		return containerBrokers(t)
	default:
		return Embedded(t).Addrs()
	}
}

// Real says whether Brokers gives a broker that other tests use too and that
// takes real time for what it does.
func Real() bool {
	return os.Getenv(EnvBrokers) != "" || os.Getenv(EnvContainers) != ""
}

// Embedded starts an embedded broker whatever the environment says, for tests
// that inject errors or move leaders. It has one node, no topics and a free
// port unless an option says otherwise, and ends with the test.
func Embedded(t testing.TB, options ...func(*devbroker.Config)) *devbroker.Broker {
	t.Helper()
	cfg := devbroker.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	for _, option := range options {
		option(&cfg)
	}
	broker, err := devbroker.New(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	return broker
}

func splitList(list string) []string {
	var items []string
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
