package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"
)

// HTTP is the prediction API of `churnstream serve`, and of `churnstream run` when listen is set.
type HTTP struct {
	Listen             string     `yaml:"listen"`              // host:port; empty: none in run, 127.0.0.1:8080 in serve
	DataDir            string     `yaml:"data_dir"`            // the store of customer ids and of the scores by customer; one process at a time
	Kafka              bool       `yaml:"kafka"`               // serve: publish events and read scores; false: predictions only, no broker is contacted
	PublishPredictions bool       `yaml:"publish_predictions"` // predictions go to topics.scores, too, and count in drift
	TLS                HTTPTLS    `yaml:"tls"`
	Auth               HTTPAuth   `yaml:"auth"`
	Limits             HTTPLimits `yaml:"limits"`
	CORSOrigins        []string   `yaml:"cors_origins"`  // pages of these origins may call the API; empty: none may
	CacheEntries       int        `yaml:"cache_entries"` // responses kept by model and input; 0: none
}

// HTTPTLS is the server's side of TLS 1.2 and later.
type HTTPTLS struct {
	CertFile     string   `yaml:"cert_file"`      // PEM; empty: no TLS
	KeyFile      string   `yaml:"key_file"`       // PEM key of cert_file
	ClientCAFile string   `yaml:"client_ca_file"` // PEM; clients whose certificate it signed are authenticated by it
	ClientScopes []string `yaml:"client_scopes"`  // what such clients may do
}

// HTTPAuth says who may call. Without any method everybody may, from this machine only.
type HTTPAuth struct {
	KeysFile  string `yaml:"keys_file"` // hashed API keys, a line each, as `churnstream apikey` writes them
	OIDC      OIDC   `yaml:"oidc"`
	Anonymous string `yaml:"anonymous"` // anyone-may-call: serve a public address without authentication
}

// OIDC accepts bearer tokens of an identity provider.
type OIDC struct {
	Issuer      string `yaml:"issuer"`       // URL; its keys are found and cached by discovery; empty: no tokens
	Audience    string `yaml:"audience"`     // that a token must be for
	ScopePrefix string `yaml:"scope_prefix"` // of the scopes predict, read and admin in a token
}

// HTTPLimits bound what one client, and all of them, can ask.
type HTTPLimits struct {
	BodyBytes      int64    `yaml:"body_bytes"`      // of one request but a batch
	BatchBytes     int64    `yaml:"batch_bytes"`     // of one batch, unpacked
	HeaderBytes    int      `yaml:"header_bytes"`    // of all headers of a request
	ReadTimeout    Duration `yaml:"read_timeout"`    // for a whole request
	WriteTimeout   Duration `yaml:"write_timeout"`   // for a whole response
	IdleTimeout    Duration `yaml:"idle_timeout"`    // between two requests of a connection
	RequestTimeout Duration `yaml:"request_timeout"` // for the work on a request, such as an acknowledgement of Kafka
	Concurrency    int      `yaml:"concurrency"`     // requests under way; those beyond are answered 503 at once
	QueueWait      Duration `yaml:"queue_wait"`      // for a processor; who would wait longer is answered 503
	RefuseUnread   bool     `yaml:"refuse_unread"`   // predictions without a place are answered 503 before they are parsed; not with TLS
	Connections    int      `yaml:"connections"`     // open at once; those beyond are closed
	Streams        int      `yaml:"streams"`         // open score streams
	Rate           float64  `yaml:"rate"`            // requests a second of one principal; 0: no limit
	Burst          int      `yaml:"burst"`           // that a principal may ask at once
}

// AnyoneMayCall is the value of http.auth.anonymous that admits everybody on every address.
const AnyoneMayCall = "anyone-may-call"

// Scopes are what a principal can be allowed: to ask for predictions and publish events, to read scores, to erase.
func Scopes() []string { return []string{"predict", "read", "admin"} }

func defaultHTTP() HTTP {
	return HTTP{
		DataDir: "churnstream-http",
		Kafka:   true,
		TLS:     HTTPTLS{ClientScopes: []string{"predict", "read"}},
		Auth:    HTTPAuth{OIDC: OIDC{ScopePrefix: "churnstream:"}},
		Limits: HTTPLimits{
			BodyBytes:      1 << 20,
			BatchBytes:     64 << 20,
			HeaderBytes:    16 << 10,
			ReadTimeout:    Duration(30 * time.Second),
			WriteTimeout:   Duration(60 * time.Second),
			IdleTimeout:    Duration(2 * time.Minute),
			RequestTimeout: Duration(10 * time.Second),
			Concurrency:    64,
			QueueWait:      Duration(50 * time.Millisecond),
			RefuseUnread:   true,
			Connections:    2048,
			Streams:        100,
			Burst:          100,
		},
		CacheEntries: 10_000,
	}
}

