// Package config takes a YAML file and environment variables and gives the validated settings of a worker.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is everything a worker can be told. Its keys are the YAML keys; CHURNSTREAM_TOPICS_EVENTS overrides topics.events.
type Config struct {
	Brokers      []string     `yaml:"brokers"`       // bootstrap addresses, host:port
	ClientID     string       `yaml:"client_id"`     // shown in the broker's logs and quotas
	Security     Security     `yaml:"security"`      // TLS and SASL towards the brokers
	Registry     Registry     `yaml:"registry"`      // schema registry with the Confluent API
	Events       Events       `yaml:"events"`        // how events are written and read
	Group        Group        `yaml:"group"`         // consumer group
	Model        string       `yaml:"model"`         // artefact directory
	Delivery     Delivery     `yaml:"delivery"`      // exactly-once or at-least-once
	Topics       Topics       `yaml:"topics"`        // topic names
	CreateTopics CreateTopics `yaml:"create_topics"` // create what is missing at start
	DeadLetters  DeadLetters  `yaml:"dead_letters"`  // when bad records are a flood
	Fetch        Fetch        `yaml:"fetch"`         // how events are read
	Produce      Produce      `yaml:"produce"`       // how scores are written
	Reasons      Reasons      `yaml:"reasons"`       // explanations in each score
	Drift        Drift        `yaml:"drift"`         // population statistics and alarm
	Admin        Admin        `yaml:"admin"`         // metrics, probes, profiling
	HTTP         HTTP         `yaml:"http"`          // prediction API
	Log          Log          `yaml:"log"`           // level and form of the log
	Shutdown     Shutdown     `yaml:"shutdown"`      // drain on SIGTERM
}

// Security holds transport security and login. Secrets come from files and are never printed.
type Security struct {
	TLS  TLS  `yaml:"tls"`
	SASL SASL `yaml:"sasl"`
}

// TLS towards the brokers.
type TLS struct {
	Enabled    bool   `yaml:"enabled"`
	CAFile     string `yaml:"ca_file"`     // PEM; empty: the system's roots
	CertFile   string `yaml:"cert_file"`   // PEM client certificate for mutual TLS
	KeyFile    string `yaml:"key_file"`    // PEM key of cert_file
	ServerName string `yaml:"server_name"` // overrides the name that the broker's certificate must carry
}

// SASL login at the brokers.
type SASL struct {
	Mechanism    string `yaml:"mechanism"` // "", PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM
	Username     string `yaml:"username"`
	Password     Hidden `yaml:"password,omitempty"` // by environment only
	PasswordFile string `yaml:"password_file"`
	OAuth        OAuth  `yaml:"oauth"` // the tokens of OAUTHBEARER
	AWS          AWS    `yaml:"aws"`   // the account of AWS_MSK_IAM
}

// OAuth says where the tokens of OAUTHBEARER come from: a server that gives them for a client's credentials, or a file
// that somebody else renews.
type OAuth struct {
	TokenURL         string `yaml:"token_url"` // https
	ClientID         string `yaml:"client_id"`
	ClientSecret     Hidden `yaml:"client_secret,omitempty"` // by environment only
	ClientSecretFile string `yaml:"client_secret_file"`
	Scope            string `yaml:"scope"`
	CAFile           string `yaml:"ca_file"` // PEM, of the token server; empty: the system's roots
	TokenFile        string `yaml:"token_file"`
}

// AWS is the account that AWS_MSK_IAM signs for. What is empty is taken from the variables that the platform sets
// (AWS_REGION, AWS_ACCESS_KEY_ID, …); without any keys the instance is asked.
type AWS struct {
	Region               string `yaml:"region"`
	AccessKeyID          string `yaml:"access_key_id"`
	SecretAccessKey      Hidden `yaml:"secret_access_key,omitempty"` // by environment only
	SessionToken         Hidden `yaml:"session_token,omitempty"`     // by environment only
	RoleARN              string `yaml:"role_arn"`
	WebIdentityTokenFile string `yaml:"web_identity_token_file"`
	CredentialsURL       string `yaml:"credentials_url"`
	CredentialsTokenFile string `yaml:"credentials_token_file"`
}

