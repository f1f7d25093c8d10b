package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/deadletters"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/worker"
	"github.com/churnstream/churnstream/schemas"
)

func newDLQ(s streams) *cobra.Command {
	return group("dlq", "Look at dead letters and send them again", newDLQList(s), newDLQShow(s), newDLQRedrive(s))
}

// letterFilter is what the flags say of dead letters.
type letterFilter struct {
	classes                       []string
	topic, customer, since, until string
	partition                     int
}

func (f *letterFilter) flags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.classes, "class", nil, "classes of the fault, for example unknown_schema,truncated (default: all)")
	cmd.Flags().StringVar(&f.topic, "source-topic", "", "topic that they came from (default: any)")
	cmd.Flags().IntVar(&f.partition, "partition", -1, "partition that they came from (default: any)")
	cmd.Flags().StringVar(&f.customer, "customer", "", "customer id (default: any)")
	cmd.Flags().StringVar(&f.since, "since", "", "failed at or after: 2h (ago), 2026-11-22 or 2026-11-22T08:00:00Z")
	cmd.Flags().StringVar(&f.until, "until", "", "failed before: as --since")
}

// filter reads the flags; now is what durations count back from.
func (f *letterFilter) filter(now time.Time) (deadletters.Filter, error) {
	filter := deadletters.Filter{Topic: f.topic, Partition: int32(f.partition)}
	faults := []error{checkRange("--partition", f.partition, -1, 1<<20)}
	for _, name := range f.classes {
		class := schemas.ErrorClass(name)
		if !slices.Contains(schemas.ErrorClasses(), class) {
			faults = append(faults, usageError(fmt.Errorf("--class: %q is not one of %v", name, schemas.ErrorClasses())))
		}
		filter.Classes = append(filter.Classes, class)
	}
	if f.customer != "" {
		filter.Customer = []byte(f.customer)
	}
	var err error
	filter.Since, err = moment("--since", f.since, now)
	faults = append(faults, err)
	filter.Until, err = moment("--until", f.until, now)
	return filter, errors.Join(append(faults, err)...)
}

func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		if now.IsZero() {
			return time.Time{}, usageError(fmt.Errorf("%s: give a time such as 2026-11-22T08:00:00Z: a duration would mean something else whenever the job goes on", flag))
		}
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usageError(fmt.Errorf("%s: %q is neither a duration such as 2h nor a time such as 2026-11-22T08:00:00Z", flag, text))
}

// openLetters connects to the brokers of the configuration and finds the topic of dead letters there. Done closes what
// is open. The model is not needed.
func openLetters(ctx context.Context, path string, s streams) (cfg config.Config, client *kafkawire.Client, done func(), err error) {
	if cfg, err = readConfig(path, s); err != nil {
		return cfg, nil, nil, unusable(err)
	}
	transport, err := connect.Transport(cfg.ClientID, cfg.Security)
	if err != nil {
		return cfg, nil, nil, unusable(err)
	}
	topics := []connect.TopicSpec{{Name: cfg.Topics.DeadLetters, Key: "topics.dead_letters"}}
	if _, err := connect.Probe(ctx, cfg.Brokers, transport, cfg.Security.SASL, topics, config.CreateTopics{Partitions: cfg.CreateTopics.Partitions, ReplicationFactor: cfg.CreateTopics.ReplicationFactor}, nil); err != nil {
		return cfg, nil, nil, connect.NameMissingRight(err, cfg.Security)
	}
	client, err = kafkawire.NewClient(kafkawire.Config{Brokers: cfg.Brokers, ClientID: cfg.ClientID, Transport: transport})
	if err != nil {
		return cfg, nil, nil, err
	}
	return cfg, client, client.CloseIdleConnections, nil
}

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVar(output, "output", "text", "text or json")
}

