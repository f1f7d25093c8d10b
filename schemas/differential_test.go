package schemas

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro"

	"github.com/churnstream/churnstream/internal/avroschema"
)

// shape is a random type: how its schema is written, with named types defined where they stand.
type shape struct {
	kind    avroschema.Kind
	logical string // with its further attributes, as JSON members
	name    string
	aliases []string
	symbols []string
	other   string // an enum's default
	size    int
	fields  []shapeField
	parts   []*shape // branches, or the items
}

type shapeField struct {
	name    string
	aliases []string
	of      *shape
	// fallback is the default, JSON; empty: none.
	fallback string
}

func list(texts []string) string {
	raw, _ := json.Marshal(texts)
	return string(raw)
}

func (s *shape) String() string {
	named := func() string {
		out := `"name":"` + s.name + `"`
		if len(s.aliases) > 0 {
			out += `,"aliases":` + list(s.aliases)
		}
		return out
	}
	form := `"type":"` + s.kind.String() + `"`
	switch s.kind {
	case avroschema.Record:
		fields := make([]string, len(s.fields))
		for i, f := range s.fields {
			fields[i] = `{"name":"` + f.name + `","type":` + f.of.String()
			if len(f.aliases) > 0 {
				fields[i] += `,"aliases":` + list(f.aliases)
			}
			if f.fallback != "" {
				fields[i] += `,"default":` + f.fallback
			}
			fields[i] += "}"
		}
		return "{" + form + "," + named() + `,"fields":[` + strings.Join(fields, ",") + "]}"
	case avroschema.Enum:
		out := "{" + form + "," + named() + `,"symbols":` + list(s.symbols)
		if s.other != "" {
			out += `,"default":"` + s.other + `"`
		}
		return out + "}"
	case avroschema.Fixed:
		return "{" + form + "," + named() + `,"size":` + strconv.Itoa(s.size) + s.logical + "}"
	case avroschema.Array:
		return "{" + form + `,"items":` + s.parts[0].String() + "}"
	case avroschema.Map:
		return "{" + form + `,"values":` + s.parts[0].String() + "}"
	case avroschema.Union:
		branches := make([]string, len(s.parts))
		for i, p := range s.parts {
			branches[i] = p.String()
		}
		return "[" + strings.Join(branches, ",") + "]"
	default:
		if s.logical != "" {
			return "{" + form + s.logical + "}"
		}
		return `"` + s.kind.String() + `"`
	}
}

// maker draws shapes, their values and what they evolve into.
type maker struct {
	*rand.Rand
	names int
}

func (m *maker) name(prefix string) string {
	m.names++
	return prefix + strconv.Itoa(m.names)
}

func (m *maker) chance(percent int) bool { return m.IntN(100) < percent }

func pick[T any](m *maker, of ...T) T { return of[m.IntN(len(of))] }

func (m *maker) primitive() *shape {
	switch m.IntN(12) {
	case 0:
		return &shape{kind: avroschema.Int, logical: `,"logicalType":"` + pick(m, "date", "time-millis") + `"`}
	case 1:
		return &shape{kind: avroschema.Long, logical: `,"logicalType":"` + pick(m, "timestamp-millis", "timestamp-micros", "timestamp-nanos", "local-timestamp-millis") + `"`}
	case 2:
		return &shape{kind: avroschema.Bytes, logical: `,"logicalType":"decimal","precision":9,"scale":2`}
	case 3:
		return &shape{kind: avroschema.String, logical: `,"logicalType":"uuid"`}
	}
	return &shape{kind: pick(m, avroschema.Boolean, avroschema.Int, avroschema.Long, avroschema.Float, avroschema.Double, avroschema.Bytes, avroschema.String)}
}

