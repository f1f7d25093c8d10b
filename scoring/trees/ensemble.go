package trees

import (
	"errors"
	"fmt"
	"math"
)

// Ensemble is a set of trees and the arithmetic that makes margins of their leaves. A row has
// Features numbers, NaN where a value is missing. Each row has Outputs margins.
//
// The margin of output k is
//
//	(Base[k] + Σ leaf) / Divisor
//
// over the trees of that output, in their order, or (Σ leaf)/Divisor + Base[k] with BaseLast.
type Ensemble struct {
	Features int
	Outputs  int
	Trees    []Tree

	// Input says what a number becomes before any node looks at it.
	Input Precision
	// TinyIsZero makes 0 of inputs within 1e-35 (as float32) of it, as LightGBM's predictor does.
	TinyIsZero bool
	// Sum is the precision of every leaf, addition and division. With Float32 a leaf is rounded
	// first, as XGBoost stores it.
	Sum Precision
	// Base holds one number for each output; nil stands for zeros.
	Base []float64
	// BaseLast adds the base after the division, not before the first leaf.
	BaseLast bool
	// Together, unless nil, names for each feature the one whose contribution takes its part: features
	// that are known or unknown together, because they were made of the same thing.
	Together []int32
	// Divisor is what the sum is divided by; 0 and 1 leave it as it is.
	Divisor float64
}

// Precision is one of the two binary floating-point formats.
type Precision uint8

// The precisions. Float32 of an input rounds to nearest even, as a C cast does.
const (
	Float64 Precision = iota
	Float32
)

// Tree is one decision tree. Its root is Nodes[0]; nodes that cannot be reached from there are left
// alone.
type Tree struct {
	// Output is the margin that a scalar leaf adds to.
	Output int
	Nodes  []Node
	// Sets are the category sets of splits of kind InSet, by Node.Set.
	Sets []Set
	// Vectors, unless empty, makes every leaf a vector: leaf n adds
	// Vectors[n.Leaf*Outputs : (n.Leaf+1)*Outputs] to the margins. Node.Value is not read then.
	Vectors []float64
	// Linear, unless empty, makes every leaf a linear model, by Node.Leaf.
	Linear []LinearLeaf
}

// Node is a split or a leaf.
type Node struct {
	// Left and Right are the children of a split, both -1 in a leaf.
	Left, Right int32
	// Feature is what a split looks at.
	Feature int32
	Kind    Kind
	// Missing says which values of Feature the split does not compare.
	Missing Missing
	// MissingLeft sends what is missing to the left.
	MissingLeft bool
	// SetRight sends what is in the set to the right (XGBoost) and not to the left (LightGBM).
	SetRight bool
	// Threshold is what a split compares with; it may be infinite, not NaN.
	Threshold float64
	// Set is the split's index into Tree.Sets.
	Set int32
	// Leaf is the leaf's index into Tree.Vectors or Tree.Linear.
	Leaf int32
	// Value is the leaf's value.
	Value float64
	// Cover is the weight of the training rows that reached the node. Only contributions need it.
	Cover float64
}

// Kind is the question of a split. The left child is for yes, except that a category in the set of
// a node with SetRight goes right.
type Kind uint8

// The kinds. A split by > or ≥ is one by ≤ or < with its children exchanged.
const (
	LessOrEqual Kind = iota // x ≤ Threshold
	Less                    // x < Threshold
	Equal                   // x = Threshold
	InSet                   // the integer part of x is in Sets[Set]
)

// Missing is a rule for values that are not there.
type Missing uint8

// The rules.
const (
	// NaNMissing: NaN goes where MissingLeft says.
	NaNMissing Missing = iota
	// ZeroMissing: NaN and whatever lies within 1e-35 (as float32) of zero goes where MissingLeft
	// says: LightGBM with zero_as_missing.
	ZeroMissing
	// NaNIsZero: NaN is compared as 0: LightGBM's splits on inputs that had nothing missing.
	NaNIsZero
)

// zeroBorder is LightGBM's kZeroThreshold.
const zeroBorder = float64(float32(1e-35))

// LinearLeaf is Constant + Σ Coefficients[i]·x[Features[i]], added in that order. When one of those
// x is NaN, the node's Value is taken instead. Its inputs are not rounded to Ensemble.Input.
type LinearLeaf struct {
	Constant     float64
	Features     []int32
	Coefficients []float64
}

// Validate reports the first fault that would make an engine compute nonsense, with tree and node.
// Time and memory grow with the number of nodes.
func (e *Ensemble) Validate() error {
	switch {
	case e.Features < 0 || e.Features > math.MaxInt32:
		return fmt.Errorf("%d features, want 0 to %d", e.Features, math.MaxInt32)
	case e.Outputs < 1:
		return fmt.Errorf("%d outputs, want at least 1", e.Outputs)
	case e.Input > Float32 || e.Sum > Float32:
		return errors.New("unknown precision")
	case e.Base != nil && len(e.Base) != e.Outputs:
		return fmt.Errorf("%d base values for %d outputs", len(e.Base), e.Outputs)
	case e.Together != nil && len(e.Together) != e.Features:
		return fmt.Errorf("%d features that go together of %d", len(e.Together), e.Features)
	case math.IsNaN(e.Divisor) || math.IsInf(e.Divisor, 0) || e.Divisor < 0:
		return fmt.Errorf("divisor %v, want a finite number above 0", e.Divisor)
	}
	for f, with := range e.Together {
		if with < 0 || int(with) >= e.Features {
			return fmt.Errorf("feature %d goes together with feature %d of %d", f, with, e.Features)
		}
	}
	for k, b := range e.Base {
		if !e.Sum.finite(b) {
			return fmt.Errorf("base[%d] is %v, want a finite number", k, b)
		}
	}
	for i := range e.Trees {
		if err := e.validate(&e.Trees[i]); err != nil {
			return fmt.Errorf("tree %d: %w", i, err)
		}
	}
	return nil
}