func newDLQList(s streams) *cobra.Command {
	var path, output string
	var filter letterFilter
	var limit int
	var count, keys bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List or count dead letters",
		Long: `Lists the dead letters of the configuration's topic, partition by partition, oldest first, up
to the end as it is now. Customer ids are shown only when asked for. The first column is the place for dlq show.`,
		Example: `  churnstream dlq list -c churnstream.yaml --since 2h --class unknown_schema
  churnstream dlq list -c churnstream.yaml --count`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			wanted, err := filter.filter(time.Now())
			if err := errors.Join(err, checkOutput("--output", output), checkRange("--limit", limit, 1, 1<<30)); err != nil {
				return err
			}
			cfg, client, done, err := openLetters(cmd.Context(), path, s)
			if err != nil {
				return err
			}
			defer done()
			var fill letterList = &letterRows{out: cmd.OutOrStdout(), asJSON: output == "json", keys: keys, left: limit}
			if count {
				fill = &letterCounts{out: cmd.OutOrStdout(), asJSON: output == "json", counts: map[letterKind]int64{}}
			}
			foreign, err := deadletters.Browse(cmd.Context(), client, cfg.Topics.DeadLetters, wanted, fill.add)
			if err = errors.Join(err, fill.flush()); err == nil && foreign > 0 {
				fmt.Fprintf(s.err, "%d records of %s were not written by a worker and are left out\n", foreign, cfg.Topics.DeadLetters)
			}
			return connect.NameMissingRight(err, cfg.Security)
		}),
	}
	configFlag(cmd, &path)
	filter.flags(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().IntVar(&limit, "limit", 100, "stop after so many")
	cmd.Flags().BoolVar(&count, "count", false, "count by class, source and attempt instead")
	cmd.Flags().BoolVar(&keys, "customers", false, "show customer ids")
	return cmd
}

// letterList shows dead letters as they come.
type letterList interface {
	add(*deadletters.Letter) error
	flush() error
}

// letterJSON is a dead letter in a list.
type letterJSON struct {
	Place    string             `json:"place"`
	Failed   time.Time          `json:"failed"`
	Class    schemas.ErrorClass `json:"class"`
	Error    string             `json:"error"`
	Attempt  int32              `json:"attempt"`
	Source   deadletters.Source `json:"source"`
	Origin   string             `json:"origin,omitempty"`
	LeftOut  bool               `json:"left_out,omitempty"`
	Version  string             `json:"worker_version,omitempty"`
	Customer *string            `json:"customer,omitempty"`
}

func newLetterJSON(l *deadletters.Letter) letterJSON {
	return letterJSON{
		Place: l.Place(), Failed: l.Failed.UTC(), Class: l.Class, Error: l.Error, Attempt: l.Attempt, Source: l.Source,
		Origin: l.Origin, LeftOut: l.LeftOut, Version: l.Version,
	}
}

type letterRows struct {
	out          io.Writer
	table        *tabwriter.Writer
	asJSON, keys bool
	left         int
}

func (r *letterRows) add(l *deadletters.Letter) error {
	if r.left == 0 {
		return deadletters.ErrStop
	}
	r.left--
	row := newLetterJSON(l)
	if r.keys {
		key := string(l.Key)
		row.Customer = &key
	}
	if r.asJSON {
		return json.NewEncoder(r.out).Encode(row)
	}
	if r.table == nil {
		r.table = tabwriter.NewWriter(r.out, 0, 8, 2, ' ', 0)
		fmt.Fprint(r.table, "PLACE\tFAILED\tCLASS\tATTEMPT\tSOURCE\t")
		if r.keys {
			fmt.Fprint(r.table, "CUSTOMER\t")
		}
		fmt.Fprintln(r.table, "ERROR")
	}
	fmt.Fprintf(r.table, "%s\t%s\t%s\t%d\t%s\t", row.Place, row.Failed.Format(time.RFC3339), row.Class, row.Attempt, row.Source)
	if r.keys {
		fmt.Fprintf(r.table, "%s\t", printable(l.Key, 40))
	}
	fmt.Fprintln(r.table, printable([]byte(row.Error), 120))
	return nil
}

func (r *letterRows) flush() error {
	if r.table == nil {
		return nil
	}
	return r.table.Flush()
}

// letterKind is what dead letters are counted by.
type letterKind struct {
	Class     schemas.ErrorClass `json:"class"`
	Topic     string             `json:"source_topic"`
	Partition int32              `json:"source_partition"`
	Attempt   int32              `json:"attempt"`
}

type letterCounts struct {
	out    io.Writer
	asJSON bool
	counts map[letterKind]int64
}

func (c *letterCounts) add(l *deadletters.Letter) error {
	c.counts[letterKind{l.Class, l.Source.Topic, l.Source.Partition, l.Attempt}]++
	return nil
}

