package xgboost

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/churnstream/churnstream/scoring/trees"
)

// small is a whole model of one tree: input a below 0.5 gives -1, else 2.
const small = `{"version":[3,4,1],"learner":{"attributes":{},"feature_names":["a","b"],"feature_types":["q","c"],
"objective":{"name":"binary:logitraw"},
"learner_model_param":{"base_score":"5E-1","num_class":"0","num_feature":"2","num_target":"1"},
"gradient_booster":{"name":"gbtree","model":{"gbtree_model_param":{"num_trees":"1","num_parallel_tree":"1"},
"cats":{"enc":[],"feature_segments":[],"sorted_idx":[]},"tree_info":[0],"iteration_indptr":[0,1],
"trees":[{"id":0,"tree_param":{"num_nodes":"3","size_leaf_vector":"1"},"left_children":[1,-1,-1],"right_children":[2,-1,-1],
"split_indices":[0,0,0],"default_left":[1,0,0],"split_conditions":[0.5,-1,2],"base_weights":[0,-1,2],"sum_hessian":[4,3,1],
"split_type":[0,0,0],"categories":[],"categories_nodes":[],"categories_segments":[],"categories_sizes":[]}]}}}}`

func margin(t *testing.T, data []byte, row []float64) float64 {
	t.Helper()
	m, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, m.Engine.Outputs())
	m.Engine.Margins(row, 1, out, &trees.Scratch{})
	return out[0]
}

