package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/internal/artefact"
	"github.com/churnstream/churnstream/internal/worker"
	"github.com/churnstream/churnstream/schemas"
)

func newSchema(s streams) *cobra.Command {
	return group("schema", "Show, check and register the Avro schemas of events and results", newSchemaShow(s), newSchemaCheck(s), newSchemaRegister(s))
}

// contracts is what a worker reads and writes.
type contracts struct {
	Framing      string              `json:"framing"`
	ReaderSchema json.RawMessage     `json:"reader_schema,omitempty"` // nothing: events are read as they were written
	Inputs       []schemas.Input     `json:"inputs"`
	Publishes    []publishedContract `json:"publishes"`
}

// publishedContract is a schema that a worker registers when it starts, the event's own first.
type publishedContract struct {
	Topic       string          `json:"topic,omitempty"` // nothing: the header of dead letters; "-": a subject of one's own
	Subject     string          `json:"subject"`
	Fingerprint string          `json:"fingerprint"` // CRC-64-AVRO, hex
	SHA256      string          `json:"sha256"`
	ID          int32           `json:"id,omitempty"` // in the registry, where it was asked
	Schema      json.RawMessage `json:"schema"`
}

func (c contracts) WriteText(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	read := "as they were written"
	if c.ReaderSchema != nil {
		read = "with the reader's schema"
	}
	fmt.Fprintf(w, "reads events in %s framing, %s\n\nINPUT\tPLACE IN THE EVENT\tKIND\tNULLABLE\n", c.Framing, read)
	for _, in := range c.Inputs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%t\n", in.Name, in.AvroPath(), in.Kind, in.Nullable)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nregisters")
	return writePublished(out, c.Publishes)
}

type registered []publishedContract

func (r registered) WriteText(out io.Writer) error {
	if len(r) == 0 {
		return nil
	}
	return writePublished(out, r)
}

func writePublished(out io.Writer, list []publishedContract) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "SUBJECT\tTOPIC\tFINGERPRINT\tID")
	for _, p := range list {
		topic, id := p.Topic, ""
		if topic == "" {
			topic = "(header " + schemas.HeaderDeadLetter + ")"
		}
		if p.ID != 0 {
			id = fmt.Sprint(p.ID)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Subject, topic, p.Fingerprint, id)
	}
	return w.Flush()
}

// published gives what the configuration's worker registers.
func published(use opened) ([]publishedContract, error) {
	list, err := worker.Publications(use.cfg, use.model, use.reading.Reader)
	if err != nil {
		return nil, err
	}
	out := make([]publishedContract, len(list))
	for i, p := range list {
		if out[i], err = describe(p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func describe(p worker.Publication) (publishedContract, error) {
	schema := schemas.Schema{Text: p.Schema}
	fingerprint, err := schema.Fingerprint()
	if err != nil {
		return publishedContract{}, fmt.Errorf("%s: %w", p.Subject, err)
	}
	sum, err := schema.SHA256()
	if err != nil {
		return publishedContract{}, fmt.Errorf("%s: %w", p.Subject, err)
	}
	return publishedContract{
		Topic: p.Topic, Subject: p.Subject, Fingerprint: fmt.Sprintf("%016x", fingerprint), SHA256: hex.EncodeToString(sum[:]), Schema: json.RawMessage(p.Schema),
	}, nil
}

func newSchemaShow(s streams) *cobra.Command {
	var path, output, subject string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show what this worker reads and writes",
		Long: `Shows the framing and the inputs that are read from events, and every schema that the worker
registers with its subject and CRC-64-AVRO fingerprint. Nothing is contacted. --subject prints one schema alone.`,
		Example: `  churnstream schema show -c churnstream.yaml
  churnstream schema show -c churnstream.yaml --subject churn-scores-value > score.avsc`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput("--output", output); err != nil {
				return err
			}
			use, err := open(path, s)
			if err != nil {
				return err
			}
			list, err := published(use)
			if err != nil {
				return err
			}
			if subject == "" {
				shown := contracts{Framing: use.reading.Framing.String(), Inputs: use.model.Contract().Inputs, Publishes: list}
				if use.reading.Reader != "" {
					shown.ReaderSchema = json.RawMessage(use.reading.Reader)
				}
				return printResult(cmd.OutOrStdout(), output, shown)
			}
			for _, p := range list {
				if p.Subject == subject {
					_, err := fmt.Fprintln(cmd.OutOrStdout(), string(p.Schema))
					return err
				}
			}
			return usageError(fmt.Errorf("--subject: %s is none of the worker's; churnstream schema show lists them", subject))
		}),
	}
	configFlag(cmd, &path)
	outputFlag(cmd, &output)
	cmd.Flags().StringVar(&subject, "subject", "", "print the schema of this subject alone")
	return cmd
}

// checkedSchema is what schema check looks at.
type checkedSchema struct {
	config, model, subject, reader string
	references                     []string
}

