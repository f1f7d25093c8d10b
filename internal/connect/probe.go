package connect

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/kafkawire"
)

// probeTimeout is how long a cluster may take to answer at start before it is called unreachable.
const probeTimeout = 9 * time.Second

// missingFor is how long a topic has to be unknown before it is called missing: a broker that has just begun does not know
// all topics of its cluster yet.
const missingFor = 3 * time.Second

// pause between two questions at start.
const pause = 250 * time.Millisecond

// TopicSpec is a topic that must exist, and how to create it when that is allowed.
type TopicSpec struct {
	Name    string
	Key     string // its configuration key, for messages
	Configs map[string]string
	// Partitions is how many it gets when it is created; 0: as many as create_topics says.
	Partitions int
	Needs      Needs
}

func (t TopicSpec) partitions(create config.CreateTopics) int {
	return cmp.Or(t.Partitions, create.Partitions)
}

// settings are what it is created with: with three replicas a write counts when two have it.
func (t TopicSpec) settings(create config.CreateTopics) map[string]string {
	if create.ReplicationFactor < 3 {
		return t.Configs
	}
	settings := map[string]string{"min.insync.replicas": "2"}
	maps.Copy(settings, t.Configs)
	return settings
}

// Probe asks the cluster for the topics, creates those that are missing when create says so, and returns their number
// of partitions. Every fault is named: a broker that is down or silent, a refused login, a missing topic. What may pass is
// asked for again, within probeTimeout; again hears why, unless it is nil.
func Probe(ctx context.Context, brokers []string, transport *kafka.Transport, sasl config.SASL, topics []TopicSpec, create config.CreateTopics, again func(error)) (map[string]int, error) {
	if again == nil {
		again = func(error) {}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: brokers, ClientID: transport.ClientID, Transport: transport})
	if err != nil {
		return nil, err
	}
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
	}
	var counts map[string]int
	var missing []TopicSpec
	look := func() error {
		meta, err := metadata(ctx, client, names, sasl, again)
		if err != nil {
			return explain(err, brokers, sasl)
		}
		counts, missing, err = partitions(meta, topics)
		return err
	}
	for began := time.Now(); ; {
		if err := look(); err != nil {
			return nil, err
		}
		if len(missing) == 0 {
			return counts, nil
		}
		if create.Enabled {
			break
		}
		if time.Since(began) > missingFor || ctx.Err() != nil {
			return nil, missingError(missing, brokers, create)
		}
		again(fmt.Errorf("%s: the brokers do not know topic %s; one that has just begun may not know it yet", missing[0].Key, missing[0].Name))
		wait(ctx, pause)
	}
	if err := createTopics(ctx, brokers, transport, missing, create); err != nil {
		return nil, err
	}
	// The answer to CreateTopics does not mean that every broker knows the topic already.
	for ctx.Err() == nil {
		if err := look(); err != nil {
			return nil, err
		}
		if len(missing) == 0 {
			return counts, nil
		}
		wait(ctx, 50*time.Millisecond)
	}
	return nil, fmt.Errorf("topic %s was created but has no leader after %v; look at the brokers' logs", missing[0].Name, probeTimeout)
}

// logins is how often a login is tried whose connection is closed without a word: repeating a wrong password locks
// accounts.
const logins = 3

// closings is how often a connection without a login may be closed: a proxy before a broker that starts does so, too.
const closings = 8

// metadata repeats the request while the cluster is starting or unreachable, until ctx ends: a worker is often started
// together with its broker.
func metadata(ctx context.Context, client *kafkawire.Client, names []string, sasl config.SASL, again func(error)) (m kafkawire.Metadata, err error) {
	for attempt := 1; ; attempt++ {
		if _, err = client.Versions(ctx, kafkawire.AnyBroker); err == nil && len(names) > 0 {
			m, err = client.Metadata(ctx, names)
		}
		if err == nil {
			return m, nil
		}
		var certificate *tls.CertificateVerificationError
		var expired *expiredError
		if errors.Is(err, kafka.SASLAuthenticationFailed) || errors.Is(err, kafka.UnsupportedSASLMechanism) ||
			errors.As(err, &certificate) || errors.As(err, &expired) || strings.Contains(err.Error(), "tls:") {
			return m, err
		}
		if closed(err) && (sasl.Mechanism != "" && attempt >= logins || attempt >= closings) {
			return m, err
		}
		last := err
		again(err)
		if wait(ctx, pause); ctx.Err() != nil {
			return m, last
		}
	}
}

func partitions(meta kafkawire.Metadata, topics []TopicSpec) (counts map[string]int, missing []TopicSpec, err error) {
	counts = make(map[string]int, len(topics))
	var faults []error
	for _, spec := range topics {
		topic, known := meta.Topics[spec.Name]
		switch {
		case !known || errors.Is(topic.Err, kafka.UnknownTopicOrPartition) || errors.Is(topic.Err, kafka.LeaderNotAvailable):
			missing = append(missing, spec)
		case errors.Is(topic.Err, kafka.TopicAuthorizationFailed):
			faults = append(faults, fmt.Errorf("%s: not allowed to see topic %s (or it does not exist): the login needs DESCRIBE on Topic:%s: %w", spec.Key, spec.Name, spec.Name, topic.Err))
		case topic.Err != nil:
			faults = append(faults, fmt.Errorf("%s: topic %s: %w", spec.Key, spec.Name, topic.Err))
		default:
			counts[spec.Name] = len(topic.Partitions)
		}
	}
	return counts, missing, errors.Join(faults...)
}

