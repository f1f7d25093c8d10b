package catboost

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/churnstream/churnstream/scoring/internal/jsonread"
)

// document is what a model file says, before splits are resolved.
type document struct {
	version    string
	loss       string
	floats     []floatFeature
	categories []categoryFeature
	counters   []counterFeature
	tables     map[string]*table

	oblivious []obliviousTree
	splits    []int32   // of all oblivious trees, one behind the other
	leaves    []float64 // likewise: of leaf 0, output by output, then of leaf 1
	weights   []float64
	grown     []grownTree
	haveTrees bool

	scale float64
	bias  []float64
}

// floatFeature is a number with the borders of its splits.
type floatFeature struct {
	feature
	borders []float32
	missing string // AsIs, AsFalse or AsTrue
}

// categoryFeature is a text, of which the model knows the hash. values are those that splits ask for.
type categoryFeature struct {
	feature
	values []int32
}

// feature is what a column of either kind has. CatBoost calls its place among those of its kind
// feature_index and its place in a row flat_feature_index.
type feature struct {
	index, flat int
	name        string
}

// counterFeature is a number made of how often a combination of values was seen in training, and with
// what target.
type counterFeature struct {
	identifier string // the key of its table
	kind       string
	elements   []element
	borders    []float32

	priorNumerator, priorDenominator, shift, scale float32
	target                                         int
}

// element is one part of a combination.
type element struct {
	kind    string
	feature int // among the numbers or the categories
	border  float32
	value   int32
}

// table holds what was counted for each combination, by its hash.
type table struct {
	index       map[uint64]int32 // where its numbers begin
	numbers     []float64
	stride      int // hash and numbers
	denominator int32
}

// obliviousTree asks the same question in all nodes of a level. Bit i of a leaf's number is the answer
// to split i.
type obliviousTree struct {
	splits, leaves, weights int32 // how many
}

// grownTree is a tree of any form, as nodes with the root first.
type grownTree struct {
	nodes   []grownNode
	vectors []float64
}

// grownNode is a split, or a leaf with split -1. What is greater than the border goes right.
type grownNode struct {
	split       int32
	left, right int32
	first       int32 // of a leaf's values
	weight      float64
}

type (
	reader  = *jsonread.Reader
	members = jsonread.Members[reader]
)

func (d *document) read(data []byte) error {
	r := jsonread.New(data, MaxDepth)
	if k, err := r.Next(); err != nil {
		return err
	} else if k != jsonread.IsObject {
		return errors.New("not a JSON object: want a model saved with save_model(\"model.json\", format=\"json\")")
	}
	err := members{
		"model_info": members{
			"catboost_version_info": text(&d.version),
			"params": members{
				"loss_function": members{"type": text(&d.loss)}.Read,
			}.Read,
		}.Read,
		"features_info": members{
			"float_features":       list(&d.floats, readFloat),
			"categorical_features": list(&d.categories, readCategory),
			"ctrs":                 list(&d.counters, readCounter),
			"text_features":        refuse("text features"),
			"embedding_features":   refuse("embedding features"),
			"estimated_features":   refuse("estimated features"),
		}.Read,
		"ctr_data":        d.readTables,
		"oblivious_trees": d.readOblivious,
		"trees":           d.readGrown,
		"scale_and_bias":  d.readScale,
	}.Read(r)
	if err != nil {
		return err
	}
	return r.End()
}

func readFloat(r reader) (f floatFeature, err error) {
	err = f.read(r, members{
		"nan_value_treatment": text(&f.missing),
		"borders":             ascending(&f.borders),
	})
	return f, err
}

func readCategory(r reader) (f categoryFeature, err error) {
	err = f.read(r, members{
		"values": orNull(func(r reader) (err error) {
			f.values, err = r.Integers()
			return err
		}),
	})
	return f, err
}

// read takes what a column of either kind has; of is what one of its own kind has beside that.
func (f *feature) read(r reader, of members) error {
	f.index, f.flat = -1, -1
	var id string
	of["feature_index"] = count(&f.index)
	of["flat_feature_index"] = count(&f.flat)
	of["feature_name"] = text(&f.name)
	of["feature_id"] = text(&id)
	err := of.Read(r)
	f.name = cmp.Or(f.name, id)
	if err == nil && f.flat < 0 {
		err = errors.New("no flat_feature_index")
	}
	return err
}

func readCounter(r reader) (c counterFeature, err error) {
	err = members{
		"identifier":        text(&c.identifier),
		"ctr_type":          text(&c.kind),
		"elements":          list(&c.elements, readElement),
		"borders":           ascending(&c.borders),
		"prior_numerator":   number(&c.priorNumerator),
		"prior_denomerator": number(&c.priorDenominator),
		"shift":             number(&c.shift),
		"scale":             number(&c.scale),
		"target_border_idx": count(&c.target),
	}.Read(r)
	if err == nil && len(c.elements) == 0 {
		err = errors.New("no elements")
	}
	return c, err
}

