package httpapi

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	stdlog "log" //nolint:depguard // net/http takes no other
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/internal/admin"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/scoring"
)

// Dependencies are what the API is given beside its settings.
type Dependencies struct {
	Model    *scoring.Model
	ModelDir string // of the artefact: its first reference row is the example of the documentation
	Reasons  int    // explanations of a prediction unless a request says otherwise
	Kafka    *Kafka // nil: predictions only
	Metrics  *prometheus.Registry
	Log      zerolog.Logger
	Version  string // of the program
	// Ready is the readiness of what else the process does; nil: nothing.
	Ready func() admin.Status
}

// Server is the API. It listens from New on, so that a taken port is a start-up error.
type Server struct {
	cfg       config.HTTP
	deps      Dependencies
	log       zerolog.Logger
	http      *http.Server
	listener  net.Listener
	mux       *http.ServeMux
	api       huma.API
	routes    map[string]route // by pattern
	auth      *authenticator
	rate      *rateLimit
	failures  *rateLimit // of authentication, by address
	metrics   *metrics
	predictor *predictor
	work      *processors
	shed      *shedder
	chunks    sync.Pool // of *chunk
	texts     textPool  // of what batches are read into
	store     *store
	kafka     *kafkaSide // nil: predictions only
	inFlight  atomic.Int64
	streams   atomic.Int64
	ending    chan struct{} // closed when streams must end
	endOnce   sync.Once
	now       func() time.Time // of what is published
}

// route is what admission knows of a pattern.
type route struct {
	name      string // in metrics and logs
	scope     scope
	bodyLimit int64
	free      bool // takes no place of the concurrency limit and no token of the rate: probes and streams
}

// New opens the store, binds the address and puts the API together. Until Run serves it, connections wait.
func New(cfg config.HTTP, deps Dependencies) (s *Server, err error) {
	if err := unusableInputs(deps.Model); err != nil {
		return nil, err
	}
	s = &Server{
		cfg: cfg, deps: deps, log: deps.Log, mux: http.NewServeMux(), routes: map[string]route{},
		rate: newRateLimit(cfg.Limits.Rate, cfg.Limits.Burst), failures: newRateLimit(1, 20),
		metrics: newMetrics(deps.Metrics, deps.Model), ending: make(chan struct{}), now: time.Now,
	}
	var kept *cache
	if cfg.CacheEntries > 0 {
		kept = newCache(cfg.CacheEntries, s.metrics.cacheHits.Inc, s.metrics.cacheMisses.Inc)
	}
	s.predictor = newPredictor(deps.Model, deps.Reasons, kept)
	s.work = newProcessors(runtime.GOMAXPROCS(0), cfg.Limits.QueueWait.Std())
	s.shed = newShedder(s.metrics.refused.WithLabelValues("shed").Inc)
	s.chunks.New = func() any { return &chunk{done: make(chan struct{}, 1)} }
	if s.auth, err = newAuthenticator(cfg, func(err error) {
		s.log.Error().Err(err).Msg("the file of API keys cannot be used; the keys before it are in force")
	}); err != nil {
		return nil, err
	}
	tlsConfig, err := serverTLS(cfg.TLS)
	if err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("http.listen: %w; choose another port or end the process that holds it", err)
	}
	bounded := &boundedListener{Listener: s.listener, limit: int64(cfg.Limits.Connections), refused: s.metrics.refused.WithLabelValues("connections").Inc}
	if s.listener = bounded; tlsConfig != nil {
		s.listener = tls.NewListener(s.listener, tlsConfig)
	} else {
		bounded.farewell = []byte(tooManyConnections)
		if cfg.Limits.RefuseUnread {
			bounded.turn = newTurnstile(cfg.Limits, s.shed, s.full, s.metrics.refusedUnread())
		}
	}
	if s.store, err = openStore(cfg.DataDir); err != nil {
		return nil, errors.Join(fmt.Errorf("http.data_dir: %w", err), s.listener.Close())
	}
	if deps.Kafka != nil {
		if s.kafka, err = newKafkaSide(deps.Kafka, s); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := s.register(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headersWithin(cfg.Limits),
		ReadTimeout:       cfg.Limits.ReadTimeout.Std(),
		WriteTimeout:      cfg.Limits.WriteTimeout.Std(),
		IdleTimeout:       cfg.Limits.IdleTimeout.Std(),
		MaxHeaderBytes:    cfg.Limits.HeaderBytes,
		ErrorLog:          stdlog.New(serverErrors{s.log}, "", 0),
		ConnState:         noteAnswers,
	}
	return s, nil
}

// headersWithin is how long the headers of a request may take.
func headersWithin(limits config.HTTPLimits) time.Duration {
	return min(5*time.Second, limits.ReadTimeout.Std())
}

