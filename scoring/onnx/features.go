package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

func addFeatures(o map[string]maker) {
	o["ai.onnx.ml:Scaler"] = makeScaler
	o["ai.onnx.ml:Normalizer"] = makeNormalizer
	o["ai.onnx.ml:Imputer"] = makeImputer
	o["ai.onnx.ml:Binarizer"] = makeBinarizer
	o["ai.onnx.ml:OneHotEncoder"] = makeOneHotEncoder
	o["ai.onnx.ml:LabelEncoder"] = makeLabelEncoder
	o["ai.onnx.ml:FeatureVectorizer"] = makeFeatureVectorizer
	o["ai.onnx.ml:ArrayFeatureExtractor"] = makeArrayFeatureExtractor
	o["ai.onnx.ml:ZipMap"] = makeZipMap
}

// unseen is the number of a text that the model does not know.
const unseen = -1

// refuse marks elements that cannot be computed; NaN reaches the result.
func refuse(part []float64) {
	for i := range part {
		part[i] = math.NaN()
	}
}

// perColumn is a list with one number for each of width columns, or one for all.
func perColumn(what string, list []float64, width int) error {
	if len(list) != 1 && len(list) != width || width == 0 {
		return fmt.Errorf("%s has %d elements for %d columns", what, len(list), width)
	}
	return nil
}

func makeScaler(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if err := numeric(x); err != nil {
		return nil, nil, err
	}
	width, err := matrix(x)
	if err != nil {
		return nil, nil, err
	}
	offset, err := c.floats("offset")
	if err != nil {
		return nil, nil, err
	}
	scale, err := c.floats("scale")
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(perColumn("offset", offset, width), perColumn("scale", scale, width)); err != nil {
		return nil, nil, err
	}
	x.wide++
	out := ofRows(float32s, width)
	offsets, scales := make([]float32, width), make([]float32, width)
	for i := range width {
		offsets[i], scales[i] = float32(offset[min(i, len(offset)-1)]), float32(scale[min(i, len(scale)-1)])
	}
	return []*value{out}, func(f *frame) {
		from, to := f.registers[x.slot], f.registers[out.slot]
		for ; len(to) > 0; from, to = from[width:], to[width:] {
			row, out, scales := from[:len(offsets)], to[:len(offsets)], scales[:len(offsets)]
			for i, offset := range offsets {
				out[i] = float64((float32(row[i]) - offset) * scales[i])
			}
		}
	}, nil
}

func makeNormalizer(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if err := numeric(x); err != nil {
		return nil, nil, err
	}
	width, err := matrix(x)
	if err != nil {
		return nil, nil, err
	}
	norm, err := c.text("norm", "MAX")
	if err != nil {
		return nil, nil, err
	}
	if norm != "MAX" && norm != "L1" && norm != "L2" {
		return nil, nil, fmt.Errorf("norm %q is not supported; these are: MAX, L1, L2", norm)
	}
	out := ofRows(float32s, width)
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			normalize(norm, f.row32(x, r), f.row(out, r))
		}
	}, nil
}

func normalize(norm string, x, to []float64) {
	switch norm {
	case "MAX":
		most := float32(math.Inf(-1))
		for _, v := range x {
			most = max(most, float32(v))
		}
		for i, v := range x {
			if to[i] = v; most != 0 {
				to[i] = float64(float32(v) / most)
			}
		}
	case "L1":
		sum := float32(0)
		for _, v := range x {
			sum += float32(math.Abs(v))
		}
		for i, v := range x {
			if to[i] = v; sum != 0 {
				to[i] = float64(float32(v) / sum)
			}
		}
	default:
		sum := float32(0)
		for _, v := range x {
			sum += float32(v) * float32(v)
		}
		for i, v := range x {
			square := float32(v) * float32(v)
			if to[i] = v; sum != 0 {
				to[i] = math.Copysign(float64(float32(math.Sqrt(float64(square/sum)))), v)
			}
		}
	}
}

func makeImputer(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	width, err := matrix(x)
	if err != nil {
		return nil, nil, err
	}
	var fill []float64
	var missing float64
	switch x.dtype {
	case float32s, float64s:
		if fill, err = c.floats("imputed_value_floats"); err != nil {
			return nil, nil, err
		}
		missing, err = c.number("replaced_value_float", 0)
	case integers:
		var list []int64
		var replaced int64
		if list, err = c.ints("imputed_value_int64s"); err != nil {
			return nil, nil, err
		}
		if fill, err = fromInts(list); err != nil {
			return nil, nil, err
		}
		replaced, err = c.integer("replaced_value_int64", 0)
		missing = float64(replaced)
	default:
		return nil, nil, fmt.Errorf("elements of type %s are not supported", x.dtype)
	}
	if err := errors.Join(err, perColumn("imputed values", fill, width)); err != nil {
		return nil, nil, err
	}
	out := ofRows(x.dtype, width)
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to := f.row(out, r)
			for i, v := range f.row(x, r) {
				if v == missing || v != v && missing != missing {
					v = fill[min(i, len(fill)-1)]
				}
				to[i] = v
			}
		}
	}, nil
}

