package scoring

import (
	"fmt"
	"math"

	"github.com/churnstream/churnstream/schemas"
)

var nan = math.NaN()

// linear is a logistic regression compiled together with its transforms. It is immutable.
//
// The margin is the sum over the numeric terms in feature order, then over the category terms, then
// the intercept, each term computed as scikit-learn computes it: (x - mean) / scale, rounded, times
// the coefficient, rounded. Folding scale into the coefficient would save the division and change
// the last bits.
type linear struct {
	numbers    []numberTerm
	labels     [][2]string // of numbers: present, missing
	categories []categoryTerm
	// rest are the inputs that no feature reads: only their absence is noted.
	rest      []int32
	intercept float64
	bias      float64 // margin at the background: intercept + Σ coefficient·background
	inputs    []inputState
}

// inputState is what must be known of an input when it is missing.
type inputState struct {
	name     string
	nullable bool
	category bool
	encoding *schemas.CategoryIndex // of a category that a feature reads
}

// Codes of a numeric term; those of a category term are positions in its tables.
const (
	present = 0
	absent  = 1
)

// Labels of a reason name the input and, where it is no number, the value.
const (
	missingSuffix = " (missing)"
	unseenSuffix  = " (unseen)"
)

// numberTerm is one numeric feature.
type numberTerm struct {
	fill, mean, scale, coefficient float64 // scale > 0; fill NaN: the input is required
	offset                         float64 // coefficient·background
	input                          int32
}

// categoryTerm is a one-hot encoded input with its columns folded back into it. Its tables are
// indexed by the code of the value: the position in the list of categories, then unseen, then
// missing.
type categoryTerm struct {
	index         *schemas.CategoryIndex
	weights       []float64 // added to the margin; 0 for unseen and missing
	contributions []float64 // weight - Σ coefficient·background of the input's columns
	labels        []string
	input         int32
}

func (t *categoryTerm) unseen() int  { return len(t.weights) - 2 }
func (t *categoryTerm) missing() int { return len(t.weights) - 1 }

func compileLinear(contract schemas.Contract, columns []column, features []string, background []float64, model LogisticRegression) (*linear, error) {
	if len(model.Coefficients) != len(columns) {
		return nil, fmt.Errorf("%d coefficients for %d features", len(model.Coefficients), len(columns))
	}
	if !bounded(model.Intercept) {
		return nil, fmt.Errorf("intercept %v is not a number from -%g to %g", model.Intercept, LargestNumber, LargestNumber)
	}
	e := &linear{intercept: model.Intercept, bias: model.Intercept}
	for _, in := range contract.Inputs {
		e.inputs = append(e.inputs, inputState{name: in.Name, nullable: in.Nullable, category: in.Kind == schemas.Category})
	}
	used := make([]bool, len(contract.Inputs))
	termOf := make(map[int]int) // input -> position in e.categories
	for i, c := range columns {
		w := model.Coefficients[i]
		offset := w * background[i]
		if !bounded(w) {
			return nil, fmt.Errorf("coefficients[%d] (%s): %v is not a number from -%g to %g", i, features[i], w, LargestNumber, LargestNumber)
		}
		e.bias += offset
		used[c.input] = true
		if c.number {
			e.numbers = append(e.numbers, numberTerm{
				fill: c.fill, mean: c.mean, scale: c.scale, coefficient: w, offset: offset, input: int32(c.input),
			})
			name := contract.Inputs[c.input].Name
			e.labels = append(e.labels, [2]string{present: name, absent: name + missingSuffix})
			continue
		}
		at, ok := termOf[c.input]
		if !ok {
			at = len(e.categories)
			termOf[c.input] = at
			term, err := newCategoryTerm(contract.Inputs[c.input].Name, c)
			if err != nil {
				return nil, err
			}
			e.categories = append(e.categories, term)
		}
		t := &e.categories[at]
		code := t.index.Lookup([]byte(c.value))
		t.weights[code] = w
		for k := range t.contributions {
			t.contributions[k] -= offset
		}
		t.contributions[code] += w
	}
	for i := range e.categories {
		t := &e.categories[i]
		e.inputs[t.input].encoding = t.index
	}
	for i, u := range used {
		if !u {
			e.rest = append(e.rest, int32(i))
		}
	}
	return e, nil
}

func newCategoryTerm(input string, c column) (categoryTerm, error) {
	index, err := schemas.NewCategoryIndex(c.categories)
	if err != nil {
		return categoryTerm{}, fmt.Errorf("input %q: %w", input, err)
	}
	n := len(c.categories)
	t := categoryTerm{
		index:         index,
		weights:       make([]float64, n+2),
		contributions: make([]float64, n+2),
		labels:        make([]string, 0, n+2),
		input:         int32(c.input),
	}
	for _, value := range c.categories {
		t.labels = append(t.labels, input+"="+value)
	}
	t.labels = append(t.labels, input+unseenSuffix, input+missingSuffix)
	return t, nil
}

