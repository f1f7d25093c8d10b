package catboost

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-faster/city"

	"github.com/churnstream/churnstream/scoring/booster"
)

// MaxDepth bounds the nesting of a document. A tree of CatBoost is at most 16 splits deep, each of
// which is a level here.
const MaxDepth = 128

// Parse reads a model file. Memory and time stay within a small multiple of the file's size. What is
// not supported is refused by its name, what is damaged with the place.
//
// A category's number in a row is [Hash] of its text.
func Parse(data []byte) (*booster.Model, error) {
	model, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("catboost: %w", err)
	}
	return model, nil
}

// Hash is the number that stands for a category: the low 32 bits of its text's CityHash64, in the
// version of 2011 that CatBoost has kept.
func Hash(text []byte) float64 { return float64(uint32(city.CH64(text))) }

func parse(data []byte) (*booster.Model, error) {
	if strings.HasPrefix(string(data[:min(4, len(data))]), "CBM1") {
		return nil, errors.New("this is CatBoost's binary format; load it and save_model(\"model.json\", format=\"json\"), with the training data as pool= if it has categories")
	}
	d := document{scale: 1}
	if err := d.read(data); err != nil {
		return nil, err
	}
	if !d.haveTrees || len(d.floats)+len(d.categories) == 0 {
		return nil, errors.New("no trees or no features: this is no model that CatBoost saved")
	}
	link, err := linkOf(d.loss)
	if err != nil {
		return nil, err
	}
	m := &booster.Model{
		Library: "catboost", Version: versionOf(d.version), Kind: "oblivious", Objective: d.loss, Link: link,
		Trees: len(d.oblivious) + len(d.grown), Rounds: len(d.oblivious) + len(d.grown),
	}
	in, err := d.inputs(m)
	if err != nil {
		return nil, err
	}
	if len(d.grown) > 0 {
		m.Kind = "non-symmetric"
		m.Engine, err = d.compileGrown(in)
	} else {
		m.Engine, err = d.compileOblivious(in)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// versionOf finds the release in what CatBoost says of its build.
func versionOf(build string) string {
	for line := range strings.Lines(build) {
		if _, release, ok := strings.Cut(strings.TrimSpace(line), "Branch: tags/"); ok {
			return release
		}
	}
	return ""
}

// linkOf is how CatBoost makes predictions of raw values. A loss of the user's own has no link.
func linkOf(loss string) (booster.Link, error) {
	switch loss {
	case "Logloss", "CrossEntropy", "MultiClassOneVsAll", "MultiLogloss", "MultiCrossEntropy", "Focal":
		return booster.Link{Function: booster.Sigmoid}, nil
	case "MultiClass":
		return booster.Link{Function: booster.Softmax}, nil
	case "Poisson", "Tweedie", "LogLinQuantile":
		return booster.Link{Function: booster.Exponential}, nil
	case "", "RMSE", "MAE", "Quantile", "MAPE", "Lq", "Huber", "Expectile", "LogCosh", "MultiRMSE", "MultiQuantile",
		"PythonUserDefinedPerObject", "PythonUserDefinedMultiTarget":
		return booster.Link{}, nil
	}
	return booster.Link{}, fmt.Errorf("loss function %.60q is not supported; these are: Logloss, CrossEntropy, Focal, MultiClass, MultiClassOneVsAll, MultiLogloss, MultiCrossEntropy, RMSE, MAE, Quantile, MAPE, Lq, Huber, Expectile, LogCosh, Poisson, Tweedie, LogLinQuantile, MultiRMSE, MultiQuantile", loss)
}

// inputs checks the features and gives the model its names and categories.
func (d *document) inputs(m *booster.Model) (*inputs, error) {
	width := len(d.floats) + len(d.categories)
	names := make([]string, width)
	taken := make([]bool, width)
	place := func(list string, i, index, flat int, name string) error {
		switch {
		case index != i:
			return fmt.Errorf("%s %d: feature_index is %d", list, i, index)
		case flat < 0 || flat >= width || taken[flat]:
			return fmt.Errorf("%s %d: flat_feature_index is %d, want each of 0 to %d once", list, i, flat, width-1)
		}
		taken[flat], names[flat] = true, name
		return nil
	}
	in := &inputs{width: width, absent: Hash(nil)}
	for i := range d.floats {
		f := &d.floats[i]
		if err := place("float_features", i, f.index, f.flat, f.name); err != nil {
			return nil, err
		}
		absent := float32(math.Inf(-1))
		switch f.missing {
		case "AsIs", "AsFalse": // neither is greater than any border
		case "AsTrue":
			absent = float32(math.Inf(1))
		default:
			return nil, fmt.Errorf("float_features %d: nan_value_treatment %.40q is not supported, AsIs, AsFalse and AsTrue are", i, f.missing)
		}
		in.floats = append(in.floats, floatInput{flat: f.flat, missing: absent})
	}
	for i := range d.categories {
		f := &d.categories[i]
		if err := place("categorical_features", i, f.index, f.flat, f.name); err != nil {
			return nil, err
		}
		if m.Categories == nil {
			m.Categories = make(map[int]booster.Categories)
		}
		m.Categories[f.flat] = booster.Categories{Number: Hash}
		in.categories = append(in.categories, f.flat)
	}
	for i := range d.counters {
		c, err := d.counter(&d.counters[i])
		if err != nil {
			return nil, fmt.Errorf("ctrs %d: %w", i, err)
		}
		in.counters = append(in.counters, c)
	}
	numbered := true
	for i, name := range names {
		numbered = numbered && (name == "" || name == strconv.Itoa(i))
		if name == "" {
			names[i] = "f" + strconv.Itoa(i)
		}
	}
	if !numbered {
		m.Names = names
	}
	in.number(d)
	return in, nil
}

// splits finds which column a split is of, and its place there. All of a feature's stand together:
// the borders of the numbers, then the values of categories, then the borders of counters.
type splits struct {
	ends []int // where the next column begins
}

func (s *splits) add(n int) {
	from := 0
	if len(s.ends) > 0 {
		from = s.ends[len(s.ends)-1]
	}
	s.ends = append(s.ends, from+n)
}

func (s *splits) find(index int32) (column, at int, err error) {
	column, exact := slices.BinarySearch(s.ends, int(index))
	for exact && column < len(s.ends) && s.ends[column] == int(index) {
		column++
	}
	if column == len(s.ends) {
		return 0, 0, fmt.Errorf("split_index %d of %d splits", index, append([]int{0}, s.ends...)[len(s.ends)])
	}
	at = int(index)
	if column > 0 {
		at -= s.ends[column-1]
	}
	return column, at, nil
}