func makeBinarizer(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if err := isFloat(x.dtype); err != nil {
		return nil, nil, err
	}
	threshold, err := c.number("threshold", 0)
	if err != nil {
		return nil, nil, err
	}
	out := like(x, x.dtype)
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to := f.row(out, r)
			for i, v := range f.row(x, r) {
				to[i] = truth(v > threshold)
			}
		}
	}, nil
}

// codes says which place a value has in a list.
func codesOf(list []float64) (map[float64]int32, error) {
	codes := make(map[float64]int32, len(list))
	for i, v := range list {
		if _, twice := codes[v]; twice {
			return nil, fmt.Errorf("element %d of the categories is there twice", i)
		}
		codes[v] = int32(i)
	}
	return codes, nil
}

func makeOneHotEncoder(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	t, list, err := c.classes("cats_strings", "cats_int64s")
	if err != nil {
		return nil, nil, err
	}
	zeros, err := c.integer("zeros", 1)
	if err != nil {
		return nil, nil, err
	}
	codes, err := codesOf(list)
	if err != nil {
		return nil, nil, err
	}
	if (t == texts) != (x.dtype == texts) || len(list) == 0 {
		return nil, nil, fmt.Errorf("%d categories of type %s for an input of type %s", len(list), t, x.dtype)
	}
	out, err := shaped(float32s, append(slices.Clone(x.dims), len(list)))
	if err != nil {
		return nil, nil, err
	}
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to := f.row(out, r)
			for i, v := range f.row(x, r) {
				part := to[i*len(list) : (i+1)*len(list)]
				clear(part)
				at, known := codes[math.Trunc(v)]
				switch {
				case known:
					part[at] = 1
				case zeros == 0 || v != v:
					refuse(part)
				}
			}
		}
	}, nil
}

func makeLabelEncoder(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	from, keys, err := c.labels("keys", "")
	if err != nil {
		return nil, nil, err
	}
	to, values, err := c.labels("values", "")
	if err != nil {
		return nil, nil, err
	}
	if c.version < 2 {
		return nil, nil, fmt.Errorf("LabelEncoder of ai.onnx.ml %d is not supported, that of 2 and later is", c.version)
	}
	if len(keys) != len(values) || len(keys) == 0 || from != x.dtype && !(isFloat(from) == nil && isFloat(x.dtype) == nil) {
		return nil, nil, fmt.Errorf("%d keys of type %s and %d values for an input of type %s", len(keys), from, len(values), x.dtype)
	}
	otherwise, err := c.defaultLabel(to)
	if err != nil {
		return nil, nil, err
	}
	table := make(map[float64]float64, len(keys))
	ofNaN, hasNaN := otherwise, false
	for i, k := range keys {
		if k != k {
			if !hasNaN {
				ofNaN, hasNaN = values[i], true
			}
			continue
		}
		if _, twice := table[k]; !twice { // the first one holds
			table[k] = values[i]
		}
	}
	out := like(x, to)
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			row := f.row(out, r)
			for i, v := range f.row(x, r) {
				if v != v {
					row[i] = ofNaN
				} else if y, known := table[v]; known {
					row[i] = y
				} else {
					row[i] = otherwise
				}
			}
		}
	}, nil
}

// labels reads a list that is given by type: keys_strings, keys_int64s, keys_floats or, since version
// 4, keys_tensor.
func (c *call) labels(name, _ string) (dtype, []float64, error) {
	if a, found, err := c.attribute(name + "_tensor"); found || err != nil {
		if err != nil {
			return 0, nil, err
		}
		v, err := c.readTensor(a.tensor)
		return v.dtype, v.constant, within(name+"_tensor", err)
	}
	if a, found, err := c.attribute(name + "_strings"); found || err != nil {
		var list []float64
		for _, s := range a.texts {
			list = append(list, c.intern(s))
		}
		return texts, list, err
	}
	if a, found, err := c.attribute(name + "_int64s"); found || err != nil {
		if err != nil {
			return 0, nil, err
		}
		list, err := fromInts(a.ints)
		return integers, list, err
	}
	a, _, err := c.attribute(name + "_floats")
	return float32s, a.floats, err
}

