package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"

	"github.com/churnstream/churnstream/internal/avroschema"
)

func published() map[string]string {
	return map[string]string{"score": ScoreSchema(), "dead_letter": DeadLetterSchema(), "drift_state": DriftStateSchema(), "drift_alert": DriftAlertSchema(), "audit": AuditSchema()}
}

// TestPublishedSchemasReadTheirHistory holds every change to backward compatibility: a changed schema is published with a
// new file in avsc/history, and the newest one must be what is embedded.
func TestPublishedSchemasReadTheirHistory(t *testing.T) {
	for name, text := range published() {
		current, err := avroschema.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		files, err := filepath.Glob("avsc/history/" + name + ".v*.avsc")
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no history: %v", name, err)
			continue
		}
		newest := ""
		for version := 1; version <= len(files); version++ {
			raw, err := os.ReadFile(fmt.Sprintf("avsc/history/%s.v%d.avsc", name, version))
			if err != nil {
				t.Errorf("%s: the history has a gap: %v", name, err)
				break
			}
			newest = string(raw)
			old, err := avroschema.Parse(newest)
			if err != nil {
				t.Errorf("%s v%d: %v", name, version, err)
				continue
			}
			for _, found := range avroschema.Incompatibilities(current, old) {
				t.Errorf("avsc/%s.avsc cannot read what version %d wrote: %s", name, version, found)
			}
		}
		if newest != text {
			t.Errorf("avsc/%s.avsc changed: publish it as avsc/history/%s.v%d.avsc too", name, name, len(files)+1)
		}
	}
}

func sampleDeadLetter() *DeadLetter {
	return &DeadLetter{Class: OutOfRange, Message: `field "spend": -3 is below the minimum 0`, SourceTopic: "customer-activity", SourcePartition: 2, SourceOffset: 1 << 40, Timestamp: -1, Attempt: 3, WorkerVersion: "v0.1.0"}
}

func sampleDriftState() *DriftState {
	s := &DriftState{ModelDigest: "sha256:00", Topic: "customer-activity", Partition: 11, BucketStart: 1_760_000_040_000, BucketWidth: 60, NextOffset: 77, Features: []string{"tenure", ""}, Counts: [][]uint32{{1, 0, math.MaxUint32}, {}}, AbsorbedUntil: 1_760_000_000_000, SegmentGroups: []uint32{1, 0, 7}, Moments: []float64{-1.5, math.Inf(1)}, ClassEvents: []uint32{3, 0, math.MaxUint32}}
	for i := range s.Groups {
		s.Groups[i] = uint32(i * i * i)
	}
	return s
}

func sampleDriftAlert() *DriftAlert {
	return &DriftAlert{
		AlertID: "a-1", State: AlertRaised, ModelName: "telco", ModelVersion: "1", ModelDigest: "sha256:00", Feature: "tenure", PSI: 0.31, Critical: 0.12, PValue: 1e-9,
		WindowStart: 1, WindowEnd: 60_000, Events: 812, ReferenceEvents: 3521, At: 60_001, TopBins: []BinShift{{"[0, 5)", 0.1, 0.3, 0.2}, {"missing", 0, 0, 0}}, Message: "tenure moved",
		Evidence: 21.5, EvidenceNeeded: 17.8, Horizon: 3600, Customers: 640.5, Effect: -0.2, Importance: 0.3, Rank: 2, ScorePSI: 0.14, ScoreMean: 0.4, ScoreReferenceMean: 0.26,
	}
}

func sampleAudit() *Audit {
	return &Audit{
		At: 1_760_000_000_000, RequestID: "r-1", TraceID: "0af7651916cd43dd8448eb211c80319c", Principal: "key:crm", CustomerID: []byte("c-1"), SourceTopic: "http-a", SourceOffset: 1 << 33,
		ModelName: "telco", ModelVersion: "1", ModelDigest: "sha256:00", Probability: 0.25, Threshold: 0.3, Churn: true, Inputs: []byte(`{"tenure":1}`),
	}
}