func missingError(missing []TopicSpec, brokers []string, create config.CreateTopics) error {
	errs := make([]error, len(missing))
	for i, t := range missing {
		var options strings.Builder
		settings := t.settings(create)
		for _, name := range sortedKeys(settings) {
			fmt.Fprintf(&options, " --config %s=%s", name, settings[name])
		}
		errs[i] = fmt.Errorf("%s: topic %s does not exist (or the login lacks DESCRIBE on it); create it with\n    kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions %d --replication-factor %d%s\n  or set create_topics.enabled: true",
			t.Key, t.Name, brokers[0], t.Name, t.partitions(create), create.ReplicationFactor, options.String())
	}
	return errors.Join(errs...)
}

func createTopics(ctx context.Context, brokers []string, transport *kafka.Transport, missing []TopicSpec, create config.CreateTopics) error {
	client, done := administration(brokers, transport)
	defer done()
	req := &kafka.CreateTopicsRequest{}
	for _, t := range missing {
		topic := kafka.TopicConfig{Topic: t.Name, NumPartitions: t.partitions(create), ReplicationFactor: create.ReplicationFactor}
		settings := t.settings(create)
		for _, name := range sortedKeys(settings) {
			topic.ConfigEntries = append(topic.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: settings[name]})
		}
		req.Topics = append(req.Topics, topic)
	}
	r, err := client.CreateTopics(ctx, req)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	var errs []error
	for _, t := range missing {
		if err := r.Errors[t.Name]; err != nil && !errors.Is(err, kafka.TopicAlreadyExists) { // another worker was first
			errs = append(errs, fmt.Errorf("%s: create topic %s: %w", t.Key, t.Name, err))
		}
	}
	return errors.Join(errs...)
}

// explain turns what a dial or a first request failed with into the cause and the remedy.
func explain(err error, brokers []string, sasl config.SASL) error {
	at := strings.Join(brokers, ", ")
	var certificate *tls.CertificateVerificationError
	var dns *net.DNSError
	var deadline net.Error
	var token *tokenError
	var expired *expiredError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	switch {
	case errors.As(err, &token):
		return fmt.Errorf("brokers %s: no login by %s: %w", at, sasl.Mechanism, err)
	case errors.As(err, &expired):
		return fmt.Errorf("brokers %s: %w", at, err)
	case errors.Is(err, kafka.SASLAuthenticationFailed) && sasl.Username == "":
		return fmt.Errorf("brokers %s refuse the token of the login by %s: check what it is for (security.sasl.oauth.scope, security.sasl.aws) and the clock of this machine: %w", at, sasl.Mechanism, err)
	case errors.Is(err, kafka.SASLAuthenticationFailed):
		return fmt.Errorf("brokers %s refuse the login of user %q by %s: check security.sasl.username and the password in security.sasl.password_file: %w", at, sasl.Username, sasl.Mechanism, err)
	case errors.Is(err, kafka.UnsupportedSASLMechanism):
		return fmt.Errorf("brokers %s do not offer the login %s: check security.sasl.mechanism: %w", at, sasl.Mechanism, err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("brokers %s show a certificate that is not valid now (%s to %s): renew it at the broker, or set the clock of this machine: %w",
			at, invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339), err)
	case errors.As(err, &name):
		return fmt.Errorf("brokers %s show a certificate for %s: use that name in brokers, or set security.tls.server_name: %w", at, strings.Join(append(name.Certificate.DNSNames, addresses(name.Certificate.IPAddresses)...), ", "), err)
	case errors.As(err, &certificate):
		return fmt.Errorf("brokers %s show a certificate that is not trusted: check security.tls.ca_file and server_name: %w", at, err)
	case strings.Contains(err.Error(), "remote error: tls:") && strings.Contains(err.Error(), "certificate"): // bad, required, unknown authority, …
		return fmt.Errorf("brokers %s want a client certificate that they trust: check security.tls.cert_file and key_file: %w", at, err)
	case strings.Contains(err.Error(), "first record does not look like a TLS handshake"):
		return fmt.Errorf("brokers %s do not speak TLS on that port: set security.tls.enabled: false or use the TLS port: %w", at, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("brokers %s: nothing listens there: is Kafka running, and is the address right (key brokers)? %w", at, err)
	case errors.As(err, &dns):
		return fmt.Errorf("brokers %s: the name cannot be resolved (key brokers): %w", at, err)
	case closed(err) && strings.Contains(err.Error(), handshakeWith): // as Kafka's plain ports do
		return fmt.Errorf("brokers %s close the connection during the TLS handshake: they may not speak TLS on that port; set security.tls.enabled: false or use the TLS port: %w", at, err)
	case closed(err) && sasl.Mechanism != "":
		return fmt.Errorf("brokers %s close the connection during the login of user %q by %s: either they refuse the login (check security.sasl.username and the password in security.sasl.password_file) or the port wants TLS (security.tls.enabled): %w", at, sasl.Username, sasl.Mechanism, err)
	case closed(err), strings.Contains(err.Error(), "expecting TLS"):
		return fmt.Errorf("brokers %s accept the connection and close it: the port may want TLS or a login (security.tls, security.sasl): %w", at, err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &deadline) && deadline.Timeout():
		return fmt.Errorf("brokers %s did not answer within %v: is it a Kafka port, is TLS on exactly where the broker has it (security.tls.enabled), and does a firewall let it through? %w", at, probeTimeout, err)
	}
	return fmt.Errorf("brokers %s: %w", at, err)
}

func addresses(ips []net.IP) []string {
	texts := make([]string, len(ips))
	for i, ip := range ips {
		texts[i] = ip.String()
	}
	return texts
}

// closed says that the broker ended the connection without an answer.
func closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
