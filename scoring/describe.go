package scoring

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/churnstream/churnstream/schemas"
)

// Description is what people ask of a model, ready to be written as text or JSON.
type Description struct {
	Digest        string   `json:"digest"`
	Manifest      Manifest `json:"manifest"`
	Steps         []Stage  `json:"steps"`
	Estimators    []string `json:"estimators"`
	Columns       int      `json:"columns"` // inputs, features and results together
	Classes       []string `json:"classes,omitempty"`
	Reasons       bool     `json:"reasons"` // the model has contributions
	Explanation   string   `json:"explanation"`
	Bytes         int64    `json:"bytes"` // of all files named in the manifest
	ReferenceRows int      `json:"reference_rows"`
}

// Stage is one step of the pipeline in short.
type Stage struct {
	Type    string   `json:"type"`
	Columns []string `json:"columns"`
	Outputs []string `json:"outputs"`
}

// Describe returns the model's description.
func (m *Model) Describe() Description {
	d := Description{
		Digest: m.digest, Manifest: m.manifest, Estimators: m.program.notes, Columns: m.program.columns,
		Classes: m.program.classes, Reasons: m.program.explains(), Explanation: m.Explanation(), ReferenceRows: m.references,
	}
	for _, f := range m.manifest.Files {
		d.Bytes += f.Bytes
	}
	for _, s := range m.pipeline.Steps {
		d.Steps = append(d.Steps, Stage{Type: s.Transform.Type(), Columns: s.Columns, Outputs: s.Outputs})
	}
	return d
}

// WriteText writes the description for a terminal.
func (d Description) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(key, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", key, fmt.Sprintf(format, args...)) }
	m := d.Manifest
	line("model", "%s@%s", m.Name, m.Version)
	line("digest", "%s", d.Digest)
	line("created", "%s", m.CreatedAt.UTC().Format(time.RFC3339))
	line("trained by", "%s %s", m.Training.Library, m.Training.LibraryVersion)
	if m.Training.GitCommit != "" {
		line("git commit", "%s", m.Training.GitCommit)
	}
	line("rows", "%d fitted, %d held out", m.Training.Rows, m.Training.HeldOutRows)
	for _, k := range sortedKeys(m.Training.Parameters) {
		line("  "+k, "%s", m.Training.Parameters[k])
	}
	line("label", "%s (horizon %s)", m.Label.Definition, m.Label.Horizon)
	line("threshold", "%v", m.Threshold)
	for _, metric := range m.Metrics {
		if c := metric.Interval; c != nil {
			line(metric.Name, "%.4f  [%.4f, %.4f] %.0f%%, %s", metric.Value, c.Low, c.High, 100*c.Level, c.Method)
		} else {
			line(metric.Name, "%.4f", metric.Value)
		}
	}
	for _, in := range m.Inputs {
		line("input", "%s", describeInput(in))
	}
	for _, s := range d.Steps {
		line("step", "%s: %s", s.Type, shortened(s.Columns))
	}
	for _, e := range d.Estimators {
		line("estimator", "%s", e)
	}
	if len(d.Classes) > 0 {
		line("classes", "%s", strings.Join(d.Classes, ", "))
	}
	line("reasons", "%s", d.Explanation)
	line("size", "%d bytes", d.Bytes)
	line("reference rows", "%d, all reproduced", d.ReferenceRows)
	return t.Flush()
}

// shortened lists the first names, and how many there are.
func shortened(names []string) string {
	const shown = 12
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s, ... (%d columns)", strings.Join(names[:shown], ", "), len(names))
}

func describeInput(in schemas.Input) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", in.Name, in.Kind)
	if in.Nullable {
		b.WriteString(", may be missing")
	}
	if in.Min != nil {
		fmt.Fprintf(&b, ", from %v", *in.Min)
	}
	if in.Max != nil {
		fmt.Fprintf(&b, ", up to %v", *in.Max)
	}
	return b.String()
}
