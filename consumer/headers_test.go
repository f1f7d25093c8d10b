package consumer

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestHeadersComeOutAsTheyWentIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type header struct {
			name  string
			value []byte
		}
		var r Record
		var all, kept []header
		for range rapid.IntRange(0, 5).Draw(t, "headers") {
			h := header{name: rapid.SampledFrom([]string{"", "a", "drop.b", "drop.", "c"}).Draw(t, "name")}
			if rapid.Bool().Draw(t, "not null") {
				h.value = rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "value")
				if h.value == nil {
					h.value = []byte{}
				}
			}
			r.Headers, r.HeaderCount = AppendHeader(r.Headers, h.name, h.value), r.HeaderCount+1
			all = append(all, h)
			if len(h.name) < 5 {
				kept = append(kept, h)
			}
		}
		check := func(r *Record, want []header) {
			t.Helper()
			i := 0
			for name, value := range r.EachHeader() {
				if i >= len(want) || string(name) != want[i].name || !bytes.Equal(value, want[i].value) || (value == nil) != (want[i].value == nil) {
					t.Fatalf("header %d is %q=%q, want %v", i, name, value, want)
				}
				i++
			}
			if i != len(want) || r.HeaderCount != len(want) {
				t.Fatalf("%d headers, counted %d, want %d", i, r.HeaderCount, len(want))
			}
		}
		check(&r, all)
		var rest Record
		rest.Headers, rest.HeaderCount = r.WithoutHeaders(nil, func(name []byte) bool { return bytes.HasPrefix(name, []byte("drop.")) })
		check(&rest, kept)
	})
}

func TestHeadersThatContradictThemselvesEndEarly(t *testing.T) {
	whole := AppendHeader(AppendHeader(nil, "a", []byte("1")), "b", []byte("22"))
	for cut := range whole {
		r := Record{Headers: whole[:cut], HeaderCount: 2}
		n := 0
		for range r.EachHeader() {
			n++
		}
		_, kept := r.WithoutHeaders(nil, func([]byte) bool { return false })
		if n > 1 || kept != n {
			t.Errorf("cut at %d: %d headers, %d kept", cut, n, kept)
		}
	}
}
