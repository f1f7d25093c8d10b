// Package driftreport takes rows, scores them by a model, and gives the model's drift reference or a report on how far
// the rows are from it: as values, text, or one HTML page that needs nothing else.
package driftreport

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/churnstream/churnstream/drift"
)

// Report is the comparison of one or more periods with one reference.
type Report struct {
	Model       Model        `json:"model"`
	Reference   Population   `json:"reference"`
	RelevantPSI float64      `json:"relevant_psi"`
	Needed      float64      `json:"evidence_needed"`  // nats that call a feature drifting
	Chance      float64      `json:"chance,omitempty"` // that anything in the report is called drifting and is not; 0: the yearly budget of a worker holds
	Notes       []string     `json:"notes,omitempty"`
	Periods     []Period     `json:"periods"`
	Calibration *Calibration `json:"calibration,omitempty"`
}

// Model is whose reference it is.
type Model struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
}

// Population is how much a population is worth.
type Population struct {
	Events    uint64  `json:"events"`
	Customers float64 `json:"customers"`         // independent ones
	Classes   string  `json:"classes,omitempty"` // of time, by which a reference tells its rows apart
}

// Period is one population that was compared.
type Period struct {
	Label string `json:"label"`
	Population
	Features []Feature `json:"features"` // drifting ones first, by what they do to the scores
}

// Feature is an input, the score or another part of the profile in one period. Numbers that mean nothing are left out.
type Feature struct {
	Name     string      `json:"name"`
	Kind     string      `json:"kind"`
	State    drift.State `json:"state"`
	PSI      *float64    `json:"psi,omitempty"`
	Evidence *float64    `json:"evidence,omitempty"`
	Visible  *float64    `json:"psi_visible,omitempty"` // the smallest PSI that would be called drifting
	// Effect on the mean log-odds of the scores, and the input's share in what they vary by.
	Effect     *float64 `json:"effect,omitempty"`
	Importance *float64 `json:"importance,omitempty"`

	Mean             *float64 `json:"mean,omitempty"`
	ReferenceMean    *float64 `json:"reference_mean,omitempty"`
	Deviation        *float64 `json:"deviation,omitempty"`
	Median           *float64 `json:"median,omitempty"` // within its bin, as if that were filled evenly
	Missing          *float64 `json:"missing,omitempty"`
	ReferenceMissing *float64 `json:"reference_missing,omitempty"`
	Unseen           *float64 `json:"unseen,omitempty"`

	PSIChance         *float64 `json:"psi_chance,omitempty"`
	JensenShannon     *float64 `json:"jensen_shannon,omitempty"`
	KolmogorovSmirnov *float64 `json:"kolmogorov_smirnov,omitempty"`
	KSChance          *float64 `json:"kolmogorov_smirnov_chance,omitempty"`
	Wasserstein       *float64 `json:"wasserstein,omitempty"`
	ChiSquare         *float64 `json:"chi_square,omitempty"`
	ChiSquareChance   *float64 `json:"chi_square_chance,omitempty"`

	Bins []Bin `json:"bins"` // in the profile's order
}

// Bin is one place of a feature.
type Bin struct {
	Label     string  `json:"label"`
	Reference float64 `json:"reference"`
	Current   float64 `json:"current"`
	PSI       float64 `json:"psi"` // what the place gives to the feature's
}

// Calibration compares the scores with what came of them.
type Calibration struct {
	State         drift.CalibrationState `json:"state"`
	Pairs         uint64                 `json:"pairs"`
	Customers     float64                `json:"customers"`
	Evidence      *float64               `json:"evidence,omitempty"` // the most of any bin that something can be said of
	Needed        *float64               `json:"evidence_needed,omitempty"`
	Brier         *float64               `json:"brier,omitempty"`
	ExpectedError *float64               `json:"expected_calibration_error,omitempty"`
	MeanScore     *float64               `json:"mean_score,omitempty"`
	ChurnRate     *float64               `json:"churn_rate,omitempty"`
	Curve         []CalibrationPoint     `json:"curve"`
}

// CalibrationPoint is one bin of the score.
type CalibrationPoint struct {
	Upper         float64 `json:"upper"`
	Pairs         uint64  `json:"pairs"`
	MeanScore     float64 `json:"mean_score"`
	ChurnRate     float64 `json:"churn_rate"`
	Low           float64 `json:"low"`
	High          float64 `json:"high"`
	Miscalibrated bool    `json:"miscalibrated"`
}

// number leaves out what is not a finite number.
func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// Named is a window with the name of its period.
type Named struct {
	Label  string
	Window *drift.Window
}

// New compares the windows with the profile. chance is the probability that a report of populations that are harmlessly
// near to the reference calls anything drifting.
func New(model Model, profile *drift.Profile, windows []Named, cfg drift.RuleConfig, chance float64) (*Report, error) {
	rule, err := drift.NewReportRule(cfg, max(1, len(windows))*len(profile.Features), chance)
	if err != nil {
		return nil, err
	}
	r := empty(model, profile, cfg, rule)
	r.Chance = chance
	if untimed(profile, windows) {
		r.Notes = append(r.Notes, "The reference tells hours apart ("+r.Reference.Classes+"), and there are rows without a time: these are compared with all of the reference. Name the column by --time.")
	}
	for _, w := range windows {
		p := Period{Label: w.Label, Population: Population{Events: w.Window.Events, Customers: w.Window.EffectiveCustomers()}}
		findings := profile.Judge(rule, w.Window)
		for i := range findings {
			p.Features = append(p.Features, newFeature(profile, i, &findings[i], 0))
		}
		p.rank(findings)
		r.Periods = append(r.Periods, p)
	}
	return r, nil
}

