package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/schemas"
)

// redriveRecords is how many dead letters the test of interruptions sends again: make test-redrive asks for a million.
const redriveRecords = "CHURNSTREAM_REDRIVE_RECORDS"

// firstEvent is the time of the event in letter 0; they are a millisecond apart. Older ones than the topic's retention
// would be deleted as soon as they are back.
var firstEvent = time.Now().Add(-2 * time.Hour)

// letters publishes n dead letters of the partitions of the events topic as a worker would: letter i has the key and the
// value i, a header of its producer and the class unknown_schema, each tenth truncated.
func (e *environment) letters(t *testing.T, n int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...), kgo.MetadataMinAge(100*time.Millisecond), kgo.MaxBufferedRecords(1<<16))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var fault error
	failed := time.Now().Add(-time.Hour)
	for i := range n {
		text := strconv.Itoa(i)
		class := schemas.UnknownSchema
		if i%10 == 9 {
			class = schemas.Truncated
		}
		header := func(name, value string) kgo.RecordHeader {
			return kgo.RecordHeader{Key: name, Value: []byte(value)}
		}
		client.Produce(t.Context(), &kgo.Record{
			Topic: e.topic("dead"), Key: []byte("customer-" + text), Value: []byte("value " + text), Timestamp: failed.Add(time.Duration(i) * time.Millisecond),
			Headers: []kgo.RecordHeader{
				header("trace", "t"+text),
				header(schemas.HeaderClass, string(class)), header(schemas.HeaderError, string(class)+": for the test"),
				header(schemas.HeaderTopic, e.topic("events")), header(schemas.HeaderPartition, strconv.Itoa(i%8)), header(schemas.HeaderOffset, text),
				header(schemas.HeaderTimestamp, strconv.FormatInt(firstEvent.Add(time.Duration(i)*time.Millisecond).UnixMilli(), 10)), header(schemas.HeaderAttempt, "1"), header(schemas.HeaderVersion, "test"),
			},
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				fault = err
			}
		})
	}
	if err := client.Flush(t.Context()); err != nil || fault != nil {
		t.Fatal(err, fault)
	}
}

// createTopics makes the topics of events and dead letters, with eight partitions each.
func (e *environment) createTopics(t *testing.T) {
	t.Helper()
	transport := &kafka.Transport{ClientID: "test"}
	defer transport.CloseIdleConnections()
	topics := []connect.TopicSpec{{Name: e.topic("events"), Key: "topics.events"}, {Name: e.topic("dead"), Key: "topics.dead_letters"}}
	create := config.CreateTopics{Enabled: true, Partitions: 8, ReplicationFactor: 1}
	if _, err := connect.Probe(t.Context(), e.brokers, transport, config.SASL{}, topics, create, nil); err != nil {
		t.Fatal(err)
	}
}

// position is the sum of the offsets that a group has committed for the dead letters.
func (e *environment) position(t *testing.T, client *kafkawire.Client, group string) int64 {
	t.Helper()
	n, err := client.Partitions(t.Context(), e.topic("dead"))
	if err != nil {
		t.Fatal(err)
	}
	var partitions []consumer.TopicPartition
	for p := range n {
		partitions = append(partitions, consumer.TopicPartition{Topic: e.topic("dead"), Partition: p})
	}
	offsets, err := consumer.CommittedOffsets(t.Context(), client, group, consumer.Identity{}, partitions)
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for _, o := range offsets {
		sum += max(0, o)
	}
	return sum
}

// TestRedriveThatIsKilledThreeTimesSendsEachOnce kills the process that redrives and wants every dead letter back in its
// partition as it was, each exactly once.
func TestRedriveThatIsKilledThreeTimesSendsEachOnce(t *testing.T) {
	n, rate := 20_000, []string{"--rate", "10000"}
	if text := os.Getenv(redriveRecords); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		rate = []string{"--rate", strconv.Itoa(n / 15)}
	}
	e := newEnvironment(t)
	e.createTopics(t)
	began := time.Now()
	e.letters(t, n)
	t.Logf("%d dead letters written in %v", n, time.Since(began).Round(time.Millisecond))
	cfg := e.config(t, "produce: {transaction_timeout: 2s}\n")
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: e.brokers, ClientID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	for kill := range 3 {
		var output bytes.Buffer
		p := exec.Command(self, append([]string{"dlq", "redrive", "-c", cfg, "--job", "killed"}, rate...)...)
		p.Env = append(os.Environ(), runMain+"=1")
		p.Stdout, p.Stderr = &output, &output
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		at := int64(n * (kill + 1) / 4)
		// Not by testkit.Eventually: its steps would let the last quarter pass.
		for limit := time.Now().Add(2 * time.Minute); e.position(t, client, e.prefix+"-redrive-killed") < at; {
			if time.Now().After(limit) {
				_ = p.Process.Kill()
				t.Fatalf("not at %d of %d: %s", at, n, output.String())
			}
		}
		if err := p.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(); err == nil {
			t.Fatalf("it was at its end before kill %d, this proves nothing: %s", kill+1, output.String())
		}
	}
	code, out, errs := runCommand(t, "dlq", "redrive", "-c", cfg, "--job", "killed", "--output", "json")
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, errs)
	}
	t.Logf("redriven with three kills in %v; the last run: %s", time.Since(began).Round(time.Millisecond), strings.TrimSpace(out))
	e.checkRedriven(t, n)
	code, out, errs = runCommand(t, "dlq", "redrive", "-c", cfg, "--job", "killed")
	if code != exitDone || !strings.Contains(out, "job killed: 0 dead letters were sent\n") {
		t.Errorf("the job once more: exit %d: %s%s", code, out, errs)
	}
}

