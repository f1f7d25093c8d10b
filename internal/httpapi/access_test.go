package httpapi

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit"
)

// issuer is an identity provider with one key.
type issuer struct {
	*httptest.Server
	key *rsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"id_token_signing_alg_values_supported":["RS256","HS256","none"]}`, i.URL, i.URL+"/keys")
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"keys":[{"kty":"RSA","kid":"one","alg":"RS256","use":"sig","n":%q,"e":"AQAB"}]}`, base64.RawURLEncoding.EncodeToString(key.N.Bytes()))
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

func segment(v any) string {
	text, _ := json.Marshal(v)
	return base64.RawURLEncoding.EncodeToString(text)
}

// token signs claims; changes replace them.
func (i *issuer) token(t *testing.T, alg string, changes map[string]any) string {
	t.Helper()
	claims := map[string]any{"iss": i.URL, "aud": "churnstream", "sub": "u", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "scope": "openid churnstream:predict"}
	for name, value := range changes {
		claims[name] = value
	}
	signed := segment(map[string]string{"alg": alg, "kid": "one", "typ": "JWT"}) + "." + segment(claims)
	var signature []byte
	switch alg {
	case "RS256":
		digest := sha256.Sum256([]byte(signed))
		var err error
		if signature, err = rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, digest[:]); err != nil {
			t.Fatal(err)
		}
	case "HS256": // the public key as the secret of a symmetric algorithm
		public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&i.key.PublicKey)})
		mac := hmac.New(sha256.New, public)
		mac.Write([]byte(signed))
		signature = mac.Sum(nil)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func writeKeys(t *testing.T, path string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T, name string, expires string, scopes ...string) (key, line string) {
	t.Helper()
	key, line, err := NewAPIKey(name, scopes, expires)
	if err != nil {
		t.Fatal(err)
	}
	return key, line
}

