// Package connect takes the configured addresses and credentials and gives a transport to the brokers, and says before
// any work starts, in words an operator can act upon, why the cluster or a topic cannot be used.
package connect

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/internal/config"
)

// dialTimeout bounds one connection with its TLS handshake and login, so that a broker that accepts and never answers
// is named within the ten seconds of Probe.
const dialTimeout = 4 * time.Second

// Transport builds kafka-go's transport with TLS and SASL as configured. Certificates, passwords and tokens are read
// anew for each connection, so that they rotate without a restart; what is wrong with them now is the error. The caller
// closes its idle connections.
func Transport(clientID string, security config.Security) (*kafka.Transport, error) {
	d := &dialer{net: net.Dialer{Timeout: dialTimeout}}
	if security.TLS.Enabled {
		d.files = &tlsFiles{key: "security.tls", cfg: security.TLS, now: time.Now}
		if _, err := d.files.settings(); err != nil {
			return nil, err
		}
	}
	mechanism, err := newLogin(security.SASL)
	if err != nil {
		return nil, err
	}
	return &kafka.Transport{
		ClientID:    clientID,
		DialTimeout: dialTimeout,
		IdleTimeout: 30 * time.Second,
		Dial:        d.dial,
		// Its own view of the topics is not used: an empty list keeps it from asking for all. The first answer, which
		// every request waits for, must come within the TTL.
		MetadataTopics: []string{},
		MetadataTTL:    5 * time.Second,
		SASL:           mechanism,
		Context:        context.Background(),
	}, nil
}

// RegistryTLS builds the TLS settings for https URLs of the schema registry. The client's certificate is read anew for
// each connection.
func RegistryTLS(t config.RegistryTLS) (*tls.Config, error) {
	files := &tlsFiles{key: "registry.tls", cfg: config.TLS{CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile, ServerName: t.ServerName}, now: time.Now}
	settings, err := files.settings()
	if err != nil || len(settings.Certificates) == 0 {
		return settings, err
	}
	settings = settings.Clone()
	settings.Certificates = nil
	settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		newest, err := files.settings()
		if err != nil {
			return nil, err
		}
		return &newest.Certificates[0], nil
	}
	return settings, nil
}

// administration gives kafka-go's client for requests that need its view of the cluster, over connections of its own.
func administration(brokers []string, transport *kafka.Transport) (client *kafka.Client, done func()) {
	own := &kafka.Transport{
		ClientID: transport.ClientID, DialTimeout: transport.DialTimeout, IdleTimeout: transport.IdleTimeout,
		Dial: transport.Dial, TLS: transport.TLS, SASL: transport.SASL, MetadataTTL: time.Second, Context: transport.Context,
	}
	return &kafka.Client{Addr: kafka.TCP(brokers...), Transport: own, Timeout: probeTimeout}, own.CloseIdleConnections
}
