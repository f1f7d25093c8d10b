package xgboost

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/internal/jsonread"
)

// document is what a model file says, before it is made into an ensemble.
type document struct {
	version       string
	objective     string
	booster       string
	baseScore     string
	features      int
	classes       int
	targets       int
	bestIteration string
	names         []string
	kinds         []string                   // of the features: "q", "c", "int", …
	categories    map[int]booster.Categories // of features that have any
	foreign       bool                       // one of them is not ASCII
	described     int                        // features that categories were looked at of

	trees         []*tree
	groups        []int32 // the output of each tree
	rounds        []int32 // where each round begins, the end of the last one behind; nil: not said
	parallelTrees int
	declaredTrees int
	weightDrop    []float32
	weights       []float32 // of gblinear

	haveModel, haveWeightDrop bool
}

// unseen is the code of a category that is not listed: XGBoost refuses such a name, and takes an unknown
// code for a category that is in no split's set.
const unseen = -1

// tree holds the arrays of one tree, by node.
type tree struct {
	nodes, vector              int
	left, right, feature       []int32
	missingLeft                []int32
	threshold, weights, leaves []float32
	hessian                    []float32
	split                      []int32
	nodesOf, from, sizes, list []int32 // categorical splits: their nodes, and where in list their categories are
}

// field is a member of an object and what to do with its value.
type field = jsonread.Members[reader]

func (d *document) read(r reader) error {
	err := field{
		"version": func(r reader) error {
			numbers, err := r.Integers()
			for i, n := range numbers {
				if i > 0 {
					d.version += "."
				}
				if d.version += strconv.Itoa(int(n)); i == 2 {
					break
				}
			}
			return err
		},
		"learner": field{
			"objective": field{"name": text(&d.objective)}.Read,
			"learner_model_param": field{
				"base_score":  text(&d.baseScore),
				"num_feature": count(&d.features),
				"num_class":   count(&d.classes),
				"num_target":  count(&d.targets),
			}.Read,
			"attributes":       field{"best_iteration": text(&d.bestIteration)}.Read,
			"feature_names":    texts(&d.names),
			"feature_types":    texts(&d.kinds),
			"gradient_booster": d.readBooster,
		}.Read,
	}.Read(r)
	if err != nil {
		return err
	}
	return r.End()
}

func (d *document) readBooster(r reader) error {
	return field{
		"name":  text(&d.booster),
		"model": d.readModel,
		// Dart up to 3.2 has its trees one level down; up to 3.3 the weights are here.
		"gbtree":      field{"model": d.readModel}.Read,
		"weight_drop": d.readWeightDrop,
	}.Read(r)
}

// readModel reads the trees or, of gblinear, the weights.
func (d *document) readModel(r reader) error {
	if d.haveModel {
		return errors.New("a second model in one booster")
	}
	d.haveModel = true
	return field{
		"gbtree_model_param": field{
			"num_trees":         count(&d.declaredTrees),
			"num_parallel_tree": count(&d.parallelTrees),
		}.Read,
		"trees": func(r reader) error {
			return r.Array(func(i int) error {
				t := &tree{vector: 1}
				err := t.read(r)
				if err == nil {
					err = t.check()
				}
				if err != nil {
					return fmt.Errorf("tree %d: %w", i, err)
				}
				d.trees = append(d.trees, t)
				return nil
			})
		},
		"tree_info":        integers(&d.groups),
		"iteration_indptr": integers(&d.rounds),
		"weight_drop":      d.readWeightDrop, // dart from 3.4
		"weights":          floats(&d.weights),
		"cats":             field{"enc": d.readCategories}.Read,
	}.Read(r)
}

func (d *document) readWeightDrop(r reader) error {
	if d.haveWeightDrop {
		return errors.New("a second list of weights in one booster")
	}
	d.haveWeightDrop = true
	return floats(&d.weightDrop)(r)
}

