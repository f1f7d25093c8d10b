package devregistry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/churnstream/churnstream/internal/avroschema"
)

// Error codes of the API.
const (
	codeSubjectNotFound           = 40401
	codeVersionNotFound           = 40402
	codeSchemaNotFound            = 40403
	codeSubjectSoftDeleted        = 40404
	codeSubjectNotSoftDeleted     = 40405
	codeVersionSoftDeleted        = 40406
	codeVersionNotSoftDeleted     = 40407
	codeSubjectLevelNotSet        = 40408
	codeIncompatible              = 409
	codeInvalidSchema             = 42201
	codeInvalidVersion            = 42202
	codeInvalidLevel              = 42203
	codeReferenceExists           = 42206
	codeStore                     = 50001
	defaultLevel                  = "BACKWARD"
	stateFile                     = "registry.json"
	latest                    int = -1
)

// version is one schema of a subject. Versions are kept in the order of their registration.
type version struct {
	Subject    string      `json:"subject"`
	Version    int         `json:"version"`
	ID         int         `json:"id"`
	Schema     string      `json:"schema"`
	References []reference `json:"references,omitempty"`
	Deleted    bool        `json:"deleted,omitempty"` // softly
}

// publicVersion is a version as answers carry it.
type publicVersion struct {
	Subject    string      `json:"subject"`
	Version    int         `json:"version"`
	ID         int         `json:"id"`
	Schema     string      `json:"schema"`
	References []reference `json:"references,omitempty"`
}

func (v *version) public() publicVersion {
	return publicVersion{v.Subject, v.Version, v.ID, v.Schema, v.References}
}

// subjectVersion is where a schema is used.
type subjectVersion struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

// state is everything that is kept; it is the file's form too.
type state struct {
	NextID   int               `json:"next_id"`
	Level    string            `json:"level"`  // of subjects without their own
	Levels   map[string]string `json:"levels"` // by subject
	Versions []*version        `json:"versions"`
	// Erased keeps the texts of ids whose versions are gone for good: ids are answered for ever.
	Erased map[int]schemaBody `json:"erased"`
}

type store struct {
	dir string

	mu sync.Mutex
	state
}

func openStore(dir string) (*store, error) {
	s := &store{dir: dir, state: state{NextID: 1, Level: defaultLevel, Levels: make(map[string]string), Erased: make(map[int]schemaBody)}}
	if dir == "" {
		return s, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &s.state); err != nil {
		return nil, fmt.Errorf("%s is damaged, remove it to start anew: %w", filepath.Join(dir, stateFile), err)
	}
	if s.Levels == nil {
		s.Levels = make(map[string]string)
	}
	if s.Erased == nil {
		s.Erased = make(map[int]schemaBody)
	}
	return s, nil
}

