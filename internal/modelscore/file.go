package modelscore

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/trees"
)

// batchNumbers bounds the memory of a batch of rows of a wide model.
const batchNumbers = 1 << 18

// RunFile scores rows by a model as its library saved it. It is like Run, but that the model declares
// neither ranges nor what may be missing: every input may, and a number is any finite one. A column
// is matched by the name of an input, f0, f1, … when the model has none; those of LightGBM also where it
// changed a space or made up Column_0, ….
//
// A model with one output gives margin and probability, or prediction if its link gives no
// probability. With several, margin and probabilities (or prediction) are lists, contributions a
// list of objects, by output.
func RunFile(ctx context.Context, m *booster.Model, in io.Reader, out io.Writer, o Options) (rows int, err error) {
	if err := o.Validate(); err != nil {
		return 0, err
	}
	w, err := newFileWriter(m, out, o)
	if err != nil {
		return 0, err
	}
	table, err := tabular.Open(in, string(o.Format), w.contract, naming(m))
	if err != nil {
		return 0, fmt.Errorf("score rows: %w", err)
	}
	return w.run(ctx, table.Read, w.batch, max(1, min(batchRows, batchNumbers/max(1, m.Engine.Features()))), w.flush)
}

// contractOf declares the inputs of a model. A category that the library replaced by a code without
// leaving its name is a number.
func contractOf(m *booster.Model) schemas.Contract {
	c := schemas.Contract{Inputs: make([]schemas.Input, m.Engine.Features())}
	for i := range c.Inputs {
		kind := schemas.Number
		if _, named := m.Categories[i]; named {
			kind = schemas.Category
		}
		c.Inputs[i] = schemas.Input{Name: m.Name(i), Kind: kind, Nullable: true}
	}
	return c
}

// naming says what else a file of rows may call the inputs. LightGBM writes a space of a name as an underscore, and calls
// inputs without names Column_0, Column_1, …
func naming(m *booster.Model) tabular.Naming {
	var n tabular.Naming
	if m.Names == nil {
		n.Hint = "; the model has no names of its inputs: call them f0, f1, …, in the order that it was trained on"
	}
	if m.Library != "lightgbm" {
		return n
	}
	n.Alias = func(column string) string {
		if strings.Contains(column, " ") {
			return strings.ReplaceAll(column, " ", "_")
		}
		number, ok := strings.CutPrefix(column, "f")
		if i, err := strconv.Atoi(number); ok && err == nil && i >= 0 && i < m.Engine.Features() && m.Name(i) == "Column_"+number {
			return m.Name(i)
		}
		return ""
	}
	return n
}

// fileWriter scores batches by a library's model and writes their lines.
type fileWriter struct {
	lines
	model    *booster.Model
	contract schemas.Contract
	codes    []*codes // of each input; nil for a number
	batch    *schemas.Rows

	rows, margins, predictions, contributions []float64
	scratch                                   trees.Scratch
}

// codes gives the number that a library's model knows a category by.
type codes struct {
	byText   map[string]float64
	byNumber map[float64]float64 // where categories are numbers: "3.0" is 3
	unseen   float64
	number   func(text []byte) float64 // unless nil, says it for every text
}

func newFileWriter(m *booster.Model, out io.Writer, o Options) (*fileWriter, error) {
	features := m.Engine.Features()
	w := &fileWriter{
		lines: newLines(out, o), model: m, contract: contractOf(m), codes: make([]*codes, features),
		batch: schemas.NewRows(features, 1), predictions: make([]float64, m.Engine.Outputs()),
	}
	seen := make(map[string]bool, features)
	for _, input := range w.contract.Inputs {
		if seen[input.Name] {
			return nil, fmt.Errorf("the model has two inputs named %q: which column is which cannot be known", input.Name)
		}
		seen[input.Name] = true
	}
	for i, c := range m.Categories {
		w.codes[i] = newCodes(c)
	}
	if !o.Contributions {
		return w, nil
	}
	if err := m.Engine.Explains(); err != nil {
		return nil, fmt.Errorf("contributions: %w", err)
	}
	w.contributions = make([]float64, features*m.Engine.Outputs())
	names := make([]string, features)
	for i := range names {
		names[i] = w.contract.Inputs[i].Name
	}
	return w, w.nameContributions(names)
}

