package scoring

import (
	"fmt"
	"math"

	"github.com/churnstream/churnstream/schemas"
)

// ScorerConfig says what a scorer gives beside the probability.
type ScorerConfig struct {
	// Reasons is the number of reasons for each row, the largest contributions first; 0: none.
	Reasons int
	// Contributions asks for the contribution of every input to every row.
	Contributions bool
}

// Scorer scores batches by one model. Its scratch memory makes it fit for one goroutine; the model
// behind it is shared.
type Scorer struct {
	engine  *linear
	cfg     ScorerConfig
	scratch []float64 // contribution of each term of the row in hand
	codes   []int32   // its code
	top     []int32   // the terms of the largest contributions, descending
}

// Results holds the scores of one batch. It belongs to the caller, who gives it to the next Score
// again to reuse its memory; what it returned before is overwritten then. The zero value is ready.
type Results struct {
	// Margin and Probability have one element a row: log-odds, and the probability of churn in 0..1.
	// Both are NaN for a row that cannot be scored: a required input is missing or a number is not
	// finite.
	Margin, Probability []float64
	// Bias is the margin at the background. For every scored row, Bias plus the contributions of all
	// inputs is the margin up to rounding.
	Bias float64

	reasons       []schemas.Reason
	reasonEnds    []int32 // of row i: reasons[reasonEnds[i]:reasonEnds[i+1]]
	missing       []string
	missingEnds   []int32
	unseen        []string
	unseenEnds    []int32
	contributions []float64 // row-major
	width         int       // inputs in contributions, 0: not asked for
}

// Len returns the number of rows.
func (r *Results) Len() int { return len(r.Margin) }

// Reasons returns the largest contributions to the margin of a row, by absolute value, the largest
// first. A label is the input's name for a number and "Contract=Two year" for a category; a value
// that was missing or unknown shows as "Contract (missing)", "Contract (unseen)". Contributions of
// exactly 0 and rows that could not be scored give none.
func (r *Results) Reasons(row int) []schemas.Reason {
	return r.reasons[r.reasonEnds[row]:r.reasonEnds[row+1]:r.reasonEnds[row+1]]
}

// Missing returns the names of the inputs without a value, in the order of the contract.
func (r *Results) Missing(row int) []string {
	return r.missing[r.missingEnds[row]:r.missingEnds[row+1]:r.missingEnds[row+1]]
}

// Unseen returns the names of the inputs whose category the training data did not hold, in the
// order of the contract.
func (r *Results) Unseen(row int) []string {
	return r.unseen[r.unseenEnds[row]:r.unseenEnds[row+1]:r.unseenEnds[row+1]]
}

// Contributions returns the contribution of every input to the margin of a row, in the order of the
// contract; nil unless the scorer was asked for them.
func (r *Results) Contributions(row int) []float64 {
	if r.width == 0 {
		return nil
	}
	return r.contributions[row*r.width : (row+1)*r.width : (row+1)*r.width]
}

func (r *Results) reset(rows, width int) {
	r.Margin, r.Probability = resized(r.Margin, rows), resized(r.Probability, rows)
	r.contributions, r.width = resized(r.contributions, rows*width), width
	r.reasons, r.missing, r.unseen = r.reasons[:0], r.missing[:0], r.unseen[:0]
	r.reasonEnds = resized(r.reasonEnds, rows+1)
	r.missingEnds = resized(r.missingEnds, rows+1)
	r.unseenEnds = resized(r.unseenEnds, rows+1)
	r.reasonEnds[0], r.missingEnds[0], r.unseenEnds[0] = 0, 0, 0
}

func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/2)
	}
	return s[:n]
}

// NewScorer returns a scorer for one goroutine.
func (m *Model) NewScorer(cfg ScorerConfig) *Scorer {
	terms := m.engine.terms()
	cfg.Reasons = max(0, min(cfg.Reasons, terms))
	return &Scorer{
		engine:  m.engine,
		cfg:     cfg,
		scratch: make([]float64, terms),
		codes:   make([]int32, terms),
		top:     make([]int32, 0, cfg.Reasons+1),
	}
}