// Registry is the schema registry.
type Registry struct {
	URLs            []string    `yaml:"urls"`
	Username        string      `yaml:"username"`
	Password        Hidden      `yaml:"password,omitempty"` // by environment only
	PasswordFile    string      `yaml:"password_file"`
	TokenFile       string      `yaml:"token_file"` // bearer token, read for each request; instead of username and password
	TLS             RegistryTLS `yaml:"tls"`
	CacheDir        string      `yaml:"cache_dir"`        // keeps what the registry answered, for a start while it is down; empty: nothing
	SubjectStrategy string      `yaml:"subject_strategy"` // topic, record or topic-record, as the Confluent serializers name subjects
}

// RegistryTLS is for https URLs of the registry.
type RegistryTLS struct {
	CAFile     string `yaml:"ca_file"`     // PEM; empty: the system's roots
	CertFile   string `yaml:"cert_file"`   // PEM client certificate for mutual TLS
	KeyFile    string `yaml:"key_file"`    // PEM key of cert_file
	ServerName string `yaml:"server_name"` // overrides the name that the registry's certificate must carry
}

// Events says how events name the schema that they were written with, and with which one they are read.
type Events struct {
	Framing      string   `yaml:"framing"`       // confluent, single-object or bare
	Schemas      []string `yaml:"schemas"`       // files: the writer's schema of bare events, or those of single-object encoding that the registry does not have
	ReaderSchema string   `yaml:"reader_schema"` // file: the schema that events are resolved to; empty: they are read as they were written
}

// Group is the consumer group membership.
type Group struct {
	ID                string   `yaml:"id"`
	Protocol          string   `yaml:"protocol"`    // classic, or consumer: that of Kafka 4 (KIP-848), whose session timeout is the broker's
	InstanceID        string   `yaml:"instance_id"` // classic: static membership; a restart within the session moves nothing
	MemberID          string   `yaml:"member_id"`   // consumer: the same by a fixed member id, unique in the group
	SessionTimeout    Duration `yaml:"session_timeout"`
	HeartbeatInterval Duration `yaml:"heartbeat_interval"`
	RebalanceTimeout  Duration `yaml:"rebalance_timeout"`
}

// Delivery is the guarantee given to readers of the score topic.
type Delivery string

// The two guarantees.
const (
	ExactlyOnce Delivery = "exactly-once"
	AtLeastOnce Delivery = "at-least-once"
)

// Topics names the topics that a worker reads and writes.
type Topics struct {
	Events      string `yaml:"events"`
	Scores      string `yaml:"scores"`
	DeadLetters string `yaml:"dead_letters"`
	DriftState  string `yaml:"drift_state"`
	DriftAlerts string `yaml:"drift_alerts"`
	Audit       string `yaml:"audit"` // of predictions over HTTP; empty: none
}

// CreateTopics says whether missing topics are created at start, and how.
type CreateTopics struct {
	Enabled           bool `yaml:"enabled"`
	Partitions        int  `yaml:"partitions"`
	ReplicationFactor int  `yaml:"replication_factor"`
}

// DeadLetters says when bad records are no data any more but an outage, which stops a partition.
type DeadLetters struct {
	FloodWindow int     `yaml:"flood_window"` // records of a partition that are judged; 0: nothing stops it
	FloodShare  float64 `yaml:"flood_share"`  // more bad ones of them are a flood
}

// MaxFloodWindow is the largest dead_letters.flood_window.
const MaxFloodWindow = 8192

