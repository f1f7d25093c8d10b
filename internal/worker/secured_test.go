package worker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/deadletters"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/schemas"
)

// These tests need a real broker with every way to log in and with ACLs: make test-security.
const (
	envSecured = "CHURNSTREAM_TEST_SECURED"
	envCerts   = "CHURNSTREAM_TEST_CERTS"
)

// secured is the broker of deploy/kafka/secured.properties. testkit.Brokers gives its port without a login, by which
// tests prepare topics, events and rights.
type secured struct {
	t     testing.TB
	host  string
	port  int
	certs string
}

func newSecured(t testing.TB) *secured {
	t.Helper()
	address := os.Getenv(envSecured)
	if address == "" {
		t.Skipf("%s is not set: make test-security starts a broker with logins and rights", envSecured)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return &secured{t: t, host: host, port: n, certs: os.Getenv(envCerts)}
}

// The listeners, as kafka.sh numbers them.
const (
	saslTLS   = 0
	mutualTLS = 2
	open      = 3
	expired   = 4
	saslPlain = 5
)

func (s *secured) at(listener int) []string {
	return []string{net.JoinHostPort(s.host, strconv.Itoa(s.port+listener))}
}

func (s *secured) cert(name string) string { return filepath.Join(s.certs, name) }

func (s *secured) tls() config.TLS { return config.TLS{Enabled: true, CAFile: s.cert("ca.crt")} }

func (s *secured) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *secured) password(mechanism, user, password string) config.Security {
	s.t.Helper()
	return config.Security{TLS: s.tls(), SASL: config.SASL{Mechanism: mechanism, Username: user, PasswordFile: s.file("password", password)}}
}

func (s *secured) mutual(cert, key string) config.Security {
	c := config.Security{TLS: s.tls()}
	c.TLS.CertFile, c.TLS.KeyFile = cert, key
	return c
}

