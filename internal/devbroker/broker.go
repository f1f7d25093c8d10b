// Package devbroker takes a list of topics and gives a Kafka broker that runs
// inside this process, for development, the demo and tests. It is kfake behind
// the few settings those need; a real Apache Kafka stays the judge of whatever
// depends on timing, disk or replication.
package devbroker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
)

// Broker answers the Kafka protocol from New until Close. All methods may be
// called from any goroutine.
type Broker struct {
	cluster *kfake.Cluster
	addrs   []string
	lock    *dirLock // nil without a data directory
	close   sync.Once
	closed  chan struct{} // closed when Close has finished
	err     error         // what Close met; read after closed
}

// New starts the broker and creates the topics that are not there yet; it
// answers when New returns. Topics that a data directory brings back keep the
// partitions and settings they have there.
//
// Errors name what is in the way: a taken port, a data directory that another
// process uses or that cannot be read, a topic that Kafka would refuse.
func New(cfg Config, log zerolog.Logger) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	host, port, err := splitListen(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	b := &Broker{closed: make(chan struct{})}
	if cfg.DataDir != "" {
		if b.lock, err = lockDir(cfg.DataDir); err != nil {
			return nil, fmt.Errorf("embedded broker: %w", err)
		}
	}
	opts := []kfake.Opt{
		kfake.ClusterID("churnstream-dev"),
		kfake.Ports(ports(port, cfg.Brokers)...),
		kfake.ListenFn(listenFunc(host, advertisedHost(host, cfg.Advertise))),
		kfake.DefaultNumPartitions(cfg.Partitions),
		kfake.WithLogger(logger{log}),
	}
	if cfg.DataDir != "" {
		opts = append(opts, kfake.DataDir(cfg.DataDir))
	}
	if cfg.SyncWrites {
		opts = append(opts, kfake.SyncWrites())
	}
	if cfg.AutoCreateTopics {
		opts = append(opts, kfake.AllowAutoTopicCreation())
	}
	b.cluster, err = kfake.NewCluster(opts...)
	if err != nil {
		return nil, errors.Join(startError(cfg, err), b.lock.release())
	}
	b.addrs = b.cluster.ListenAddrs()
	if err := b.createTopics(cfg.Topics); err != nil {
		return nil, errors.Join(fmt.Errorf("embedded broker: %w", err), b.Close())
	}
	return b, nil
}

// Run keeps the broker up until ctx ends and then closes it.
func (b *Broker) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-b.closed:
	}
	return b.Close()
}

// Addr is the address of the first broker as clients dial it.
func (b *Broker) Addr() string { return b.addrs[0] }

// Addrs are the addresses of all brokers, in the order of their ids.
func (b *Broker) Addrs() []string { return slices.Clone(b.addrs) }

// Cluster gives tests the means to inject errors, move leaders and look at
// groups. It is nobody else's business.
func (b *Broker) Cluster() *kfake.Cluster { return b.cluster }

// Close stops the broker and, with a data directory, writes the last of its
// state. Closing again waits for the first Close and returns its result.
func (b *Broker) Close() error {
	b.close.Do(func() {
		b.cluster.Close()
		b.err = b.lock.release()
		close(b.closed)
	})
	<-b.closed
	return b.err
}

// createTimeout is far beyond what the embedded broker takes for any number of
// topics (milliseconds); it only turns a hang into an error.
const createTimeout = 10 * time.Second

// createTopics sets its own limit of time.
//
//nolint:contextcheck // the broker is in this process: there is nothing to wait for that a caller could end
func (b *Broker) createTopics(topics []Topic) error {
	if len(topics) == 0 {
		return nil
	}
	request := &kafka.CreateTopicsRequest{}
	for _, t := range topics {
		request.Topics = append(request.Topics, t.config())
	}
	transport := &kafka.Transport{ClientID: "churnstream-devbroker"}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(b.addrs...), Transport: transport}
	ctx, cancel := context.WithTimeout(context.Background(), createTimeout)
	defer cancel()
	response, err := client.CreateTopics(ctx, request)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	var errs []error
	for _, t := range topics {
		if err := response.Errors[t.Name]; err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
			errs = append(errs, fmt.Errorf("create topic %q: %w", t.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (t Topic) config() kafka.TopicConfig {
	c := kafka.TopicConfig{Topic: t.Name, NumPartitions: t.Partitions, ReplicationFactor: 1}
	if t.Partitions == 0 {
		c.NumPartitions = -1 // the broker's default
	}
	for name, value := range t.Config {
		c.ConfigEntries = append(c.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	return c
}

func startError(cfg Config, err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "listen" {
		return fmt.Errorf("embedded broker: listen on %s: %w; stop what uses the port or choose another", cfg.Listen, err)
	}
	if cfg.DataDir != "" {
		return fmt.Errorf("embedded broker: data directory %s: %w; remove it to start afresh", cfg.DataDir, err)
	}
	return fmt.Errorf("embedded broker: %w", err)
}

func ports(first, n int) []int {
	ports := make([]int, n)
	for i := range ports {
		if first != 0 {
			ports[i] = first + i
		}
	}
	return ports
}

// listenFunc replaces kfake's fixed 127.0.0.1 by our host.
func listenFunc(host, advertise string) func(network, address string) (net.Listener, error) {
	return func(network, address string) (net.Listener, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		ln, err := net.Listen(network, net.JoinHostPort(host, port))
		if err != nil {
			return nil, err
		}
		return advertisedListener{ln, advertise}, nil
	}
}

// advertisedListener listens on one host and says another: kfake hands the
// listener's address to clients, and 0.0.0.0 is no address to dial.
type advertisedListener struct {
	net.Listener
	host string
}

func (l advertisedListener) Addr() net.Addr {
	_, port, err := net.SplitHostPort(l.Listener.Addr().String())
	if err != nil {
		return l.Listener.Addr()
	}
	return address(net.JoinHostPort(l.host, port))
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

func advertisedHost(host, advertise string) string {
	if advertise != "" {
		return advertise
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return host
}

func splitListen(listen string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", text)
	}
	return host, port, nil
}

// logger passes on what kfake finds wrong; its running commentary on ordinary
// requests is left out.
type logger struct{ log zerolog.Logger }

func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.log.Error().Msg(strings.TrimSpace(fmt.Sprintf(format, args...)))
	case kfake.LogLevelWarn:
		l.log.Debug().Msg(strings.TrimSpace(fmt.Sprintf(format, args...)))
	case kfake.LogLevelNone, kfake.LogLevelInfo, kfake.LogLevelDebug:
	}
}
