package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/artefact"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/driftreport"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tabular"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/internal/worker"
	"github.com/churnstream/churnstream/schemas"
)

func newDrift(s streams) *cobra.Command {
	return group("drift", "Freeze a reference population; report how far another one is from it", newDriftProfile(s), newDriftReport(s))
}

// population says where rows come from.
type population struct {
	model, input, format, config string
	topic                        bool
	columns                      driftreport.Columns
}

func (p *population) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&p.model, "model", "m", "", "directory of the artefact (with --topic or --live: that of the configuration)")
	cmd.Flags().StringVarP(&p.input, "input", "i", "", "file with the rows: CSV, JSON lines or Parquet; - is standard input")
	cmd.Flags().StringVar(&p.format, "format", "", "csv, jsonl or parquet (default: by the file's name)")
	cmd.Flags().BoolVar(&p.topic, "topic", false, "read the events topic of the configuration instead, up to its end as it is now")
	cmd.Flags().StringVarP(&p.config, "config", "c", "", "configuration, for --topic and --live")
	cmd.Flags().StringVar(&p.columns.Customer, "customer", "", "column with the customer's key: customers who come back count once")
}

// load reads the model, and the configuration where one is needed.
func (p *population) load(s streams, connected bool) (o opened, err error) {
	if connected {
		if p.model != "" || p.config == "" {
			return o, usageError(errors.New("--topic and --live take -c, whose model it is, and no --model"))
		}
		if o, err = open(p.config, s); err == nil && o.model == nil {
			err = usageError(errors.New("model: the configuration names none"))
		}
		return o, err
	}
	if p.model == "" {
		return o, usageError(errors.New("--model: give the directory of an artefact"))
	}
	o.model, o.profile, err = artefact.Load(p.model)
	return o, err
}

// read scores all rows.
func (p *population) read(ctx context.Context, s streams, o *opened, scored *driftreport.Scoring) error {
	if p.topic == (p.input != "") {
		return usageError(errors.New("give --input or --topic"))
	}
	if p.topic {
		skipped, err := readEvents(ctx, o, scored)
		if err == nil && skipped > 0 {
			fmt.Fprintf(s.err, "%d events cannot be read and are left out; a worker would set them aside as dead letters\n", skipped)
		}
		return err
	}
	source, done, err := openTable(s, p.input, p.format, o.model.Contract())
	if err != nil {
		return err
	}
	return errors.Join(scored.Read(ctx, source, p.columns), done())
}

// openTable opens rows of any format.
func openTable(s streams, path, format string, contract schemas.Contract) (source driftreport.Source, done func() error, err error) {
	rows, is, err := openRows(s, path, format, "csv", "jsonl", "parquet")
	if err != nil {
		return nil, nil, err
	}
	switch is {
	case "jsonl":
		source = tabular.NewLines(rows, contract)
	case "parquet":
		source, err = tabular.NewParquet(rows, contract)
	default:
		source, err = tabular.NewReader(rows, contract, nil)
	}
	if err != nil {
		return nil, nil, errors.Join(err, rows.Close())
	}
	return source, rows.Close, nil
}

// fetching runs a fetcher beside do, over the brokers of the configuration.
func fetching(ctx context.Context, o *opened, topic connect.TopicSpec, do func(context.Context, *kafkawire.Client, *consumer.Fetcher) error) error {
	create := config.CreateTopics{Partitions: o.cfg.CreateTopics.Partitions, ReplicationFactor: o.cfg.CreateTopics.ReplicationFactor}
	if _, err := connect.Probe(ctx, o.cfg.Brokers, o.transport, o.cfg.Security.SASL, []connect.TopicSpec{topic}, create, nil); err != nil {
		return err
	}
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: o.cfg.Brokers, ClientID: o.cfg.ClientID, Transport: o.transport})
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	c := consumer.DefaultFetchConfig()
	c.OffsetReset = consumer.ResetEarliest
	fetcher, err := consumer.NewFetcher(c, client, zerolog.Nop())
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return fetcher.Run(ctx) })
	g.Go(func() error {
		defer stop()
		return do(ctx, client, fetcher)
	})
	return g.Wait()
}

