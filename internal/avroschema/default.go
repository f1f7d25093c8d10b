package avroschema

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// CheckDefaults returns an error that names the first field below t whose default is no value of its type.
func (t *Type) CheckDefaults() error {
	return t.checkDefaults("", make(map[*Type]bool))
}

func (t *Type) checkDefaults(path string, seen map[*Type]bool) error {
	if seen[t] {
		return nil
	}
	seen[t] = true
	for i := range t.Fields {
		f := &t.Fields[i]
		place := f.Name
		if path != "" {
			place = path + "." + f.Name
		}
		if f.HasDefault {
			if _, err := AppendDefault(nil, f.Type, f.Default); err != nil {
				return fmt.Errorf("avro schema: the default of field %q: %w", place, err)
			}
		}
		if err := f.Type.checkDefaults(place, seen); err != nil {
			return err
		}
	}
	for _, branch := range t.Branches {
		if err := branch.checkDefaults(path, seen); err != nil {
			return err
		}
	}
	if t.Items != nil {
		return t.Items.checkDefaults(path, seen)
	}
	return nil
}

// AppendDefault appends the Avro encoding of a field's default, a JSON value as [Field] keeps it, to dst. The default of
// a union may be a value of any branch; the first that takes it is written. A field that the value of a record leaves
// out has its own default.
func AppendDefault(dst []byte, t *Type, value any) ([]byte, error) {
	w := defaultWriter{}
	return w.append(dst, t, value, 0)
}

// defaultWriter counts the values that it looks at: each union on the way down may try every branch.
type defaultWriter struct{ steps int }

func (w *defaultWriter) append(dst []byte, t *Type, value any, depth int) ([]byte, error) {
	if w.steps++; depth > maxDepth || w.steps > maxSteps {
		return nil, errors.New("the value is too involved")
	}
	refused := fmt.Errorf("%s is no %s", brief(value), t)
	switch t.Kind {
	case Null:
		if value == nil {
			return dst, nil
		}
	case Boolean:
		switch value {
		case true:
			return append(dst, 1), nil
		case false:
			return append(dst, 0), nil
		}
	case Int, Long:
		if n, ok := wholeDefault(value); ok && (t.Kind == Long || n == int64(int32(n))) {
			return binary.AppendVarint(dst, n), nil
		}
	case Float, Double:
		return appendFloat(dst, t.Kind, value, refused)
	case Bytes, String:
		if s, ok := value.(string); ok {
			raw, err := textOrBytes(t.Kind, s)
			if err != nil {
				return nil, err
			}
			return append(binary.AppendVarint(dst, int64(len(raw))), raw...), nil
		}
	case Fixed:
		if s, ok := value.(string); ok {
			raw, err := textOrBytes(t.Kind, s)
			if err == nil && len(raw) != t.Size {
				err = fmt.Errorf("%s has %d bytes, %s has %d", brief(value), len(raw), t, t.Size)
			}
			if err != nil {
				return nil, err
			}
			return append(dst, raw...), nil
		}
	case Enum:
		if s, ok := value.(string); ok {
			if i := slices.Index(t.Symbols, s); i >= 0 {
				return binary.AppendVarint(dst, int64(i)), nil
			}
		}
	case Union:
		for i, branch := range t.Branches {
			out, err := w.append(binary.AppendVarint(dst, int64(i)), branch, value, depth+1)
			if err == nil {
				return out, nil
			}
		}
	case Array:
		if list, ok := value.([]any); ok {
			return appendBlock(dst, t, len(list), func(dst []byte) (_ []byte, err error) {
				for i := 0; i < len(list) && err == nil; i++ {
					dst, err = w.append(dst, t.Items, list[i], depth+1)
				}
				return dst, err
			})
		}
	case Map:
		if entries, ok := value.(map[string]any); ok {
			return appendBlock(dst, t, len(entries), func(dst []byte) (_ []byte, err error) {
				for key, v := range entries {
					dst = append(binary.AppendVarint(dst, int64(len(key))), key...)
					if dst, err = w.append(dst, t.Items, v, depth+1); err != nil {
						return nil, err
					}
				}
				return dst, nil
			})
		}
	case Record:
		if fields, ok := value.(map[string]any); ok {
			return w.record(dst, t, fields, depth)
		}
	}
	return nil, refused
}

func (w *defaultWriter) record(dst []byte, t *Type, fields map[string]any, depth int) (_ []byte, err error) {
	for i := range t.Fields {
		f := &t.Fields[i]
		v, given := fields[f.Name]
		if !given {
			if !f.HasDefault {
				return nil, fmt.Errorf("field %q of %s has no value", f.Name, t)
			}
			v = f.Default
		}
		if dst, err = w.append(dst, f.Type, v, depth+1); err != nil {
			return nil, fmt.Errorf("field %q: %w", f.Name, err)
		}
	}
	return dst, nil
}

func appendBlock(dst []byte, t *Type, count int, elements func([]byte) ([]byte, error)) ([]byte, error) {
	if count == 0 {
		return append(dst, 0), nil
	}
	dst, err := elements(binary.AppendVarint(dst, int64(count)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	return append(dst, 0), nil
}

// wholeDefault takes 1e3 and 1.0 for whole numbers, as JSON does.
func wholeDefault(value any) (int64, bool) {
	number, ok := value.(json.Number)
	if !ok {
		return 0, false
	}
	if n, err := number.Int64(); err == nil {
		return n, true
	}
	x, err := number.Float64()
	return int64(x), err == nil && x == math.Trunc(x) && math.Abs(x) <= 1<<53
}

func appendFloat(dst []byte, kind Kind, value any, refused error) ([]byte, error) {
	var text string
	switch v := value.(type) {
	case json.Number:
		text = v.String()
	case string: // what JSON has no number for
		if v != "NaN" && v != "Infinity" && v != "-Infinity" && v != "INF" && v != "-INF" {
			return nil, refused
		}
		text = v
	default:
		return nil, refused
	}
	size := 64
	if kind == Float {
		size = 32
	}
	x, err := strconv.ParseFloat(text, size)
	if err != nil {
		return nil, refused
	}
	if kind == Float {
		return binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(x))), nil
	}
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(x)), nil
}

var errNotBytes = errors.New("a default of bytes has characters up to U+00FF only, one for each byte")

// textOrBytes gives the bytes of a JSON text: for bytes and fixed, character U+00XX is byte XX.
func textOrBytes(kind Kind, s string) ([]byte, error) {
	if kind == String {
		return []byte(s), nil
	}
	raw := make([]byte, 0, utf8.RuneCountInString(s))
	for _, r := range s {
		if r > 0xff {
			return nil, errNotBytes
		}
		raw = append(raw, byte(r))
	}
	return raw, nil
}

// DefaultText returns a field's default as JSON.
func DefaultText(f *Field) string {
	text, err := json.Marshal(f.Default)
	if err != nil {
		return "a value"
	}
	return string(text)
}