// saveLocked writes the state beside the old one and then replaces it.
func (s *store) saveLocked() error {
	if s.dir == "" {
		return nil
	}
	raw, err := json.MarshalIndent(s.state, "", " ")
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, stateFile)
	if err := os.WriteFile(path+".new", raw, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func notFound(code int, format string, args ...any) *apiError {
	return &apiError{http.StatusNotFound, code, fmt.Sprintf(format, args...)}
}

// versionsLocked returns a subject's versions, softly deleted ones only if asked for.
func (s *store) versionsLocked(subject string, deleted bool) []*version {
	var found []*version
	for _, v := range s.Versions {
		if v.Subject == subject && (deleted || !v.Deleted) {
			found = append(found, v)
		}
	}
	return found
}

func (s *store) subjectLocked(subject string, deleted bool) ([]*version, error) {
	found := s.versionsLocked(subject, deleted)
	if len(found) == 0 {
		return nil, notFound(codeSubjectNotFound, "Subject '%s' not found.", subject)
	}
	return found, nil
}

// parseLocked reads a schema with what it refers to.
func (s *store) parseLocked(body schemaBody) (*avroschema.Type, error) {
	texts, err := s.referencesLocked(body.References, nil, 0)
	if err != nil {
		return nil, err
	}
	t, err := avroschema.Parse(body.Schema, texts...)
	if err != nil {
		return nil, &apiError{http.StatusUnprocessableEntity, codeInvalidSchema, "Invalid schema: " + err.Error()}
	}
	return t, nil
}

// referencesLocked appends the texts of references, each after those that it uses, and none twice.
func (s *store) referencesLocked(references []reference, texts []string, depth int) ([]string, error) {
	for _, ref := range references {
		i := slices.IndexFunc(s.Versions, func(v *version) bool {
			return v.Subject == ref.Subject && v.Version == ref.Version && !v.Deleted
		})
		if i < 0 || depth > 32 {
			return nil, &apiError{http.StatusUnprocessableEntity, codeInvalidSchema, fmt.Sprintf("Invalid schema: reference %s to subject %s version %d is not known", ref.Name, ref.Subject, ref.Version)}
		}
		var err error
		if texts, err = s.referencesLocked(s.Versions[i].References, texts, depth+1); err != nil {
			return nil, err
		}
		if !slices.Contains(texts, s.Versions[i].Schema) {
			texts = append(texts, s.Versions[i].Schema)
		}
	}
	return texts, nil
}

// identity is equal for schemas that differ in white space and the order of their attributes only.
func identity(body schemaBody) string {
	var v any
	if json.Unmarshal([]byte(body.Schema), &v) != nil {
		return body.Schema
	}
	text, err := json.Marshal([]any{v, body.References})
	if err != nil {
		return body.Schema
	}
	return string(text)
}

func (v *version) body() schemaBody { return schemaBody{Schema: v.Schema, References: v.References} }

func (s *store) register(subject string, body schemaBody) (*version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parsed, err := s.parseLocked(body)
	if err != nil {
		return nil, err
	}
	same := identity(body)
	id, number := 0, 1
	for _, v := range s.Versions {
		match := identity(v.body()) == same
		if match {
			id = v.ID
		}
		if v.Subject == subject {
			if match && !v.Deleted {
				return v, nil
			}
			number = v.Version + 1
		}
	}
	level := s.levelLocked(subject)
	if reasons, err := s.incompatibilitiesLocked(parsed, level, s.versionsLocked(subject, false)); err != nil {
		return nil, err
	} else if len(reasons) > 0 {
		return nil, &apiError{http.StatusConflict, codeIncompatible, fmt.Sprintf("Schema being registered is incompatible with an earlier schema for subject %q (compatibility %s), details: [%s]", subject, level, strings.Join(reasons, "; "))}
	}
	for erased, old := range s.Erased {
		if identity(old) == same {
			id = erased
		}
	}
	if id == 0 {
		id = s.NextID
		s.NextID++
	}
	v := &version{Subject: subject, Version: number, ID: id, Schema: body.Schema, References: body.References}
	s.Versions = append(s.Versions, v)
	return v, s.saveLocked()
}

func (s *store) lookup(subject string, body schemaBody, deleted bool) (*version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.subjectLocked(subject, deleted)
	if err != nil {
		return nil, err
	}
	if _, err := s.parseLocked(body); err != nil {
		return nil, err
	}
	same := identity(body)
	for _, v := range found {
		if identity(v.body()) == same {
			return v, nil
		}
	}
	return nil, notFound(codeSchemaNotFound, "Schema not found")
}

func (s *store) subjectNames(prefix string, deleted, deletedOnly bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	live := make(map[string]bool)
	for _, v := range s.Versions {
		live[v.Subject] = live[v.Subject] || !v.Deleted
	}
	names := make([]string, 0, len(live))
	for name, alive := range live {
		wanted := alive && !deletedOnly || !alive && (deleted || deletedOnly)
		if wanted && strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (s *store) versionNumbers(subject string, deleted, deletedOnly bool) ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.subjectLocked(subject, deleted || deletedOnly)
	if err != nil {
		return nil, err
	}
	numbers := make([]int, 0, len(found))
	for _, v := range found {
		if v.Deleted || !deletedOnly {
			numbers = append(numbers, v.Version)
		}
	}
	return numbers, nil
}

func versionNumber(text string) (int, error) {
	if text == "latest" || text == "-1" {
		return latest, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, &apiError{http.StatusUnprocessableEntity, codeInvalidVersion, fmt.Sprintf("The specified version '%s' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\"", text)}
	}
	return n, nil
}

func (s *store) version(subject, text string, deleted bool) (*version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.versionLocked(subject, text, deleted)
}

func (s *store) versionLocked(subject, text string, deleted bool) (*version, error) {
	number, err := versionNumber(text)
	if err != nil {
		return nil, err
	}
	found, err := s.subjectLocked(subject, deleted)
	if err != nil {
		return nil, err
	}
	if number == latest {
		return found[len(found)-1], nil
	}
	for _, v := range found {
		if v.Version == number {
			return v, nil
		}
	}
	return nil, notFound(codeVersionNotFound, "Version %d not found.", number)
}

func (s *store) byID(text string) (schemaBody, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := strconv.Atoi(text)
	if err != nil {
		return schemaBody{}, notFound(http.StatusNotFound, "HTTP 404 Not Found")
	}
	for _, v := range s.Versions {
		if v.ID == id {
			return v.body(), nil
		}
	}
	if body, ok := s.Erased[id]; ok {
		return body, nil
	}
	return schemaBody{}, notFound(codeSchemaNotFound, "Schema %d not found", id)
}

func (s *store) uses(text string, deleted bool) ([]subjectVersion, error) {
	if _, err := s.byID(text); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	uses := make([]subjectVersion, 0, 1)
	for _, v := range s.Versions {
		if strconv.Itoa(v.ID) == text && (deleted || !v.Deleted) {
			uses = append(uses, subjectVersion{v.Subject, v.Version})
		}
	}
	return uses, nil
}

func (s *store) referencedBy(subject, text string) ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.versionLocked(subject, text, false)
	if err != nil {
		return nil, err
	}
	return s.referrersLocked(v), nil
}

// referrersLocked returns the ids of the live schemas that refer to v.
func (s *store) referrersLocked(v *version) []int {
	ids := make([]int, 0)
	for _, other := range s.Versions {
		refers := slices.ContainsFunc(other.References, func(r reference) bool { return r.Subject == v.Subject && r.Version == v.Version })
		if refers && !other.Deleted && !slices.Contains(ids, other.ID) {
			ids = append(ids, other.ID)
		}
	}
	return ids
}

func (s *store) deletableLocked(v *version) error {
	if ids := s.referrersLocked(v); len(ids) > 0 {
		return &apiError{http.StatusUnprocessableEntity, codeReferenceExists, fmt.Sprintf("One or more references exist to the schema {subject=%s,version=%d}: ids %v", v.Subject, v.Version, ids)}
	}
	return nil
}

// eraseLocked forgets versions but not their ids.
func (s *store) eraseLocked(gone []*version) {
	for _, v := range gone {
		s.Erased[v.ID] = v.body()
	}
	s.Versions = slices.DeleteFunc(s.Versions, func(v *version) bool { return slices.Contains(gone, v) })
}

func (s *store) deleteSubject(subject string, permanent bool) ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := s.subjectLocked(subject, true)
	if err != nil {
		return nil, err
	}
	live := s.versionsLocked(subject, false)
	switch {
	case permanent && len(live) > 0:
		return nil, notFound(codeSubjectNotSoftDeleted, "Subject '%s' was not deleted first before being permanently deleted", subject)
	case !permanent && len(live) == 0:
		return nil, notFound(codeSubjectSoftDeleted, "Subject '%s' was soft deleted. Set permanent=true to delete permanently", subject)
	}
	affected := live
	if permanent {
		affected = all
	}
	numbers := make([]int, 0, len(affected))
	for _, v := range affected {
		if err := s.deletableLocked(v); err != nil {
			return nil, err
		}
		numbers = append(numbers, v.Version)
	}
	if permanent {
		s.eraseLocked(all)
	} else {
		for _, v := range live {
			v.Deleted = true
		}
	}
	delete(s.Levels, subject)
	return numbers, s.saveLocked()
}

