package testkit

import (
	"context"
	"os"
	"testing"

	"github.com/churnstream/churnstream/internal/devregistry"
)

// registryVariable names a real schema registry for the tests.
const registryVariable = "CHURNSTREAM_TEST_REGISTRY"

// Registry gives the URL of a schema registry: the one that CHURNSTREAM_TEST_REGISTRY names, which other tests share
// and which has to check compatibility BACKWARD, or else an embedded one of the test's own, empty and in memory, which
// ends with the test.
func Registry(t testing.TB) string {
	t.Helper()
	if url := os.Getenv(registryVariable); url != "" {
		return url
	}
	cfg := devregistry.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	registry, err := devregistry.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- registry.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return registry.URL()
}
