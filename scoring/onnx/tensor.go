package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// dtype is the type of a tensor's elements. They are all kept as float64: float32 rounded after every
// operation, integers as long as they are exact, texts as their number among those that the model
// knows, truth as 0 and 1.
type dtype uint8

const (
	float32s dtype = iota
	float64s
	integers
	booleans
	texts
)

func (t dtype) String() string {
	return [...]string{"float", "double", "int64", "bool", "string"}[t]
}

// dtypeOf knows the numbers of TensorProto.DataType.
func dtypeOf(number int64) (dtype, error) {
	switch number {
	case 1:
		return float32s, nil
	case 11:
		return float64s, nil
	case 6, 7:
		return integers, nil
	case 8:
		return texts, nil
	case 9:
		return booleans, nil
	}
	return 0, fmt.Errorf("the tensor type %d is not supported; these are: float, double, int32, int64, string, bool", number)
}

// round makes an element of a type of a number.
func (t dtype) round(x float64) float64 {
	if t == float32s {
		return float64(float32(x))
	}
	return x
}

// maxExact is the largest integer up to which float64 has them all.
const maxExact = 1 << 53

const maxRank = 8

// value is a tensor: a constant, or one that has an axis of rows. Wherever that axis is, a row's elements
// stand together, in the order of the other axes.
type value struct {
	name  string
	used  bool // by a node
	uses  int  // by nodes
	wide  int  // uses that round the elements to float32 themselves
	only  int  // unless 0, nothing but column only-1 of a row will be read
	dtype dtype
	dims  []int // rows: at the axis
	axis  int   // of the rows; constant: none
	// flat is a dimension that ONNX counts with that of the rows, and that is behind it here: of n rows of
	// c columns that became one of n·c elements.
	flat bool
	// stacked is the same for the dimension before the rows: k tensors of n rows each, one behind another.
	stacked bool
	// chosen rows are some of all: those for which the register of what NonZero was given is true.
	chosen bool

	slot     int       // of what is computed
	constant []float64 // else
	columns  []float64 // of a constant matrix, behind each other, once a product asked for them

	// labels is a sequence of maps: the classes stand for the keys.
	zipped bool
}

const (
	rows     = -1 // as a dimension
	noAxis   = -1
	rowsMark = -maxExact - 2 // as an element of a shape
)

// size is the number of elements of a row, or of a constant.
func (v *value) size() int {
	n := 1
	for i, d := range v.dims {
		if i != v.axis {
			n *= d
		}
	}
	return n
}

func (v *value) isConstant() bool { return v.axis == noAxis }

// readTensor reads a TensorProto.
func (b *builder) readTensor(message []byte) (*value, error) {
	v := &value{axis: noAxis, slot: -1}
	var kind int64
	var dims, ints []int64
	var raw []byte
	var floats, doubles []float64
	var strings [][]byte
	haveRaw := false
	err := fields(message, func(f field) (err error) {
		switch f.number {
		case 1:
			dims, err = f.appendInts(dims)
		case 2:
			kind = int64(f.value)
		case 4:
			floats, err = f.appendFloats(floats)
		case 5, 7:
			ints, err = f.appendInts(ints)
		case 6:
			strings = append(strings, f.bytes)
		case 8:
			v.name = string(f.bytes)
		case 9:
			raw, haveRaw = f.bytes, true
		case 10:
			doubles, err = f.appendDoubles(doubles)
		case 13:
			err = errors.New("its data are in another file, which is not read")
		case 14:
			if f.value != 0 {
				err = errors.New("its data are in another file, which is not read")
			}
		}
		return err
	})
	if err != nil {
		return v, err
	}
	if v.dtype, err = dtypeOf(kind); err != nil {
		return v, err
	}
	if haveRaw {
		v.constant, err = fromRaw(raw, kind)
	} else {
		v.constant, err = b.fromLists(v.dtype, floats, doubles, ints, strings)
	}
	if err != nil {
		return v, err
	}
	n := 1
	for _, d := range dims {
		if d < 0 || len(dims) > maxRank || d > 0 && int64(n) > int64(len(v.constant))/d {
			return v, fmt.Errorf("the dimensions %v do not fit %d elements", dims, len(v.constant))
		}
		n *= int(d)
		v.dims = append(v.dims, int(d))
	}
	if n != len(v.constant) {
		return v, fmt.Errorf("the dimensions %v do not fit %d elements", dims, len(v.constant))
	}
	return v, nil
}

func (b *builder) fromLists(t dtype, floats, doubles []float64, ints []int64, strings [][]byte) ([]float64, error) {
	switch t {
	case float32s:
		return floats, nil
	case float64s:
		return doubles, nil
	case integers, booleans:
		return fromInts(ints)
	default:
		out := make([]float64, len(strings))
		for i, s := range strings {
			out[i] = b.intern(s)
		}
		return out, nil
	}
}

func fromInts(ints []int64) ([]float64, error) {
	out := make([]float64, len(ints))
	for i, x := range ints {
		if x > maxExact || x < -maxExact {
			return nil, fmt.Errorf("element %d: the integer %d is beyond ±2^53", i, x)
		}
		out[i] = float64(x)
	}
	return out, nil
}

// fromRaw reads raw_data, which is little-endian.
func fromRaw(raw []byte, kind int64) ([]float64, error) {
	width := map[int64]int{1: 4, 6: 4, 7: 8, 9: 1, 11: 8}[kind]
	if width == 0 || len(raw)%width != 0 {
		return nil, fmt.Errorf("%d bytes of raw_data for the tensor type %d", len(raw), kind)
	}
	out := make([]float64, len(raw)/width)
	for i := range out {
		at := raw[i*width:]
		switch kind {
		case 1:
			out[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(at)))
		case 6:
			out[i] = float64(int32(binary.LittleEndian.Uint32(at)))
		case 7:
			x := int64(binary.LittleEndian.Uint64(at))
			if x > maxExact || x < -maxExact {
				return nil, fmt.Errorf("element %d: the integer %d is beyond ±2^53", i, x)
			}
			out[i] = float64(x)
		case 9:
			if at[0] != 0 {
				out[i] = 1
			}
		case 11:
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(at))
		}
	}
	return out, nil
}
