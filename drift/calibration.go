package drift

import (
	"errors"
	"fmt"
	"math"
)

// Calibration compares probabilities with what came of them, bin by bin of the score. It is a sum over pairs of score and
// outcome, so it adds up over files, partitions and workers. It is not safe for concurrent use.
type Calibration struct {
	Bins   []CalibrationBin
	Groups Groups // pairs of each hash group of customers; all 0: not known
}

// CalibrationBin sums up the pairs whose probability lies in one bin.
type CalibrationBin struct {
	Upper         float64 // the largest probability that belongs into it; 1 for the last
	Pairs         uint64
	Probabilities float64 // Σ p
	Variance      float64 // Σ p(1−p): of the outcomes, if the probabilities are right
	Outcomes      uint64  // Σ y
	Squares       float64 // Σ (p−y)²
}

// NewCalibration returns an empty calibration over the bins of the profile's score.
func NewCalibration(profile *Profile) *Calibration {
	c := &Calibration{}
	for _, edge := range profile.Features[profile.inputs].Edges {
		if edge > 0 && edge < 1 {
			c.Bins = append(c.Bins, CalibrationBin{Upper: edge})
		}
	}
	c.Bins = append(c.Bins, CalibrationBin{Upper: 1})
	return c
}

// Observe adds a pair of a customer (nil or empty: not known). A probability outside of 0 to 1 is an error.
func (c *Calibration) Observe(key []byte, probability float64, churned bool) error {
	if !(probability >= 0 && probability <= 1) {
		return fmt.Errorf("calibration: %v is no probability", probability)
	}
	i := 0
	for c.Bins[i].Upper < probability {
		i++
	}
	b, outcome := &c.Bins[i], 0.0
	if churned {
		outcome = 1
		b.Outcomes++
	}
	b.Pairs++
	b.Probabilities += probability
	b.Variance += probability * (1 - probability)
	b.Squares += (probability - outcome) * (probability - outcome)
	if len(key) > 0 {
		c.Groups.Add(key)
	}
	return nil
}

// Merge adds what another calibration over the same bins has counted.
func (c *Calibration) Merge(other *Calibration) error {
	if len(c.Bins) != len(other.Bins) {
		return errors.New("merge calibrations: they are over different bins")
	}
	for i := range other.Bins {
		if c.Bins[i].Upper != other.Bins[i].Upper {
			return errors.New("merge calibrations: they are over different bins")
		}
	}
	for i := range other.Bins {
		b, o := &c.Bins[i], &other.Bins[i]
		b.Pairs += o.Pairs
		b.Probabilities += o.Probabilities
		b.Variance += o.Variance
		b.Outcomes += o.Outcomes
		b.Squares += o.Squares
	}
	for g, n := range other.Groups {
		c.Groups[g] += n
	}
	return nil
}

// CalibrationConfig says which miscalibration is one.
type CalibrationConfig struct {
	Relevant float64 // difference of mean probability and rate of churn in a bin from which on it matters
	Chance   float64 // that any bin of a harmlessly calibrated model is called miscalibrated
	Pairs    float64 // independent customers below which nothing is said of a bin
}

// DefaultCalibrationConfig finds five points relevant and one wrong answer in a hundred reports bearable.
func DefaultCalibrationConfig() CalibrationConfig {
	return CalibrationConfig{Relevant: 0.05, Chance: 0.01, Pairs: 30}
}

// Validate reports all faults at once.
func (c CalibrationConfig) Validate() error {
	var faults []error
	if !(c.Relevant > 0 && c.Relevant < 1) {
		faults = append(faults, fmt.Errorf("calibration.relevant: %v is not between 0 and 1, for example 0.05", c.Relevant))
	}
	if !(c.Chance > 0 && c.Chance < 1) {
		faults = append(faults, fmt.Errorf("calibration.chance: %v is not between 0 and 1, for example 0.01", c.Chance))
	}
	if !(c.Pairs >= 1) {
		faults = append(faults, fmt.Errorf("calibration.pairs: %v is not at least 1, for example 30", c.Pairs))
	}
	return errors.Join(faults...)
}

// CalibrationReport is what a calibration shows.
type CalibrationReport struct {
	Pairs         uint64
	Customers     float64 // independent ones that the pairs are worth
	State         CalibrationState
	Evidence      float64 // the most of any bin that something can be said of, in nats; NaN: there is none
	Needed        float64 // nats of evidence that call a bin miscalibrated
	Brier         float64 // mean of (p−y)²
	ExpectedError float64 // expected calibration error: mean |p̄−ȳ| of the bins, by their pairs
	MeanScore     float64
	ChurnRate     float64
	Curve         []CalibrationPoint // one a bin that has pairs
}

