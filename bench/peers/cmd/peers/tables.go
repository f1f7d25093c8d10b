package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/churnstream/churnstream/internal/bench"
	"github.com/churnstream/churnstream/internal/train"
)

// writeTables prints medians over the rounds, in Markdown.
func writeTables(w io.Writer, s settings, runs []result) error {
	if s.rounds > 0 {
		fmt.Fprintf(w, "\n%d events, %d partitions, medians of %d rounds\n\n", s.events, partitions, s.rounds)
		fmt.Fprintln(w, "| contender | wall s | events/s | steady events/s | CPU µs/event | steady | broker µs/event | memory MB | other cores | duplicates |")
		fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|")
		for _, c := range s.contenders {
			var rounds []bench.Throughput
			duplicates := 0
			for _, r := range runs {
				if r.Contender == c.name && r.Throughput != nil {
					rounds = append(rounds, *r.Throughput)
					duplicates += r.Output.Duplicates
				}
			}
			m := bench.Median(rounds)
			fmt.Fprintf(w, "| %s | %.2f | %.0f | %.0f | %.2f | %.2f | %.2f | %.0f | %.2f | %d |\n", c.name, m.WallSeconds, m.EventsPerSecond,
				m.SteadyPerSecond, m.CPU, m.SteadyCPU, m.BrokerCPU, float64(m.PeakMemory)/1e6, m.OtherCores, duplicates)
		}
	}
	if s.latencyRounds > 0 {
		fmt.Fprintf(w, "\n%.0f events/s, from publishing to a read_committed reader, medians of %d rounds\n\n", s.rate, s.latencyRounds)
		fmt.Fprintln(w, "| contender | p50 ms | p95 ms | p99 ms | max ms | CPU µs/event | broker µs/event | other cores |")
		fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
		for _, c := range s.contenders {
			of := func(figure func(bench.Latency) float64) float64 {
				var values []float64
				for _, r := range runs {
					if r.Contender == c.name && r.Latency != nil {
						values = append(values, figure(*r.Latency))
					}
				}
				slices.Sort(values)
				return train.Quantile(values, 0.5)
			}
			fmt.Fprintf(w, "| %s | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | %.2f |\n", c.name,
				of(func(l bench.Latency) float64 { return l.P50 }), of(func(l bench.Latency) float64 { return l.P95 }),
				of(func(l bench.Latency) float64 { return l.P99 }), of(func(l bench.Latency) float64 { return l.Max }),
				of(func(l bench.Latency) float64 { return l.CPU }), of(func(l bench.Latency) float64 { return l.BrokerCPU }),
				of(func(l bench.Latency) float64 { return l.OtherCores }))
		}
	}
	return nil
}
