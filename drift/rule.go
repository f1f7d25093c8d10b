package drift

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// State says how a feature's window compares with the reference population.
type State string

// The states of a feature in a window. In the last three nothing can be said, and the numbers are NaN.
const (
	StateOK                    State = "ok"
	StateDrifting              State = "drifting"               // further away than is relevant, and chance is ruled out
	StateInsufficientData      State = "insufficient_data"      // too few independent customers
	StateDominated             State = "dominated"              // events enough, but few customers dominate them
	StateInsufficientReference State = "insufficient_reference" // the profile itself is too small a sample
)

// States are all states, in the order in which dashboards show them.
func States() []State {
	return []State{StateOK, StateDrifting, StateInsufficientData, StateDominated, StateInsufficientReference}
}

// Judgement is what the rule finds about one feature in one window.
type Judgement struct {
	State    State
	PSI      float64 // of the window as counted, smoothed; NaN if nothing can be said
	Evidence float64 // nats against every population whose PSI is at most the relevant one; NaN likewise
	Visible  float64 // the smallest PSI that would be called drifting with these customers; NaN likewise
	Events   uint64
	// Customers is the number of independent customers that the events are worth.
	Customers float64
}

// RuleConfig sets the limits of the rule.
type RuleConfig struct {
	Shift       float64 // PSI of a population from which on its shift is relevant
	AlarmsAYear float64 // false alarms a model may raise in a year, over everything that is asked
	// CustomersAPlace is how many independent customers a window must hold for each place before anything is said, and
	// CalmCustomersAPlace before an alarm may end.
	CustomersAPlace, CalmCustomersAPlace float64
	// Calm is the part of Shift below which the PSI of a window is calm.
	Calm float64
	// ReferenceAPlace bounds the noise of the profile, which costs a PSI of (B−1)/M: the M independent customers of the
	// profile must be at least so many times (B−1)/Shift.
	ReferenceAPlace float64
}

// DefaultRuleConfig calls a PSI above 0.1 relevant and allows for one false alarm a year.
func DefaultRuleConfig() RuleConfig {
	return RuleConfig{Shift: 0.1, AlarmsAYear: 1, CustomersAPlace: 10, CalmCustomersAPlace: 50, Calm: 0.7, ReferenceAPlace: 20}
}

// Validate reports all faults at once.
func (c RuleConfig) Validate() error {
	var faults []error
	check := func(ok bool, key string, value, example float64, want string) {
		if !ok {
			faults = append(faults, fmt.Errorf("drift.%s: %v is not %s, for example %v", key, value, want, example))
		}
	}
	check(c.Shift > 0 && c.Shift < 10, "relevant_psi", c.Shift, 0.1, "above 0 and below 10")
	check(c.AlarmsAYear > 1e-6 && c.AlarmsAYear <= 1000, "false_alarms_a_year", c.AlarmsAYear, 1, "above 0.000001 and at most 1000")
	check(c.CustomersAPlace >= 1 && c.CustomersAPlace < 1e6, "customers_a_place", c.CustomersAPlace, 10, "at least 1")
	check(c.CalmCustomersAPlace >= c.CustomersAPlace && c.CalmCustomersAPlace < 1e6, "calm_customers_a_place", c.CalmCustomersAPlace, 50, "at least customers_a_place")
	check(c.Calm > 0 && c.Calm <= 1, "calm", c.Calm, 0.7, "above 0 and at most 1")
	check(c.ReferenceAPlace >= 0 && c.ReferenceAPlace < 1e6, "reference_a_place", c.ReferenceAPlace, 20, "at least 0")
	return errors.Join(faults...)
}

// knows says whether a reference of so many independent customers is enough for a feature of so many places.
func (c RuleConfig) knows(customers float64, places int) bool {
	return customers >= c.ReferenceAPlace*float64(places-1)/c.Shift
}

// Questions is how often a model's population is asked about.
type Questions struct {
	Features int           // inputs, score and what else has places
	Horizons int           // windows judged at each evaluation
	Every    time.Duration // between evaluations of windows that moved on
}

const year = 365 * 24 * time.Hour

// Rule judges a feature's window. It is immutable and may be shared.
//
// It holds one union bound over every question asked in a year: each may be answered wrongly with probability
// AlarmsAYear / (Features × Horizons × evaluations a year), whatever the dependence between minutes, features and
// overlapping windows. So it needs no hold time and no other care for repeated looks.
type Rule struct {
	cfg RuleConfig
	// Needed is the evidence, in nats, that one judgement must reach.
	Needed float64
}

