//go:build unix

package catboost

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

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
					before := processorTime(b)
					for b.Loop() {
						e.Margins(rows, batch, out, &s)
					}
					b.ReportMetric(float64(processorTime(b)-before)/float64(b.N*batch), "cpu-ns/row")
				})
			}
		}
	}
}

// processorTime is what this process has used so far: on a busy machine it says more than a clock.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
