package driftreport

import (
	_ "embed" // the page
	"fmt"
	"html/template"
	"io"
	"math"

	"github.com/churnstream/churnstream/drift"
)

//go:embed page.html
var page string

// WriteHTML writes the report as one page without scripts and without anything from elsewhere: for every feature the
// reference against the newest period, and the PSI over the periods.
func (r *Report) WriteHTML(to io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"show": show, "percent": func(v float64) string { return fmt.Sprintf("%.1f%%", 100*v) },
		"add": func(a, b float64) float64 { return a + b }, "row": func(i int) float64 { return float64(18 * i) },
	}).Parse(page)
	if err != nil {
		return fmt.Errorf("BUG: the page of the report: %w", err)
	}
	return t.Execute(to, r.view())
}

// view is the report as the page shows it: by feature instead of by period.
type view struct {
	*Report
	Newest   *Period
	Features []featureView
	Curve    *curveView
}

type featureView struct {
	Feature
	Bars   []bar
	Height float64
	Line   string // points of the PSI over the periods, "" if there is one only
	Limit  float64
	Top    float64 // largest PSI shown
	States []stateView
}

type bar struct {
	Bin
	Y, ReferenceWidth, CurrentWidth float64
}

type stateView struct {
	Label string
	State drift.State
	PSI   string
	X     float64
}

type curveView struct{ Points []curvePoint }

type curvePoint struct {
	CalibrationPoint
	X, Y, LowY, HighY float64
}

// Sizes of the plots in pixels; the page has them too.
const (
	barWidth, barHeight    = 220, 18
	lineWidth, lineHeight  = 420, 90
	curveSize, curveMargin = 260, 30
)

func (r *Report) view() view {
	v := view{Report: r}
	if len(r.Periods) > 0 {
		v.Newest = &r.Periods[len(r.Periods)-1]
		for _, f := range v.Newest.Features {
			v.Features = append(v.Features, r.featureView(f))
		}
	}
	if r.Calibration != nil {
		v.Curve = &curveView{}
		scale := func(share float64) float64 { return share * (curveSize - curveMargin) }
		for _, p := range r.Calibration.Curve {
			v.Curve.Points = append(v.Curve.Points, curvePoint{
				p, curveMargin + scale(p.MeanScore), scale(1 - p.ChurnRate), scale(1 - p.Low), scale(1 - p.High),
			})
		}
	}
	return v
}

func (r *Report) featureView(f Feature) featureView {
	v := featureView{Feature: f, Height: barHeight * float64(len(f.Bins))}
	largest := 0.0
	for _, b := range f.Bins {
		largest = max(largest, b.Reference, b.Current)
	}
	for i, b := range f.Bins {
		v.Bars = append(v.Bars, bar{b, barHeight * float64(i), barWidth * b.Reference / largest, barWidth * b.Current / largest})
	}
	v.Top = 2 * r.RelevantPSI
	psi := make([]float64, len(r.Periods))
	for i := range r.Periods {
		for _, other := range r.Periods[i].Features {
			if other.Name != f.Name {
				continue
			}
			psi[i] = math.NaN()
			if other.PSI != nil {
				psi[i] = *other.PSI
				v.Top = max(v.Top, psi[i])
			}
			v.States = append(v.States, stateView{Label: r.Periods[i].Label, State: other.State, PSI: show(other.PSI, "%.4f"), X: lineX(i, len(r.Periods))})
		}
	}
	if len(psi) > 1 {
		for i, p := range psi {
			if !math.IsNaN(p) {
				v.Line += fmt.Sprintf("%.1f,%.1f ", lineX(i, len(psi)), lineHeight*(1-p/v.Top))
			}
		}
	}
	v.Limit = lineHeight * (1 - r.RelevantPSI/v.Top)
	return v
}

func lineX(i, n int) float64 { return lineWidth * float64(i) / float64(max(1, n-1)) }
