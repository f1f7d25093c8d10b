package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// maker makes the outputs of a node and what computes them.
type maker func(c *call) (out []*value, run operation, err error)

// operators are all that are supported, by domain and name.
func operators() map[string]maker {
	o := make(map[string]maker)
	addElementwise(o)
	addForms(o)
	addReductions(o)
	addProducts(o)
	addFeatures(o)
	addVectors(o)
	addTrees(o)
	return o
}

// pick says which element of an operand goes with each element of a result.
type pick []int32

// broadcast finds the form of a result and what goes together.
func (b *builder) broadcast(in []*value) (*value, []pick, error) {
	rank := 0
	for _, v := range in {
		rank = max(rank, len(v.dims))
	}
	dims := make([]int, rank)
	for i := range dims {
		dims[i] = 1
	}
	for _, v := range in {
		for i, d := range v.dims {
			at := rank - len(v.dims) + i
			switch {
			case d == dims[at] || d == 1:
			case dims[at] == 1:
				dims[at] = d
			default:
				return nil, nil, fmt.Errorf("the dimensions of %q, %v, do not go with %v", v.name, v.shape(), dims)
			}
		}
	}
	out, err := shaped(0, dims)
	if err != nil {
		return nil, nil, err
	}
	out.flat = slices.ContainsFunc(in, func(v *value) bool { return v.flat })
	size := 1
	for _, d := range dims {
		if d == rows {
			continue
		}
		if d > 0 && size > b.budget/d/len(in) {
			return nil, nil, fmt.Errorf("a tensor of the dimensions %v is more than is allowed for a file of this size", out.shape())
		}
		size *= d
	}
	b.budget -= size * len(in) / 2
	picks := make([]pick, len(in))
	for k, v := range in {
		strides := make([]int, rank)
		stride := 1
		for i := len(v.dims) - 1; i >= 0; i-- {
			at := rank - len(v.dims) + i
			if d := v.dims[i]; d != 1 && d != rows {
				strides[at] = stride
				stride *= d
			}
		}
		p := make(pick, size)
		at := make([]int, rank)
		from := 0
		for i := range p {
			p[i] = int32(from)
			for d := rank - 1; d >= 0; d-- {
				if dims[d] == rows || dims[d] == 1 {
					continue
				}
				at[d]++
				from += strides[d]
				if at[d] < dims[d] {
					break
				}
				from -= strides[d] * at[d]
				at[d] = 0
			}
		}
		picks[k] = p
	}
	return out, picks, nil
}

// sameType checks that operands have one type and gives it.
func sameType(in []*value) (dtype, error) {
	for _, v := range in[1:] {
		if v.dtype != in[0].dtype {
			return 0, fmt.Errorf("%q is of type %s and %q of type %s", in[0].name, in[0].dtype, v.name, v.dtype)
		}
	}
	return in[0].dtype, nil
}

// unary makes an operator of one operand; the function need not round.
func unary(check func(dtype) error, f func(t dtype, x float64) float64) maker {
	return func(c *call) ([]*value, operation, error) {
		if err := c.need(1, 1); err != nil {
			return nil, nil, err
		}
		x := c.in[0]
		if err := check(x.dtype); err != nil {
			return nil, nil, err
		}
		out := like(x, x.dtype)
		return []*value{out}, func(fr *frame) {
			for r := range fr.n {
				to := fr.row(out, r)
				for i, v := range fr.row(x, r) {
					to[i] = out.dtype.round(f(x.dtype, v))
				}
			}
		}, nil
	}
}