func (m *maker) shape(depth int) *shape {
	form := m.IntN(16)
	if depth == 0 {
		form = m.IntN(9)
	}
	switch form {
	default:
		return m.primitive()
	case 7:
		return &shape{kind: avroschema.Enum, name: m.name("E"), symbols: []string{"A", "B", "C"}[:1+m.IntN(3)]}
	case 8:
		return &shape{kind: avroschema.Fixed, name: m.name("F"), size: 1 + m.IntN(4)}
	case 9:
		return &shape{kind: avroschema.Array, parts: []*shape{m.shape(depth - 1)}}
	case 10:
		return &shape{kind: avroschema.Map, parts: []*shape{m.shape(depth - 1)}}
	case 11, 12:
		return m.record(depth-1, 1+m.IntN(3))
	case 13, 14, 15:
		u := &shape{kind: avroschema.Union, parts: []*shape{{kind: avroschema.Null}}}
		for range 1 + m.IntN(2) {
			branch := m.shape(depth - 1)
			if branch.kind != avroschema.Union && !slices.ContainsFunc(u.parts, func(p *shape) bool { return p.kind == branch.kind && p.name == branch.name }) {
				u.parts = append(u.parts, branch)
			}
		}
		m.Shuffle(len(u.parts), func(i, j int) { u.parts[i], u.parts[j] = u.parts[j], u.parts[i] })
		return u
	}
}

func (m *maker) record(depth, width int) *shape {
	r := &shape{kind: avroschema.Record, name: m.name("R")}
	for range width {
		r.fields = append(r.fields, shapeField{name: m.name("f"), of: m.shape(depth)})
	}
	return r
}

// evolve makes a reader's type of a writer's: mostly what resolves, sometimes not.
func (m *maker) evolve(w *shape) *shape {
	r := *w
	switch {
	case m.chance(2):
		return m.shape(1) // something else
	case m.chance(6) && w.kind != avroschema.Union && w.kind != avroschema.Null:
		u := &shape{kind: avroschema.Union, parts: []*shape{{kind: avroschema.Null}, m.evolveWithin(w)}}
		m.Shuffle(2, func(i, j int) { u.parts[i], u.parts[j] = u.parts[j], u.parts[i] })
		return u
	}
	return m.evolveWithin(&r)
}

func (m *maker) evolveWithin(w *shape) *shape {
	r := *w
	if r.name != "" && m.chance(10) {
		switch m.IntN(3) {
		case 0:
			r.name, r.aliases = m.name("Renamed"), []string{w.name}
		case 1:
			r.name = "elsewhere." + w.name
		default:
			if m.chance(20) {
				r.name = m.name("Stranger")
			}
		}
	}
	switch r.kind {
	case avroschema.Int:
		if r.logical == "" && m.chance(40) {
			r.kind = pick(m, avroschema.Long, avroschema.Float, avroschema.Double)
		}
	case avroschema.Long:
		if r.logical == "" && m.chance(40) {
			r.kind = pick(m, avroschema.Float, avroschema.Double, avroschema.Int)
		}
	case avroschema.Float:
		if m.chance(40) {
			r.kind = pick(m, avroschema.Double, avroschema.Double, avroschema.Long)
		}
	case avroschema.String, avroschema.Bytes:
		if r.logical == "" && m.chance(20) {
			r.kind = avroschema.String + avroschema.Bytes - r.kind
		} else if strings.Contains(r.logical, "decimal") && m.chance(5) {
			r.logical = strings.Replace(r.logical, `"scale":2`, `"scale":3`, 1)
		}
	case avroschema.Enum:
		r.symbols = slices.Clone(w.symbols)
		if m.chance(30) {
			r.symbols = append(r.symbols, "LATER")
		}
		if m.chance(20) && len(r.symbols) > 1 {
			r.symbols = r.symbols[1:]
		}
		if m.chance(40) {
			r.other = pick(m, r.symbols...)
		}
		m.Shuffle(len(r.symbols), func(i, j int) { r.symbols[i], r.symbols[j] = r.symbols[j], r.symbols[i] })
	case avroschema.Fixed:
		if m.chance(3) {
			r.size++
		}
	case avroschema.Array, avroschema.Map:
		r.parts = []*shape{m.evolve(w.parts[0])}
		if r.parts[0].kind == avroschema.Union && w.parts[0].kind == avroschema.Union {
			r.parts[0] = m.evolveWithin(w.parts[0])
		}
	case avroschema.Union:
		r.parts = nil
		for _, p := range w.parts {
			if m.chance(5) && len(w.parts) > 1 {
				continue
			}
			e := m.evolveWithin(p)
			if !slices.ContainsFunc(r.parts, func(o *shape) bool { return o.kind == e.kind && o.name == e.name }) {
				r.parts = append(r.parts, e)
			}
		}
		if len(r.parts) == 0 {
			r.parts = []*shape{{kind: avroschema.Null}}
		}
		m.Shuffle(len(r.parts), func(i, j int) { r.parts[i], r.parts[j] = r.parts[j], r.parts[i] })
		if m.chance(10) { // no longer a union
			return r.parts[0]
		}
	case avroschema.Record:
		r.fields = nil
		for _, f := range w.fields {
			if m.chance(15) {
				continue
			}
			g := shapeField{name: f.name, of: m.evolve(f.of)}
			if m.chance(15) {
				g.name, g.aliases = m.name("g"), []string{m.name("unrelated"), f.name}
			}
			r.fields = append(r.fields, g)
		}
		for range m.IntN(3) {
			f := shapeField{name: m.name("new"), of: m.shape(1)}
			if m.chance(97) {
				f.fallback = m.fallback(f.of)
			}
			r.fields = append(r.fields, f)
		}
		m.Shuffle(len(r.fields), func(i, j int) { r.fields[i], r.fields[j] = r.fields[j], r.fields[i] })
	default:
	}
	return &r
}

