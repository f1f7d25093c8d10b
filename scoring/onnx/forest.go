package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/churnstream/churnstream/scoring/trees"
)

func addTrees(o map[string]maker) {
	o["ai.onnx.ml:TreeEnsembleClassifier"] = makeTreeClassifier
	o["ai.onnx.ml:TreeEnsembleRegressor"] = makeTreeRegressor
	o["ai.onnx.ml:TreeEnsemble"] = makeTreeEnsemble
}

// forest is the trees of a node as its attributes have them.
type forest struct {
	ensemble trees.Ensemble
	used     []bool // outputs that some leaf adds to
	positive bool   // no leaf is below 0
}

// weight is what a leaf adds to an output.
type weight struct {
	node   int32
	output int32
	value  float64
}

// splitKind makes a split of a mode. Where the question is the opposite of one that trees ask, its
// children change sides.
func splitKind(n *trees.Node, mode string, missingTrue bool) error {
	n.MissingLeft = missingTrue
	swap := false
	switch mode {
	case "BRANCH_LEQ":
		n.Kind = trees.LessOrEqual
	case "BRANCH_LT":
		n.Kind = trees.Less
	case "BRANCH_GTE":
		n.Kind, swap = trees.Less, true
	case "BRANCH_GT":
		n.Kind, swap = trees.LessOrEqual, true
	case "BRANCH_EQ":
		n.Kind = trees.Equal
	case "BRANCH_NEQ":
		n.Kind, swap = trees.Equal, true
		n.MissingLeft = true // NaN is not equal to anything
	default:
		return fmt.Errorf("the mode %.40q is not supported; these are: BRANCH_LEQ, BRANCH_LT, BRANCH_GTE, BRANCH_GT, BRANCH_EQ, BRANCH_NEQ", mode)
	}
	if swap {
		n.Left, n.Right = n.Right, n.Left
		n.MissingLeft = !n.MissingLeft
	}
	return nil
}

// precision is that of thresholds and sums: double only for rows of double.
func precision(t dtype) trees.Precision {
	if t == float64s {
		return trees.Float64
	}
	return trees.Float32
}

// listed reads an attribute that may be a tensor of doubles in place of a list of floats.
func (c *call) listed(name string) ([]float64, error) {
	if a, found, err := c.attribute(name + "_as_tensor"); found || err != nil {
		if err != nil {
			return nil, err
		}
		v, err := c.readTensor(a.tensor)
		return v.constant, within(name+"_as_tensor", err)
	}
	return c.floats(name)
}

