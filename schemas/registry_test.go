package schemas

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
)

func plainFront(next http.Handler) http.Handler { return next }

// real gives the registry that CHURNSTREAM_TEST_REGISTRY names, or an embedded one, and subjects that no other test has.
func real(t *testing.T) (url string, subject func(string) string) {
	t.Helper()
	if url = os.Getenv("CHURNSTREAM_TEST_REGISTRY"); url == "" {
		url = serve(t, plainFront)
	}
	run := rand.Text()[:8]
	return url, func(name string) string { return name + "-" + run }
}

// outage answers 503 while it is down, and counts requests by path.
type outage struct {
	down     atomic.Bool
	requests atomic.Int32
}

func (o *outage) front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.requests.Add(1)
		if o.down.Load() {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func TestSchemasThatReferToOthersAreReadWithThem(t *testing.T) {
	ctx := context.Background()
	url, subject := real(t)
	direct, err := sr.NewClient(sr.URLs(url))
	if err != nil {
		t.Fatal(err)
	}
	create := func(subject, text string, references ...sr.SchemaReference) sr.SubjectSchema {
		t.Helper()
		created, err := direct.CreateSchema(ctx, subject, sr.Schema{Schema: text, References: references})
		if err != nil {
			t.Fatal(err)
		}
		return created
	}
	create(subject("money"), `{"type":"record","name":"x.Money","fields":[{"name":"amount","type":"double"}]}`)
	money := sr.SchemaReference{Name: "x.Money", Subject: subject("money"), Version: 1}
	create(subject("plan"), `{"type":"record","name":"x.Plan","fields":[{"name":"fee","type":"x.Money"}]}`, money)
	plan := sr.SchemaReference{Name: "x.Plan", Subject: subject("plan"), Version: 1}
	// Money is referred to twice: by the event and by the plan, which uses it first.
	event := create(subject("event"), record(`{"name":"plan","type":"x.Plan"},{"name":"credit","type":["null","x.Money"]}`), plan, money)

	registry := connect(t, unchanged, url)
	decoder, err := NewDecoder(DecoderConfig{Contract: Contract{[]Input{
		{Name: "fee", Path: "plan.fee.amount", Kind: Number},
		{Name: "credit", Path: "credit.amount", Kind: Number, Nullable: true},
	}}, Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	body := appendDouble(append(appendDouble(AppendFrame(nil, int32(event.ID)), 9.5), 2), -3)
	rows := NewRows(2, 1)
	if err := decoder.Decode(ctx, body, rows); err != nil || rows.Numbers[0] != 9.5 || rows.Numbers[1] != -3 {
		t.Fatalf("%v %v", rows.Numbers, err)
	}
	if latest, id, err := registry.Latest(ctx, subject("event")); err != nil || id != int32(event.ID) || len(latest.References) != 2 {
		t.Errorf("latest: %d %+v %v", id, latest, err)
	}
	if _, err := registry.SchemaByID(ctx, 1<<30); !errors.Is(err, ErrSchemaNotFound) {
		t.Errorf("an id that is not there: %v", err)
	}
	fingerprint, err := Schema{Text: record(`{"name":"x","type":"int"}`)}.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Register(ctx, subject("plain"), record(`{"name":"x","type":"int"}`)); err != nil {
		t.Fatal(err)
	}
	if found, err := registry.SchemaByFingerprint(ctx, subject("plain"), fingerprint); err != nil || !strings.Contains(found.Text, `"x"`) {
		t.Errorf("by fingerprint: %+v %v", found, err)
	}
	if _, _, err := registry.Latest(ctx, subject("nobody")); !errors.Is(err, ErrSchemaNotFound) {
		t.Errorf("a subject that is not there: %v", err)
	}
}

func TestReferencesThatLeadNowhereAreNoOutage(t *testing.T) {
	for name, answers := range map[string]map[string]string{
		"circle": {
			"/schemas/ids/5":       `{"schema":"\"x.A\"","references":[{"name":"x.A","subject":"a","version":1}]}`,
			"/subjects/a/versions": `{"schema":"\"x.B\"","references":[{"name":"x.B","subject":"a","version":1}]}`,
		},
		"not there": {"/schemas/ids/5": `{"schema":"\"x.A\"","references":[{"name":"x.A","subject":"a","version":1}]}`},
		"not Avro": {
			"/schemas/ids/5":       `{"schema":"\"x.A\"","references":[{"name":"x.A","subject":"a","version":1}]}`,
			"/subjects/a/versions": `{"schema":"{}","schemaType":"JSON"}`,
		},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer, known := answers[strings.TrimSuffix(r.URL.Path, "/1")]
			if !known {
				w.WriteHeader(http.StatusNotFound)
				answer = `{"error_code":40402,"message":"Version 1 not found."}`
			}
			fmt.Fprint(w, answer)
		}))
		if _, err := connect(t, unchanged, server.URL).SchemaByID(context.Background(), 5); !errors.Is(err, ErrSchemaUnsupported) || !strings.Contains(err.Error(), "refers to a version 1") {
			t.Errorf("%s: %v", name, err)
		}
		server.Close()
	}
}