// fallback draws a default, JSON.
func (m *maker) fallback(s *shape) string {
	switch s.kind {
	case avroschema.Null:
		return "null"
	case avroschema.Boolean:
		return pick(m, "true", "false")
	case avroschema.Int, avroschema.Long:
		return strconv.Itoa(m.IntN(2000) - 1000)
	case avroschema.Float, avroschema.Double:
		return strconv.FormatFloat(float64(m.IntN(4000)-2000)/8, 'g', -1, 64)
	case avroschema.String:
		if s.logical != "" {
			return `"62e54a13-a66c-4361-b669-c51cbf0199f4"`
		}
		return `"text é"`
	case avroschema.Bytes:
		return `"ab"`
	case avroschema.Fixed:
		return `"` + strings.Repeat("f", s.size) + `"`
	case avroschema.Enum:
		return `"` + pick(m, s.symbols...) + `"`
	case avroschema.Array:
		return "[" + m.fallback(s.parts[0]) + "]"
	case avroschema.Map:
		return `{"k":` + m.fallback(s.parts[0]) + "}"
	case avroschema.Union:
		return m.fallback(s.parts[0])
	default:
		members := make([]string, len(s.fields))
		for i, f := range s.fields {
			members[i] = `"` + f.name + `":` + m.fallback(f.of)
		}
		return "{" + strings.Join(members, ",") + "}"
	}
}

// pinned is a writer's shape of which every union has become the branch that a value takes, and every enum has only the
// symbol that it carries: what a library that refuses whole schemas can be asked about single records.
type pinned struct {
	*shape
	taken int // branch of a union, symbol of an enum
	parts []*pinned
}

func (m *maker) pin(w *shape) *pinned {
	own := *w
	p := &pinned{shape: &own}
	switch w.kind {
	case avroschema.Union:
		taken := m.IntN(len(w.parts))
		branch := m.pin(w.parts[taken])
		return &pinned{shape: branch.shape, taken: taken, parts: []*pinned{branch}}
	case avroschema.Enum:
		p.taken = m.IntN(len(w.symbols))
		own.symbols = w.symbols[p.taken : p.taken+1]
	case avroschema.Array, avroschema.Map:
		p.parts = []*pinned{m.pin(w.parts[0])}
		own.parts = []*shape{p.parts[0].shape}
	case avroschema.Record:
		own.fields = slices.Clone(w.fields)
		for i, f := range w.fields {
			p.parts = append(p.parts, m.pin(f.of))
			own.fields[i].of = p.parts[i].shape
		}
	default:
	}
	return p
}