func TestDamagedModelsAreRefusedWithThePlace(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"a cycle", `"left_children":[1,-1,-1],"right_children":[2,-1,-1]`, `"left_children":[1,0,-1],"right_children":[2,2,-1]`, "tree 0: node 1: its child is the root"},
		{"a shared child", `"right_children":[2,`, `"right_children":[1,`, "tree 0: node 0: its child 1 is a child of node 0 already"},
		{"a child out of range", `"right_children":[2,`, `"right_children":[3,`, "tree 0: node 0: children 1 and 3 of 3 nodes"},
		{"a child of -7", `"left_children":[1,`, `"left_children":[-7,`, "tree 0: node 0: children -7"},
		{"a feature beyond the count", `"split_indices":[0,`, `"split_indices":[2,`, "tree 0: node 0: splits on feature 2 of 2"},
		{"a threshold of NaN", `[0.5,-1,2],"base`, `[NaN,-1,2],"base`, "tree 0: node 0: its threshold is NaN"},
		{"a leaf of infinity", `[0.5,-1,2],"base`, `[0.5,-Infinity,2],"base`, "tree 0: node 1: leaf value -Inf"},
		{"a number beyond float32", `[0.5,-1,2],"base`, `[0.5,1e99,2],"base`, "is not a number that fits into 32 bits"},
		{"an empty tree", `"num_nodes":"3"`, `"num_nodes":"0"`, "tree 0: num_nodes is missing or 0"},
		{"a tree of nothing", `{"id":0,`, `{},{"id":0,`, "tree 0: num_nodes is missing or 0"},
		{"an array that is too short", `"default_left":[1,0,0]`, `"default_left":[1,0]`, "tree 0: default_left has 2 elements for 3 nodes"},
		{"fewer nodes than arrays have", `"num_nodes":"3"`, `"num_nodes":"1"`, "left_children has 3 elements for 1 nodes"},
		{"a number of nodes that is no number", `"num_nodes":"3"`, `"num_nodes":"-3"`, `"num_nodes": "-3" is not a number`},
		{"10^9 nodes", `"num_nodes":"3"`, `"num_nodes":"1000000000"`, "left_children has 3 elements for 1000000000 nodes"},
		{"10^9 features", `"num_feature":"2"`, `"num_feature":"1000000000"`, "num_feature is 1000000000, at most"},
		{"10^9 classes", `"num_class":"0"`, `"num_class":"1000000000"`, "1000000000 outputs, at most"},
		{"classes and targets", `"num_class":"0","num_feature":"2","num_target":"1"`, `"num_class":"3","num_feature":"2","num_target":"2"`, "3 classes and 2 targets"},
		{"another number of trees", `"num_trees":"1"`, `"num_trees":"2"`, "num_trees is 2, there are 1 trees"},
		{"a group out of range", `"tree_info":[0]`, `"tree_info":[1]`, "tree 0: adds to output 1 of 1"},
		{"a group below 0", `"tree_info":[0]`, `"tree_info":[-1]`, "tree 0: adds to output -1 of 1"},
		{"rounds that end early", `"iteration_indptr":[0,1]`, `"iteration_indptr":[0,0]`, "iteration_indptr does not go from 0 to the 1 trees"},
		{"rounds that go back", `"iteration_indptr":[0,1]`, `"iteration_indptr":[0,5,1]`, "iteration_indptr does not go"},
		{"short DART weights", `"name":"gbtree","model"`, `"name":"gbtree","weight_drop":[1,2],"model"`, "weight_drop has 2 weights for 1 trees"},
		{"DART without weights", `"name":"gbtree"`, `"name":"dart"`, "a dart model without weight_drop"},
		{"DART weights twice", `"name":"gbtree","model":{`, `"name":"gbtree","weight_drop":[1],"model":{"weight_drop":[1],`, "a second list of weights"},
		{"an infinite DART weight", `"name":"gbtree","model"`, `"name":"gbtree","weight_drop":[Infinity],"model"`, "leaf value"},
		{"a second model", `"name":"gbtree","model":`, `"name":"gbtree","gbtree":{"model":{}},"model":`, "a second model in one booster"},
		{"a key that is there twice", `"tree_info":[0]`, `"tree_info":[0],"tree_info":[0]`, `"tree_info" is there twice`},
		{"a booster that is unknown", `"name":"gbtree"`, `"name":"gbforest"`, `booster "gbforest" is not supported`},
		{"an objective that is unknown", `binary:logitraw`, `reg:expectileerror`, `objective "reg:expectileerror" is not supported`},
		{"a base score that is no number", `"5E-1"`, `"half"`, `base_score: "half" is not a number`},
		{"a base score of NaN", `"5E-1"`, `"nan"`, "base_score NaN is not in the domain"},
		{"base scores of another number", `"5E-1"`, `"[1E0,2E0]"`, "base_score has 2 numbers for 1 outputs"},
		{"a bracket that stays open", `"5E-1"`, `"[5E-1"`, "no closing bracket"},
		{"a probability of 1 as base score", `"5E-1","num_class"`, `"1","num_class"`, ""},
		{"names of another number", `["a","b"]`, `["a"]`, "1 feature_names for 2 features"},
		{"a category below 0", `"split_type":[0,0,0],"categories":[],"categories_nodes":[],"categories_segments":[],"categories_sizes":[]`, `"split_type":[1,0,0],"categories":[-1],"categories_nodes":[0],"categories_segments":[0],"categories_sizes":[1]`, "node 0: category -1 is below 0"},
		{"categories out of range", `"split_type":[0,0,0],"categories":[],"categories_nodes":[],"categories_segments":[],"categories_sizes":[]`, `"split_type":[1,0,0],"categories":[1],"categories_nodes":[0],"categories_segments":[0],"categories_sizes":[1000000000]`, "node 0: categories 0 to 1000000000 of 1"},
		{"a negative size of categories", `"split_type":[0,0,0],"categories":[],"categories_nodes":[],"categories_segments":[],"categories_sizes":[]`, `"split_type":[1,0,0],"categories":[1],"categories_nodes":[0],"categories_segments":[0],"categories_sizes":[-1]`, "node 0: categories"},
		{"categories of nodes out of order", `"categories":[],"categories_nodes":[],"categories_segments":[],"categories_sizes":[]`, `"categories":[1],"categories_nodes":[9],"categories_segments":[0],"categories_sizes":[1]`, "categories_nodes[0] is 9"},
		{"a split type that is unknown", `"split_type":[0,`, `"split_type":[7,`, "node 0: split type 7 is unknown"},
		{"leaves of another number", `"size_leaf_vector":"1"`, `"size_leaf_vector":"3"`, "leaves of 3 numbers for 1 outputs"},
		{"early stopping at no number", `"attributes":{}`, `"attributes":{"best_iteration":"last"}`, `best_iteration "last"`},
		{"names of a category out of range", `"enc":[]`, `"enc":[{"offsets":[0,9],"values":[65]},{}]`, "feature 0: category 0 from byte 0 to 9 of 1"},
		{"an array where an object is due", `"objective":{"name":"binary:logitraw"}`, `"objective":["binary:logitraw"]`, `"objective": byte`},
		{"text behind the end", "]}]}}}}", "]}]}}}}x", "behind the end of the model"},
		{"a comma too many", `"tree_info":[0]`, `"tree_info":[0,]`, "tree_info"},
		{"a hexadecimal number", `[0.5,-1,2],"base`, `[0x1p-1,-1,2],"base`, "is not a number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Count(small, c.old) != 1 {
				t.Fatalf("%q is there %d times", c.old, strings.Count(small, c.old))
			}
			text := strings.Replace(small, c.old, c.new, 1)
			_, err := Parse([]byte(text))
			if c.want == "" {
				if err != nil {
					t.Errorf("error %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "xgboost: ") {
				t.Errorf("JSON: error %v, want %q", err, c.want)
			}
			if b, ok := asUBJ(text); ok && !strings.Contains(c.name, "twice") {
				if _, err := Parse(b); err == nil {
					t.Error("UBJSON: no error")
				}
			}
		})
	}
}

