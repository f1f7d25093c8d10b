package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/schemas"
)

// Specification says what the columns of a table mean and how to train on them.
type Specification struct {
	Name    string `yaml:"name"`
	Version string `yaml:"version"`
	// Customer is the column with the customer's key: the unit of the split and of the intervals.
	Customer string `yaml:"customer"`
	Label    Label  `yaml:"label"`
	// Inputs become the model's declared inputs, in this order.
	Inputs []Input `yaml:"inputs"`
	// Drop lists the columns to leave out on purpose. A column that is mentioned nowhere is a fault.
	Drop      []string `yaml:"drop"`
	Model     Model    `yaml:"model"`
	Split     Split    `yaml:"split"`
	Threshold float64  `yaml:"threshold"` // least probability that decides for churn
	// Segments are categorical inputs for whose values the drift of the score is watched one by one.
	Segments []string `yaml:"segments"`
	// Classes divide time, so that the drift of an hour is judged against the reference of such hours; nil: they do not.
	Classes *Classes `yaml:"classes"`
}

// Classes say how time is divided and where the time of a row is.
type Classes struct {
	By   string `yaml:"by"`   // such as weekend/6h, see [drift.NewClasses]
	Zone string `yaml:"zone"` // such as Europe/Berlin
	Time string `yaml:"time"` // column with the time of a row; it may be an input's, too
}

// Label is what the model learns to foresee.
type Label struct {
	Column     string `yaml:"column"`
	Positive   string `yaml:"positive"` // the cell that means churn; the column must hold exactly one other
	Definition string `yaml:"definition"`
	Horizon    string `yaml:"horizon"` // how far the definition looks ahead: hours, days or weeks, "30d"
}

// Input is a declared input and the column that it is read from.
type Input struct {
	Column        string `yaml:"column"` // empty: called like the input
	schemas.Input `yaml:",inline"`
}

// Model holds the settings of the logistic regression.
type Model struct {
	// C is the inverse strength of the L2 penalty, as in scikit-learn.
	C float64 `yaml:"c"`
	// ClassWeight is "none", or "balanced": each class weighs the same in sum.
	ClassWeight string `yaml:"class_weight"`
	// Undersample keeps that many rows of the larger class, drawn at random, for each row of the
	// smaller one; 0 keeps all. Probabilities then rest on the drawn shares.
	Undersample float64 `yaml:"undersample"`
	Seed        uint64  `yaml:"seed"` // of the undersampling
}

// Split says which customers are held out.
type Split struct {
	TestFraction float64 `yaml:"test_fraction"`
	Seed         uint64  `yaml:"seed"`
}

// The class weights.
const (
	WeightNone     = "none"
	WeightBalanced = "balanced"
)

// DefaultSpecification holds the settings that a specification may leave out.
func DefaultSpecification() Specification {
	return Specification{
		Version:   "1.0.0",
		Model:     Model{C: 1, ClassWeight: WeightNone, Seed: 1},
		Split:     Split{TestFraction: 0.2, Seed: 1},
		Threshold: 0.5,
	}
}

// ParseSpecification reads YAML over the defaults and validates the result. An unknown key is an
// error.
func ParseSpecification(text []byte) (*Specification, error) {
	s := DefaultSpecification()
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("training specification: %w", err)
	}
	for i := range s.Inputs {
		in := &s.Inputs[i]
		if in.Name == "" {
			in.Name = in.Column
		}
		if in.Column == "" {
			in.Column = in.Name
		}
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("training specification: %w", err)
	}
	return &s, nil
}

// Contract returns the declared inputs of the model to train.
func (s *Specification) Contract() schemas.Contract {
	var c schemas.Contract
	for _, in := range s.Inputs {
		c.Inputs = append(c.Inputs, in.Input)
	}
	return c
}

