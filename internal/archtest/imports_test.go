package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/churnstream/churnstream"

// anything stands for every package of ours but the commands and test helpers.
const anything = "*"

// places says, for each package of ours and everything below it, which others
// of ours its code may import (a package may always import its own subtree).
// Tests are free. The order is the one of docs/ARCHITECTURE.md: contracts,
// then what is scored and counted, the transport beside them, what joins them.
var places = map[string][]string{
	"internal/avroschema": {},
	"internal/telco":      {"schemas"},
	"schemas":             {"internal/avroschema"},
	"scoring":             {"schemas"},
	"drift":               {"schemas"},
	"internal/tabular":    {"schemas"},
	"internal/train":      {"schemas", "scoring", "drift", "internal/tabular"},

	"internal/kafkawire":   {},
	"consumer":             {"internal/kafkawire"},
	"producer":             {"internal/kafkawire"},
	"internal/tail":        {"internal/kafkawire", "consumer"},
	"internal/driftstate":  {"schemas", "drift", "consumer", "producer"},
	"internal/deadletters": {"internal/kafkawire", "internal/tail", "consumer", "producer", "schemas"},
	"internal/ocf":         {},
	"internal/feed":        {"internal/kafkawire", "producer", "schemas", "internal/tabular", "internal/ocf"},

	"internal/admin":       {},
	"internal/config":      {},
	"internal/connect":     {"internal/config", "internal/kafkawire"},
	"internal/devbroker":   {},
	"internal/devregistry": {"internal/avroschema"},

	"internal/worker": {
		"schemas", "scoring", "drift", "consumer", "producer",
		"internal/kafkawire", "internal/tail", "internal/admin", "internal/config", "internal/connect", "internal/driftstate",
	},
	"cmd":      {anything},
	"internal": {anything}, // what is not named above joins parts, as worker does

	"internal/bench/chaos": {anything},

	"internal/testkit":  {"internal/devbroker", "internal/devregistry"},
	"internal/archtest": {},
	"deploy":            {},
	"bench":             {},
}

// guests says which packages of ours may import a package of others, tests
// apart. The product has one Kafka client, segmentio/kafka-go.
var guests = map[string][]string{
	"github.com/twmb/franz-go/pkg/kfake":                      {"internal/devbroker", "internal/testkit"},
	"github.com/twmb/franz-go/pkg/sr":                         {"schemas", "internal/devregistry", "internal/testkit"},
	"github.com/twmb/avro":                                    {},                       // a second opinion in tests
	"github.com/twmb/franz-go":                                {"internal/bench/chaos"}, // reads back with another client
	"github.com/Shopify/toxiproxy":                            {"internal/bench/chaos"},
	"github.com/confluentinc/confluent-kafka-go":              {},
	"github.com/compose-spec/compose-go":                      {},
	"github.com/testcontainers/testcontainers-go":             {"internal/testkit"},
	"github.com/stretchr/testify":                             {},
	"go.uber.org/goleak":                                      {},
	"pgregory.net/rapid":                                      {},
	"testing":                                                 {"internal/testkit"},
	"net/http/pprof":                                          {"internal/admin"},
	"github.com/prometheus/client_golang/prometheus/promauto": {}, // registers globally
	"C": {}, // cgo: the binary is static
}

func TestImportsGoOneWay(t *testing.T) {
	for _, fault := range check(list(t, "./...")) {
		t.Error(fault)
	}
}

// TestBinaryCarriesNoTestTools looks at everything the command is linked with,
// however it got there.
func TestBinaryCarriesNoTestTools(t *testing.T) {
	for _, p := range list(t, "-deps", "./cmd/...") {
		for _, tool := range []string{
			"testing", "github.com/testcontainers/testcontainers-go", "github.com/docker/docker",
			"github.com/stretchr/testify", "github.com/compose-spec/compose-go", module + "/internal/testkit",
		} {
			if within(p.ImportPath, tool) {
				t.Errorf("cmd depends on %s: the product carries no test tools", p.ImportPath)
			}
		}
	}
}

