package httpapi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// inputSchemas are the bodies that the loaded model takes.
type inputSchemas struct {
	customer *huma.Schema // a body of /v1/predict, by reference
	event    *huma.Schema // a body of /v1/events, by reference
	example  map[string]any
}

// inputSchemas derives the schemas of bodies from the model's contract, with a row of the artefact as the example.
func (s *Server) inputSchemas() (inputSchemas, error) {
	contract := s.deps.Model.Contract()
	example, err := exampleRow(s.deps.ModelDir, contract)
	if err != nil {
		return inputSchemas{}, err
	}
	one := 1
	most := maxCustomerBytes
	build := func(name, about string, extra map[string]*huma.Schema) *huma.Schema {
		schema := &huma.Schema{
			Type: huma.TypeObject, Description: about, AdditionalProperties: false, Properties: map[string]*huma.Schema{}, Examples: []any{example},
		}
		for _, in := range contract.Inputs {
			schema.Properties[in.Name] = propertyOf(in)
			if !in.Nullable {
				schema.Required = append(schema.Required, in.Name)
			}
		}
		for name, property := range extra {
			schema.Properties[name] = property
		}
		s.api.OpenAPI().Components.Schemas.Map()[name] = schema
		return &huma.Schema{Ref: "#/components/schemas/" + name}
	}
	customer := func(about string) *huma.Schema {
		return &huma.Schema{Type: huma.TypeString, MinLength: &one, MaxLength: &most, Description: about + fmt.Sprintf(" At most %d bytes of UTF-8.", maxCustomerBytes)}
	}
	in := inputSchemas{example: example}
	optional := customer("Who it is about. Without it the answer carries an id that was made for it.")
	optional.Nullable = true
	in.customer = build("CustomerInputs", "The inputs of "+s.deps.Model.Name()+"@"+s.deps.Model.Version()+" for one customer", map[string]*huma.Schema{
		customerField: optional,
	})
	in.event = build("CustomerEvent", "An event of one customer: the inputs of the model at a time", map[string]*huma.Schema{
		customerField:  customer("Who it is about: the key of the record."),
		eventTimeField: {Type: huma.TypeString, Nullable: true, Format: "date-time", Description: "When it happened; without it, now. No more than 50 minutes in the future."},
	})
	event := s.api.OpenAPI().Components.Schemas.Map()["CustomerEvent"]
	event.Required = append(event.Required, customerField)
	withCustomer := map[string]any{customerField: "c-1"}
	for name, value := range example {
		withCustomer[name] = value
	}
	event.Examples = []any{withCustomer}
	return in, nil
}

func propertyOf(in schemas.Input) *huma.Schema {
	p := &huma.Schema{Nullable: in.Nullable}
	switch in.Kind {
	case schemas.Number:
		p.Type, p.Format = huma.TypeNumber, "double"
		p.Minimum, p.Maximum = in.Min, in.Max
		if p.Minimum == nil && p.Maximum == nil {
			low, high := -scoring.LargestNumber, scoring.LargestNumber
			p.Minimum, p.Maximum = &low, &high
		}
	case schemas.Category:
		p.Type = huma.TypeString
	case schemas.Boolean:
		p = &huma.Schema{AnyOf: []*huma.Schema{
			{Type: huma.TypeBoolean, Nullable: in.Nullable},
			{Type: huma.TypeInteger, Enum: []any{0, 1}},
			{Type: huma.TypeString, Pattern: "^(0|1|[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[Yy][Ee][Ss]|[Nn][Oo])$"},
		}}
	case schemas.Date:
		p.Type, p.Format, p.Description = huma.TypeString, "date", within(in, func(day float64) string {
			return time.Unix(int64(day)*86400, 0).UTC().Format(time.DateOnly)
		})
	case schemas.Timestamp:
		least, most := -float64(1<<53), float64(1<<53)
		if in.Min != nil {
			least = *in.Min
		}
		if in.Max != nil {
			most = *in.Max
		}
		p = &huma.Schema{AnyOf: []*huma.Schema{
			{Type: huma.TypeString, Format: "date-time", Nullable: in.Nullable, Description: within(in, func(ms float64) string {
				return time.UnixMilli(int64(ms)).UTC().Format(time.RFC3339)
			})},
			{Type: huma.TypeInteger, Minimum: &least, Maximum: &most, Description: "Milliseconds since 1970"},
		}}
	}
	return p
}

// within says in words what JSON Schema has no keyword for.
func within(in schemas.Input, show func(float64) string) string {
	switch {
	case in.Min != nil && in.Max != nil:
		return "From " + show(*in.Min) + " to " + show(*in.Max)
	case in.Min != nil:
		return "From " + show(*in.Min)
	case in.Max != nil:
		return "Up to " + show(*in.Max)
	default:
		return ""
	}
}

// exampleRow is the first reference row of the artefact, or, without one, a value of each kind.
func exampleRow(dir string, contract schemas.Contract) (map[string]any, error) {
	example := map[string]any{}
	f, err := os.Open(filepath.Join(dir, scoring.ReferenceFile))
	if err == nil {
		defer f.Close()
		line, _, err := bufio.NewReaderSize(f, 1<<20).ReadLine()
		var reference struct {
			Inputs map[string]any `json:"inputs"`
		}
		if err == nil && json.Unmarshal(line, &reference) == nil {
			for name, value := range reference.Inputs {
				if value != nil && contract.Index(name) >= 0 {
					example[name] = value
				}
			}
		}
	}
	for _, in := range contract.Inputs {
		if _, ok := example[in.Name]; ok || in.Nullable {
			continue
		}
		x := 0.0
		if in.Min != nil {
			x = math.Ceil(*in.Min)
		} else if in.Max != nil {
			x = math.Min(0, math.Floor(*in.Max))
		}
		rows := schemas.NewRows(1, 1)
		numbers, texts := rows.Row(rows.Append())
		numbers[0], texts[0] = x, []byte("example")
		if in.Kind != schemas.Category {
			texts[0] = nil
		}
		text, err := schemas.Contract{Inputs: []schemas.Input{in}}.AppendJSON(nil, numbers, texts)
		if err == nil {
			err = json.Unmarshal(text, &example)
		}
		if err != nil {
			return nil, fmt.Errorf("example of %s: %w", in.Name, err)
		}
	}
	return example, nil
}
