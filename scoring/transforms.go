package scoring

import (
	"errors"
	"fmt"
	"math"

	"github.com/churnstream/churnstream/schemas"
)

// Require refuses rows that the training library refuses. It writes nothing.
type Require struct {
	// Present refuses NaN, and a missing category.
	Present bool `json:"present,omitempty"`
	// Finite refuses infinities.
	Finite bool `json:"finite,omitempty"`
	// Single refuses what float32 cannot hold as a finite number.
	Single bool `json:"single,omitempty"`
}

// Impute puts a value in the place of a missing one: scikit-learn's SimpleImputer with the
// statistics that it recorded.
type Impute struct {
	Values []Value `json:"values"` // one for each column
	// Missing is what stands for a missing value; nil: NaN, and the absence of a category.
	Missing *Value `json:"missing,omitempty"`
}

// MissingIndicator writes 1 where a value is missing and 0 elsewhere.
type MissingIndicator struct {
	Missing *Value `json:"missing,omitempty"` // as in Impute
}

// Scale makes (x - mean) / scale of a number: scikit-learn's StandardScaler, RobustScaler and
// MaxAbsScaler. A scale of 1 stands for a column without variance.
type Scale struct {
	Mean  Floats `json:"mean"`
	Scale Floats `json:"scale"`
}

// MinMaxScale makes x·scale + offset: scikit-learn's MinMaxScaler.
type MinMaxScale struct {
	Scale  Floats `json:"scale"`
	Offset Floats `json:"offset"`
}

// Clip moves numbers outside a range to its nearer bound. NaN stays.
type Clip struct {
	Range Floats `json:"range"` // low and high
}

// Normalize divides the columns of a row by their norm: scikit-learn's Normalizer. A norm below
// 10·2⁻⁵² counts as 1.
type Normalize struct {
	Norm string `json:"norm"` // "l1", "l2" or "max"
}

// OneHot writes columns of 0 and 1 for the values of each column it reads: scikit-learn's
// OneHotEncoder. Code k of column i puts 1 into column Positions[i][k] of the Widths[i] outputs that
// belong to it, and into none of them if that is -1.
type OneHot struct {
	Encodings []Encoding `json:"encodings"`
	Positions []Ints     `json:"positions"`
	Widths    Ints       `json:"widths"`
}

// Lookup writes a number for a value: scikit-learn's OrdinalEncoder and TargetEncoder. Results[i][k]
// is the number for code k of column i; null is a missing number.
type Lookup struct {
	Encodings []Encoding `json:"encodings"`
	Results   []Gaps     `json:"results"`
}

// Bin writes how many of the ascending edges are not above the number: scikit-learn's
// KBinsDiscretizer with the inner edges of each column.
type Bin struct {
	Edges []Floats `json:"edges"`
}

// Power raises numbers to a power: scikit-learn's PowerTransformer without its scaling.
type Power struct {
	Method  string `json:"method"` // one of the methods below
	Lambdas Floats `json:"lambdas"`
}

// Methods of Power. The second computes the same as the first through logarithms, as scikit-learn
// does since it leaves the matter to scipy.
const (
	YeoJohnson    = "yeo_johnson"
	YeoJohnsonLog = "yeo_johnson_log"
	BoxCox        = "box_cox"
)

// Quantile maps numbers to the share of the training rows below them: scikit-learn's
// QuantileTransformer.
type Quantile struct {
	Quantiles  []Floats `json:"quantiles"` // ascending, one list for each column
	References Floats   `json:"references"`
	Normal     bool     `json:"normal,omitempty"` // the result is a quantile of the normal distribution
	// Range is what a quantile of the normal distribution is clipped to, as the library computed it: a
	// step after this one may ask whether a value is the lowest.
	Range Floats `json:"range,omitempty"`
}

// Polynomial writes products of powers of the columns: scikit-learn's PolynomialFeatures.
type Polynomial struct {
	Powers []Ints `json:"powers"` // for each output the exponent of each column
}

// Function applies a function to each column.
type Function struct {
	Name string `json:"name"`
}

