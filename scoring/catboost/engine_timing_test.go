package catboost

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/churnstream/churnstream/internal/testkit/cputime"
	"github.com/churnstream/churnstream/scoring/trees"
)

func BenchmarkOblivious(b *testing.B) {
	for _, size := range [][2]int{{100, 6}, {500, 8}} {
		e := random(size[0], size[1])
		rows := make([]float64, 1000*20)
		r := rand.New(rand.NewPCG(5, 6))
		for i := range rows {
			rows[i] = r.NormFloat64()
		}
		out := make([]float64, 1000)
		var s trees.Scratch
		for name, e := range waysOf(e) {
			for _, batch := range []int{16, 64, 1000} {
				b.Run(fmt.Sprintf("%dx%d/%s/batch=%d", size[0], size[1], name, batch), func(b *testing.B) {
					b.ReportAllocs()
					defer cputime.Report(b, batch, "row")()
					for b.Loop() {
						e.Margins(rows, batch, out, &s)
					}
				})
			}
		}
	}
}
