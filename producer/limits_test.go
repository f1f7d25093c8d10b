package producer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestATopicThatTakesSmallerBatchesGetsThem lets a topic refuse batches of several records. The unit is repeated with
// smaller ones, by a fresh publisher as a worker does, and what was learned is kept.
func TestATopicThatTakesSmallerBatchesGetsThem(t *testing.T) {
	t.Parallel()
	brokers := testBrokers(t)
	for name, fresh := range map[string]func(*cluster, Config) Publisher{
		"transactional": func(c *cluster, cfg Config) Publisher { return c.transactional(cfg, uniqueName("tx")) },
		"older protocol": func(c *cluster, cfg Config) Publisher {
			cfg.TransactionVersion = 1
			return c.transactional(cfg, uniqueName("tx"))
		},
		"idempotent": func(c *cluster, cfg Config) Publisher { return c.idempotent(cfg) },
		"shared": func(c *cluster, cfg Config) Publisher {
			s, _ := c.running(cfg, uniqueName("tx"))
			return c.unit(s)
		},
	} {
		for _, codec := range []Compression{None, LZ4} {
			t.Run(fmt.Sprintf("%s %v", name, codec), func(t *testing.T) {
				t.Parallel()
				c := connect(t, brokers)
				ctx := c.context()
				out, other := c.topic(1, "max.message.bytes", "2000"), c.topic(1)
				cfg := DefaultConfig()
				cfg.Compression = codec
				text := func(i int) string { return fmt.Sprintf("%04d%096x", i, uint64(i)*0x9E3779B97F4A7C15) }
				refused := 0
				var want []string
				for unit := range 2 {
					for p := fresh(c, cfg); ; p = fresh(c, cfg) {
						mustBegin(t, ctx, p)
						for i := range 100 {
							mustAppend(t, p, other, 0, text(i))
							mustAppend(t, p, out, 0, text(100*unit+i))
						}
						err := p.Commit(ctx, anyMember(uniqueName("group")), nil)
						if err == nil {
							break
						}
						if !errors.Is(err, ErrAbortable) || !strings.Contains(err.Error(), "raise max.message.bytes of "+out+" to max_batch_bytes (1047552)") {
							t.Fatal(err)
						}
						if refused++; refused > 5 || unit > 0 {
							t.Fatalf("unit %d refused for the %dth time: %v", unit, refused, err)
						}
						if err := p.Abort(ctx); err != nil {
							t.Fatal(err)
						}
					}
					for i := range 100 {
						want = append(want, text(100*unit+i))
					}
				}
				if got := values(c.committed(out, 1)); !slices.Equal(got, want) {
					t.Errorf("%d records are there, want %d", len(got), len(want))
				}
				if refused == 0 {
					t.Error("nothing was refused")
				}
				if most := cfg.Limits.of(other, cfg.MaxBatchBytes); most != cfg.MaxBatchBytes {
					t.Errorf("batches of a topic that refused none have %d bytes at most", most)
				}

				p := fresh(c, cfg)
				mustBegin(t, ctx, p)
				mustAppend(t, p, out, 0, strings.Repeat(text(1), 30)) // still larger alone, also compressed
				mustAppend(t, p, out, 0, "small")
				err := p.Commit(ctx, anyMember(uniqueName("group")), nil)
				var large *RecordTooLargeError
				switch {
				case codec == LZ4 && err == nil: // repetitions compress well
				case !errors.As(err, &large) || errors.Is(err, ErrAbortable) || large.Topic != out || large.Size < 3000 ||
					!strings.Contains(err.Error(), fmt.Sprintf("--entity-name %s --add-config max.message.bytes=%d", out, large.Size)):
					t.Errorf("a record that is too large: %v", err)
				}
			})
		}
	}
}
