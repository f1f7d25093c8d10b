package xgboost

import (
	"encoding/binary"
	"math"

	"github.com/churnstream/churnstream/scoring/internal/jsonread"
)

// ubjReader reads UBJSON as XGBoost writes it: numbers are big-endian, every length is an int64
// behind an 'L', arrays of numbers have one type for all: [ $ type # L length.
type ubjReader struct {
	data  []byte
	at    int
	depth int
}

// take is the next n bytes.
func (r *ubjReader) take(n int) ([]byte, error) {
	if n > len(r.data)-r.at {
		return nil, jsonread.FaultAt(len(r.data), "the file ends %d bytes short", n-(len(r.data)-r.at))
	}
	out := r.data[r.at : r.at+n]
	r.at += n
	return out, nil
}

func (r *ubjReader) marker() (byte, error) {
	b, err := r.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (r *ubjReader) peek() (byte, error) {
	if r.at == len(r.data) {
		return 0, jsonread.FaultAt(r.at, "the file ends here")
	}
	return r.data[r.at], nil
}

// length is a count of things that take at least size bytes each.
func (r *ubjReader) length(size int) (int, error) {
	at := r.at
	m, err := r.marker()
	if err != nil {
		return 0, err
	}
	if m != 'L' {
		return 0, jsonread.FaultAt(at, "marker %q where the length marker 'L' is due", m)
	}
	b, err := r.take(8)
	if err != nil {
		return 0, err
	}
	n := int64(binary.BigEndian.Uint64(b))
	if n < 0 || n > int64((len(r.data)-r.at)/size) {
		return 0, jsonread.FaultAt(at, "a length of %d, %d bytes are left", n, len(r.data)-r.at)
	}
	return int(n), nil
}

func (r *ubjReader) Next() (jsonread.Kind, error) {
	m, err := r.peek()
	if err != nil {
		return jsonread.IsOther, err
	}
	switch m {
	case '{':
		return jsonread.IsObject, nil
	case '[':
		return jsonread.IsArray, nil
	case 'S':
		return jsonread.IsText, nil
	case 'i', 'U', 'I', 'l', 'L', 'd', 'D', 'C':
		return jsonread.IsNumber, nil
	}
	return jsonread.IsOther, nil
}

func (r *ubjReader) enter(m byte) error {
	at := r.at
	got, err := r.marker()
	switch {
	case err != nil:
		return err
	case got != m:
		return jsonread.FaultAt(at, "marker %q where %q is due", got, m)
	case r.depth == maxDepth:
		return jsonread.FaultAt(at, "nested more than %d deep", maxDepth)
	}
	r.depth++
	return nil
}

func (r *ubjReader) Object(member func(key []byte) error) error {
	if err := r.enter('{'); err != nil {
		return err
	}
	defer func() { r.depth-- }()
	for {
		m, err := r.peek()
		if err != nil {
			return err
		}
		if m == '}' {
			r.at++
			return nil
		}
		n, err := r.length(1)
		if err != nil {
			return err
		}
		key, err := r.take(n)
		if err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
	}
}

func (r *ubjReader) Array(element func(i int) error) error {
	if err := r.enter('['); err != nil {
		return err
	}
	defer func() { r.depth-- }()
	m, err := r.peek()
	if err != nil {
		return err
	}
	switch m {
	case '$':
		return jsonread.FaultAt(r.at, "an array of numbers where one of objects or strings is due")
	case '#':
		r.at++
		n, err := r.length(1)
		if err != nil {
			return err
		}
		for i := range n {
			if err := element(i); err != nil {
				return err
			}
		}
		return nil
	}
	for i := 0; ; i++ {
		m, err := r.peek()
		if err != nil {
			return err
		}
		if m == ']' {
			r.at++
			return nil
		}
		if err := element(i); err != nil {
			return err
		}
	}
}

func (r *ubjReader) Elements() (n int, err error) {
	at := r.at
	err = r.Array(func(int) error { n++; return r.Skip() })
	r.at = at
	return n, err
}

func (r *ubjReader) Text() ([]byte, error) {
	at := r.at
	m, err := r.marker()
	if err != nil {
		return nil, err
	}
	if m != 'S' {
		return nil, jsonread.FaultAt(at, "marker %q where a string is due", m)
	}
	n, err := r.length(1)
	if err != nil {
		return nil, err
	}
	return r.take(n)
}

// size is the number of bytes of a number of type m, 0 if it is none.
func size(m byte) int {
	switch m {
	case 'i', 'U', 'C':
		return 1
	case 'I':
		return 2
	case 'l', 'd':
		return 4
	case 'L', 'D':
		return 8
	}
	return 0
}

// whole is the integer of type m in b.
func whole(m byte, b []byte) (int64, bool) {
	switch m {
	case 'i':
		return int64(int8(b[0])), true
	case 'U', 'C':
		return int64(b[0]), true
	case 'I':
		return int64(int16(binary.BigEndian.Uint16(b))), true
	case 'l':
		return int64(int32(binary.BigEndian.Uint32(b))), true
	case 'L':
		return int64(binary.BigEndian.Uint64(b)), true
	}
	return 0, false
}

// real is the number of type m in b, as a float32.
func real(m byte, b []byte) float32 {
	switch m {
	case 'd':
		return math.Float32frombits(binary.BigEndian.Uint32(b))
	case 'D':
		return float32(math.Float64frombits(binary.BigEndian.Uint64(b)))
	}
	x, _ := whole(m, b)
	return float32(x)
}

func (r *ubjReader) Integer() (int64, error) {
	at := r.at
	m, err := r.marker()
	if err != nil {
		return 0, err
	}
	switch m {
	case 'T':
		return 1, nil
	case 'F':
		return 0, nil
	}
	b, err := r.take(size(m))
	if err != nil {
		return 0, err
	}
	x, ok := whole(m, b)
	if !ok {
		return 0, jsonread.FaultAt(at, "marker %q where an integer is due", m)
	}
	return x, nil
}

// typed reports whether an array of one type for all elements is ahead.
func (r *ubjReader) typed() bool {
	return len(r.data)-r.at > 1 && r.data[r.at] == '[' && r.data[r.at+1] == '$'
}

// body is a typed array.
func (r *ubjReader) body() (m byte, b []byte, err error) {
	at := r.at
	head, err := r.take(4)
	if err != nil {
		return 0, nil, err
	}
	m = head[2]
	if size(m) == 0 || head[3] != '#' {
		return 0, nil, jsonread.FaultAt(at, "an array of type %q, which is no number", m)
	}
	n, err := r.length(size(m))
	if err != nil {
		return 0, nil, err
	}
	b, err = r.take(n * size(m))
	return m, b, err
}

func (r *ubjReader) Floats() ([]float32, error) {
	if !r.typed() {
		var out []float32
		err := r.Array(func(int) error {
			at := r.at
			m, err := r.marker()
			if err != nil {
				return err
			}
			if size(m) == 0 {
				return jsonread.FaultAt(at, "marker %q where a number is due", m)
			}
			b, err := r.take(size(m))
			if err == nil {
				out = append(out, real(m, b))
			}
			return err
		})
		return out, err
	}
	m, body, err := r.body()
	if err != nil {
		return nil, err
	}
	step := size(m)
	out := make([]float32, len(body)/step)
	for i := range out {
		out[i] = real(m, body[i*step:])
	}
	return out, nil
}

func (r *ubjReader) Integers() ([]int32, error) {
	at := r.at
	if !r.typed() {
		var out []int32
		err := r.Array(func(int) error {
			x, err := r.Integer()
			if err != nil {
				return err
			}
			narrowed, err := jsonread.Narrow(at, x)
			out = append(out, narrowed)
			return err
		})
		return out, err
	}
	m, body, err := r.body()
	if err != nil {
		return nil, err
	}
	step := size(m)
	out := make([]int32, len(body)/step)
	for i := range out {
		x, ok := whole(m, body[i*step:])
		if !ok {
			return nil, jsonread.FaultAt(at, "an array of type %q where one of integers is due", m)
		}
		if out[i], err = jsonread.Narrow(at, x); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *ubjReader) Skip() error {
	m, err := r.peek()
	if err != nil {
		return err
	}
	switch m {
	case '{':
		return r.Object(func([]byte) error { return r.Skip() })
	case '[':
		if r.typed() {
			_, _, err := r.body()
			return err
		}
		return r.Array(func(int) error { return r.Skip() })
	case 'S':
		_, err := r.Text()
		return err
	case 'Z', 'T', 'F':
		r.at++
		return nil
	}
	if size(m) == 0 {
		return jsonread.FaultAt(r.at, "marker %q is unknown", m)
	}
	_, err = r.take(1 + size(m))
	return err
}

func (r *ubjReader) End() error {
	if r.at < len(r.data) {
		return jsonread.FaultAt(r.at, "%d bytes behind the end of the model", len(r.data)-r.at)
	}
	return nil
}