func readElement(r reader) (e element, err error) {
	e.feature = -1
	err = members{
		"combination_element": text(&e.kind),
		"cat_feature_index":   count(&e.feature),
		"float_feature_index": count(&e.feature),
		"border":              number(&e.border),
		"value": func(r reader) error {
			at := r.At()
			x, err := r.Integer()
			if err != nil {
				return err
			}
			e.value, err = jsonread.Narrow(at, x)
			return err
		},
	}.Read(r)
	if err == nil && e.feature < 0 {
		err = errors.New("no feature index")
	}
	return e, err
}

func (d *document) readTables(r reader) error {
	d.tables = make(map[string]*table)
	return orNull(func(r reader) error {
		return r.Object(func(key []byte) error {
			if d.tables[string(key)] != nil {
				return fmt.Errorf("%.200q is there twice", key)
			}
			t := &table{}
			if err := t.read(r); err != nil {
				return fmt.Errorf("%.200q: %w", key, err)
			}
			d.tables[string(key)] = t
			return nil
		})
	})(r)
}

// read takes a table: its hashes are texts, followed by the same number of numbers each.
func (t *table) read(r reader) error {
	t.index = make(map[uint64]int32)
	var denominator int
	err := members{
		"hash_stride":         count(&t.stride),
		"counter_denominator": count(&denominator),
		"hash_map": orNull(func(r reader) error {
			return r.Array(func(int) error {
				k, err := r.Next()
				if err != nil {
					return err
				}
				if k != jsonread.IsText {
					x, err := r.Number(64)
					if math.IsNaN(x) || math.IsInf(x, 0) {
						err = jsonread.FaultAt(r.At(), "%v where a finite number is due", x)
					}
					t.numbers = append(t.numbers, x)
					return err
				}
				at := r.At()
				b, err := r.Text()
				if err != nil {
					return err
				}
				hash, err := strconv.ParseUint(string(b), 10, 64)
				if err != nil {
					return jsonread.FaultAt(at, "%.40q is not a hash of 64 bits", b)
				}
				if _, twice := t.index[hash]; twice {
					return jsonread.FaultAt(at, "the hash %d is there twice", hash)
				}
				if len(t.numbers) > math.MaxInt32 {
					return jsonread.FaultAt(at, "more than %d numbers", math.MaxInt32)
				}
				t.index[hash] = int32(len(t.numbers))
				return nil
			})
		}),
	}.Read(r)
	if err != nil {
		return err
	}
	t.denominator = int32(denominator)
	apart := max(1, t.stride-1)
	if len(t.numbers) != apart*len(t.index) {
		return fmt.Errorf("%d numbers for %d hashes with a hash_stride of %d", len(t.numbers), len(t.index), t.stride)
	}
	for hash, at := range t.index {
		if int(at)%apart != 0 {
			return fmt.Errorf("the hash %d is not a multiple of the hash_stride %d behind the first one", hash, t.stride)
		}
	}
	return nil
}

func (d *document) readOblivious(r reader) error {
	if d.haveTrees {
		return errors.New("both oblivious_trees and trees")
	}
	d.haveTrees = true
	split := splitReader()
	tree := members{
		"splits": orNull(func(r reader) error {
			return r.Array(func(int) error {
				index, err := split(r)
				d.splits = append(d.splits, index)
				return err
			})
		}),
		"leaf_values":  appendDoubles(&d.leaves),
		"leaf_weights": appendDoubles(&d.weights),
	}
	return list(&d.oblivious, func(r reader) (obliviousTree, error) {
		splits, leaves, weights := len(d.splits), len(d.leaves), len(d.weights)
		if err := tree.Read(r); err != nil {
			return obliviousTree{}, err
		}
		t := obliviousTree{int32(len(d.splits) - splits), int32(len(d.leaves) - leaves), int32(len(d.weights) - weights)}
		if t.leaves == 0 {
			return t, errors.New("no leaf_values")
		}
		return t, nil
	})(r)
}

// splitReader reads the number of a split among all that the features declare; what else is said of it
// is said there.
func splitReader() func(r reader) (int32, error) {
	index := -1
	split := members{"split_index": count(&index)}
	return func(r reader) (int32, error) {
		index = -1
		err := split.Read(r)
		if err == nil && index < 0 {
			err = errors.New("no split_index")
		}
		return int32(index), err
	}
}

func (d *document) readGrown(r reader) error {
	if d.haveTrees {
		return errors.New("both oblivious_trees and trees")
	}
	d.haveTrees = true
	split := splitReader()
	return list(&d.grown, func(r reader) (t grownTree, err error) {
		_, err = t.read(r, split)
		return t, err
	})(r)
}

