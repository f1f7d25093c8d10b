package devregistry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	v1 = `{"type":"record","name":"E","fields":[{"name":"a","type":"int"}]}`
	v2 = `{"type":"record","name":"E","fields":[{"name":"a","type":"long"},{"name":"b","type":"string","default":""}]}`
	// v3 asks for a field that earlier events do not have.
	v3 = `{"type":"record","name":"E","fields":[{"name":"a","type":"long"},{"name":"c","type":"string"}]}`
)

// start runs a registry until the test ends, or until stop is called.
func start(t *testing.T, dir string) (client *sr.Client, url string, stop func()) {
	t.Helper()
	server, err := New(Config{Listen: "127.0.0.1:0", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	transport := &http.Transport{}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		transport.CloseIdleConnections()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	client, err = sr.NewClient(sr.URLs(server.URL()), sr.HTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		t.Fatal(err)
	}
	return client, server.URL(), stop
}

func avro(text string) sr.Schema { return sr.Schema{Schema: text, Type: sr.TypeAvro} }

func code(err error) int {
	var answer *sr.ResponseError
	if errors.As(err, &answer) {
		return answer.ErrorCode
	}
	return 0
}

func TestSchemasAreRegisteredOnceAndFound(t *testing.T) {
	ctx := context.Background()
	client, _, _ := start(t, "")
	first, err := client.CreateSchema(ctx, "events-value", avro(v1))
	if err != nil || first.ID != 1 || first.Version != 1 {
		t.Fatalf("%+v %v", first, err)
	}
	spaced := strings.ReplaceAll(v1, ",", " , ")
	again, err := client.CreateSchema(ctx, "events-value", avro(spaced))
	if err != nil || again.ID != 1 || again.Version != 1 {
		t.Fatalf("the same schema again: %+v %v", again, err)
	}
	other, err := client.CreateSchema(ctx, "other-value", avro(v1))
	if err != nil || other.ID != 1 || other.Version != 1 {
		t.Fatalf("the same schema under another subject: %+v %v", other, err)
	}
	second, err := client.CreateSchema(ctx, "events-value", avro(v2))
	if err != nil || second.ID != 2 || second.Version != 2 {
		t.Fatalf("%+v %v", second, err)
	}
	byID, err := client.SchemaByID(ctx, 2)
	if err != nil || byID.Schema != v2 || byID.Type != sr.TypeAvro {
		t.Fatalf("%+v %v", byID, err)
	}
	if text, err := client.SchemaTextByID(ctx, 1); err != nil || text != v1 {
		t.Fatalf("%q %v", text, err)
	}
	if newest, err := client.SchemaByVersion(ctx, "events-value", -1); err != nil || newest.Version != 2 || newest.ID != 2 || newest.Schema.Schema != v2 {
		t.Fatalf("%+v %v", newest, err)
	}
	if text, err := client.SchemaTextByVersion(ctx, "events-value", 1); err != nil || text != v1 {
		t.Fatalf("%q %v", text, err)
	}
	if found, err := client.LookupSchema(ctx, "events-value", avro(spaced)); err != nil || found.ID != 1 || found.Version != 1 {
		t.Fatalf("%+v %v", found, err)
	}
	if names, err := client.Subjects(ctx); err != nil || !slices.Equal(names, []string{"events-value", "other-value"}) {
		t.Fatalf("%v %v", names, err)
	}
	if names, err := client.SubjectsByID(ctx, 1); err != nil || len(names) != 2 {
		t.Fatalf("%v %v", names, err)
	}
	if types, err := client.SupportedTypes(ctx); err != nil || !slices.Equal(types, []sr.SchemaType{sr.TypeAvro}) {
		t.Fatalf("%v %v", types, err)
	}
}

func TestErrorsCarryTheDocumentedCodes(t *testing.T) {
	ctx := context.Background()
	client, url, _ := start(t, "")
	if _, err := client.CreateSchema(ctx, "s", avro(v1)); err != nil {
		t.Fatal(err)
	}
	check := func(what string, want int, err error) {
		t.Helper()
		if code(err) != want {
			t.Errorf("%s: code %d (%v), want %d", what, code(err), err, want)
		}
	}
	_, err := client.SchemaByID(ctx, 99)
	check("unknown id", 40403, err)
	_, err = client.SubjectVersions(ctx, "nix")
	check("unknown subject", 40401, err)
	_, err = client.SchemaByVersion(ctx, "s", 9)
	check("unknown version", 40402, err)
	_, err = client.LookupSchema(ctx, "s", avro(v2))
	check("unregistered schema", 40403, err)
	_, err = client.CreateSchema(ctx, "s", avro(`{"type":"record"`))
	check("no schema", 42201, err)
	_, err = client.CreateSchema(ctx, "s", sr.Schema{Schema: "{}", Type: sr.TypeJSON})
	check("not Avro", 42201, err)
	_, err = client.CreateSchema(ctx, "s", avro(v3))
	check("incompatible", 409, err)
	if err == nil || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("the reason is not named: %v", err)
	}
	check("compatibility of its own", 40408, client.Compatibility(ctx, "s")[0].Err)
	_, err = client.DeleteSubject(ctx, "s", sr.HardDelete)
	check("permanent delete first", 40405, err)
	err = client.DeleteSchema(ctx, "s", 1, sr.HardDelete)
	check("permanent delete of a version first", 40407, err)
	_, err = client.CreateSchema(ctx, "t", sr.Schema{Schema: `{"type":"array","items":"x.M"}`, References: []sr.SchemaReference{{Name: "x.M", Subject: "nix", Version: 1}}})
	check("dangling reference", 42201, err)

	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	plain := &http.Client{Transport: transport}
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/subjects/s/versions/abc", "", 422, `"error_code":42202`},
		{"PUT", "/config", `{"compatibility":"SOMETIMES"}`, 422, `"error_code":42203`},
		{"POST", "/subjects/s/versions", `{`, 400, `"error_code":400`},
		{"GET", "/nowhere", "", 404, `"error_code":404`},
		{"GET", "/", "", 200, `{}`},
	} {
		req, err := http.NewRequestWithContext(ctx, c.method, url+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := plain.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || !strings.Contains(string(body), c.want) {
			t.Errorf("%s %s: %d %s %v", c.method, c.path, resp.StatusCode, body, err)
		}
	}
}

func TestCompatibilityFollowsTheLevel(t *testing.T) {
	ctx := context.Background()
	client, _, _ := start(t, "")
	for _, text := range []string{v1, v2} {
		if _, err := client.CreateSchema(ctx, "s", avro(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		level sr.CompatibilityLevel
		text  string
		want  bool
	}{
		{sr.CompatNone, v3, true},
		{sr.CompatBackward, v3, false},
		{sr.CompatForward, v3, true},
		{sr.CompatFull, v3, false},
		{sr.CompatForwardTransitive, `{"type":"record","name":"E","fields":[{"name":"a","type":"long"}]}`, false},
		{sr.CompatForward, `{"type":"record","name":"E","fields":[{"name":"a","type":"long"}]}`, true},
	} {
		if set := client.SetCompatibility(ctx, sr.SetCompatibility{Level: c.level}, "s"); set[0].Err != nil {
			t.Fatal(set[0].Err)
		}
		result, err := client.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), "s", -2, avro(c.text))
		if err != nil || result.Is != c.want || c.want == (len(result.Messages) > 0) {
			t.Errorf("%v: %+v %v, want %v", c.level, result, err, c.want)
		}
	}
	if global := client.Compatibility(ctx); global[0].Err != nil || global[0].Level != sr.CompatBackward {
		t.Errorf("%+v", global)
	}
	if reset := client.ResetCompatibility(ctx, "s"); reset[0].Err != nil {
		t.Errorf("%+v", reset)
	}
	if own := client.Compatibility(sr.WithParams(ctx, sr.DefaultToGlobal), "s"); own[0].Err != nil || own[0].Level != sr.CompatBackward {
		t.Errorf("%+v", own)
	}
	if result, err := client.CheckCompatibility(ctx, "s", 1, avro(v2)); err != nil || !result.Is {
		t.Errorf("%+v %v", result, err)
	}
}

func TestReferencesResolveAndProtectWhatTheyPointAt(t *testing.T) {
	ctx := context.Background()
	client, _, _ := start(t, "")
	if _, err := client.CreateSchema(ctx, "money", avro(`{"type":"fixed","name":"x.Money","size":8}`)); err != nil {
		t.Fatal(err)
	}
	using := sr.Schema{Schema: `{"type":"array","items":"x.Money"}`, References: []sr.SchemaReference{{Name: "x.Money", Subject: "money", Version: 1}}}
	if _, err := client.CreateSchema(ctx, "prices", using); err != nil {
		t.Fatal(err)
	}
	if got, err := client.SchemaByID(ctx, 2); err != nil || len(got.References) != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := client.DeleteSubject(ctx, "money", sr.SoftDelete); code(err) != 42206 {
		t.Fatalf("%v", err)
	}
}

func TestSchemasOutliveDeletionAndRestart(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	client, _, stop := start(t, dir)
	for _, text := range []string{v1, v2} {
		if _, err := client.CreateSchema(ctx, "s", avro(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.DeleteSchema(ctx, "s", 1, sr.SoftDelete); err != nil {
		t.Fatal(err)
	}
	if set := client.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatFull}, "s"); set[0].Err != nil {
		t.Fatal(set[0].Err)
	}
	stop()

	client, _, stop = start(t, dir)
	if versions, err := client.SubjectVersions(ctx, "s"); err != nil || !slices.Equal(versions, []int{2}) {
		t.Fatalf("%v %v", versions, err)
	}
	if own := client.Compatibility(ctx, "s"); own[0].Level != sr.CompatFull {
		t.Fatalf("%+v", own)
	}
	if _, err := client.DeleteSubject(ctx, "s", sr.SoftDelete); err != nil {
		t.Fatal(err)
	}
	if gone, err := client.DeleteSubject(ctx, "s", sr.HardDelete); err != nil || !slices.Equal(gone, []int{1, 2}) {
		t.Fatalf("%v %v", gone, err)
	}
	if names, err := client.Subjects(ctx); err != nil || len(names) != 0 {
		t.Fatalf("%v %v", names, err)
	}
	stop()

	client, _, _ = start(t, dir)
	if text, err := client.SchemaTextByID(ctx, 1); err != nil || text != v1 {
		t.Fatalf("an id is answered for ever: %q %v", text, err)
	}
	if next, err := client.CreateSchema(ctx, "t", avro(v3)); err != nil || next.ID != 3 {
		t.Fatalf("%+v %v", next, err)
	}
	if back, err := client.CreateSchema(ctx, "t2", avro(v2)); err != nil || back.ID != 2 {
		t.Fatalf("%+v %v", back, err)
	}
}

func TestAnAddressInUseIsSaidAtOnce(t *testing.T) {
	_, url, _ := start(t, "")
	if _, err := New(Config{Listen: strings.TrimPrefix(url, "http://")}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Fatalf("got %v", err)
	}
	if _, err := New(Config{Listen: "8081"}); err == nil || !strings.Contains(err.Error(), "127.0.0.1:8081") {
		t.Fatalf("got %v", err)
	}
}
