package scoring

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/churnstream/churnstream/schemas"
)

// maxColumns bounds what a hostile file can make a scorer allocate: a column is up to 8·lanes bytes.
const maxColumns = 1 << 17

// compiler applies the steps of a pipeline at load: it knows how every column is made, and emits the
// operations that make the numbers.
type compiler struct {
	contract schemas.Contract
	columns  map[string]column
	nodes    []node
	slots    int32
	inputs   []inputState
	groups   groups
	explain  map[int32]explainer // by slot, of columns whose value can be explained
	notes    []string            // what the models are, for people
}

// node is one operation with what decides whether it is needed.
type node struct {
	op     operation
	reads  []int32
	writes []int32
	guards []int32 // inputs that the operation only checks
}

// column is one value of a row: a number in a register, or the text of a category input.
type column struct {
	name string
	slot int32 // of a number; -1 in a category

	// A category is the text of an input in which some texts, or its absence, stand for another.
	input       int32
	substitutes []substitute

	group int32 // what contributions of this column are added to
	form  form
}

// substitute says that one text (nil: a missing value) means another.
type substitute struct {
	from *string
	to   string
}

func (c *column) number() bool { return c.slot >= 0 }

// form is how a column can be computed from one input without a register, where that is possible.
type form struct {
	kind              formKind
	input             int32
	fill, mean, scale float64 // of a number: missing becomes fill (NaN: stays missing), then (x - mean)/scale
	filled, scaled    bool
	encoder           *encoder // of an indicator
	position          int32    // among the encoder's columns
	positions         []int32  // of the encoder's codes among its columns, -1: none
}

type formKind uint8

const (
	formless formKind = iota
	formNumber
	formIndicator
)

// inputState is what must be known of an input while rows are scored.
type inputState struct {
	name     string
	nullable bool
	category bool
	errors   inputErrors

	// Of an input that some step encodes: the values that any of them knows, ascending.
	limited bool
	texts   []string
	numbers []float64
	index   *schemas.CategoryIndex // of texts
	// labels are of the values, unseen, missing; of an input without known values present, missing.
	labels []string
}

// inputErrors are the ways in which a value of an input can make a row unfit, made once.
type inputErrors struct {
	missing, infinite, unknown *schemas.RecordError
}

func newCompiler(contract schemas.Contract) *compiler {
	c := &compiler{
		contract: contract,
		columns:  make(map[string]column, len(contract.Inputs)),
		explain:  make(map[int32]explainer),
	}
	var load loadNumbers
	var writes []int32
	for i, in := range contract.Inputs {
		refused := func(class schemas.ErrorClass, text string) *schemas.RecordError {
			return &schemas.RecordError{Class: class, Path: in.AvroPath(), Err: errors.New(text)}
		}
		c.inputs = append(c.inputs, inputState{
			name: in.Name, nullable: in.Nullable, category: in.Kind == schemas.Category,
			errors: inputErrors{
				missing:  refused(schemas.MissingField, "the value is missing and the model was trained to refuse that"),
				infinite: refused(schemas.OutOfRange, "the value is infinite or too large for the model"),
				unknown:  refused(schemas.UnknownCategory, "the value is not among those that the model knows, and it was trained to refuse others"),
			},
		})
		col := column{name: in.Name, slot: -1, input: int32(i), group: c.groups.ofInput(int32(i), in.Name)}
		if in.Kind != schemas.Category {
			col.slot = c.slot()
			col.form = form{kind: formNumber, input: int32(i), fill: nan, scale: 1}
			load.inputs, load.slots = append(load.inputs, int32(i)), append(load.slots, col.slot)
			writes = append(writes, col.slot)
		}
		c.columns[in.Name] = col
	}
	c.emit(&load, nil, writes)
	return c
}

func (c *compiler) slot() int32 {
	c.slots++
	return c.slots - 1
}

func (c *compiler) emit(op operation, reads, writes []int32) {
	c.nodes = append(c.nodes, node{op: op, reads: reads, writes: writes})
}

