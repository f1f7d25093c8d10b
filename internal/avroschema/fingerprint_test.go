package avroschema

import (
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestCanonicalFormsAndFingerprintsAreThoseOfTheAvroProject reads cases of INPUT (of one line, or of several up to
// INPUT), canonical form and, where it is new, CRC-64-AVRO fingerprint.
func TestCanonicalFormsAndFingerprintsAreThoseOfTheAvroProject(t *testing.T) {
	raw, err := os.ReadFile("testdata/schema-tests.txt")
	if err != nil {
		t.Fatal(err)
	}
	forms, fingerprints := 0, 0
	var parsed *Type
	lines := strings.Split(string(raw), "\n")
	for i := 0; i < len(lines); i++ {
		key, value, _ := strings.Cut(strings.TrimPrefix(lines[i], "<<"), " ")
		switch {
		case !strings.HasPrefix(lines[i], "<<"):
		case key == "INPUT":
			if value == "" {
				for i++; lines[i] != "INPUT"; i++ {
					value += lines[i]
				}
			}
			if parsed, err = Parse(value); err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
		case key == "canonical":
			forms++
			if got := parsed.Canonical(); got != value {
				t.Errorf("line %d:\n got %s\nwant %s", i+1, got, value)
			}
		case key == "fingerprint":
			fingerprints++
			want, err := strconv.ParseInt(value, 10, 64)
			if got := int64(parsed.CRC64()); err != nil || got != want {
				t.Errorf("line %d: %s has %d, want %d (%v)", i+1, parsed.Canonical(), got, want, err)
			}
		}
	}
	if forms != 34 || fingerprints < 24 {
		t.Errorf("%d canonical forms, %d fingerprints", forms, fingerprints)
	}
}

func TestFingerprintsDoNotSeeLogicalTypes(t *testing.T) {
	plain, err := Parse(`{"type":"record","name":"R","fields":[{"name":"d","type":"int"},{"name":"f","type":{"type":"fixed","name":"F","size":12}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	logical, err := Parse(`{"type":"record","name":"R","doc":"x","fields":[{"name":"d","type":{"type":"int","logicalType":"date"},"default":1},{"name":"f","type":{"type":"fixed","name":"F","size":12,"logicalType":"duration"}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if plain.CRC64() != logical.CRC64() || plain.SHA256() != logical.SHA256() {
		t.Errorf("%s and %s differ", plain.Canonical(), logical.Canonical())
	}
	sum := plain.SHA256()
	if got := hex.EncodeToString(sum[:]); got != sha256OfPlain {
		t.Errorf("SHA-256 %s, want %s", got, sha256OfPlain)
	}
}

// sha256OfPlain is what `printf '%s' CANONICAL | sha256sum` gives for the canonical form of the test above.
const sha256OfPlain = "5fed6b3513aa095ca47ea7393d4eea573024f770fea5025d16350550a17adde0"
