// Package connect takes the configured addresses and credentials and gives a transport to the brokers, and says before
// any work starts, in words an operator can act upon, why the cluster or a topic cannot be used.
package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/churnstream/churnstream/internal/config"
)

// dialTimeout bounds one connection with its TLS handshake and login, so that a broker that accepts and never answers
// is named within the ten seconds of Probe.
const dialTimeout = 4 * time.Second

// Transport builds kafka-go's transport with TLS and SASL as configured. The caller closes its idle connections.
func Transport(clientID string, security config.Security) (*kafka.Transport, error) {
	tlsConfig, err := brokerTLS(security.TLS)
	if err != nil {
		return nil, err
	}
	mechanism, err := saslMechanism(security.SASL)
	if err != nil {
		return nil, err
	}
	return &kafka.Transport{
		ClientID:    clientID,
		DialTimeout: dialTimeout,
		IdleTimeout: 30 * time.Second,
		Dial:        (&net.Dialer{Timeout: dialTimeout}).DialContext,
		MetadataTTL: time.Second,
		TLS:         tlsConfig,
		SASL:        mechanism,
		Context:     context.Background(),
	}, nil
}

func brokerTLS(t config.TLS) (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil //nolint:nilnil // no TLS is what kafka-go calls a nil configuration
	}
	return tlsConfig("security.tls", t.CAFile, t.CertFile, t.KeyFile, t.ServerName)
}

// RegistryTLS builds the TLS settings for https URLs of the schema registry.
func RegistryTLS(t config.RegistryTLS) (*tls.Config, error) {
	return tlsConfig("registry.tls", t.CAFile, t.CertFile, t.KeyFile, t.ServerName)
}

func tlsConfig(key, caFile, certFile, keyFile, serverName string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("%s.ca_file: %w", key, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s.ca_file: %s holds no PEM certificate", key, caFile)
		}
	}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("%s.cert_file and key_file: %w", key, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func saslMechanism(s config.SASL) (sasl.Mechanism, error) {
	if s.Mechanism == "" {
		return nil, nil //nolint:nilnil // no login is what kafka-go calls a nil mechanism
	}
	password, err := config.Secret(s.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("security.sasl.password_file: %w", err)
	}
	var mechanism sasl.Mechanism
	switch s.Mechanism {
	case "PLAIN":
		mechanism = plain.Mechanism{Username: s.Username, Password: password}
	case "SCRAM-SHA-256":
		mechanism, err = scram.Mechanism(scram.SHA256, s.Username, password)
	case "SCRAM-SHA-512":
		mechanism, err = scram.Mechanism(scram.SHA512, s.Username, password)
	default:
		return nil, errors.New("security.sasl.mechanism: " + s.Mechanism + " is not one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512")
	}
	if err != nil { // characters that SASLprep forbids
		return nil, fmt.Errorf("security.sasl.username or the password in security.sasl.password_file cannot be used with %s: %w", s.Mechanism, err)
	}
	return mechanism, nil
}