func TestOldBinaryFormatIsRefusedWithTheWayOut(t *testing.T) {
	for _, magic := range []string{"binf", "bs64"} {
		if _, err := Parse([]byte(magic + "\x00\x00\x00\x3f")); err == nil || !strings.Contains(err.Error(), "save_model(\"model.json\")") {
			t.Errorf("error %v", err)
		}
	}
}

// TestTruncatedModelsAreRefused cuts a model at every byte, in both spellings.
func TestTruncatedModelsAreRefused(t *testing.T) {
	ubj, ok := asUBJ(small)
	if !ok {
		t.Fatal("not encoded")
	}
	for name, data := range map[string][]byte{"JSON": []byte(small), "UBJSON": ubj} {
		if x := margin(t, data, []float64{1, 0}); x != 2.5 {
			t.Fatalf("%s: margin %v, want 2.5", name, x)
		}
		for n := range data {
			if _, err := Parse(data[:n]); err == nil {
				t.Errorf("%s: cut at byte %d of %d: no error", name, n, len(data))
			}
		}
	}
}

// TestFloodsStayWithinTheirSize feeds each kind of text that could make much of little: nothing may
// take more than ten times its size and 16 MB, nor a second a megabyte.
func TestFloodsStayWithinTheirSize(t *testing.T) {
	const n = 60_000
	list := func(element string) string { return strings.Repeat(element+",", n) + element }
	in := func(old, new string) []byte { return []byte(strings.Replace(small, old, new, 1)) }
	length := func(x int64) []byte {
		return binary.BigEndian.AppendUint64([]byte{'L'}, uint64(x))
	}
	ubj, _ := asUBJ(small)
	longer := func(key string, x int64) []byte {
		at := bytes.Index(ubj, []byte(key)) + len(key)
		at += bytes.IndexByte(ubj[at:], 'L')
		return slices.Concat(ubj[:at], length(x), ubj[at+9:])
	}
	many := 6_000
	tree := small[strings.Index(small, `{"id"`):strings.Index(small, `]}}}}`)]
	whole := strings.Replace(small, tree, strings.Repeat(tree+",", many-1)+tree, 1)
	whole = strings.Replace(whole, `"num_trees":"1"`, fmt.Sprintf(`"num_trees":"%d"`, many), 1)
	whole = strings.Replace(whole, `"tree_info":[0],"iteration_indptr":[0,1]`, `"tree_info":[`+strings.Repeat("0,", many-1)+`0]`, 1)
	wholeUBJ, _ := asUBJ(whole)
	for _, c := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"many trees", []byte(whole), true},
		{"many trees in UBJSON", wholeUBJ, true},
		{"empty trees", in(`"trees":[`, `"trees":[`+list("{}")+","), false},
		{"children", in(`"left_children":[1,-1,-1]`, `"left_children":[`+list("0")+`]`), false},
		{"thresholds", in(`"split_conditions":[0.5,-1,2]`, `"split_conditions":[`+list("0")+`]`), false},
		{"names", in(`["a","b"]`, `[`+list(`""`)+`]`), false},
		{"categories of features", in(`"enc":[]`, `"enc":[`+list("{}")+`]`), false},
		{"categories", in(`"enc":[]`, `"enc":[{"values":[`+list("0")+`]},{}]`), true},
		{"names of categories", in(`"enc":[]`, `"enc":[{"offsets":[`+list("0")+`],"values":[]},{}]`), true},
		{"attributes", in(`"attributes":{}`, `"attributes":{`+list(`"a":""`)+`}`), true},
		{"keys that are unknown", in(`"attributes":{}`, `"else":{`+list(`"a":[]`)+`},"attributes":{}`), true},
		{"brackets", []byte(strings.Repeat("[", n)), false},
		{"braces", []byte(strings.Repeat(`{"a":`, n)), false},
		{"brackets in a skipped value", in(`"attributes":{}`, `"else":`+strings.Repeat("[", n)), false},
		{"a string without end", []byte(`{"` + strings.Repeat("a", n)), false},
		{"escapes", in(`["a","b"]`, `["`+strings.Repeat(`\u0061`, n)+`","b"]`), true},
		{"UBJSON containers", []byte(strings.Repeat("[", n)), false},
		{"UBJSON objects", slices.Concat([]byte("{"), bytes.Repeat(slices.Concat(length(1), []byte("a{")), n)), false},
		{"a string of 10^9 bytes", longer("nameS", 1_000_000_000), false},
		{"an array of 10^9 numbers", longer("left_children", 1_000_000_000), false},
		{"an array of 10^18 numbers", longer("left_children", 1_000_000_000_000_000_000), false},
		{"an array of -1 numbers", longer("left_children", -1), false},
		{"10^9 elements without a size", slices.Concat([]byte("{"), length(1), []byte("a[$Z#"), length(1_000_000_000)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := Parse(c.data)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if (err == nil) != c.ok {
				t.Errorf("error %v", err)
			}
			// All that was allocated, an upper bound of what was held at once.
			if got, most := after.TotalAlloc-before.TotalAlloc, uint64(10*len(c.data)+16<<20); got > most {
				t.Errorf("%d bytes of memory for %d, at most %d", got, len(c.data), most)
			}
			if took > 5*time.Second { // a second a megabyte, and room for a busy machine
				t.Errorf("%v for %d bytes", took, len(c.data))
			}
		})
	}
}

