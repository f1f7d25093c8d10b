package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/internal/artefact"
	"github.com/churnstream/churnstream/internal/telco"
	"github.com/churnstream/churnstream/internal/train"
	"github.com/churnstream/churnstream/scoring"
)

func newTrain(s streams) *cobra.Command {
	var data, specification, directory, output string
	var example bool
	cmd := &cobra.Command{
		Use:   "train",
		Short: "Train a logistic regression on a CSV file and write a model artefact",
		Long: `Reads customers from a CSV file as the specification (YAML) declares its columns, fits an L2
logistic regression (the coefficients are scikit-learn's), reports AUC, Brier score, log loss and
accuracy with 95% confidence intervals on customers that were held out, and writes the artefact:
manifest, model, drift reference and reference rows.

--telco takes the embedded Telco customers and their specification, as an example of both.`,
		Example: `  churnstream train --data customers.csv --spec customers.yaml --output models/churn
  churnstream train --telco --output models/telco`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if example == (data != "" || specification != "") {
				return usageError(fmt.Errorf("give --data and --spec, or --telco"))
			}
			if !example && (data == "" || specification == "") {
				return usageError(fmt.Errorf("--data and --spec go together"))
			}
			if err := checkOutput("--format", output); err != nil {
				return err
			}
			rows, text, done, err := trainingInput(s, example, data, specification)
			if err != nil {
				return usageError(err)
			}
			defer done()
			spec, err := train.ParseSpecification(text)
			if err != nil {
				return usageError(fmt.Errorf("--spec %s: %w", specification, err))
			}
			table, err := train.ReadTable(spec, rows)
			if err != nil {
				return fmt.Errorf("--data %s: %w", data, err)
			}
			from := train.Provenance{CreatedAt: time.Now(), LibraryVersion: buildVersion()}
			if !example { // the embedded specification is this program's own
				from.GitCommit = train.GitCommit(cmd.Context(), filepath.Dir(specification))
			}
			fitted, err := train.Fit(spec, table, from)
			if err != nil {
				return err
			}
			if _, err := scoring.WriteArtefact(directory, *fitted); err != nil {
				return err
			}
			model, profile, err := artefact.Load(directory)
			if err != nil {
				return err
			}
			tellThinClasses(s, profile)
			return printResult(cmd.OutOrStdout(), output, model.Describe())
		}),
	}
	cmd.Flags().StringVar(&data, "data", "", "CSV file with a header line; - is standard input")
	cmd.Flags().StringVar(&specification, "spec", "", "YAML file that declares columns, label and horizon")
	cmd.Flags().BoolVar(&example, "telco", false, "train on the embedded Telco customers")
	cmd.Flags().StringVarP(&directory, "output", "o", "model", "directory of the artefact; it must be empty or absent")
	cmd.Flags().StringVar(&output, "format", "text", "of the report: text or json")
	return cmd
}

// trainingInput opens what to train on.
func trainingInput(s streams, example bool, data, specification string) (rows io.Reader, spec []byte, done func(), err error) {
	done = func() {}
	if example {
		rows, err = telco.CSV()
		return rows, telco.Specification(), done, err
	}
	if spec, err = os.ReadFile(specification); err != nil {
		return nil, nil, done, fmt.Errorf("--spec: %w", err)
	}
	if data == "-" {
		return s.in, spec, done, nil
	}
	f, err := openFile(data)
	if err != nil {
		return nil, nil, done, fmt.Errorf("--data: %w", err)
	}
	return f, spec, func() { _ = f.Close() }, nil
}
