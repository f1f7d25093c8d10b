package scoring

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/modelfile"
)

// Booster writes what a model of XGBoost, LightGBM, CatBoost or ONNX makes of the columns:
// first its margins, one for each output, then its predictions, likewise. The file is the one that the
// library saved; it is beside model.json and in the manifest.
type Booster struct {
	File string `json:"file"` // "model.ubj": see ModelFileName

	model *booster.Model
}

// Type names the step in model.json.
func (Booster) Type() string { return "booster" }

// ModelFileName reports whether a file of an artefact may be a library's model: "model." and what
// its format is called, but not model.json.
func ModelFileName(name string) bool {
	rest, ok := strings.CutPrefix(name, "model.")
	return ok && name != ModelFile && checkName(rest) == nil
}

// attach gives the steps the models that they name. Every model of the artefact is for one step.
func (p *Pipeline) attach(files map[string][]byte) error {
	used := map[string]bool{}
	for i := range p.Steps {
		t, ok := p.Steps[i].Transform.(Booster)
		if !ok {
			continue
		}
		data, listed := files[t.File]
		switch {
		case !listed || !ModelFileName(t.File):
			return fmt.Errorf("steps[%d] (%s): the manifest lists no model file %.60q", i, t.Type(), t.File)
		case used[t.File]:
			return fmt.Errorf("steps[%d] (%s): %s is another step's already", i, t.Type(), t.File)
		}
		used[t.File] = true
		var err error
		if t.model, err = modelfile.Parse(data); err != nil {
			return fmt.Errorf("%s: %w", t.File, err)
		}
		p.Steps[i].Transform = t
	}
	for _, name := range sortedKeys(files) {
		if ModelFileName(name) && !used[name] {
			return fmt.Errorf("no step uses %s", name)
		}
	}
	return nil
}

func (t Booster) compile(c *compiler, in []column, out []string) error {
	if t.model == nil {
		return errors.New("the file of the model is not there")
	}
	e := t.model.Engine
	if len(in) != e.Features() || len(out) != 2*e.Outputs() {
		return fmt.Errorf("%d columns and %d outputs, %s has %d inputs and twice %d outputs", len(in), len(out), t.File, e.Features(), e.Outputs())
	}
	in = slices.Clone(in)
	for i := range in {
		if number := t.model.Categories[i].Number; number != nil && !in[i].number() {
			if len(in[i].substitutes) > 0 {
				return fmt.Errorf("column %.60q: texts that stand for others cannot be numbered", in[i].name)
			}
			slot := c.slot()
			c.emit(&textNumbers{number, in[i].input, slot}, nil, []int32{slot})
			in[i].slot = slot
		}
	}
	from, to, err := ofModel(c, in, out)
	if err != nil {
		return err
	}
	c.note("%s %s (%s, %s), %d trees over %d features", t.model.Library, t.model.Version, t.model.Kind, t.model.Objective, t.model.Trees, len(in))
	margins, predictions := to[:e.Outputs()], to[e.Outputs():]
	c.emit(&boosterOperation{t.model, from, margins, predictions}, from, to)
	c.explainTrees(e, in, from, margins)
	return nil
}

// textNumbers writes the number that a model knows a text by, NaN where it is missing.
type textNumbers struct {
	number      func(text []byte) float64
	input, slot int32
}

func (o *textNumbers) readsInputs(mark, _ []bool) { mark[o.input] = true }

func (o *textNumbers) run(f *frame) {
	to := f.column(o.slot)
	for r := range to {
		to[r] = nan
		if text := f.category(r, o.input); text != nil {
			to[r] = o.number(text)
		}
	}
}

type boosterOperation struct {
	model                      *booster.Model
	from, margins, predictions []int32
}

func (o *boosterOperation) run(f *frame) {
	outputs := len(o.margins)
	predictEnsemble(f, o.model.Engine, o.from, o.margins)
	for r := range f.n {
		row := f.out[r*outputs : (r+1)*outputs]
		o.model.Link.Apply(row, row)
		for k, slot := range o.predictions {
			f.registers[int(slot)*f.lanes+r] = row[k]
		}
	}
}

// predictEnsemble writes the margins of the columns from into the columns to, and leaves them in
// f.out row by row.
func predictEnsemble(f *frame, e booster.Engine, from, to []int32) {
	features, outputs := len(from), len(to)
	f.matrix, f.out = resized(f.matrix, f.n*features), resized(f.out, f.n*outputs)
	for i, slot := range from {
		at := i
		for _, x := range f.column(slot) {
			f.matrix[at] = x
			at += features
		}
	}
	e.Margins(f.matrix, f.n, f.out, &f.scratch)
	for k, slot := range to {
		to := f.column(slot)
		for r := range to {
			to[r] = f.out[r*outputs+k]
		}
	}
}