// predicate makes an operator of one operand whose result is truth.
func predicate(f func(x float64) bool) maker {
	return func(c *call) ([]*value, operation, error) {
		if err := c.need(1, 1); err != nil {
			return nil, nil, err
		}
		x := c.in[0]
		if x.dtype == texts {
			return nil, nil, fmt.Errorf("%q is of type %s", x.name, x.dtype)
		}
		out := like(x, booleans)
		return []*value{out}, func(fr *frame) {
			for r := range fr.n {
				to := fr.row(out, r)
				for i, v := range fr.row(x, r) {
					to[i] = truth(f(v))
				}
			}
		}, nil
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func isFloat(t dtype) error {
	if t != float32s && t != float64s {
		return fmt.Errorf("elements of type %s, want float or double", t)
	}
	return nil
}

func isNumber(t dtype) error {
	if t == texts || t == booleans {
		return fmt.Errorf("elements of type %s, want numbers", t)
	}
	return nil
}

func isBool(t dtype) error {
	if t != booleans {
		return fmt.Errorf("elements of type %s, want bool", t)
	}
	return nil
}

func isAny(dtype) error { return nil }

// chain makes an operator of two or more operands that are joined from the left.
func chain(least, most int, check func(dtype) error, result func(dtype) dtype, f func(t dtype, x, y float64) float64) maker {
	return func(c *call) ([]*value, operation, error) {
		if err := c.need(least, most); err != nil {
			return nil, nil, err
		}
		if err := c.need(len(c.in), len(c.in)); err != nil {
			return nil, nil, err
		}
		t, err := sameType(c.in)
		if err == nil {
			err = check(t)
		}
		if err != nil {
			return nil, nil, err
		}
		for _, v := range c.in {
			if marked(v) {
				return nil, nil, errors.New("arithmetic with the number of rows is not supported")
			}
		}
		out, picks, err := c.broadcast(c.in)
		if err != nil {
			return nil, nil, err
		}
		out.dtype = result(t)
		in := c.in
		return []*value{out}, func(fr *frame) {
			for r := range fr.n {
				to := fr.row(out, r)
				x := fr.row(in[0], r)
				for i, k := range picks[0] {
					to[i] = x[k]
				}
				for j := 1; j < len(in); j++ {
					y := fr.row(in[j], r)
					for i, k := range picks[j] {
						to[i] = out.dtype.round(f(t, to[i], y[k]))
					}
				}
			}
		}, nil
	}
}

func itself(t dtype) dtype { return t }

func asTruth(dtype) dtype { return booleans }

func compare(f func(x, y float64) bool) func(dtype, float64, float64) float64 {
	return func(_ dtype, x, y float64) float64 { return truth(f(x, y)) }
}

// quotient is a division as C++ has it, where integers are cut; by zero it is left at NaN for floats.
func quotient(t dtype, x, y float64) float64 {
	if t == integers {
		if y == 0 {
			return 0
		}
		return math.Trunc(x / y)
	}
	return x / y
}

func power(t dtype, x, y float64) float64 {
	switch y {
	case 2:
		return x * x
	case 3:
		return t.round(x*x) * x
	}
	return math.Pow(x, y)
}

func addElementwise(o map[string]maker) {
	o[":Identity"] = func(c *call) ([]*value, operation, error) {
		if err := c.need(1, 1); err != nil {
			return nil, nil, err
		}
		again := *c.in[0]
		return []*value{&again}, nil, nil
	}
	negative := func(_ dtype, x float64) float64 { return -x }
	o[":Neg"] = unary(isNumber, negative)
	o[":Abs"] = unary(isNumber, func(_ dtype, x float64) float64 { return math.Abs(x) })
	o[":Sqrt"] = unary(isFloat, func(_ dtype, x float64) float64 { return math.Sqrt(x) })
	o[":Log"] = makeLog
	o[":Floor"] = unary(isFloat, func(_ dtype, x float64) float64 { return math.Floor(x) })
	o[":Ceil"] = unary(isFloat, func(_ dtype, x float64) float64 { return math.Ceil(x) })
	o[":Reciprocal"] = unary(isFloat, func(_ dtype, x float64) float64 { return 1 / x })
	o[":Tanh"] = unary(isFloat, func(t dtype, x float64) float64 {
		if t == float32s {
			return float64(tangent(float32(x)))
		}
		return math.Tanh(x)
	})
	o[":Relu"] = unary(isNumber, func(_ dtype, x float64) float64 {
		if x < 0 {
			return 0
		}
		return x
	})
	o[":Sign"] = unary(isNumber, func(_ dtype, x float64) float64 {
		switch {
		case x > 0:
			return 1
		case x < 0:
			return -1
		}
		return x
	})
	o[":Exp"] = unary(isFloat, func(t dtype, x float64) float64 {
		if t == float32s {
			return float64(exponential(float32(x)))
		}
		return math.Exp(x)
	})
	o[":Sigmoid"] = makeSigmoid
	o[":Not"] = predicate(func(x float64) bool { return x == 0 })
	o[":IsNaN"] = predicate(func(x float64) bool { return x != x })
	o[":IsInf"] = predicate(func(x float64) bool { return math.IsInf(x, 0) })

	o[":Add"] = chain(2, 2, isNumber, itself, func(_ dtype, x, y float64) float64 { return x + y })
	o[":Sub"] = chain(2, 2, isNumber, itself, func(_ dtype, x, y float64) float64 { return x - y })
	o[":Mul"] = chain(2, 2, isNumber, itself, func(t dtype, x, y float64) float64 {
		if t == integers && (x == 0 || y == 0) {
			return 0 // also of what no integer is known for
		}
		return x * y
	})
	o[":Div"] = chain(2, 2, isNumber, itself, quotient)
	o[":Pow"] = chain(2, 2, isFloat, itself, power)
	const least, most = 1, 1 << 16
	o[":Sum"] = chain(least, most, isNumber, itself, func(_ dtype, x, y float64) float64 { return x + y })
	o[":Max"] = chain(least, most, isNumber, itself, func(_ dtype, x, y float64) float64 { return math.Max(x, y) })
	o[":Min"] = chain(least, most, isNumber, itself, func(_ dtype, x, y float64) float64 { return math.Min(x, y) })
	o[":Equal"] = chain(2, 2, isAny, asTruth, compare(func(x, y float64) bool { return x == y && x != unseen }))
	o[":Less"] = chain(2, 2, isNumber, asTruth, compare(func(x, y float64) bool { return x < y }))
	o[":LessOrEqual"] = chain(2, 2, isNumber, asTruth, compare(func(x, y float64) bool { return x <= y }))
	o[":Greater"] = chain(2, 2, isNumber, asTruth, compare(func(x, y float64) bool { return x > y }))
	o[":GreaterOrEqual"] = chain(2, 2, isNumber, asTruth, compare(func(x, y float64) bool { return x >= y }))
	o[":And"] = chain(2, 2, isBool, asTruth, compare(func(x, y float64) bool { return x != 0 && y != 0 }))
	o[":Or"] = chain(2, 2, isBool, asTruth, compare(func(x, y float64) bool { return x != 0 || y != 0 }))
	o[":Xor"] = chain(2, 2, isBool, asTruth, compare(func(x, y float64) bool { return x != y }))

	o[":Where"] = makeWhere
	o[":Clip"] = makeClip
	o[":Cast"] = makeCast
}

// makeLog makes the operator of the logarithm. What is left over of a constant when four numbers at a time are
// taken gets the C library's.
func makeLog(c *call) ([]*value, operation, error) {
	log := func(t dtype, x float64) float64 {
		if t == float32s {
			return float64(logarithm(float32(x)))
		}
		return math.Log(x)
	}
	if len(c.in) == 1 && c.in[0] != nil && c.in[0].isConstant() {
		packed, packets := log, c.in[0].size()/4*4
		log = func(t dtype, x float64) float64 {
			if packets--; packets < 0 {
				return math.Log(x)
			}
			return packed(t, x)
		}
	}
	return unary(isFloat, log)(c)
}

func makeSigmoid(c *call) ([]*value, operation, error) {
	out, run, err := unary(isFloat, func(t dtype, x float64) float64 {
		if t == float32s {
			return x
		}
		return 1 / (1 + math.Exp(-x))
	})(c)
	if err != nil || out[0].dtype != float32s {
		return out, run, err
	}
	return out, func(f *frame) {
		run(f)
		logistics(f.registers[out[0].slot], 1)
	}, nil
}

func makeWhere(c *call) ([]*value, operation, error) {
	if err := c.need(3, 3); err != nil {
		return nil, nil, err
	}
	if err := isBool(c.in[0].dtype); err != nil {
		return nil, nil, err
	}
	t, err := sameType(c.in[1:])
	if err != nil {
		return nil, nil, err
	}
	out, picks, err := c.broadcast(c.in)
	if err != nil {
		return nil, nil, err
	}
	out.dtype = t
	in := c.in
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to, is, yes, no := f.row(out, r), f.row(in[0], r), f.row(in[1], r), f.row(in[2], r)
			for i := range to {
				if is[picks[0][i]] != 0 {
					to[i] = yes[picks[1][i]]
				} else {
					to[i] = no[picks[2][i]]
				}
			}
		}
	}, nil
}

