package scoring

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/churnstream/churnstream/scoring/trees"
)

// Logistic writes 1/(1+exp(-x)) of each column.
type Logistic struct{}

// Softmax writes exp(x)/Σ exp over the columns of a row.
type Softmax struct {
	// Logarithm subtracts the logarithm of the sum before the exponential, as scikit-learn's naive
	// Bayes does, and does not divide after it.
	Logarithm bool `json:"logarithm,omitempty"`
}

// Share divides the columns of a row by their sum.
type Share struct {
	// Empty is what each column becomes where the sum is 0; nil: the row is refused.
	Empty *float64 `json:"empty,omitempty"`
}

// Mean writes Σ weight·column / Σ weight over groups of columns: with k outputs, column i belongs to
// output i mod k and has the weight of its group, i / k.
type Mean struct {
	Weights Floats `json:"weights"`
}

// ArgMax writes the position of the largest column, of the first one among equals; of a single
// column 1 if it is above Above, else 0.
type ArgMax struct {
	Above float64 `json:"above,omitempty"`
}

// Votes counts columns that hold a class: output k is Σ over the columns of Hit where the column is
// k and of Miss where it is not.
type Votes struct {
	Hit  Floats `json:"hit"`  // one for each column
	Miss Floats `json:"miss"` // likewise
}

// LogVotes writes (k-1)·(log p - mean of log p over the k columns), p being at least 2⁻⁵²: a member
// of scikit-learn's AdaBoost by SAMME.R.
type LogVotes struct{}

// Interpolate writes y on the line through ascending points, and the outer points' y beyond them:
// scikit-learn's IsotonicRegression.
type Interpolate struct {
	X Floats `json:"x"`
	Y Floats `json:"y"`
}

// GaussianLikelihood writes, for each class, log prior - ½Σ log(2π·variance) - ½Σ (x-mean)²/variance:
// scikit-learn's GaussianNB.
type GaussianLikelihood struct {
	LogPrior  Floats   `json:"log_prior"`
	Means     []Floats `json:"means"`     // for each class, one for each column
	Variances []Floats `json:"variances"` // likewise
	// Background holds the mean of (x-mean)²/variance over the training rows, likewise: what contributions
	// are measured from. Without it there are none.
	Background []Floats `json:"background,omitempty"`
}

// CategoricalLikelihood writes, for each class, Σ over the columns of a logarithm by the column's
// value, a whole number from 0, + log prior: scikit-learn's CategoricalNB. Another value refuses the
// row.
type CategoricalLikelihood struct {
	LogPrior       Floats     `json:"log_prior"`
	LogProbability [][]Floats `json:"log_probability"` // column, class, value
	// Background holds the mean of each logarithm over the training rows: for each class, one for each
	// column. Without it there are no contributions.
	Background []Floats `json:"background,omitempty"`
}

// KernelMachine writes Σ coefficient·kernel(x, vector) + intercept for each output: the decision
// functions of scikit-learn's SVC.
type KernelMachine struct {
	Kernel       string   `json:"kernel"` // linear, poly, rbf or sigmoid
	Gamma        float64  `json:"gamma"`
	Offset       float64  `json:"offset"` // coef0
	Degree       int      `json:"degree"`
	Vectors      []Floats `json:"vectors"`
	Coefficients []Floats `json:"coefficients"` // for each output, one for each vector
	Intercepts   Floats   `json:"intercepts"`
}

// PairwiseProbability makes probabilities of k classes from the k·(k-1)/2 decision functions of
// their pairs as libsvm does: a logistic function of A·x+B for each pair, then the iteration of Wu,
// Lin and Weng (2004), algorithm 2.
type PairwiseProbability struct {
	A Floats `json:"a"`
	B Floats `json:"b"`
}

// Trees writes the margins of a tree ensemble: (Base[k] + Σ leaves of output k) / Divisor, added in
// the order of the trees.
type Trees struct {
	// Single rounds every column to float32 before it is compared.
	Single  bool     `json:"single,omitempty"`
	Base    Floats   `json:"base,omitempty"`
	Divisor float64  `json:"divisor,omitempty"`
	List    TreeList `json:"trees"`
}

// TreeList is a list of trees that stops reading at the first without nodes.
type TreeList []Tree

