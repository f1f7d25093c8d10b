package drift

import (
	"errors"
	"fmt"

	"github.com/churnstream/churnstream/schemas"
)

// State says how a feature's window compares with the reference population at one evaluation.
type State string

// The states of a feature.
const (
	StateOK               State = "ok"
	StateDrifting         State = "drifting"          // relevantly and significantly away
	StateInsufficientData State = "insufficient_data" // nothing can be said; the numbers are NaN
)

// States are all states, in the order in which dashboards show them.
func States() []State { return []State{StateOK, StateDrifting, StateInsufficientData} }

// Finding is the judgement on one feature in one window.
type Finding struct {
	Feature  string
	State    State
	PSI      float64 // NaN if there is too little data, as are Critical and PValue
	Critical float64 // the PSI that is drift at this sample size
	PValue   float64 // of the PSI if the population had not moved
	Calm     bool    // far enough below Critical to end an alarm

	Events             uint64
	EffectiveCustomers float64
	ReferenceEvents    uint64
	Bins               []schemas.BinShift // every place, in the profile's order
}

// Rule judges a feature's window. Population calls Judge once a feature and evaluation, with the counts of the feature's
// places and the number of features that are asked in the same evaluation; Judge sets State, PSI, Critical, PValue and
// Calm. It must be safe for concurrent use.
//
// How long a judgement must hold before it is an alarm is not the rule's concern but that of Alarms.
type Rule interface {
	Judge(finding *Finding, feature *Feature, counts []uint64, features int)
}

// RelevantShiftConfig sets the limits of RelevantShift.
type RelevantShiftConfig struct {
	Shift        float64 // the PSI of the population from which on a shift matters
	ShiftAlpha   float64 // chance that a population with exactly this PSI is called drifting at one evaluation
	Significance float64 // chance that any feature of an unmoved population is, shared over the features
	Calm         float64 // part of the critical PSI below which an alarm may end
	EventsAPlace float64 // effective customers per place below which nothing is said
}

// DefaultRelevantShiftConfig calls a true PSI above 0.1 relevant.
func DefaultRelevantShiftConfig() RelevantShiftConfig {
	return RelevantShiftConfig{Shift: 0.1, ShiftAlpha: 0.01, Significance: 1e-4, Calm: 0.7, EventsAPlace: 10}
}

// Validate reports all faults at once.
func (c RelevantShiftConfig) Validate() error {
	var faults []error
	check := func(ok bool, key string, value, example float64, want string) {
		if !ok {
			faults = append(faults, fmt.Errorf("drift.rule.%s: %v is not %s, for example %v", key, value, want, example))
		}
	}
	check(c.Shift > 0 && c.Shift < 10, "shift", c.Shift, 0.1, "between 0 and 10")
	check(c.ShiftAlpha > 0 && c.ShiftAlpha <= 0.5, "shift_alpha", c.ShiftAlpha, 0.01, "above 0 and at most 0.5")
	check(c.Significance > 1e-30 && c.Significance < 1, "significance", c.Significance, 1e-4, "between 0 and 1")
	check(c.Calm > 0 && c.Calm <= 1, "calm", c.Calm, 0.7, "above 0 and at most 1")
	check(c.EventsAPlace >= 1 && c.EventsAPlace < 1e6, "events_a_place", c.EventsAPlace, 10, "at least 1")
	return errors.Join(faults...)
}

// RelevantShift calls a feature drifting when its PSI is above what a barely relevant shift would show at this sample
// size and, beside that, too large for chance.
type RelevantShift struct{ cfg RelevantShiftConfig }

// NewRelevantShift returns the rule.
func NewRelevantShift(cfg RelevantShiftConfig) (*RelevantShift, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &RelevantShift{cfg: cfg}, nil
}

// Judge implements Rule. Both samples must hold EventsAPlace events a place; the window's are counted in effective
// customers, since events of returning customers say less than as many events of different ones.
func (r *RelevantShift) Judge(finding *Finding, feature *Feature, counts []uint64, features int) {
	places := len(counts)
	null := PSINull{Current: finding.EffectiveCustomers, Reference: float64(finding.ReferenceEvents), Places: places}
	if needed := r.cfg.EventsAPlace * float64(places); null.Current < needed || null.Reference < needed {
		finding.State = StateInsufficientData
		return
	}
	finding.PSI = PSI(AppendShares(make([]float64, 0, places), counts), feature.Shares)
	finding.PValue = null.PValue(finding.PSI)
	finding.Critical = max(
		null.CriticalShift(r.cfg.Shift, r.cfg.ShiftAlpha),
		null.Critical(r.cfg.Significance/float64(features)),
	)
	finding.State = StateOK
	if finding.PSI > finding.Critical {
		finding.State = StateDrifting
	}
	finding.Calm = finding.PSI < r.cfg.Calm*finding.Critical
}