// event is one value as it is written with a schema, and with the same schema pinned.
type event struct{ whole, single []byte }

func (e *event) both(f func(dst []byte) []byte) { e.whole, e.single = f(e.whole), f(e.single) }

func (e *event) number(v int64) {
	e.both(func(dst []byte) []byte { return binary.AppendVarint(dst, v) })
}

func (e *event) bytes(b ...byte) {
	e.both(func(dst []byte) []byte { return append(dst, b...) })
}

func (e *event) text(s string) {
	e.number(int64(len(s)))
	e.bytes([]byte(s)...)
}

// value draws a value. sized allows blocks that give their size.
func (m *maker) value(e *event, w *shape, p *pinned, sized bool) {
	switch w.kind {
	case avroschema.Null:
	case avroschema.Boolean:
		e.bytes(byte(m.IntN(2)))
	case avroschema.Int:
		v := int64(int32(m.Uint32()) >> m.IntN(32))
		if strings.Contains(w.logical, "time") {
			v = int64(m.IntN(86_400_000))
		}
		e.number(v)
	case avroschema.Long:
		shift := m.IntN(64)
		if w.logical != "" {
			shift = max(shift, 14) // years that a time.Time in microseconds holds
		}
		e.number(int64(m.Uint64()) >> shift)
	case avroschema.Float:
		e.bytes(binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(m.NormFloat64())))...)
	case avroschema.Double:
		e.bytes(binary.LittleEndian.AppendUint64(nil, math.Float64bits(m.NormFloat64()*1e6))...)
	case avroschema.String:
		if w.logical != "" {
			e.text("62e54a13-a66c-4361-b669-c51cbf0199f" + pick(m, "4", "5"))
			return
		}
		e.text(pick(m, "", "a", "né", "premium"))
	case avroschema.Bytes:
		if w.logical != "" {
			e.text(string([]byte{byte(m.Uint32()), byte(m.Uint32())}))
			return
		}
		e.text(pick(m, "", "b", "bytes"))
	case avroschema.Fixed:
		e.bytes([]byte("abcdefgh"[:w.size])...)
	case avroschema.Enum:
		e.whole = binary.AppendVarint(e.whole, int64(p.taken))
		e.single = binary.AppendVarint(e.single, 0)
	case avroschema.Union:
		e.whole = binary.AppendVarint(e.whole, int64(p.taken))
		m.value(e, w.parts[p.taken], p.parts[0], sized)
	case avroschema.Array, avroschema.Map:
		for range 1 + m.IntN(2) {
			count := 1 + m.IntN(3)
			var block event
			for range count {
				if w.kind == avroschema.Map {
					block.text(m.name("k"))
				}
				m.value(&block, w.parts[0], p.parts[0], sized)
			}
			if m.chance(50) && sized {
				e.number(-int64(count))
				e.whole, e.single = binary.AppendVarint(e.whole, int64(len(block.whole))), binary.AppendVarint(e.single, int64(len(block.single)))
			} else {
				e.number(int64(count))
			}
			e.whole, e.single = append(e.whole, block.whole...), append(e.single, block.single...)
		}
		e.bytes(0)
	default:
		for i, f := range w.fields {
			m.value(e, f.of, p.parts[i], sized)
		}
	}
}

// inputsOf gives an input for every place of a reader's schema that one can read: through records, and through unions
// whose branches are all of one kind.
func inputsOf(t *avroschema.Type, path string) []Input {
	kind, unit, fields := kindOf(t)
	if kind != 0 {
		return []Input{{Name: path + unit, Kind: kind, Nullable: true}}
	}
	var inputs []Input
	for i := range fields {
		inputs = append(inputs, inputsOf(fields[i].Type, join(path, fields[i].Name))...)
	}
	return inputs
}