func TestAuthenticationCannotBeBypassed(t *testing.T) {
	provider, stranger := newIssuer(t), newIssuer(t)
	predicting, predictLine := newKey(t, "crm", "", "predict")
	next, nextLine := newKey(t, "crm", "", "predict")
	reading, readLine := newKey(t, "bi", "2999-01-01", "read")
	expired, expiredLine := newKey(t, "old", "2020-01-01", "predict", "read", "admin")
	path := filepath.Join(t.TempDir(), "keys")
	writeKeys(t, path, "# clients", predictLine, nextLine, readLine, expiredLine)
	s := start(t, nil, func(c *config.HTTP) {
		c.Auth.KeysFile = path
		c.Auth.OIDC.Issuer, c.Auth.OIDC.Audience = provider.URL, "churnstream"
	})
	s.failures = newRateLimit(1, 1000)
	good := provider.token(t, "RS256", nil)
	signed := strings.LastIndex(good, ".")
	hash := strings.Fields(predictLine)[2]
	bearer := func(secret string) []string { return []string{"Authorization", "Bearer " + secret} }
	for name, c := range map[string]struct {
		header []string
		status int
	}{
		"key":                      {bearer(predicting), 200},
		"key beside it":            {bearer(next), 200},
		"key in its own header":    {[]string{"X-API-Key", predicting}, 200},
		"token":                    {bearer(good), 200},
		"token of several":         {bearer(provider.token(t, "RS256", map[string]any{"aud": []string{"other", "churnstream"}})), 200},
		"scopes as a list":         {bearer(provider.token(t, "RS256", map[string]any{"scope": "", "scp": []string{"churnstream:predict"}})), 200},
		"nothing":                  {nil, 401},
		"empty":                    {[]string{"Authorization", ""}, 401},
		"empty bearer":             {bearer(""), 401},
		"basic":                    {[]string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("crm:"+predicting))}, 401},
		"unknown key":              {bearer(predicting[:len(predicting)-2] + "xx"), 401},
		"part of a key":            {bearer(predicting[:20]), 401},
		"key and more":             {bearer(predicting + "x"), 401},
		"prefix":                   {bearer(keyPrefix), 401},
		"hash of a key":            {bearer(hash), 401},
		"hash as a key":            {bearer(keyPrefix + hash), 401},
		"expired key":              {bearer(expired), 401},
		"key of another scope":     {bearer(reading), 403},
		"two keys":                 {append(bearer(predicting), bearer(reading)...), 401},
		"two headers":              {append(bearer(predicting), "X-API-Key", expired), 401},
		"token as key":             {[]string{"X-API-Key", good}, 401},
		"token without scope":      {bearer(provider.token(t, "RS256", map[string]any{"scope": "openid"})), 403},
		"token of a like scope":    {bearer(provider.token(t, "RS256", map[string]any{"scope": "predict xchurnstream:predict churnstream:predicts"})), 403},
		"token of another scope":   {bearer(provider.token(t, "RS256", map[string]any{"scope": "churnstream:read"})), 403},
		"expired token":            {bearer(provider.token(t, "RS256", map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})), 401},
		"token without expiry":     {bearer(provider.token(t, "RS256", map[string]any{"exp": nil})), 401},
		"token of tomorrow":        {bearer(provider.token(t, "RS256", map[string]any{"nbf": time.Now().Add(24 * time.Hour).Unix()})), 401},
		"wrong audience":           {bearer(provider.token(t, "RS256", map[string]any{"aud": "other"})), 401},
		"no audience":              {bearer(provider.token(t, "RS256", map[string]any{"aud": nil})), 401},
		"nobody":                   {bearer(provider.token(t, "RS256", map[string]any{"sub": ""})), 401},
		"wrong issuer":             {bearer(provider.token(t, "RS256", map[string]any{"iss": stranger.URL})), 401},
		"key of another issuer":    {bearer(stranger.token(t, "RS256", map[string]any{"iss": provider.URL})), 401},
		"alg none":                 {bearer(provider.token(t, "none", nil)), 401},
		"alg None":                 {bearer(provider.token(t, "None", nil)), 401},
		"alg none, no signature":   {bearer(strings.TrimSuffix(provider.token(t, "none", nil), ".")), 401},
		"public key as a secret":   {bearer(provider.token(t, "HS256", nil)), 401},
		"signature gone":           {bearer(good[:signed+1]), 401},
		"signature of another":     {bearer(provider.token(t, "RS256", map[string]any{"sub": "admin"})[:signed] + good[signed:]), 401},
		"dots":                     {bearer("..."), 401},
		"forwarded identity":       {[]string{"X-Forwarded-User", "admin", "X-Forwarded-For", "127.0.0.1"}, 401},
		"method in a header":       {[]string{"X-HTTP-Method-Override", "GET"}, 401},
		"identity in a request id": {[]string{"X-Request-Id", "admin"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 0), c.header...)
			if r.status != c.status {
				t.Errorf("status %d, want %d: %s", r.status, c.status, r.body)
			}
			if r.status != 200 {
				wantProblem(t, r, c.status)
			}
			if r.status == 401 && r.header.Get("WWW-Authenticate") == "" {
				t.Error("401 without WWW-Authenticate")
			}
		})
	}
	for _, open := range []string{"/livez", "/readyz", "/health", "/docs", "/openapi.json"} {
		if r := s.do(t, "GET", open, "", ""); r.status != 200 {
			t.Errorf("%s: %d", open, r.status)
		}
	}
	for _, path := range []string{"/v1/metadata", "/v1/models", "/metrics"} {
		for _, method := range []string{"GET", "HEAD"} {
			if r := s.do(t, method, path, "", ""); r.status != 401 {
				t.Errorf("%s %s without credentials: %d", method, path, r.status)
			}
		}
		if r := s.do(t, "GET", path, "", "", bearer(reading)...); r.status != 200 {
			t.Errorf("%s: %d", path, r.status)
		}
	}
	for _, secret := range []string{predicting, reading, good, expired} {
		if strings.Contains(s.log.String(), secret) {
			t.Error("the log holds a credential")
		}
	}
}

