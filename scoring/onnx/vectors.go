package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

func addVectors(o map[string]maker) {
	o["ai.onnx.ml:SVMRegressor"] = makeVectorRegressor
	o["ai.onnx.ml:SVMClassifier"] = makeVectorClassifier
}

// kernel compares a row with support vectors, in the order of operations of ONNX Runtime's
// batched_kernel_dot. All numbers are float32.
type kernel struct {
	form                  string // LINEAR, POLY, RBF or SIGMOID
	gamma, offset, degree float32
	vectors               []float64 // behind each other
	n, width              int
}

// kernel reads what SVMRegressor and SVMClassifier share. A model without support vectors, which
// ONNX calls liblinear mode, is written by no converter.
func (c *call) kernel(x *value, n int64) (*kernel, error) {
	width, err := matrix(x)
	if err != nil {
		return nil, err
	}
	k := &kernel{width: width}
	if k.form, err = c.text("kernel_type", "LINEAR"); err != nil {
		return nil, err
	}
	switch k.form {
	case "LINEAR", "POLY", "RBF", "SIGMOID":
	default:
		return nil, fmt.Errorf("kernel_type %.40q is not supported; these are: LINEAR, POLY, RBF, SIGMOID", k.form)
	}
	parameters, err := c.floats("kernel_params")
	if err != nil {
		return nil, err
	}
	if len(parameters) != 0 && len(parameters) != 3 {
		return nil, fmt.Errorf("kernel_params has %d elements, want 3: gamma, coef0, degree", len(parameters))
	}
	if len(parameters) == 3 {
		k.gamma, k.offset, k.degree = float32(parameters[0]), float32(parameters[1]), float32(parameters[2])
	}
	if k.form == "LINEAR" {
		k.gamma, k.offset = 1, 0
	}
	if k.vectors, err = c.floats("support_vectors"); err != nil {
		return nil, err
	}
	if n < 1 || n > int64(len(k.vectors)) || int(n)*width != len(k.vectors) {
		return nil, fmt.Errorf("support_vectors has %d elements, want those of %d vectors, at least 1, of %d columns", len(k.vectors), n, width)
	}
	k.n = int(n)
	post, err := c.text("post_transform", "NONE")
	if err == nil && post != "NONE" {
		err = fmt.Errorf("post_transform %.40q is not supported, NONE is", post)
	}
	return k, err
}

// run writes one number for each support vector.
func (k *kernel) run(row, out []float64) {
	if k.form == "RBF" {
		for i := range out {
			sum := float32(0)
			vector := k.vectors[i*k.width:][:len(row)]
			for j, x := range row {
				d := float32(x) - float32(vector[j])
				sum += float32(d * d)
			}
			out[i] = float64(expf(-k.gamma * sum))
		}
		return
	}
	stride := strideOf(k.n, k.width)
	for i := range out {
		v := dot32(row, k.vectors[i*k.width:][:len(row)], stride, k.gamma, k.offset)
		switch {
		case k.form == "LINEAR":
		case k.form == "SIGMOID":
			v = tangent(v)
		case k.degree == 3:
			v *= float32(v * v)
		default:
			v = powerf(v, k.degree)
		}
		out[i] = float64(v)
	}
}

func makeVectorRegressor(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if x.dtype != float32s {
		return nil, nil, fmt.Errorf("%q is of type %s, want float", x.name, x.dtype)
	}
	n, err := c.integer("n_supports", 0)
	if err != nil {
		return nil, nil, err
	}
	k, err := c.kernel(x, n)
	if err != nil {
		return nil, nil, err
	}
	coefficients, err := c.floats("coefficients")
	if err != nil {
		return nil, nil, err
	}
	rho, err := c.floats("rho")
	if err != nil {
		return nil, nil, err
	}
	if len(coefficients) != k.n || len(rho) != 1 {
		return nil, nil, fmt.Errorf("%d coefficients and %d rho for %d support vectors, want as many and 1", len(coefficients), len(rho), k.n)
	}
	one, err := c.integer("one_class", 0)
	if err != nil {
		return nil, nil, err
	}
	stride := strideOf(1, k.n)
	out := ofRows(float32s, 1)
	return []*value{out}, func(f *frame) {
		f.memory = slices.Grow(f.memory[:0], k.n)[:k.n]
		for r := range f.n {
			k.run(f.row(x, r), f.memory)
			y := dot32(f.memory, coefficients, stride, 1, float32(rho[0]))
			if one != 0 {
				if y > 0 {
					y = 1
				} else {
					y = -1
				}
			}
			f.row(out, r)[0] = float64(y)
		}
	}, nil
}

