package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

func addForms(o map[string]maker) {
	o[":Constant"] = makeConstant
	o[":Shape"] = makeShape
	o[":ConstantOfShape"] = makeConstantOfShape
	o[":Reshape"] = makeReshape
	o[":Flatten"] = makeFlatten
	o[":Squeeze"] = makeSqueeze
	o[":Unsqueeze"] = makeUnsqueeze
	o[":Transpose"] = makeTranspose
	o[":Concat"] = makeConcat
	o[":Slice"] = makeSlice
	o[":Gather"] = makeGather
	o[":Expand"] = makeExpand
	o[":GatherElements"] = makeGatherElements
	o[":Compress"] = makeCompress
}

func makeConstant(c *call) ([]*value, operation, error) {
	a, found, err := c.attribute("value")
	if err != nil {
		return nil, nil, err
	}
	if found {
		v, err := c.readTensor(a.tensor)
		return []*value{v}, nil, err
	}
	out := &value{axis: noAxis, slot: -1}
	for _, name := range []string{"value_float", "value_floats", "value_int", "value_ints"} {
		a, found, err := c.attribute(name)
		if err != nil {
			return nil, nil, err
		}
		if !found {
			continue
		}
		switch name {
		case "value_float":
			out.constant = []float64{a.number}
		case "value_floats":
			out.constant = a.floats
		case "value_int":
			out.dtype = integers
			out.constant, err = fromInts([]int64{a.integer})
		case "value_ints":
			out.dtype = integers
			out.constant, err = fromInts(a.ints)
		}
		if name[len(name)-1] == 's' {
			out.dims = []int{len(out.constant)}
		}
		return []*value{out}, nil, err
	}
	return nil, nil, errors.New("none of its attributes value, value_float, value_floats, value_int, value_ints is there")
}

// makeShape gives dimensions as a constant, with a mark for the number of rows.
func makeShape(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	rank := int64(len(x.dims))
	start, err := c.integer("start", 0)
	if err != nil {
		return nil, nil, err
	}
	end, err := c.integer("end", rank)
	if err != nil {
		return nil, nil, err
	}
	for _, at := range []*int64{&start, &end} {
		if *at < 0 {
			*at += rank
		}
		*at = min(max(*at, 0), rank)
	}
	out := &value{dtype: integers, axis: noAxis, slot: -1, constant: []float64{}}
	for i := start; i < end; i++ {
		d := x.dims[i]
		if int(i) == x.axis {
			d = rowsMark
		}
		out.constant = append(out.constant, float64(d))
	}
	out.dims = []int{len(out.constant)}
	return []*value{out}, nil, nil
}

// dimensions reads a shape: the mark is rows.
func dimensions(v *value) ([]int, error) {
	list, err := whole(v)
	if err != nil {
		return nil, err
	}
	if len(list) > maxRank {
		return nil, fmt.Errorf("%d dimensions, at most %d are supported", len(list), maxRank)
	}
	dims := make([]int, len(list))
	for i, d := range list {
		switch {
		case d == rowsMark:
			dims[i] = rows
		case d < 0 || d > 1<<31:
			return nil, fmt.Errorf("dimension %d is %d", i, d)
		default:
			dims[i] = int(d)
		}
	}
	return dims, nil
}

func makeConstantOfShape(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	dims, err := dimensions(c.in[0])
	if err != nil {
		return nil, nil, err
	}
	fill, t := 0.0, float32s
	a, found, err := c.attribute("value")
	if err != nil {
		return nil, nil, err
	}
	if found {
		v, err := c.readTensor(a.tensor)
		if err != nil {
			return nil, nil, within("value", err)
		}
		if len(v.constant) != 1 {
			return nil, nil, fmt.Errorf("value has %d elements, want 1", len(v.constant))
		}
		fill, t = v.constant[0], v.dtype
	}
	out, err := shaped(t, dims)
	if err != nil {
		return nil, nil, err
	}
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to := f.row(out, r)
			for i := range to {
				to[i] = fill
			}
		}
	}, nil
}

