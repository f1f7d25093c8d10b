package scoring

import (
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"text/tabwriter"
)

// Difference says how two models differ, ready to be written as text or JSON.
type Difference struct {
	From    ModelName `json:"from"`
	To      ModelName `json:"to"`
	Same    bool      `json:"same"` // the artefacts are one: their digests are equal
	Changes []Change  `json:"changes,omitempty"`
	Rows    *RowsDiff `json:"rows,omitempty"` // where both scored the same rows
}

// ModelName names one of the two models.
type ModelName struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
}

// Change is one thing that is not the same; an absent one is empty.
type Change struct {
	What string `json:"what"`
	From string `json:"from"`
	To   string `json:"to"`
}

// RowsDiff says how the scores of the same rows differ.
type RowsDiff struct {
	Rows      int     `json:"rows"`
	OneOnly   int     `json:"one_only"`  // scored by one model and refused by the other
	Decisions int     `json:"decisions"` // that are others, each at its model's threshold
	Mean      float64 `json:"mean"`      // of the absolute difference of the probabilities
	Largest   float64 `json:"largest"`
	At        int     `json:"at"` // row of the largest, from 0; -1 without rows

	compared int
}

// Diff compares what two models declare and compute.
func Diff(from, to *Model) *Difference {
	a, b := from.Describe(), to.Describe()
	d := &Difference{From: labelOf(a), To: labelOf(b), Same: a.Digest == b.Digest}
	note := func(what string, from, to any) {
		if f, t := fmt.Sprint(from), fmt.Sprint(to); f != t {
			d.Changes = append(d.Changes, Change{what, f, t})
		}
	}
	m, n := a.Manifest, b.Manifest
	note("trained by", m.Training.Library+" "+m.Training.LibraryVersion, n.Training.Library+" "+n.Training.LibraryVersion)
	note("rows fitted", m.Training.Rows, n.Training.Rows)
	note("rows held out", m.Training.HeldOutRows, n.Training.HeldOutRows)
	note("label", m.Label.Definition, n.Label.Definition)
	note("horizon", m.Label.Horizon, n.Label.Horizon)
	note("threshold", m.Threshold, n.Threshold)
	note("classes", strings.Join(a.Classes, ", "), strings.Join(b.Classes, ", "))
	both(d, "parameter ", m.Training.Parameters, n.Training.Parameters)
	both(d, "metric ", metricsOf(m), metricsOf(n))
	both(d, "input ", inputsOf(m), inputsOf(n))
	note("estimators", strings.Join(a.Estimators, "; "), strings.Join(b.Estimators, "; "))
	note("steps", stepsOf(a), stepsOf(b))
	if stepsOf(a) == stepsOf(b) && !reflect.DeepEqual(from.pipeline, to.pipeline) {
		d.Changes = append(d.Changes, Change{"learned numbers", "those of " + m.Version, "others"})
	}
	return d
}

func labelOf(d Description) ModelName {
	return ModelName{d.Manifest.Name, d.Manifest.Version, d.Digest}
}

// both notes the keys whose values differ or that only one side has.
func both(d *Difference, what string, from, to map[string]string) {
	keys := make(map[string]string, len(from)+len(to))
	for k := range from {
		keys[k] = ""
	}
	for k := range to {
		keys[k] = ""
	}
	for _, k := range sortedKeys(keys) {
		if from[k] != to[k] {
			d.Changes = append(d.Changes, Change{what + k, from[k], to[k]})
		}
	}
}

func metricsOf(m Manifest) map[string]string {
	out := make(map[string]string, len(m.Metrics))
	for _, metric := range m.Metrics {
		text := fmt.Sprintf("%.4f", metric.Value)
		if c := metric.Interval; c != nil {
			text += fmt.Sprintf(" [%.4f, %.4f]", c.Low, c.High)
		}
		out[metric.Name] = text
	}
	return out
}

func inputsOf(m Manifest) map[string]string {
	out := make(map[string]string, len(m.Inputs))
	for i, in := range m.Inputs {
		out[in.Name] = strings.TrimPrefix(describeInput(in), in.Name+": ") + fmt.Sprintf(", at %s, place %d", in.AvroPath(), i)
	}
	return out
}

func stepsOf(d Description) string {
	types := make([]string, len(d.Steps))
	for i, s := range d.Steps {
		types[i] = s.Type
	}
	return strings.Join(types, " → ")
}

// Add takes the scores of one batch of the same rows by both models.
func (r *RowsDiff) Add(from, to *Results, fromThreshold, toThreshold float64) {
	for i := range from.Len() {
		p, q := from.Probability[i], to.Probability[i]
		row := r.Rows
		r.Rows++
		if math.IsNaN(p) || math.IsNaN(q) {
			if math.IsNaN(p) != math.IsNaN(q) {
				r.OneOnly++
			}
			continue
		}
		if (p >= fromThreshold) != (q >= toThreshold) {
			r.Decisions++
		}
		r.compared++
		size := math.Abs(p - q)
		r.Mean += (size - r.Mean) / float64(r.compared)
		if size > r.Largest || r.compared == 1 {
			r.Largest, r.At = size, row
		}
	}
}

// WriteText writes the difference for a terminal.
func (d *Difference) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "from\t%s@%s\t%s\n", d.From.Name, d.From.Version, d.From.Digest)
	fmt.Fprintf(t, "to\t%s@%s\t%s\n", d.To.Name, d.To.Version, d.To.Digest)
	if err := t.Flush(); err != nil {
		return err
	}
	if d.Same {
		_, err := fmt.Fprintln(w, "the same artefact")
		return err
	}
	for _, c := range d.Changes {
		fmt.Fprintf(w, "%s\n", c.What)
		if c.From != "" {
			fmt.Fprintf(w, "  - %s\n", c.From)
		}
		if c.To != "" {
			fmt.Fprintf(w, "  + %s\n", c.To)
		}
	}
	if r := d.Rows; r != nil {
		fmt.Fprintf(w, "%d rows: probabilities differ by %.3g on average, at most by %.3g (row %d); %d decisions are others; %d rows are scored by one only\n",
			r.Rows, r.Mean, r.Largest, r.At, r.Decisions, r.OneOnly)
	}
	return nil
}
