package schemas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
)

// RegistryConfig says how to reach a schema registry with the Confluent API.
type RegistryConfig struct {
	URLs     []string `yaml:"urls" json:"urls"` // tried in turn
	Username string   `yaml:"username" json:"username"`
	Password string   `yaml:"-" json:"-"`
	// RequestTimeout bounds one request.
	RequestTimeout time.Duration `yaml:"request_timeout" json:"request_timeout"`
	// RetryFor bounds how long one call keeps trying while the registry is down; the caller's context may end it before.
	RetryFor time.Duration `yaml:"retry_for" json:"retry_for"`
	// UnknownFor is how long an id that the registry did not know is not asked for again.
	UnknownFor time.Duration `yaml:"unknown_for" json:"unknown_for"`
	// UnknownLimit is how many such ids are remembered.
	UnknownLimit int `yaml:"unknown_limit" json:"unknown_limit"`
}

// DefaultRegistryConfig is a registry on this machine.
func DefaultRegistryConfig() RegistryConfig {
	return RegistryConfig{
		URLs:           []string{"http://127.0.0.1:8081"},
		RequestTimeout: 5 * time.Second,
		RetryFor:       10 * time.Second,
		UnknownFor:     10 * time.Second,
		UnknownLimit:   1024,
	}
}

// Validate reports every fault of the configuration at once.
func (c RegistryConfig) Validate() error {
	var faults []error
	if len(c.URLs) == 0 {
		faults = append(faults, errors.New(`registry.urls: is empty; e.g. ["http://127.0.0.1:8081"]`))
	}
	for i, text := range c.URLs {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			faults = append(faults, fmt.Errorf("registry.urls[%d]: %q is not a URL with http or https; e.g. http://127.0.0.1:8081", i, text))
		} else if u.User != nil {
			faults = append(faults, fmt.Errorf("registry.urls[%d]: holds a login; move it to registry.username and registry.password_file", i))
		}
	}
	if c.Username == "" && c.Password != "" {
		faults = append(faults, errors.New("registry.username: is empty though there is a password; e.g. churnstream"))
	}
	for _, d := range []struct {
		key   string
		value time.Duration
		least time.Duration
	}{
		{"request_timeout", c.RequestTimeout, time.Millisecond},
		{"retry_for", c.RetryFor, 0},
		{"unknown_for", c.UnknownFor, 0},
	} {
		if d.value < d.least {
			faults = append(faults, fmt.Errorf("registry.%s: %v is too short; e.g. 5s", d.key, d.value))
		}
	}
	if c.UnknownLimit < 1 {
		faults = append(faults, fmt.Errorf("registry.unknown_limit: %d is less than 1; e.g. 1024", c.UnknownLimit))
	}
	return errors.Join(faults...)
}

// HTTPRegistry is a [Registry] behind the Confluent API. A schema is asked for once and kept; while the request is in
// flight others wait for its answer. It is safe for concurrent use and starts no goroutines of its own.
type HTTPRegistry struct {
	cfg    RegistryConfig
	client *sr.Client
	http   *http.Client

	mu       sync.Mutex
	schemas  map[int32]string
	refused  map[int32]error // schemas that cannot be used, which does not change
	unknown  map[int32]time.Time
	inFlight map[int32]*flight
}

// flight is one request for a schema that others wait for. The results are set before done is closed.
type flight struct {
	done     chan struct{}
	text     string
	err      error
	canceled bool // by the asking caller, which says nothing about the registry
}

// maxRegistryAnswer bounds the bytes read of one answer.
const maxRegistryAnswer = 16 << 20

// maxCachedSchemas bounds the schemas kept; a registry gives each version an id and few are in use.
const maxCachedSchemas = 4096

// NewRegistry returns a client of the registry; it makes no request yet.
func NewRegistry(cfg RegistryConfig) (*HTTPRegistry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("schema registry: %w", err)
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: cfg.RequestTimeout}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   2,
		IdleConnTimeout:       time.Minute,
		TLSHandshakeTimeout:   cfg.RequestTimeout,
		ResponseHeaderTimeout: cfg.RequestTimeout,
	}
	client := &http.Client{Transport: boundedAnswers{transport}, Timeout: cfg.RequestTimeout}
	opts := []sr.ClientOpt{sr.URLs(cfg.URLs...), sr.HTTPClient(client), sr.UserAgent("churnstream")}
	if cfg.Username != "" {
		opts = append(opts, sr.BasicAuth(cfg.Username, cfg.Password))
	}
	registry, err := sr.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("schema registry: %w", err)
	}
	return &HTTPRegistry{
		cfg: cfg, client: registry, http: client,
		schemas: make(map[int32]string), refused: make(map[int32]error),
		unknown: make(map[int32]time.Time), inFlight: make(map[int32]*flight),
	}, nil
}

// Close lets go of idle connections.
func (r *HTTPRegistry) Close() { r.http.CloseIdleConnections() }

// boundedAnswers cuts an answer off, and makes a server's failure a failure of the request, so that the client goes on
// to the next URL.
type boundedAnswers struct{ next *http.Transport }

