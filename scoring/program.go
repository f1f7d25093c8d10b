package scoring

import (
	"fmt"
	"math"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring/trees"
)

var nan = math.NaN()

// program is a compiled pipeline: operations over registers, run in their order. It is immutable.
//
// A register holds one column of up to lanes rows, so that an operation is a loop over rows and
// what it costs to call it is shared by them.
type program struct {
	contract      schemas.Contract
	operations    []operation
	slots, lanes  int
	margins       []int32
	probabilities []int32
	classes       []string
	positive      int
	explain       []explainer // of each margin; nil: they have no contributions of their own
	mixed         *mixtures   // explains the margins where explain does not; nil: nothing does
	biases        []float64   // of each margin that is explained
	inputs        []inputState
	// rest are the inputs whose absence no operation reports.
	rest    []int32
	groups  []string
	columns int
	notes   []string
	// noNumber is the error of a row whose values give none.
	noNumber *schemas.RecordError
}

// Registers of a program take up to registerBytes, so that they stay in the second-level cache;
// maxLanes rows share the cost of calling an operation well enough.
const (
	maxLanes      = 64
	registerBytes = 1 << 19
)

// explains reports whether the margins have contributions.
func (p *program) explains() bool { return len(p.biases) > 0 }

// operation computes registers from registers and inputs for the rows of a frame.
type operation interface{ run(f *frame) }

// frame is the memory of one scorer: the registers and what is known of the rows in them.
type frame struct {
	rows      *schemas.Rows
	first, n  int // rows[first : first+n] are in the registers
	lanes     int
	registers []float64
	irregular []bool // an input is missing or unseen
	refused   []*schemas.RecordError

	scratch trees.Scratch
	matrix  []float64 // rows × features of a tree ensemble
	out     []float64 // rows × margins of it, and whatever needs a short buffer
}

func newFrame(p *program) *frame {
	return &frame{
		lanes:     p.lanes,
		registers: make([]float64, p.slots*p.lanes),
		irregular: make([]bool, p.lanes),
		refused:   make([]*schemas.RecordError, p.lanes),
	}
}

// take sets the rows that the next operations work on.
func (f *frame) take(rows *schemas.Rows, first, n int) {
	f.rows, f.first, f.n = rows, first, n
	clear(f.irregular)
	clear(f.refused)
}

// column returns the register of a slot, an element a row.
func (f *frame) column(slot int32) []float64 {
	at := int(slot) * f.lanes
	return f.registers[at : at+f.n : at+f.n]
}

// weigh makes the column to the weighted sum of others and returns it.
func (f *frame) weigh(from []int32, weights []float64, to int32) []float64 {
	sum := f.column(to)
	clear(sum)
	for i, slot := range from {
		w := weights[i]
		for r, x := range f.column(slot) {
			sum[r] += float64(x * w)
		}
	}
	return sum
}

// refuse marks a row as one that cannot be scored; the first cause stays.
func (f *frame) refuse(row int, cause *schemas.RecordError) {
	if f.refused[row] == nil {
		f.refused[row] = cause
	}
}

func (f *frame) category(row int, input int32) []byte {
	return f.rows.Categories[(f.first+row)*f.rows.Width()+int(input)]
}

func (f *frame) number(row int, input int32) float64 {
	return f.rows.Numbers[(f.first+row)*f.rows.Width()+int(input)]
}

// loadNumbers copies numeric inputs into registers.
type loadNumbers struct{ inputs, slots []int32 }

// keep drops the inputs that nobody reads from registers.
func (o *loadNumbers) keep(wanted []bool) {
	n := 0
	for i, slot := range o.slots {
		if wanted[slot] {
			o.inputs[n], o.slots[n] = o.inputs[i], slot
			n++
		}
	}
	o.inputs, o.slots = o.inputs[:n], o.slots[:n]
}

func (o *loadNumbers) readsInputs(mark, wanted []bool) {
	for i, slot := range o.slots {
		mark[o.inputs[i]] = mark[o.inputs[i]] || wanted[slot]
	}
}

func (o *loadNumbers) run(f *frame) {
	width := f.rows.Width()
	for i, input := range o.inputs {
		from := f.rows.Numbers[f.first*width+int(input):]
		to := f.column(o.slots[i])
		for r := range to {
			to[r] = from[r*width]
		}
	}
}

// encoder gives the code of a value that a step lists: a position in a table of the step.
type encoder struct {
	isCategory bool
	source     int32                  // the input of a category, the slot of a number
	texts      *schemas.CategoryIndex // of a category
	numbers    []float64              // ascending
	// codes are of the listed values in the order of the index, then of unseen ones, then of a
	// missing value. refusedCode: the row cannot be scored.
	codes  []int32
	errors inputErrors
}

const refusedCode = -1

// code returns the code of a row's value and whether the value is missing or unseen.
func (e *encoder) code(f *frame, row int) (code int32, irregular bool) {
	unseen := len(e.codes) - 2
	at := unseen + 1
	if e.isCategory {
		if value := f.category(row, e.source); value != nil {
			at = e.texts.Lookup(value)
		}
	} else if x := f.registers[int(e.source)*f.lanes+row]; x == x {
		at = e.find(x)
	}
	code = e.codes[at]
	if code == refusedCode {
		cause := e.errors.unknown
		if at > unseen {
			cause = e.errors.missing
		}
		f.refuse(row, cause)
		code = 0
	}
	return code, at >= unseen
}

func (e *encoder) readsInputs(mark, _ []bool) {
	if e.isCategory {
		mark[e.source] = true
	}
}

