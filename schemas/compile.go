package schemas

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/linkedin/goavro/v2"

	"github.com/churnstream/churnstream/internal/avroschema"
)

// maxVisits bounds the work and the size of a program: named types are written out at every use, which grows
// exponentially where they use each other several times.
const maxVisits = 1 << 15

// plan is what a program is compiled for: the inputs that are wanted and, if one is configured, the schema that the
// events are read with. Without one they are read as they were written.
type plan struct {
	contract Contract
	reader   *avroschema.Type // nil: the writer's
}

// newPlan checks a reader's schema: its own defaults, and that the contract finds every input in it.
func newPlan(contract Contract, reader string) (plan, error) {
	p := plan{contract: contract}
	if err := contract.Validate(); err != nil {
		return p, fmt.Errorf("event contract: %w", err)
	}
	if reader == "" {
		return p, nil
	}
	t, err := avroschema.Parse(reader)
	if err == nil {
		err = t.CheckDefaults()
	}
	if err != nil {
		return p, fmt.Errorf("reader's schema: %w", err)
	}
	if own := p.compile(Schema{Text: reader}, "its own events"); own.refused != nil {
		return p, fmt.Errorf("reader's schema: the model cannot be fed from it: %w", own.refused)
	}
	p.reader = t
	return p, nil
}

