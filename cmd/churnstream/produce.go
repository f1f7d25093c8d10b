package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

func newProduce(s streams) *cobra.Command {
	var path, input, format, key string
	var rate float64
	var limit int
	cmd := &cobra.Command{
		Use:   "produce",
		Short: "Publish the rows of a CSV, JSON-lines or Avro file as Avro events",
		Long: `Reads rows, encodes them as events of the model's contract, registers that contract and
publishes the events to the topic of the configuration, keyed by customer id. CSV columns and
JSON fields are matched to the model's inputs by name; an empty cell or null is missing.

An Avro object container file (codec null, deflate, snappy or zstandard) is published as it is: its own
schema is registered, its records are not encoded anew.`,
		Example: `  churnstream produce -c churnstream.yaml --input customers.csv --key customerID --rate 500
  churnstream produce -c churnstream.yaml --input events.avro --key customer.id
  zcat events.jsonl.gz | churnstream produce -c churnstream.yaml --input - --format jsonl --key customer_id`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(checkRate(rate, "as fast as the broker takes them"), checkRange("--events", limit, 0, math.MaxInt)); err != nil {
				return err
			}
			use, err := open(path, s)
			if err != nil {
				return err
			}
			rows, is, err := openRows(s, input, format, "csv", "jsonl", "avro")
			if err != nil {
				return err
			}
			defer rows.Close()
			return produce(cmd.Context(), use, rows, is, key, feed.Config{Topic: use.cfg.Topics.Events, Rate: rate, Limit: limit}, s.err)
		}),
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVarP(&input, "input", "i", "-", "file to read; - is standard input")
	cmd.Flags().StringVar(&format, "format", "", "csv, jsonl or avro (default: by the file's name)")
	cmd.Flags().StringVar(&key, "key", "customer_id", "column or field with the customer id")
	cmd.Flags().Float64Var(&rate, "rate", 0, "events a second (default: as fast as the broker takes them)")
	cmd.Flags().IntVar(&limit, "events", 0, "stop after so many (default: all)")
	return cmd
}

func produce(ctx context.Context, use opened, rows io.Reader, format, key string, to feed.Config, progress io.Writer) error {
	cfg := use.cfg
	topics := []connect.TopicSpec{{Name: to.Topic, Key: "topics.events"}}
	if _, err := connect.Probe(ctx, cfg.Brokers, use.transport, cfg.Security.SASL, topics, cfg.CreateTopics, nil); err != nil {
		return err
	}
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: cfg.Brokers, ClientID: cfg.ClientID, Transport: use.transport})
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	source, done, err := sourceOf(ctx, use, rows, format, key)
	if err != nil {
		return err
	}
	defer done()
	publisher, err := producer.NewIdempotent(producer.DefaultConfig(), client)
	if err != nil {
		return err
	}
	defer publisher.Close()
	bar := newProgress(progress, to.Limit, "events")
	ended := false
	watched := feed.SourceFunc(func(e *feed.Event) error {
		err := source.Next(e)
		ended = ended || errors.Is(err, io.EOF)
		return err
	})
	sent, err := feed.Run(ctx, to, publisher, watched, bar.set)
	bar.done()
	if err == nil && ctx.Err() != nil && !ended && (to.Limit == 0 || sent < to.Limit) {
		return fmt.Errorf("interrupted before the last row: the first %d rows are published to %s, the others are not", sent, to.Topic)
	}
	fmt.Fprintf(progress, "%d events published to %s\n", sent, to.Topic)
	return err
}

// sourceOf registers the schema of the events and gives them. Done lets go of the file.
func sourceOf(ctx context.Context, use opened, rows io.Reader, format, key string) (source feed.Source, done func(), err error) {
	contract := use.model.Contract()
	if format == "avro" {
		file, err := feed.OpenContainer(rows, key)
		if err != nil {
			return nil, nil, err
		}
		feeding, err := schemas.Feed(contract, use.reading.Reader, schemas.Schema{Text: file.Schema()})
		if err == nil && !feeding.Usable {
			err = errors.New("the model cannot be fed from this file's events; take its schema out of it and ask churnstream schema check why")
		}
		var frame []byte
		if err == nil {
			frame, err = frameOf(ctx, use, file.Schema())
		}
		if err != nil {
			file.Close()
			return nil, nil, err
		}
		file.SetFrame(frame)
		return file, file.Close, nil
	}
	schema, err := contract.AvroSchema()
	if err != nil {
		return nil, nil, err
	}
	frame, err := frameOf(ctx, use, schema)
	if err != nil {
		return nil, nil, err
	}
	read := feed.CSV
	if format == "jsonl" {
		read = feed.JSONLines
	}
	source, err = read(rows, contract, frame, key)
	return source, func() {}, err
}

// frameOf registers the schema of events and gives what begins each of them in the configured framing. Bare events can
// only be written with the schema that their readers are configured with.
func frameOf(ctx context.Context, use opened, schema string) ([]byte, error) {
	fingerprint, err := schemas.Schema{Text: schema}.Fingerprint()
	if err != nil {
		return nil, err
	}
	if use.reading.Framing == schemas.Bare {
		configured, err := schemas.Schema{Text: use.reading.Schemas[0]}.Fingerprint()
		if err == nil && configured != fingerprint {
			err = fmt.Errorf("events.framing is bare: events have to be written with the schema of events.schemas (fingerprint %016x), these are written with another one (%016x)", configured, fingerprint)
		}
		return nil, err
	}
	var strategy schemas.SubjectStrategy
	if err := strategy.UnmarshalText([]byte(use.cfg.Registry.SubjectStrategy)); err != nil {
		return nil, err
	}
	subject, err := strategy.Subject(use.cfg.Topics.Events, schema)
	if err != nil {
		return nil, err
	}
	id, err := use.registry.Register(ctx, subject, schema)
	if err != nil {
		return nil, err
	}
	if use.reading.Framing == schemas.SingleObject {
		return schemas.AppendObjectFrame(nil, fingerprint), nil
	}
	return schemas.AppendFrame(nil, id), nil
}

// progress is a bar on a terminal and nothing elsewhere.
type progress struct{ bar *progressbar.ProgressBar }

func newProgress(out io.Writer, total int, what string) progress {
	f, ok := out.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return progress{}
	}
	if total == 0 {
		total = -1 // a spinner
	}
	return progress{progressbar.NewOptions(total, progressbar.OptionSetWriter(out), progressbar.OptionSetDescription(what), progressbar.OptionShowCount(), progressbar.OptionShowIts())}
}

func (p progress) set(n int) {
	if p.bar != nil {
		_ = p.bar.Set(n) // a bar that cannot be drawn is no fault of the work
	}
}

func (p progress) done() {
	if p.bar != nil {
		_ = p.bar.Finish()
		fmt.Fprintln(os.Stderr)
	}
}
