package main

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/mattn/go-isatty"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/internal/admin"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/worker"
)

func newRun(s streams) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a worker: events in, scores out, drift watched",
		Long: `Joins the consumer group, scores the events of its partitions and publishes scores, dead
letters, drift statistics and offsets in one transaction a batch. SIGTERM or Ctrl-C drains:
the batches in hand are committed and the group is left before the process ends.

Start as many as there are partitions at most; they share them out among themselves.`,
		Example: `  churnstream run -c churnstream.yaml
  CHURNSTREAM_BROKERS=kafka-1:9092,kafka-2:9092 churnstream run -c churnstream.yaml`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			use, err := open(path, s)
			if err != nil {
				return err
			}
			return runWorker(cmd.Context(), use, s.err)
		}),
	}
	configFlag(cmd, &path)
	return cmd
}

// runWorker wires a worker with its admin listener; the first that ends ends the other.
func runWorker(ctx context.Context, use opened, logOutput io.Writer) error {
	cfg := use.cfg
	boundHeap(cfg)
	log := newLog(cfg.Log, logOutput)
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	w, err := worker.New(cfg, worker.Dependencies{
		Transport: use.transport, Model: use.model, Profile: use.profile, Registry: use.registry, Reading: use.reading,
		Metrics: metrics, Log: log, Version: buildVersion(),
	})
	if err != nil {
		return err
	}
	// The listeners answer until the drain is over: the worker's end stops them, not the signal.
	serve, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, group := errgroup.WithContext(ctx)
	if cfg.HTTP.Listen != "" {
		api, err := newHTTPAPI(use, true, log, metrics, nil, nil, w.DriftMetrics(), w.Ready)
		if err != nil {
			return err
		}
		g.Go(func() error { return runHTTPAPI(serve, api, cfg.Shutdown.Grace.Std()) })
	}
	if cfg.Admin.Listen != "" {
		server, err := admin.New(
			admin.Config{Listen: cfg.Admin.Listen, Pprof: cfg.Admin.Pprof},
			admin.Version{Version: buildVersion(), Go: runtime.Version(), Model: use.model.Name() + "@" + use.model.Version()},
			w, metrics,
		)
		if err != nil {
			stop()
			return errors.Join(err, g.Wait())
		}
		log.Info().Str("address", server.Addr()).Msg("admin HTTP: /metrics /livez /readyz /version")
		g.Go(func() error { return server.Run(serve) })
	}
	g.Go(func() error {
		defer stop()
		return w.Run(group)
	})
	return g.Wait()
}

// spareHeap is how much garbage may stand beside what is in use, in per cent of it. A worker allocates nothing for an event, so that it
// collects a few times a minute at most; Go's 100 would keep some 15 MB for that.
const spareHeap = 40

// boundHeap keeps a worker small, unless GOGC says otherwise or it serves requests, which do allocate. What loading the model
// left behind goes back at once.
func boundHeap(cfg config.Config) {
	if _, set := os.LookupEnv("GOGC"); !set && cfg.HTTP.Listen == "" {
		debug.SetGCPercent(spareHeap)
		debug.FreeOSMemory()
	}
}

// newLog writes JSON, or a console form where a person reads it.
func newLog(cfg config.Log, out io.Writer) zerolog.Logger {
	level, err := zerolog.ParseLevel(cfg.Level)
	if err != nil {
		level = zerolog.InfoLevel
	}
	f, ok := out.(*os.File)
	terminal := ok && isatty.IsTerminal(f.Fd())
	if cfg.Format == "console" || cfg.Format == "auto" && terminal {
		out = zerolog.ConsoleWriter{Out: out, TimeFormat: "15:04:05.000", NoColor: !terminal}
	}
	return timed(zerolog.New(out).Level(level))
}

// timed puts the time on every line, to a millisecond: what happens in a rebalance happens within a second.
func timed(log zerolog.Logger) zerolog.Logger {
	return log.Hook(zerolog.HookFunc(func(e *zerolog.Event, _ zerolog.Level, _ string) {
		e.Str(zerolog.TimestampFieldName, zerolog.TimestampFunc().Format("2006-01-02T15:04:05.000Z07:00"))
	}))
}
