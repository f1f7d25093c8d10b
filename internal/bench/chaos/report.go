package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"
)

// writeReport sums up outcomes as Markdown: by number of brokers, by kind of fault.
func writeReport(w io.Writer, paths []string) error {
	var all []outcome
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		for lines := json.NewDecoder(f); ; {
			var o outcome
			if err = lines.Decode(&o); err != nil {
				break
			}
			all = append(all, o)
		}
		f.Close()
		if !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	sums := map[int]*sum{}
	for i := range all {
		o := &all[i]
		s := sums[o.Nodes]
		if s == nil {
			s = &sum{recovered: map[string][]float64{}, variants: map[variant]int{}}
			sums[o.Nodes] = s
		}
		s.take(o)
	}
	var nodes []int
	for n := range sums {
		nodes = append(nodes, n)
	}
	slices.Sort(nodes)
	fmt.Fprintln(w, "| brokers | rounds, seeds | faults | events | dead letters | drift states | lost | doubled | out of order | wrong scores, dead letters, counts | other troubles |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|")
	for _, n := range nodes {
		s := sums[n]
		v := &s.verdict
		fmt.Fprintf(w, "| %d | %d, %s | %d | %d | %d | %d | %d | %d | %d | %d, %d, %d | %d |\n", n, len(s.seeds), ranges(s.seeds), s.faults, v.Events, v.DeadLetters,
			v.States, v.Lost, v.Doubled, v.Disordered, v.WrongScores, v.WrongDeadLetters, v.WrongCounts, s.troubles)
	}
	fmt.Fprint(w, "\n| fault |")
	for _, n := range nodes {
		fmt.Fprintf(w, " %d broker(s): n | p50 | p90 | max |", n)
	}
	fmt.Fprint(w, "\n|---|")
	for range nodes {
		fmt.Fprint(w, "---|---|---|---|")
	}
	fmt.Fprintln(w)
	for _, k := range kinds() {
		fmt.Fprintf(w, "| %s |", k.name)
		for _, n := range nodes {
			fmt.Fprintf(w, " %s |", distribution(sums[n].recovered[k.name]))
		}
		fmt.Fprintln(w)
	}
	for i := range all {
		writeSizes(w, &all[i])
	}
	return nil
}

// longLived is from when on it is worth looking whether a process grew.
const longLived = 30 * time.Minute

// writeSizes says how large the workers were that lived long: in each quarter of their lives the median and the largest.
func writeSizes(w io.Writer, o *outcome) {
	names := slices.Sorted(maps.Keys(o.Sizes))
	for _, name := range names {
		sizes := o.Sizes[name]
		lived := time.Duration(len(sizes)) * sizeEvery
		if lived < longLived {
			continue
		}
		fmt.Fprintf(w, "\nSeed %d, %.0f events/s, %s, %s after its start: median and maximum of each quarter\n\n| | 1st | 2nd | 3rd | 4th |\n|---|---|---|---|---|\n",
			o.Seed, o.Rate, name, lived.Round(time.Minute))
		for _, m := range []struct {
			name string
			of   func(*size) float64
		}{
			{"goroutines", func(z *size) float64 { return float64(z.Goroutines) }},
			{"heap, MB", func(z *size) float64 { return float64(z.Heap) / 1e6 }},
			{"resident, MB", func(z *size) float64 { return float64(z.Resident) / 1e6 }},
			{"descriptors", func(z *size) float64 { return float64(z.Descriptors) }},
			{"sockets", func(z *size) float64 { return float64(z.Sockets) }},
		} {
			fmt.Fprintf(w, "| %s |", m.name)
			for quarter := range 4 {
				var of []float64
				for i := len(sizes) * quarter / 4; i < len(sizes)*(quarter+1)/4; i++ {
					of = append(of, m.of(&sizes[i]))
				}
				slices.Sort(of)
				fmt.Fprintf(w, " %.0f / %.0f |", of[len(of)/2], of[len(of)-1])
			}
			fmt.Fprintln(w)
		}
	}
}

// sum of the rounds with one number of brokers.
type sum struct {
	seeds     []uint64
	faults    int
	troubles  int
	verdict   verdict
	recovered map[string][]float64
	variants  map[variant]int
}

func (s *sum) take(o *outcome) {
	s.seeds = append(s.seeds, o.Seed)
	s.verdict.add(&o.Verdict)
	s.troubles += len(o.Troubles)
	s.variants[o.Variant]++
	for kind, n := range o.Faults {
		s.faults += n
		s.recovered[kind] = append(s.recovered[kind], o.Recovered[kind]...)
	}
}

// distribution: number, median, ninth decile and maximum in seconds.
func distribution(all []float64) string {
	if len(all) == 0 {
		return "0 | | |"
	}
	slices.Sort(all)
	at := func(q float64) float64 { return all[min(int(q*float64(len(all))), len(all)-1)] }
	return fmt.Sprintf("%d | %.1f | %.1f | %.1f", len(all), at(0.5), at(0.9), all[len(all)-1])
}

// ranges writes numbers as 3-5, 9.
func ranges(all []uint64) string {
	slices.Sort(all)
	text := ""
	for i := 0; i < len(all); {
		j := i
		for j+1 < len(all) && all[j+1] == all[j]+1 {
			j++
		}
		if text != "" {
			text += ", "
		}
		if text += fmt.Sprint(all[i]); j > i {
			text += fmt.Sprintf("-%d", all[j])
		}
		i = j + 1
	}
	return text
}
