package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit"
)

func TestExplainNamesCauseAndRemedy(t *testing.T) {
	brokers := []string{"kafka-1:9092", "kafka-2:9092"}
	dial := func(err error) error {
		return fmt.Errorf("failed to dial: %w", &net.OpError{Op: "dial", Net: "tcp", Err: err})
	}
	login := config.SASL{Mechanism: "SCRAM-SHA-512", Username: "alice"}
	for name, c := range map[string]struct {
		err  error
		sasl config.SASL
		want []string
	}{
		"refused login":        {kafka.SASLAuthenticationFailed, login, []string{"refuse the login", `"alice"`, "SCRAM-SHA-512", "security.sasl.username", "security.sasl.password_file"}},
		"unknown login":        {kafka.UnsupportedSASLMechanism, login, []string{"do not offer the login SCRAM-SHA-512", "security.sasl.mechanism"}},
		"untrusted":            {dial(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), login, []string{"not trusted", "security.tls.ca_file", "server_name"}},
		"bad client":           {dial(errors.New("remote error: tls: bad certificate")), config.SASL{}, []string{"want a client certificate", "security.tls.cert_file", "key_file"}},
		"no client":            {dial(errors.New("remote error: tls: certificate required")), config.SASL{}, []string{"want a client certificate", "security.tls.cert_file", "key_file"}},
		"no TLS there":         {dial(errors.New("tls: first record does not look like a TLS handshake")), config.SASL{}, []string{"do not speak TLS", "security.tls.enabled: false"}},
		"a plain port":         {fmt.Errorf("TLS handshake with kafka-1:9092: %w", io.EOF), login, []string{"may not speak TLS", "security.tls.enabled: false"}},
		"nobody":               {dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), login, []string{"nothing listens there", "key brokers"}},
		"no name":              {dial(&net.DNSError{Err: "no such host", Name: "kafka-1", IsNotFound: true}), login, []string{"cannot be resolved", "key brokers"}},
		"no answer of DNS":     {dial(&net.DNSError{Err: "i/o timeout", Name: "kafka-1", IsTimeout: true}), login, []string{"cannot be resolved"}},
		"closed during login":  {io.ErrUnexpectedEOF, login, []string{"during the login", `"alice"`, "password_file", "security.tls.enabled"}},
		"closed":               {io.EOF, config.SASL{}, []string{"accept the connection and close it", "security.tls", "security.sasl"}},
		"reset":                {dial(os.NewSyscallError("read", syscall.ECONNRESET)), config.SASL{}, []string{"accept the connection and close it"}},
		"TLS where none was":   {errors.New("kafka-go: broker appears to be expecting TLS"), config.SASL{}, []string{"security.tls"}},
		"silence":              {context.DeadlineExceeded, login, []string{"did not answer within 9s", "firewall"}},
		"silence on a socket":  {dial(os.ErrDeadlineExceeded), login, []string{"did not answer within 9s"}},
		"something else again": {errors.New("out of cheese"), login, []string{"out of cheese"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := explain(c.err, brokers, c.sasl)
			if !errors.Is(err, c.err) {
				t.Errorf("the cause %v is lost in: %v", c.err, err)
			}
			for _, want := range append(c.want, "kafka-1:9092, kafka-2:9092") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not named in: %v", want, err)
				}
			}
		})
	}
}

// What Go and kafka-go say of a handshake is theirs to change: these are real ones.
func TestTLSFaultsOfARealHandshakeAreExplained(t *testing.T) {
	trusted, stranger := newCertificate(t, "localhost"), newCertificate(t, "localhost")
	pool := x509.NewCertPool()
	pool.AddCert(trusted.leaf)
	server := &tls.Config{Certificates: []tls.Certificate{trusted.pair}, MinVersion: tls.VersionTLS12}
	mutual := server.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, pool
	for name, c := range map[string]struct {
		server *tls.Config // nil: a port without TLS
		client config.TLS
		want   string
	}{
		"an unknown authority":      {server, config.TLS{Enabled: true, CAFile: stranger.certFile, ServerName: "localhost"}, "security.tls.ca_file"},
		"another name":              {server, config.TLS{Enabled: true, CAFile: trusted.certFile, ServerName: "elsewhere"}, "server_name"},
		"no client certificate":     {mutual, config.TLS{Enabled: true, CAFile: trusted.certFile, ServerName: "localhost"}, "security.tls.cert_file"},
		"a stranger's certificate":  {mutual, config.TLS{Enabled: true, CAFile: trusted.certFile, ServerName: "localhost", CertFile: stranger.certFile, KeyFile: stranger.keyFile}, "security.tls.cert_file"},
		"TLS on a port without TLS": {nil, config.TLS{Enabled: true, CAFile: trusted.certFile, ServerName: "localhost"}, "security.tls.enabled: false"},
	} {
		t.Run(name, func(t *testing.T) {
			transport, err := Transport("", config.Security{TLS: c.client})
			if err != nil {
				t.Fatal(err)
			}
			defer transport.CloseIdleConnections()
			address := listen(t, c.server)
			_, err = Probe(t.Context(), []string{address}, transport, config.SASL{}, nil, config.CreateTopics{}, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), address) {
				t.Errorf("%q is not named in: %v", c.want, err)
			}
		})
	}
}