// issue signs a client certificate with the broker's authority.
func (s *secured) issue(name string, notAfter time.Time) (certFile, keyFile string) {
	s.t.Helper()
	ca, err := tls.LoadX509KeyPair(s.cert("ca.crt"), s.cert("ca.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		s.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	certFile = s.file("client.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return certFile, s.file("client.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

// tokens is an OAuth server whose tokens the broker takes; life of a token in seconds, which may be over.
func (s *secured) tokens(life int) config.Security {
	s.t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		now := time.Now().Unix()
		part := base64.RawURLEncoding.EncodeToString
		token := part([]byte(`{"alg":"none"}`)) + "." + part(fmt.Appendf(nil, `{"sub":"scorer","iat":%d,"exp":%d}`, now-100, now+int64(life))) + "."
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer"}`, token)
	}))
	s.t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return config.Security{TLS: s.tls(), SASL: config.SASL{Mechanism: "OAUTHBEARER", OAuth: config.OAuth{
		TokenURL: server.URL, ClientID: "scorer", ClientSecretFile: s.file("secret", "s"), CAFile: s.file("oauth-ca", string(ca)),
	}}}
}

// environment prepares topics by the port without a login; the worker of its configuration logs in.
func (s *secured) environment(listener int, security config.Security) *environment {
	s.t.Helper()
	e := newEnvironment(s.t, testkit.Brokers(s.t), partitions{events: 2, scores: 1, states: 1})
	e.cfg.Brokers, e.cfg.Security = s.at(listener), security
	e.cfg.Drift.EvaluateEvery = config.Duration(200 * time.Millisecond)
	// A broker that has just begun has no coordinators yet; the first question makes them.
	testkit.Eventually(s.t, patience, func() bool {
		request := kmsg.NewPtrOffsetFetchRequest()
		group := kmsg.NewOffsetFetchRequestGroup()
		group.Group = e.cfg.Group.ID
		request.Groups = append(request.Groups, group)
		response, err := request.RequestWith(s.t.Context(), e.client)
		return err == nil && len(response.Groups) == 1 && response.Groups[0].ErrorCode == 0
	}, "the group has a coordinator")
	return e
}

// grant lets User:scorer do what the rights say until the test ends.
func (e *environment) grant(rights []connect.Right) {
	e.t.Helper()
	e.grantTo("User:scorer", rights)
}

func (e *environment) grantTo(principal string, rights []connect.Right) {
	e.t.Helper()
	request := kmsg.NewPtrCreateACLsRequest()
	for _, r := range rights {
		c := kmsg.NewCreateACLsRequestCreation()
		c.ResourceType, c.ResourcePatternType, c.Operation = entry(r)
		c.ResourceName, c.Principal, c.Host, c.PermissionType = r.Name, principal, "*", kmsg.ACLPermissionTypeAllow
		request.Creations = append(request.Creations, c)
	}
	response, err := request.RequestWith(e.t.Context(), e.client)
	if err != nil {
		e.t.Fatal(err)
	}
	for i, r := range response.Results {
		if r.ErrorCode != 0 {
			e.t.Fatalf("grant %+v: %d", rights[i], r.ErrorCode)
		}
	}
	e.t.Cleanup(func() { e.revoke(principal, rights) })
	for _, r := range rights { // an entry counts once the authorizer has it, a moment later
		testkit.Eventually(e.t, patience, func() bool { return e.granted(principal, r) }, "%s is granted %+v", principal, r)
	}
}

func (e *environment) granted(principal string, r connect.Right) bool {
	e.t.Helper()
	request := kmsg.NewPtrDescribeACLsRequest()
	request.ResourceType, request.ResourcePatternType, request.Operation = entry(r)
	request.ResourceName, request.Principal, request.PermissionType = &r.Name, &principal, kmsg.ACLPermissionTypeAllow
	response, err := request.RequestWith(e.t.Context(), e.client)
	return err == nil && len(response.Resources) > 0
}

func (e *environment) revoke(principal string, rights []connect.Right) {
	e.t.Helper()
	request := kmsg.NewPtrDeleteACLsRequest()
	host := "*"
	for _, r := range rights {
		f := kmsg.NewDeleteACLsRequestFilter()
		f.ResourceType, f.ResourcePatternType, f.Operation = entry(r)
		f.ResourceName, f.Principal, f.Host, f.PermissionType = &r.Name, &principal, &host, kmsg.ACLPermissionTypeAllow
		request.Filters = append(request.Filters, f)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...)) // the environment's may have ended
	if err != nil {
		e.t.Fatal(err)
	}
	defer client.Close()
	if _, err := request.RequestWith(context.Background(), client); err != nil {
		e.t.Error(err)
	}
}

// entry is a right in the broker's own words.
func entry(r connect.Right) (kmsg.ACLResourceType, kmsg.ACLResourcePatternType, kmsg.ACLOperation) {
	pattern := kmsg.ACLResourcePatternTypeLiteral
	if r.Prefix {
		pattern = kmsg.ACLResourcePatternTypePrefixed
	}
	return map[string]kmsg.ACLResourceType{
			"topic": kmsg.ACLResourceTypeTopic, "group": kmsg.ACLResourceTypeGroup, "transactional-id": kmsg.ACLResourceTypeTransactionalId,
		}[r.Resource], pattern, map[string]kmsg.ACLOperation{
			"Read": kmsg.ACLOperationRead, "Write": kmsg.ACLOperationWrite, "Create": kmsg.ACLOperationCreate, "DescribeConfigs": kmsg.ACLOperationDescribeConfigs,
		}[r.Operation]
}

// setPassword changes a user's SCRAM password at the broker.
func (e *environment) setPassword(user, password string) {
	e.t.Helper()
	salt := []byte(rand.Text())
	const iterations = 4096
	salted, err := pbkdf2.Key(sha512.New, password, salt, iterations, sha512.Size)
	if err != nil {
		e.t.Fatal(err)
	}
	u := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
	u.Name, u.Mechanism, u.Iterations, u.Salt, u.SaltedPassword = user, 2, iterations, salt, salted
	request := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	request.Upsertions = append(request.Upsertions, u)
	response, err := request.RequestWith(e.t.Context(), e.client)
	if err != nil {
		e.t.Fatal(err)
	}
	if code := response.Results[0].ErrorCode; code != 0 {
		e.t.Fatalf("password of %s: %d", user, code)
	}
}

