package producer

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// contents are the records of every partition, read back from the batches.
func contents(t rapid.TB, a *accumulator) map[string][]Record {
	t.Helper()
	out := map[string][]Record{}
	for _, p := range a.touched {
		where := fmt.Sprintf("%s/%d", p.topic.name, p.partition)
		for _, b := range p.batches {
			encoded, err := b.Finish(ProducerIdentity{}, 0, true)
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if b.codec == None && len(encoded) > a.maxBatchBytes {
				t.Fatalf("%s: a batch of %d bytes, the limit is %d", where, len(encoded), a.maxBatchBytes)
			}
			_, records := readBatch(t, encoded)
			out[where] = append(out[where], records...)
		}
	}
	return out
}

func TestTakenRecordsKeepTheirOrderAndTheirUnitIsEmpty(t *testing.T) {
	t.Parallel()
	for codec := None; codec <= Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			t.Parallel()
			pool := NewPool(1 << 20) // for all draws: nothing of an earlier one may remain
			rapid.Check(t, func(t *rapid.T) {
				cfg := Config{MaxBatchBytes: rapid.IntRange(2500, 3000).Draw(t, "limit"), Compression: codec, Pool: pool}
				common := newAccumulator(cfg)
				units := make([]accumulator, 3)
				for i := range units {
					units[i] = newAccumulator(cfg)
				}
				for range 2 { // transactions
					want, total := map[string][]Record{}, 0
					for i := range units {
						u := &units[i]
						for range rapid.IntRange(0, 60).Draw(t, "records") {
							r := drawRecord(t)
							r.Topic, r.Partition = rapid.SampledFrom([]string{"scores", "states"}).Draw(t, "topic"), rapid.Int32Range(0, 1).Draw(t, "partition")
							topic := u.topic(r.Topic)
							if topic == nil {
								topic = u.learn(r.Topic, 3)
							}
							if err := u.append(topic, &r); err != nil {
								t.Fatal(err)
							}
							where := fmt.Sprintf("%s/%d", r.Topic, r.Partition)
							want[where] = append(want[where], r)
							total++
						}
						if err := u.sealAll(rapid.SampledFrom([]int{0, 2000, 1 << 20}).Draw(t, "large")); err != nil {
							t.Fatal(err)
						}
						common.takeFrom(u)
						if u.records != 0 || len(u.touched) != 0 || u.pending() {
							t.Fatalf("the unit still has %d records", u.records)
						}
					}
					if common.records != total {
						t.Fatalf("%d records, want %d", common.records, total)
					}
					if err := common.sealAll(0); err != nil {
						t.Fatal(err)
					}
					got := contents(t, &common)
					if len(got) != len(want) {
						t.Fatalf("%d partitions, want %d", len(got), len(want))
					}
					for where := range want {
						if len(got[where]) != len(want[where]) {
							t.Fatalf("%s: %d records, want %d", where, len(got[where]), len(want[where]))
						}
						for i := range want[where] {
							if err := sameRecord(got[where][i], want[where][i]); err != nil {
								t.Fatalf("%s, record %d: %v", where, i, err)
							}
						}
					}
					common.reset()
				}
			})
		})
	}
}

