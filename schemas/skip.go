package schemas

import "github.com/churnstream/churnstream/internal/avroschema"

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

// projectBlocks steps over an array or map whose elements have to be readable as the reader's. Only where that depends on
// the record does the code look at them.
func (c *compiler) projectBlocks(w, r *avroschema.Type, path string) []schemaFault {
	start, targets, checks := c.here(), len(c.program.targets), c.checks
	var faults []schemaFault
	c.blocks(w, path, func() { faults = c.project(w.Items, r.Items, nil, path) })
	if len(faults) > 0 || c.checks == checks {
		c.cut(start)
		c.program.targets = c.program.targets[:targets]
		c.skipBlocks(w, path)
	}
	return faults
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
	c.blocks(t, path, func() { c.skip(t.Items, path) })
}

// blocks emits the loop over an array's or map's blocks, with element for each value.
func (c *compiler) blocks(t *avroschema.Type, path string, element func()) {
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
	element()
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