func TestKeysAreRotatedWithoutARestart(t *testing.T) {
	old, oldLine := newKey(t, "crm", "", "predict")
	fresh, freshLine := newKey(t, "crm", "", "predict")
	path := filepath.Join(t.TempDir(), "keys")
	writeKeys(t, path, oldLine)
	k, err := openKeyring(path, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	k.now = func() time.Time { return now }
	ask := func(key string, want bool) {
		t.Helper()
		now = now.Add(lookEvery)
		if _, err := k.principal(key); (err == nil) != want {
			t.Errorf("%v, want admitted: %v", err, want)
		}
	}
	ask(old, true)
	ask(fresh, false)
	writeKeys(t, path, oldLine, freshLine)
	ask(old, true)
	ask(fresh, true)
	writeKeys(t, path, freshLine, "")
	ask(old, false)
	ask(fresh, true)
	writeKeys(t, path, "what is this")
	ask(fresh, true)
	if k.fault() == nil {
		t.Error("a broken file is not told of")
	}
}

func TestAKeysFileThatIsAwayForAMomentIsInForceAgain(t *testing.T) {
	key, line := newKey(t, "crm", "", "predict")
	other, otherLine := newKey(t, "crm", "", "predict")
	path := filepath.Join(t.TempDir(), "keys")
	writeKeys(t, path, line)
	s := start(t, nil, func(c *config.HTTP) { c.Auth.KeysFile = path })
	now := time.Now()
	s.auth.keys.now = func() time.Time { return now }
	ready := func(want ...string) { // no request carries a key: an idle server notices, too
		t.Helper()
		now = now.Add(lookEvery)
		r := s.do(t, "GET", "/readyz", "", "")
		if (r.status == 200) != (want == nil) {
			t.Errorf("%d: %s", r.status, r.body)
		}
		for _, w := range want {
			if !strings.Contains(string(r.body), w) {
				t.Errorf("no %q in %s", w, r.body)
			}
		}
		if strings.Contains(string(r.body), path) || strings.Contains(string(r.body), "secret") {
			t.Errorf("the answer tells too much: %s", r.body)
		}
	}
	admits := func(key string, want int) {
		t.Helper()
		if r := s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 0), "X-API-Key", key); r.status != want {
			t.Errorf("%d, want %d", r.status, want)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	ready()
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	ready("no such file")
	ready("no such file")
	admits(key, 200)
	if err := os.Rename(path+".away", path); err != nil { // its time and size are as before
		t.Fatal(err)
	}
	ready()
	writeKeys(t, path, line, "secret predict", "", "cs1_secret predict "+line)
	ready("line 2, 4")
	ready("line 2, 4")
	admits(key, 200)
	writeKeys(t, path, otherLine) // of the same size, and of the same time
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	ready()
	admits(other, 200)
	admits(key, 401)
	for _, cause := range []string{"no such file", "line 2: 2 fields"} {
		if n := strings.Count(s.log.String(), cause); n != 1 {
			t.Errorf("%q is %d times in the log: %s", cause, n, s.log.String())
		}
	}
	if strings.Contains(s.log.String(), "cs1_secret") {
		t.Error("the log holds a key that was written into the file")
	}
}

func TestFilesOfKeysNameTheirFaults(t *testing.T) {
	_, line := newKey(t, "crm", "", "predict")
	hash := strings.Fields(line)[2]
	for text, want := range map[string]string{
		"":                                     "holds no key",
		"crm predict":                          "2 fields",
		"crm write " + hash:                    "not one of the scopes",
		"crm predict " + hash[:63]:             "64 hexadecimal",
		"crm predict cs1_abc":                  "never write the key itself",
		"cs1_abc predict " + hash:              "never write the key itself",
		"c/m predict " + hash:                  "not a name",
		"crm predict " + hash + " never":       "not a day",
		line + "\n" + line:                     "same key",
		"a b\nc d\n" + strings.Repeat("x ", 9): "line 3",
	} {
		if _, err := parseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestMutualTLSNamesThePrincipal(t *testing.T) {
	dir := t.TempDir()
	authority := newAuthority(t)
	authority.write(t, dir, "server", "localhost")
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), authority.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, nil, func(c *config.HTTP) {
		c.TLS = config.HTTPTLS{CertFile: filepath.Join(dir, "server.pem"), KeyFile: filepath.Join(dir, "server.key"), ClientCAFile: filepath.Join(dir, "ca.pem"), ClientScopes: []string{"read"}}
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.pem)
	call := func(method, path string, settings *tls.Config) (int, error) {
		settings.RootCAs = roots
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: settings}}
		defer client.CloseIdleConnections()
		s.http = client
		r, err := s.try(t.Context(), method, path, typeJSON, strings.NewReader("{}"))
		return r.status, err
	}
	own := authority.issue(t, "crm")
	foreign := newAuthority(t).issue(t, "crm")
	for name, c := range map[string]struct {
		method, path string
		settings     *tls.Config
		status       int // 0: no connection
	}{
		"own certificate":            {"GET", "/v1/metadata", &tls.Config{Certificates: []tls.Certificate{own}}, 200},
		"its scope":                  {"POST", "/v1/predict", &tls.Config{Certificates: []tls.Certificate{own}}, 403},
		"none":                       {"GET", "/v1/metadata", &tls.Config{}, 401},
		"of another authority":       {"GET", "/v1/metadata", &tls.Config{Certificates: []tls.Certificate{foreign}, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &foreign, nil }}, 0},
		"TLS 1.1":                    {"GET", "/livez", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, 0},
		"TLS 1.2 without being told": {"GET", "/livez", &tls.Config{MaxVersion: tls.VersionTLS12}, 200},
	} {
		status, err := call(c.method, c.path, c.settings)
		if status != c.status || (err == nil) != (c.status != 0) {
			t.Errorf("%s: %d, %v; want %d", name, status, err, c.status)
		}
	}
}