// DatePart writes parts of a date, one for each output.
type DatePart struct {
	Unit  string   `json:"unit"`  // of the one column
	Parts []string `json:"parts"` // year, quarter, month, day, weekday (Monday is 0), day_of_year, hour, days (since 1970)
}

// DaysBetween writes second column - first column in days.
type DaysBetween struct {
	Units []string `json:"units"` // of the two columns
}

// Type names the step in model.json.
func (Require) Type() string { return "require" }

// Type names the step in model.json.
func (Impute) Type() string { return "impute" }

// Type names the step in model.json.
func (MissingIndicator) Type() string { return "missing_indicator" }

// Type names the step in model.json.
func (Scale) Type() string { return "scale" }

// Type names the step in model.json.
func (MinMaxScale) Type() string { return "min_max_scale" }

// Type names the step in model.json.
func (Clip) Type() string { return "clip" }

// Type names the step in model.json.
func (Normalize) Type() string { return "normalize" }

// Type names the step in model.json.
func (OneHot) Type() string { return "one_hot" }

// Type names the step in model.json.
func (Lookup) Type() string { return "lookup" }

// Type names the step in model.json.
func (Bin) Type() string { return "bin" }

// Type names the step in model.json.
func (Power) Type() string { return "power" }

// Type names the step in model.json.
func (Quantile) Type() string { return "quantile" }

// Type names the step in model.json.
func (Polynomial) Type() string { return "polynomial" }

// Type names the step in model.json.
func (Function) Type() string { return "function" }

// Type names the step in model.json.
func (DatePart) Type() string { return "date_part" }

// Type names the step in model.json.
func (DaysBetween) Type() string { return "days_between" }

func (t Require) compile(c *compiler, in []column, out []string) error {
	if len(out) > 0 {
		return fmt.Errorf("%d outputs, want none", len(out))
	}
	for i := range in {
		col := &in[i]
		if !col.number() {
			if t.Present {
				c.emit(&requireCategory{col.input, c.inputs[col.input].errors}, nil, nil)
			}
			continue
		}
		c.emit(&requireNumber{t, col.slot, c.errorsOf(col)}, []int32{col.slot}, nil)
		if col.form.kind == formNumber && !t.Single {
			c.nodes[len(c.nodes)-1].guards = []int32{col.form.input}
		}
	}
	return nil
}

type requireCategory struct {
	input  int32
	errors inputErrors
}

func (o *requireCategory) run(f *frame) {
	for r := range f.n {
		if f.category(r, o.input) == nil {
			f.refuse(r, o.errors.missing)
		}
	}
}

type requireNumber struct {
	Require
	slot   int32
	errors inputErrors
}

func (o *requireNumber) run(f *frame) {
	for r, x := range f.column(o.slot) {
		if o.Single {
			x = float64(float32(x))
		}
		if x-x == 0 {
			continue
		}
		if x != x {
			if o.Present {
				f.refuse(r, o.errors.missing)
			}
		} else if o.Finite || o.Single {
			f.refuse(r, o.errors.infinite)
		}
	}
}

func (t Impute) compile(c *compiler, in []column, out []string) error {
	if err := errors.Join(oneForOne(in, out), sameLength("values", len(t.Values), len(in))); err != nil {
		return err
	}
	for i := range in {
		col, value := in[i], t.Values[i]
		if col.number() != (value.Text == nil) || t.Missing != nil && col.number() != (t.Missing.Text == nil) {
			return fmt.Errorf("column %.60q: a text for a number or a number for a category", col.name)
		}
		if !col.number() {
			var from *string
			if t.Missing != nil {
				from = t.Missing.Text
			}
			col.substitutes = append(col.substitutes[:len(col.substitutes):len(col.substitutes)], substitute{from, *value.Text})
			if err := c.bind(out[i], col); err != nil {
				return err
			}
			continue
		}
		if !bounded(value.Number) {
			return fmt.Errorf("column %.60q: %v is not a number from -%g to %g", col.name, value.Number, LargestNumber, LargestNumber)
		}
		from := col
		op := &impute{from: from.slot, to: c.slot(), fill: value.Number, missing: nan}
		if t.Missing != nil {
			op.missing = t.Missing.Number
		}
		col.slot = op.to
		if f := &col.form; f.kind == formNumber && !f.filled && !f.scaled && t.Missing == nil {
			f.fill, f.filled = value.Number, true
		} else {
			col.form = form{}
		}
		c.emit(op, []int32{op.from}, []int32{op.to})
		if err := c.bind(out[i], col); err != nil {
			return err
		}
	}
	return nil
}