func newCodes(c booster.Categories) *codes {
	out := &codes{byText: make(map[string]float64, len(c.Values)), unseen: c.Unseen, number: c.Number}
	for k, v := range c.Values {
		out.byText[v] = float64(k)
		if !c.Numbers {
			continue
		}
		if x, err := strconv.ParseFloat(v, 64); err == nil {
			if out.byNumber == nil {
				out.byNumber = make(map[float64]float64, len(c.Values))
			}
			out.byNumber[x] = float64(k)
		}
	}
	return out
}

// of is the code of a category, NaN if it is missing.
func (c *codes) of(category []byte) float64 {
	if category == nil {
		return math.NaN()
	}
	if c.number != nil {
		return c.number(category)
	}
	if code, ok := c.byText[string(category)]; ok {
		return code
	}
	if c.byNumber != nil {
		if x, err := strconv.ParseFloat(string(category), 64); err == nil {
			if code, ok := c.byNumber[x]; ok {
				return code
			}
		}
	}
	return c.unseen
}

func (w *fileWriter) flush() error {
	features, outputs := w.model.Engine.Features(), w.model.Engine.Outputs()
	n := w.batch.Len()
	w.rows = slices.Grow(w.rows[:0], n*features)[:n*features]
	w.margins = slices.Grow(w.margins[:0], n*outputs)[:n*outputs]
	for i := range n {
		numbers, categories := w.batch.Row(i)
		row := w.rows[i*features : (i+1)*features]
		copy(row, numbers)
		for j, c := range w.codes {
			if c != nil {
				row[j] = c.of(categories[j])
			}
		}
	}
	w.model.Engine.Margins(w.rows, n, w.margins, &w.scratch)
	for i := range n {
		if err := w.write(w.rows[i*features:(i+1)*features], w.margins[i*outputs:(i+1)*outputs]); err != nil {
			return err
		}
	}
	w.batch.Reset()
	w.report()
	return nil
}

// write writes the line of one row.
func (w *fileWriter) write(row, margins []float64) error {
	w.model.Link.Apply(margins, w.predictions)
	for k := range margins {
		if x := margins[k] + w.predictions[k]; math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("row %d cannot be scored: margin %v and prediction %v are not finite", w.written, margins[k], w.predictions[k])
		}
	}
	b := append(w.begin(), `,"margin":`...)
	b = AppendNumbers(b, margins)
	switch {
	case w.model.Link.Probability() && len(margins) == 1:
		b = append(b, `,"probability":`...)
	case w.model.Link.Probability():
		b = append(b, `,"probabilities":`...)
	default:
		b = append(b, `,"prediction":`...)
	}
	b = AppendNumbers(b, w.predictions)
	if w.names != nil {
		b = append(b, `,"contributions":`...)
		b = w.appendContributions(b, row)
	}
	return w.end(b)
}

func (w *fileWriter) appendContributions(b []byte, row []float64) []byte {
	e := w.model.Engine
	e.Contributions(row, w.contributions, &w.scratch)
	if e.Outputs() > 1 {
		b = append(b, '[')
	}
	for k, bias := range e.Bias() {
		if k > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		for i, c := range w.contributions[k*e.Features() : (k+1)*e.Features()] {
			b = append(append(b, w.names[i]...), ':')
			b = append(AppendNumber(b, c), ',')
		}
		b = append(b, `"bias":`...)
		b = append(AppendNumber(b, bias), '}')
	}
	if e.Outputs() > 1 {
		b = append(b, ']')
	}
	return b
}

// AppendNumbers writes one number as it is and several as a list.
func AppendNumbers(b []byte, x []float64) []byte {
	if len(x) == 1 {
		return AppendNumber(b, x[0])
	}
	for i, v := range x {
		b = append(b, "[,"[min(i, 1)])
		b = AppendNumber(b, v)
	}
	return append(b, ']')
}
