package driftreport

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// Source gives one row after another and then io.EOF; internal/tabular has them for files.
type Source interface {
	Read(rows *schemas.Rows) error
	// Cell is a column of the row read last.
	Cell(column string) (text string, ok bool)
	// Fault names the place of a column of that row.
	Fault(column string, err error) error
}

// Columns are those of a file that are no inputs; an empty name: there is none.
type Columns struct {
	Customer string // key; without it every row is another customer
	Time     string // RFC 3339, a date, or milliseconds since 1970
	Outcome  string // whether the customer churned: true, false, yes, no, 1, 0
}

// Row is one scored row. Its memory is valid during the call only.
type Row struct {
	Time          int64 // ms; 0 without a column
	Customer      []byte
	Numbers       []float64
	Categories    [][]byte
	Probability   float64
	Contributions []float64 // in the order of the contract; nil if the model has none
	Outcome       bool
	Known         bool // the outcome is
}

const batchRows = 256

// Scoring scores rows in batches and hands them on. It is not safe for concurrent use.
type Scoring struct {
	scorer        *scoring.Scorer
	contributions bool
	batch         *schemas.Rows
	beside        []Row // what is beside the inputs of each row of the batch
	results       scoring.Results
	rows          int
	fn            func(*Row) error
}

// NewScoring hands every row with its score to fn, and with its contributions if they are asked for and the model has
// exact ones of every input.
func NewScoring(model *scoring.Model, contributions bool, fn func(*Row) error) *Scoring {
	contributions = contributions && model.ScoringsToExplain() == 0 && slices.Equal(model.Explained(), inputNames(model.Contract()))
	return &Scoring{
		scorer: model.NewScorer(scoring.ScorerConfig{Contributions: contributions}), contributions: contributions,
		batch: schemas.NewRows(len(model.Contract().Inputs), batchRows), fn: fn,
	}
}

// Batch is where the inputs of the next row are appended to, before Add.
func (s *Scoring) Batch() *schemas.Rows { return s.batch }

// Add says what is beside the inputs of the row that was appended last.
func (s *Scoring) Add(row Row) error {
	if s.beside = append(s.beside, row); len(s.beside) < batchRows {
		return nil
	}
	return s.Flush()
}

// Flush scores what is left. A row that cannot be scored is an error that names it.
func (s *Scoring) Flush() error {
	s.scorer.Score(s.batch, &s.results)
	for i := range s.beside {
		row := &s.beside[i]
		if cause := s.results.Refused(i); cause != nil {
			return fmt.Errorf("row %d cannot be scored: %w", s.rows, cause)
		}
		row.Numbers, row.Categories = s.batch.Row(i)
		row.Probability = s.results.Probability[i]
		if s.contributions {
			row.Contributions = s.results.Contributions(i)
		}
		if err := s.fn(row); err != nil {
			return err
		}
		s.rows++
	}
	s.batch.Reset()
	s.beside = s.beside[:0]
	return nil
}

// Rows is how many were handed on.
func (s *Scoring) Rows() int { return s.rows }

