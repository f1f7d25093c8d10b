// Package golden takes what python/goldens wrote, models and what their libraries make of rows, and
// gives it to tests.
package golden

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// Case is one model with what its library makes of rows.
type Case struct {
	Name    string `json:"-"`
	Library string `json:"library"`
	Version string `json:"version"`
	Model   string `json:"model"`
	// Kinds has a letter for each column: q for a number, c for a category's code.
	Kinds string `json:"kinds"`
	// Categories are the texts of the codes of a column, by its number, where the library was given texts.
	Categories map[string][]string `json:"categories"`
	// Averaged says that the library's own contributions are those of the sum, not of the mean.
	Averaged bool `json:"averaged"`

	File []byte `json:"-"` // the model

	Rows        Table `json:"-"`
	Margins     Table `json:"-"`
	Predictions Table `json:"-"`
	// Contributions has, for the first rows and each output, a number for each column and the bias. It
	// has no rows where the library gives none.
	Contributions Table `json:"-"`
}

// Table is rows of numbers.
type Table struct {
	Rows, Width int
	Numbers     []float64
}

// Row is row i.
func (t Table) Row(i int) []float64 { return t.Numbers[i*t.Width : (i+1)*t.Width] }

// Load reads every case of a directory whose name starts with prefix.
func Load(directory, prefix string) ([]Case, error) {
	paths, err := filepath.Glob(filepath.Join(directory, prefix+"*.golden.gz"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no goldens %s*.golden.gz in %s", prefix, directory)
	}
	cases := make([]Case, len(paths))
	for i, path := range paths {
		if err := cases[i].load(path); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return cases, nil
}

// One reads the case called name.
func One(directory, name string) (Case, error) {
	var c Case
	err := c.load(filepath.Join(directory, name+".golden.gz"))
	return c, err
}

func (c *Case) load(path string) error {
	body, err := unzip(path)
	if err != nil {
		return err
	}
	line, numbers, _ := bytes.Cut(body, []byte{'\n'})
	var head struct {
		Arrays map[string][]int `json:"arrays"`
	}
	if err := errors.Join(json.Unmarshal(line, c), json.Unmarshal(line, &head)); err != nil {
		return err
	}
	for _, a := range []struct {
		name string
		to   *Table
	}{{"rows", &c.Rows}, {"margins", &c.Margins}, {"predictions", &c.Predictions}, {"contributions", &c.Contributions}} {
		shape, ok := head.Arrays[a.name]
		if !ok {
			continue
		}
		a.to.Rows, a.to.Width = shape[0], 1
		for _, n := range shape[1:] {
			a.to.Width *= n
		}
		for range a.to.Rows * a.to.Width {
			if len(numbers) < 8 {
				return errors.New("too short")
			}
			a.to.Numbers = append(a.to.Numbers, math.Float64frombits(binary.LittleEndian.Uint64(numbers)))
			numbers = numbers[8:]
		}
	}
	stem := strings.TrimSuffix(path, ".golden.gz")
	c.Name = filepath.Base(stem)
	for _, suffix := range []string{".json", ".ubj", ".txt", ".onnx"} {
		c.File, err = unzip(stem + suffix + ".gz")
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return err
}

func unzip(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}