// find is a binary search that ends at len(numbers) for a value that is not listed.
func (e *encoder) find(x float64) int {
	low, high := 0, len(e.numbers)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if e.numbers[middle] < x {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low < len(e.numbers) && e.numbers[low] == x {
		return low
	}
	return len(e.numbers)
}

// Encoding lists the values of a column that a step knows. The code of a value is its position.
type Encoding struct {
	Texts   Texts  `json:"texts,omitempty"`
	Numbers Floats `json:"numbers,omitempty"`
	// Missing is the code of a missing value; nil: it counts as one that is not listed.
	Missing *int `json:"missing,omitempty"`
	// Unknown is the code of a value that is not listed; nil: the row is refused.
	Unknown *int `json:"unknown,omitempty"`
}

// Len is the number of listed values.
func (e *Encoding) Len() int { return len(e.Texts) + len(e.Numbers) }

// encoder compiles an encoding for a column. Codes are below limit.
func (c *compiler) encoder(col *column, e *Encoding, limit int) (*encoder, error) {
	if len(e.Texts) > 0 && len(e.Numbers) > 0 {
		return nil, fmt.Errorf("column %.60q: both texts and numbers are listed", col.name)
	}
	if (col.number() && len(e.Texts) > 0) || (!col.number() && len(e.Numbers) > 0) {
		return nil, fmt.Errorf("column %.60q: texts are listed for a number or numbers for a category", col.name)
	}
	out := &encoder{isCategory: !col.number(), errors: c.errorsOf(col)}
	unknown, missing := int32(refusedCode), int32(refusedCode)
	for _, special := range []struct {
		what string
		code *int
		to   []*int32
	}{{"unknown", e.Unknown, []*int32{&unknown, &missing}}, {"missing", e.Missing, []*int32{&missing}}} {
		if special.code == nil {
			continue
		}
		if *special.code < 0 || *special.code >= limit {
			return nil, fmt.Errorf("column %.60q: %s: the code %d is not below %d", col.name, special.what, *special.code, limit)
		}
		for _, to := range special.to {
			*to = int32(*special.code)
		}
	}
	if e.Len() > limit {
		return nil, fmt.Errorf("column %.60q: %d values for a table of %d", col.name, e.Len(), limit)
	}
	if col.number() {
		out.source = col.slot
		out.numbers = e.Numbers
		for i, x := range e.Numbers {
			if i > 0 && !(x > e.Numbers[i-1]) {
				return nil, fmt.Errorf("column %.60q: the values must ascend, %v does not", col.name, x)
			}
			out.codes = append(out.codes, int32(i))
			if col.form.kind == formNumber && !col.form.scaled {
				c.inputs[col.form.input].know("", x)
			}
		}
		out.codes = append(out.codes, unknown, missing)
		return out, nil
	}
	out.source = col.input
	if err := c.encodeTexts(out, col, e, unknown, missing); err != nil {
		return nil, fmt.Errorf("column %.60q: %w", col.name, err)
	}
	return out, nil
}

// encodeTexts lists the texts and those that stand for another.
func (c *compiler) encodeTexts(out *encoder, col *column, e *Encoding, unknown, missing int32) error {
	codes := make(map[string]int32, len(e.Texts))
	texts := append([]string(nil), e.Texts...)
	for i, text := range texts {
		if _, twice := codes[text]; twice {
			return fmt.Errorf("%.60q is listed twice", text)
		}
		codes[text] = int32(i)
	}
	code := func(text string) int32 {
		if at, ok := codes[text]; ok {
			return at
		}
		return unknown
	}
	// Later substitutions see what earlier ones made, so the last is resolved first.
	for i := len(col.substitutes) - 1; i >= 0; i-- {
		s := col.substitutes[i]
		to := code(s.to)
		if s.from == nil {
			missing = to
			continue
		}
		if _, listed := codes[*s.from]; !listed {
			texts = append(texts, *s.from)
		}
		codes[*s.from] = to
	}
	var err error
	if out.texts, err = schemas.NewCategoryIndex(texts); err != nil {
		return err
	}
	for _, text := range texts {
		out.codes = append(out.codes, codes[text])
		c.inputs[col.input].know(text, 0)
	}
	out.codes = append(out.codes, unknown, missing)
	return nil
}

// errorsOf returns the errors of the input that a column comes from, or ones under its own name.
func (c *compiler) errorsOf(col *column) inputErrors {
	switch {
	case !col.number():
		return c.inputs[col.input].errors
	case col.form.kind == formNumber:
		return c.inputs[col.form.input].errors
	case col.group >= 0 && int(col.group) < len(c.inputs):
		return c.inputs[col.group].errors
	}
	refused := func(class schemas.ErrorClass, what string) *schemas.RecordError {
		return &schemas.RecordError{Class: class, Err: fmt.Errorf("%.60q is %s, which the model was trained to refuse", col.name, what)}
	}
	return inputErrors{
		missing:  refused(schemas.NotANumber, "not a number"),
		infinite: refused(schemas.OutOfRange, "infinite or too large"),
		unknown:  refused(schemas.UnknownCategory, "not among the values that the model knows"),
	}
}

// run executes the program on the rows of the frame.
func (p *program) run(f *frame) {
	for _, op := range p.operations {
		op.run(f)
	}
	width := f.rows.Width()
	for _, input := range p.rest {
		at := f.first*width + int(input)
		if p.inputs[input].category {
			for r := range f.n {
				if f.rows.Categories[at+r*width] == nil {
					f.irregular[r] = true
				}
			}
			continue
		}
		for r := range f.n {
			if x := f.rows.Numbers[at+r*width]; x != x {
				f.irregular[r] = true
			}
		}
	}
}
