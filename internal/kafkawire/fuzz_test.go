package kafkawire

import (
	"runtime/metrics"
	"testing"
	"time"
)

// allocated runs fn and returns how many bytes it allocated.
func allocated(fn func()) int {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	fn()
	metrics.Read(sample)
	return int(sample[0].Value.Uint64() - before)
}

// checkMemory fails where decoding took more memory than the response warrants. The largest element
// that the shortest encoding stands for is far below 100 bytes a byte; what the runtime and the
// fuzzing engine allocate beside is below 1 MiB.
func checkMemory(t *testing.T, response []byte, fn func()) {
	t.Helper()
	if n := allocated(fn); n > 100*len(response)+1<<20 {
		t.Errorf("%d bytes allocated for a response of %d", n, len(response))
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte{}, byte(5))
	w := Writer{}
	metadataResponse(&w, 5)
	f.Add(w.B, byte(5))
	w = Writer{Flexible: true}
	metadataResponse(&w, 12)
	f.Add(w.B, byte(12))
	f.Fuzz(func(t *testing.T, response []byte, version byte) {
		v := int16(5 + version%8)
		c, err := NewClient(Config{Brokers: []string{"127.0.0.1:1"}, MetadataTTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		checkMemory(t, response, func() {
			r := Reader{B: response, Flexible: v >= 9}
			_ = c.decodeMetadata(&r, v)
		})
		for name, topic := range c.topics {
			if topic.Err != nil {
				continue
			}
			m := Metadata{Topics: map[string]TopicMetadata{name: topic.TopicMetadata}}
			for p := range topic.Partitions {
				if leader, err := m.Leader(name, int32(p)); err == nil && leader < 0 {
					t.Fatalf("%s/%d is led by %d", name, p, leader)
				}
			}
		}
	})
}

// metadataResponse writes two brokers and a topic of two partitions.
func metadataResponse(w *Writer, version int16) {
	w.Int32(0)
	w.ArrayLen(2)
	for id := range int32(2) {
		w.Int32(id)
		w.String("broker.example")
		w.Int32(9092)
		w.NullableString("rack")
		w.Tags()
	}
	w.NullableString("cluster")
	w.Int32(1)
	w.ArrayLen(1)
	w.Int16(0)
	w.String("events")
	if version >= 10 {
		w.Raw([]byte("0123456789abcdef"))
	}
	w.Bool(false)
	w.ArrayLen(2)
	for p := range int32(2) {
		w.Int16(0)
		w.Int32(1 - p) // not by number
		w.Int32(p)
		if version >= 7 {
			w.Int32(3)
		}
		for range 3 {
			w.Int32s([]int32{0, 1})
		}
		w.Tags()
	}
	if version >= 8 {
		w.Int32(0)
	}
	w.Tags()
	w.Tags()
}

func FuzzVersions(f *testing.F) {
	f.Add([]byte{}, true)
	w := Writer{Flexible: true}
	w.Int16(0)
	w.ArrayLen(1)
	w.Int16(1)
	w.Int16(4)
	w.Int16(18)
	w.Tags()
	w.Int32(0)
	w.Raw([]byte{1, 2, 9, 2, 2, 'x', 0, 2, 0, 1, 0}) // one tag: finalized feature x at level 2
	f.Add(w.B, true)
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 1, 0, 4, 0, 18}, false)
	f.Fuzz(func(t *testing.T, response []byte, flexible bool) {
		v := Versions{ranges: map[int16][2]int16{}, features: map[string]int16{}}
		version := int16(0)
		if flexible {
			version = 3
		}
		checkMemory(t, response, func() {
			r := Reader{B: response, Flexible: flexible}
			_ = v.decode(&r, version)
		})
		for key, announced := range v.ranges {
			if max, err := v.Max(0, 5); key == 0 && err == nil && (max > announced[1] || max > 5) {
				t.Fatalf("version %d of %v", max, announced)
			}
		}
	})
}

func FuzzCoordinator(f *testing.F) {
	f.Add([]byte{})
	w := Writer{}
	w.Int32(0)
	w.Int16(0)
	w.NullableString("")
	w.Int32(2)
	w.String("broker.example")
	w.Int32(9092)
	f.Add(w.B)
	f.Fuzz(func(t *testing.T, response []byte) {
		var c coordinator
		checkMemory(t, response, func() {
			r := Reader{B: response}
			_ = c.decode(&r)
		})
	})
}
