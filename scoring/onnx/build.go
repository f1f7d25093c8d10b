package onnx

import (
	"errors"
	"fmt"
	"slices"
)

// builder turns a graph into a program: every node becomes an operation over registers, or a constant
// if all its inputs are.
type builder struct {
	operators  map[string]maker
	opsets     map[string]int64
	values     map[string]*value
	vocabulary map[string]float64
	operations []operation
	slots      []*value
	budget     int // numbers that constants made of constants, and registers of one row, may still take
	trees      int // of all ensembles

	functions map[string]function // by domain and name
	inlined   int                 // nodes of functions so far
	imputes   bool                // the functions are those of a KNNImputer
}

// operation computes registers from registers, for all rows of a frame.
type operation func(f *frame)

// frame is the memory of a program at work.
type frame struct {
	registers [][]float64 // by slot, row after row
	sizes     []int       // of their rows
	n         int         // rows
	scratch   scratch
	memory    []float64
	floats    []float32
}

// row is a row's elements of a value.
func (f *frame) row(v *value, r int) []float64 {
	if v.constant != nil {
		return v.constant
	}
	size := f.sizes[v.slot]
	return f.registers[v.slot][r*size : (r+1)*size : (r+1)*size]
}

func (b *builder) intern(text []byte) float64 {
	id, ok := b.vocabulary[string(text)]
	if !ok {
		id = float64(len(b.vocabulary))
		b.vocabulary[string(text)] = id
	}
	return id
}

// call is a node while it becomes an operation.
type call struct {
	*builder
	node
	in []*value // nil: an optional input that is not given
}

func (b *builder) build(g *graph) error {
	for i, message := range g.initializers {
		v, err := b.readTensor(message)
		if err == nil {
			err = b.define(v)
		}
		if err != nil {
			return fmt.Errorf("initializer %d %q: %w", i, v.name, err)
		}
	}
	for i, message := range g.nodes {
		n, err := readNode(message)
		if err == nil {
			err = b.add(n)
		}
		if err != nil {
			return fmt.Errorf("node %d %q (%s): %w", i, n.name, n.op, err)
		}
	}
	return nil
}

func (b *builder) define(v *value) error {
	if v.name == "" {
		return errors.New("a value without a name")
	}
	if b.values[v.name] != nil {
		return fmt.Errorf("the value %q is made twice", v.name)
	}
	b.values[v.name] = v
	return nil
}

func (b *builder) add(n node) error {
	if f, own := b.functions[n.domain+":"+n.op]; own {
		return b.inline(n, f)
	}
	make, known := b.operators[n.domain+":"+n.op]
	version, imported := b.opsets[n.domain]
	switch {
	case !imported:
		return fmt.Errorf("the model imports no version of the domain %q", domainName(n.domain))
	case !known:
		return fmt.Errorf("the operator %s of %s, opset %d, is not supported", n.op, domainName(n.domain), version)
	}
	n.version = version
	c := &call{builder: b, node: n}
	for _, name := range n.inputs {
		v := b.values[name]
		if v == nil && name != "" {
			return fmt.Errorf("no node before makes its input %q", name)
		}
		if v != nil {
			v.used = true
			v.uses++
		}
		c.in = append(c.in, v)
	}
	if len(c.in) == 0 && n.op != "Constant" {
		return errors.New("it has no inputs")
	}
	if err := c.flattened(); err != nil {
		return err
	}
	out, run, err := make(c)
	if err != nil {
		return err
	}
	if len(n.outputs) > len(out) {
		return fmt.Errorf("%d outputs, it makes %d", len(n.outputs), len(out))
	}
	constant := true
	for _, v := range out {
		constant = constant && v.isConstant()
	}
	for i, v := range out {
		if i < len(n.outputs) {
			v.name = n.outputs[i]
		}
		if err := b.place(v); err != nil {
			return err
		}
	}
	if constant {
		b.fold(out, run)
	} else if run != nil {
		b.operations = append(b.operations, run)
	}
	for _, v := range out {
		if v.name == "" {
			continue
		}
		if err := b.define(v); err != nil {
			return err
		}
	}
	return nil
}

// flattened refuses what would take the columns of rows that became one dimension for a dimension of their own.
func (c *call) flattened() error {
	if slices.ContainsFunc(c.in, func(v *value) bool { return v != nil && v.chosen }) && c.domain != neighbourDomain && c.op != "Reshape" && c.op != "Gather" {
		return errors.New("some of the rows are not supported, all are")
	}
	if c.op != "Reshape" && slices.ContainsFunc(c.in, func(v *value) bool { return v != nil && v.stacked }) {
		return errors.New("rows of several tensors behind each other are not supported")
	}
	flat := slices.ContainsFunc(c.in, func(v *value) bool { return v != nil && v.flat })
	if !flat {
		return nil
	}
	switch c.op {
	case "Identity", "Cast", "IsNaN", "Not", "Neg", "Flatten", "Reshape", "Gather":
		return nil
	case "Add", "Sub", "Mul", "Div", "And", "Or", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Where":
		for _, v := range c.in {
			if v != nil && !v.flat && (!v.isConstant() || v.size() != 1) {
				return fmt.Errorf("%q of the dimensions %v with all elements of all rows in one dimension is not supported", v.name, v.shape())
			}
		}
		return nil
	}
	return errors.New("all elements of all rows in one dimension are not supported")
}