// Score fills out with the scores of rows, which must have been made for the model's contract. It
// does not allocate once out has grown to the size of the batches.
//
// Contributions are the exact interventional ones of a linear model against the artefact's
// background, coefficient·(x - background mean), those of one-hot columns added up over their input
// (Lundberg and Lee 2017, equation for linear models with independent features).
func (s *Scorer) Score(rows *schemas.Rows, out *Results) {
	e := s.engine
	if rows.Width() != len(e.inputs) {
		panic(fmt.Sprintf("BUG: rows of %d inputs for a model of %d", rows.Width(), len(e.inputs)))
	}
	width := 0
	if s.cfg.Contributions {
		width = rows.Width()
	}
	out.reset(rows.Len(), width)
	out.Bias = e.bias
	if s.cfg.Reasons > 0 || s.cfg.Contributions {
		s.scoreExplained(rows, out)
	} else {
		s.score(rows, out)
	}
}

func (s *Scorer) score(rows *schemas.Rows, out *Results) {
	row := 0
	for ; row+1 < rows.Len(); row += 2 {
		numbers, categories := rows.Row(row)
		numbers2, categories2 := rows.Row(row + 1)
		margin, margin2, irregular, irregular2 := s.engine.margin2(numbers, numbers2, categories, categories2)
		s.settle(row, margin, irregular, numbers, categories, out)
		s.settle(row+1, margin2, irregular2, numbers2, categories2, out)
	}
	if row < rows.Len() {
		numbers, categories := rows.Row(row)
		margin, irregular := s.engine.margin(numbers, categories)
		s.settle(row, margin, irregular, numbers, categories, out)
	}
}

func (s *Scorer) scoreExplained(rows *schemas.Rows, out *Results) {
	for row := range rows.Len() {
		numbers, categories := rows.Row(row)
		margin, irregular := s.engine.explain(numbers, categories, s.scratch, s.codes)
		s.settle(row, margin, irregular, numbers, categories, out)
		s.explain(row, out)
		out.reasonEnds[row+1] = int32(len(out.reasons))
	}
}

// settle writes the margin of a row, or NaN where there is none, and what was missing or unseen.
func (s *Scorer) settle(row int, margin float64, irregular bool, numbers []float64, categories [][]byte, out *Results) {
	if irregular && !s.note(numbers, categories, out) || margin-margin != 0 {
		margin = nan
	}
	out.Margin[row] = margin
	out.Probability[row] = 1 / (1 + math.Exp(-margin))
	out.reasonEnds[row+1] = int32(len(out.reasons))
	out.missingEnds[row+1] = int32(len(out.missing))
	out.unseenEnds[row+1] = int32(len(out.unseen))
}

// note lists what is missing or unseen in a row and reports whether it can be scored all the same.
func (s *Scorer) note(numbers []float64, categories [][]byte, out *Results) (scorable bool) {
	scorable = true
	for i := range s.engine.inputs {
		in := &s.engine.inputs[i]
		if in.missing(numbers[i], categories[i]) {
			out.missing = append(out.missing, in.name)
			scorable = scorable && in.nullable
		} else if in.encoding != nil && in.encoding.Lookup(categories[i]) == in.encoding.Len() {
			out.unseen = append(out.unseen, in.name)
		}
	}
	return scorable
}

// explain turns the contributions of the row's terms into what the caller asked for.
func (s *Scorer) explain(row int, out *Results) {
	unscored := math.IsNaN(out.Margin[row])
	if s.cfg.Contributions {
		all := out.Contributions(row)
		clear(all)
		for term, c := range s.scratch {
			if unscored {
				c = nan
			}
			all[s.engine.input(term)] = c
		}
	}
	if unscored || s.cfg.Reasons == 0 {
		return
	}
	// Insertion into a short sorted list: most terms are smaller than its last and cost one comparison.
	top, k := s.top[:0], s.cfg.Reasons
	least := 0.0 // of the list when it is full; contributions of 0 are no reasons
	for term, c := range s.scratch {
		size := math.Abs(c)
		if size <= least {
			continue
		}
		if len(top) == k {
			top = top[:k-1]
		}
		at := len(top)
		top = append(top, int32(term))
		for at > 0 && math.Abs(s.scratch[top[at-1]]) < size {
			top[at] = top[at-1]
			at--
		}
		top[at] = int32(term)
		if len(top) == k {
			least = math.Abs(s.scratch[top[k-1]])
		}
	}
	for _, term := range top {
		out.reasons = append(out.reasons, schemas.Reason{
			Feature:      s.engine.label(int(term), s.codes[term]),
			Contribution: s.scratch[term],
		})
	}
}