func makeClip(c *call) ([]*value, operation, error) {
	if err := c.need(1, 3); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if err := isNumber(x.dtype); err != nil {
		return nil, nil, err
	}
	low, err := c.number("min", math.Inf(-1))
	if err != nil {
		return nil, nil, err
	}
	high, err := c.number("max", math.Inf(1))
	if err != nil {
		return nil, nil, err
	}
	for i, to := range []*float64{&low, &high} {
		if v := c.optional(i + 1); v != nil {
			if len(v.constant) != 1 || v.dtype != x.dtype {
				return nil, nil, fmt.Errorf("%q must be a constant of one element of the input's type", v.name)
			}
			*to = v.constant[0]
		}
	}
	out := like(x, x.dtype)
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to := f.row(out, r)
			for i, v := range f.row(x, r) {
				if v < low {
					v = low
				}
				if v > high {
					v = high
				}
				to[i] = v
			}
		}
	}, nil
}

func makeCast(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	number, err := c.integer("to", 0)
	if err != nil {
		return nil, nil, err
	}
	t, err := dtypeOf(number)
	if err != nil {
		return nil, nil, err
	}
	if (t == texts) != (x.dtype == texts) {
		return nil, nil, fmt.Errorf("a cast of %s to %s is not supported", x.dtype, t)
	}
	out := like(x, t)
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to := f.row(out, r)
			for i, v := range f.row(x, r) {
				to[i] = cast(v, t)
			}
		}
	}, nil
}

// cast converts as C++ does. What does not fit into an integer has no result that is defined: NaN
// goes on, so that the row is refused in the end.
func cast(x float64, t dtype) float64 {
	switch t {
	case integers:
		if !(math.Abs(x) <= maxExact) && x != rowsMark {
			return math.NaN()
		}
		return math.Trunc(x)
	case booleans:
		return truth(x != 0)
	default:
		return t.round(x)
	}
}
