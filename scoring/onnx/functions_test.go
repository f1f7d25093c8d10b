package onnx

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/internal/golden"
	"github.com/churnstream/churnstream/scoring/trees"
)

// own is a function of the domain "own".
func own(name string, inputs, outputs []string, nodes ...[]byte) []byte {
	out := text(1, name)
	for _, s := range inputs {
		out = append(out, text(4, s)...)
	}
	for _, s := range outputs {
		out = append(out, text(5, s)...)
	}
	for _, n := range nodes { // a node of a graph is field 1, of a function 7
		message := n[1:]
		out = append(out, 7<<3|2)
		out = append(out, message...)
	}
	return nested(25, out, nested(9, text(1, ""), number(2, 21)), nested(9, text(1, "own"), number(2, 1)), text(10, "own"))
}

func withFunctions(functions [][]byte, graph ...[]byte) []byte {
	return slices.Concat(model(graph...), nested(8, text(1, "own"), number(2, 1)), slices.Concat(functions...))
}

func TestNodesOfFunctionsRunWithTheirInputs(t *testing.T) {
	twice := own("twice", []string{"a"}, []string{"b"}, aNode("", "Add", []string{"a", "a"}, []string{"b"}))
	both := own("both", []string{"a", "c"}, []string{"b", "d"},
		aNode("own", "twice", []string{"a"}, []string{"x"}), aNode("", "Sub", []string{"x", "c"}, []string{"b"}), aNode("", "Neg", []string{"x"}, []string{"d"}))
	m, err := Parse(withFunctions([][]byte{twice, both},
		aNode("own", "both", []string{"x", "x"}, []string{"u", "v"}), aNode("", "Concat", []string{"u", "v"}, []string{"y"}, whole32("axis", 1)), x, y))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, 4)
	m.Engine.Margins([]float64{3, -5}, 1, out, &trees.Scratch{})
	if want := []float64{3, -5, -6, 10}; !slices.Equal(out, want) {
		t.Errorf("%v, want %v", out, want)
	}
}

func TestDamagedFunctionsAreRefused(t *testing.T) {
	neg := aNode("", "Neg", []string{"a"}, []string{"b"})
	call := aNode("own", "f", []string{"x"}, []string{"y"})
	in, out := []string{"a"}, []string{"b"}
	var doubling [][]byte
	for i := range 20 {
		inner := "d" + string(rune('a'+i+1))
		doubling = append(doubling, own("d"+string(rune('a'+i)), in, out, aNode("own", inner, in, []string{"m"}), aNode("own", inner, []string{"m"}, out)))
	}
	doubling = append(doubling, own("du", in, out, neg), own("f", in, out, aNode("own", "da", in, out)))
	for _, c := range []struct {
		name      string
		functions [][]byte
		nodes     []byte
		want      string
	}{
		{"a function that calls itself", [][]byte{own("f", in, out, aNode("own", "f", in, out))}, call, "more than 1000 nodes"},
		{"functions that call two each", doubling, call, "more than 1000 nodes"},
		{"two functions of one name", [][]byte{own("f", in, out, neg), own("f", in, out, neg)}, call, `function 1: "f" of "own" is there twice`},
		{"a function of an unknown operator", [][]byte{own("f", in, out, aNode("", "Scan", in, out))}, call, `node 0 "n" (Scan) of the function "f": the operator Scan`},
		{"an output that no node makes", [][]byte{own("f", in, out)}, call, `no node of the function "f" makes its output "b"`},
		{"too many inputs", [][]byte{own("f", nil, out, neg)}, call, "1 inputs, 1 outputs and 0 attributes for a function of 0, 1 and none"},
		{"attributes", [][]byte{own("f", in, out, neg)}, aNode("own", "f", []string{"x"}, []string{"y"}, whole32("k", 1)), "1 attributes for a function"},
		{"attributes that are handed on", [][]byte{own("f", in, out, aNode("", "Softmax", in, out, nested(5, text(1, "axis"), number(20, 2), text(21, "k"))))}, call, "attributes that a function hands on"},
		{"declared attributes", [][]byte{nested(25, text(1, "f"), text(6, "k"), text(10, "own"))}, call, `function 0 "f": attributes are not supported`},
		{"an input that nobody makes", [][]byte{own("f", in, out, neg)}, aNode("own", "f", []string{"z"}, []string{"y"}), `no node before makes its input "z"`},
		{"a choice of rows", [][]byte{own("f", in, out, neg)}, aNode("", "NonZero", []string{"x"}, []string{"y"}), "the operator NonZero of ai.onnx, opset 21, is not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(withFunctions(c.functions, c.nodes, x, y))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestChangedFunctionsOfAnImputerAreRefused changes a byte in each of what the native form of a KNNImputer stands for.
func TestChangedFunctionsOfAnImputerAreRefused(t *testing.T) {
	cases, err := golden.Load("testdata", "onnx-skl1.20.0-impute-neighbours-four")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"dist_pot_donors", "all_nan_receivers_idx", "TopK", "ReduceMin"} {
		changed := []byte(strings.ReplaceAll(string(cases[0].File), word, strings.Repeat("z", len(word))))
		if _, err := Parse(changed); err == nil || !strings.Contains(err.Error(), "is not supported") {
			t.Errorf("%s: error %v", word, err)
		}
	}
}

func TestImputerTakesTheNearestDonorsWithADistance(t *testing.T) {
	nan := math.NaN()
	add := func(x, y float64) float64 { return float64(float32(x + y)) }
	for _, c := range []struct {
		name      string
		distances []float64
		want      float64
	}{
		{"the two nearest", []float64{3, 1, 9, 2}, 60},
		{"of equal ones the first", []float64{1, 1, 1, 1}, 15},
		{"one without a distance", []float64{nan, nan, 5, nan}, 40},
		{"none with a distance: the mean", []float64{nan, nan, nan, nan}, 42.5},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &imputer{donors: []int{0, 1, 2, 3}, values: []float64{10, 20, 40, 100}, mean: 42.5, neighbours: 2}
			if got := m.impute(c.distances, make([]float64, 6), add); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
