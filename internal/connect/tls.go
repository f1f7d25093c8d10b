package connect

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/churnstream/churnstream/internal/config"
)

// handshakeWith begins the errors of a handshake.
const handshakeWith = "TLS handshake with "

// tlsFiles gives TLS settings from files that may be replaced at any time: each connection is made with what they hold
// then. While they hold nothing usable, as in the middle of a replacement, what they held before goes on to serve.
type tlsFiles struct {
	key string // of the section, for messages
	cfg config.TLS
	now func() time.Time

	mu      sync.Mutex
	read    [3][]byte // what current was made of
	current *tls.Config
	fault   error // of the newest read; nil: current is of it
}

// expiredError says that our own certificate is of no use any more.
type expiredError struct {
	key, file string
	at        time.Time
}

func (e *expiredError) Error() string {
	return fmt.Sprintf("%s.cert_file: the client certificate in %s expired at %s; put a new one in its place (no restart is needed)", e.key, e.file, e.at.UTC().Format(time.RFC3339))
}

// settings reads the files and gives the newest usable settings.
func (f *tlsFiles) settings() (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh, err := f.loadLocked()
	if err == nil && fresh != nil {
		f.current = fresh
	}
	f.fault = err
	if f.current == nil {
		return nil, err
	}
	if certificates := f.current.Certificates; len(certificates) > 0 && certificates[0].Leaf != nil && f.now().After(certificates[0].Leaf.NotAfter) {
		return nil, &expiredError{f.key, f.cfg.CertFile, certificates[0].Leaf.NotAfter}
	}
	return f.current, nil
}

// newestFault is why the files as they are now are not in use; nil where they are.
func (f *tlsFiles) newestFault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fault
}

// loadLocked gives nil where the files hold what they held before.
func (f *tlsFiles) loadLocked() (*tls.Config, error) {
	var read [3][]byte
	for i, file := range []struct{ key, path string }{{"ca_file", f.cfg.CAFile}, {"cert_file and key_file", f.cfg.CertFile}, {"cert_file and key_file", f.cfg.KeyFile}} {
		if file.path == "" {
			continue
		}
		var err error
		if read[i], err = os.ReadFile(file.path); err != nil {
			return nil, fmt.Errorf("%s.%s: %w", f.key, file.key, err)
		}
	}
	if f.current != nil && bytes.Equal(read[0], f.read[0]) && bytes.Equal(read[1], f.read[1]) && bytes.Equal(read[2], f.read[2]) {
		return nil, nil //nolint:nilnil // nothing is new
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.cfg.ServerName}
	if f.cfg.CAFile != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(read[0]) {
			return nil, fmt.Errorf("%s.ca_file: %s holds no PEM certificate", f.key, f.cfg.CAFile)
		}
	}
	if f.cfg.CertFile != "" {
		pair, err := tls.X509KeyPair(read[1], read[2])
		if err != nil {
			return nil, fmt.Errorf("%s.cert_file and key_file: %s and %s: %w", f.key, f.cfg.CertFile, f.cfg.KeyFile, err)
		}
		if pair.Leaf == nil {
			if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
				return nil, fmt.Errorf("%s.cert_file: %s: %w", f.key, f.cfg.CertFile, err)
			}
		}
		c.Certificates = []tls.Certificate{pair}
	}
	f.read = read
	return c, nil
}

// dialer makes connections with TLS as the files have it at that moment.
type dialer struct {
	net   net.Dialer
	files *tlsFiles // nil: no TLS
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.files == nil {
		return d.net.DialContext(ctx, network, address)
	}
	settings, err := d.files.settings()
	if err != nil {
		return nil, err
	}
	conn, err := d.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if settings.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = address
		}
		settings = settings.Clone()
		settings.ServerName = host
	}
	secured := tls.Client(conn, settings)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		if fault := d.files.newestFault(); fault != nil {
			return nil, fmt.Errorf(handshakeWith+"%s: %w (with the files of before: those of now cannot be used: %w)", address, err, fault)
		}
		return nil, fmt.Errorf(handshakeWith+"%s: %w", address, err)
	}
	return secured, nil
}
