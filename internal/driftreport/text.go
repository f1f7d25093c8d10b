package driftreport

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/churnstream/churnstream/drift"
)

// WriteText writes the report for people, one table a period.
func (r *Report) WriteText(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "Drift of %s@%s from its reference of %d rows (%.0f independent customers)\n", r.Model.Name, r.Model.Version, r.Reference.Events, r.Reference.Customers)
	fmt.Fprintf(w, "Relevant from a PSI of %v on; %.1f nats of evidence are wanted", r.RelevantPSI, r.Needed)
	if r.Chance > 0 {
		fmt.Fprintf(w, ", so that a report of harmless data calls nothing drifting %v times in 100", 100*(1-r.Chance))
	}
	fmt.Fprintln(w, ".")
	if r.Reference.Classes != "" {
		fmt.Fprintf(w, "Compared with what the reference holds of the same hours: %s.\n", r.Reference.Classes)
	}
	for _, note := range r.Notes {
		fmt.Fprintln(w, "Note: "+note)
	}
	for _, p := range r.Periods {
		fmt.Fprintf(w, "\n%s: %d events, worth %.0f independent customers\n", p.Label, p.Events, p.Customers)
		fmt.Fprintln(w, "feature\tstate\tPSI\tvisible\tevidence\teffect\tmean\twas\tmissing\tmost moved")
		for i := range p.Features {
			f := &p.Features[i]
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Name, f.State, show(f.PSI, "%.4f"), show(f.Visible, "%.3f"), show(f.Evidence, "%.1f"),
				show(f.Effect, "%+.3f"), show(f.Mean, "%.5g"), show(f.ReferenceMean, "%.5g"), show(f.Missing, "%.4f"), f.moved())
		}
	}
	if c := r.Calibration; c != nil {
		fmt.Fprintf(w, "\nCalibration: %s; %d outcomes worth %.0f independent customers, Brier %s, expected calibration error %s\n",
			c.State, c.Pairs, c.Customers, show(c.Brier, "%.4f"), show(c.ExpectedError, "%.4f"))
		fmt.Fprintln(w, "scores to\toutcomes\tmean score\tchurn rate\t95% interval\t")
		for _, p := range c.Curve {
			mark := ""
			if p.Miscalibrated {
				mark = "miscalibrated"
			}
			fmt.Fprintf(w, "%.4f\t%d\t%.4f\t%.4f\t%.4f to %.4f\t%s\n", p.Upper, p.Pairs, p.MeanScore, p.ChurnRate, p.Low, p.High, mark)
		}
	}
	return w.Flush()
}

func show(v *float64, format string) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(format, *v)
}

// moved names the place that gives most to the PSI of a drifting feature.
func (f *Feature) moved() string {
	if f.State != drift.StateDrifting {
		return ""
	}
	top := f.Bins[0]
	for _, b := range f.Bins {
		if b.PSI > top.PSI {
			top = b
		}
	}
	return fmt.Sprintf("%s: %.1f%% to %.1f%% (%.0f%% of the PSI)", top.Label, 100*top.Reference, 100*top.Current, 100*top.PSI/value(f.PSI))
}
