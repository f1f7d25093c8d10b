package telco_test

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/internal/telco"
)

func TestTheEmbeddedTableIsTheOneThatSourceNames(t *testing.T) {
	source, err := os.ReadFile("SOURCE.txt")
	if err != nil {
		t.Fatal(err)
	}
	r, err := telco.CSV()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	rows, err := csv.NewReader(io.TeeReader(r, sum)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); !strings.Contains(string(source), got) {
		t.Errorf("SOURCE.txt does not name the table's sha256 %s", got)
	}
	if len(rows) != telco.Customers+1 {
		t.Errorf("the table has %d lines, want a header and %d customers", len(rows), telco.Customers)
	}
}

func TestSpecificationIsTheCallersCopy(t *testing.T) {
	first := telco.Specification()
	first[0] = '?'
	if telco.Specification()[0] == '?' {
		t.Error("writing into one copy changed the next")
	}
}