// reform makes an output with the same elements in other dimensions. Rows must come first on both
// sides, or elements of different rows would change places.
func reform(x *value, dims []int) ([]*value, operation, error) {
	out, err := shaped(x.dtype, dims)
	if err != nil {
		return nil, nil, err
	}
	for _, v := range []*value{x, out} {
		for _, d := range v.dims[:max(0, v.axis)] {
			if d != 1 {
				return nil, nil, fmt.Errorf("the rows of %v are not its first dimension", v.shape())
			}
		}
	}
	if out.size() != x.size() || out.isConstant() != x.isConstant() {
		return nil, nil, fmt.Errorf("%v does not become %v", x.shape(), out.shape())
	}
	out.slot, out.constant = x.slot, x.constant
	return []*value{out}, nil, nil
}

func makeReshape(c *call) ([]*value, operation, error) {
	if err := c.need(2, 2); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	list, err := whole(c.in[1])
	if err != nil {
		return nil, nil, err
	}
	if len(list) > maxRank {
		return nil, nil, fmt.Errorf("%d dimensions, at most %d are supported", len(list), maxRank)
	}
	if x.chosen {
		if c.in[1].chosen || len(list) != 1 || list[0] != -1 || x.size() != 1 {
			return nil, nil, fmt.Errorf("some rows of %v do not become %v", x.shape(), list)
		}
		again := *x
		again.dims, again.axis = []int{rows}, 0
		return []*value{&again}, nil, nil
	}
	if x.stacked {
		return unstack(x, list)
	}
	dims := make([]int, len(list))
	open, rest := -1, 1
	hasRows := false
	for i, d := range list {
		switch {
		case d == 0 && i < len(x.dims):
			dims[i] = x.dims[i]
		case d == -1 && open < 0:
			open = i
			continue
		case d == rowsMark:
			dims[i] = rows
		case d < 1 || d > 1<<31:
			return nil, nil, fmt.Errorf("dimension %d is %d", i, d)
		default:
			dims[i] = int(d)
		}
		if dims[i] == rows {
			hasRows = true
			continue
		}
		if rest > 1<<31/max(1, dims[i]) {
			return nil, nil, fmt.Errorf("the dimensions %v are too large", list)
		}
		rest *= dims[i]
	}
	if open >= 0 {
		switch size := x.size(); {
		case !x.isConstant() && !hasRows && size == rest:
			dims[open] = rows
		case (x.isConstant() || hasRows) && rest > 0 && size%rest == 0:
			dims[open] = size / rest
		default:
			return nil, nil, fmt.Errorf("%v does not become %v without mixing rows", x.shape(), list)
		}
	}
	return reform(x, dims)
}

// unstack gives tensors that stand behind each other a dimension of their own.
func unstack(x *value, list []int64) ([]*value, operation, error) {
	rest := int64(x.size() / x.dims[0])
	if len(list) < 2 || list[0] != int64(x.dims[0]) || list[1] != -1 && list[1] != rowsMark {
		return nil, nil, fmt.Errorf("%v does not become %v, its first dimension must be %d, its second that of the rows", x.shape(), list, x.dims[0])
	}
	dims := []int{x.dims[0], rows}
	for _, d := range list[2:] {
		if d < 1 || rest%d != 0 {
			return nil, nil, fmt.Errorf("%v does not become %v", x.shape(), list)
		}
		rest /= d
		dims = append(dims, int(d))
	}
	if rest != 1 {
		return nil, nil, fmt.Errorf("%v does not become %v", x.shape(), list)
	}
	out, err := shaped(x.dtype, dims)
	if err != nil {
		return nil, nil, err
	}
	out.slot = x.slot
	return []*value{out}, nil, nil
}

func makeFlatten(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	axis, err := c.integer("axis", 1)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case x.flat && (axis == 0 || axis == 1):
		again := *x
		return []*value{&again}, nil, nil
	case axis == 0 && x.axis == 0:
		out, _, err := reform(x, []int{1, rows, x.size()})
		if err == nil {
			out[0].flat = true
		}
		return out, nil, err
	case axis == 1 && x.axis == 0:
		return reform(x, []int{rows, x.size()})
	}
	return nil, nil, fmt.Errorf("axis %d of %v would mix rows", axis, x.shape())
}

