package scoring

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/churnstream/churnstream/schemas"
)

// Pipeline is the content of model.json: declared inputs go through the steps into features, the
// model makes a margin of the features, its link a probability.
//
// A step reads columns by name and replaces them. At the start there is one column for each
// declared input, under the input's name. A step that keeps one column for one keeps its name; one
// that makes several names them after the input, "Contract=Two year". A column that no step touches
// passes through.
type Pipeline struct {
	Steps []Step
	// Features are the columns that the model reads, in the order of its coefficients.
	Features []string
	// Background holds the mean of each feature over the training rows: the point that contributions
	// are measured from.
	Background []float64
	Model      LogisticRegression
}

// Step is one transform. The types of this package that implement it are all there are.
type Step interface {
	// Type is the name of the step in model.json.
	Type() string
	apply(t *table) error
}

// Impute puts a value in the place of a missing number: scikit-learn's SimpleImputer with the
// statistics that it recorded.
type Impute struct {
	Columns []string  `json:"columns"`
	Values  []float64 `json:"values"`
}

// StandardScale makes (x - mean) / scale of a number: scikit-learn's StandardScaler. A scale of 1
// stands for a column without variance.
type StandardScale struct {
	Columns []string  `json:"columns"`
	Mean    []float64 `json:"mean"`
	Scale   []float64 `json:"scale"`
}

// OneHot replaces a category by one column of 0 or 1 for each of its known values, named
// "column=value": scikit-learn's OneHotEncoder(handle_unknown="ignore"). A value that is not
// listed, or missing, gives 0 in all of them.
type OneHot struct {
	Columns    []string   `json:"columns"`
	Categories [][]string `json:"categories"` // for each column
	Unknown    string     `json:"unknown"`    // "ignore"
}

// LogisticRegression makes intercept + Σ coefficient·feature the margin (log-odds) and
// 1/(1+exp(-margin)) the probability.
type LogisticRegression struct {
	Coefficients []float64 // in the order of Pipeline.Features
	Intercept    float64
}

// Type names the step in model.json.
func (Impute) Type() string { return "impute" }

// Type names the step in model.json.
func (StandardScale) Type() string { return "standard_scale" }

// Type names the step in model.json.
func (OneHot) Type() string { return "one_hot" }

// UnknownIgnored is the only rule of OneHot for values that are not listed.
const UnknownIgnored = "ignore"

const logisticRegression = "logistic_regression"

// MarshalJSON writes the form that ParsePipeline reads. Numbers keep every bit; NaN and infinities
// are an error.
func (p *Pipeline) MarshalJSON() ([]byte, error) {
	steps := make([]json.RawMessage, len(p.Steps))
	for i, s := range p.Steps {
		var err error
		if steps[i], err = marshalStep(s); err != nil {
			return nil, fmt.Errorf("steps[%d] (%s): %w", i, s.Type(), err)
		}
	}
	return json.Marshal(struct {
		Steps      []json.RawMessage `json:"steps"`
		Features   []string          `json:"features"`
		Background []float64         `json:"background"`
		Model      any               `json:"model"`
	}{steps, p.Features, p.Background, struct {
		Type         string    `json:"type"`
		Coefficients []float64 `json:"coefficients"`
		Intercept    float64   `json:"intercept"`
	}{logisticRegression, p.Model.Coefficients, p.Model.Intercept}})
}

func marshalStep(s Step) (json.RawMessage, error) {
	switch s := s.(type) {
	case Impute:
		return json.Marshal(struct {
			Type string `json:"type"`
			Impute
		}{s.Type(), s})
	case StandardScale:
		return json.Marshal(struct {
			Type string `json:"type"`
			StandardScale
		}{s.Type(), s})
	case OneHot:
		return json.Marshal(struct {
			Type string `json:"type"`
			OneHot
		}{s.Type(), s})
	default:
		return nil, fmt.Errorf("no JSON form of %T", s)
	}
}

