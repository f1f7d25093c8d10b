package connect

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/internal/config"
)

// tokenServer gives tokens to one client over HTTPS.
func tokenServer(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) config.OAuth {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(answer))
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return config.OAuth{
		TokenURL: server.URL, ClientID: "scorer:1", ClientSecretFile: writeFile(t, "secret", "s3cret %\n"), Scope: "kafka",
		CAFile: writeFile(t, "ca.pem", string(ca)),
	}
}

func TestAnOAuthServerGivesATokenForTheClientsCredentials(t *testing.T) {
	var asked atomic.Int64
	cfg := tokenServer(t, func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
		if r.Method != http.MethodPost || r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("scope") != "kafka" || id != "scorer:1" || secret != "s3cret %" {
			http.Error(w, `{"error":"invalid_client","error_description":"who?"}`, http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"bearer","expires_in":3600}`, asked.Add(1))
	})
	login, err := newLogin(config.SASL{Mechanism: "OAUTHBEARER", OAuth: cfg})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // one token serves many connections
		exchange, first, err := login.Start(t.Context())
		if err != nil || string(first) != "n,,\x01auth=Bearer token-1\x01\x01" {
			t.Fatalf("got %q, %v", first, err)
		}
		if done, _, err := exchange.Next(t.Context(), nil); !done || err != nil {
			t.Errorf("the broker's yes: %v, %v", done, err)
		}
	}
	exchange, _, err := login.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if done, _, err := exchange.Next(t.Context(), []byte(`{"status":"invalid_token"}`)); done || !errors.Is(err, kafka.SASLAuthenticationFailed) || !strings.Contains(err.Error(), "invalid_token") {
		t.Errorf("the broker's no: %v, %v", done, err)
	}
	if _, first, err := login.Start(t.Context()); err != nil || !strings.Contains(string(first), "token-2") {
		t.Errorf("after a token was refused: %q, %v", first, err)
	}
	if err := os.WriteFile(cfg.ClientSecretFile, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	source := &clientCredentials{cfg: cfg}
	_, err = source.Token(t.Context())
	if !errors.Is(err, kafka.SASLAuthenticationFailed) || !strings.Contains(err.Error(), cfg.TokenURL) || !strings.Contains(err.Error(), "invalid_client") || strings.Contains(err.Error(), "another") {
		t.Errorf("a wrong secret: %v", err)
	}
	if got := explain(err, []string{"kafka:9092"}, config.SASL{Mechanism: "OAUTHBEARER"}); !strings.Contains(got.Error(), "security.sasl.oauth.client_id") {
		t.Errorf("explained: %v", got)
	}
}

func TestFaultsOfATokenServerAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		answer  func(http.ResponseWriter, *http.Request)
		want    string
		refused bool
	}{
		"no token":    {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "no access_token", true},
		"out of work": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, "502", false},
	} {
		source := &clientCredentials{cfg: tokenServer(t, c.answer)}
		_, err := source.Token(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, kafka.SASLAuthenticationFailed) != c.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	untrusted := tokenServer(t, nil)
	untrusted.CAFile = ""
	if _, err := (&clientCredentials{cfg: untrusted}).Token(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an authority that is not trusted: %v", err)
	}
}

func TestATokenFileIsReadAtEachLogin(t *testing.T) {
	path := writeFile(t, "token", "first\n")
	login, err := newLogin(config.SASL{Mechanism: "OAUTHBEARER", OAuth: config.OAuth{TokenFile: path}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first", "second"} {
		if _, got, err := login.Start(t.Context()); err != nil || !strings.Contains(string(got), "Bearer "+want+"\x01") {
			t.Errorf("got %q, %v", got, err)
		}
		if err := os.WriteFile(path, []byte("second\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte("two tokens"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := login.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "security.sasl.oauth.token_file") {
		t.Errorf("got %v", err)
	}
}

func TestExpiryOfAToken(t *testing.T) {
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"a","exp":1700000000.5}`))
	for token, want := range map[string]time.Time{
		"a." + claims + ".b": time.Unix(1700000000, 0),
		"opaque":             {},
		"a.%%.b":             {},
		"a.bm8.b":            {},
	} {
		if got := expiryOf(token); !got.Equal(want) {
			t.Errorf("%s: %v", token, got)
		}
	}
}

