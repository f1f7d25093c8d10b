package feed_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"

	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/schemas"
)

const containerSchema = `{"type":"record","name":"E","fields":[
	{"name":"customer","type":{"type":"record","name":"C","fields":[{"name":"id","type":"ID"}]}},
	{"name":"tenure","type":"int"},{"name":"plan","type":["null","string"]},{"name":"autopay","type":"boolean"}]}`

// container writes events with goavro.
func container(t *testing.T, idType, codec string, ids ...any) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := goavro.NewOCFWriter(goavro.OCFConfig{W: &file, Schema: strings.Replace(containerSchema, `"ID"`, idType, 1), CompressionName: codec})
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		var plan any
		if i%2 == 0 {
			plan = goavro.Union("string", "basic")
		}
		if err := w.Append([]any{map[string]any{"customer": map[string]any{"id": id}, "tenure": i, "plan": plan, "autopay": true}}); err != nil {
			t.Fatal(err)
		}
	}
	return file.Bytes()
}

func TestRecordsOfAContainerFileAreEventsAsTheyAre(t *testing.T) {
	for _, c := range []struct {
		idType, codec string
		ids           []any
		keys          string
	}{
		{`"string"`, "null", []any{"a", "b", "c"}, "a b c"},
		{`"string"`, "deflate", []any{"a"}, "a"},
		{`"string"`, "snappy", []any{"a", "b"}, "a b"},
		{`"long"`, "null", []any{int64(17), int64(-1)}, "17 -1"},
		{`{"type":"enum","name":"I","symbols":["X","Y"]}`, "null", []any{"Y"}, "Y"},
		{`["null","string"]`, "null", []any{goavro.Union("string", "u")}, "u"},
		{`"string"`, "null", nil, ""},
	} {
		source, err := feed.OpenContainer(bytes.NewReader(container(t, c.idType, c.codec, c.ids...)), "customer.id")
		if err != nil {
			t.Errorf("%s %s: %v", c.idType, c.codec, err)
			continue
		}
		source.SetFrame(schemas.AppendFrame(nil, schemaID))
		decoder, err := schemas.NewDecoder(schemas.DecoderConfig{Contract: contract(), Registry: registry(source.Schema())})
		if err != nil {
			t.Fatal(err)
		}
		rows := schemas.NewRows(len(contract().Inputs), 1)
		var keys []string
		var e feed.Event
		for err = source.Next(&e); err == nil; err = source.Next(&e) {
			keys = append(keys, string(e.Key))
			if err := decoder.Decode(context.Background(), e.Value, rows); err != nil {
				t.Errorf("%s %s: event %d: %v", c.idType, c.codec, len(keys), err)
			}
		}
		source.Close()
		if !errors.Is(err, io.EOF) || strings.Join(keys, " ") != c.keys {
			t.Errorf("%s %s: keys %q, want %q: %v", c.idType, c.codec, keys, c.keys, err)
		}
		for i := range rows.Len() {
			if numbers, _ := rows.Row(i); numbers[0] != float64(i) {
				t.Errorf("%s %s: event %d has tenure %v", c.idType, c.codec, i, numbers[0])
			}
		}
	}
}

func TestAContainerFileThatCannotBePublishedSaysWhy(t *testing.T) {
	whole := container(t, `"string"`, "null", "a", "", "c")
	cut := container(t, `"string"`, "null", "a", "c")
	for _, c := range []struct {
		name, key string
		file      []byte
		records   int
		want      []string
	}{
		{"no container", "customer.id", []byte("a,b\n1,2\n"), 0, []string{"not with"}},
		{"no such field", "customer.name", whole, 0, []string{"--key", `"customer.name"`}},
		{"a record as the key", "customer", whole, 0, []string{"--key", "record C"}},
		{"an empty id", "customer.id", whole, 1, []string{"record 2", "empty"}},
		{"a number that is none", "customer.id", container(t, `"double"`, "null", 0.5), 0, []string{"record 1", "0.5"}},
		{"null", "customer.id", container(t, `["null","string"]`, "null", nil), 0, []string{"record 1", "null"}},
		{"cut off", "customer.id", cut[:len(cut)-8], 1, []string{"unexpected EOF"}},
	} {
		source, err := feed.OpenContainer(bytes.NewReader(c.file), c.key)
		n := -1
		for e := (feed.Event{}); err == nil; n++ {
			err = source.Next(&e)
		}
		if source != nil {
			source.Close()
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %q", c.name, err, w)
			}
		}
		if max(n, 0) != c.records {
			t.Errorf("%s: %d records before the error, want %d", c.name, n, c.records)
		}
	}
}
