package schemas

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/churnstream/churnstream/internal/devregistry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts an embedded registry, with front before it.
func serve(t *testing.T, front func(http.Handler) http.Handler) string {
	t.Helper()
	registry, err := devregistry.New(devregistry.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { registry.Close() })
	server := httptest.NewServer(front(registry.Handler()))
	t.Cleanup(server.Close)
	return server.URL
}

func connect(t *testing.T, change func(*RegistryConfig), urls ...string) *HTTPRegistry {
	t.Helper()
	cfg := DefaultRegistryConfig()
	cfg.URLs = urls
	change(&cfg)
	registry, err := NewRegistry(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registry.Close)
	return registry
}

func unchanged(*RegistryConfig) {}

func TestPublishedSchemasAreRegisteredOnceAndReadBack(t *testing.T) {
	ctx := context.Background()
	var requests atomic.Int32
	url := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, password, ok := r.BasicAuth(); !ok || user != "worker" || password != "secret" {
				http.Error(w, `{"error_code":401,"message":"Unauthorized"}`, http.StatusUnauthorized)
				return
			}
			if strings.HasPrefix(r.URL.Path, "/schemas/ids/") {
				requests.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	})
	login := func(c *RegistryConfig) { c.Username, c.Password = "worker", known("secret") }
	registry := connect(t, login, url)
	for name, text := range published() {
		id, err := registry.Register(ctx, Subject(name), text)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := registry.Register(ctx, Subject(name), text); err != nil || again != id {
			t.Fatalf("again: %d %v, first %d", again, err, id)
		}
		var group sync.WaitGroup
		requests.Store(0)
		for range 8 {
			group.Go(func() {
				if got, err := registry.SchemaByID(ctx, id); err != nil || got.Text != text {
					t.Errorf("%q %v", got, err)
				}
			})
		}
		group.Wait()
		if n := requests.Load(); n != 1 {
			t.Errorf("%d requests for one id", n)
		}
	}
	_, err := connect(t, func(c *RegistryConfig) { c.Username, c.Password = "worker", known("wrong") }, url).Register(ctx, "s", ScoreSchema())
	if err == nil || !strings.Contains(err.Error(), "Unauthorized") || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong password: %v", err)
	}
}

func TestIncompatibleSchemaIsRefusedWithTheRegistrysWords(t *testing.T) {
	ctx := context.Background()
	url := serve(t, func(next http.Handler) http.Handler { return next })
	registry := connect(t, unchanged, url)
	if _, err := registry.Register(ctx, "s-value", record(`{"name":"a","type":"int"}`)); err != nil {
		t.Fatal(err)
	}
	_, err := registry.Register(ctx, "s-value", record(`{"name":"b","type":"int"}`))
	for _, want := range []string{"s-value", "incompatible with an earlier schema for subject", `field "b" has no default`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestUnknownIDIsRememberedForAWhileAndWithinItsLimit(t *testing.T) {
	ctx := context.Background()
	var requests atomic.Int32
	url := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			next.ServeHTTP(w, r)
		})
	})
	registry := connect(t, func(c *RegistryConfig) { c.UnknownLimit = 3 }, url)
	for range 5 {
		if _, err := registry.SchemaByID(ctx, 41); !errors.Is(err, ErrSchemaNotFound) {
			t.Fatal(err)
		}
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests for one unknown id", n)
	}
	for id := range int32(20) {
		if _, err := registry.SchemaByID(ctx, 100+id); !errors.Is(err, ErrSchemaNotFound) {
			t.Fatal(err)
		}
	}
	if n := len(registry.refused); n > 3 {
		t.Errorf("%d unknown ids are kept", n)
	}
	forgetful := connect(t, func(c *RegistryConfig) { c.UnknownFor = 0 }, url)
	if _, err := forgetful.SchemaByID(ctx, 1); !errors.Is(err, ErrSchemaNotFound) {
		t.Fatal(err)
	}
	if _, err := registry.Register(ctx, "s", ScoreSchema()); err != nil {
		t.Fatal(err)
	}
	if text, err := forgetful.SchemaByID(ctx, 1); err != nil || text.Text != ScoreSchema() {
		t.Errorf("an id that came to be known: %v", err)
	}
}

func TestOnlyTheDocumentedCodeMeansUnknown(t *testing.T) {
	for _, c := range []struct {
		status  int
		body    string
		unknown bool
	}{
		{404, `{"error_code":40403,"message":"Schema 5 not found"}`, true},
		{404, `{"error_code":404,"message":"HTTP 404 Not Found"}`, false},
		{404, `<html>no such host</html>`, false},
		{404, `{"error_code":40401,"message":"Subject not found"}`, false},
		{403, `{"error_code":40403,"message":"Forbidden"}`, false},
		{200, `not json`, false},
		{200, `{}`, false},
		{200, `null`, false},
		{500, `{"error_code":40403,"message":"broken"}`, false},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		}))
		registry := connect(t, func(c *RegistryConfig) { c.RetryFor = 0 }, server.URL)
		_, err := registry.SchemaByID(context.Background(), 5)
		if err == nil || errors.Is(err, ErrSchemaNotFound) != c.unknown || errors.Is(err, ErrSchemaUnsupported) {
			t.Errorf("%d %s: %v", c.status, c.body, err)
		}
		registry.Close()
		server.Close()
	}
}

