// Package modelimport takes a model as its boosting library saved it, with rows of its inputs, and gives an
// artefact: declared inputs, the profile of the rows, reference rows.
package modelimport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/modelscore"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/modelfile"
	"github.com/churnstream/churnstream/scoring/trees"
)

// Config says what the file does not.
type Config struct {
	Name      string
	Version   string
	CreatedAt time.Time
	Threshold float64
	Label     scoring.Label
	// Positive is the class that means churn, by number; below 0 it is the only one of a model with one
	// probability and the second of two. A model with more has no such default.
	Positive int
	Format   modelscore.Format // of the rows
}

// referenceRows is how many rows the artefact is verified with at every load.
const referenceRows = 100

// Import makes the artefact. The rows are the population that drift is measured against; a hundred of
// them, and one in which everything is missing, become reference rows with what this program makes of
// them.
func Import(model []byte, rows io.Reader, cfg Config) (*scoring.Artefact, error) {
	m, err := modelfile.Parse(model)
	if err != nil {
		return nil, err
	}
	outputs := m.Engine.Outputs()
	if cfg.Positive < 0 && outputs <= 2 {
		cfg.Positive = outputs - 1
	}
	switch {
	case !m.Link.Probability():
		return nil, fmt.Errorf("objective %q makes no probability: only a model of churn can be an artefact; model score takes others, too", m.Objective)
	case cfg.Positive < 0:
		return nil, fmt.Errorf("the model has %d classes: say which of them means churn, from 0 (--positive)", outputs)
	case cfg.Positive >= outputs:
		return nil, fmt.Errorf("positive: class %d of %d", cfg.Positive, outputs)
	}
	t, err := modelscore.ReadTable(m, rows, cfg.Format)
	if err != nil {
		return nil, err
	}
	if t.Rows.Len() == 0 {
		return nil, errors.New("there are no rows: they are what drift is measured against")
	}
	t.Contract.Inputs = withPaths(t.Contract.Inputs)
	file := fileName(m, model)
	a := &scoring.Artefact{Models: map[string][]byte{file: model}}
	a.Pipeline = pipeline(m, file, t.Contract, cfg.Positive)
	a.Manifest = scoring.Manifest{
		Name: cfg.Name, Version: cfg.Version, CreatedAt: cfg.CreatedAt.UTC(), Threshold: cfg.Threshold, Label: cfg.Label,
		Inputs: t.Contract.Inputs,
		Training: scoring.Training{Library: m.Library, LibraryVersion: m.Version, Parameters: map[string]string{
			"booster": m.Kind, "objective": m.Objective, "rounds": strconv.Itoa(m.Rounds), "trees": strconv.Itoa(m.Trees),
		}},
	}
	population := score(m, t.Numbers, t.Rows.Len(), cfg.Positive)
	profile, err := drift.BuildProfile(t.Contract, drift.Reference{
		Rows: t.Rows, Probabilities: population.probabilities, Contributions: population.contributions,
	}, drift.DefaultProfileConfig())
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := drift.WriteProfile(&text, profile); err != nil {
		return nil, err
	}
	a.Profile = text.Bytes()
	a.Reference = reference(m, t, cfg.Positive)
	return a, nil
}

// fileName is what the model is called in the artefact.
func fileName(m *booster.Model, data []byte) string {
	switch {
	case m.Library == "lightgbm":
		return "model.txt"
	case len(data) > 1 && data[0] == '{' && data[1] == 'L':
		return "model.ubj"
	case m.Library == "onnx":
		return "model.onnx"
	}
	return "model." + m.Library + ".json"
}

// withPaths gives inputs whose names are no Avro names a path that is one.
func withPaths(inputs []schemas.Input) []schemas.Input {
	taken := make(map[string]bool, len(inputs))
	for _, in := range inputs {
		taken[in.Name] = true
	}
	for i := range inputs {
		in := &inputs[i]
		path := []byte(in.Name)
		for k, c := range path {
			letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
			if !letter && (k == 0 || c < '0' || c > '9') {
				path[k] = '_'
			}
		}
		if string(path) == in.Name {
			continue
		}
		for in.Path = string(path); taken[in.Path]; {
			in.Path += "_"
		}
		taken[in.Path] = true
	}
	return inputs
}

