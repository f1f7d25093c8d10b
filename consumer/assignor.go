package consumer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// subscription is what a member tells the group's leader: ConsumerProtocolSubscription v0 to v3.
type subscription struct {
	member, instance string // from JoinGroup, not from the blob
	topics           []string
	owned            []TopicPartition
	generation       int32 // in which owned was assigned; -1 unknown
	rack             string
}

// encode gives the subscription in v3. The generation stands twice: members that know v2 read the
// field, older ones of Java's CooperativeStickyAssignor read the user data.
func (s *subscription) encode() []byte {
	var w kafkawire.Writer
	w.Int16(3)
	w.ArrayLen(len(s.topics))
	for _, topic := range s.topics {
		w.String(topic)
	}
	var userData kafkawire.Writer
	userData.Int32(s.generation)
	w.Bytes(userData.B)
	writePartitions(&w, s.owned)
	w.Int32(s.generation)
	w.NullableString(s.rack)
	return w.B
}

func readSubscription(b []byte) (s subscription, err error) {
	r := kafkawire.Reader{B: b}
	version := r.Int16()
	for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
		s.topics = append(s.topics, r.String())
	}
	s.generation = -1
	if userData := r.Bytes(); len(userData) >= 4 {
		data := kafkawire.Reader{B: userData}
		s.generation = data.Int32()
	}
	if version >= 1 {
		s.owned = readPartitions(&r)
	}
	if version >= 2 {
		s.generation = r.Int32()
	}
	if version >= 3 {
		s.rack = r.String()
	}
	return s, r.Err()
}

// encodeAssignment encodes ConsumerProtocolAssignment v1, which v0 readers also understand.
func encodeAssignment(partitions []TopicPartition) []byte {
	w := kafkawire.Writer{}
	w.Int16(1)
	writePartitions(&w, partitions)
	w.NullableBytes(nil) // user data
	return w.B
}

func readAssignment(b []byte) ([]TopicPartition, error) {
	if len(b) == 0 { // the leader left us out
		return nil, nil
	}
	r := kafkawire.Reader{B: b}
	r.Int16() // version; later ones only add to the end
	partitions := readPartitions(&r)
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("assignment: %w", err)
	}
	return partitions, nil
}

func writePartitions(w *kafkawire.Writer, partitions []TopicPartition) {
	topics := byTopic(partitions)
	w.ArrayLen(len(topics))
	for _, t := range topics {
		w.String(t.topic)
		w.Int32s(t.partitions)
	}
}

func readPartitions(r *kafkawire.Reader) (partitions []TopicPartition) {
	for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
		topic := r.String()
		for _, p := range r.Int32s() {
			partitions = append(partitions, TopicPartition{topic, p})
		}
	}
	return partitions
}

// assign gives every partition to a member that wants its topic. Members keep what they own as far
// as the loads then differ by one at most; with equal subscriptions no assignment moves less. A
// partition that has to move is given to nobody yet: its owner revokes it first and joins again
// (KIP-429). Counts are the partitions per topic.
func assign(members []subscription, counts map[string]int32) map[string][]TopicPartition {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b subscription) int {
		return cmp.Or(cmp.Compare(a.instance, b.instance), cmp.Compare(a.member, b.member))
	})
	a := assignment{members: members, counts: counts, load: make([][]TopicPartition, len(members))}
	a.claim()
	a.fill()
	a.balance()
	plan := make(map[string][]TopicPartition, len(members))
	for i, member := range members {
		granted := []TopicPartition{}
		for _, tp := range a.load[i] {
			if owner, owned := a.owners[tp]; !owned || owner == i {
				granted = append(granted, tp)
			}
		}
		slices.SortFunc(granted, compareTopicPartitions)
		plan[member.member] = granted
	}
	return plan
}

// assignment in the making. Members go by their index.
type assignment struct {
	members []subscription
	counts  map[string]int32
	wants   []map[string]bool
	owners  map[TopicPartition]int
	load    [][]TopicPartition
}

// claim finds the present owners. Of two claims the one of the later generation holds; two of the
// same generation contradict each other, and neither holds.
func (a *assignment) claim() {
	a.owners = map[TopicPartition]int{}
	generations := map[TopicPartition]int32{}
	for i, s := range a.members {
		wants := map[string]bool{}
		for _, topic := range s.topics {
			wants[topic] = true
		}
		a.wants = append(a.wants, wants)
		for _, tp := range s.owned {
			if tp.Partition < 0 || tp.Partition >= a.counts[tp.Topic] || !wants[tp.Topic] {
				continue
			}
			known, claimed := generations[tp]
			switch {
			case !claimed || s.generation > known:
				a.owners[tp], generations[tp] = i, s.generation
			case s.generation == known:
				delete(a.owners, tp)
			}
		}
	}
}

// fill gives each partition to its owner, and those without to the least loaded.
func (a *assignment) fill() {
	var free []TopicPartition
	for _, topic := range slices.Sorted(maps.Keys(a.counts)) {
		for p := range a.counts[topic] {
			tp := TopicPartition{topic, p}
			if owner, ok := a.owners[tp]; ok {
				a.load[owner] = append(a.load[owner], tp)
				continue
			}
			free = append(free, tp)
		}
	}
	for _, tp := range free {
		if least := a.least(tp.Topic); least >= 0 {
			a.load[least] = append(a.load[least], tp)
		}
	}
}

// least loaded member that wants the topic, -1 where nobody does.
func (a *assignment) least(topic string) int {
	least := -1
	for i := range a.members {
		if a.wants[i][topic] && (least < 0 || len(a.load[i]) < len(a.load[least])) {
			least = i
		}
	}
	return least
}

// balance moves one partition after the other from the most to the least loaded.
func (a *assignment) balance() {
	order := make([]int, len(a.members))
	for a.move(order) {
	}
}

func (a *assignment) move(order []int) bool {
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(len(a.load[j]), len(a.load[i])) })
	for _, from := range order {
		seen := map[string]bool{}
		for k := len(a.load[from]) - 1; k >= 0; k-- {
			tp := a.load[from][k]
			if seen[tp.Topic] {
				continue
			}
			seen[tp.Topic] = true
			if to := a.least(tp.Topic); len(a.load[from])-len(a.load[to]) >= 2 {
				a.load[from] = slices.Delete(a.load[from], k, k+1)
				a.load[to] = append(a.load[to], tp)
				return true
			}
		}
	}
	return false
}
