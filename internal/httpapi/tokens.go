package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/churnstream/churnstream/internal/config"
)

// tokens verifies bearer tokens of one issuer: signature by a key of its own, by an asymmetric algorithm that it names,
// issuer, audience, expiry. The issuer is asked when the first token comes, not at start: its outage is not ours. Its
// keys are kept and fetched again when a token names an unknown one. It is safe for concurrent use.
type tokens struct {
	cfg    config.OIDC
	client *http.Client

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier
	failed   time.Time // when discovery last failed
}

// discoveryPause keeps a dead issuer from being asked by every request.
const discoveryPause = 2 * time.Second

func newTokens(cfg config.OIDC) *tokens {
	return &tokens{cfg: cfg, client: &http.Client{Timeout: 5 * time.Second}}
}

func (t *tokens) principal(ctx context.Context, token string) (*principal, error) {
	verifier, err := t.discovered(ctx)
	if err != nil {
		return nil, err
	}
	verified, err := verifier.Verify(oidc.ClientContext(ctx, t.client), token)
	if err != nil {
		return nil, fmt.Errorf("a bearer token: %w", err)
	}
	var claims struct {
		Scope  string   `json:"scope"`
		Scopes []string `json:"scp"`
	}
	if err := verified.Claims(&claims); err != nil {
		return nil, fmt.Errorf("a bearer token: %w", err)
	}
	if verified.Subject == "" {
		return nil, errors.New("a bearer token that names nobody")
	}
	p := &principal{id: "oidc:" + verified.Subject, shown: "oidc"}
	for _, s := range append(strings.Fields(claims.Scope), claims.Scopes...) {
		if own, ok := strings.CutPrefix(s, t.cfg.ScopePrefix); ok {
			p.scopes = append(p.scopes, scope(own))
		}
	}
	return p, nil
}

func (t *tokens) discovered(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.verifier != nil {
		return t.verifier, nil
	}
	if time.Since(t.failed) < discoveryPause {
		return nil, later(http.StatusServiceUnavailable, discoveryPause, "the identity provider cannot be reached")
	}
	// The provider keeps its context for fetching keys later: it must not be the request's.
	provider, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), t.client), t.cfg.Issuer)
	if err != nil {
		t.failed = time.Now()
		return nil, later(http.StatusServiceUnavailable, discoveryPause, "the identity provider cannot be reached")
	}
	t.verifier = provider.Verifier(&oidc.Config{ClientID: t.cfg.Audience})
	return t.verifier, nil
}