// checkRedriven wants the first n letters in the events topic as they were written, each once.
func (e *environment) checkRedriven(t *testing.T, n int) {
	t.Helper()
	seen := make([]bool, n)
	count, faults := 0, 0
	fault := func(format string, args ...any) {
		if faults++; faults <= 10 {
			t.Errorf(format, args...)
		}
	}
	e.readCommitted(t, e.topic("events"), func(r *kgo.Record) {
		i, err := strconv.Atoi(strings.TrimPrefix(string(r.Key), "customer-"))
		if err != nil || i < 0 || i >= n {
			fault("an event that was no dead letter: key %q", r.Key)
			return
		}
		count++
		if seen[i] {
			fault("letter %d came back twice", i)
		}
		seen[i] = true
		if string(r.Value) != fmt.Sprintf("value %d", i) || r.Partition != int32(i%8) || r.Timestamp.UnixMilli() != firstEvent.UnixMilli()+int64(i) {
			fault("letter %d came back as %q in partition %d of %v", i, r.Value, r.Partition, r.Timestamp)
		}
		want := fmt.Sprintf("trace=t%d %s=1 %s=%s/%d@%d", i, schemas.HeaderAttempt, schemas.HeaderOrigin, e.topic("events"), i%8, i)
		var got []string
		for _, h := range r.Headers {
			got = append(got, h.Key+"="+string(h.Value))
		}
		if strings.Join(got, " ") != want {
			fault("letter %d has the headers %s, want %s", i, got, want)
		}
	})
	if count != n {
		t.Errorf("%d of %d letters are back", count, n)
		e.explainMissing(t, seen)
	}
}

// explainMissing says of letters that are not back where they lie among the dead letters, and whether the events topic
// has them in a transaction that was taken back.
func (e *environment) explainMissing(t *testing.T, seen []bool) {
	t.Helper()
	missing := map[string]bool{}
	for i := range seen {
		if !seen[i] {
			missing["customer-"+strconv.Itoa(i)] = true
		}
	}
	for _, topic := range []string{e.topic("dead"), e.topic("events")} {
		client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.FetchIsolationLevel(kgo.ReadUncommitted()))
		if err != nil {
			t.Fatal(err)
		}
		type span struct{ first, last, count int64 }
		found := map[string]*span{}
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			fetches := client.PollFetches(ctx)
			cancel()
			if fetches.NumRecords() == 0 {
				break
			}
			fetches.EachRecord(func(r *kgo.Record) {
				if !missing[string(r.Key)] {
					return
				}
				at := fmt.Sprintf("partition %d, producer %d epoch %d", r.Partition, r.ProducerID, r.ProducerEpoch)
				if found[at] == nil {
					found[at] = &span{first: r.Offset}
				}
				found[at].last = r.Offset
				found[at].count++
			})
		}
		client.Close()
		for at, s := range found {
			t.Logf("missing letters in %s: %s: %d at offsets %d to %d", topic, at, s.count, s.first, s.last)
		}
	}
}

