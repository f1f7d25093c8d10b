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
	// ReasonsFrom is the least probability that gets reasons; 0: every row does.
	ReasonsFrom float64
	// ReasonsOnRequest gives reasons to those rows only that [Scorer.Request] was called for.
	ReasonsOnRequest bool
	// Contributions asks for the contribution of every input to every row.
	Contributions bool
}

// Scorer scores batches by one model. Its scratch memory makes it fit for one goroutine; the model
// behind it is shared.
type Scorer struct {
	program *program
	cfg     ScorerConfig
	frame   *frame
	mixer   *mixer    // nil: the model has contributions of its own, or none are asked for
	scratch []float64 // contribution of each group of the row in hand
	top     []int32   // the groups of the largest contributions, descending
	asked   []bool    // for reasons, by row of the next batch
}

// Request says whether a row of the next batch is to get reasons. It is called once a row, in their
// order, and what was said is forgotten with the batch; a row that nothing was said of gets none.
func (s *Scorer) Request(row int, reasons bool) { s.asked = append(s.asked[:row], reasons) }

// Results holds the scores of one batch. It belongs to the caller, who gives it to the next Score
// again to reuse its memory; what it returned before is overwritten then. The zero value is ready.
type Results struct {
	// Margin and Probability have one element a row: the model's raw output (log-odds for most), and
	// the probability of churn in 0..1. Both are NaN for a row that cannot be scored; Refused says why.
	Margin, Probability []float64
	// Bias is the margin of the positive class without any contribution. For every scored row, Bias
	// plus all contributions is the margin up to rounding.
	Bias float64
	// Biases are the same for every class; one for a model of two classes.
	Biases []float64

	refused       []*schemas.RecordError
	margins       []float64 // row-major, classes wide
	probabilities []float64 // likewise
	classes       int       // 0: there are only two

	reasons       []schemas.Reason
	reasonEnds    []int32 // of row i: reasons[reasonEnds[i]:reasonEnds[i+1]]
	missing       []string
	missingEnds   []int32
	unseen        []string
	unseenEnds    []int32
	contributions []float64 // row-major
	width         int       // groups in contributions, 0: not asked for
	explained     int       // classes in contributions
	positive      int
}

// Refused says why a row has no score: a required input is missing, a category is unknown to a model
// that was trained to refuse that, or a number is infinite or too large. It is nil for a scored row.
func (r *Results) Refused(row int) *schemas.RecordError { return r.refused[row] }

// Margins returns the raw output for each class; nil for a model of two classes.
func (r *Results) Margins(row int) []float64 { return window(r.margins, row, r.classes) }

// Probabilities returns the probability of each class; nil for a model of two classes.
func (r *Results) Probabilities(row int) []float64 { return window(r.probabilities, row, r.classes) }

