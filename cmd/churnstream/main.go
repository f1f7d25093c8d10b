// Command churnstream scores customers for churn on a stream of Kafka events. Each subcommand is a file of this package
// that wires parts together and holds no logic of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // a container of this program alone has no time zones

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
)

// version is set at link time: -ldflags "-X main.version=v1.2.3".
var version = ""

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong flags, arguments or configuration
)

func main() {
	zerolog.DurationFieldFormat = zerolog.DurationFormatString // with their unit
	signal.Ignore(syscall.SIGPIPE)                             // a reader that goes away is a fault of writing, after which commands still clean up
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr, os.Environ()})
	stop()
	os.Exit(code)
}

// streams are what a command reads and writes, so that a test can look.
type streams struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
}

// run executes one command line and gives its exit code.
func run(ctx context.Context, args []string, s streams) int {
	out := &watchedWriter{to: s.out}
	s.out = out
	root := newRoot(s) //nolint:contextcheck // cobra hands the context to the command that runs
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if fault := out.err(); fault != nil && (err == nil || errors.Is(err, errors.Unwrap(fault))) {
		if errors.Is(fault, syscall.EPIPE) {
			return exitFailed // such as head, whose reader knows that it took no more
		}
		err = &failure{exitFailed, fault}
	}
	if err == nil {
		return exitDone
	}
	fmt.Fprintln(s.err, "churnstream: "+err.Error())
	var failed *failure
	if errors.As(err, &failed) {
		return failed.code
	}
	fmt.Fprintln(s.err, "See churnstream --help.") // cobra refused flags or arguments
	return exitUsage
}

// failure is an error of a command's own work with the exit code it deserves.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// action makes a RunE whose errors exit with 1, unless they say otherwise by usageError.
func action(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := do(cmd, args)
		var failed *failure
		if err == nil || errors.As(err, &failed) {
			return err
		}
		return &failure{exitFailed, err}
	}
}

// usageError marks a wrong configuration or argument: exit code 2.
func usageError(err error) error { return &failure{exitUsage, err} }

func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "churnstream",
		Short: "Score customers for churn while the events about them are still moving",
		Long: `churnstream reads customer-activity events from Kafka, scores them in process, publishes
each score with its reasons exactly once, and watches the population for drift.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.`,
		Example: `  churnstream demo                          everything embedded, nothing to install
  churnstream train --data customers.csv --spec spec.yaml --output models/churn
  churnstream run -c churnstream.yaml       the worker`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       buildVersion(),
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newDemo(s), newRun(s), newServe(s), newAPIKey(), newDev(s), newProduce(s), newTrain(s), newModel(s), newDrift(s), newSchema(s), newConfig(s), newDLQ(s), newBench(s),
	)
	return root
}

// buildVersion is the linked version, or the module's and commit's from the build information.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 && v == "devel" {
			v += "+" + setting.Value[:12]
		}
	}
	return v
}
