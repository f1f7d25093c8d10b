package xgboost

import (
	"testing"

	"github.com/churnstream/churnstream/internal/golden"
)

// TestModelsScoreAsXGBoost holds models of several versions against what XGBoost made of the same
// rows (python/goldens/boosters.py): margins to the bit, predictions within a rounding of expf, and
// contributions within what XGBoost loses by computing them in float32.
func TestModelsScoreAsXGBoost(t *testing.T) {
	cases, err := golden.Load("testdata", "xgboost-")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			m, err := Parse(c.File)
			if err != nil {
				t.Fatal(err)
			}
			for _, fault := range golden.Check(m, c, 3e-7, 1e-5) {
				t.Error(fault)
			}
		})
	}
}
