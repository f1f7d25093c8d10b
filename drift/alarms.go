package drift

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/churnstream/churnstream/schemas"
)

// AlarmConfig says how long a judgement must hold, in evaluations of windows that moved on. Evaluations that could say
// nothing neither raise nor clear.
type AlarmConfig struct {
	Hold      int     // evaluations in a row that must be drifting before an alarm is raised
	ClearHold int     // evaluations in a row that must be calm before it is cleared
	Update    float64 // a raised alarm is told again when its PSI has grown by this factor; 0: never
	TopBins   int     // places named in a record
}

// DefaultAlarmConfig holds for fifteen evaluations both ways and tells again when the PSI has doubled.
func DefaultAlarmConfig() AlarmConfig {
	return AlarmConfig{Hold: 15, ClearHold: 15, Update: 2, TopBins: 3}
}

// Validate reports all faults at once.
func (c AlarmConfig) Validate() error {
	var faults []error
	if c.Hold < 1 {
		faults = append(faults, fmt.Errorf("drift.hold: %d is not at least 1, for example 15", c.Hold))
	}
	if c.ClearHold < 1 {
		faults = append(faults, fmt.Errorf("drift.clear_hold: %d is not at least 1, for example 15", c.ClearHold))
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

// Alarms turn the evaluations of one model's population into alerts: raised when a feature drifts long enough, updated
// when it gets much worse, cleared when it has been calm long enough. One goroutine owns them.
type Alarms struct {
	cfg     AlarmConfig
	model   ModelName
	alarms  []alarm        // one a feature
	feature map[string]int // index in alarms
	lastEnd int64          // end of the last evaluated window
}

type alarm struct {
	id       string  // of the raised episode; empty if none
	told     float64 // PSI of the last record
	drifting int     // evaluations in a row
	calm     int     // evaluations in a row
}

// NewAlarms returns alarms that are all off.
func NewAlarms(profile *Profile, model ModelName, cfg AlarmConfig) (*Alarms, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &Alarms{
		cfg: cfg, model: model, lastEnd: noBucket,
		alarms: make([]alarm, len(profile.Features)), feature: make(map[string]int, len(profile.Features)),
	}
	for i := range profile.Features {
		a.feature[profile.Features[i].Name] = i
	}
	return a, nil
}

// Restore takes over what an earlier record told, so that a raised alarm is neither raised again nor forgotten. Records
// are given in the order of their topic; those of other models are ignored.
func (a *Alarms) Restore(record *schemas.DriftAlert) {
	i, found := a.feature[record.Feature]
	if !found || record.ModelDigest != a.model.Digest {
		return
	}
	switch record.State {
	case schemas.AlertRaised, schemas.AlertUpdated:
		a.alarms[i] = alarm{id: record.AlertID, told: record.PSI}
	case schemas.AlertCleared:
		a.alarms[i] = alarm{}
	}
}

// Raised says whether the alarm of a feature is on.
func (a *Alarms) Raised(feature string) bool {
	i, found := a.feature[feature]
	return found && a.alarms[i].id != ""
}

// Step takes the next evaluation and returns the records that it gives reason for; at is the time of the evaluation in
// ms. A window that has not moved on since the last step tells nothing new and is passed over.
func (a *Alarms) Step(at int64, evaluation Evaluation) []schemas.DriftAlert {
	if evaluation.Window.End <= a.lastEnd {
		return nil
	}
	a.lastEnd = evaluation.Window.End
	var records []schemas.DriftAlert
	for i := range evaluation.Findings {
		f := &evaluation.Findings[i]
		index, found := a.feature[f.Feature]
		if !found {
			continue
		}
		al := &a.alarms[index]
		if f.State == StateInsufficientData {
			al.drifting = 0
			continue
		}
		al.drifting = countHeld(al.drifting, f.State == StateDrifting)
		al.calm = countHeld(al.calm, f.Calm)
		switch {
		case al.id == "" && al.drifting >= a.cfg.Hold:
			*al = alarm{id: a.episode(f.Feature, evaluation.Window.End), told: f.PSI}
			records = append(records, a.record(schemas.AlertRaised, al.id, at, f, &evaluation.Window))
		case al.id != "" && al.calm >= a.cfg.ClearHold:
			records = append(records, a.record(schemas.AlertCleared, al.id, at, f, &evaluation.Window))
			*al = alarm{}
		case al.id != "" && a.cfg.Update > 0 && f.State == StateDrifting && f.PSI >= a.cfg.Update*al.told:
			al.told = f.PSI
			records = append(records, a.record(schemas.AlertUpdated, al.id, at, f, &evaluation.Window))
		}
	}
	return records
}

func countHeld(held int, still bool) int {
	if still {
		return held + 1
	}
	return 0
}

// episode names an alarm from its raising to its clearing. Who evaluates the same windows gives the same name.
func (a *Alarms) episode(feature string, windowEnd int64) string {
	return a.model.Digest + "/" + feature + "/" + strconv.FormatInt(windowEnd, 10)
}

func (a *Alarms) record(state, id string, at int64, f *Finding, w *Window) schemas.DriftAlert {
	top := slices.Clone(f.Bins)
	slices.SortStableFunc(top, func(x, y schemas.BinShift) int { return cmp.Compare(y.Contribution, x.Contribution) })
	top = top[:min(a.cfg.TopBins, len(top))]
	return schemas.DriftAlert{
		AlertID: id, State: state,
		ModelName: a.model.Name, ModelVersion: a.model.Version, ModelDigest: a.model.Digest,
		Feature: f.Feature, PSI: f.PSI, Critical: f.Critical, PValue: f.PValue,
		WindowStart: w.Start, WindowEnd: w.End, Events: int64(f.Events), ReferenceEvents: int64(f.ReferenceEvents),
		At: at, TopBins: top, Message: message(state, f, w, top),
	}
}

// message says in words for somebody woken at night what moved, how sure that is and where to look first.
func message(state string, f *Finding, w *Window, top []schemas.BinShift) string {
	var b strings.Builder
	what := "Input " + strconv.Quote(f.Feature)
	if f.Feature == ScoreFeature {
		what = "The score"
	}
	window := fmt.Sprintf("in the %v to %s (%d events, worth %.0f independent customers)",
		time.Duration(w.End-w.Start)*time.Millisecond, time.UnixMilli(w.End).UTC().Format("2006-01-02 15:04:05 UTC"), f.Events, f.EffectiveCustomers)
	if state == schemas.AlertCleared {
		fmt.Fprintf(&b, "%s is back near the training population: PSI %.3f %s, alarm limit %.3f.", what, f.PSI, window, f.Critical)
		return b.String()
	}
	verb := "has moved away"
	if state == schemas.AlertUpdated {
		verb = "is moving further away"
	}
	fmt.Fprintf(&b, "%s %s from the training population: PSI %.3f %s, alarm limit %.3f.", what, verb, f.PSI, window, f.Critical)
	for i, bin := range top {
		separator := "; "
		if i == 0 {
			separator = " Most moved: "
		}
		fmt.Fprintf(&b, "%s%s from %.1f%% to %.1f%%", separator, bin.Label, 100*bin.Reference, 100*bin.Current)
	}
	b.WriteString(". ")
	switch {
	case f.Feature == ScoreFeature:
		b.WriteString("See which inputs drift too; if none does, the mix of customers has changed and the decision threshold may no longer fit.")
	case top[0].Label == placeMissing && top[0].Current > top[0].Reference:
		b.WriteString("The producer has stopped filling the field for part of the customers: check its last change.")
	case top[0].Label == placeUnseen && top[0].Current > top[0].Reference:
		b.WriteString("Values arrive that training never saw: a renamed or new category, which the model cannot use.")
	case strings.HasPrefix(top[0].Label, "< ") || strings.HasPrefix(top[0].Label, "> "):
		b.WriteString("Values lie outside the range of training: check the field's unit and its producer's last change.")
	default:
		b.WriteString("Check the producer's last change; if the customers really changed, plan a retraining.")
	}
	return b.String()
}
