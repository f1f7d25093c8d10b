package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/demo"
)

func newDemo(s streams) *cobra.Command {
	cfg := demo.DefaultConfig()
	var output, level string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show everything on embedded parts: nothing to install, nothing left behind",
		Long: `Starts an embedded broker and schema registry, trains a model on one half of the Telco
customers and streams the other half through a worker: live scores with their reasons. Half-way
the population shifts, and the drift alert that it causes appears. A summary ends the demo.

It ends after --events, after --duration or by Ctrl-C, whichever comes first.`,
		Example: `  churnstream demo
  churnstream demo --events 20000
  churnstream demo --events 20000 --output json | tail -n 1`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput("--output", output); err != nil {
				return err
			}
			if err := errors.Join(checkRate(cfg.Rate, ""), checkRange("--events", cfg.Events, 0, math.MaxInt)); err != nil {
				return err
			}
			if cfg.Duration < 0 {
				return usageError(fmt.Errorf("--duration: %v is negative", cfg.Duration))
			}
			if !slices.Contains([]string{"debug", "info", "warn", "error"}, level) {
				return usageError(fmt.Errorf("--log-level: %q is not one of debug, info, warn, error", level))
			}
			if cmd.Flags().Changed("events") && !cmd.Flags().Changed("duration") {
				cfg.Duration = 0
			}
			cfg.Started, cfg.Version = started, buildVersion()
			logging := config.Default().Log
			logging.Level = level
			cfg.Log = newLog(logging, s.err)
			summary, err := demo.New(cfg, demo.NewDisplay(cmd.OutOrStdout())).Run(cmd.Context())
			if err != nil {
				return err
			}
			return printResult(cmd.OutOrStdout(), output, summary)
		}),
	}
	cmd.Flags().IntVar(&cfg.Events, "events", 0, "end after so many events (default: by --duration)")
	cmd.Flags().DurationVar(&cfg.Duration, "duration", cfg.Duration, "end after this time; no bound when only --events is given")
	cmd.Flags().Float64Var(&cfg.Rate, "rate", cfg.Rate, "events a second")
	cmd.Flags().Uint64Var(&cfg.Seed, "seed", cfg.Seed, "of the order of customers")
	cmd.Flags().StringVar(&output, "output", "text", "text, or json: the last line is the summary as one object")
	cmd.Flags().StringVar(&level, "log-level", zerolog.ErrorLevel.String(), "log of the embedded worker on stderr: debug, info, warn, error")
	return cmd
}

// started is when the process began, for the time to the first score.
var started = time.Now()

// result is anything that can be shown to people and to programs.
type result interface{ WriteText(w io.Writer) error }

// checkOutput refuses forms that printResult does not know.
func checkOutput(flag, output string) error {
	if output != "text" && output != "json" {
		return usageError(fmt.Errorf("%s: %q is neither text nor json", flag, output))
	}
	return nil
}

// printResult writes text, or one line of JSON.
func printResult(out io.Writer, output string, r result) error {
	if output == "json" {
		return json.NewEncoder(out).Encode(r)
	}
	return r.WriteText(out)
}
