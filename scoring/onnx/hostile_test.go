package onnx

import (
	"encoding/binary"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/churnstream/churnstream/internal/golden"
	"github.com/churnstream/churnstream/scoring/trees"
)

// The messages of a small model, as bytes.

func nested(number protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), slices.Concat(parts...))
}

func text(number protowire.Number, s string) []byte { return nested(number, []byte(s)) }

func number(number protowire.Number, x int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), uint64(x))
}

func floats(name string, list ...float32) []byte {
	out := slices.Concat(text(1, name), number(20, 6))
	for _, x := range list {
		out = protowire.AppendFixed32(protowire.AppendTag(out, 7, protowire.Fixed32Type), math.Float32bits(x))
	}
	return nested(5, out)
}

func ints(name string, list ...int64) []byte {
	out := slices.Concat(text(1, name), number(20, 7))
	for _, x := range list {
		out = append(out, number(8, x)...)
	}
	return nested(5, out)
}

func strs(name string, list ...string) []byte {
	out := slices.Concat(text(1, name), number(20, 8))
	for _, x := range list {
		out = append(out, text(9, x)...)
	}
	return nested(5, out)
}

func word(name, s string) []byte { return nested(5, text(1, name), number(20, 3), text(4, s)) }

func whole32(name string, x int64) []byte {
	return nested(5, text(1, name), number(20, 2), number(3, x))
}

func aNode(domain, op string, in, out []string, attributes ...[]byte) []byte {
	var b []byte
	for _, s := range in {
		b = append(b, text(1, s)...)
	}
	for _, s := range out {
		b = append(b, text(2, s)...)
	}
	return nested(1, b, text(3, "n"), text(4, op), text(7, domain), slices.Concat(attributes...))
}

func tensor(name string, dtype int64, dims []int64, rest ...[]byte) []byte {
	var b []byte
	for _, d := range dims {
		b = append(b, number(1, d)...)
	}
	return nested(5, b, number(2, dtype), text(8, name), slices.Concat(rest...))
}

func info(field protowire.Number, name string, dtype int64, dims ...int64) []byte {
	var shape []byte
	for _, d := range dims {
		if d < 0 {
			shape = append(shape, nested(1, text(2, "n"))...)
		} else {
			shape = append(shape, nested(1, number(1, d))...)
		}
	}
	return nested(field, text(1, name), nested(2, nested(1, number(1, dtype), nested(2, shape))))
}

func model(graph ...[]byte) []byte {
	return slices.Concat(number(1, 8), text(2, "test"), nested(7, graph...), nested(8, text(1, ""), number(2, 21)), nested(8, text(1, "ai.onnx.ml"), number(2, 3)))
}

const ml = "ai.onnx.ml"

var (
	x = info(11, "x", 1, -1, 2)
	y = info(12, "y", 1, -1, 1)
)

// treeNode is a regressor of one tree: x0 ≤ 0.5 gives 1, else 2.
func treeNode(change map[string][]byte) []byte {
	attributes := map[string][]byte{
		"nodes_treeids": ints("nodes_treeids", 0, 0, 0), "nodes_nodeids": ints("nodes_nodeids", 0, 1, 2), "nodes_featureids": ints("nodes_featureids", 0, 0, 0),
		"nodes_modes": strs("nodes_modes", "BRANCH_LEQ", "LEAF", "LEAF"), "nodes_values": floats("nodes_values", 0.5, 0, 0),
		"nodes_truenodeids": ints("nodes_truenodeids", 1, 0, 0), "nodes_falsenodeids": ints("nodes_falsenodeids", 2, 0, 0),
		"target_treeids": ints("target_treeids", 0, 0), "target_nodeids": ints("target_nodeids", 1, 2), "target_ids": ints("target_ids", 0, 0),
		"target_weights": floats("target_weights", 1, 2), "n_targets": whole32("n_targets", 1),
	}
	var all [][]byte
	for name, a := range attributes {
		if changed, ok := change[name]; ok {
			a = changed
		}
		all = append(all, a)
	}
	slices.SortFunc(all, slices.Compare)
	return aNode(ml, "TreeEnsembleRegressor", []string{"x"}, []string{"y"}, all...)
}

