package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/trees"
)

type scratch = trees.Scratch

// Parse reads a model file. Memory and time stay within a small multiple of the file's size. What is
// not supported is refused by its name, operators with their domain and opset.
//
// The inputs are the columns of the graph's inputs: under an input's name if it has one column, else
// under its name with the column's number, or f0, f1, … when the graph has one input. A missing number
// is NaN; a missing text is the empty one.
//
// A model with labels and scores is a classifier: its scores are probabilities, and a margin is the
// log-odds of one. With two classes there is one output, the second class. Anything else is a
// regression.
func Parse(data []byte) (*booster.Model, error) {
	model, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	return model, nil
}

// Looks reports whether a file may be an ONNX model: it begins with a version of the format.
func Looks(data []byte) bool { return len(data) > 2 && data[0] == 8 && data[1] > 0 && data[1] < 64 }

func parse(data []byte) (*booster.Model, error) {
	var d document
	if err := d.read(data); err != nil {
		return nil, err
	}
	b := &builder{
		operators: operators(), opsets: d.opsets, values: make(map[string]*value), vocabulary: make(map[string]float64),
		budget: len(data)/4 + 1<<19,
	}
	e := &engine{}
	m := &booster.Model{Library: "onnx", Version: strings.TrimSpace(d.producer + " " + d.release), Kind: "graph", Engine: e}
	if err := b.inputs(&d.graph, e, m); err != nil {
		return nil, err
	}
	if err := b.readFunctions(d.functions); err != nil {
		return nil, err
	}
	if err := b.build(&d.graph); err != nil {
		return nil, err
	}
	if err := b.outputs(d.graph.outputs, e, m); err != nil {
		return nil, err
	}
	m.Trees = b.trees
	v := b.slots[e.in[0].slot]
	e.direct = e.in[0].width == len(e.in) && v.dtype == float32s && v.wide == v.uses && v != e.result
	e.operations, e.sizes = b.operations, make([]int, len(b.slots))
	total := 0
	for i, v := range b.slots {
		if !v.isConstant() {
			e.sizes[i] = v.size()
			total += v.size()
		}
	}
	e.lanes = max(1, min(maxLanes, registerNumbers/max(1, total)))
	vocabulary := b.vocabulary
	number := func(text []byte) float64 {
		if id, known := vocabulary[string(text)]; known {
			return id
		}
		return unseen
	}
	for i := range e.in {
		in := &e.in[i]
		if in.absent = math.NaN(); in.dtype != texts {
			continue
		}
		in.absent = number(nil)
		if m.Categories == nil {
			m.Categories = make(map[int]booster.Categories)
		}
		m.Categories[i] = booster.Categories{Number: number}
	}
	return m, nil
}

// maxLanes rows share the cost of an operation's call; all registers together stay within
// registerNumbers where one row does.
const (
	maxLanes        = 64
	registerNumbers = 1 << 15
)

// engine runs the program of a graph. It is immutable.
type engine struct {
	in         []input
	operations []operation
	sizes      []int // of the registers' rows
	lanes      int
	direct     bool // the rows are the register of the only input: whatever reads it rounds by itself

	result      *value
	probability bool // the result is made of probabilities
	from        int  // the first column of the result that is an output
	outputs     int
}

// input is a column of the graph's inputs.
type input struct {
	slot, width int // width columns of the register stand together
	dtype       dtype
	absent      float64
}

var _ booster.Engine = (*engine)(nil)

// columnNumbers is how many numbers the memory of a column of the inputs and its name would hold, at least.
const columnNumbers = 16

// inputs makes a value of every input of the graph that is not an initializer.
func (b *builder) inputs(g *graph, e *engine, m *booster.Model) error {
	given := make(map[string]bool)
	for _, message := range g.initializers {
		name := ""
		if err := fields(message, func(f field) error {
			if f.number == 8 {
				name = string(f.bytes)
			}
			return nil
		}); err != nil {
			return err
		}
		given[name] = true
	}
	open := slices.DeleteFunc(slices.Clone(g.inputs), func(v valueInfo) bool { return given[v.name] })
	for _, info := range open {
		t, err := dtypeOf(info.dtype)
		if err != nil {
			return fmt.Errorf("input %q: %w", info.name, err)
		}
		width := int64(1)
		if len(info.dims) == 2 {
			width = info.dims[1]
		}
		if len(info.dims) < 1 || len(info.dims) > 2 || width < 1 || info.dims[0] > 1 {
			return fmt.Errorf("input %q: the dimensions %v (-1: not said), want rows of a number of columns that is said", info.name, info.dims)
		}
		if width > int64(b.budget/columnNumbers) {
			return fmt.Errorf("input %q: %d columns are more than is allowed for a file of this size", info.name, width)
		}
		b.budget -= int(width) * columnNumbers
		e.in, m.Names = slices.Grow(e.in, int(width)), slices.Grow(m.Names, int(width))
		v := ofRows(t, int(width))
		if len(info.dims) == 1 {
			v.dims = []int{rows}
		}
		v.name = info.name
		if err := errors.Join(b.place(v), b.define(v)); err != nil {
			return fmt.Errorf("input %q: %w", info.name, err)
		}
		for k := range int(width) {
			e.in = append(e.in, input{slot: v.slot, width: int(width), dtype: t})
			if name := info.name; width > 1 {
				m.Names = append(m.Names, name+"_"+strconv.Itoa(k))
			} else {
				m.Names = append(m.Names, name)
			}
		}
	}
	if len(open) == 0 {
		return errors.New("the graph has no inputs")
	}
	if len(open) == 1 && len(e.in) > 1 {
		m.Names = nil
	}
	return nil
}

