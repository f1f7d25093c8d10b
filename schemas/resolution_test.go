package schemas

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/churnstream/churnstream/internal/avroschema"
)

// wanted is an input and what a decoder is to make of it.
type wanted struct {
	input    Input
	number   float64
	category []byte
}

// leaves gives every input that a datum, as the vectors have it, can feed through a reader's type.
func leaves(t *testing.T, reader *avroschema.Type, datum any, path string) []wanted {
	t.Helper()
	input := Input{Name: path, Nullable: true}
	number := func(x float64) []wanted {
		input.Kind = Number
		return []wanted{{input, x, nil}}
	}
	text := func(s []byte) []wanted {
		input.Kind = Category
		return []wanted{{input, math.NaN(), s}}
	}
	switch d := datum.(type) {
	case nil:
		for _, branch := range append(reader.Branches, reader) {
			switch {
			case branch.Kind == avroschema.String:
				return text(nil)
			case branch.Meaning() != avroschema.Plain:
				input.Kind = Timestamp
				return []wanted{{input, math.NaN(), nil}}
			case branch.Kind == avroschema.Long, branch.Kind == avroschema.Int, reader.Kind == avroschema.Null:
				return number(math.NaN())
			}
		}
	case bool:
		input.Kind = Boolean
		if d {
			return []wanted{{input, 1, nil}}
		}
		return []wanted{{input, 0, nil}}
	case float64:
		if reader.Kind == avroschema.Float {
			d = float64(float32(d))
		}
		return number(d)
	case string:
		return text([]byte(d))
	case map[string]any:
		if raw, ok := d["__bytes_hex"].(string); ok {
			b, err := hex.DecodeString(raw)
			if err != nil {
				t.Fatal(err)
			}
			if reader.Kind == avroschema.Bytes && utf8.Valid(b) {
				return text(b)
			}
			return nil
		}
		if repr, ok := d["__repr"].(string); ok {
			return number(pythonValue(t, repr, &input))
		}
		var found []wanted
		for i := range reader.Fields {
			f := &reader.Fields[i]
			found = append(found, leaves(t, f.Type, d[f.Name], join(path, f.Name))...)
		}
		return found
	}
	return nil
}

var digits = regexp.MustCompile(`[0-9]+`)

// pythonValue reads the text of a Decimal, date, time or datetime, and names the unit of the latter in the path.
func pythonValue(t *testing.T, repr string, input *Input) float64 {
	t.Helper()
	if number, ok := strings.CutPrefix(repr, "Decimal('"); ok {
		x, err := strconv.ParseFloat(strings.TrimSuffix(number, "')"), 64)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	var n [7]int
	for i, s := range digits.FindAllString(strings.SplitN(repr, ", tzinfo", 2)[0], -1) {
		n[i], _ = strconv.Atoi(s)
	}
	unit, x := ".millis", 0.0
	switch {
	case strings.HasPrefix(repr, "datetime.date("):
		unit, x = ".days", float64(time.Date(n[0], time.Month(n[1]), n[2], 0, 0, 0, 0, time.UTC).Unix()/secondsPerDay)
	case strings.HasPrefix(repr, "datetime.time("):
		x = float64(((n[0]*60+n[1])*60+n[2])*1000 + n[3]/1000)
	case strings.HasPrefix(repr, "datetime.datetime("):
		x = float64(time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], n[6]*1000, time.UTC).UnixMilli())
	default:
		t.Fatalf("%s is not understood", repr)
	}
	input.Name += unit
	return x
}

// TestDecodingAgreesWithTheAvroProject runs the reference implementation's own decodes. A vector's datum becomes field v
// of a record, and everything in it that an input can be is read.
func TestDecodingAgreesWithTheAvroProject(t *testing.T) {
	compressed, err := os.Open("testdata/decode_vectors.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer compressed.Close()
	raw, err := gzip.NewReader(compressed)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Writer, Reader      json.RawMessage
		Hex, Error, Message string
		Datum               any
	}
	if err := json.NewDecoder(raw).Decode(&vectors); err != nil {
		t.Fatal(err)
	}
	values, accepted, refused := 0, 0, 0
	excused := map[string]int{}
	for i, v := range vectors {
		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("vector %d: %s\nwriter %.300s\nreader %.300s\nbytes %.80s", i, fmt.Sprintf(format, args...), v.Writer, v.Reader, v.Hex)
		}
		body, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		within := func(schema json.RawMessage) string {
			return `{"type":"record","name":"AroundTheVector","fields":[{"name":"v","type":` + string(schema) + `}]}`
		}
		reader, err := avroschema.Parse(within(v.Reader))
		if err != nil {
			t.Fatal(err)
		}
		list := leaves(t, reader.Fields[0].Type, v.Datum, "v")
		inputs := []Input{{Name: "nothing", Kind: Number, Nullable: true}}
		if v.Error != "" {
			list = nil
		}
		for _, w := range list {
			inputs = append(inputs, w.input)
		}
		rows := NewRows(len(inputs), 1)
		decoder, err := NewDecoder(DecoderConfig{Contract: Contract{inputs}, Reader: within(v.Reader), Framing: Bare, Schemas: []string{within(v.Writer)}})
		if err == nil {
			err = decoder.Decode(context.Background(), body, rows)
		}
		if len(body) == 0 && string(v.Writer) == `"null"` && err != nil {
			excused["an event of no bytes is a tombstone"]++
			continue
		}
		switch {
		case strings.Contains(v.Hex, "04") && len(body) == 1 && err != nil && strings.Contains(err.Error(), "enum index 2, there are 2"):
			excused["Python reads an index that the writer's enum does not have as its default; such bytes are damaged"]++
		case v.Error != "" && err != nil:
			refused++
		case v.Error == "AvroCollectionSizeException":
			excused["a limit of the Python implementation: elements without bytes cost us nothing"]++
		case v.Error != "":
			fail("accepted, the reference says %s: %s", v.Error, v.Message)
		case err != nil && strings.Contains(err.Error(), "contains itself"):
			excused["a schema that contains itself is refused"]++
		case err != nil && strings.Contains(string(v.Reader), `"default": "\u00ff\u00ff"`):
			excused["Python writes a default of bytes as UTF-8; the specification has one byte for each character"]++
		case err != nil:
			fail("%v", err)
		default:
			if len(list) == 0 {
				accepted++
			}
			for j, w := range list {
				values++
				if !sameRow(rows.Numbers[j+1:j+2], []float64{w.number}) || !sameCategories(rows.Categories[j+1:j+2], [][]byte{w.category}) {
					fail("%s is %v %q, want %v %q", w.input.Name, rows.Numbers[j+1], rows.Categories[j+1], w.number, w.category)
				}
			}
		}
	}
	t.Logf("%d vectors: %d values compared, %d without any accepted, %d refused; excused: %v", len(vectors), values, accepted, refused, excused)
	if len(vectors) != 111 || values < 70 || refused < 13 {
		t.Errorf("%d vectors, %d values, %d refused", len(vectors), values, refused)
	}
}

