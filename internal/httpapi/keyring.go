package httpapi

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/churnstream/churnstream/internal/config"
)

// keyPrefix tells API keys from other bearer tokens, and lets scanners of repositories find one that leaked.
const keyPrefix = "cs1_"

// apiKey is one line of the keys file. The key itself is 256 random bits, which no dictionary holds: one round of
// SHA-256 protects it at rest.
type apiKey struct {
	name    string
	scopes  []scope
	hash    [sha256.Size]byte
	expires time.Time // zero: never
}

// keyring holds the keys of a file and reads it again when it changed. Two keys of one name are one principal, so that
// a client changes to a new key before the old one is taken away. It is safe for concurrent use.
type keyring struct {
	path string
	warn func(error) // of a refusal that is new
	now  func() time.Time

	mu      sync.Mutex
	keys    []apiKey
	text    []byte // that keys are from
	looked  time.Time
	refusal error // of the file as it is now; the keys before it go on
}

// lookEvery is how long a changed file of keys or certificates may stay unnoticed.
const lookEvery = 2 * time.Second

func openKeyring(path string, warn func(error)) (*keyring, error) {
	k := &keyring{path: path, warn: warn, now: time.Now}
	if err := k.readLocked(); err != nil {
		return nil, fmt.Errorf("http.auth.keys_file: %w", err)
	}
	return k, nil
}

// readLocked compares the text itself: a file system's times can stand still between two changes.
func (k *keyring) readLocked() error {
	text, err := os.ReadFile(k.path)
	if err != nil {
		return err
	}
	if k.keys != nil && bytes.Equal(text, k.text) {
		return nil
	}
	keys, err := parseKeys(text)
	if err != nil {
		return fmt.Errorf("%s: %w", k.path, err)
	}
	k.keys, k.text = keys, text
	return nil
}

// fault is what is wrong with the file now.
func (k *keyring) fault() error {
	_, refusal := k.look()
	return refusal
}

// look gives the keys in force, and what is wrong with the file that should have given them.
func (k *keyring) look() ([]apiKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := k.now(); now.Sub(k.looked) >= lookEvery {
		k.looked = now
		before := k.refusal
		if k.refusal = k.readLocked(); k.refusal != nil && (before == nil || before.Error() != k.refusal.Error()) {
			k.warn(k.refusal)
		}
	}
	return k.keys, k.refusal
}

// faultWithoutContent names the cause of a refusal for whoever asks: neither the path nor anything that the file holds.
func faultWithoutContent(refusal error) string {
	var lines faultyLines
	var system syscall.Errno
	switch {
	case errors.As(refusal, &lines):
		return lines.places()
	case errors.As(refusal, &system):
		return system.Error()
	default:
		return "it cannot be read"
	}
}

// faultyLines are the faults of a keys file, in order.
type faultyLines []lineFault

type lineFault struct {
	line int // from 1; 0: the whole file
	err  error
}

func (f faultyLines) Error() string {
	var b strings.Builder
	for i, fault := range f {
		if i > 0 {
			b.WriteByte('\n')
		}
		if fault.line > 0 {
			fmt.Fprintf(&b, "line %d: ", fault.line)
		}
		b.WriteString(fault.err.Error())
	}
	return b.String()
}

// places names at most the first five lines.
func (f faultyLines) places() string {
	var lines []string
	for _, fault := range f {
		if fault.line == 0 {
			return fault.err.Error()
		}
		if len(lines) == 5 {
			lines = append(lines, "…")
			break
		}
		lines = append(lines, strconv.Itoa(fault.line))
	}
	return "line " + strings.Join(lines, ", ")
}

func (k *keyring) principal(secret string) (*principal, error) {
	hash := sha256.Sum256([]byte(secret))
	var found *apiKey
	keys, _ := k.look()   // those before a refusal go on
	for i := range keys { // all of them, whichever fits
		if subtle.ConstantTimeCompare(hash[:], keys[i].hash[:]) == 1 {
			found = &keys[i]
		}
	}
	switch {
	case found == nil:
		return nil, errors.New("an unknown API key")
	case !found.expires.IsZero() && !k.now().Before(found.expires):
		return nil, fmt.Errorf("an expired API key of %s", found.name)
	}
	return &principal{id: "key:" + found.name, shown: "key:" + found.name, scopes: found.scopes}, nil
}

var principalName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,64}$`)

// parseKeys reads lines of name, scopes, hash and, optionally, the first day on which the key is refused. It names every
// fault at once.
func parseKeys(text []byte) ([]apiKey, error) {
	var keys []apiKey
	var faults faultyLines
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		key, err := parseKey(fields)
		if err != nil {
			faults = append(faults, lineFault{n, err})
			continue
		}
		if slices.ContainsFunc(keys, func(other apiKey) bool { return other.hash == key.hash }) {
			faults = append(faults, lineFault{n, errors.New("the same key as on an earlier line")})
			continue
		}
		keys = append(keys, key)
	}
	if err := lines.Err(); err != nil {
		faults = append(faults, lineFault{0, err})
	}
	if len(keys) == 0 && len(faults) == 0 {
		faults = append(faults, lineFault{0, errors.New("holds no key; `churnstream apikey` makes one")})
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return keys, nil
}

func parseKey(fields []string) (apiKey, error) {
	if len(fields) < 3 || len(fields) > 4 {
		return apiKey{}, fmt.Errorf("%d fields; want name, scopes, hash and perhaps the day of expiry, as `churnstream apikey` writes them", len(fields))
	}
	if slices.ContainsFunc(fields, func(f string) bool { return strings.HasPrefix(f, keyPrefix) }) { // not to be told on
		return apiKey{}, errors.New("a key itself; never write the key itself here, but its hash as `churnstream apikey` does")
	}
	key := apiKey{name: fields[0]}
	if !principalName.MatchString(key.name) {
		return apiKey{}, fmt.Errorf("%q is not a name: 1 to 64 letters, digits, '.', '_' or '-'", key.name)
	}
	for s := range strings.SplitSeq(fields[1], ",") {
		if !slices.Contains(config.Scopes(), s) {
			return apiKey{}, fmt.Errorf("%q is not one of the scopes %s", s, strings.Join(config.Scopes(), ", "))
		}
		key.scopes = append(key.scopes, scope(s))
	}
	if n, err := hex.Decode(key.hash[:], []byte(fields[2])[:min(len(fields[2]), 64)]); err != nil || n != sha256.Size || len(fields[2]) != 64 {
		return apiKey{}, errors.New("the hash is not 64 hexadecimal digits; never write the key itself here")
	}
	if len(fields) == 4 {
		var err error
		if key.expires, err = time.Parse(time.DateOnly, fields[3]); err != nil {
			return apiKey{}, fmt.Errorf("%q is not a day such as 2027-01-31", fields[3])
		}
	}
	return key, nil
}

// NewAPIKey makes a key and the line that admits it. Only its holder keeps the key.
func NewAPIKey(name string, scopes []string, expires string) (key, line string, err error) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	key = keyPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
	hash := sha256.Sum256([]byte(key))
	line = strings.TrimSpace(strings.Join([]string{name, strings.Join(scopes, ","), hex.EncodeToString(hash[:]), expires}, " "))
	if _, err := parseKeys([]byte(line)); err != nil {
		return "", "", fmt.Errorf("API key: %s", strings.TrimPrefix(err.Error(), "line 1: "))
	}
	return key, line, nil
}