// TestPresignAgreesWithThePublishedExample: the example of
// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
func TestPresignAgreesWithThePublishedExample(t *testing.T) {
	got := presign(presignRequest{
		host: "examplebucket.s3.amazonaws.com", path: "/test.txt", region: "us-east-1", service: "s3", payload: "UNSIGNED-PAYLOAD",
		at: time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC), life: 24 * time.Hour,
	}, awsCredentials{id: "AKIAIOSFODNN7EXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"})
	const want = "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
	if got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

// TestSigningKeyAgreesWithThePublishedExample: the one of
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
func TestSigningKeyAgreesWithThePublishedExample(t *testing.T) {
	key := signingKey("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1", "iam")
	if got := fmt.Sprintf("%x", key); got != "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9" {
		t.Errorf("got %s", got)
	}
}

func TestMSKTokenIsASignedURLOfConnect(t *testing.T) {
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	source := newMSKSource(config.AWS{Region: "eu-central-1", AccessKeyID: "ID", SecretAccessKey: config.Hide("secret"), SessionToken: config.Hide("a+b/c=")})
	source.now = func() time.Time { return at }
	token, err := source.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := base64.RawURLEncoding.DecodeString(token.Value)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if u.Host != "kafka.eu-central-1.amazonaws.com" || u.Scheme != "https" || q.Get("Action") != "kafka-cluster:Connect" || q.Get("X-Amz-Expires") != "900" ||
		q.Get("X-Amz-Date") != "20261122T080000Z" || q.Get("X-Amz-Credential") != "ID/20261122/eu-central-1/kafka-cluster/aws4_request" ||
		q.Get("X-Amz-Security-Token") != "a+b/c=" || len(q.Get("X-Amz-Signature")) != 64 || q.Get("User-Agent") != "churnstream" {
		t.Errorf("got %s", text)
	}
	if !token.Expires.Equal(at.Add(15 * time.Minute)) {
		t.Errorf("expires %v", token.Expires)
	}
}

func TestKeysOfAnAccountComeFromThePlatform(t *testing.T) {
	const keys = `{"AccessKeyId":"ID","SecretAccessKey":"S","Token":"T","Expiration":"2026-11-22T09:00:00Z"}`
	platform := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/agent" && r.Header.Get("Authorization") == "pod-token":
			fmt.Fprint(w, keys)
		case r.URL.Path == "/latest/api/token" && r.Method == http.MethodPut && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "":
			fmt.Fprint(w, "session")
		case r.URL.Path == "/latest/meta-data/iam/security-credentials/" && r.Header.Get("X-aws-ec2-metadata-token") == "session":
			fmt.Fprint(w, "role\n")
		case r.URL.Path == "/latest/meta-data/iam/security-credentials/role" && r.Header.Get("X-aws-ec2-metadata-token") == "session":
			fmt.Fprint(w, keys)
		case r.URL.Path == "/sts" && r.PostFormValue("Action") == "AssumeRoleWithWebIdentity" && r.PostFormValue("RoleArn") == "arn" && r.PostFormValue("WebIdentityToken") == "web-token":
			fmt.Fprint(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>
				<AccessKeyId>ID</AccessKeyId><SecretAccessKey>S</SecretAccessKey><SessionToken>T</SessionToken><Expiration>2026-11-22T09:00:00Z</Expiration>
				</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`)
		default:
			http.Error(w, "s3cret of the platform", http.StatusForbidden)
		}
	}))
	defer platform.Close()
	want := awsCredentials{"ID", "S", "T", time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)}
	chain := func(cfg config.AWS) *awsChain {
		return &awsChain{cfg: cfg, instance: platform.URL, sts: platform.URL + "/sts"}
	}
	for name, a := range map[string]*awsChain{
		"web identity": chain(config.AWS{RoleARN: "arn", WebIdentityTokenFile: writeFile(t, "web", "web-token\n")}),
		"agent":        chain(config.AWS{CredentialsURL: platform.URL + "/agent", CredentialsTokenFile: writeFile(t, "pod", "pod-token\n")}),
		"instance":     chain(config.AWS{}),
	} {
		if got, err := a.credentials(t.Context()); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	_, err := chain(config.AWS{RoleARN: "other", WebIdentityTokenFile: writeFile(t, "web", "web-token")}).credentials(t.Context())
	if err == nil || !strings.Contains(err.Error(), "403") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("refused: %v", err)
	}
}