// UnmarshalJSON reads a list of trees.
func (l *TreeList) UnmarshalJSON(data []byte) error {
	return eachValue("trees", data, func(d *json.Decoder) error {
		var t Tree
		if err := d.Decode(&t); err != nil {
			return err
		}
		if len(t.Left) == 0 {
			return errors.New("no nodes")
		}
		*l = append(*l, t)
		return nil
	})
}

// Tree is one tree as lists over its nodes; node 0 is the root.
type Tree struct {
	Output int  `json:"output,omitempty"` // that the leaves' values add to
	Left   Ints `json:"left"`             // child where column ≤ threshold; -1 in a leaf
	Right  Ints `json:"right"`
	Column Ints `json:"column"` // position among the step's columns
	// Threshold is what a split compares with; in a split by Sets it is not read.
	Threshold Floats `json:"threshold"`
	// MissingLeft lists the splits that send NaN to the left.
	MissingLeft Ints `json:"missing_left,omitempty"`
	// Sets are, by node, the categories that go left instead of numbers up to a threshold.
	Sets   []CategorySet `json:"sets,omitempty"`
	Values Floats        `json:"values,omitempty"` // one a node
	// Vectors are in the place of Values where a leaf adds to all outputs: outputs numbers a node.
	Vectors Floats `json:"vectors,omitempty"`
	Cover   Floats `json:"cover"` // training weight of each node
}

// CategorySet says which categories a split sends to the left.
type CategorySet struct {
	Node int32 `json:"node"`
	Left Ints  `json:"left"` // categories, 0 to 1023
}

// CategoryCode makes a category of a number as scikit-learn's histogram boosting does: cut to a whole
// number below 256 as a C cast does it, and missing if it is negative or not among Known.
type CategoryCode struct {
	Known Ints `json:"known"`
}

// Type names the step in model.json.
func (CategoryCode) Type() string { return "category_code" }

// Type names the step in model.json.
func (Logistic) Type() string { return "logistic" }

// Type names the step in model.json.
func (Softmax) Type() string { return "softmax" }

// Type names the step in model.json.
func (Share) Type() string { return "share" }

// Type names the step in model.json.
func (Mean) Type() string { return "mean" }

// Type names the step in model.json.
func (ArgMax) Type() string { return "argmax" }

// Type names the step in model.json.
func (Votes) Type() string { return "votes" }

// Type names the step in model.json.
func (LogVotes) Type() string { return "log_votes" }

// Type names the step in model.json.
func (Interpolate) Type() string { return "interpolate" }

// Type names the step in model.json.
func (GaussianLikelihood) Type() string { return "gaussian_likelihood" }

// Type names the step in model.json.
func (CategoricalLikelihood) Type() string { return "categorical_likelihood" }

// Type names the step in model.json.
func (KernelMachine) Type() string { return "kernel_machine" }

// Type names the step in model.json.
func (PairwiseProbability) Type() string { return "pairwise_probability" }

// Type names the step in model.json.
func (Trees) Type() string { return "trees" }

func (t Logistic) compile(c *compiler, in []column, out []string) error {
	return each(c, unexplained(in), out, func(int) func(float64) float64 { return logistic })
}

// unexplained takes the groups off columns: what is made of a model's output is no input any more.
func unexplained(in []column) []column {
	out := append([]column(nil), in...)
	for i := range out {
		out[i].group = -1
	}
	return out
}

// ofModel binds the outputs of a model and returns their registers with those of its columns.
func ofModel(c *compiler, in []column, out []string) (from, to []int32, err error) {
	if from, err = numberSlots(in); err != nil {
		return nil, nil, err
	}
	to, err = c.makeAll(out, func(int) int32 { return -1 })
	return from, to, err
}

