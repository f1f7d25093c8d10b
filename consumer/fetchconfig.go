package consumer

import (
	"errors"
	"fmt"
	"time"
)

// Isolation says which records of transactions are visible.
type Isolation int8

// The values are those of the Fetch request.
const (
	ReadUncommitted Isolation = 0
	ReadCommitted   Isolation = 1
)

// OffsetReset says where to read on when no offset is committed or the committed one is gone.
type OffsetReset string

// The policies. Every reset of a position that was out of range is counted and logged.
const (
	ResetEarliest OffsetReset = "earliest"
	ResetLatest   OffsetReset = "latest"
	ResetFail     OffsetReset = "fail"
)

// Timestamps that ListOffsets takes for the two ends of a partition.
const (
	Latest   int64 = -1
	Earliest int64 = -2
)

// FetchConfig bounds a Fetcher's requests and its memory.
type FetchConfig struct {
	// MaxWait is how long a broker may hold a request for which it has nothing.
	MaxWait time.Duration
	// MinInterval is the least time between the starts of two requests to one broker while little
	// comes in: it trades latency for requests.
	MinInterval time.Duration
	// MinBytes is what a broker waits for, over all partitions of a request.
	MinBytes int
	// MaxBytes bounds one response.
	MaxBytes int
	// MaxPartitionBytes bounds one partition's share of a response, and what is prefetched of it.
	MaxPartitionBytes int
	// MemoryBytes bounds what all partitions hold together, whatever their number: prefetched and
	// being read, compressed and decompressed, records and responses. Beyond it nothing is prefetched.
	// What is above it at times: one record batch a request, since a broker never cuts one, and what
	// readers have in hand at the same time where the batches of their topic are larger than their shares.
	MemoryBytes int
	// MaxBatchBytes bounds one record batch as it comes from the broker, and again once decompressed.
	MaxBatchBytes int
	// Rack is where this process runs, as the brokers name racks (broker.rack). Not empty, it lets a
	// leader send us to a replica in the same rack (KIP-392; brokers need replica.selector.class).
	Rack        string
	Isolation   Isolation
	OffsetReset OffsetReset
	// Metrics may be nil.
	Metrics *Metrics
}

// DefaultFetchConfig reads committed records from the earliest offset with 12 MiB of memory.
func DefaultFetchConfig() FetchConfig {
	return FetchConfig{
		MaxWait:           100 * time.Millisecond,
		MinInterval:       300 * time.Microsecond,
		MinBytes:          1,
		MaxBytes:          2 << 20,
		MaxPartitionBytes: 1 << 20,
		MemoryBytes:       12 << 20,
		MaxBatchBytes:     64 << 20,
		Isolation:         ReadCommitted,
		OffsetReset:       ResetEarliest,
	}
}

// Validate names every fault with its key and a right value.
func (c FetchConfig) Validate() error {
	var faults []error
	positive := func(key string, v int, example string) {
		if v <= 0 || int64(v) > 1<<30 {
			faults = append(faults, fmt.Errorf("fetch.%s: %d is not between 1 and 1073741824; for example %s", key, v, example))
		}
	}
	if c.MaxWait < time.Millisecond || c.MaxWait > 10*time.Second {
		faults = append(faults, fmt.Errorf("fetch.max_wait: %s is not between 1ms and 10s; for example 100ms", c.MaxWait))
	}
	if c.MinInterval < 0 || c.MinInterval > time.Second {
		faults = append(faults, fmt.Errorf("fetch.min_interval: %s is not between 0 and 1s; for example 300us", c.MinInterval))
	}
	positive("min_bytes", c.MinBytes, "1")
	positive("max_bytes", c.MaxBytes, "2097152")
	positive("max_partition_bytes", c.MaxPartitionBytes, "1048576")
	if c.MemoryBytes < 512<<10 || int64(c.MemoryBytes) > 1<<30 { // less leaves a request nothing to bring
		faults = append(faults, fmt.Errorf("fetch.memory_bytes: %d is not between 524288 and 1073741824; for example 12582912", c.MemoryBytes))
	}
	positive("max_batch_bytes", c.MaxBatchBytes, "67108864")
	if c.Isolation != ReadCommitted && c.Isolation != ReadUncommitted {
		faults = append(faults, fmt.Errorf("fetch.isolation: %d is not 0 (read uncommitted) or 1 (read committed)", c.Isolation))
	}
	switch c.OffsetReset {
	case ResetEarliest, ResetLatest, ResetFail:
	default:
		faults = append(faults, fmt.Errorf("fetch.offset_reset: %q is not earliest, latest or fail; for example earliest", c.OffsetReset))
	}
	return errors.Join(faults...)
}

// share is the size of a piece of one of so many open partitions. A partition holds two of them,
// prefetched and being read, and where all have a batch in hand about as much decompressed and in
// records.
func (c FetchConfig) share(open int) int {
	return min(roundDown(max(c.MemoryBytes/(4*max(open, 1)), leastGrant)), c.MaxPartitionBytes)
}