func (c *letterCounts) flush() error {
	kinds := slices.SortedFunc(maps.Keys(c.counts), func(a, b letterKind) int {
		return cmp.Or(strings.Compare(string(a.Class), string(b.Class)), strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Attempt, b.Attempt))
	})
	table := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	if !c.asJSON {
		fmt.Fprintln(table, "CLASS\tSOURCE\tATTEMPT\tCOUNT")
	}
	total := int64(0)
	for _, kind := range kinds {
		n := c.counts[kind]
		total += n
		if c.asJSON {
			err := json.NewEncoder(c.out).Encode(struct {
				letterKind
				Count int64 `json:"count"`
			}{kind, n})
			if err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(table, "%s\t%s/%d\t%d\t%d\n", kind.Class, kind.Topic, kind.Partition, kind.Attempt, n)
	}
	if c.asJSON {
		return nil
	}
	fmt.Fprintf(table, "all\t\t\t%d\n", total)
	return table.Flush()
}

func newDLQShow(s streams) *cobra.Command {
	var path, output string
	cmd := &cobra.Command{
		Use:     "show PARTITION@OFFSET",
		Short:   "Show one dead letter whole",
		Long:    "Shows everything about the dead letter at a place that dlq list names: what is wrong, where it came from, its\nkey, value and headers. As JSON, bytes are base64.",
		Example: "  churnstream dlq show -c churnstream.yaml 3@1812",
		Args:    oneArgument("the place of a dead letter"),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			partition, offset, err := place(args[0])
			if err := errors.Join(err, checkOutput("--output", output)); err != nil {
				return err
			}
			cfg, client, done, err := openLetters(cmd.Context(), path, s)
			if err != nil {
				return err
			}
			defer done()
			show := showLetter
			if output == "json" {
				show = showLetterJSON
			}
			return deadletters.At(cmd.Context(), client, cfg.Topics.DeadLetters, partition, offset, func(l *deadletters.Letter) error {
				return show(cmd.OutOrStdout(), l)
			})
		}),
	}
	configFlag(cmd, &path)
	outputFlag(cmd, &output)
	return cmd
}

func place(text string) (partition int32, offset int64, err error) {
	p, o, found := strings.Cut(text, "@")
	n, perr := strconv.ParseInt(p, 10, 32)
	offset, oerr := strconv.ParseInt(o, 10, 64)
	if !found || perr != nil || oerr != nil || n < 0 || offset < 0 {
		return 0, 0, usageError(fmt.Errorf("%q is not PARTITION@OFFSET, for example 3@1812", text))
	}
	return int32(n), offset, nil
}

func showLetter(out io.Writer, l *deadletters.Letter) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	line := func(name, value string) { fmt.Fprintf(table, "%s\t%s\n", name, value) }
	line("place", l.Place())
	line("failed", l.Failed.UTC().Format(time.RFC3339Nano))
	line("class", string(l.Class))
	line("error", printable([]byte(l.Error), 1<<20))
	line("source", l.Source.String())
	line("time", time.UnixMilli(l.Timestamp).UTC().Format(time.RFC3339Nano))
	line("attempt", strconv.Itoa(int(l.Attempt)))
	if l.Origin != "" {
		line("first failure", l.Origin)
	}
	line("worker", l.Version)
	line("key", bytesText(l.Key))
	for _, h := range l.Headers() {
		line("header "+printable([]byte(h.Name), 200), bytesText(h.Value))
	}
	line("value", fmt.Sprintf("%d bytes", len(l.Value)))
	if err := table.Flush(); err != nil {
		return err
	}
	if l.LeftOut {
		_, err := fmt.Fprintf(out, "key, value and headers were too large to be kept; %s may still have them\n", l.Source)
		return err
	}
	_, err := io.WriteString(out, hex.Dump(l.Value))
	return err
}

func showLetterJSON(out io.Writer, l *deadletters.Letter) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		letterJSON
		Timestamp int64                `json:"timestamp"`
		Key       []byte               `json:"key"`
		Value     []byte               `json:"value"`
		Headers   []deadletters.Header `json:"headers"`
	}{newLetterJSON(l), l.Timestamp, l.Key, l.Value, l.Headers()})
}

func bytesText(b []byte) string {
	if b == nil {
		return "null"
	}
	return printable(b, 1<<20)
}

// printable cuts text and quotes it where a terminal could take it for something else.
func printable(b []byte, most int) string {
	cut := ""
	if len(b) > most {
		b, cut = b[:most], "…"
	}
	text := string(b)
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		text = strconv.Quote(text)
	}
	return text + cut
}