// vectorClassifier decides between each two of the classes by the support vectors of both.
type vectorClassifier struct {
	kernel       *kernel
	starts       []int     // of the classes' vectors, and behind the last
	coefficients []float64 // classes-1 for each vector: a list of all vectors behind another
	rho          []float64 // of each two classes
	slope, shift []float64 // of the probability of each two classes; none: there are no probabilities
	classes      int
}

func makeVectorClassifier(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	if err := numeric(x); err != nil {
		return nil, nil, err
	}
	t, labels, err := c.classes("classlabels_strings", "classlabels_ints")
	if err != nil {
		return nil, nil, err
	}
	counts, err := c.ints("vectors_per_class")
	if err != nil {
		return nil, nil, err
	}
	if len(labels) < 2 || len(counts) != len(labels) {
		return nil, nil, fmt.Errorf("vectors_per_class has %d elements for %d classes, want one for each of two or more", len(counts), len(labels))
	}
	m := &vectorClassifier{classes: len(labels), starts: []int{0}}
	total := int64(0)
	for i, n := range counts {
		if n < 0 || n > maxExact {
			return nil, nil, fmt.Errorf("vectors_per_class[%d] is %d", i, n)
		}
		if total += n; total > maxExact {
			return nil, nil, errors.New("vectors_per_class adds up to too many")
		}
		m.starts = append(m.starts, int(total))
	}
	if m.kernel, err = c.kernel(x, total); err != nil {
		return nil, nil, err
	}
	for name, to := range map[string]*[]float64{"coefficients": &m.coefficients, "rho": &m.rho, "prob_a": &m.slope, "prob_b": &m.shift} {
		if *to, err = c.floats(name); err != nil {
			return nil, nil, err
		}
	}
	pairs := m.classes * (m.classes - 1) / 2
	if len(m.coefficients) != (m.classes-1)*m.kernel.n || len(m.rho) != pairs || len(m.slope) != len(m.shift) || len(m.slope) != 0 && len(m.slope) != pairs {
		return nil, nil, fmt.Errorf("%d coefficients, %d rho, %d prob_a and %d prob_b for %d vectors of %d classes; want %d, %d, and %d or none",
			len(m.coefficients), len(m.rho), len(m.slope), len(m.shift), m.kernel.n, m.classes, (m.classes-1)*m.kernel.n, pairs, pairs)
	}
	width := m.classes
	if len(m.slope) == 0 {
		width = max(2, pairs)
	} else if m.classes > c.budget/m.classes {
		return nil, nil, fmt.Errorf("%d classes are more than is allowed for a file of this size", m.classes)
	}
	label, scores := &value{dtype: t, dims: []int{rows}, axis: 0, slot: -1}, ofRows(float32s, width)
	return []*value{label, scores}, func(f *frame) {
		for r := range f.n {
			f.row(label, r)[0] = labels[m.classify(f.row(x, r), f.row(scores, r), f)]
		}
	}, nil
}

