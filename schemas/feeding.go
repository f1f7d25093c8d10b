package schemas

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/churnstream/churnstream/internal/avroschema"
)

// Feeding says whether, and how, events of one writer's schema feed a contract.
type Feeding struct {
	Usable      bool          `json:"usable"`      // false: every event would be a dead letter
	Fingerprint string        `json:"fingerprint"` // CRC-64-AVRO, hex
	Inputs      []InputSource `json:"inputs"`      // empty where the schema is refused as a whole
	// Faults are reasons against the schema that belong to no input.
	Faults []string `json:"faults,omitempty"`
	// Refused are the reasons for which single events would be dead letters, by the branch or symbol that they carry.
	Refused []string `json:"refused,omitempty"`
}

// InputSource is where one input comes from.
type InputSource struct {
	Input      string       `json:"input"`
	Path       string       `json:"path"`
	Kind       string       `json:"kind"`
	Status     SourceStatus `json:"status"`
	WriterType string       `json:"writer_type,omitempty"`
	Conversion string       `json:"conversion,omitempty"` // promotion or change of unit, empty where there is none
	Default    string       `json:"default,omitempty"`    // JSON
	Reason     string       `json:"reason,omitempty"`     // of a status that makes the schema unusable
}

// SourceStatus is one of four.
type SourceStatus string

// The statuses of an input.
const (
	Satisfied  SourceStatus = "satisfied"  // the event carries it
	Defaulted  SourceStatus = "defaulted"  // the event does not, there is a default: the reader's, or a missing value
	Missing    SourceStatus = "missing"    // the event does not, and the input must be there
	Mismatched SourceStatus = "mismatched" // the event carries what cannot become the input
)

// Feed finds out how events written with schema would feed the contract, read as they are written or with a reader's
// schema. The error is about the schemas themselves.
func Feed(contract Contract, reader string, schema Schema) (Feeding, error) {
	plan, err := newPlan(contract, reader)
	if err != nil {
		return Feeding{}, err
	}
	writer, err := avroschema.Parse(schema.Text, schema.References...)
	if err != nil {
		return Feeding{}, err
	}
	c := newCompiler(contract, "event")
	faults, err := c.compile(writer, plan.reader, contractTree(contract))
	f := Feeding{Usable: err == nil && len(faults) == 0, Fingerprint: fmt.Sprintf("%016x", writer.CRC64())}
	if err == nil {
		err = secondOpinion(writer)
	}
	if err != nil { // it is refused as a whole: of the inputs nothing can be said
		f.Usable, f.Inputs, f.Faults = false, []InputSource{}, append(f.Faults, err.Error())
		return f, nil
	}
	for i := range contract.Inputs {
		f.Inputs = append(f.Inputs, c.sources[i].of(&contract.Inputs[i]))
	}
	for _, fault := range faults {
		belongs := false
		for i := range f.Inputs {
			in := &f.Inputs[i]
			if in.Path != fault.path && !strings.HasPrefix(in.Path, fault.path+".") && fault.path != "" {
				continue
			}
			belongs = true
			in.Status, in.Reason, in.Default = Mismatched, fault.text, ""
			if fault.class == MissingField {
				in.Status = Missing
			}
		}
		if !belongs {
			f.Faults = append(f.Faults, fmt.Sprintf("field %q: %s", fault.path, fault.text))
		}
	}
	if f.Usable {
		for _, refusal := range c.program.reachable() {
			f.Refused = append(f.Refused, fmt.Sprintf("field %q: %s", refusal.Path, strings.TrimPrefix(refusal.Err.Error(), c.label+": ")))
		}
		slices.Sort(f.Refused)
		f.Refused = slices.Compact(f.Refused)
	}
	return f, nil
}

// reachable gives the refusals that the code may come to: some belong to code that was taken back.
func (p *program) reachable() []*RecordError {
	var list []*RecordError
	for i := range p.code {
		in := &p.code[i]
		switch in.op {
		case opFail:
			list = append(list, p.fails[in.n])
		case opSymbol, opCheckSymbol:
			if slices.ContainsFunc(p.symbols[in.to:in.to+in.n], func(s []byte) bool { return s == nil }) {
				list = append(list, p.fails[in.size])
			}
		default:
		}
	}
	return list
}

func (s *source) of(in *Input) InputSource {
	out := InputSource{Input: in.Name, Path: in.AvroPath(), Kind: in.Kind.String(), Status: Satisfied, WriterType: strings.Join(s.types, " or ")}
	how := slices.DeleteFunc(slices.Clone(s.how), func(h string) bool { return h == "" })
	out.Conversion = strings.Join(slices.Compact(how), ", ")
	if s.fallback {
		out.Status, out.Default = Defaulted, s.byDefault
	} else if len(s.types) == 0 {
		out.Status, out.Default = Defaulted, "null"
	}
	return out
}

// WriteText writes a table of the inputs and the verdict.
func (f Feeding) WriteText(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	if len(f.Inputs) > 0 {
		fmt.Fprintln(w, "INPUT\tKIND\tSTATUS\tWRITER'S TYPE\tHOW")
	}
	for _, in := range f.Inputs {
		how := in.Conversion
		switch {
		case in.Reason != "":
			how = in.Reason
		case in.Default != "":
			how = "default " + in.Default
		}
		name := in.Input
		if in.Path != in.Input {
			name += " (" + in.Path + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, in.Kind, in.Status, in.WriterType, how)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, fault := range f.Faults {
		fmt.Fprintln(out, "fault: "+fault)
	}
	for _, refused := range f.Refused {
		fmt.Fprintln(out, "dead letters: "+refused)
	}
	verdict := "usable: the model can be fed from these events"
	if !f.Usable {
		verdict = "not usable: every event would be a dead letter"
	}
	_, err := fmt.Fprintln(out, verdict)
	return err
}
