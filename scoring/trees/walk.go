package trees

// walk adds a row's leaf of a tree that is not laid out to out.
func (e *Ensemble) walk(t *Tree, row, out []float64) {
	n := &t.Nodes[0]
	for n.Left >= 0 {
		n = &t.Nodes[t.next(n, e.input(row[n.Feature]))]
	}
	switch {
	case len(t.Vectors) > 0:
		for k, v := range t.Vectors[int(n.Leaf)*e.Outputs : (int(n.Leaf)+1)*e.Outputs] {
			out[k] = e.Sum.round(out[k] + e.Sum.round(v))
		}
	case len(t.Linear) > 0:
		out[t.Output] = e.Sum.round(out[t.Output] + e.Sum.round(t.Linear[n.Leaf].at(row, n.Value, e.TinyIsZero)))
	default:
		out[t.Output] = e.Sum.round(out[t.Output] + e.Sum.round(n.Value))
	}
}

// input is what nodes compare of a number.
func (e *Ensemble) input(x float64) float64 {
	if e.TinyIsZero && tiny(x) {
		return 0
	}
	return e.Input.round(x)
}

func tiny(x float64) bool { return x >= -zeroBorder && x <= zeroBorder }

// next is the child that x goes to; x is an input as nodes compare it.
func (t *Tree) next(n *Node, x float64) int32 {
	left := false
	switch {
	case x != x && n.Missing != NaNIsZero, n.Missing == ZeroMissing && tiny(x):
		left = n.MissingLeft
	default:
		if x != x {
			x = 0
		}
		switch n.Kind {
		case LessOrEqual:
			left = x <= n.Threshold
		case Less:
			left = x < n.Threshold
		case Equal:
			left = x == n.Threshold
		case InSet:
			left = t.Sets[n.Set].Has(x) != n.SetRight
		}
	}
	if left {
		return n.Left
	}
	return n.Right
}

// at is the leaf's value at a row.
func (l *LinearLeaf) at(row []float64, fallback float64, tinyIsZero bool) float64 {
	sum := l.Constant
	for i, f := range l.Features {
		x := row[f]
		if x != x {
			return fallback
		}
		if tinyIsZero && tiny(x) {
			x = 0
		}
		sum += float64(l.Coefficients[i] * x)
	}
	return sum
}
