package producer

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/churnstream/churnstream/internal/testkit/cputime"
)

func benchProtocols(b *testing.B, bench func(b *testing.B, cfg Config)) {
	b.Helper()
	for _, version := range []int{0, 1} {
		cfg := DefaultConfig()
		cfg.TransactionVersion = version
		b.Run(map[int]string{0: "version=finalised", 1: "version=1"}[version], func(b *testing.B) { bench(b, cfg) })
	}
}

// BenchmarkSmallTransactions publishes transactions of eight records in eight partitions and one offset: one every
// 20 ms from each of n producers, or back to back. CHURNSTREAM_TEST_BROKERS makes it say something about Kafka.
func BenchmarkSmallTransactions(b *testing.B) {
	brokers := testBrokers(b)
	benchProtocols(b, func(b *testing.B, cfg Config) {
		for _, load := range []struct {
			producers int
			pause     time.Duration
		}{{1, 0}, {8, 0}, {1, 20 * time.Millisecond}, {8, 20 * time.Millisecond}} {
			b.Run(fmt.Sprintf("producers=%d/pause=%v", load.producers, load.pause), func(b *testing.B) {
				c := connect(b, brokers)
				ctx := c.context()
				out, in := c.topic(8), c.topic(8)
				producers := make([]*Transactional, load.producers)
				for i := range producers {
					producers[i] = c.transactional(cfg, uniqueName("tx"))
					if err := smallTransaction(ctx, producers[i], out, in, int32(i)); err != nil {
						b.Fatal(err)
					}
				}
				b.ResetTimer()
				start := time.Now()
				var mu sync.Mutex
				var took []time.Duration
				var wg sync.WaitGroup
				for i, p := range producers {
					wg.Go(func() {
						for range (b.N + load.producers - 1) / load.producers {
							if load.pause > 0 {
								time.Sleep(load.pause)
							}
							begin := time.Now()
							if err := smallTransaction(ctx, p, out, in, int32(i)); err != nil {
								b.Error(err)
								return
							}
							mu.Lock()
							took = append(took, time.Since(begin))
							mu.Unlock()
						}
					})
				}
				wg.Wait()
				elapsed := time.Since(start)
				slices.Sort(took)
				milliseconds := func(q float64) float64 {
					return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
				}
				b.ReportMetric(float64(len(took))/elapsed.Seconds(), "txn/s")
				b.ReportMetric(milliseconds(0.5), "p50-ms")
				b.ReportMetric(milliseconds(0.99), "p99-ms")
			})
		}
	})
}

func smallTransaction(ctx context.Context, p *Transactional, out, in string, partition int32) error {
	if err := p.Begin(ctx); err != nil {
		return err
	}
	value := []byte("vvvvvvvvvvvvvvvv")
	for i := range int32(8) {
		if err := p.Append(&Record{Topic: out, Partition: i, Timestamp: time.Now().UnixMilli(), Key: value[:1], Value: value}); err != nil {
			return err
		}
	}
	return p.Commit(ctx, Member{Group: p.transactionalID, Generation: -1}, []Offset{{Topic: in, Partition: partition, Offset: time.Now().UnixMilli()}})
}

// BenchmarkMebibyteTransactions publishes transactions of about 1 MiB: 6,000 records of 150 bytes, by key over eight
// partitions, and one offset. Against a real broker the CPU is this client's alone.
func BenchmarkMebibyteTransactions(b *testing.B) {
	brokers := testBrokers(b)
	benchProtocols(b, func(b *testing.B, cfg Config) {
		for _, codec := range []Compression{None, LZ4} {
			b.Run("compression="+codec.String(), func(b *testing.B) {
				cfg.Compression = codec
				c := connect(b, brokers)
				ctx := c.context()
				out, in := c.topic(8), c.topic(1)
				p := c.transactional(cfg, uniqueName("tx"))
				const records = 6000
				keys := make([][]byte, records)
				values := make([][]byte, records)
				for i := range keys {
					keys[i] = fmt.Appendf(nil, "customer-%07d", i*7919)
					values[i] = fmt.Appendf(nil, "%0150d", i*7919*104729)
				}
				unit := func() {
					if err := p.Begin(ctx); err != nil {
						b.Fatal(err)
					}
					for i := range records {
						r := Record{Topic: out, Partition: -1, Timestamp: 1_700_000_000_000, Key: keys[i], Value: values[i]}
						if err := p.Append(&r); err != nil {
							b.Fatal(err)
						}
					}
					if err := p.Commit(ctx, anyMember(p.transactionalID), []Offset{{Topic: in, Partition: 0, Offset: 1}}); err != nil {
						b.Fatal(err)
					}
				}
				unit()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				reportTime := cputime.Report(b, records, "record")
				b.ResetTimer()
				for b.Loop() {
					unit()
				}
				reportTime()
				runtime.ReadMemStats(&after)
				n := float64(b.N) * records
				b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/record")
				b.ReportMetric(n/b.Elapsed().Seconds(), "records/s")
			})
		}
	})
}