// native is what goavro makes of a record: the fields by their Avro names.
func native(t *testing.T, v any) map[string]any {
	t.Helper()
	ms := func(at int64) time.Time { return time.UnixMilli(at) }
	list := func(n int, element func(int) any) []any {
		out := make([]any, n)
		for i := range out {
			out[i] = element(i)
		}
		return out
	}
	switch v := v.(type) {
	case *Score:
		decision := "retain"
		if v.Churn {
			decision = "churn"
		}
		return map[string]any{
			"customer_id": string(v.CustomerID), "source_topic": v.SourceTopic, "source_partition": v.SourcePartition, "source_offset": v.SourceOffset, "event_time": ms(v.EventTime), "scored_at": ms(v.ScoredAt),
			"model_name": v.ModelName, "model_version": v.ModelVersion, "model_digest": v.ModelDigest, "variant": v.Variant, "probability": v.Probability, "margin": v.Margin, "threshold": v.Threshold, "decision": decision,
			"reasons": list(len(v.Reasons), func(i int) any {
				return map[string]any{"feature": v.Reasons[i].Feature, "contribution": v.Reasons[i].Contribution}
			}),
			"missing": list(len(v.Missing), func(i int) any { return v.Missing[i] }), "unseen": list(len(v.Unseen), func(i int) any { return v.Unseen[i] }),
		}
	case *Audit:
		decision := "retain"
		if v.Churn {
			decision = "churn"
		}
		return map[string]any{
			"at": ms(v.At), "request_id": v.RequestID, "trace_id": v.TraceID, "principal": v.Principal, "customer_id": string(v.CustomerID), "source_topic": v.SourceTopic, "source_offset": v.SourceOffset,
			"model_name": v.ModelName, "model_version": v.ModelVersion, "model_digest": v.ModelDigest, "probability": v.Probability, "threshold": v.Threshold, "decision": decision, "inputs": string(v.Inputs),
		}
	case *DeadLetter:
		return map[string]any{
			"class": string(v.Class), "message": v.Message, "source_topic": v.SourceTopic, "source_partition": v.SourcePartition, "source_offset": v.SourceOffset,
			"timestamp": ms(v.Timestamp), "attempt": v.Attempt, "worker_version": v.WorkerVersion,
		}
	case *DriftState:
		return map[string]any{
			"model_digest": v.ModelDigest, "topic": v.Topic, "partition": v.Partition, "bucket_start": ms(v.BucketStart), "bucket_width": v.BucketWidth, "next_offset": v.NextOffset,
			"features": list(len(v.Features), func(i int) any { return v.Features[i] }),
			"counts": list(len(v.Counts), func(i int) any {
				return list(len(v.Counts[i]), func(j int) any { return int64(v.Counts[i][j]) })
			}),
			"groups":         list(len(v.Groups), func(i int) any { return int64(v.Groups[i]) }),
			"absorbed_until": v.AbsorbedUntil,
			"segment_groups": list(len(v.SegmentGroups), func(i int) any { return int64(v.SegmentGroups[i]) }),
			"moments":        list(len(v.Moments), func(i int) any { return v.Moments[i] }),
			"class_events":   list(len(v.ClassEvents), func(i int) any { return int64(v.ClassEvents[i]) }),
		}
	case *DriftAlert:
		return map[string]any{
			"alert_id": v.AlertID, "state": v.State, "model_name": v.ModelName, "model_version": v.ModelVersion, "model_digest": v.ModelDigest, "feature": v.Feature,
			"psi": v.PSI, "critical": v.Critical, "p_value": v.PValue, "window_start": ms(v.WindowStart), "window_end": ms(v.WindowEnd), "events": v.Events, "reference_events": v.ReferenceEvents, "at": ms(v.At),
			"top_bins": list(len(v.TopBins), func(i int) any {
				b := v.TopBins[i]
				return map[string]any{"label": b.Label, "reference": b.Reference, "current": b.Current, "contribution": b.Contribution}
			}), "message": v.Message,
			"evidence": v.Evidence, "evidence_needed": v.EvidenceNeeded, "horizon": v.Horizon, "customers": v.Customers, "effect": v.Effect, "importance": v.Importance, "rank": v.Rank,
			"score_psi": v.ScorePSI, "score_mean": v.ScoreMean, "score_reference_mean": v.ScoreReferenceMean,
		}
	}
	t.Fatalf("no native form of %T", v)
	return nil
}

type appender interface{ AppendAvro([]byte) []byte }

