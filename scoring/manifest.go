package scoring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/churnstream/churnstream/schemas"
)

// FormatVersion is the version of the artefact layout that this package writes and the only one
// that it reads.
const FormatVersion = 2

// The files of an artefact. The manifest names the others with their digests.
const (
	ManifestFile  = "manifest.json"
	ModelFile     = "model.json"
	ProfileFile   = "profile.json"
	ReferenceFile = "reference.jsonl"
)

// Manifest says what a model is, where it comes from and which bytes it consists of.
type Manifest struct {
	FormatVersion int             `json:"format_version"`
	Name          string          `json:"name"`
	Version       string          `json:"version"`
	CreatedAt     time.Time       `json:"created_at"`
	Files         map[string]File `json:"files"` // by file name; every file but the manifest itself
	Training      Training        `json:"training"`
	Metrics       []Metric        `json:"metrics,omitempty"`
	// Threshold is the least probability that decides for churn.
	Threshold float64         `json:"threshold"`
	Label     Label           `json:"label"`
	Inputs    []schemas.Input `json:"inputs"`
	// Annotations are free text for people. Nothing reads them.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// File identifies the content of one file of the artefact.
type File struct {
	SHA256 string `json:"sha256"` // 64 lower-case hexadecimal digits
	Bytes  int64  `json:"bytes"`
}

// Training says what produced the model.
type Training struct {
	Library        string `json:"library"`
	LibraryVersion string `json:"library_version"`
	GitCommit      string `json:"git_commit,omitempty"` // of the repository of the specification; "-dirty" if it had changes
	Rows           int    `json:"rows,omitempty"`       // that the model was fitted on
	HeldOutRows    int    `json:"held_out_rows,omitempty"`
	// Parameters are the settings of the training as text, for people and for comparisons.
	Parameters map[string]string `json:"parameters,omitempty"`
}

// Metric is a figure of merit on rows that the model was not fitted on.
type Metric struct {
	Name     string    `json:"name"` // "auc", "brier", "log_loss", "accuracy", ...
	Value    float64   `json:"value"`
	Interval *Interval `json:"interval,omitempty"`
}

// Interval is a confidence interval with the way it was computed.
type Interval struct {
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Level  float64 `json:"level"` // 0.95 for 95%
	Method string  `json:"method"`
}

// Label says what the probability is about.
type Label struct {
	Column     string `json:"column,omitempty"`
	Positive   string `json:"positive,omitempty"` // the value of the column that means churn
	Definition string `json:"definition"`
	Horizon    string `json:"horizon"` // the time that the definition looks ahead, such as "30d"
}

// Contract returns the declared inputs as the contract of the events that feed the model.
func (m *Manifest) Contract() schemas.Contract {
	return schemas.Contract{Inputs: m.Inputs}
}

// Validate reports everything that makes the manifest unfit for use, joined into one error.
func (m *Manifest) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if m.FormatVersion != FormatVersion {
		// Nothing else has a known meaning.
		remedy := "use a program as new as the artefact"
		if m.FormatVersion == 1 {
			remedy = "train or export the model again: format 1 held nothing but logistic regressions, in another form"
		}
		return fmt.Errorf("format_version: got %d, this program reads %d; %s", m.FormatVersion, FormatVersion, remedy)
	}
	if err := checkName(m.Name); err != nil {
		fault("name: %w, for example \"telco-churn\"", err)
	}
	if err := checkName(m.Version); err != nil {
		fault("version: %w, for example \"1.2.0\"", err)
	}
	if m.CreatedAt.IsZero() {
		fault("created_at: missing, for example \"2026-01-31T12:00:00Z\"")
	}
	if !(m.Threshold >= 0 && m.Threshold <= 1) {
		fault("threshold: got %v, want a probability such as 0.5", m.Threshold)
	}
	for i, metric := range m.Metrics {
		if !finite(metric.Value) || metric.Name == "" {
			fault("metrics[%d]: want a name and a finite value", i)
		}
		if c := metric.Interval; c != nil && !(c.Low <= c.High && c.Level > 0 && c.Level < 1 && finite(c.Low) && finite(c.High)) {
			fault("metrics[%d].interval: want low <= high and a level such as 0.95", i)
		}
	}
	if len(m.Inputs) > maxInputs {
		fault("inputs: %d of them, at most %d are read", len(m.Inputs), maxInputs)
	} else if err := m.Contract().Validate(); err != nil {
		fault("inputs: %w", err)
	}
	for _, name := range []string{ModelFile, ProfileFile, ReferenceFile} {
		if _, ok := m.Files[name]; !ok {
			fault("files: %q is not listed", name)
		}
	}
	for _, name := range sortedKeys(m.Files) {
		switch f := m.Files[name]; {
		case maxBytes(name) == 0:
			fault("files: %q is no file of an artefact; want %s, %s, %s and models such as model.ubj beside the manifest", name, ModelFile, ProfileFile, ReferenceFile)
		case f.Bytes < 0 || f.Bytes > maxBytes(name):
			fault("files[%q].bytes: got %d, at most %d are read", name, f.Bytes, maxBytes(name))
		case len(f.SHA256) != 64 || strings.Trim(f.SHA256, "0123456789abcdef") != "":
			fault("files[%q].sha256: want 64 lower-case hexadecimal digits", name)
		}
	}
	return errors.Join(faults...)
}