// startSecured runs a worker as its configuration logs in.
func (e *environment) startSecured() *running {
	e.t.Helper()
	transport, err := connect.Transport(e.cfg.ClientID, e.cfg.Security)
	if err != nil {
		e.t.Fatal(err)
	}
	r := &running{t: e.t, env: e, metrics: prometheus.NewRegistry(), wire: &wire{}, log: &logBuffer{}, returned: make(chan error, 1)}
	r.Worker, err = New(e.cfg, Dependencies{
		Transport: transport, Model: e.model, Profile: e.profile, Registry: e.registry.client(e.t),
		Metrics: r.metrics, Log: zerolog.New(r.log).Level(zerolog.InfoLevel), Version: "test",
	})
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.returned <- r.Run(ctx) }()
	e.t.Cleanup(func() {
		r.end()
		transport.CloseIdleConnections()
		if e.t.Failed() {
			e.t.Logf("log of a worker:\n%s", r.log)
		}
	})
	return r
}

func TestSecuredLoginsDoTheWholeWorkWithTheLeastRights(t *testing.T) {
	s := newSecured(t)
	for name, c := range map[string]struct {
		listener int
		security config.Security
	}{
		"SCRAM-SHA-512":             {saslTLS, s.password("SCRAM-SHA-512", "scorer", "scorer-scram")},
		"SCRAM-SHA-256":             {saslTLS, s.password("SCRAM-SHA-256", "scorer", "scorer-scram\n")},
		"PLAIN":                     {saslTLS, s.password("PLAIN", "scorer", "scorer-plain")},
		"OAUTHBEARER":               {saslTLS, s.tokens(3600)},
		"mutual TLS":                {mutualTLS, s.mutual(s.cert("client.crt"), s.cert("client.key"))},
		"SCRAM-SHA-256 without TLS": {saslPlain, config.Security{SASL: s.password("SCRAM-SHA-256", "scorer", "scorer-scram").SASL}},
	} {
		t.Run(name, func(t *testing.T) {
			s := *s
			s.t = t
			e := s.environment(c.listener, c.security)
			e.grant(Rights(e.cfg))
			e.feed(200)
			e.feedBad("bad", []byte("no event"))
			w := e.startSecured()
			e.feed(50)
			e.drained()
			w.ready(2)
			testkit.Eventually(t, patience, func() bool { return strings.Contains(w.log.String(), "watching the population") }, "the drift is watched")
			w.end()
			e.checkScores(false)
			e.checkCounts()
			if log := w.log.String(); strings.Contains(log, `"level":"error"`) || strings.Contains(log, "uthoriz") {
				t.Errorf("with the rights of config acl the log says\n%s", log)
			}
			for _, secret := range []string{"scorer-scram", "scorer-plain", "Bearer", "eyJ"} {
				if strings.Contains(w.log.String(), secret) {
					t.Errorf("the log holds the secret %s", secret)
				}
			}
		})
	}
}

