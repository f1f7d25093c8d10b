package onnx

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

func addReductions(o map[string]maker) {
	itself := func(_ dtype, x float64) float64 { return x }
	add := func(t dtype, x, y float64) float64 { return t.round(x + y) }
	o[":ReduceSum"] = reduction(itself, add, nil)
	o[":ReduceMean"] = reduction(itself, add, func(t dtype, x float64, n int) float64 { return quotient(t, x, float64(n)) })
	o[":ReduceProd"] = reduction(itself, func(t dtype, x, y float64) float64 { return t.round(x * y) }, nil)
	o[":ReduceMax"] = reduction(itself, func(_ dtype, x, y float64) float64 { return math.Max(x, y) }, nil)
	o[":ReduceMin"] = reduction(itself, func(_ dtype, x, y float64) float64 { return math.Min(x, y) }, nil)
	o[":ReduceL1"] = reduction(func(_ dtype, x float64) float64 { return math.Abs(x) }, add, nil)
	square := func(t dtype, x float64) float64 { return t.round(x * x) }
	o[":ReduceSumSquare"] = reduction(square, add, nil)
	o[":ReduceL2"] = reduction(square, add, func(_ dtype, x float64, _ int) float64 { return math.Sqrt(x) })
	o[":ReduceLogSumExp"] = makeLogSumExp
	o[":ArgMax"] = extreme(func(x, best float64) bool { return x > best })
	o[":ArgMin"] = extreme(func(x, best float64) bool { return x < best })
	o[":CumSum"] = makeCumSum
	o[":TopK"] = makeTopK
	o[":Softmax"] = makeSoftmax
	o[":LpNormalization"] = makeLpNormalization
}

// groups finds the elements of a row that axes join: those of a result's element stand behind each
// other in order.
func (c *call) groups(x *value, axes []int64, keep bool) (out *value, order []int32, each int, err error) {
	joined := make([]bool, len(x.dims))
	switch {
	case len(axes) == 0 && x.isConstant():
		for i := range x.dims {
			axes = append(axes, int64(i))
		}
	case len(axes) == 0:
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
	if c.budget -= x.size() / 2; c.budget < 0 {
		return nil, nil, 0, fmt.Errorf("a reduction of the dimensions %v is more than is allowed for a file of this size", x.shape())
	}
	order = walk(append(outer, inner...), append(outerSteps, innerSteps...), 0)
	return out, order, each, nil
}

// reduction makes an operator that joins what is made of the elements.
func reduction(element func(t dtype, x float64) float64, join func(t dtype, x, y float64) float64, finish func(t dtype, x float64, n int) float64) maker {
	return func(c *call) ([]*value, operation, error) {
		x, out, order, each, err := c.reduce()
		if err != nil {
			return nil, nil, err
		}
		t := x.dtype
		joined := func(x, y float64) float64 { return join(t, x, y) }
		// Elements that stand behind each other are joined in the order of vector instructions.
		lanes := 1
		if order[each-1]-order[0] == int32(each-1) {
			lanes = lanesOf(t)
		}
		return []*value{out}, func(f *frame) {
			f.memory = slices.Grow(f.memory[:0], each)[:each]
			for r := range f.n {
				to, from := f.row(out, r), f.row(x, r)
				for i := range to {
					for k, at := range order[i*each : (i+1)*each] {
						f.memory[k] = element(t, from[at])
					}
					to[i] = reduced(f.memory, lanes, i*each, joined)
					if finish != nil {
						to[i] = t.round(finish(t, to[i], each))
					}
				}
			}
		}, nil
	}
}

// lanesOf is how many elements an SSE register holds, which Eigen sums by.
func lanesOf(t dtype) int {
	switch t {
	case float32s:
		return 4
	case float64s:
		return 2
	case integers, booleans, texts:
	}
	return 1
}

// reduced joins a list, of one element at least, as Eigen's redux does, which ONNX Runtime reduces by: two registers in turn, then both,
// then the halves, then what is before and behind. It begins where an address is a multiple of 16. Where the elements of a row are no
// multiple of a register that depends on the place of the row among others; it is taken for the first, which a row alone is, and at is the
// place of the list there. It writes to the list.
func reduced(list []float64, lanes, at int, join func(x, y float64) float64) float64 {
	before := min((lanes-at%lanes)%lanes, len(list))
	aligned := list[before:]
	whole := len(aligned) / lanes * lanes
	if lanes == 1 || whole == 0 {
		out := list[0]
		for _, x := range list[1:] {
			out = join(out, x)
		}
		return out
	}
	first := aligned[:lanes]
	if whole > lanes {
		second := aligned[lanes : 2*lanes]
		at := 2 * lanes
		for ; at+2*lanes <= whole; at += 2 * lanes {
			for k := range first {
				first[k], second[k] = join(first[k], aligned[at+k]), join(second[k], aligned[at+lanes+k])
			}
		}
		for k := range first {
			first[k] = join(first[k], second[k])
		}
		if at < whole {
			for k := range first {
				first[k] = join(first[k], aligned[at+k])
			}
		}
	}
	for half := lanes / 2; half > 0; half /= 2 {
		for k := range half {
			first[k] = join(first[k], first[k+half])
		}
	}
	out := aligned[0]
	for _, x := range list[:before] {
		out = join(out, x)
	}
	for _, x := range aligned[whole:] {
		out = join(out, x)
	}
	return out
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

// makeCumSum adds each column of rows to those before it.
func makeCumSum(c *call) ([]*value, operation, error) {
	if err := c.need(2, 2); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if err := isNumber(x.dtype); err != nil {
		return nil, nil, err
	}
	axis, err := whole(c.in[1])
	if err != nil {
		return nil, nil, err
	}
	exclusive, err := c.integer("exclusive", 0)
	if err != nil {
		return nil, nil, err
	}
	reverse, err := c.integer("reverse", 0)
	if err != nil {
		return nil, nil, err
	}
	if len(axis) != 1 || axis[0] != 1 && axis[0] != -1 || len(x.dims) != 2 || x.axis != 0 || exclusive != 0 || reverse != 0 {
		return nil, nil, fmt.Errorf("sums of %v along the axis %v, exclusive %d, reverse %d, are not supported, those of the columns of rows are", x.shape(), axis, exclusive, reverse)
	}
	out, t := like(x, x.dtype), x.dtype
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to, sum := f.row(out, r), 0.0
			for i, v := range f.row(x, r) {
				sum = t.round(sum + v)
				to[i] = sum
			}
		}
	}, nil
}