// bind gives a new column its name.
func (c *compiler) bind(name string, col column) error {
	if _, ok := c.columns[name]; ok {
		return fmt.Errorf("column %.60q is written twice", name)
	}
	if len(c.columns) >= maxColumns {
		return fmt.Errorf("more than %d columns", maxColumns)
	}
	col.name = name
	c.columns[name] = col
	return nil
}

// make binds a new number column in a register of its own.
func (c *compiler) make(name string, group int32) (slot int32, err error) {
	slot = c.slot()
	return slot, c.bind(name, column{slot: slot, input: -1, group: group})
}

// makeAll binds one new number column for each name, in consecutive registers.
func (c *compiler) makeAll(names []string, group func(i int) int32) (slots []int32, err error) {
	slots = make([]int32, len(names))
	for i, name := range names {
		if slots[i], err = c.make(name, group(i)); err != nil {
			return nil, err
		}
	}
	return slots, nil
}

// column finds a column by its name.
func (c *compiler) column(name string) (column, error) {
	col, ok := c.columns[name]
	if !ok {
		return column{}, fmt.Errorf("no step before makes a column %.60q", name)
	}
	return col, nil
}

// run applies the steps in their order.
func (c *compiler) run(p *Pipeline) error {
	if len(p.Steps) == 0 {
		return errors.New("no steps")
	}
	for i, s := range p.Steps {
		if err := c.step(s); err != nil {
			return fmt.Errorf("steps[%d] (%s): %w", i, s.Transform.Type(), err)
		}
	}
	return nil
}

func (c *compiler) step(s Step) error {
	in := make([]column, len(s.Columns))
	for i, name := range s.Columns {
		var err error
		if in[i], err = c.column(name); err != nil {
			return err
		}
	}
	return s.Transform.compile(c, in, s.Outputs)
}

// numberSlots returns the registers of columns that must all be numbers.
func numberSlots(in []column) ([]int32, error) {
	slots := make([]int32, len(in))
	for i := range in {
		if !in[i].number() {
			return nil, fmt.Errorf("column %.60q is a category, want a number", in[i].name)
		}
		slots[i] = in[i].slot
	}
	return slots, nil
}

// oneForOne checks that a step writes one column for each that it reads.
func oneForOne(in []column, out []string) error {
	if len(in) != len(out) {
		return fmt.Errorf("%d columns and %d outputs, want one output for each column", len(in), len(out))
	}
	return nil
}

// sameLength checks a parameter that has one element for each column.
func sameLength(what string, got, want int) error {
	if got != want {
		return fmt.Errorf("%s: %d elements for %d columns", what, got, want)
	}
	return nil
}

func allBounded(what string, list []float64) error {
	for i, x := range list {
		if !bounded(x) {
			return fmt.Errorf("%s[%d]: %v is not a number from -%g to %g", what, i, x, LargestNumber, LargestNumber)
		}
	}
	return nil
}

// groups are what contributions are added up to: first one for each input, under its name, then one
// for each combination of inputs that a column mixes.
type groups struct {
	names   []string
	members [][]int32 // inputs, ascending
	index   map[string]int32
}

func (g *groups) ofInput(input int32, name string) int32 {
	return g.add([]int32{input}, name)
}

func (g *groups) add(members []int32, name string) int32 {
	key := fmt.Sprint(members)
	if at, ok := g.index[key]; ok {
		return at
	}
	if g.index == nil {
		g.index = make(map[string]int32)
	}
	at := int32(len(g.names))
	g.index[key] = at
	g.names = append(g.names, name)
	g.members = append(g.members, members)
	return at
}

