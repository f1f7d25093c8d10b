package avroschema

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestCompatibilityAgreesWithTheAvroProject(t *testing.T) {
	raw, err := os.ReadFile("testdata/compat_pairs.json")
	if err != nil {
		t.Fatal(err)
	}
	var pairs []struct {
		Reader, Writer json.RawMessage
		Result         string
		Types          []string
		Locations      []string
	}
	if err := json.Unmarshal(raw, &pairs); err != nil {
		t.Fatal(err)
	}
	if len(pairs) != 137 {
		t.Fatalf("%d pairs", len(pairs))
	}
	for i, pair := range pairs {
		reader, err := Parse(string(pair.Reader))
		if err != nil {
			t.Errorf("pair %d: reader: %v", i, err)
			continue
		}
		writer, err := Parse(string(pair.Writer))
		if err != nil {
			t.Errorf("pair %d: writer: %v", i, err)
			continue
		}
		found := Incompatibilities(reader, writer)
		if (len(found) == 0) != (pair.Result == "compatible") {
			t.Errorf("pair %d: want %s %v %v, got %v\nreader %s\nwriter %s", i, pair.Result, pair.Types, pair.Locations, found, pair.Reader, pair.Writer)
		}
	}
}

func TestCanonicalForm(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"type":"int","logicalType":"date"}`, `"int"`},
		{`[ ]`, `[]`},
		{`{"fields":[],"name":"foo","type":"record","namespace":"x.y","doc":"d"}`, `{"name":"x.y.foo","type":"record","fields":[]}`},
		{
			`{"type":"record","name":"a.R","fields":[{"name":"e","type":{"type":"enum","name":"E","symbols":["X"]},"default":"X"},{"name":"f","type":"E"},{"name":"g","type":{"type":"map","values":{"type":"fixed","name":"b.F","size":3}}}]}`,
			`{"name":"a.R","type":"record","fields":[{"name":"e","type":{"name":"a.E","type":"enum","symbols":["X"]}},{"name":"f","type":"a.E"},{"name":"g","type":{"type":"map","values":{"name":"b.F","type":"fixed","size":3}}}]}`,
		},
		{
			`{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}`,
			`{"name":"L","type":"record","fields":[{"name":"next","type":["null","L"]}]}`,
		},
	} {
		got, err := Parse(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
		} else if got.Canonical() != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.in, got.Canonical(), c.want)
		}
	}
}

func TestBadSchemasAreRefusedWithThePlace(t *testing.T) {
	deep := strings.Repeat(`{"type":"array","items":`, 200) + `"int"` + strings.Repeat("}", 200)
	for _, c := range []struct{ in, want string }{
		{``, "not JSON"},
		{`"int" 3`, "text follows"},
		{`7`, "not a type"},
		{`"nix"`, `"nix" is not defined`},
		{`{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}`, `field "a" twice`},
		{`{"type":"record","name":"R","fields":[{"name":"a-b","type":"int"}]}`, `"a-b"`},
		{`{"type":"record","name":"R","fields":[{"name":"a"}]}`, "has no type"},
		{`{"type":"record","name":"R"}`, "has no fields"},
		{`{"type":"record","fields":[]}`, "has no name"},
		{`{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"fixed","name":"R","size":1}}]}`, "defined twice"},
		{`{"type":"record","name":"int","fields":[]}`, "cannot be called"},
		{`{"type":"enum","name":"E","symbols":["A","A"]}`, "twice"},
		{`{"type":"enum","name":"E","symbols":["A"],"default":"B"}`, "default"},
		{`{"type":"fixed","name":"F","size":-1}`, "size"},
		{`{"type":"fixed","name":"F","size":1e99}`, "size"},
		{`["int","int"]`, "int twice"},
		{`["int",["null"]]`, "union itself"},
		{`{"type":"array"}`, "no items"},
		{deep, "nest deeper"},
	} {
		if _, err := Parse(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: got %v, want %q", c.in, err, c.want)
		}
	}
}

func TestReferencesAreKnownByName(t *testing.T) {
	if _, err := Parse(`{"type":"array","items":"x.Money"}`, `{"type":"fixed","name":"x.Money","size":8}`); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(`{"type":"array","items":"x.Money"}`); err == nil {
		t.Fatal("an undefined reference was accepted")
	}
}

// Each level offers two records of one short name, of which the second has to be tried when the first fails far below.
func TestInvolvedSchemasAreGivenUpInTime(t *testing.T) {
	const depth = 60
	schema := func(leaf string) string {
		text := leaf
		for i := range depth {
			text = fmt.Sprintf(`[{"type":"record","name":"a.L%d","fields":[{"name":"f","type":%s}]},{"type":"record","name":"b.L%d","fields":[{"name":"f","type":%s}]}]`,
				i, text, i, map[bool]string{true: leaf, false: fmt.Sprintf(`["a.L%d","b.L%d"]`, i-1, i-1)}[i == 0])
		}
		return text
	}
	reader, err := Parse(schema(`"int"`))
	if err != nil {
		t.Fatal(err)
	}
	writer, err := Parse(schema(`"string"`))
	if err != nil {
		t.Fatal(err)
	}
	if found := Incompatibilities(reader, writer); len(found) == 0 {
		t.Error("found compatible")
	}
	var value any = "no int"
	for range depth {
		value = map[string]any{"f": value}
	}
	if _, err := AppendDefault(nil, reader, value); err == nil {
		t.Error("the default is accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"type":"record","name":"a.R","fields":[{"name":"e","type":{"type":"enum","name":"E","symbols":["X"]}},{"name":"n","type":["null","R"]}]}`)
	f.Add(`["null",{"type":"fixed","name":"F","size":0},{"type":"map","values":"F"}]`)
	f.Fuzz(func(t *testing.T, schema string) {
		parsed, err := Parse(schema)
		if err != nil {
			return
		}
		again, err := Parse(parsed.Canonical())
		if err != nil {
			t.Fatalf("the canonical form is refused: %v\n%s", err, parsed.Canonical())
		}
		if again.Canonical() != parsed.Canonical() {
			t.Fatalf("canonical form changes: %s then %s", parsed.Canonical(), again.Canonical())
		}
		if len(Incompatibilities(parsed, again)) != 0 && parsed.Kind != Union {
			t.Fatalf("a schema cannot read itself: %s", parsed.Canonical())
		}
	})
}
