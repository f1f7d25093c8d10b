// Package lightgbm takes a model file as LightGBM saves it, text of version 2 to 4, and gives the same
// raw scores to the bit: float64 arithmetic, the trees in their order.
package lightgbm

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/trees"
)

// MaxOutputs bounds the number of classes, which nothing else in a file without trees has to match.
const MaxOutputs = 1 << 16

// Parse reads a model file. Memory and time stay within a small multiple of the file's size. What is
// not supported is refused by its name, what is damaged with the place.
func Parse(data []byte) (*booster.Model, error) {
	model, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("lightgbm: %w", err)
	}
	return model, nil
}

func parse(data []byte) (*booster.Model, error) {
	f, err := split(data)
	if err != nil {
		return nil, err
	}
	h := &f.header
	version := string(h.values["version"])
	switch version {
	case "v2", "v3", "v4":
	default:
		return nil, fmt.Errorf("version %.40q is not supported, v2, v3 and v4 are", version)
	}
	last, err := h.integer("max_feature_idx", 0, math.MaxInt32-1)
	if err != nil {
		return nil, err
	}
	features := last + 1
	names, err := h.texts("feature_names", features)
	if err != nil {
		return nil, err
	}
	outputs, err := h.integer("num_class", 1, MaxOutputs)
	if err != nil {
		return nil, err
	}
	if h.has("num_tree_per_iteration") {
		if outputs, err = h.integer("num_tree_per_iteration", 1, MaxOutputs); err != nil {
			return nil, err
		}
	}
	if err := f.complete(outputs); err != nil {
		return nil, err
	}
	objective := string(h.values["objective"])
	link, err := linkOf(objective)
	if err != nil {
		return nil, err
	}
	m := &booster.Model{
		Library: "lightgbm", Version: version, Kind: "tree", Objective: objective,
		Names: names, Link: link, Trees: len(f.trees), Rounds: len(f.trees) / outputs,
	}
	if err := f.name(m, features); err != nil {
		return nil, err
	}
	e := trees.Ensemble{Features: features, Outputs: outputs, TinyIsZero: true}
	if _, ok := h.values["average_output"]; ok {
		e.Divisor = float64(m.Rounds)
	}
	for i := range f.trees {
		s, err := f.trees[i].section()
		var t trees.Tree
		if err == nil {
			t, err = convert(s)
		}
		if err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
		t.Output = i % outputs
		e.Trees = append(e.Trees, t)
	}
	engine, err := trees.Compile(e)
	if err != nil {
		return nil, err
	}
	m.Engine = engine
	return m, nil
}

// complete makes sure that no tree is missing or cut: the header says how many bytes each has, and
// LightGBM finds the next one by it. A file of version 2 has no line behind its last tree.
func (f *file) complete(outputs int) error {
	if f.header.has("tree_sizes") {
		due := 0
		err := f.header.words("tree_sizes", -1, func(i int, word []byte) error {
			due++
			size, err := strconv.Atoi(string(word))
			if err != nil || i >= len(f.trees) {
				return err
			}
			t := &f.trees[i]
			got := t.head + len(t.text)
			if !f.ended && i == len(f.trees)-1 && size >= t.head && size < got {
				rest := &lines{rest: t.text[size-t.head:]}
				for line, ok := rest.next(); ok; line, ok = rest.next() {
					f.about(line)
				}
				t.text, got = t.text[:size-t.head], size
			}
			if got != size && !(f.ended && i == len(f.trees)-1) {
				return fmt.Errorf("tree %d has %d bytes, not %d: the file was cut or changed", i, got, size)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if due != len(f.trees) {
			return fmt.Errorf("tree_sizes announces %d trees, there are %d", due, len(f.trees))
		}
	}
	if !f.ended && (!f.header.has("tree_sizes") || len(f.trees) == 0) {
		return errors.New("the line \"end of trees\" is missing: the file may have been cut")
	}
	if len(f.trees)%outputs != 0 {
		return fmt.Errorf("%d trees do not make whole rounds of %d", len(f.trees), outputs)
	}
	return nil
}

// name gives the model the categories of its inputs.
func (f *file) name(m *booster.Model, features int) error {
	values, err := f.categories()
	if err != nil || len(values) == 0 {
		return err
	}
	inputs, err := f.categorical(features)
	if err != nil {
		return err
	}
	if len(inputs) != len(values) {
		return fmt.Errorf("pandas_categorical has the values of %d inputs, %d inputs are categories: which is which cannot be told", len(values), len(inputs))
	}
	m.Categories = make(map[int]booster.Categories, len(inputs))
	for i, input := range inputs {
		m.Categories[input] = values[i]
	}
	return nil
}

// linkOf reads an objective and its parameters, "binary sigmoid:1". A custom objective has left no
// name and no link.
func linkOf(objective string) (booster.Link, error) {
	words := strings.Fields(objective)
	if len(words) == 0 {
		return booster.Link{}, nil
	}
	slope := 1.0
	root := false
	for _, w := range words[1:] {
		if text, ok := strings.CutPrefix(w, "sigmoid:"); ok {
			x, err := strconv.ParseFloat(text, 64)
			if err != nil || !(x > 0) || math.IsInf(x, 0) {
				return booster.Link{}, fmt.Errorf("objective %.80q: sigmoid %.40q is not a number above 0", objective, text)
			}
			slope = x
		}
		root = root || w == "sqrt"
	}
	switch words[0] {
	case "binary", "multiclassova":
		return booster.Link{Function: booster.Sigmoid, Slope: slope}, nil
	case "cross_entropy", "xentropy":
		return booster.Link{Function: booster.Sigmoid}, nil
	case "multiclass":
		return booster.Link{Function: booster.Softmax}, nil
	case "cross_entropy_lambda", "xentlambda":
		return booster.Link{Function: booster.Softplus}, nil
	case "poisson", "gamma", "tweedie":
		return booster.Link{Function: booster.Exponential}, nil
	case "regression", "regression_l1", "huber", "fair", "quantile", "mape":
		if root {
			return booster.Link{Function: booster.SignedSquare}, nil
		}
		return booster.Link{}, nil
	case "lambdarank", "rank_xendcg":
		return booster.Link{}, nil
	}
	return booster.Link{}, fmt.Errorf("objective %.80q is not supported; these are: binary, multiclass, multiclassova, cross_entropy, cross_entropy_lambda, regression, regression_l1, huber, fair, poisson, quantile, mape, gamma, tweedie, lambdarank, rank_xendcg", objective)
}