// publishes says whether predictions go to a topic.
func (s *Server) publishes() bool {
	return s.kafka != nil && (s.cfg.PublishPredictions || s.deps.Kafka.Audit.Topic != "")
}

// Close gives up what New opened, where Run is never called.
func (s *Server) Close() error { return errors.Join(s.listener.Close(), s.store.close()) }

// Addr is the bound address.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL is where a client on this machine finds the API.
func (s *Server) URL() string {
	scheme := "http"
	if s.cfg.TLS.CertFile != "" {
		scheme = "https"
	}
	return scheme + "://" + s.Addr()
}

// Run serves until ctx ends, then lets requests in hand finish for grace at most.
func (s *Server) Run(ctx context.Context, grace time.Duration) error {
	g, group := errgroup.WithContext(ctx)
	served := make(chan struct{}) // closed after the last request
	if s.kafka != nil {
		g.Go(func() error { return s.kafka.run(group, served, grace) })
	}
	g.Go(func() error {
		defer close(served)
		shut := make(chan error, 1)
		stop := context.AfterFunc(group, func() { //nolint:contextcheck // the end of ctx is the reason
			s.endOnce.Do(func() { close(s.ending) })
			limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
			defer cancel()
			err := s.http.Shutdown(limited)
			if err != nil {
				err = s.http.Close() // a request outlived the grace: cut it
			}
			shut <- err
		})
		err := s.http.Serve(s.listener)
		if !errors.Is(err, http.ErrServerClosed) {
			stop()
			return fmt.Errorf("http on %s: %w", s.Addr(), err)
		}
		return <-shut
	})
	return errors.Join(g.Wait(), s.store.close())
}

// unusableInputs refuses a model whose inputs have the names that a body needs for itself.
func unusableInputs(m *scoring.Model) error {
	for _, name := range []string{customerField, eventTimeField} {
		if m.Contract().Index(name) >= 0 {
			return fmt.Errorf("model %s: the input %q has the name that requests give to the customer or time of an event; rename it in the model", m.Name(), name)
		}
	}
	return nil
}

// ServeHTTP takes a request through admission to its operation.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := newExchange(w, r)
	handler, pattern := s.mux.Handler(r)
	at, known := s.routes[pattern]
	if !known {
		at = route{name: "none", free: true}
	}
	defer s.finish(x, r, at)
	x.Header()["X-Content-Type-Options"] = []string{"nosniff"}
	if !at.free {
		defer s.inFlight.Add(-1)
		s.metrics.inFlight.Inc()
		defer s.metrics.inFlight.Dec()
		if s.inFlight.Add(1) > int64(s.cfg.Limits.Concurrency) || at.scope == scopePredict && s.work.late() { // see full
			s.shed.write(x)
			return
		}
	}
	if s.crossOrigin(x, r) {
		return
	}
	if !known {
		s.unknown(x, r, handler)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	if refusal := s.admit(x, r, at); refusal != nil {
		refusal.write(x)
		return
	}
	if refusal := limitBody(x, r, at.bodyLimit); refusal != nil {
		refusal.write(x)
		return
	}
	s.mux.ServeHTTP(x, r)
}

// full says whether a prediction that came now would be shed.
func (s *Server) full() bool {
	return s.inFlight.Load() >= int64(s.cfg.Limits.Concurrency) || s.work.late()
}

// admit asks who it is, whether he may, and whether he does not ask too often.
func (s *Server) admit(x *exchange, r *http.Request, at route) *problem {
	if at.scope == anybody {
		return nil
	}
	who, err := s.auth.principal(r.Context(), r)
	if err != nil {
		return s.unauthenticated(x, r, err)
	}
	x.principal = who
	if !who.may(at.scope) {
		s.metrics.refused.WithLabelValues("forbidden").Inc()
		return newProblem(http.StatusForbidden, "this needs the scope %s", at.scope)
	}
	if refusal := s.rate.admit(x, who.id); refusal != nil {
		s.metrics.refused.WithLabelValues("rate").Inc()
		return refusal
	}
	return nil
}

// unauthenticated refuses without telling what was wrong with a credential: only its holder would profit from that, and
// finds it in the documentation. Whoever fails again and again is slowed down.
func (s *Server) unauthenticated(x *exchange, r *http.Request, err error) *problem {
	s.metrics.refused.WithLabelValues("unauthenticated").Inc()
	var told *problem
	if errors.As(err, &told) {
		return told
	}
	if !errors.Is(err, errNoCredentials) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		if _, wait, ok := s.failures.take(host); !ok {
			return later(http.StatusTooManyRequests, wait, "too many refused credentials")
		}
		s.log.Warn().Str("request_id", x.requestID).Str("cause", err.Error()).Msg("credentials refused")
	}
	x.Header().Set("WWW-Authenticate", `Bearer realm="churnstream"`)
	return newProblem(http.StatusUnauthorized, "give an API key or a token as Authorization: Bearer, or a client certificate")
}