// finite reports whether x is a finite number of this precision.
func (p Precision) finite(x float64) bool {
	if p == Float32 {
		x = float64(float32(x))
	}
	return !math.IsNaN(x) && !math.IsInf(x, 0)
}

func (e *Ensemble) validate(t *Tree) error {
	switch {
	case len(t.Nodes) == 0:
		return errors.New("no nodes")
	case len(t.Nodes) > math.MaxInt32:
		return fmt.Errorf("%d nodes, at most %d are supported", len(t.Nodes), math.MaxInt32)
	case t.Output < 0 || t.Output >= e.Outputs:
		return fmt.Errorf("adds to output %d of %d", t.Output, e.Outputs)
	case len(t.Vectors) > 0 && len(t.Linear) > 0:
		return errors.New("leaves are both vectors and linear models")
	case len(t.Vectors)%e.Outputs != 0:
		return fmt.Errorf("%d numbers in the vectors of leaves, want a multiple of the %d outputs", len(t.Vectors), e.Outputs)
	}
	for i, x := range t.Vectors {
		if !e.Sum.finite(x) {
			return fmt.Errorf("vector %d of the leaves holds %v, want finite numbers", i/e.Outputs, x)
		}
	}
	for i := range t.Sets {
		if err := t.Sets[i].validate(); err != nil {
			return fmt.Errorf("category set %d: %w", i, err)
		}
	}
	for i := range t.Linear {
		if err := e.validateLinear(&t.Linear[i]); err != nil {
			return fmt.Errorf("linear leaf %d: %w", i, err)
		}
	}
	parent := make([]int32, len(t.Nodes)) // parent + 1 of what has been reached
	pending := []int32{0}
	for len(pending) > 0 {
		i := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		n := &t.Nodes[i]
		if err := e.validateNode(t, n); err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
		if n.Left < 0 {
			continue
		}
		for _, child := range [2]int32{n.Left, n.Right} {
			if child == 0 {
				return fmt.Errorf("node %d: its child is the root: the tree has a cycle", i)
			}
			if parent[child] != 0 {
				return fmt.Errorf("node %d: its child %d is a child of node %d already: the tree has a cycle or a shared node", i, child, parent[child]-1)
			}
			parent[child] = i + 1
			pending = append(pending, child)
		}
	}
	return nil
}

func (e *Ensemble) validateNode(t *Tree, n *Node) error {
	nodes := int32(len(t.Nodes))
	if n.Left < 0 && n.Right < 0 {
		switch {
		case n.Left != -1 || n.Right != -1:
			return fmt.Errorf("children %d and %d, want both -1 in a leaf", n.Left, n.Right)
		case len(t.Vectors) > 0:
			if n.Leaf < 0 || int(n.Leaf) >= len(t.Vectors)/e.Outputs {
				return fmt.Errorf("leaf with vector %d of %d", n.Leaf, len(t.Vectors)/e.Outputs)
			}
			return nil
		case len(t.Linear) > 0 && (n.Leaf < 0 || int(n.Leaf) >= len(t.Linear)):
			return fmt.Errorf("leaf with linear model %d of %d", n.Leaf, len(t.Linear))
		case !e.Sum.finite(n.Value):
			return fmt.Errorf("leaf value %v, want a finite number", n.Value)
		}
		return nil
	}
	switch {
	case n.Left < 0 || n.Right < 0 || n.Left >= nodes || n.Right >= nodes:
		return fmt.Errorf("children %d and %d of %d nodes", n.Left, n.Right, nodes)
	case n.Feature < 0 || int(n.Feature) >= e.Features:
		return fmt.Errorf("splits on feature %d of %d", n.Feature, e.Features)
	case n.Kind > InSet:
		return fmt.Errorf("unknown kind of split %d", n.Kind)
	case n.Missing > NaNIsZero:
		return fmt.Errorf("unknown rule for missing values %d", n.Missing)
	case n.Kind == InSet && (n.Set < 0 || int(n.Set) >= len(t.Sets)):
		return fmt.Errorf("splits by category set %d of %d", n.Set, len(t.Sets))
	case n.Kind != InSet && math.IsNaN(n.Threshold):
		return errors.New("its threshold is NaN")
	}
	return nil
}

func (e *Ensemble) validateLinear(l *LinearLeaf) error {
	if len(l.Features) != len(l.Coefficients) {
		return fmt.Errorf("%d coefficients for %d features", len(l.Coefficients), len(l.Features))
	}
	if !Float64.finite(l.Constant) {
		return fmt.Errorf("constant %v, want a finite number", l.Constant)
	}
	for i, f := range l.Features {
		if f < 0 || int(f) >= e.Features {
			return fmt.Errorf("reads feature %d of %d", f, e.Features)
		}
		if !Float64.finite(l.Coefficients[i]) {
			return fmt.Errorf("coefficient %v of feature %d, want a finite number", l.Coefficients[i], f)
		}
	}
	return nil
}
