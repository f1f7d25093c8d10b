package scoring

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"

	"github.com/churnstream/churnstream/schemas"
)

// mixtures explain a model whose parts have no contributions of their own: by the Shapley values of its
// inputs, a set of inputs being worth the mean margin of rows that have these inputs of the row in
// question and the others of a background row (Lundberg and Lee 2017; interventional). They add up to
// the margin. It is immutable.
type mixtures struct {
	background *schemas.Rows
	margins    []float64 // of the background rows, row-major, one a class
	biases     []float64 // their mean for each class
	classes    int
	inputs     []int32 // that the margins depend on; the others have no part in them
	width      int     // all inputs
	// exact asks about all sets of inputs. Otherwise the inputs enter one after the other, in a
	// drawn order for each background row and in the opposite one: an estimate that adds up all the same.
	exact  bool
	orders [][]int32 // of positions in inputs
}

// Bounds of what one explanation may cost, in rows scored.
const (
	maxBackground     = 256
	maxExactScorings  = 2048
	maxDrawnScorings  = 4096
	maxExactInputs    = 10
	mixtureSeed       = 7
	walksOfBackground = 2 // an order and its opposite
)

// backgroundRows are rows by input name, as in reference.jsonl.
type backgroundRows []map[string]json.RawMessage

// UnmarshalJSON reads a list of rows and stops at the first too many.
func (l *backgroundRows) UnmarshalJSON(data []byte) error {
	return eachValue("background", data, func(d *json.Decoder) error {
		if len(*l) == maxBackground {
			return fmt.Errorf("more than %d rows", maxBackground)
		}
		var row map[string]json.RawMessage
		if err := d.Decode(&row); err != nil {
			return err
		}
		*l = append(*l, row)
		return nil
	})
}

// mixtures returns how a program whose margins depend on some inputs is explained by rows, or nil if none of
// the rows can be scored.
func (p *program) mixtures(rows backgroundRows, inputs []int32) (*mixtures, error) {
	width := len(p.inputs)
	all := schemas.NewRows(width, len(rows))
	for i, row := range rows {
		if len(row) != width {
			return nil, fmt.Errorf("background[%d]: %d values for %d inputs", i, len(row), width)
		}
		for k := range p.inputs {
			if _, ok := row[p.inputs[k].name]; !ok {
				return nil, fmt.Errorf("background[%d]: no value for input %.60q", i, p.inputs[k].name)
			}
		}
		if err := p.contract.ReadJSON(all, row); err != nil {
			return nil, fmt.Errorf("background[%d]: %w", i, err)
		}
	}
	m := &mixtures{background: schemas.NewRows(width, len(rows)), classes: len(p.margins), inputs: inputs, width: width}
	m.exact = len(inputs) <= maxExactInputs && (1<<len(inputs)-2)*all.Len() <= maxExactScorings
	most := all.Len()
	if !m.exact {
		most = min(most, max(1, maxDrawnScorings/(walksOfBackground*max(1, len(inputs)-1))))
	}
	m.biases = make([]float64, m.classes)
	frame := newFrame(p)
	for row := 0; row < all.Len() && m.background.Len() < most; row++ {
		frame.take(all, row, 1)
		p.run(frame)
		if !p.scored(frame, 0) {
			continue
		}
		numbers, categories := m.background.Row(m.background.Append())
		fromNumbers, fromCategories := all.Row(row)
		copy(numbers, fromNumbers)
		copy(categories, fromCategories)
		for k, slot := range p.margins {
			x := frame.column(slot)[0]
			m.margins = append(m.margins, x)
			m.biases[k] += x
		}
	}
	n := m.background.Len()
	if n == 0 || len(inputs) == 0 {
		return nil, nil
	}
	for k := range m.biases {
		m.biases[k] /= float64(n)
	}
	random := rand.New(rand.NewPCG(mixtureSeed, mixtureSeed))
	for range n {
		if m.exact {
			break
		}
		order := make([]int32, len(inputs))
		for i, at := range random.Perm(len(inputs)) {
			order[i] = int32(at)
		}
		m.orders = append(m.orders, order)
	}
	return m, nil
}

// scored reports whether a row of the frame has margins.
func (p *program) scored(f *frame, row int) bool {
	if f.refused[row] != nil {
		return false
	}
	for _, slot := range p.margins {
		if x := f.column(slot)[row]; x-x != 0 {
			return false
		}
	}
	return true
}

// scorings is how many rows are scored to explain one.
func (m *mixtures) scorings() int {
	if m.exact {
		return (1<<len(m.inputs) - 2) * m.background.Len()
	}
	return walksOfBackground * (len(m.inputs) - 1) * m.background.Len()
}