// TestLargeCategoriesTakeLittleMemory: one number of a list can name a category near 2³¹.
func TestLargeCategoriesTakeLittleMemory(t *testing.T) {
	text := strings.Replace(small, `"split_type":[0,0,0],"categories":[],"categories_nodes":[],"categories_segments":[],"categories_sizes":[]`,
		`"split_type":[1,0,0],"categories":[3,2147483647],"categories_nodes":[0],"categories_segments":[0],"categories_sizes":[2]`, 1)
	for x, want := range map[float64]float64{3: 2.5, 3.5: 2.5, 4: -0.5, -1: -0.5, 2147483647: -0.5} {
		// As XGBoost has it, a category of 2³¹-1 cannot be looked up: float32 makes 2³¹ of it.
		if got := margin(t, []byte(text), []float64{x, 0}); got != want {
			t.Errorf("category %v: margin %v, want %v", x, got, want)
		}
	}
}

// asUBJ spells a JSON text as XGBoost spells UBJSON; ok is false for a text that is not JSON.
func asUBJ(text string) (out []byte, ok bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil || d.More() {
		return nil, false
	}
	return appendUBJ(nil, v), true
}

func appendUBJ(b []byte, v any) []byte {
	length := func(n int) { b = binary.BigEndian.AppendUint64(append(b, 'L'), uint64(n)) }
	switch v := v.(type) {
	case map[string]any:
		b = append(b, '{')
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			length(len(k))
			b = appendUBJ(append(b, k...), v[k])
		}
		return append(b, '}')
	case []any:
		if _, ok := first(v).(json.Number); ok {
			b = append(b, "[$d#"...)
			whole := true
			for _, x := range v {
				n, ok := x.(json.Number)
				whole = whole && ok && !strings.ContainsAny(n.String(), ".eE")
			}
			if whole {
				b[len(b)-2] = 'l'
			}
			length(len(v))
			for _, x := range v {
				n, _ := x.(json.Number)
				f, _ := n.Float64()
				if whole {
					b = binary.BigEndian.AppendUint32(b, uint32(int32(f)))
				} else {
					b = binary.BigEndian.AppendUint32(b, math.Float32bits(float32(f)))
				}
			}
			return b
		}
		b = append(b, "[#"...)
		length(len(v))
		for _, x := range v {
			b = appendUBJ(b, x)
		}
		return b
	case string:
		b = append(b, 'S')
		length(len(v))
		return append(b, v...)
	case json.Number:
		f, _ := v.Float64()
		return binary.BigEndian.AppendUint32(append(b, 'd'), math.Float32bits(float32(f)))
	}
	return append(b, 'Z')
}

func first(v []any) any {
	if len(v) == 0 {
		return nil
	}
	return v[0]
}
