package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/testkit"
)

// Workers of a running group are replaced one by one, first by some that speak the broker-side protocol and then by
// some that speak the classic one again, while events come in.
func TestExactlyOnceThroughARollingChangeOfTheGroupProtocol(t *testing.T) {
	if !testkit.Real() {
		t.Skip("the embedded broker keeps the two group protocols in groups apart; needs a real one")
	}
	e := newEnvironment(t)
	needsConsumerProtocol(t, e.brokers)
	const events, workers = 150_000, 3
	cfg := e.config(t, "")
	start := func(protocol string, i int) *workerProcess {
		member := ""
		if protocol == "consumer" {
			member = fmt.Sprintf("scorer-%d", i)
		}
		t.Setenv("CHURNSTREAM_GROUP_PROTOCOL", protocol)
		t.Setenv("CHURNSTREAM_GROUP_MEMBER_ID", member)
		return startWorker(t, cfg)
	}
	var running [workers]*workerProcess
	for i := range running {
		running[i] = start("classic", i)
	}
	testkit.Eventually(t, 30*time.Second, func() bool { return ready(running[0]) && ready(running[1]) && ready(running[2]) }, "three workers own partitions")
	scores := e.readScores(t)
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		e.feed(t, events, 5_000)
	}()
	for _, protocol := range []string{"consumer", "classic"} {
		for i := range running {
			before := scores.count()
			testkit.Eventually(t, 30*time.Second, func() bool { return scores.count() > before+5_000 || scores.count() == events }, "scores go on")
			stopWorker(t, running[i])
			running[i] = start(protocol, i)
			testkit.Eventually(t, 60*time.Second, func() bool { return ready(running[i]) }, "worker %d owns partitions in the %s protocol", i, protocol)
		}
	}
	if scores.count() == events {
		t.Error("everything was scored before the last change: it was not a change under load")
	}
	<-fed
	testkit.Eventually(t, 90*time.Second, func() bool { return scores.count() >= events }, "all events are scored")
	for _, p := range running {
		stopWorker(t, p)
	}
	scores.check(t, events)
}

func needsConsumerProtocol(t *testing.T, brokers []string) {
	t.Helper()
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: brokers})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	versions, err := client.Versions(t.Context(), kafkawire.AnyBroker)
	if err != nil {
		t.Fatal(err)
	}
	const consumerGroupHeartbeat protocol.ApiKey = 68
	if version, err := versions.Max(consumerGroupHeartbeat, 1); err != nil || version < 1 {
		t.Skipf("this broker does not speak the consumer protocol as of Kafka 4.0 (v%d, %v)", version, err)
	}
}