func TestSmallUnitsOfAPartitionBecomeOneBatch(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	common := newAccumulator(cfg)
	for range 10 {
		u := newAccumulator(cfg)
		if err := u.append(u.learn("scores", 1), &Record{Topic: "scores", Value: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
		if err := u.sealAll(largeBatch); err != nil {
			t.Fatal(err)
		}
		common.takeFrom(&u)
	}
	if n := len(common.touched[0].batches); n != 1 {
		t.Fatalf("%d batches of ten records", n)
	}
}

func TestBatchesThatTogetherExceedTheLimitAreNotJoined(t *testing.T) {
	t.Parallel()
	cfg := Config{MaxBatchBytes: 2500}
	common := newAccumulator(cfg)
	for range 2 {
		u := newAccumulator(cfg)
		if err := u.append(u.learn("scores", 1), &Record{Topic: "scores", Value: make([]byte, 1300)}); err != nil {
			t.Fatal(err)
		}
		common.takeFrom(&u)
	}
	if n := len(common.touched[0].batches); n != 2 {
		t.Fatalf("%d batches", n)
	}
	contents(t, &common)
}

func TestAppendBehindASealedBatchBeginsAnother(t *testing.T) {
	t.Parallel()
	for _, codec := range []Compression{None, LZ4} {
		a := newAccumulator(Config{MaxBatchBytes: 1 << 20, Compression: codec})
		topic := a.learn("scores", 1)
		for _, value := range []string{"sent", "later"} {
			if err := a.append(topic, &Record{Topic: "scores", Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
			if err := a.sealAll(0); err != nil {
				t.Fatal(err)
			}
		}
		var values []string
		for _, r := range contents(t, &a)["scores/0"] {
			values = append(values, string(r.Value))
		}
		if !slices.Equal(values, []string{"sent", "later"}) || len(a.touched[0].batches) != 2 {
			t.Errorf("%v: %q in %d batches", codec, values, len(a.touched[0].batches))
		}
	}
}

func TestUnitsInTheSteadyStateAllocateNothing(t *testing.T) {
	// not parallel: AllocsPerRun counts for the whole process
	cfg := DefaultConfig()
	cfg.Compression, cfg.Pool = Gzip, NewPool(DefaultPoolBytes) // the others take from a sync.Pool, which forgets under the race detector
	common, unit := newAccumulator(cfg), newAccumulator(cfg)
	topic := unit.learn("scores", 8)
	value := make([]byte, 200)
	round := func() {
		for _, records := range []int{2000, 300, 300} { // the small ones are joined
			for i := range records {
				r := Record{Topic: "scores", Partition: int32(i % 8), Timestamp: int64(i), Value: value}
				if err := unit.append(topic, &r); err != nil {
					t.Fatal(err)
				}
			}
			if err := unit.sealAll(largeBatch); err != nil {
				t.Fatal(err)
			}
			common.takeFrom(&unit)
		}
		if err := common.sealAll(0); err != nil {
			t.Fatal(err)
		}
		common.reset()
	}
	for range 3 {
		round()
	}
	if allocs := testing.AllocsPerRun(10, round); allocs > 0 {
		t.Fatalf("%v allocations in a transaction of 2600 records", allocs)
	}
}

func TestPoolLendsWhatItWasGivenAndKeepsToItsLimit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(0, 1<<20).Draw(t, "limit")
		pool := NewPool(limit)
		var lent [][]byte
		for range 100 {
			if len(lent) > 0 && rapid.Bool().Draw(t, "give") {
				pool.give(lent[len(lent)-1])
				lent = lent[:len(lent)-1]
			} else {
				n := rapid.IntRange(0, 1<<19).Draw(t, "bytes") >> rapid.IntRange(0, 19).Draw(t, "shift")
				b := pool.take(n)
				if cap(b) < n || len(b) != 0 {
					t.Fatalf("asked for %d bytes, got %d of %d", n, len(b), cap(b))
				}
				for _, other := range lent {
					if &other[:1][0] == &b[:1][0] {
						t.Fatal("one buffer was lent twice")
					}
				}
				lent = append(lent, b)
			}
			kept := 0
			for class := range pool.free {
				for _, b := range pool.free[class] {
					kept += cap(b)
				}
			}
			if kept != pool.bytes || kept > limit {
				t.Fatalf("%d bytes are kept and %d counted, the limit is %d", kept, pool.bytes, limit)
			}
		}
	})
}

func TestAUnitKnowsItsSize(t *testing.T) {
	t.Parallel()
	unit, common := newAccumulator(Config{MaxBatchBytes: 1 << 20}), newAccumulator(Config{MaxBatchBytes: 1 << 20})
	topic := unit.learn("scores", 2)
	for range 3 {
		r := Record{Topic: "scores", Partition: 1, Key: make([]byte, 10), Value: make([]byte, 100), RawHeaders: make([]byte, 20), Headers: []Header{{Key: "k", Value: make([]byte, 5)}}}
		if err := unit.append(topic, &r); err != nil {
			t.Fatal(err)
		}
	}
	if want := 3 * (10 + 100 + 20 + 1 + 5); unit.bytes != want {
		t.Errorf("%d bytes, want %d", unit.bytes, want)
	}
	common.takeFrom(&unit)
	if unit.bytes != 0 || common.bytes != 408 {
		t.Errorf("%d bytes are left, %d were taken", unit.bytes, common.bytes)
	}
	common.reset()
	if common.bytes != 0 {
		t.Errorf("%d bytes of nothing", common.bytes)
	}
}