// readEvents scores the events topic and returns how many events cannot be read.
func readEvents(ctx context.Context, o *opened, scored *driftreport.Scoring) (skipped int, err error) {
	reading, err := worker.Reading(o.cfg, o.model, o.registry, o.reading)
	if err != nil {
		return 0, err
	}
	decoder, err := schemas.NewDecoder(reading)
	if err != nil {
		return 0, err
	}
	err = fetching(ctx, o, connect.TopicSpec{Name: o.cfg.Topics.Events, Key: "topics.events"}, func(ctx context.Context, client *kafkawire.Client, fetcher *consumer.Fetcher) error {
		_, err := tail.ReadTopic(ctx, client, fetcher, o.cfg.Topics.Events, func(b *consumer.Batch) error {
			for i := range b.Records {
				r := &b.Records[i]
				err := schemas.CheckKey(r.Key)
				if err == nil {
					err = decoder.Decode(ctx, r.Value, scored.Batch())
				}
				var poison *schemas.RecordError
				if errors.As(err, &poison) {
					skipped++
					continue
				}
				if err == nil {
					err = scored.Add(driftreport.Row{Time: r.Timestamp, Customer: slices.Clone(r.Key)})
				}
				if err != nil {
					return err
				}
			}
			return scored.Flush() // the rows alias the batch
		})
		return err
	})
	return skipped, err
}

func newDriftProfile(s streams) *cobra.Command {
	var from population
	var segments, edges []string
	var output, division, classes, zone string
	cfg := drift.DefaultProfileConfig()
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Freeze rows as the reference population of a model",
		Long: `Scores every row by the model and writes the reference that drift is measured from, as JSON: bins
and categories with their counts, the score, the decision, what each place contributes to the scores. It can take the
place of profile.json in an artefact before that is published, or be given to drift report.

Where the customers of one hour are others than those of another, --classes divides time, and Monday's nine o'clock is
compared with Mondays' nine o'clock: weekdays or weekend (Monday to Friday, Saturday and Sunday), a width of 1h, 2h, 3h,
4h, 6h, 8h or 12h, or both, as in weekend/6h. Each class wants as many rows as a whole reference.`,
		Example: `  churnstream drift profile --model models/churn --input customers.csv --customer id --output profile.json
  churnstream drift profile --model models/churn --input events.csv --customer id --time at --classes weekend/6h --zone Europe/Berlin -o profile.json
  churnstream drift profile -c churnstream.yaml --topic --segment Contract --output profile.json`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) (err error) {
			o, err := from.load(s, from.topic)
			if err != nil {
				return err
			}
			threshold := o.model.Threshold()
			cfg.Threshold, cfg.Segments, cfg.Division = &threshold, segments, drift.Division(division)
			if cfg.Edges, err = readEdges(edges); err == nil {
				err = cfg.Validate()
			}
			if err == nil && classes != "" {
				cfg.Classes, err = readClasses(classes, zone, &from)
			}
			if err != nil {
				return usageError(err)
			}
			gathered := driftreport.NewGatherer(o.model.Contract())
			scored := driftreport.NewScoring(o.model, true, gathered.Observe)
			if err := from.read(cmd.Context(), s, &o, scored); err != nil {
				return err
			}
			profile, err := gathered.Profile(o.model.Contract(), cfg)
			if err != nil {
				return err
			}
			tellThinClasses(s, profile)
			return writeTo(cmd, s, output, func(to io.Writer) error { return drift.WriteProfile(to, profile) })
		}),
	}
	from.flags(cmd)
	cmd.Flags().IntVar(&cfg.Bins, "bins", cfg.Bins, "bins of a number")
	cmd.Flags().IntVar(&cfg.Categories, "categories", cfg.Categories, "categories with a place of their own")
	cmd.Flags().StringVar(&division, "division", string(cfg.Division), "quantiles or equal-width")
	cmd.Flags().StringArrayVar(&edges, "edges", nil, "edges of one input instead, for example tenure=3,12,24")
	cmd.Flags().StringVar(&classes, "classes", "", "divide time, for example weekend/6h: each class is a reference of its own (default: none)")
	cmd.Flags().StringVar(&zone, "zone", "UTC", "time zone of the classes, for example Europe/Berlin")
	cmd.Flags().StringVar(&from.columns.Time, "time", "", "column with the time of a row, for --classes")
	cmd.Flags().StringSliceVar(&segments, "segment", nil, "categorical inputs for whose values the score is watched one by one")
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write; - is standard output")
	return cmd
}