func TestCheckFindsWhatGoesWrong(t *testing.T) {
	for name, c := range map[string]struct {
		pkg, imports, want string
	}{
		"transport knows models":        {"consumer", module + "/scoring", "may not import scoring"},
		"consumer knows producer":       {"consumer", module + "/producer", "may not import producer"},
		"subpackage of a core package":  {"scoring/trees", module + "/drift", "may not import drift"},
		"anything knows commands":       {"internal/worker", module + "/cmd/churnstream", "may not import cmd"},
		"product knows test kit":        {"cmd/churnstream", module + "/internal/testkit", "may not import internal/testkit"},
		"joiner knows test kit":         {"internal/demo", module + "/internal/testkit", "may not import internal/testkit"},
		"joiner knows commands":         {"internal/demo", module + "/cmd/churnstream", "may not import cmd"},
		"unknown package":               {"utils", "fmt", "has no place"},
		"second Kafka client":           {"internal/devbroker", "github.com/twmb/franz-go/pkg/kgo", "may not import github.com/twmb/franz-go/pkg/kgo"},
		"embedded broker outside":       {"internal/worker", "github.com/twmb/franz-go/pkg/kfake", "may not import github.com/twmb/franz-go/pkg/kfake"},
		"registry client outside":       {"scoring", "github.com/twmb/franz-go/pkg/sr", "may not import github.com/twmb/franz-go/pkg/sr"},
		"test framework in the product": {"drift", "testing", "may not import testing"},
		"cgo":                           {"scoring", "C", "may not import C"},
		"transport knows what joins":    {"producer", module + "/internal/feed", "may not import internal/feed"},
		"embedded broker knows product": {"internal/devbroker", module + "/schemas", "may not import schemas"},

		"own subtree":                {"scoring", module + "/scoring/trees", ""},
		"declared direction":         {"scoring/trees", module + "/schemas", ""},
		"commands wire everything":   {"cmd/churnstream", module + "/internal/devbroker", ""},
		"library with an alike name": {"drift", "testingtools.example/tools", ""},
	} {
		t.Run(name, func(t *testing.T) {
			faults := check([]pkg{{ImportPath: module + "/" + c.pkg, Imports: []string{c.imports}}})
			got := errors.Join(faults...)
			switch {
			case c.want == "" && got != nil:
				t.Errorf("refused: %v", got)
			case c.want != "" && (got == nil || !strings.Contains(got.Error(), c.want)):
				t.Errorf("got %v, want %q", got, c.want)
			}
		})
	}
}

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath string   `json:"ImportPath"`
	Imports    []string `json:"Imports"`
}

func check(pkgs []pkg) []error {
	var faults []error
	for _, p := range pkgs {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		place, ok := longest(places, name)
		if !ok {
			faults = append(faults, fmt.Errorf("%s has no place in the import graph: give it one in internal/archtest", name))
			continue
		}
		for _, path := range p.Imports {
			ours, ok := strings.CutPrefix(path, module+"/")
			if ok && !ownMay(place, ours) || !ok && !guestMay(place, path) {
				faults = append(faults, fmt.Errorf("%s may not import %s", name, strings.TrimPrefix(path, module+"/")))
			}
		}
	}
	return faults
}

func ownMay(place, imported string) bool {
	for _, tree := range []string{"cmd", "internal/testkit", "internal/archtest"} {
		if within(imported, tree) {
			return place == tree
		}
	}
	return within(imported, place) || slices.ContainsFunc(places[place], func(allowed string) bool {
		return allowed == anything || within(imported, allowed)
	})
}

func guestMay(place, imported string) bool {
	guest, ok := longest(guests, imported)
	return !ok || slices.Contains(guests[guest], place)
}

// longest finds the key that is the path or the nearest folder above it.
func longest(table map[string][]string, path string) (key string, ok bool) {
	for candidate := range table {
		if within(path, candidate) && len(candidate) > len(key) {
			key, ok = candidate, true
		}
	}
	return key, ok
}

func within(path, tree string) bool {
	return path == tree || strings.HasPrefix(path, tree+"/")
}

// list asks the go command. A package that does not compile is listed with its
// imports all the same; that it does not compile is for others to say.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", append([]string{"list", "-e", "-json=ImportPath,Imports"}, args...)...)
	command.Dir = root(t)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %v", command, err)
	}
	var pkgs []pkg
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) == 0 {
		t.Fatalf("%v lists no package", command)
	}
	return pkgs
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}
