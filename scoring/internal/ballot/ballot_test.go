package ballot

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPlacesAreTheNumbersOfThresholdsBelow(t *testing.T) {
	t.Run("32 bits", func(t *testing.T) { placesAreRight[int32](t, math.MinInt32, math.MaxInt32) })
	t.Run("64 bits", func(t *testing.T) { placesAreRight[int64](t, math.MinInt64, math.MaxInt64) })
}

func placesAreRight[K Key](t *testing.T, least, most K) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, count := range []int{0, 1, 2, 3, 4, 7, 8, 9, 100, 255, 256, 1000} {
		thresholds := []K{}
		for range count {
			thresholds = append(thresholds, K(random.Int64()))
		}
		if count > 3 {
			thresholds[0], thresholds[1], thresholds[2] = least, most, thresholds[3]
		}
		c := NewColumn(slices.Clone(thresholds))
		for n := range Rows + 1 {
			var keys [Rows]K
			for r := range n {
				switch keys[r] = K(random.Int64()); {
				case r < 2:
					keys[r] = []K{least, most}[r]
				case count > 0 && r%2 == 0:
					keys[r] = thresholds[random.IntN(count)] + K(r%3)
				}
			}
			var places [Rows]uint16
			c.Find(&keys, n, &places)
			for r := range n {
				want := 0
				for i, x := range c.Thresholds() {
					if i > 0 && c.Thresholds()[i-1] >= x {
						t.Fatalf("thresholds %v", c.Thresholds())
					}
					if keys[r] > x {
						want++
					}
				}
				if int(places[r]) != want {
					t.Fatalf("%d thresholds, key %d: place %d, want %d", count, keys[r], places[r], want)
				}
			}
		}
	}
}

func TestAnswersAreThoseOfThePlaces(t *testing.T) {
	v := View{Of: []uint16{0, 0, 2, 3, 1}, Questions: 3}
	for _, exact := range []bool{false, true} {
		v.Exact = exact
		for n := range Rows + 1 {
			var places [Rows]uint16
			for r := range places {
				places[r] = uint16((r*r + n) % 5)
			}
			words := slices.Repeat([]uint64{math.MaxUint64}, v.Words()+1)
			v.Answer(&places, n, words)
			for r := range n {
				for i := range v.Questions {
					yes := v.Of[places[r]] > uint16(i)
					if exact {
						yes = v.Of[places[r]] == uint16(i+1)
					}
					if got := words[i+1]>>r&1 != 0; got != yes {
						t.Fatalf("exact %v, question %d at place %d: %v", exact, i, places[r], got)
					}
				}
			}
			if words[v.Words()] != math.MaxUint64 {
				t.Fatal("a word behind the last one is written")
			}
		}
	}
}

func TestViewsOfAColumn(t *testing.T) {
	asked, listed := []int32{-5, 3, 9}, []int32{math.MinInt32, 3, 4, 8, math.MaxInt32}
	c := NewColumn(Around(slices.Clone(asked), listed))
	above, exactly := c.Above(asked), c.Exactly(listed)
	keys := [Rows]int32{math.MinInt32, math.MinInt32 + 1, -6, -5, -4, 2, 3, 4, 5, 7, 8, 9, 10, math.MaxInt32 - 1, math.MaxInt32}
	const n = 15
	var places [Rows]uint16
	c.Find(&keys, n, &places)
	for r, key := range keys[:n] {
		want := 0
		for _, x := range asked {
			if key > x {
				want++
			}
		}
		if got := above.Of[places[r]]; int(got) != want {
			t.Errorf("%d is above %d of %v, want %d", key, got, asked, want)
		}
		if got := exactly.Of[places[r]]; int(got) != slices.Index(listed, key)+1 {
			t.Errorf("%d is number %d of %v", key, got, listed)
		}
	}
	if above.Of[c.Missing()] != 0 || exactly.Of[c.Missing()] != 0 {
		t.Error("what is missing is above a threshold or is a value")
	}
}

func TestLeavesAreAddedToTheirRows(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for n := range Rows + 1 {
		var code Code
		var leaves [MaxLeaves]float32
		var sums, want [Rows]float32
		for i := range code {
			code[i] = random.Uint64()
		}
		for i := range leaves {
			leaves[i] = random.Float32()
		}
		for r := range want {
			sums[r] = random.Float32()
			leaf := 0
			for b, word := range code {
				leaf |= int(word>>r&1) << b
			}
			want[r] = sums[r] + leaves[leaf]
		}
		for r, number := range code.Numbers() {
			if want[r] != sums[r]+leaves[number] {
				t.Fatalf("row %d: leaf %d", r, number)
			}
		}
		Add(&code, &leaves, n, &sums)
		if !slices.Equal(sums[:n], want[:n]) {
			t.Fatalf("%d rows: %v, want %v", n, sums[:n], want[:n])
		}
	}
}
