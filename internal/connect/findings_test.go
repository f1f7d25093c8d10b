package connect

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit"
)

func TestFindingsNameTheProblemAndTheCommand(t *testing.T) {
	broker := func(ids ...int) (all []kafka.Broker) {
		for _, id := range ids {
			all = append(all, kafka.Broker{ID: id})
		}
		return all
	}
	events := settings{"message.timestamp.after.max.ms": "86400000", "retention.ms": "604800000", "max.message.bytes": "5000000", "cleanup.policy": "delete"}
	for name, c := range map[string]struct {
		needs             Needs
		replicas, inSync  []int
		own               settings
		problem, command  string // of the only finding; "": none
		brokersOfTheWhole []int
	}{
		"all is well":                 {Needs{MessageBytes: 1_000_000, EventsOf: "events"}, []int{1, 2, 3}, []int{1, 2, 3}, settings{"min.insync.replicas": "2", "cleanup.policy": "delete", "max.message.bytes": "1048588", "retention.ms": "604800000", "message.timestamp.before.max.ms": "9223372036854775807"}, "", "", nil},
		"one broker":                  {Needs{}, []int{1}, []int{1}, settings{"min.insync.replicas": "1"}, "", "", []int{1}},
		"one replica of three":        {Needs{}, []int{2}, []int{2}, settings{"min.insync.replicas": "1"}, "replication factor 1 on 3 brokers", `{"topic":"own","partition":0,"replicas":[2,1,3]}`, nil},
		"one acknowledges":            {Needs{}, []int{1, 2, 3}, []int{1, 2, 3}, settings{"min.insync.replicas": "1"}, "is lost with it", "--add-config min.insync.replicas=2", nil},
		"all must acknowledge":        {Needs{}, []int{1, 2, 3}, []int{1, 2, 3}, settings{"min.insync.replicas": "3"}, "stops every write", "--add-config min.insync.replicas=2", nil},
		"more than there are":         {Needs{}, []int{1}, []int{1}, settings{"min.insync.replicas": "2"}, "nothing can be written", "--add-config min.insync.replicas=1", []int{1}},
		"too few now":                 {Needs{}, []int{1, 2, 3}, []int{1}, settings{"min.insync.replicas": "2"}, "start the brokers that are down", "", nil},
		"unclean leaders":             {Needs{}, []int{1, 2, 3}, []int{1, 2, 3}, settings{"unclean.leader.election.enable": "true"}, "what it lacks is lost", "unclean.leader.election.enable=false", nil},
		"state that is deleted":       {Needs{Compact: true}, []int{1}, []int{1}, settings{"cleanup.policy": "delete"}, "read whole", "--add-config cleanup.policy=compact,segment.bytes=4194304", []int{1}},
		"records that are compacted":  {Needs{}, []int{1}, []int{1}, settings{"cleanup.policy": "compact,delete"}, "only the newest stays", "cleanup.policy=delete", []int{1}},
		"batches too large":           {Needs{MessageBytes: 2_000_000}, []int{1}, []int{1}, settings{"max.message.bytes": "1048588"}, "would be refused", "max.message.bytes=2001024", []int{1}},
		"dead letters too large":      {Needs{WholeOf: "events"}, []int{1}, []int{1}, settings{"max.message.bytes": "1048588"}, "set aside without its bytes", "max.message.bytes=5001024", []int{1}},
		"scores that go early":        {Needs{EventsOf: "events"}, []int{1}, []int{1}, settings{"retention.ms": "86400000"}, "deleted at once", "retention.ms=604800000", []int{1}},
		"scores that stay for ever":   {Needs{EventsOf: "events"}, []int{1}, []int{1}, settings{"retention.ms": "-1"}, "", "", []int{1}},
		"old scores that are refused": {Needs{EventsOf: "events"}, []int{1}, []int{1}, settings{"message.timestamp.before.max.ms": "3600000"}, "would end the worker", "message.timestamp.before.max.ms=9223372036854775807", []int{1}},
		"scores of the future":        {Needs{EventsOf: "events"}, []int{1}, []int{1}, settings{"message.timestamp.after.max.ms": "3600000"}, "one such event would end the worker", "message.timestamp.after.max.ms=86400000", []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			check := topicCheck{bootstrap: "kafka:9092", brokers: []int{1, 2, 3}, settings: map[string]settings{"own": c.own, "events": events}}
			if c.brokersOfTheWhole != nil {
				check.brokers = c.brokersOfTheWhole
			}
			check.spec = TopicSpec{Name: "own", Key: "topics.own", Needs: c.needs, Configs: map[string]string{"cleanup.policy": "compact", "segment.bytes": "4194304"}}
			check.replication([]kafka.Partition{{ID: 0, Replicas: broker(c.replicas...), Isr: broker(c.inSync...)}})
			check.cleanup()
			check.sizes()
			check.times()
			if c.problem == "" {
				if len(check.findings) > 0 {
					t.Errorf("found %+v", check.findings)
				}
				return
			}
			if len(check.findings) != 1 {
				t.Fatalf("found %+v, want one", check.findings)
			}
			f := check.findings[0]
			if !strings.Contains(f.Problem, c.problem) || !strings.Contains(f.Command, c.command) || (c.command == "") != (f.Command == "") || f.Topic != "own" || f.Key != "topics.own" {
				t.Errorf("found %+v", f)
			}
			if c.command != "" && !strings.Contains(f.Command, "--bootstrap-server kafka:9092") {
				t.Errorf("command %s", f.Command)
			}
		})
	}
}

