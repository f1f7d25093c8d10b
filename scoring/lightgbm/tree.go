package lightgbm

import (
	"fmt"
	"math"
	"strconv"

	"github.com/churnstream/churnstream/scoring/trees"
)

// The bits of decision_type.
const (
	categoryBit = 1 << 0
	leftBit     = 1 << 1
	missingBits = 2 // two bits from here: 0 none, 1 zero, 2 NaN
)

// convert makes the neutral form of one tree. Splits keep their numbers, leaf i becomes node splits+i.
func convert(s *section) (trees.Tree, error) {
	leaves, err := s.integer("num_leaves", 1, math.MaxInt32/2)
	if err != nil {
		return trees.Tree{}, err
	}
	values, err := s.floats("leaf_value", leaves)
	if err != nil {
		return trees.Tree{}, err
	}
	splits := leaves - 1
	t := trees.Tree{Nodes: make([]trees.Node, splits+leaves)}
	for i := range t.Nodes {
		t.Nodes[i].Cover = math.NaN()
	}
	for i, v := range values {
		n := &t.Nodes[splits+i]
		n.Left, n.Right, n.Leaf, n.Value = -1, -1, int32(i), v
	}
	if err := covers(s, &t, splits, leaves); err != nil {
		return t, err
	}
	if s.has("is_linear") {
		linear, err := s.integer("is_linear", 0, 1)
		if err != nil {
			return t, err
		}
		if linear == 1 {
			if t.Linear, err = linearLeaves(s, leaves); err != nil {
				return t, err
			}
		}
	}
	if splits == 0 {
		return t, nil
	}
	return t, convertSplits(s, &t, splits)
}

// covers sets the row counts that contributions weigh by.
func covers(s *section, t *trees.Tree, splits, leaves int) error {
	for _, c := range []struct {
		key     string
		from, n int
	}{{"internal_count", 0, splits}, {"leaf_count", splits, leaves}} {
		if !s.has(c.key) || splits == 0 { // a lone leaf needs none, and LightGBM 3 gives it none
			continue
		}
		counts, err := s.integers(c.key, c.n)
		if err != nil {
			return err
		}
		for i, n := range counts {
			t.Nodes[c.from+i].Cover = float64(n)
		}
	}
	return nil
}

func convertSplits(s *section, t *trees.Tree, splits int) error {
	left, err := s.integers("left_child", splits)
	if err != nil {
		return err
	}
	right, err := s.integers("right_child", splits)
	if err != nil {
		return err
	}
	feature, err := s.integers("split_feature", splits)
	if err != nil {
		return err
	}
	threshold, err := s.floats("threshold", splits)
	if err != nil {
		return err
	}
	decision := make([]int32, splits)
	if s.has("decision_type") {
		if decision, err = s.integers("decision_type", splits); err != nil {
			return err
		}
	}
	if t.Sets, err = sets(s); err != nil {
		return err
	}
	node := func(child int32) int32 {
		if child < 0 {
			return int32(splits) + ^child
		}
		return child
	}
	for i := range splits {
		n := &t.Nodes[i]
		n.Left, n.Right, n.Feature = node(left[i]), node(right[i]), feature[i]
		if max(left[i], right[i]) >= int32(splits) || min(left[i], right[i]) < -int32(splits)-1 {
			return fmt.Errorf("split %d: children %d and %d of %d splits and %d leaves", i, left[i], right[i], splits, splits+1)
		}
		d := decision[i]
		if d < 0 || d>>missingBits > 2 {
			return fmt.Errorf("split %d: decision_type %d is unknown", i, d)
		}
		if d&categoryBit != 0 {
			n.Kind = trees.InSet
			set := int32(-1)
			if x := threshold[i]; x >= 0 && x < float64(len(t.Sets)) {
				set = int32(x)
			}
			if set < 0 {
				return fmt.Errorf("split %d: category set %v of %d", i, threshold[i], len(t.Sets))
			}
			n.Set = set
			continue // NaN goes right
		}
		n.Threshold, n.MissingLeft = threshold[i], d&leftBit != 0
		n.Missing = [...]trees.Missing{trees.NaNIsZero, trees.ZeroMissing, trees.NaNMissing}[d>>missingBits]
	}
	return nil
}

// sets are the bit sets of the categorical splits.
func sets(s *section) ([]trees.Set, error) {
	n, err := s.integer("num_cat", 0, math.MaxInt32-1)
	if err != nil || n == 0 {
		return nil, err
	}
	borders, err := s.integers("cat_boundaries", n+1)
	if err != nil {
		return nil, err
	}
	words := []uint32{}
	err = s.words("cat_threshold", -1, func(_ int, word []byte) error {
		x, err := strconv.ParseUint(string(word), 10, 32)
		if err != nil {
			return fmt.Errorf("%.40q is not a 32-bit word", word)
		}
		words = append(words, uint32(x))
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]trees.Set, n)
	for i := range out {
		from, to := borders[i], borders[i+1]
		if from < 0 || from > to || int(to) > len(words) {
			return nil, fmt.Errorf("cat_boundaries[%d]: words %d to %d of %d", i, from, to, len(words))
		}
		out[i] = trees.Set{Bits: words[from:to], FromZero: true}
	}
	return out, nil
}

// linearLeaves are the linear models of the leaves.
func linearLeaves(s *section, leaves int) ([]trees.LinearLeaf, error) {
	constants, err := s.floats("leaf_const", leaves)
	if err != nil {
		return nil, err
	}
	counts, err := s.integers("num_features", leaves)
	if err != nil {
		return nil, err
	}
	total := 0
	for i, n := range counts {
		if n < 0 {
			return nil, fmt.Errorf("num_features[%d] is %d", i, n)
		}
		total += int(n)
	}
	features, err := s.integers("leaf_features", total)
	if err != nil {
		return nil, err
	}
	coefficients, err := s.floats("leaf_coeff", total)
	if err != nil {
		return nil, err
	}
	out := make([]trees.LinearLeaf, leaves)
	for i, n := range counts {
		out[i] = trees.LinearLeaf{Constant: constants[i], Features: features[:n:n], Coefficients: coefficients[:n:n]}
		features, coefficients = features[n:], coefficients[n:]
	}
	return out, nil
}
