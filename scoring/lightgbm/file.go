package lightgbm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/churnstream/churnstream/scoring/booster"
)

// file is what a model file says. All slices of bytes alias it.
type file struct {
	header  section
	trees   []run
	ended   bool   // the line "end of trees" is there
	params  []byte // the line [categorical_feature: …] between its colon and bracket
	pandas  []byte // the JSON behind pandas_categorical
	trailer bool
}

// run is the lines of one tree.
type run struct {
	line int    // the first one below "Tree=", from 1
	text []byte // from there
	head int    // bytes of the line "Tree="
}

// section is a run of lines key=value.
type section struct {
	line   int // of its first line, from 1
	values map[string][]byte
}

// headerKeys and treeKeys are what is read; other keys are left alone.
var (
	headerKeys = []string{
		"version", "num_class", "num_tree_per_iteration", "max_feature_idx", "objective", "average_output",
		"feature_names", "feature_infos", "tree_sizes",
	}
	treeKeys = []string{
		"num_leaves", "num_cat", "split_feature", "threshold", "decision_type", "left_child", "right_child",
		"leaf_value", "leaf_count", "internal_count", "cat_boundaries", "cat_threshold", "is_linear", "leaf_const",
		"num_features", "leaf_features", "leaf_coeff",
	}
)

// lines goes over the lines of data, without their ends, from 1.
type lines struct {
	rest   []byte
	number int
}

func (l *lines) next() (line []byte, ok bool) {
	if len(l.rest) == 0 {
		return nil, false
	}
	l.number++
	line, l.rest, _ = bytes.Cut(l.rest, []byte{'\n'})
	return bytes.TrimSuffix(line, []byte{'\r'}), true
}

// split finds the sections of a file: the header up to the first tree, the trees, and of what follows
// the lines about categories.
func split(data []byte) (*file, error) {
	l := &lines{rest: data}
	first, _ := l.next()
	if string(first) != "tree" {
		return nil, fmt.Errorf("line 1: %.40q where \"tree\" is due: this is no model that LightGBM saved as text", first)
	}
	f := &file{header: section{line: 2, values: map[string][]byte{}}}
	from := 0 // of the tree in hand
	for {
		at := len(data) - len(l.rest)
		line, ok := l.next()
		ends := !ok || bytes.HasPrefix(line, []byte("Tree=")) || string(line) == "end of trees"
		if ends && len(f.trees) > 0 && !f.ended {
			f.trees[len(f.trees)-1].text = data[from:at]
		}
		switch {
		case !ok:
			return f, nil
		case f.ended:
			f.about(line)
		case string(line) == "end of trees":
			f.ended = true
		case bytes.HasPrefix(line, []byte("Tree=")):
			if n, err := strconv.Atoi(string(line[5:])); err != nil || n != len(f.trees) {
				return nil, fmt.Errorf("line %d: %.40q where \"Tree=%d\" is due", l.number, line, len(f.trees))
			}
			from = len(data) - len(l.rest)
			f.trees = append(f.trees, run{line: l.number + 1, head: from - at})
		case len(f.trees) == 0:
			if err := f.header.add(line, headerKeys, l.number); err != nil {
				return nil, err
			}
		}
	}
}

// section reads the lines of a tree.
func (r run) section() (*section, error) {
	s := &section{line: r.line, values: make(map[string][]byte, len(treeKeys))}
	l := &lines{rest: r.text, number: r.line - 1}
	for {
		line, ok := l.next()
		if !ok {
			return s, nil
		}
		if err := s.add(line, treeKeys, l.number); err != nil {
			return nil, err
		}
	}
}

func (s *section) add(line []byte, keys []string, number int) error {
	name, value, _ := bytes.Cut(line, []byte{'='})
	for _, k := range keys {
		if k != string(name) {
			continue
		}
		if _, twice := s.values[k]; twice {
			return fmt.Errorf("line %d: %s is there twice", number, k)
		}
		s.values[k] = value
		return nil
	}
	return nil
}

// about takes what stands behind the trees: which inputs are categories, and their values.
func (f *file) about(line []byte) {
	if list, ok := bytes.CutPrefix(line, []byte("[categorical_feature:")); ok {
		f.params = bytes.TrimSuffix(list, []byte{']'})
	}
	if list, ok := bytes.CutPrefix(line, []byte("pandas_categorical:")); ok {
		f.pandas, f.trailer = list, true
	}
}

func (s *section) has(key string) bool { return s.values[key] != nil }