func (t *tree) read(r reader) error {
	return field{
		"tree_param": field{
			"num_nodes":        count(&t.nodes),
			"size_leaf_vector": count(&t.vector),
		}.Read,
		"left_children":       integers(&t.left),
		"right_children":      integers(&t.right),
		"split_indices":       integers(&t.feature),
		"default_left":        integers(&t.missingLeft),
		"split_conditions":    floats(&t.threshold),
		"base_weights":        floats(&t.weights),
		"leaf_weights":        floats(&t.leaves),
		"sum_hessian":         floats(&t.hessian),
		"split_type":          integers(&t.split),
		"categories_nodes":    integers(&t.nodesOf),
		"categories_segments": integers(&t.from),
		"categories_sizes":    integers(&t.sizes),
		"categories":          integers(&t.list),
	}.Read(r)
}

// readCategories reads, for each feature, the categories that a data frame had: texts as one run of
// bytes with offsets, or integers.
func (d *document) readCategories(r reader) error {
	var offsets, values []int32
	named := false
	feature := field{
		"offsets": func(r reader) (err error) {
			named = true
			offsets, err = r.Integers()
			return err
		},
		"values": integers(&values),
	}
	return r.Array(func(i int) error {
		offsets, values, named = nil, nil, false
		err := feature.Read(r)
		if err != nil {
			return fmt.Errorf("feature %d: %w", i, err)
		}
		d.described++
		if d.categories == nil {
			d.categories = map[int]booster.Categories{}
		}
		if !named {
			names := make([]string, len(values))
			for k, v := range values {
				names[k] = strconv.Itoa(int(v))
			}
			if len(names) > 0 {
				d.categories[i] = booster.Categories{Values: names, Numbers: true, Unseen: unseen}
			}
			return nil
		}
		names, err := d.cut(values, offsets)
		if err != nil {
			return fmt.Errorf("feature %d: %w", i, err)
		}
		if len(names) > 0 {
			d.categories[i] = booster.Categories{Values: names, Unseen: unseen}
		}
		return nil
	})
}

// cut makes names of a run of bytes. XGBoost 3.1 to 3.3 count characters in the offsets and so lose
// a part of names that are not ASCII.
func (d *document) cut(values, offsets []int32) ([]string, error) {
	run := make([]byte, len(values))
	for k, v := range values {
		if v < -128 || v > 255 {
			return nil, fmt.Errorf("%d is not a byte of a category's name", v)
		}
		run[k] = byte(v)
		d.foreign = d.foreign || v < 0 || v > 127
	}
	if len(offsets) < 2 {
		return nil, nil
	}
	names := make([]string, len(offsets)-1)
	for k, all := 0, string(run); k < len(names); k++ {
		from, to := int(offsets[k]), int(offsets[k+1])
		if from < 0 || from > to || to > len(run) {
			return nil, fmt.Errorf("category %d from byte %d to %d of %d", k, from, to, len(run))
		}
		names[k] = all[from:to]
	}
	return names, nil
}

func text(into *string) func(reader) error {
	return func(r reader) error {
		b, err := r.Text()
		*into = string(b)
		return err
	}
}

func texts(into *[]string) func(reader) error {
	return func(r reader) error {
		n, err := r.Elements()
		if err != nil {
			return err
		}
		if n > MaxFeatures {
			return fmt.Errorf("%d elements, at most %d are supported", n, MaxFeatures)
		}
		*into = make([]string, 0, n)
		return r.Array(func(i int) error {
			b, err := r.Text()
			if err != nil {
				return fmt.Errorf("element %d: %w", i, err)
			}
			*into = append(*into, string(b))
			return nil
		})
	}
}

// count reads a number from 0 that XGBoost writes as text.
func count(into *int) func(reader) error {
	return func(r reader) error {
		k, err := r.Next()
		if err != nil {
			return err
		}
		if k != jsonread.IsText {
			x, err := r.Integer()
			if err == nil && (x < 0 || x > 1<<31-1) {
				err = fmt.Errorf("%d is not a number from 0 to %d", x, 1<<31-1)
			}
			*into = int(x)
			return err
		}
		b, err := r.Text()
		if err != nil {
			return err
		}
		x, err := strconv.ParseUint(string(b), 10, 31)
		if err != nil {
			return fmt.Errorf("%.40q is not a number from 0 to %d", b, 1<<31-1)
		}
		*into = int(x)
		return nil
	}
}

func integers(into *[]int32) func(reader) error {
	return func(r reader) (err error) {
		*into, err = r.Integers()
		return err
	}
}

func floats(into *[]float32) func(reader) error {
	return func(r reader) (err error) {
		*into, err = r.Floats()
		return err
	}
}
