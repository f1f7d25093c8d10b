package train

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/churnstream/churnstream/scoring"
)

// resamples of the bootstrap, and its interval.
const (
	resamples       = 1000
	confidenceLevel = 0.95
)

// ErrOneLabel says that all rows have the same label, so that the area under a ROC curve does not
// exist.
var ErrOneLabel = errors.New("all rows have the same label")

// AUC is the area under the ROC curve: the chance that a row with churn has a higher probability than
// one without, ties counting half (Mann and Whitney 1947).
func AUC(churn []bool, probabilities []float64) (float64, error) {
	if len(churn) != len(probabilities) {
		return 0, fmt.Errorf("AUC of %d labels and %d probabilities", len(churn), len(probabilities))
	}
	f, ok := newSample(churn, probabilities, make([]string, len(churn)), 0.5).figures([]float64{1})
	if !ok {
		return 0, fmt.Errorf("AUC: %w", ErrOneLabel)
	}
	return f.auc, nil
}

// figures are the metrics of one weighted sample.
type figures struct{ auc, brier, logLoss, accuracy float64 }

// evaluate computes the metrics of probabilities against labels. The intervals are percentiles of a
// bootstrap that draws customers, not rows: rows of one customer are no independent evidence. (Efron
// and Tibshirani 1993, chapter 13; Field and Welsh 2007 for clusters.)
func evaluate(churn []bool, probabilities []float64, customers []string, threshold float64, seed uint64) ([]scoring.Metric, error) {
	if len(churn) == 0 {
		return nil, errors.New("no held-out rows")
	}
	s := newSample(churn, probabilities, customers, threshold)
	weights := make([]float64, s.customers)
	for i := range weights {
		weights[i] = 1
	}
	point, ok := s.figures(weights)
	if !ok {
		return nil, fmt.Errorf("held-out rows: %w; raise split.test_fraction or change split.seed", ErrOneLabel)
	}
	random := rand.New(rand.NewPCG(seed, 0x6d657472696373))
	var drawn []figures
	for range resamples {
		clear(weights)
		for range weights {
			weights[random.IntN(len(weights))]++
		}
		if f, ok := s.figures(weights); ok { // a draw of one label has no AUC
			drawn = append(drawn, f)
		}
	}
	method := fmt.Sprintf("percentile bootstrap over %d customers, %d resamples, seed %d", s.customers, resamples, seed)
	metric := func(name string, of func(figures) float64) scoring.Metric {
		m := scoring.Metric{Name: name, Value: of(point)}
		if len(drawn) < resamples/2 {
			return m // too few of the rarer label for an interval that means anything
		}
		values := make([]float64, len(drawn))
		for i, f := range drawn {
			values[i] = of(f)
		}
		slices.Sort(values)
		m.Interval = &scoring.Interval{
			Low:   Quantile(values, (1-confidenceLevel)/2),
			High:  Quantile(values, (1+confidenceLevel)/2),
			Level: confidenceLevel, Method: method,
		}
		return m
	}
	return []scoring.Metric{
		metric("auc", func(f figures) float64 { return f.auc }),
		metric("brier", func(f figures) float64 { return f.brier }),
		metric("log_loss", func(f figures) float64 { return f.logLoss }),
		metric("accuracy", func(f figures) float64 { return f.accuracy }),
	}, nil
}

// sample holds the rows in ascending order of their probability, so that a resample is a new set of
// weights and needs no sorting.
type sample struct {
	customers int
	rows      []sampleRow
}

type sampleRow struct {
	probability      float64
	squared, logLoss float64
	customer         int
	churn, right     bool
}

func newSample(churn []bool, probabilities []float64, customers []string, threshold float64) *sample {
	s := &sample{}
	index := map[string]int{}
	for i, p := range probabilities {
		at, ok := index[customers[i]]
		if !ok {
			at = len(index)
			index[customers[i]] = at
		}
		y := 0.0
		if churn[i] {
			y = 1
		}
		const epsilon = 0x1p-52 // scikit-learn clips by as much
		clipped := min(max(p, epsilon), 1-epsilon)
		s.rows = append(s.rows, sampleRow{
			probability: p, customer: at, churn: churn[i],
			squared: (p - y) * (p - y),
			logLoss: -(y*math.Log(clipped) + (1-y)*math.Log(1-clipped)),
			right:   (p >= threshold) == churn[i],
		})
	}
	s.customers = len(index)
	slices.SortStableFunc(s.rows, func(a, b sampleRow) int {
		switch {
		case a.probability < b.probability:
			return -1
		case a.probability > b.probability:
			return 1
		}
		return 0
	})
	return s
}

// figures weighs each row by its customer's weight; ok is false if only one label is left.
func (s *sample) figures(weights []float64) (f figures, ok bool) {
	var total, below, churned, pairs float64 // below: weight of retained rows with a lower probability
	for i := 0; i < len(s.rows); {
		var up, down float64 // of the rows with the same probability
		p := s.rows[i].probability
		for ; i < len(s.rows) && s.rows[i].probability == p; i++ {
			r := &s.rows[i]
			w := weights[r.customer]
			if r.churn {
				up += w
			} else {
				down += w
			}
			if r.right {
				f.accuracy += w
			}
			f.brier += w * r.squared
			f.logLoss += w * r.logLoss
		}
		pairs += up * (below + down/2)
		below += down
		churned += up
		total += up + down
	}
	if below == 0 || churned == 0 {
		return figures{}, false
	}
	f.auc = pairs / (below * churned)
	f.brier /= total
	f.logLoss /= total
	f.accuracy /= total
	return f, true
}

// Quantile interpolates linearly between the sorted values, at least one, as numpy.quantile does; q is within [0, 1].
func Quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}
