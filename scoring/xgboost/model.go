// Package xgboost takes a model file as XGBoost saves it, in JSON or UBJSON, and gives the same
// margins to the bit: float32 arithmetic, the base score first, then the trees in their order.
//
// Read are the boosters gbtree, dart (in all three layouts) and gblinear of XGBoost 1.0 to 3.4, with
// random forests, vector leaves, categorical splits and early stopping.
package xgboost

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/internal/jsonread"
	"github.com/churnstream/churnstream/scoring/trees"
)

// MaxFeatures bounds the number of inputs of a model, and MaxOutputs that of its outputs: both are
// numbers in the file that nothing else in it has to match.
const (
	MaxFeatures = 1 << 20
	MaxOutputs  = 1 << 16
)

// Parse reads a model file. Memory and time stay within a small multiple of the file's size. What is
// not supported is refused by its name, what is damaged with the place.
func Parse(data []byte) (*booster.Model, error) {
	model, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("xgboost: %w", err)
	}
	return model, nil
}

func parse(data []byte) (*booster.Model, error) {
	if bytes.HasPrefix(data, []byte("binf")) || bytes.HasPrefix(data, []byte("bs64")) {
		return nil, errors.New("this is XGBoost's old binary format; load it with XGBoost 1.0 to 3.0 and save_model(\"model.json\") or save_model(\"model.ubj\")")
	}
	var r reader = jsonread.New(data, maxDepth)
	if len(data) > 1 && data[0] == '{' && data[1] == 'L' {
		r = &ubjReader{data: data}
	}
	d := document{parallelTrees: 1}
	if err := d.read(r); err != nil {
		return nil, err
	}
	return d.model()
}

