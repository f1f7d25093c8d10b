package avroschema

import (
	"slices"
	"strings"
)

// Promotes reports whether the specification lets a reader take a writer's primitive type for another one.
func Promotes(from, to Kind) bool {
	switch from {
	case Int:
		return to == Long || to == Float || to == Double
	case Long:
		return to == Float || to == Double
	case Float:
		return to == Double
	case String:
		return to == Bytes
	case Bytes:
		return to == String
	default:
		return false
	}
}

// SameName reports whether a reader's record, enum or fixed is the writer's: by its name without the namespace, or by one of
// the reader's aliases.
func SameName(r, w *Type) bool {
	if simpleName(r.Name) == simpleName(w.Name) {
		return true
	}
	return slices.Contains(r.Aliases, w.Name)
}

func simpleName(full string) string { return full[strings.LastIndexByte(full, '.')+1:] }

// MatchFields gives, for each field of a reader's record, the place of the writer's field that it is read from, or -1: the
// one of the same name, else the first of its aliases that the writer has. A writer's field is read once, so that an
// alias does not take a field from the reader's field of that name.
func MatchFields(r, w *Type) []int {
	places := make(map[string]int, len(w.Fields))
	for i := range w.Fields {
		places[w.Fields[i].Name] = i
	}
	matched := make([]int, len(r.Fields))
	taken := make(map[int]bool, len(r.Fields))
	for i := range r.Fields {
		matched[i] = -1
		if place, ok := places[r.Fields[i].Name]; ok {
			matched[i], taken[place] = place, true
		}
	}
	for i := range r.Fields {
		for _, alias := range r.Fields[i].Aliases {
			if place, ok := places[alias]; ok && matched[i] < 0 && !taken[place] {
				matched[i], taken[place] = place, true
			}
		}
	}
	return matched
}

// Branch returns the branch of a reader's union that a writer's type, which is no union, is read as, or nil. A branch of
// the same form and full name (or alias) comes first, then one of the same form and name without its namespace, then
// the first one that the writer's type is promoted to. That is the order of the reference implementation; the
// specification alone would promote an int where the union has a double before its int.
func Branch(reader, w *Type) *Type {
	for _, branch := range reader.Branches {
		if sameForm(branch, w) && (branch.Name == w.Name || slices.Contains(branch.Aliases, w.Name)) {
			return branch
		}
	}
	for _, branch := range reader.Branches {
		if sameForm(branch, w) && SameName(branch, w) {
			return branch
		}
	}
	for _, branch := range reader.Branches {
		if Promotes(w.Kind, branch.Kind) {
			return branch
		}
	}
	return nil
}

// sameForm includes the size of a fixed, which the specification counts to what makes types match.
func sameForm(a, b *Type) bool { return a.Kind == b.Kind && a.Size == b.Size }