func readClasses(by, zone string, from *population) (*drift.Classes, error) {
	if from.columns.Time == "" && !from.topic {
		return nil, errors.New("--classes goes by the time of a row: name its column by --time")
	}
	c, err := drift.NewClasses(by, zone)
	if err != nil {
		return nil, fmt.Errorf("--classes, --zone: %w", err)
	}
	return c, nil
}

// tellThinClasses names the first classes of time of which the reference holds too little.
func tellThinClasses(s streams, profile *drift.Profile) {
	const named = 5
	thin := profile.ThinClasses()
	for _, c := range thin[:min(named, len(thin))] {
		fmt.Fprintf(s.err, "class %q: %d rows are too few for %d of %d features: of windows within it nothing can be said of them\n",
			c.Label, c.Events, c.Features, len(profile.Features))
	}
	if len(thin) > named {
		fmt.Fprintf(s.err, "so it is in %d of %d classes: give more rows or divide time less finely\n", len(thin), len(profile.Classes.Labels))
	}
}

func readEdges(flags []string) (map[string][]float64, error) {
	edges := map[string][]float64{}
	for _, flag := range flags {
		name, list, found := strings.Cut(flag, "=")
		if !found {
			return nil, fmt.Errorf("--edges: %q is not of the form tenure=3,12,24", flag)
		}
		for text := range strings.SplitSeq(list, ",") {
			edge, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, fmt.Errorf("--edges: %q in %q is no number", text, flag)
			}
			edges[name] = append(edges[name], edge)
		}
	}
	return edges, nil
}

