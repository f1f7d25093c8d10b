package producer

import (
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestMetricsCountWhatHappened(t *testing.T) {
	t.Parallel()
	cluster := newFake(t)
	c := connect(t, cluster.ListenAddrs())
	ctx := c.context()
	out, in, group := c.topic(2), c.topic(1), uniqueName("group")
	reg := prometheus.NewPedanticRegistry()
	cfg := DefaultConfig()
	cfg.Metrics = NewMetrics(reg)
	p := c.transactional(cfg, uniqueName("tx"))

	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: 1, Partitions: []int32{0}})
	mustBegin(t, ctx, p)
	for partition := range int32(2) {
		mustAppend(t, p, out, partition, "v")
	}
	if err := p.Commit(ctx, Member{Group: group, MemberID: "gone", Generation: 1}, []Offset{{Topic: in, Partition: 0, Offset: 1}}); !errors.Is(err, ErrStaleMember) {
		t.Fatal(err)
	}
	if err := p.Commit(ctx, anyMember(group), []Offset{{Topic: in, Partition: 0, Offset: 1}}); err != nil {
		t.Fatal(err)
	}
	mustBegin(t, ctx, p)
	if err := p.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	mustBegin(t, ctx, p)
	if err := p.Commit(ctx, Member{}, nil); err != nil {
		t.Fatal(err)
	}
	const want = `
# HELP churnstream_producer_records_total Records that a partition leader acknowledged, committed or not.
# TYPE churnstream_producer_records_total counter
churnstream_producer_records_total 2
# HELP churnstream_producer_retries_total Requests repeated in place, by operation and Kafka's error code; NETWORK where no answer came.
# TYPE churnstream_producer_retries_total counter
churnstream_producer_retries_total{code="NOT_LEADER_OR_FOLLOWER",operation="produce"} 1
# HELP churnstream_producer_transactions_total Units of records and offsets by how Commit or Abort ended.
# TYPE churnstream_producer_transactions_total counter
churnstream_producer_transactions_total{result="aborted"} 1
churnstream_producer_transactions_total{result="committed"} 1
churnstream_producer_transactions_total{result="empty"} 1
churnstream_producer_transactions_total{result="stale_member"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "churnstream_producer_records_total",
		"churnstream_producer_retries_total", "churnstream_producer_transactions_total"); err != nil {
		t.Error(err)
	}
	for name, count := range map[string]int{"churnstream_producer_produce_seconds": 1, "churnstream_producer_commit_seconds": 1, "churnstream_producer_transaction_step_seconds": 4, "churnstream_producer_bytes_total": 1} {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n != count {
			t.Errorf("%s: %d series, %v", name, n, err)
		}
	}
}
