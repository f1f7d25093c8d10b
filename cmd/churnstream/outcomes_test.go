package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/driftreport"
	"github.com/churnstream/churnstream/schemas"
)

const outcomeSchema = `{"type": "record", "name": "Left", "fields": [
	{"name": "source", "type": "string"}, {"name": "outcome", "type": ["null", "boolean"]}]}`

// TestOutcomesOfATopicRaiseAndClearTheCalibrationAlert: of 5,000 customers first every second one leaves, whatever the
// score, and then those who did in the table that the model was trained on.
func TestOutcomesOfATopicRaiseAndClearTheCalibrationAlert(t *testing.T) {
	const customers = 5000
	e := newEnvironment(t)
	told := make(chan map[string]any, 10)
	webhook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var alert map[string]any
		if err := json.NewDecoder(r.Body).Decode(&alert); err != nil {
			t.Error(err)
		}
		told <- alert
	}))
	t.Cleanup(webhook.Close)
	cfg := e.config(t, "drift: {webhook: \""+webhook.URL+"\"}\n")
	for _, topic := range []string{"events", "outcomes", "alerts"} {
		createTopic(t, e, e.topic(topic))
	}
	e.feed(t, customers, 0)
	out := newOutcomes(t, e)

	out.write(func(i int) any { return i%2 == 0 }, customers)
	out.add("customer-1", []byte{9, 9}) // no record
	out.add("customer-3", nil)          // nothing is known of them any more
	out.write(func(int) any { return nil }, 1)
	metrics := filepath.Join(t.TempDir(), "calibration.prom")
	args := []string{"drift", "report", "-c", cfg, "--topic", "--outcomes-topic", e.topic("outcomes"), "--alert", "--as", "json", "--metrics", metrics}
	exported := func(want ...string) {
		t.Helper()
		text, err := os.ReadFile(metrics)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range want {
			if !strings.Contains(string(text), line+"\n") {
				t.Errorf("%q is not in %s", line, text)
			}
		}
	}
	report := func(wantCode int, more ...string) *driftreport.Calibration {
		t.Helper()
		code, stdout, stderr := runCommand(t, append(args, more...)...)
		if code != wantCode || !strings.Contains(stderr, "1 records of "+e.topic("outcomes")+" hold no outcome") {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		var r driftreport.Report
		if err := json.Unmarshal([]byte(stdout), &r); err != nil {
			t.Fatal(err)
		}
		return r.Calibration
	}
	if c := report(exitFailed, "--fail"); c.State != "miscalibrated" || c.Pairs != customers-2 {
		t.Errorf("%+v", c)
	}
	const raised = `churnstream_calibration_alarm_raised{model="telco-churn",version="1.0.0"} `
	exported(raised+"1", `churnstream_calibration_pairs{model="telco-churn",version="1.0.0"} 4998`)
	if c := report(exitDone); c.State != "miscalibrated" {
		t.Errorf("%+v", c)
	}
	exported(raised + "1")
	left := churned(t)
	out.write(func(i int) any { return left[i] }, customers)
	if c := report(exitDone); c.State != "ok" || c.Pairs != customers || *c.Evidence >= *c.Needed {
		t.Errorf("%+v", c)
	}
	exported(raised+"0", `churnstream_calibration_state{model="telco-churn",state="ok",version="1.0.0"} 1`)

	var states []string
	id := ""
	for _, a := range calibrationAlerts(t, e) {
		states = append(states, a.Feature+" "+a.State)
		if id == "" {
			id = a.AlertID
		}
		if a.AlertID != id || a.ModelName != "telco-churn" || a.WindowStart == 0 || a.WindowEnd <= a.WindowStart || a.At > time.Now().UnixMilli() {
			t.Errorf("%+v", a)
		}
	}
	if got := strings.Join(states, ", "); got != "calibration raised, calibration cleared" {
		t.Errorf("alerts: %s", got)
	}
	for _, want := range []string{"raised", "cleared"} {
		if a := <-told; a["state"] != want || a["feature"] != "calibration" || a["psi"] != nil {
			t.Errorf("the webhook was told %v", a)
		}
	}
}

// outcomes is the topic of what came of customers.
type outcomes struct {
	t      *testing.T
	topic  string
	client *kgo.Client
	id     int32
}

func newOutcomes(t *testing.T, e *environment) *outcomes {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	registry, err := newRegistry(config.Registry{URLs: []string{e.registry}})
	if err != nil {
		t.Fatal(err)
	}
	o := &outcomes{t: t, topic: e.topic("outcomes"), client: client}
	if o.id, err = registry.Register(t.Context(), schemas.Subject(o.topic), outcomeSchema); err != nil {
		t.Fatal(err)
	}
	return o
}

// write says what came of the first n customers: true, false or nil.
func (o *outcomes) write(outcome func(i int) any, n int) {
	o.t.Helper()
	for i := range n {
		value := append(schemas.AppendFrame(nil, o.id), 6, 'c', 'r', 'm')
		switch v := outcome(i); v {
		case nil:
			value = append(value, 0)
		case true:
			value = append(value, 2, 1)
		default:
			value = append(value, 2, 0)
		}
		o.add(fmt.Sprintf("customer-%d", i), value)
	}
	if err := o.client.Flush(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
}

func (o *outcomes) add(customer string, value []byte) {
	o.client.Produce(o.t.Context(), &kgo.Record{Topic: o.topic, Key: []byte(customer), Value: value}, func(_ *kgo.Record, err error) {
		if err != nil {
			o.t.Error(err)
		}
	})
}

// churned are the labels of the Telco customers.
func churned(t *testing.T) (left []bool) {
	t.Helper()
	table := telcoTable(t)
	column := slices.Index(table[0], "Churn")
	for _, row := range table[1:] {
		left = append(left, row[column] == "Yes")
	}
	return left
}

// createTopic makes one of two partitions.
func createTopic(t *testing.T, e *environment, name string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	request := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 2, 1
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(t.Context(), client)
	if err != nil || response.Topics[0].ErrorCode != 0 {
		t.Fatalf("create %s: %v %+v", name, err, response)
	}
}

// calibrationAlerts reads the topic of alerts by another client, up to the clearing.
func calibrationAlerts(t *testing.T, e *environment) (alerts []schemas.DriftAlert) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...), kgo.ConsumeTopics(e.topic("alerts")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(alerts) == 0 || alerts[len(alerts)-1].State != schemas.AlertCleared {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("%v after %d alerts", err, len(alerts))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			var a schemas.DriftAlert
			_, body, err := schemas.SplitFrame(r.Value)
			if err == nil {
				err = schemas.DecodeDriftAlert(body, &a)
			}
			if err != nil || string(r.Key) != "telco-churn/calibration" {
				t.Fatalf("%s: %v", r.Key, err)
			}
			alerts = append(alerts, a)
		})
	}
	return alerts
}
