package scoring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Pipeline is the content of model.json: a flat list of steps over named columns.
//
// At the start there is one column for each declared input, under the input's name: a category, or a
// number. Every step reads columns and writes new ones; a name is written once. Transforms, models
// and links are all steps, so that a vote over pipelines or a stack of models is a longer list and
// not another form.
type Pipeline struct {
	Steps  []Step `json:"steps"`
	Output Output `json:"output"`
	// Background are rows of the training population, by input name as in reference.jsonl: what a model
	// that has no contributions of its own is explained by. None: then it has no reasons.
	Background backgroundRows `json:"background,omitempty"`
}

// Step is one transform with the columns that it reads and those that it writes.
type Step struct {
	Columns   []string
	Outputs   []string
	Transform Transform
}

// Transform says what a step does. The types of this package that implement it are all there are.
type Transform interface {
	// Type is the name in model.json.
	Type() string
	// compile adds the operations of the step and binds its outputs.
	compile(c *compiler, in []column, out []string) error
}

// Output names the columns that are the result.
type Output struct {
	// Margin is the raw output, before the link: one column, or one for each class.
	Margin []string `json:"margin"`
	// Probability is one column, that of churn, or one for each class.
	Probability []string `json:"probability"`
	// Classes are the names of the classes where there is a column for each of them.
	Classes []string `json:"classes,omitempty"`
	// Positive is the class that means churn, as a position in Classes; 0 without classes.
	Positive int `json:"positive,omitempty"`
}

