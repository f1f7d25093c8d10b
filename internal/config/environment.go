package config

import (
	"cmp"
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

const environmentPrefix = "CHURNSTREAM"

// applyEnvironment sets every key for which a variable exists: topics.events is CHURNSTREAM_TOPICS_EVENTS, lists are
// separated by commas. Other variables with the prefix are left alone: orchestrators add their own.
func applyEnvironment(cfg *Config, environ []string) []error {
	set := make(map[string]string, len(environ))
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, environmentPrefix+"_") {
			set[name] = value
		}
	}
	return applyTo(reflect.ValueOf(cfg).Elem(), environmentPrefix, set)
}

// applyPlatform fills what is empty with the variables that AWS sets where programs run.
func applyPlatform(aws *AWS, environ []string) {
	set := map[string]string{}
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, "AWS_") {
			set[name] = value
		}
	}
	aws.Region = cmp.Or(aws.Region, set["AWS_REGION"], set["AWS_DEFAULT_REGION"])
	if aws.AccessKeyID == "" && aws.WebIdentityTokenFile == "" && aws.CredentialsURL == "" { // of one source, or none is right
		aws.AccessKeyID = set["AWS_ACCESS_KEY_ID"]
		aws.SecretAccessKey = Hide(set["AWS_SECRET_ACCESS_KEY"])
		aws.SessionToken = Hide(set["AWS_SESSION_TOKEN"])
		aws.WebIdentityTokenFile = set["AWS_WEB_IDENTITY_TOKEN_FILE"]
		aws.CredentialsURL = set["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
		if relative := set["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]; relative != "" && aws.CredentialsURL == "" {
			aws.CredentialsURL = "http://169.254.170.2" + relative
		}
	}
	aws.RoleARN = cmp.Or(aws.RoleARN, set["AWS_ROLE_ARN"])
	aws.CredentialsTokenFile = cmp.Or(aws.CredentialsTokenFile, set["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"])
}

func applyTo(v reflect.Value, prefix string, set map[string]string) (faults []error) {
	for i := range v.NumField() {
		key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		name := prefix + "_" + strings.ToUpper(key)
		field := v.Field(i)
		if field.Kind() == reflect.Struct {
			faults = append(faults, applyTo(field, name, set)...)
			continue
		}
		if text, ok := set[name]; ok {
			if err := setText(field, text); err != nil {
				faults = append(faults, fmt.Errorf("environment variable %s: %w", name, err))
			}
		}
	}
	return faults
}

// Misspelling is a variable that nothing reads and the one that was probably meant.
type Misspelling struct{ Variable, Meant string }

// Misspellings finds variables with the prefix that are no key but close to one. Those that are like no key are another
// program's: Kubernetes sets CHURNSTREAM_SERVICE_HOST where a service is called churnstream.
func Misspellings(environ []string) []Misspelling {
	var cfg Config
	names := variables(reflect.ValueOf(&cfg).Elem(), environmentPrefix)
	var found []Misspelling
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		own, ok := strings.CutPrefix(name, environmentPrefix+"_")
		if !ok || slices.Contains(names, name) {
			continue
		}
		best, meant := 3, "" // at most two slips, or one in a short name
		if len(own) < 5 {
			best = 2
		}
		for _, known := range names {
			if d := distance(name, known); d < best {
				best, meant = d, known
			}
		}
		if meant != "" {
			found = append(found, Misspelling{name, meant})
		}
	}
	return found
}

// variables are the names of all keys.
func variables(v reflect.Value, prefix string) (names []string) {
	for key, field := range fieldsOf(v) {
		name := prefix + "_" + strings.ToUpper(key)
		if field.Kind() == reflect.Struct {
			names = append(names, variables(field, name)...)
		} else {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// distance is Levenshtein's: insertions, deletions and replacements of a byte.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

func setText(field reflect.Value, text string) error {
	if u, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch field.Kind() {
	case reflect.String:
		field.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		field.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		field.SetInt(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
		field.SetFloat(f)
	case reflect.Slice:
		var list []string
		for s := range strings.SplitSeq(text, ",") {
			if s = strings.TrimSpace(s); s != "" {
				list = append(list, s)
			}
		}
		field.Set(reflect.ValueOf(list))
	default:
		panic("BUG: a configuration key of kind " + field.Kind().String())
	}
	return nil
}