// ParsePipeline reads model.json. It checks the form only; whether the pipeline fits a contract is
// seen when it is compiled. Memory stays within a small multiple of len(data).
func ParsePipeline(data []byte) (*Pipeline, error) {
	var raw struct {
		Steps      []json.RawMessage `json:"steps"`
		Features   []string          `json:"features"`
		Background numbers           `json:"background"`
		Model      json.RawMessage   `json:"model"`
	}
	if err := decodeStrict(data, &raw); err != nil {
		return nil, err
	}
	p := &Pipeline{Features: raw.Features, Background: raw.Background.floats()}
	for i, s := range raw.Steps {
		step, err := parseStep(s)
		if err != nil {
			return nil, fmt.Errorf("steps[%d]: %w", i, err)
		}
		p.Steps = append(p.Steps, step)
	}
	kind, err := typeOf(raw.Model)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if kind != logisticRegression {
		return nil, fmt.Errorf("model: type %q is not supported, only %q is", kind, logisticRegression)
	}
	var model struct {
		Type         string  `json:"type"`
		Coefficients numbers `json:"coefficients"`
		Intercept    *number `json:"intercept"`
	}
	if err := decodeStrict(raw.Model, &model); err != nil {
		return nil, fmt.Errorf("model (%s): %w", kind, err)
	}
	if model.Intercept == nil {
		return nil, fmt.Errorf("model (%s): intercept is missing", kind)
	}
	p.Model = LogisticRegression{Coefficients: model.Coefficients.floats(), Intercept: float64(*model.Intercept)}
	return p, nil
}

func parseStep(data []byte) (Step, error) {
	kind, err := typeOf(data)
	if err != nil {
		return nil, err
	}
	switch kind {
	case Impute{}.Type():
		var s struct {
			Type    string   `json:"type"`
			Columns []string `json:"columns"`
			Values  numbers  `json:"values"`
		}
		if err := decodeStrict(data, &s); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		return Impute{Columns: s.Columns, Values: s.Values.floats()}, nil
	case StandardScale{}.Type():
		var s struct {
			Type    string   `json:"type"`
			Columns []string `json:"columns"`
			Mean    numbers  `json:"mean"`
			Scale   numbers  `json:"scale"`
		}
		if err := decodeStrict(data, &s); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		return StandardScale{Columns: s.Columns, Mean: s.Mean.floats(), Scale: s.Scale.floats()}, nil
	case OneHot{}.Type():
		var s struct {
			Type       string   `json:"type"`
			Columns    []string `json:"columns"`
			Categories [][]text `json:"categories"`
			Unknown    string   `json:"unknown"`
		}
		if err := decodeStrict(data, &s); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		categories := make([][]string, len(s.Categories))
		for i, list := range s.Categories {
			categories[i] = make([]string, len(list))
			for k, value := range list {
				categories[i][k] = string(value)
			}
		}
		return OneHot{Columns: s.Columns, Categories: categories, Unknown: s.Unknown}, nil
	default:
		return nil, fmt.Errorf("type %q is not supported", kind)
	}
}

func typeOf(data []byte) (string, error) {
	if len(data) == 0 {
		return "", errors.New("missing")
	}
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return "", err
	}
	return head.Type, nil
}

// number refuses what encoding/json lets pass: null in the place of a number, which it would leave
// at 0.
type number float64

func (n *number) UnmarshalJSON(data []byte) error {
	x, err := strconv.ParseFloat(string(data), 64)
	if err != nil {
		return fmt.Errorf("%.40q is not a finite number", data)
	}
	*n = number(x)
	return nil
}

type numbers []number

func (n numbers) floats() []float64 {
	out := make([]float64, len(n))
	for i, x := range n {
		out[i] = float64(x)
	}
	return out
}

// text refuses null, which encoding/json would leave as the empty text: another category.
type text string

func (t *text) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return errors.New("null is not a category")
	}
	return json.Unmarshal(data, (*string)(t))
}

// table is the state of the columns while the steps are applied at load. Engines are compiled from
// what it holds at the end.
type table struct {
	contract schemas.Contract
	columns  map[string]column
}

// column says how one value is computed from one input. Exactly one of the two forms is used.
type column struct {
	input int // index into the contract

	// A number: missing becomes fill (NaN: stays missing), then (x - mean) / scale.
	number      bool
	fill        float64
	filled      bool
	mean, scale float64
	scaled      bool

	// A column of a one-hot encoded category: 1 if the input has this value.
	oneHot bool
	value  string
	// categories are all values of the encoding that the column belongs to, value among them.
	categories []string
}

func newTable(contract schemas.Contract) *table {
	t := &table{contract: contract, columns: make(map[string]column, len(contract.Inputs))}
	for i, in := range contract.Inputs {
		t.columns[in.Name] = column{input: i, number: in.Kind != schemas.Category, fill: nan, scale: 1}
	}
	return t
}

// number returns the column called name if it holds a number.
func (t *table) number(name string) (column, error) {
	c, ok := t.columns[name]
	switch {
	case !ok:
		return c, fmt.Errorf("there is no column %q here", name)
	case c.oneHot:
		return c, fmt.Errorf("column %q is one-hot encoded already", name)
	case !c.number:
		return c, fmt.Errorf("column %q is a category, want a number", name)
	}
	return c, nil
}