func TestAReferenceThatComesBackMakesItsSchemaUsableAgain(t *testing.T) {
	var there atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/schemas/ids/5":
			fmt.Fprint(w, `{"schema":"{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"a\",\"type\":\"x.A\"}]}","references":[{"name":"x.A","subject":"a","version":1}]}`)
		case there.Load():
			fmt.Fprint(w, `{"subject":"a","version":1,"id":4,"schema":"{\"type\":\"enum\",\"name\":\"x.A\",\"symbols\":[\"p\",\"q\"]}"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error_code":40402,"message":"Version 1 not found."}`)
		}
	}))
	defer server.Close()
	registry := connect(t, func(c *RegistryConfig) { c.UnknownFor = 0 }, server.URL)
	decoder, err := NewDecoder(DecoderConfig{Contract: Contract{[]Input{{Name: "a", Kind: Category}}}, Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	rows := NewRows(1, 1)
	event := AppendFrame(nil, 5)
	event = append(event, 2) // symbol q
	var bad *RecordError
	if err := decoder.Decode(t.Context(), event, rows); !errors.As(err, &bad) || bad.Class != SchemaMismatch || !strings.Contains(err.Error(), "refers to a version 1, which is not there") {
		t.Fatalf("while the reference is not there: %v", err)
	}
	there.Store(true)
	if err := decoder.Decode(t.Context(), event, rows); err != nil {
		t.Errorf("once it is: %v", err)
	}
}

func TestAnswersOnDiskServeWhileTheRegistryIsDown(t *testing.T) {
	ctx := context.Background()
	var front outage
	url := serve(t, front.front)
	dir := t.TempDir()
	cached := func(c *RegistryConfig) { c.CacheDir, c.RetryFor = dir, 0 }
	first := connect(t, cached, url)
	id, err := first.Register(ctx, "s-value", ScoreSchema())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.SchemaByID(ctx, id); err != nil {
		t.Fatal(err)
	}
	fingerprint, err := Schema{Text: ScoreSchema()}.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.SchemaByFingerprint(ctx, "s-value", fingerprint); err != nil {
		t.Fatal(err)
	}

	front.down.Store(true)
	restarted := connect(t, cached, url)
	if again, err := restarted.Register(ctx, "s-value", ScoreSchema()); err != nil || again != id {
		t.Errorf("register while down: %d %v, want %d", again, err, id)
	}
	if got, err := restarted.SchemaByID(ctx, id); err != nil || got.Text != ScoreSchema() {
		t.Errorf("by id while down: %v", err)
	}
	if got, err := restarted.SchemaByFingerprint(ctx, "s-value", fingerprint); err != nil || got.Text != ScoreSchema() {
		t.Errorf("by fingerprint while down: %v", err)
	}
	for name, ask := range map[string]func() error{
		"another subject": func() error { _, err := restarted.Register(ctx, "t-value", ScoreSchema()); return err },
		"another schema":  func() error { _, err := restarted.Register(ctx, "s-value", DriftStateSchema()); return err },
		"another id":      func() error { _, err := restarted.SchemaByID(ctx, id+1); return err },
		"without a cache": func() error {
			_, err := connect(t, func(c *RegistryConfig) { c.RetryFor = 0 }, url).SchemaByID(ctx, id)
			return err
		},
		"another registry": func() error {
			_, err := connect(t, cached, url+"/other").SchemaByID(ctx, id)
			return err
		},
	} {
		if err := ask(); err == nil || errors.Is(err, ErrSchemaNotFound) {
			t.Errorf("%s while down: %v", name, err)
		}
	}

	// What is damaged counts as missing.
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(strings.Replace(string(raw), "churn.v1", "churn.v2", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := connect(t, cached, url).SchemaByID(ctx, id); err == nil {
		t.Error("a damaged file was believed")
	}
	front.down.Store(false)
	if got, err := connect(t, cached, url).SchemaByID(ctx, id); err != nil || got.Text != ScoreSchema() {
		t.Errorf("the registry is back: %v", err)
	}
	front.down.Store(true)
	if _, err := connect(t, cached, url).SchemaByID(ctx, id); err != nil {
		t.Errorf("the damaged file was not replaced: %v", err)
	}
	if _, err := NewRegistry(RegistryConfig{URLs: []string{url}, RequestTimeout: time.Second, UnknownLimit: 1, CacheDir: filepath.Join(files[0], "below")}); err == nil || !strings.Contains(err.Error(), "registry.cache_dir") {
		t.Errorf("a directory that cannot be: %v", err)
	}
}

// A registry that was set up anew gives its ids to other schemas: while it answers, it alone is believed.
func TestTheDiskIsNotBelievedWhileTheRegistryAnswers(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	text := `{"schema":"\"int\""}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }))
	defer server.Close()
	cached := func(c *RegistryConfig) { c.CacheDir = dir }
	if _, err := connect(t, cached, server.URL).SchemaByID(ctx, 1); err != nil {
		t.Fatal(err)
	}
	text = `{"schema":"\"long\""}`
	if got, err := connect(t, cached, server.URL).SchemaByID(ctx, 1); err != nil || got.Text != `"long"` {
		t.Errorf("%+v %v", got, err)
	}
}

func TestSchemasAreFoundByFingerprint(t *testing.T) {
	ctx := context.Background()
	var front outage
	url := serve(t, front.front)
	registry := connect(t, func(c *RegistryConfig) { c.UnknownFor = time.Hour }, url)
	contract := Contract{[]Input{{Name: "x", Kind: Number}}}
	decoder, err := NewDecoder(DecoderConfig{Contract: contract, Framing: SingleObject, Subject: "e-value", Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	versions := []string{
		record(`{"name":"x","type":"int"}`),
		record(`{"name":"y","type":"string","default":""},{"name":"x","type":"long"}`),
	}
	bodies := [][]byte{{10}, {2, 'a', 12}}
	values := make([][]byte, len(versions))
	for i, v := range versions {
		if _, err := registry.Register(ctx, "e-value", v); err != nil {
			t.Fatal(err)
		}
		fingerprint, err := Schema{Text: v}.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		values[i] = append(AppendObjectFrame(nil, fingerprint), bodies[i]...)
	}
	rows := NewRows(1, 2)
	for i, v := range values {
		if err := decoder.Decode(ctx, v, rows); err != nil || rows.Numbers[i] != float64(5+i) {
			t.Fatalf("version %d: %v %v", i, rows.Numbers, err)
		}
	}
	before := front.requests.Load()
	for range 3 {
		checkRecordError(t, decoder.Decode(ctx, AppendObjectFrame(nil, 1), rows), UnknownSchema, "", "0000000000000001")
	}
	if n := front.requests.Load() - before; n != 1 { // the list of versions; their schemas are known
		t.Errorf("%d requests for one unknown fingerprint", n)
	}
	front.down.Store(true)
	var bad *RecordError
	quick := connect(t, func(c *RegistryConfig) { c.RetryFor = 0 }, url)
	if _, err := quick.SchemaByFingerprint(ctx, "e-value", 2); err == nil || errors.As(err, &bad) || errors.Is(err, ErrSchemaNotFound) {
		t.Errorf("an outage: %v", err)
	}
}

func TestAVersionThatIsGoneOrNotAvroDoesNotHideTheOthers(t *testing.T) {
	answers := map[string]string{
		"/subjects/e/versions":   `[1,2,3,4]`,
		"/subjects/e/versions/1": `{"schema":"\"int\""}`,
		"/subjects/e/versions/2": `{"schema":"{}","schemaType":"JSON"}`,
		"/subjects/e/versions/3": `{"schema":"no schema"}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, known := answers[r.URL.Path]
		if !known {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"error_code":40402,"message":"Version not found."}`
		}
		fmt.Fprint(w, answer)
	}))
	defer server.Close()
	fingerprint, err := Schema{Text: `"int"`}.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := connect(t, unchanged, server.URL).SchemaByFingerprint(context.Background(), "e", fingerprint); err != nil || got.Text != `"int"` {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := connect(t, unchanged, server.URL).SchemaByFingerprint(context.Background(), "nobody", fingerprint); err == nil || errors.Is(err, ErrSchemaNotFound) {
		t.Errorf("an answer that is not documented for a list: %v", err)
	}
}

func TestSubjectsFollowTheStrategy(t *testing.T) {
	for _, c := range []struct{ strategy, schema, want string }{
		{"topic", ScoreSchema(), "scores-value"},
		{"record", ScoreSchema(), "churn.v1.Score"},
		{"topic-record", ScoreSchema(), "scores-churn.v1.Score"},
		{"topic", `"int"`, "scores-value"},
		{"record", `"int"`, ""},
		{"record", `{`, ""},
	} {
		var s SubjectStrategy
		if err := s.UnmarshalText([]byte(c.strategy)); err != nil || s.String() != c.strategy {
			t.Errorf("%s is read as %s: %v", c.strategy, s, err)
		}
		if got, err := s.Subject("scores", c.schema); got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s of %.20s: %q %v, want %q", c.strategy, c.schema, got, err, c.want)
		}
	}
	if err := new(SubjectStrategy).UnmarshalText([]byte("x")); err == nil {
		t.Error("an unknown strategy is accepted")
	}
}

func TestATokenIsReadForEachRequest(t *testing.T) {
	ctx := context.Background()
	url := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer second" {
				http.Error(w, `{"error_code":401,"message":"Unauthorized"}`, http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	token := "first"
	registry := connect(t, func(c *RegistryConfig) { c.Token, c.RetryFor = func() (string, error) { return token, nil }, 0 }, url)
	if _, err := registry.Register(ctx, "s", ScoreSchema()); err == nil || !strings.Contains(err.Error(), "Unauthorized") || strings.Contains(err.Error(), "first") {
		t.Errorf("the old token: %v", err)
	}
	token = "second"
	if _, err := registry.Register(ctx, "s", ScoreSchema()); err != nil {
		t.Errorf("the new token: %v", err)
	}
	unreadable := connect(t, func(c *RegistryConfig) {
		c.Token, c.RetryFor = func() (string, error) { return "", errors.New("token file is gone") }, 0
	}, url)
	if _, err := unreadable.SchemaByID(ctx, 1); err == nil || !strings.Contains(err.Error(), "token file is gone") || errors.Is(err, ErrSchemaNotFound) {
		t.Errorf("no token: %v", err)
	}
}

func TestAClientCertificateIsShown(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "worker"}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	own, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(own)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"schema":"\"int\""}`) }))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	server.Config.ErrorLog = nil
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	with := func(certificates ...tls.Certificate) error {
		registry := connect(t, func(c *RegistryConfig) {
			c.TLS, c.RetryFor = &tls.Config{RootCAs: roots, Certificates: certificates}, 0
		}, server.URL)
		_, err := registry.SchemaByID(context.Background(), 1)
		return err
	}
	if err := with(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	if err := with(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without: %v", err)
	}
}

func TestARefusalCarriesWhatTheRegistrySaysWhenItIsAskedWhy(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/compatibility/") && r.FormValue("verbose") == "true" {
			fmt.Fprint(w, `{"is_compatible":false,"messages":["READER_FIELD_MISSING_DEFAULT_VALUE at /fields/0"]}`)
			return
		}
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"error_code":409,"message":"Incompatible schema"}`)
	}))
	defer server.Close()
	_, err := connect(t, unchanged, server.URL).Register(context.Background(), "s", ScoreSchema())
	if !errors.Is(err, ErrIncompatible) || !strings.Contains(err.Error(), "READER_FIELD_MISSING_DEFAULT_VALUE at /fields/0") {
		t.Error(err)
	}
}
