package testkit

import (
	"context"
	"testing"

	"github.com/churnstream/churnstream/internal/devregistry"
)

// Registry starts an embedded schema registry of the test's own, empty and in
// memory, and gives its URL. It ends with the test.
func Registry(t testing.TB) string {
	t.Helper()
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
