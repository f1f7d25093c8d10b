package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/internal/bench"
	"github.com/churnstream/churnstream/internal/config"
)

func newBench(s streams) *cobra.Command {
	var output string
	var brokers []string
	cfg := bench.Config{Events: 1_000_000, Rounds: 1, Rate: 5000, WarmUp: 5 * time.Second, Measure: 20 * time.Second, Workers: 1, Partitions: 8}
	reasons, delivery := 0, string(config.ExactlyOnce)
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure throughput, CPU per event, memory and latency of a worker",
		Long: `Publishes a backlog of Telco customers, runs a worker as a process of its own over it, then feeds
a worker at a fixed rate and times each score from publishing to a read_committed reader. Topics
and group are new for each run. Without --brokers the broker is the embedded one: its figures say
nothing about Kafka.

--compare puts the worker between two limits on the same backlog: a pass-through that copies each
event by the worker's own transport (no decoder, no model), and a plain loop of kafka-go's Reader
and Writer (at least once). With --rounds they take turns; the figures are medians.`,
		Example: `  churnstream bench --brokers 127.0.0.1:19092 --events 3000000
  churnstream bench --brokers 127.0.0.1:19092 --events 3000000 --rounds 3 --compare --rate 0
  churnstream bench --brokers 127.0.0.1:19092 --reasons 3 --output json`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput("--output", output); err != nil {
				return err
			}
			if err := checkBench(cfg, reasons, config.Delivery(delivery)); err != nil {
				return err
			}
			dir, err := os.MkdirTemp("", "churnstream-bench-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			cfg.Worker = config.Default()
			cfg.Worker.Delivery, cfg.Worker.Reasons.Top = config.Delivery(delivery), reasons
			cfg.Worker.Admin.Listen, cfg.Worker.Brokers = "", brokers
			parts, err := bench.Embed(cmd.Context(), &cfg.Worker, filepath.Join(dir, "model"), buildVersion())
			if err != nil {
				return err
			}
			defer parts.Close()
			report := func(format string, args ...any) { fmt.Fprintf(s.err, format+"\n", args...) }
			measured, err := bench.New(cfg, programCommand(dir, s), parts, report).Run(cmd.Context())
			if err != nil {
				return err
			}
			return printResult(cmd.OutOrStdout(), output, measured)
		}),
	}
	cmd.Flags().StringSliceVar(&brokers, "brokers", nil, "bootstrap addresses (default: an embedded broker)")
	cmd.Flags().IntVar(&cfg.Events, "events", cfg.Events, "events of the throughput part; 0 leaves it out")
	cmd.Flags().IntVar(&cfg.Partitions, "partitions", cfg.Partitions, "partitions of the topics")
	cmd.Flags().IntVar(&cfg.Rounds, "rounds", cfg.Rounds, "rounds of the throughput part")
	cmd.Flags().BoolVar(&cfg.Compare, "compare", false, "run a raw pass-through and a plain kafka-go loop, too")
	cmd.Flags().IntVar(&cfg.BrokerPID, "broker-pid", 0, "process of a broker on this machine, to measure its CPU time, too")
	cmd.Flags().Float64Var(&cfg.Rate, "rate", cfg.Rate, "events a second of the latency part; 0 leaves it out")
	cmd.Flags().DurationVar(&cfg.WarmUp, "warm-up", cfg.WarmUp, "of the latency part")
	cmd.Flags().DurationVar(&cfg.Measure, "measure", cfg.Measure, "length of the latency part")
	cmd.Flags().IntVar(&cfg.Workers, "workers", cfg.Workers, "processes of the latency part")
	cmd.Flags().IntVar(&reasons, "reasons", reasons, "reasons in each score")
	cmd.Flags().StringVar(&delivery, "delivery", delivery, "exactly-once or at-least-once")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	cmd.AddCommand(newBenchProgram(s))
	return cmd
}

func checkBench(cfg bench.Config, reasons int, delivery config.Delivery) error {
	faults := []error{
		checkRange("--events", cfg.Events, 0, math.MaxInt),
		checkRange("--workers", cfg.Workers, 1, 1000),
		checkRange("--partitions", cfg.Partitions, 1, maxPartitions),
		checkRange("--rounds", cfg.Rounds, 1, math.MaxInt),
		checkRange("--reasons", reasons, 0, 100),
		checkRange("--broker-pid", cfg.BrokerPID, 0, math.MaxInt32),
		checkRate(cfg.Rate, "leave the latency part out"),
	}
	if cfg.Events == 0 && cfg.Rate == 0 {
		faults = append(faults, usageError(errors.New("--events and --rate: both 0 leave nothing to measure")))
	}
	if cfg.WarmUp < 0 {
		faults = append(faults, usageError(fmt.Errorf("--warm-up: %v is negative", cfg.WarmUp)))
	}
	if cfg.Measure <= 0 {
		faults = append(faults, usageError(fmt.Errorf("--measure: %v is not above 0, for example 20s", cfg.Measure)))
	}
	if delivery != config.ExactlyOnce && delivery != config.AtLeastOnce {
		faults = append(faults, usageError(fmt.Errorf("--delivery: %q is neither %s nor %s", delivery, config.ExactlyOnce, config.AtLeastOnce)))
	}
	return errors.Join(faults...)
}

// newBenchProgram makes the command that is started for --compare.
func newBenchProgram(s streams) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:    "program " + string(bench.PassThrough) + "|" + string(bench.PlainLoop),
		Short:  "Run a program that a worker is compared with",
		Hidden: true,
		Args:   oneArgument("the name of a program"),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			cfg, err := readConfig(path, s)
			if err != nil {
				return unusable(err)
			}
			switch bench.Program(args[0]) {
			case bench.PassThrough:
				return bench.RunPassThrough(cmd.Context(), cfg)
			case bench.PlainLoop:
				return bench.RunPlainLoop(cmd.Context(), cfg)
			default:
				return usageError(fmt.Errorf("%q is no program", args[0]))
			}
		}),
	}
	configFlag(cmd, &path)
	return cmd
}

// programCommand starts this same program, as `churnstream run` or as one that a worker is compared with. It drains when
// ctx ends.
func programCommand(dir string, s streams) func(context.Context, bench.Program, config.Config) (*exec.Cmd, error) {
	return func(ctx context.Context, program bench.Program, cfg config.Config) (*exec.Cmd, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		text, err := cfg.YAML()
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, "worker.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
		args := []string{"run", "-c", path}
		if program != bench.Worker {
			args = []string{"bench", "program", string(program), "-c", path}
		}
		cmd := exec.CommandContext(ctx, self, args...)
		cmd.Stderr = s.err
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		return cmd, nil
	}
}