func (s *section) integer(key string, least, most int) (int, error) {
	value, ok := s.values[key]
	if !ok {
		return 0, fmt.Errorf("line %d: %s is missing", s.line, key)
	}
	n, err := strconv.Atoi(string(value))
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s: %.40q is not a number from %d to %d", key, value, least, most)
	}
	return n, nil
}

// words calls each with every word of a value, which must be n of them; n < 0: any number.
func (s *section) words(key string, n int, each func(i int, word []byte) error) error {
	value, ok := s.values[key]
	if !ok {
		return fmt.Errorf("line %d: %s is missing", s.line, key)
	}
	i := 0
	for word := range bytes.FieldsSeq(value) {
		if n >= 0 && i == n {
			return fmt.Errorf("%s: more than %d elements", key, n)
		}
		if err := each(i, word); err != nil {
			return fmt.Errorf("%s[%d]: %w", key, i, err)
		}
		i++
	}
	if i < n {
		return fmt.Errorf("%s: %d elements, want %d", key, i, n)
	}
	return nil
}

// room is n, or less if the value cannot hold n words.
func (s *section) room(key string, n int) int { return min(n, len(s.values[key])/2+1) }

func (s *section) integers(key string, n int) ([]int32, error) {
	out := make([]int32, 0, s.room(key, n))
	err := s.words(key, n, func(_ int, word []byte) error {
		x, err := strconv.ParseInt(string(word), 10, 32)
		if err != nil {
			return fmt.Errorf("%.40q is not a 32-bit integer", word)
		}
		out = append(out, int32(x))
		return nil
	})
	return out, err
}

func (s *section) floats(key string, n int) ([]float64, error) {
	out := make([]float64, 0, s.room(key, n))
	err := s.words(key, n, func(_ int, word []byte) error {
		x, err := strconv.ParseFloat(string(word), 64)
		if err != nil {
			return fmt.Errorf("%.40q is not a number", word)
		}
		out = append(out, x)
		return nil
	})
	return out, err
}

// texts are n words, in one piece of memory.
func (s *section) texts(key string, n int) ([]string, error) {
	out := make([]string, 0, s.room(key, n))
	all := string(s.values[key])
	at := 0
	err := s.words(key, n, func(_ int, word []byte) error {
		at += strings.Index(all[at:], string(word))
		out = append(out, all[at:at+len(word)])
		at += len(word)
		return nil
	})
	return out, err
}

// categorical gives the inputs that are categories, ascending: what the parameters say, else the
// inputs whose feature_infos are a list of categories.
func (f *file) categorical(features int) ([]int, error) {
	var out []int
	if list := strings.TrimSpace(string(f.params)); list != "" {
		for part := range strings.SplitSeq(list, ",") {
			i, err := strconv.Atoi(strings.TrimSpace(part))
			if err != nil || i < 0 || i >= features {
				out = nil // names: the infos say it as well
				break
			}
			out = append(out, i)
		}
		if out != nil {
			return out, nil
		}
	}
	if !f.header.has("feature_infos") {
		return nil, nil
	}
	err := f.header.words("feature_infos", features, func(i int, word []byte) error {
		if word[0] != '[' && string(word) != "none" {
			out = append(out, i)
		}
		return nil
	})
	return out, err
}

// categories gives the values of each categorical column of the data frame, in the order of the
// columns; nil when there was no data frame.
func (f *file) categories() ([]booster.Categories, error) {
	if !f.trailer {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(f.pandas))
	d.UseNumber()
	token, err := d.Token()
	switch {
	case err != nil:
		return nil, fmt.Errorf("pandas_categorical: %w", err)
	case token == nil:
		return nil, nil
	case token != json.Delim('['):
		return nil, errors.New("pandas_categorical is not a list")
	}
	var out []booster.Categories
	for d.More() {
		if token, err = d.Token(); err == nil && token != json.Delim('[') {
			err = errors.New("not a list")
		}
		c := booster.Categories{Unseen: math.NaN()}
		for err == nil && d.More() {
			var value string
			if token, err = d.Token(); err == nil {
				value, err = category(token)
				c.Values = append(c.Values, value)
				_, c.Numbers = token.(json.Number)
			}
		}
		if err == nil {
			_, err = d.Token()
		}
		if err != nil {
			return nil, fmt.Errorf("pandas_categorical[%d]: %w", len(out), err)
		}
		out = append(out, c)
	}
	return out, nil
}

func category(token json.Token) (string, error) {
	switch v := token.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return map[bool]string{true: "True", false: "False"}[v], nil
	}
	return "", fmt.Errorf("%v is no category", token)
}
