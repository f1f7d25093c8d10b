package schemas

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Decoder turns event bytes into rows of a contract. One goroutine owns a Decoder; [Decoder.Clone] gives another
// goroutine its own, with the compiled programs shared.
//
// An event is read as it was written or, where the configuration has a reader's schema, as that schema sees it: by the
// resolution rules of the Avro specification. What then may feed an input of a kind:
//
//	number     int, long, float, double, decimal; the part of a value with a unit that the input's path names last
//	           (.days, .millis, .months); not a date, time or timestamp otherwise, whose unit would be a guess
//	category   string, bytes that are text, enum (its symbol), uuid as text
//	boolean    boolean
//	date       int with logical type date or none
//	timestamp  long with timestamp-millis, timestamp-micros, timestamp-nanos (rounded down to whole milliseconds) or
//	           none; int with none. Without a logical type the value is read as milliseconds, as Avro resolves it. A
//	           local timestamp names no instant, unless the reader's schema declares that it is one.
//
// Each of them may stand in a union, alone or with null. Where writer and reader have logical types of one sort, the
// writer's unit counts; a reader's plain type takes the value as the plain number that it is on the wire. What means
// something else is refused when the schema is first seen, and so is a schema that refers to itself. Without a reader's
// schema record names are not compared: an input is found by its path.
type Decoder struct {
	shared  *programs
	framing Framing
	width   int

	last    *program // of the record before this one
	lastKey uint64
	known   map[uint64]*program // this goroutine's view of shared
	loops   []int64             // elements left in each open block of the record being decoded
}

// DecoderConfig says what is read from events, and how they name their schema.
type DecoderConfig struct {
	Contract Contract
	// Reader is the Avro schema that events are read with; empty: the one that they were written with.
	Reader  string
	Framing Framing
	// Schemas are the writer's schemas that need no registry: the one of bare events, or any number of those of
	// single-object encoding.
	Schemas []string
	// Subject is looked through for a fingerprint that Schemas do not have. Empty: there is none.
	Subject string
	// Registry gives the schemas of the Confluent framing and, if it is a FingerprintRegistry, those of Subject.
	Registry Registry
}

// NewDecoder returns a decoder. A configured schema that cannot feed the contract is an error here.
func NewDecoder(cfg DecoderConfig) (*Decoder, error) {
	plan, err := newPlan(cfg.Contract, cfg.Reader)
	if err != nil {
		return nil, err
	}
	shared := &programs{plan: plan, cfg: cfg, byKey: make(map[uint64]*program), configured: make(map[uint64]*program)}
	switch cfg.Framing {
	case Confluent:
		if cfg.Registry == nil {
			return nil, errors.New("confluent framing needs a schema registry")
		}
	case Bare:
		if len(cfg.Schemas) != 1 {
			return nil, fmt.Errorf("bare framing needs one schema that events were written with, there are %d", len(cfg.Schemas))
		}
	case SingleObject:
	default:
		return nil, fmt.Errorf("there is no %s", cfg.Framing)
	}
	if cfg.Framing != Confluent {
		if err := shared.addConfigured(cfg.Schemas); err != nil {
			return nil, err
		}
	}
	return shared.decoder(), nil
}

// Clone returns a decoder for another goroutine. It may be called from any goroutine.
func (d *Decoder) Clone() *Decoder { return d.shared.decoder() }

// Decode reads one event and appends it to rows, whose width must be the contract's number of inputs. Categories of the
// new row alias value. A *[RecordError] means that the record is bad; any other error that the registry could not be
// asked. Without success rows is as it was.
func (d *Decoder) Decode(ctx context.Context, value []byte, rows *Rows) error {
	if rows.width != d.width {
		panic(fmt.Sprintf("BUG: rows of %d inputs for a contract of %d", rows.width, d.width))
	}
	key, body, err := d.split(value)
	if err != nil {
		return err
	}
	program := d.last
	if program == nil || key != d.lastKey {
		if program, err = d.program(ctx, key); err != nil {
			return err
		}
	}
	if program.refused != nil {
		return program.refused
	}
	numbers, categories := rows.Row(rows.Append())
	length, err := program.run(body, numbers, categories, rows, d.loops)
	if err == nil && length != len(body) {
		err = trailing(length, len(body)-length)
	}
	if err != nil {
		rows.DropLast()
	}
	return err
}