// TestSecuredEachRightIsNeededAndItsLackIsNamed takes each right away in turn and wants its operation and resource, and
// the principal, in what the worker says.
func TestSecuredEachRightIsNeededAndItsLackIsNamed(t *testing.T) {
	s := newSecured(t)
	security := s.password("SCRAM-SHA-512", "scorer", "scorer-scram")
	names := s.environment(saslTLS, security) // whose rights are counted only
	for i, r := range Rights(names.cfg) {
		if r.Optional {
			continue
		}
		if r.Operation == "Write" && r.Name == names.cfg.Topics.DriftAlerts {
			continue // is needed at the first alert: TestSecuredAlertsWaitForTheRightToWriteThem
		}
		t.Run(fmt.Sprintf("%s on %s, %s", r.Operation, r.Resource, strings.SplitN(r.Name, "-", 2)[0]), func(t *testing.T) {
			s := *s
			s.t = t
			e := s.environment(saslTLS, security)
			rights := Rights(e.cfg)
			lacking := rights[i]
			e.grant(slices.Delete(slices.Clone(rights), i, i+1))
			e.feed(20)
			e.feedBad("bad", []byte("no event"))
			w := e.startSecured()
			said := func(text string) bool {
				return strings.Contains(strings.ToUpper(text), strings.ToUpper(lacking.Operation)) && strings.Contains(text, lacking.Name)
			}
			// What the drift watch reads is needed beside the scores, which go on.
			watching := lacking.Operation == "Read" && (lacking.Name == e.cfg.Topics.DriftAlerts || lacking.Name == e.cfg.Topics.DriftState)
			var err error
			testkit.Eventually(t, patience, func() bool {
				select {
				case err = <-w.returned:
					w.ended = true
					return true
				default:
					return watching && said(w.log.String())
				}
			}, "the worker ends or says what it lacks")
			if watching {
				return
			}
			if err == nil || !said(err.Error()) || !strings.Contains(err.Error(), "User:scorer") || !strings.Contains(err.Error(), "churnstream config acl") {
				t.Errorf("without %s on %s %s the worker ended with: %v", lacking.Operation, lacking.Resource, lacking.Name, err)
			}
		})
	}
}

// TestSecuredAlertsWaitForTheRightToWriteThem: without it scores go on, the log names it, and once it is granted the alert
// is published.
func TestSecuredAlertsWaitForTheRightToWriteThem(t *testing.T) {
	s := newSecured(t)
	e := s.environment(saslTLS, s.password("SCRAM-SHA-512", "scorer", "scorer-scram"))
	quickDrift(&e.cfg)
	rights := Rights(e.cfg)
	lacking := slices.IndexFunc(rights, func(r connect.Right) bool { return r.Operation == "Write" && r.Name == e.cfg.Topics.DriftAlerts })
	e.grant(slices.Delete(slices.Clone(rights), lacking, lacking+1))
	w := e.startSecured().ready(2)
	e.feedShifted(3000)
	e.drained()
	testkit.Eventually(t, patience, func() bool {
		log := w.log.String()
		return strings.Contains(log, "drift is not evaluated now") && strings.Contains(log, "needs WRITE on topic "+e.cfg.Topics.DriftAlerts) &&
			strings.Contains(log, "the principal is User:scorer") && strings.Contains(log, "churnstream config acl")
	}, "the log names the right")
	if alerts := e.alerts(); len(alerts) != 0 {
		t.Fatalf("alerts %v without the right to write them", alerts)
	}
	e.grant(rights[lacking : lacking+1])
	testkit.Eventually(t, patience, func() bool { return e.alerts()["tenure "+schemas.AlertRaised] == 1 }, "the alert is published: %v", shown(func() any { return e.alerts() }))
	w.end()
	e.checkScores(false)
}

func TestSecuredOptionalRightsMayLack(t *testing.T) {
	s := newSecured(t)
	e := s.environment(saslTLS, s.password("PLAIN", "scorer", "scorer-plain"))
	e.grant(slices.DeleteFunc(Rights(e.cfg), func(r connect.Right) bool { return r.Optional }))
	e.feed(20)
	w := e.startSecured()
	e.drained()
	testkit.Eventually(t, patience, func() bool { return strings.Contains(w.log.String(), "DESCRIBE_CONFIGS on Topic:"+e.cfg.Topics.Scores) }, "what is not checked is said")
	w.end()
	e.checkScores(false)
}

