package drift

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/churnstream/churnstream/schemas"
)

// AlarmConfig says when an alarm is told again and when it ends. Raising needs no hold: the rule's evidence counts every
// look. Evaluations that could say nothing neither raise nor clear.
type AlarmConfig struct {
	ClearHold int     // evaluations in a row, of windows that moved on, that must be calm before an alarm is cleared
	Update    float64 // a raised alarm is told again when its PSI has grown by this factor; 0: never
	TopBins   int     // places named in a record
}

// DefaultAlarmConfig clears after thirty calm evaluations and tells again when the PSI has doubled.
func DefaultAlarmConfig() AlarmConfig { return AlarmConfig{ClearHold: 30, Update: 2, TopBins: 3} }

// Validate reports all faults at once.
func (c AlarmConfig) Validate() error {
	var faults []error
	if c.ClearHold < 1 {
		faults = append(faults, fmt.Errorf("drift.clear_hold: %d is not at least 1, for example 30", c.ClearHold))
	}
	if c.Update != 0 && !(c.Update > 1) {
		faults = append(faults, fmt.Errorf("drift.update: %v is neither 0 nor above 1, for example 2", c.Update))
	}
	if c.TopBins < 1 || c.TopBins > maxFeaturePlaces {
		faults = append(faults, fmt.Errorf("drift.top_bins: %d is not between 1 and %d, for example 3", c.TopBins, maxFeaturePlaces))
	}
	return errors.Join(faults...)
}

// ModelName is how alerts call a model.
type ModelName struct{ Name, Version, Digest string }

// Alarms turn the evaluations of one model's population into alerts: raised when a feature drifts, updated when it gets
// much worse, cleared when it has been calm long enough. One goroutine owns them.
type Alarms struct {
	cfg     AlarmConfig
	rule    *Rule
	model   ModelName
	profile *Profile
	alarms  []alarm        // one a feature
	marks   []int64        // one a feature
	feature map[string]int // index in alarms
	lastEnd int64          // end of the last evaluated windows
}

type alarm struct {
	id   string  // of the raised episode; empty if none
	told float64 // PSI of the last record
	calm int     // evaluations in a row
}

// NewAlarms returns alarms that are all off, for evaluations of one population.
func NewAlarms(population *Population, model ModelName, cfg AlarmConfig) (*Alarms, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	profile := population.profile
	a := &Alarms{
		cfg: cfg, rule: population.rule, model: model, profile: profile, lastEnd: noBucket,
		alarms: make([]alarm, len(profile.Features)), marks: make([]int64, len(profile.Features)), feature: make(map[string]int, len(profile.Features)),
	}
	for i := range profile.Features {
		a.feature[profile.Features[i].Name] = i
		a.marks[i] = noBucket
	}
	return a, nil
}

// Marks are the times, in ms of event time and one a feature, before which a feature's windows must not begin: a longer
// window would raise the alarm of an episode again that has been cleared.
func (a *Alarms) Marks() []int64 { return a.marks }

// Restore takes over what an earlier record told, so that a raised alarm is neither raised again nor forgotten, and a
// cleared one keeps its mark. Records are given in the order of their topic; those of other models are ignored.
func (a *Alarms) Restore(record *schemas.DriftAlert) {
	i, found := a.feature[record.Feature]
	if !found || record.ModelDigest != a.model.Digest {
		return
	}
	switch record.State {
	case schemas.AlertRaised, schemas.AlertUpdated:
		a.alarms[i] = alarm{id: record.AlertID, told: record.PSI}
	case schemas.AlertCleared:
		a.alarms[i], a.marks[i] = alarm{}, record.WindowStart
	}
}

// Raised says whether the alarm of a feature is on.
func (a *Alarms) Raised(feature string) bool {
	i, found := a.feature[feature]
	return found && a.alarms[i].id != ""
}