func kindOf(t *avroschema.Type) (kind Kind, unit string, fields []avroschema.Field) {
	switch t.Kind {
	case avroschema.Boolean:
		return Boolean, "", nil
	case avroschema.Int, avroschema.Long:
		switch m := t.Meaning(); {
		case m == avroschema.Date:
			return Date, "", nil
		case m == avroschema.TimeMillis, isLocal(m):
			return Number, ".millis", nil
		case m != avroschema.Plain:
			return Timestamp, "", nil
		}
		return Number, "", nil
	case avroschema.Float, avroschema.Double:
		return Number, "", nil
	case avroschema.String, avroschema.Enum:
		return Category, "", nil
	case avroschema.Bytes:
		if t.Meaning() == avroschema.Decimal {
			return Number, "", nil
		}
		return Category, "", nil
	case avroschema.Record:
		return 0, "", t.Fields
	case avroschema.Union:
		for i, branch := range t.Branches {
			if branch.Kind == avroschema.Null {
				continue
			}
			k, u, f := kindOf(branch)
			if k == 0 && len(f) == 0 || kind != 0 && (k != kind || u != unit) || fields != nil || kind != 0 && f != nil {
				return 0, "", nil
			}
			if f != nil && i > 0 && kind != 0 {
				return 0, "", nil
			}
			kind, unit, fields = k, u, f
		}
		return kind, unit, fields
	default:
		return 0, "", nil
	}
}

// lookup finds an input's value in what a library decoded, and gives it as a row has it.
func lookup(t *testing.T, native any, input Input) (float64, []byte) {
	t.Helper()
	at := native
	for part := range strings.SplitSeq(input.AvroPath(), ".") {
		if fields, ok := at.(map[string]any); ok {
			at = fields[part]
		}
	}
	nan := math.NaN()
	switch v := at.(type) {
	case nil:
		return nan, nil
	case bool:
		if v {
			return 1, nil
		}
		return 0, nil
	case int32:
		return float64(v), nil
	case int64:
		return float64(v), nil
	case float32:
		return float64(v), nil
	case float64:
		return v, nil
	case json.Number:
		x, err := v.Float64()
		if err != nil {
			t.Fatal(err)
		}
		return x, nil
	case string:
		return nan, []byte(v)
	case []byte:
		return nan, append([]byte{}, v...)
	case *big.Rat:
		x, _ := v.Float64()
		return x, nil
	case time.Duration:
		return float64(v.Milliseconds()), nil
	case time.Time:
		if input.Kind == Date {
			return float64(v.Unix() / secondsPerDay), nil
		}
		return float64(v.UnixMilli()), nil
	default:
		t.Fatalf("%s is a %T", input.Name, at)
		return nan, nil
	}
}

// untagged takes the names of branches out of what goavro decoded.
func untagged(t *avroschema.Type, native any) any {
	switch t.Kind {
	case avroschema.Union:
		tagged, ok := native.(map[string]any)
		if !ok {
			return native
		}
		for name, v := range tagged {
			for _, branch := range t.Branches {
				if branch.Name == name || branch.Name == "" && branch.Kind.String() == name {
					return untagged(branch, v)
				}
			}
		}
	case avroschema.Record:
		fields, out := native.(map[string]any), map[string]any{}
		for i := range t.Fields {
			out[t.Fields[i].Name] = untagged(t.Fields[i].Type, fields[t.Fields[i].Name])
		}
		return out
	default:
	}
	return native
}

