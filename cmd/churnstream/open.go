package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/artefact"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/worker"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// opened is a configuration and what it names, loaded and verified; nothing has been contacted.
type opened struct {
	cfg       config.Config
	model     *scoring.Model
	profile   *drift.Profile // nil: no drift is watched
	transport *kafka.Transport
	registry  *schemas.HTTPRegistry
	reading   schemas.DecoderConfig // of the events
}

// open reads the configuration and everything that it names. All that is wrong with them is one usage error.
func open(path string, s streams) (o opened, err error) {
	o.cfg, err = readConfig(path, s)
	faults := []error{err}
	if o.cfg.Model != "" {
		o.model, o.profile, err = loadModel(o.cfg)
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return o, unusable(err)
	}
	if o.transport, err = connect.Transport(o.cfg.ClientID, o.cfg.Security); err != nil {
		return o, unusable(err)
	}
	if o.registry, err = newRegistry(o.cfg.Registry); err != nil {
		return o, unusable(err)
	}
	if o.reading, err = readingOf(o.cfg); err != nil {
		return o, unusable(err)
	}
	if o.model != nil {
		reading, err := worker.Reading(o.cfg, o.model, o.registry, o.reading)
		if err == nil {
			_, err = schemas.NewDecoder(reading)
		}
		if err != nil {
			return o, unusable(fmt.Errorf("events: %w", err))
		}
	}
	return o, nil
}

// checkFiles names every file of credentials that cannot be used. What the configuration's own validation refuses is
// left to it.
func checkFiles(cfg config.Config) error {
	var faults []error
	check := func(security config.Security) {
		_, err := connect.Transport(cfg.ClientID, security)
		faults = append(faults, err)
	}
	if t := cfg.Security.TLS; t.Enabled {
		check(config.Security{TLS: config.TLS{Enabled: true, CAFile: t.CAFile}})
		if t.CertFile != "" && t.KeyFile != "" {
			check(config.Security{TLS: config.TLS{Enabled: true, CertFile: t.CertFile, KeyFile: t.KeyFile}})
		}
	}
	if login := cfg.Security.SASL; slices.Contains(config.Mechanisms(), login.Mechanism) && (login.PasswordFile != "" || login.OAuth.TokenFile != "" || login.OAuth.ClientSecretFile != "") {
		check(config.Security{SASL: login})
	}
	if cfg.Registry.PasswordFile != "" {
		_, err := registryPassword(cfg.Registry)
		faults = append(faults, err)
	}
	if cfg.Registry.TokenFile != "" {
		_, err := registryToken(cfg.Registry)
		faults = append(faults, err)
	}
	_, err := connect.RegistryTLS(cfg.Registry.TLS)
	faults = append(faults, err)
	_, err = readingOf(cfg)
	return errors.Join(append(faults, err)...)
}

func registryToken(cfg config.Registry) (string, error) {
	token, err := config.Secret(nil, cfg.TokenFile)
	if err != nil {
		return "", fmt.Errorf("registry.token_file: %w", err)
	}
	return token, nil
}

// readingOf reads the schema files of the events. What the configuration's own validation refuses is left to it.
func readingOf(cfg config.Config) (reading schemas.DecoderConfig, err error) {
	var faults []error
	read := func(key, path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", key, err))
		}
		return string(text)
	}
	if err := reading.Framing.UnmarshalText([]byte(cfg.Events.Framing)); err != nil {
		return reading, nil //nolint:nilerr // named by the validation
	}
	if cfg.Events.ReaderSchema != "" {
		reading.Reader = read("events.reader_schema", cfg.Events.ReaderSchema)
	}
	for i, path := range cfg.Events.Schemas {
		reading.Schemas = append(reading.Schemas, read(fmt.Sprintf("events.schemas[%d]", i), path))
	}
	return reading, errors.Join(faults...)
}

func registryPassword(cfg config.Registry) (string, error) {
	password, err := config.Secret(cfg.Password, cfg.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("registry.password_file: %w", err)
	}
	return password, nil
}

// loadModel verifies the artefact and reads its drift reference.
func loadModel(cfg config.Config) (*scoring.Model, *drift.Profile, error) {
	model, profile, err := artefact.Load(cfg.Model)
	if err != nil {
		return nil, nil, fmt.Errorf("model: %w", err)
	}
	if !cfg.Drift.Enabled {
		profile = nil
	}
	return model, profile, nil
}

// registryPatience is how long one look-up of a schema keeps trying before its partition says that it waits.
const registryPatience = time.Second

func newRegistry(cfg config.Registry) (*schemas.HTTPRegistry, error) {
	c := schemas.DefaultRegistryConfig()
	c.URLs, c.Username, c.CacheDir, c.RetryFor = cfg.URLs, cfg.Username, cfg.CacheDir, registryPatience
	var err error
	if cfg.Username != "" {
		c.Password = func() (string, error) { return registryPassword(cfg) }
		if _, err := c.Password(); err != nil {
			return nil, err
		}
	}
	if cfg.TokenFile != "" {
		c.Token = func() (string, error) { return registryToken(cfg) }
	}
	if c.TLS, err = connect.RegistryTLS(cfg.TLS); err != nil {
		return nil, err
	}
	return schemas.NewRegistry(c)
}

// openRows opens the file of --input, - for standard input, and gives its format, one of those known: that of --format or
// by the file's name.
func openRows(s streams, path, format string, known ...string) (rows io.ReadCloser, is string, err error) {
	rows = io.NopCloser(s.in)
	if path != "-" {
		if rows, err = openFile(path); err != nil {
			return nil, "", usageError(fmt.Errorf("--input: %w", err))
		}
	}
	is = cmp.Or(format, strings.TrimPrefix(filepath.Ext(path), "."))
	switch {
	case slices.Contains(known, is):
		return rows, is, nil
	case format != "":
		err = fmt.Errorf("--format: %q is none of %s", format, strings.Join(known, ", "))
	case path == "-":
		err = fmt.Errorf("--format: say what standard input holds, %s; or name a file by --input", strings.Join(known, " or "))
	default:
		err = fmt.Errorf("--format: the name of %s does not end with .%s; say which of them it is", path, strings.Join(known, " or ."))
	}
	return nil, "", usageError(errors.Join(err, rows.Close()))
}

// openFile refuses a directory, which can be opened but not read.
func openFile(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory; name a file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
