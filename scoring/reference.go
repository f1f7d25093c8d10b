package scoring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/churnstream/churnstream/schemas"
)

// ReferenceTolerance is how far the probability and the margin (relative to its size where that
// exceeds 1) of a reference row may be from what the training library gave. The order in which the
// library adds up costs the last few bits; a wrong transform, a lost category or float32 in the
// place of float64 costs far more.
const ReferenceTolerance = 1e-9

// Reference holds rows with what the training library made of them.
type Reference struct {
	Rows        *schemas.Rows
	Probability []float64 // one a row
	Margin      []float64 // one a row, or nil if the library gives none
}

// ReferenceError says which reference row the model does not reproduce.
type ReferenceError struct {
	Row           int    // from 0: line Row+1 of reference.jsonl
	Output        string // "probability" or "margin"
	Expected, Got float64
}

func (e *ReferenceError) Error() string {
	return fmt.Sprintf("%s: row %d: %s: expected %v, got %v: the model is not scored as it was trained", ReferenceFile, e.Row, e.Output, e.Expected, e.Got)
}

type referenceLine struct {
	Inputs      map[string]json.RawMessage `json:"inputs"`
	Probability *number                    `json:"probability"`
	Margin      *number                    `json:"margin,omitempty"`
}

func (r *Reference) appendJSON(dst []byte, contract schemas.Contract) ([]byte, error) {
	n := r.Rows.Len()
	if len(r.Probability) != n || r.Margin != nil && len(r.Margin) != n {
		return nil, fmt.Errorf("%d rows with %d probabilities and %d margins", n, len(r.Probability), len(r.Margin))
	}
	var inputs []byte
	for row := range n {
		numbers, categories := r.Rows.Row(row)
		var err error
		if inputs, err = contract.AppendJSON(inputs[:0], numbers, categories); err != nil {
			return nil, fmt.Errorf("row %d: %w", row, err)
		}
		line := struct {
			Inputs      json.RawMessage `json:"inputs"`
			Probability float64         `json:"probability"`
			Margin      *float64        `json:"margin,omitempty"`
		}{Inputs: inputs, Probability: r.Probability[row]}
		if r.Margin != nil {
			line.Margin = &r.Margin[row]
		}
		text, err := json.Marshal(line)
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", row, err)
		}
		dst = append(append(dst, text...), '\n')
	}
	return dst, nil
}

// verify scores every line of reference.jsonl and returns how many there are.
func (m *Model) verify(data []byte) (int, error) {
	const batch = 256
	contract := m.Contract()
	rows := schemas.NewRows(len(contract.Inputs), min(batch, 1+len(data)/64))
	scorer := m.NewScorer(ScorerConfig{})
	var expected []referenceLine
	var results Results
	verified := 0
	check := func() error {
		scorer.Score(rows, &results)
		for i, line := range expected {
			if err := compare(verified+i, "probability", float64(*line.Probability), results.Probability[i]); err != nil {
				return err
			}
			if line.Margin == nil {
				continue
			}
			if err := compare(verified+i, "margin", float64(*line.Margin), results.Margin[i]); err != nil {
				return err
			}
		}
		verified += len(expected)
		expected = expected[:0]
		rows.Reset()
		return nil
	}
	for number := 1; len(data) > 0; number++ {
		text, rest, ended := bytes.Cut(data, []byte{'\n'})
		if !ended {
			return 0, fmt.Errorf("%s:%d: the last line does not end", ReferenceFile, number)
		}
		data = rest
		var line referenceLine
		if err := decodeStrict(text, &line); err != nil {
			return 0, fmt.Errorf("%s:%d: %w", ReferenceFile, number, err)
		}
		if line.Probability == nil || line.Inputs == nil {
			return 0, fmt.Errorf("%s:%d: inputs or probability is missing", ReferenceFile, number)
		}
		for _, name := range sortedKeys(line.Inputs) {
			if contract.Index(name) < 0 {
				return 0, fmt.Errorf("%s:%d: input %.60q is not declared", ReferenceFile, number, name)
			}
		}
		if err := contract.ReadJSON(rows, line.Inputs); err != nil {
			return 0, fmt.Errorf("%s:%d: %w", ReferenceFile, number, err)
		}
		values, categories := rows.Row(rows.Len() - 1)
		for i := range contract.Inputs {
			in := &contract.Inputs[i]
			if err := in.Check(values[i], categories[i]); err != nil {
				return 0, fmt.Errorf("%s:%d: input %q: %w: manifest and reference rows are not of the same model", ReferenceFile, number, in.Name, err)
			}
		}
		expected = append(expected, line)
		if len(expected) == batch {
			if err := check(); err != nil {
				return 0, err
			}
		}
	}
	if err := check(); err != nil {
		return 0, err
	}
	if verified == 0 {
		return 0, fmt.Errorf("%s: no rows: nothing shows that the model is scored as it was trained", ReferenceFile)
	}
	return verified, nil
}

func compare(row int, output string, expected, got float64) error {
	if math.Abs(got-expected) <= ReferenceTolerance*max(1, math.Abs(expected)) { // false for NaN
		return nil
	}
	return &ReferenceError{Row: row, Output: output, Expected: expected, Got: got}
}
