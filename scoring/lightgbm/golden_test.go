package lightgbm

import (
	"testing"

	"github.com/churnstream/churnstream/internal/golden"
)

// TestModelsScoreAsLightGBM holds models of several versions against what LightGBM made of the same
// rows (python/goldens/boosters.py): raw scores to the bit, predictions within a rounding of exp, and
// contributions within 1e-9.
func TestModelsScoreAsLightGBM(t *testing.T) {
	cases, err := golden.Load("testdata", "lightgbm-")
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
			for _, fault := range golden.Check(m, c, 1e-15, 1e-9) {
				t.Error(fault)
			}
		})
	}
}