// pipeline turns categories into the library's codes and then asks the model.
func pipeline(m *booster.Model, file string, contract schemas.Contract, positive int) scoring.Pipeline {
	taken := make(map[string]bool, len(contract.Inputs))
	columns := make([]string, len(contract.Inputs))
	for i, in := range contract.Inputs {
		taken[in.Name], columns[i] = true, in.Name
	}
	unique := func(name string) string {
		for taken[name] {
			name += "'"
		}
		taken[name] = true
		return name
	}
	var p scoring.Pipeline
	for i, in := range contract.Inputs {
		c, ok := m.Categories[i]
		if !ok {
			continue
		}
		if c.Number != nil {
			continue // the step of the model makes numbers of texts
		}
		n := len(c.Values)
		codes := make(scoring.Gaps, n+2)
		for k := range n {
			codes[k] = float64(k)
		}
		unknown, missing := n, n+1
		codes[unknown], codes[missing] = c.Unseen, math.NaN()
		columns[i] = unique(in.Name + " code")
		p.Steps = append(p.Steps, scoring.Step{
			Columns: []string{in.Name}, Outputs: []string{columns[i]},
			Transform: scoring.Lookup{
				Encodings: []scoring.Encoding{{Texts: c.Values, Unknown: &unknown, Missing: &missing}}, Results: []scoring.Gaps{codes},
			},
		})
	}
	outputs := m.Engine.Outputs()
	for k := range outputs {
		suffix := ""
		if outputs > 1 {
			suffix = " " + strconv.Itoa(k)
			p.Output.Classes = append(p.Output.Classes, strconv.Itoa(k))
		}
		p.Output.Margin = append(p.Output.Margin, unique("margin"+suffix))
		p.Output.Probability = append(p.Output.Probability, unique("probability"+suffix))
	}
	p.Output.Positive = positive
	p.Steps = append(p.Steps, scoring.Step{
		Columns: columns, Outputs: append(append([]string{}, p.Output.Margin...), p.Output.Probability...),
		Transform: scoring.Booster{File: file},
	})
	return p
}

// scores is what a model makes of rows: of its positive class.
type scores struct {
	margins, probabilities []float64
	contributions          [][]float64 // nil: the model has none
}

func score(m *booster.Model, numbers []float64, n, positive int) scores {
	e := m.Engine
	outputs, features := e.Outputs(), e.Features()
	all := make([]float64, n*outputs)
	var s trees.Scratch
	e.Margins(numbers, n, all, &s)
	out := scores{margins: make([]float64, n), probabilities: make([]float64, n)}
	predictions := make([]float64, outputs)
	every := make([]float64, outputs*features)
	for r := range n {
		row := all[r*outputs : (r+1)*outputs]
		m.Link.Apply(row, predictions)
		out.margins[r], out.probabilities[r] = row[positive], predictions[positive]
		if e.Explains() == nil {
			e.Contributions(numbers[r*features:(r+1)*features], every, &s)
			out.contributions = append(out.contributions, append([]float64{}, every[positive*features:(positive+1)*features]...))
		}
	}
	return out
}

// reference takes rows that are spread over all, and one of which everything is missing.
func reference(m *booster.Model, t *modelscore.Table, positive int) scoring.Reference {
	n, width := t.Rows.Len(), t.Rows.Width()
	count := min(n, referenceRows)
	rows := schemas.NewRows(width, count+1)
	numbers := make([]float64, 0, (count+1)*width)
	for i := range count {
		r := i * n / count
		from, fromCategories := t.Rows.Row(r)
		to, toCategories := rows.Row(rows.Append())
		copy(to, from)
		copy(toCategories, fromCategories)
		numbers = append(numbers, t.Numbers[r*width:(r+1)*width]...)
	}
	absent, _ := rows.Row(rows.Append())
	for i := range absent {
		absent[i] = math.NaN()
		numbers = append(numbers, math.NaN())
	}
	s := score(m, numbers, count+1, positive)
	return scored(scoring.Reference{Rows: rows, Margin: s.margins, Probability: s.probabilities})
}

// scored keeps the rows that the model has a number for: not every one takes missing values.
func scored(all scoring.Reference) scoring.Reference {
	kept := scoring.Reference{Rows: schemas.NewRows(all.Rows.Width(), all.Rows.Len())}
	for r := range all.Rows.Len() {
		if p := all.Probability[r]; p != p {
			continue
		}
		numbers, categories := all.Rows.Row(r)
		to, toCategories := kept.Rows.Row(kept.Rows.Append())
		copy(to, numbers)
		copy(toCategories, categories)
		kept.Margin, kept.Probability = append(kept.Margin, all.Margin[r]), append(kept.Probability, all.Probability[r])
	}
	return kept
}
