package devbroker

import (
	"errors"
	"fmt"
	"regexp"
)

// Config says where the broker listens and what it holds. Start from
// DefaultConfig.
type Config struct {
	// Listen is host:port of the first broker. Port 0 takes a free one; with
	// several brokers and a fixed port the others take the ports after it.
	Listen string

	// Advertise is the host that clients are told to dial. Empty means the host
	// of Listen, or 127.0.0.1 when that is a wildcard.
	Advertise string

	// Brokers is how many brokers answer, each with its own address. More than
	// one is for tests of leader and coordinator moves; nothing is replicated.
	Brokers int

	// DataDir keeps topics, groups and transactions over restarts; a killed
	// process loses nothing that the operating system had taken. Empty keeps
	// everything in memory. One process at a time can use a directory.
	DataDir string

	// SyncWrites flushes every batch to disk before it is acknowledged.
	SyncWrites bool

	// Partitions is what a topic gets that does not say its own.
	Partitions int

	// AutoCreateTopics lets a client's metadata request create the topics it
	// names, as Apache Kafka does by default. Off, a misspelt topic is an error.
	AutoCreateTopics bool

	// Topics are created at start unless they exist.
	Topics []Topic
}

// Topic is a topic to create.
type Topic struct {
	Name       string
	Partitions int               // 0: Config.Partitions
	Config     map[string]string // as in Kafka, e.g. cleanup.policy=compact; unlike there, an unknown name is kept and ignored
}

// DefaultConfig is one broker in memory on Kafka's usual port, without topics.
func DefaultConfig() Config {
	return Config{Listen: "127.0.0.1:9092", Brokers: 1, Partitions: 4}
}

// maxPartitions of a topic: each is memory, and files where there is a data directory.
const maxPartitions = 10_000

// topicName is Kafka's rule for topic names.
var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	if _, port, err := splitListen(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen: %w; want host:port, e.g. 127.0.0.1:9092", err))
	} else if port+c.Brokers-1 > 65535 {
		errs = append(errs, fmt.Errorf("listen: %d brokers from port %d go beyond 65535; e.g. 127.0.0.1:9092", c.Brokers, port))
	}
	if c.Brokers < 1 {
		errs = append(errs, fmt.Errorf("brokers: %d; want at least 1", c.Brokers))
	}
	if c.Partitions < 1 || c.Partitions > maxPartitions {
		errs = append(errs, fmt.Errorf("partitions: %d; want 1 to %d, e.g. 4", c.Partitions, maxPartitions))
	}
	if c.SyncWrites && c.DataDir == "" {
		errs = append(errs, errors.New("sync_writes: needs a data directory, e.g. .build/broker"))
	}
	seen := make(map[string]bool, len(c.Topics))
	for i, t := range c.Topics {
		if !topicName.MatchString(t.Name) || t.Name == "." || t.Name == ".." {
			errs = append(errs, fmt.Errorf("topics[%d]: name %q; want letters, digits, '.', '_' or '-', at most 249, e.g. customer-activity", i, t.Name))
		}
		if t.Partitions < 0 || t.Partitions > maxPartitions {
			errs = append(errs, fmt.Errorf("topics[%d]: %d partitions; want 1 to %d, or 0 for the default", i, t.Partitions, maxPartitions))
		}
		if seen[t.Name] {
			errs = append(errs, fmt.Errorf("topics[%d]: %q is listed twice", i, t.Name))
		}
		seen[t.Name] = true
	}
	return errors.Join(errs...)
}
