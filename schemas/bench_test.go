package schemas

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"

	"github.com/churnstream/churnstream/internal/testkit/cputime"
)

// activitySchema is an event of 12 fields as a producer would publish it; activityContract reads 8 of them.
const activitySchema = `{"type":"record","name":"CustomerActivity","namespace":"shop","fields":[
	{"name":"event_id","type":"string"},
	{"name":"customer_id","type":"string"},
	{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"event_type","type":{"type":"enum","name":"EventType","symbols":["LOGIN","PURCHASE","SUPPORT","CANCEL_VIEW","DOWNGRADE","OTHER"]}},
	{"name":"session_seconds","type":"int"},
	{"name":"spend","type":"double"},
	{"name":"rating","type":["null","double"],"default":null},
	{"name":"campaign","type":["null","string"],"default":null},
	{"name":"tenure_months","type":"int"},
	{"name":"autopay","type":"boolean"},
	{"name":"country","type":"string"},
	{"name":"attrs","type":{"type":"map","values":"string"}}]}`

func activityContract() Contract {
	return Contract{[]Input{
		{Name: "event_type", Kind: Category},
		{Name: "session_seconds", Kind: Number, Min: bound(0)},
		{Name: "spend", Kind: Number, Min: bound(0), Max: bound(1e6)},
		{Name: "rating", Kind: Number, Nullable: true},
		{Name: "campaign", Kind: Category, Nullable: true},
		{Name: "tenure_months", Kind: Number},
		{Name: "autopay", Kind: Boolean},
		{Name: "country", Kind: Category},
	}}
}

func activities(tb testing.TB, n int) [][]byte {
	codec, err := goavro.NewCodec(activitySchema)
	if err != nil {
		tb.Fatal(err)
	}
	types := []string{"LOGIN", "PURCHASE", "SUPPORT", "CANCEL_VIEW", "DOWNGRADE", "OTHER"}
	countries := []string{"DE", "FR", "US", "GB", "IT", "ES"}
	values := make([][]byte, n)
	for i := range values {
		var rating, campaign any
		if i%3 == 0 {
			rating = goavro.Union("double", float64(i%5))
		}
		if i%4 == 0 {
			campaign = goavro.Union("string", "promo-2026-autumn")
		}
		attrs := map[string]any{}
		if i%2 == 0 {
			attrs["channel"] = "web"
		}
		values[i], err = codec.BinaryFromNative(AppendFrame(nil, 7), map[string]any{
			"event_id": fmt.Sprintf("%032x", i*7919), "customer_id": fmt.Sprintf("cust-%08d", i*31), "ts": time.UnixMilli(1_760_000_000_000 + int64(i)),
			"event_type": types[i%6], "session_seconds": i * 13 % 4000, "spend": float64(i) / 8, "rating": rating, "campaign": campaign,
			"tenure_months": i % 70, "autopay": i%2 == 0, "country": countries[i%6], "attrs": attrs,
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return values
}

func benchmarkDecode(b *testing.B, cfg DecoderConfig) {
	b.Helper()
	values := activities(b, 1024)
	cfg.Registry = &fixedRegistry{schemas: map[int32]string{7: activitySchema}}
	decoder, err := NewDecoder(cfg)
	if err != nil {
		b.Fatal(err)
	}
	rows := NewRows(len(cfg.Contract.Inputs), 64)
	ctx := context.Background()
	b.ReportAllocs()
	defer cputime.Report(b, 1, "op")()
	for i := 0; b.Loop(); i++ {
		if rows.Len() == 64 {
			rows.Reset()
		}
		if err := decoder.Decode(ctx, values[i&1023], rows); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	benchmarkDecode(b, DecoderConfig{Contract: activityContract()})
}

// activityReader is a later schema of the same event: fields in another order, promoted, renamed, dropped and new ones
// with defaults, an enum with a default, unions turned round.
const activityReader = `{"type":"record","name":"Activity","namespace":"shop.v2","aliases":["shop.CustomerActivity"],"fields":[
	{"name":"land","aliases":["country"],"type":"string"},
	{"name":"autopay","type":["null","boolean"],"default":null},
	{"name":"tenure_months","type":"double"},
	{"name":"campaign","type":["string","null"]},
	{"name":"rating","type":["double","null"]},
	{"name":"spend","type":"double"},
	{"name":"session_seconds","type":"long"},
	{"name":"event_type","type":{"type":"enum","name":"EventType","symbols":["OTHER","LOGIN","PURCHASE","SUPPORT"],"default":"OTHER"}},
	{"name":"tier","type":"string","default":"basic"},
	{"name":"discount","type":"float","default":0.5},
	{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"customer_id","type":"string"}]}`

func resolvedContract() Contract {
	contract := activityContract()
	contract.Inputs[7] = Input{Name: "land", Kind: Category}
	contract.Inputs[6].Nullable = true
	contract.Inputs = append(contract.Inputs, Input{Name: "tier", Kind: Category}, Input{Name: "discount", Kind: Number})
	return contract
}

func BenchmarkDecodeResolved(b *testing.B) {
	benchmarkDecode(b, DecoderConfig{Contract: resolvedContract(), Reader: activityReader})
}

func TestDecodingDoesNotAllocate(t *testing.T) {
	values := activities(t, 64)
	for name, cfg := range map[string]DecoderConfig{
		"as written": {Contract: activityContract()},
		"resolved":   {Contract: resolvedContract(), Reader: activityReader},
	} {
		cfg.Registry = &fixedRegistry{schemas: map[int32]string{7: activitySchema}}
		decoder, err := NewDecoder(cfg)
		if err != nil {
			t.Fatal(err)
		}
		rows := NewRows(len(cfg.Contract.Inputs), 64)
		if n := testing.AllocsPerRun(100, func() {
			rows.Reset()
			for _, v := range values {
				if err := decoder.Decode(t.Context(), v, rows); err != nil {
					t.Fatal(err)
				}
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations in 64 events", name, n)
		}
	}
	score, dst := sampleScore(), make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() { dst = score.AppendAvro(AppendFrame(dst[:0], 7)) }); n > 0 {
		t.Errorf("%v allocations in a score", n)
	}
}

func sampleScore() *Score {
	return &Score{
		CustomerID: []byte("cust-00001234"), SourceTopic: "customer-activity", SourcePartition: 3, SourceOffset: 812_345, EventTime: 1_760_000_000_000, ScoredAt: 1_760_000_000_012,
		ModelName: "telco-churn", ModelVersion: "3", ModelDigest: "sha256:0f343b0931126a20f133d67c2b018a3b5e3f5a4b2cbb3d1a0a4d8e6a0d3c9b11", Variant: "champion",
		Probability: 0.42, Margin: -0.32, Threshold: 0.5,
		Reasons: []Reason{{"Contract=Month-to-month", 0.71}, {"tenure", -0.4}, {"InternetService=Fiber optic", 0.3}},
		Missing: []string{"TotalCharges"},
	}
}

func BenchmarkScoreEncode(b *testing.B) {
	score := sampleScore()
	var dst []byte
	b.ReportAllocs()
	defer cputime.Report(b, 1, "op")()
	for b.Loop() {
		dst = score.AppendAvro(AppendFrame(dst[:0], 7))
	}
	b.SetBytes(int64(len(dst)))
}

func BenchmarkScoreDecode(b *testing.B) {
	body := sampleScore().AppendAvro(nil)
	var score Score
	b.ReportAllocs()
	for b.Loop() {
		if err := DecodeScore(body, &score); err != nil {
			b.Fatal(err)
		}
	}
}
