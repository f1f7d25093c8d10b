package modelscore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// Compare scores the same rows by two models of the same inputs and says how their scores differ.
func Compare(ctx context.Context, from, to *scoring.Model, in io.Reader, o Options) (*scoring.RowsDiff, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	contract := from.Contract()
	other := to.Contract()
	if len(contract.Inputs) != len(other.Inputs) {
		return nil, fmt.Errorf("compare rows: %d inputs against %d; only models of the same inputs can be compared by rows", len(contract.Inputs), len(other.Inputs))
	}
	for i := range contract.Inputs {
		if a, b := contract.Inputs[i], other.Inputs[i]; a.Name != b.Name || a.Kind != b.Kind {
			return nil, fmt.Errorf("compare rows: input %d is the %s %q against the %s %q; only models of the same inputs can be compared by rows", i, a.Kind, a.Name, b.Kind, b.Name)
		}
	}
	table, err := tabular.Open(in, string(o.Format), contract, tabular.Naming{})
	if err != nil {
		return nil, fmt.Errorf("compare rows: %w", err)
	}
	rows := schemas.NewRows(len(contract.Inputs), batchRows)
	one, two := from.NewScorer(scoring.ScorerConfig{}), to.NewScorer(scoring.ScorerConfig{})
	var p, q scoring.Results
	diff := &scoring.RowsDiff{At: -1}
	for {
		err := table.Read(rows)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("compare rows: %w", err)
		}
		if err == nil && rows.Len() < batchRows {
			continue
		}
		one.Score(rows, &p)
		two.Score(rows, &q)
		diff.Add(&p, &q, from.Threshold(), to.Threshold())
		rows.Reset()
		if err != nil {
			return diff, nil //nolint:nilerr // the end of the rows
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if o.Progress != nil {
			o.Progress(diff.Rows)
		}
	}
}