// TestTopicsAreCheckedAtABroker: what is found is gone when the command's setting is there.
func TestTopicsAreCheckedAtABroker(t *testing.T) {
	brokers := testkit.Brokers(t)
	transport, err := Transport("connect-test", config.Security{})
	if err != nil {
		t.Fatal(err)
	}
	defer transport.CloseIdleConnections()
	events := testkit.Topic(t, brokers, "events", 2, "retention.ms", "604800000")
	scores := testkit.Topic(t, brokers, "scores", 2, "retention.ms", "3600000", "message.timestamp.before.max.ms", "9223372036854775807")
	state := testkit.Topic(t, brokers, "state", 1, "cleanup.policy", "delete")
	specs := []TopicSpec{
		{Name: events, Key: "topics.events"},
		{Name: scores, Key: "topics.scores", Needs: Needs{EventsOf: events}},
		{Name: state, Key: "topics.drift_state", Needs: Needs{Compact: true}, Configs: map[string]string{"cleanup.policy": "compact"}},
	}
	findings, err := CheckTopics(t.Context(), brokers, transport, specs)
	if err != nil {
		t.Fatal(err)
	}
	if len(findings) != 2 || findings[0].Topic != scores || findings[1].Topic != state {
		t.Fatalf("found %+v", findings)
	}
	client, done := administration(brokers, transport)
	defer done()
	request := &kafka.IncrementalAlterConfigsRequest{}
	for _, f := range findings {
		_, pair, _ := strings.Cut(f.Command, "--add-config ")
		name, value, _ := strings.Cut(pair, "=")
		request.Resources = append(request.Resources, kafka.IncrementalAlterConfigsRequestResource{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: f.Topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: name, Value: value, ConfigOperation: kafka.ConfigOperationSet}},
		})
	}
	response, err := client.IncrementalAlterConfigs(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(response.Resources, func(r kafka.IncrementalAlterConfigsResponseResource) bool { return r.Error != nil }); i >= 0 {
		t.Fatal(response.Resources[i].Error)
	}
	testkit.Eventually(t, 10*time.Second, func() bool {
		findings, err = CheckTopics(t.Context(), brokers, transport, specs)
		return err == nil && len(findings) == 0
	}, "nothing is found any more")
}
