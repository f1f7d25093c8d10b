package httpapi

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/churnstream/churnstream/internal/config"
)

// scope is what a principal may do.
type scope string

const (
	anybody      scope = ""        // probes and documentation: no credentials are looked at
	scopePredict scope = "predict" // predictions and events
	scopeRead    scope = "read"    // scores, model, metrics
	scopeAdmin   scope = "admin"   // erasure
)

// principal is who asks.
type principal struct {
	id     string // whose rate is limited
	shown  string // in the access log: no personal data
	scopes []scope
}

func (p *principal) may(s scope) bool { return s == anybody || slices.Contains(p.scopes, s) }

// errNoCredentials says that a request carries nothing of what would authenticate it.
var errNoCredentials = errors.New("no credentials")

// authenticator finds the principal of a request. It is safe for concurrent use.
type authenticator struct {
	keys         *keyring // nil: no API keys
	tokens       *tokens  // nil: no bearer tokens
	certificates bool
	certScopes   []scope
}

// newAuthenticator tells warn, once, of each way in which the keys file becomes unusable later.
func newAuthenticator(cfg config.HTTP, warn func(error)) (*authenticator, error) {
	a := &authenticator{certificates: cfg.TLS.ClientCAFile != ""}
	for _, s := range cfg.TLS.ClientScopes {
		a.certScopes = append(a.certScopes, scope(s))
	}
	if cfg.Auth.KeysFile != "" {
		var err error
		if a.keys, err = openKeyring(cfg.Auth.KeysFile, warn); err != nil {
			return nil, err
		}
	}
	if cfg.Auth.OIDC.Issuer != "" {
		a.tokens = newTokens(cfg.Auth.OIDC)
	}
	return a, nil
}

// asks is true where anybody must say who he is.
func (a *authenticator) asks() bool { return a.keys != nil || a.tokens != nil || a.certificates }

// principal is who sent the request. The error is errNoCredentials, a *problem, or says what is wrong with the
// credentials, which is for the log and not for the sender.
func (a *authenticator) principal(ctx context.Context, r *http.Request) (*principal, error) {
	if !a.asks() {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			host = r.RemoteAddr
		}
		return &principal{id: "address:" + host, shown: "anonymous", scopes: []scope{scopePredict, scopeRead, scopeAdmin}}, nil
	}
	secret, err := credential(r)
	switch {
	case err != nil && !errors.Is(err, errNoCredentials):
		return nil, err
	case secret == "" && a.certificates && r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
		return a.certified(r.TLS.VerifiedChains[0][0])
	case secret == "":
		return nil, errNoCredentials
	case strings.HasPrefix(secret, keyPrefix):
		if a.keys == nil {
			return nil, errors.New("an API key, but no keys are configured")
		}
		return a.keys.principal(secret)
	case a.tokens == nil:
		return nil, errors.New("a bearer token, but no issuer is configured")
	default:
		return a.tokens.principal(ctx, secret)
	}
}

func (a *authenticator) certified(c *x509.Certificate) (*principal, error) {
	name := c.Subject.CommonName
	if len(c.URIs) > 0 {
		name = c.URIs[0].String() // SPIFFE
	}
	if name == "" {
		return nil, errors.New("a client certificate that names nobody")
	}
	return &principal{id: "certificate:" + name, shown: "certificate:" + name, scopes: a.certScopes}, nil
}

// credential is the one secret of a request. Two would leave open which of them counts.
func credential(r *http.Request) (string, error) {
	authorization, key := r.Header.Values("Authorization"), r.Header.Values("X-API-Key")
	switch {
	case len(authorization)+len(key) == 0:
		return "", errNoCredentials
	case len(authorization)+len(key) > 1:
		return "", errors.New("more than one credential")
	case len(key) == 1:
		if !strings.HasPrefix(key[0], keyPrefix) {
			return "", errors.New("an X-API-Key that is no key of this API")
		}
		return key[0], nil
	}
	scheme, secret, ok := strings.Cut(authorization[0], " ")
	if secret = strings.TrimSpace(secret); !ok || !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return "", errors.New("an Authorization that is not Bearer")
	}
	return secret, nil
}
