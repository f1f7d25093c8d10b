package schemas

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
)

// RegistryConfig says how to reach a schema registry with the Confluent API.
type RegistryConfig struct {
	URLs     []string `yaml:"urls" json:"urls"` // tried in turn
	Username string   `yaml:"username" json:"username"`
	// Password gives the password of Username for a request, each time, so that one that is renewed in its file is used.
	Password func() (string, error) `yaml:"-" json:"-"`
	// Token gives the bearer token of a request, each time, so that a token that is renewed in its file is used. Nil: none.
	Token func() (string, error) `yaml:"-" json:"-"`
	// TLS is for https URLs: roots, a client certificate, a server name. Nil: the system's roots.
	TLS *tls.Config `yaml:"-" json:"-"`
	// CacheDir keeps what the registry answered, for a start while it is down. Empty: nothing is kept.
	CacheDir string `yaml:"cache_dir" json:"cache_dir"`
	// RequestTimeout bounds one request.
	RequestTimeout time.Duration `yaml:"request_timeout" json:"request_timeout"`
	// RetryFor bounds how long one call keeps trying while the registry is down; the caller's context may end it before.
	RetryFor time.Duration `yaml:"retry_for" json:"retry_for"`
	// UnknownFor is how long an id is not asked for again that the registry did not know, or whose schema was of no use.
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
	if c.Username == "" && c.Password != nil {
		faults = append(faults, errors.New("registry.username: is empty though there is a password; e.g. churnstream"))
	}
	if c.Username != "" && c.Password == nil {
		faults = append(faults, errors.New("registry.password_file: is empty though there is a username; name the file of the password"))
	}
	if c.Username != "" && c.Token != nil {
		faults = append(faults, errors.New("registry.token_file: is given beside registry.username; a request carries one login, remove the other"))
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

// HTTPRegistry is a [FingerprintRegistry] behind the Confluent API. A schema is asked for once and kept; while the
// request is in flight others wait for its answer. It is safe for concurrent use and starts no goroutines of its own.
type HTTPRegistry struct {
	cfg    RegistryConfig
	client *sr.Client
	http   *http.Client
	disk   *diskCache // nil: none

	mu       sync.Mutex
	schemas  map[schemaKey]Schema
	refused  map[schemaKey]refusal
	inFlight map[schemaKey]*flight
	read     map[subjectVersion]bool // versions whose schema is kept under its fingerprint
}

// schemaKey is what a schema is asked for by: its id, or its subject and fingerprint.
type schemaKey struct {
	id          int32
	subject     string
	fingerprint uint64
}

func (k schemaKey) String() string {
	if k.subject == "" {
		return fmt.Sprintf("schema %d", k.id)
	}
	return fmt.Sprintf("subject %s, fingerprint %016x", k.subject, k.fingerprint)
}

// refusal is an answer that may change: an id that is not known, or a schema that cannot be used, for example because
// what it refers to was deleted.
type refusal struct {
	err   error
	until time.Time // then it is asked for again
}

type subjectVersion struct {
	subject string
	version int
}

// flight is one request for a schema that others wait for. The results are set before done is closed.
type flight struct {
	done     chan struct{}
	schema   Schema
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
		TLSClientConfig:       cfg.TLS,
	}
	client := &http.Client{Transport: boundedAnswers{transport}, Timeout: cfg.RequestTimeout}
	opts := []sr.ClientOpt{sr.URLs(cfg.URLs...), sr.HTTPClient(client), sr.UserAgent("churnstream")}
	if cfg.Username != "" {
		opts = append(opts, sr.PreReq(func(req *http.Request) error {
			password, err := cfg.Password()
			if err == nil {
				req.SetBasicAuth(cfg.Username, password)
			}
			return err
		}))
	}
	if cfg.Token != nil {
		opts = append(opts, sr.PreReq(func(req *http.Request) error {
			token, err := cfg.Token()
			if err == nil {
				req.Header.Set("Authorization", "Bearer "+token)
			}
			return err
		}))
	}
	registry, err := sr.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("schema registry: %w", err)
	}
	r := &HTTPRegistry{
		cfg: cfg, client: registry, http: client,
		schemas: make(map[schemaKey]Schema), refused: make(map[schemaKey]refusal), inFlight: make(map[schemaKey]*flight), read: make(map[subjectVersion]bool),
	}
	if cfg.CacheDir != "" {
		if r.disk, err = openDiskCache(cfg.CacheDir, cfg.URLs); err != nil {
			return nil, fmt.Errorf("registry.cache_dir: %w", err)
		}
	}
	return r, nil
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

// SchemaByID returns an Avro schema with those that it refers to. It wraps [ErrSchemaNotFound] where the registry
// answered that there is no such id, [ErrSchemaUnsupported] where the schema is no Avro schema or refers to what is not
// there, and anything else is an outage that lasted for RetryFor or until ctx ended.
func (r *HTTPRegistry) SchemaByID(ctx context.Context, id int32) (Schema, error) {
	return r.schema(ctx, schemaKey{id: id})
}

// SchemaByFingerprint returns the version of a subject that has a CRC-64-AVRO fingerprint. Its errors are those of
// SchemaByID. The API finds nothing by fingerprint: every version of the subject is read once.
func (r *HTTPRegistry) SchemaByFingerprint(ctx context.Context, subject string, fingerprint uint64) (Schema, error) {
	return r.schema(ctx, schemaKey{subject: subject, fingerprint: fingerprint})
}

func (r *HTTPRegistry) schema(ctx context.Context, key schemaKey) (Schema, error) {
	for {
		r.mu.Lock()
		if schema, ok := r.schemas[key]; ok {
			r.mu.Unlock()
			return schema, nil
		}
		if refused, ok := r.refused[key]; ok {
			if time.Now().Before(refused.until) {
				r.mu.Unlock()
				return Schema{}, refused.err
			}
			delete(r.refused, key)
		}
		f := r.inFlight[key]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			r.inFlight[key] = f
			r.mu.Unlock()
			r.fetch(ctx, key, f)
			return f.schema, f.err
		}
		r.mu.Unlock()
		select {
		case <-f.done:
			if !f.canceled {
				return f.schema, f.err
			}
		case <-ctx.Done():
			return Schema{}, fmt.Errorf("schema registry: waiting for %s: %w", key, ctx.Err())
		}
	}
}

