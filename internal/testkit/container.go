package testkit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/kafka"
)

// kafkaImage is what the testcontainers module's start script is made for; the
// apache/kafka images lack the programs it calls.
const kafkaImage = "confluentinc/confluent-local:7.5.0"

// startTimeout covers the pull of the image on an ordinary line.
const startTimeout = 5 * time.Minute

// startContainer runs once a test binary: a container takes seconds and all
// tests can share it. The testcontainers reaper removes it when the process is
// gone.
var startContainer = sync.OnceValues(func() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	container, err := kafka.Run(ctx, kafkaImage)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", kafkaImage, err)
	}
	return container.Brokers(ctx)
})

func containerBrokers(t testing.TB) []string {
	t.Helper()
	if err := containerEngine(t.Context()); err != nil {
		t.Skipf("%s is set, but no container engine answers: %v", EnvContainers, err)
	}
	brokers, err := startContainer()
	if err != nil {
		t.Fatal(err)
	}
	return brokers
}

// containerEngine says why there is none. testcontainers panics when it finds
// no way at all to reach an engine.
func containerEngine(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	provider, err := testcontainers.ProviderDocker.GetProvider()
	if err != nil {
		return err
	}
	defer func() { _ = provider.Close() }()
	return provider.Health(ctx)
}