func newSchemaCheck(s streams) *cobra.Command {
	var what checkedSchema
	var output string
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say whether events of a schema can feed a model, input by input",
		Long: `Takes the schema of events, a file or the newest version of a registry subject, and says of each
input of the model whether the event satisfies it and by which promotion, it takes a default, or it is missing.
With --model a file is checked without a configuration and nothing is contacted. Without a file the subject is
--subject or, by the configuration, that of the events' topic.

Exit code 1 when the model could not be fed.`,
		Example: `  churnstream schema check event.avsc --model models/churn --output json
  churnstream schema check -c churnstream.yaml --subject customer-activity-value`,
		Args: cobra.MaximumNArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			if err := checkOutput("--output", output); err != nil {
				return err
			}
			feeding, err := what.feed(cmd.Context(), args, s)
			if err != nil {
				return err
			}
			if err := printResult(cmd.OutOrStdout(), output, feeding); err != nil {
				return err
			}
			if !feeding.Usable {
				return errors.New("the model cannot be fed from events of this schema")
			}
			return nil
		}),
	}
	configFlag(cmd, &what.config)
	outputFlag(cmd, &output)
	cmd.Flags().StringVarP(&what.model, "model", "m", "", "directory of the artefact (default: the configuration's)")
	cmd.Flags().StringVar(&what.subject, "subject", "", "take the newest version of this registry subject")
	cmd.Flags().StringVar(&what.reader, "reader", "", "file of the schema that events are read with (default: the configuration's)")
	cmd.Flags().StringSliceVar(&what.references, "reference", nil, "files of schemas that FILE refers to by name, each before its first use")
	return cmd
}

func (w checkedSchema) feed(ctx context.Context, args []string, s streams) (feeding schemas.Feeding, err error) {
	if len(args) > 0 && w.subject != "" {
		return feeding, usageError(fmt.Errorf("--subject: give %s or a subject, not both", args[0]))
	}
	var use opened
	var contract schemas.Contract
	if len(args) > 0 && w.model != "" && w.config == "" {
		model, _, err := artefact.Load(w.model)
		if err != nil {
			return feeding, usageError(fmt.Errorf("--model: %w", err))
		}
		contract = model.Contract()
	} else {
		environ := s.environ
		if w.model != "" {
			environ = append(environ[:len(environ):len(environ)], "CHURNSTREAM_MODEL="+w.model)
		}
		s.environ = environ
		if use, err = open(w.config, s); err != nil {
			return feeding, err
		}
		contract = use.model.Contract()
	}
	reader := use.reading.Reader
	if w.reader != "" {
		if reader, err = readSchema("--reader", w.reader); err != nil {
			return feeding, err
		}
	}
	var schema schemas.Schema
	if len(args) > 0 {
		if schema.Text, err = readSchema("schema", args[0]); err != nil {
			return feeding, err
		}
		for _, path := range w.references {
			text, err := readSchema("--reference", path)
			if err != nil {
				return feeding, err
			}
			schema.References = append(schema.References, text)
		}
	} else {
		subject := w.subject
		if subject == "" {
			reading, err := worker.Reading(use.cfg, use.model, use.registry, use.reading)
			if err != nil {
				return feeding, err
			}
			subject = reading.Subject
		}
		defer use.registry.Close()
		if schema, _, err = use.registry.Latest(ctx, subject); err != nil {
			return feeding, err
		}
	}
	if feeding, err = schemas.Feed(contract, reader, schema); err != nil {
		return feeding, usageError(err)
	}
	return feeding, nil
}

func readSchema(what, path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", usageError(fmt.Errorf("%s: %w", what, err))
	}
	return string(text), nil
}

func newSchemaRegister(s streams) *cobra.Command {
	var path, output, subject string
	cmd := &cobra.Command{
		Use:   "register [FILE]",
		Short: "Register the worker's schemas, or one of your own",
		Long: `Registers every schema that the configuration's worker would register when it starts, or the one in
FILE under --subject. A schema that is there already keeps its id. The registry's refusal is quoted; exit code 1.`,
		Example: `  churnstream schema register -c churnstream.yaml
  churnstream schema register event.avsc --subject customer-activity-value -c churnstream.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			if err := checkOutput("--output", output); err != nil {
				return err
			}
			if (len(args) > 0) != (subject != "") {
				return usageError(errors.New("--subject: a file and its subject go together, for example: churnstream schema register event.avsc --subject customer-activity-value"))
			}
			use, err := open(path, s)
			if err != nil {
				return err
			}
			defer use.registry.Close()
			var list []publishedContract
			if len(args) == 0 {
				list, err = published(use)
			} else {
				list, err = own(args[0], subject)
			}
			if err != nil {
				return err
			}
			var faults []error
			done := registered{}
			for _, p := range list {
				if p.ID, err = use.registry.Register(cmd.Context(), p.Subject, string(p.Schema)); err != nil {
					faults = append(faults, err)
					if errors.Is(err, schemas.ErrRegistryDown) {
						break
					}
					continue
				}
				done = append(done, p)
			}
			return errors.Join(append([]error{printResult(cmd.OutOrStdout(), output, done)}, faults...)...)
		}),
	}
	configFlag(cmd, &path)
	outputFlag(cmd, &output)
	cmd.Flags().StringVar(&subject, "subject", "", "subject of FILE")
	return cmd
}

func own(path, subject string) ([]publishedContract, error) {
	text, err := readSchema("schema", path)
	if err != nil {
		return nil, err
	}
	p, err := describe(worker.Publication{Topic: "-", Subject: subject, Schema: text})
	if err != nil {
		return nil, usageError(err)
	}
	return []publishedContract{p}, nil
}
