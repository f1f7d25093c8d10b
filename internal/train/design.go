package train

import (
	"fmt"
	"math"
	"slices"

	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// transforms hold what the steps of the pipeline learned from the rows that the model is fitted on.
// Features are the numeric inputs in the order of the contract (numbers, dates and timestamps
// scaled, booleans as they are), then the columns of each category input.
type transforms struct {
	contract   schemas.Contract
	numbers    []numberColumn
	categories []categoryColumn
	features   []string
}

type numberColumn struct {
	input              int
	fill, mean, scale  float64 // fill NaN: not imputed
	imputed, unchanged bool    // unchanged: passes through without scaling
}

type categoryColumn struct {
	input  int
	values []string       // sorted
	code   map[string]int // value -> feature
}

// learn computes the statistics as scikit-learn's SimpleImputer(strategy="mean"), StandardScaler and
// OneHotEncoder(handle_unknown="ignore") do.
func learn(contract schemas.Contract, rows *schemas.Rows) (*transforms, error) {
	t := &transforms{contract: contract}
	column := make([]float64, rows.Len())
	for i, in := range contract.Inputs {
		if in.Kind == schemas.Category {
			continue
		}
		for r := range column {
			numbers, _ := rows.Row(r)
			column[r] = numbers[i]
		}
		c := numberColumn{input: i, fill: math.NaN(), scale: 1, unchanged: in.Kind == schemas.Boolean}
		if in.Nullable {
			c.imputed, c.fill = true, meanOfPresent(column)
			if math.IsNaN(c.fill) {
				return nil, fmt.Errorf("input %q: every training row misses it; drop the column", in.Name)
			}
			for r, x := range column {
				if math.IsNaN(x) {
					column[r] = c.fill
				}
			}
		}
		if !c.unchanged {
			c.mean, c.scale = meanAndScale(column)
		}
		t.numbers = append(t.numbers, c)
		t.features = append(t.features, in.Name)
	}
	for i, in := range contract.Inputs {
		if in.Kind != schemas.Category {
			continue
		}
		c := categoryColumn{input: i, code: map[string]int{}}
		for r := range rows.Len() {
			if _, categories := rows.Row(r); categories[i] != nil {
				c.code[string(categories[i])] = 0
			}
		}
		if len(c.code) == 0 {
			return nil, fmt.Errorf("input %q: every training row misses it; drop the column", in.Name)
		}
		for value := range c.code {
			c.values = append(c.values, value)
		}
		slices.Sort(c.values)
		for _, value := range c.values {
			c.code[value] = len(t.features)
			t.features = append(t.features, in.Name+"="+value)
		}
		t.categories = append(t.categories, c)
	}
	return t, nil
}

func meanOfPresent(column []float64) float64 {
	sum, n := 0.0, 0
	for _, x := range column {
		if !math.IsNaN(x) {
			sum += x
			n++
		}
	}
	return sum / float64(n)
}

// meanAndScale is the mean and the standard deviation over n (not n-1), with the deviations' own sum
// taken out as a correction of rounding. A column that is constant up to rounding has the scale 1.
func meanAndScale(column []float64) (mean, scale float64) {
	n := float64(len(column))
	for _, x := range column {
		mean += x
	}
	mean /= n
	sum, squares := 0.0, 0.0
	for _, x := range column {
		d := x - mean
		sum += d
		squares += d * d
	}
	variance := (squares - sum*sum/n) / n
	const epsilon = 0x1p-52
	if noise := n * mean * epsilon; variance <= n*epsilon*variance+noise*noise {
		return mean, 1
	}
	return mean, math.Sqrt(variance)
}

// pipeline returns the transforms and the regression on them, with weights that end with the
// intercept, as the steps of a pipeline.
func (t *transforms) pipeline(weights, background []float64) scoring.Pipeline {
	taken := make(map[string]bool)
	for _, in := range t.contract.Inputs {
		taken[in.Name] = true
	}
	named := func(name string) string { // an input may be called like a column of ours
		for taken[name] {
			name += "'"
		}
		taken[name] = true
		return name
	}
	var impute, scale, oneHot scoring.Step
	var imputed scoring.Impute
	var scaled scoring.Scale
	var encoded scoring.OneHot
	var features []string
	for _, c := range t.numbers {
		name := t.contract.Inputs[c.input].Name
		column := name
		if c.imputed {
			impute.Columns = append(impute.Columns, column)
			column = named(name + " imputed")
			impute.Outputs = append(impute.Outputs, column)
			imputed.Values = append(imputed.Values, scoring.Value{Number: c.fill})
		}
		if !c.unchanged {
			scale.Columns = append(scale.Columns, column)
			column = named(name + " scaled")
			scale.Outputs = append(scale.Outputs, column)
			scaled.Mean, scaled.Scale = append(scaled.Mean, c.mean), append(scaled.Scale, c.scale)
		}
		features = append(features, column)
	}
	for _, c := range t.categories {
		name := t.contract.Inputs[c.input].Name
		oneHot.Columns = append(oneHot.Columns, name)
		unknown := len(c.values)
		positions := make(scoring.Ints, 0, unknown+1)
		for k, value := range c.values {
			positions = append(positions, int32(k))
			oneHot.Outputs = append(oneHot.Outputs, named(name+"="+value))
		}
		encoded.Encodings = append(encoded.Encodings, scoring.Encoding{Texts: c.values, Unknown: &unknown})
		encoded.Positions = append(encoded.Positions, append(positions, -1))
		encoded.Widths = append(encoded.Widths, int32(len(c.values)))
	}
	features = append(features, oneHot.Outputs...)
	impute.Transform, scale.Transform, oneHot.Transform = imputed, scaled, encoded
	margin, probability := named("margin"), named("probability")
	var p scoring.Pipeline
	for _, s := range []scoring.Step{impute, scale, oneHot} {
		if len(s.Columns) > 0 {
			p.Steps = append(p.Steps, s)
		}
	}
	last := len(weights) - 1
	p.Steps = append(p.Steps,
		scoring.Step{Columns: features, Outputs: []string{margin}, Transform: scoring.Linear{
			Coefficients: []scoring.Floats{weights[:last]}, Intercepts: scoring.Floats{weights[last]}, Background: background,
		}},
		scoring.Step{Columns: []string{margin}, Outputs: []string{probability}, Transform: scoring.Logistic{}})
	p.Output = scoring.Output{Margin: []string{margin}, Probability: []string{probability}}
	return p
}

// design is a table after the transforms: numbers dense, of each category input only the feature
// that is 1.
type design struct {
	rows, features int
	numbers        []float64 // row-major, width wide
	width          int
	hot            []int32 // row-major, groups wide; -1: all columns of the input are 0
	groups         int
}

func (t *transforms) design(rows *schemas.Rows) *design {
	d := &design{rows: rows.Len(), features: len(t.features), width: len(t.numbers), groups: len(t.categories)}
	for r := range d.rows {
		numbers, categories := rows.Row(r)
		for _, c := range t.numbers {
			x := numbers[c.input]
			if math.IsNaN(x) {
				x = c.fill
			}
			d.numbers = append(d.numbers, (x-c.mean)/c.scale)
		}
		for _, c := range t.categories {
			feature := -1
			if value := categories[c.input]; value != nil {
				if at, ok := c.code[string(value)]; ok {
					feature = at
				}
			}
			d.hot = append(d.hot, int32(feature))
		}
	}
	return d
}

// margin is the log-odds of a row for weights that end with the intercept.
func (d *design) margin(row int, weights []float64) float64 {
	sum := 0.0
	for i, x := range d.numbers[row*d.width : (row+1)*d.width] {
		sum += x * weights[i]
	}
	for _, feature := range d.hot[row*d.groups : (row+1)*d.groups] {
		if feature >= 0 {
			sum += weights[feature]
		}
	}
	return sum + weights[d.features]
}

// addScaled adds factor·(row, 1) to a vector of weights that ends with the intercept.
func (d *design) addScaled(to []float64, row int, factor float64) {
	for i, x := range d.numbers[row*d.width : (row+1)*d.width] {
		to[i] += factor * x
	}
	for _, feature := range d.hot[row*d.groups : (row+1)*d.groups] {
		if feature >= 0 {
			to[feature] += factor
		}
	}
	to[d.features] += factor
}

// means returns the mean of each feature.
func (d *design) means() []float64 {
	sum := make([]float64, d.features+1)
	for r := range d.rows {
		d.addScaled(sum, r, 1)
	}
	for i := range sum {
		sum[i] /= float64(d.rows)
	}
	return sum[:d.features]
}

// probabilities returns the margin and the probability of each row.
func (d *design) probabilities(weights []float64) (margins, probabilities []float64) {
	for r := range d.rows {
		z := d.margin(r, weights)
		margins = append(margins, z)
		probabilities = append(probabilities, sigmoid(z))
	}
	return margins, probabilities
}

// contributions of each row's inputs to its margin: weight × (feature − its mean over the background), those of a category's
// columns added up.
func (t *transforms) contributions(rows *schemas.Rows, weights, background []float64) [][]float64 {
	d := t.design(rows)
	base := make([]float64, len(t.contract.Inputs))
	for i, c := range t.numbers {
		base[c.input] = weights[i] * background[i]
	}
	for _, c := range t.categories {
		for _, value := range c.values {
			feature := c.code[value]
			base[c.input] += weights[feature] * background[feature]
		}
	}
	out := make([][]float64, d.rows)
	for r := range out {
		row := make([]float64, len(base))
		for i, c := range t.numbers {
			row[c.input] = weights[i] * d.numbers[r*d.width+i]
		}
		for i, c := range t.categories {
			if feature := d.hot[r*d.groups+i]; feature >= 0 {
				row[c.input] = weights[feature]
			}
		}
		for i := range row {
			row[i] -= base[i]
		}
		out[r] = row
	}
	return out
}

func sigmoid(z float64) float64 { return 1 / (1 + math.Exp(-z)) }
