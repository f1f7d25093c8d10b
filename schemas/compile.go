package schemas

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/linkedin/goavro/v2"

	"github.com/churnstream/churnstream/internal/avroschema"
)

// maxVisits bounds the work and the size of a program: named types are written out at every use, which grows
// exponentially where they use each other several times.
const maxVisits = 1 << 15

// compile makes the program that reads the contract's inputs from records written with schema. A schema that cannot
// feed the contract gives a program that refuses every record with one error that names all reasons.
func compile(schema string, id int32, contract Contract) *program {
	refuse := func(class ErrorClass, path string, err error) *program {
		return &program{refused: &RecordError{Class: class, Path: path, Err: fmt.Errorf("schema id %d: %w", id, err)}}
	}
	writer, err := avroschema.Parse(schema)
	if err != nil {
		return refuse(SchemaMismatch, "", err)
	}
	if err := secondOpinion(writer); err != nil {
		return refuse(SchemaMismatch, "", err)
	}
	c := compiler{id: id, sizes: make(map[*avroschema.Type]int64), open: make(map[*avroschema.Type]bool)}
	if err := c.refuseRecursion(writer); err != nil {
		return refuse(SchemaMismatch, "", err)
	}
	faults := c.project(writer, contractTree(contract), "")
	if c.visits > maxVisits {
		return refuse(SchemaMismatch, "", fmt.Errorf("the schema has more than %d types when its named types are written out", maxVisits))
	}
	if len(faults) > 0 {
		reasons := faults[0].text // the error itself names the first path
		for _, f := range faults[1:] {
			reasons += fmt.Sprintf("; field %q: %s", f.path, f.text)
		}
		return refuse(faults[0].class, faults[0].path, errors.New(reasons))
	}
	return &c.program
}

// secondOpinion has goavro check the schema. It gets the canonical form: its own check of defaults and decimals refuses
// schemas that the specification allows, and neither changes a byte on the wire. Nor does it take a fixed of size 0.
func secondOpinion(writer *avroschema.Type) error {
	_, err := goavro.NewCodec(strings.ReplaceAll(writer.Canonical(), `"size":0}`, `"size":1}`))
	return err
}

// schemaFault says why an input cannot be fed from the writer's schema.
type schemaFault struct {
	class ErrorClass
	path  string
	text  string
}

type compiler struct {
	program program
	id      int32
	visits  int
	depth   int // of the blocks around the code being emitted
	sizes   map[*avroschema.Type]int64
	open    map[*avroschema.Type]bool // records on the way down, then false
}

func (c *compiler) refuseRecursion(t *avroschema.Type) error {
	if inside, visited := c.open[t]; inside {
		return fmt.Errorf("%s contains itself; such events cannot be read, publish a flat one", t)
	} else if visited {
		return nil
	}
	c.open[t] = true
	defer func() { c.open[t] = false }()
	for i := range t.Fields {
		if err := c.refuseRecursion(t.Fields[i].Type); err != nil {
			return err
		}
	}
	for _, branch := range t.Branches {
		if err := c.refuseRecursion(branch); err != nil {
			return err
		}
	}
	if t.Items != nil {
		return c.refuseRecursion(t.Items)
	}
	return nil
}

// emit appends an instruction and returns its place.
func (c *compiler) emit(path string, in instruction) int {
	c.program.code = append(c.program.code, in)
	c.program.paths = append(c.program.paths, path)
	return len(c.program.code) - 1
}

func (c *compiler) here() int32 { return int32(len(c.program.code)) }

// cut takes back everything emitted from place on.
func (c *compiler) cut(place int32) {
	c.program.code, c.program.paths = c.program.code[:place], c.program.paths[:place]
}

// fail emits the refusal of a record for one reason.
func (c *compiler) fail(f schemaFault) {
	c.program.fails = append(c.program.fails, &RecordError{Class: f.class, Path: f.path, Err: fmt.Errorf("schema id %d: %s", c.id, f.text)})
	c.emit(f.path, instruction{op: opFail, n: int32(len(c.program.fails) - 1)})
}

