package onnx

import (
	"errors"
	"fmt"
	"math"
)

func addReductions(o map[string]maker) {
	add := func(t dtype, sum, x float64) float64 { return t.round(sum + x) }
	o[":ReduceSum"] = reduction(0, add, nil)
	o[":ReduceMean"] = reduction(0, add, func(t dtype, x float64, n int) float64 { return quotient(t, x, float64(n)) })
	o[":ReduceProd"] = reduction(1, func(t dtype, sum, x float64) float64 { return t.round(sum * x) }, nil)
	o[":ReduceMax"] = reduction(math.Inf(-1), func(_ dtype, most, x float64) float64 { return math.Max(most, x) }, nil)
	o[":ReduceMin"] = reduction(math.Inf(1), func(_ dtype, least, x float64) float64 { return math.Min(least, x) }, nil)
	o[":ReduceL1"] = reduction(0, func(t dtype, sum, x float64) float64 { return t.round(sum + math.Abs(x)) }, nil)
	square := func(t dtype, sum, x float64) float64 { return t.round(sum + t.round(x*x)) }
	o[":ReduceSumSquare"] = reduction(0, square, nil)
	o[":ReduceL2"] = reduction(0, square, func(_ dtype, x float64, _ int) float64 { return math.Sqrt(x) })
	o[":ReduceLogSumExp"] = makeLogSumExp
	o[":ArgMax"] = extreme(func(x, best float64) bool { return x > best })
	o[":ArgMin"] = extreme(func(x, best float64) bool { return x < best })
	o[":Softmax"] = makeSoftmax
	o[":LpNormalization"] = makeLpNormalization
}

// groups finds the elements of a row that axes join: those of a result's element stand behind each
// other in order.
func (c *call) groups(x *value, axes []int64, keep bool) (out *value, order []int32, each int, err error) {
	joined := make([]bool, len(x.dims))
	if len(axes) == 0 {
		return nil, nil, 0, errors.New("a reduction over all axes, rows included, is not supported")
	}
	for _, a := range axes {
		at, err := axisOf(a, len(x.dims))
		if err != nil {
			return nil, nil, 0, err
		}
		if at == x.axis {
			return nil, nil, 0, errors.New("a reduction over the rows is not supported")
		}
		joined[at] = true
	}
	var outer, inner, outerSteps, innerSteps []int
	var dims []int
	strides := make([]int, len(x.dims))
	stride := 1
	for i := len(x.dims) - 1; i >= 0; i-- {
		if i != x.axis {
			strides[i] = stride
			stride *= x.dims[i]
		}
	}
	each = 1
	for i, d := range x.dims {
		if joined[i] {
			inner, innerSteps = append(inner, d), append(innerSteps, strides[i])
			each *= d
			if keep {
				dims = append(dims, 1)
			}
			continue
		}
		outer, outerSteps = append(outer, d), append(outerSteps, strides[i])
		dims = append(dims, d)
	}
	if each == 0 {
		return nil, nil, 0, fmt.Errorf("%q has no elements along the axes %v", x.name, axes)
	}
	if out, err = shaped(x.dtype, dims); err != nil {
		return nil, nil, 0, err
	}
	for i, d := range outer {
		if d == rows {
			outer[i], outerSteps[i] = 1, 0
		}
	}
	order = walk(append(outer, inner...), append(outerSteps, innerSteps...), 0)
	return out, order, each, nil
}

func reduction(start float64, step func(t dtype, sum, x float64) float64, finish func(t dtype, x float64, n int) float64) maker {
	return func(c *call) ([]*value, operation, error) {
		x, out, order, each, err := c.reduce()
		if err != nil {
			return nil, nil, err
		}
		return []*value{out}, func(f *frame) {
			for r := range f.n {
				to, from := f.row(out, r), f.row(x, r)
				for i := range to {
					sum := start
					for _, k := range order[i*each : (i+1)*each] {
						sum = step(x.dtype, sum, from[k])
					}
					if finish != nil {
						sum = x.dtype.round(finish(x.dtype, sum, each))
					}
					to[i] = sum
				}
			}
		}, nil
	}
}

func (c *call) reduce() (x, out *value, order []int32, each int, err error) {
	if err := c.need(1, 2); err != nil {
		return nil, nil, nil, 0, err
	}
	x = c.in[0]
	if err := isNumber(x.dtype); err != nil {
		return nil, nil, nil, 0, err
	}
	axes, err := c.axes(1)
	if err != nil {
		return nil, nil, nil, 0, err
	}
	keep, err := c.integer("keepdims", 1)
	if err != nil {
		return nil, nil, nil, 0, err
	}
	out, order, each, err = c.groups(x, axes, keep != 0)
	return x, out, order, each, err
}