func TestProbeNamesEveryMissingTopicWithTheCommandThatCreatesIt(t *testing.T) {
	brokers, transport := embedded(t)
	there := testkit.Topic(t, brokers, "there", 3)
	_, err := Probe(t.Context(), brokers, transport, config.SASL{}, []TopicSpec{
		{Name: there, Key: "topics.events"},
		{Name: "absent-1", Key: "topics.scores"},
		{Name: "absent-2", Key: "topics.drift_state", Configs: map[string]string{"segment.ms": "60000", "cleanup.policy": "compact"}},
	}, config.CreateTopics{Partitions: 6, ReplicationFactor: 3}, nil)
	if err == nil {
		t.Fatal("nothing is missing")
	}
	for _, want := range []string{
		"topics.scores: topic absent-1 does not exist", "topics.drift_state: topic absent-2 does not exist", "create_topics.enabled: true",
		"kafka-topics.sh --bootstrap-server " + brokers[0] + " --create --topic absent-2 --partitions 6 --replication-factor 3 --config cleanup.policy=compact --config min.insync.replicas=2 --config segment.ms=60000",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), there) {
		t.Errorf("%s is there, and named in:\n%v", there, err)
	}
}

func TestProbeCreatesWhatIsMissingAndCountsPartitions(t *testing.T) {
	brokers, transport := embedded(t)
	there := testkit.Topic(t, brokers, "there", 3)
	topics := []TopicSpec{
		{Name: there, Key: "topics.events"},
		{Name: "made", Key: "topics.drift_state", Configs: map[string]string{"cleanup.policy": "compact"}},
		{Name: "small", Key: "topics.drift_alerts", Partitions: 1},
	}
	create := config.CreateTopics{Enabled: true, Partitions: 2, ReplicationFactor: 1}
	for range 2 { // the second time there is nothing to create
		counts, err := Probe(t.Context(), brokers, transport, config.SASL{}, topics, create, nil)
		if err != nil || len(counts) != 3 || counts[there] != 3 || counts["made"] != 2 || counts["small"] != 1 {
			t.Fatalf("got %v, %v", counts, err)
		}
	}
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport}
	described, err := client.DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: "made", ConfigNames: []string{"cleanup.policy"}},
	}})
	if err != nil || len(described.Resources) != 1 || len(described.Resources[0].ConfigEntries) != 1 || described.Resources[0].ConfigEntries[0].ConfigValue != "compact" {
		t.Errorf("cleanup.policy: %+v, %v", described, err)
	}
}

// TestProbeAsksABrokerAgainThatHasJustBegun: it does not know all topics at first.
func TestProbeAsksABrokerAgainThatHasJustBegun(t *testing.T) {
	broker := testkit.Embedded(t)
	there := testkit.Topic(t, broker.Addrs(), "there", 3)
	asked := 0
	broker.Cluster().ControlKey(int16(kmsg.Metadata), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.Cluster().KeepControl()
		topics := request.(*kmsg.MetadataRequest).Topics
		if len(topics) == 0 {
			return nil, nil, false
		}
		if asked++; asked > 3 {
			return nil, nil, false
		}
		topics[0].Topic = kmsg.StringPtr("unknown")
		return nil, nil, false
	})
	transport, err := Transport("connect-test", config.Security{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	told := 0
	counts, err := Probe(t.Context(), broker.Addrs(), transport, config.SASL{}, []TopicSpec{{Name: there, Key: "topics.events"}}, config.CreateTopics{},
		func(err error) {
			told++
			if !strings.Contains(err.Error(), "topics.events: the brokers do not know topic "+there) {
				t.Errorf("told %v", err)
			}
		})
	if err != nil || counts[there] != 3 {
		t.Errorf("got %v, %v", counts, err)
	}
	if told != 3 {
		t.Errorf("told %d times, want 3", told)
	}
}

func TestProbeNamesTheTopicThatCannotBeCreated(t *testing.T) {
	brokers, transport := embedded(t)
	_, err := Probe(t.Context(), brokers, transport, config.SASL{}, []TopicSpec{{Name: "scores", Key: "topics.scores"}},
		config.CreateTopics{Enabled: true, Partitions: 1, ReplicationFactor: 3}, nil) // of one broker
	if err == nil || !strings.Contains(err.Error(), "topics.scores") || !strings.Contains(err.Error(), "create topic scores") {
		t.Errorf("got %v", err)
	}
}

func embedded(t *testing.T) ([]string, *kafka.Transport) {
	t.Helper()
	brokers := testkit.Embedded(t).Addrs()
	transport, err := Transport("connect-test", config.Security{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return brokers, transport
}

// listen accepts connections, does the handshake, or answers with what is no TLS, and closes.
func listen(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer conn.Close()
				if cfg == nil {
					_, _ = conn.Write([]byte("220 mail.example ESMTP\r\n"))
					return
				}
				secured := tls.Server(conn, cfg)
				if secured.Handshake() == nil {
					_, _ = secured.Read(make([]byte, 1))
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		open.Wait()
	})
	return listener.Addr().String()
}