func newDLQRedrive(s streams) *cobra.Command {
	var path, output, job, to string
	var filter letterFilter
	var rate float64
	var attempts int
	var dry bool
	cmd := &cobra.Command{
		Use:   "redrive",
		Short: "Send dead letters back to the topic they came from, each exactly once",
		Long: `Sends the dead letters that the filter means back to topic and partition they came from, with
their key, value, headers and time, in transactions that also move the job's position in the
topic of dead letters. When it is interrupted, in whatever way, the same command goes on where
it stopped, and nothing is sent twice or left out. A job is known by --job, or by its filter:
the same filter is the same job. Two jobs whose filters overlap know nothing of each other.

A record that has failed --max-attempts times is left where it is. The run ends at the end of
the topic as it is at its start.`,
		Example: `  churnstream dlq redrive -c churnstream.yaml --class unknown_schema --dry-run
  churnstream dlq redrive -c churnstream.yaml --since 2026-11-22T08:00:00Z --job schema-outage --rate 5000`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			wanted, err := filter.filter(time.Time{})
			if err := errors.Join(err, checkOutput("--output", output), checkRate(rate, "as fast as the brokers take them"), checkRange("--max-attempts", attempts, 1, 1000), checkJob(job)); err != nil {
				return err
			}
			cfg, client, done, err := openLetters(cmd.Context(), path, s)
			if err != nil {
				return err
			}
			defer done()
			name := cmp.Or(job, jobOf(filter, to))
			doing := deadletters.Job{
				Topic: cfg.Topics.DeadLetters, Filter: wanted, Target: to, Rate: rate, MaxAttempts: int32(attempts),
			}
			if doing.Group, doing.TransactionalID, doing.Producing, err = worker.Redrive(cfg, name); err != nil {
				return err
			}
			return connect.NameMissingRight(redrive(cmd, client, doing, name, dry, output == "json", s.err), cfg.Security)
		}),
	}
	configFlag(cmd, &path)
	filter.flags(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().StringVar(&job, "job", "", "name of the job, whose position is kept (default: made of the filter)")
	cmd.Flags().StringVar(&to, "to", "", "send to this topic instead")
	cmd.Flags().Float64Var(&rate, "rate", 0, "records a second (default: as fast as the brokers take them)")
	cmd.Flags().IntVar(&attempts, "max-attempts", 3, "leave a record that has failed so often")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be sent; send nothing, move nothing")
	return cmd
}

func checkJob(name string) error {
	ok := len(name) <= 100 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
	if ok {
		return nil
	}
	return usageError(fmt.Errorf("--job: %q is not up to 100 letters, digits, '.', '_' or '-'", name))
}

// jobOf names a job by what it means.
func jobOf(f letterFilter, to string) string {
	classes := slices.Sorted(slices.Values(f.classes))
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %q %q %q %q", classes, f.topic, f.partition, f.customer, f.since, f.until, to))
	return hex.EncodeToString(sum[:4])
}

func redrive(cmd *cobra.Command, client *kafkawire.Client, job deadletters.Job, name string, dry, asJSON bool, progress io.Writer) error {
	run := func(ctx context.Context) (deadletters.Tally, error) { return deadletters.Plan(ctx, client, job) }
	verb := "would be sent"
	if !dry {
		bar := newProgress(progress, 0, "dead letters")
		defer bar.done()
		run = func(ctx context.Context) (deadletters.Tally, error) {
			return deadletters.Redrive(ctx, client, job, func(t deadletters.Tally) { bar.set(int(t.Redriven)) })
		}
		verb = "were sent"
	}
	tally, err := run(cmd.Context())
	out := cmd.OutOrStdout()
	if asJSON {
		written := json.NewEncoder(out).Encode(struct {
			Job    string `json:"job"`
			DryRun bool   `json:"dry_run"`
			deadletters.Tally
		}{name, dry, tally})
		err = errors.Join(err, written)
	} else {
		fmt.Fprintf(out, "job %s: %d dead letters %s", name, tally.Redriven, verb)
		for _, class := range slices.Sorted(maps.Keys(tally.ByClass)) {
			fmt.Fprintf(out, ", %d %s", tally.ByClass[class], class)
		}
		if !tally.Oldest.IsZero() {
			fmt.Fprintf(out, "; the oldest event is of %s", tally.Oldest.UTC().Format(time.RFC3339))
		}
		fmt.Fprintf(out, "\nleft where they are: %d at %d attempts, %d without their bytes, %d that the filter does not mean, %d not written by a worker\n",
			tally.AtLimit, job.MaxAttempts, tally.LeftOut, tally.Others, tally.Foreign)
	}
	if err != nil && !dry {
		return fmt.Errorf("%w; what was sent stays sent: run the same command again to go on with job %s", err, name)
	}
	return err
}