// Fetch says how events are read.
type Fetch struct {
	MaxWait           Duration `yaml:"max_wait"`            // long poll
	MaxBytes          int      `yaml:"max_bytes"`           // of one answer of one broker
	MaxPartitionBytes int      `yaml:"max_partition_bytes"` // of one partition in it: the size of a transaction under load
	MemoryBytes       int      `yaml:"memory_bytes"`        // of all partitions together, prefetched and in hand
	OffsetReset       string   `yaml:"offset_reset"`        // earliest, latest or fail when there is no valid committed offset
	Rack              string   `yaml:"rack"`                // where this worker runs, as the brokers name racks: read from the nearest replica; empty: from leaders
}

// Produce says how scores are written.
type Produce struct {
	Compression         string   `yaml:"compression"` // none, lz4, snappy, zstd, gzip
	MaxBatchBytes       int      `yaml:"max_batch_bytes"`
	TransactionTimeout  Duration `yaml:"transaction_timeout"`
	TransactionalPrefix string   `yaml:"transactional_id_prefix"` // empty: the group id
	Transactions        string   `yaml:"transactions"`            // partition: one a partition; worker: one for all of a worker's partitions
}

// Reasons says how many contributions each score carries.
type Reasons struct {
	Top  int         `yaml:"top"`  // 0: none
	When ReasonsWhen `yaml:"when"` // which scores carry them
	From float64     `yaml:"from"` // with above: the least probability
}

// ReasonsWhen says which scores carry reasons.
type ReasonsWhen string

// The scores that carry reasons.
const (
	ReasonsAlways    ReasonsWhen = "always"
	ReasonsAbove     ReasonsWhen = "above"   // those whose probability is at least reasons.from
	ReasonsOnRequest ReasonsWhen = "request" // those whose event carries the header churnstream.reasons
)

// Drift sets the population statistics and the alarm.
type Drift struct {
	Enabled bool `yaml:"enabled"`
	// Bucket is the event time of the finest bucket. Everything else follows: rings of 60, 24 × 60 and 7 × 1440 of them,
	// windows of 10, 60, 360, 1440 and 10080.
	Bucket           Duration `yaml:"bucket"`
	EvaluateEvery    Duration `yaml:"evaluate_every"`
	RelevantPSI      float64  `yaml:"relevant_psi"`        // a smaller true shift is no alarm
	FalseAlarmsAYear float64  `yaml:"false_alarms_a_year"` // of a model, over all that is asked
	ClearHold        int      `yaml:"clear_hold"`          // calm evaluations in a row before an alarm is cleared
	Webhook          string   `yaml:"webhook"`             // address that every alert is posted to as JSON; empty: none
}

// Admin is the HTTP listener for metrics and probes.
type Admin struct {
	Listen string `yaml:"listen"` // empty: none
	Pprof  bool   `yaml:"pprof"`
	MaxLag int64  `yaml:"max_lag"` // records; above it the worker is not ready; 0: no bound
}

// Log sets the log on stderr.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // auto (console on a terminal), json, console
}

// Shutdown bounds the drain.
type Shutdown struct {
	Grace Duration `yaml:"grace"`
}

// Duration is written as Go writes it: 500ms, 1m30s.
type Duration time.Duration

