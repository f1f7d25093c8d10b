package schemas

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestFeedingSaysWhereEachInputComesFrom(t *testing.T) {
	contract := Contract{[]Input{
		{Name: "tenure", Kind: Number},
		{Name: "fee", Path: "plan.fee", Kind: Number, Nullable: true},
		{Name: "since", Path: "plan.since", Kind: Timestamp, Nullable: true},
		{Name: "tier", Kind: Category, Nullable: true},
		{Name: "region", Kind: Category},
	}}
	plan := func(fields string) string {
		return `{"name":"plan","type":["null",{"type":"record","name":"Plan","fields":[` + fields + `]}]}`
	}
	micros := `{"name":"since","type":{"type":"long","logicalType":"timestamp-micros"}}`
	full := record(`{"name":"tenure","type":"int"},{"name":"region","type":{"type":"enum","name":"Region","symbols":["N","S"]}},` + plan(`{"name":"fee","type":["null","float","string"]},`+micros))
	reader := record(`{"name":"tenure","type":"double"},{"name":"region","type":{"type":"enum","name":"Region","symbols":["N"]}},{"name":"tier","type":"string","default":"basic"},` +
		`{"name":"plan","type":["null",{"type":"record","name":"Plan","fields":[{"name":"fee","type":["null","double"],"default":null},` + micros + `]}],"default":null}`)
	for _, c := range []struct {
		name, reader, schema, want string
		refused                    int
	}{
		{
			"as written", "", full,
			`tenure satisfied "int" "int to double" ""; fee satisfied "float" "float to double" ""; since satisfied "long/timestamp-micros" "microseconds to milliseconds" ""; tier defaulted "" "" "null"; region satisfied "enum Region" "symbol" ""; usable`, 1,
		},
		{
			"with a reader's schema", reader, full,
			`tenure satisfied "int" "int to double" ""; fee satisfied "float" "float to double" ""; since satisfied "long/timestamp-micros" "microseconds to milliseconds" ""; tier defaulted "" "" "\"basic\""; region satisfied "enum Region" "symbol" ""; usable`, 2,
		},
		{
			"unusable", "", record(`{"name":"tenure","type":"string"},` + plan(micros)),
			`tenure mismatched "" "" ""; fee defaulted "" "" "null"; since satisfied "long/timestamp-micros" "microseconds to milliseconds" ""; tier defaulted "" "" "null"; region missing "" "" ""; not usable`, 0,
		},
		{
			"no record", "", `"int"`,
			`tenure mismatched "" "" ""; fee mismatched "" "" ""; since mismatched "" "" ""; tier mismatched "" "" ""; region mismatched "" "" ""; not usable`, 0,
		},
		{
			"contains itself", "", `{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}`,
			`not usable`, 0,
		},
	} {
		got, err := Feed(contract, c.reader, Schema{Text: c.schema})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var text strings.Builder
		for _, in := range got.Inputs {
			fmt.Fprintf(&text, "%s %s %q %q %q; ", in.Input, in.Status, in.WriterType, in.Conversion, in.Default)
			if (in.Status == Mismatched || in.Status == Missing) != (in.Reason != "") {
				t.Errorf("%s: %+v", c.name, in)
			}
		}
		text.WriteString(map[bool]string{true: "usable", false: "not usable"}[got.Usable])
		if text.String() != c.want || len(got.Refused) != c.refused {
			t.Errorf("%s:\n got %s\nwant %s\n%q", c.name, text.String(), c.want, got.Refused)
		}
		var out bytes.Buffer
		if err := got.WriteText(&out); err != nil || !strings.Contains(out.String(), "\nusable:") == got.Usable {
			t.Errorf("%s: %v\n%s", c.name, err, out.String())
		}
	}
}