// checkNumbers refuses a required number of the manifest that is absent or null: encoding/json would leave it at 0.
func checkNumbers(manifest []byte) error {
	var m struct {
		Threshold *number `json:"threshold"`
		Files     map[string]struct {
			Bytes *number `json:"bytes"`
		} `json:"files"`
		Metrics []struct {
			Value    *number `json:"value"`
			Interval *struct {
				Low   *number `json:"low"`
				High  *number `json:"high"`
				Level *number `json:"level"`
			} `json:"interval"`
		} `json:"metrics"`
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return err
	}
	var faults []error
	require := func(x *number, example, key string, args ...any) {
		if x == nil {
			faults = append(faults, fmt.Errorf("%s: missing or null, want a number such as %s", fmt.Sprintf(key, args...), example))
		}
	}
	require(m.Threshold, "0.5", "threshold")
	for _, name := range sortedKeys(m.Files) {
		require(m.Files[name].Bytes, "1024", "files[%q].bytes", name)
	}
	for i, metric := range m.Metrics {
		require(metric.Value, "0.8", "metrics[%d].value", i)
		if c := metric.Interval; c != nil {
			require(c.Low, "0.7", "metrics[%d].interval.low", i)
			require(c.High, "0.9", "metrics[%d].interval.high", i)
			require(c.Level, "0.95", "metrics[%d].interval.level", i)
		}
	}
	return errors.Join(faults...)
}

// Bounds on what is read before its digest has been seen to be right, and on counts that would
// make memory grow out of proportion to the file.
const (
	maxManifestBytes = 8 << 20
	maxInputs        = 10_000
)

func maxBytes(file string) int64 {
	switch file {
	case ModelFile:
		return 512 << 20
	case ProfileFile, ReferenceFile:
		return 64 << 20
	}
	if ModelFileName(file) {
		return 512 << 20
	}
	return 0
}

// checkName accepts what is safe in file names, metric labels and log lines.
func checkName(s string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-"
	if s == "" || len(s) > 128 || strings.Trim(s, allowed) != "" || strings.HasPrefix(s, ".") {
		return fmt.Errorf("got %q, want 1 to 128 of the characters a-z A-Z 0-9 . _ + - without a leading dot", s)
	}
	return nil
}

// decodeStrict reads exactly one JSON value. Unknown fields are refused: a field that this program
// does not know may change what the model means.
func decodeStrict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("the JSON ends too early")
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("there is more after the JSON value that ends at byte %d", d.InputOffset())
	}
	return nil
}

func finite(x float64) bool { return x-x == 0 }

// LargestNumber bounds the size of every number in model.json. Squares and products of two of them are finite, and no
// quantity that people measure comes near it.
const LargestNumber = 1e150

// bounded is false for NaN.
func bounded(x float64) bool { return math.Abs(x) <= LargestNumber }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