// The kinds of differences that are excused.
const (
	bothRefuse   = "both refuse"
	same         = "same values"
	sameOfBranch = "same values, where twmb/avro had to be given the record's own branches and symbols: it refuses the whole schema for a branch or symbol that cannot be read, the specification only the records that carry it"
	excusedGap   = "twmb/avro gives a missing field of a union with null an implied default of null; the specification knows no implied default"
	excusedText  = "bytes that are read as a string are no UTF-8: a category has to be text"
	excusedAlias = "twmb/avro takes an alias without a namespace for that name in any; in the specification it is in the namespace of the type that has it"
	excusedSense = "we refuse a value whose logical type means something else to the reader (a date for a timestamp): resolution does not look at it"
	excusedUnit  = "where both sides have a unit of time, we read the writer's, twmb/avro the reader's: resolution does not look at it"
	excusedBlock = "we step over a block that gives its size, and do not look for what cannot be read in it"
)

var otherSense = regexp.MustCompile(`the writer's type is \w+/[\w(),-]+, the reader's is \w+/[\w(),-]+, the contract needs`)

func pairs() int {
	if n, err := strconv.Atoi(os.Getenv("CHURNSTREAM_TEST_SCHEMA_PAIRS")); err == nil {
		return n
	}
	return 1000
}

// TestResolutionAgreesWithOtherLibrariesOnRandomPairs compares with twmb/avro, and the decoder without a reader's schema
// with goavro. CHURNSTREAM_TEST_SCHEMA_PAIRS sets the number of pairs.
func TestResolutionAgreesWithOtherLibrariesOnRandomPairs(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range pairs() {
		m := &maker{Rand: rand.New(rand.NewPCG(uint64(seed), 7))}
		w := m.record(3, 1+m.IntN(5))
		p := &pair{t: t, seed: uint64(seed), writer: w, reader: m.evolveWithin(w)}
		p.pinned = m.pin(w)
		outcomes[p.compare()]++
		p.compareWithGoavro()
		if t.Failed() {
			t.Fatalf("seed %d\nwriter %s\nreader %s", seed, p.writer, p.reader)
		}
	}
	for _, outcome := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%6d %s", outcomes[outcome], outcome)
	}
	if outcomes[same] < pairs()/3 || outcomes[bothRefuse] < pairs()/50 {
		t.Errorf("too few pairs resolve, or too few do not: %v", outcomes)
	}
}

type pair struct {
	t              *testing.T
	seed           uint64
	writer, reader *shape
	pinned         *pinned
}

// event draws the pair's event, the same each time but for the form of its blocks.
func (p *pair) event(sized bool) event {
	m := &maker{Rand: rand.New(rand.NewPCG(p.seed, 8))}
	var e event
	m.value(&e, p.writer, p.pinned, sized)
	return e
}

func (p *pair) decode(writer, reader string, inputs []Input, body []byte) (*Rows, error) {
	p.t.Helper()
	decoder, err := NewDecoder(DecoderConfig{Contract: Contract{inputs}, Reader: reader, Registry: &fixedRegistry{schemas: map[int32]string{7: writer}}})
	if err != nil {
		p.t.Fatalf("seed %d: %v\nreader %s", p.seed, err, reader)
	}
	rows := NewRows(len(inputs), 1)
	return rows, decoder.Decode(context.Background(), append(AppendFrame(nil, 7), body...), rows)
}

// theirs reads an event with twmb/avro.
func (p *pair) theirs(writer string, body []byte) (native any, err error) {
	p.t.Helper()
	w, err := avro.Parse(writer)
	if err != nil {
		p.t.Fatalf("seed %d: twmb/avro: %v\n%s", p.seed, err, writer)
	}
	r, err := avro.Parse(p.reader.String())
	if err != nil {
		p.t.Fatalf("seed %d: twmb/avro: %v\n%s", p.seed, err, p.reader)
	}
	resolved, err := avro.Resolve(w, r)
	if err != nil {
		return nil, err
	}
	rest, err := resolved.Decode(body, &native)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes are left", len(rest))
	}
	return native, err
}