// unknown answers for a path or method that there is none of, in the words of the mux.
func (s *Server) unknown(x *exchange, r *http.Request, handler http.Handler) {
	answer := &statusOnly{header: http.Header{}}
	handler.ServeHTTP(answer, r)
	if answer.status != http.StatusMethodNotAllowed {
		newProblem(http.StatusNotFound, "there is no such path; /docs lists them").write(x)
		return
	}
	x.Header()["Allow"] = answer.header["Allow"]
	newProblem(answer.status, "this path takes %s", strings.Join(answer.header["Allow"], ", ")).write(x)
}

// statusOnly keeps what a handler says but its body.
type statusOnly struct {
	header http.Header
	status int
}

func (a *statusOnly) Header() http.Header         { return a.header }
func (a *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (a *statusOnly) WriteHeader(status int)      { a.status = status }

// crossOrigin lets pages of the configured origins in. It is true when the request was a browser's question about that,
// which is answered then.
func (s *Server) crossOrigin(x *exchange, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || !slices.Contains(s.cfg.CORSOrigins, origin) {
		return false
	}
	h := x.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "X-Request-Id, RateLimit, RateLimit-Policy, Retry-After")
	h.Add("Vary", "Origin")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-API-Key, X-Request-Id, Traceparent")
	h.Set("Access-Control-Max-Age", "600")
	x.WriteHeader(http.StatusNoContent)
	return true
}

// finish counts and logs the answer. The line holds the route and not the path, which may name a customer.
func (s *Server) finish(x *exchange, r *http.Request, at route) {
	if fault := recover(); fault != nil {
		if fault == http.ErrAbortHandler { //nolint:errorlint // net/http compares it, too
			panic(fault)
		}
		s.log.Error().Str("request_id", x.requestID).Str("route", at.name).Str("fault", fmt.Sprint(fault)).
			Str("stack", string(debug.Stack())).Msg("BUG: a request panicked")
		if x.status == 0 {
			newProblem(http.StatusInternalServerError, "the server is at fault; the request id tells its operator where").write(x)
		} else {
			defer panic(http.ErrAbortHandler) // the answer is cut, and its reader must see that
		}
	}
	if x.status == 0 {
		x.status = http.StatusOK
	}
	took := time.Since(x.began)
	method := r.Method
	if !slices.Contains([]string{"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"}, method) {
		method = "other"
	}
	s.metrics.answered(at.name, method, x.status, took)
	level := zerolog.InfoLevel
	if at.scope == anybody && x.status < 400 {
		level = zerolog.DebugLevel // probes and scrapes
	}
	who := "none"
	if x.principal != nil {
		who = x.principal.shown
	}
	before := int64(0)
	if x.shed {
		var now bool
		if before, now = s.shed.line(); !now {
			return
		}
	}
	s.log.WithLevel(level).Str("request_id", x.requestID).Str("trace_id", x.traceID).Str("span_id", x.spanID).
		Str("method", method).Str("route", at.name).Int("status", x.status).Dur("latency", took).
		Int64("bytes", x.bytes).Str("principal", who).Str("model_version", s.deps.Model.Version()).
		Func(func(e *zerolog.Event) {
			if before > 0 {
				e.Int64("shed_before", before)
			}
		}).Msg("request")
}

// shedder refuses what there is no room for, at as little cost as can be: it is called when there is none.
type shedder struct {
	problem []byte
	count   func()
	silent  atomic.Int64 // refusals since the last line of the log
	last    atomic.Int64 // when that was
}

func newShedder(count func()) *shedder {
	text, _ := later(http.StatusServiceUnavailable, time.Second, "too many requests are under way; ask again later").MarshalJSON()
	return &shedder{problem: text, count: count}
}

func (d *shedder) write(x *exchange) {
	d.count()
	x.shed = true
	h := x.Header()
	h["Retry-After"], h["Content-Type"], h["Cache-Control"] = []string{"1"}, []string{typeProblem}, []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(d.problem))}
	x.WriteHeader(http.StatusServiceUnavailable)
	_, _ = x.Write(d.problem) // the client went away: nobody to tell
}

// due says whether the next refusal is to be in the log.
func (d *shedder) due() bool { return time.Now().UnixNano()-d.last.Load() >= int64(time.Second) }

// line says whether a refusal is to be in the log: one a second is, with the number of those before it that are not.
func (d *shedder) line() (before int64, now bool) {
	last, at := d.last.Load(), time.Now().UnixNano()
	if at-last < int64(time.Second) || !d.last.CompareAndSwap(last, at) {
		d.silent.Add(1)
		return 0, false
	}
	return d.silent.Swap(0), true
}

