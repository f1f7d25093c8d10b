package consumer

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSubscriptionRoundTripAndOlderVersions(t *testing.T) {
	s := subscription{topics: []string{"a", "b"}, owned: []TopicPartition{{"a", 0}, {"a", 3}, {"b", 1}}, generation: 42, rack: "r1"}
	got, err := readSubscription(s.encode())
	if err != nil || !slices.Equal(got.topics, s.topics) || !slices.Equal(got.owned, s.owned) || got.generation != 42 || got.rack != "r1" {
		t.Errorf("%+v, %v", got, err)
	}
	cases := []struct {
		name, blob string
		topics     int
		owned      int
		generation int32
	}{
		{"v0 without user data", "0000" + "00000001" + "000161" + "ffffffff", 1, 0, -1},
		{"v1 with a generation in the user data", "0001" + "00000001" + "000161" + "00000004" + "00000007" + "00000001" + "000161" + "00000002" + "00000000" + "00000005", 1, 2, 7},
		{"v2 with both", "0002" + "00000001" + "000161" + "00000004" + "00000007" + "00000000" + "00000009", 1, 0, 9},
	}
	for _, c := range cases {
		b, err := hex.DecodeString(c.blob)
		if err != nil {
			t.Fatal(err)
		}
		s, err := readSubscription(b)
		if err != nil || len(s.topics) != c.topics || len(s.owned) != c.owned || s.generation != c.generation {
			t.Errorf("%s: %+v, %v", c.name, s, err)
		}
	}
	if _, err := readSubscription([]byte{0, 1, 0, 0, 0, 9}); err == nil {
		t.Error("a cut subscription was read")
	}
}

func TestSubscriptionIsTheSameWhateverTheOrderOfOwning(t *testing.T) {
	m := membership{owned: map[TopicPartition]bool{}}
	for p := range int32(20) {
		m.owned[TopicPartition{fmt.Sprint("t", p%3), p}] = true
	}
	first := (&subscription{owned: m.ownedSorted()}).encode()
	for range 5 {
		if !bytes.Equal(first, (&subscription{owned: m.ownedSorted()}).encode()) {
			t.Fatal("the coordinator would see a changed subscription")
		}
	}
}

func TestAssignmentRoundTrip(t *testing.T) {
	want := []TopicPartition{{"a", 0}, {"a", 3}, {"b", 1}}
	got, err := readAssignment(encodeAssignment(want))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := readAssignment(nil); err != nil || len(got) != 0 {
		t.Errorf("an empty assignment: %v, %v", got, err)
	}
	if _, err := readAssignment([]byte{0, 1, 0, 0, 0, 9, 1}); err == nil {
		t.Error("a cut assignment was read")
	}
}

func TestContradictingClaimsGoToTheLaterGenerationOrToNobody(t *testing.T) {
	tp := TopicPartition{"a", 0}
	member := func(id string, generation int32) subscription {
		return subscription{member: id, topics: []string{"a"}, owned: []TopicPartition{tp}, generation: generation}
	}
	plan := assign([]subscription{member("m1", 4), member("m2", 5)}, map[string]int32{"a": 1})
	if len(plan["m1"]) != 0 || len(plan["m2"]) != 1 {
		t.Errorf("plan %v", plan)
	}
	a := assignment{members: []subscription{member("m1", 5), member("m2", 5)}, counts: map[string]int32{"a": 1}}
	a.claim()
	if _, owned := a.owners[tp]; owned {
		t.Error("one of two equal claims was believed")
	}
}

func TestTopicsThatVanishedOrShrankAreNotAssigned(t *testing.T) {
	s := subscription{member: "m", topics: []string{"a", "gone"}, owned: []TopicPartition{{"a", 1}, {"gone", 0}}, generation: 1}
	plan := assign([]subscription{s}, map[string]int32{"a": 1, "gone": 0})
	if !slices.Equal(plan["m"], []TopicPartition{{"a", 0}}) {
		t.Errorf("plan %v", plan)
	}
}