func makeSqueeze(c *call) ([]*value, operation, error) {
	if err := c.need(1, 2); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	axes, err := c.axes(1)
	if err != nil {
		return nil, nil, err
	}
	drop := make([]bool, len(x.dims))
	for _, a := range axes {
		at, err := axisOf(a, len(x.dims))
		if err != nil {
			return nil, nil, err
		}
		if x.dims[at] != 1 {
			return nil, nil, fmt.Errorf("axis %d of %v is not 1", a, x.shape())
		}
		drop[at] = true
	}
	var dims []int
	for i, d := range x.dims {
		if !drop[i] && (d != 1 || len(axes) > 0) {
			dims = append(dims, d)
		}
	}
	return reform(x, dims)
}

func makeUnsqueeze(c *call) ([]*value, operation, error) {
	if err := c.need(1, 2); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	axes, err := c.axes(1)
	if err != nil {
		return nil, nil, err
	}
	rank := len(x.dims) + len(axes)
	if rank > maxRank {
		return nil, nil, fmt.Errorf("%d dimensions, at most %d are supported", rank, maxRank)
	}
	dims := make([]int, rank)
	for _, a := range axes {
		at, err := axisOf(a, rank)
		if err != nil {
			return nil, nil, err
		}
		if dims[at] != 0 {
			return nil, nil, fmt.Errorf("axis %d is there twice", a)
		}
		dims[at] = 1
	}
	k := 0
	for i := range dims {
		if dims[i] == 0 {
			dims[i] = x.dims[k]
			k++
		}
	}
	return reform(x, dims)
}

// makeTranspose exchanges axes of constants, and of rows where elements keep their order.
func makeTranspose(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	perm, err := c.ints("perm")
	if err != nil {
		return nil, nil, err
	}
	rank := len(x.dims)
	if perm == nil {
		for i := range rank {
			perm = append(perm, int64(rank-1-i))
		}
	}
	seen := make([]bool, rank)
	dims := make([]int, 0, rank)
	strides := make([]int, rank)
	stride := 1
	for i := rank - 1; i >= 0; i-- {
		strides[i] = stride
		if i != x.axis {
			stride *= x.dims[i]
		}
	}
	steps := make([]int, 0, rank)
	for _, p := range perm {
		if p < 0 || int(p) >= rank || seen[p] {
			return nil, nil, fmt.Errorf("perm %v of %d dimensions", perm, rank)
		}
		seen[p] = true
		dims = append(dims, x.dims[p])
		if int(p) == x.axis {
			steps = append(steps, 0)
		} else {
			steps = append(steps, strides[p])
		}
	}
	if len(perm) != rank {
		return nil, nil, fmt.Errorf("perm %v of %d dimensions", perm, rank)
	}
	out, err := shaped(x.dtype, dims)
	if err != nil {
		return nil, nil, err
	}
	order := walk(dims, steps, 0)
	return []*value{out}, func(f *frame) { copyElements(f, x, out, order) }, nil
}

// walk lists where the elements of a result come from, with a step for each dimension.
func walk(dims, steps []int, from int) []int32 {
	size := 1
	for _, d := range dims {
		if d != rows {
			size *= d
		}
	}
	order := make([]int32, size)
	at := make([]int, len(dims))
	for i := range order {
		order[i] = int32(from)
		for d := len(dims) - 1; d >= 0; d-- {
			if dims[d] == rows {
				continue
			}
			at[d]++
			from += steps[d]
			if at[d] < dims[d] {
				break
			}
			from -= steps[d] * at[d]
			at[d] = 0
		}
	}
	return order
}

func copyElements(f *frame, x, out *value, order []int32) {
	for r := range f.n {
		to, from := f.row(out, r), f.row(x, r)
		for i, k := range order {
			to[i] = from[k]
		}
	}
}