func TestRecordsEncodeAsGoavroDoesAndComeBack(t *testing.T) {
	churn := sampleScore()
	churn.Churn, churn.Unseen, churn.Reasons = true, []string{"Contract", "PaymentMethod"}, []Reason{}
	empty := &Score{CustomerID: []byte{}}
	for i, c := range []struct {
		record appender
		schema string
		decode func([]byte) (any, error)
	}{
		{sampleScore(), ScoreSchema(), func(b []byte) (any, error) { v := new(Score); return v, DecodeScore(b, v) }},
		{churn, ScoreSchema(), func(b []byte) (any, error) { v := sampleScore(); return v, DecodeScore(b, v) }},
		{empty, ScoreSchema(), func(b []byte) (any, error) { v := new(Score); return v, DecodeScore(b, v) }},
		{sampleDeadLetter(), DeadLetterSchema(), func(b []byte) (any, error) { v := new(DeadLetter); return v, DecodeDeadLetter(b, v) }},
		{sampleDriftState(), DriftStateSchema(), func(b []byte) (any, error) { v := sampleDriftState(); return v, DecodeDriftState(b, v) }},
		{sampleAudit(), AuditSchema(), func(b []byte) (any, error) { v := new(Audit); return v, DecodeAudit(b, v) }},
		{sampleDriftAlert(), DriftAlertSchema(), func(b []byte) (any, error) { v := new(DriftAlert); return v, DecodeDriftAlert(b, v) }},
	} {
		codec, err := goavro.NewCodec(c.schema)
		if err != nil {
			t.Fatal(err)
		}
		want, err := codec.BinaryFromNative([]byte("before"), native(t, c.record))
		if err != nil {
			t.Fatal(err)
		}
		got := c.record.AppendAvro([]byte("before"))
		if !bytes.Equal(got, want) {
			t.Errorf("%d %T:\n got %x\nwant %x", i, c.record, got, want)
		}
		body := got[len("before"):]
		back, err := c.decode(body)
		if err != nil {
			t.Errorf("%d %T: %v", i, c.record, err)
			continue
		}
		if fmt.Sprintf("%+v", back) != fmt.Sprintf("%+v", c.record) {
			t.Errorf("%d:\n got %+v\nwant %+v", i, back, c.record)
		}
		for cut := range body {
			if _, err := c.decode(body[:cut]); err == nil && !slices.ContainsFunc(ofEarlierVersions(t, c.record), func(b []byte) bool { return bytes.Equal(b, body[:cut]) }) {
				t.Errorf("%d %T: cut at %d of %d is accepted", i, c.record, cut, len(body))
			}
		}
		if _, err := c.decode(append(bytes.Clone(body), 0)); err == nil {
			t.Errorf("%d %T: a trailing byte is accepted", i, c.record)
		}
		dst := make([]byte, 0, 4096)
		if n := testing.AllocsPerRun(10, func() { dst = c.record.AppendAvro(dst[:0]) }); n != 0 {
			t.Errorf("%T: %v allocations", c.record, n)
		}
	}
}

// ofEarlierVersions are the bodies that programs wrote before the schema grew, nil where it has not.
func ofEarlierVersions(t *testing.T, record appender) (bodies [][]byte) {
	t.Helper()
	var name string
	switch record.(type) {
	case *DriftState:
		name = "drift_state"
	case *DriftAlert:
		name = "drift_alert"
	default:
		return nil
	}
	for version := 1; ; version++ {
		schema, err := os.ReadFile(fmt.Sprintf("avsc/history/%s.v%d.avsc", name, version))
		if errors.Is(err, os.ErrNotExist) {
			return bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		codec, err := goavro.NewCodec(string(schema))
		if err != nil {
			t.Fatal(err)
		}
		body, err := codec.BinaryFromNative(nil, native(t, record))
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, body)
	}
}

func TestRecordsOfEarlierVersionsAreReadWithoutWhatCameLater(t *testing.T) {
	state := sampleDriftState()
	if err := DecodeDriftState(ofEarlierVersions(t, state)[0], state); err != nil || state.AbsorbedUntil != 0 || len(state.SegmentGroups)+len(state.Moments) != 0 || state.NextOffset != 77 {
		t.Errorf("%+v: %v", state, err)
	}
	state = sampleDriftState()
	if err := DecodeDriftState(ofEarlierVersions(t, state)[1], state); err != nil || len(state.Moments) != 2 || len(state.ClassEvents) != 0 {
		t.Errorf("%+v: %v", state, err)
	}
	alert := sampleDriftAlert()
	if err := DecodeDriftAlert(ofEarlierVersions(t, alert)[0], alert); err != nil || alert.Evidence != 0 || alert.Rank != 0 || alert.ScoreMean != 0 || alert.Message != "tenure moved" {
		t.Errorf("%+v: %v", alert, err)
	}
}

