package lightgbm

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/churnstream/churnstream/scoring/trees"
)

// small has one tree: an input a up to 0.5 gives -1; else an input b of category 1 or 33 gives 2, another 3.
const small = `tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=binary sigmoid:1
feature_names=a b
feature_infos=[0:1] 0:1:33
tree_sizes=400

Tree=0
num_leaves=3
num_cat=1
split_feature=0 1
split_gain=1 1
threshold=0.5 0
decision_type=8 1
left_child=-1 -2
right_child=1 -3
leaf_value=-1 2 3
leaf_weight=1 1 1
leaf_count=2 1 1
internal_value=0 0
internal_weight=0 0
internal_count=4 2
cat_boundaries=0 2
cat_threshold=2 2
is_linear=0
shrinkage=1


end of trees

feature_importances:
a=1

parameters:
[categorical_feature: 1]
end of parameters

pandas_categorical:[["no", "yes"]]
`

// sized writes the sizes of the trees into the header.
func sized(text string) string {
	at := strings.Index(text, "tree_sizes=") + len("tree_sizes=")
	end := at + strings.IndexByte(text[at:], '\n')
	first := strings.Index(text, "\nTree=") + 1
	trees, _, _ := strings.Cut(text[max(first, end):], "end of trees")
	var sizes []string
	for _, tree := range strings.SplitAfter(trees, "\nTree=") {
		if size := len(strings.TrimSuffix(tree, "Tree=")); size > 0 {
			if len(sizes) > 0 {
				size += len("Tree=")
			}
			sizes = append(sizes, fmt.Sprint(size))
		}
	}
	return text[:at] + strings.Join(sizes, " ") + text[end:]
}

func margins(data string, rows []float64) ([]float64, error) {
	m, err := Parse([]byte(data))
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(rows)/2*m.Engine.Outputs())
	m.Engine.Margins(rows, len(rows)/2, out, &trees.Scratch{})
	return out, nil
}

var probes = []float64{0.5, 1, 0.6, 1, 0.6, 33.9, 0.6, 2, math.NaN(), 0, 0.6, -0.5, 0.6, math.NaN()}

const wanted = "[-1 2 2 3 3 3 3]" // NaN of a goes right: its decision has no left bit

func TestSmallModelScores(t *testing.T) {
	got, err := margins(sized(small), probes)
	if err != nil || fmt.Sprint(got) != wanted {
		t.Errorf("margins %v, error %v, want %s", got, err, wanted)
	}
}

func TestTreesOfAnotherSizeThanAnnouncedAreRefused(t *testing.T) {
	tree := small[strings.Index(small, "num_leaves"):strings.Index(small, "end of trees")]
	text := sized(strings.Replace(small, "Tree=0\n"+tree, "Tree=0\n"+tree+"Tree=1\n"+tree, 1))
	if _, err := Parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse([]byte(strings.Replace(text, "threshold=0.5", "threshold=0.25", 1))); err == nil || !strings.Contains(err.Error(), "tree 0 has 306 bytes, not 305") {
		t.Errorf("error %v", err)
	}
}

// TestModelsWithoutALineBehindTheLastTreeAreRead: LightGBM 2 wrote none.
func TestModelsWithoutALineBehindTheLastTreeAreRead(t *testing.T) {
	text := strings.Replace(sized(small), "end of trees\n", "", 1)
	m, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Categories[1].Values) != 2 {
		t.Errorf("categories %v", m.Categories)
	}
}

// TestTruncatedModelsAreRefused cuts a model at every byte. What is cut behind the trees still scores, as
// in LightGBM, and scores the same.
func TestTruncatedModelsAreRefused(t *testing.T) {
	whole := sized(small)
	for n := range whole {
		got, err := margins(whole[:n], probes)
		if err == nil && (n < strings.Index(whole, "end of trees") || fmt.Sprint(got) != wanted) {
			t.Errorf("cut at byte %d of %d: margins %v", n, len(whole), got)
		}
	}
}