// CalibrationState says what a report finds.
type CalibrationState string

// The states of a calibration.
const (
	Calibrated              CalibrationState = "ok"
	Miscalibrated           CalibrationState = "miscalibrated" // some bin is further off than is relevant, and chance is ruled out
	CalibrationInsufficient CalibrationState = "insufficient_data"
)

// CalibrationPoint is one bin of the reliability curve.
type CalibrationPoint struct {
	Upper         float64
	Pairs         uint64
	MeanScore     float64
	ChurnRate     float64
	Low, High     float64 // 95% interval of the rate (E. B. Wilson, 1927), of independent customers
	Z             float64 // (Σy−Σp)/√Σp(1−p), of independent customers
	Evidence      float64 // nats against every rate within the relevant distance of the mean score
	Miscalibrated bool
}

// Report evaluates what was observed. The evidence of a bin is Chernoff's bound: the probability that n independent
// outcomes of a rate r give a rate y beyond it is at most exp(−n·KL(y‖r)), and r is the mean score moved by the relevant
// distance towards y. All bins share the chance of a wrong answer.
func (c *Calibration) Report(cfg CalibrationConfig) (CalibrationReport, error) {
	r := CalibrationReport{State: CalibrationInsufficient, Brier: math.NaN(), ExpectedError: math.NaN(), MeanScore: math.NaN(), ChurnRate: math.NaN(), Evidence: math.NaN()}
	if err := cfg.Validate(); err != nil {
		return r, err
	}
	design := c.Groups.DesignEffect()
	scores, outcomes, squares, off := 0.0, 0.0, 0.0, 0.0
	r.Needed = math.Log(2 * float64(len(c.Bins)) / cfg.Chance)
	for i := range c.Bins {
		b := &c.Bins[i]
		if b.Pairs == 0 {
			continue
		}
		r.Pairs += b.Pairs
		scores += b.Probabilities
		outcomes += float64(b.Outcomes)
		squares += b.Squares
		off += math.Abs(b.Probabilities - float64(b.Outcomes))
		point := b.point(design, cfg)
		if float64(b.Pairs)/design >= cfg.Pairs {
			point.Miscalibrated = point.Evidence > r.Needed
			if !(r.Evidence >= point.Evidence) {
				r.Evidence = point.Evidence
			}
			switch {
			case point.Miscalibrated:
				r.State = Miscalibrated
			case r.State == CalibrationInsufficient:
				r.State = Calibrated
			}
		}
		r.Curve = append(r.Curve, point)
	}
	if n := float64(r.Pairs); n > 0 {
		r.Customers, r.Brier, r.ExpectedError, r.MeanScore, r.ChurnRate = n/design, squares/n, off/n, scores/n, outcomes/n
	}
	return r, nil
}

func (b *CalibrationBin) point(design float64, cfg CalibrationConfig) CalibrationPoint {
	pairs := float64(b.Pairs)
	n := pairs / design
	p := CalibrationPoint{Upper: b.Upper, Pairs: b.Pairs, MeanScore: b.Probabilities / pairs, ChurnRate: float64(b.Outcomes) / pairs}
	const z = 1.959963984540054
	centre, width := (p.ChurnRate+z*z/(2*n))/(1+z*z/n), z/(1+z*z/n)*math.Sqrt(p.ChurnRate*(1-p.ChurnRate)/n+z*z/(4*n*n))
	p.Low, p.High = max(0, centre-width), min(1, centre+width)
	if b.Variance > 0 {
		p.Z = (float64(b.Outcomes) - b.Probabilities) / math.Sqrt(b.Variance*design)
	}
	switch {
	case p.ChurnRate > p.MeanScore+cfg.Relevant:
		p.Evidence = n * binaryDivergence(p.ChurnRate, p.MeanScore+cfg.Relevant)
	case p.ChurnRate < p.MeanScore-cfg.Relevant:
		p.Evidence = n * binaryDivergence(p.ChurnRate, p.MeanScore-cfg.Relevant)
	}
	return p
}

// binaryDivergence is the Kullback-Leibler divergence of two rates.
func binaryDivergence(y, r float64) float64 {
	d := 0.0
	if y > 0 {
		d += y * math.Log(y/r)
	}
	if y < 1 {
		d += (1 - y) * math.Log((1-y)/(1-r))
	}
	return d
}