func (d *document) model() (*booster.Model, error) {
	if d.objective == "" || d.baseScore == "" || d.booster == "" || !d.haveModel {
		return nil, errors.New("objective, base_score, gradient_booster or its model is missing: this is no model that XGBoost saved")
	}
	kind, err := objectiveOf(d.objective)
	if err != nil {
		return nil, err
	}
	outputs := max(d.classes, d.targets, 1)
	switch {
	case d.classes > 1 && d.targets > 1:
		return nil, fmt.Errorf("%d classes and %d targets, only one of them may be above 1", d.classes, d.targets)
	case outputs > MaxOutputs:
		return nil, fmt.Errorf("%d outputs, at most %d are supported", outputs, MaxOutputs)
	case d.features > MaxFeatures:
		return nil, fmt.Errorf("num_feature is %d, at most %d are supported", d.features, MaxFeatures)
	case len(d.names) != 0 && len(d.names) != d.features:
		return nil, fmt.Errorf("%d feature_names for %d features", len(d.names), d.features)
	case len(d.kinds) != 0 && len(d.kinds) != d.features:
		return nil, fmt.Errorf("%d feature_types for %d features", len(d.kinds), d.features)
	case d.foreign && slices.Contains([]string{"3.1", "3.2", "3.3"}, d.version[:min(3, len(d.version))]):
		return nil, fmt.Errorf("names of categories that are not ASCII, of which XGBoost %s saves only a part; train with 3.4 or newer, or with ASCII names", d.version)
	case d.described != 0 && d.described != d.features:
		return nil, fmt.Errorf("categories of %d features, there are %d", d.described, d.features)
	}
	if len(d.names) == 0 {
		d.names = nil
	}
	base, err := d.base(kind, outputs)
	if err != nil {
		return nil, err
	}
	m := &booster.Model{
		Library: "xgboost", Version: d.version, Kind: d.booster, Objective: d.objective,
		Names: d.names, Categories: d.categories, Link: booster.Link{Function: kind.link, Float32: true},
	}
	switch d.booster {
	case "gblinear":
		m.Engine, err = newLinear(d.features, outputs, d.weights, float32(base[0]))
	case "gbtree", "dart":
		err = d.compile(m, base)
	default:
		err = fmt.Errorf("booster %q is not supported, gbtree, dart and gblinear are", d.booster)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// base is the start of each output's sum: base_score through the objective's inverse link.
func (d *document) base(o objective, outputs int) ([]float64, error) {
	inside := strings.TrimSpace(d.baseScore)
	if bracket, ok := strings.CutPrefix(inside, "["); ok {
		if inside, ok = strings.CutSuffix(bracket, "]"); !ok {
			return nil, fmt.Errorf("base_score %.60q has no closing bracket", d.baseScore)
		}
	}
	parts := strings.Split(inside, ",")
	if len(parts) != 1 && len(parts) != outputs {
		return nil, fmt.Errorf("base_score has %d numbers for %d outputs", len(parts), outputs)
	}
	base := make([]float64, outputs)
	for i := range base {
		part := strings.TrimSpace(parts[min(i, len(parts)-1)])
		x, err := strconv.ParseFloat(part, 32)
		if err != nil {
			return nil, fmt.Errorf("base_score: %.40q is not a number", part)
		}
		margin := o.margin(float32(x))
		if !(math.Abs(float64(margin)) <= math.MaxFloat32) {
			return nil, fmt.Errorf("base_score %v is not in the domain of %s", x, d.objective)
		}
		base[i] = float64(margin)
	}
	return base, nil
}

// compile makes an engine of the trees that are in use.
func (d *document) compile(m *booster.Model, base []float64) error {
	switch {
	case len(d.groups) != len(d.trees):
		return fmt.Errorf("tree_info names the outputs of %d trees, there are %d", len(d.groups), len(d.trees))
	case d.declaredTrees != len(d.trees):
		return fmt.Errorf("num_trees is %d, there are %d trees", d.declaredTrees, len(d.trees))
	case d.parallelTrees < 1:
		return fmt.Errorf("num_parallel_tree is %d, want at least 1", d.parallelTrees)
	case len(d.weightDrop) != 0 && len(d.weightDrop) != len(d.trees):
		return fmt.Errorf("weight_drop has %d weights for %d trees", len(d.weightDrop), len(d.trees))
	case d.booster == "dart" && len(d.weightDrop) != len(d.trees):
		return fmt.Errorf("a dart model without weight_drop for its %d trees", len(d.trees))
	}
	used, err := d.used(m)
	if err != nil {
		return err
	}
	e := trees.Ensemble{Features: d.features, Outputs: len(base), Input: trees.Float32, Sum: trees.Float32, Base: base}
	for i := range d.trees[:used] {
		weight := float32(1)
		if len(d.weightDrop) > 0 {
			weight = d.weightDrop[i]
		}
		t, err := d.trees[i].convert(weight, len(base))
		d.trees[i] = nil // its memory is needed for the next ones
		if err != nil {
			return fmt.Errorf("tree %d: %w", i, err)
		}
		t.Output = int(d.groups[i])
		e.Trees = append(e.Trees, t)
	}
	engine, err := trees.Compile(e)
	if err != nil {
		return err
	}
	m.Engine, m.Trees = engine, used
	return nil
}

// used is the number of trees that predict: all, or with early stopping those of the rounds up to the
// best one, as XGBoost's scikit-learn interface does it. A round has num_parallel_tree trees for
// each output, or one set of them with vectors in their leaves.
func (d *document) used(m *booster.Model) (int, error) {
	rounds := d.rounds
	if rounds == nil && len(d.trees) > 0 {
		outputs := 1
		for _, g := range d.groups {
			outputs = max(outputs, int(g)+1)
		}
		each := outputs * d.parallelTrees
		if len(d.trees)%each != 0 {
			return 0, fmt.Errorf("%d trees do not make whole rounds of %d", len(d.trees), each)
		}
		for i := 0; i <= len(d.trees); i += each {
			rounds = append(rounds, int32(i))
		}
	}
	if len(rounds) == 0 {
		rounds = []int32{0}
	}
	if rounds[0] != 0 || int(rounds[len(rounds)-1]) != len(d.trees) || !slices.IsSorted(rounds) {
		return 0, fmt.Errorf("iteration_indptr does not go from 0 to the %d trees", len(d.trees))
	}
	m.Rounds = len(rounds) - 1
	if d.bestIteration != "" {
		best, err := strconv.Atoi(d.bestIteration)
		if err != nil || best < 0 {
			return 0, fmt.Errorf("best_iteration %.40q is not a number from 0", d.bestIteration)
		}
		m.Rounds = min(m.Rounds, best+1)
	}
	return int(rounds[m.Rounds]), nil
}

// check compares the lengths of a tree's arrays.
func (t *tree) check() error {
	if t.nodes == 0 {
		return errors.New("num_nodes is missing or 0")
	}
	for _, array := range []struct {
		name string
		len  int
		may  bool // be missing
	}{
		{"left_children", len(t.left), false},
		{"right_children", len(t.right), false},
		{"split_indices", len(t.feature), false},
		{"default_left", len(t.missingLeft), false},
		{"split_conditions", len(t.threshold), false},
		{"sum_hessian", len(t.hessian), t.vector > 1},
		{"split_type", len(t.split), true},
	} {
		if array.len != t.nodes && !(array.may && array.len == 0) {
			return fmt.Errorf("%s has %d elements for %d nodes", array.name, array.len, t.nodes)
		}
	}
	return nil
}

// convert makes the neutral form of one tree; weight is what DART multiplies its leaves by.
func (t *tree) convert(weight float32, outputs int) (trees.Tree, error) {
	vector := t.vector > 1
	if vector && t.vector != outputs {
		return trees.Tree{}, fmt.Errorf("leaves of %d numbers for %d outputs", t.vector, outputs)
	}
	out := trees.Tree{Nodes: make([]trees.Node, t.nodes)}
	for i := range out.Nodes {
		n := &out.Nodes[i]
		n.Cover = math.NaN()
		if len(t.hessian) > 0 {
			n.Cover = float64(t.hessian[i])
		}
		n.Left, n.Right = t.left[i], t.right[i]
		if n.Left == -1 {
			if vector && len(t.leaves) > 0 { // since 3.2 a leaf's right child says which vector it has
				n.Leaf = n.Right
			} else {
				n.Leaf = int32(i)
			}
			n.Right = -1
			n.Value = float64(t.threshold[i] * weight)
			continue
		}
		n.Feature, n.Threshold, n.MissingLeft = t.feature[i], float64(t.threshold[i]), t.missingLeft[i] != 0
		n.Kind = trees.Less
		if len(t.split) > 0 && t.split[i] != 0 {
			if t.split[i] != 1 {
				return trees.Tree{}, fmt.Errorf("node %d: split type %d is unknown", i, t.split[i])
			}
			n.Kind, n.SetRight = trees.InSet, true
		}
	}
	if vector {
		source := t.weights
		if len(t.leaves) > 0 {
			source = t.leaves
		} else if len(source) != t.nodes*outputs {
			return trees.Tree{}, fmt.Errorf("base_weights has %d elements for %d nodes with %d outputs", len(source), t.nodes, outputs)
		}
		out.Vectors = make([]float64, len(source))
		for i, x := range source {
			out.Vectors[i] = float64(x * weight)
		}
	}
	return out, t.convertSets(&out)
}

// convertSets gives categorical splits their sets. A split without one has the empty set.
func (t *tree) convertSets(out *trees.Tree) error {
	if len(t.from) != len(t.nodesOf) || len(t.sizes) != len(t.nodesOf) {
		return fmt.Errorf("categories_nodes, categories_segments and categories_sizes have %d, %d and %d elements", len(t.nodesOf), len(t.from), len(t.sizes))
	}
	out.Sets = []trees.Set{{}}
	last := int32(-1)
	for i, node := range t.nodesOf {
		from, n := int(t.from[i]), int(t.sizes[i])
		switch {
		case node <= last || int(node) >= t.nodes:
			return fmt.Errorf("categories_nodes[%d] is %d: want ascending nodes below %d", i, node, t.nodes)
		case from < 0 || n <= 0 || from > len(t.list) || n > len(t.list)-from:
			return fmt.Errorf("node %d: categories %d to %d of %d", node, from, from+n, len(t.list))
		}
		last = node
		if out.Nodes[node].Kind != trees.InSet {
			continue
		}
		set, err := trees.NewSet(t.list[from : from+n])
		if err != nil {
			return fmt.Errorf("node %d: %w", node, err)
		}
		out.Nodes[node].Set = int32(len(out.Sets))
		out.Sets = append(out.Sets, set)
	}
	return nil
}
