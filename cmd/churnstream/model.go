package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/internal/artefact"
	"github.com/churnstream/churnstream/internal/modelscore"
	"github.com/churnstream/churnstream/scoring"
	"github.com/churnstream/churnstream/scoring/modelfile"
)

func newModel(s streams) *cobra.Command {
	return group("model", "Inspect, verify and use model artefacts", newModelInspect(), newModelVerify(), newModelScore(s), newModelDiff(s), newModelImport(s))
}

func newModelInspect() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "inspect DIRECTORY",
		Short:   "Show what a model is: inputs, transforms, metrics, origin, digest",
		Long:    "Loads the artefact, which verifies it, and shows its inputs, transforms, size, metrics with confidence intervals, label, threshold, origin and digest.",
		Example: "  churnstream model inspect models/churn\n  churnstream model inspect models/churn --output json",
		Args:    oneArgument("the directory of an artefact"),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			if err := checkOutput("--output", output); err != nil {
				return err
			}
			model, _, err := artefact.Load(args[0])
			if err != nil {
				return err
			}
			return printResult(cmd.OutOrStdout(), output, model.Describe())
		}),
	}
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

func newModelVerify() *cobra.Command {
	return &cobra.Command{
		Use:     "verify DIRECTORY...",
		Short:   "Check digests and reference rows of artefacts",
		Long:    "Checks the digest of every file and scores every reference row. A mismatch names row, expected and got. All artefacts are looked at; exit code 1 when one of them failed.",
		Example: "  churnstream model verify models/*",
		Args:    someArguments("the directories of artefacts"),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			var faults []error
			for _, dir := range args {
				model, _, err := artefact.Load(dir)
				if err != nil {
					faults = append(faults, err)
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "ok: %s is %s@%s, %d reference rows reproduced, digest %s\n", dir, model.Name(), model.Version(), model.ReferenceRows(), model.Digest())
			}
			return errors.Join(faults...)
		}),
	}
}

func newModelDiff(s streams) *cobra.Command {
	var input, format, output string
	cmd := &cobra.Command{
		Use:   "diff FROM TO",
		Short: "Show how two artefacts differ, in what they declare and in the scores of the same rows",
		Long: `Compares label, threshold, training, metrics, inputs and steps of two artefacts. With --input, both score the
same rows: how far the probabilities are apart and how many decisions change. Exit code 0 whether or not they
differ.`,
		Example: `  churnstream model diff models/churn-1.0.0 models/churn-1.1.0
  churnstream model diff models/churn-1.0.0 models/churn-1.1.0 --input rows.csv --output json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%s takes the directories of two artefacts, not %d", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: action(func(cmd *cobra.Command, args []string) error {
			if err := checkOutput("--output", output); err != nil {
				return err
			}
			var rows io.ReadCloser
			var is string
			if input != "" {
				var err error
				if rows, is, err = openRows(s, input, format, "csv", "jsonl", "parquet"); err != nil {
					return err
				}
				defer rows.Close()
			}
			from, _, err := artefact.Load(args[0])
			if err != nil {
				return err
			}
			to, _, err := artefact.Load(args[1])
			if err != nil {
				return err
			}
			diff := scoring.Diff(from, to)
			if rows != nil {
				bar := newProgress(s.err, 0, "rows")
				diff.Rows, err = modelscore.Compare(cmd.Context(), from, to, rows, modelscore.Options{Format: modelscore.Format(is), Progress: bar.set})
				bar.done()
				if err != nil {
					return err
				}
			}
			return printResult(cmd.OutOrStdout(), output, diff)
		}),
	}
	cmd.Flags().StringVarP(&input, "input", "i", "", "file of rows that both score; - is standard input")
	cmd.Flags().StringVar(&format, "format", "", "csv, jsonl or parquet (default: by the file's name)")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

func newModelScore(s streams) *cobra.Command {
	var dir, input, output, format string
	var contributions bool
	cmd := &cobra.Command{
		Use:   "score",
		Short: "Score the rows of a CSV, JSON-lines or Parquet file",
		Long: `Writes one JSON object a row: row (from 0), margin, probability and, with --contributions, an object
of input → contribution plus bias, which add up to the margin. Columns are matched to inputs by
name; an empty cell is missing.

The model is the directory of an artefact, or a file as XGBoost (JSON, UBJSON), LightGBM (text) or CatBoost
(JSON) saves it, or of ONNX. Of such a file, several outputs give lists and a link that makes no probability
gives prediction.`,
		Example: `  churnstream model score --model models/churn --input rows.csv --output predictions.jsonl
  cat rows.jsonl | churnstream model score --model models/churn --input - --format jsonl --contributions
  churnstream model score --model booster.ubj --input rows.csv --output predictions.jsonl`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) (err error) {
			if dir == "" {
				return usageError(fmt.Errorf("--model: give the directory of an artefact or the file of a model"))
			}
			in, is, err := openRows(s, input, format, "csv", "jsonl", "parquet")
			if err != nil {
				return err
			}
			defer in.Close()
			score, err := loadScorer(dir)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if output != "-" {
				f, failed := createOutput(output)
				if failed != nil {
					return usageError(fmt.Errorf("--output: %w", failed))
				}
				defer func() { err = errors.Join(err, f.finish(err == nil)) }()
				out = f
			}
			bar := newProgress(s.err, 0, "rows")
			options := modelscore.Options{Format: modelscore.Format(is), Contributions: contributions, Progress: bar.set}
			rows, err := score(cmd.Context(), in, out, options)
			bar.done()
			if err == nil && output != "-" {
				fmt.Fprintf(s.err, "%d rows scored into %s\n", rows, output)
			}
			return err
		}),
	}
	cmd.Flags().StringVarP(&dir, "model", "m", "", "directory of an artefact, or file of a model")
	cmd.Flags().StringVarP(&input, "input", "i", "-", "file to read; - is standard input")
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write, which appears when all rows are scored; - is standard output")
	cmd.Flags().StringVar(&format, "format", "", "csv, jsonl or parquet (default: by the file's name)")
	cmd.Flags().BoolVar(&contributions, "contributions", false, "add every input's contribution to the margin")
	return cmd
}

// loadScorer loads an artefact or the file of a library's model and gives what scores rows by it.
func loadScorer(path string) (func(context.Context, io.Reader, io.Writer, modelscore.Options) (int, error), error) {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		model, err := modelfile.Open(path)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, in io.Reader, out io.Writer, o modelscore.Options) (int, error) {
			return modelscore.RunFile(ctx, model, in, out, o)
		}, nil
	}
	model, _, err := artefact.Load(path)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, in io.Reader, out io.Writer, o modelscore.Options) (int, error) {
		return modelscore.Run(ctx, model, in, out, o)
	}, nil
}
