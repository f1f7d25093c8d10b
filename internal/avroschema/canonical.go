package avroschema

import "strconv"

// Canonical returns the Parsing Canonical Form of the Avro specification: full names, no documentation, defaults,
// aliases or logical types. Two schemas with the same form read and write the same bytes.
func (t *Type) Canonical() string {
	return string(appendCanonical(nil, t, make(map[string]bool)))
}

func appendCanonical(dst []byte, t *Type, written map[string]bool) []byte {
	if t.Name != "" {
		if written[t.Name] {
			return strconv.AppendQuote(dst, t.Name)
		}
		written[t.Name] = true
		dst = append(dst, `{"name":`...)
		dst = strconv.AppendQuote(dst, t.Name)
		dst = append(dst, `,"type":"`+t.Kind.String()+`"`...)
	}
	switch t.Kind {
	case Record:
		dst = append(dst, `,"fields":[`...)
		for i, f := range t.Fields {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"name":`...)
			dst = strconv.AppendQuote(dst, f.Name)
			dst = append(dst, `,"type":`...)
			dst = append(appendCanonical(dst, f.Type, written), '}')
		}
		return append(dst, `]}`...)
	case Enum:
		dst = append(dst, `,"symbols":[`...)
		for i, s := range t.Symbols {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendQuote(dst, s)
		}
		return append(dst, `]}`...)
	case Fixed:
		dst = append(dst, `,"size":`...)
		return append(strconv.AppendInt(dst, int64(t.Size), 10), '}')
	case Array:
		dst = append(dst, `{"type":"array","items":`...)
		return append(appendCanonical(dst, t.Items, written), '}')
	case Map:
		dst = append(dst, `{"type":"map","values":`...)
		return append(appendCanonical(dst, t.Items, written), '}')
	case Union:
		dst = append(dst, '[')
		for i, b := range t.Branches {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendCanonical(dst, b, written)
		}
		return append(dst, ']')
	default:
		return strconv.AppendQuote(dst, t.Kind.String())
	}
}
