package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/schemas"
)

// containerOf writes n events with goavro: the contract's, under another name, with its customer id and one field wider.
func containerOf(t *testing.T, contract schemas.Contract, n int) (file []byte, schema string) {
	t.Helper()
	schema, err := contract.AvroSchema()
	if err != nil {
		t.Fatal(err)
	}
	schema = strings.Replace(schema, `"fields":[`, `"fields":[{"name":"who","type":"string"},{"name":"tags","type":{"type":"array","items":"string"}},`, 1)
	schema = strings.Replace(schema, `"name":"tenure","type":"double"`, `"name":"tenure","type":"int"`, 1)
	var out bytes.Buffer
	w, err := goavro.NewOCFWriter(goavro.OCFConfig{W: &out, Schema: schema, CompressionName: "snappy"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		event := map[string]any{"who": fmt.Sprintf("customer-%d", i), "tags": []any{"a", "b"}}
		for _, in := range contract.Inputs {
			switch in.Kind {
			case schemas.Category:
				event[in.Name] = "Yes"
			case schemas.Boolean:
				event[in.Name] = true
			default:
				event[in.Name] = float64(i)
			}
			if in.Nullable {
				event[in.Name] = nil
			}
		}
		event["tenure"] = i
		if err := w.Append([]any{event}); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes(), schema
}

func TestEventsOfEveryFramingAndOfContainerFilesAreScored(t *testing.T) {
	const events = 20
	for _, framing := range []string{"confluent", "single-object", "bare"} {
		t.Run(framing, func(t *testing.T) {
			e := newEnvironment(t)
			plain := e.config(t, "")
			use, err := open(plain, streams{nil, os.Stdout, os.Stderr, nil})
			if err != nil {
				t.Fatal(err)
			}
			file, schema := containerOf(t, use.model.Contract(), events)
			input := filepath.Join(e.dir, "events.avro")
			put(t, input, string(file))
			put(t, filepath.Join(e.dir, "event.avsc"), schema)
			more := "events: {framing: " + framing + "}\n"
			if framing == "bare" {
				more = "events: {framing: bare, schemas: [" + filepath.Join(e.dir, "event.avsc") + "]}\n"
			}
			cfg := e.config(t, more)
			if code, _, errs := runCommand(t, "produce", "-c", cfg, "--input", input, "--key", "who"); code != exitDone || !strings.Contains(errs, "20 events") {
				t.Fatalf("exit %d: %s", code, errs)
			}
			if framing == "bare" {
				if code, _, errs := runCommand(t, "produce", "-c", cfg, "--input", filepath.Join(e.dir, "no.csv")); code != exitUsage {
					t.Errorf("exit %d: %s", code, errs)
				}
			}
			ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
			defer stop()
			var log logBuffer
			ended := make(chan int, 1)
			go func() {
				ended <- run(ctx, []string{"run", "-c", cfg}, streams{strings.NewReader(""), &log, &log, nil})
			}()
			client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...), kgo.ConsumeTopics(e.topic("scores"), e.topic("dead")),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.MetadataMinAge(100*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			scored := map[string]bool{}
			for len(scored) < events && ctx.Err() == nil {
				client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
					if r.Topic == e.topic("dead") {
						t.Errorf("dead letter of %s: %q", r.Key, r.Headers)
						stop()
					}
					scored[string(r.Key)] = true
				})
			}
			if len(scored) != events || !scored["customer-0"] || !scored["customer-19"] {
				t.Errorf("%d customers scored\n%s", len(scored), lastLines(log.String(), 20))
			}
			stop()
			if code := <-ended; code != exitDone {
				t.Errorf("the worker ends with %d\n%s", code, lastLines(log.String(), 20))
			}
		})
	}
}

func TestProduceRefusesAContainerFileThatCannotFeedTheModel(t *testing.T) {
	e := newEnvironment(t)
	var out bytes.Buffer
	w, err := goavro.NewOCFWriter(goavro.OCFConfig{W: &out, Schema: `{"type":"record","name":"E","fields":[{"name":"who","type":"string"}]}`})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append([]any{map[string]any{"who": "a"}}); err != nil {
		t.Fatal(err)
	}
	input := filepath.Join(e.dir, "other.avro")
	put(t, input, out.String())
	if code, _, errs := runCommand(t, "produce", "-c", e.config(t, ""), "--input", input, "--key", "who"); code != exitFailed || !strings.Contains(errs, "schema check") {
		t.Errorf("exit %d: %s", code, errs)
	}
}
