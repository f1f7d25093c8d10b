// Package modelscore takes a stream of rows (CSV, JSON lines or Parquet) and a model and gives one JSON
// object a row with its margin and probability.
package modelscore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// Format is how the rows are written.
type Format string

// The formats of input rows.
const (
	CSV   Format = "csv"   // a header line; columns are matched to inputs by name, others are left alone
	JSONL Format = "jsonl" // an object a line, values by input name, other names are left alone
	// Parquet columns are matched to inputs by name, others are left alone.
	Parquet Format = "parquet"
)

// Options of a run.
type Options struct {
	Format        Format
	Contributions bool
	// Progress, unless nil, is called with the number of rows written so far, about every thousand.
	Progress func(rows int)
}

// Validate reports every fault of the options.
func (o Options) Validate() error {
	switch o.Format {
	case CSV, JSONL, Parquet:
		return nil
	}
	return fmt.Errorf("format: got %q, want %q, %q or %q", o.Format, CSV, JSONL, Parquet)
}

const batchRows = 256

// Run scores every row of in and writes to out, in the same order, one line each:
//
//	{"row":0,"margin":-1.2,"probability":0.23,"contributions":{"tenure":0.4,...,"bias":-1.5}}
//
// row counts from 0. Contributions are by input, one-hot columns added up, and by "a*b" where the model
// mixes inputs into one column; together with bias they make the margin. A model of more than two
// classes gives lists by class: margin, probabilities (in the place of probability), contributions. An empty cell, null or a key that an object lacks is a missing
// value; an input that the header line or the schema lacks is an error, and so is one that none of the objects had, after the
// last. A value that cannot be converted, is out of its declared range, or is missing where it may not be, ends the run with an
// error that names row and column; the rows before it have been written. It returns the number of
// rows written.
func Run(ctx context.Context, m *scoring.Model, in io.Reader, out io.Writer, o Options) (rows int, err error) {
	if err := o.Validate(); err != nil {
		return 0, err
	}
	w := &writer{
		lines: newLines(out, o), scorer: m.NewScorer(scoring.ScorerConfig{Contributions: o.Contributions}),
		batch: schemas.NewRows(len(m.Contract().Inputs), batchRows),
	}
	if o.Contributions {
		if m.Explained() == nil {
			return 0, errors.New("contributions: " + scoring.NoExplanation)
		}
		if err := w.nameContributions(m.Explained()); err != nil {
			return 0, err
		}
	}
	table, err := tabular.Open(in, string(o.Format), m.Contract(), tabular.Naming{})
	if err != nil {
		return 0, fmt.Errorf("score rows: %w", err)
	}
	return w.run(ctx, table.Read, w.batch, batchRows, w.flush)
}

// writer scores batches and writes their lines.
type writer struct {
	lines
	scorer  *scoring.Scorer
	batch   *schemas.Rows
	results scoring.Results
}

func (w *writer) flush() error {
	w.scorer.Score(w.batch, &w.results)
	for i, p := range w.results.Probability {
		if cause := w.results.Refused(i); cause != nil {
			return fmt.Errorf("row %d cannot be scored: %w", w.written, cause)
		}
		b := append(w.begin(), `,"margin":`...)
		if all := w.results.Probabilities(i); all != nil {
			b = AppendNumbers(b, w.results.Margins(i))
			b = append(b, `,"probabilities":`...)
			b = AppendNumbers(b, all)
		} else {
			b = AppendNumber(b, w.results.Margin[i])
			b = append(b, `,"probability":`...)
			b = AppendNumber(b, p)
		}
		if w.names != nil {
			b = append(b, `,"contributions":`...)
			b = w.appendContributions(b, i)
		}
		if err := w.end(b); err != nil {
			return err
		}
	}
	w.batch.Reset()
	w.report()
	return nil
}

// appendContributions writes an object of a row's contributions, or a list of them by class.
func (w *writer) appendContributions(b []byte, row int) []byte {
	biases := w.results.Biases
	if len(biases) > 1 {
		b = append(b, '[')
	}
	for class, bias := range biases {
		if class > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		for k, c := range w.results.ContributionsTo(row, class) {
			b = append(append(b, w.names[k]...), ':')
			b = append(AppendNumber(b, c), ',')
		}
		b = append(b, `"bias":`...)
		b = append(AppendNumber(b, bias), '}')
	}
	if len(biases) > 1 {
		b = append(b, ']')
	}
	return b
}

// AppendNumber writes the shortest JSON number that reads back to the same bits.
func AppendNumber(dst []byte, x float64) []byte {
	if size := math.Abs(x); size != 0 && (size < 1e-6 || size >= 1e21) {
		return strconv.AppendFloat(dst, x, 'e', -1, 64)
	}
	return strconv.AppendFloat(dst, x, 'f', -1, 64)
}