func (s Impute) apply(t *table) error {
	if len(s.Values) != len(s.Columns) {
		return fmt.Errorf("%d values for %d columns", len(s.Values), len(s.Columns))
	}
	for i, name := range s.Columns {
		c, err := t.number(name)
		switch {
		case err != nil:
			return err
		case c.filled || c.scaled:
			return fmt.Errorf("column %q was imputed or scaled before; impute it once, ahead of scaling", name)
		case !bounded(s.Values[i]):
			return fmt.Errorf("column %q: the value %v is not a number from -%g to %g", name, s.Values[i], LargestNumber, LargestNumber)
		}
		c.fill, c.filled = s.Values[i], true
		t.columns[name] = c
	}
	return nil
}

func (s StandardScale) apply(t *table) error {
	if len(s.Mean) != len(s.Columns) || len(s.Scale) != len(s.Columns) {
		return fmt.Errorf("%d means and %d scales for %d columns", len(s.Mean), len(s.Scale), len(s.Columns))
	}
	for i, name := range s.Columns {
		c, err := t.number(name)
		switch {
		case err != nil:
			return err
		case c.scaled:
			return fmt.Errorf("column %q was scaled before; a second scaling is not supported", name)
		case !bounded(s.Mean[i]) || !bounded(s.Scale[i]) || s.Scale[i] <= 0:
			return fmt.Errorf("column %q: mean %v and scale %v, want a mean from -%g to %g and a scale above 0 up to %g", name, s.Mean[i], s.Scale[i], LargestNumber, LargestNumber, LargestNumber)
		}
		c.mean, c.scale, c.scaled = s.Mean[i], s.Scale[i], true
		t.columns[name] = c
	}
	return nil
}

func (s OneHot) apply(t *table) error {
	if s.Unknown != UnknownIgnored {
		return fmt.Errorf("unknown: got %q, only %q is supported", s.Unknown, UnknownIgnored)
	}
	if len(s.Categories) != len(s.Columns) {
		return fmt.Errorf("%d lists of categories for %d columns", len(s.Categories), len(s.Columns))
	}
	for i, name := range s.Columns {
		c, ok := t.columns[name]
		switch {
		case !ok:
			return fmt.Errorf("there is no column %q here", name)
		case c.number || c.oneHot:
			return fmt.Errorf("column %q is not a category", name)
		case len(s.Categories[i]) == 0:
			return fmt.Errorf("column %q: no categories", name)
		}
		delete(t.columns, name)
		for _, value := range s.Categories[i] {
			made := name + "=" + value
			if _, ok := t.columns[made]; ok {
				return fmt.Errorf("column %q would exist twice", made)
			}
			t.columns[made] = column{input: c.input, oneHot: true, value: value, categories: s.Categories[i]}
		}
	}
	return nil
}

// compile applies the steps and lowers the result to the model's engine.
func (p *Pipeline) compile(contract schemas.Contract) (*linear, error) {
	t := newTable(contract)
	for i, s := range p.Steps {
		if err := s.apply(t); err != nil {
			return nil, fmt.Errorf("steps[%d] (%s): %w", i, s.Type(), err)
		}
	}
	if len(p.Background) != len(p.Features) {
		return nil, fmt.Errorf("background: %d means for %d features", len(p.Background), len(p.Features))
	}
	seen := make(map[string]bool, len(p.Features))
	columns := make([]column, len(p.Features))
	for i, name := range p.Features {
		c, ok := t.columns[name]
		switch {
		case !ok:
			return nil, fmt.Errorf("features[%d]: no step leaves a column %q", i, name)
		case !c.number && !c.oneHot:
			return nil, fmt.Errorf("features[%d]: column %q is a category; encode it by a step first", i, name)
		case seen[name]:
			return nil, fmt.Errorf("features[%d]: %q is listed twice", i, name)
		case !bounded(p.Background[i]):
			return nil, fmt.Errorf("background[%d] (%s): %v is not a number from -%g to %g", i, name, p.Background[i], LargestNumber, LargestNumber)
		case c.number && !c.filled && contract.Inputs[c.input].Nullable:
			return nil, fmt.Errorf("features[%d]: input %q may be missing and the model cannot take a missing number; add an impute step", i, name)
		}
		seen[name] = true
		columns[i] = c
	}
	engine, err := compileLinear(contract, columns, p.Features, p.Background, p.Model)
	if err != nil {
		return nil, fmt.Errorf("model (%s): %w", logisticRegression, err)
	}
	return engine, nil
}
