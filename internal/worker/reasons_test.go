package worker

import (
	"testing"

	"github.com/churnstream/churnstream/consumer"
)

func TestAHeaderAsksForReasons(t *testing.T) {
	for _, c := range []struct {
		name    string
		headers string
		count   int
		want    bool
	}{
		{"none", "", 0, false},
		{"the header without a value", "\x26churnstream.reasons\x01", 1, true},
		{"behind another", "\x02a\x04xy\x26churnstream.reasons\x02" + "1", 2, true},
		{"behind one without a value", "\x02a\x01\x26churnstream.reasons\x00", 2, true},
		{"as a value", "\x02a\x26churnstream.reasons", 1, false},
		{"a longer name", "\x28churnstream.reasons2\x01", 1, false},
		{"cut off", "\x26churnstream", 1, false},
		{"a length beyond the end", "\xfe\xff\xff\xff\x0f", 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := consumer.Record{Headers: []byte(c.headers), HeaderCount: c.count}
			if got := asksForReasons(&r); got != c.want {
				t.Errorf("got %v", got)
			}
			if n := testing.AllocsPerRun(20, func() { asksForReasons(&r) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
