package producer

import (
	"testing"

	"github.com/segmentio/kafka-go"
	"pgregory.net/rapid"
)

func TestPartitionForHasJavasVectors(t *testing.T) {
	t.Parallel()
	// org.apache.kafka.common.utils.UtilsTest.testMurmur2
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestPartitionForEqualsKafkaGosMurmur2Balancer(t *testing.T) {
	t.Parallel()
	balancer := kafka.Murmur2Balancer{Consistent: true}
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "key")
		n := rapid.IntRange(1, 300).Draw(t, "partitions")
		partitions := make([]int, n)
		for i := range partitions {
			partitions[i] = i
		}
		want := balancer.Balance(kafka.Message{Key: key}, partitions...)
		if got := PartitionFor(key, int32(n)); int(got) != want {
			t.Fatalf("PartitionFor = %d, kafka-go says %d", got, want)
		}
	})
}

func TestPartitionForNoPartitionsIsZero(t *testing.T) {
	t.Parallel()
	if got := PartitionFor([]byte("k"), 0); got != 0 {
		t.Fatalf("got %d", got)
	}
}

func BenchmarkPartitionFor(b *testing.B) {
	key := []byte("customer-0001234")
	b.ReportAllocs()
	for b.Loop() {
		PartitionFor(key, 12)
	}
}