// read takes a node with everything below it and returns its place.
func (t *grownTree) read(r reader, split func(reader) (int32, error)) (int32, error) {
	at := int32(len(t.nodes))
	t.nodes = append(t.nodes, grownNode{split: -1, left: -1, right: -1, first: -1, weight: math.NaN()})
	n := grownNode{split: -1, left: -1, right: -1, first: -1, weight: math.NaN()}
	child := func(to *int32) func(reader) error {
		return func(r reader) (err error) {
			*to, err = t.read(r, split)
			return err
		}
	}
	err := members{
		"split": func(r reader) (err error) {
			n.split, err = split(r)
			return err
		},
		"left":   child(&n.left),
		"right":  child(&n.right),
		"weight": func(r reader) (err error) { n.weight, err = r.Number(64); return err },
		"value": func(r reader) error {
			n.first = int32(len(t.vectors))
			k, err := r.Next()
			if err != nil {
				return err
			}
			if k == jsonread.IsArray {
				values, err := r.Doubles()
				t.vectors = append(t.vectors, values...)
				return err
			}
			x, err := r.Number(64)
			t.vectors = append(t.vectors, x)
			return err
		},
	}.Read(r)
	if err != nil {
		return at, err
	}
	if leaf := n.first >= 0; leaf == (n.split >= 0) || leaf == (n.left >= 0) || leaf == (n.right >= 0) {
		return at, jsonread.FaultAt(r.At(), "a node that is neither a leaf with a value nor a split with left and right")
	}
	t.nodes[at] = n
	return at, nil
}

func (d *document) readScale(r reader) error {
	d.scale = 1
	return r.Array(func(i int) (err error) {
		switch i {
		case 0:
			d.scale, err = r.Number(64)
		case 1:
			err = doubles(&d.bias)(r)
		default:
			err = errors.New("more than a scale and a list of biases")
		}
		return err
	})
}

// orNull takes null for a value that is not there.
func orNull(do func(reader) error) func(reader) error {
	return func(r reader) error {
		k, err := r.Next()
		if err != nil {
			return err
		}
		if k == jsonread.IsOther {
			return r.Skip()
		}
		return do(r)
	}
}

// list reads an array, element by element.
func list[T any](into *[]T, element func(reader) (T, error)) func(reader) error {
	return orNull(func(r reader) error {
		return r.Array(func(i int) error {
			x, err := element(r)
			if err != nil {
				return fmt.Errorf("element %d: %w", i, err)
			}
			*into = append(*into, x)
			return nil
		})
	})
}

// refuse is for what a model can hold and this package cannot score.
func refuse(what string) func(reader) error {
	return orNull(func(reader) error { return fmt.Errorf("%s are not supported", what) })
}

func text(into *string) func(reader) error {
	return orNull(func(r reader) error {
		b, err := r.Text()
		*into = string(b)
		return err
	})
}

// count reads an integer from 0.
func count(into *int) func(reader) error {
	return func(r reader) error {
		at := r.At()
		x, err := r.Integer()
		if err == nil && (x < 0 || x > math.MaxInt32) {
			err = jsonread.FaultAt(at, "%d is not a number from 0 to %d", x, math.MaxInt32)
		}
		*into = int(x)
		return err
	}
}

func number(into *float32) func(reader) error {
	return func(r reader) error {
		at := r.At()
		x, err := r.Number(32)
		if err == nil && (math.IsNaN(x) || math.IsInf(x, 0)) {
			err = jsonread.FaultAt(at, "%v where a finite number is due", x)
		}
		*into = float32(x)
		return err
	}
}

func doubles(into *[]float64) func(reader) error {
	return orNull(func(r reader) (err error) {
		at := r.At()
		*into, err = r.Doubles()
		for i, x := range *into {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				return jsonread.FaultAt(at, "element %d is %v, want finite numbers", i, x)
			}
		}
		return err
	})
}

func appendDoubles(to *[]float64) func(reader) error {
	return orNull(func(r reader) error {
		return r.Array(func(i int) error {
			at := r.At()
			x, err := r.Number(64)
			if err == nil && (math.IsNaN(x) || math.IsInf(x, 0)) {
				err = jsonread.FaultAt(at, "element %d is %v, want finite numbers", i, x)
			}
			*to = append(*to, x)
			return err
		})
	})
}

// ascending reads borders.
func ascending(into *[]float32) func(reader) error {
	return orNull(func(r reader) (err error) {
		at := r.At()
		*into, err = r.Floats()
		for i, x := range *into {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) || i > 0 && !(x >= (*into)[i-1]) {
				return jsonread.FaultAt(at, "border %d is %v, want finite numbers that ascend", i, x)
			}
		}
		return err
	})
}
