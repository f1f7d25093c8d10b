package connect

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/churnstream/churnstream/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTransportWithoutSecurityHasNeitherTLSNorALogin(t *testing.T) {
	transport, err := Transport("a-client", config.Security{TLS: config.TLS{CAFile: "/not/read"}})
	if err != nil {
		t.Fatal(err)
	}
	if transport.TLS != nil || transport.SASL != nil || transport.ClientID != "a-client" {
		t.Errorf("got a login or TLS, or client id %q", transport.ClientID)
	}
}

func TestTLSIsAsConfigured(t *testing.T) {
	c := newCertificate(t, "broker.example")
	files := &tlsFiles{key: "security.tls", cfg: config.TLS{
		Enabled: true, CAFile: c.certFile, CertFile: c.certFile, KeyFile: c.keyFile, ServerName: "broker.example",
	}, now: time.Now}
	got, err := files.settings()
	if err != nil {
		t.Fatal(err)
	}
	if got.MinVersion != tls.VersionTLS12 || got.ServerName != "broker.example" || got.InsecureSkipVerify || len(got.Certificates) != 1 {
		t.Errorf("got %+v", got)
	}
	only := x509.NewCertPool()
	only.AddCert(c.leaf)
	if !got.RootCAs.Equal(only) {
		t.Error("what is trusted is not the CA of the file and nothing else")
	}
	system, err := (&tlsFiles{key: "security.tls", cfg: config.TLS{Enabled: true}, now: time.Now}).settings()
	if err != nil || system.RootCAs != nil || len(system.Certificates) != 0 {
		t.Errorf("without files: %+v, %v", system, err)
	}
}

// TestCertificatesRotate replaces the files of the client and of what it trusts while the transport lives.
func TestCertificatesRotate(t *testing.T) {
	first, second := newCertificate(t, "localhost"), newCertificate(t, "localhost")
	replace := func(with certificate, paths ...string) {
		t.Helper()
		for i, from := range []string{with.certFile, with.certFile, with.keyFile}[:len(paths)] {
			text, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(paths[i], text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	ca, cert, key := writeFile(t, "ca", ""), writeFile(t, "cert", ""), writeFile(t, "key", "")
	replace(first, ca, cert, key)
	files := &tlsFiles{key: "security.tls", cfg: config.TLS{Enabled: true, CAFile: ca, CertFile: cert, KeyFile: key}, now: time.Now}
	in := func(want certificate) {
		t.Helper()
		got, err := files.settings()
		if err != nil {
			t.Fatal(err)
		}
		only := x509.NewCertPool()
		only.AddCert(want.leaf)
		if !got.RootCAs.Equal(only) || !got.Certificates[0].Leaf.Equal(want.leaf) {
			t.Error("the settings are not of the certificate that is there")
		}
	}
	in(first)
	before, _ := files.settings()
	if again, _ := files.settings(); again != before {
		t.Error("files that did not change are read into other settings")
	}
	if err := os.WriteFile(cert, []byte("half of a"), 0o600); err != nil { // in the middle of the replacement
		t.Fatal(err)
	}
	in(first)
	if fault := files.newestFault(); fault == nil || !strings.Contains(fault.Error(), "security.tls.cert_file") {
		t.Errorf("the fault of the newest files is %v", fault)
	}
	replace(second, ca, cert, key)
	in(second)
	if fault := files.newestFault(); fault != nil {
		t.Errorf("a fault of files that are in use: %v", fault)
	}
	files.now = func() time.Time { return second.leaf.NotAfter.Add(time.Second) }
	var expired *expiredError
	if _, err := files.settings(); !errors.As(err, &expired) || !strings.Contains(err.Error(), cert) || !strings.Contains(err.Error(), second.leaf.NotAfter.UTC().Format(time.RFC3339)) {
		t.Errorf("an expired certificate: %v", err)
	}
}

func TestTransportLogsInAsConfigured(t *testing.T) {
	password := writeFile(t, "password", " a secret with a space \r\n")
	for _, name := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		transport, err := Transport("", config.Security{SASL: config.SASL{Mechanism: name, Username: "alice", PasswordFile: password}})
		if err != nil {
			t.Fatal(err)
		}
		if transport.SASL.Name() != name {
			t.Errorf("%s became %s", name, transport.SASL.Name())
		}
	}
	login := passwordLogin{config.SASL{Mechanism: "PLAIN", Username: "alice", PasswordFile: password}}
	for _, want := range []string{"alice\x00 a secret with a space ", "alice\x00rotated"} {
		_, first, err := login.Start(t.Context())
		if err != nil || !strings.HasSuffix(string(first), want) {
			t.Errorf("got %q, want %q, %v", first, want, err)
		}
		if err := os.WriteFile(password, []byte("rotated\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	given := passwordLogin{config.SASL{Mechanism: "PLAIN", Username: "alice", Password: config.Hide("by environment")}}
	if _, first, err := given.Start(t.Context()); err != nil || !strings.HasSuffix(string(first), "\x00by environment") {
		t.Errorf("got %q, %v", first, err)
	}
	if text := fmt.Sprintf("%v %+v %#v", given, given, given); strings.Contains(text, "by environment") {
		t.Errorf("a secret is printed: %s", text)
	}
}

func TestFaultsOfTheSecuritySettingsNameTheirKey(t *testing.T) {
	c, other := newCertificate(t, "a"), newCertificate(t, "b")
	empty, password := writeFile(t, "empty", "no PEM in here"), writeFile(t, "password", "x")
	for name, c := range map[string]struct {
		security config.Security
		want     []string
	}{
		"no CA file":          {config.Security{TLS: config.TLS{Enabled: true, CAFile: "/no/ca.pem"}}, []string{"security.tls.ca_file", "/no/ca.pem"}},
		"no CA in the file":   {config.Security{TLS: config.TLS{Enabled: true, CAFile: empty}}, []string{"security.tls.ca_file", empty, "no PEM certificate"}},
		"no client key":       {config.Security{TLS: config.TLS{Enabled: true, CertFile: c.certFile, KeyFile: "/no/key.pem"}}, []string{"security.tls.cert_file and key_file", "/no/key.pem"}},
		"another's key":       {config.Security{TLS: config.TLS{Enabled: true, CertFile: c.certFile, KeyFile: other.keyFile}}, []string{"security.tls.cert_file and key_file", "does not match"}},
		"no password":         {config.Security{SASL: config.SASL{Mechanism: "PLAIN", PasswordFile: "/no/password"}}, []string{"security.sasl.password_file", "/no/password"}},
		"an unknown login":    {config.Security{SASL: config.SASL{Mechanism: "GSSAPI", PasswordFile: password}}, []string{"security.sasl.mechanism", "GSSAPI", "SCRAM-SHA-512"}},
		"SCRAM without ASCII": {config.Security{SASL: config.SASL{Mechanism: "SCRAM-SHA-256", Username: "\x00", PasswordFile: password}}, []string{"security.sasl", "SCRAM-SHA-256"}},
	} {
		_, err := Transport("", c.security)
		if err == nil {
			t.Errorf("%s is taken", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not named in: %v", name, want, err)
			}
		}
	}
}

// certificate signs itself and is good for a server, a client and an authority.
type certificate struct {
	certFile, keyFile string
	leaf              *x509.Certificate
	pair              tls.Certificate
}

func newCertificate(t *testing.T, name string) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	c := certificate{certFile: writeFile(t, name+".crt", string(certPEM)), keyFile: writeFile(t, name+".key", string(keyPEM))}
	if c.leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if c.pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	return c
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