// makeTopK orders the columns of rows and gives the first ones, and their places. Of equal ones the first one comes first.
func makeTopK(c *call) ([]*value, operation, error) {
	if err := c.need(2, 2); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if err := isNumber(x.dtype); err != nil {
		return nil, nil, err
	}
	k, err := whole(c.in[1])
	if err != nil {
		return nil, nil, err
	}
	largest, err := c.integer("largest", 1)
	if err != nil {
		return nil, nil, err
	}
	sorted, err := c.integer("sorted", 1)
	if err != nil {
		return nil, nil, err
	}
	at, err := c.axis(-1, len(x.dims))
	if err != nil {
		return nil, nil, err
	}
	if at != 1 || len(x.dims) != 2 || x.axis != 0 || len(k) != 1 || k[0] < 0 || k[0] > int64(x.dims[1]) || sorted != 1 {
		return nil, nil, fmt.Errorf("the %v first ones of %v along axis %d, sorted %d, are not supported, those of the columns of rows in order are", k, x.shape(), at, sorted)
	}
	n := int(k[0])
	values, places := ofRows(x.dtype, n), ofRows(integers, n)
	return []*value{values, places}, func(f *frame) {
		f.memory = slices.Grow(f.memory[:0], x.dims[1])[:x.dims[1]]
		order := f.memory
		for r := range f.n {
			from := f.row(x, r)
			for i := range order {
				order[i] = float64(i)
			}
			slices.SortStableFunc(order, func(a, b float64) int {
				if largest != 0 {
					a, b = b, a
				}
				return cmp.Compare(from[int(a)], from[int(b)])
			})
			for i, at := range order[:n] {
				f.row(values, r)[i], f.row(places, r)[i] = from[int(at)], at
			}
		}
	}, nil
}

func makeSoftmax(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if err := isFloat(x.dtype); err != nil {
		return nil, nil, err
	}
	at, err := c.axis(-1, len(x.dims))
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
	p, err := c.integer("p", 2)
	if err != nil {
		return nil, nil, err
	}
	at, err := c.axis(-1, len(x.dims))
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
