package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/churnstream/churnstream/internal/artefact"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/worker"
	"github.com/churnstream/churnstream/schemas"
)

// maxClockJump bounds how far a worker's clock is set forward or back.
const maxClockJump = 10 * time.Minute

// work is the life of a worker process: the product's worker with a network that can be torn and a clock that can be
// set. It reads commands from standard input ("clock 5m": from now on five minutes ahead) and tells there how large it
// is: goroutines and bytes of the heap.
func work(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	path := flags.String("config", "", "configuration file")
	detours := flags.String("detours", "", "broker=proxy,…: where to dial instead")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg, err := config.Load(*path, nil)
	if err != nil {
		return err
	}
	model, profile, err := artefact.Load(cfg.Model)
	if err != nil {
		return err
	}
	transport, err := connect.Transport(cfg.ClientID, cfg.Security)
	if err != nil {
		return err
	}
	transport.Dial = detour(transport.Dial, *detours)
	c := schemas.DefaultRegistryConfig()
	c.URLs, c.RetryFor = cfg.Registry.URLs, time.Second
	registry, err := schemas.NewRegistry(c)
	if err != nil {
		return err
	}
	var ahead atomic.Int64
	level, err := zerolog.ParseLevel(cfg.Log.Level)
	if err != nil {
		return err
	}
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	w, err := worker.New(cfg, worker.Dependencies{
		Transport: transport, Model: model, Profile: profile, Registry: registry, Metrics: prometheus.NewRegistry(),
		Log: zerolog.New(os.Stderr).Level(level).With().Timestamp().Logger(), Version: "chaos",
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		return err
	}
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			if by, ok := strings.CutPrefix(lines.Text(), "clock "); ok {
				if d, err := time.ParseDuration(by); err == nil { // else the driver is wrong
					ahead.Store(int64(d))
				}
			}
		}
	}()
	go tellSize(ctx)
	return w.Run(ctx)
}

// sizeEvery is how often a worker says how large it is.
const sizeEvery = 5 * time.Second

func tellSize(ctx context.Context) {
	for ctx.Err() == nil {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Printf("%d %d\n", runtime.NumGoroutine(), m.HeapAlloc)
		pause(ctx, sizeEvery)
	}
}
