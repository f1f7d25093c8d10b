package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/admin"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/httpapi"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/worker"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// defaultHTTPListen is reached from this machine only.
const defaultHTTPListen = "127.0.0.1:8080"

func newServe(s streams) *cobra.Command {
	var path, model, listen string
	var offline bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve predictions, events and scores over HTTP",
		Long: `Answers predictions of the model over HTTP, publishes events to the activity topic and reads the
scores of customers from the score topic, with its documentation at /docs. With --offline it answers
predictions only and contacts no broker. churnstream run does the same beside the stream when
http.listen is set.

It listens on this machine only unless http.listen says otherwise, and refuses an address that other
machines reach unless somebody is asked who he is (http.auth, http.tls.client_ca_file).`,
		Example: `  churnstream serve --model models/churn --offline
  churnstream serve -c churnstream.yaml`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			for key, value := range map[string]string{"MODEL": model, "HTTP_LISTEN": listen} {
				if value != "" {
					s.environ = append(s.environ, "CHURNSTREAM_"+key+"="+value)
				}
			}
			if offline {
				s.environ = append(s.environ, "CHURNSTREAM_HTTP_KAFKA=false")
			}
			use, err := open(path, s)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), use, s.err)
		}),
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVarP(&model, "model", "m", "", "directory of a model artefact; instead of the configuration's")
	cmd.Flags().StringVar(&listen, "listen", "", "host:port; instead of the configuration's http.listen (default "+defaultHTTPListen+")")
	cmd.Flags().BoolVar(&offline, "offline", false, "predictions only: contact no broker and no registry")
	return cmd
}

func serve(ctx context.Context, use opened, logOutput io.Writer) error {
	use.cfg.HTTP.Listen = cmp.Or(use.cfg.HTTP.Listen, defaultHTTPListen)
	log := newLog(use.cfg.Log, logOutput)
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if use.cfg.HTTP.Kafka {
		if _, err := connect.Probe(ctx, use.cfg.Brokers, use.transport, use.cfg.Security.SASL, worker.HTTPTopics(use.cfg), use.cfg.CreateTopics, nil); err != nil {
			return err
		}
	}
	var counted *drift.Metrics
	if use.cfg.HTTP.Kafka && use.cfg.HTTP.PublishPredictions && use.profile != nil {
		var err error
		if counted, err = drift.NewMetrics(metrics, use.profile, worker.DriftWindow(use.cfg).Horizons); err != nil {
			return err
		}
	}
	api, err := newHTTPAPI(use, use.cfg.HTTP.Kafka, log, metrics, consumer.NewMetrics(metrics), producer.NewMetrics(metrics), counted, nil)
	if err != nil {
		return err
	}
	defer use.transport.CloseIdleConnections()
	return runHTTPAPI(ctx, api, use.cfg.Shutdown.Grace.Std())
}

// runHTTPAPI serves with one more of the runtime's processors than may compute, which the API has counted before. Where all
// compute and others wait for them, nobody asks the kernel for what came on connections but the runtime's monitor, every
// 10 ms and for 128 connections (runtime.sysmon, netpoll): no more than 12,800 requests a second could even be refused.
func runHTTPAPI(ctx context.Context, api *httpapi.Server, grace time.Duration) error {
	processors := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(processors + 1)
	defer runtime.GOMAXPROCS(processors)
	return api.Run(ctx, grace)
}

// newHTTPAPI puts the API together, without a broker unless kafka.
func newHTTPAPI(use opened, kafka bool, log zerolog.Logger, metrics *prometheus.Registry, fetching *consumer.Metrics, producing *producer.Metrics, counted *drift.Metrics, ready func() admin.Status) (*httpapi.Server, error) {
	cfg := use.cfg
	deps := httpapi.Dependencies{
		Model: use.model, ModelDir: cfg.Model, Reasons: cfg.Reasons.Top, Metrics: metrics, Log: log, Version: buildVersion(), Ready: ready,
	}
	if kafka {
		var err error
		if deps.Kafka, err = kafkaOf(use, log, fetching, producing, counted); err != nil {
			return nil, err
		}
	}
	api, err := httpapi.New(cfg.HTTP, deps)
	if err != nil {
		return nil, err
	}
	log.Info().Str("url", api.URL()).Str("model", use.model.Name()+"@"+use.model.Version()).Msg("HTTP API: /docs /v1/predict /readyz")
	if cfg.HTTP.Auth.Anonymous == config.AnyoneMayCall {
		log.Warn().Msg("http.auth.anonymous: anyone who reaches the address may ask, and may erase customers")
	}
	return api, nil
}

func kafkaOf(use opened, log zerolog.Logger, fetching *consumer.Metrics, producing *producer.Metrics, counted *drift.Metrics) (*httpapi.Kafka, error) {
	cfg := use.cfg
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: cfg.Brokers, ClientID: cfg.ClientID + "-http", Transport: use.transport})
	if err != nil {
		return nil, err
	}
	k := &httpapi.Kafka{Client: client, Registry: use.registry, Fetching: consumer.DefaultFetchConfig()}
	k.Fetching.Metrics = fetching
	if k.TransactionalPrefix, k.Producing, err = worker.Predictions(cfg, producing); err != nil {
		return nil, err
	}
	list, err := worker.Publications(cfg, use.model, "")
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		contract := httpapi.Contract(p)
		switch p.Topic {
		case "":
		case cfg.Topics.Events:
			k.Events = contract
		case cfg.Topics.Scores:
			k.Scores = contract
		case cfg.Topics.Audit:
			k.Audit = contract
		case cfg.Topics.DriftState:
			if cfg.HTTP.PublishPredictions && use.profile != nil {
				k.Counting = &httpapi.Counting{Profile: use.profile, Window: worker.DriftWindow(cfg), States: contract, Metrics: counted}
			}
		}
	}
	if use.reading.Framing != schemas.Confluent {
		k.Events = httpapi.Contract{}
		log.Warn().Str("events.framing", cfg.Events.Framing).Msg("POST /v1/events is off: it writes events in the confluent framing only")
	}
	return k, nil
}

func newAPIKey() *cobra.Command {
	var scopes []string
	var expires string
	cmd := &cobra.Command{
		Use:   "apikey NAME",
		Short: "Make an API key for the HTTP API",
		Long: `Prints a new key on standard output, for its holder alone, and on standard error the line for the
file of http.auth.keys_file, which holds a hash of the key only. Two lines of one name are two keys of
one client: add the new one, change the client, take the old one away.`,
		Example: "  churnstream apikey crm --scopes predict,read >crm.key 2>>keys",
		Args:    oneArgument("the name of the client"),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			key, line, err := httpapi.NewAPIKey(args[0], scopes, expires)
			if err != nil {
				return usageError(err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), key)
			fmt.Fprintln(cmd.ErrOrStderr(), line)
			return nil
		}),
	}
	cmd.Flags().StringSliceVar(&scopes, "scopes", []string{"predict"}, "what the key allows: "+strings.Join(config.Scopes(), ", "))
	cmd.Flags().StringVar(&expires, "expires", "", "first day on which the key is refused, such as 2027-01-31 (default never)")
	return cmd
}