func treeWith(name string, a []byte) []byte { return model(treeNode(map[string][]byte{name: a}), x, y) }

// vectors is a classifier of two support vectors, with attributes in the place of its own of the first one's name.
func vectors(change []byte) []byte {
	var all [][]byte
	for _, a := range [][]byte{
		change, ints("classlabels_ints", 0, 1), ints("vectors_per_class", 1, 1), floats("support_vectors", 0, 0, 1, 1), floats("coefficients", 1, -1),
		floats("rho", 0.5), word("kernel_type", "RBF"), floats("kernel_params", 1, 0, 3),
	} {
		if len(all) == 0 || attributeName(a) != attributeName(change) {
			all = append(all, a)
		}
	}
	return model(aNode(ml, "SVMClassifier", []string{"x"}, []string{"label", "scores"}, all...), x, y)
}

func attributeName(a []byte) string {
	message, _ := protowire.ConsumeBytes(a[1:])
	name, _ := readName(message)
	return name
}

func TestDamagedModelsAreRefusedWithThePlace(t *testing.T) {
	linear := func(attributes ...[]byte) []byte {
		return model(aNode(ml, "LinearRegressor", []string{"x"}, []string{"y"}, attributes...), x, y)
	}
	plain := func(op string, in []string, attributes ...[]byte) []byte {
		return model(aNode("", op, in, []string{"y"}, attributes...), x, y)
	}
	flat := func(node []byte) []byte {
		return model(aNode("", "Flatten", []string{"x"}, []string{"f"}, whole32("axis", 0)), node, x, y)
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "this is no ONNX model"},
		{"an unknown operator", plain("Scan", []string{"x"}), `node 0 "n" (Scan): the operator Scan of ai.onnx, opset 21, is not supported`},
		{"an unknown operator of ai.onnx.ml", model(aNode(ml, "TfIdfVectorizer", []string{"x"}, []string{"y"}), x, y), "the operator TfIdfVectorizer of ai.onnx.ml, opset 3, is not supported"},
		{"a domain that is not imported", model(aNode("com.microsoft", "Add", []string{"x"}, []string{"y"}), x, y), `imports no version of the domain "com.microsoft"`},
		{"two versions of a domain", slices.Concat(model(treeNode(nil), x, y), nested(8, text(1, ml), number(2, 5))), "with the versions 3 and 5"},
		{"a second graph", slices.Concat(model(treeNode(nil), x, y), nested(7)), "a second graph"},
		{"a cycle of nodes", plain("Neg", []string{"y"}), `no node before makes its input "y"`},
		{"a value that is made twice", model(aNode("", "Neg", []string{"x"}, []string{"x"}), x, y), `the value "x" is made twice`},
		{"an output that nobody makes", model(aNode("", "Neg", []string{"x"}, []string{"z"}), x, y), `no node makes the output "y"`},
		{"an attribute that is there twice", linear(floats("coefficients", 1, 2), floats("coefficients", 1, 2)), `the attribute "coefficients" is there twice`},
		{"too few coefficients", linear(floats("coefficients", 1)), "1 coefficients and 0 intercepts for 1 targets of 2 columns"},
		{"an input of unknown width", model(treeNode(nil), info(11, "x", 1, -1, -1), y), `input "x": the dimensions [-1 -1]`},
		{"an input of 10^9 columns", model(treeNode(nil), info(11, "x", 1, -1, 1_000_000_000), y), "1000000000 columns are more than"},
		{"an input of an unknown type", model(treeNode(nil), info(11, "x", 10, -1, 2), y), "the tensor type 10 is not supported"},
		{"external data", model(tensor("w", 1, []int64{1}, nested(13, text(1, "location"), text(2, "/etc/passwd")), number(14, 1)), treeNode(nil), x, y), `initializer 0 "w": its data are in another file`},
		{"a tensor of 10^9 elements", model(tensor("w", 1, []int64{1_000_000_000}), treeNode(nil), x, y), "the dimensions [1000000000] do not fit 0 elements"},
		{"a tensor of a negative size", model(tensor("w", 1, []int64{-1}), treeNode(nil), x, y), "the dimensions [-1] do not fit"},
		{"a tensor whose size overflows", model(tensor("w", 1, []int64{1 << 32, 1 << 32, 0}), treeNode(nil), x, y), "do not fit"},
		{"raw data of half an element", model(tensor("w", 1, []int64{1}, nested(9, []byte{1, 2})), treeNode(nil), x, y), "2 bytes of raw_data"},
		{"a shape of 10^9", model(tensor("s", 7, []int64{1}, number(7, 1_000_000_000)), aNode("", "ConstantOfShape", []string{"s"}, []string{"c"}), treeNode(nil), x, y), "is more than is allowed"},
		{"an expansion of 10^9", model(tensor("s", 7, []int64{2}, number(7, 1), number(7, 1_000_000_000)), aNode("", "Expand", []string{"x", "s"}, []string{"c"}), treeNode(nil), x, y), "too large"},
		{"a sum over the rows", model(tensor("a", 7, []int64{1}, number(7, 0)), aNode("", "ReduceSum", []string{"x", "a"}, []string{"y"}), x, y), "a reduction over the rows"},
		{"a reshape that mixes rows", model(tensor("a", 7, []int64{1}, number(7, -1)), aNode("", "Reshape", []string{"x", "a"}, []string{"y"}), x, y), "mixing rows"},
		{"an index beyond the columns", model(tensor("a", 7, []int64{1}, number(7, 2)), aNode(ml, "ArrayFeatureExtractor", []string{"x", "a"}, []string{"y"}), x, y), "want an index of 2 columns"},
		{"a cycle of a tree", treeWith("nodes_falsenodeids", ints("nodes_falsenodeids", 0, 0, 0)), "tree 0: node 0: its child is the root"},
		{"a shared child", treeWith("nodes_falsenodeids", ints("nodes_falsenodeids", 1, 0, 0)), "its child 1 is a child of node 0 already"},
		{"a child out of range", treeWith("nodes_falsenodeids", ints("nodes_falsenodeids", 3, 0, 0)), "tree 0, node 0: children 1 and 3"},
		{"a child below 0", treeWith("nodes_falsenodeids", ints("nodes_falsenodeids", -1, 0, 0)), "tree 0, node 0: children 1 and -1"},
		{"a feature beyond the columns", treeWith("nodes_featureids", ints("nodes_featureids", 2, 0, 0)), "feature 2: there are 3 nodes and 2 features"},
		{"a threshold of NaN", treeWith("nodes_values", floats("nodes_values", float32(math.NaN()), 0, 0)), "its threshold is NaN"},
		{"an unknown mode", treeWith("nodes_modes", strs("nodes_modes", "BRANCH_MEMBER", "LEAF", "LEAF")), `the mode "BRANCH_MEMBER" is not supported`},
		{"an array that is too short", treeWith("nodes_values", floats("nodes_values", 1)), "nodes_values has 1 elements"},
		{"a leaf that is a split", treeWith("target_nodeids", ints("target_nodeids", 0, 2)), "node 0 of tree 0 is no leaf"},
		{"a target out of range", treeWith("target_ids", ints("target_ids", 0, 1)), "adds to output 1 of 1"},
		{"10^9 targets", treeWith("n_targets", whole32("n_targets", 1_000_000_000)), "n_targets is 1000000000"},
		{"nodes of one id", treeWith("nodes_nodeids", ints("nodes_nodeids", 0, 1, 1)), "two nodes of one id"},
		{"a tree in pieces", treeWith("nodes_treeids", ints("nodes_treeids", 0, 1, 0)), "there are 1 nodes and 2 features"},
		{"another aggregation", model(aNode(ml, "TreeEnsembleRegressor", []string{"x"}, []string{"y"}, word("aggregate_function", "MIN")), x, y), `aggregate_function "MIN" is not supported`},
		{"10^9 support vectors", vectors(ints("vectors_per_class", 1_000_000_000, 1)), "want those of 1000000001 vectors"},
		{"support vectors below 0", vectors(ints("vectors_per_class", 3, -1)), "vectors_per_class[1] is -1"},
		{"too many support vectors", vectors(ints("vectors_per_class", maxExact, maxExact)), "adds up to too many"},
		{"support vectors of no class", vectors(ints("vectors_per_class", 2)), "vectors_per_class has 1 elements for 2 classes"},
		{"too few coefficients of vectors", vectors(floats("coefficients", 1)), "1 coefficients, 1 rho, 0 prob_a and 0 prob_b for 2 vectors of 2 classes; want 2, 1, and 1 or none"},
		{"half of a probability", vectors(floats("prob_a", 1)), "1 prob_a and 0 prob_b"},
		{"an unknown kernel", vectors(word("kernel_type", "COSINE")), `kernel_type "COSINE" is not supported`},
		{"a kernel of one parameter", vectors(floats("kernel_params", 1)), "kernel_params has 1 elements"},
		{"rows that became columns, and others", flat(aNode("", "Add", []string{"f", "x"}, []string{"y"})), `"x" of the dimensions [n 2] with all elements`},
		{"a reduction of rows that became columns", flat(aNode("", "ReduceSum", []string{"f"}, []string{"y"}, ints("axes", 1))), "all elements of all rows in one dimension"},
		{"a result of rows that became columns", flat(aNode("", "Neg", []string{"f"}, []string{"y"})), `the output "y" has the dimensions [1 n·2]`},
		{"rows behind rows of another form", model(aNode("", "Concat", []string{"x", "l"}, []string{"y"}, whole32("axis", 0)), x, info(11, "l", 1, -1, 3), y), "rows of \"l\", of the dimensions [n 3], behind those of \"x\", of [n 2]"},
		{"a result of rows behind rows", model(aNode("", "Concat", []string{"x", "x"}, []string{"y"}, whole32("axis", 0)), x, y), `the output "y" has the dimensions [2·n 2]`},
		{"rows behind rows that are calculated with", model(aNode("", "Concat", []string{"x", "x"}, []string{"c"}, whole32("axis", 0)), aNode("", "Neg", []string{"c"}, []string{"y"}), x, y), "rows of several tensors behind each other"},
		{"rows behind rows that mix", model(tensor("s", 7, []int64{2}, number(7, -1), number(7, 2)), aNode("", "Concat", []string{"x", "x"}, []string{"c"}, whole32("axis", 0)), aNode("", "Reshape", []string{"c", "s"}, []string{"y"}), x, y), "its first dimension must be 2"},
		{"a wire type that is not used", slices.Concat(number(1, 8), protowire.AppendTag(nil, 7, protowire.StartGroupType)), "wire type 3"},
		{"a length of 10^9", slices.Concat(number(1, 8), protowire.AppendTag(nil, 7, protowire.BytesType), binary.AppendUvarint(nil, 1_000_000_000)), "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.data)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "onnx: ") {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestTruncatedModelsAreRefused cuts a model at every byte. Protobuf does not mark the end of a message:
// what is cut behind its last opset is a whole model of another version.
func TestTruncatedModelsAreRefused(t *testing.T) {
	data := model(treeNode(nil), x, y)
	m, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, 2)
	m.Engine.Margins([]float64{0.5, 0, 0.6, 0}, 2, out, &trees.Scratch{})
	if out[0] != 1 || out[1] != 2 {
		t.Fatalf("margins %v, want 1 and 2", out)
	}
	for n := range data {
		if _, err := Parse(data[:n]); err == nil {
			t.Errorf("cut at byte %d of %d: no error", n, len(data))
		}
	}
}

// TestFloodsStayWithinTheirSize feeds each kind of message that could make much of little: nothing may
// take more than ten times its size and 16 MB, nor a second a megabyte.
func TestFloodsStayWithinTheirSize(t *testing.T) {
	const n = 60_000
	many := func(part []byte) []byte { return slices.Repeat(part, n) }
	var chain []byte
	last := "x"
	for i := range 4000 {
		next := "v" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		chain = append(chain, aNode("", "Neg", []string{last}, []string{next})...)
		last = next
	}
	deep := []byte{}
	for range 2000 {
		deep = nested(1, deep)
	}
	for _, c := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"empty nodes", model(many(nested(1)), x, y), false},
		{"empty initializers", model(many(nested(5)), x, y), false},
		{"empty inputs", model(many(nested(11)), x, y), false},
		{"empty outputs", model(treeNode(nil), x, y, many(nested(12))), false},
		{"empty attributes", model(nested(1, text(4, "Neg"), many(nested(5))), x, y), false},
		{"inputs of a node", model(nested(1, text(4, "Neg"), many(text(1, "x"))), x, y), false},
		{"outputs of a node", model(nested(1, text(4, "Neg"), text(1, "x"), many(text(2, "y"))), x, y), false},
		{"dimensions", model(treeNode(nil), nested(11, text(1, "x"), nested(2, nested(1, number(1, 1), nested(2, many(nested(1)))))), y), false},
		{"opsets", slices.Concat(model(treeNode(nil), x, y), many(nested(8))), false},
		{"producers", slices.Concat(number(1, 8), many(text(2, "a"))), false},
		{"nodes of a tree", treeWith("nodes_modes", strs("nodes_modes", slices.Repeat([]string{"LEAF"}, n)...)), false},
		{"integers", treeWith("nodes_treeids", ints("nodes_treeids", slices.Repeat([]int64{0}, n)...)), false},
		{"numbers", treeWith("nodes_values", floats("nodes_values", slices.Repeat([]float32{0}, n)...)), false},
		{"operands", model(aNode("", "Sum", slices.Repeat([]string{"x"}, n), []string{"z"}), treeNode(nil), x, y), true},
		{"products by one matrix", model(tensor("w", 1, []int64{20_000, 1}, nested(9, make([]byte, 80_000))), repeated(5000, "MatMul", "v", "w"), treeNode(nil), info(11, "v", 1, -1, 20_000), x, y), true},
		{"reductions of a wide input", model(repeated(5000, "ReduceSum", "w", "a"), tensor("a", 7, []int64{1}, number(7, 1)), treeNode(nil), info(11, "w", 1, -1, 20_000), x, y), false},
		{"a wide input", model(treeNode(nil), info(11, "w", 1, -1, 30_000), x, y), true},
		{"a chain", model(chain, treeNode(nil), x, y), true},
		{"depth", slices.Concat(number(1, 8), deep), false},
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

// repeated is n nodes that do the same.
func repeated(n int, op string, in ...string) []byte {
	var out []byte
	for i := range n {
		out = append(out, aNode("", op, in, []string{"r" + strconv.Itoa(i)})...)
	}
	return out
}

// FuzzParse looks for files that panic, that take more memory than ten times their size and 16 MB, or
// that load and then cannot be scored.
func FuzzParse(f *testing.F) {
	f.Add(model(treeNode(nil), x, y))
	f.Add(vectors(floats("coefficients", 1, -1)))
	f.Add(withFunctions([][]byte{own("f", []string{"a"}, []string{"b"}, aNode("", "Neg", []string{"a"}, []string{"b"}))}, aNode("own", "f", []string{"x"}, []string{"y"}), x, y))
	f.Add(vectors(slices.Concat(floats("prob_a", -1), floats("prob_b", 0.5))))
	f.Add(model(aNode("", "Concat", []string{"x", "x"}, []string{"c"}, whole32("axis", 0)), tensor("s", 7, []int64{2}, number(7, 2), number(7, -1)),
		tensor("t", 7, []int64{2}, number(7, -1), number(7, 2)), aNode("", "Flatten", []string{"x"}, []string{"f"}, whole32("axis", 0)),
		aNode("", "Reshape", []string{"f", "t"}, []string{"y"}), x, y))
	for _, prefix := range []string{"onnx-skl1.20.0-logistic", "onnx-skl1.20.0-frame-one-hot-logistic", "onnx-skl1.20.0-calibrated-svm", "onnx-skl1.20.0-ensemble-sum"} {
		cases, err := golden.Load("testdata", prefix)
		if err != nil {
			f.Fatal(err)
		}
		for _, c := range cases {
			f.Add(c.File)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m, err := Parse(data)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > uint64(10*len(data)+16<<20) {
			t.Fatalf("%d bytes of memory for %d", got, len(data))
		}
		if err == nil {
			golden.Exercise(t, m)
		}
	})
}