var errTooLarge = errors.New("the body is too large")

// limitBody unpacks a compressed body and cuts it where it is too large, packed or unpacked: what a small body unpacks
// to is not read beyond the limit.
func limitBody(x *exchange, r *http.Request, limit int64) *problem {
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	switch encoding := strings.ToLower(strings.Join(r.Header.Values("Content-Encoding"), ",")); encoding {
	case "", "identity":
		if r.Body != http.NoBody {
			r.Body = &limitedBody{from: r.Body, close: r.Body, left: limit}
		}
	case "gzip":
		packed := &limitedBody{from: r.Body, close: r.Body, left: limit}
		unpacked, err := gzip.NewReader(packed)
		if err != nil {
			return newProblem(http.StatusBadRequest, "the body is not gzip as its Content-Encoding says")
		}
		r.Body, r.ContentLength = &limitedBody{from: unpacked, close: r.Body, left: limit}, -1
	default:
		x.Header().Set("Accept-Encoding", "gzip, identity")
		return newProblem(http.StatusUnsupportedMediaType, "the Content-Encoding is not one of gzip, identity")
	}
	return nil
}

type limitedBody struct {
	from  io.Reader
	close io.Closer
	left  int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.from.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, errTooLarge
	}
	return n, err
}

func (b *limitedBody) Close() error { return b.close.Close() }

func tooLarge(limit int64) *problem {
	return newProblem(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", limit)
}

// bodyProblem says why a body could not be read.
func bodyProblem(err error, limit int64) *problem {
	var network net.Error
	switch {
	case errors.Is(err, errTooLarge):
		return tooLarge(limit)
	case errors.As(err, &network) && network.Timeout():
		return newProblem(http.StatusRequestTimeout, "the body did not come in time")
	default:
		return newProblem(http.StatusBadRequest, "the body ends early or cannot be unpacked")
	}
}

// serverErrors writes what net/http logs, such as failed handshakes: many of them are a scanner's doing.
type serverErrors struct{ log zerolog.Logger }

func (e serverErrors) Write(p []byte) (int, error) {
	e.log.Debug().Str("cause", strings.TrimSpace(string(p))).Msg("http connection")
	return len(p), nil
}

// serverTLS is nil without a certificate. The certificate is read again when its file changes.
func serverTLS(cfg config.HTTPTLS) (*tls.Config, error) {
	if cfg.CertFile == "" {
		return nil, nil //nolint:nilnil // no TLS is one of the ways
	}
	current := &certificate{cfg: cfg}
	if err := current.read(); err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: current.get, NextProtos: []string{"h2", "http/1.1"}}
	if cfg.ClientCAFile != "" {
		text, err := os.ReadFile(cfg.ClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("http.tls.client_ca_file: %w", err)
		}
		t.ClientCAs = x509.NewCertPool()
		if !t.ClientCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("http.tls.client_ca_file: %s holds no PEM certificate", cfg.ClientCAFile)
		}
		t.ClientAuth = tls.VerifyClientCertIfGiven // whoever has none needs another credential
	}
	return t, nil
}

// CheckFiles names every file of credentials that New would refuse.
func CheckFiles(cfg config.HTTP) error {
	var keys error
	if cfg.Auth.KeysFile != "" {
		_, keys = openKeyring(cfg.Auth.KeysFile, func(error) {})
	}
	_, certificates := serverTLS(cfg.TLS)
	return errors.Join(keys, certificates)
}

// fileStamp tells whether a file changed.
type fileStamp struct {
	modified time.Time
	size     int64
}

func stampOf(path string) (fileStamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}, err
	}
	return fileStamp{info.ModTime(), info.Size()}, nil
}

// certificate is that of the server, safe for concurrent use.
type certificate struct {
	cfg config.HTTPTLS

	mu     sync.Mutex
	pair   *tls.Certificate
	stamp  fileStamp
	looked time.Time
}

func (c *certificate) read() error {
	stamp, err := stampOf(c.cfg.CertFile)
	if err != nil {
		return fmt.Errorf("http.tls.cert_file: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.cfg.CertFile, c.cfg.KeyFile)
	if err != nil {
		return fmt.Errorf("http.tls.cert_file and key_file: %w", err)
	}
	c.pair, c.stamp = &pair, stamp
	return nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= lookEvery {
		c.looked = time.Now()
		if stamp, err := stampOf(c.cfg.CertFile); err == nil && stamp != c.stamp {
			_ = c.read() // between the writing of the two files they do not fit: the old pair goes on
		}
	}
	return c.pair, nil
}
