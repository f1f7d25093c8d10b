package train

import (
	"errors"
	"fmt"
)

// ErrOneLabel says that the area under a ROC curve is not defined: all rows have the same label.
var ErrOneLabel = errors.New("all rows have the same label")

// AUC is the area under the ROC curve: the chance that a random churned row has a higher probability than a random
// retained one, ties counting half (Mann and Whitney 1947).
func AUC(churn []bool, probabilities []float64) (float64, error) {
	if len(churn) != len(probabilities) {
		return 0, fmt.Errorf("%d labels for %d probabilities", len(churn), len(probabilities))
	}
	f, ok := newSample(churn, probabilities, make([]string, len(churn)), 0.5).figures([]float64{1})
	if !ok {
		return 0, ErrOneLabel
	}
	return f.auc, nil
}