func (s *store) deleteVersion(subject, text string, permanent bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.versionLocked(subject, text, true)
	if text == "latest" || text == "-1" {
		v, err = s.versionLocked(subject, text, permanent)
	}
	if err != nil {
		return 0, err
	}
	if err := s.deletableLocked(v); err != nil {
		return 0, err
	}
	switch {
	case permanent && !v.Deleted:
		return 0, notFound(codeVersionNotSoftDeleted, "Subject '%s' version %d was not deleted first before being permanently deleted", subject, v.Version)
	case !permanent && v.Deleted:
		return 0, notFound(codeVersionSoftDeleted, "Subject '%s' version %d was soft deleted. Set permanent=true to delete permanently", subject, v.Version)
	case permanent:
		s.eraseLocked([]*version{v})
	default:
		v.Deleted = true
	}
	return v.Version, s.saveLocked()
}

func (s *store) levelLocked(subject string) string {
	if level, ok := s.Levels[subject]; ok {
		return level
	}
	return s.Level
}

func (s *store) level(subject string, orGlobal bool) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, own := s.Levels[subject]; subject != "" && !own && !orGlobal {
		return "", notFound(codeSubjectLevelNotSet, "Subject '%s' does not have subject-level compatibility configured", subject)
	}
	return s.levelLocked(subject), nil
}

