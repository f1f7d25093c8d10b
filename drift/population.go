package drift

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/churnstream/churnstream/schemas"
)

// PopulationConfig says which buckets make the evaluated window.
type PopulationConfig struct {
	Window WindowConfig
	// Idle is how far a partition's newest event may lie behind the newest of all before the watermark stops waiting
	// for it. Its buckets still count as far as they are in the window.
	Idle time.Duration
}

// DefaultPopulationConfig is the default window, waiting five minutes for slow partitions.
func DefaultPopulationConfig() PopulationConfig {
	return PopulationConfig{Window: DefaultWindowConfig(), Idle: 5 * time.Minute}
}

// Validate reports all faults at once.
func (c PopulationConfig) Validate() error {
	idle := error(nil)
	if c.Idle < 0 {
		idle = fmt.Errorf("drift.idle: %v is negative, for example 5m", c.Idle)
	}
	return errors.Join(c.Window.Validate(), idle)
}

// Population adds up the states of all partitions of one model, whoever counted them. It is safe for concurrent use.
type Population struct {
	profile *Profile
	digest  string
	cfg     PopulationConfig
	rule    Rule

	mu         sync.Mutex
	partitions map[sourcePartition]*ring
}

type sourcePartition struct {
	topic     string
	partition int32
}

// NewPopulation returns an empty population of the model with the given digest.
func NewPopulation(profile *Profile, modelDigest string, cfg PopulationConfig, rule Rule) (*Population, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Population{
		profile: profile, digest: modelDigest, cfg: cfg, rule: rule,
		partitions: make(map[sourcePartition]*ring),
	}, nil
}

// Apply takes over the absolute counts of one bucket of one partition. Order does not matter: of two states of one
// bucket the one that counted further wins. States of other models and widths are ignored.
func (p *Population) Apply(state *schemas.DriftState) error {
	if state.ModelDigest != p.digest || state.BucketWidth != p.cfg.Window.widthSeconds() {
		return nil
	}
	if err := checkState(state, p.profile, p.cfg.Window.widthMillis()); err != nil {
		return fmt.Errorf("merge drift of %s/%d, bucket %d: %w", state.Topic, state.Partition, state.BucketStart, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := sourcePartition{state.Topic, state.Partition}
	r := p.partitions[at]
	if r == nil {
		fresh := newRing(p.cfg.Window)
		r = &fresh
		p.partitions[at] = r
	}
	r.adopt(state, p.profile.places)
	return nil
}

// Watermark is the end, in ms of event time, of the newest bucket that every partition has reached, idle ones aside.
// It is false before the first state.
func (p *Population) Watermark() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	start, found := p.newestLocked()
	return start + p.cfg.Window.widthMillis(), found
}

func (p *Population) newestLocked() (int64, bool) {
	latest := int64(noBucket)
	for _, r := range p.partitions {
		latest = max(latest, r.newest)
	}
	if latest == noBucket {
		return 0, false
	}
	start := latest
	for _, r := range p.partitions {
		if r.newest >= latest-p.cfg.Idle.Milliseconds() {
			start = min(start, r.newest)
		}
	}
	return start, true
}

// Window is the population of a stretch of event time, over all partitions.
type Window struct {
	Start, End   int64    // ms; End is exclusive
	Events       uint64   // events in it
	Counts       []uint64 // per place of the profile, features one after the other
	Groups       [schemas.DriftGroups]uint64
	DesignEffect float64 // events that are worth one independent customer
	Partitions   int     // that have events in it
}

// EffectiveCustomers is the number of independent customers that the window's events are worth.
func (w *Window) EffectiveCustomers() float64 { return float64(w.Events) / w.DesignEffect }

// Window adds up the buckets of the window that ends with the bucket holding at, in ms of event time.
func (p *Population) Window(at int64) Window {
	width := p.cfg.Window.widthMillis()
	newest := align(at, width)
	w := Window{
		Start: newest - int64(p.cfg.Window.Buckets-1)*width, End: newest + width,
		Counts: make([]uint64, p.profile.places),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.partitions {
		inside := false
		for i := range r.slots {
			b := &r.slots[i]
			if b.start < w.Start || b.start >= w.End {
				continue
			}
			inside = true
			for place, c := range b.cells[:p.profile.places] {
				w.Counts[place] += uint64(c)
			}
			for group, c := range b.cells[p.profile.places:] {
				w.Groups[group] += uint64(c)
			}
		}
		if inside {
			w.Partitions++
		}
	}
	for _, c := range w.Counts[:len(p.profile.Features[0].Labels)] {
		w.Events += c
	}
	w.DesignEffect = DesignEffect(&w.Groups)
	return w
}

// Evaluation is what one look at the population found, one finding a feature in the profile's order.
type Evaluation struct {
	Window   Window
	Findings []Finding
}

// Evaluate judges every feature over the window that ends with the bucket holding at, in ms of event time; see
// Watermark.
func (p *Population) Evaluate(at int64) Evaluation {
	e := Evaluation{Window: p.Window(at), Findings: make([]Finding, len(p.profile.Features))}
	for i := range p.profile.Features {
		f := &p.profile.Features[i]
		counts := e.Window.Counts[f.first : f.first+len(f.Labels)]
		finding := &e.Findings[i]
		*finding = Finding{
			Feature: f.Name, PSI: math.NaN(), Critical: math.NaN(), PValue: math.NaN(),
			Events: e.Window.Events, EffectiveCustomers: e.Window.EffectiveCustomers(), ReferenceEvents: p.profile.Events,
		}
		p.rule.Judge(finding, f, counts, len(p.profile.Features))
		finding.Bins = f.bins(counts)
	}
	return e
}

// bins shows reference and window of a feature place by place, in the profile's order.
func (f *Feature) bins(counts []uint64) []schemas.BinShift {
	shares := AppendShares(make([]float64, 0, len(counts)), counts)
	bins := make([]schemas.BinShift, len(counts))
	for i := range bins {
		bins[i] = schemas.BinShift{
			Label: f.Labels[i], Reference: f.Shares[i], Current: shares[i], Contribution: Contribution(shares[i], f.Shares[i]),
		}
	}
	return bins
}