// place gives a value a register, unless it has one or is known.
func (b *builder) place(v *value) error {
	if v.constant != nil || v.slot >= 0 {
		return nil
	}
	size := 1
	if len(v.dims) > maxRank {
		return fmt.Errorf("%d dimensions, at most %d are supported", len(v.dims), maxRank)
	}
	for i, d := range v.dims {
		if i == v.axis {
			continue
		}
		if d > 0 && size > b.budget/d {
			return fmt.Errorf("a tensor of the dimensions %v is more than is allowed for a file of this size", v.dims)
		}
		size *= d
	}
	b.budget -= size
	v.slot = len(b.slots)
	b.slots = append(b.slots, v)
	return nil
}

// fold computes what depends on constants only.
func (b *builder) fold(out []*value, run operation) {
	if run == nil {
		return
	}
	f := frame{n: 1, registers: make([][]float64, len(b.slots)), sizes: make([]int, len(b.slots))}
	for _, v := range out {
		f.registers[v.slot], f.sizes[v.slot] = make([]float64, v.size()), v.size()
	}
	run(&f)
	for _, v := range out {
		v.constant = f.registers[v.slot]
		if v.constant == nil {
			v.constant = []float64{}
		}
	}
}

// Helpers of the operators.

// need checks the number of inputs and that the required ones are there.
func (c *call) need(least, most int) error {
	if len(c.in) < least || len(c.in) > most {
		return fmt.Errorf("%d inputs, want %d to %d", len(c.in), least, most)
	}
	for i := range least {
		if c.in[i] == nil {
			return fmt.Errorf("input %d is not given", i)
		}
	}
	return nil
}

func (c *call) optional(i int) *value {
	if i < len(c.in) {
		return c.in[i]
	}
	return nil
}

func (c *call) integer(name string, otherwise int64) (int64, error) {
	a, found, err := c.attribute(name)
	if !found || err != nil {
		return otherwise, err
	}
	return a.integer, nil
}

func (c *call) number(name string, otherwise float64) (float64, error) {
	a, found, err := c.attribute(name)
	if !found || err != nil {
		return otherwise, err
	}
	return a.number, nil
}

func (c *call) text(name, otherwise string) (string, error) {
	a, found, err := c.attribute(name)
	if !found || err != nil {
		return otherwise, err
	}
	return string(a.text), nil
}

func (c *call) floats(name string) ([]float64, error) {
	a, _, err := c.attribute(name)
	return a.floats, err
}

func (c *call) ints(name string) ([]int64, error) {
	a, _, err := c.attribute(name)
	return a.ints, err
}

// numbers checks that a value can be calculated with.
func numeric(v *value) error {
	if v.dtype == texts || v.dtype == booleans {
		return fmt.Errorf("%q is of type %s, want numbers", v.name, v.dtype)
	}
	return nil
}

// matrix checks that a value has rows of one or two dimensions and gives their width.
func matrix(v *value) (width int, err error) {
	if v.isConstant() || v.axis != 0 || len(v.dims) > 2 {
		return 0, fmt.Errorf("%q has the dimensions %v, want rows of columns", v.name, v.shape())
	}
	return v.size(), nil
}

// shape is the dimensions with n for the rows, for people.
func (v *value) shape() []string {
	out := make([]string, len(v.dims))
	for i, d := range v.dims {
		if out[i] = fmt.Sprint(d); i == v.axis {
			out[i] = "n"
		}
	}
	if v.flat {
		out = append(slices.Clone(out[:v.axis]), "n·"+out[v.axis+1])
	}
	if v.stacked {
		out = append([]string{out[0] + "·n"}, out[2:]...)
	}
	return out
}

// like makes a value with the form of another.
func like(v *value, t dtype) *value {
	return &value{dtype: t, dims: slices.Clone(v.dims), axis: v.axis, flat: v.flat, slot: -1}
}

// ofRows makes a value with width columns a row.
func ofRows(t dtype, width int) *value {
	return &value{dtype: t, dims: []int{rows, width}, axis: 0, slot: -1}
}

// shaped makes a value of dimensions, where rows stands for the rows.
func shaped(t dtype, dims []int) (*value, error) {
	v := &value{dtype: t, dims: dims, axis: noAxis, slot: -1}
	for i, d := range dims {
		if d != rows {
			continue
		}
		if v.axis != noAxis {
			return nil, errors.New("two dimensions are as long as there are rows")
		}
		v.axis = i
	}
	return v, nil
}

// axis reads the axis that an operator works along, one of rank dimensions.
func (c *call) axis(otherwise int64, rank int) (int, error) {
	axis, err := c.integer("axis", otherwise)
	if err != nil {
		return 0, err
	}
	return axisOf(axis, rank)
}

// axisOf resolves an axis that may count from the end.
func axisOf(axis int64, rank int) (int, error) {
	if axis < 0 {
		axis += int64(rank)
	}
	if axis < 0 || axis >= int64(rank) {
		return 0, fmt.Errorf("axis %d of %d dimensions", axis, rank)
	}
	return int(axis), nil
}

// whole reads a constant of integers.
func whole(v *value) ([]int64, error) {
	if v.constant == nil || v.dtype != integers {
		return nil, fmt.Errorf("%q must be a constant of integers", v.name)
	}
	out := make([]int64, len(v.constant))
	for i, x := range v.constant {
		out[i] = int64(x)
	}
	return out, nil
}

// marked reports whether a constant holds the number of rows.
func marked(v *value) bool {
	return v.constant != nil && v.dtype == integers && slices.Contains(v.constant, rowsMark)
}

// axes are given as an attribute up to some version of the operator, as an input after.
func (c *call) axes(input int) ([]int64, error) {
	if v := c.optional(input); v != nil {
		return whole(v)
	}
	return c.ints("axes")
}