func TestSchemasThatEventsCannotBeReadWithAreNoOutage(t *testing.T) {
	for _, body := range []string{
		`{"schema":"syntax = \"proto3\";","schemaType":"PROTOBUF"}`,
		`{"schema":"\"x.M\"","references":[{"name":"x.M","subject":"money","version":1}]}`,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }))
		decoder, err := NewDecoder(DecoderConfig{Contract: Contract{[]Input{{Name: "x", Kind: Number}}}, Registry: connect(t, unchanged, server.URL)})
		if err != nil {
			t.Fatal(err)
		}
		checkRecordError(t, decoder.Decode(context.Background(), AppendFrame(nil, 5), NewRows(1, 1)), SchemaMismatch, "", "schema id 5")
		server.Close()
	}
}

func TestAFailingRegistryIsAskedAgainAndTheNextURLTried(t *testing.T) {
	ctx := context.Background()
	var calls atomic.Int32
	url := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) < 3 {
				http.Error(w, "starting", http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	if _, err := connect(t, unchanged, url).Register(ctx, "s", ScoreSchema()); err != nil || calls.Load() != 3 {
		t.Fatalf("%v after %d calls", err, calls.Load())
	}
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	if text, err := connect(t, func(c *RegistryConfig) { c.RetryFor = 0 }, down.URL, url).SchemaByID(ctx, 1); err != nil || text.Text != ScoreSchema() {
		t.Fatalf("second URL: %v", err)
	}
}

func TestAnOutageEndsWithTheCallersContext(t *testing.T) {
	hanging := make(chan struct{})
	var arrived sync.Once
	asked := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived.Do(func() { close(asked) })
		select {
		case <-hanging:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hanging)
	registry := connect(t, func(c *RegistryConfig) { c.RequestTimeout, c.RetryFor = time.Minute, time.Minute }, server.URL)
	first, cancelFirst := context.WithCancel(context.Background())
	second, cancelSecond := context.WithCancel(context.Background())
	defer cancelSecond()
	results := make(chan error, 2)
	ask := func(ctx context.Context) {
		_, err := registry.SchemaByID(ctx, 1)
		results <- err
	}
	go ask(first)
	<-asked
	go ask(second)
	cancelSecond()
	if err := <-results; !errors.Is(err, context.Canceled) || errors.Is(err, ErrSchemaNotFound) {
		t.Errorf("the one that waits: %v", err)
	}
	cancelFirst()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that asks: %v", err)
	}
}

// onWait calls waited whenever somebody is about to wait for the context.
type onWait struct {
	context.Context
	waited func()
}

func (c onWait) Done() <-chan struct{} {
	c.waited()
	return c.Context.Done()
}

func TestThoseWhoWaitShareAFailureButNotACancellation(t *testing.T) {
	release := make(chan struct{})
	asked := make(chan struct{}, 8)
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := calls.Add(1)
		asked <- struct{}{}
		switch call {
		case 1: // the asker gives up
			<-r.Context().Done()
		case 2:
			<-release
			http.Error(w, "broken", http.StatusInternalServerError)
		default:
			fmt.Fprint(w, `{"schema":"\"int\""}`)
		}
	}))
	defer server.Close()
	registry := connect(t, func(c *RegistryConfig) { c.RetryFor = 0 }, server.URL)
	first, cancel := context.WithCancel(context.Background())
	results := make(chan error, 3)
	ask := func(ctx context.Context) {
		_, err := registry.SchemaByID(ctx, 1)
		results <- err
	}
	go ask(first)
	<-asked
	cancel()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}

	// A flight of another caller, which is cancelled at the moment that it is waited for.
	canceled := &flight{done: make(chan struct{}), err: context.Canceled, canceled: true}
	registry.inFlight[schemaKey{id: 1}] = canceled
	var once sync.Once
	go ask(onWait{context.Background(), func() {
		once.Do(func() {
			registry.mu.Lock()
			delete(registry.inFlight, schemaKey{id: 1})
			registry.mu.Unlock()
			close(canceled.done)
		})
	}})
	select {
	case <-asked:
	case err := <-results:
		t.Fatalf("the one that waited took the cancellation of another: %v", err)
	}

	shared := &flight{done: make(chan struct{}), err: errors.New("shared failure")}
	registry.mu.Lock()
	registry.inFlight[schemaKey{id: 2}] = shared
	registry.mu.Unlock()
	close(shared.done)
	if _, err := registry.SchemaByID(context.Background(), 2); !errors.Is(err, shared.err) {
		t.Errorf("the failure of the one in flight: %v", err)
	}
	close(release)
	if err := <-results; err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("after a cancelled flight: %v", err)
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
}

func TestRegistryConfigurationFaultsAreAllNamed(t *testing.T) {
	err := RegistryConfig{URLs: []string{"localhost:8081", "http://user:pw@host"}, Password: known("x"), RequestTimeout: 0, RetryFor: -1}.Validate()
	for _, want := range []string{"registry.urls[0]", "registry.urls[1]", "registry.username", "registry.request_timeout", "registry.retry_for", "registry.unknown_limit"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in %v", want, err)
		}
	}
	if err := DefaultRegistryConfig().Validate(); err != nil {
		t.Error(err)
	}
	if err := (RegistryConfig{}).Validate(); err == nil || !strings.Contains(err.Error(), "registry.urls: is empty") {
		t.Error(err)
	}
}

func known(password string) func() (string, error) {
	return func() (string, error) { return password, nil }
}
