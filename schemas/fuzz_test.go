package schemas

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// allocated gives the bytes that f allocates, garbage included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// nullableActivity wants nothing, so that as many schemas as possible compile.
func nullableActivity() Contract {
	contract := activityContract()
	for i := range contract.Inputs {
		contract.Inputs[i].Nullable = true
	}
	contract.Inputs = append(
		contract.Inputs,
		Input{Name: "nested", Path: "customer.plan.fee", Kind: Number, Nullable: true},
		Input{Name: "term", Path: "term.days", Kind: Number, Nullable: true},
		Input{Name: "at", Kind: Timestamp, Nullable: true},
		Input{Name: "since", Kind: Date, Nullable: true},
	)
	return contract
}

// schemaSeeds are schemas with every form.
func schemaSeeds() []string {
	return []string{
		activitySchema,
		activityReader,
		record(`{"name":"spend","type":["null","double","int"]},{"name":"n","type":{"type":"array","items":"null"}},{"name":"m","type":{"type":"map","values":{"type":"array","items":"int"}}}`),
		record(`{"name":"spend","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},{"name":"country","type":{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}},{"name":"term","type":{"type":"fixed","name":"D","size":12,"logicalType":"duration"}}`),
		record(`{"name":"customer","type":["null",{"type":"record","name":"C","fields":[{"name":"plan","type":{"type":"record","name":"P","fields":[{"name":"fee","type":["string","float"]}]}}]}]},{"name":"at","type":{"type":"long","logicalType":"timestamp-nanos"}},{"name":"since","type":{"type":"int","logicalType":"date"}}`),
		record(`{"name":"a","type":{"type":"array","items":["int","string"]}},{"name":"event_type","type":{"type":"enum","name":"E2","symbols":["A","B"]}}`),
		record(`{"name":"a","type":{"type":"array","items":["null","int"]}},{"name":"event_type","type":{"type":"enum","name":"E2","symbols":["B"]}},{"name":"rating","type":["null","double"],"default":null},{"name":"spend","type":"long","default":3}`),
	}
}

// FuzzDecode decodes any bytes written with any schema, read as written and with any reader's schema.
func FuzzDecode(f *testing.F) {
	for _, v := range activities(f, 6) {
		f.Add(activitySchema, "", v[5:])
	}
	seeds := schemaSeeds()
	f.Add(activitySchema, activityReader, activities(f, 1)[0][5:])
	f.Add(seeds[2], "", []byte{4, 8, 0x80, 0x80, 1, 0, 1, 4, 2, 'k', 0, 0, 0})
	f.Add(seeds[3], "", append([]byte{4, 4, 0xd2}, make([]byte, 28)...))
	f.Add(seeds[4], "", []byte{2, 2, 0, 0, 0x80, 0x3f, 10, 12})
	f.Add(seeds[5], seeds[6], []byte{4, 0, 2, 0, 4, 0, 2})
	inputs := nullableActivity()
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, schema, reader string, body []byte) {
		decoder, err := NewDecoder(DecoderConfig{Contract: inputs, Reader: reader, Registry: &fixedRegistry{schemas: map[int32]string{7: schema}}})
		if err != nil {
			if reader == "" {
				t.Fatal(err)
			}
			return
		}
		rows := NewRows(len(inputs.Inputs), 2)
		value := append(AppendFrame(nil, 7), body...)
		first := decoder.Decode(ctx, value, rows) // compiles
		rows.Reset()
		var second error
		if n := allocated(func() { second = decoder.Decode(ctx, value, rows) }); n > 16<<10+32*uint64(len(value)) {
			t.Fatalf("%d bytes allocated for %d", n, len(value))
		}
		if (first == nil) != (second == nil) || first != nil && first.Error() != second.Error() {
			t.Fatalf("%v, then %v", first, second)
		}
		if second != nil {
			var bad *RecordError
			if !asRecordError(second, &bad) || rows.Len() != 0 {
				t.Fatalf("%v, %d rows", second, rows.Len())
			}
			return
		}
		for i, x := range rows.Numbers {
			in := inputs.Inputs[i]
			if math.IsInf(x, 0) || in.Min != nil && x < *in.Min || in.Max != nil && x > *in.Max {
				t.Fatalf("%s is %v", in.Name, x)
			}
		}
	})
}

// FuzzCompile compiles any pair of schemas: it has to end soon, with bounded memory, and what it calls usable must have
// a source for every input.
func FuzzCompile(f *testing.F) {
	seeds := schemaSeeds()
	for i, s := range seeds {
		f.Add(s, "")
		f.Add(s, seeds[(i+1)%len(seeds)])
	}
	f.Add(seeds[0], seeds[1])
	f.Add(seeds[5], seeds[6])
	inputs := nullableActivity()
	f.Fuzz(func(t *testing.T, schema, reader string) {
		if len(schema)+len(reader) > 64<<10 {
			return
		}
		started := time.Now()
		var feeding Feeding
		var err error
		// A program has at most maxVisits instructions of some 100 bytes, and goavro's and our own types come to it.
		bound := uint64(16<<20) + 4<<10*uint64(len(schema)+len(reader))
		if n := allocated(func() { feeding, err = Feed(inputs, reader, Schema{Text: schema}) }); n > bound {
			t.Fatalf("%d bytes allocated for %d", n, len(schema)+len(reader))
		}
		if took := time.Since(started); took > 10*time.Second {
			t.Fatalf("took %v", took)
		}
		if err != nil || !feeding.Usable {
			return
		}
		for _, in := range feeding.Inputs {
			if in.Status == Missing || in.Status == Mismatched {
				t.Fatalf("usable, but %+v", in)
			}
		}
		if err := feeding.WriteText(&bytes.Buffer{}); err != nil {
			t.Fatal(err)
		}
		if _, err := NewDecoder(DecoderConfig{Contract: inputs, Reader: reader, Framing: Bare, Schemas: []string{schema}}); err != nil {
			t.Fatalf("usable, but %v", err)
		}
	})
}

