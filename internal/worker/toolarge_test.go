package worker

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/testkit"
)

// limit sets max.message.bytes of a topic.
func (e *environment) limit(topic, bytes string) {
	e.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...))
	if err != nil {
		e.t.Fatal(err)
	}
	defer client.Close()
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	setting := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	setting.Name, setting.Op, setting.Value = "max.message.bytes", kmsg.IncrementalAlterConfigOpSet, &bytes
	resource.Configs = append(resource.Configs, setting)
	request.Resources = append(request.Resources, resource)
	response, err := request.RequestWith(e.t.Context(), client)
	if err != nil || response.Resources[0].ErrorCode != 0 {
		e.t.Fatal(err, response)
	}
}

// TestATopicThatTakesSmallerBatchesDoesNotStopTheStream: units are repeated with smaller batches. Only a record that is
// too large by itself ends the worker, with what it is and what helps.
func TestATopicThatTakesSmallerBatchesDoesNotStopTheStream(t *testing.T) {
	deliveries(t, func(t *testing.T, d delivery) {
		e := newEnvironment(t, testkit.Brokers(t), partitions{events: 2, scores: 2, states: 1})
		d.set(&e.cfg)
		e.cfg.Produce.Compression = "none"
		e.limit(e.cfg.Topics.Scores, "3000")
		e.feed(300)
		w := e.start(nil).ready(2)
		e.drained()
		if got := w.value("churnstream_partition_restarts_total"); got < 1 {
			t.Error("no batch was refused, this proves nothing")
		}
		e.checkScores(d.repeats())

		e.limit(e.cfg.Topics.Scores, "100")
		var err error
		testkit.Eventually(t, patience, func() bool { // brokers take a moment to know the new limit
			e.feed(10)
			select {
			case err = <-w.returned:
				w.returned <- nil
				return true
			default:
				return false
			}
		}, "the worker ends")
		if err == nil || !strings.Contains(err.Error(), "bytes for "+e.cfg.Topics.Scores) || !strings.Contains(err.Error(), "--add-config max.message.bytes=") {
			t.Errorf("the worker ended with %v", err)
		}
	})
}