func TestSingleObjectEncodingOfJavaIsRead(t *testing.T) {
	value, err := os.ReadFile("testdata/single_object.bin")
	if err != nil {
		t.Fatal(err)
	}
	schema, err := os.ReadFile("testdata/single_object.avsc")
	if err != nil {
		t.Fatal(err)
	}
	inputs := Contract{[]Input{{Name: "id", Kind: Number}, {Name: "name", Kind: Category}}}
	decoder, err := NewDecoder(DecoderConfig{Contract: inputs, Framing: SingleObject, Schemas: []string{ScoreSchema(), string(schema)}})
	if err != nil {
		t.Fatal(err)
	}
	rows := NewRows(2, 1)
	if err := decoder.Decode(context.Background(), value, rows); err != nil {
		t.Fatal(err)
	}
	if rows.Numbers[0] != 42 || string(rows.Categories[1]) != "Bill" {
		t.Errorf("%v %q", rows.Numbers, rows.Categories)
	}
}

func TestConfluentVectorsAreRead(t *testing.T) {
	raw, err := os.ReadFile("testdata/confluent_wire.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Schemas  map[string]json.RawMessage
		Messages []struct {
			Name, Hex string
			Error     *string
			Native    json.RawMessage `json:"avro_json"`
		} `json:"avro_messages"`
		Headers []struct {
			ID     int32
			Header string `json:"header_hex"`
		}
		BadHeaders []struct{ Hex, Error string } `json:"bad_headers"`
	}
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	known := map[int32]string{}
	for id, schema := range vectors.Schemas {
		n, err := strconv.Atoi(id)
		if err != nil {
			t.Fatal(err)
		}
		known[int32(n)] = string(schema)
	}
	inputs := Contract{[]Input{
		{Name: "Name", Kind: Category, Nullable: true},
		{Name: "Address.City", Kind: Category, Nullable: true},
		{Name: "MaybeHobby", Kind: Category, Nullable: true},
		{Name: "int_time_millis.millis", Kind: Number, Nullable: true},
		{Name: "long_time_micros.millis", Kind: Number, Nullable: true},
		{Name: "long_timestamp_micros", Kind: Timestamp, Nullable: true},
		{Name: "pos_0_33333333", Kind: Number, Nullable: true},
	}}
	decoder, err := NewDecoder(DecoderConfig{Contract: inputs, Registry: &fixedRegistry{schemas: known}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"successful message":                           `["foo" "foo" "dancing"] [NaN NaN NaN NaN]`,
		"successful message with null hobby":           `["foo" "foo" ""] [NaN NaN NaN NaN]`,
		"successful message no address and null hobby": `["foo" "" ""] [NaN NaN NaN NaN]`,
		"successful message with logical types":        `["" "" ""] [3.5245e+07 2.0192e+10 6.21355968e+13 0.33]`,
	}
	good, bad := 0, 0
	for _, m := range vectors.Messages {
		value, err := hex.DecodeString(m.Hex)
		if err != nil {
			t.Fatal(err)
		}
		rows := NewRows(len(inputs.Inputs), 1)
		err = decoder.Decode(context.Background(), value, rows)
		if m.Error != nil {
			bad++
			if err == nil {
				t.Errorf("%s: accepted", m.Name)
			}
			continue
		}
		good++
		if got := fmt.Sprintf("%q %v", rows.Categories[:3], rows.Numbers[3:]); err != nil || got != want[m.Name] {
			t.Errorf("%s: %s %v, want %s", m.Name, got, err, want[m.Name])
		}
	}
	if good != 4 || bad != 3 {
		t.Errorf("%d good, %d bad", good, bad)
	}
	for _, h := range vectors.Headers {
		if !strings.HasPrefix(h.Header, hex.EncodeToString(AppendFrame(nil, h.ID))) {
			t.Errorf("the frame of %d is %x, want %s", h.ID, AppendFrame(nil, h.ID), h.Header)
		}
	}
	for _, h := range vectors.BadHeaders[:2] {
		value, err := hex.DecodeString(h.Hex)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := SplitFrame(value); err == nil {
			t.Errorf("%s is accepted, want %s", h.Hex, h.Error)
		}
	}
}