// Read scores every row of the source. A row that cannot be read ends it with an error that names its place.
func (s *Scoring) Read(ctx context.Context, source Source, columns Columns) error {
	for {
		err := source.Read(s.batch)
		if err == nil {
			var row Row
			if row, err = columns.read(source); err == nil {
				if err = errors.Join(s.Add(row), ctx.Err()); err != nil {
					return err
				}
				continue
			}
			s.batch.DropLast()
		}
		if failed := s.Flush(); failed != nil {
			return failed
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

func inputNames(contract schemas.Contract) []string {
	names := make([]string, len(contract.Inputs))
	for i := range names {
		names[i] = contract.Inputs[i].Name
	}
	return names
}

// read takes what is beside the inputs from the row that the source read last.
func (c Columns) read(source Source) (row Row, err error) {
	cell := func(column string) (string, error) {
		text, ok := source.Cell(column)
		if !ok {
			return "", source.Fault(column, errors.New("there is no such text column"))
		}
		return strings.Clone(text), nil
	}
	if c.Customer != "" {
		text, err := cell(c.Customer)
		if err != nil {
			return row, err
		}
		row.Customer = []byte(text)
	}
	if c.Time != "" {
		text, err := cell(c.Time)
		if err == nil {
			row.Time, err = tabular.ParseMoment(text)
		}
		if err != nil {
			return row, source.Fault(c.Time, err)
		}
	}
	if c.Outcome != "" {
		text, err := cell(c.Outcome)
		if err != nil {
			return row, err
		}
		if row.Outcome, row.Known, err = outcome(text); err != nil {
			return row, source.Fault(c.Outcome, err)
		}
	}
	return row, nil
}

// outcome reads whether a customer churned; an empty text: not known yet.
func outcome(text string) (churned, known bool, err error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "":
		return false, false, nil
	case "1", "true", "yes", "churn", "churned":
		return true, true, nil
	case "0", "false", "no", "retain", "retained":
		return false, true, nil
	}
	return false, false, fmt.Errorf("%q is neither yes nor no", text)
}

// Span says how rows are divided by their time.
type Span string

// The spans.
const (
	Whole  Span = ""
	Hourly Span = "hour"
	Daily  Span = "day"
	Weekly Span = "week"
	Months Span = "month"
)

// label names the period that t in ms lies in; labels sort as the periods do.
func (s Span) label(t int64) string {
	at := time.UnixMilli(t).UTC()
	switch s {
	case Hourly:
		return at.Format("2006-01-02 15:00")
	case Daily:
		return at.Format(time.DateOnly)
	case Weekly:
		year, week := at.ISOWeek()
		return fmt.Sprintf("%d-W%02d", year, week)
	case Months:
		return at.Format("2006-01")
	default:
		return "all"
	}
}

// Periods counts rows, each into the period of its time.
type Periods struct {
	profile  *drift.Profile
	contract schemas.Contract
	span     Span
	counts   map[string]*drift.Count
}

// NewPeriods returns empty periods.
func NewPeriods(profile *drift.Profile, contract schemas.Contract, span Span) (*Periods, error) {
	if !slices.Contains([]Span{Whole, Hourly, Daily, Weekly, Months}, span) {
		return nil, fmt.Errorf("%q is none of hour, day, week, month", span)
	}
	if _, err := drift.NewCount(profile, contract); err != nil {
		return nil, err
	}
	return &Periods{profile: profile, contract: contract, span: span, counts: map[string]*drift.Count{}}, nil
}

// maxPeriods bounds the memory and the length of a report.
const maxPeriods = 1000

// Observe counts a row.
func (p *Periods) Observe(row *Row) error {
	label := p.span.label(row.Time)
	count := p.counts[label]
	if count == nil {
		if len(p.counts) == maxPeriods {
			return fmt.Errorf("more than %d periods; divide the rows by a longer one", maxPeriods)
		}
		var err error
		if count, err = drift.NewCount(p.profile, p.contract); err != nil {
			return err
		}
		p.counts[label] = count
	}
	count.Observe(row.Time, row.Customer, row.Numbers, row.Categories, row.Probability)
	return nil
}

// Windows are the periods in their order, and whether any row named its customer.
func (p *Periods) Windows() (windows []Named, keyed bool) {
	for label, count := range p.counts {
		windows = append(windows, Named{Label: label, Window: count.Window()})
		keyed = keyed || count.Keyed()
	}
	slices.SortFunc(windows, func(a, b Named) int { return strings.Compare(a.Label, b.Label) })
	return windows, keyed
}

// Gatherer keeps rows as the reference population of a profile.
type Gatherer struct{ reference drift.Reference }

// NewGatherer returns an empty one.
func NewGatherer(contract schemas.Contract) *Gatherer {
	return &Gatherer{drift.Reference{Rows: schemas.NewRows(len(contract.Inputs), 1024)}}
}

// Observe keeps a row.
func (g *Gatherer) Observe(row *Row) error {
	r := &g.reference
	numbers, categories := r.Rows.Row(r.Rows.Append())
	copy(numbers, row.Numbers)
	for i, c := range row.Categories {
		categories[i] = slices.Clone(c)
		if c != nil && categories[i] == nil {
			categories[i] = []byte{}
		}
	}
	r.Probabilities = append(r.Probabilities, row.Probability)
	r.Times = append(r.Times, row.Time)
	if row.Customer != nil {
		r.Customers = append(r.Customers, row.Customer)
	}
	if row.Contributions != nil {
		r.Contributions = append(r.Contributions, slices.Clone(row.Contributions))
	}
	return nil
}

// Profile freezes what was kept.
func (g *Gatherer) Profile(contract schemas.Contract, cfg drift.ProfileConfig) (*drift.Profile, error) {
	return drift.BuildProfile(contract, g.reference, cfg)
}

// ReadOutcomes reads a table with the columns customer and outcome: yes, no, or blank where it is not known. A customer
// with two outcomes is a fault.
func ReadOutcomes(table *csv.Reader) (map[string]bool, error) {
	header, err := table.Read()
	if err != nil {
		return nil, fmt.Errorf("header line: %w", err)
	}
	customer, column := slices.Index(header, "customer"), slices.Index(header, "outcome")
	if customer < 0 || column < 0 {
		return nil, fmt.Errorf("header line: %q has not both the columns customer and outcome", header)
	}
	outcomes := map[string]bool{}
	for {
		row, err := table.Read()
		if errors.Is(err, io.EOF) {
			return outcomes, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := table.FieldPos(column)
		churned, known, err := outcome(row[column])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if !known {
			continue
		}
		if before, twice := outcomes[row[customer]]; twice && before != churned {
			return nil, fmt.Errorf("line %d: this customer has another outcome above", line)
		}
		outcomes[row[customer]] = churned
	}
}
