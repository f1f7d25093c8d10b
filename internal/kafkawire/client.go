package kafkawire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// Config says how to reach a cluster.
type Config struct {
	// Brokers to ask first, host:port each.
	Brokers []string
	// ClientID appears in the brokers' logs and quotas.
	ClientID string
	// Transport makes the connections, with TLS and SASL as it is set up; nil is plain TCP.
	Transport *kafka.Transport
	// MetadataTTL bounds the age of what the client believes about leaders; 0 means one minute.
	MetadataTTL time.Duration
	// RequestTimeout bounds a request whose context has no deadline; 0 means 30 seconds.
	RequestTimeout time.Duration
}

// Client sends raw requests and remembers where leaders and coordinators are and which versions
// each broker speaks. It is safe for concurrent use. Call CloseIdleConnections when done with it.
type Client struct {
	cfg         Config
	transport   *kafka.Transport
	bootstrap   net.Addr
	correlation atomic.Int32
	refreshing  chan struct{} // holds a token while metadata is being asked for
	rotation    rotation

	mu           sync.Mutex
	addresses    map[int32]net.Addr
	versions     map[int32]Versions
	coordinators map[coordinatorKey]int32
	topics       map[string]cachedTopic
}

// NewClient checks cfg; it opens no connection.
func NewClient(cfg Config) (*Client, error) {
	var faults []error
	if len(cfg.Brokers) == 0 {
		faults = append(faults, errors.New(`brokers: none given; name at least one, for example "127.0.0.1:9092"`))
	}
	for _, b := range cfg.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			faults = append(faults, fmt.Errorf(`brokers: %q is not host:port, for example "127.0.0.1:9092"`, b))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if cfg.MetadataTTL <= 0 {
		cfg.MetadataTTL = time.Minute
	}
	if cfg.RequestTimeout <= 0 {
		cfg.RequestTimeout = 30 * time.Second
	}
	if cfg.Transport == nil {
		// The Transport's own view of the topics is not used: an empty list keeps it from asking for all.
		cfg.Transport = &kafka.Transport{ClientID: cfg.ClientID, MetadataTopics: []string{}, MetadataTTL: 30 * time.Second}
	}
	return &Client{
		cfg:          cfg,
		transport:    cfg.Transport,
		bootstrap:    kafka.TCP(cfg.Brokers...),
		refreshing:   make(chan struct{}, 1),
		addresses:    map[int32]net.Addr{},
		versions:     map[int32]Versions{},
		coordinators: map[coordinatorKey]int32{},
		topics:       map[string]cachedTopic{},
	}, nil
}

// CloseIdleConnections closes what no request is using; connections in use close after it.
func (c *Client) CloseIdleConnections() { c.transport.CloseIdleConnections() }

// address of a broker, asking for metadata once where the id is new.
func (c *Client) address(ctx context.Context, broker int32) (net.Addr, error) {
	if broker < 0 {
		return c.bootstrap, nil
	}
	if a := c.knownAddress(broker); a != nil {
		return a, nil
	}
	if err := c.refresh(ctx, nil); err != nil {
		return nil, err
	}
	if a := c.knownAddress(broker); a != nil {
		return a, nil
	}
	return nil, kafka.BrokerNotAvailable
}

func (c *Client) knownAddress(broker int32) net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addresses[broker]
}

func (c *Client) learnAddressLocked(broker int32, host string, port int32) {
	address := net.JoinHostPort(host, strconv.Itoa(int(port)))
	if known := c.addresses[broker]; known != nil && known.String() == address {
		return
	}
	c.addresses[broker] = kafka.TCP(address)
	delete(c.versions, broker)
}

// Versions are the API versions and finalized features that one broker announced.
type Versions struct {
	ranges   map[int16][2]int16
	features map[string]int16
}

// Max is the highest version of an API that the broker and we (up to ours) speak. The error names
// both sides where there is none.
func (v Versions) Max(key protocol.ApiKey, ours int16) (int16, error) {
	r, ok := v.ranges[int16(key)]
	if !ok {
		return 0, fmt.Errorf("%s is unknown to the broker: %w", key, kafka.UnsupportedVersion)
	}
	if r[0] > ours {
		return 0, fmt.Errorf("%s: the broker speaks v%d to v%d, we speak up to v%d: %w", key, r[0], r[1], ours, kafka.UnsupportedVersion)
	}
	return min(r[1], ours), nil
}

// FinalizedFeature is the level at which the cluster runs a feature, for example
// "transaction.version" 2 (KIP-890); 0 where the broker names none.
func (v Versions) FinalizedFeature(name string) int16 { return v.features[name] }

// Versions asks a broker itself what it speaks, once: kafka-go cuts the announced ranges down to
// the versions that it knows. The answer is forgotten when a request to the broker fails.
func (c *Client) Versions(ctx context.Context, broker int32) (Versions, error) {
	broker = max(broker, AnyBroker)
	c.mu.Lock()
	v, ok := c.versions[broker]
	c.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := c.askVersions(ctx, broker, 3)
	if CodeOf(err) == int16(kafka.UnsupportedVersion) { // before Kafka 2.4; the answer came in v0 form (KIP-511)
		v, err = c.askVersions(ctx, broker, 0)
	}
	if err != nil {
		return Versions{}, err
	}
	c.mu.Lock()
	c.versions[broker] = v
	c.mu.Unlock()
	return v, nil
}

func (c *Client) askVersions(ctx context.Context, broker int32, version int16) (Versions, error) {
	v := Versions{ranges: map[int16][2]int16{}, features: map[string]int16{}}
	return v, c.Do(ctx, &Request{
		Key: protocol.ApiVersions, Version: version, FlexibleFrom: 3, Broker: broker,
		Encode: func(w *Writer) {
			if version >= 3 {
				w.String("churnstream")
				w.String("1")
				w.Tags()
			}
		},
		Decode: func(r *Reader) error { return v.decode(r, version) },
	})
}

func (v Versions) decode(r *Reader, version int16) error {
	if err := Code(r.Int16()); err != nil {
		return err
	}
	for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
		v.ranges[r.Int16()] = [2]int16{r.Int16(), r.Int16()}
		r.Tags()
	}
	if version >= 1 {
		r.Int32() // throttle
	}
	r.EachTag(v.readTag)
	return nil
}

func (v Versions) readTag(tag uint64, r *Reader) {
	const finalizedFeatures = 2
	if tag != finalizedFeatures {
		return
	}
	for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
		name := r.String()
		v.features[name] = r.Int16() // the maximum level; the minimum follows
		r.Int16()
		r.Tags()
	}
}

func (c *Client) forgetVersions(broker int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.versions, max(broker, AnyBroker))
}