func window(list []float64, row, width int) []float64 {
	if width == 0 {
		return nil
	}
	return list[row*width : (row+1)*width : (row+1)*width]
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

// Contributions returns the contributions to the margin of a row, in the order of
// [Model.Explained]; nil unless the scorer was asked for them and the model has some.
func (r *Results) Contributions(row int) []float64 { return r.ContributionsTo(row, r.positive) }

// ContributionsTo returns the same for one of the classes of a model of more than two.
func (r *Results) ContributionsTo(row, class int) []float64 {
	return window(r.contributions, row*r.explained+class, r.width)
}

func (r *Results) reset(rows, width, classes int) {
	r.Margin, r.Probability = resized(r.Margin, rows), resized(r.Probability, rows)
	r.refused = resized(r.refused, rows)
	r.margins, r.probabilities, r.classes = resized(r.margins, rows*classes), resized(r.probabilities, rows*classes), classes
	r.contributions, r.width, r.explained = resized(r.contributions, rows*width*max(1, classes)), width, max(1, classes)
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
	p := m.program
	cfg.Reasons = max(0, min(cfg.Reasons, len(p.groups)))
	if !p.explains() {
		cfg.Reasons, cfg.Contributions = 0, false
	}
	s := &Scorer{program: p, cfg: cfg, frame: newFrame(p)}
	if cfg.Reasons > 0 || cfg.Contributions {
		if p.mixed != nil {
			s.mixer = p.mixed.mixer(p)
		}
		s.scratch = make([]float64, len(p.groups))
		s.top = make([]int32, 0, cfg.Reasons+1)
	}
	return s
}

// Score fills out with the scores of rows, which must have been made for the model's contract. It
// does not allocate once out and the scorer have grown to the size of the batches.
func (s *Scorer) Score(rows *schemas.Rows, out *Results) {
	p := s.program
	if rows.Width() != len(p.inputs) {
		panic(fmt.Sprintf("BUG: rows of %d inputs for a model of %d", rows.Width(), len(p.inputs)))
	}
	width, classes := 0, 0
	if s.cfg.Contributions {
		width = len(p.groups)
	}
	if len(p.probabilities) > 1 {
		classes = len(p.probabilities)
	}
	out.reset(rows.Len(), width, classes)
	out.positive = p.positive
	out.Biases = append(out.Biases[:0], p.biases...)
	if p.explains() {
		out.Bias = out.Biases[p.positive]
	}
	for first := 0; first < rows.Len(); first += p.lanes {
		s.frame.take(rows, first, min(p.lanes, rows.Len()-first))
		p.run(s.frame)
		s.settle(out)
	}
	s.asked = s.asked[:0]
}

// wants reports whether a scored row gets reasons.
func (s *Scorer) wants(row int, probability float64) bool {
	return s.cfg.Reasons > 0 && probability >= s.cfg.ReasonsFrom && (!s.cfg.ReasonsOnRequest || row < len(s.asked) && s.asked[row])
}

// settle takes the rows of the frame into the results.
func (s *Scorer) settle(out *Results) {
	p, f := s.program, s.frame
	margins, probabilities := f.column(p.margins[p.positive]), f.column(p.probabilities[p.positive])
	explained := s.cfg.Reasons > 0 || s.cfg.Contributions
	for r := range f.n {
		row := f.first + r
		if f.irregular[r] {
			s.note(r, out)
		}
		margin, probability, cause := margins[r], probabilities[r], f.refused[r]
		if cause == nil && !(margin-margin == 0 && probability >= 0 && probability <= 1) {
			cause = p.noNumber
		}
		if cause != nil {
			margin, probability = nan, nan
		}
		out.Margin[row], out.Probability[row], out.refused[row] = margin, probability, cause
		for k := range out.classes {
			at := row*out.classes + k
			out.margins[at], out.probabilities[at] = nan, nan
			if cause == nil {
				out.margins[at], out.probabilities[at] = f.column(p.margins[k])[r], f.column(p.probabilities[k])[r]
			}
		}
		if explained {
			s.explain(r, out)
		}
		out.reasonEnds[row+1] = int32(len(out.reasons))
		out.missingEnds[row+1] = int32(len(out.missing))
		out.unseenEnds[row+1] = int32(len(out.unseen))
	}
}

// note lists what is missing or unseen in a row and refuses it if a required input is missing.
func (s *Scorer) note(r int, out *Results) {
	numbers, categories := s.frame.rows.Row(s.frame.first + r)
	for i := range s.program.inputs {
		in := &s.program.inputs[i]
		switch {
		case in.missing(numbers[i], categories[i]):
			out.missing = append(out.missing, in.name)
			if !in.nullable {
				s.frame.refuse(r, in.errors.missing)
			}
		case in.unseen(numbers[i], categories[i]):
			out.unseen = append(out.unseen, in.name)
		}
	}
}

// explain adds up the contributions of a row and gives the caller what was asked for.
func (s *Scorer) explain(r int, out *Results) {
	row := s.frame.first + r
	unscored := math.IsNaN(out.Margin[row])
	if s.cfg.Contributions {
		if !unscored {
			s.mix(r)
		}
		for class := range s.program.biases {
			to := out.ContributionsTo(row, class)
			if !unscored {
				s.contribute(r, class, to)
				continue
			}
			for i := range to {
				to[i] = nan
			}
		}
		if unscored {
			return
		}
		all := out.Contributions(row)
		if s.wants(row, out.Probability[row]) {
			s.choose(row, all, out)
		}
		return
	}
	if unscored || !s.wants(row, out.Probability[row]) {
		return
	}
	s.mix(r)
	s.contribute(r, s.program.positive, s.scratch)
	s.choose(row, s.scratch, out)
}

// mix asks about the mixtures of a row, where that is how the model is explained.
func (s *Scorer) mix(r int) {
	if s.mixer != nil {
		numbers, categories := s.frame.rows.Row(s.frame.first + r)
		s.mixer.explain(numbers, categories, s.frame, r)
	}
}

// contribute fills to with the contributions to a class.
func (s *Scorer) contribute(r, class int, to []float64) {
	if s.mixer != nil {
		copy(to, s.mixer.contributions[class*len(to):(class+1)*len(to)])
		return
	}
	clear(to)
	s.program.explain[class].add(s.frame, r, 1, to)
}

// choose makes the largest contributions the reasons of a row.
func (s *Scorer) choose(row int, contributions []float64, out *Results) {
	// Insertion into a short sorted list: most are smaller than its last and cost one comparison.
	top, k := s.top[:0], s.cfg.Reasons
	least := 0.0 // of the list when it is full; contributions of 0 are no reasons
	for group, c := range contributions {
		size := math.Abs(c)
		if size <= least {
			continue
		}
		if len(top) == k {
			top = top[:k-1]
		}
		at := len(top)
		top = append(top, int32(group))
		for at > 0 && math.Abs(contributions[top[at-1]]) < size {
			top[at] = top[at-1]
			at--
		}
		top[at] = int32(group)
		if len(top) == k {
			least = math.Abs(contributions[top[k-1]])
		}
	}
	numbers, categories := s.frame.rows.Row(row)
	for _, group := range top {
		label := s.program.groups[group]
		if int(group) < len(s.program.inputs) {
			label = s.program.inputs[group].labelOf(numbers[group], categories[group])
		}
		out.reasons = append(out.reasons, schemas.Reason{Feature: label, Contribution: contributions[group]})
	}
}
