package connect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go"
)

// Finding is something about a topic that will do harm sooner or later, with the command that mends it.
type Finding struct {
	Topic   string `json:"topic"`
	Key     string `json:"key"` // its configuration key
	Problem string `json:"problem"`
	Command string `json:"command,omitempty"` // empty: the problem says what to do
}

// Needs is what a topic's settings must allow.
type Needs struct {
	Compact      bool   // the newest record of each key must stay; else every record must, up to the retention
	MessageBytes int    // a record batch of so many bytes is written; 0: none of ours is
	EventsOf     string // topic whose records' times its own records take over: old ones must be taken and kept
	WholeOf      string // topic whose records are copied whole into it
}

// CheckTopics looks at replication and settings of topics that exist. A login that may not see the settings
// (DESCRIBE_CONFIGS) gives a finding of its own.
func CheckTopics(ctx context.Context, brokers []string, transport *kafka.Transport, topics []TopicSpec) ([]Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	client, done := administration(brokers, transport)
	defer done()
	request := &kafka.DescribeConfigsRequest{}
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
		request.Resources = append(request.Resources, kafka.DescribeConfigRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: t.Name})
	}
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: names})
	if err != nil {
		return nil, fmt.Errorf("look at the topics: %w", err)
	}
	described, err := client.DescribeConfigs(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("look at the settings of the topics: %w", err)
	}
	c := topicCheck{bootstrap: brokers[0], settings: map[string]settings{}}
	for _, b := range meta.Brokers {
		c.brokers = append(c.brokers, b.ID)
	}
	slices.Sort(c.brokers)
	denied := map[string]bool{}
	for _, r := range described.Resources {
		if r.Error != nil {
			if errors.Is(r.Error, kafka.TopicAuthorizationFailed) {
				denied[r.ResourceName] = true
			}
			continue
		}
		s := settings{}
		for _, e := range r.ConfigEntries {
			s[e.ConfigName] = e.ConfigValue
		}
		c.settings[r.ResourceName] = s
	}
	for _, spec := range topics {
		c.spec = spec
		if i := slices.IndexFunc(meta.Topics, func(t kafka.Topic) bool { return t.Name == spec.Name }); i >= 0 && meta.Topics[i].Error == nil {
			c.replication(meta.Topics[i].Partitions)
		}
		if denied[spec.Name] {
			c.found(fmt.Sprintf("its settings cannot be looked at: the login needs DESCRIBE_CONFIGS on Topic:%s for that, and for nothing else", spec.Name), "")
			continue
		}
		c.cleanup()
		c.sizes()
		c.times()
	}
	return c.findings, nil
}

// settings of one topic by name. A broker that does not tell its defaults leaves gaps; what is not known is not judged.
type settings map[string]string

func (s settings) number(name string) (int64, bool) {
	n, err := strconv.ParseInt(s[name], 10, 64)
	return n, err == nil
}

type topicCheck struct {
	bootstrap string
	brokers   []int
	settings  map[string]settings
	spec      TopicSpec // in hand
	findings  []Finding
}

func (c *topicCheck) found(problem, command string) {
	c.findings = append(c.findings, Finding{Topic: c.spec.Name, Key: c.spec.Key, Problem: problem, Command: command})
}

// set is the command that changes settings.
func (c *topicCheck) set(pairs ...string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s", c.bootstrap, c.spec.Name, strings.Join(pairs, ","))
}

func (c *topicCheck) replication(partitions []kafka.Partition) {
	if len(partitions) == 0 {
		return
	}
	least, replicas := math.MaxInt, len(partitions[0].Replicas)
	for _, p := range partitions {
		replicas, least = min(replicas, len(p.Replicas)), min(least, len(p.Isr))
	}
	inSync, known := c.settings[c.spec.Name].number("min.insync.replicas")
	if replicas < 3 && len(c.brokers) >= 3 {
		c.found(fmt.Sprintf("replication factor %d on %d brokers: the loss of one broker stops it, or loses what is in it", replicas, len(c.brokers)), c.reassign(partitions))
	}
	switch {
	case !known:
	case inSync > int64(replicas):
		c.found(fmt.Sprintf("min.insync.replicas=%d with %d replicas: nothing can be written", inSync, replicas), c.set(fmt.Sprintf("min.insync.replicas=%d", max(1, replicas-1))))
	case inSync == int64(replicas) && replicas > 1:
		c.found(fmt.Sprintf("min.insync.replicas=%d with as many replicas: the loss of one broker stops every write", inSync), c.set(fmt.Sprintf("min.insync.replicas=%d", replicas-1)))
	case inSync < 2 && replicas >= 3:
		c.found(fmt.Sprintf("min.insync.replicas=%d with %d replicas: what one broker alone has acknowledged is lost with it", inSync, replicas), c.set("min.insync.replicas=2"))
	}
	if known && inSync <= int64(replicas) && int64(least) < inSync {
		c.found(fmt.Sprintf("a partition has %d replicas in sync and needs %d: it cannot be written now; start the brokers that are down", least, inSync), "")
	}
	if c.settings[c.spec.Name]["unclean.leader.election.enable"] == "true" {
		c.found("unclean.leader.election.enable=true: a replica that is behind may become the leader, and what it lacks is lost", c.set("unclean.leader.election.enable=false"))
	}
}

