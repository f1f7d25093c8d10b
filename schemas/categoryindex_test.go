package schemas

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestCategoryIndexFindsExactlyItsCategories(t *testing.T) {
	sharedEnds := make([]string, 40) // as bad as it gets: the same length, start and end
	for i := range sharedEnds {
		sharedEnds[i] = fmt.Sprintf("abcdefgh%02dabcdefgh", i)
	}
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprintf("city-%d", i*7)
	}
	for name, list := range map[string][]string{
		"none": {}, "one": {"a"}, "empty text": {"", "a"}, "prefixes": {"a", "aa", "aaa", "aaaa", "aaaaaaaa", "aaaaaaaaa"},
		"shared ends": sharedEnds, "many": many,
	} {
		t.Run(name, func(t *testing.T) {
			x, err := NewCategoryIndex(list)
			if err != nil {
				t.Fatal(err)
			}
			for want, value := range list {
				if got := x.Lookup([]byte(value)); got != want {
					t.Errorf("%q has code %d, want %d", value, got, want)
				}
				for _, other := range []string{value + "x", "x" + value, strings.ToUpper(value) + "\x00"} {
					if got := x.Lookup([]byte(other)); got != x.Len() && !slices.Contains(list, other) {
						t.Errorf("%q has code %d, want unseen", other, got)
					}
				}
			}
			for _, other := range []string{"another", "\x00"} {
				if got := x.Lookup([]byte(other)); got != len(list) {
					t.Errorf("%q has code %d, want unseen", other, got)
				}
			}
		})
	}
}

func TestCategoryIndexEqualsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ab]{0,20}`))
		list := rapid.SliceOfDistinct(text, rapid.ID[string]).Draw(t, "list")
		x, err := NewCategoryIndex(list)
		if err != nil {
			t.Fatal(err)
		}
		for want, value := range list {
			if got := x.Lookup([]byte(value)); got != want {
				t.Fatalf("%q: %d, want %d", value, got, want)
			}
		}
		if other := text.Draw(t, "other"); !slices.Contains(list, other) && x.Lookup([]byte(other)) != x.Len() {
			t.Fatalf("%q was never listed", other)
		}
	})
}

// The hash looks at the ends of a text alone: a list made to collide must not make every look-up a walk through it.
func TestCategoryIndexLeavesCollidingListsToAMap(t *testing.T) {
	list := make([]string, longestProbe+1)
	for i := range list {
		list[i] = fmt.Sprintf("abcdefgh%02dabcdefgh", i)
	}
	collides, err := NewCategoryIndex(list)
	if err != nil {
		t.Fatal(err)
	}
	spreads, err := NewCategoryIndex(list[:longestProbe])
	if err != nil {
		t.Fatal(err)
	}
	if collides.byText == nil || spreads.byText != nil {
		t.Errorf("%d texts of one hash: map %v; %d: map %v", len(list), collides.byText != nil, longestProbe, spreads.byText != nil)
	}
}

func TestCategoryIndexRefusesWhatIsListedTwice(t *testing.T) {
	if _, err := NewCategoryIndex([]string{"a", "b", "a"}); err == nil || !strings.Contains(err.Error(), `"a" is listed twice, at 0 and 2`) {
		t.Errorf("got %v", err)
	}
}

func TestCategoryIndexDoesNotAllocate(t *testing.T) {
	list := []string{"Month-to-month", "One year", "Two year"}
	x, err := NewCategoryIndex(list)
	if err != nil {
		t.Fatal(err)
	}
	value := []byte("One year")
	if n := testing.AllocsPerRun(100, func() { x.Lookup(value) }); n != 0 {
		t.Errorf("%v allocations a look-up", n)
	}
}

// telcoCategories are those of a customer: the lists that a look-up meets.
var telcoCategories = [][]string{
	{"Female", "Male"},
	{"No", "No phone service", "Yes"},
	{"DSL", "Fiber optic", "No"},
	{"No", "No internet service", "Yes"},
	{"Month-to-month", "One year", "Two year"},
	{"Bank transfer (automatic)", "Credit card (automatic)", "Electronic check", "Mailed check"},
	{"LOGIN", "PURCHASE", "SUPPORT", "CANCEL_VIEW", "DOWNGRADE", "OTHER"},
	{"AT", "BE", "CH", "CZ", "DE", "DK", "ES", "FI", "FR", "GB", "IE", "IT", "NL", "NO", "PL", "PT", "SE", "US"},
}

// The categories of one event, column after column, in the hand-written table and in a map.
func BenchmarkCategoryIndex(b *testing.B) {
	const events = 512
	rng := rand.New(rand.NewPCG(1, 2))
	values := make([][]byte, 0, events*len(telcoCategories))
	for range events {
		for _, list := range telcoCategories {
			values = append(values, []byte(list[rng.IntN(len(list))]))
		}
	}
	var indexes []*CategoryIndex
	var maps []map[string]int
	for _, list := range telcoCategories {
		x, err := NewCategoryIndex(list)
		if err != nil {
			b.Fatal(err)
		}
		m := make(map[string]int, len(list))
		for i, v := range list {
			m[v] = i
		}
		indexes, maps = append(indexes, x), append(maps, m)
	}
	sum := 0
	b.Run("of=index", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			row := values[i%events*len(indexes):][:len(indexes)]
			for k, x := range indexes {
				sum += x.Lookup(row[k])
			}
		}
	})
	b.Run("of=map", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			row := values[i%events*len(maps):][:len(maps)]
			for k, m := range maps {
				code, ok := m[string(row[k])]
				if !ok {
					code = len(telcoCategories[k])
				}
				sum += code
			}
		}
	})
	if sum < 0 {
		b.Fatal("BUG: positions are not negative") // the sum is used
	}
}

func TestTextIsUTF8OrNot(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for length := range 20 {
		for range 200 {
			b := make([]byte, length)
			for i := range b {
				b[i] = byte('a' + i)
			}
			if length > 0 && random.IntN(4) > 0 {
				copy(b[random.IntN(length):], [][]byte{{0xff}, {0x80}, []byte("é"), []byte("€"), {0}}[random.IntN(5)])
			}
			if got, want := isUTF8(b), utf8.Valid(b); got != want {
				t.Fatalf("%q: %v, want %v", b, got, want)
			}
		}
	}
}

func BenchmarkIsUTF8(b *testing.B) {
	texts := [][]byte{[]byte("No"), []byte("DSL"), []byte("Month-to-month"), []byte("7590-VHVEG")}
	for name, valid := range map[string]func([]byte) bool{"ends": isUTF8, "library": utf8.Valid} {
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if !valid(texts[i%len(texts)]) {
					b.Fatal(i)
				}
			}
		})
	}
}