// authority signs certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) write(t *testing.T, dir, file, name string) {
	t.Helper()
	pair := a.issue(t, name)
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{file + ".pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, file + ".key": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPrincipalIsHeldToItsRate(t *testing.T) {
	first, firstLine := newKey(t, "a", "", "read")
	again, againLine := newKey(t, "a", "", "read")
	other, otherLine := newKey(t, "b", "", "read")
	path := filepath.Join(t.TempDir(), "keys")
	writeKeys(t, path, firstLine, againLine, otherLine)
	s := start(t, nil, func(c *config.HTTP) { c.Auth.KeysFile, c.Limits.Rate, c.Limits.Burst = path, 0.5, 2 })
	ask := func(key string) reply { return s.do(t, "GET", "/v1/metadata", "", "", "Authorization", "Bearer "+key) }
	if r := ask(first); r.status != 200 || r.header.Get("RateLimit") != `"principal";r=1;t=2` || r.header.Get("RateLimit-Policy") != `"principal";q=2;w=4` {
		t.Errorf("%d %v", r.status, r.header)
	}
	if r := ask(again); r.status != 200 {
		t.Errorf("second: %d", r.status)
	}
	r := ask(first)
	wantProblem(t, r, 429)
	if r.header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After %q", r.header.Get("Retry-After"))
	}
	if r := ask(other); r.status != 200 {
		t.Errorf("another principal: %d", r.status)
	}
}

func TestBeyondTheConcurrencyRequestsAreShedAtOnce(t *testing.T) {
	s := start(t, nil, func(c *config.HTTP) { c.Limits.Concurrency = 2 })
	var held []*io.PipeWriter
	answers := make(chan int, 2)
	for range 2 {
		body, w := io.Pipe()
		held = append(held, w)
		go func() {
			r, err := s.try(t.Context(), "POST", "/v1/predict", typeJSON, body)
			if err != nil {
				t.Error(err)
			}
			answers <- r.status
		}()
		if _, err := w.Write([]byte("{")); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, 10*time.Second, func() bool { return s.inFlight.Load() == 2 }, "two requests are under way")
	r := s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 0))
	wantProblem(t, r, 503)
	if r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if r := s.do(t, "GET", "/livez", "", ""); r.status != 200 {
		t.Errorf("a probe was shed: %d", r.status)
	}
	for _, w := range held {
		if _, err := w.Write([]byte(customerJSON(t, 0)[1:])); err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
	for range 2 {
		if status := <-answers; status != 200 {
			t.Errorf("a request that had its place: %d", status)
		}
	}
	if r := s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 0)); r.status != 200 {
		t.Errorf("afterwards: %d", r.status)
	}
}

