package avroschema

import (
	"bytes"
	"strings"
	"testing"
)

func TestInvalidAndUnknownLogicalTypesAreIgnored(t *testing.T) {
	for _, c := range []struct {
		schema string
		want   Meaning
	}{
		{`{"type":"int","logicalType":"date"}`, Date},
		{`{"type":"long","logicalType":"date"}`, Plain},
		{`{"type":"int","logicalType":"time-millis"}`, TimeMillis},
		{`{"type":"int","logicalType":"time-micros"}`, Plain},
		{`{"type":"long","logicalType":"timestamp-nanos"}`, TimestampNanos},
		{`{"type":"long","logicalType":"local-timestamp-micros"}`, LocalTimestampMicros},
		{`{"type":"string","logicalType":"timestamp-millis"}`, Plain},
		{`{"type":"string","logicalType":"uuid"}`, UUID},
		{`{"type":"fixed","name":"F","size":16,"logicalType":"uuid"}`, UUID},
		{`{"type":"fixed","name":"F","size":15,"logicalType":"uuid"}`, Plain},
		{`{"type":"fixed","name":"F","size":12,"logicalType":"duration"}`, Duration},
		{`{"type":"fixed","name":"F","size":11,"logicalType":"duration"}`, Plain},
		{`{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`, Decimal},
		{`{"type":"bytes","logicalType":"decimal","precision":4}`, Decimal},
		{`{"type":"bytes","logicalType":"decimal"}`, Plain},
		{`{"type":"bytes","logicalType":"decimal","precision":0}`, Plain},
		{`{"type":"bytes","logicalType":"decimal","precision":2,"scale":3}`, Plain},
		{`{"type":"bytes","logicalType":"decimal","precision":2,"scale":-1}`, Plain},
		{`{"type":"bytes","logicalType":"decimal","precision":2,"scale":0.5}`, Plain},
		{`{"type":"fixed","name":"F","size":2,"logicalType":"decimal","precision":4}`, Decimal},
		{`{"type":"fixed","name":"F","size":2,"logicalType":"decimal","precision":5}`, Plain},
		{`{"type":"string","logicalType":"decimal","precision":5}`, Plain},
		{`{"type":"int","logicalType":"age"}`, Plain},
	} {
		parsed, err := Parse(c.schema)
		if err != nil {
			t.Errorf("%s: %v", c.schema, err)
		} else if got := parsed.Meaning(); got != c.want {
			t.Errorf("%s means %q, want %q", c.schema, got, c.want)
		}
	}
}

func TestDefaultsAreWrittenAsValuesOfTheirType(t *testing.T) {
	for _, c := range []struct {
		fieldType, value string
		want             []byte // nil: refused
	}{
		{`"null"`, `null`, []byte{}},
		{`"null"`, `0`, nil},
		{`"boolean"`, `true`, []byte{1}},
		{`"boolean"`, `"true"`, nil},
		{`"int"`, `-2`, []byte{3}},
		{`"int"`, `2.0`, []byte{4}},
		{`"int"`, `2147483648`, nil},
		{`"int"`, `0.5`, nil},
		{`"long"`, `2147483648`, []byte{0x80, 0x80, 0x80, 0x80, 0x10}},
		{`"long"`, `1e30`, nil},
		{`"float"`, `1.1`, []byte{0xcd, 0xcc, 0x8c, 0x3f}},
		{`"double"`, `1`, []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f}},
		{`"double"`, `"1"`, nil},
		{`"double"`, `1e999`, nil},
		{`"string"`, `"é"`, []byte{4, 0xc3, 0xa9}},
		{`"string"`, `1`, nil},
		{`"bytes"`, `"\u00ff\u0000"`, []byte{4, 0xff, 0}},
		{`"bytes"`, `"\u0100"`, nil},
		{`{"type":"fixed","name":"F","size":2}`, `"\u00ff\u0001"`, []byte{0xff, 1}},
		{`{"type":"fixed","name":"F","size":2}`, `"a"`, nil},
		{`{"type":"enum","name":"E","symbols":["A","B"]}`, `"B"`, []byte{2}},
		{`{"type":"enum","name":"E","symbols":["A","B"]}`, `"C"`, nil},
		{`["null","int"]`, `null`, []byte{0}},
		{`["null","int"]`, `5`, []byte{2, 10}},
		{`["null","int"]`, `"x"`, nil},
		{`{"type":"array","items":"int"}`, `[1,2]`, []byte{4, 2, 4, 0}},
		{`{"type":"array","items":"int"}`, `[]`, []byte{0}},
		{`{"type":"array","items":"int"}`, `["x"]`, nil},
		{`{"type":"map","values":"int"}`, `{"a":1}`, []byte{2, 2, 'a', 2, 0}},
		{`{"type":"record","name":"S","fields":[{"name":"a","type":"int"},{"name":"b","type":"int","default":7}]}`, `{"a":1}`, []byte{2, 14}},
		{`{"type":"record","name":"S","fields":[{"name":"a","type":"int"}]}`, `{}`, nil},
	} {
		schema := `{"type":"record","name":"R","fields":[{"name":"f","type":` + c.fieldType + `,"default":` + c.value + `}]}`
		parsed, err := Parse(schema)
		if err != nil {
			t.Errorf("%s: %v", schema, err)
			continue
		}
		got, err := AppendDefault([]byte{}, parsed.Fields[0].Type, parsed.Fields[0].Default)
		if (err != nil) != (c.want == nil) || !bytes.Equal(got, c.want) {
			t.Errorf("%s of %s: % x %v, want % x", c.value, c.fieldType, got, err, c.want)
		}
		if err := parsed.CheckDefaults(); (err != nil) != (c.want == nil) || err != nil && !strings.Contains(err.Error(), `"f"`) {
			t.Errorf("%s of %s: checked: %v", c.value, c.fieldType, err)
		}
	}
}