func makeConcat(c *call) ([]*value, operation, error) {
	if err := c.need(len(c.in), len(c.in)); err != nil {
		return nil, nil, err
	}
	t, err := sameType(c.in)
	if err != nil {
		return nil, nil, err
	}
	in := c.in
	rank := len(in[0].dims)
	at, err := c.axis(0, rank)
	if err != nil {
		return nil, nil, err
	}
	if at == 0 && in[0].axis == 0 {
		return stack(in)
	}
	dims := slices.Clone(in[0].dims)
	dims[at] = 0
	for _, v := range in {
		if len(v.dims) != rank || v.axis == at {
			return nil, nil, fmt.Errorf("%q has the dimensions %v: it cannot be joined along axis %d", v.name, v.shape(), at)
		}
		for i, d := range v.dims {
			if i != at && d != dims[i] {
				return nil, nil, fmt.Errorf("%q has the dimensions %v, the first one %v", v.name, v.shape(), in[0].shape())
			}
		}
		dims[at] += v.dims[at]
	}
	out, err := shaped(t, dims)
	if err != nil {
		return nil, nil, err
	}
	outer := 1
	for _, d := range dims[:at] {
		if d != rows {
			outer *= d
		}
	}
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to := f.row(out, r)
			for k := range outer {
				for _, v := range in {
					from := f.row(v, r)
					width := len(from) / outer
					to = to[copy(to, from[k*width:(k+1)*width]):]
				}
			}
		}
	}, nil
}

// stack puts the rows of tensors of one form behind each other.
func stack(in []*value) ([]*value, operation, error) {
	for _, v := range in {
		if !slices.Equal(v.dims, in[0].dims) {
			return nil, nil, fmt.Errorf("rows of %q, of the dimensions %v, behind those of %q, of %v", v.name, v.shape(), in[0].name, in[0].shape())
		}
	}
	out, err := shaped(in[0].dtype, append([]int{len(in)}, in[0].dims...))
	if err != nil {
		return nil, nil, err
	}
	out.stacked = true
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to := f.row(out, r)
			for _, v := range in {
				to = to[copy(to, f.row(v, r)):]
			}
		}
	}, nil
}

func makeSlice(c *call) ([]*value, operation, error) {
	if err := c.need(1, 5); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	lists := make([][]int64, 4) // starts, ends, axes, steps
	for i, name := range []string{"starts", "ends", "axes", "steps"} {
		var err error
		if v := c.optional(i + 1); v != nil {
			lists[i], err = whole(v)
		} else {
			lists[i], err = c.ints(name)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	starts, ends, axes, steps := lists[0], lists[1], lists[2], lists[3]
	if axes == nil {
		for i := range starts {
			axes = append(axes, int64(i))
		}
	}
	if len(starts) != len(ends) || len(axes) != len(starts) || len(steps) != 0 && len(steps) != len(starts) {
		return nil, nil, fmt.Errorf("%d starts, %d ends, %d axes, %d steps", len(starts), len(ends), len(axes), len(steps))
	}
	dims := slices.Clone(x.dims)
	strides := make([]int, len(dims))
	stride := 1
	for i := len(dims) - 1; i >= 0; i-- {
		if i != x.axis {
			strides[i] = stride
			stride *= dims[i]
		}
	}
	from := 0
	for i, a := range axes {
		at, err := axisOf(a, len(dims))
		if err != nil {
			return nil, nil, err
		}
		if at == x.axis {
			return nil, nil, errors.New("a part of the rows cannot be taken")
		}
		if len(steps) > 0 && steps[i] != 1 {
			return nil, nil, fmt.Errorf("a step of %d is not supported", steps[i])
		}
		n := int64(x.dims[at])
		start, end := starts[i], ends[i]
		if start < 0 {
			start += n
		}
		if end < 0 {
			end += n
		}
		start, end = min(max(start, 0), n), min(max(end, 0), n)
		from += int(start) * strides[at]
		dims[at] = int(max(0, end-start))
	}
	out, err := shaped(x.dtype, dims)
	if err != nil {
		return nil, nil, err
	}
	order := walk(dims, strides, from)
	return []*value{out}, func(f *frame) { copyElements(f, x, out, order) }, nil
}

func makeGather(c *call) ([]*value, operation, error) {
	if err := c.need(2, 2); err != nil {
		return nil, nil, err
	}
	x, index := c.in[0], c.in[1]
	at, err := c.axis(0, len(x.dims))
	if err != nil {
		return nil, nil, err
	}
	if index.chosen && at == 0 && x.axis == 0 && !x.chosen && !x.flat && !x.stacked {
		again := *x
		again.chosen = true
		return []*value{&again}, nil, nil
	}
	if index.dtype != integers || at == x.axis || x.chosen || index.chosen || !index.isConstant() && !x.isConstant() {
		return nil, nil, fmt.Errorf("elements of %v at %v along axis %d cannot be taken", x.shape(), index.shape(), at)
	}
	dims := slices.Concat(x.dims[:at], index.dims, x.dims[at+1:])
	out, err := shaped(x.dtype, dims)
	if err != nil {
		return nil, nil, err
	}
	if x.flat || index.flat && (len(x.dims) != 1 || x.axis != noAxis) {
		return nil, nil, fmt.Errorf("elements of %v at %v cannot be taken", x.shape(), index.shape())
	}
	out.flat = index.flat
	outer, inner := 1, 1
	for i, d := range x.dims {
		switch {
		case d == rows:
		case i < at:
			outer *= d
		case i > at:
			inner *= d
		}
	}
	n := x.dims[at]
	if index.isConstant() {
		for i, k := range index.constant {
			if !(k >= float64(-n) && k < float64(n)) {
				return nil, nil, fmt.Errorf("element %d of %q is %v, want an index of %d elements", i, index.name, k, n)
			}
		}
	}
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to, from, list := f.row(out, r), f.row(x, r), f.row(index, r)
			for o := range outer {
				for _, k := range list {
					if k < 0 {
						k += float64(n)
					}
					part := to[:inner]
					to = to[inner:]
					if !(k >= 0 && k < float64(n)) {
						refuse(part)
						continue
					}
					copy(part, from[(o*n+int(k))*inner:])
				}
			}
		}
	}, nil
}

