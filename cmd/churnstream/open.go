package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// opened is what a configuration names, loaded and verified; nothing has been contacted.
type opened struct {
	model     *scoring.Model
	profile   *drift.Profile // nil: no drift is watched
	transport *kafka.Transport
	registry  *schemas.HTTPRegistry
}

func open(cfg config.Config) (o opened, err error) {
	if o.model, o.profile, err = loadModel(cfg); err != nil {
		return o, err
	}
	if o.transport, err = connect.Transport(cfg.ClientID, cfg.Security); err != nil {
		return o, usageError(err)
	}
	if o.registry, err = newRegistry(cfg.Registry); err != nil {
		return o, usageError(err)
	}
	return o, nil
}

// loadModel verifies the artefact and reads its drift reference.
func loadModel(cfg config.Config) (*scoring.Model, *drift.Profile, error) {
	model, err := scoring.Load(cfg.Model)
	if err != nil {
		return nil, nil, err
	}
	if !cfg.Drift.Enabled {
		return model, nil, nil
	}
	profile, err := drift.ReadProfile(bytes.NewReader(model.Profile()))
	if err != nil {
		return nil, nil, err
	}
	return model, profile, nil
}

func newRegistry(cfg config.Registry) (*schemas.HTTPRegistry, error) {
	c := schemas.DefaultRegistryConfig()
	c.URLs, c.Username = cfg.URLs, cfg.Username
	if cfg.PasswordFile != "" {
		password, err := config.Secret(cfg.PasswordFile)
		if err != nil {
			return nil, err
		}
		c.Password = password
	}
	return schemas.NewRegistry(c)
}

// openRows opens the file of --input, - for standard input, and gives its format: that of --format or by the file's name.
func openRows(s streams, path, format string) (rows io.ReadCloser, is string, err error) {
	if format == "" {
		format = strings.TrimPrefix(filepath.Ext(path), ".")
	}
	if format != "csv" && format != "jsonl" {
		return nil, "", usageError(fmt.Errorf("--format: %q is neither csv nor jsonl", format))
	}
	if path == "-" {
		return io.NopCloser(s.in), format, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", usageError(fmt.Errorf("--input: %w", err))
	}
	return f, format, nil
}
