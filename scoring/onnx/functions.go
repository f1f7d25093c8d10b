package onnx

import (
	"errors"
	"fmt"
)

// function is a FunctionProto: nodes that a node stands for.
type function struct {
	domain, name    string
	inputs, outputs []string
	nodes           [][]byte
	opsets          map[string]int64
}

func readFunction(message []byte) (f function, err error) {
	f.opsets = make(map[string]int64)
	err = fields(message, func(field field) error {
		switch field.number {
		case 1:
			f.name = string(field.bytes)
		case 4:
			f.inputs = append(f.inputs, string(field.bytes))
		case 5:
			f.outputs = append(f.outputs, string(field.bytes))
		case 6, 11:
			return errors.New("attributes are not supported")
		case 7:
			f.nodes = append(f.nodes, field.bytes)
		case 9:
			return within("opset_import", readOpset(f.opsets, field.bytes))
		case 10:
			f.domain = string(field.bytes)
		}
		return nil
	})
	return f, err
}

// readFunctions reads the functions of a model. Those of a KNNImputer are recognised as a whole: they
// choose among rows, which nodes of their own cannot.
func (b *builder) readFunctions(messages [][]byte) error {
	b.functions = make(map[string]function, len(messages))
	for i, message := range messages {
		f, err := readFunction(message)
		if err != nil {
			return fmt.Errorf("function %d %q: %w", i, f.name, err)
		}
		name := f.domain + ":" + f.name
		if _, twice := b.functions[name]; twice {
			return fmt.Errorf("function %d: %q of %q is there twice", i, f.name, f.domain)
		}
		b.functions[name] = f
	}
	if b.imputes = digestOf(messages) == neighbourFunctions; b.imputes {
		addNeighbours(b.operators)
		delete(b.functions, neighbourDomain+":dict_idx_map")
		delete(b.functions, neighbourDomain+":knn_imputer_column")
	}
	return nil
}

// mostInlined bounds the nodes that functions stand for, which may call each other.
const mostInlined = 1000

// inline adds the nodes of a function.
func (b *builder) inline(n node, f function) error {
	if len(n.inputs) > len(f.inputs) || len(n.outputs) > len(f.outputs) || len(n.attributes) > 0 {
		return fmt.Errorf("%d inputs, %d outputs and %d attributes for a function of %d, %d and none", len(n.inputs), len(n.outputs), len(n.attributes), len(f.inputs), len(f.outputs))
	}
	inner := make(map[string]*value, len(n.inputs))
	chosen := false
	for i, name := range n.inputs {
		v := b.values[name]
		switch {
		case name == "":
			continue
		case v == nil:
			return fmt.Errorf("no node before makes its input %q", name)
		case v.flat || v.stacked || v.chosen && (!b.imputes || f.name != "dist_nan_euclidean"):
			return fmt.Errorf("%q has rows of another kind, which functions are not given", name)
		}
		v.used = true
		v.uses++
		again := *v
		again.chosen = false
		chosen = chosen || v.chosen
		inner[f.inputs[i]] = &again
	}
	outer, opsets := b.values, b.opsets
	b.values, b.opsets = inner, f.opsets
	defer func() { b.values, b.opsets = outer, opsets }()
	for i, message := range f.nodes {
		if b.inlined++; b.inlined > mostInlined {
			return fmt.Errorf("functions stand for more than %d nodes", mostInlined)
		}
		n, err := readNode(message)
		if err == nil {
			err = b.add(n)
		}
		if err != nil {
			return fmt.Errorf("node %d %q (%s) of the function %q: %w", i, n.name, n.op, f.name, err)
		}
	}
	b.values = outer
	for i, name := range n.outputs {
		v := inner[f.outputs[i]]
		if v == nil {
			return fmt.Errorf("no node of the function %q makes its output %q", f.name, f.outputs[i])
		}
		if name == "" {
			continue
		}
		again := *v
		again.name, again.chosen = name, chosen
		if err := b.define(&again); err != nil {
			return err
		}
	}
	return nil
}
