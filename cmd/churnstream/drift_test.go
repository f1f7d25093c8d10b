package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
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

func TestProfileOfClassesIsComparedWithRowsOfTheSameHours(t *testing.T) {
	model := filepath.Join(trained(t), "model")
	dir := t.TempDir()
	// By night most of the customers have the long contract.
	nights := func(inFour int) string {
		rows := telcoRows(t, func(column map[string]int, row []string, i int) {
			if i%4 == 0 && i/4%4 < inFour {
				row[column["Contract"]] = "Two year"
			}
		})
		text, err := os.ReadFile(rows)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for i := range lines {
			if i > 0 {
				cut := strings.LastIndexByte(lines[i], ',')
				hour := map[bool]string{true: "03", false: "15"}[i%4 == 0]
				lines[i] = lines[i][:cut+1] + "2026-01-15T" + hour + ":00:00Z"
			}
		}
		path := filepath.Join(t.TempDir(), "rows.csv")
		put(t, path, strings.Join(lines, "\n"))
		return path
	}
	rows, path := nights(3), filepath.Join(dir, "profile.json")
	code, _, errs := runCommand(t, "drift", "profile", "--model", model, "--input", rows, "--customer", "customerID",
		"--time", "at", "--classes", "12h", "--zone", "UTC", "--output", path)
	if code != exitDone || !strings.Contains(errs, `class "00-12h": 1760 rows are too few for`) {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	contract := func(args ...string) (driftreport.Feature, *driftreport.Report) {
		r := report(t, append([]string{"--model", model, "--profile", path, "--customer", "customerID", "--by", "hour"}, args...)...)
		features := r.Periods[0].Features
		return features[slices.IndexFunc(features, func(f driftreport.Feature) bool { return f.Name == "Contract" })], r
	}
	same, r := contract("--input", rows, "--time", "at")
	if same.State != "ok" || *same.PSI > 0.001 || r.Reference.Classes != "12h, UTC" || len(r.Notes) != 0 {
		t.Errorf("%+v of %+v, %q", same, r.Reference, r.Notes)
	}
	if moved, _ := contract("--input", nights(0), "--time", "at"); moved.State != "drifting" {
		t.Errorf("%+v", moved)
	}
	untimed := report(t, "--model", model, "--profile", path, "--customer", "customerID", "--input", rows)
	if len(untimed.Notes) != 1 || !strings.Contains(untimed.Notes[0], "rows without a time") {
		t.Errorf("%q", untimed.Notes)
	}
	for _, as := range []string{"text", "html"} {
		code, out, errs := runCommand(t, "drift", "report", "--as", as, "--model", model, "--profile", path, "--input", rows, "--time", "at")
		if code != exitDone || !strings.Contains(out, "the same hours: 12h, UTC") {
			t.Errorf("%s: exit code %d, %s", as, code, errs)
		}
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
		{"--by goes by the time", []string{"report", "--model", model, "--input", "x.csv", "--by", "day"}},
		{"--metrics writes", []string{"report", "--model", model, "--input", "x.csv", "--metrics", "y.prom"}},
		{"--alert publishes", []string{"report", "--model", model, "--input", "x.csv", "--customer", "id", "--outcomes", "y.csv", "--alert"}},
		{"take -c", []string{"report", "--model", model, "--input", "x.csv", "--customer", "id", "--outcomes-topic", "y"}},
		{"neither with the other", []string{"report", "-c", "x.yaml", "--topic", "--outcomes", "y.csv", "--outcomes-topic", "y"}},
		{"--outcomes and --outcomes-topic go with --customer", []string{"report", "--model", model, "--input", "x.csv", "--outcomes", "y.csv"}},
		{"take -c", []string{"report", "--model", model, "--live"}},
		{"drift.relevant_psi", []string{"report", "--model", model, "--input", "x.csv", "--relevant-psi", "-1"}},
		{"--edges:", []string{"profile", "--model", model, "--input", "x.csv", "--edges", "tenure"}},
		{"--classes goes by the time", []string{"profile", "--model", model, "--input", "x.csv", "--classes", "weekend"}},
		{"--classes, --zone: classes: \"5h\"", []string{"profile", "--model", model, "--input", "x.csv", "--time", "at", "--classes", "5h"}},
		{"the time zone \"Mars\"", []string{"profile", "--model", model, "--input", "x.csv", "--time", "at", "--classes", "6h", "--zone", "Mars"}},
		{"profile.bins", []string{"profile", "--model", model, "--input", "x.csv", "--bins", "1"}},
		{"--input:", []string{"profile", "--model", model, "--input", "nothere.parquet"}},
	} {
		if code, _, errs := runCommand(t, append([]string{"drift"}, c.args...)...); code != exitUsage || !strings.Contains(errs, c.want) {
			t.Errorf("%q: exit code %d, %q; want %q", c.args, code, errs, c.want)
		}
	}
}
