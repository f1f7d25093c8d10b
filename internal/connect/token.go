package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/internal/config"
)

// Token logs in until it expires.
type Token struct {
	Value   string
	Expires time.Time // zero: not known
}

// TokenSource gives tokens: an OAuth server, a file that somebody else renews, the signature of a cloud account. It is
// safe for concurrent use.
type TokenSource interface {
	Token(ctx context.Context) (Token, error)
}

// tokenError says that there is no token. Refused: asking again does not help.
type tokenError struct {
	from    string
	err     error
	refused bool
}

func (e *tokenError) Error() string { return fmt.Sprintf("no token from %s: %v", e.from, e.err) }

func (e *tokenError) Unwrap() []error {
	if e.refused {
		return []error{kafka.SASLAuthenticationFailed, e.err}
	}
	return []error{e.err}
}

// cachedToken asks for a token once for all connections and again when four fifths of its life are over.
type cachedToken struct {
	source TokenSource

	mu    sync.Mutex
	token Token
	renew time.Time // zero: at once
}

// Token implements TokenSource.
func (c *cachedToken) Token(ctx context.Context) (Token, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Before(c.renew) {
		return c.token, nil
	}
	fresh, err := c.source.Token(ctx)
	if err != nil {
		if now.Before(c.token.Expires) { // good for a while yet
			return c.token, nil
		}
		return Token{}, err
	}
	c.token, c.renew = fresh, time.Time{}
	if life := fresh.Expires.Sub(now); life > 0 {
		c.renew = now.Add(life * 4 / 5)
	}
	return fresh, nil
}

// forget makes the next connection ask for another token than one that was refused.
func (c *cachedToken) forget(refused Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token == refused {
		c.token, c.renew = Token{}, time.Time{}
	}
}

// newOAuthSource gives what security.sasl.oauth says: a token from a file, or one from a server for the client's
// credentials.
func newOAuthSource(cfg config.OAuth) (TokenSource, error) {
	if cfg.TokenFile != "" {
		s := tokenFile{cfg.TokenFile}
		_, err := s.read()
		return s, err
	}
	if _, err := config.Secret(cfg.ClientSecret, cfg.ClientSecretFile); err != nil {
		return nil, fmt.Errorf("security.sasl.oauth.client_secret_file: %w", err)
	}
	s := &clientCredentials{cfg: cfg}
	_, err := s.client()
	return s, err
}

// tokenFile is a token that somebody else renews, such as the kubelet.
type tokenFile struct{ path string }

// Token implements TokenSource.
func (f tokenFile) Token(context.Context) (Token, error) { return f.read() }

func (f tokenFile) read() (Token, error) {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return Token{}, fmt.Errorf("security.sasl.oauth.token_file: %w", err)
	}
	value := strings.TrimSpace(string(text))
	if value == "" || strings.ContainsAny(value, "\x00\x01\r\n ") {
		return Token{}, fmt.Errorf("security.sasl.oauth.token_file: %s does not hold a token and nothing else", f.path)
	}
	return Token{Value: value}, nil // asked for again at each connection
}

// clientCredentials is the grant of RFC 6749, section 4.4.
type clientCredentials struct{ cfg config.OAuth }

// tokenTimeout bounds one question for a token; a login has dialTimeout in all.
const tokenTimeout = 3 * time.Second

// Token implements TokenSource.
func (c *clientCredentials) Token(ctx context.Context) (Token, error) {
	fail := func(err error, refused bool) (Token, error) {
		return Token{}, &tokenError{c.cfg.TokenURL, err, refused}
	}
	secret, err := config.Secret(c.cfg.ClientSecret, c.cfg.ClientSecretFile)
	if err != nil {
		return fail(fmt.Errorf("security.sasl.oauth.client_secret_file: %w", err), false)
	}
	client, err := c.client()
	if err != nil {
		return fail(err, false)
	}
	defer client.CloseIdleConnections()
	form := url.Values{"grant_type": {"client_credentials"}}
	if c.cfg.Scope != "" {
		form.Set("scope", c.cfg.Scope)
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return fail(err, true)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	request.SetBasicAuth(url.QueryEscape(c.cfg.ClientID), url.QueryEscape(secret)) // section 2.3.1 encodes them first
	asked := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return fail(err, false)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return fail(err, false)
	}
	var answer struct {
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"`
		Error       string  `json:"error"`
		Description string  `json:"error_description"`
	}
	decoded := json.Unmarshal(body, &answer)
	switch {
	case response.StatusCode >= 400 && response.StatusCode < 500 && response.StatusCode != http.StatusTooManyRequests:
		return fail(fmt.Errorf("it refuses client %q (%s %s %s): check security.sasl.oauth.client_id, its secret and scope", c.cfg.ClientID, response.Status, answer.Error, answer.Description), true)
	case response.StatusCode != http.StatusOK:
		return fail(fmt.Errorf("it answers %s", response.Status), false)
	case decoded != nil || answer.AccessToken == "":
		return fail(errors.New("its answer holds no access_token: is security.sasl.oauth.token_url the token endpoint?"), true)
	}
	token := Token{Value: answer.AccessToken}
	if answer.ExpiresIn > 0 {
		token.Expires = asked.Add(time.Duration(answer.ExpiresIn * float64(time.Second)))
	} else {
		token.Expires = expiryOf(answer.AccessToken)
	}
	return token, nil
}

// client trusts the authority of ca_file as it is now, or the system's.
func (c *clientCredentials) client() (*http.Client, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.cfg.CAFile != "" {
		pem, err := os.ReadFile(c.cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("security.sasl.oauth.ca_file: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("security.sasl.oauth.ca_file: %s holds no PEM certificate", c.cfg.CAFile)
		}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: settings, Proxy: http.ProxyFromEnvironment}}, nil
}

// expiryOf reads the claim exp of a JSON web token; zero where it is none.
func expiryOf(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Expires float64 `json:"exp"`
	}
	if json.Unmarshal(text, &claims) != nil || claims.Expires <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Expires), 0)
}