// Authenticates is true where some method of authentication is configured.
func (h *HTTP) Authenticates() bool {
	return h.Auth.KeysFile != "" || h.Auth.OIDC.Issuer != "" || h.TLS.ClientCAFile != ""
}

func (c *Config) checkHTTP(k *checker) {
	h := &c.HTTP
	if h.Listen != "" {
		k.address("http.listen", h.Listen)
		k.check(h.Authenticates() || h.Auth.Anonymous == AnyoneMayCall || loopback(h.Listen), "http.listen",
			"%q can be reached from other machines and nobody would be asked who he is; set http.auth.keys_file, http.auth.oidc.issuer or http.tls.client_ca_file, or say http.auth.anonymous: %s", h.Listen, AnyoneMayCall)
		k.check(h.DataDir != "", "http.data_dir", "is empty; give a directory for customer ids and scores, for example churnstream-http")
	}
	k.oneOf("http.auth.anonymous", h.Auth.Anonymous, "", AnyoneMayCall)
	k.check(h.Auth.Anonymous == "" || !h.Authenticates(), "http.auth.anonymous", "%s contradicts the authentication that is configured; remove one of them", AnyoneMayCall)
	t := h.TLS
	k.check((t.CertFile == "") == (t.KeyFile == ""), "http.tls.key_file", "cert_file and key_file go together")
	k.check(t.ClientCAFile == "" || t.CertFile != "", "http.tls.client_ca_file", "needs http.tls.cert_file: clients show certificates over TLS only")
	for i, s := range t.ClientScopes {
		k.oneOf(fmt.Sprintf("http.tls.client_scopes[%d]", i), s, Scopes()...)
	}
	if o := h.Auth.OIDC; o.Issuer != "" {
		u, err := url.Parse(o.Issuer)
		k.check(err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && loopback(u.Host)), "http.auth.oidc.issuer", "%q is not a URL such as https://login.example.com/realms/crm", o.Issuer)
		k.check(o.Audience != "", "http.auth.oidc.audience", "is empty; give the audience that tokens for this API carry, for example churnstream")
	}
	for i, o := range h.CORSOrigins {
		u, err := url.Parse(o)
		k.check(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.Path == "" && u.User == nil && u.RawQuery == "", fmt.Sprintf("http.cors_origins[%d]", i), "%q is not an origin such as https://crm.example.com", o)
	}
	k.check(h.CacheEntries >= 0 && h.CacheEntries <= 10_000_000, "http.cache_entries", "%d is outside 0 to 10000000", h.CacheEntries)
	l := h.Limits
	k.check(l.BodyBytes >= 1<<10 && l.BodyBytes <= 16<<20, "http.limits.body_bytes", "%d is outside 1024 to 16777216", l.BodyBytes)
	k.check(l.BatchBytes >= l.BodyBytes && l.BatchBytes <= 1<<30, "http.limits.batch_bytes", "%d must be at least body_bytes (%d) and at most 1073741824", l.BatchBytes, l.BodyBytes)
	k.check(l.HeaderBytes >= 4<<10 && l.HeaderBytes <= 1<<20, "http.limits.header_bytes", "%d is outside 4096 to 1048576", l.HeaderBytes)
	k.between("http.limits.read_timeout", l.ReadTimeout, Duration(time.Second), Duration(time.Hour))
	k.between("http.limits.write_timeout", l.WriteTimeout, Duration(time.Second), Duration(time.Hour))
	k.between("http.limits.idle_timeout", l.IdleTimeout, Duration(time.Second), Duration(time.Hour))
	k.between("http.limits.request_timeout", l.RequestTimeout, Duration(100*time.Millisecond), Duration(time.Hour))
	k.check(l.Concurrency >= 1 && l.Concurrency <= 100_000, "http.limits.concurrency", "%d is outside 1 to 100000, for example 64", l.Concurrency)
	k.between("http.limits.queue_wait", l.QueueWait, Duration(time.Millisecond), Duration(time.Minute))
	k.check(l.Connections >= 1 && l.Connections <= 1_000_000, "http.limits.connections", "%d is outside 1 to 1000000, for example 2048", l.Connections)
	k.check(l.Streams >= 0 && l.Streams <= 100_000, "http.limits.streams", "%d is outside 0 to 100000", l.Streams)
	k.check(l.Rate >= 0 && l.Rate <= 1e6, "http.limits.rate", "%v is outside 0 (no limit) to 1000000", l.Rate)
	k.check(l.Burst >= 1 && l.Burst <= 1_000_000, "http.limits.burst", "%d is outside 1 to 1000000", l.Burst)
}

// loopback is true for an address that only this machine can reach. A name other than localhost may be any machine.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip := net.ParseIP(host)
	return slices.Contains([]string{"localhost", "ip6-localhost"}, host) || ip != nil && ip.IsLoopback()
}