// outputs finds what the graph predicts.
func (b *builder) outputs(names []string, e *engine, m *booster.Model) error {
	labels := false
	var scores []*value
	for _, name := range names {
		v := b.values[name]
		switch {
		case v == nil:
			return fmt.Errorf("no node makes the output %q", name)
		case v.zipped:
			scores = append(scores, v)
			labels = true
		case v.dtype == float32s || v.dtype == float64s:
			scores = append(scores, v)
		default:
			labels = true
		}
	}
	if len(scores) != 1 {
		return fmt.Errorf("%d outputs of numbers among %q, want 1", len(scores), names)
	}
	e.result = scores[0]
	if e.result.isConstant() || e.result.flat || e.result.stacked || e.result.chosen || e.result.size() < 1 {
		return fmt.Errorf("the output %q has the dimensions %v, want a number for each row", e.result.name, e.result.shape())
	}
	e.outputs = e.result.size()
	m.Objective = "regression"
	if labels {
		e.probability = true
		m.Objective = "classification"
		m.Link = booster.Link{Function: booster.Sigmoid, Rounded: e.result.dtype == float32s}
		if e.outputs == 2 {
			if e.from, e.outputs = 1, 1; !e.result.used {
				e.result.only = 2
			}
		}
	}
	return nil
}

// Features is the number of columns of the graph's inputs.
func (e *engine) Features() int { return len(e.in) }

// Outputs is the number of margins of a row.
func (e *engine) Outputs() int { return e.outputs }

// Margins runs the graph on n rows. A row that the graph cannot take, such as one without a number
// for an input of integers, and a score of a classifier that is no probability give NaN.
func (e *engine) Margins(rows []float64, n int, out []float64, s *trees.Scratch) {
	f := e.frame(s)
	for at := 0; at < n; at += e.lanes {
		f.n = min(e.lanes, n-at)
		e.run(f, rows[at*len(e.in):(at+f.n)*len(e.in)], out[at*e.outputs:(at+f.n)*e.outputs])
	}
}

// frame finds the memory that this engine left in the scratch.
func (e *engine) frame(s *trees.Scratch) *state {
	if st, ok := s.Other.(*state); ok && st.of == e {
		return st
	}
	st := &state{frame: frame{sizes: e.sizes}, of: e, whole: make([][]float64, len(e.sizes)), bad: make([]bool, e.lanes)}
	st.registers = make([][]float64, len(e.sizes))
	for i, size := range e.sizes {
		st.whole[i] = make([]float64, size*e.lanes)
	}
	s.Other = st
	return st
}

// state is a frame with its registers at full length.
type state struct {
	frame
	of    *engine
	whole [][]float64
	bad   []bool
}

// read writes the register of an input, whose first column this is. The rows have its columns at the distance of width.
func (in *input) read(f *state, rows []float64, width int) {
	register := f.registers[in.slot]
	if in.dtype == float32s {
		for at := 0; len(register) > 0; at += width {
			row := rows[at : at+in.width]
			to := register[:len(row)]
			for k, x := range row {
				to[k] = float64(float32(x))
			}
			register = register[len(row):]
		}
		return
	}
	for r := range f.n {
		for k, x := range rows[r*width : r*width+in.width] {
			switch in.dtype {
			case integers, booleans:
				if x != math.Trunc(x) || !(math.Abs(x) <= maxExact) {
					f.bad[r] = true
					x = 0
				}
			case texts:
				if x != x {
					x = in.absent
				}
			case float32s, float64s:
			}
			register[r*in.width+k] = x
		}
	}
}

func (e *engine) run(f *state, rows, out []float64) {
	for i, size := range e.sizes {
		f.registers[i] = f.whole[i][:size*f.n]
	}
	width := len(e.in)
	clear(f.bad)
	if e.direct {
		f.registers[e.in[0].slot] = rows
	} else {
		for i := 0; i < width; i += e.in[i].width {
			e.in[i].read(f, rows[i:], width)
		}
	}
	for _, op := range e.operations {
		op(&f.frame)
	}
	for r := range f.n {
		to := out[r*e.outputs : (r+1)*e.outputs]
		for k, x := range f.row(e.result, r)[e.from:][:len(to)] {
			if e.probability {
				x = logOdds(x)
			}
			to[k] = x
		}
		if f.bad[r] {
			refuse(to)
		}
	}
}

// roundedOff bounds how far a probability may lie outside of 0 to 1. Votes of a forest that all agree are added up in
// float32, each addition off by up to 2^-25 in the same direction.
const roundedOff = 1e-5

// logOdds is a margin of a probability. Of 0 and 1, and of what rounding left just outside of them, it is one from which
// the sigmoid makes them again, of what is no probability NaN.
func logOdds(p float64) float64 {
	switch {
	case !(p >= -roundedOff && p <= 1+roundedOff):
		return math.NaN()
	case p <= 0:
		return -800
	case p >= 1:
		return 40
	}
	return math.Log(p / (1 - p))
}

// Explains reports that there are no contributions.
func (e *engine) Explains() error {
	return errors.New("the file of an ONNX model does not say how its training rows were spread: contributions cannot be computed")
}

// Bias is nil.
func (e *engine) Bias() []float64 { return nil }

// Contributions panics: there are none.
func (e *engine) Contributions([]float64, []float64, *trees.Scratch) {
	panic("BUG: contributions asked of a model that has none")
}
