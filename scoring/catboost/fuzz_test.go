package catboost

import (
	"runtime"
	"testing"

	"github.com/churnstream/churnstream/internal/golden"
)

// FuzzParse looks for files that panic, that take more memory than ten times their size and 16 MB, or
// that load and then cannot be scored.
func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(grownSmall))
	cases, err := golden.Load("testdata", "catboost-1.2.10-stump")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range cases {
		f.Add(c.File)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m, err := Parse(data)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > uint64(10*len(data)+16<<20) {
			t.Fatalf("%d bytes of memory for %d", got, len(data))
		}
		if err == nil {
			golden.Exercise(t, m)
		}
	})
}