// mixer explains rows for one goroutine.
type mixer struct {
	*mixtures
	program *program
	frame   *frame
	rows    *schemas.Rows
	values  []float64 // of all mixtures, row-major, one a class
	worth   []float64 // of each set of inputs for the class in hand
	// contributions are of the row that was explained last: of each class those of all inputs.
	contributions []float64
}

func (m *mixtures) mixer(p *program) *mixer {
	out := &mixer{
		mixtures: m, program: p, frame: newFrame(p), rows: schemas.NewRows(m.width, p.lanes),
		values: make([]float64, m.scorings()*m.classes), contributions: make([]float64, m.classes*m.width),
	}
	if m.exact {
		out.worth = make([]float64, 1<<len(m.inputs))
	}
	return out
}

// explain fills contributions for a row whose margins stand in a frame.
func (x *mixer) explain(numbers []float64, categories [][]byte, scored *frame, row int) {
	x.score(numbers, categories)
	clear(x.contributions)
	for k, slot := range x.program.margins {
		to := x.contributions[k*x.width : (k+1)*x.width]
		margin := scored.column(slot)[row]
		if x.exact {
			x.addAllSets(k, margin, to)
		} else {
			x.addWalks(k, margin, to)
		}
	}
}

// score asks the model about all mixtures of a row, in the order in which their values are read.
func (x *mixer) score(numbers []float64, categories [][]byte) {
	done := 0
	x.rows.Reset()
	flush := func() {
		x.frame.take(x.rows, 0, x.rows.Len())
		x.program.run(x.frame)
		for row := range x.rows.Len() {
			good := x.program.scored(x.frame, row)
			for k, slot := range x.program.margins {
				// What cannot be scored counts as the mean: nothing is known of it.
				x.values[done] = x.biases[k]
				if good {
					x.values[done] = x.frame.column(slot)[row]
				}
				done++
			}
		}
		x.rows.Reset()
	}
	// begin appends a background row, of which some values are to be replaced.
	begin := func(row int) ([]float64, [][]byte) {
		if x.rows.Len() == x.program.lanes {
			flush()
		}
		toNumbers, toCategories := x.rows.Row(x.rows.Append())
		fromNumbers, fromCategories := x.background.Row(row)
		copy(toNumbers, fromNumbers)
		copy(toCategories, fromCategories)
		return toNumbers, toCategories
	}
	for row := range x.background.Len() {
		if x.exact {
			for set := 1; set < 1<<len(x.inputs)-1; set++ {
				toNumbers, toCategories := begin(row)
				for i, input := range x.inputs {
					if set>>i&1 == 1 {
						toNumbers[input], toCategories[input] = numbers[input], categories[input]
					}
				}
			}
			continue
		}
		for walk := range walksOfBackground {
			for n := 1; n < len(x.inputs); n++ {
				toNumbers, toCategories := begin(row)
				for _, i := range entered(x.orders[row], walk, n) {
					input := x.inputs[i]
					toNumbers[input], toCategories[input] = numbers[input], categories[input]
				}
			}
		}
	}
	if x.rows.Len() > 0 {
		flush()
	}
}

// entered are the first n inputs of an order (walk 0) or of its opposite.
func entered(order []int32, walk, n int) []int32 {
	if walk == 0 {
		return order[:n]
	}
	return order[len(order)-n:]
}

// addAllSets adds Σ |S|!(d-|S|-1)!/d! · (worth of S with the input - worth of S) over all sets S without it.
func (x *mixer) addAllSets(class int, margin float64, to []float64) {
	d, full := len(x.inputs), 1<<len(x.inputs)-1
	clear(x.worth)
	n := float64(x.background.Len())
	at := class
	for range x.background.Len() {
		for set := 1; set < full; set++ {
			x.worth[set] += x.values[at] / n
			at += x.classes
		}
	}
	x.worth[0], x.worth[full] = x.biases[class], margin
	for set := range full {
		size := bits.OnesCount(uint(set))
		share := 1 / (float64(d) * binomial(d-1, size))
		for i, input := range x.inputs {
			if set>>i&1 == 0 {
				to[input] += share * (x.worth[set|1<<i] - x.worth[set])
			}
		}
	}
}

func binomial(n, k int) float64 {
	out := 1.0
	for i := range k {
		out = out * float64(n-i) / float64(i+1)
	}
	return math.Round(out)
}

// addWalks adds what the margin gains when an input enters, averaged over all walks.
func (x *mixer) addWalks(class int, margin float64, to []float64) {
	share := 1 / float64(walksOfBackground*x.background.Len())
	at := class
	for row, order := range x.orders {
		for walk := range walksOfBackground {
			before := x.margins[row*x.classes+class]
			for n := range order {
				after := margin
				if n < len(order)-1 {
					after = x.values[at]
					at += x.classes
				}
				entering := order[n]
				if walk == 1 {
					entering = order[len(order)-1-n]
				}
				to[x.inputs[entering]] += share * (after - before)
				before = after
			}
		}
	}
}
