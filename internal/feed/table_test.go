package feed_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/schemas"
)

func contract() schemas.Contract {
	low := 0.0
	return schemas.Contract{Inputs: []schemas.Input{
		{Name: "tenure", Kind: schemas.Number, Min: &low},
		{Name: "plan", Kind: schemas.Category, Nullable: true},
		{Name: "autopay", Kind: schemas.Boolean},
	}}
}

const schemaID = 7

type opener func(io.Reader, schemas.Contract, []byte, string) (feed.Source, error)

func TestRowsBecomeEventsOfTheContract(t *testing.T) {
	for name, c := range map[string]struct {
		open opener
		text string
	}{
		"CSV":        {feed.CSV, "plan,id,autopay,tenure,more\nbasic plan,a-1,Yes,12.5,x\n,b-2,0,0,\n"},
		"JSON lines": {feed.JSONLines, `{"id":"a-1","tenure":12.5,"plan":"basic plan","autopay":"yes","more":[1]}` + "\n\n" + `{"id":"b-2","tenure":0,"plan":null,"autopay":false}`},
	} {
		t.Run(name, func(t *testing.T) {
			source, err := c.open(strings.NewReader(c.text), contract(), schemas.AppendFrame(nil, schemaID), "id")
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{`a-1 [12.5 NaN 1] ["" "basic plan" ""]`, `b-2 [0 NaN 0] ["" "" ""]`} {
				var e feed.Event
				if err := source.Next(&e); err != nil {
					t.Fatal(err)
				}
				if got := string(e.Key) + " " + decoded(t, e.Value); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
			if err := source.Next(&feed.Event{}); !errors.Is(err, io.EOF) {
				t.Errorf("after the last row: %v", err)
			}
		})
	}
}

func TestFaultsOfRowsNameTheirPlaceAndGoodRowsComeFirst(t *testing.T) {
	const header, row = "id,tenure,plan,autopay\n", "a,1,basic,1\n"
	const object = `{"id":"a","tenure":1,"plan":"basic","autopay":true}` + "\n"
	for name, c := range map[string]struct {
		open opener
		text string
		good int
		want []string
	}{
		"CSV: a number":        {feed.CSV, header + row + "b,many,,1\n", 1, []string{"row 1 (line 3)", `"tenure"`, `"many"`}},
		"CSV: a range":         {feed.CSV, header + "b,-1,,1\n", 0, []string{"row 0 (line 2)", `"tenure"`, "below"}},
		"CSV: no value":        {feed.CSV, header + row + row + "b,1,,\n", 2, []string{"row 2 (line 4)", `"autopay"`, "missing"}},
		"CSV: no customer":     {feed.CSV, header + row + ",1,,1\n", 1, []string{"row 1 (line 3)", `"id"`, "--key"}},
		"CSV: a short row":     {feed.CSV, header + row + "b,1\n", 1, []string{"row 1", "wrong number of fields"}},
		"JSON: a number":       {feed.JSONLines, object + `{"id":"b","tenure":"1","autopay":true}`, 1, []string{"row 1 (line 2)", `"tenure"`, "is not a number"}},
		"JSON: a range":        {feed.JSONLines, `{"id":"b","tenure":-1,"autopay":true}`, 0, []string{"row 0 (line 1)", `"tenure"`, "below"}},
		"JSON: no value":       {feed.JSONLines, object + "\n" + `{"id":"b","tenure":1}`, 1, []string{"row 1 (line 3)", `"autopay"`, "missing"}},
		"JSON: no customer":    {feed.JSONLines, object + `{"tenure":1,"autopay":true}`, 1, []string{"row 1 (line 2)", `"id"`, "--key"}},
		"JSON: empty customer": {feed.JSONLines, `{"id":"","tenure":1,"autopay":true}`, 0, []string{"row 0 (line 1)", `"id"`, "--key"}},
		"JSON: customer 12":    {feed.JSONLines, `{"id":12,"tenure":1,"autopay":true}`, 0, []string{"row 0 (line 1)", `"id"`, "text"}},
		"JSON: no object":      {feed.JSONLines, object + "[1]", 1, []string{"row 1 (line 2)", "not a JSON object"}},
		"JSON: no UTF-8":       {feed.JSONLines, object + "{\"id\":\"b\",\"tenure\":1,\"plan\":\"\xff\",\"autopay\":true}", 1, []string{"row 1 (line 2)", "UTF-8"}},
	} {
		t.Run(name, func(t *testing.T) {
			source, err := c.open(strings.NewReader(c.text), contract(), schemas.AppendFrame(nil, schemaID), "id")
			if err != nil {
				t.Fatal(err)
			}
			var e feed.Event
			good := 0
			for err = source.Next(&e); err == nil; err = source.Next(&e) {
				good++
			}
			if good != c.good {
				t.Errorf("%d good rows before the fault, want %d", good, c.good)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not named in: %v", want, err)
				}
			}
		})
	}
}

func TestAFileThatCannotBeMatchedIsRefusedBeforeItsFirstRow(t *testing.T) {
	for name, c := range map[string]struct {
		text, key string
		contract  schemas.Contract
		want      []string
	}{
		"no column for the key": {"id,tenure,autopay\n", "customer", contract(), []string{`"customer"`, "--key", `"id" "tenure" "autopay"`}},
		"no column for inputs":  {"id\n", "id", contract(), []string{`"tenure"`, `"autopay"`}},
		"nothing":               {"", "id", contract(), []string{"header"}},
		"a contract of nothing": {"id\n", "id", schemas.Contract{}, []string{"contract"}},
	} {
		source, err := feed.CSV(strings.NewReader(c.text), c.contract, schemas.AppendFrame(nil, schemaID), c.key)
		if err == nil {
			t.Errorf("%s: got %v", name, source)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not named in: %v", name, want, err)
			}
		}
	}
}

// decoded reads an event as the worker does.
func decoded(t *testing.T, value []byte) string {
	t.Helper()
	schema, err := contract().AvroSchema()
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := schemas.NewDecoder(schemas.DecoderConfig{Contract: contract(), Registry: registry(schema)})
	if err != nil {
		t.Fatal(err)
	}
	rows := schemas.NewRows(len(contract().Inputs), 1)
	if err := decoder.Decode(t.Context(), value, rows); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%v %q", rows.Numbers, rows.Categories)
}

// registry knows one schema.
type registry string

func (r registry) SchemaByID(_ context.Context, id int32) (schemas.Schema, error) {
	if id != schemaID {
		return schemas.Schema{}, schemas.ErrSchemaNotFound
	}
	return schemas.Schema{Text: string(r)}, nil
}

func (r registry) Register(context.Context, string, string) (int32, error) { return schemaID, nil }
