package catboost

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/churnstream/churnstream/scoring/trees"
)

// small is a whole model: a number, a text, a counter of the text and a tree that asks for all three.
const small = `{"ctr_data":{"c":{"counter_denominator":0,"hash_map":["5",1,3,"7",2,2],"hash_stride":3}},
"features_info":{"categorical_features":[{"feature_index":0,"flat_feature_index":1,"feature_id":"plan","values":[-5]}],
"ctrs":[{"borders":[0.5],"ctr_type":"Borders","elements":[{"cat_feature_index":0,"combination_element":"cat_feature_value"}],
"identifier":"c","prior_denomerator":1,"prior_numerator":0.5,"scale":1,"shift":0,"target_border_idx":0}],
"float_features":[{"borders":[1.5,2.5],"feature_index":0,"flat_feature_index":0,"feature_id":"tenure","has_nans":true,"nan_value_treatment":"AsFalse"}]},
"model_info":{"params":{"loss_function":{"type":"Logloss"}}},
"oblivious_trees":[{"leaf_values":[1,2,3,4,5,6,7,8],"leaf_weights":[1,1,1,1,1,1,1,1],
"splits":[{"split_index":1},{"split_index":2},{"split_index":3}]}],
"scale_and_bias":[1,[0]]}`

// grownSmall is a whole model of one tree that is not symmetric.
const grownSmall = `{"features_info":{"float_features":[{"borders":[1.5],"feature_index":0,"flat_feature_index":0,"nan_value_treatment":"AsTrue"}]},
"model_info":{"params":{"loss_function":{"type":"RMSE"}}},
"trees":[{"split":{"split_index":0},"left":{"value":1,"weight":2},"right":{"value":3,"weight":4}}],"scale_and_bias":[1,[0]]}`