func notFound(key schemaKey) error {
	return fmt.Errorf("schema registry: %s: %w", key, ErrSchemaNotFound)
}

// fetch asks for a schema, keeps the answer and ends the flight. What is on disk is taken only while the registry is
// down, and then at once: a registry that was set up anew gives its ids to other schemas.
func (r *HTTPRegistry) fetch(ctx context.Context, key schemaKey, f *flight) {
	var kept Schema
	patience, onDisk := r.cfg.RetryFor, r.disk.load(key.String(), &kept)
	if onDisk {
		patience = 0
	}
	schema, err := r.ask(ctx, key, patience)
	var answer *sr.ResponseError
	answered := err == nil || errors.As(err, &answer) || errors.Is(err, ErrSchemaNotFound) || errors.Is(err, ErrSchemaUnsupported)
	if !answered && onDisk && ctx.Err() == nil {
		schema, err = kept, nil
	} else if err == nil {
		r.disk.save(key.String(), schema)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f.schema, f.err = r.keepLocked(key, schema, err)
	f.canceled = ctx.Err() != nil
	delete(r.inFlight, key)
	close(f.done)
}

func (r *HTTPRegistry) ask(ctx context.Context, key schemaKey, patience time.Duration) (found Schema, err error) {
	if key.subject != "" {
		return r.lookThrough(ctx, key, patience)
	}
	var answer sr.Schema
	err = r.retry(ctx, patience, func(ctx context.Context) (err error) {
		answer, err = r.client.SchemaByID(ctx, int(key.id))
		return whole(answer, err)
	})
	if code(err) == sr.ErrSchemaNotFound.Code {
		return found, notFound(key)
	}
	if err != nil {
		return found, err
	}
	return r.complete(ctx, key, answer, patience)
}

// lookThrough reads those versions of a subject that have not been read, newest first.
func (r *HTTPRegistry) lookThrough(ctx context.Context, key schemaKey, patience time.Duration) (Schema, error) {
	var versions []int
	err := r.retry(ctx, patience, func(ctx context.Context) (err error) {
		versions, err = r.client.SubjectVersions(ctx, key.subject)
		return err
	})
	if code(err) == sr.ErrSubjectNotFound.Code {
		return Schema{}, notFound(key)
	}
	if err != nil {
		return Schema{}, err
	}
	slices.Sort(versions)
	for _, version := range slices.Backward(versions) {
		at := subjectVersion{key.subject, version}
		r.mu.Lock()
		seen := r.read[at]
		r.mu.Unlock()
		if seen {
			continue
		}
		answer, err := r.version(ctx, at, patience)
		if code(err) == sr.ErrVersionNotFound.Code { // deleted since it was listed
			continue
		}
		if err != nil {
			return Schema{}, err
		}
		schema, err := r.complete(ctx, key, answer, patience)
		if err != nil && !errors.Is(err, ErrSchemaUnsupported) {
			return Schema{}, err
		}
		fingerprint := uint64(0)
		if err == nil {
			fingerprint, err = schema.Fingerprint()
		}
		r.mu.Lock()
		if len(r.read) >= maxCachedSchemas {
			clear(r.read)
		}
		r.read[at] = true
		if err == nil {
			r.rememberLocked(schemaKey{subject: key.subject, fingerprint: fingerprint}, schema)
		}
		r.mu.Unlock()
		if err == nil && fingerprint == key.fingerprint {
			return schema, nil
		}
	}
	return Schema{}, notFound(key)
}

// version reads one version of a subject, also a softly deleted one: events written with it may still be in a topic.
func (r *HTTPRegistry) version(ctx context.Context, at subjectVersion, patience time.Duration) (schema sr.Schema, err error) {
	err = r.retry(sr.WithParams(ctx, sr.ShowDeleted), patience, func(ctx context.Context) error {
		answer, err := r.client.SchemaByVersion(ctx, at.subject, at.version)
		schema = answer.Schema
		return whole(schema, err)
	})
	return schema, err
}

// whole refuses an answer of success without a schema in it: whoever gave it is no working registry, so this is an outage.
func whole(schema sr.Schema, err error) error {
	if err == nil && strings.TrimSpace(schema.Schema) == "" {
		return errors.New("the answer holds no schema")
	}
	return err
}

// maxReferences bounds the schemas that one schema refers to.
const maxReferences = 256

// complete gets what a schema refers to, each before its first use and none twice.
func (r *HTTPRegistry) complete(ctx context.Context, key schemaKey, answer sr.Schema, patience time.Duration) (Schema, error) {
	unusable := func(format string, args ...any) error {
		return fmt.Errorf("schema registry: %s %s: %w", key, fmt.Sprintf(format, args...), ErrSchemaUnsupported)
	}
	if answer.Type != sr.TypeAvro {
		return Schema{}, unusable("is %s, not Avro", answer.Type)
	}
	schema := Schema{Text: answer.Schema}
	known := make(map[subjectVersion]bool) // false while its own references are read
	var add func(references []sr.SchemaReference) error
	add = func(references []sr.SchemaReference) error {
		for _, ref := range references {
			at := subjectVersion{ref.Subject, ref.Version}
			if done, met := known[at]; met && !done {
				return unusable("refers to %s version %d in a circle", at.subject, at.version)
			} else if met {
				continue
			}
			if len(known) >= maxReferences {
				return unusable("refers to more than %d schemas", maxReferences)
			}
			known[at] = false
			referred, err := r.version(ctx, at, patience)
			switch {
			case code(err) == sr.ErrSubjectNotFound.Code, code(err) == sr.ErrVersionNotFound.Code:
				return unusable("refers to %s version %d, which is not there", at.subject, at.version)
			case err != nil:
				return err
			case referred.Type != sr.TypeAvro:
				return unusable("refers to %s version %d, which is %s, not Avro", at.subject, at.version, referred.Type)
			}
			if err := add(referred.References); err != nil {
				return err
			}
			schema.References = append(schema.References, referred.Schema)
			known[at] = true
		}
		return nil
	}
	return schema, add(answer.References)
}

// code is the API's error code of an answer that says "not found", else 0.
func code(err error) int {
	var answer *sr.ResponseError
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return answer.ErrorCode
	}
	return 0
}