// compile makes the program that reads the contract's inputs from records written with schema; label names the schema
// in messages. A schema that cannot feed the contract gives a program that refuses every record with one error that
// names all reasons.
func (p plan) compile(schema Schema, label string) *program {
	refuse := func(class ErrorClass, path string, err error) *program {
		return &program{refused: &RecordError{Class: class, Path: path, Err: fmt.Errorf("%s: %w", label, err)}}
	}
	writer, err := avroschema.Parse(schema.Text, schema.References...)
	if err != nil {
		return refuse(SchemaMismatch, "", err)
	}
	if err := secondOpinion(writer); err != nil {
		return refuse(SchemaMismatch, "", err)
	}
	c := newCompiler(p.contract, label)
	faults, err := c.compile(writer, p.reader, contractTree(p.contract))
	if err != nil {
		return refuse(SchemaMismatch, "", err)
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

// schemaFault says why an input cannot be fed from the writer's schema, or why the writer's schema cannot be read with
// the reader's.
type schemaFault struct {
	class ErrorClass
	path  string
	text  string
}

func mismatch(path, format string, args ...any) []schemaFault {
	return []schemaFault{{SchemaMismatch, path, fmt.Sprintf(format, args...)}}
}

type compiler struct {
	program program
	label   string
	visits  int
	depth   int // of the blocks around the code being emitted
	checks  int // emitted instructions that may refuse a value which its type allows
	sizes   map[*avroschema.Type]int64
	open    map[*avroschema.Type]bool // records on the way down, then false
	sources []source                  // by column
}

func newCompiler(contract Contract, label string) *compiler {
	return &compiler{
		label: label, sizes: make(map[*avroschema.Type]int64), open: make(map[*avroschema.Type]bool),
		sources: make([]source, len(contract.Inputs)),
	}
}

// source is where an input comes from, for reports.
type source struct {
	types     []string // the writer's, one a branch of a union
	how       []string // the conversion of each, empty where there is none
	fallback  bool     // the reader's default, where the writer has no such field
	byDefault string   // that default as JSON
}

// compile emits the whole program. An error is about the schema as such, faults are about what is wanted from it.
func (c *compiler) compile(writer, reader *avroschema.Type, wanted *pathNode) ([]schemaFault, error) {
	if err := c.refuseRecursion(writer); err != nil {
		return nil, err
	}
	if reader == nil {
		reader = writer
	} else if err := c.refuseRecursion(reader); err != nil {
		return nil, err
	}
	faults := c.project(writer, reader, wanted, "")
	if c.visits > maxVisits {
		return nil, fmt.Errorf("the schema has more than %d types when its named types are written out", maxVisits)
	}
	return faults, nil
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

// refusal keeps a reason for which single records are refused, and gives its number.
func (c *compiler) refusal(f schemaFault) int32 {
	c.checks++
	c.program.fails = append(c.program.fails, &RecordError{Class: f.class, Path: f.path, Err: fmt.Errorf("%s: %s", c.label, f.text)})
	return int32(len(c.program.fails) - 1)
}

// fail emits the refusal of a record for one reason.
func (c *compiler) fail(f schemaFault) { c.emit(f.path, instruction{op: opFail, n: c.refusal(f)}) }

// project emits code that steps over a value written as w and read as r (the same where there is no reader's schema),
// and takes from it what node wants, if anything. The faults make the whole schema unfit.
func (c *compiler) project(w, r *avroschema.Type, node *pathNode, path string) []schemaFault {
	if c.visits > maxVisits {
		return nil
	}
	switch {
	case node == nil && w == r:
		c.skip(w, path)
		return nil
	case w.Kind == avroschema.Union:
		return c.projectUnion(w, r, node, path)
	case r.Kind == avroschema.Union:
		branch := avroschema.Branch(r, w)
		if branch == nil {
			return mismatch(path, "the writer's type is %s, the reader's is %s and has no branch for it", w, r)
		}
		return c.project(w, branch, node, path)
	}
	if w != r {
		if faults := unresolved(w, r, path); faults != nil {
			return faults
		}
	}
	switch {
	case w.Kind == avroschema.Null:
		if node == nil {
			return nil
		}
		return nullFaults(node, path, "the writer's type is null")
	case node != nil && node.input != nil:
		return c.store(w, r, node, path)
	case node != nil && w.Kind != avroschema.Record:
		return c.storeParts(w, r, node, path)
	case w.Kind == avroschema.Record:
		return c.projectRecord(w, r, node, path)
	case w.Kind == avroschema.Array, w.Kind == avroschema.Map:
		return c.projectBlocks(w, r, path)
	case w.Kind == avroschema.Enum:
		c.visits++
		_, partial, fault := c.symbols(w, r, path)
		if fault != nil || partial == nil {
			c.skip(w, path)
			return fault
		}
		c.emit(path, *partial)
		return nil
	default:
		c.skip(w, path)
		return nil
	}
}

// unresolved says why the specification does not let w be read as r; neither is a union. What they contain is not
// looked at.
func unresolved(w, r *avroschema.Type, path string) []schemaFault {
	switch {
	case w.Kind != r.Kind:
		if !avroschema.Promotes(w.Kind, r.Kind) {
			return mismatch(path, "the writer's type is %s, the reader's is %s", w, r)
		}
	case r.Name != "" && !avroschema.SameName(r, w):
		return mismatch(path, "the writer's type is %s, the reader's is %s, which has no such alias", w, r)
	case w.Size != r.Size:
		return mismatch(path, "the writer's type is %s of %d bytes, the reader's is %s of %d", w, w.Size, r, r.Size)
	}
	if w.Meaning() == avroschema.Decimal && r.Meaning() == avroschema.Decimal && (w.Scale != r.Scale || w.Precision != r.Precision) {
		return mismatch(path, "the writer's type is %s, the reader's is %s; decimals of another precision or scale do not match", w, r)
	}
	return nil
}

func (c *compiler) projectRecord(w, r *avroschema.Type, node *pathNode, path string) []schemaFault {
	c.visits++
	var faults []schemaFault
	readAs := make([]int, len(w.Fields)) // place of the reader's field, or -1
	var matched []int
	if w == r {
		for i := range readAs {
			readAs[i] = i
		}
	} else {
		for i := range readAs {
			readAs[i] = -1
		}
		matched = avroschema.MatchFields(r, w)
		for i, place := range matched {
			if place >= 0 {
				readAs[place] = i
			}
		}
	}
	for i := range w.Fields {
		field := &w.Fields[i]
		if readAs[i] < 0 {
			c.skip(field.Type, join(path, field.Name))
			continue
		}
		as := &r.Fields[readAs[i]]
		faults = append(faults, c.project(field.Type, as.Type, node.child(as.Name), join(path, as.Name))...)
	}
	for i, place := range matched {
		if place >= 0 {
			continue
		}
		f := &r.Fields[i]
		at := join(path, f.Name)
		if !f.HasDefault {
			class := SchemaMismatch
			if node.child(f.Name) != nil {
				class = MissingField
			}
			faults = append(faults, schemaFault{class, at, fmt.Sprintf("the writer's %s has no such field, and the reader's %s has no default", w, f.Type)})
			continue
		}
		faults = append(faults, c.setDefault(f, node.child(f.Name), at)...)
	}
	if node == nil {
		return faults
	}
	has := make(map[string]bool, len(r.Fields))
	for i := range r.Fields {
		has[r.Fields[i].Name] = true
	}
	for _, child := range node.children {
		if !has[child.name] {
			faults = append(faults, nullFaults(child, join(path, child.name), "the writer's "+w.String()+" has no such field")...)
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

// setDefault emits the code that gives the inputs at node the default of a reader's field that the writer does not have.
// The default is encoded and read like any value, once, here.
func (c *compiler) setDefault(f *avroschema.Field, node *pathNode, path string) []schemaFault {
	encoded, err := avroschema.AppendDefault(nil, f.Type, f.Default)
	if err != nil {
		return mismatch(path, "the reader's default: %v", err)
	}
	if node == nil {
		return nil
	}
	own := &compiler{label: c.label, visits: c.visits, sizes: c.sizes, open: c.open, sources: make([]source, len(c.sources))}
	if faults := own.project(f.Type, f.Type, node, path); len(faults) > 0 {
		return faults
	}
	c.visits = own.visits
	rows := NewRows(len(c.sources), 1)
	numbers, categories := rows.Row(rows.Append())
	if _, err := own.program.run(encoded, numbers, categories, rows, make([]int64, own.program.loops)); err != nil {
		var bad *RecordError
		if errors.As(err, &bad) {
			return []schemaFault{{bad.Class, path, fmt.Sprintf("the reader's default: %v", bad.Err)}}
		}
		return mismatch(path, "the reader's default: %v", err)
	}
	for _, column := range node.columns(nil) {
		c.sources[column].fallback, c.sources[column].byDefault = true, avroschema.DefaultText(f)
		switch {
		case categories[column] != nil:
			c.emit(path, instruction{op: opSetText, input: int32(column), to: int32(len(c.program.symbols))})
			c.program.symbols = append(c.program.symbols, slices.Clone(categories[column]))
		case !math.IsNaN(numbers[column]):
			c.emit(path, instruction{op: opSetNumber, input: int32(column), lo: numbers[column]})
		}
	}
	return nil
}

// projectUnion emits one piece of code a branch. A branch that cannot be read or cannot feed the contract refuses the
// records that take it. The schema is unfit when no branch is of use, and, without a reader's schema, when only null is:
// nobody has said then that the input may always be missing.
func (c *compiler) projectUnion(w, r *avroschema.Type, node *pathNode, path string) []schemaFault {
	c.visits++
	start := c.here()
	var first, null []schemaFault
	usable, values := false, false
	c.branches(w, path, func(branch *avroschema.Type) {
		as := r
		if w == r {
			as = branch
		}
		place := c.here()
		faults := c.project(branch, as, node, path)
		if branch.Kind == avroschema.Null {
			if len(faults) > 0 {
				null = faults
				fault := faults[0]
				if fault.class == MissingField && node != nil {
					what := "value is"
					if node.input == nil {
						what = "record is"
					}
					fault.text = "the " + what + " null, the contract needs one"
				}
				c.cut(place)
				c.fail(fault)
			}
			usable = usable || len(faults) == 0 && (len(w.Branches) == 1 || node == nil || w != r)
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
	switch {
	case values:
		return first
	case len(null) > 0 && null[0].class == SchemaMismatch:
		return null
	case node == nil:
		return nil
	default:
		return nullFaults(node, path, "the writer's type is "+w.String())
	}
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

// store emits the code that reads an input from a value written as w and read as r.
func (c *compiler) store(w, r *avroschema.Type, node *pathNode, path string) []schemaFault {
	in, how, ok := reading(w, r, node.input.Kind)
	if !ok {
		if w == r {
			return mismatch(path, "the writer's type is %s, the contract needs a %s", w, node.input.Kind)
		}
		return mismatch(path, "the writer's type is %s, the reader's is %s, the contract needs a %s", w, r, node.input.Kind)
	}
	if in.op == opSymbol {
		table, _, fault := c.symbols(w, r, path)
		if fault != nil {
			return fault
		}
		in = table
	}
	c.emitInput(in, node, path)
	c.note(node, w, how)
	return nil
}

func (c *compiler) note(node *pathNode, w *avroschema.Type, how string) {
	s := &c.sources[node.column]
	s.types, s.how = append(s.types, w.String()), append(s.how, how)
}

func (c *compiler) emitInput(in instruction, node *pathNode, path string) {
	input := node.input
	in.input, in.nullable, in.lo, in.hi = int32(node.column), input.Nullable, -math.MaxFloat64, math.MaxFloat64
	if input.Min != nil {
		in.lo = *input.Min
	}
	if input.Max != nil {
		in.hi = *input.Max
	}
	c.visits++
	c.emit(path, in)
}

// storeParts emits the code that reads numbers whose path names, as its last part, the unit of a value that has one.
func (c *compiler) storeParts(w, r *avroschema.Type, node *pathNode, path string) []schemaFault {
	parts := units(w, r)
	if len(parts) == 0 && w != r {
		return mismatch(path, "the writer's type is %s, the reader's is %s, the contract needs a value with %q in both", w, r, node.children[0].name)
	}
	if len(parts) == 0 {
		return mismatch(path, "the writer's type is %s, the contract needs a record with %q", w, node.children[0].name)
	}
	var faults []schemaFault
	for _, child := range node.children {
		at := join(path, child.name)
		has := slices.ContainsFunc(parts, func(u unit) bool { return u.name == child.name })
		switch {
		case !has || child.input == nil:
			faults = append(faults, mismatch(at, "the writer's type is %s, which has no part %q; it has %s", w, child.name, names(parts))...)
		case child.input.Kind != Number:
			faults = append(faults, mismatch(at, "the part %s of the writer's %s is a number, the contract needs a %s", child.name, w, child.input.Kind)...)
		}
	}
	if len(faults) > 0 {
		return faults
	}
	for _, u := range parts {
		child := node.child(u.name)
		if child == nil {
			c.emit(path, u.skip)
			continue
		}
		c.emitInput(u.read, child, join(path, u.name))
		c.note(child, w, "in "+u.name)
	}
	return nil
}

// symbols maps the writer's symbols to the reader's: a symbol that the reader does not have becomes its default or, where
// it has none, refuses the records that carry it. table reads an input; partial, nil if all symbols map, only checks.
func (c *compiler) symbols(w, r *avroschema.Type, path string) (table instruction, partial *instruction, fault []schemaFault) {
	table = instruction{op: opSymbol, n: int32(len(w.Symbols)), to: int32(len(c.program.symbols))}
	read := make(map[string]bool, len(r.Symbols))
	for _, s := range r.Symbols {
		read[s] = true
	}
	var lost []string
	list := make([][]byte, len(w.Symbols))
	for i, s := range w.Symbols {
		switch {
		case read[s]:
			list[i] = []byte(s)
		case r.Default != "":
			list[i] = []byte(r.Default)
		default:
			lost = append(lost, s)
		}
	}
	if len(lost) == len(w.Symbols) && len(lost) > 0 {
		return table, nil, mismatch(path, "the writer's type is %s, the reader's is %s, which has none of its symbols and no default", w, r)
	}
	if len(lost) > 0 {
		table.size = int64(c.refusal(schemaFault{SchemaMismatch, path, fmt.Sprintf(
			"the writer's type is %s, the reader's is %s, which has no default and not the symbol that the record carries, one of %s", w, r, strings.Join(lost, ", "))}))
		check := table
		check.op = opCheckSymbol
		partial = &check
	}
	c.program.symbols = append(c.program.symbols, list...)
	return table, partial, nil
}