func (b boundedAnswers) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusInternalServerError || resp.StatusCode == http.StatusTooManyRequests {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // only for the message
		resp.Body.Close()
		return nil, fmt.Errorf("the registry answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxRegistryAnswer), resp.Body}
	return resp, nil
}

// CloseIdleConnections is called by http.Client.
func (b boundedAnswers) CloseIdleConnections() { b.next.CloseIdleConnections() }

// SchemaByID returns the text of an Avro schema. It wraps [ErrSchemaNotFound] where the registry answered that there is
// no such id, [ErrSchemaUnsupported] where the schema is no self-contained Avro schema, and anything else is an outage
// that lasted for RetryFor or until ctx ended.
func (r *HTTPRegistry) SchemaByID(ctx context.Context, id int32) (string, error) {
	for {
		r.mu.Lock()
		if text, ok := r.schemas[id]; ok {
			r.mu.Unlock()
			return text, nil
		}
		if err, ok := r.refused[id]; ok {
			r.mu.Unlock()
			return "", err
		}
		if until, ok := r.unknown[id]; ok {
			if time.Now().Before(until) {
				r.mu.Unlock()
				return "", notFound(id)
			}
			delete(r.unknown, id)
		}
		f := r.inFlight[id]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			r.inFlight[id] = f
			r.mu.Unlock()
			r.fetch(ctx, id, f)
			return f.text, f.err
		}
		r.mu.Unlock()
		select {
		case <-f.done:
			if !f.canceled {
				return f.text, f.err
			}
		case <-ctx.Done():
			return "", fmt.Errorf("schema registry: waiting for schema %d: %w", id, ctx.Err())
		}
	}
}

func notFound(id int32) error {
	return fmt.Errorf("schema registry: schema %d: %w", id, ErrSchemaNotFound)
}

// fetch asks for an id, keeps the answer and ends the flight.
func (r *HTTPRegistry) fetch(ctx context.Context, id int32, f *flight) {
	var schema sr.Schema
	err := r.retry(ctx, func(ctx context.Context) (err error) {
		schema, err = r.client.SchemaByID(ctx, int(id))
		return err
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	f.text, f.err = r.keepLocked(id, schema, err)
	f.canceled = ctx.Err() != nil
	delete(r.inFlight, id)
	close(f.done)
}

func (r *HTTPRegistry) keepLocked(id int32, schema sr.Schema, err error) (string, error) {
	var answer *sr.ResponseError
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound && answer.ErrorCode == sr.ErrSchemaNotFound.Code:
		if len(r.unknown) >= r.cfg.UnknownLimit {
			clear(r.unknown) // costs some requests; a flood of made-up ids must not cost memory
		}
		r.unknown[id] = time.Now().Add(r.cfg.UnknownFor)
		return "", notFound(id)
	case err != nil:
		return "", fmt.Errorf("schema registry %s: schema %d: %w", r.cfg.URLs[0], id, err)
	case schema.Type != sr.TypeAvro:
		return "", r.refuseLocked(id, fmt.Errorf("schema registry: schema %d is %s, not Avro: %w", id, schema.Type, ErrSchemaUnsupported))
	case len(schema.References) > 0:
		return "", r.refuseLocked(id, fmt.Errorf("schema registry: schema %d refers to %s; register it as one text: %w", id, schema.References[0].Subject, ErrSchemaUnsupported))
	}
	if len(r.schemas) >= maxCachedSchemas {
		clear(r.schemas)
	}
	r.schemas[id] = schema.Schema
	return schema.Schema, nil
}

func (r *HTTPRegistry) refuseLocked(id int32, err error) error {
	if len(r.refused) >= maxCachedSchemas {
		clear(r.refused)
	}
	r.refused[id] = err
	return err
}

// Register publishes an Avro schema under subject and returns its id. Registering the same schema again changes nothing.
// A registry that refuses it, for example as incompatible with an earlier version, is quoted in the error.
func (r *HTTPRegistry) Register(ctx context.Context, subject, schema string) (int32, error) {
	var id int
	err := r.retry(ctx, func(ctx context.Context) (err error) {
		id, err = r.client.RegisterSchema(ctx, subject, sr.Schema{Schema: schema, Type: sr.TypeAvro}, -1, -1)
		return err
	})
	if err != nil {
		var answer *sr.ResponseError
		switch answered := errors.As(err, &answer); {
		case !answered:
			return 0, fmt.Errorf("register %s: %w: %w", subject, ErrRegistryDown, err)
		case answer.StatusCode == http.StatusConflict:
			return 0, fmt.Errorf("schema registry: subject %s: %w: %w", subject, ErrIncompatible, err)
		}
		return 0, fmt.Errorf("schema registry %s: register %s: %w", r.cfg.URLs[0], subject, err)
	}
	if id <= 0 || id != int(int32(id)) {
		return 0, fmt.Errorf("schema registry %s: register %s: the answer has no schema id", r.cfg.URLs[0], subject)
	}
	return int32(id), nil
}

// retry repeats call while the registry cannot be reached or fails, with growing, random pauses.
func (r *HTTPRegistry) retry(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, max(r.cfg.RetryFor, r.cfg.RequestTimeout))
	defer cancel()
	deadline := time.Now().Add(r.cfg.RetryFor)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := call(ctx)
		var answer *sr.ResponseError
		if err == nil || errors.As(err, &answer) {
			return err // what the registry answers it will answer again; its failures have become other errors
		}
		wait := pause/2 + rand.N(pause)
		if time.Now().Add(wait).After(deadline) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}
