// Command peers takes a Kafka and lets churnstream, franz-go and Kafka Streams do the same job on it in turns. It prints
// a JSON line for each run and tables of medians at the end.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/churnstream/churnstream/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// settings are the command line.
type settings struct {
	broker        string
	brokerPID     int
	bin           string
	contenders    []contender
	events        int
	rounds        int
	latencyRounds int
	rate          float64
	warmUp        time.Duration
	measure       time.Duration
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	models, err := os.MkdirTemp("", "peers-model-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(models)
	c, err := newComparison(ctx, s, models)
	if err != nil {
		return err
	}
	defer c.close()
	runs, err := c.run(ctx, func(r result) {
		line, _ := json.Marshal(r) // nothing in it can fail
		fmt.Println(string(line))
	})
	if err != nil {
		return err
	}
	return writeTables(os.Stdout, s, runs)
}

func parse(args []string) (settings, error) {
	var s settings
	f := flag.NewFlagSet("peers", flag.ContinueOnError)
	f.StringVar(&s.broker, "broker", os.Getenv("CHURNSTREAM_TEST_BROKERS"), "bootstrap `address`")
	pidFile := f.String("broker-pid-file", "", "`file` with the broker's process id, if it runs here: its CPU time is measured, too")
	f.StringVar(&s.bin, "bin", ".build/peers", "`directory` of the contenders' programs")
	names := f.String("contenders", "churnstream,franz,kstreams", "which and in which order: "+strings.Join(contenderNames(), ", "))
	f.IntVar(&s.events, "events", 3_000_000, "events of a throughput run")
	f.IntVar(&s.rounds, "rounds", 3, "throughput runs of each contender")
	f.IntVar(&s.latencyRounds, "latency-rounds", 3, "latency runs of each contender")
	f.Float64Var(&s.rate, "rate", 5000, "events a second of a latency run")
	f.DurationVar(&s.warmUp, "warm-up", 8*time.Second, "of a latency run, from the start of the contender")
	f.DurationVar(&s.measure, "measure", 20*time.Second, "of a latency run")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if s.broker == "" || s.events < 1 || f.NArg() > 0 {
		return s, fmt.Errorf("--broker is needed, --events must be at least 1, and there are no arguments")
	}
	if *pidFile != "" {
		text, err := os.ReadFile(*pidFile)
		if err != nil {
			return s, err
		}
		if s.brokerPID, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return s, fmt.Errorf("%s: %w", *pidFile, err)
		}
	}
	for name := range strings.SplitSeq(*names, ",") {
		c, known := contenders[name]
		if !known {
			return s, fmt.Errorf("--contenders: %q is none of %s", name, strings.Join(contenderNames(), ", "))
		}
		c.name = name
		s.contenders = append(s.contenders, c)
	}
	return s, nil
}

// topics are created as every contender finds them.
var topics = config.CreateTopics{Enabled: true, Partitions: partitions, ReplicationFactor: 1}

const partitions = 8