func makeLogSumExp(c *call) ([]*value, operation, error) {
	x, out, order, each, err := c.reduce()
	if err != nil {
		return nil, nil, err
	}
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to, from := f.row(out, r), f.row(x, r)
			for i := range to {
				part := order[i*each : (i+1)*each]
				most := math.Inf(-1)
				for _, k := range part {
					most = math.Max(most, from[k])
				}
				if math.IsInf(most, 0) {
					most = 0
				}
				sum := 0.0
				for _, k := range part {
					sum = x.dtype.round(sum + x.dtype.round(math.Exp(x.dtype.round(from[k]-most))))
				}
				to[i] = x.dtype.round(x.dtype.round(math.Log(sum)) + most)
			}
		}
	}, nil
}

// extreme makes an operator that gives the place of the first extreme element.
func extreme(better func(x, best float64) bool) maker {
	return func(c *call) ([]*value, operation, error) {
		if err := c.need(1, 1); err != nil {
			return nil, nil, err
		}
		x := c.in[0]
		if err := isNumber(x.dtype); err != nil {
			return nil, nil, err
		}
		axis, err := c.integer("axis", 0)
		if err != nil {
			return nil, nil, err
		}
		keep, err := c.integer("keepdims", 1)
		if err != nil {
			return nil, nil, err
		}
		last, err := c.integer("select_last_index", 0)
		if err != nil || last != 0 {
			return nil, nil, errors.Join(err, fmt.Errorf("select_last_index %d is not supported", last))
		}
		out, order, each, err := c.groups(x, []int64{axis}, keep != 0)
		if err != nil {
			return nil, nil, err
		}
		out.dtype = integers
		return []*value{out}, func(f *frame) {
			for r := range f.n {
				to, from := f.row(out, r), f.row(x, r)
				for i := range to {
					part := order[i*each : (i+1)*each]
					at := 0
					for k := 1; k < each; k++ {
						if better(from[part[k]], from[part[at]]) {
							at = k
						}
					}
					to[i] = float64(at)
				}
			}
		}, nil
	}
}

func makeSoftmax(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if err := isFloat(x.dtype); err != nil {
		return nil, nil, err
	}
	axis, err := c.integer("axis", -1)
	if err != nil {
		return nil, nil, err
	}
	at, err := axisOf(axis, len(x.dims))
	if err != nil {
		return nil, nil, err
	}
	if x.axis != 0 || at != len(x.dims)-1 || len(x.dims) != 2 {
		return nil, nil, fmt.Errorf("axis %d of %v is not supported, the columns of rows are", at, x.shape())
	}
	out := like(x, x.dtype)
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to, from := f.row(out, r), f.row(x, r)
			if x.dtype == float32s {
				softmax(from, to)
				continue
			}
			most, sum := math.Inf(-1), 0.0
			for _, v := range from {
				most = math.Max(most, v)
			}
			for i, v := range from {
				to[i] = math.Exp(v - most)
				sum += to[i]
			}
			for i := range to {
				to[i] /= sum
			}
		}
	}, nil
}

// makeLpNormalization divides the columns of rows by their norm.
func makeLpNormalization(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if err := isFloat(x.dtype); err != nil {
		return nil, nil, err
	}
	axis, err := c.integer("axis", -1)
	if err != nil {
		return nil, nil, err
	}
	p, err := c.integer("p", 2)
	if err != nil {
		return nil, nil, err
	}
	at, err := axisOf(axis, len(x.dims))
	if err != nil {
		return nil, nil, err
	}
	if x.axis != 0 || len(x.dims) != 2 || at != 1 || p != 1 && p != 2 {
		return nil, nil, fmt.Errorf("p %d and axis %d of %v are not supported, the columns of rows and p of 1 and 2 are", p, at, x.shape())
	}
	out, t := like(x, x.dtype), x.dtype
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to, from, norm := f.row(out, r), f.row(x, r), 0.0
			for _, v := range from {
				if p == 1 {
					norm = t.round(norm + math.Abs(v))
				} else {
					norm = t.round(norm + t.round(v*v))
				}
			}
			if p == 2 {
				norm = t.round(math.Sqrt(norm))
			}
			for i, v := range from {
				if to[i] = 0; norm != 0 {
					to[i] = t.round(v / norm)
				}
			}
		}
	}, nil
}