// NewLive reports what a worker's evaluation found, one period a horizon, longest first.
func NewLive(model Model, profile *drift.Profile, population *drift.Population, cfg drift.RuleConfig) (*Report, error) {
	r := empty(model, profile, cfg, population.Rule())
	at, found := population.Watermark()
	if !found {
		return nil, fmt.Errorf("the state topic holds no counts of the model %s@%s (%s)", model.Name, model.Version, model.Digest)
	}
	e := population.Evaluate(at-1, nil)
	for h := len(e.Windows) - 1; h >= 0; h-- {
		w := e.Windows[h]
		p := Period{
			Label:      drift.HorizonLabel(w.Horizon) + " to " + time.UnixMilli(w.End).UTC().Format("2006-01-02 15:04 UTC"),
			Population: Population{Events: w.Events, Customers: w.EffectiveCustomers()},
		}
		findings := profile.Judge(population.Rule(), w)
		for i := range findings {
			p.Features = append(p.Features, newFeature(profile, i, &findings[i], 0))
		}
		p.rank(findings)
		r.Periods = append(r.Periods, p)
	}
	slices.Reverse(r.Periods)
	return r, nil
}

func empty(model Model, profile *drift.Profile, cfg drift.RuleConfig, rule *drift.Rule) *Report {
	return &Report{
		Model:       model,
		Reference:   Population{Events: profile.Events, Customers: float64(profile.Events) / profile.DesignEffect, Classes: classes(profile)},
		RelevantPSI: cfg.Shift, Needed: rule.Needed,
	}
}

func classes(profile *drift.Profile) string {
	if profile.Classes == nil {
		return ""
	}
	return profile.Classes.By + ", " + profile.Classes.Zone
}

// untimed says whether any window holds events of no class of time, though the reference has classes.
func untimed(profile *drift.Profile, windows []Named) bool {
	return profile.Classes != nil && slices.ContainsFunc(windows, func(w Named) bool {
		timed := uint64(0)
		for _, n := range w.Window.Classes[:len(profile.Classes.Labels)] {
			timed += n
		}
		return timed < w.Window.Events
	})
}

// rank puts drifting features first: the score, then inputs by how far they move the margin, then by PSI.
func (p *Period) rank(findings []drift.Finding) {
	either := map[string]float64{}
	for i := range findings {
		either[findings[i].Feature] = findings[i].Either
	}
	rest := func(f *Feature) int {
		if f.State == drift.StateDrifting {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(p.Features, func(a, b Feature) int {
		if order := cmp.Compare(rest(&a), rest(&b)); order != 0 || rest(&a) == 1 {
			return order
		}
		return cmp.Or(-cmp.Compare(either[a.Name], either[b.Name]), -cmp.Compare(value(a.PSI), value(b.PSI)))
	})
}

func value(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

func newFeature(profile *drift.Profile, i int, finding *drift.Finding, horizon int) Feature {
	source, j := &profile.Features[i], &finding.Judgements[horizon]
	f := Feature{
		Name: source.Name, Kind: source.Kind.String(), State: j.State,
		PSI: number(j.PSI), Evidence: number(j.Evidence), Visible: number(j.Visible),
	}
	if source.Contributions != nil {
		f.Effect, f.Importance = number(finding.Effect), number(source.Importance()/total(profile))
	}
	s := &finding.Summary
	f.Mean, f.ReferenceMean, f.Deviation = number(s.Mean), number(s.ReferenceMean), number(s.Deviation)
	f.Missing, f.ReferenceMissing, f.Unseen = number(s.MissingShare), number(s.ReferenceMissing), number(s.UnseenShare)
	for _, q := range s.Quantiles {
		if q.Share == 0.5 {
			f.Median = number(q.Value)
		}
	}
	if j.State == drift.StateOK || j.State == drift.StateDrifting {
		c := finding.Comparison()
		f.PSIChance, f.JensenShannon = number(c.PSIChance), number(c.JensenShannon)
		f.KolmogorovSmirnov, f.KSChance, f.Wasserstein = number(c.KolmogorovSmirnov), number(c.KSChance), number(c.Wasserstein)
		f.ChiSquare, f.ChiSquareChance = number(c.ChiSquare), number(c.ChiSquareChance)
	}
	for _, b := range finding.Bins {
		f.Bins = append(f.Bins, Bin{Label: b.Label, Reference: b.Reference, Current: b.Current, PSI: b.Contribution})
	}
	return f
}

func total(profile *drift.Profile) float64 {
	sum := 0.0
	for i := range profile.Features {
		sum += profile.Features[i].Importance()
	}
	return sum
}

// Calibrate adds how the scores compare with what came of them.
func (r *Report) Calibrate(report *drift.CalibrationReport) {
	r.Calibration = &Calibration{
		State: report.State, Pairs: report.Pairs, Customers: report.Customers,
		Evidence: number(report.Evidence), Needed: number(report.Needed), Brier: number(report.Brier),
		ExpectedError: number(report.ExpectedError), MeanScore: number(report.MeanScore), ChurnRate: number(report.ChurnRate),
	}
	for _, p := range report.Curve {
		r.Calibration.Curve = append(r.Calibration.Curve, CalibrationPoint{
			Upper: p.Upper, Pairs: p.Pairs, MeanScore: p.MeanScore, ChurnRate: p.ChurnRate, Low: p.Low, High: p.High, Miscalibrated: p.Miscalibrated,
		})
	}
}

// Drifting says whether anything in the report drifts or is miscalibrated.
func (r *Report) Drifting() bool {
	for _, p := range r.Periods {
		if slices.ContainsFunc(p.Features, func(f Feature) bool { return f.State == drift.StateDrifting }) {
			return true
		}
	}
	return r.Calibration != nil && r.Calibration.State == drift.Miscalibrated
}