func newDriftReport(s streams) *cobra.Command {
	var from population
	var profilePath, as, output, span, metrics string
	var outcomes outcomeSource
	var live, failing, alerting bool
	rule, calibrating := drift.DefaultRuleConfig(), drift.DefaultCalibrationConfig()
	chance := 0.01
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Report how far rows, or the live population, are from a model's reference",
		Long: `Compares rows with the reference of a model, by the rule that workers raise alarms with, and shows
beside it what other tools show. With --time and --by each period is compared by itself. --live reports what the
workers of a configuration have counted.

With outcomes it also says how well the scores are calibrated: from a column of the rows (--outcome), from a CSV file with
the columns customer and outcome (--outcomes), or from a topic (--outcomes-topic): its key is the customer, its value any
Avro record with a boolean field "outcome", true for a customer who churned; the newest record of a customer counts, and
none or a null field says that nothing is known. --alert publishes miscalibration, and its end, among the drift alerts.`,
		Example: `  churnstream drift report --model models/churn --input march.csv --customer id
  churnstream drift report --model models/churn --input year.parquet --time at --by month --as html --output drift.html
  churnstream drift report -c churnstream.yaml --live
  churnstream drift report -c churnstream.yaml --topic --outcomes-topic churn-outcomes --alert --fail`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if as != "text" && as != "json" && as != "html" {
				return usageError(fmt.Errorf("--as: %q is none of text, json, html", as))
			}
			if span != "" && from.columns.Time == "" && !from.topic {
				return usageError(errors.New("--by goes by the time of a row: name its column by --time"))
			}
			if live && (from.topic || from.input != "" || outcomes.given()) {
				return usageError(errors.New("--live takes neither --input nor --topic nor outcomes"))
			}
			if outcomes.given() && (from.columns.Customer == "" && !from.topic || from.columns.Outcome != "" || outcomes.file != "" && outcomes.topic != "") {
				return usageError(errors.New("--outcomes and --outcomes-topic go with --customer, and neither with the other nor with --outcome"))
			}
			if metrics != "" && !outcomes.given() && from.columns.Outcome == "" {
				return usageError(errors.New("--metrics writes what outcomes show: give --outcome, --outcomes or --outcomes-topic"))
			}
			if alerting && (from.config == "" || !outcomes.given() && from.columns.Outcome == "") {
				return usageError(errors.New("--alert publishes what outcomes show to the topic of a configuration: give -c, and outcomes"))
			}
			if err := errors.Join(rule.Validate(), calibrating.Validate()); err != nil {
				return usageError(err)
			}
			o, err := from.load(s, from.topic || live || alerting || outcomes.topic != "")
			if err != nil {
				return err
			}
			if alerting && !o.cfg.Drift.Enabled {
				return usageError(errors.New("--alert: drift is off in the configuration, so there is no topic of alerts"))
			}
			if profilePath != "" {
				if o.profile, err = readProfile(profilePath); err != nil {
					return err
				}
			}
			if o.profile == nil {
				return usageError(errors.New("drift is off in the configuration, so there is no reference; give --profile"))
			}
			report, err := (&reporting{s: s, o: &o, from: &from, span: driftreport.Span(span), outcomes: outcomes, rule: rule, calibrating: calibrating, chance: chance, alerting: alerting, metrics: metrics}).make(cmd.Context(), live)
			if err != nil {
				return err
			}
			if err := writeTo(cmd, s, output, func(to io.Writer) error { return writeReport(to, as, report) }); err != nil {
				return err
			}
			if failing && report.Drifting() {
				return errors.New("the population has drifted, or the scores are miscalibrated")
			}
			return nil
		}),
	}
	from.flags(cmd)
	cmd.Flags().StringVar(&profilePath, "profile", "", "reference to compare with (default: the model's own)")
	cmd.Flags().BoolVar(&live, "live", false, "report what the workers of the configuration have counted")
	cmd.Flags().StringVar(&from.columns.Time, "time", "", "column with the time of a row, for --by and for a reference with classes of time")
	cmd.Flags().StringVar(&span, "by", "", "compare by hour, day, week or month of that time")
	cmd.Flags().StringVar(&from.columns.Outcome, "outcome", "", "column that says whether the customer churned: yes, no, or blank if not known")
	cmd.Flags().StringVar(&outcomes.file, "outcomes", "", "CSV file with the columns customer and outcome")
	cmd.Flags().StringVar(&outcomes.topic, "outcomes-topic", "", "topic of records with a boolean field outcome, keyed by customer")
	cmd.Flags().BoolVar(&alerting, "alert", false, "publish a change in the state of the calibration to the topic of drift alerts")
	cmd.Flags().StringVar(&metrics, "metrics", "", "file to write the calibration to as Prometheus metrics, for node_exporter's textfile collector (*.prom) or a Pushgateway")
	cmd.Flags().Float64Var(&rule.Shift, "relevant-psi", rule.Shift, "PSI of a population from which on its shift is relevant")
	cmd.Flags().Float64Var(&chance, "chance", chance, "that a report of harmless data calls anything drifting")
	cmd.Flags().Float64Var(&calibrating.Relevant, "relevant-miscalibration", calibrating.Relevant, "difference of mean score and churn rate that matters")
	cmd.Flags().BoolVar(&failing, "fail", false, "exit with 1 if anything has drifted")
	cmd.Flags().StringVar(&as, "as", "text", "text, json or html")
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write; - is standard output")
	return cmd
}

func readProfile(path string) (*drift.Profile, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, usageError(fmt.Errorf("--profile: %w", err))
	}
	profile, err := drift.ReadProfile(f)
	return profile, errors.Join(err, f.Close())
}

func writeReport(to io.Writer, as string, report *driftreport.Report) error {
	switch as {
	case "json":
		e := json.NewEncoder(to)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(report)
	case "html":
		return report.WriteHTML(to)
	default:
		return report.WriteText(to)
	}
}