// trees reads the form of ai.onnx.ml 1 to 3: nodes and leaves of all trees in arrays. prefix is that
// of the leaves: class or target.
func (c *call) trees(x *value, prefix string, outputs int) (*forest, error) {
	width, err := matrix(x)
	if err != nil {
		return nil, err
	}
	if err := numeric(x); err != nil {
		return nil, err
	}
	lists := make(map[string][]int64)
	for _, name := range []string{
		"nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids", "nodes_missing_value_tracks_true",
		prefix + "_treeids", prefix + "_nodeids", prefix + "_ids",
	} {
		if lists[name], err = c.ints(name); err != nil {
			return nil, err
		}
	}
	modes, _, err := c.attribute("nodes_modes")
	if err != nil {
		return nil, err
	}
	thresholds, err := c.listed("nodes_values")
	if err != nil {
		return nil, err
	}
	weights, err := c.listed(prefix + "_weights")
	if err != nil {
		return nil, err
	}
	n := len(modes.texts)
	for _, name := range []string{"nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids"} {
		if len(lists[name]) != n {
			return nil, fmt.Errorf("%s has %d elements, nodes_modes %d", name, len(lists[name]), n)
		}
	}
	missing := lists["nodes_missing_value_tracks_true"]
	if len(thresholds) != n || len(missing) != 0 && len(missing) != n {
		return nil, fmt.Errorf("nodes_values has %d elements and nodes_missing_value_tracks_true %d, nodes_modes %d", len(thresholds), len(missing), n)
	}
	for _, name := range []string{prefix + "_treeids", prefix + "_nodeids", prefix + "_ids"} {
		if len(lists[name]) != len(weights) {
			return nil, fmt.Errorf("%s has %d elements, %s_weights %d", name, len(lists[name]), prefix, len(weights))
		}
	}
	f := &forest{used: make([]bool, outputs), positive: true}
	f.ensemble = trees.Ensemble{Features: width, Outputs: outputs, Input: precision(x.dtype), Sum: precision(x.dtype)}
	places := make(map[int64]int) // of trees, by their ids
	var ids []map[int64]int32     // of nodes, by tree; nil: as they stand
	for from := 0; from < n; {
		tree := lists["nodes_treeids"][from]
		to := from
		for to < n && lists["nodes_treeids"][to] == tree {
			to++
		}
		if _, twice := places[tree]; twice {
			return nil, fmt.Errorf("nodes_treeids[%d]: the nodes of tree %d do not stand together", from, tree)
		}
		places[tree] = len(f.ensemble.Trees)
		place := numbering(lists["nodes_nodeids"][from:to])
		if place != nil && len(place) != to-from {
			return nil, fmt.Errorf("tree %d: two nodes of one id", tree)
		}
		t := trees.Tree{Nodes: make([]trees.Node, to-from)}
		for i := range t.Nodes {
			node, at := &t.Nodes[i], from+i
			node.Left, node.Right, node.Cover = -1, -1, math.NaN()
			mode := string(modes.texts[at])
			if mode == "LEAF" {
				continue
			}
			yes, okYes := find(place, lists["nodes_truenodeids"][at], to-from)
			no, okNo := find(place, lists["nodes_falsenodeids"][at], to-from)
			feature := lists["nodes_featureids"][at]
			if !okYes || !okNo || feature < 0 || feature >= int64(width) {
				return nil, fmt.Errorf("tree %d, node %d: children %d and %d, feature %d: there are %d nodes and %d features",
					tree, lists["nodes_nodeids"][at], lists["nodes_truenodeids"][at], lists["nodes_falsenodeids"][at], feature, to-from, width)
			}
			node.Left, node.Right, node.Feature, node.Threshold = yes, no, int32(feature), thresholds[at]
			if err := splitKind(node, mode, len(missing) > 0 && missing[at] != 0); err != nil {
				return nil, fmt.Errorf("tree %d, node %d: %w", tree, lists["nodes_nodeids"][at], err)
			}
		}
		f.ensemble.Trees = append(f.ensemble.Trees, t)
		ids = append(ids, place)
		from = to
	}
	leaves := make([][]weight, len(f.ensemble.Trees))
	for i, w := range weights {
		at, ok := places[lists[prefix+"_treeids"][i]]
		if !ok {
			return nil, fmt.Errorf("%s_treeids[%d]: there is no tree %d", prefix, i, lists[prefix+"_treeids"][i])
		}
		node, ok := find(ids[at], lists[prefix+"_nodeids"][i], len(f.ensemble.Trees[at].Nodes))
		output := lists[prefix+"_ids"][i]
		if !ok || f.ensemble.Trees[at].Nodes[node].Left >= 0 || output < 0 || output >= int64(outputs) {
			return nil, fmt.Errorf("%s_nodeids[%d]: node %d of tree %d is no leaf, or adds to output %d of %d", prefix, i, lists[prefix+"_nodeids"][i], lists[prefix+"_treeids"][i], output, outputs)
		}
		leaves[at] = append(leaves[at], weight{node, int32(output), w})
	}
	for i := range leaves {
		if err := c.weigh(f, i, leaves[i]); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// numbering finds nodes by their ids, nil if these are their places.
func numbering(ids []int64) map[int64]int32 {
	plain := true
	for i, id := range ids {
		plain = plain && id == int64(i)
	}
	if plain {
		return nil
	}
	places := make(map[int64]int32, len(ids))
	for i, id := range ids {
		places[id] = int32(i)
	}
	return places
}

func find(places map[int64]int32, id int64, n int) (int32, bool) {
	if places == nil {
		return int32(id), id >= 0 && id < int64(n)
	}
	at, ok := places[id]
	return at, ok
}

// weigh gives the leaves of a tree their values: one number each where all add to one output, else
// vectors.
func (b *builder) weigh(f *forest, tree int, list []weight) error {
	t := &f.ensemble.Trees[tree]
	single := true
	given := make([]bool, len(t.Nodes))
	for _, w := range list {
		single = single && w.output == list[0].output && !given[w.node]
		given[w.node] = true
		f.used[w.output] = true
		f.positive = f.positive && w.value >= 0
	}
	if len(list) > 0 && single {
		t.Output = int(list[0].output)
		for _, w := range list {
			t.Nodes[w.node].Value = w.value
		}
		return nil
	}
	if len(list) == 0 {
		return nil // every leaf adds nothing
	}
	leaves := 0
	for i := range t.Nodes {
		if t.Nodes[i].Left < 0 {
			t.Nodes[i].Leaf = int32(leaves)
			leaves++
		}
	}
	outputs := f.ensemble.Outputs
	if leaves > b.budget/outputs {
		return fmt.Errorf("tree %d: %d leaves with %d outputs are more than is allowed for a file of this size", tree, leaves, outputs)
	}
	b.budget -= leaves * outputs
	t.Vectors = make([]float64, leaves*outputs)
	for _, w := range list {
		to := &t.Vectors[int(t.Nodes[w.node].Leaf)*outputs+int(w.output)]
		if *to += w.value; f.ensemble.Sum == trees.Float32 {
			*to = float64(float32(*to))
		}
	}
	return nil
}

// sums compiles the forest and gives what computes the sums of a frame's rows.
func (b *builder) sums(f *forest, x *value) (func(fr *frame) []float64, error) {
	engine, err := trees.Compile(f.ensemble)
	if err != nil {
		return nil, err
	}
	b.trees += len(f.ensemble.Trees)
	x.wide++
	outputs := f.ensemble.Outputs
	return func(fr *frame) []float64 {
		fr.memory = slices.Grow(fr.memory[:0], fr.n*outputs)[:fr.n*outputs]
		engine.Margins(fr.registers[x.slot], fr.n, fr.memory, &fr.scratch)
		return fr.memory
	}, nil
}

func makeTreeClassifier(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	t, labels, err := c.classes("classlabels_strings", "classlabels_int64s")
	if err != nil {
		return nil, nil, err
	}
	n := len(labels)
	if n < 2 {
		return nil, nil, fmt.Errorf("%d classes, want at least 2", n)
	}
	f, err := c.trees(x, "class", n)
	if err != nil {
		return nil, nil, err
	}
	base, err := c.listed("base_values")
	if err != nil {
		return nil, nil, err
	}
	if len(base) != 0 && len(base) != n && (n != 2 || len(base) != 1) {
		return nil, nil, fmt.Errorf("%d base_values for %d classes", len(base), n)
	}
	post, err := c.text("post_transform", "NONE")
	if err != nil {
		return nil, nil, err
	}
	transform, err := transformOf(post, exactLogistics, softmaxExact)
	if err != nil {
		return nil, nil, err
	}
	sums, err := c.sums(f, x)
	if err != nil {
		return nil, nil, err
	}
	classifier := &treeClassifier{base: base, transform: transform, logistic: post == "LOGISTIC", two: n == 2, second: f.used[1], first: f.used[0], positive: f.positive}
	label, scores := &value{dtype: t, dims: []int{rows}, axis: 0, slot: -1}, ofRows(float32s, n)
	return []*value{label, scores}, func(fr *frame) {
		list := sums(fr)
		for r := range fr.n {
			to := fr.row(scores, r)
			fr.row(label, r)[0] = labels[classifier.finish(list[r*n:(r+1)*n], to)]
		}
	}, nil
}

// treeClassifier makes scores of sums as ONNX Runtime does. With two classes, and leaves of the first
// one only, these are leaves of the second one: as probabilities if none is below 0, else as margins.
type treeClassifier struct {
	base                         []float64
	transform                    func(list []float64, step int)
	logistic                     bool
	two, first, second, positive bool
}

func (k *treeClassifier) finish(sums, to []float64) (class int) {
	copy(to, sums)
	add := func(i, j int) { to[i] = float64(float32(to[i]) + float32(k.base[j])) }
	if !k.two {
		for i := range k.base {
			add(i, i)
		}
		round32(to)
		class = largest(to)
		k.transform(to, 1)
		return class
	}
	alone := !k.second
	switch len(k.base) {
	case 2:
		alone = false
		if k.second {
			to[1] = float64(float32(k.base[1]) + float32(to[0]))
			to[0] = -to[1]
		} else {
			add(1, 1)
			add(0, 0)
		}
	case 1:
		add(0, 0)
	}
	round32(to)
	score := to[1]
	if !k.second {
		score = to[0]
	}
	border := 0.0
	if k.positive && k.first != k.second {
		border = 0.5
	}
	if score > border {
		class = 1
	}
	switch {
	case !alone:
		k.transform(to, 1)
	case k.positive:
		to[0], to[1] = float64(1-float32(score)), score
	case k.logistic:
		to[0], to[1] = float64(exactLogistic(-float32(score))), float64(exactLogistic(float32(score)))
	default:
		to[0], to[1] = -score, score
	}
	return class
}

func round32(x []float64) {
	for i := range x {
		x[i] = float64(float32(x[i]))
	}
}

// softmaxExact is ComputeSoftmax of the operators of ai.onnx.ml, by the C library's expf.
func softmaxExact(x, out []float64) {
	most := float32(-math.MaxFloat32)
	for _, v := range x {
		most = max(most, float32(v))
	}
	sum := float32(0)
	for i, v := range x {
		e := expf(float32(v) - most)
		out[i] = float64(e)
		sum += e
	}
	for i := range out {
		out[i] = float64(float32(out[i]) / sum)
	}
}

func makeTreeRegressor(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	n, err := c.integer("n_targets", 1)
	if err != nil {
		return nil, nil, err
	}
	if n < 1 || n > int64(c.budget) {
		return nil, nil, fmt.Errorf("n_targets is %d", n)
	}
	f, err := c.trees(x, "target", int(n))
	if err != nil {
		return nil, nil, err
	}
	aggregate, err := c.text("aggregate_function", "SUM")
	if err != nil {
		return nil, nil, err
	}
	base, err := c.listed("base_values")
	if err != nil {
		return nil, nil, err
	}
	post, err := c.text("post_transform", "NONE")
	if err != nil {
		return nil, nil, err
	}
	return c.regress(f, x, aggregate, post, base)
}

func (c *call) regress(f *forest, x *value, aggregate, post string, base []float64) ([]*value, operation, error) {
	n := f.ensemble.Outputs
	if len(base) != 0 && len(base) != n {
		return nil, nil, fmt.Errorf("%d base_values for %d targets", len(base), n)
	}
	if post != "NONE" {
		return nil, nil, fmt.Errorf("post_transform %q is not supported, NONE is", post)
	}
	switch aggregate {
	case "SUM":
	case "AVERAGE":
		f.ensemble.Divisor = float64(len(f.ensemble.Trees))
	default:
		return nil, nil, fmt.Errorf("aggregate_function %q is not supported; these are: SUM, AVERAGE", aggregate)
	}
	if len(base) > 0 {
		f.ensemble.Base, f.ensemble.BaseLast = base, true
	}
	sums, err := c.sums(f, x)
	if err != nil {
		return nil, nil, err
	}
	out := ofRows(float32s, n)
	return []*value{out}, func(fr *frame) {
		list := sums(fr)
		for r := range fr.n {
			to := fr.row(out, r)
			copy(to, list[r*n:(r+1)*n])
			round32(to)
		}
	}, nil
}

// makeTreeEnsemble reads the form of ai.onnx.ml 5: splits and leaves apart.
func makeTreeEnsemble(c *call) ([]*value, operation, error) {
	if err := c.need(1, 1); err != nil {
		return nil, nil, err
	}
	x := c.in[0]
	width, err := matrix(x)
	if err != nil {
		return nil, nil, err
	}
	if err := isFloat(x.dtype); err != nil {
		return nil, nil, err
	}
	lists := make(map[string][]int64)
	for _, name := range []string{
		"nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids", "nodes_trueleafs", "nodes_falseleafs",
		"nodes_missing_value_tracks_true", "tree_roots", "leaf_targetids",
	} {
		if lists[name], err = c.ints(name); err != nil {
			return nil, nil, err
		}
	}
	var modes []byte
	var splits, weights []float64
	if a, _, err := c.attribute("nodes_modes"); err != nil {
		return nil, nil, err
	} else if modes, err = readBytes(a.tensor); err != nil {
		return nil, nil, within("nodes_modes", err)
	}
	for name, to := range map[string]*[]float64{"nodes_splits": &splits, "leaf_weights": &weights} {
		a, _, err := c.attribute(name)
		if err != nil {
			return nil, nil, err
		}
		v, err := c.readTensor(a.tensor)
		if err != nil {
			return nil, nil, within(name, err)
		}
		*to = v.constant
	}
	n := len(modes)
	for name, list := range lists {
		switch name {
		case "tree_roots", "leaf_targetids":
		case "nodes_missing_value_tracks_true":
			if len(list) != 0 && len(list) != n {
				return nil, nil, fmt.Errorf("%s has %d elements, nodes_modes %d", name, len(list), n)
			}
		default:
			if len(list) != n {
				return nil, nil, fmt.Errorf("%s has %d elements, nodes_modes %d", name, len(list), n)
			}
		}
	}
	if len(splits) != n || len(weights) != len(lists["leaf_targetids"]) {
		return nil, nil, fmt.Errorf("%d nodes_splits for %d nodes, %d leaf_weights for %d leaf_targetids", len(splits), n, len(weights), len(lists["leaf_targetids"]))
	}
	targets, err := c.integer("n_targets", 1)
	if err != nil {
		return nil, nil, err
	}
	if targets < 1 || targets > int64(c.budget) {
		return nil, nil, fmt.Errorf("n_targets is %d", targets)
	}
	f := &forest{used: make([]bool, targets), positive: true}
	f.ensemble = trees.Ensemble{Features: width, Outputs: int(targets), Input: precision(x.dtype), Sum: precision(x.dtype)}
	visited := 0
	for i, root := range lists["tree_roots"] {
		t, leaves, err := readSplits(lists, modes, splits, weights, root, width, int(targets), &visited)
		if err != nil {
			return nil, nil, fmt.Errorf("tree %d: %w", i, err)
		}
		f.ensemble.Trees = append(f.ensemble.Trees, t)
		if err := c.weigh(f, i, leaves); err != nil {
			return nil, nil, err
		}
	}
	aggregate, err := c.integer("aggregate_function", 1)
	if err != nil {
		return nil, nil, err
	}
	post, err := c.integer("post_transform", 0)
	if err != nil {
		return nil, nil, err
	}
	names := []string{"AVERAGE", "SUM", "MIN", "MAX"}
	transforms := []string{"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"}
	if aggregate < 0 || aggregate >= int64(len(names)) || post < 0 || post >= int64(len(transforms)) {
		return nil, nil, fmt.Errorf("aggregate_function %d and post_transform %d", aggregate, post)
	}
	return c.regress(f, x, names[aggregate], transforms[post], nil)
}

// readSplits follows one tree from its root.
func readSplits(lists map[string][]int64, modes []byte, splits, weights []float64, root int64, width, targets int, visited *int) (trees.Tree, []weight, error) {
	var t trees.Tree
	var leaves []weight
	type visit struct {
		from   int64
		leaf   bool
		parent int32
		yes    bool
	}
	names := []string{"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"}
	pending := []visit{{root, false, -1, false}}
	for len(pending) > 0 {
		v := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		at := int32(len(t.Nodes))
		if *visited++; *visited > 2*len(modes)+len(weights)+2*len(lists["tree_roots"]) {
			return t, nil, errors.New("it has a cycle, or shares nodes with another one")
		}
		if v.parent >= 0 {
			p := &t.Nodes[v.parent]
			if v.yes {
				p.Left = at
			} else {
				p.Right = at
			}
		}
		node := trees.Node{Left: -1, Right: -1, Cover: math.NaN()}
		if v.leaf {
			if v.from < 0 || v.from >= int64(len(weights)) {
				return t, nil, fmt.Errorf("leaf %d of %d", v.from, len(weights))
			}
			output := lists["leaf_targetids"][v.from]
			if output < 0 || output >= int64(targets) {
				return t, nil, fmt.Errorf("leaf %d adds to target %d of %d", v.from, output, targets)
			}
			leaves = append(leaves, weight{at, int32(output), weights[v.from]})
			t.Nodes = append(t.Nodes, node)
			continue
		}
		if v.from < 0 || v.from >= int64(len(modes)) || int(modes[v.from]) >= len(names) {
			return t, nil, fmt.Errorf("node %d of %d, or its mode is not supported; these are: BRANCH_LEQ, BRANCH_LT, BRANCH_GTE, BRANCH_GT, BRANCH_EQ, BRANCH_NEQ", v.from, len(modes))
		}
		feature := lists["nodes_featureids"][v.from]
		if feature < 0 || feature >= int64(width) {
			return t, nil, fmt.Errorf("node %d splits on feature %d of %d", v.from, feature, width)
		}
		node.Feature, node.Threshold, node.Set = int32(feature), splits[v.from], int32(modes[v.from])
		t.Nodes = append(t.Nodes, node)
		pending = append(pending,
			visit{lists["nodes_falsenodeids"][v.from], lists["nodes_falseleafs"][v.from] != 0, at, false},
			visit{lists["nodes_truenodeids"][v.from], lists["nodes_trueleafs"][v.from] != 0, at, true})
		t.Nodes[at].MissingLeft = len(lists["nodes_missing_value_tracks_true"]) > 0 && lists["nodes_missing_value_tracks_true"][v.from] != 0
	}
	for i := range t.Nodes {
		if n := &t.Nodes[i]; n.Left >= 0 {
			mode := names[n.Set]
			n.Set = 0
			if err := splitKind(n, mode, n.MissingLeft); err != nil {
				return t, nil, err
			}
		}
	}
	return t, leaves, nil
}

// readBytes reads a TensorProto of uint8.
func readBytes(message []byte) ([]byte, error) {
	var out []byte
	var list []int64
	err := fields(message, func(f field) (err error) {
		switch f.number {
		case 2:
			if f.value != 2 {
				err = fmt.Errorf("the tensor type %d, want uint8", f.value)
			}
		case 5:
			list, err = f.appendInts(list)
		case 9:
			out = f.bytes
		}
		return err
	})
	for _, x := range list {
		if x < 0 || x > 255 {
			return nil, fmt.Errorf("%d is no uint8", x)
		}
		out = append(out, byte(x))
	}
	return out, err
}
