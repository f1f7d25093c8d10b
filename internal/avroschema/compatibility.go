package avroschema

import (
	"fmt"
	"slices"
	"strings"
)

// Incompatibility is one reason why a reader cannot read what a writer wrote.
type Incompatibility struct {
	Type     string // the specification's case, e.g. READER_FIELD_MISSING_DEFAULT_VALUE
	Location string // path in the reader's schema, e.g. /fields/2/type
	Message  string
}

// String gives all three in one line.
func (i Incompatibility) String() string {
	return fmt.Sprintf("%s at %s: %s", i.Type, i.Location, i.Message)
}

// Incompatibilities returns every reason why data written with writer cannot be read with reader under the resolution
// rules of the Avro specification; none means that it can. Names are compared without their namespace.
func Incompatibilities(reader, writer *Type) []Incompatibility {
	c := checker{seen: make(map[[2]*Type]bool), steps: new(int)}
	return c.check(reader, writer, "", nil)
}

type checker struct {
	seen  map[[2]*Type]bool // pairs of records that are being compared or were: a type that refers to itself ends here
	steps *int              // taken so far, by trials too
}

// maxSteps bounds the work: each union on the way down may multiply it by its number of branches.
const maxSteps = 1 << 15

func (c *checker) check(r, w *Type, at string, found []Incompatibility) []Incompatibility {
	report := func(kind, place, format string, args ...any) []Incompatibility {
		location := at + place
		if location == "" {
			location = "/"
		}
		return append(found, Incompatibility{kind, location, fmt.Sprintf(format, args...)})
	}
	if *c.steps++; *c.steps > maxSteps {
		return report("TYPE_MISMATCH", "", "the schemas are too involved to be compared")
	}
	switch {
	case w.Kind == Union:
		for i, branch := range w.Branches {
			if r.Kind == Union {
				if !c.readable(r, branch) {
					found = report("MISSING_UNION_BRANCH", fmt.Sprintf("/%d", i), "the reader's union has no branch for the writer's %s", branch)
				}
				continue
			}
			found = c.check(r, branch, at, found)
		}
		return found
	case r.Kind == Union:
		if !c.readable(r, w) {
			return report("MISSING_UNION_BRANCH", "", "the reader's union has no branch for the writer's %s", w)
		}
		return found
	case r.Kind != w.Kind:
		if !Promotes(w.Kind, r.Kind) {
			return report("TYPE_MISMATCH", "", "the reader's %s cannot be read from the writer's %s", r, w)
		}
		return found
	}
	switch r.Kind {
	case Array:
		return c.check(r.Items, w.Items, at+"/items", found)
	case Map:
		return c.check(r.Items, w.Items, at+"/values", found)
	case Record, Enum, Fixed:
		if !SameName(r, w) {
			return report("NAME_MISMATCH", "/name", "the reader's name is %s, the writer's %s", r.Name, w.Name)
		}
	default:
		return found
	}
	switch r.Kind {
	case Fixed:
		if r.Size != w.Size {
			return report("FIXED_SIZE_MISMATCH", "/size", "the reader's size is %d, the writer's %d", r.Size, w.Size)
		}
	case Enum:
		var missing []string
		for _, s := range w.Symbols {
			if !slices.Contains(r.Symbols, s) {
				missing = append(missing, s)
			}
		}
		if len(missing) > 0 && r.Default == "" {
			return report("MISSING_ENUM_SYMBOLS", "/symbols", "the reader has no default and none of the writer's symbols %s", strings.Join(missing, ", "))
		}
	default:
		pair := [2]*Type{r, w}
		if c.seen[pair] {
			return found
		}
		c.seen[pair] = true
		for i, place := range MatchFields(r, w) {
			f := &r.Fields[i]
			if place >= 0 {
				found = c.check(f.Type, w.Fields[place].Type, fmt.Sprintf("%s/fields/%d/type", at, i), found)
			} else if !f.HasDefault {
				found = report("READER_FIELD_MISSING_DEFAULT_VALUE", fmt.Sprintf("/fields/%d", i), "the reader's field %q has no default and the writer's %s does not have it", f.Name, w)
			}
		}
	}
	return found
}

// readable reports whether one branch of a reader's union reads w. It starts from the pairs known so far, but what it
// learns while trying a branch that fails must not count.
func (c *checker) readable(r, w *Type) bool {
	for _, branch := range r.Branches {
		trial := checker{seen: make(map[[2]*Type]bool, len(c.seen)), steps: c.steps}
		for pair := range c.seen {
			trial.seen[pair] = true
		}
		if len(trial.check(branch, w, "", nil)) == 0 {
			return true
		}
	}
	return false
}