type impute struct {
	from, to      int32
	fill, missing float64
}

func (o *impute) run(f *frame) {
	to := f.column(o.to)
	for r, x := range f.column(o.from) {
		if o.absent(x) {
			x = o.fill
		}
		to[r] = x
	}
}

func (o *impute) absent(x float64) bool { return x == o.missing || x != x && o.missing != o.missing }

func (t MissingIndicator) compile(c *compiler, in []column, out []string) error {
	if err := oneForOne(in, out); err != nil {
		return err
	}
	for i := range in {
		col := &in[i]
		if t.Missing != nil && col.number() != (t.Missing.Text == nil) {
			return fmt.Errorf("column %.60q: a text for a number or a number for a category", col.name)
		}
		to, err := c.make(out[i], col.group)
		if err != nil {
			return err
		}
		if col.number() {
			op := &indicateNumber{impute{from: col.slot, to: to, missing: nan}}
			if t.Missing != nil {
				op.missing = t.Missing.Number
			}
			c.emit(op, []int32{col.slot}, []int32{to})
			continue
		}
		if len(col.substitutes) > 0 {
			return fmt.Errorf("column %.60q was imputed before", col.name)
		}
		op := &indicateCategory{input: col.input, to: to}
		if t.Missing != nil {
			op.text = []byte(*t.Missing.Text)
		}
		c.emit(op, nil, []int32{to})
	}
	return nil
}

type indicateNumber struct{ impute }

func (o *indicateNumber) run(f *frame) {
	to := f.column(o.to)
	for r, x := range f.column(o.from) {
		to[r] = truth(o.absent(x))
	}
}

type indicateCategory struct {
	input, to int32
	text      []byte // nil: absence
}

func (o *indicateCategory) readsInputs(mark, _ []bool) { mark[o.input] = true }