// writeTo writes a file as a whole, or standard output.
func writeTo(cmd *cobra.Command, s streams, path string, write func(io.Writer) error) (err error) {
	if path == "-" {
		return write(cmd.OutOrStdout())
	}
	f, err := createOutput(path)
	if err != nil {
		return usageError(fmt.Errorf("--output: %w", err))
	}
	defer func() { err = errors.Join(err, f.finish(err == nil)) }()
	if err = write(f); err == nil {
		fmt.Fprintf(s.err, "written to %s\n", path)
	}
	return err
}

// reporting makes one report.
type reporting struct {
	s           streams
	o           *opened
	from        *population
	span        driftreport.Span
	outcomes    outcomeSource
	rule        drift.RuleConfig
	calibrating drift.CalibrationConfig
	chance      float64
	alerting    bool
	metrics     string // file, empty: none
}

func (r *reporting) make(ctx context.Context, live bool) (*driftreport.Report, error) {
	model := driftreport.Model{Name: r.o.model.Name(), Version: r.o.model.Version(), Digest: r.o.model.Digest()}
	if live {
		population, err := r.population(ctx)
		if err != nil {
			return nil, err
		}
		return driftreport.NewLive(model, r.o.profile, population, r.rule)
	}
	known, err := r.outcomes.read(ctx, r.s, r.o)
	if err != nil {
		return nil, err
	}
	periods, err := driftreport.NewPeriods(r.o.profile, r.o.model.Contract(), r.span)
	if err != nil {
		return nil, usageError(fmt.Errorf("--by: %w", err))
	}
	calibration := drift.NewCalibration(r.o.profile)
	pairs, from, to := 0, int64(math.MaxInt64), int64(0)
	scored := driftreport.NewScoring(r.o.model, false, func(row *driftreport.Row) error {
		if churned, found := known[string(row.Customer)]; found {
			row.Outcome, row.Known = churned, true
		}
		if row.Known {
			pairs++
			from, to = min(from, row.Time), max(to, row.Time+1)
			if err := calibration.Observe(row.Customer, row.Probability, row.Outcome); err != nil {
				return err
			}
		}
		return periods.Observe(row)
	})
	if err := r.from.read(ctx, r.s, r.o, scored); err != nil {
		return nil, err
	}
	if scored.Rows() == 0 {
		return nil, errors.New("there are no rows to report on")
	}
	windows, keyed := periods.Windows()
	report, err := driftreport.New(model, r.o.profile, windows, r.rule, r.chance)
	if err != nil {
		return nil, err
	}
	if !keyed {
		report.Notes = append(report.Notes, "No customer key: every row counts as another customer. If customers come back, the evidence is overstated; name the column by --customer.")
	}
	if r.outcomes.given() || r.from.columns.Outcome != "" {
		if pairs == 0 {
			report.Notes = append(report.Notes, "No row has an outcome.")
			from = 0
		}
		found, err := calibration.Report(r.calibrating)
		if err != nil {
			return nil, err
		}
		report.Calibrate(&found)
		name := drift.ModelName{Name: model.Name, Version: model.Version, Digest: model.Digest}
		raised := found.Raised(name, nil)
		if r.alerting {
			if raised, err = r.alert(ctx, name, &found, from, to); err != nil {
				return nil, err
			}
		}
		if r.metrics != "" {
			registry := prometheus.NewRegistry()
			if err := drift.NewCalibrationMetrics(registry, name, &found, raised, time.Now().UnixMilli()); err != nil {
				return nil, err
			}
			if err := prometheus.WriteToTextfile(r.metrics, registry); err != nil {
				return nil, fmt.Errorf("--metrics: %w", err)
			}
		}
	}
	return report, nil
}

