package scoring

import (
	"errors"
	"fmt"

	"github.com/churnstream/churnstream/scoring/booster"
)

// explainer gives the contributions to one column. For every row that is not refused, its base plus
// all contributions is the column's value up to rounding.
type explainer interface {
	// base is what is left without any contribution.
	base() float64
	// add adds weight × the contribution of each group to to, which has one element a group. The
	// registers must hold the row.
	add(f *frame, row int, weight float64, to []float64)
}

// explainSum explains a linear model over registers: by its own columns and their background
// (Lundberg and Lee 2017: coefficient·(x - mean), exact for features taken as independent), or, if
// it has no background, through what its columns are themselves made of.
func (c *compiler) explainSum(in []column, op *weightedSum, background []float64) explainer {
	if background == nil {
		s := &explainedSum{weights: op.weights, constant: op.intercept}
		for i := range in {
			part, ok := c.explain[in[i].slot]
			if !ok {
				return nil
			}
			s.parts = append(s.parts, part)
			s.constant += op.weights[i] * part.base()
		}
		return s
	}
	groups, ok := groupsOf(in)
	if !ok {
		return nil
	}
	e := &explainedLinear{from: op.from, groups: groups, weights: op.weights, background: background, bias: op.intercept}
	for i := range in {
		e.bias += float64(op.weights[i] * background[i])
	}
	return e
}

// groupsOf gives the input that each column belongs to; not ok: a column is of several inputs. A constant column's
// contribution is 0, whichever input it is added to.
func groupsOf(in []column) (groups []int32, ok bool) {
	for i := range in {
		group := in[i].group
		switch {
		case group == constantGroup:
			group = 0
		case group < 0:
			return nil, false
		}
		groups = append(groups, group)
	}
	return groups, true
}

type explainedLinear struct {
	from, groups        []int32
	weights, background []float64
	bias                float64
}

func (e *explainedLinear) base() float64 { return e.bias }

func (e *explainedLinear) add(f *frame, row int, weight float64, to []float64) {
	for i, slot := range e.from {
		x := f.registers[int(slot)*f.lanes+row]
		to[e.groups[i]] += weight * (float64(x*e.weights[i]) - float64(e.weights[i]*e.background[i]))
	}
}

// explainedSum is a sum of explained columns: a vote, or the affine part of a calibration.
type explainedSum struct {
	parts    []explainer
	weights  []float64
	constant float64
}

func (e *explainedSum) base() float64 { return e.constant }

func (e *explainedSum) add(f *frame, row int, weight float64, to []float64) {
	for i, part := range e.parts {
		part.add(f, row, weight*e.weights[i], to)
	}
}

// explainTerms explains a sum of one term a column, scaled, by how far each is from its mean over the
// training rows: exact for columns taken as independent. background holds the means by output; nil:
// the sum stays unexplained.
func (c *compiler) explainTerms(
	in []column, slot int32, output, outputs int, background []Floats, constant, scale float64, term func(i int, x float64) float64,
) error {
	if background == nil {
		return nil
	}
	if len(background) != outputs {
		return fmt.Errorf("background: %d lists for %d outputs", len(background), outputs)
	}
	means := background[output]
	what := fmt.Sprintf("background[%d]", output)
	if err := errors.Join(sameLength(what, len(means), len(in)), allBounded(what, means)); err != nil {
		return err
	}
	groups, ok := groupsOf(in)
	if !ok {
		return nil
	}
	e := &explainedTerms{groups: groups, means: means, scale: scale, bias: constant, term: term}
	for i := range in {
		e.from = append(e.from, in[i].slot)
		e.bias += scale * means[i]
	}
	c.explain[slot] = e
	return nil
}

type explainedTerms struct {
	from, groups []int32
	means        []float64
	scale, bias  float64
	term         func(i int, x float64) float64
}

func (e *explainedTerms) base() float64 { return e.bias }

func (e *explainedTerms) add(f *frame, row int, weight float64, to []float64) {
	for i, slot := range e.from {
		x := f.registers[int(slot)*f.lanes+row]
		to[e.groups[i]] += weight * e.scale * (e.term(i, x) - e.means[i])
	}
}

// explainedTrees gives the contributions to one margin of a tree ensemble.
type explainedTrees struct {
	engine booster.Engine
	from   []int32
	groups []int32
	output int
	bias   float64
}

// explainTrees notes how each margin of an ensemble is explained, where the engine can and every
// column that it reads belongs to one input.
func (c *compiler) explainTrees(e booster.Engine, in []column, from, margins []int32) {
	groups, ok := groupsOf(in)
	if !ok || e.Explains() != nil {
		return
	}
	for k, slot := range margins {
		c.explain[slot] = &explainedTrees{e, from, groups, k, e.Bias()[k]}
	}
}

func (e *explainedTrees) base() float64 { return e.bias }

func (e *explainedTrees) add(f *frame, row int, weight float64, to []float64) {
	features := len(e.from)
	f.matrix = resized(f.matrix, features)
	for i, slot := range e.from {
		f.matrix[i] = f.registers[int(slot)*f.lanes+row]
	}
	f.out = resized(f.out, features*e.engine.Outputs())
	e.engine.Contributions(f.matrix, f.out, &f.scratch)
	for i, c := range f.out[e.output*features : (e.output+1)*features] {
		to[e.groups[i]] += weight * c
	}
}