// Step takes the next evaluation and returns the records that it gives reason for, those that move the scores most
// first; at is the time of the evaluation in ms. Windows that have not moved on since the last step tell nothing new and
// are passed over.
func (a *Alarms) Step(at int64, evaluation Evaluation) []schemas.DriftAlert {
	if evaluation.End <= a.lastEnd {
		return nil
	}
	a.lastEnd = evaluation.End
	ranks := a.ranks(&evaluation)
	var records []schemas.DriftAlert
	for i := range evaluation.Findings {
		f := &evaluation.Findings[i]
		al := &a.alarms[i]
		if f.End != nil {
			if al.calm++; !f.Calm {
				al.calm = 0
			}
		}
		psi := f.Judgement().PSI
		tell := func(state, id string) {
			records = append(records, a.record(state, id, at, i, &evaluation, ranks[i]))
		}
		switch {
		case al.id == "" && f.State == StateDrifting:
			*al = alarm{id: a.episode(f.Feature, evaluation.End), told: psi}
			tell(schemas.AlertRaised, al.id)
		case al.id != "" && al.calm >= a.cfg.ClearHold:
			tell(schemas.AlertCleared, al.id)
			*al, a.marks[i] = alarm{}, mark(f.EndWindow)
		case al.id != "" && a.cfg.Update > 0 && f.State == StateDrifting && psi >= a.cfg.Update*al.told:
			al.told = psi
			tell(schemas.AlertUpdated, al.id)
		}
	}
	slices.SortStableFunc(records, func(x, y schemas.DriftAlert) int { return cmp.Compare(x.Rank, y.Rank) })
	return records
}

// mark is where the window begins that ended an alarm.
func mark(w *Window) int64 { return w.End - w.Horizon.Milliseconds() }