// FuzzFraming splits any bytes: a header is either taken off whole and can be put back, or refused as a bad record.
func FuzzFraming(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(append(AppendFrame(nil, 7), 1))
	f.Add(append(AppendFrame(nil, -1), 1)[:4])
	f.Add(append(AppendObjectFrame(nil, 1<<63), 1))
	f.Add([]byte(objectMarker))
	f.Fuzz(func(t *testing.T, value []byte) {
		check := func(body, again []byte, err error) {
			t.Helper()
			if err == nil {
				if !bytes.Equal(append(again, body...), value) {
					t.Fatalf("% x is put back as % x", value, again)
				}
				return
			}
			var bad *RecordError
			if !errors.As(err, &bad) || bad.Class != EmptyValue && bad.Class != BadMagic && bad.Class != Truncated {
				t.Fatalf("% x: %v", value, err)
			}
		}
		id, body, err := SplitFrame(value)
		check(body, AppendFrame(nil, id), err)
		fingerprint, body, err := SplitObjectFrame(value)
		check(body, AppendObjectFrame(nil, fingerprint), err)
	})
}

// FuzzRegistryAnswer has a registry answer anything to everything: it is either a schema or one of the typed errors, and
// an answer that says not found by the documented code only is a bad record.
func FuzzRegistryAnswer(f *testing.F) {
	for _, seed := range []struct {
		status uint16
		body   string
	}{
		{200, `{"schema":"\"int\""}`},
		{200, `{"schema":"{\"type\":\"record\",\"name\":\"E\",\"fields\":[{\"name\":\"spend\",\"type\":\"int\"}]}","id":1,"version":1,"subject":"s"}`},
		{200, `{"schema":"\"x.A\"","references":[{"name":"x.A","subject":"a","version":1},{"name":"x.B","subject":"b","version":2}]}`},
		{200, `{"schema":"syntax = \"proto3\";","schemaType":"PROTOBUF"}`},
		{200, `{"id":5}`},
		{200, `[1,2,3]`},
		{200, `{}`},
		{200, ``},
		{200, `null`},
		{404, `{"error_code":40403,"message":"Schema not found"}`},
		{404, `{"error_code":40401,"message":"Subject not found"}`},
		{404, `<html></html>`},
		{409, `{"error_code":409,"message":"no"}`},
		{422, `{"error_code":42201}`},
		{500, `x`},
		{401, ``},
		{302, ``},
	} {
		f.Add(seed.status, seed.body)
	}
	type answer struct {
		status int
		body   string
	}
	var current atomic.Pointer[answer]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a := current.Load()
		w.WriteHeader(a.status)
		fmt.Fprint(w, a.body)
	}))
	f.Cleanup(server.Close)
	ctx := context.Background()
	contract := nullableActivity()
	f.Fuzz(func(t *testing.T, status uint16, body string) {
		a := &answer{200 + int(status)%400, body}
		current.Store(a)
		cfg := DefaultRegistryConfig()
		cfg.URLs, cfg.RetryFor, cfg.RequestTimeout = []string{server.URL}, 0, 5*time.Second
		registry, err := NewRegistry(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer registry.Close()
		if n := allocated(func() {
			_, err = registry.SchemaByID(ctx, 1)
		}); n > 4<<20+64*uint64(len(body)) {
			t.Fatalf("%d bytes allocated for %d", n, len(body))
		}
		var said struct {
			Code int `json:"error_code"`
		}
		unknown := a.status == http.StatusNotFound && json.Unmarshal([]byte(body), &said) == nil && said.Code == 40403
		if errors.Is(err, ErrSchemaNotFound) != unknown {
			t.Fatalf("%d %s: %v", a.status, body, err)
		}
		for name, ask := range map[string]func() error{
			"fingerprint": func() error { _, err := registry.SchemaByFingerprint(ctx, "s", 1); return err },
			"latest":      func() error { _, _, err := registry.Latest(ctx, "s"); return err },
			"register":    func() error { _, err := registry.Register(ctx, "s", `"int"`); return err },
			"decode": func() error {
				decoder, err := NewDecoder(DecoderConfig{Contract: contract, Registry: registry})
				if err != nil {
					return err
				}
				return decoder.Decode(ctx, append(AppendFrame(nil, 1), 2, 4, 6), NewRows(len(contract.Inputs), 1))
			},
		} {
			if err := ask(); err != nil && err.Error() == "" {
				t.Fatalf("%s: an error without words", name)
			}
		}
	})
}
