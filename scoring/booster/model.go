// Package booster is what the model file of a boosting library comes down to: rows of numbers go in,
// margins, predictions and contributions come out. The packages that read the files fill a [Model].
package booster

import (
	"strconv"

	"github.com/churnstream/churnstream/scoring/trees"
)

// Model is a model as a library saved it. It is immutable.
type Model struct {
	Library   string // "xgboost", "lightgbm", "catboost"
	Version   string // of the library or of its format, as the file has it; may be empty
	Kind      string // what the library calls the booster: "gbtree", "gblinear", "tree"
	Objective string // as the file has it
	Rounds    int    // boosting rounds that are used
	Trees     int    // trees that are used

	// Names of the inputs in the order of the rows' numbers; nil: the file has none.
	Names []string
	// Categories of inputs that the file names categories of, by input.
	Categories map[int]Categories

	Engine Engine
	Link   Link
}

// Engine makes margins of rows. [trees.Engine] is one; its documentation says what the methods do.
type Engine interface {
	Features() int
	Outputs() int
	Margins(rows []float64, n int, out []float64, s *trees.Scratch)
	Explains() error
	Bias() []float64
	Contributions(row, out []float64, s *trees.Scratch)
}

// Categories are the values of an input that the library replaced by numbers: by their index, or by
// what Number makes of the text.
type Categories struct {
	// Number, unless nil, gives any text its number; Values and Unseen say nothing then.
	Number func(text []byte) float64

	// Values are the categories, the first one is code 0. Numbers are written as Go writes them.
	Values []string
	// Numbers says that the categories are numbers: 3.0 is 3 then.
	Numbers bool
	// Unseen is the number that stands for a value that is not listed.
	Unseen float64
}

// Name is the name of input i: the file's, or f0, f1, … when it has none.
func (m *Model) Name(i int) string {
	if m.Names != nil {
		return m.Names[i]
	}
	return "f" + strconv.Itoa(i)
}
