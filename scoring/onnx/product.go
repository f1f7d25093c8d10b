package onnx

import (
	"errors"
	"fmt"
	"slices"
)

func addProducts(o map[string]maker) {
	o[":MatMul"] = makeMatMul
	o[":Gemm"] = makeGemm
	o["ai.onnx.ml:LinearRegressor"] = makeLinearRegressor
	o["ai.onnx.ml:LinearClassifier"] = makeLinearClassifier
}

// product multiplies rows by a constant matrix and adds an offset.
type product struct {
	double  bool
	weights []float64 // column by column of the result
	width   int       // of a row
	offset  []float64 // nil, one number, or one for each column
}

// run writes the products of all rows of x, of the columns of the result from first on up to last.
func (p *product) run(f *frame, x, out *value, first, last int) {
	from, to, width := f.registers[x.slot], f.registers[out.slot], p.width
	if !p.double && x.dtype != float32s {
		from = f.rounded(from)
	}
	all := len(to) / f.n
	stride := strideOf(len(p.weights)/max(1, width), width)
	for k := first; k < last; k++ {
		offset := 0.0
		if len(p.offset) > 0 {
			offset = p.offset[min(k, len(p.offset)-1)]
		}
		weights := p.weights[k*width : (k+1)*width]
		r := 0
		for ; !p.double && r+4 <= f.n; r += 4 {
			a, b, c, d := dots32(from[r*width:], weights, stride, float32(offset))
			to[r*all+k], to[(r+1)*all+k], to[(r+2)*all+k], to[(r+3)*all+k] = float64(a), float64(b), float64(c), float64(d)
		}
		for ; r < f.n; r++ {
			if row := from[r*width : (r+1)*width]; p.double {
				to[r*all+k] = dot64(row, weights, offset)
			} else {
				to[r*all+k] = float64(dot32(row, weights, stride, 1, float32(offset)))
			}
		}
	}
}

// rounded is numbers as float32.
func (f *frame) rounded(numbers []float64) []float64 {
	f.memory = slices.Grow(f.memory[:0], len(numbers))[:len(numbers)]
	for i, x := range numbers {
		f.memory[i] = float64(float32(x))
	}
	return f.memory
}

// byColumns reorders a matrix of r rows so that its columns stand together, once for all products by it.
func (v *value) byColumns(r int) []float64 {
	if r == 0 || v.columns != nil {
		return v.columns
	}
	width := len(v.constant) / r
	v.columns = make([]float64, 0, len(v.constant))
	for k := range width {
		for i := range r {
			v.columns = append(v.columns, v.constant[i*width+k])
		}
	}
	return v.columns
}

func (c *call) product(x *value, p *product, n int) ([]*value, operation, error) {
	out := ofRows(x.dtype, n)
	return []*value{out}, func(f *frame) {
		p.run(f, x, out, 0, n)
	}, nil
}

func makeMatMul(c *call) ([]*value, operation, error) {
	if err := c.need(2, 2); err != nil {
		return nil, nil, err
	}
	x, m := c.in[0], c.in[1]
	width, err := matrix(x)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(isFloat(x.dtype), isFloat(m.dtype)); err != nil || x.dtype != m.dtype {
		return nil, nil, fmt.Errorf("%q is of type %s, %q of type %s: want floats of one type", x.name, x.dtype, m.name, m.dtype)
	}
	if m.constant == nil || len(m.dims) < 1 || len(m.dims) > 2 || m.dims[0] != width || len(x.dims) != 2 {
		return nil, nil, fmt.Errorf("%v times %v, want rows times a constant matrix", x.shape(), m.shape())
	}
	p := &product{double: x.dtype == float64s, weights: m.byColumns(width), width: width}
	if len(m.dims) == 2 {
		return c.product(x, p, m.dims[1])
	}
	out, run, err := c.product(x, p, 1)
	out[0].dims = out[0].dims[:1]
	return out, run, err
}

func makeGemm(c *call) ([]*value, operation, error) {
	if err := c.need(2, 3); err != nil {
		return nil, nil, err
	}
	x, m, offset := c.in[0], c.in[1], c.optional(2)
	width, err := matrix(x)
	if err != nil {
		return nil, nil, err
	}
	for name, otherwise := range map[string]float64{"alpha": 1, "beta": 1} {
		if v, err := c.number(name, otherwise); err != nil || v != 1 {
			return nil, nil, errors.Join(err, fmt.Errorf("%s is %v, only 1 is supported", name, v))
		}
	}
	transA, err := c.integer("transA", 0)
	if err != nil {
		return nil, nil, err
	}
	transB, err := c.integer("transB", 0)
	if err != nil {
		return nil, nil, err
	}
	if transA != 0 {
		return nil, nil, errors.New("transA would mix rows")
	}
	if err := isFloat(x.dtype); err != nil || m.dtype != x.dtype || m.constant == nil || len(m.dims) != 2 || len(x.dims) != 2 {
		return nil, nil, fmt.Errorf("%v times %v, want rows of floats times a constant matrix", x.shape(), m.shape())
	}
	p := &product{double: x.dtype == float64s, width: width}
	in, n := m.dims[0], m.dims[1]
	if p.weights = m.constant; transB == 0 {
		p.weights = m.byColumns(in)
	} else {
		in, n = n, in
	}
	if in != width {
		return nil, nil, fmt.Errorf("rows of %d columns times a matrix of %d rows", width, in)
	}
	if offset != nil {
		if offset.constant == nil || len(offset.constant) != 1 && len(offset.constant) != n || offset.dtype != x.dtype {
			return nil, nil, fmt.Errorf("%q has the dimensions %v, want a constant of %d elements", offset.name, offset.shape(), n)
		}
		p.offset = offset.constant
	}
	return c.product(x, p, n)
}