// alert tells of a change in the state of the calibration, and says whether the alarm is on after it.
func (r *reporting) alert(ctx context.Context, model drift.ModelName, found *drift.CalibrationReport, from, to int64) (raised bool, err error) {
	topic := connect.TopicSpec{Name: r.o.cfg.Topics.DriftAlerts, Key: "topics.drift_alerts"}
	err = fetching(ctx, r.o, topic, func(ctx context.Context, client *kafkawire.Client, fetcher *consumer.Fetcher) error {
		log := timed(zerolog.New(r.s.err))
		_, err := worker.Alert(ctx, r.o.cfg, r.o.model, r.o.registry, client, fetcher, log, drift.CalibrationFeature, func(before *schemas.DriftAlert) *schemas.DriftAlert {
			raised = found.Raised(model, before)
			return found.Alert(model, before, from, to, time.Now().UnixMilli())
		})
		return err
	})
	return raised, err
}

// population reads what the workers have counted.
func (r *reporting) population(ctx context.Context) (*drift.Population, error) {
	population, err := worker.NewPopulation(r.o.cfg, r.o.model, r.o.profile)
	if err != nil {
		return nil, err
	}
	topic := r.o.cfg.Topics.DriftState
	unread := 0
	err = fetching(ctx, r.o, connect.TopicSpec{Name: topic, Key: "topics.drift_state"}, func(ctx context.Context, client *kafkawire.Client, fetcher *consumer.Fetcher) error {
		_, err := tail.ReadTopic(ctx, client, fetcher, topic, worker.Applying(population, func(error) { unread++ }))
		return err
	})
	if unread > 0 {
		fmt.Fprintf(r.s.err, "%d records of %s are no states of this model and do not count\n", unread, topic)
	}
	return population, err
}

// outcomeSource says where outcomes of customers come from; at most one of both.
type outcomeSource struct{ file, topic string }

func (from outcomeSource) given() bool { return from.file != "" || from.topic != "" }

// read gives what came of customers, by their keys; nil: nothing is known.
func (from outcomeSource) read(ctx context.Context, s streams, o *opened) (map[string]bool, error) {
	switch {
	case from.topic != "":
		known, unread, err := readOutcomeTopic(ctx, o, from.topic)
		if err == nil && unread > 0 {
			fmt.Fprintf(s.err, "%d records of %s hold no outcome and are left out\n", unread, from.topic)
		}
		return known, err
	case from.file != "":
		return readOutcomeFile(from.file)
	}
	return nil, nil
}

func readOutcomeFile(path string) (map[string]bool, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, usageError(fmt.Errorf("--outcomes: %w", err))
	}
	known, err := driftreport.ReadOutcomes(csv.NewReader(f))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("--outcomes %s: %w", path, err)
	}
	return known, nil
}

// readOutcomeTopic reads a topic of outcomes up to its end as it is now and returns how many records cannot be read.
func readOutcomeTopic(ctx context.Context, o *opened, topic string) (known map[string]bool, unread int, err error) {
	contract := schemas.Contract{Inputs: []schemas.Input{{Name: "outcome", Kind: schemas.Boolean, Nullable: true}}}
	decoder, err := schemas.NewDecoder(schemas.DecoderConfig{Contract: contract, Registry: o.registry, Subject: schemas.Subject(topic)})
	if err != nil {
		return nil, 0, err
	}
	known = map[string]bool{}
	rows := schemas.NewRows(1, 1)
	err = fetching(ctx, o, connect.TopicSpec{Name: topic, Key: "--outcomes-topic"}, func(ctx context.Context, client *kafkawire.Client, fetcher *consumer.Fetcher) error {
		_, err := tail.ReadTopic(ctx, client, fetcher, topic, func(b *consumer.Batch) error {
			for i := range b.Records {
				r := &b.Records[i]
				if r.Value == nil {
					delete(known, string(r.Key))
					continue
				}
				rows.Reset()
				err := schemas.CheckKey(r.Key)
				if err == nil {
					err = decoder.Decode(ctx, r.Value, rows)
				}
				var poison *schemas.RecordError
				switch {
				case errors.As(err, &poison):
					unread++
					continue
				case err != nil:
					return err
				}
				if numbers, _ := rows.Row(0); math.IsNaN(numbers[0]) {
					delete(known, string(r.Key))
				} else {
					known[string(r.Key)] = numbers[0] == 1
				}
			}
			return nil
		})
		return err
	})
	return known, unread, err
}