// Members come and go; after each change the group runs rounds until nothing is revoked any more.
// In every round nobody is given what another one still holds; at the end everything is owned,
// loads differ by one at most, and no more has moved than had to.
func TestAssignmentUnderChurn(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		counts := map[string]int32{"a": 1 + random.Int32N(20), "b": random.Int32N(8)}
		total := int(counts["a"] + counts["b"])
		owned := map[string][]TopicPartition{}
		generation := int32(0)
		next := 0
		for range 6 {
			if len(owned) == 0 || random.IntN(3) > 0 {
				owned[fmt.Sprint("m", next)] = nil
				next++
			} else {
				for id := range owned {
					delete(owned, id)
					break
				}
			}
			if len(owned) == 0 {
				continue
			}
			before := owners(owned)
			rounds := 0
			for changed := true; changed; rounds++ {
				if rounds > 2 {
					t.Fatalf("seed %d: still moving after %d rounds", seed, rounds)
				}
				var members []subscription
				for id, tps := range owned {
					members = append(members, subscription{member: id, topics: []string{"a", "b"}, owned: tps, generation: generation})
				}
				generation++
				plan := assign(members, counts)
				holder := owners(owned)
				changed = false
				for id := range owned {
					for _, tp := range plan[id] {
						if h, held := holder[tp]; held && h != id {
							t.Fatalf("seed %d: %v is given to %s while %s holds it", seed, tp, id, h)
						}
					}
					for _, tp := range owned[id] {
						changed = changed || !slices.Contains(plan[id], tp)
					}
				}
				for id := range owned {
					owned[id] = plan[id]
				}
			}
			after := owners(owned)
			if len(after) != total {
				t.Fatalf("seed %d: %d of %d partitions are owned", seed, len(after), total)
			}
			least, most, spare := total, 0, 0
			for id, tps := range owned {
				least, most = min(least, len(tps)), max(most, len(tps))
				kept := 0
				for _, h := range before {
					if h == id {
						kept++
					}
				}
				spare += max(kept-(total+len(owned)-1)/len(owned), 0)
			}
			if most-least > 1 {
				t.Fatalf("seed %d: loads from %d to %d", seed, least, most)
			}
			moved := 0
			for tp, h := range before {
				if _, alive := owned[h]; alive && after[tp] != h {
					moved++
				}
			}
			if limit := spare + len(owned); moved > limit {
				t.Fatalf("seed %d: %d partitions moved, %d had to", seed, moved, spare)
			}
		}
	}
}

func owners(owned map[string][]TopicPartition) map[TopicPartition]string {
	m := map[TopicPartition]string{}
	for id, tps := range owned {
		for _, tp := range tps {
			m[tp] = id
		}
	}
	return m
}

func TestDifferentSubscriptionsGetOnlyWhatTheyWant(t *testing.T) {
	members := []subscription{
		{member: "m1", topics: []string{"a"}, generation: -1},
		{member: "m2", topics: []string{"a", "b"}, generation: -1},
		{member: "m3", topics: []string{"c"}, generation: -1},
	}
	plan := assign(members, map[string]int32{"a": 4, "b": 4, "c": 1, "d": 2})
	if len(plan["m1"]) != 4 || len(plan["m2"]) != 4 || len(plan["m3"]) != 1 {
		t.Errorf("plan %v", plan)
	}
	for id, tps := range plan {
		for _, tp := range tps {
			if (id == "m1" && tp.Topic != "a") || (id == "m3" && tp.Topic != "c") || tp.Topic == "d" {
				t.Errorf("%s got %v", id, tp)
			}
		}
	}
}

func BenchmarkAssign(b *testing.B) {
	var members []subscription
	for i := range 16 {
		members = append(members, subscription{member: fmt.Sprint("m", i), topics: []string{"a"}, generation: -1})
	}
	b.ReportAllocs()
	for b.Loop() {
		assign(members, map[string]int32{"a": 512})
	}
}
