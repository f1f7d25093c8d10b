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
// What a writer may send for a kind follows Avro's promotions and the meaning that both sides declare:
//
//	number     int, long, float, double; not a date, time or timestamp, whose unit would be a guess
//	category   string, bytes, enum (its symbol); not a decimal
//	boolean    boolean
//	date       int with logical type date or none
//	timestamp  long with timestamp-millis, timestamp-micros, timestamp-nanos (rounded down to whole milliseconds) or
//	           none; int with none. Without a logical type the value is read as milliseconds, as Avro resolves it.
//
// Each of them may stand in a union, alone or with null. A writer's logical type that means something else is refused
// when its schema is first seen, and so is a schema that refers to itself. Record names are not compared: an input is
// found by its path.
type Decoder struct {
	shared *programs
	width  int

	last   *program // of the record before this one
	lastID int32
	known  map[int32]*program // this goroutine's view of shared
	loops  []int64            // elements left in each open block of the record being decoded
}

// NewDecoder returns a decoder of a contract's inputs; writer schemas come from registry.
func NewDecoder(contract Contract, registry Registry) (*Decoder, error) {
	if err := contract.Validate(); err != nil {
		return nil, fmt.Errorf("event contract: %w", err)
	}
	shared := &programs{contract: contract, registry: registry, byID: make(map[int32]*program)}
	return shared.decoder(), nil
}

// Clone returns a decoder for another goroutine. It may be called from any goroutine.
func (d *Decoder) Clone() *Decoder { return d.shared.decoder() }

// Decode reads one event in the Confluent wire format and appends it to rows, whose width must be the contract's number
// of inputs. Categories of the new row alias value. A *[RecordError] means that the record is bad; any other error that
// the registry could not be asked. Without success rows is as it was.
func (d *Decoder) Decode(ctx context.Context, value []byte, rows *Rows) error {
	if rows.width != d.width {
		panic(fmt.Sprintf("BUG: rows of %d inputs for a contract of %d", rows.width, d.width))
	}
	id, body, err := SplitFrame(value)
	if err != nil {
		return err
	}
	program := d.last
	if program == nil || id != d.lastID {
		if program, err = d.program(ctx, id); err != nil {
			return err
		}
	}
	if program.refused != nil {
		return program.refused
	}
	numbers, categories := rows.Row(rows.Append())
	if err := program.run(body, numbers, categories, d.loops); err != nil {
		rows.DropLast()
		return err
	}
	return nil
}

func (d *Decoder) program(ctx context.Context, id int32) (*program, error) {
	program := d.known[id]
	if program == nil {
		var err error
		if program, err = d.shared.get(ctx, id); err != nil {
			return nil, err
		}
		if len(d.known) >= maxPrograms {
			clear(d.known)
		}
		d.known[id] = program
		if program.loops > len(d.loops) {
			d.loops = make([]int64, program.loops)
		}
	}
	d.last, d.lastID = program, id
	return program, nil
}

// maxPrograms bounds the compiled schemas that are kept; a topic is written with a handful.
const maxPrograms = 1024

// programs compiles each writer schema once. It is safe for concurrent use.
type programs struct {
	contract Contract
	registry Registry

	mu   sync.Mutex
	byID map[int32]*program
}

func (p *programs) decoder() *Decoder {
	return &Decoder{shared: p, width: len(p.contract.Inputs), known: make(map[int32]*program)}
}

func (p *programs) get(ctx context.Context, id int32) (*program, error) {
	p.mu.Lock()
	compiled := p.byID[id]
	p.mu.Unlock()
	if compiled != nil {
		return compiled, nil
	}
	// The lock is not held while the registry is asked: it has one request in flight per id, and two goroutines that
	// compile the same schema get equal programs.
	text, err := p.registry.SchemaByID(ctx, id)
	switch {
	case errors.Is(err, ErrSchemaNotFound):
		return nil, &RecordError{Class: UnknownSchema, Err: fmt.Errorf("schema id %d: %w", id, err)}
	case errors.Is(err, ErrSchemaUnsupported):
		compiled = &program{refused: &RecordError{Class: SchemaMismatch, Err: fmt.Errorf("schema id %d: %w", id, err)}}
	case err != nil:
		return nil, fmt.Errorf("schema id %d: %w", id, err)
	default:
		compiled = compile(text, id, p.contract)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.byID) >= maxPrograms {
		clear(p.byID)
	}
	p.byID[id] = compiled
	return compiled, nil
}