func TestDamagedModelsAreRefusedWithThePlace(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"wrong magic", "tree\nversion", "forest\nversion", `line 1: "forest" where "tree" is due`},
		{"an unknown version", "version=v4", "version=v9", `version "v9" is not supported, v2, v3 and v4 are`},
		{"an unknown objective", "binary sigmoid:1", "ternary", `objective "ternary" is not supported`},
		{"a sigmoid of 0", "sigmoid:1", "sigmoid:0", `sigmoid "0" is not a number above 0`},
		{"no end and no sizes", "tree_sizes=400\n", "", ""},
		{"a missing tree", "tree_sizes=400", "tree_sizes=305 305", "tree_sizes announces 2 trees, there are 1"},
		{"a tree out of order", "Tree=0", "Tree=1", `"Tree=1" where "Tree=0" is due`},
		{"10^9 features", "max_feature_idx=1", "max_feature_idx=1000000000", "feature_names: 2 elements, want 1000000001"},
		{"names of another number", "feature_names=a b", "feature_names=a b c", "feature_names: more than 2 elements"},
		{"10^9 classes", "num_class=1\nnum_tree_per_iteration=1", "num_class=1\nnum_tree_per_iteration=1000000000", "num_tree_per_iteration"},
		{"classes that no round fills", "num_tree_per_iteration=1", "num_tree_per_iteration=2", "1 trees do not make whole rounds of 2"},
		{"10^9 leaves", "num_leaves=3", "num_leaves=1000000000", "tree 0: leaf_value: 3 elements, want 1000000000"},
		{"leaves below 0", "num_leaves=3", "num_leaves=-3", `tree 0: num_leaves: "-3" is not a number`},
		{"no leaves", "num_leaves=3\n", "", "tree 0: line 13: num_leaves is missing"},
		{"fewer leaves than values", "num_leaves=3", "num_leaves=2", "tree 0: leaf_value: more than 2 elements"},
		{"a cycle", "right_child=1 -3", "right_child=1 0", "tree 0: node 1: its child is the root"},
		{"a shared leaf", "left_child=-1 -2", "left_child=-1 -1", "is a child of node 0 already"},
		{"a child out of range", "right_child=1 -3", "right_child=2 -3", "tree 0: split 0: children -1 and 2 of 2 splits and 3 leaves"},
		{"a leaf out of range", "right_child=1 -3", "right_child=1 -4", "tree 0: split 1: children -2 and -4"},
		{"a child of the least integer", "right_child=1 -3", "right_child=1 -2147483648", "tree 0: split 1: children"},
		{"a feature beyond the count", "split_feature=0 1", "split_feature=0 2", "tree 0: node 1: splits on feature 2 of 2"},
		{"a threshold of NaN", "threshold=0.5 0", "threshold=nan 0", "tree 0: node 0: its threshold is NaN"},
		{"a threshold that is no number", "threshold=0.5 0", "threshold=half 0", `tree 0: threshold[0]: "half" is not a number`},
		{"a leaf of infinity", "leaf_value=-1 2 3", "leaf_value=-1 inf 3", "tree 0: node 3: leaf value +Inf"},
		{"an unknown decision", "decision_type=8 1", "decision_type=12 1", "tree 0: split 0: decision_type 12 is unknown"},
		{"a category set out of range", "threshold=0.5 0", "threshold=0.5 1", "tree 0: split 1: category set 1 of 1"},
		{"a category set of NaN", "threshold=0.5 0", "threshold=0.5 nan", "tree 0: split 1: category set NaN of 1"},
		{"words of a set out of range", "cat_boundaries=0 2", "cat_boundaries=0 9", "cat_boundaries[0]: words 0 to 9 of 2"},
		{"borders of sets that go back", "cat_boundaries=0 2", "cat_boundaries=2 0", "cat_boundaries[0]: words 2 to 0 of 2"},
		{"10^9 sets", "num_cat=1", "num_cat=1000000000", "tree 0: cat_boundaries: 2 elements, want 1000000001"},
		{"a key that is there twice", "num_leaves=3\n", "num_leaves=3\nnum_leaves=3\n", "line 14: num_leaves is there twice"},
		{"linear leaves without their models", "is_linear=0", "is_linear=1", "tree 0: line 13: leaf_const is missing"},
		{"linear leaves with 10^9 inputs", "is_linear=0", "is_linear=1\nleaf_const=1 1 1\nnum_features=1000000000 1000000000 0\nleaf_features=0\nleaf_coeff=1", "tree 0: leaf_features: 1 elements, want 2000000000"},
		{"a linear leaf that reads beyond", "is_linear=0", "is_linear=1\nleaf_const=1 1 1\nnum_features=1 0 0\nleaf_features=7\nleaf_coeff=1", "tree 0: linear leaf 0: reads feature 7 of 2"},
		{"values of categories without their inputs", "[[\"no\", \"yes\"]]", `[["no", "yes"], ["a"]]`, "pandas_categorical has the values of 2 inputs, 1 inputs are categories"},
		{"values of categories that are no list", "[[\"no\", \"yes\"]]", `{"a":1}`, "pandas_categorical is not a list"},
		{"a category that is an object", "[[\"no\", \"yes\"]]", `[[{"a":1}]]`, "is no category"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Count(small, c.old) != 1 {
				t.Fatalf("%q is there %d times", c.old, strings.Count(small, c.old))
			}
			text := strings.Replace(small, c.old, c.new, 1)
			if !strings.Contains(c.old, "tree_sizes") {
				text = sized(text)
			}
			if c.want == "" {
				text, c.want = strings.Replace(text, "end of trees", "", 1), `the line "end of trees" is missing`
			}
			_, err := Parse([]byte(text))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "lightgbm: ") {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestFloodsStayWithinTheirSize feeds each kind of text that could make much of little: nothing may
// take more than ten times its size and 16 MB, nor a second a megabyte.
func TestFloodsStayWithinTheirSize(t *testing.T) {
	const n = 60_000
	in := func(old, new string) string {
		text := strings.Replace(small, old, new, 1)
		if old == "tree_sizes=400" {
			return text
		}
		return sized(text)
	}
	tree := small[strings.Index(small, "num_leaves"):strings.Index(small, "end of trees")]
	var many, empty strings.Builder
	for i := range 6_000 {
		fmt.Fprintf(&many, "Tree=%d\n%s", i, tree)
	}
	for i := range n {
		fmt.Fprintf(&empty, "Tree=%d\n", i)
	}
	whole := in("Tree=0\n"+tree, many.String())
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"many trees", whole, true},
		{"empty trees", in("Tree=0\n", empty.String()), false},
		{"names", in("feature_names=a b", "feature_names="+strings.Repeat("a ", n)), false},
		{"as many names as features", strings.Replace(in("feature_names=a b", "feature_names="+strings.Repeat("a ", n)), "max_feature_idx=1", fmt.Sprint("max_feature_idx=", n-1), 1), true},
		{"thresholds", in("threshold=0.5 0", "threshold="+strings.Repeat("0 ", n)), false},
		{"words of sets", in("cat_threshold=2 2", "cat_threshold="+strings.Repeat("2 ", n)), true},
		{"lines", in("Tree=0", strings.Repeat("x=1\n", n)+"Tree=0"), true},
		{"sizes", in("tree_sizes=400", "tree_sizes="+strings.Repeat("1 ", n)), false},
		{"categories", in(`["no", "yes"]`, "["+strings.Repeat("1,", n)+"1]"), true},
		{"brackets", in(`["no", "yes"]`, strings.Repeat("[", n)), false},
		{"categorical features", in("[categorical_feature: 1]", "[categorical_feature: "+strings.Repeat("1,", n)+"1]"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := Parse([]byte(c.text))
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if (err == nil) != c.ok {
				t.Errorf("error %.200v", err)
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