func (o *indicateCategory) run(f *frame) {
	to := f.column(o.to)
	for r := range to {
		value := f.category(r, o.input)
		to[r] = truth(value == nil && o.text == nil || value != nil && o.text != nil && string(value) == string(o.text))
	}
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (t Scale) compile(c *compiler, in []column, out []string) error {
	if err := errors.Join(oneForOne(in, out), sameLength("mean", len(t.Mean), len(in)), sameLength("scale", len(t.Scale), len(in)),
		allBounded("mean", t.Mean), allBounded("scale", t.Scale)); err != nil {
		return err
	}
	slots, err := numberSlots(in)
	if err != nil {
		return err
	}
	for i, col := range in {
		if t.Scale[i] == 0 {
			return fmt.Errorf("scale[%d] (%.60q) is 0", i, col.name)
		}
		op := &scale{from: slots[i], to: c.slot(), mean: t.Mean[i], scale: t.Scale[i]}
		col.slot = op.to
		if f := &col.form; f.kind == formNumber && !f.scaled {
			f.mean, f.scale, f.scaled = op.mean, op.scale, true
		} else {
			col.form = form{}
		}
		c.emit(op, []int32{op.from}, []int32{op.to})
		if err := c.bind(out[i], col); err != nil {
			return err
		}
	}
	return nil
}

type scale struct {
	from, to    int32
	mean, scale float64
}

func (o *scale) run(f *frame) {
	to := f.column(o.to)
	for r, x := range f.column(o.from) {
		to[r] = (x - o.mean) / o.scale
	}
}

// each binds an output for every column and emits an operation that computes it number by number.
func each(c *compiler, in []column, out []string, function func(i int) func(float64) float64) error {
	if err := oneForOne(in, out); err != nil {
		return err
	}
	slots, err := numberSlots(in)
	if err != nil {
		return err
	}
	for i := range in {
		to, err := c.make(out[i], in[i].group)
		if err != nil {
			return err
		}
		c.emit(&mapped{slots[i], to, function(i)}, []int32{slots[i]}, []int32{to})
	}
	return nil
}

type mapped struct {
	from, to int32
	function func(float64) float64
}

func (o *mapped) run(f *frame) {
	to := f.column(o.to)
	for r, x := range f.column(o.from) {
		to[r] = o.function(x)
	}
}

func (t MinMaxScale) compile(c *compiler, in []column, out []string) error {
	if err := errors.Join(sameLength("scale", len(t.Scale), len(in)), sameLength("offset", len(t.Offset), len(in)),
		allBounded("scale", t.Scale), allBounded("offset", t.Offset)); err != nil {
		return err
	}
	return each(c, in, out, func(i int) func(float64) float64 {
		scale, offset := t.Scale[i], t.Offset[i]
		return func(x float64) float64 { return float64(x*scale) + offset }
	})
}

func (t Clip) compile(c *compiler, in []column, out []string) error {
	if len(t.Range) != 2 || !(t.Range[0] <= t.Range[1]) || allBounded("range", t.Range) != nil {
		return fmt.Errorf("range: %v are not a low and a high bound", t.Range)
	}
	return each(c, in, out, func(int) func(float64) float64 {
		return func(x float64) float64 { return clip(x, t.Range[0], t.Range[1]) }
	})
}

// clip leaves NaN alone.
func clip(x, low, high float64) float64 {
	switch {
	case x < low:
		return low
	case x > high:
		return high
	}
	return x
}

func (t Normalize) compile(c *compiler, in []column, out []string) error {
	if err := oneForOne(in, out); err != nil {
		return err
	}
	from, err := numberSlots(in)
	if err != nil {
		return err
	}
	op := &normalize{from: from}
	switch t.Norm {
	case "l1":
		op.add = func(sum, x float64) float64 { return sum + math.Abs(x) }
	case "l2":
		op.add = func(sum, x float64) float64 { return sum + float64(x*x) }
		op.root = true
	case "max":
		op.add = func(sum, x float64) float64 { return max(sum, math.Abs(x)) }
	default:
		return fmt.Errorf("norm: got %.20q, want l1, l2 or max", t.Norm)
	}
	if op.to, err = c.makeAll(out, func(i int) int32 { return in[i].group }); err != nil {
		return err
	}
	c.emit(op, op.from, op.to)
	return nil
}

type normalize struct {
	from, to []int32
	add      func(sum, x float64) float64
	root     bool
}

func (o *normalize) run(f *frame) {
	const least = 10 * 0x1p-52
	for r := range f.n {
		norm := 0.0
		for _, slot := range o.from {
			norm = o.add(norm, f.registers[int(slot)*f.lanes+r])
		}
		if o.root {
			norm = math.Sqrt(norm)
		}
		if norm < least {
			norm = 1
		}
		for i, slot := range o.from {
			f.registers[int(o.to[i])*f.lanes+r] = f.registers[int(slot)*f.lanes+r] / norm
		}
	}
}

func (t OneHot) compile(c *compiler, in []column, out []string) error {
	if err := errors.Join(sameLength("encodings", len(t.Encodings), len(in)), sameLength("positions", len(t.Positions), len(in)),
		sameLength("widths", len(t.Widths), len(in))); err != nil {
		return err
	}
	for i := range in {
		width := int(t.Widths[i])
		if width < 0 || width > len(out) {
			return fmt.Errorf("widths[%d]: %d, and %d outputs are left", i, width, len(out))
		}
		if len(t.Positions[i]) == 0 {
			return fmt.Errorf("positions[%d]: no codes", i)
		}
		for k, at := range t.Positions[i] {
			if at < -1 || int(at) >= width {
				return fmt.Errorf("positions[%d][%d]: %d is no place among %d columns", i, k, at, width)
			}
		}
		encoder, err := c.encoder(&in[i], &t.Encodings[i], len(t.Positions[i]))
		if err != nil {
			return err
		}
		op := &oneHot{encoder: encoder, positions: t.Positions[i]}
		for k, name := range out[:width] {
			col := column{slot: c.slot(), input: -1, group: in[i].group}
			if !in[i].number() {
				col.form = form{kind: formIndicator, input: in[i].input, encoder: encoder, position: int32(k)}
			}
			op.to = append(op.to, col.slot)
			if err := c.bind(name, col); err != nil {
				return err
			}
		}
		for k := range op.to {
			if at := c.columns[out[k]]; at.form.kind == formIndicator {
				at.form.positions = t.Positions[i]
				c.columns[out[k]] = at
			}
		}
		out = out[width:]
		var reads []int32
		if in[i].number() {
			reads = []int32{in[i].slot}
		}
		c.emit(op, reads, op.to)
	}
	if len(out) > 0 {
		return fmt.Errorf("widths: %d outputs are left over", len(out))
	}
	return nil
}

type oneHot struct {
	encoder   *encoder
	positions []int32
	to        []int32
}

func (o *oneHot) readsInputs(mark, wanted []bool) { o.encoder.readsInputs(mark, wanted) }

func (o *oneHot) run(f *frame) {
	for _, slot := range o.to {
		clear(f.column(slot))
	}
	for r := range f.n {
		code, irregular := o.encoder.code(f, r)
		if irregular {
			f.irregular[r] = true
		}
		if at := o.positions[code]; at >= 0 {
			f.registers[int(o.to[at])*f.lanes+r] = 1
		}
	}
}

func (t Lookup) compile(c *compiler, in []column, out []string) error {
	if err := errors.Join(oneForOne(in, out), sameLength("encodings", len(t.Encodings), len(in)), sameLength("results", len(t.Results), len(in))); err != nil {
		return err
	}
	for i := range in {
		if len(t.Results[i]) == 0 {
			return fmt.Errorf("results[%d]: no codes", i)
		}
		for k, x := range t.Results[i] {
			if x == x && !bounded(x) {
				return fmt.Errorf("results[%d][%d]: %v is not a number from -%g to %g", i, k, x, LargestNumber, LargestNumber)
			}
		}
		encoder, err := c.encoder(&in[i], &t.Encodings[i], len(t.Results[i]))
		if err != nil {
			return err
		}
		to, err := c.make(out[i], in[i].group)
		if err != nil {
			return err
		}
		var reads []int32
		if in[i].number() {
			reads = []int32{in[i].slot}
		}
		c.emit(&lookup{encoder, t.Results[i], to}, reads, []int32{to})
	}
	return nil
}

type lookup struct {
	encoder *encoder
	results []float64
	to      int32
}

func (o *lookup) readsInputs(mark, wanted []bool) { o.encoder.readsInputs(mark, wanted) }

func (o *lookup) run(f *frame) {
	to := f.column(o.to)
	for r := range to {
		code, irregular := o.encoder.code(f, r)
		if irregular {
			f.irregular[r] = true
		}
		to[r] = o.results[code]
	}
}

func (t Bin) compile(c *compiler, in []column, out []string) error {
	if err := sameLength("edges", len(t.Edges), len(in)); err != nil {
		return err
	}
	for i, edges := range t.Edges {
		if err := ascending(edges); err != nil {
			return fmt.Errorf("edges[%d]: %w", i, err)
		}
	}
	return each(c, in, out, func(i int) func(float64) float64 {
		edges := t.Edges[i]
		return func(x float64) float64 { return float64(countNotAbove(edges, x)) }
	})
}

func ascending(list []float64) error {
	for i := 1; i < len(list); i++ {
		if !(list[i] >= list[i-1]) {
			return fmt.Errorf("%v after %v does not ascend", list[i], list[i-1])
		}
	}
	return nil
}

// countNotAbove is the number of elements of an ascending list that are at most x; all for NaN, as
// numpy sorts it last.
func countNotAbove(list []float64, x float64) int {
	low, high := 0, len(list)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if list[middle] > x {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

func (t Power) compile(c *compiler, in []column, out []string) error {
	if err := errors.Join(oneForOne(in, out), sameLength("lambdas", len(t.Lambdas), len(in)), allBounded("lambdas", t.Lambdas)); err != nil {
		return err
	}
	if t.Method == BoxCox {
		slots, err := numberSlots(in)
		if err != nil {
			return err
		}
		for i := range in {
			cause := c.errorsOf(&in[i]).infinite
			c.emit(&requirePositive{slots[i], cause}, []int32{slots[i]}, nil)
		}
	}
	var method func(x, lambda float64) float64
	switch t.Method {
	case YeoJohnson:
		method = yeoJohnson
	case YeoJohnsonLog:
		method = yeoJohnsonLog
	case BoxCox:
		method = boxCox
	default:
		return fmt.Errorf("method: got %.20q, want %s, %s or %s", t.Method, YeoJohnson, YeoJohnsonLog, BoxCox)
	}
	return each(c, in, out, func(i int) func(float64) float64 {
		lambda := t.Lambdas[i]
		return func(x float64) float64 { return method(x, lambda) }
	})
}

const epsilon = 0x1p-52

func yeoJohnson(x, lambda float64) float64 {
	switch {
	case x >= 0 && math.Abs(lambda) < epsilon:
		return math.Log1p(x)
	case x >= 0:
		return (math.Pow(x+1, lambda) - 1) / lambda
	case math.Abs(lambda-2) > epsilon:
		return -(math.Pow(-x+1, 2-lambda) - 1) / (2 - lambda)
	default:
		return -math.Log1p(-x)
	}
}

func yeoJohnsonLog(x, lambda float64) float64 {
	switch {
	case x >= 0 && math.Abs(lambda) < epsilon:
		return math.Log1p(x)
	case x >= 0:
		return math.Expm1(lambda*math.Log1p(x)) / lambda
	case math.Abs(lambda-2) > epsilon:
		return -math.Expm1((2-lambda)*math.Log1p(-x)) / (2 - lambda)
	default:
		return -math.Log1p(-x)
	}
}

func boxCox(x, lambda float64) float64 {
	if math.Abs(lambda) < 1e-19 {
		return math.Log(x)
	}
	return math.Expm1(lambda*math.Log(x)) / lambda
}

// requirePositive refuses what has no logarithm; NaN passes.
type requirePositive struct {
	slot  int32
	cause *schemas.RecordError
}

func (o *requirePositive) run(f *frame) {
	for r, x := range f.column(o.slot) {
		if x <= 0 {
			f.refuse(r, o.cause)
		}
	}
}

func (t Quantile) compile(c *compiler, in []column, out []string) error {
	if err := errors.Join(sameLength("quantiles", len(t.Quantiles), len(in)), allBounded("references", t.References)); err != nil {
		return err
	}
	if len(t.References) == 0 {
		return errors.New("references: none")
	}
	for i, list := range t.Quantiles {
		if len(list) != len(t.References) {
			return fmt.Errorf("quantiles[%d]: %d of them for %d references", i, len(list), len(t.References))
		}
		if err := errors.Join(ascending(list), allBounded("quantiles", list)); err != nil {
			return fmt.Errorf("quantiles[%d]: %w", i, err)
		}
	}
	if t.Range != nil && (len(t.Range) != 2 || allBounded("range", t.Range) != nil || t.Range[0] > t.Range[1]) {
		return fmt.Errorf("range: %v, want a low and a high number", t.Range)
	}
	downReferences := mirrored(t.References)
	return each(c, in, out, func(i int) func(float64) float64 {
		up, down := []float64(t.Quantiles[i]), mirrored(t.Quantiles[i])
		return func(x float64) float64 { return t.at(x, up, down, downReferences) }
	})
}

// mirrored is the negated list in the opposite order.
func mirrored(list []float64) []float64 {
	out := make([]float64, len(list))
	for i, x := range list {
		out[len(list)-1-i] = -x
	}
	return out
}

// quantileBorder is scikit-learn's BOUNDS_THRESHOLD.
const quantileBorder = 1e-7

func (t *Quantile) at(x float64, up, down, downReferences []float64) float64 {
	if x != x {
		return x
	}
	lowest, highest := up[0], up[len(up)-1]
	below, above := x == lowest, x == highest
	if t.Normal {
		below, above = x-quantileBorder < lowest, x+quantileBorder > highest
	}
	y := 0.5 * (interpolate(t.References, up, x) - interpolate(downReferences, down, -x))
	if above {
		y = 1
	}
	if below {
		y = 0
	}
	if !t.Normal {
		return y
	}
	const border = quantileBorder - 0x1p-52
	low, high := normalQuantile(border), normalQuantile(1-border)
	if t.Range != nil {
		low, high = t.Range[0], t.Range[1]
	}
	switch {
	case y <= border:
		return low
	case y >= 1-border:
		return high
	}
	return clip(normalQuantile(y), low, high)
}

// interpolate is numpy's interp: y at x on the line through the points, the outer points' values
// beyond them.
func interpolate(ys, xs []float64, x float64) float64 {
	n := len(xs)
	at := countNotAbove(xs, x) - 1
	switch {
	case x != x:
		return x
	case at < 0:
		return ys[0]
	case at >= n-1:
		return ys[n-1]
	case xs[at] == x:
		return ys[at]
	}
	slope := (ys[at+1] - ys[at]) / (xs[at+1] - xs[at])
	y := float64(slope*(x-xs[at])) + ys[at]
	if y != y { // an infinite slope: numpy tries from the other end
		y = float64(slope*(x-xs[at+1])) + ys[at+1]
		if y != y && ys[at] == ys[at+1] {
			y = ys[at]
		}
	}
	return y
}

func (t Polynomial) compile(c *compiler, in []column, out []string) error {
	from, err := numberSlots(in)
	if err != nil {
		return err
	}
	if err := sameLength("powers", len(t.Powers), len(out)); err != nil {
		return err
	}
	for i, powers := range t.Powers {
		if err := sameLength(fmt.Sprintf("powers[%d]", i), len(powers), len(in)); err != nil {
			return err
		}
		op := &product{}
		var mixed []int32
		for k, power := range powers {
			if power < 0 || len(op.from)+int(power) > maxDegree {
				return fmt.Errorf("powers[%d][%d]: %d, want a degree up to %d", i, k, power, maxDegree)
			}
			if power > 0 {
				mixed = append(mixed, in[k].group)
			}
			for range power {
				op.from = append(op.from, from[k])
			}
		}
		if op.to, err = c.make(out[i], c.groups.mixed(mixed...)); err != nil {
			return err
		}
		c.emit(op, op.from, []int32{op.to})
	}
	return nil
}

const maxDegree = 64

type product struct {
	from []int32
	to   int32
}

func (o *product) run(f *frame) {
	to := f.column(o.to)
	for r := range to {
		to[r] = 1
	}
	for _, slot := range o.from {
		for r, x := range f.column(slot) {
			to[r] *= x
		}
	}
}

func (t Function) compile(c *compiler, in []column, out []string) error {
	function, ok := map[string]func(float64) float64{
		"log": math.Log, "log1p": math.Log1p, "log2": math.Log2, "log10": math.Log10, "exp": math.Exp, "expm1": math.Expm1,
		"sqrt": math.Sqrt, "cbrt": math.Cbrt, "abs": math.Abs, "tanh": math.Tanh, "sin": math.Sin, "cos": math.Cos, "logistic": logistic,
		"square":     func(x float64) float64 { return x * x },
		"reciprocal": func(x float64) float64 { return 1 / x },
		"negative":   func(x float64) float64 { return -x },
		"float32":    func(x float64) float64 { return float64(float32(x)) },
		"relu":       func(x float64) float64 { return max(x, 0) },
		"sign": func(x float64) float64 {
			switch {
			case x > 0:
				return 1
			case x < 0:
				return -1
			}
			return x // 0 and NaN
		},
	}[t.Name]
	if !ok {
		return fmt.Errorf("name: %.40q is not supported", t.Name)
	}
	return each(c, in, out, func(int) func(float64) float64 { return function })
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
