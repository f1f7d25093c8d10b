package modelfile

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/churnstream/churnstream/internal/testkit/cputime"
	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/trees"
)

// BenchmarkLibraryModels is the cost of a row by models that python/benchmarks/boosters.py has trained and
// timed with their libraries.
func BenchmarkLibraryModels(b *testing.B) {
	directory := os.Getenv("CHURNSTREAM_BOOSTERS")
	if directory == "" {
		b.Skip("run python/benchmarks/boosters.sh, which trains the models and names their directory in CHURNSTREAM_BOOSTERS")
	}
	rows, category := numbersOf(b, filepath.Join(directory, "rows.f64")), numbersOf(b, filepath.Join(directory, "rows-category.f64"))
	paths, err := filepath.Glob(filepath.Join(directory, "*-*.*"))
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, ".f64") {
			continue
		}
		m, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		from := rows
		if strings.HasSuffix(name, "-category") {
			from = category
		}
		timeMargins(b, name, m.Engine, from)
		if name == "xgboost-100x6" {
			timeContributions(b, name, m.Engine, from)
		}
	}
	forest, err := trees.Compile(forestOf(b, filepath.Join(directory, "forest.trees")))
	if err != nil {
		b.Fatal(err)
	}
	timeMargins(b, "forest-500", forest, rows)
}

func timeMargins(b *testing.B, name string, e booster.Engine, rows []float64) {
	for _, batch := range []int{1, 64, 1000} {
		b.Run(fmt.Sprintf("%s/batch=%d", name, batch), func(b *testing.B) {
			var s trees.Scratch
			out := make([]float64, batch*e.Outputs())
			b.ReportAllocs()
			at, width := 0, e.Features()
			best := leastTime(b)
			for b.Loop() {
				e.Margins(rows[at*width:], batch, out, &s)
				if at += batch; at+batch > len(rows)/width {
					at = 0
				}
				best.count(batch)
			}
			b.ReportMetric(best.perRow(), "cpu-ns/row")
		})
	}
}

// least is the least processor time of a row over spans of some milliseconds, as boosters.py takes it.
type least struct {
	b      *testing.B
	rows   int
	before time.Duration
	best   float64
}

func leastTime(b *testing.B) *least { return &least{b: b, before: cputime.Used(b), best: math.Inf(1)} }

// span is how many rows are timed together.
const span = 2000

func (l *least) count(rows int) {
	if l.rows += rows; l.rows < span {
		return
	}
	l.best = min(l.best, l.perSpan())
	l.rows, l.before = 0, cputime.Used(l.b)
}

func (l *least) perSpan() float64 {
	return float64(cputime.Used(l.b)-l.before) / float64(l.rows)
}

func (l *least) perRow() float64 {
	if math.IsInf(l.best, 1) {
		return l.perSpan()
	}
	return l.best
}

func timeContributions(b *testing.B, name string, e booster.Engine, rows []float64) {
	b.Run(name+"-contributions", func(b *testing.B) {
		var s trees.Scratch
		out := make([]float64, e.Features()*e.Outputs())
		b.ReportAllocs()
		width := e.Features()
		done, best := 0, leastTime(b)
		for b.Loop() {
			at := done % (len(rows) / width)
			e.Contributions(rows[at*width:(at+1)*width], out, &s)
			done++
			best.count(100) // a span is twenty rows
		}
		b.ReportMetric(best.perRow()*100, "cpu-ns/row")
	})
}

func numbersOf(b *testing.B, path string) []float64 {
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	out := make([]float64, len(data)/8)
	for i := range out {
		out[i] = math.Float64frombits(binary.LittleEndian.Uint64(data[8*i:]))
	}
	return out
}

// forestOf reads the trees of a random forest: the number of nodes, then the columns.
func forestOf(b *testing.B, path string) trees.Ensemble {
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	integer := func() int32 {
		x := int32(binary.LittleEndian.Uint32(data))
		data = data[4:]
		return x
	}
	number := func() float64 {
		x := math.Float64frombits(binary.LittleEndian.Uint64(data))
		data = data[8:]
		return x
	}
	e := trees.Ensemble{Features: 20, Outputs: 1, Input: trees.Float32}
	for len(data) > 0 {
		t := trees.Tree{Nodes: make([]trees.Node, integer())}
		for _, set := range []func(*trees.Node){
			func(n *trees.Node) { n.Left = integer() },
			func(n *trees.Node) { n.Right = integer() },
			func(n *trees.Node) { n.Feature = integer() },
			func(n *trees.Node) { n.Threshold = number() },
			func(n *trees.Node) { n.Value = number() },
		} {
			for i := range t.Nodes {
				set(&t.Nodes[i])
			}
		}
		e.Trees = append(e.Trees, t)
	}
	e.Divisor = float64(len(e.Trees))
	return e
}
