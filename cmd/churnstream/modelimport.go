package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/internal/artefact"
	"github.com/churnstream/churnstream/internal/modelimport"
	"github.com/churnstream/churnstream/internal/modelscore"
	"github.com/churnstream/churnstream/scoring"
)

func newModelImport(s streams) *cobra.Command {
	var file, rows, format, directory, output string
	cfg := modelimport.Config{CreatedAt: time.Now()}
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Make an artefact of a model as XGBoost, LightGBM or CatBoost saved it, or of ONNX",
		Long: `Wraps the file of a model into an artefact: its inputs become the declared inputs, all of which may be
missing, the rows become the reference that drift is measured against, and a hundred of them the
reference rows that every load reproduces. The file itself is kept as it is.`,
		Example: `  churnstream model import --model booster.ubj --input training.csv --name churn --version 1.0.0 \
    --label "the customer cancelled within 30 days" --horizon 30d --output models/churn-1.0.0`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if err := checkImport(file, cfg); err != nil {
				return usageError(err)
			}
			if err := checkOutput("--report", output); err != nil {
				return err
			}
			in, is, err := openRows(s, rows, format, "csv", "jsonl")
			if err != nil {
				return err
			}
			defer in.Close()
			data, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("--model: %w", err)
			}
			cfg.Format = modelscore.Format(is)
			imported, err := modelimport.Import(data, in, cfg)
			if err != nil {
				return fmt.Errorf("import %s: %w", file, err)
			}
			if _, err := scoring.WriteArtefact(directory, *imported); err != nil {
				return err
			}
			model, _, err := artefact.Load(directory)
			if err != nil {
				return err
			}
			return printResult(cmd.OutOrStdout(), output, model.Describe())
		}),
	}
	cmd.Flags().StringVarP(&file, "model", "m", "", "file of the model")
	cmd.Flags().StringVarP(&rows, "input", "i", "-", "rows of its inputs, the population that it was trained on; - is standard input")
	cmd.Flags().StringVar(&format, "format", "", "of the rows: csv or jsonl (default: by the file's name)")
	cmd.Flags().StringVar(&cfg.Name, "name", "", "name of the model, which every score carries")
	cmd.Flags().StringVar(&cfg.Version, "version", "1.0.0", "its version, likewise")
	cmd.Flags().StringVar(&cfg.Label.Definition, "label", "", "what the model was trained to predict, in words")
	cmd.Flags().StringVar(&cfg.Label.Horizon, "horizon", "", "how far that looks ahead, for example 30d")
	cmd.Flags().Float64Var(&cfg.Threshold, "threshold", 0.5, "least probability that decides for churn")
	cmd.Flags().IntVar(&cfg.Positive, "positive", -1, "class that means churn, from 0 (default: the second of two; of more, it must be said)")
	cmd.Flags().StringVarP(&directory, "output", "o", "model", "directory of the artefact; it must be empty or absent")
	cmd.Flags().StringVar(&output, "report", "text", "text or json")
	return cmd
}

// checkImport reports what has no default and is not given.
func checkImport(file string, cfg modelimport.Config) error {
	var faults []error
	for _, f := range []struct{ value, flag, example string }{
		{file, "--model", "booster.ubj"},
		{cfg.Name, "--name", "churn"},
		{cfg.Label.Definition, "--label", `"the customer cancelled within 30 days"`},
		{cfg.Label.Horizon, "--horizon", "30d"},
	} {
		if f.value == "" {
			faults = append(faults, fmt.Errorf("%s is missing, for example %s %s", f.flag, f.flag, f.example))
		}
	}
	return errors.Join(faults...)
}
