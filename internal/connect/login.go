package connect

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/churnstream/churnstream/internal/config"
)

// newLogin gives the configured way to log in, or nil where there is none. It tries what it can without a broker, so
// that a missing file is named at the start.
func newLogin(s config.SASL) (sasl.Mechanism, error) {
	switch s.Mechanism {
	case "":
		return nil, nil //nolint:nilnil // no login is what kafka-go calls a nil mechanism
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		l := passwordLogin{s}
		if _, err := l.now(); err != nil {
			return nil, err
		}
		return l, nil
	case "OAUTHBEARER":
		source, err := newOAuthSource(s.OAuth)
		if err != nil {
			return nil, err
		}
		return &bearerLogin{cachedToken{source: source}}, nil
	case "AWS_MSK_IAM":
		return &bearerLogin{cachedToken{source: newMSKSource(s.AWS)}}, nil
	}
	return nil, errors.New("security.sasl.mechanism: " + s.Mechanism + " is not one of " + strings.Join(config.Mechanisms(), ", "))
}

// passwordLogin logs in with the password as it is at that moment.
type passwordLogin struct{ cfg config.SASL }

// Name implements sasl.Mechanism.
func (l passwordLogin) Name() string { return l.cfg.Mechanism }

// Start implements sasl.Mechanism.
func (l passwordLogin) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	m, err := l.now()
	if err != nil {
		return nil, nil, err
	}
	return m.Start(ctx)
}

func (l passwordLogin) now() (m sasl.Mechanism, err error) {
	s := l.cfg
	password, err := config.Secret(s.Password, s.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("security.sasl.password_file: %w", err)
	}
	switch s.Mechanism {
	case "PLAIN":
		return plain.Mechanism{Username: s.Username, Password: password}, nil
	case "SCRAM-SHA-256":
		m, err = scram.Mechanism(scram.SHA256, s.Username, password)
	default:
		m, err = scram.Mechanism(scram.SHA512, s.Username, password)
	}
	if err != nil { // characters that SASLprep forbids
		return nil, fmt.Errorf("security.sasl.username or the password in security.sasl.password_file cannot be used with %s: %w", s.Mechanism, err)
	}
	return m, nil
}

// bearerLogin is SASL OAUTHBEARER (RFC 7628, KIP-255), whoever gives the token. Amazon MSK takes its IAM logins this
// way, too.
type bearerLogin struct{ token cachedToken }

// Name implements sasl.Mechanism.
func (*bearerLogin) Name() string { return "OAUTHBEARER" }

// Start implements sasl.Mechanism.
func (l *bearerLogin) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	token, err := l.token.Token(ctx)
	if err != nil {
		return nil, nil, err
	}
	return &bearerExchange{login: l, token: token}, []byte("n,,\x01auth=Bearer " + token.Value + "\x01\x01"), nil
}

type bearerExchange struct {
	login *bearerLogin
	token Token
}

// Next implements sasl.StateMachine. An empty answer is the broker's yes, another says why it is a no.
func (e *bearerExchange) Next(_ context.Context, challenge []byte) (done bool, response []byte, err error) {
	if len(challenge) == 0 {
		return true, nil, nil
	}
	e.login.token.forget(e.token)
	return false, nil, fmt.Errorf("%w: the broker refuses the token: %.500q", kafka.SASLAuthenticationFailed, challenge)
}
