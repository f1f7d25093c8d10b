package producer

import (
	"errors"
	"fmt"
	"time"
)

// Config holds what both publishers need. DefaultConfig has the values that suit a local cluster and a remote one.
type Config struct {
	// Compression of the record batches. A batch that would grow is sent as it is.
	Compression Compression `yaml:"compression"`

	// MaxBatchBytes bounds one record batch, measured before compression. A partition that holds more in one unit
	// gets several batches, sent one after the other. Where it exceeds the topic's max.message.bytes (broker default
	// 1,048,588) a unit has to be repeated with smaller ones.
	MaxBatchBytes int `yaml:"max_batch_bytes"`

	// MaxRequestBytes bounds one Produce request, which carries one batch of every partition of a leader, and with it
	// the memory that it is encoded in. The broker closes the connection above its socket.request.max.bytes (default
	// 100 MiB). Zero is the larger of 4 MiB and MaxBatchBytes.
	MaxRequestBytes int `yaml:"max_request_bytes"`

	// TransactionTimeout is after how long the coordinator aborts a transaction that its owner left open. Readers
	// under read_committed wait for it.
	TransactionTimeout time.Duration `yaml:"transaction_timeout"`

	// RequestTimeout bounds the wait for one answer. The request is then repeated on a new connection.
	RequestTimeout time.Duration `yaml:"request_timeout"`

	// RetryTimeout bounds all repetitions of one Begin, Commit or Abort. It stays below TransactionTimeout: beyond
	// that the coordinator fences the producer. Zero is five sixths of TransactionTimeout.
	RetryTimeout time.Duration `yaml:"retry_timeout"`

	// RetryBackoff is the wait before the first repetition. It doubles up to MaxRetryBackoff, with jitter.
	RetryBackoff    time.Duration `yaml:"retry_backoff"`
	MaxRetryBackoff time.Duration `yaml:"max_retry_backoff"`

	// TransactionVersion 1 forces the protocol of brokers before 4.0 on brokers that have finalised version 2
	// (KIP-890). Zero takes what the cluster has finalised.
	TransactionVersion int `yaml:"transaction_version"`

	// OnRetry hears of every request that is about to be repeated; nil: nobody does. The goroutines of the publishers call
	// it, at the same time.
	OnRetry func(Retry) `yaml:"-"`

	// Metrics counts what is published. Nil counts nothing that anybody sees.
	Metrics *Metrics `yaml:"-"`

	// Pool is the memory that publishers share. Nil gives each publisher one of its own, and all units of a Shared one
	// together.
	Pool *Pool `yaml:"-"`

	// Limits is what publishers learn of the batches that topics take. Nil gives each publisher one of its own, and all
	// units of a Shared one together.
	Limits *Limits `yaml:"-"`
}

// Retry is a request that failed and is repeated after a pause.
type Retry struct {
	Err       error // with operation and object
	Attempts  int   // so far
	Since, At time.Time
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Compression:        None,
		MaxBatchBytes:      1<<20 - 1<<10,
		TransactionTimeout: 30 * time.Second,
		RequestTimeout:     10 * time.Second,
		RetryBackoff:       2 * time.Millisecond,
		MaxRetryBackoff:    250 * time.Millisecond,
		Limits:             &Limits{},
	}
}

// Validate reports every fault, each with its key and an example of a right value.
func (c Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.Compression > Zstd {
		fault("compression", "is %d, must be none, gzip, snappy, lz4 or zstd, for example lz4", c.Compression)
	}
	if c.MaxBatchBytes < 1<<10 || c.MaxBatchBytes > 1<<30 {
		fault("max_batch_bytes", "is %d, must lie between 1024 and %d, for example 1047552", c.MaxBatchBytes, 1<<30)
	}
	if c.MaxRequestBytes != 0 && c.MaxRequestBytes < c.MaxBatchBytes || c.MaxRequestBytes > 1<<30 {
		fault("max_request_bytes", "is %d, must be 0 or lie between max_batch_bytes (%d) and %d, for example 4194304", c.MaxRequestBytes, c.MaxBatchBytes, 1<<30)
	}
	if c.TransactionTimeout < time.Second {
		fault("transaction_timeout", "is %v, must be at least 1s, for example 30s", c.TransactionTimeout)
	}
	if c.RequestTimeout < 100*time.Millisecond {
		fault("request_timeout", "is %v, must be at least 100ms, for example 10s", c.RequestTimeout)
	}
	if c.RetryTimeout < 0 || c.RetryTimeout >= c.TransactionTimeout {
		fault("retry_timeout", "is %v, must be 0 or shorter than transaction_timeout (%v), for example 25s", c.RetryTimeout, c.TransactionTimeout)
	}
	if c.RetryBackoff <= 0 || c.RetryBackoff > c.MaxRetryBackoff {
		fault("retry_backoff", "is %v, must be positive and at most max_retry_backoff (%v), for example 2ms", c.RetryBackoff, c.MaxRetryBackoff)
	}
	if c.TransactionVersion != 0 && c.TransactionVersion != 1 {
		fault("transaction_version", "is %d, must be 0 (what the cluster has finalised) or 1 (the older protocol)", c.TransactionVersion)
	}
	return errors.Join(faults...)
}

func (c Config) maxRequestBytes() int {
	if c.MaxRequestBytes > 0 {
		return c.MaxRequestBytes
	}
	return max(4<<20, c.MaxBatchBytes)
}

func (c Config) retryTimeout() time.Duration {
	if c.RetryTimeout > 0 {
		return c.RetryTimeout
	}
	return c.TransactionTimeout * 5 / 6
}