// makeCompress takes the columns for which a constant is true.
func makeCompress(c *call) ([]*value, operation, error) {
	if err := c.need(2, 2); err != nil {
		return nil, nil, err
	}
	x, is := c.in[0], c.in[1]
	axis, err := c.integer("axis", -1)
	if err != nil {
		return nil, nil, err
	}
	if _, given := c.attributes["axis"]; !given || axis != 1 && axis != -1 || x.axis != 0 || len(x.dims) != 2 || is.constant == nil || is.dtype != booleans || len(is.constant) > x.dims[1] {
		return nil, nil, fmt.Errorf("elements of %v by %v along axis %d cannot be taken, columns of rows by constants can", x.shape(), is.shape(), axis)
	}
	var order []int32
	for i, yes := range is.constant {
		if yes != 0 {
			order = append(order, int32(i))
		}
	}
	out := ofRows(x.dtype, len(order))
	return []*value{out}, func(f *frame) { copyElements(f, x, out, order) }, nil
}

// makeGatherElements takes columns of rows, each row those that its own indices name.
func makeGatherElements(c *call) ([]*value, operation, error) {
	if err := c.need(2, 2); err != nil {
		return nil, nil, err
	}
	x, index := c.in[0], c.in[1]
	at, err := c.axis(0, len(x.dims))
	if err != nil {
		return nil, nil, err
	}
	if index.dtype != integers || len(x.dims) != 2 || len(index.dims) != 2 || x.axis != 0 || index.axis != 0 || at != 1 {
		return nil, nil, fmt.Errorf("elements of %v at %v along axis %d cannot be taken, columns of rows can", x.shape(), index.shape(), at)
	}
	n := float64(x.dims[1])
	out := like(index, x.dtype)
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to, from := f.row(out, r), f.row(x, r)
			for i, k := range f.row(index, r) {
				if k < 0 {
					k += n
				}
				if to[i] = math.NaN(); k >= 0 && k < n {
					to[i] = from[int(k)]
				}
			}
		}
	}, nil
}

func makeExpand(c *call) ([]*value, operation, error) {
	if err := c.need(2, 2); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	dims, err := dimensions(c.in[1])
	if err != nil {
		return nil, nil, err
	}
	form, err := shaped(x.dtype, dims)
	if err != nil {
		return nil, nil, err
	}
	size := 1
	for i, d := range dims {
		if i != form.axis {
			if d > 0 && size > c.budget/d {
				return nil, nil, fmt.Errorf("the dimensions %v are too large", dims)
			}
			size *= d
		}
	}
	out, picks, err := c.broadcast([]*value{x, form})
	if err != nil {
		return nil, nil, err
	}
	out.dtype = x.dtype
	return []*value{out}, func(f *frame) { copyElements(f, x, out, picks[0]) }, nil
}