func TestSecuredTopicsAreCreatedWithTheRightToDoSo(t *testing.T) {
	s := newSecured(t)
	e := s.environment(saslTLS, s.password("SCRAM-SHA-512", "scorer", "scorer-scram"))
	e.cfg.Topics.Scores = testkit.Name(t, "made")
	e.cfg.CreateTopics = config.CreateTopics{Enabled: true, Partitions: 2, ReplicationFactor: 1}
	e.grant(Rights(e.cfg))
	e.feed(20)
	w := e.startSecured()
	e.drained()
	w.end()
	e.checkScores(false)
}

func TestSecuredRedriveDoesItsWorkWithItsRights(t *testing.T) {
	s := newSecured(t)
	e := s.environment(saslTLS, s.password("SCRAM-SHA-512", "scorer", "scorer-scram"))
	e.grant(Rights(e.cfg))
	e.feedBad("bad", []byte("no event"))
	w := e.startSecured()
	e.drained()
	w.end()
	// From here on other rights, and a group of its own name, so that those of the worker do not cover it.
	e.cfg.Group.ID = testkit.Name(t, "operator")
	e.grant(RedriveRights(e.cfg))
	transport, err := connect.Transport("test", e.cfg.Security)
	if err != nil {
		t.Fatal(err)
	}
	defer transport.CloseIdleConnections()
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: e.cfg.Brokers, ClientID: "test", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	job := deadletters.Job{Topic: e.cfg.Topics.DeadLetters, Filter: deadletters.Filter{Partition: -1}, MaxAttempts: 3}
	if job.Group, job.TransactionalID, job.Producing, err = Redrive(e.cfg, "all"); err != nil {
		t.Fatal(err)
	}
	if tally, err := deadletters.Redrive(t.Context(), client, job, nil); err != nil || tally.Redriven != 1 {
		t.Errorf("%+v, %v", tally, err)
	}
}

// TestSecuredFaultsAreNamedWithinFiveSeconds: what is wrong with a login or a certificate, with its key.
func TestSecuredFaultsAreNamedWithinFiveSeconds(t *testing.T) {
	s := newSecured(t)
	login := func(change func(*config.Security)) config.Security {
		c := s.password("SCRAM-SHA-512", "scorer", "scorer-scram")
		change(&c)
		return c
	}
	oldCert, oldKey := s.issue("scorer", time.Now().Add(-time.Hour))
	for name, c := range map[string]struct {
		listener int
		security config.Security
		want     []string
	}{
		"a wrong password (SCRAM-SHA-512)":    {saslTLS, s.password("SCRAM-SHA-512", "scorer", "wrong"), []string{"refuse the login", `"scorer"`, "SCRAM-SHA-512", "security.sasl.password_file"}},
		"a wrong password (SCRAM-SHA-256)":    {saslTLS, s.password("SCRAM-SHA-256", "scorer", "wrong"), []string{"refuse the login", `"scorer"`, "SCRAM-SHA-256"}},
		"a wrong password (PLAIN)":            {saslTLS, s.password("PLAIN", "scorer", "wrong"), []string{"refuse the login", `"scorer"`, "PLAIN"}},
		"an unknown user":                     {saslTLS, s.password("SCRAM-SHA-512", "nobody", "x"), []string{"refuse the login", `"nobody"`}},
		"an expired token":                    {saslTLS, s.tokens(-50), []string{"refuse the token", "OAUTHBEARER"}},
		"a way to log in that is not offered": {saslPlain, config.Security{SASL: s.password("SCRAM-SHA-512", "scorer", "scorer-scram").SASL}, []string{"do not offer the login SCRAM-SHA-512"}},
		"an authority that is not trusted":    {saslTLS, login(func(c *config.Security) { c.TLS.CAFile = s.cert("stranger.crt") }), []string{"not trusted", "security.tls.ca_file"}},
		"a broker's certificate that expired": {expired, config.Security{TLS: s.tls()}, []string{"not valid now", "renew it at the broker"}},
		"another name":                        {saslTLS, login(func(c *config.Security) { c.TLS.ServerName = "elsewhere" }), []string{"localhost", s.host, "security.tls.server_name"}},
		"no client certificate":               {mutualTLS, config.Security{TLS: s.tls()}, []string{"want a client certificate", "security.tls.cert_file"}},
		"a stranger's client certificate":     {mutualTLS, s.mutual(s.cert("stranger.crt"), s.cert("stranger.key")), []string{"want a client certificate", "security.tls.cert_file"}},
		"a client certificate that expired":   {mutualTLS, s.mutual(oldCert, oldKey), []string{oldCert, "expired at"}},
		"no login where one is wanted":        {saslTLS, config.Security{TLS: s.tls()}, []string{"accept the connection and close it", "security.sasl"}},
		"no TLS where it is wanted":           {saslTLS, config.Security{SASL: s.password("SCRAM-SHA-512", "scorer", "scorer-scram").SASL}, []string{"security.tls.enabled"}},
		"TLS where there is none":             {open, config.Security{TLS: s.tls()}, []string{"security.tls"}},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			transport, err := connect.Transport("test", c.security)
			if err == nil {
				defer transport.CloseIdleConnections()
				_, err = connect.Probe(t.Context(), s.at(c.listener), transport, c.security.SASL, nil, config.CreateTopics{}, nil)
			}
			if err == nil {
				t.Fatal("nothing is wrong")
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not named in: %v", want, err)
				}
			}
			for _, secret := range []string{"wrong", "scorer-scram"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q is in: %v", secret, err)
				}
			}
		})
	}
}

