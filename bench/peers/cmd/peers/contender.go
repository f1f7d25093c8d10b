package main

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
)

// contender is a program that does the job. It is told what to do by its environment and ends on SIGTERM.
type contender struct {
	name        string
	command     func(bin string) []string
	environment []string
	atLeastOnce bool // duplicates are not an error
}

var contenders = map[string]contender{
	"churnstream": {command: scorer},
	"churnstream-partition": {
		command: scorer, environment: []string{"TRANSACTIONS=partition"},
	},
	"churnstream-at-least-once": {
		command: scorer, environment: []string{"DELIVERY=at-least-once"}, atLeastOnce: true,
	},
	"franz": {command: func(bin string) []string { return []string{filepath.Join(bin, "franz")} }},
	"kstreams": {command: func(bin string) []string {
		build := filepath.Join(bin, "kstreams")
		return []string{
			"java", "-Xms1g", "-Xmx1g", "-XX:+UseParallelGC",
			"-Dorg.apache.avro.SERIALIZABLE_PACKAGES=churn.v1", "-Dorg.apache.avro.specific.use_custom_coders=true",
			"-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
			"-cp", filepath.Join(build, "peers-kstreams-1.jar") + ":" + filepath.Join(build, "lib", "*"), "churnstream.peers.Main",
		}
	}},
}

func scorer(bin string) []string { return []string{filepath.Join(bin, "scorer")} }

func contenderNames() []string { return slices.Sorted(maps.Keys(contenders)) }

// task is what a contender is asked to do in one run.
type task struct{ broker, in, out, group, models string }

// start makes the process; it drains when ctx ends.
func (c contender) start(ctx context.Context, bin string, t task) *exec.Cmd {
	args := c.command(bin)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "BROKER="+t.broker, "IN_TOPIC="+t.in, "OUT_TOPIC="+t.out, "GROUP="+t.group, "MODEL_DIR="+t.models)
	cmd.Env = append(cmd.Env, c.environment...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd
}