// reassign is the command that gives each partition three replicas; those that it has stay the first ones.
func (c *topicCheck) reassign(partitions []kafka.Partition) string {
	type assignment struct {
		Topic     string `json:"topic"`
		Partition int    `json:"partition"`
		Replicas  []int  `json:"replicas"`
	}
	plan := struct {
		Version    int          `json:"version"`
		Partitions []assignment `json:"partitions"`
	}{Version: 1}
	for _, p := range partitions {
		a := assignment{Topic: c.spec.Name, Partition: p.ID}
		for _, b := range p.Replicas {
			a.Replicas = append(a.Replicas, b.ID)
		}
		for i := 0; len(a.Replicas) < 3; i++ {
			if b := c.brokers[(p.ID+i)%len(c.brokers)]; !slices.Contains(a.Replicas, b) {
				a.Replicas = append(a.Replicas, b)
			}
		}
		plan.Partitions = append(plan.Partitions, a)
	}
	text, err := json.Marshal(plan)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("kafka-reassign-partitions.sh --bootstrap-server %s --execute --reassignment-json-file <(echo '%s')", c.bootstrap, text)
}

func (c *topicCheck) cleanup() {
	policy, known := c.settings[c.spec.Name]["cleanup.policy"]
	compacted := strings.Contains(policy, "compact")
	switch {
	case !known || policy == "":
	case c.spec.Needs.Compact && !compacted:
		c.found(fmt.Sprintf("cleanup.policy=%s: it is read whole, so it grows slow, and loses state that is still needed when its retention ends", policy), c.set(c.spec.settingPairs()...))
	case !c.spec.Needs.Compact && compacted:
		c.found(fmt.Sprintf("cleanup.policy=%s: of several records of a customer only the newest stays", policy), c.set("cleanup.policy=delete"))
	}
}

// settingPairs are the settings that the topic is created with.
func (t TopicSpec) settingPairs() []string {
	var pairs []string
	for _, name := range sortedKeys(t.Configs) {
		pairs = append(pairs, name+"="+t.Configs[name])
	}
	return pairs
}

// batchOverhead is what a record batch has around its records; a little more does no harm.
const batchOverhead = 1 << 10

func (c *topicCheck) sizes() {
	limit, known := c.settings[c.spec.Name].number("max.message.bytes")
	if !known {
		return
	}
	if least := int64(c.spec.Needs.MessageBytes); least > limit {
		c.found(fmt.Sprintf("max.message.bytes=%d: a full batch of produce.max_batch_bytes (%d) would be refused and end the worker", limit, least), c.set(fmt.Sprintf("max.message.bytes=%d", least+batchOverhead)))
	}
	if of, known := c.settings[c.spec.Needs.WholeOf].number("max.message.bytes"); known && of > limit {
		c.found(fmt.Sprintf("max.message.bytes=%d is less than that of %s (%d): a large record would be set aside without its bytes", limit, c.spec.Needs.WholeOf, of), c.set(fmt.Sprintf("max.message.bytes=%d", of+batchOverhead)))
	}
}

// times compares with the topic whose times its records have. A score has its event's time, so that a replay of old
// events writes old scores.
func (c *topicCheck) times() {
	own, events := c.settings[c.spec.Name], c.settings[c.spec.Needs.EventsOf]
	const ahead = "message.timestamp.after.max.ms"
	if most, known := events.number(ahead); known {
		if after, ok := own.number(ahead); ok && after < most {
			c.found(fmt.Sprintf("%s=%d refuses records further ahead of the broker's clock, and %s takes events up to %d ms ahead: a score has its event's time, so that one such event would end the worker", ahead, after, c.spec.Needs.EventsOf, most),
				c.set(fmt.Sprintf("%s=%d", ahead, most)))
		}
	}
	oldest, known := events.number("retention.ms")
	if !known {
		return
	}
	age := func(ms int64) string {
		if ms < 0 {
			return "for ever"
		}
		return fmt.Sprintf("%.1f days", float64(ms)/86_400_000)
	}
	longer := func(ms int64) bool { return ms >= 0 && (oldest < 0 || oldest > ms) } // than what it has
	if kept, ok := own.number("retention.ms"); ok && !strings.Contains(own["cleanup.policy"], "compact") && longer(kept) {
		c.found(fmt.Sprintf("retention.ms=%d (%s), and %s keeps events %s: a score has its event's time, so the scores of a replay of older events are deleted at once", kept, age(kept), c.spec.Needs.EventsOf, age(oldest)),
			c.set(fmt.Sprintf("retention.ms=%d", oldest)))
	}
	if before, ok := own.number("message.timestamp.before.max.ms"); ok && longer(before) {
		c.found(fmt.Sprintf("message.timestamp.before.max.ms=%d refuses records older than %s, and %s keeps events %s: the scores of a replay would end the worker", before, age(before), c.spec.Needs.EventsOf, age(oldest)),
			c.set(fmt.Sprintf("message.timestamp.before.max.ms=%d", math.MaxInt64)))
	}
}