// TestSecuredPasswordRotates changes the password at the broker and in its file while a worker runs, with a moment
// between in which they do not fit, and makes the worker connect anew.
func TestSecuredPasswordRotates(t *testing.T) {
	s := newSecured(t)
	security := s.password("SCRAM-SHA-512", "rotating", "first")
	e := s.environment(saslTLS, security)
	e.setPassword("rotating", "first")
	rights := Rights(e.cfg)
	e.grantTo("User:rotating", rights)
	w := e.startSecured().ready(2)
	e.feed(20)
	e.drained()
	e.setPassword("rotating", "second")
	w.transport.CloseIdleConnections() // connections in use end after their request
	testkit.Eventually(t, patience, func() bool {
		return strings.Contains(w.log.String(), "the login is refused now") || strings.Contains(w.log.String(), "cannot fetch")
	}, "the old password is refused")
	if err := os.WriteFile(security.SASL.PasswordFile, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.feed(20)
	e.drained()
	w.end()
	e.checkScores(false)
}

// TestSecuredCertificateRotates replaces the client's certificate, whose principal has other rights then.
func TestSecuredCertificateRotates(t *testing.T) {
	s := newSecured(t)
	cert, key := s.issue("scorer", time.Now().Add(time.Hour))
	e := s.environment(mutualTLS, s.mutual(cert, key))
	e.grant(Rights(e.cfg))
	e.grantTo("User:renewed", Rights(e.cfg))
	w := e.startSecured().ready(2)
	e.feed(20)
	e.drained()
	newCert, newKey := s.issue("renewed", time.Now().Add(time.Hour))
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.transport.CloseIdleConnections() // connections in use end after their request
	e.feed(20)
	e.drained()
	e.revoke("User:scorer", Rights(e.cfg)) // all that goes on goes on as the second
	e.feed(20)
	e.drained()
	w.end()
	e.checkScores(false)
}

// TestSecuredLoginThatEndsIsRenewed: the broker ends a login by token after four seconds.
func TestSecuredLoginThatEndsIsRenewed(t *testing.T) {
	s := newSecured(t)
	e := s.environment(saslTLS, s.tokens(3600))
	e.base = time.Now().Add(-50 * time.Minute).UnixMilli() // many events
	e.grant(Rights(e.cfg))
	w := e.startSecured().ready(2)
	for began := time.Now(); time.Since(began) < 10*time.Second; {
		e.feed(20)
		e.drained()
	}
	w.end()
	e.checkScores(false)
	e.checkCounts()
}