// linear reads what LinearRegressor and LinearClassifier share.
func (c *call) linear() (x *value, p *product, post string, err error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, "", err
	}
	x = c.in[0]
	if p = (&product{}); x.dtype == texts || x.dtype == booleans {
		return nil, nil, "", numeric(x)
	}
	if p.width, err = matrix(x); err != nil {
		return nil, nil, "", err
	}
	if p.weights, err = c.floats("coefficients"); err != nil {
		return nil, nil, "", err
	}
	if p.offset, err = c.floats("intercepts"); err != nil {
		return nil, nil, "", err
	}
	post, err = c.text("post_transform", "NONE")
	return x, p, post, err
}

func makeLinearRegressor(c *call) ([]*value, operation, error) {
	x, p, post, err := c.linear()
	if err != nil {
		return nil, nil, err
	}
	n, err := c.integer("targets", 1)
	if err != nil {
		return nil, nil, err
	}
	if post != "NONE" {
		return nil, nil, fmt.Errorf("post_transform %q is not supported, NONE is", post)
	}
	if n < 1 || n > int64(len(p.weights)) || int(n)*p.width != len(p.weights) || len(p.offset) != 0 && len(p.offset) != int(n) {
		return nil, nil, fmt.Errorf("%d coefficients and %d intercepts for %d targets of %d columns", len(p.weights), len(p.offset), n, p.width)
	}
	out := ofRows(float32s, int(n))
	return []*value{out}, func(f *frame) {
		p.run(f, x, out, 0, int(n))
	}, nil
}

// row32 is a row's elements as float32.
func (f *frame) row32(v *value, r int) []float64 {
	from := f.row(v, r)
	if v.dtype == float32s {
		return from
	}
	return f.rounded(from)
}

// classes reads the labels of a classifier: their number, and themselves as elements.
func (c *call) classes(strings, ints string) (t dtype, labels []float64, err error) {
	a, _, err := c.attribute(strings)
	if err != nil {
		return 0, nil, err
	}
	list, err := c.ints(ints)
	if err != nil {
		return 0, nil, err
	}
	if len(a.texts) > 0 {
		for _, s := range a.texts {
			labels = append(labels, c.intern(s))
		}
		return texts, labels, nil
	}
	labels, err = fromInts(list)
	return integers, labels, err
}

func makeLinearClassifier(c *call) ([]*value, operation, error) {
	x, p, post, err := c.linear()
	if err != nil {
		return nil, nil, err
	}
	t, labels, err := c.classes("classlabels_strings", "classlabels_ints")
	if err != nil {
		return nil, nil, err
	}
	n := len(p.offset)
	if n < 2 || n != len(labels) || n*p.width != len(p.weights) {
		return nil, nil, fmt.Errorf("%d coefficients, %d intercepts and %d classes for %d columns; want one intercept for each of two or more classes",
			len(p.weights), n, len(labels), p.width)
	}
	transform, err := transformOf(post, logistics, softmaxExact)
	if err != nil {
		return nil, nil, err
	}
	label, scores := &value{dtype: t, dims: []int{rows}, axis: 0, slot: -1}, ofRows(float32s, n)
	return []*value{label, scores}, func(f *frame) {
		to := f.registers[scores.slot]
		if k := scores.only - 1; k >= 0 && post != "SOFTMAX" && !label.used {
			p.run(f, x, scores, k, k+1)
			transform(to[k:], n)
			return
		}
		p.run(f, x, scores, 0, n)
		for r := range f.n {
			row := f.row(scores, r)
			if f.row(label, r)[0] = labels[largest(row)]; post == "SOFTMAX" {
				transform(row, 1)
			}
		}
		if post != "SOFTMAX" {
			transform(to, 1)
		}
	}, nil
}

// largest is the place of the first largest number.
func largest(list []float64) int {
	at := 0
	for i, x := range list {
		if x > list[at] {
			at = i
		}
	}
	return at
}

// transformOf makes a post_transform of every step-th number of a list, or, of SOFTMAX, of the list.
func transformOf(name string, logistics func(list []float64, step int), softmax func(x, out []float64)) (func(list []float64, step int), error) {
	switch name {
	case "", "NONE":
		return func([]float64, int) {}, nil
	case "LOGISTIC":
		return logistics, nil
	case "SOFTMAX":
		return func(x []float64, _ int) { softmax(x, x) }, nil
	}
	return nil, fmt.Errorf("post_transform %q is not supported; these are: NONE, LOGISTIC, SOFTMAX", name)
}