func (s *store) setLevel(subject, level string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch level {
	case "NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE":
	default:
		return &apiError{http.StatusUnprocessableEntity, codeInvalidLevel, "Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, forward_transitive, and full_transitive"}
	}
	if subject == "" {
		s.Level = level
	} else {
		s.Levels[subject] = level
	}
	return s.saveLocked()
}

// resetLevel takes a subject's own level away, or the global one back to the default, and returns what it was.
func (s *store) resetLevel(subject string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.Level
	if subject == "" {
		s.Level = defaultLevel
		return was, s.saveLocked()
	}
	was, own := s.Levels[subject]
	if !own {
		return "", notFound(codeSubjectNotFound, "Subject '%s' not found.", subject)
	}
	delete(s.Levels, subject)
	return was, s.saveLocked()
}

// check compares a schema with one version of a subject, or with those that its level asks for if none is named.
func (s *store) check(subject, text string, body schemaBody) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parsed, err := s.parseLocked(body)
	if err != nil {
		return nil, err
	}
	if text == "" {
		return s.incompatibilitiesLocked(parsed, s.levelLocked(subject), s.versionsLocked(subject, false))
	}
	v, err := s.versionLocked(subject, text, false)
	if err != nil {
		return nil, err
	}
	return s.incompatibilitiesLocked(parsed, s.levelLocked(subject), []*version{v})
}

// incompatibilitiesLocked gives the reasons why a new schema may not follow earlier ones: the last of them, or all if
// the level is transitive.
func (s *store) incompatibilitiesLocked(next *avroschema.Type, level string, earlier []*version) ([]string, error) {
	direction, transitive := strings.CutSuffix(level, "_TRANSITIVE")
	if direction == "NONE" || len(earlier) == 0 {
		return nil, nil
	}
	if !transitive {
		earlier = earlier[len(earlier)-1:]
	}
	var reasons []string
	for _, v := range earlier {
		old, err := s.parseLocked(v.body())
		if err != nil {
			return nil, err
		}
		if direction != "FORWARD" {
			for _, found := range avroschema.Incompatibilities(next, old) {
				reasons = append(reasons, fmt.Sprintf("the new schema cannot read version %d: %s", v.Version, found))
			}
		}
		if direction != "BACKWARD" {
			for _, found := range avroschema.Incompatibilities(old, next) {
				reasons = append(reasons, fmt.Sprintf("version %d cannot read the new schema: %s", v.Version, found))
			}
		}
	}
	return reasons, nil
}
