package scoring

import (
	"errors"
	"fmt"
)

// Linear writes intercept + Σ coefficient·column for each output. Each term is rounded, the terms
// are added in the order of the columns and the intercept last.
type Linear struct {
	Coefficients []Floats `json:"coefficients"` // for each output, one for each column
	Intercepts   Floats   `json:"intercepts"`
	// Background holds the mean of each column over the training rows: the point that contributions
	// are measured from. Without it there are none, unless the columns themselves have some.
	Background Floats `json:"background,omitempty"`
}

// Type names the step in model.json.
func (Linear) Type() string { return "linear" }

func (t Linear) compile(c *compiler, in []column, out []string) error {
	slots, err := numberSlots(in)
	if err != nil {
		return err
	}
	if err := errors.Join(sameLength("coefficients", len(t.Coefficients), len(out)), sameLength("intercepts", len(t.Intercepts), len(out)),
		allBounded("intercepts", t.Intercepts), allBounded("background", t.Background)); err != nil {
		return err
	}
	if t.Background != nil {
		if err := sameLength("background", len(t.Background), len(in)); err != nil {
			return err
		}
		c.note("linear model of %d features", len(in))
	}
	for i, name := range out {
		if err := errors.Join(sameLength(fmt.Sprintf("coefficients[%d]", i), len(t.Coefficients[i]), len(in)),
			allBounded(fmt.Sprintf("coefficients[%d]", i), t.Coefficients[i])); err != nil {
			return err
		}
		to, err := c.make(name, -1)
		if err != nil {
			return err
		}
		if t.Background != nil {
			if fused := fuse(in, t.Coefficients[i], t.Intercepts[i], t.Background); fused != nil && len(out) == 1 {
				fused.to = to
				fused.remember(c)
				c.emit(fused, nil, []int32{to})
				c.explain[to] = fused
				continue
			}
		}
		op := &weightedSum{from: slots, to: to, weights: t.Coefficients[i], intercept: t.Intercepts[i]}
		c.emit(op, slots, []int32{to})
		if e := c.explainSum(in, op, t.Background); e != nil {
			c.explain[to] = e
		}
	}
	return nil
}

// weightedSum is a linear model over registers.
type weightedSum struct {
	from      []int32
	to        int32
	weights   []float64
	intercept float64
}

func (o *weightedSum) run(f *frame) {
	to := f.weigh(o.from, o.weights, o.to)
	for r := range to {
		to[r] += o.intercept
	}
}

// linear is a linear model compiled together with the transforms before it, where each of its
// columns is a number that is at most imputed and scaled, or an indicator of a category: no register
// is filled but that of the margin. It is immutable.
//
// The margin is the sum over the numeric terms in feature order, then over the category terms, then
// the intercept, each term computed as scikit-learn computes it: (x - mean) / scale, rounded, times
// the coefficient, rounded. Folding scale into the coefficient would save the division and change
// the last bits.
type linear struct {
	numbers    []numberTerm
	categories []categoryTerm
	intercept  float64
	bias       float64 // margin at the background: intercept + Σ coefficient·background
	to         int32
	width      int           // inputs of a row
	errors     []inputErrors // of the numeric terms
}

// numberTerm is one numeric feature.
type numberTerm struct {
	fill, mean, scale, coefficient float64 // fill NaN: a missing number is refused
	offset                         float64 // coefficient·background
	input                          int32
}

// categoryTerm is a one-hot encoded input with its columns folded back into it. Its tables are
// indexed as the encoder's codes are.
type categoryTerm struct {
	encoder       *encoder
	weights       []float64 // added to the margin
	contributions []float64 // weight - Σ coefficient·background of the input's columns
	input         int32
}

// fuse returns the fused form of a linear model, or nil if a column needs a register. Its time grows
// with the columns and the codes of their encoders, not with the product of the two.
func fuse(in []column, coefficients []float64, intercept float64, background []float64) *linear {
	l := &linear{intercept: intercept, bias: intercept}
	terms := make(map[*encoder]int)
	var parts []indicatorTerms
	for i := range in {
		f, w := &in[i].form, coefficients[i]
		offset := float64(w * background[i])
		l.bias += offset
		switch f.kind {
		case formNumber:
			l.numbers = append(l.numbers, numberTerm{
				fill: f.fill, mean: f.mean, scale: f.scale, coefficient: w, offset: offset, input: f.input,
			})
		case formIndicator:
			at, ok := terms[f.encoder]
			if !ok {
				at = len(parts)
				terms[f.encoder] = at
				parts = append(parts, indicatorTerms{form: f, weights: make(map[int32]float64)})
			}
			parts[at].weights[f.position] += w
			parts[at].offset += offset
		default:
			return nil
		}
	}
	for i := range parts {
		l.categories = append(l.categories, parts[i].fold())
	}
	return l
}