// ranks orders the drifting features by what they do to the scores: the score itself and the decision first, then the
// inputs by how far they move the margin, or by PSI where contributions are not known. Features at rest have rank 0.
func (a *Alarms) ranks(e *Evaluation) []int32 {
	order := make([]int, 0, len(e.Findings))
	for i := range e.Findings {
		if e.Findings[i].State == StateDrifting {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(x, y int) int {
		f, g := &e.Findings[x], &e.Findings[y]
		return cmp.Or(
			-cmp.Compare(oneIf(x == a.profile.inputs), oneIf(y == a.profile.inputs)),
			-cmp.Compare(oneIf(x > a.profile.inputs), oneIf(y > a.profile.inputs)),
			-cmp.Compare(f.Either, g.Either), -cmp.Compare(f.Judgement().PSI, g.Judgement().PSI),
		)
	})
	ranks := make([]int32, len(e.Findings))
	for rank, i := range order {
		ranks[i] = int32(rank + 1)
	}
	return ranks
}

// episode names an alarm from its raising to its clearing. Who evaluates the same windows gives the same name.
func (a *Alarms) episode(feature string, windowEnd int64) string {
	return a.model.Digest + "/" + feature + "/" + strconv.FormatInt(windowEnd, 10)
}

func (a *Alarms) record(state, id string, at int64, feature int, e *Evaluation, rank int32) schemas.DriftAlert {
	f, profile := &e.Findings[feature], &a.profile.Features[feature]
	j, w := f.Judgement(), f.Window
	start := w.Start
	if state == schemas.AlertCleared {
		j, w = f.End, f.EndWindow
		start = mark(w) // whoever comes after reads it here
	}
	top := slices.Clone(f.Bins)
	slices.SortStableFunc(top, func(x, y schemas.BinShift) int { return cmp.Compare(y.Contribution, x.Contribution) })
	top = top[:min(a.cfg.TopBins, len(top))]
	record := schemas.DriftAlert{
		AlertID: id, State: state,
		ModelName: a.model.Name, ModelVersion: a.model.Version, ModelDigest: a.model.Digest,
		Feature: f.Feature, PSI: j.PSI, Critical: j.Visible, PValue: math.Exp(-j.Evidence),
		WindowStart: start, WindowEnd: w.End, Events: int64(j.Events), ReferenceEvents: int64(a.profile.Events),
		At: at, TopBins: top,
		Evidence: j.Evidence, EvidenceNeeded: a.rule.Needed, Horizon: int32(w.Horizon / time.Second), Customers: j.Customers,
		Effect: f.Effect, Importance: a.importance(profile), Rank: rank,
	}
	score := &a.profile.Features[a.profile.inputs]
	counts, _ := a.profile.feature(a.profile.inputs, w)
	record.ScorePSI = smoothedPSI(counts, a.profile.expect(a.profile.inputs, w).Shares)
	record.ScoreMean, record.ScoreReferenceMean = score.Summarize(counts, score.Counts, &w.Moments[score.moment]).Mean, score.Mean
	record.Message = a.message(&record, w)
	return record
}

// importance is the feature's share in how much the margin varies over the reference population, 0 if it is not known.
func (a *Alarms) importance(f *Feature) float64 {
	total := 0.0
	for i := range a.profile.Features {
		total += a.profile.Features[i].Importance()
	}
	if total == 0 {
		return 0
	}
	return f.Importance() / total
}

// message says in words for somebody woken at night what moved, how sure that is and where to look first.
func (a *Alarms) message(r *schemas.DriftAlert, w *Window) string {
	var b strings.Builder
	what := "Input " + strconv.Quote(r.Feature)
	switch i := a.feature[r.Feature]; {
	case i == a.profile.inputs:
		what = "The score"
	case i > a.profile.inputs && a.profile.Features[i].Segment != nil:
		s := a.profile.Features[i].Segment
		what = fmt.Sprintf("The score of customers with %s %q", s.Input, s.Category)
	case i > a.profile.inputs:
		what = "The share of customers that are predicted to churn"
	}
	window := fmt.Sprintf("in up to %v to %s (%d events, worth %.0f independent customers)",
		w.Horizon, time.UnixMilli(w.End).UTC().Format("2006-01-02 15:04:05 UTC"), r.Events, r.Customers)
	if r.State == schemas.AlertCleared {
		fmt.Fprintf(&b, "%s is back near the training population: PSI %.3f %s.", what, r.PSI, window)
		return b.String()
	}
	verb := "has moved away"
	if r.State == schemas.AlertUpdated {
		verb = "is moving further away"
	}
	fmt.Fprintf(&b, "%s %s from the training population: PSI %.3f %s, where %.3f would be seen. By chance once in %s.",
		what, verb, r.PSI, window, r.Critical, years(a.rule.YearsByChance(r.Evidence)))
	for i, bin := range r.TopBins {
		separator := "; "
		if i == 0 {
			separator = " Most moved: "
		}
		fmt.Fprintf(&b, "%s%s from %.1f%% to %.1f%%", separator, bin.Label, 100*bin.Reference, 100*bin.Current)
	}
	b.WriteString(". ")
	top := &r.TopBins[0]
	switch {
	case r.Feature == ScoreFeature:
		b.WriteString("See which inputs drift too; if none does, the mix of customers has changed and the decision threshold may no longer fit.")
	case a.feature[r.Feature] > a.profile.inputs:
		b.WriteString("See which inputs drift too.")
	case top.Label == placeMissing && top.Current > top.Reference:
		b.WriteString("The producer has stopped filling the field for part of the customers: check its last change.")
	case top.Label == placeUnseen && top.Current > top.Reference:
		b.WriteString("Values arrive that training never saw: a renamed or new category, which the model cannot use.")
	case strings.HasPrefix(top.Label, "< ") || strings.HasPrefix(top.Label, "> "):
		b.WriteString("Values lie outside the range of training: check the field's unit and its producer's last change.")
	default:
		b.WriteString("Check the producer's last change; if the customers really changed, plan a retraining.")
	}
	if a.feature[r.Feature] < a.profile.inputs && r.Importance > 0 {
		fmt.Fprintf(&b, " The input makes %.0f%% of what the model's scores vary by; this shift moves the mean log-odds by %+.2f.", 100*r.Importance, r.Effect)
	}
	return b.String()
}

func years(n float64) string {
	switch {
	case n > 1e6:
		return "over a million years"
	case n >= 10:
		return fmt.Sprintf("%.0f years", n)
	default:
		return fmt.Sprintf("%.1f years", n)
	}
}