func (t Softmax) compile(c *compiler, in []column, out []string) error {
	if err := oneForOne(in, out); err != nil {
		return err
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	c.emit(&softmax{t.Logarithm, from, to}, from, to)
	return nil
}

type softmax struct {
	logarithm bool
	from, to  []int32
}

func (o *softmax) run(f *frame) {
	for r := range f.n {
		most := math.Inf(-1)
		for _, slot := range o.from {
			most = max(most, f.registers[int(slot)*f.lanes+r])
		}
		sum := 0.0
		for i, slot := range o.from {
			e := math.Exp(f.registers[int(slot)*f.lanes+r] - most)
			f.registers[int(o.to[i])*f.lanes+r] = e
			sum += e
		}
		logSum := most + math.Log(sum)
		for i, slot := range o.to {
			if o.logarithm {
				f.registers[int(slot)*f.lanes+r] = math.Exp(f.registers[int(o.from[i])*f.lanes+r] - logSum)
			} else {
				f.registers[int(slot)*f.lanes+r] /= sum
			}
		}
	}
}

func (t Share) compile(c *compiler, in []column, out []string) error {
	if err := oneForOne(in, out); err != nil {
		return err
	}
	empty := nan
	if t.Empty != nil {
		if empty = *t.Empty; !bounded(empty) {
			return fmt.Errorf("empty: %v is not a number from -%g to %g", empty, LargestNumber, LargestNumber)
		}
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	c.emit(&share{empty, from, to}, from, to)
	return nil
}

type share struct {
	empty    float64
	from, to []int32
}

func (o *share) run(f *frame) {
	for r := range f.n {
		sum := 0.0
		for _, slot := range o.from {
			sum += f.registers[int(slot)*f.lanes+r]
		}
		for i, slot := range o.from {
			x := f.registers[int(slot)*f.lanes+r] / sum
			if sum == 0 {
				x = o.empty
			}
			f.registers[int(o.to[i])*f.lanes+r] = x
		}
	}
}

func (t Mean) compile(c *compiler, in []column, out []string) error {
	if len(out) == 0 || len(in) != len(t.Weights)*len(out) {
		return fmt.Errorf("%d columns for %d weights and %d outputs", len(in), len(t.Weights), len(out))
	}
	if err := allBounded("weights", t.Weights); err != nil {
		return err
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	sum := 0.0
	for _, w := range t.Weights {
		sum += w
	}
	if sum == 0 || !bounded(1/sum) {
		return errors.New("the weights add up to 0")
	}
	for k, slot := range to {
		op := &mean{to: slot, weights: t.Weights, sum: sum}
		e := &explainedSum{}
		for i := k; i < len(from); i += len(out) {
			op.from = append(op.from, from[i])
			if part, ok := c.explain[from[i]]; ok {
				w := t.Weights[i/len(out)] / sum
				e.parts, e.weights = append(e.parts, part), append(e.weights, w)
				e.constant += w * part.base()
			}
		}
		if len(e.parts) == len(op.from) {
			c.explain[slot] = e
		}
		c.emit(op, op.from, []int32{slot})
	}
	return nil
}

type mean struct {
	from    []int32
	to      int32
	weights []float64
	sum     float64
}

func (o *mean) run(f *frame) {
	to := f.weigh(o.from, o.weights, o.to)
	for r := range to {
		to[r] /= o.sum
	}
}

func (t ArgMax) compile(c *compiler, in []column, out []string) error {
	if len(in) == 0 || len(out) != 1 {
		return fmt.Errorf("%d columns and %d outputs, want one output", len(in), len(out))
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	if len(in) == 1 { // of an input, not of several models
		col := c.columns[out[0]]
		col.group = in[0].group
		c.columns[out[0]] = col
	}
	c.emit(&argMax{from, to[0], t.Above}, from, to)
	return nil
}

type argMax struct {
	from  []int32
	to    int32
	above float64
}

func (o *argMax) run(f *frame) {
	to := f.column(o.to)
	if len(o.from) == 1 {
		for r, x := range f.column(o.from[0]) {
			to[r] = truth(x > o.above)
			if x != x {
				to[r] = x
			}
		}
		return
	}
	for r := range to {
		most := f.registers[int(o.from[0])*f.lanes+r]
		to[r] = 0
		for k, slot := range o.from[1:] {
			if x := f.registers[int(slot)*f.lanes+r]; x > most || x != x {
				most, to[r] = x, float64(k+1)
			}
		}
		if most != most {
			to[r] = most
		}
	}
}

func (t Votes) compile(c *compiler, in []column, out []string) error {
	if err := errors.Join(sameLength("hit", len(t.Hit), len(in)), sameLength("miss", len(t.Miss), len(in)),
		allBounded("hit", t.Hit), allBounded("miss", t.Miss)); err != nil {
		return err
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	for k, slot := range to {
		c.emit(&votes{t, from, slot, float64(k)}, from, []int32{slot})
	}
	return nil
}

type votes struct {
	Votes
	from  []int32
	to    int32
	class float64
}

func (o *votes) run(f *frame) {
	to := f.column(o.to)
	clear(to)
	for i, slot := range o.from {
		for r, x := range f.column(slot) {
			switch {
			case x == o.class:
				to[r] += o.Hit[i]
			case x != x:
				to[r] = x
			default:
				to[r] += o.Miss[i]
			}
		}
	}
}

func (t LogVotes) compile(c *compiler, in []column, out []string) error {
	if err := oneForOne(in, out); err != nil {
		return err
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	c.emit(&logVotes{from, to}, from, to)
	return nil
}

type logVotes struct{ from, to []int32 }

func (o *logVotes) run(f *frame) {
	k := float64(len(o.from))
	for r := range f.n {
		sum := 0.0
		for i, slot := range o.from {
			x := f.registers[int(slot)*f.lanes+r]
			if x < epsilon {
				x = epsilon
			}
			x = math.Log(x)
			f.registers[int(o.to[i])*f.lanes+r] = x
			sum += x
		}
		for _, slot := range o.to {
			at := int(slot)*f.lanes + r
			f.registers[at] = (k - 1) * (f.registers[at] - 1/k*sum)
		}
	}
}

func (t Interpolate) compile(c *compiler, in []column, out []string) error {
	if len(t.X) == 0 || len(t.X) != len(t.Y) {
		return fmt.Errorf("%d x and %d y", len(t.X), len(t.Y))
	}
	if err := errors.Join(ascending(t.X), allBounded("y", t.Y)); err != nil {
		return err
	}
	return each(c, unexplained(in), out, func(int) func(float64) float64 {
		return func(x float64) float64 { return interpolate(t.Y, t.X, x) }
	})
}

func (t GaussianLikelihood) compile(c *compiler, in []column, out []string) error {
	if err := errors.Join(sameLength("log_prior", len(t.LogPrior), len(out)), sameLength("means", len(t.Means), len(out)),
		sameLength("variances", len(t.Variances), len(out)), allBounded("log_prior", t.LogPrior)); err != nil {
		return err
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	c.note("naive Bayes of %d features", len(in))
	for k, slot := range to {
		if err := errors.Join(sameLength("means", len(t.Means[k]), len(in)), sameLength("variances", len(t.Variances[k]), len(in)),
			allBounded("means", t.Means[k]), allBounded("variances", t.Variances[k])); err != nil {
			return fmt.Errorf("class %d: %w", k, err)
		}
		op := &gaussianLikelihood{from: from, to: slot, means: t.Means[k], variances: t.Variances[k]}
		for i, v := range op.variances {
			if !(v > 0) {
				return fmt.Errorf("variances[%d][%d]: %v, want a number above 0", k, i, v)
			}
			op.constant += math.Log(2 * math.Pi * v)
		}
		op.constant = -0.5 * op.constant
		op.prior = t.LogPrior[k]
		c.emit(op, from, []int32{slot})
		if err := c.explainTerms(in, slot, k, len(to), t.Background, op.prior+op.constant, -0.5, op.term); err != nil {
			return err
		}
	}
	return nil
}

type gaussianLikelihood struct {
	from             []int32
	to               int32
	means, variances []float64
	constant, prior  float64
}

// term is what column i takes from the likelihood, twice.
func (o *gaussianLikelihood) term(i int, x float64) float64 {
	return (x - o.means[i]) * (x - o.means[i]) / o.variances[i]
}

func (o *gaussianLikelihood) run(f *frame) {
	to := f.column(o.to)
	clear(to)
	for i, slot := range o.from {
		mean, variance := o.means[i], o.variances[i]
		for r, x := range f.column(slot) {
			to[r] += (x - mean) * (x - mean) / variance
		}
	}
	for r := range to {
		to[r] = o.prior + (o.constant - 0.5*to[r])
	}
}

func (t CategoricalLikelihood) compile(c *compiler, in []column, out []string) error {
	if err := errors.Join(sameLength("log_prior", len(t.LogPrior), len(out)), sameLength("log_probability", len(t.LogProbability), len(in)),
		allBounded("log_prior", t.LogPrior)); err != nil {
		return err
	}
	for i, classes := range t.LogProbability {
		if len(classes) != len(out) {
			return fmt.Errorf("log_probability[%d]: %d classes for %d outputs", i, len(classes), len(out))
		}
		for k, values := range classes {
			if len(values) == 0 || len(values) != len(classes[0]) {
				return fmt.Errorf("log_probability[%d][%d]: %d values, the first class has %d", i, k, len(values), len(classes[0]))
			}
			if err := allBounded("log_probability", values); err != nil {
				return err
			}
		}
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	c.note("naive Bayes of %d features", len(in))
	op := &categoricalLikelihood{t, from, to, nil}
	for i := range in {
		op.errors = append(op.errors, c.errorsOf(&in[i]))
	}
	c.emit(op, from, to)
	for k, slot := range to {
		term := func(i int, x float64) float64 { return t.LogProbability[i][k][int(x)] }
		if err := c.explainTerms(in, slot, k, len(to), t.Background, t.LogPrior[k], 1, term); err != nil {
			return err
		}
	}
	return nil
}

type categoricalLikelihood struct {
	CategoricalLikelihood
	from, to []int32
	errors   []inputErrors
}

func (o *categoricalLikelihood) run(f *frame) {
	for _, slot := range o.to {
		clear(f.column(slot))
	}
	for i, slot := range o.from {
		classes := o.LogProbability[i]
		for r, x := range f.column(slot) {
			at := int(clip(x, -1, float64(len(classes[0])))) // a C cast: towards 0
			if x != x || x < 0 || at >= len(classes[0]) {
				f.refuse(r, o.errors[i].unknown)
				continue
			}
			for k, to := range o.to {
				f.registers[int(to)*f.lanes+r] += classes[k][at]
			}
		}
	}
	for k, slot := range o.to {
		to := f.column(slot)
		for r := range to {
			to[r] += o.LogPrior[k]
		}
	}
}

func (t KernelMachine) compile(c *compiler, in []column, out []string) error {
	if err := errors.Join(sameLength("coefficients", len(t.Coefficients), len(out)), sameLength("intercepts", len(t.Intercepts), len(out)),
		allBounded("intercepts", t.Intercepts), allBounded("gamma, offset", []float64{t.Gamma, t.Offset})); err != nil {
		return err
	}
	for k := range out {
		if err := errors.Join(sameLength("coefficients", len(t.Coefficients[k]), len(t.Vectors)), allBounded("coefficients", t.Coefficients[k])); err != nil {
			return err
		}
	}
	for i, v := range t.Vectors {
		if err := errors.Join(sameLength("vectors", len(v), len(in)), allBounded("vectors", v)); err != nil {
			return fmt.Errorf("vectors[%d]: %w", i, err)
		}
	}
	kernel, err := t.kernel()
	if err != nil {
		return err
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	c.note("support vector machine of %d vectors", len(t.Vectors))
	c.emit(&kernelMachine{t, kernel, from, to}, from, to)
	return nil
}

func (t *KernelMachine) kernel() (func(x, v []float64) float64, error) {
	gamma, offset, degree := t.Gamma, t.Offset, t.Degree
	switch t.Kernel {
	case "linear":
		return dot, nil
	case "poly":
		if degree < 0 || degree > maxDegree {
			return nil, fmt.Errorf("degree: %d, want 0 to %d", degree, maxDegree)
		}
		return func(x, v []float64) float64 { return wholePower(float64(gamma*dot(x, v))+offset, degree) }, nil
	case "rbf":
		return func(x, v []float64) float64 {
			sum := 0.0
			for i, y := range v {
				d := x[i] - y
				sum += float64(d * d)
			}
			return math.Exp(-gamma * sum)
		}, nil
	case "sigmoid":
		return func(x, v []float64) float64 { return math.Tanh(float64(gamma*dot(x, v)) + offset) }, nil
	}
	return nil, fmt.Errorf("kernel: got %.20q, want linear, poly, rbf or sigmoid", t.Kernel)
}

func dot(x, y []float64) (sum float64) {
	for i, v := range y {
		sum += float64(x[i] * v)
	}
	return sum
}

func wholePower(base float64, times int) float64 {
	out := 1.0
	for ; times > 0; times /= 2 {
		if times%2 == 1 {
			out *= base
		}
		base *= base
	}
	return out
}

type kernelMachine struct {
	KernelMachine
	kernel   func(x, v []float64) float64
	from, to []int32
}

func (o *kernelMachine) run(f *frame) {
	f.matrix = resized(f.matrix, len(o.from))
	f.out = resized(f.out, len(o.to))
	for r := range f.n {
		for i, slot := range o.from {
			f.matrix[i] = f.registers[int(slot)*f.lanes+r]
		}
		clear(f.out)
		for i, v := range o.Vectors {
			k := o.kernel(f.matrix, v)
			for at := range f.out {
				f.out[at] += float64(o.Coefficients[at][i] * k)
			}
		}
		for at, slot := range o.to {
			f.registers[int(slot)*f.lanes+r] = f.out[at] + o.Intercepts[at]
		}
	}
}

func (t PairwiseProbability) compile(c *compiler, in []column, out []string) error {
	k := len(out)
	if k < 2 || k > maxClasses || len(in) != k*(k-1)/2 {
		return fmt.Errorf("%d columns for the pairs of %d classes", len(in), k)
	}
	if err := errors.Join(sameLength("a", len(t.A), len(in)), sameLength("b", len(t.B), len(in)), allBounded("a", t.A), allBounded("b", t.B)); err != nil {
		return err
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	c.emit(&pairwiseProbability{t, from, to}, from, to)
	return nil
}

// maxClasses bounds the time for a row of the iteration over pairs of classes.
const maxClasses = 256

type pairwiseProbability struct {
	PairwiseProbability
	from, to []int32
}

func (o *pairwiseProbability) run(f *frame) {
	k := len(o.to)
	// r[i][j], q[i][j], q·p, p
	f.out = resized(f.out, 2*k*k+2*k)
	pairs, q, qp, p := f.out[:k*k], f.out[k*k:2*k*k], f.out[2*k*k:2*k*k+k], f.out[2*k*k+k:]
	for row := range f.n {
		pair := 0
		for i := range k {
			for j := i + 1; j < k; j++ {
				x := float64(f.registers[int(o.from[pair])*f.lanes+row]*o.A[pair]) + o.B[pair]
				s := 1 / (1 + math.Exp(x))
				if x >= 0 {
					s = math.Exp(-x) / (1 + math.Exp(-x))
				}
				const least = 1e-7
				s = clip(s, least, 1-least)
				pairs[i*k+j], pairs[j*k+i] = s, 1-s
				pair++
			}
		}
		coupled(k, pairs, q, qp, p)
		for i, slot := range o.to {
			f.registers[int(slot)*f.lanes+row] = p[i]
		}
	}
}

// coupled solves for the class probabilities p that fit the pairwise ones best: algorithm 2 of Wu,
// Lin and Weng, Probability Estimates for Multi-class Classification by Pairwise Coupling, JMLR 5
// (2004), with the tolerance and the bound on iterations of libsvm.
func coupled(k int, pairs, q, qp, p []float64) {
	tolerance := 0.005 / float64(k)
	for t := range k {
		p[t] = 1 / float64(k)
		q[t*k+t] = 0
		for j := range t {
			q[t*k+t] += float64(pairs[j*k+t] * pairs[j*k+t])
			q[t*k+j] = q[j*k+t]
		}
		for j := t + 1; j < k; j++ {
			q[t*k+t] += float64(pairs[j*k+t] * pairs[j*k+t])
			q[t*k+j] = -pairs[j*k+t] * pairs[t*k+j]
		}
	}
	for range max(100, k) {
		pqp := 0.0
		for t := range k {
			qp[t] = dot(p, q[t*k:t*k+k])
			pqp += float64(p[t] * qp[t])
		}
		worst := 0.0
		for t := range k {
			worst = max(worst, math.Abs(qp[t]-pqp))
		}
		if worst < tolerance {
			return
		}
		for t := range k {
			diff := (-qp[t] + pqp) / q[t*k+t]
			p[t] += diff
			pqp = (pqp + float64(diff*(float64(diff*q[t*k+t])+2*qp[t]))) / (1 + diff) / (1 + diff)
			for j := range k {
				qp[j] = (qp[j] + float64(diff*q[t*k+j])) / (1 + diff)
				p[j] /= 1 + diff
			}
		}
	}
}

func (t CategoryCode) compile(c *compiler, in []column, out []string) error {
	var known [256]bool
	for i, code := range t.Known {
		if code < 0 || code > 255 {
			return fmt.Errorf("known[%d]: %d is outside 0 to 255", i, code)
		}
		known[code] = true
	}
	return each(c, in, out, func(int) func(float64) float64 {
		return func(x float64) float64 {
			if x != x || x < 0 {
				return nan
			}
			code := byte(0) // of what no int32 holds
			if x < 1<<31 {
				code = byte(int32(x))
			}
			if !known[code] {
				return nan
			}
			return float64(code)
		}
	})
}

func (t Trees) compile(c *compiler, in []column, out []string) error {
	if len(t.List) == 0 {
		return errors.New("trees: none")
	}
	ensemble, err := t.ensemble(len(in), len(out))
	if err != nil {
		return err
	}
	engine, err := trees.Compile(*ensemble)
	if err != nil {
		return err
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	nodes := 0
	for i := range t.List {
		nodes += len(t.List[i].Left)
	}
	c.note("%d trees of %d nodes over %d features", len(t.List), nodes, len(in))
	c.emit(&treesOperation{engine, from, to}, from, to)
	c.explainTrees(engine, in, from, to)
	return nil
}

func (t *Trees) ensemble(features, outputs int) (*trees.Ensemble, error) {
	e := &trees.Ensemble{Features: features, Outputs: outputs, Base: t.Base, Divisor: t.Divisor}
	if t.Single {
		e.Input = trees.Float32
	}
	e.Trees = make([]trees.Tree, len(t.List))
	for i := range t.List {
		if err := t.List[i].convert(&e.Trees[i], outputs); err != nil {
			return nil, fmt.Errorf("trees[%d]: %w", i, err)
		}
	}
	return e, nil
}

func (t *Tree) convert(to *trees.Tree, outputs int) error {
	n := len(t.Left)
	for _, list := range []struct {
		name string
		got  int
	}{{"right", len(t.Right)}, {"column", len(t.Column)}, {"threshold", len(t.Threshold)}, {"cover", len(t.Cover)}} {
		if list.got != n {
			return fmt.Errorf("%s: %d elements for %d nodes", list.name, list.got, n)
		}
	}
	if !(len(t.Values) == n && len(t.Vectors) == 0) && !(len(t.Values) == 0 && len(t.Vectors) == n*outputs) {
		return fmt.Errorf("%d values and %d numbers in vectors for %d nodes and %d outputs", len(t.Values), len(t.Vectors), n, outputs)
	}
	to.Output, to.Vectors = t.Output, t.Vectors
	to.Nodes = make([]trees.Node, n)
	for i := range to.Nodes {
		node := &to.Nodes[i]
		node.Left, node.Right, node.Feature = t.Left[i], t.Right[i], t.Column[i]
		node.Threshold, node.Cover, node.Leaf = t.Threshold[i], t.Cover[i], int32(i)
		if len(t.Values) > 0 {
			node.Value = t.Values[i]
		}
	}
	for k, i := range t.MissingLeft {
		if i < 0 || int(i) >= n {
			return fmt.Errorf("missing_left[%d]: no node %d", k, i)
		}
		to.Nodes[i].MissingLeft = true
	}
	for k, s := range t.Sets {
		if s.Node < 0 || int(s.Node) >= n {
			return fmt.Errorf("sets[%d]: no node %d", k, s.Node)
		}
		set := trees.Set{}
		for _, category := range s.Left {
			if category < 0 || category >= maxSetCategory {
				return fmt.Errorf("sets[%d]: category %d is outside 0 to %d", k, category, maxSetCategory-1)
			}
			for len(set.Bits) <= int(category/32) {
				set.Bits = append(set.Bits, 0)
			}
			set.Bits[category/32] |= 1 << (category % 32)
		}
		to.Nodes[s.Node].Kind, to.Nodes[s.Node].Set = trees.InSet, int32(len(to.Sets))
		to.Sets = append(to.Sets, set)
	}
	return nil
}

// maxSetCategory bounds the memory of a set; scikit-learn's categories end at 255.
const maxSetCategory = 1024

// treesOperation runs a tree ensemble over the rows of a frame.
type treesOperation struct {
	engine   *trees.Engine
	from, to []int32
}

func (o *treesOperation) run(f *frame) { predictEnsemble(f, o.engine, o.from, o.to) }