func (r *HTTPRegistry) keepLocked(key schemaKey, schema Schema, err error) (Schema, error) {
	switch {
	case errors.Is(err, ErrSchemaNotFound), errors.Is(err, ErrSchemaUnsupported):
		if len(r.refused) >= r.cfg.UnknownLimit {
			clear(r.refused) // costs some requests; a flood of made-up ids must not cost memory
		}
		r.refused[key] = refusal{err: err, until: time.Now().Add(r.cfg.UnknownFor)}
		return Schema{}, err
	case err != nil:
		return Schema{}, fmt.Errorf("schema registry %s: %s: %w", r.cfg.URLs[0], key, err)
	}
	r.rememberLocked(key, schema)
	return schema, nil
}

func (r *HTTPRegistry) rememberLocked(key schemaKey, schema Schema) {
	if len(r.schemas) >= maxCachedSchemas {
		clear(r.schemas)
		clear(r.read)
	}
	r.schemas[key] = schema
}

// Latest returns the newest version of a subject and its id. It wraps [ErrSchemaNotFound] where there is none.
func (r *HTTPRegistry) Latest(ctx context.Context, subject string) (schema Schema, id int32, err error) {
	var answer sr.SubjectSchema
	err = r.retry(ctx, r.cfg.RetryFor, func(ctx context.Context) (err error) {
		answer, err = r.client.SchemaByVersion(ctx, subject, -1)
		return whole(answer.Schema, err)
	})
	switch {
	case code(err) == sr.ErrSubjectNotFound.Code, code(err) == sr.ErrVersionNotFound.Code:
		return schema, 0, fmt.Errorf("schema registry: subject %s: %w", subject, ErrSchemaNotFound)
	case err != nil:
		return schema, 0, fmt.Errorf("schema registry %s: subject %s: %w", r.cfg.URLs[0], subject, err)
	}
	schema, err = r.complete(ctx, schemaKey{id: int32(answer.ID)}, answer.Schema, r.cfg.RetryFor)
	return schema, int32(answer.ID), err
}