func TestCompressedBodiesAreUnpackedWithinTheLimit(t *testing.T) {
	s := start(t, nil)
	pack := func(text io.Reader) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := io.Copy(w, text); err != nil {
			t.Fatal(err)
		}
		w.Close()
		return b.String()
	}
	good := pack(strings.NewReader(customerJSON(t, 0)))
	if r := s.do(t, "POST", "/v1/predict", typeJSON, good, "Content-Encoding", "gzip"); r.status != 200 {
		t.Errorf("%d: %s", r.status, r.body)
	}
	bomb := strings.Repeat(pack(strings.NewReader(strings.Repeat(" ", 1<<20))), 256) // of as many members
	began := time.Now()
	wantProblem(t, s.do(t, "POST", "/v1/predict", typeJSON, bomb, "Content-Encoding", "gzip"), 413)
	wantProblem(t, s.do(t, "POST", "/v1/predict:batch", typeNDJSON, bomb, "Content-Encoding", "gzip"), 413)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the bomb took %v", took)
	}
	wantProblem(t, s.do(t, "POST", "/v1/predict", typeJSON, good[:len(good)-9], "Content-Encoding", "gzip"), 400)
	wantProblem(t, s.do(t, "POST", "/v1/predict", typeJSON, "{}", "Content-Encoding", "gzip"), 400)
	wantProblem(t, s.do(t, "POST", "/v1/predict", typeJSON, "{}", "Content-Encoding", "br"), 415)
	wantProblem(t, s.do(t, "POST", "/v1/predict", typeJSON, good, "Content-Encoding", "gzip, gzip"), 415)
}

func TestSlowAndHugeRequestsAreCut(t *testing.T) {
	s := start(t, nil, func(c *config.HTTP) {
		c.Limits.ReadTimeout, c.Limits.IdleTimeout = config.Duration(300*time.Millisecond), config.Duration(300*time.Millisecond)
	})
	for name, c := range map[string]struct{ sent, want string }{
		"a request line that never ends": {"GET /livez", ""},
		"headers that never end":         {"GET /livez HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n", ""},
		"a body that never comes":        {"POST /v1/predict HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n{", " 408 "},
		"nothing":                        {"", ""},
		"huge headers":                   {"GET /livez HTTP/1.1\r\nHost: h\r\nX-A: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", " 431 "},
		"many headers":                   {"GET /livez HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X-A: aaaaaaaa\r\n", 4<<10) + "\r\n", " 431 "},
		"no host":                        {"GET /livez HTTP/1.1\r\n\r\n", " 400 "},
		"two lengths":                    {"POST /v1/predict HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", " 400 "},
		"length and chunks":              {"POST /v1/predict HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked, x\r\n\r\n{}", " 501 "},
	} {
		connection, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(connection, c.sent) // it may be cut while we send
		began := time.Now()
		text, err := io.ReadAll(connection)
		if took := time.Since(began); took > 5*time.Second || err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: after %v: %v", name, took, err)
		}
		if !strings.Contains(string(text), c.want) {
			t.Errorf("%s: %q, want %q", name, text, c.want)
		}
		connection.Close()
	}
}

func TestOtherOriginsAreShutOutUnlessNamed(t *testing.T) {
	s := start(t, nil, func(c *config.HTTP) { c.CORSOrigins = []string{"https://crm.example"} })
	ask := func(origin string) reply {
		return s.do(t, "OPTIONS", "/v1/predict", "", "", "Origin", origin, "Access-Control-Request-Method", "POST")
	}
	if r := ask("https://crm.example"); r.status != 204 || r.header.Get("Access-Control-Allow-Origin") != "https://crm.example" {
		t.Errorf("%d %v", r.status, r.header)
	}
	if r := ask("https://evil.example"); r.status != 405 || r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", r.status, r.header)
	}
}

