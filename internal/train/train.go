package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// Provenance is what the artefact says about its making beside the specification.
type Provenance struct {
	CreatedAt      time.Time
	LibraryVersion string // of this program
	GitCommit      string // of the repository that holds the specification; may be empty
}

// Fit trains on the customers that are not held out, evaluates on those that are and returns the
// artefact to be written.
//
// The profile and the background are those of all customers in training, before undersampling: the
// population that the stream is compared with.
func Fit(s *Specification, t *Table, from Provenance) (*scoring.Artefact, error) {
	a, err := fit(s, t, from)
	if err != nil {
		return nil, fmt.Errorf("train %s@%s: %w", s.Name, s.Version, err)
	}
	return a, nil
}

func fit(s *Specification, t *Table, from Provenance) (*scoring.Artefact, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	contract := s.Contract()
	var training, heldOut []int
	for i, customer := range t.Customer {
		if s.HeldOut(customer) {
			heldOut = append(heldOut, i)
		} else {
			training = append(training, i)
		}
	}
	if err := s.checkSplit(t, len(training), len(heldOut)); err != nil {
		return nil, err
	}
	if err := s.checkSizes(t); err != nil {
		return nil, err
	}
	population, test := t.subset(training), t.subset(heldOut)
	fitted, err := population.undersampled(s.Model)
	if err != nil {
		return nil, err
	}
	learned, weights, err := regress(s, contract, fitted)
	if err != nil {
		return nil, err
	}

	background := learned.design(population.Rows).means()
	a := &scoring.Artefact{Pipeline: learned.pipeline(weights, background)}
	a.Manifest = scoring.Manifest{
		Name: s.Name, Version: s.Version, CreatedAt: from.CreatedAt.UTC(),
		Training: scoring.Training{
			Library: "churnstream", LibraryVersion: from.LibraryVersion, GitCommit: from.GitCommit,
			Rows: fitted.Rows.Len(), HeldOutRows: test.Rows.Len(), Parameters: s.parameters(),
		},
		Threshold: s.Threshold,
		Label: scoring.Label{
			Column: s.Label.Column, Positive: s.Label.Positive,
			Definition: s.Label.Definition, Horizon: s.Label.Horizon,
		},
		Inputs: contract.Inputs,
	}
	if s.Split.TestFraction > 0 {
		_, probabilities := learned.design(test.Rows).probabilities(weights)
		if a.Manifest.Metrics, err = evaluate(test.Churn, probabilities, test.Customer, s.Threshold, s.Split.Seed); err != nil {
			return nil, fmt.Errorf("evaluate: %w", err)
		}
	}
	_, probabilities := learned.design(population.Rows).probabilities(weights)
	dividing, err := s.profile()
	if err != nil {
		return nil, err
	}
	profile, err := drift.BuildProfile(contract, drift.Reference{
		Rows: population.Rows, Probabilities: probabilities, Customers: population.keys(), Times: population.Times,
		Contributions: learned.contributions(population.Rows, weights, background),
	}, dividing)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := drift.WriteProfile(&text, profile); err != nil {
		return nil, err
	}
	a.Profile = text.Bytes()

	source := test
	if source.Rows.Len() == 0 {
		source = population
	}
	rows := referenceRows(learned, source.Rows)
	margins, probabilities := learned.design(rows).probabilities(weights)
	a.Reference = scoring.Reference{Rows: rows, Margin: margins, Probability: probabilities}
	return a, nil
}

// checkSplit finds that the split by customer leaves nothing to train on or nothing to evaluate on.
func (s *Specification) checkSplit(t *Table, training, heldOut int) error {
	if s.Split.TestFraction == 0 || training > 0 && heldOut > 0 {
		return nil
	}
	customers := make(map[string]bool)
	for _, customer := range t.Customer {
		customers[customer] = true
	}
	rows := training + heldOut
	switch {
	case rows == 0:
		return errors.New("the table has no rows")
	case len(customers) == 1:
		side := "training, so that none is held out"
		if training == 0 {
			side = "what is held out, so that none is left for training"
		}
		return fmt.Errorf("split: all %d rows belong to the one customer %q, and the split, which is by customer, took them all into %s: "+
			"name under customer the column that tells customers apart (now %q), or set split.test_fraction: 0", rows, t.Customer[0], side, s.Customer)
	case heldOut == 0:
		return fmt.Errorf("split: no held-out rows: none of the %d rows of %d customers was drawn at split.test_fraction: %v; "+
			"add rows, raise split.test_fraction, or set split.test_fraction: 0 to train without metrics", rows, len(customers), s.Split.TestFraction)
	default:
		return fmt.Errorf("split: no rows for training: all %d rows of %d customers were held out at split.test_fraction: %v; "+
			"add rows, lower split.test_fraction, or set split.test_fraction: 0 to train without metrics", rows, len(customers), s.Split.TestFraction)
	}
}

