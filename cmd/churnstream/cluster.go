package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/worker"
)

// newConfigACL prints what to grant; it asks nobody.
func newConfigACL(s streams) *cobra.Command {
	var path, principal, purpose, output string
	cmd := &cobra.Command{
		Use:   "acl",
		Short: "Print the least rights that a configuration needs, as kafka-acls commands",
		Long: `Prints the access control entries that the login of the configuration needs at the brokers, and
no more, each with its purpose, as commands of kafka-acls.sh for an administrator. Optional ones are commented out:
the worker does without them and says what it misses. Nothing is contacted.`,
		Example: `  churnstream config acl -c churnstream.yaml
  churnstream config acl -c churnstream.yaml --for redrive --principal User:operator`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput("--output", output); err != nil {
				return err
			}
			purposes := map[string]func(config.Config) []connect.Right{"run": worker.Rights, "redrive": worker.RedriveRights, "produce": worker.ProduceRights}
			of, known := purposes[purpose]
			if !known {
				return usageError(fmt.Errorf("--for: %q is not one of run, redrive, produce", purpose))
			}
			cfg, err := config.Load(path, s.environ)
			if err != nil {
				return unusable(err)
			}
			if principal == "" {
				var known bool
				if principal, known = connect.Principal(cfg.Security); !known {
					fmt.Fprintf(s.err, "the principal is %s; give it by --principal\n", principal)
					principal = "User:PRINCIPAL"
				}
			}
			out := cmd.OutOrStdout()
			for _, r := range of(cfg) {
				if output == "json" {
					if err := json.NewEncoder(out).Encode(r); err != nil {
						return err
					}
					continue
				}
				comment := ""
				if r.Optional {
					comment = "# "
					fmt.Fprintf(out, "# optional: %s\n", r.For)
				} else {
					fmt.Fprintf(out, "# %s\n", r.For)
				}
				fmt.Fprintf(out, "%s%s\n", comment, r.Command(strings.Join(cfg.Brokers, ","), principal))
			}
			return nil
		}),
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&principal, "principal", "", "whom to grant it, for example User:scorer (default: the configuration's login)")
	cmd.Flags().StringVar(&purpose, "for", "run", "what the login is to do: run, redrive or produce")
	outputFlag(cmd, &output)
	return cmd
}

// newConfigTopics asks the brokers.
func newConfigTopics(s streams) *cobra.Command {
	var path, output string
	cmd := &cobra.Command{
		Use:   "topics",
		Short: "Check the topics of a configuration at the brokers, with the command that mends each finding",
		Long: `Looks at the topics of the configuration: that they exist, their replication, minimum in-sync replicas,
cleanup policy, largest message and retention. Each finding comes with the command that mends it. Exit code 1 when there
is one. A worker does the same when it starts and logs what it finds.`,
		Example: "  churnstream config topics -c churnstream.yaml",
		Args:    cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput("--output", output); err != nil {
				return err
			}
			cfg, err := readConfig(path, s)
			if err != nil {
				return unusable(err)
			}
			transport, err := connect.Transport(cfg.ClientID, cfg.Security)
			if err != nil {
				return unusable(err)
			}
			defer transport.CloseIdleConnections()
			topics := worker.Topics(cfg)
			create := cfg.CreateTopics
			create.Enabled = false // a check changes nothing
			if _, err := connect.Probe(cmd.Context(), cfg.Brokers, transport, cfg.Security.SASL, topics, create, nil); err != nil {
				return connect.NameMissingRight(err, cfg.Security)
			}
			findings, err := connect.CheckTopics(cmd.Context(), cfg.Brokers, transport, topics)
			if err != nil {
				return connect.NameMissingRight(err, cfg.Security)
			}
			out := cmd.OutOrStdout()
			for _, f := range findings {
				if output == "json" {
					if err := json.NewEncoder(out).Encode(f); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(out, "# %s (%s): %s\n", f.Topic, f.Key, f.Problem)
				if f.Command != "" {
					fmt.Fprintln(out, f.Command)
				}
			}
			if len(findings) > 0 {
				return fmt.Errorf("%d findings about the topics", len(findings))
			}
			if output == "text" {
				fmt.Fprintf(out, "ok: %d topics\n", len(topics))
			}
			return nil
		}),
	}
	configFlag(cmd, &path)
	outputFlag(cmd, &output)
	return cmd
}