// readCommitted hands all records of a topic to fn.
func (e *environment) readCommitted(t *testing.T, topic string, fn func(*kgo.Record)) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	wire, err := kafkawire.NewClient(kafkawire.Config{Brokers: e.brokers, ClientID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer wire.CloseIdleConnections()
	count, err := wire.Partitions(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var partitions []consumer.TopicPartition
	for p := range count {
		partitions = append(partitions, consumer.TopicPartition{Topic: topic, Partition: p})
	}
	ends, err := consumer.ListOffsets(t.Context(), wire, partitions, consumer.Latest, consumer.ReadUncommitted)
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	for tp, end := range ends {
		if end > 0 {
			left[tp.Partition] = end
		}
	}
	for len(left) > 0 {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				fn(r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
}

func TestDeadLettersAreListedCountedShownAndPlanned(t *testing.T) {
	e := newEnvironment(t)
	e.createTopics(t)
	e.letters(t, 100)
	cfg := e.config(t, "")
	dlq := func(args ...string) string {
		t.Helper()
		code, out, errs := runCommand(t, append([]string{"dlq", args[0], "-c", cfg}, args[1:]...)...)
		if code != exitDone {
			t.Fatalf("dlq %v: exit %d: %s", args, code, errs)
		}
		return out
	}
	lines := func(text string) int { return strings.Count(text, "\n") }
	if got := dlq("list"); lines(got) != 101 || strings.Contains(got, "customer-") || !strings.Contains(got, "truncated") {
		t.Errorf("list:\n%s", got)
	}
	if got := dlq("list", "--class", "truncated", "--customers"); lines(got) != 11 || !strings.Contains(got, "customer-9 ") || strings.Contains(got, "unknown_schema") {
		t.Errorf("list of a class:\n%s", got)
	}
	if got := dlq("list", "--limit", "7"); lines(got) != 8 {
		t.Errorf("list of 7:\n%s", got)
	}
	if got := dlq("list", "--since", "30m"); got != "" {
		t.Errorf("list since half an hour:\n%s", got)
	}
	if got := dlq("list", "--partition", "3", "--since", "2h", "--until", "1m"); lines(got) != 14 { // 3, 11, … 99
		t.Errorf("list of partition 3:\n%s", got)
	}
	count := dlq("list", "--count")
	for _, want := range []string{"truncated", "unknown_schema", "all", "100", e.topic("events") + "/7"} {
		if !strings.Contains(count, want) {
			t.Errorf("%q is not in:\n%s", want, count)
		}
	}
	var row struct {
		Place, Class, Customer string
	}
	if err := json.Unmarshal([]byte(dlq("list", "--customer", "customer-42", "--customers", "--output", "json")), &row); err != nil || row.Customer != "customer-42" || row.Class != "unknown_schema" {
		t.Fatalf("list as JSON: %+v, %v", row, err)
	}
	show := dlq("show", row.Place)
	for _, want := range []string{row.Place, "unknown_schema: for the test", e.topic("events") + "/2@42", "customer-42", "header trace", "t42", "|value 42|"} {
		if !strings.Contains(show, want) {
			t.Errorf("%q is not in:\n%s", want, show)
		}
	}
	var whole struct {
		Key, Value []byte
		Headers    []struct {
			Name  string
			Value []byte
		}
	}
	if err := json.Unmarshal([]byte(dlq("show", row.Place, "--output", "json")), &whole); err != nil || string(whole.Value) != "value 42" || len(whole.Headers) != 1 || string(whole.Headers[0].Value) != "t42" {
		t.Errorf("show as JSON: %+v, %v", whole, err)
	}
	for range 2 { // nothing moves
		if got := dlq("redrive", "--class", "truncated", "--dry-run"); !strings.Contains(got, ": 10 dead letters would be sent, 10 truncated; the oldest event is of ") || !strings.Contains(got, "90 that the filter does not mean") {
			t.Errorf("dry run: %s", got)
		}
	}
	if got := dlq("redrive", "--max-attempts", "1"); !strings.Contains(got, ": 0 dead letters were sent\n") || !strings.Contains(got, "100 at 1 attempts") {
		t.Errorf("at the limit: %s", got)
	}
	if got := dlq("redrive", "--class", "truncated"); !strings.Contains(got, ": 10 dead letters were sent, 10 truncated; the oldest event is of ") {
		t.Errorf("redrive of a class: %s", got)
	}
	n := 0
	e.readCommitted(t, e.topic("events"), func(r *kgo.Record) {
		if n++; !strings.HasSuffix(string(r.Key), "9") {
			t.Errorf("%q was sent", r.Key)
		}
	})
	if n != 10 {
		t.Errorf("%d events, want 10", n)
	}
}

func TestDeadLetterCommandsRefuseWrongUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"list", "--class", "nonsense"}, "--class"},
		{[]string{"list", "--since", "yesterday"}, "--since"},
		{[]string{"list", "--output", "xml"}, "--output"},
		{[]string{"list", "--limit", "0"}, "--limit"},
		{[]string{"show", "3"}, "PARTITION@OFFSET"},
		{[]string{"show"}, "dlq show"},
		{[]string{"redrive", "--since", "2h"}, "--since"},
		{[]string{"redrive", "--job", "a b"}, "--job"},
		{[]string{"redrive", "--rate", "-1"}, "--rate"},
		{[]string{"redrive", "--max-attempts", "0"}, "--max-attempts"},
	} {
		code, _, errs := runCommand(t, append([]string{"dlq"}, c.args...)...)
		if code != exitUsage || !strings.Contains(errs, c.want) {
			t.Errorf("dlq %v: exit %d: %s", c.args, code, errs)
		}
	}
}

func TestShowNamesThePlaceWhereNothingIs(t *testing.T) {
	e := newEnvironment(t)
	e.createTopics(t)
	e.letters(t, 1)
	cfg := e.config(t, "")
	for _, place := range []string{"99@0", "0@1000000"} {
		code, _, errs := runCommand(t, "dlq", "show", "-c", cfg, place)
		if code != exitFailed || !strings.Contains(errs, "@"+strings.Split(place, "@")[1]) || !strings.Contains(errs, "no dead letter is there") {
			t.Errorf("show %s: exit %d: %s", place, code, errs)
		}
	}
}