// checkSizes names every column whose numbers are so large that their scaling would overflow.
func (s *Specification) checkSizes(t *Table) error {
	var faults []error
	for i, in := range s.Inputs {
		for row := range t.Rows.Len() {
			if numbers, _ := t.Rows.Row(row); math.Abs(numbers[i]) > scoring.LargestNumber { // false for NaN
				faults = append(faults, fmt.Errorf("column %q of the input %q: row %d holds %v, and beyond %g the scaling overflows: "+
					"give the column in a larger unit, correct the value, or list the column under drop", in.Column, in.Name, row, numbers[i], scoring.LargestNumber))
				break
			}
		}
	}
	return errors.Join(faults...)
}

// regress learns the transforms and fits the regression on all rows of a table.
func regress(s *Specification, contract schemas.Contract, t *Table) (*transforms, []float64, error) {
	retained, churned := t.classes()
	if retained == 0 || churned == 0 {
		return nil, nil, fmt.Errorf("the training rows are %d with churn and %d without; both are needed", churned, retained)
	}
	learned, err := learn(contract, t.Rows)
	if err != nil {
		return nil, nil, err
	}
	weights := make([]float64, t.Rows.Len())
	for i, churn := range t.Churn {
		weights[i] = s.Model.C
		if s.Model.ClassWeight == WeightBalanced {
			of := retained
			if churn {
				of = churned
			}
			weights[i] *= float64(len(weights)) / (2 * float64(of))
		}
	}
	solution, err := (&regression{x: learned.design(t.Rows), churn: t.Churn, weights: weights}).solve()
	return learned, solution, err
}

// undersampled draws rows of the larger class without replacement; the order of rows is kept.
func (t *Table) undersampled(m Model) (*Table, error) {
	if m.Undersample == 0 {
		return t, nil
	}
	retained, churned := t.classes()
	larger := retained < churned // the label of the larger class
	keep := int(m.Undersample * float64(min(retained, churned)))
	if keep == 0 {
		return nil, errors.New("undersample: the training rows are all of one label")
	}
	var rows, candidates []int
	for i, churn := range t.Churn {
		if churn == larger {
			candidates = append(candidates, i)
		} else {
			rows = append(rows, i)
		}
	}
	random := rand.New(rand.NewPCG(m.Seed, 0x756e646572))
	random.Shuffle(len(candidates), func(i, k int) { candidates[i], candidates[k] = candidates[k], candidates[i] })
	rows = append(rows, candidates[:min(keep, len(candidates))]...)
	slices.Sort(rows)
	return t.subset(rows), nil
}

func (s *Specification) parameters() map[string]string {
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	p := map[string]string{
		"model":         "logistic regression, L2",
		"c":             number(s.Model.C),
		"class_weight":  s.Model.ClassWeight,
		"test_fraction": number(s.Split.TestFraction),
		"split_seed":    strconv.FormatUint(s.Split.Seed, 10),
	}
	if s.Model.Undersample > 0 {
		p["undersample"] = number(s.Model.Undersample)
		p["undersample_seed"] = strconv.FormatUint(s.Model.Seed, 10)
	}
	return p
}

// referenceRows chooses rows spread over the source, then repeats the first of them with each
// nullable input missing, each category unseen, and both everywhere at once.
func referenceRows(t *transforms, source *schemas.Rows) *schemas.Rows {
	const chosen = 60
	out := schemas.NewRows(source.Width(), chosen+2*source.Width()+1)
	repeat := func(row int) (numbers []float64, categories [][]byte) {
		fromNumbers, fromCategories := source.Row(row)
		numbers, categories = out.Row(out.Append())
		copy(numbers, fromNumbers)
		copy(categories, fromCategories)
		return numbers, categories
	}
	n := source.Len()
	for i := range min(chosen, n) {
		repeat(i * n / min(chosen, n))
	}
	missing := schemas.NewRows(source.Width(), 1)
	missing.Append()
	absentNumbers, absentCategories := missing.Row(0)
	for i, in := range t.contract.Inputs {
		if in.Nullable {
			numbers, categories := repeat(i % n)
			numbers[i], categories[i] = absentNumbers[i], absentCategories[i]
		}
	}
	for _, c := range t.categories {
		_, categories := repeat(c.input % n)
		categories[c.input] = c.unseen()
	}
	numbers, categories := repeat(0)
	for i, in := range t.contract.Inputs {
		if in.Nullable {
			numbers[i], categories[i] = absentNumbers[i], absentCategories[i]
		}
	}
	_, categories = repeat(0)
	for _, c := range t.categories {
		categories[c.input] = c.unseen()
	}
	return out
}

// unseen makes up a value that the training rows do not hold.
func (c *categoryColumn) unseen() []byte {
	value := "not in training"
	for _, known := c.code[value]; known; _, known = c.code[value] {
		value += "!"
	}
	return []byte(value)
}

// GitCommit returns the commit that the repository around dir is at, with "-dirty" behind it if
// tracked files have changes, or "" if there is no repository or no git.
func GitCommit(ctx context.Context, dir string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "git", "-C", dir, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