// split gives what names the schema: an id, a fingerprint, or 0 for the one that is configured.
func (d *Decoder) split(value []byte) (key uint64, body []byte, err error) {
	switch d.framing {
	case Confluent:
		id, body, err := SplitFrame(value)
		return uint64(uint32(id)), body, err
	case SingleObject:
		return SplitObjectFrame(value)
	default:
		if len(value) == 0 {
			return 0, nil, &RecordError{Class: EmptyValue, Err: errEmptyValue}
		}
		return 0, value, nil
	}
}

func (d *Decoder) program(ctx context.Context, key uint64) (*program, error) {
	program := d.known[key]
	if program == nil {
		var err error
		if program, err = d.shared.get(ctx, key); err != nil {
			return nil, err
		}
		if len(d.known) >= maxPrograms {
			clear(d.known)
		}
		d.known[key] = program
		if program.loops > len(d.loops) {
			d.loops = make([]int64, program.loops)
		}
	}
	d.last, d.lastKey = program, key
	return program, nil
}

// maxPrograms bounds the compiled schemas that are kept; a topic is written with a handful.
const maxPrograms = 1024

// programs compiles each writer schema once. It is safe for concurrent use.
type programs struct {
	plan       plan
	cfg        DecoderConfig
	configured map[uint64]*program // by fingerprint, or 0 for bare events; read-only

	mu    sync.Mutex
	byKey map[uint64]*program
}

func (p *programs) decoder() *Decoder {
	return &Decoder{shared: p, framing: p.cfg.Framing, width: len(p.plan.contract.Inputs), known: make(map[uint64]*program)}
}

func (p *programs) addConfigured(texts []string) error {
	for i, text := range texts {
		schema := Schema{Text: text}
		fingerprint, err := schema.Fingerprint()
		if err != nil {
			return fmt.Errorf("configured schema %d: %w", i, err)
		}
		label := fmt.Sprintf("the configured schema with fingerprint %016x", fingerprint)
		if p.cfg.Framing == Bare {
			fingerprint, label = 0, "the configured schema"
		}
		compiled := p.plan.compile(schema, label)
		if compiled.refused != nil && p.cfg.Framing == Bare { // others may never occur
			return compiled.refused
		}
		p.configured[fingerprint] = compiled
	}
	return nil
}

func (p *programs) get(ctx context.Context, key uint64) (*program, error) {
	if compiled := p.configured[key]; compiled != nil {
		return compiled, nil
	}
	p.mu.Lock()
	compiled := p.byKey[key]
	p.mu.Unlock()
	if compiled != nil {
		return compiled, nil
	}
	// The lock is not held while the registry is asked: it has one request in flight per id, and two goroutines that
	// compile the same schema get equal programs.
	schema, label, err := p.fetch(ctx, key)
	switch {
	case errors.Is(err, ErrSchemaNotFound):
		return nil, &RecordError{Class: UnknownSchema, Err: fmt.Errorf("%s: %w", label, err)}
	case errors.Is(err, ErrSchemaUnsupported):
		return nil, &RecordError{Class: SchemaMismatch, Err: fmt.Errorf("%s: %w", label, err)}
	case err != nil:
		return nil, fmt.Errorf("%s: %w", label, err)
	}
	compiled = p.plan.compile(schema, label)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.byKey) >= maxPrograms {
		clear(p.byKey)
	}
	p.byKey[key] = compiled
	return compiled, nil
}

func (p *programs) fetch(ctx context.Context, key uint64) (schema Schema, label string, err error) {
	if p.cfg.Framing == Confluent {
		id := int32(uint32(key))
		schema, err = p.cfg.Registry.SchemaByID(ctx, id)
		return schema, fmt.Sprintf("schema id %d", id), err
	}
	label = fmt.Sprintf("schema with fingerprint %016x", key)
	if registry, ok := p.cfg.Registry.(FingerprintRegistry); ok && p.cfg.Subject != "" {
		schema, err = registry.SchemaByFingerprint(ctx, p.cfg.Subject, key)
		return schema, label, err
	}
	return schema, label, fmt.Errorf("it is none of the configured schemas: %w", ErrSchemaNotFound)
}