func (p *pair) compare() (outcome string) {
	p.t.Helper()
	reader, err := avroschema.Parse(p.reader.String())
	if err != nil {
		p.t.Fatal(err)
	}
	inputs := append(inputsOf(reader, ""), Input{Name: "nothing_at_all", Kind: Number, Nullable: true})
	e := p.event(true)
	rows, ours := p.decode(p.writer.String(), p.reader.String(), inputs, e.whole)
	native, theirs := p.theirs(p.writer.String(), e.whole)
	outcome = same
	if theirs != nil {
		outcome = sameOfBranch
		native, theirs = p.theirs(p.pinned.String(), e.single)
	}
	switch {
	case ours != nil && theirs != nil:
		return bothRefuse
	case ours != nil:
		if strings.Contains(ours.Error(), "has no such field, and the reader's union [null") {
			return excusedGap
		}
		if strings.Contains(ours.Error(), "not UTF-8") {
			return excusedText
		}
		if _, moved := p.decode(p.pinned.String(), strings.ReplaceAll(p.reader.String(), "elsewhere.", ""), inputs, e.single); moved == nil {
			return excusedAlias
		}
		if _, alone := p.decode(p.pinned.String(), p.reader.String(), inputs, e.single); alone != nil && otherSense.MatchString(alone.Error()) {
			return excusedSense
		}
		p.t.Errorf("twmb/avro reads it, we say %v", ours)
	case theirs != nil:
		if _, unsized := p.decode(p.writer.String(), p.reader.String(), inputs, p.event(false).whole); unsized != nil {
			return excusedBlock
		}
		p.t.Errorf("we read it, twmb/avro says %v", theirs)
	default:
		if p.same("twmb/avro", inputs, rows, native) {
			return excusedUnit
		}
	}
	return outcome
}

func (p *pair) same(library string, inputs []Input, rows *Rows, native any) (inOtherUnit bool) {
	p.t.Helper()
	for i, input := range inputs {
		number, category := lookup(p.t, native, input)
		if ours := rows.Numbers[i]; (input.Kind == Timestamp || strings.HasSuffix(input.Name, ".millis")) && (math.Floor(ours/1e3) == number || math.Floor(ours/1e6) == number || math.Floor(number/1e3) == ours || math.Floor(number/1e6) == ours) {
			inOtherUnit = inOtherUnit || ours != number
			continue
		}
		if !sameRow(rows.Numbers[i:i+1], []float64{number}) || !sameCategories(rows.Categories[i:i+1], [][]byte{category}) {
			p.t.Errorf("%s (%s): we read %v %q, %s %v %q", input.Name, input.Kind, rows.Numbers[i], rows.Categories[i], library, number, category)
		}
	}
	return inOtherUnit
}

// compareWithGoavro reads the event as it was written, without logical types, of which goavro knows only some.
func (p *pair) compareWithGoavro() {
	p.t.Helper()
	parsed, err := avroschema.Parse(p.writer.String())
	if err != nil {
		p.t.Fatal(err)
	}
	schema := parsed.Canonical()
	plain, err := avroschema.Parse(schema)
	if err != nil {
		p.t.Fatal(err)
	}
	codec, err := goavro.NewCodec(schema)
	if err != nil {
		p.t.Fatal(err)
	}
	e := p.event(true)
	native, rest, err := codec.NativeFromBinary(e.whole)
	if err != nil || len(rest) > 0 {
		p.t.Fatalf("seed %d: goavro: %v, %d bytes left\n%s", p.seed, err, len(rest), schema)
	}
	inputs := append(inputsOf(plain, ""), Input{Name: "nothing_at_all", Kind: Number, Nullable: true})
	rows, err := p.decode(schema, "", inputs, e.whole)
	if err != nil && strings.Contains(err.Error(), "not UTF-8") {
		return // a decimal without its logical type
	}
	if err != nil {
		p.t.Errorf("goavro reads it, we say %v", err)
		return
	}
	p.same("goavro", inputs, rows, untagged(plain, native))
}
