package job

import (
	"math"
	"testing"
)

func TestAnEventIsTheSameEachTimeAndDiffersFromOthers(t *testing.T) {
	model, err := ReadModel("")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[float64]bool{}
	for i := range int64(1000) {
		a, b := Make(i, 5), Make(i, 5)
		if p := model.Probability(&a); p != model.Probability(&b) || a.CustomerID != b.CustomerID || a.EventID != i {
			t.Fatalf("event %d is not the same twice: %v and %v", i, a, b)
		} else {
			seen[p] = true
		}
	}
	if len(seen) < 990 {
		t.Errorf("1000 events have %d probabilities", len(seen))
	}
}

func TestFoldingLeavesTheProbabilityAsItIs(t *testing.T) {
	model, err := ReadModel("")
	if err != nil {
		t.Fatal(err)
	}
	linear := model.Fold()
	for i := range int64(1000) {
		a := Make(i, 0)
		if want, got := model.Probability(&a), linear.Probability(&a); math.Abs(want-got) > 1e-12 {
			t.Fatalf("event %d: %v, want %v", i, got, want)
		}
	}
}

func TestReadScoreRefusesWhatIsNoScore(t *testing.T) {
	encoder, err := NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	good, err := encoder.score.AppendEncode(frame(ScoreID), &Score{CustomerID: "c", EventID: 7, Probability: 0.5, ModelVersion: ModelVersion})
	if err != nil {
		t.Fatal(err)
	}
	var s Score
	if err := encoder.ReadScore(good, &s); err != nil || s.EventID != 7 || s.Probability != 0.5 {
		t.Fatalf("%+v, %v", s, err)
	}
	other := append(frame(ActivityID), good[5:]...)
	for name, value := range map[string][]byte{"empty": nil, "short": good[:len(good)-1], "long": append(good, 0), "another schema": other} {
		if encoder.ReadScore(value, &s) == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
