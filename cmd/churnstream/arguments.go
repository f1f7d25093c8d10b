package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// maxRate is far above what a broker takes; beyond it lie slips and overflows.
const maxRate = 1e7

// maxPartitions is the same for the partitions of a topic.
const maxPartitions = 10_000

// checkRate refuses what is no rate, NaN included. Zero says what 0 means, where it means anything.
func checkRate(rate float64, zero string) error {
	if rate > 0 && rate <= maxRate || rate == 0 && zero != "" {
		return nil
	}
	if zero != "" {
		zero = "; 0: " + zero
	}
	return usageError(fmt.Errorf("--rate: %v is not a number of events a second above 0 and up to %.0f%s", rate, maxRate, zero))
}

// checkRange refuses a number outside its bounds.
func checkRange(flag string, value, low, high int) error {
	if value < low || value > high {
		return usageError(fmt.Errorf("%s: %d is outside %d to %d", flag, value, low, high))
	}
	return nil
}

// group makes a command that only holds others.
func group(name, short string, members ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			names := make([]string, len(members))
			for i, m := range members {
				names[i] = m.Name()
			}
			return fmt.Errorf("unknown command %q for %q; it has: %s", args[0], cmd.CommandPath(), strings.Join(names, ", "))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(members...)
	return cmd
}

// oneArgument wants one argument and says which.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return fmt.Errorf("%s takes one argument, %s; %q is too much", cmd.CommandPath(), what, args[1:])
		}
		return someArguments(what)(cmd, args)
	}
}

// someArguments wants one argument or more.
func someArguments(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return nil
		}
		example, _, _ := strings.Cut(strings.TrimSpace(cmd.Example), "\n")
		return fmt.Errorf("%s needs %s, for example: %s", cmd.CommandPath(), what, example)
	}
}
