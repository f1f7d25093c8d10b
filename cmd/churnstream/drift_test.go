package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/internal/driftreport"
	"github.com/churnstream/churnstream/internal/telco"
)

// telcoTable is the table of the Telco customers; its first row has the names of the columns.
func telcoTable(t *testing.T) [][]string {
	t.Helper()
	rows, err := telco.CSV()
	if err != nil {
		t.Fatal(err)
	}
	table, err := csv.NewReader(rows).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// telcoRows writes the Telco customers, changed by change, as CSV; the last column is the time: two months, half of the
// customers each.
func telcoRows(t *testing.T, change func(column map[string]int, row []string, i int)) string {
	t.Helper()
	table := telcoTable(t)
	column := map[string]int{}
	for i, name := range table[0] {
		column[name] = i
	}
	path := filepath.Join(t.TempDir(), "rows.csv")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := csv.NewWriter(f)
	for i, row := range table {
		at := "at"
		if i > 0 {
			at = "2026-01-15"
			if i > len(table)/2 {
				at = "2026-02-15"
			}
			change(column, row, i)
		}
		if err := w.Write(append(row, at)); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	if err := w.Error(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func unchanged(map[string]int, []string, int) {}

// report runs drift report as JSON.
func report(t *testing.T, args ...string) *driftreport.Report {
	t.Helper()
	code, out, errs := runCommand(t, append([]string{"drift", "report", "--as", "json"}, args...)...)
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	r := &driftreport.Report{}
	if err := json.Unmarshal([]byte(out), r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return r
}

func TestReportOfThePopulationItselfFindsNothing(t *testing.T) {
	model := filepath.Join(trained(t), "model")
	r := report(t, "--model", model, "--input", telcoRows(t, unchanged), "--customer", "customerID", "--outcome", "Churn")
	if r.Drifting() || len(r.Periods) != 1 || r.Periods[0].Events != 7043 || len(r.Notes) != 0 {
		t.Errorf("%+v", r)
	}
	for _, f := range r.Periods[0].Features {
		if f.PSI == nil || *f.PSI > 0.02 || f.State != "ok" {
			t.Errorf("%s: %s, PSI %v", f.Name, f.State, f.PSI)
		}
	}
	if c := r.Calibration; c == nil || c.State != "ok" || *c.ExpectedError > 0.03 || c.Pairs != 7043 {
		t.Errorf("calibration %+v", c)
	}
}

func TestReportFindsTheMonthInWhichAnInputMoved(t *testing.T) {
	model := filepath.Join(trained(t), "model")
	moved := telcoRows(t, func(column map[string]int, row []string, i int) {
		if i > 3522 && i%2 == 0 { // in February half of the customers have the long contract
			row[column["Contract"]] = "Two year"
		}
	})
	args := []string{"--model", model, "--input", moved, "--time", "at", "--by", "month"}
	r := report(t, args...)
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "No customer key") {
		t.Errorf("notes %q", r.Notes)
	}
	if len(r.Periods) != 2 || r.Periods[0].Label != "2026-01" || r.Periods[1].Label != "2026-02" {
		t.Fatalf("periods %+v", r.Periods)
	}
	for _, f := range r.Periods[0].Features {
		if f.State == "drifting" {
			t.Errorf("January: %s drifts", f.Name)
		}
	}
	february := r.Periods[1].Features
	if top := february[0]; top.Name != "Contract" || top.State != "drifting" || *top.Effect >= 0 || *top.Importance <= 0 {
		t.Errorf("first of February: %+v", top)
	}
	for _, as := range []string{"text", "html"} {
		path := filepath.Join(t.TempDir(), "report")
		if code, _, errs := runCommand(t, append([]string{"drift", "report", "--as", as, "--output", path}, args...)...); code != exitDone {
			t.Fatalf("exit code %d: %s", code, errs)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Contract", "drifting", "2026-02", "Two year"} {
			if !strings.Contains(string(content), want) {
				t.Errorf("the %s report does not hold %q", as, want)
			}
		}
		if as == "html" && (strings.Contains(string(content), "<script") || strings.Contains(string(content), "http")) {
			t.Error("the page needs something beside itself")
		}
	}
	if code, _, errs := runCommand(t, append([]string{"drift", "report", "--fail"}, args...)...); code != exitFailed || !strings.Contains(errs, "has drifted") {
		t.Errorf("exit code %d with --fail: %s", code, errs)
	}
}

func TestReportTakesOutcomesOfAnotherFile(t *testing.T) {
	model := filepath.Join(trained(t), "model")
	rows := telcoRows(t, unchanged)
	var outcomes strings.Builder
	outcomes.WriteString("customer,outcome\n")
	table, err := os.ReadFile(rows)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(table)), "\n")[1:] {
		customer, _, _ := strings.Cut(line, ",")
		outcomes.WriteString(customer + "," + strconv.Itoa(i%2) + "\n") // nothing to do with the scores
	}
	path := filepath.Join(t.TempDir(), "outcomes.csv")
	put(t, path, outcomes.String())
	r := report(t, "--model", model, "--input", rows, "--customer", "customerID", "--outcomes", path)
	if c := r.Calibration; c.State != "miscalibrated" || c.Pairs != 7043 || *c.ChurnRate < 0.49 || *c.ChurnRate > 0.51 {
		t.Errorf("calibration %+v", c)
	}
}

func TestProfileOfRowsTakesThePlaceOfTheModelsOwn(t *testing.T) {
	model := filepath.Join(trained(t), "model")
	path := filepath.Join(t.TempDir(), "profile.json")
	rows := telcoRows(t, func(column map[string]int, row []string, i int) {
		if i%2 == 0 {
			row[column["Contract"]] = "Two year"
		}
	})
	code, _, errs := runCommand(t, "drift", "profile", "--model", model, "--input", rows, "--customer", "customerID",
		"--segment", "Contract", "--edges", "tenure=6,12,24", "--output", path)
	if code != exitDone {
		t.Fatal(errs)
	}
	r := report(t, "--model", model, "--input", rows, "--customer", "customerID", "--profile", path)
	if r.Drifting() || r.Reference.Events != 7043 {
		t.Errorf("%+v", r)
	}
	segments, edges := 0, 0
	for _, f := range r.Periods[0].Features {
		if strings.HasPrefix(f.Name, "score[Contract=") {
			segments++
		}
		if f.Name == "tenure" {
			edges = len(f.Bins)
		}
	}
	if segments != 3 || edges != 4+3 {
		t.Errorf("%d segments, %d places of tenure", segments, edges)
	}
}

func TestDriftCommandsRefuseWrongUsage(t *testing.T) {
	model := filepath.Join(trained(t), "model")
	for _, c := range []struct {
		want string
		args []string
	}{
		{"--model: give the directory", []string{"report", "--input", "x.csv"}},
		{"give --input or --topic", []string{"report", "--model", model}},
		{"--as:", []string{"report", "--model", model, "--as", "pdf"}},
		{"--by and --time", []string{"report", "--model", model, "--input", "x.csv", "--by", "day"}},
		{"--alert publishes", []string{"report", "--model", model, "--input", "x.csv", "--customer", "id", "--outcomes", "y.csv", "--alert"}},
		{"take -c", []string{"report", "--model", model, "--input", "x.csv", "--customer", "id", "--outcomes-topic", "y"}},
		{"neither with the other", []string{"report", "-c", "x.yaml", "--topic", "--outcomes", "y.csv", "--outcomes-topic", "y"}},
		{"--outcomes and --outcomes-topic go with --customer", []string{"report", "--model", model, "--input", "x.csv", "--outcomes", "y.csv"}},
		{"take -c", []string{"report", "--model", model, "--live"}},
		{"drift.relevant_psi", []string{"report", "--model", model, "--input", "x.csv", "--relevant-psi", "-1"}},
		{"--edges:", []string{"profile", "--model", model, "--input", "x.csv", "--edges", "tenure"}},
		{"profile.bins", []string{"profile", "--model", model, "--input", "x.csv", "--bins", "1"}},
		{"--input:", []string{"profile", "--model", model, "--input", "nothere.parquet"}},
	} {
		if code, _, errs := runCommand(t, append([]string{"drift"}, c.args...)...); code != exitUsage || !strings.Contains(errs, c.want) {
			t.Errorf("%q: exit code %d, %q; want %q", c.args, code, errs, c.want)
		}
	}
}