// classify writes the scores of a row: probabilities of the classes, or what decides between each two
// classes; between two alone also its negative, first. It gives the class that won most decisions.
func (m *vectorClassifier) classify(row, to []float64, f *frame) int {
	pairs := len(m.rho)
	memory := m.kernel.n + pairs + m.classes
	f.memory = slices.Grow(f.memory[:0], memory+len(row))[:memory+len(row)]
	kernels, scores, votes := f.memory[:m.kernel.n], f.memory[m.kernel.n:][:pairs], f.memory[m.kernel.n+pairs:][:m.classes]
	numbers := f.memory[memory:]
	for i, x := range row {
		numbers[i] = float64(float32(x))
	}
	m.kernel.run(numbers, kernels)
	clear(votes)
	at := 0
	for i := range m.classes - 1 {
		for j := i + 1; j < m.classes; j++ {
			// A vector of class i has its coefficient against class j in list j-1, one of class j its against i in list i.
			sum := m.weigh(0, kernels, j-1, i)
			sum = m.weigh(sum, kernels, i, j) + m.rho[at]
			scores[at] = float64(float32(sum))
			if at++; sum > 0 {
				votes[i]++
			} else {
				votes[j]++
			}
		}
	}
	switch {
	case len(m.slope) > 0:
		m.probabilities(scores, to, f)
	case pairs == 1:
		to[0], to[1] = -scores[0], scores[0]
	default:
		copy(to, scores)
	}
	return largest(votes)
}

// weigh adds the products of a class's vectors with their coefficients in a list.
func (m *vectorClassifier) weigh(sum float64, kernels []float64, list, class int) float64 {
	from, to := m.starts[class], m.starts[class+1]
	coefficients := m.coefficients[list*m.kernel.n:]
	for i := from; i < to; i++ {
		sum += float64(float32(coefficients[i]) * float32(kernels[i]))
	}
	return sum
}

// probabilities couples those of each two classes (Wu, Lin, Weng, Probability Estimates for Multi-class
// Classification by Pairwise Coupling, JMLR 2004, algorithm 2), in the order of libsvm, in float32.
func (m *vectorClassifier) probabilities(scores, to []float64, f *frame) {
	n := m.classes
	f.floats = slices.Grow(f.floats[:0], 2*n*n+2*n)[:2*n*n+2*n]
	r, q, p, qp := f.floats[:n*n], f.floats[n*n:2*n*n], f.floats[2*n*n:][:n], f.floats[2*n*n+n:]
	at := 0
	for i := range n - 1 {
		for j := i + 1; j < n; j++ {
			v := 1 - exactLogistic(float32(float32(scores[at])*float32(m.slope[at]))+float32(m.shift[at]))
			if v < 1e-7 {
				v = 1e-7
			}
			if v > 1-1e-7 {
				v = 1 - 1e-7
			}
			r[i*n+j], r[j*n+i] = v, 1-v
			at++
		}
	}
	couple(n, r, q, p, qp)
	for i, x := range p {
		to[i] = float64(x)
	}
}

func couple(n int, r, q, p, qp []float32) {
	for i := range n {
		p[i] = 1 / float32(n)
		q[i*n+i] = 0
		for j := range n {
			if j == i {
				continue
			}
			q[i*n+i] += float32(r[j*n+i] * r[j*n+i])
			if j < i {
				q[i*n+j] = q[j*n+i]
			} else {
				q[i*n+j] = -r[j*n+i] * r[i*n+j]
			}
		}
	}
	least := float32(0.005) / float32(n)
	for range 100 {
		pqp := float32(0)
		for i := range n {
			qp[i] = 0
			for j := range n {
				qp[i] += float32(q[i*n+j] * p[j])
			}
			pqp += float32(p[i] * qp[i])
		}
		most := float32(0)
		for i := range n {
			if e := float32(math.Abs(float64(qp[i] - pqp))); e > most {
				most = e
			}
		}
		if most < least {
			return
		}
		for i := range n {
			d := (-qp[i] + pqp) / q[i*n+i]
			p[i] += d
			pqp = (pqp + float32(d*(float32(d*q[i*n+i])+float32(2*qp[i])))) / (1 + d) / (1 + d)
			for j := range n {
				qp[j] = (qp[j] + float32(d*q[i*n+j])) / (1 + d)
				p[j] /= 1 + d
			}
		}
	}
}
