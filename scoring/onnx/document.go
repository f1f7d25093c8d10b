package onnx

import (
	"errors"
	"fmt"
)

// document is a ModelProto.
type document struct {
	producer string
	release  string           // of the producer
	opsets   map[string]int64 // by domain; "" is ai.onnx
	graph    graph

	functions [][]byte
}

// graph is a GraphProto.
type graph struct {
	nodes        [][]byte
	initializers [][]byte
	inputs       []valueInfo
	outputs      []string
}

// valueInfo is a ValueInfoProto of a tensor.
type valueInfo struct {
	name  string
	dtype int64
	dims  []int64 // -1: not said
}

func (d *document) read(data []byte) error {
	d.opsets = make(map[string]int64)
	var version int64
	graphs := 0
	err := fields(data, func(f field) error {
		switch f.number {
		case 1: // ir_version
			version = int64(f.value)
		case 2: // producer_name
			d.producer = string(f.bytes)
		case 3: // producer_version
			d.release = string(f.bytes)
		case 7: // graph
			if graphs++; graphs > 1 {
				return errors.New("a second graph in one model")
			}
			return within("graph", d.graph.read(f.bytes))
		case 8: // opset_import
			return within("opset_import", readOpset(d.opsets, f.bytes))
		case 25:
			d.functions = append(d.functions, f.bytes)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if graphs == 0 || version < 1 || len(d.opsets) == 0 {
		return errors.New("no ir_version, opset_import or graph: this is no ONNX model")
	}
	return nil
}

// readOpset takes the version of a domain. skl2onnx lists a domain twice; then both must agree.
func readOpset(opsets map[string]int64, message []byte) error {
	domain, version := "", int64(0)
	err := fields(message, func(f field) error {
		switch f.number {
		case 1:
			domain = string(f.bytes)
		case 2:
			version = int64(f.value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if domain == "ai.onnx" {
		domain = ""
	}
	if before, twice := opsets[domain]; twice && before != version {
		return fmt.Errorf("the domain %q is there with the versions %d and %d", domainName(domain), before, version)
	}
	opsets[domain] = version
	return nil
}

func domainName(domain string) string {
	if domain == "" {
		return "ai.onnx"
	}
	return domain
}

func (g *graph) read(message []byte) error {
	return fields(message, func(f field) error {
		switch f.number {
		case 1:
			g.nodes = append(g.nodes, f.bytes)
		case 5:
			g.initializers = append(g.initializers, f.bytes)
		case 11:
			v, err := readValueInfo(f.bytes)
			if err != nil {
				return fmt.Errorf("input %d: %w", len(g.inputs), err)
			}
			g.inputs = append(g.inputs, v)
		case 12:
			v, err := readName(f.bytes)
			if err != nil {
				return fmt.Errorf("output %d: %w", len(g.outputs), err)
			}
			g.outputs = append(g.outputs, v)
		case 15:
			return errors.New("sparse initializers are not supported")
		}
		return nil
	})
}

// readName reads the name of a ValueInfoProto alone: an output may be a sequence of maps.
func readName(message []byte) (name string, err error) {
	err = fields(message, func(f field) error {
		if f.number == 1 {
			name = string(f.bytes)
		}
		return nil
	})
	return name, err
}

func readValueInfo(message []byte) (v valueInfo, err error) {
	tensors := 0
	err = fields(message, func(f field) error {
		switch f.number {
		case 1:
			v.name = string(f.bytes)
		case 2: // type
			return fields(f.bytes, func(f field) error {
				if f.number == 1 { // tensor_type
					tensors++
					return v.readTensorType(f.bytes)
				}
				return nil
			})
		}
		return nil
	})
	if err == nil && tensors != 1 {
		err = fmt.Errorf("%q: not a tensor", v.name)
	}
	return v, err
}

func (v *valueInfo) readTensorType(message []byte) error {
	return fields(message, func(f field) error {
		switch f.number {
		case 1:
			v.dtype = int64(f.value)
		case 2: // shape
			return fields(f.bytes, func(f field) error {
				dim := int64(-1)
				err := fields(f.bytes, func(f field) error {
					if f.number == 1 {
						dim = int64(f.value)
					}
					return nil
				})
				if len(v.dims) == maxRank {
					return fmt.Errorf("more than %d dimensions", maxRank)
				}
				v.dims = append(v.dims, dim)
				return err
			})
		}
		return nil
	})
}

// node is a NodeProto.
type node struct {
	name, op, domain string
	version          int64 // of the domain
	inputs, outputs  []string
	attributes       map[string][]byte
}

func readNode(message []byte) (n node, err error) {
	n.attributes = make(map[string][]byte)
	err = fields(message, func(f field) error {
		switch f.number {
		case 1:
			n.inputs = append(n.inputs, string(f.bytes))
		case 2:
			n.outputs = append(n.outputs, string(f.bytes))
		case 3:
			n.name = string(f.bytes)
		case 4:
			n.op = string(f.bytes)
		case 5:
			name, err := readName(f.bytes)
			if err != nil {
				return err
			}
			if _, twice := n.attributes[name]; twice {
				return fmt.Errorf("the attribute %q is there twice", name)
			}
			n.attributes[name] = f.bytes
		case 7:
			n.domain = string(f.bytes)
		}
		return nil
	})
	if n.domain == "ai.onnx" {
		n.domain = ""
	}
	return n, err
}

// attribute is an AttributeProto.
type attribute struct {
	number  float64
	integer int64
	text    []byte
	tensor  []byte
	floats  []float64
	ints    []int64
	texts   [][]byte
}

// attribute reads an attribute of a node, the zero value if it is not there.
func (n *node) attribute(name string) (a attribute, found bool, err error) {
	message, found := n.attributes[name]
	if !found {
		return a, false, nil
	}
	err = fields(message, func(f field) (err error) {
		switch f.number {
		case 2:
			a.number, err = first(f.appendFloats(nil))
		case 3:
			a.integer = int64(f.value)
		case 4:
			a.text = f.bytes
		case 5:
			a.tensor = f.bytes
		case 6, 10, 11:
			err = errors.New("graphs inside of a node are not supported")
		case 21:
			err = errors.New("attributes that a function hands on are not supported")
		case 7:
			a.floats, err = f.appendFloats(a.floats)
		case 8:
			a.ints, err = f.appendInts(a.ints)
		case 9:
			a.texts = append(a.texts, f.bytes)
		}
		return err
	})
	return a, true, within(name, err)
}

func first(list []float64, err error) (float64, error) {
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[0], nil
}

// within says where an error is.
func within(place string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	return nil
}
