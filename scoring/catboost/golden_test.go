package catboost

import (
	"strconv"
	"testing"

	"github.com/churnstream/churnstream/internal/golden"
)

// TestModelsScoreAsCatBoost holds models of two versions against what CatBoost made of the same rows
// (python/goldens/catboosts.py): raw values to the bit.
func TestModelsScoreAsCatBoost(t *testing.T) {
	cases, err := golden.Load("testdata", "catboost-")
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
			for column, texts := range c.Categories {
				k, err := strconv.Atoi(column)
				if err != nil || m.Categories[k].Number == nil {
					t.Fatalf("input %s is no category: %v", column, err)
				}
				for i := range c.Rows.Rows {
					x := &c.Rows.Row(i)[k]
					*x = m.Categories[k].Number([]byte(texts[int(*x)]))
				}
			}
			for _, fault := range golden.Check(m, c, 1e-12, 1e-9) {
				t.Error(fault)
			}
		})
	}
}
