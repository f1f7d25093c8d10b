package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// brokers are the real brokers of a run, started and stopped by a script, and a client that shares no code with the
// product: it asks, administers and reads back.
type brokers struct {
	script    string // deploy/kafka/cluster.sh
	env       []string
	addresses []string
	admin     *kgo.Client
}

// startBrokers starts n empty ones. They are to be stopped even if that fails.
func startBrokers(ctx context.Context, script string, n, port int) (*brokers, error) {
	b := &brokers{script: script, env: append(os.Environ(), fmt.Sprintf("KAFKA_NODES=%d", n), fmt.Sprintf("KAFKA_PORT=%d", port))}
	if n == 1 {
		// A single broker that is late with its heartbeats leaves every partition without a leader, and Kafka 4.3 then
		// forgets the markers of transactions that end at that moment (KAFKA-20734).
		b.env = append(b.env, "KAFKA_SESSION=15000")
	}
	out, err := b.run(ctx, "up")
	if err != nil {
		return b, err // some may run
	}
	b.addresses = strings.Split(strings.TrimSpace(out), ",")
	b.admin, err = b.client()
	return b, err
}

// client makes one; it gives up on a dead broker soon.
func (b *brokers) client(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(b.addresses...), kgo.MetadataMinAge(100 * time.Millisecond), kgo.MetadataMaxAge(5 * time.Second),
		kgo.DialTimeout(2 * time.Second), kgo.RetryTimeout(5 * time.Second), kgo.RequestTimeoutOverhead(5 * time.Second),
	}, more...)...)
}

// stop ends them and deletes what they hold, though ctx may have ended.
func (b *brokers) stop(ctx context.Context) error {
	if b.admin != nil {
		b.admin.Close()
	}
	_, err := b.run(context.WithoutCancel(ctx), "down")
	return err
}

func (b *brokers) run(ctx context.Context, args ...string) (string, error) {
	command := exec.CommandContext(ctx, b.script, args...)
	// A group of its own: Ctrl-C at the terminal ends this program, which then stops the brokers in its own order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Env = b.env
	var faults strings.Builder
	command.Stderr = &faults
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", b.script, strings.Join(args, " "), err, faults.String())
	}
	return string(out), nil
}

func (b *brokers) signal(ctx context.Context, broker int32, signal string) error {
	_, err := b.run(ctx, "kill", strconv.Itoa(int(broker)), signal)
	return err
}

func (b *brokers) restart(ctx context.Context, broker int32) error {
	_, err := b.run(ctx, "start", strconv.Itoa(int(broker)))
	return err
}