// profile says what the drift reference holds.
func (s *Specification) profile() (c drift.ProfileConfig, err error) {
	c = drift.DefaultProfileConfig()
	c.Threshold, c.Segments = &s.Threshold, s.Segments
	if s.Classes != nil {
		c.Classes, err = drift.NewClasses(s.Classes.By, s.Classes.Zone)
	}
	return c, err
}

// Validate reports every fault at once, each with its key and an example of a right value.
func (s *Specification) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	required := func(key, value, example string) {
		if value == "" {
			fault("%s: missing, for example %q", key, example)
		}
	}
	required("name", s.Name, "telco-churn")
	required("version", s.Version, "1.0.0")
	required("customer", s.Customer, "customer_id")
	required("label.column", s.Label.Column, "churned")
	required("label.positive", s.Label.Positive, "yes")
	required("label.definition", s.Label.Definition, "the customer cancelled")
	if err := checkHorizon(s.Label.Horizon); err != nil {
		fault("label.horizon: %w", err)
	}
	if err := s.Contract().Validate(); err != nil {
		faults = append(faults, err)
	}
	use := map[string]string{}
	claim := func(column, key string) {
		if column == "" {
			return
		}
		if first, twice := use[column]; twice {
			fault("%s: column %q is used by %s already; use each column once", key, column, first)
			return
		}
		use[column] = key
	}
	claim(s.Customer, "customer")
	claim(s.Label.Column, "label.column")
	for i, in := range s.Inputs {
		claim(in.Column, fmt.Sprintf("inputs[%d].column", i))
	}
	for i, column := range s.Drop {
		claim(column, fmt.Sprintf("drop[%d]", i))
	}
	if !(s.Model.C > 0 && s.Model.C <= 1e9) {
		fault("model.c: got %v, want a number above 0 and up to 1e9, for example 1.0", s.Model.C)
	}
	if s.Model.ClassWeight != WeightNone && s.Model.ClassWeight != WeightBalanced {
		fault("model.class_weight: got %q, want %q or %q", s.Model.ClassWeight, WeightNone, WeightBalanced)
	}
	if !(s.Model.Undersample == 0 || s.Model.Undersample >= 1 && s.Model.Undersample <= 1e6) {
		fault("model.undersample: got %v, want 0 for off or a ratio of 1 and more, for example 3", s.Model.Undersample)
	}
	if !(s.Split.TestFraction >= 0 && s.Split.TestFraction < 1) {
		fault("split.test_fraction: got %v, want a fraction below 1, for example 0.2", s.Split.TestFraction)
	}
	if !(s.Threshold > 0 && s.Threshold < 1) {
		fault("threshold: got %v, want a probability between 0 and 1, for example 0.5", s.Threshold)
	}
	for i, name := range s.Segments {
		if at := s.Contract().Index(name); at < 0 || s.Inputs[at].Kind != schemas.Category {
			fault("segments[%d]: %q is no categorical input", i, name)
		}
	}
	if s.Classes != nil {
		required("classes.time", s.Classes.Time, "seen_at")
		if _, err := s.profile(); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func checkHorizon(h string) error {
	if len(h) >= 2 && strings.ContainsRune("hdw", rune(h[len(h)-1])) {
		if n, err := strconv.ParseUint(h[:len(h)-1], 10, 32); err == nil && n > 0 {
			return nil
		}
	}
	return fmt.Errorf("got %q, want a whole number of hours, days or weeks, for example \"30d\"", h)
}

// HeldOut says whether a customer belongs to the part that the model is not fitted on. It depends on
// the seed and the key alone, so that all rows of a customer are on one side, in every program: the
// first 8 bytes of sha256(seed as 8 bytes big-endian, key), as a fraction of 2^64 cut to 53 bits, are
// below the test fraction.
func (s *Specification) HeldOut(customer string) bool {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(customer)), s.Split.Seed)
	sum := sha256.Sum256(append(b, customer...))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11)/(1<<53) < s.Split.TestFraction
}
