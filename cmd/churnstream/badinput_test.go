package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/schemas"
)

// TestBadInputIsDeadLetteredByClassAndTheStreamGoesOn sends one record of each kind of damage between good ones.
func TestBadInputIsDeadLetteredByClassAndTheStreamGoesOn(t *testing.T) {
	e := newEnvironment(t)
	good := e.events(t)[0]
	worker := startWorker(t, e.config(t, ""))
	registry, err := newRegistry(config.Registry{URLs: []string{e.registry}})
	if err != nil {
		t.Fatal(err)
	}
	// A producer's own schema in which the first required input may be null.
	nullable, err := registry.Register(t.Context(), "elsewhere-value", `{"type":"record","name":"Other","fields":[
		{"name":"tenure","type":["null","double"]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	tenure := func(v float64) []byte { // the first input of the contract, right behind the frame
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint64(b[5:], math.Float64bits(v))
		return b
	}
	gender := bytes.Index(good, []byte("ale")) // inside "Male" or "Female"
	broken := bytes.Clone(good)
	broken[gender] = 0xff
	unknown := bytes.Clone(good)
	binary.BigEndian.PutUint32(unknown[1:], 1<<30)
	magic := bytes.Clone(good)
	magic[0] = 7
	cases := []struct {
		class schemas.ErrorClass
		key   []byte
		value []byte
	}{
		{schemas.EmptyValue, []byte("tombstone"), nil},
		{schemas.EmptyValue, []byte("no bytes"), []byte{}},
		{schemas.BadMagic, []byte("magic"), magic},
		{schemas.UnknownSchema, []byte("schema id"), unknown},
		{schemas.Truncated, []byte("truncated"), good[:len(good)-3]},
		{schemas.TrailingBytes, []byte("trailing"), append(bytes.Clone(good), 0)},
		{schemas.MissingField, []byte("null field"), append(schemas.AppendFrame(nil, nullable), 0)},
		{schemas.OutOfRange, []byte("range"), tenure(-1)},
		{schemas.NotANumber, []byte("nan"), tenure(math.NaN())},
		{schemas.InvalidUTF8, []byte("utf8"), broken},
		{schemas.InvalidUTF8, []byte{0xfe}, good},
		{schemas.NullKey, nil, good},
		{schemas.NullKey, []byte{}, good},
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(e.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.ConsumeTopics(e.topic("dead"), e.topic("scores")), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	testkit.Eventually(t, 20*time.Second, func() bool { return ready(worker) }, "the worker owns partitions")
	header := kgo.RecordHeader{Key: "trace", Value: []byte("of the producer")}
	var records []*kgo.Record
	for i, c := range cases {
		records = append(records,
			&kgo.Record{Topic: e.topic("events"), Partition: 0, Key: c.key, Value: c.value, Headers: []kgo.RecordHeader{header}},
			&kgo.Record{Topic: e.topic("events"), Partition: 0, Key: fmt.Appendf(nil, "good-%d", i), Value: good})
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}

	var dead []*kgo.Record
	scores := 0
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(dead) < len(cases) || scores < len(cases) {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d dead letters and %d scores for %d bad and as many good events", len(dead), scores, len(cases))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Topic == e.topic("dead") {
				dead = append(dead, r)
			} else {
				scores++
			}
		})
	}
	if len(dead) != len(cases) || scores != len(cases) {
		t.Errorf("%d dead letters and %d scores for %d bad and as many good events", len(dead), scores, len(cases))
	}
	text := func(r *kgo.Record, name string) string {
		i := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == name })
		if i < 0 {
			return "absent"
		}
		return string(r.Headers[i].Value)
	}
	for i, c := range cases {
		offset := fmt.Sprint(2 * i)
		at := slices.IndexFunc(dead, func(r *kgo.Record) bool { return text(r, schemas.HeaderOffset) == offset })
		if at < 0 {
			t.Errorf("%s (%q): no dead letter of offset %s", c.class, c.key, offset)
			continue
		}
		r := dead[at]
		if got := text(r, schemas.HeaderClass); got != string(c.class) {
			t.Errorf("%q: class %s, want %s (%s)", c.key, got, c.class, text(r, schemas.HeaderError))
		}
		if !bytes.Equal(r.Key, c.key) || !bytes.Equal(r.Value, c.value) || (r.Value == nil) != (c.value == nil) || r.Headers[0].Key != header.Key || !bytes.Equal(r.Headers[0].Value, header.Value) {
			t.Errorf("%s: key, value or headers were touched: %q %q %v", c.class, r.Key, r.Value, r.Headers)
		}
		var letter schemas.DeadLetter
		_, body, err := schemas.SplitFrame([]byte(text(r, schemas.HeaderDeadLetter)))
		if err == nil {
			err = schemas.DecodeDeadLetter(body, &letter)
		}
		if err != nil || letter.Class != c.class || letter.SourceOffset != int64(2*i) || letter.SourceTopic != e.topic("events") || letter.Message == "" {
			t.Errorf("%s: header %s: %+v, %v", c.class, schemas.HeaderDeadLetter, letter, err)
		}
	}
	stopWorker(t, worker)
}