func TestRequestsAreLoggedWithoutPersonalData(t *testing.T) {
	s := start(t, nil)
	r := s.do(t, "POST", "/v1/predict", typeJSON, with(customerJSON(t, 0), `"customer_id":"secret-customer"`),
		"X-Request-Id", "abc-1", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if r.header.Get("X-Request-Id") != "abc-1" {
		t.Errorf("request id %q", r.header.Get("X-Request-Id"))
	}
	if r := s.do(t, "GET", "/v1/metadata", "", "", "X-Request-Id", "a b\"c", "Traceparent", "00-0-0-0"); r.header.Get("X-Request-Id") == "a b\"c" {
		t.Error("an unsafe request id was taken over")
	}
	s.do(t, "GET", "/v1/customers/secret-customer/score", "", "")
	testkit.Eventually(t, 5*time.Second, func() bool { return strings.Count(s.log.String(), `"message":"request"`) == 3 }, "three lines")
	log := s.log.String()
	for _, want := range []string{`"request_id":"abc-1"`, `"trace_id":"0af7651916cd43dd8448eb211c80319c"`, `"route":"/v1/predict"`, `"status":200`, `"latency":`, `"model_version":`} {
		if !strings.Contains(log, want) {
			t.Errorf("%s is not in %s", want, log)
		}
	}
	if strings.Contains(log, "secret-customer") || strings.Contains(log, "127.0.0.1") {
		t.Errorf("personal data in %s", log)
	}
}

func TestAPanicIsA500WithoutItsStack(t *testing.T) {
	s := start(t, nil)
	s.routes["GET /panic"] = route{name: "/panic", free: true}
	s.mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("inside") })
	r := s.do(t, "GET", "/panic", "", "")
	wantProblem(t, r, 500)
	if strings.Contains(string(r.body), "inside") || !strings.Contains(s.log.String(), "inside") {
		t.Errorf("answer %s, log %s", r.body, s.log.String())
	}
}

func TestTheDocumentationNeedsNoOtherServer(t *testing.T) {
	s := start(t, nil)
	page := string(s.do(t, "GET", "/docs", "", "").body)
	if found := regexp.MustCompile(`(?i)(src|href)="?(https?:)?//|@import|url\(`).FindString(page); found != "" {
		t.Errorf("the page asks for %q", found)
	}
	for _, want := range []string{"/v1/predict:batch", "CustomerInputs", "MonthlyCharges", "churn_probability"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
}

func TestThePythonClientRunsAsItIsServed(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 on this machine: the client is not run")
	}
	key, line := newKey(t, "crm", "", "predict")
	path := filepath.Join(t.TempDir(), "keys")
	writeKeys(t, path, line)
	s := start(t, nil, func(c *config.HTTP) { c.Auth.KeysFile = path })
	run := func(key string) (string, error) {
		command := exec.CommandContext(t.Context(), python, "-")
		command.Stdin = bytes.NewReader(s.do(t, "GET", "/docs/client.py", "", "").body)
		command.Env = append(os.Environ(), "CHURNSTREAM_URL="+s.url, "CHURNSTREAM_KEY="+key)
		out, err := command.CombinedOutput()
		return string(out), err
	}
	out, err := run(key)
	if err != nil || decode[Prediction](t, []byte(out)).ModelVersion != s.deps.Model.Version() {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := run("wrong"); err == nil || !strings.Contains(out, "Problem: 401") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestExamplesOfTheDocumentRun asks every operation as the document shows it.
func TestExamplesOfTheDocumentRun(t *testing.T) {
	s := start(t, nil)
	var document struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			RequestBody struct {
				Content map[string]struct {
					Example json.RawMessage `json:"example"`
				} `json:"content"`
			} `json:"requestBody"`
			Responses map[string]json.RawMessage `json:"responses"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(s.do(t, "GET", "/openapi.json", "", "").body, &document); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(document.OpenAPI, "3.1.") || len(document.Paths) < 8 {
		t.Fatalf("version %s, %d paths", document.OpenAPI, len(document.Paths))
	}
	for path, methods := range document.Paths {
		for method, operation := range methods {
			body := operation.RequestBody.Content[typeJSON].Example
			r := s.do(t, strings.ToUpper(method), path, typeJSON, string(body))
			if _, documented := operation.Responses[fmt.Sprint(r.status)]; r.status != 200 || !documented {
				t.Errorf("%s %s: %d, documented: %v: %s", method, path, r.status, documented, r.body)
			}
		}
	}
}