// mixed returns the group of a column that is made of several others, under the names of the inputs
// joined by "*". A model's output, which mixes everything, has none: -1.
func (g *groups) mixed(of ...int32) int32 {
	var members []int32
	for _, group := range of {
		if group == constantGroup {
			continue
		}
		if group < 0 {
			return -1
		}
		members = append(members, g.members[group]...)
	}
	slices.Sort(members)
	members = slices.Compact(members)
	switch {
	case len(members) == 0:
		return constantGroup
	case len(members) > maxMixed:
		return -1
	}
	parts := make([]string, len(members))
	for i, m := range members {
		parts[i] = g.names[m]
	}
	return g.add(members, strings.Join(parts, "*"))
}

// constantGroup is that of a column without inputs: its contribution is 0.
const constantGroup = -2

// maxMixed is the largest number of inputs that one reason names together.
const maxMixed = 8

// compile applies the steps and lowers the result to a program.
func (p *Pipeline) compile(contract schemas.Contract) (*program, error) {
	if err := p.Output.validate(); err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	c := newCompiler(contract)
	if err := c.run(p); err != nil {
		return nil, err
	}
	out := &program{
		contract: contract, positive: p.Output.Positive, classes: p.Output.Classes, notes: c.notes,
		noNumber: &schemas.RecordError{Class: schemas.NotANumber, Err: errors.New("the model gives no number for these inputs: one of them is missing or too large")},
	}
	for _, list := range []struct {
		what  string
		names []string
		slots *[]int32
	}{{"margin", p.Output.Margin, &out.margins}, {"probability", p.Output.Probability, &out.probabilities}} {
		for i, name := range list.names {
			col, err := c.column(name)
			if err != nil || !col.number() {
				return nil, fmt.Errorf("output.%s[%d]: %.60q is no number that a step makes", list.what, i, name)
			}
			*list.slots = append(*list.slots, col.slot)
		}
	}
	for _, slot := range out.margins {
		if e, ok := c.explain[slot]; ok {
			out.explain = append(out.explain, e)
		}
	}
	if len(out.explain) < len(out.margins) {
		out.explain = nil
	}
	if err := c.finish(out); err != nil {
		return nil, err
	}
	for _, e := range out.explain {
		out.biases = append(out.biases, e.base())
	}
	if out.explain == nil && len(p.Background) > 0 {
		var err error
		if out.mixed, err = out.mixtures(p.Background, c.inputsOf(out.margins)); err != nil {
			return nil, err
		}
		if out.mixed != nil {
			out.biases = out.mixed.biases
			out.groups = out.groups[:len(out.inputs)]
		}
	}
	return out, nil
}

// finish drops what no output needs and decides how the rest is laid out.
func (c *compiler) finish(p *program) error {
	checked := make([]bool, len(c.inputs)) // numbers that a fused linear model looks at
	for i, yes := range c.needed(p, nil) {
		if fused, ok := c.nodes[i].op.(*linear); ok && yes {
			for k := range fused.numbers {
				checked[fused.numbers[k].input] = true
			}
		}
	}
	covered := make([]bool, len(c.inputs)) // inputs whose absence an operation reports
	for i, yes := range c.needed(p, checked) {
		if !yes {
			continue
		}
		if fused, ok := c.nodes[i].op.(*linear); ok {
			fused.cover(covered)
		}
		p.operations = append(p.operations, c.nodes[i].op)
	}
	for i, yes := range covered {
		if !yes {
			p.rest = append(p.rest, int32(i))
		}
	}
	p.inputs = c.inputs
	p.groups = c.groups.names
	p.columns = len(c.columns)
	p.slots = int(c.slots)
	p.lanes = max(1, min(maxLanes, registerBytes/8/max(1, p.slots)))
	for i := range p.inputs {
		if err := p.inputs[i].finish(); err != nil {
			return err
		}
	}
	return nil
}

