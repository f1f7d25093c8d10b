package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/worker"
)

// configFlag adds -c to a command.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "configuration file (YAML); CHURNSTREAM_<KEY> variables override its keys")
}

// loadConfig reads file and environment; every fault at once is a usage error.
func loadConfig(path string, s streams) (config.Config, error) {
	cfg, err := config.Load(path, s.environ)
	if err == nil { // else the same values would be named twice
		err = worker.Validate(cfg)
	}
	if err != nil {
		return cfg, usageError(fmt.Errorf("the configuration is not usable:\n%w", err))
	}
	return cfg, nil
}

func newConfig(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check or print the configuration"}
	cmd.AddCommand(newConfigCheck(s), newConfigPrint(s))
	return cmd
}

func newConfigCheck(s streams) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Name every fault of a configuration at once",
		Long: `Reads the file and the environment as the worker would, loads and verifies the model
artefact, and names every fault. Nothing is contacted. Exit code 2 when there is a fault.`,
		Example: "  churnstream config check -c churnstream.yaml",
		Args:    cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path, s)
			if err != nil {
				return err
			}
			model, _, err := loadModel(cfg)
			if err != nil {
				return usageError(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ok: %s@%s, %d inputs, group %s, %s\n", model.Name(), model.Version(), len(model.Contract().Inputs), cfg.Group.ID, cfg.Delivery)
			return nil
		}),
	}
	configFlag(cmd, &path)
	return cmd
}

func newConfigPrint(s streams) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:     "print",
		Short:   "Print the configuration with defaults and environment applied",
		Long:    "Prints every key with its value in force, as a file that can be given back. Secrets are never in it: they live in files of their own.",
		Example: "  churnstream config print > churnstream.yaml",
		Args:    cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			cfg, loadErr := config.Load(path, s.environ)
			text, err := cfg.YAML()
			if err != nil {
				return err
			}
			if _, err := cmd.OutOrStdout().Write(text); err != nil {
				return err
			}
			if loadErr != nil && path != "" {
				return usageError(loadErr)
			}
			return nil
		}),
	}
	configFlag(cmd, &path)
	return cmd
}