// indicatorTerms are the columns of one encoder in a linear model.
type indicatorTerms struct {
	form    *form
	weights map[int32]float64 // by position among the encoder's columns
	offset  float64
}

// fold makes tables by code of them.
func (t *indicatorTerms) fold() categoryTerm {
	e := t.form.encoder
	out := categoryTerm{
		encoder: e, weights: make([]float64, len(e.codes)), contributions: make([]float64, len(e.codes)), input: t.form.input,
	}
	for k, code := range e.codes {
		if code != refusedCode {
			out.weights[k] = t.weights[t.form.positions[code]] // of -1, no column: 0
		}
		out.contributions[k] = out.weights[k] - t.offset
	}
	return out
}

// remember takes what is needed of the inputs.
func (l *linear) remember(c *compiler) {
	l.width = len(c.inputs)
	for i := range l.numbers {
		l.errors = append(l.errors, c.inputs[l.numbers[i].input].errors)
	}
}

// cover marks the inputs whose absence the model notices.
func (l *linear) cover(inputs []bool) {
	for i := range l.numbers {
		inputs[l.numbers[i].input] = true
	}
	for i := range l.categories {
		inputs[l.categories[i].input] = true
	}
}

func (l *linear) readsInputs(mark, _ []bool) { l.cover(mark) }

func (l *linear) run(f *frame) {
	to := f.column(l.to)
	row := 0
	for ; row+1 < len(to); row += 2 {
		at := (f.first + row) * l.width
		to[row], to[row+1] = l.pair(f.rows.Numbers[at:at+l.width], f.rows.Numbers[at+l.width:at+2*l.width])
	}
	if row < len(to) {
		at := (f.first + row) * l.width
		to[row] = l.one(f.rows.Numbers[at : at+l.width])
	}
	for row := range to {
		if to[row]-to[row] != 0 { // NaN or infinite: something is missing or too large
			to[row] = l.irregular(f, row)
		}
	}
	for i := range l.categories {
		t := &l.categories[i]
		at := f.first*l.width + int(t.input)
		unseen := len(t.weights) - 2
		for row := range to {
			code := unseen + 1
			if value := f.rows.Categories[at+row*l.width]; value != nil {
				code = t.encoder.texts.Lookup(value)
			}
			if code >= unseen {
				f.irregular[row] = true
			}
			if t.encoder.codes[code] == refusedCode {
				t.encoder.code(f, row) // says why
			}
			to[row] += t.weights[code]
		}
	}
	for row := range to {
		to[row] += l.intercept
	}
}

// one is the sum of the numeric terms of a row. It does not look for missing numbers: one makes the
// sum NaN.
func (l *linear) one(numbers []float64) (sum float64) {
	for i := range l.numbers {
		t := &l.numbers[i]
		sum += float64((numbers[t.input] - t.mean) / t.scale * t.coefficient)
	}
	return sum
}

// pair is one for two rows at once. One row alone waits for its own sum, addition after addition:
// 38 ns for 20 numbers, against 33 in pairs.
func (l *linear) pair(numbers, numbers2 []float64) (sum, sum2 float64) {
	numbers2 = numbers2[:len(numbers)]
	for i := range l.numbers {
		t := &l.numbers[i]
		sum += float64((numbers[t.input] - t.mean) / t.scale * t.coefficient)
		sum2 += float64((numbers2[t.input] - t.mean) / t.scale * t.coefficient)
	}
	return sum, sum2
}

// irregular is the sum of the numeric terms of a row in which something is missing or too large.
func (l *linear) irregular(f *frame, row int) (sum float64) {
	for i := range l.numbers {
		t := &l.numbers[i]
		x := f.number(row, t.input)
		if x != x {
			f.irregular[row] = true
			if x = t.fill; x != x {
				f.refuse(row, l.errors[i].missing)
			}
		} else if x-x != 0 {
			f.refuse(row, l.errors[i].infinite)
		}
		sum += float64((x - t.mean) / t.scale * t.coefficient)
	}
	return sum
}

func (l *linear) base() float64 { return l.bias }

func (l *linear) add(f *frame, row int, weight float64, to []float64) {
	at := (f.first + row) * l.width
	numbers, categories := f.rows.Numbers[at:at+l.width], f.rows.Categories[at:at+l.width]
	for i := range l.numbers {
		t := &l.numbers[i]
		x := numbers[t.input]
		if x != x {
			x = t.fill
		}
		to[t.input] += weight * (float64((x-t.mean)/t.scale*t.coefficient) - t.offset)
	}
	for i := range l.categories {
		t := &l.categories[i]
		code := len(t.weights) - 1
		if value := categories[t.input]; value != nil {
			code = t.encoder.texts.Lookup(value)
		}
		to[t.input] += weight * t.contributions[code]
	}
}

// note says what a model is, for people.
func (c *compiler) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}