// NewRule returns the rule for a model of which so much is asked.
func NewRule(cfg RuleConfig, q Questions) (*Rule, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if q.Features < 1 || q.Horizons < 1 || q.Every <= 0 {
		return nil, fmt.Errorf("drift rule: %d features over %d horizons every %v is no question", q.Features, q.Horizons, q.Every)
	}
	asked := float64(q.Features) * float64(q.Horizons) * float64(year) / float64(q.Every)
	return &Rule{cfg: cfg, Needed: max(0, math.Log(asked/cfg.AlarmsAYear))}, nil
}

// NewReportRule returns the rule for one report that asks so many questions, of which any is answered wrongly with
// probability chance at most.
func NewReportRule(cfg RuleConfig, questions int, chance float64) (*Rule, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if questions < 1 || !(chance > 0 && chance < 1) {
		return nil, fmt.Errorf("drift report: %d questions with a chance of %v for a wrong answer", questions, chance)
	}
	return &Rule{cfg: cfg, Needed: math.Log(float64(questions) / chance)}, nil
}

// Judge compares the counts of a feature's places with its reference shares. groups are the events of each customer
// group in the same window, referenceCustomers the independent customers of the profile.
func (r *Rule) Judge(counts []uint64, reference []float64, groups *Groups, referenceCustomers float64) Judgement {
	return r.JudgeBy(groups.DesignEffect(), counts, reference, groups, referenceCustomers)
}

// JudgeBy is Judge where more is known of the design effect than the window's own groups tell.
func (r *Rule) JudgeBy(design float64, counts []uint64, reference []float64, groups *Groups, referenceCustomers float64) Judgement {
	j := Judgement{State: StateOK, PSI: math.NaN(), Evidence: math.NaN(), Visible: math.NaN()}
	for _, c := range counts {
		j.Events += c
	}
	places := float64(len(counts))
	j.Customers = float64(j.Events) / design
	switch needed := r.cfg.CustomersAPlace * places; {
	case !r.cfg.knows(referenceCustomers, len(counts)):
		j.State = StateInsufficientReference
		return j
	case j.Customers < needed && float64(j.Events) >= needed && groups.largestShare() >= dominant:
		j.State = StateDominated
		return j
	case j.Customers < needed:
		j.State = StateInsufficientData
		return j
	}
	j.PSI = smoothedPSI(counts, reference)
	j.Evidence = discounted(evidence(mix(counts, reference, r.cfg.Shift).divergence, j.Customers, r.cfg.Shift, len(counts)), design)
	j.Visible = visible(undiscounted(r.Needed, design), j.Customers, r.cfg.Shift, len(counts))
	if j.Evidence > r.Needed {
		j.State = StateDrifting
	}
	return j
}

// dominant is the share of one customer group from which on it outweighs the rest: sixty-four groups have 1.6% each.
const dominant = 0.1

// Calm says whether a judgement on so many places speaks for the end of an alarm; known is false if it rests on too few
// customers to say so.
func (r *Rule) Calm(j *Judgement, places int) (calm, known bool) {
	known = !math.IsNaN(j.PSI) && j.Customers >= r.cfg.CalmCustomersAPlace*float64(places)
	return known && j.PSI < r.cfg.Calm*r.cfg.Shift, known
}

// YearsByChance is after how many years, on average, chance gives at least this evidence once, over everything that is
// asked.
func (r *Rule) YearsByChance(evidence float64) float64 {
	return math.Exp(evidence-r.Needed) / r.cfg.AlarmsAYear
}

// standing is the judgement of several horizons that a feature's state follows from: the drifting one of most evidence,
// else the first that says anything, else the first of the most telling state.
func standing(judgements []Judgement) int {
	rank := func(j *Judgement) int {
		return slices.Index([]State{StateInsufficientData, StateDominated, StateInsufficientReference, StateOK, StateDrifting}, j.State)
	}
	best := 0
	for i := range judgements {
		a, b := &judgements[i], &judgements[best]
		if rank(a) > rank(b) || a.State == StateDrifting && b.State == StateDrifting && a.Evidence > b.Evidence {
			best = i
		}
	}
	return best
}
