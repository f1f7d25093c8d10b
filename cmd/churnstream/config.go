package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/httpapi"
	"github.com/churnstream/churnstream/internal/worker"
)

// configFlag adds -c to a command.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "configuration file (YAML); CHURNSTREAM_<KEY> variables override its keys")
}

// readConfig reads file and environment and looks at the files of credentials. It names every fault at once.
func readConfig(path string, s streams) (config.Config, error) {
	cfg, err := config.Load(path, s.environ)
	warnOfMisspellings(cfg.Log, s)
	if err == nil { // else the same values would be named twice
		err = worker.Validate(cfg)
	}
	return cfg, errors.Join(err, checkFiles(cfg))
}

// warnOfMisspellings is no refusal: an orchestrator may have set the variable for a purpose of its own.
func warnOfMisspellings(cfg config.Log, s streams) {
	log := newLog(cfg, s.err)
	for _, m := range config.Misspellings(s.environ) {
		log.Warn().Str("variable", m.Variable).Str("meant", m.Meant).Msg("this environment variable is no key of the configuration and is not read; is it misspelt?")
	}
}

// unusable is the usage error of a configuration.
func unusable(err error) error {
	return usageError(fmt.Errorf("the configuration is not usable:\n%w", err))
}

func newConfig(s streams) *cobra.Command {
	return group("config", "Check or print the configuration", newConfigCheck(s), newConfigPrint(s), newConfigACL(s), newConfigTopics(s))
}

func newConfigCheck(s streams) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Name every fault of a configuration at once",
		Long: `Reads the file and the environment as the worker would, loads and verifies the model
artefact and the files of credentials, and names every fault. Nothing is contacted. Exit code 2 when there is a fault.`,
		Example: "  churnstream config check -c churnstream.yaml",
		Args:    cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			use, err := open(path, s)
			if err != nil {
				return err
			}
			if err := httpapi.CheckFiles(use.cfg.HTTP); err != nil { // else only what serves would find it
				return unusable(err)
			}
			model, cfg := use.model, use.cfg
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
			warnOfMisspellings(cfg.Log, s)
			text, err := cfg.YAML()
			if err != nil {
				return usageError(err)
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