func TestDriftStateKey(t *testing.T) {
	if key := string(sampleDriftState().AppendKey([]byte("k:"))); key != "k:sha256:00/customer-activity/11/60/1760000040000" {
		t.Fatal(key)
	}
}

func FuzzPublishedDecoders(f *testing.F) {
	for _, r := range []appender{sampleScore(), sampleDeadLetter(), sampleDriftState(), sampleDriftAlert()} {
		f.Add(r.AppendAvro(nil))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var score Score
		var letter DeadLetter
		var state DriftState
		var alert DriftAlert
		for _, c := range []struct {
			record appender
			err    error
		}{{&score, DecodeScore(body, &score)}, {&letter, DecodeDeadLetter(body, &letter)}, {&state, DecodeDriftState(body, &state)}, {&alert, DecodeDriftAlert(body, &alert)}} {
			if c.err != nil {
				continue
			}
			again := reflect.New(reflect.TypeOf(c.record).Elem()).Interface().(appender)
			canonical := c.record.AppendAvro(nil)
			switch v := again.(type) {
			case *Score:
				c.err = DecodeScore(canonical, v)
			case *DeadLetter:
				c.err = DecodeDeadLetter(canonical, v)
			case *DriftState:
				c.err = DecodeDriftState(canonical, v)
			case *DriftAlert:
				c.err = DecodeDriftAlert(canonical, v)
			}
			if c.err != nil || !bytes.Equal(again.AppendAvro(nil), canonical) {
				t.Fatalf("%T does not come back: %v", c.record, c.err)
			}
		}
	})
}

func TestContractFaultsAreAllNamed(t *testing.T) {
	nan := math.NaN()
	err := Contract{[]Input{
		{Name: "", Kind: Number},
		{Name: "a", Kind: 0},
		{Name: "a", Kind: Number, Path: "x"},
		{Name: "Monthly Charges", Kind: Number},
		{Name: "b", Path: "x", Kind: Category, Min: bound(1)},
		{Name: "c", Path: "x.y", Kind: Number, Min: bound(3), Max: bound(2)},
		{Name: "d", Kind: Number, Max: &nan},
		{Name: "e", Path: "p..q", Kind: Date},
	}}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"inputs[0].name", "inputs[1].kind", `inputs[2].name: "a" is already`, "inputs[3].path", `inputs[4].path: "x" is already`, "inputs[4].min: does not apply", "inputs[5].min: 3 is greater", `inputs[5].path: "x.y" goes through "x"`, "inputs[6].max", "inputs[7].path"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in\n%v", want, err)
		}
	}
	if err := (Contract{}).Validate(); err == nil {
		t.Error("an empty contract is accepted")
	}
}

func TestContractTextForms(t *testing.T) {
	contract := Contract{[]Input{{Name: "tenure", Kind: Number, Min: bound(0)}, {Name: "at", Path: "meta.at", Kind: Timestamp, Nullable: true}}}
	text, err := json.Marshal(contract)
	want := `{"inputs":[{"name":"tenure","kind":"number","min":0},{"name":"at","path":"meta.at","kind":"timestamp","nullable":true}]}`
	if err != nil || string(text) != want {
		t.Fatalf("%s %v", text, err)
	}
	var back Contract
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, contract) {
		t.Fatalf("%+v %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"inputs":[{"name":"a","kind":"numeric"}]}`), &back); err == nil || !strings.Contains(err.Error(), "numeric") {
		t.Fatalf("%v", err)
	}
	if contract.Index("at") != 1 || contract.Index("nix") != -1 {
		t.Fatal("index")
	}
	seen := ErrorClasses()
	sort.Slice(seen, func(i, j int) bool { return seen[i] < seen[j] })
	for i := 1; i < len(seen); i++ {
		if seen[i] == seen[i-1] {
			t.Errorf("class %s twice", seen[i])
		}
	}
}

func TestKeysNameACustomer(t *testing.T) {
	if err := CheckKey([]byte("7590-VHVEG")); err != nil {
		t.Error(err)
	}
	checkRecordError(t, CheckKey(nil), NullKey, "key")
	checkRecordError(t, CheckKey([]byte{0xff}), InvalidUTF8, "key")
}