// project emits code that reads what node wants from a value of type t. The faults make the whole schema unfit.
func (c *compiler) project(t *avroschema.Type, node *pathNode, path string) []schemaFault {
	switch {
	case node == nil:
		c.skip(t, path)
		return nil
	case t.Kind == avroschema.Union:
		return c.projectUnion(t, node, path)
	case t.Kind == avroschema.Null:
		return nullFaults(node, path, "the writer's type is null")
	case node.input != nil:
		return c.store(t, node, path)
	case t.Kind != avroschema.Record:
		return []schemaFault{{SchemaMismatch, path, fmt.Sprintf("the writer's type is %s, the contract needs a record with %q", t, node.children[0].name)}}
	}
	var faults []schemaFault
	for i := range t.Fields {
		field := &t.Fields[i]
		faults = append(faults, c.project(field.Type, node.child(field.Name), join(path, field.Name))...)
	}
	for _, child := range node.children {
		present := false
		for i := range t.Fields {
			present = present || t.Fields[i].Name == child.name
		}
		if !present {
			faults = append(faults, nullFaults(child, join(path, child.name), "the writer's "+t.String()+" has no such field")...)
		}
	}
	return faults
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// nullFaults is what it means that nothing is at node: nothing for nullable inputs, a missing field for the others.
func nullFaults(node *pathNode, path, why string) []schemaFault {
	if node.input != nil {
		if node.input.Nullable {
			return nil
		}
		return []schemaFault{{MissingField, path, fmt.Sprintf("%s, the contract needs a %s", why, node.input.Kind)}}
	}
	var faults []schemaFault
	for _, child := range node.children {
		faults = append(faults, nullFaults(child, join(path, child.name), why)...)
	}
	return faults
}

// projectUnion emits one piece of code a branch. A branch that cannot feed the contract refuses the records that take
// it; the schema is unfit when no branch but null is of use.
func (c *compiler) projectUnion(t *avroschema.Type, node *pathNode, path string) []schemaFault {
	start := c.here()
	var first []schemaFault
	usable, values := false, false
	c.branches(t, path, func(branch *avroschema.Type) {
		place := c.here()
		faults := c.project(branch, node, path)
		if branch.Kind == avroschema.Null {
			if len(faults) > 0 {
				what := "value is"
				if node.input == nil {
					what = "record is"
				}
				fault := faults[0]
				fault.text = "the " + what + " null, the contract needs one"
				c.fail(fault)
			}
			usable = usable || len(faults) == 0 && len(t.Branches) == 1
			return
		}
		values = true
		if len(faults) == 0 {
			usable = true
			return
		}
		if first == nil {
			first = faults
		}
		c.cut(place)
		c.fail(faults[0])
	})
	if usable {
		return nil
	}
	c.cut(start)
	if !values {
		return nullFaults(node, path, "the writer's type is "+t.String())
	}
	return first
}

// branches emits the choice between a union's branches and body for each of them.
func (c *compiler) branches(t *avroschema.Type, path string, body func(*avroschema.Type)) {
	if len(t.Branches) == 2 && (t.Branches[0].Kind == avroschema.Null) != (t.Branches[1].Kind == avroschema.Null) {
		null := 0
		if t.Branches[1].Kind == avroschema.Null {
			null = 1
		}
		choice := c.emit(path, instruction{op: opNullable, n: int32(2 * null)}) // the index as it is on the wire
		body(t.Branches[1-null])
		over := c.emit(path, instruction{op: opJump})
		c.program.code[choice].to = c.here()
		body(t.Branches[null])
		if c.here() == int32(over)+1 { // null needs no code, so nothing has to be jumped over
			c.cut(int32(over))
			c.program.code[choice].to = c.here()
			return
		}
		c.program.code[over].to = c.here()
		return
	}
	targets := len(c.program.targets)
	c.emit(path, instruction{op: opUnion, n: int32(len(t.Branches)), to: int32(targets)})
	c.program.targets = append(c.program.targets, make([]int32, len(t.Branches))...)
	overs := make([]int, 0, len(t.Branches))
	for i, branch := range t.Branches {
		c.program.targets[targets+i] = c.here()
		body(branch)
		overs = append(overs, c.emit(path, instruction{op: opJump}))
	}
	for _, over := range overs {
		c.program.code[over].to = c.here()
	}
}

// store emits the code that reads an input from a value of type t.
func (c *compiler) store(t *avroschema.Type, node *pathNode, path string) []schemaFault {
	input := node.input
	in := instruction{input: int32(node.column), nullable: input.Nullable, lo: -math.MaxFloat64, hi: math.MaxFloat64}
	if input.Min != nil {
		in.lo = *input.Min
	}
	if input.Max != nil {
		in.hi = *input.Max
	}
	op, n, ok := reading(t, input.Kind)
	if !ok {
		return []schemaFault{{SchemaMismatch, path, fmt.Sprintf("the writer's type is %s, the contract needs a %s", t, input.Kind)}}
	}
	in.op, in.n = op, n
	if op == opSymbol {
		in.to = int32(len(c.program.symbols))
		in.n = int32(len(t.Symbols))
		for _, s := range t.Symbols {
			c.program.symbols = append(c.program.symbols, []byte(s))
		}
	}
	c.emit(path, in)
	return nil
}

// reading gives the operation that reads a kind from a writer's type, and its operand; see [Decoder] for the rules.
func reading(t *avroschema.Type, kind Kind) (op opcode, n int32, ok bool) {
	// An unknown logical type is ignored, as the specification asks.
	meaning := t.Logical
	switch meaning {
	case "date", "time-millis", "time-micros", "timestamp-millis", "timestamp-micros", "timestamp-nanos",
		"local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos", "decimal", "duration":
	default:
		meaning = ""
	}
	switch kind {
	case Number:
		if meaning != "" {
			return 0, 0, false
		}
		switch t.Kind {
		case avroschema.Int:
			return opInt, 0, true
		case avroschema.Long:
			return opLong, 0, true
		case avroschema.Float:
			return opFloat, 0, true
		case avroschema.Double:
			return opDouble, 0, true
		default:
		}
	case Category:
		switch t.Kind {
		case avroschema.String:
			return opText, 0, true
		case avroschema.Bytes:
			return opText, 0, meaning == ""
		case avroschema.Enum:
			return opSymbol, 0, true
		default:
		}
	case Boolean:
		return opBoolean, 0, t.Kind == avroschema.Boolean
	case Date:
		return opInt, 0, t.Kind == avroschema.Int && (meaning == "date" || meaning == "")
	case Timestamp:
		switch {
		case t.Kind == avroschema.Int && meaning == "":
			return opInt, 0, true
		case t.Kind != avroschema.Long:
		case meaning == "timestamp-millis", meaning == "":
			return opLong, 0, true
		case meaning == "timestamp-micros":
			return opFraction, 1e3, true
		case meaning == "timestamp-nanos":
			return opFraction, 1e6, true
		}
	}
	return 0, 0, false
}

// skip emits the code that steps over a value of type t.
func (c *compiler) skip(t *avroschema.Type, path string) {
	c.visits += 1 + len(path)/256 // long names cost memory at every use
	if c.visits > maxVisits {
		return
	}
	if size, fixed := c.fixedSize(t); fixed {
		if size > 0 {
			c.emit(path, instruction{op: opSkipFixed, size: size})
		}
		return
	}
	switch t.Kind {
	case avroschema.Boolean:
		c.emit(path, instruction{op: opSkipBoolean})
	case avroschema.Int:
		c.emit(path, instruction{op: opSkipInt})
	case avroschema.Long:
		c.emit(path, instruction{op: opSkipLong})
	case avroschema.Bytes, avroschema.String:
		c.emit(path, instruction{op: opSkipBytes})
	case avroschema.Enum:
		c.emit(path, instruction{op: opSkipEnum, n: int32(len(t.Symbols))})
	case avroschema.Record:
		for i := range t.Fields {
			c.skip(t.Fields[i].Type, join(path, t.Fields[i].Name))
		}
	case avroschema.Union:
		c.branches(t, path, func(branch *avroschema.Type) { c.skip(branch, path) })
	case avroschema.Array, avroschema.Map:
		c.skipBlocks(t, path)
	default:
		panic("BUG: skip of " + t.String())
	}
}

// skipBlocks steps over an array or map: blocks that give their size at once, fixed-size elements by multiplication,
// others one by one. An element takes at least one byte or is always empty, so the record's size bounds the work.
func (c *compiler) skipBlocks(t *avroschema.Type, path string) {
	if t.Kind == avroschema.Array {
		if size, fixed := c.fixedSize(t.Items); fixed {
			c.emit(path, instruction{op: opSkipBlocks, size: size})
			return
		}
	}
	minimum := c.minimumSize(t.Items)
	if t.Kind == avroschema.Map {
		minimum++
	}
	slot := int32(c.depth)
	c.depth++
	c.program.loops = max(c.program.loops, c.depth)
	header := c.emit(path, instruction{op: opBlock, n: slot, size: minimum})
	if t.Kind == avroschema.Map {
		c.emit(path, instruction{op: opSkipBytes})
	}
	c.skip(t.Items, path)
	c.emit(path, instruction{op: opNext, n: slot, to: int32(header)})
	c.program.code[header].to = c.here()
	c.depth--
}

// fixedSize returns the encoded size of a type whose values all have the same and need no checking.
func (c *compiler) fixedSize(t *avroschema.Type) (int64, bool) {
	switch t.Kind {
	case avroschema.Null:
		return 0, true
	case avroschema.Float:
		return 4, true
	case avroschema.Double:
		return 8, true
	case avroschema.Fixed:
		return int64(t.Size), true
	case avroschema.Record:
		if size, known := c.sizes[t]; known {
			return size, size >= 0
		}
		var sum int64
		for i := range t.Fields {
			size, fixed := c.fixedSize(t.Fields[i].Type)
			if !fixed || size > maxRecordSize-sum {
				c.sizes[t] = -1
				return 0, false
			}
			sum += size
		}
		c.sizes[t] = sum
		return sum, true
	default:
		return 0, false
	}
}

// maxRecordSize keeps sums of sizes far from overflow; no record is that large.
const maxRecordSize = 1 << 40

// minimumSize returns the least number of bytes that a value of t takes, or 1 where it is not worth counting.
func (c *compiler) minimumSize(t *avroschema.Type) int64 {
	if size, fixed := c.fixedSize(t); fixed {
		return size
	}
	return 1
}