type stepFile struct {
	Type       string          `json:"type"`
	Columns    []string        `json:"columns"`
	Outputs    []string        `json:"outputs"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
}

// MarshalJSON writes the form that ParsePipeline reads.
func (s Step) MarshalJSON() ([]byte, error) {
	parameters, err := json.Marshal(s.Transform)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Transform.Type(), err)
	}
	if string(parameters) == "{}" {
		parameters = nil
	}
	return json.Marshal(stepFile{s.Transform.Type(), s.Columns, s.Outputs, parameters})
}

// ParsePipeline reads model.json. It checks the form only; whether the pipeline fits a contract is
// seen when it is compiled. Memory stays within a small multiple of len(data).
func ParsePipeline(data []byte) (*Pipeline, error) {
	var raw struct {
		Steps      stepList       `json:"steps"`
		Output     Output         `json:"output"`
		Background backgroundRows `json:"background"`
	}
	if err := decodeStrict(data, &raw); err != nil {
		return nil, err
	}
	return &Pipeline{Steps: raw.Steps, Output: raw.Output, Background: raw.Background}, nil
}

// stepList reads one step after the other and stops at the first that is wrong: "{}" of a hostile file
// would else become a whole step in memory.
type stepList []Step

func (l *stepList) UnmarshalJSON(data []byte) error {
	known := transforms()
	return eachValue("steps", data, func(d *json.Decoder) error {
		var s stepFile
		if err := d.Decode(&s); err != nil {
			return err
		}
		transform, err := parseTransform(&s, known)
		if err != nil {
			return err
		}
		*l = append(*l, Step{s.Columns, s.Outputs, transform})
		return nil
	})
}

// eachValue calls do for every element of a JSON list, with a decoder that stands before it and
// refuses unknown fields.
func eachValue(name string, data []byte, do func(*json.Decoder) error) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if start, err := d.Token(); err != nil || start != json.Delim('[') {
		return fmt.Errorf("%s: %.40q is not a list", name, data)
	}
	for i := 0; d.More(); i++ {
		if err := do(d); err != nil {
			return fmt.Errorf("%s[%d]: %w", name, i, err)
		}
	}
	return nil
}

func parseTransform(s *stepFile, known map[string]func([]byte) (Transform, error)) (Transform, error) {
	parse, ok := known[s.Type]
	if !ok {
		return nil, fmt.Errorf("type %.60q is not supported", s.Type)
	}
	parameters := s.Parameters
	if parameters == nil {
		parameters = []byte("{}")
	}
	t, err := parse(parameters)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Type, err)
	}
	return t, nil
}

// transforms lists every type of step with its reader.
func transforms() map[string]func([]byte) (Transform, error) {
	list := []struct {
		is   Transform
		read func([]byte) (Transform, error)
	}{
		{Require{}, parseAs[Require]},
		{Impute{}, parseAs[Impute]},
		{MissingIndicator{}, parseAs[MissingIndicator]},
		{Scale{}, parseAs[Scale]},
		{MinMaxScale{}, parseAs[MinMaxScale]},
		{Clip{}, parseAs[Clip]},
		{Normalize{}, parseAs[Normalize]},
		{OneHot{}, parseAs[OneHot]},
		{Lookup{}, parseAs[Lookup]},
		{Bin{}, parseAs[Bin]},
		{Power{}, parseAs[Power]},
		{Quantile{}, parseAs[Quantile]},
		{Polynomial{}, parseAs[Polynomial]},
		{Function{}, parseAs[Function]},
		{DatePart{}, parseAs[DatePart]},
		{DaysBetween{}, parseAs[DaysBetween]},
		{Linear{}, parseAs[Linear]},
		{Logistic{}, parseAs[Logistic]},
		{Softmax{}, parseAs[Softmax]},
		{Share{}, parseAs[Share]},
		{Mean{}, parseAs[Mean]},
		{ArgMax{}, parseAs[ArgMax]},
		{Votes{}, parseAs[Votes]},
		{LogVotes{}, parseAs[LogVotes]},
		{Interpolate{}, parseAs[Interpolate]},
		{GaussianLikelihood{}, parseAs[GaussianLikelihood]},
		{CategoricalLikelihood{}, parseAs[CategoricalLikelihood]},
		{KernelMachine{}, parseAs[KernelMachine]},
		{PairwiseProbability{}, parseAs[PairwiseProbability]},
		{CategoryCode{}, parseAs[CategoryCode]},
		{Trees{}, parseAs[Trees]},
		{Booster{}, parseAs[Booster]},
	}
	table := make(map[string]func([]byte) (Transform, error), len(list))
	for _, t := range list {
		table[t.is.Type()] = t.read
	}
	return table
}

func parseAs[T Transform](parameters []byte) (Transform, error) {
	var t T
	if err := decodeStrict(parameters, &t); err != nil {
		return nil, err
	}
	return t, nil
}

// Floats is a list of finite numbers. encoding/json would leave null at 0; this type refuses it.
type Floats []float64

// UnmarshalJSON reads a list of numbers.
func (f *Floats) UnmarshalJSON(data []byte) error {
	return eachElement(data, func(text []byte) error {
		x, err := finiteNumber(text)
		*f = append(*f, x)
		return err
	})
}

// MarshalJSON writes the list; NaN and infinities are an error. Numbers keep every bit.
func (f Floats) MarshalJSON() ([]byte, error) {
	return appendFloats(f, func(dst []byte, x float64) ([]byte, error) {
		if !finite(x) {
			return nil, fmt.Errorf("%v has no JSON form", x)
		}
		return appendNumber(dst, x), nil
	})
}

// Gaps is a list of numbers that may be missing: null in JSON, NaN in memory.
type Gaps []float64

// UnmarshalJSON reads a list of numbers and nulls.
func (g *Gaps) UnmarshalJSON(data []byte) error {
	return eachElement(data, func(text []byte) error {
		if string(text) == "null" {
			*g = append(*g, nan)
			return nil
		}
		x, err := finiteNumber(text)
		*g = append(*g, x)
		return err
	})
}

// MarshalJSON writes NaN as null; infinities are an error.
func (g Gaps) MarshalJSON() ([]byte, error) {
	return appendFloats(g, func(dst []byte, x float64) ([]byte, error) {
		switch {
		case x != x:
			return append(dst, "null"...), nil
		case !finite(x):
			return nil, fmt.Errorf("%v has no JSON form", x)
		}
		return appendNumber(dst, x), nil
	})
}

// Ints is a list of small integers.
type Ints []int32

// UnmarshalJSON reads a list of integers.
func (n *Ints) UnmarshalJSON(data []byte) error {
	return eachElement(data, func(text []byte) error {
		x, err := strconv.ParseInt(string(text), 10, 32)
		if err != nil {
			return fmt.Errorf("%.40q is not an integer of 32 bits", text)
		}
		*n = append(*n, int32(x))
		return nil
	})
}

// Texts is a list of texts. encoding/json would leave null as the empty text: another category.
type Texts []string

// UnmarshalJSON reads a list of strings.
func (t *Texts) UnmarshalJSON(data []byte) error {
	var list []*string
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*t = make(Texts, len(list))
	for i, text := range list {
		if text == nil {
			return fmt.Errorf("element %d: null is not a category", i)
		}
		(*t)[i] = *text
	}
	return nil
}

// Value is one number or one text.
type Value struct {
	Number float64
	Text   *string // nil: the number counts
}

// TextValue is a value that is a text.
func TextValue(text string) Value { return Value{Text: &text} }

// UnmarshalJSON reads a number or a string.
func (v *Value) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &v.Text)
	}
	x, err := finiteNumber(data)
	v.Number = x
	return err
}

// MarshalJSON writes a number or a string.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.Text != nil {
		return json.Marshal(*v.Text)
	}
	return json.Marshal(v.Number)
}

// number refuses what encoding/json lets pass: null in the place of a number, which it would leave
// at 0.
type number float64

func (n *number) UnmarshalJSON(data []byte) error {
	x, err := finiteNumber(data)
	*n = number(x)
	return err
}

func finiteNumber(text []byte) (float64, error) {
	x, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !finite(x) {
		return 0, fmt.Errorf("%.40q is not a finite number", text)
	}
	return x, nil
}

// eachElement calls do for every element of a JSON list of scalars. The list is valid JSON, as
// encoding/json has seen to before it asks a type to read itself.
func eachElement(data []byte, do func(element []byte) error) error {
	if len(data) < 2 || data[0] != '[' {
		return fmt.Errorf("%.40q is not a list", data)
	}
	inner := bytes.TrimSpace(data[1 : len(data)-1])
	for i := 0; len(inner) > 0; i++ {
		element, rest, _ := bytes.Cut(inner, []byte{','})
		if err := do(bytes.TrimSpace(element)); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
		inner = rest
	}
	return nil
}

func appendFloats(list []float64, one func([]byte, float64) ([]byte, error)) ([]byte, error) {
	b := append(make([]byte, 0, 2+12*len(list)), '[')
	for i, x := range list {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = one(b, x); err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return append(b, ']'), nil
}

// appendNumber writes the shortest form that reads back to the same bits.
func appendNumber(dst []byte, x float64) []byte {
	if size := math.Abs(x); size != 0 && (size < 1e-6 || size >= 1e21) {
		return strconv.AppendFloat(dst, x, 'e', -1, 64)
	}
	return strconv.AppendFloat(dst, x, 'f', -1, 64)
}

// validate reports what is wrong with the output on its own.
func (o *Output) validate() error {
	classes := len(o.Probability)
	switch {
	case len(o.Margin) == 0 || classes == 0:
		return errors.New("margin or probability names no column")
	case classes == 1 && (len(o.Margin) != 1 || len(o.Classes) > 0 || o.Positive != 0):
		return errors.New("one probability wants one margin, no classes and positive 0")
	case classes > 1 && (len(o.Margin) != classes || len(o.Classes) != classes):
		return fmt.Errorf("%d probabilities with %d margins and %d classes", classes, len(o.Margin), len(o.Classes))
	case o.Positive < 0 || o.Positive >= classes:
		return fmt.Errorf("positive %d is no position among %d classes", o.Positive, classes)
	}
	if distinct := slices.Compact(slices.Sorted(slices.Values(o.Classes))); len(distinct) != len(o.Classes) {
		return errors.New("a class is listed twice")
	}
	return nil
}
