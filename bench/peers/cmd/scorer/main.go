// Command scorer runs a churnstream worker on the job of the comparison: activity in, churn scores out. It is told what
// to do by the environment, as every contender is:
//
//	BROKER IN_TOPIC OUT_TOPIC GROUP MODEL_DIR   the job; MODEL_DIR may be left out
//	DELIVERY      exactly-once (default) or at-least-once
//	BOOSTER       a model file of a boosting library on the job's 31 columns, in the place of the logistic regression
//	TRANSACTIONS  worker or partition: who shares one; the product's default else
//	CPU_PROFILE   a file for a CPU profile
//	METRICS       a file for the metrics as they are at the end
//
// The settings are the product's defaults, with drift watched and reasons off. It ends on SIGTERM.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/churnstream/churnstream/bench/peers/job"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/worker"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scorer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if path := os.Getenv("CPU_PROFILE"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	model, profile, err := load(os.Getenv("MODEL_DIR"))
	if err != nil {
		return err
	}
	cfg := settings()
	transport, err := connect.Transport(cfg.ClientID, cfg.Security)
	if err != nil {
		return err
	}
	metrics := prometheus.NewRegistry()
	w, err := worker.New(cfg, worker.Dependencies{
		Transport: transport, Model: model, Profile: profile, Registry: newRegistry(),
		Metrics:     metrics,
		Log:         zerolog.New(os.Stderr).Level(zerolog.WarnLevel).With().Timestamp().Logger(),
		Version:     "peers",
		AppendScore: appendScore,
	})
	if err != nil {
		return err
	}
	err = w.Run(ctx)
	if path := os.Getenv("METRICS"); path != "" {
		err = errors.Join(err, prometheus.WriteToTextfile(path, metrics))
	}
	return err
}

// load makes an artefact of the job's weights and loads it as any other.
func load(dir string) (*scoring.Model, *drift.Profile, error) {
	weights, err := job.ReadModel(dir)
	if err != nil {
		return nil, nil, err
	}
	temporary, err := os.MkdirTemp("", "scorer-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(temporary)
	var booster []byte
	if path := os.Getenv("BOOSTER"); path != "" {
		if booster, err = os.ReadFile(path); err != nil {
			return nil, nil, err
		}
	}
	artefact := filepath.Join(temporary, "model")
	if err := writeArtefact(artefact, weights, booster); err != nil {
		return nil, nil, err
	}
	model, err := scoring.Load(artefact)
	if err != nil {
		return nil, nil, err
	}
	profile, err := drift.ReadProfile(bytes.NewReader(model.Profile()))
	return model, profile, err
}

func settings() config.Config {
	cfg := config.Default()
	out := os.Getenv("OUT_TOPIC")
	cfg.Brokers, cfg.Group.ID = []string{os.Getenv("BROKER")}, os.Getenv("GROUP")
	cfg.Topics = config.Topics{
		Events: os.Getenv("IN_TOPIC"), Scores: out, DeadLetters: out + "-dead-letters",
		DriftState: out + "-drift-state", DriftAlerts: out + "-drift-alerts",
	}
	cfg.CreateTopics.Enabled = true
	cfg.Reasons.Top = 0
	if delivery := os.Getenv("DELIVERY"); delivery != "" {
		cfg.Delivery = config.Delivery(delivery)
	}
	if transactions := os.Getenv("TRANSACTIONS"); transactions != "" {
		cfg.Produce.Transactions = transactions
	}
	return cfg
}

// appendScore writes job.Score.
func appendScore(dst []byte, numbers []float64, s *schemas.Score) []byte {
	dst = schemas.AppendFrame(dst, job.ScoreID)
	dst = binary.AppendVarint(dst, int64(len(s.CustomerID)))
	dst = append(dst, s.CustomerID...)
	dst = binary.AppendVarint(dst, int64(numbers[inputEventID]))
	dst = binary.AppendVarint(dst, int64(numbers[inputEventTS]))
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(s.Probability))
	dst = binary.AppendVarint(dst, int64(len(s.ModelVersion)))
	return append(dst, s.ModelVersion...)
}
