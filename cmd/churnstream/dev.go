package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/devbroker"
	"github.com/churnstream/churnstream/internal/devregistry"
)

func newDev(s streams) *cobra.Command {
	broker := devbroker.DefaultConfig()
	registry := devregistry.DefaultConfig()
	var dir string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run an embedded Kafka broker and schema registry for development",
		Long: `Runs a Kafka-compatible broker and a schema registry with the Confluent API in one process,
on fixed ports, until Ctrl-C. With --data-dir topics, groups and schemas survive a restart.

It is for development: a real Apache Kafka stays the judge of speed and failure.`,
		Example: `  churnstream dev
  churnstream dev --data-dir ./dev-data --listen 127.0.0.1:9092 --registry 127.0.0.1:8081`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if dir != "" {
				broker.DataDir, registry.Dir = filepath.Join(dir, "broker"), filepath.Join(dir, "registry")
			}
			broker.AutoCreateTopics = true
			if err := broker.Validate(); err != nil {
				return usageError(err)
			}
			log := newLog(config.Default().Log, s.err)
			r, err := devregistry.New(registry)
			if err != nil {
				return err
			}
			b, err := devbroker.New(broker, log)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "broker    %s\nregistry  %s\nCtrl-C ends both.\n", b.Addr(), r.URL())
			g, ctx := errgroup.WithContext(cmd.Context())
			g.Go(func() error { return b.Run(ctx) })
			g.Go(func() error { return r.Run(ctx) })
			return g.Wait()
		}),
	}
	cmd.Flags().StringVar(&broker.Listen, "listen", broker.Listen, "address of the broker")
	cmd.Flags().StringVar(&registry.Listen, "registry", registry.Listen, "address of the schema registry")
	cmd.Flags().IntVar(&broker.Partitions, "partitions", 8, "partitions of a topic that a client creates by using it")
	cmd.Flags().StringVar(&dir, "data-dir", "", "keep topics, groups and schemas here (default: in memory)")
	return cmd
}