func margin(t *testing.T, data string, row ...float64) float64 {
	t.Helper()
	m, err := Parse([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, m.Engine.Outputs())
	m.Engine.Margins(row, 1, out, &trees.Scratch{})
	return out[0]
}

func TestDamagedModelsAreRefusedWithThePlace(t *testing.T) {
	for _, c := range []struct{ name, text, old, new, want string }{
		{"a split beyond the last", small, `{"split_index":3}`, `{"split_index":4}`, "oblivious_trees 0: split_index 4 of 4 splits"},
		{"a split below 0", small, `{"split_index":3}`, `{"split_index":-1}`, "-1 is not a number from 0"},
		{"a split of no number", small, `{"split_index":3}`, `{}`, "no split_index"},
		{"too few leaves", small, `[1,2,3,4,5,6,7,8]`, `[1,2,3,4,5,6,7]`, "oblivious_trees 0: 7 leaf_values for 3 splits"},
		{"an empty tree", small, `[1,2,3,4,5,6,7,8]`, `[]`, "no leaf_values"},
		{"too few weights", small, `"leaf_weights":[1,`, `"leaf_weights":[`, "7 leaf_weights for 3 splits"},
		{"a leaf of NaN", small, `[1,2,3,4,5,6,7,8]`, `[1,2,3,NaN,5,6,7,8]`, "element 3 is NaN"},
		{"a border of NaN", small, `[1.5,2.5]`, `[1.5,NaN]`, "border 1 is NaN"},
		{"borders that descend", small, `[1.5,2.5]`, `[2.5,1.5]`, "border 1 is 1.5"},
		{"a place in the row beyond the last", small, `"flat_feature_index":0`, `"flat_feature_index":2`, "float_features 0: flat_feature_index is 2"},
		{"a place of 10^9", small, `"flat_feature_index":0`, `"flat_feature_index":1000000000`, "float_features 0: flat_feature_index is 1000000000"},
		{"a place that is taken", small, `"flat_feature_index":0`, `"flat_feature_index":1`, "categorical_features 0: flat_feature_index is 1"},
		{"features out of order", small, `"feature_index":0,"flat_feature_index":0`, `"feature_index":1,"flat_feature_index":0`, "float_features 0: feature_index is 1"},
		{"an unknown rule for missing values", small, "AsFalse", "AsMaybe", `nan_value_treatment "AsMaybe" is not supported`},
		{"a counter without a table", small, `"identifier":"c"`, `"identifier":"d"`, `ctrs 0: ctr_data has no table "d"`},
		{"a counter of an unknown kind", small, `"ctr_type":"Borders"`, `"ctr_type":"Sum"`, `ctrs 0: ctr_type "Sum" is not supported`},
		{"a counter of a category beyond the last", small, `{"cat_feature_index":0,"comb`, `{"cat_feature_index":1,"comb`, "ctrs 0: elements 0: feature 1 of 1 categories"},
		{"an unknown element", small, `"cat_feature_value"`, `"text"`, `combination_element "text" is not supported`},
		{"a target beyond the table", small, `"target_border_idx":0`, `"target_border_idx":2`, "ctrs 0: target_border_idx is 2"},
		{"a table of another stride", small, `"hash_stride":3`, `"hash_stride":4`, "4 numbers for 2 hashes with a hash_stride of 4"},
		{"a stride of 10^9", small, `"hash_stride":3`, `"hash_stride":1000000000`, "hash_stride of 1000000000"},
		{"hashes out of place", small, `["5",1,3,"7",2,2]`, `["5",1,"7",3,2,2]`, "the hash 7 is not a multiple"},
		{"a hash that is there twice", small, `"7",2,2`, `"5",2,2`, "the hash 5 is there twice"},
		{"a hash that is no number", small, `"7",2,2`, `"x",2,2`, `"x" is not a hash`},
		{"a prior of 0", small, `"prior_denomerator":1`, `"prior_denomerator":0`, "prior_denomerator is 0"},
		{"another loss", small, "Logloss", "YetiRank", `loss function "YetiRank" is not supported`},
		{"biases of another number", small, `[1,[0]]`, `[1,[0,1]]`, "2 biases for 1 outputs"},
		{"text features", small, `"features_info":{`, `"features_info":{"text_features":[],`, "text features are not supported"},
		{"a key that is there twice", small, `"scale_and_bias":[1,[0]]`, `"scale_and_bias":[1,[0]],"scale_and_bias":[1,[0]]`, `"scale_and_bias" is there twice`},
		{"a table that is there twice", small, `{"c":{`, `{"c":{"hash_stride":3},"c":{`, `"c" is there twice`},
		{"two kinds of trees", small, `"scale_and_bias"`, `"trees":[],"scale_and_bias"`, "both oblivious_trees and trees"},
		{"no trees", small, `"oblivious_trees"`, `"other_trees"`, "no trees or no features"},
		{"text behind the end", small, `[1,[0]]}`, `[1,[0]]}}`, "behind the end of the model"},
		{"a node that is both", grownSmall, `"left":{`, `"value":1,"left":{`, "neither a leaf with a value nor a split"},
		{"a node without a child", grownSmall, `,"right":{"value":3,"weight":4}`, ``, "neither a leaf with a value nor a split"},
		{"leaves of two numbers", grownSmall, `"value":1,`, `"value":[1,2],`, "values for 2 leaves"},
		{"a leaf of infinity", grownSmall, `"value":1,`, `"value":Infinity,`, "leaf value +Inf"},
		{"another format", "CBM1....", "CBM1", "CBM1", "save_model"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Count(c.text, c.old) != 1 {
				t.Fatalf("%q is there %d times", c.old, strings.Count(c.text, c.old))
			}
			_, err := Parse([]byte(strings.Replace(c.text, c.old, c.new, 1)))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "catboost: ") {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestTruncatedModelsAreRefused cuts models at every byte.
func TestTruncatedModelsAreRefused(t *testing.T) {
	if x := margin(t, small, 3, 4294967291); x != 4 {
		t.Fatalf("margin %v, want 4", x)
	}
	if x := margin(t, grownSmall, 1.5); x != 1 {
		t.Fatalf("margin %v, want 1", x)
	}
	for _, text := range []string{small, grownSmall} {
		for n := range text {
			if _, err := Parse([]byte(text[:n])); err == nil {
				t.Errorf("cut at byte %d of %d: no error", n, len(text))
			}
		}
	}
}

// TestFloodsStayWithinTheirSize feeds each kind of text that could make much of little: nothing may
// take more than ten times its size and 16 MB, nor a second a megabyte.
func TestFloodsStayWithinTheirSize(t *testing.T) {
	const n = 60_000
	list := func(element string) string { return strings.Repeat(element+",", n) + element }
	in := func(old, new string) string { return strings.Replace(small, old, new, 1) }
	deep := strings.Repeat(`{"split":{"split_index":0},"left":{"value":1},"right":`, n) + "1"
	hashes := make([]string, n)
	for i := range hashes {
		hashes[i] = fmt.Sprintf(`"%d",0,0`, i)
	}
	tree := small[strings.Index(small, `{"leaf_values"`):strings.Index(small, `],`+"\n"+`"scale`)]
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"many trees", in(tree, strings.Repeat(tree+",", 3000)+tree), true},
		{"empty trees", in(tree, list("{}")), false},
		{"trees of one leaf", in(tree, list(`{"leaf_values":[0]}`)), true},
		{"leaves", in(`[1,2,3,4,5,6,7,8]`, `[`+list("0")+`]`), false},
		{"outputs", in(`[1,2,3,4,5,6,7,8]`, `[`+strings.Repeat("0,", 8*n-1)+`0]`), false},
		{"splits", in(`{"split_index":3}`, list(`{"split_index":3}`)), false},
		{"borders", in(`[1.5,2.5]`, `[`+list("1")+`]`), true},
		{"values", in(`[-5]`, `[`+list("1")+`]`), true},
		{"features", in(`"float_features":[`, `"float_features":[`+list("{}")+","), false},
		{"counters", in(`"ctrs":[`, `"ctrs":[`+list("{}")+","), false},
		{"elements", in(`"elements":[`, `"elements":[`+list("{}")+","), false},
		{"hashes", in(`"5",1,3,"7",2,2`, strings.Join(hashes, ",")), true},
		{"numbers of hashes", in(`"5",1,3,"7",2,2`, list("0")), false},
		{"tables", in(`"ctr_data":{`, `"ctr_data":{"x":{},`), true},
		{"keys that are unknown", in(`"model_info":{`, `"model_info":{`+list(`"a":[]`)+","), true},
		{"deep trees", strings.Replace(grownSmall, `"trees":[`, `"trees":[`+deep, 1), false},
		{"brackets", strings.Repeat("[", n), false},
		{"braces", strings.Repeat(`{"a":`, n), false},
		{"a string without end", `{"` + strings.Repeat("a", n), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := Parse([]byte(c.text))
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if (err == nil) != c.ok {
				t.Errorf("error %v", err)
			}
			// All that was allocated, an upper bound of what was held at once.
			if got, most := after.TotalAlloc-before.TotalAlloc, uint64(10*len(c.text)+16<<20); got > most {
				t.Errorf("%d bytes of memory for %d, at most %d", got, len(c.text), most)
			}
			if took > 5*time.Second { // a second a megabyte, and room for a busy machine
				t.Errorf("%v for %d bytes", took, len(c.text))
			}
		})
	}
}
