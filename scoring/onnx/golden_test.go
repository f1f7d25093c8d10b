package onnx

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/internal/golden"
	"github.com/churnstream/churnstream/scoring/trees"
)

// TestModelsScoreAsONNXRuntime holds models of two versions of the converters against what ONNX Runtime
// made of the same rows (python/goldens/onnxes.py).
func TestModelsScoreAsONNXRuntime(t *testing.T) {
	cases, err := golden.Load("testdata", "onnx-")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		most := 1.0
		switch { // logarithms are those of ONNX Runtime 1.31; these models enlarge what others are off by
		case strings.Contains(c.Name, "skl1.14.1-adaboost"):
			most = 4
		case strings.Contains(c.Name, "skl1.14.1-bernoulli"):
			most = 16
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			m, err := Parse(c.File)
			if err != nil {
				t.Fatal(err)
			}
			for column, texts := range c.Categories {
				k, err := strconv.Atoi(column)
				if err != nil || m.Categories[k].Number == nil {
					t.Fatalf("input %s is no category: %v", column, err)
				}
				for i := range c.Rows.Rows {
					x := &c.Rows.Row(i)[k]
					*x = m.Categories[k].Number([]byte(texts[int(*x)]))
				}
			}
			e := m.Engine
			if e.Features() != c.Rows.Width || e.Outputs() != c.Predictions.Width {
				t.Fatalf("%d features and %d outputs, want %d and %d", e.Features(), e.Outputs(), c.Rows.Width, c.Predictions.Width)
			}
			var s trees.Scratch
			margins := make([]float64, c.Rows.Rows*e.Outputs())
			e.Margins(c.Rows.Numbers, c.Rows.Rows, margins, &s)
			got, alone := make([]float64, e.Outputs()), make([]float64, e.Outputs())
			worst := 0.0
			for i := range c.Rows.Rows {
				m.Link.Apply(margins[i*e.Outputs():(i+1)*e.Outputs()], got)
				e.Margins(c.Rows.Row(i), 1, alone, &s)
				m.Link.Apply(alone, alone)
				for k, want := range c.Predictions.Row(i) {
					off := units(got[k], want)
					if worst = max(worst, off); off > most || math.Float64bits(alone[k]) != math.Float64bits(got[k]) {
						t.Fatalf("row %d, output %d: in a batch %v, alone %v, want %v (%v units in the last place)", i, k, got[k], alone[k], want, off)
					}
				}
			}
			t.Logf("within %v float32 units in the last place", worst)
		})
	}
}

// units is how many float32 numbers lie between two.
func units(got, want float64) float64 {
	switch {
	case got == want || got != got && want != want:
		return 0
	case got != got || want != want:
		return math.Inf(1)
	}
	place := func(x float64) float64 {
		b := math.Float32bits(float32(x))
		if b>>31 != 0 {
			return -float64(b &^ (1 << 31))
		}
		return float64(b)
	}
	return math.Abs(place(got) - place(want))
}

// TestInputsOfFloatAreRounded: graphs of float take rows of float64, and no more of them than a float32 holds.
func TestInputsOfFloatAreRounded(t *testing.T) {
	for _, name := range []string{"scale-standard", "forest-3", "logistic", "svm-vote", "quantile"} {
		name = "onnx-skl1.20.0-" + name
		cases, err := golden.Load("testdata", name)
		if err != nil {
			t.Fatal(err)
		}
		c := cases[slices.IndexFunc(cases, func(c golden.Case) bool { return c.Name == name })]
		m, err := Parse(c.File)
		if err != nil {
			t.Fatal(err)
		}
		rows := c.Rows
		wide, narrow := make([]float64, len(rows.Numbers)), make([]float64, len(rows.Numbers))
		for i, x := range rows.Numbers {
			wide[i] = x * (1 + 3e-8)
			narrow[i] = float64(float32(wide[i]))
		}
		got, want := make([]float64, rows.Rows*m.Engine.Outputs()), make([]float64, rows.Rows*m.Engine.Outputs())
		var s trees.Scratch
		m.Engine.Margins(wide, rows.Rows, got, &s)
		m.Engine.Margins(narrow, rows.Rows, want, &s)
		for i := range got {
			if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
				t.Errorf("%s: margin %d is %v of float64, %v of float32", name, i, got[i], want[i])
				break
			}
		}
	}
}