// createTopic waits until every partition of it has a leader.
func (b *brokers) createTopic(ctx context.Context, topic string, partitions int, settings map[string]string) error {
	request := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, int32(partitions), -1
	for name, value := range settings {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, kmsg.StringPtr(value)
		t.Configs = append(t.Configs, c)
	}
	request.Topics = append(request.Topics, t)
	response, err := request.RequestWith(ctx, b.admin)
	if err == nil {
		err = codeError(response.Topics[0].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", topic, err)
	}
	return until(ctx, 30*time.Second, topic+" has leaders", func() bool {
		led, err := b.leaders(ctx, topic)
		return err == nil && len(led) == partitions
	})
}

// deleteTopics makes room on the disk for the next round.
func (b *brokers) deleteTopics(ctx context.Context, topics ...string) error {
	request := kmsg.NewPtrDeleteTopicsRequest()
	for _, topic := range topics {
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = kmsg.StringPtr(topic)
		request.Topics = append(request.Topics, t)
	}
	_, err := request.RequestWith(ctx, b.admin)
	return err
}

// addPartitions makes the topic one larger.
func (b *brokers) addPartitions(ctx context.Context, topic string) error {
	led, err := b.leaders(ctx, topic)
	if err != nil {
		return err
	}
	request := kmsg.NewPtrCreatePartitionsRequest()
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = topic, int32(len(led)+1)
	request.Topics = append(request.Topics, t)
	response, err := request.RequestWith(ctx, b.admin)
	if err != nil {
		return err
	}
	return codeError(response.Topics[0].ErrorCode)
}

// replicas of one partition, the preferred leader first.
type replicas struct {
	leader int32
	all    []int32
	inSync []int32
}

// leaders of the partitions that have one.
func (b *brokers) leaders(ctx context.Context, topic string) (map[int32]replicas, error) {
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
	response, err := request.RequestWith(ctx, b.admin)
	if err == nil && len(response.Topics) == 0 {
		err = errors.New("no such topic")
	}
	if err == nil {
		err = codeError(response.Topics[0].ErrorCode)
	}
	if err != nil {
		return nil, fmt.Errorf("leaders of %s: %w", topic, err)
	}
	led := map[int32]replicas{}
	for _, p := range response.Topics[0].Partitions {
		if p.Leader >= 0 {
			led[p.Partition] = replicas{p.Leader, p.Replicas, p.ISR}
		}
	}
	return led, nil
}

// moveLeader makes another replica in sync the leader of a partition.
func (b *brokers) moveLeader(ctx context.Context, topic string, partition int32, random *rand.Rand) error {
	led, err := b.leaders(ctx, topic)
	if err != nil {
		return err
	}
	now, ok := led[partition]
	var others []int32
	for _, r := range now.inSync {
		if r != now.leader {
			others = append(others, r)
		}
	}
	if !ok || len(others) == 0 {
		return fmt.Errorf("%s/%d has no other replica in sync", topic, partition)
	}
	to := others[random.IntN(len(others))]
	order := []int32{to}
	for _, r := range now.all {
		if r != to {
			order = append(order, r)
		}
	}
	alter := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	alter.TimeoutMillis = 10_000
	t := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	t.Topic = topic
	p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
	p.Partition, p.Replicas = partition, order
	t.Partitions = append(t.Partitions, p)
	alter.Topics = append(alter.Topics, t)
	altered, err := alter.RequestWith(ctx, b.admin)
	if err == nil {
		err = codeError(altered.ErrorCode)
	}
	if err == nil && len(altered.Topics) > 0 && len(altered.Topics[0].Partitions) > 0 {
		err = codeError(altered.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("order the replicas of %s/%d: %w", topic, partition, err)
	}
	elect := kmsg.NewPtrElectLeadersRequest()
	elect.TimeoutMillis = 10_000
	et := kmsg.NewElectLeadersRequestTopic()
	et.Topic, et.Partitions = topic, []int32{partition}
	elect.Topics = append(elect.Topics, et)
	elected, err := elect.RequestWith(ctx, b.admin)
	if err == nil {
		err = codeError(elected.ErrorCode)
	}
	const electionNotNeeded = 84
	if err == nil && len(elected.Topics) > 0 && len(elected.Topics[0].Partitions) > 0 {
		if code := elected.Topics[0].Partitions[0].ErrorCode; code != electionNotNeeded {
			err = codeError(code)
		}
	}
	if err != nil {
		return fmt.Errorf("elect a leader of %s/%d: %w", topic, partition, err)
	}
	return nil
}

// The topics whose leaders are the coordinators.
const (
	offsetsTopic      = "__consumer_offsets"
	transactionsTopic = "__transaction_state"
)

// coordinatorPartition is which partition of such a topic belongs to a group or transactional id: Java's String.hashCode.
func (b *brokers) coordinatorPartition(ctx context.Context, topic, id string) (int32, error) {
	led, err := b.leaders(ctx, topic)
	if err != nil || len(led) == 0 {
		return -1, fmt.Errorf("coordinator of %s: %w", id, err)
	}
	h := int32(0)
	for i := range len(id) {
		h = 31*h + int32(id[i])
	}
	return (h & 0x7fffffff) % int32(len(led)), nil
}

// transactionalIDs of the cluster that begin with the prefix.
func (b *brokers) transactionalIDs(ctx context.Context, prefix string) ([]string, error) {
	var ids []string
	for _, shard := range b.admin.RequestSharded(ctx, kmsg.NewPtrListTransactionsRequest()) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, state := range shard.Resp.(*kmsg.ListTransactionsResponse).TransactionStates {
			if strings.HasPrefix(state.TransactionalID, prefix) {
				ids = append(ids, state.TransactionalID)
			}
		}
	}
	return ids, nil
}

// committed gives the group's offset of each partition that has one.
func (b *brokers) committed(ctx context.Context, group, topic string, partitions int) (map[int32]int64, error) {
	request := kmsg.NewPtrOffsetFetchRequest()
	t := kmsg.NewOffsetFetchRequestGroupTopic()
	t.Topic = topic
	for p := range int32(partitions) {
		t.Partitions = append(t.Partitions, p)
	}
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, g.Topics = group, append(g.Topics, t)
	request.Groups = append(request.Groups, g)
	response, err := request.RequestWith(ctx, b.admin)
	if err != nil {
		return nil, err
	}
	offsets := map[int32]int64{}
	for _, g := range response.Groups {
		if err := codeError(g.ErrorCode); err != nil {
			return nil, err
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 && p.Offset >= 0 {
					offsets[p.Partition] = p.Offset
				}
			}
		}
	}
	return offsets, nil
}

// ends of the log, of what is not committed too.
func (b *brokers) ends(ctx context.Context, topic string) (map[int32]int64, error) {
	led, err := b.leaders(ctx, topic)
	if err != nil {
		return nil, err
	}
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for partition := range led {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = partition, -1
		t.Partitions = append(t.Partitions, p)
	}
	request.Topics = append(request.Topics, t)
	ends := map[int32]int64{}
	for _, shard := range b.admin.RequestSharded(ctx, request) {
		if shard.Err != nil {
			return nil, fmt.Errorf("end of %s: %w", topic, shard.Err)
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if err := codeError(p.ErrorCode); err != nil {
					return nil, fmt.Errorf("end of %s/%d: %w", topic, p.Partition, err)
				}
				ends[p.Partition] = p.Offset
			}
		}
	}
	if len(ends) != len(led) {
		return nil, fmt.Errorf("ends of %d partitions of %s, which has %d", len(ends), topic, len(led))
	}
	return ends, nil
}

// deleteRecords deletes what is before the offsets, by topic and partition.
func (b *brokers) deleteRecords(ctx context.Context, before map[string]map[int32]int64) error {
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.TimeoutMillis = 2000
	for topic, offsets := range before {
		t := kmsg.NewDeleteRecordsRequestTopic()
		t.Topic = topic
		for partition, offset := range offsets {
			p := kmsg.NewDeleteRecordsRequestTopicPartition()
			p.Partition, p.Offset = partition, offset
			t.Partitions = append(t.Partitions, p)
		}
		request.Topics = append(request.Topics, t)
	}
	for _, shard := range b.admin.RequestSharded(ctx, request) {
		if shard.Err != nil {
			return shard.Err
		}
		for _, t := range shard.Resp.(*kmsg.DeleteRecordsResponse).Topics {
			for _, p := range t.Partitions {
				if err := codeError(p.ErrorCode); err != nil {
					return fmt.Errorf("%s/%d: %w", t.Topic, p.Partition, err)
				}
			}
		}
	}
	return nil
}

func codeError(code int16) error {
	if code == 0 {
		return nil
	}
	return fmt.Errorf("kafka error %d", code)
}

// until waits for a condition.
func until(ctx context.Context, limit time.Duration, what string, met func() bool) error {
	for deadline := time.Now().Add(limit); !met(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s", limit, what)
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