// needed says which nodes an output depends on and, unless checked is nil, which check values that
// nothing else checks.
func (c *compiler) needed(p *program, checked []bool) []bool {
	wanted := make([]bool, c.slots)
	for _, s := range slices.Concat(p.margins, p.probabilities) {
		wanted[s] = true
	}
	needed := make([]bool, len(c.nodes))
	for i := len(c.nodes) - 1; i >= 0; i-- {
		n := &c.nodes[i]
		keep := len(n.writes) == 0 && checked != nil && !n.coveredByFused(checked)
		for _, s := range n.writes {
			keep = keep || wanted[s]
		}
		if !keep {
			continue
		}
		needed[i] = true
		for _, s := range n.reads {
			wanted[s] = true
		}
		if load, ok := n.op.(*loadNumbers); ok && checked != nil {
			load.keep(wanted)
		}
	}
	return needed
}

// inputReader is an operation that reads inputs and not registers alone.
type inputReader interface {
	// readsInputs marks them; of an operation that fills registers with inputs those of wanted ones.
	readsInputs(mark, wanted []bool)
}

// inputsOf returns the inputs that registers depend on, ascending.
func (c *compiler) inputsOf(slots []int32) []int32 {
	wanted, mark := make([]bool, c.slots), make([]bool, len(c.inputs))
	for _, s := range slots {
		wanted[s] = true
	}
	for i := len(c.nodes) - 1; i >= 0; i-- {
		n := &c.nodes[i]
		if !slices.ContainsFunc(n.writes, func(s int32) bool { return wanted[s] }) {
			continue
		}
		if reader, ok := n.op.(inputReader); ok {
			reader.readsInputs(mark, wanted)
		}
		for _, s := range n.reads {
			wanted[s] = true
		}
	}
	var out []int32
	for i, yes := range mark {
		if yes {
			out = append(out, int32(i))
		}
	}
	return out
}

// coveredByFused reports whether a check is made anyway by a linear model that reads the same
// inputs: a missing or infinite number makes its sum NaN or infinite, and then it looks which.
func (n *node) coveredByFused(checked []bool) bool {
	for _, input := range n.guards {
		if !checked[input] {
			return false
		}
	}
	return len(n.guards) > 0
}

// know adds a value that some step knows.
func (in *inputState) know(text string, number float64) {
	if in.category {
		in.texts = append(in.texts, text)
	} else {
		in.numbers = append(in.numbers, number)
	}
	in.limited = true
}

// finish makes the index of the known values and the texts that reasons show.
func (in *inputState) finish() (err error) {
	if !in.limited {
		in.labels = []string{in.name, in.name + missingSuffix}
		return nil
	}
	slices.Sort(in.texts)
	in.texts = slices.Compact(in.texts)
	slices.Sort(in.numbers)
	in.numbers = slices.Compact(in.numbers)
	for _, text := range in.texts {
		in.labels = append(in.labels, in.name+"="+text)
	}
	for _, x := range in.numbers {
		in.labels = append(in.labels, in.name+"="+string(appendNumber(nil, x)))
	}
	in.labels = append(in.labels, in.name+unseenSuffix, in.name+missingSuffix)
	in.index, err = schemas.NewCategoryIndex(in.texts)
	return err
}

// Labels of a reason name the input and, where it is no number, the value.
const (
	missingSuffix = " (missing)"
	unseenSuffix  = " (unseen)"
)

// missing reports whether a value is not there.
func (in *inputState) missing(number float64, category []byte) bool {
	if in.category {
		return category == nil
	}
	return number != number
}

// unseen reports whether a value that is there is none that the model knows.
func (in *inputState) unseen(number float64, category []byte) bool {
	return in.limited && in.position(number, category) == len(in.labels)-2
}

// position returns the place of a value that is there among the labels of a limited input.
func (in *inputState) position(number float64, category []byte) int {
	if in.category {
		return in.index.Lookup(category)
	}
	if at, ok := slices.BinarySearch(in.numbers, number); ok {
		return at
	}
	return len(in.numbers)
}

// labelOf names an input in a reason, with its value if it is a category.
func (in *inputState) labelOf(number float64, category []byte) string {
	switch {
	case in.missing(number, category):
		return in.labels[len(in.labels)-1]
	case !in.limited:
		return in.labels[0]
	}
	return in.labels[in.position(number, category)]
}