// Register publishes an Avro schema under subject and returns its id. Registering the same schema again changes nothing.
// A registry that refuses it, for example as incompatible with an earlier version, is quoted in the error. While the
// registry is down, a schema that has been registered from this machine before has the id in CacheDir.
func (r *HTTPRegistry) Register(ctx context.Context, subject, schema string) (int32, error) {
	var kept, id int
	name := fmt.Sprintf("subject %s, schema %x", subject, sha256.Sum256([]byte(schema)))
	patience, onDisk := r.cfg.RetryFor, r.disk.load(name, &kept)
	if onDisk {
		patience = 0
	}
	own := sr.Schema{Schema: schema, Type: sr.TypeAvro}
	err := r.retry(ctx, patience, func(ctx context.Context) (err error) {
		id, err = r.client.RegisterSchema(ctx, subject, own, -1, -1)
		return err
	})
	if err != nil {
		var answer *sr.ResponseError
		switch answered := errors.As(err, &answer); {
		case !answered && onDisk && ctx.Err() == nil:
			return int32(kept), nil
		case !answered:
			return 0, fmt.Errorf("register %s: %w: %w", subject, ErrRegistryDown, err)
		case answer.StatusCode == http.StatusConflict:
			return 0, fmt.Errorf("schema registry: subject %s: %w: %w%s", subject, ErrIncompatible, err, r.reasons(ctx, subject, own, err))
		}
		return 0, fmt.Errorf("schema registry %s: register %s: %w", r.cfg.URLs[0], subject, err)
	}
	if id <= 0 || id != int(int32(id)) {
		return 0, fmt.Errorf("schema registry %s: register %s: the answer has no schema id", r.cfg.URLs[0], subject)
	}
	r.disk.save(name, id)
	return int32(id), nil
}

// reasons asks a registry that called a schema incompatible for what it has not said yet.
func (r *HTTPRegistry) reasons(ctx context.Context, subject string, schema sr.Schema, said error) string {
	result, err := r.client.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), subject, -2, schema)
	if err != nil {
		return "" // the refusal itself is the answer
	}
	var more strings.Builder
	for _, message := range result.Messages {
		if !strings.Contains(said.Error(), message) {
			more.WriteString("; " + message)
		}
	}
	return more.String()
}

// retry repeats call while the registry cannot be reached or fails, with growing, random pauses.
func (r *HTTPRegistry) retry(ctx context.Context, patience time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, max(patience, r.cfg.RequestTimeout))
	defer cancel()
	deadline := time.Now().Add(patience)
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