func (e *linear) terms() int { return len(e.numbers) + len(e.categories) }

// label names what a term stands for in a row where it had this code.
func (e *linear) label(term int, code int32) string {
	if term < len(e.numbers) {
		return e.labels[term][code]
	}
	return e.categories[term-len(e.numbers)].labels[code]
}

// input returns the index of the input that a term folds together.
func (e *linear) input(term int) int {
	if term < len(e.numbers) {
		return int(e.numbers[term].input)
	}
	return int(e.categories[term-len(e.numbers)].input)
}

// margin scores one row. irregular reports that an input is missing or unseen, so that the caller
// looks which. The margin is NaN if a required number is missing or one is not finite.
//
// The first loop does not look for missing numbers: one makes the sum NaN, and then the second loop
// adds up again with what was imputed.
func (e *linear) margin(numbers []float64, categories [][]byte) (margin float64, irregular bool) {
	for i := range e.numbers {
		t := &e.numbers[i]
		margin += float64((numbers[t.input] - t.mean) / t.scale * t.coefficient)
	}
	if margin != margin {
		margin, irregular = e.imputed(numbers)
	}
	return e.finish(margin, irregular, numbers, categories)
}

// margin2 scores two rows at once and equals margin for each to the bit. One row alone waits for its
// own sum, addition after addition: 38 ns for 20 numbers, against 33 in pairs.
func (e *linear) margin2(numbers, numbers2 []float64, categories, categories2 [][]byte) (margin, margin2 float64, irregular, irregular2 bool) {
	numbers2 = numbers2[:len(numbers)]
	for i := range e.numbers {
		t := &e.numbers[i]
		margin += float64((numbers[t.input] - t.mean) / t.scale * t.coefficient)
		margin2 += float64((numbers2[t.input] - t.mean) / t.scale * t.coefficient)
	}
	if margin != margin {
		margin, irregular = e.imputed(numbers)
	}
	if margin2 != margin2 {
		margin2, irregular2 = e.imputed(numbers2)
	}
	margin, irregular = e.finish(margin, irregular, numbers, categories)
	margin2, irregular2 = e.finish(margin2, irregular2, numbers2, categories2)
	return margin, margin2, irregular, irregular2
}

// imputed is the sum of the numeric terms of a row in which something is missing.
func (e *linear) imputed(numbers []float64) (sum float64, irregular bool) {
	for i := range e.numbers {
		t := &e.numbers[i]
		x := numbers[t.input]
		if x != x {
			x, irregular = t.fill, true
		}
		sum += float64((x - t.mean) / t.scale * t.coefficient)
	}
	return sum, irregular
}

// finish adds the category terms and the intercept to the sum of the numeric terms.
func (e *linear) finish(margin float64, irregular bool, numbers []float64, categories [][]byte) (float64, bool) {
	for i := range e.categories {
		t := &e.categories[i]
		code := t.missing()
		if value := categories[t.input]; value != nil {
			code = t.index.Lookup(value)
		}
		if code >= t.unseen() {
			irregular = true
		}
		margin += t.weights[code]
	}
	return margin + e.intercept, irregular || len(e.rest) > 0 && e.unreadMissing(numbers, categories)
}

// explain does the same as margin and writes the contribution and the label of every term: the
// numeric ones, then the categories. Both slices have e.terms() elements.
func (e *linear) explain(numbers []float64, categories [][]byte, contributions []float64, codes []int32) (margin float64, irregular bool) {
	contributions = contributions[:e.terms()]
	codes = codes[:e.terms()]
	for i := range e.numbers {
		t := &e.numbers[i]
		x := numbers[t.input]
		codes[i] = present
		if x != x {
			x, irregular = t.fill, true
			codes[i] = absent
		}
		term := float64((x - t.mean) / t.scale * t.coefficient)
		margin += term
		contributions[i] = term - t.offset
	}
	base := len(e.numbers)
	for i := range e.categories {
		t := &e.categories[i]
		value := categories[t.input]
		code := t.missing()
		if value != nil {
			code = t.index.Lookup(value)
		}
		if code >= t.unseen() {
			irregular = true
		}
		margin += t.weights[code]
		contributions[base+i] = t.contributions[code]
		codes[base+i] = int32(code)
	}
	return margin + e.intercept, irregular || len(e.rest) > 0 && e.unreadMissing(numbers, categories)
}

// unreadMissing reports whether an input that no feature reads is missing.
func (e *linear) unreadMissing(numbers []float64, categories [][]byte) bool {
	for _, i := range e.rest {
		if e.inputs[i].missing(numbers[i], categories[i]) {
			return true
		}
	}
	return false
}

func (in *inputState) missing(number float64, category []byte) bool {
	if in.category {
		return category == nil
	}
	return number != number
}