// UnmarshalText parses a Go duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 500ms or 1m30s", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes a Go duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Std gives the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Default is a complete configuration but for the model.
func Default() Config {
	return Config{
		Brokers:  []string{"127.0.0.1:9092"},
		ClientID: "churnstream",
		Registry: Registry{URLs: []string{"http://127.0.0.1:8081"}, SubjectStrategy: "topic"},
		Events:   Events{Framing: "confluent"},
		Group: Group{
			ID:                "churnstream",
			Protocol:          "classic",
			SessionTimeout:    Duration(6 * time.Second),
			HeartbeatInterval: Duration(250 * time.Millisecond),
			RebalanceTimeout:  Duration(30 * time.Second),
		},
		Delivery: ExactlyOnce,
		Topics: Topics{
			Events:      "customer-activity",
			Scores:      "churn-scores",
			DeadLetters: "churn-dead-letters",
			DriftState:  "churn-drift-state",
			DriftAlerts: "churn-drift-alerts",
		},
		CreateTopics: CreateTopics{Partitions: 8, ReplicationFactor: 1},
		DeadLetters:  DeadLetters{FloodWindow: 1000, FloodShare: 0.5},
		Fetch: Fetch{
			MaxWait:           Duration(100 * time.Millisecond),
			MaxBytes:          8 << 20,
			MaxPartitionBytes: 1 << 20,
			MemoryBytes:       12 << 20,
			OffsetReset:       "earliest",
		},
		Produce: Produce{
			Compression:        "lz4",
			MaxBatchBytes:      1_000_000,
			TransactionTimeout: Duration(10 * time.Second),
			Transactions:       "worker",
		},
		Reasons: Reasons{Top: 3, When: ReasonsAlways, From: 0.5},
		Drift: Drift{
			Enabled:          true,
			Bucket:           Duration(time.Minute),
			EvaluateEvery:    Duration(time.Minute),
			RelevantPSI:      0.1,
			FalseAlarmsAYear: 1,
			ClearHold:        30,
		},
		Admin:    Admin{Listen: "127.0.0.1:9095"},
		HTTP:     defaultHTTP(),
		Log:      Log{Level: "info", Format: "auto"},
		Shutdown: Shutdown{Grace: Duration(25 * time.Second)},
	}
}

// Load reads path (empty: defaults only), applies environment variables over it and validates. The error names every
// fault at once: unknown keys and wrong types with their line, wrong values with their key. A file that is not YAML at
// all has no values to judge: its own fault is the only one named of it.
func Load(path string, environ []string) (Config, error) {
	cfg := Default()
	read := document{path: path, named: map[string]bool{}}
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return cfg, fmt.Errorf("read the configuration: %w", err)
		}
		if !read.decode(text, &cfg) {
			return cfg, errors.Join(append(read.faults, applyEnvironment(&cfg, environ)...)...)
		}
	}
	faults := [][]error{read.faults, applyEnvironment(&cfg, environ)}
	applyPlatform(&cfg.Security.SASL.AWS, environ)
	faults = append(faults, cfg.faults(read.named))
	return cfg, errors.Join(slices.Concat(faults...)...)
}

// Validate names every wrong value at once, each with its key and an example of a right one.
func (c *Config) Validate() error { return errors.Join(c.faults(nil)...) }

// YAML prints the configuration as a file that Load would read back. It holds no secrets: those live in files, and a
// registry URL with a login in it, which Validate refuses, is refused here, too.
func (c *Config) YAML() ([]byte, error) {
	for i, r := range c.Registry.URLs {
		if mayHoldLogin(r) {
			return nil, fmt.Errorf("print the configuration: registry.urls[%d]: %s", i, loginInURL)
		}
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(c); err != nil {
		return nil, fmt.Errorf("print the configuration: %w", err)
	}
	return b.Bytes(), e.Close()
}

// Hidden is a secret that came by an environment variable; nil is none. It is never written or printed: a function shows
// nothing of what it returns, not even inside of a struct that is printed.
type Hidden func() string

// Hide keeps a secret; an empty one is none.
func Hide(secret string) Hidden {
	if secret == "" {
		return nil
	}
	return func() string { return secret }
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hidden) UnmarshalText(text []byte) error {
	*h = Hide(string(text))
	return nil
}

// String implements fmt.Stringer.
func (Hidden) String() string { return "(hidden)" }

// GoString implements fmt.GoStringer.
func (Hidden) GoString() string { return "(hidden)" }

// MarshalText implements encoding.TextMarshaler.
func (h Hidden) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// IsZero keeps the key out of what YAML prints.
func (Hidden) IsZero() bool { return true }

// UnmarshalYAML refuses a secret in the file, without repeating it.
func (*Hidden) UnmarshalYAML(*yaml.Node) error {
	return errors.New("a secret does not belong in this file: name a file that holds it by the key of this name with _file behind it, or set the environment variable of this key")
}

// Secret is given, or else what the file holds: its content without the line end, as it is now.
func Secret(given Hidden, path string) (string, error) {
	if given != nil {
		return given(), nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