// defaultLabel is what a key that is not listed becomes.
func (c *call) defaultLabel(t dtype) (float64, error) {
	if a, found, err := c.attribute("default_tensor"); found || err != nil {
		if err != nil {
			return 0, err
		}
		v, err := c.readTensor(a.tensor)
		if err == nil && len(v.constant) != 1 {
			err = fmt.Errorf("default_tensor has %d elements, want 1", len(v.constant))
		}
		if err != nil {
			return 0, err
		}
		return v.constant[0], nil
	}
	switch t {
	case texts:
		s, err := c.text("default_string", "_Unused")
		return c.intern([]byte(s)), err
	case integers:
		x, err := c.integer("default_int64", -1)
		return float64(x), err
	default:
		return c.number("default_float", math.Copysign(0, -1))
	}
}

func makeFeatureVectorizer(c *call) ([]*value, operation, error) {
	if err := c.need(len(c.in), len(c.in)); err != nil {
		return nil, nil, err
	}
	widths, err := c.ints("inputdimensions")
	if err != nil {
		return nil, nil, err
	}
	if len(widths) != len(c.in) {
		return nil, nil, fmt.Errorf("inputdimensions has %d elements for %d inputs", len(widths), len(c.in))
	}
	total := 0
	in := c.in
	for i, v := range in {
		width, err := matrix(v)
		if err == nil {
			err = numeric(v)
		}
		if err == nil && int64(width) != widths[i] {
			err = fmt.Errorf("%q has %d columns, inputdimensions says %d", v.name, width, widths[i])
		}
		if err != nil {
			return nil, nil, err
		}
		total += width
	}
	out := ofRows(float32s, total)
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to := f.row(out, r)
			for _, v := range in {
				to = to[copy(to, f.row32(v, r)):]
			}
		}
	}, nil
}

// makeArrayFeatureExtractor takes columns of rows, or elements of a constant by the rows' indices.
func makeArrayFeatureExtractor(c *call) ([]*value, operation, error) {
	if err := c.need(2, 2); err != nil {
		return nil, nil, err
	}
	x, index := c.in[0], c.in[1]
	if index.dtype != integers || len(x.dims) == 0 {
		return nil, nil, fmt.Errorf("elements of %v at indices of type %s", x.shape(), index.dtype)
	}
	last := len(x.dims) - 1
	n := x.dims[last]
	if x.axis == last || !x.isConstant() && !index.isConstant() {
		return nil, nil, fmt.Errorf("elements of %v at %v cannot be taken", x.shape(), index.shape())
	}
	if index.isConstant() {
		for i, k := range index.constant {
			if !(k >= 0 && k < float64(n)) {
				return nil, nil, fmt.Errorf("element %d of %q is %v, want an index of %d columns", i, index.name, k, n)
			}
		}
		dims := append(slices.Clone(x.dims[:last]), index.size())
		if len(x.dims) == 1 {
			dims = []int{1, index.size()}
		}
		out, err := shaped(x.dtype, dims)
		if err != nil {
			return nil, nil, err
		}
		return []*value{out}, func(f *frame) {
			for r := range f.n {
				to, from := f.row(out, r), f.row(x, r)
				for len(from) >= n && len(to) > 0 {
					for i, k := range index.constant {
						to[i] = from[int(k)]
					}
					to, from = to[len(index.constant):], from[n:]
				}
			}
		}, nil
	}
	if x.size() != n || index.axis != 0 && index.size() != 1 {
		return nil, nil, fmt.Errorf("elements of %v at %v, want indices of rows", x.shape(), index.shape())
	}
	// The indices of all rows stand behind each other.
	dims := []int{1, rows}
	if index.size() != 1 {
		dims = []int{1, rows, index.size()}
	}
	out, err := shaped(x.dtype, dims)
	if err != nil {
		return nil, nil, err
	}
	return []*value{out}, func(f *frame) {
		for r := range f.n {
			to, from := f.row(out, r), f.row(x, r)
			for i, k := range f.row(index, r) {
				if !(k >= 0 && k < float64(n)) {
					refuse(to)
					break
				}
				to[i] = from[int(k)]
			}
		}
	}, nil
}

// makeZipMap names columns by classes: the columns are what counts here.
func makeZipMap(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := *c.in[0]
	width, err := matrix(&x)
	if err != nil {
		return nil, nil, err
	}
	_, labels, err := c.classes("classlabels_strings", "classlabels_int64s")
	if err != nil {
		return nil, nil, err
	}
	if len(labels) != width {
		return nil, nil, errors.New(strconv.Itoa(len(labels)) + " classes for " + strconv.Itoa(width) + " columns")
	}
	x.zipped = true
	return []*value{&x}, nil, nil
}
