package onnx

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
)

// skl2onnx 1.20 writes a KNNImputer as nine functions of a domain of its own. What they do to rows of
// their choice, with If and NonZero, is done here to each row that was chosen; the distances are computed
// by the nodes of the file, for every row. The digest is that of the functions but for their opsets,
// which they do not depend on.
const (
	neighbourDomain    = "local_domain"
	neighbourFunctions = "d7edcdddd93de01f74a48580d87f77df"
)

// digestOf joins what functions are made of but for the versions that they import.
func digestOf(functions [][]byte) string {
	h := sha256.New()
	for _, message := range functions {
		err := fields(message, func(f field) error {
			if f.number != 9 {
				fmt.Fprintf(h, "%d %d %d:", f.number, f.value, len(f.bytes))
				h.Write(f.bytes)
			}
			return nil
		})
		if err != nil {
			return ""
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func addNeighbours(o map[string]maker) {
	o[":NonZero"] = makeNonZero
	o[neighbourDomain+":dict_idx_map"] = makeChosenPlaces
	o[neighbourDomain+":knn_imputer_column"] = makeImputeColumn
}

// makeNonZero chooses the rows for which something is true. All rows stay: their truth does, too.
func makeNonZero(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if x.isConstant() || x.dtype != booleans || len(x.dims) != 1 {
		return nil, nil, fmt.Errorf("places of %v of type %s are not supported, those of one truth a row are", x.shape(), x.dtype)
	}
	out := *x
	out.dims, out.axis, out.chosen = []int{1, rows}, 1, true
	return []*value{&out}, nil, nil
}

// makeChosenPlaces says where a row is among the chosen ones, which here is at its own place.
func makeChosenPlaces(c *call) ([]*value, operation, error) {
	if err := c.need(2, 2); err != nil {
		return nil, nil, err
	}
	if !c.in[1].chosen {
		return nil, nil, fmt.Errorf("%q is no choice of rows", c.in[1].name)
	}
	out := *c.in[1]
	return []*value{&out}, nil, nil
}

// imputer fills a column of rows by the mean of what their nearest training rows have there.
type imputer struct {
	column     int
	donors     []int     // training rows that have it
	values     []float64 // of the donors
	mean       float64   // of all donors, for rows that are at no distance of any
	neighbours int
}

func makeImputeColumn(c *call) ([]*value, operation, error) {
	if err := c.need(10, 10); err != nil {
		return nil, nil, err
	}
	x, distances, present, missing, chosen, fit := c.in[1], c.in[2], c.in[3], c.in[6], c.in[7], c.in[8]
	column, err := whole(c.in[0])
	if err != nil {
		return nil, nil, err
	}
	count, err := whole(c.in[9])
	if err != nil {
		return nil, nil, err
	}
	width, err := matrix(x)
	if err != nil {
		return nil, nil, err
	}
	if fit.constant == nil || present.constant == nil || len(fit.dims) != 2 || fit.dims[1] != width || !slices.Equal(fit.dims, present.dims) || present.dtype != booleans {
		return nil, nil, fmt.Errorf("training rows of the dimensions %v and %v, want constants of %d columns", fit.shape(), present.shape(), width)
	}
	if len(column) != 1 || column[0] < 0 || column[0] >= int64(width) || len(count) != 1 {
		return nil, nil, fmt.Errorf("column %v of %d, %v neighbours", column, width, count)
	}
	m := &imputer{column: int(column[0])}
	n := fit.dims[0]
	switch {
	case x.dtype != float32s || fit.dtype != float32s || distances.dtype != float32s:
		return nil, nil, errors.New("elements that are no float are not supported")
	case x.chosen || missing.chosen || !chosen.chosen || !distances.chosen || !c.in[5].chosen:
		return nil, nil, errors.New("its rows are not those of one choice")
	case distances.isConstant() || distances.axis != 0 || distances.size() != n || missing.isConstant() || missing.axis != 0 || missing.size() != width || missing.dtype != booleans:
		return nil, nil, fmt.Errorf("distances of the dimensions %v and missing of %v for %d training rows of %d columns", distances.shape(), missing.shape(), n, width)
	}
	if c.budget -= 2 * n; c.budget < 0 {
		return nil, nil, fmt.Errorf("%d training rows are more than is allowed for a file of this size", n)
	}
	for i := range n {
		if present.constant[i*width+m.column] != 0 {
			m.donors, m.values = append(m.donors, i), append(m.values, fit.constant[i*width+m.column])
		}
	}
	m.neighbours = max(1, int(min(count[0], int64(len(m.donors)))))
	add := func(x, y float64) float64 { return float64(float32(x + y)) }
	if len(m.donors) > 0 {
		m.mean = float64(float32(reduced(slices.Clone(m.values), lanesOf(float32s), 0, add)) / float32(len(m.donors)))
	}
	out := like(x, x.dtype)
	return []*value{out}, func(f *frame) {
		f.memory = slices.Grow(f.memory[:0], 3*m.neighbours)[:3*m.neighbours]
		for r := range f.n {
			to := f.row(out, r)
			copy(to, f.row(x, r))
			if len(m.donors) > 0 && f.row(chosen, r)[0] != 0 && f.row(missing, r)[m.column] != 0 {
				to[m.column] = m.impute(f.row(distances, r), f.memory, add)
			}
		}
	}, nil
}

// impute is the mean of the values of the nearest donors. Those at no distance come last, and count for nothing.
func (m *imputer) impute(distances, memory []float64, add func(x, y float64) float64) float64 {
	n := 0
	nearest, values, weights := memory[:m.neighbours], memory[m.neighbours:2*m.neighbours], memory[2*m.neighbours:]
	known := false
	for i, donor := range m.donors {
		d, weight := distances[donor], 1.0
		if d != d {
			d, weight = math.MaxFloat32, 0
		}
		known = known || weight != 0
		at := n
		for at > 0 && d < nearest[at-1] {
			at--
		}
		if at == m.neighbours {
			continue
		}
		n = min(n+1, m.neighbours)
		copy(nearest[at+1:n], nearest[at:])
		copy(values[at+1:n], values[at:])
		copy(weights[at+1:n], weights[at:])
		nearest[at], values[at], weights[at] = d, m.values[i], weight
	}
	if !known {
		return m.mean
	}
	count := 0.0
	for i, w := range weights[:n] {
		count += w
		values[i] *= w
	}
	return float64(float32(reduced(values[:n], lanesOf(float32s), 0, add)) / float32(max(1, count)))
}
