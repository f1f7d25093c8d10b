package schemas

import (
	"encoding/binary"
	"fmt"
	"math"
)

// program reads a contract's inputs from records of one writer schema: a flat list of instructions, run from the first
// to the last with jumps for unions and blocks. It is immutable and shared by goroutines.
type program struct {
	code    []instruction
	paths   []string       // writer's path of each instruction, for messages
	targets []int32        // places of union branches
	symbols [][]byte       // enum symbols, read-only
	fails   []*RecordError // refusals of single union branches
	loops   int            // nested blocks
	refused *RecordError   // set if the schema as a whole cannot feed the contract
}

type opcode uint8

const (
	opSkipFixed    opcode = iota // size bytes
	opSkipBoolean                // one byte, 0 or 1
	opSkipInt                    // a number of 32 bits
	opSkipLong                   // a number of 64 bits
	opSkipBytes                  // a length and as many bytes
	opSkipEnum                   // an index below n
	opSkipBlocks                 // an array of elements of size bytes each
	opInt                        // int into a number
	opLong                       // long into a number
	opFraction                   // long divided by n, rounded down, into a number
	opFloat                      // float into a number
	opDouble                     // double into a number
	opBoolean                    // boolean into a number
	opText                       // string or bytes into a category
	opSymbol                     // enum with n symbols from symbols[to] into a category; without one, refuse with fails[size]
	opCheckSymbol                // the same without a category
	opUUID                       // 16 bytes into a category
	opIntAsFloat                 // int, rounded to a float, into a number
	opLongAsFloat                // long, rounded to a float, into a number
	opUint32                     // 4 bytes, little-endian, into a number
	opDecimal                    // bytes, two's complement, with n digits behind the point, into a number
	opDecimalFixed               // the same in size bytes
	opSetNumber                  // lo into a number
	opSetText                    // symbols[to] into a category
	opNullable                   // union of null and another: null is index byte n and goes on at to
	opUnion                      // union of n branches, which go on at targets[to:]
	opJump                       // go on at to
	opBlock                      // head of a block of an array or map, elements of at least size bytes; after the last go on at to
	opNext                       // end of an element: go on with the next one, or with the block head at to
	opFail                       // refuse the record with fails[n]
)

type instruction struct {
	op       opcode
	nullable bool
	input    int32 // column
	n        int32
	to       int32
	size     int64
	lo, hi   float64 // finite bounds of the value
}

// run reads one record from the start of b and returns its length. numbers and categories are one row of rows, all missing. loops has room for
// the program's nested blocks. It does not allocate unless it fails (or reads decimals of more than 18 digits), and its
// work is at most proportional to the length of b times the size of the program.
func (p *program) run(b []byte, numbers []float64, categories [][]byte, rows *Rows, loops []int64) (length int, err error) {
	pos := 0
	for pc := 0; pc < len(p.code); {
		in := &p.code[pc]
		pc++
		var v int64
		var x float64
		switch in.op {
		case opSkipFixed:
			if in.size > int64(len(b)-pos) {
				return 0, p.truncated(pc, len(b))
			}
			pos += int(in.size)
			continue
		case opSkipBoolean, opBoolean:
			if pos == len(b) {
				return 0, p.truncated(pc, len(b))
			}
			flag := b[pos]
			if flag > 1 {
				return 0, p.malformed(pc, "byte 0x%02x is no boolean", flag)
			}
			pos++
			if in.op == opBoolean {
				numbers[in.input] = float64(flag)
			}
			continue
		case opFloat:
			if len(b)-pos < 4 {
				return 0, p.truncated(pc, len(b))
			}
			x = float64(math.Float32frombits(binary.LittleEndian.Uint32(b[pos:])))
			pos += 4
		case opDouble:
			if len(b)-pos < 8 {
				return 0, p.truncated(pc, len(b))
			}
			x = math.Float64frombits(binary.LittleEndian.Uint64(b[pos:]))
			pos += 8
		case opNullable:
			if pos == len(b) {
				return 0, p.truncated(pc, len(b))
			}
			index, width := b[pos], 1
			if index != 0 && index != 2 {
				if index, width = longIndex(b[pos:]); width == 0 {
					return 0, p.malformed(pc, "a union of 2 branches is followed by byte 0x%02x", b[pos])
				}
			}
			pos += width
			if index == byte(in.n) {
				pc = int(in.to)
			}
			continue
		case opJump:
			pc = int(in.to)
			continue
		case opNext:
			if loops[in.n]--; loops[in.n] > 0 {
				pc = int(in.to) + 1
			} else {
				pc = int(in.to)
			}
			continue
		case opFail:
			return 0, p.fails[in.n]
		case opSetNumber:
			numbers[in.input] = in.lo // which has been looked at
			continue
		case opSetText:
			categories[in.input] = p.symbols[in.to]
			continue
		case opUUID:
			if len(b)-pos < 16 {
				return 0, p.truncated(pc, len(b))
			}
			categories[in.input] = rows.uuid(b[pos : pos+16])
			pos += 16
			continue
		case opUint32:
			if len(b)-pos < 4 {
				return 0, p.truncated(pc, len(b))
			}
			x = float64(binary.LittleEndian.Uint32(b[pos:]))
			pos += 4
		case opDecimalFixed:
			if in.size > int64(len(b)-pos) {
				return 0, p.truncated(pc, len(b))
			}
			x = decimal(b[pos:pos+int(in.size)], int(in.n))
			pos += int(in.size)
		default: // all others begin with a number
			if pos < len(b) && b[pos] < 0x80 {
				v = int64(b[pos]>>1) ^ -int64(b[pos]&1)
				pos++
			} else {
				var n int
				if v, n = binary.Varint(b[pos:]); n <= 0 {
					if n == 0 && len(b)-pos < binary.MaxVarintLen64 {
						return 0, p.truncated(pc, len(b))
					}
					return 0, p.malformed(pc, "a number is longer than 64 bits")
				}
				pos += n
			}
			switch in.op {
			case opSkipLong:
				continue
			case opSkipInt:
				if v != int64(int32(v)) {
					return 0, p.malformed(pc, "int %d is longer than 32 bits", v)
				}
				continue
			case opSkipBytes:
				if uint64(v) > uint64(len(b)-pos) {
					return 0, p.badLength(pc, v, len(b))
				}
				pos += int(v)
				continue
			case opSkipEnum:
				if uint64(v) >= uint64(in.n) {
					return 0, p.malformed(pc, "enum index %d, there are %d symbols", v, in.n)
				}
				continue
			case opText:
				if uint64(v) > uint64(len(b)-pos) {
					return 0, p.badLength(pc, v, len(b))
				}
				end := pos + int(v)
				text := b[pos:end:end]
				if !isUTF8(text) {
					return 0, p.fault(InvalidUTF8, pc, "the text is not UTF-8")
				}
				categories[in.input] = text
				pos = end
				continue
			case opSymbol, opCheckSymbol:
				if uint64(v) >= uint64(in.n) {
					return 0, p.malformed(pc, "enum index %d, there are %d symbols", v, in.n)
				}
				symbol := p.symbols[int64(in.to)+v]
				if symbol == nil {
					return 0, p.fails[in.size]
				}
				if in.op == opSymbol {
					categories[in.input] = symbol
				}
				continue
			case opUnion:
				if uint64(v) >= uint64(in.n) {
					return 0, p.malformed(pc, "union branch %d, there are %d", v, in.n)
				}
				pc = int(p.targets[int64(in.to)+v])
				continue
			case opBlock, opSkipBlocks:
				if v == 0 {
					if in.op == opBlock {
						pc = int(in.to)
					}
					continue
				}
				if v, pos, err = p.block(b, pos, pc, v); err != nil {
					return 0, err
				}
				switch {
				case v == 0: // stepped over by its size
					pc--
				case in.size > 0 && v > int64(len(b)-pos)/in.size:
					return 0, p.truncated(pc, len(b))
				case in.op == opSkipBlocks:
					pos += int(v * in.size)
					pc--
				default:
					loops[in.n] = v
				}
				continue
			case opInt:
				if v != int64(int32(v)) {
					return 0, p.malformed(pc, "int %d is longer than 32 bits", v)
				}
				x = float64(v)
			case opFraction:
				quotient := v / int64(in.n)
				if v%int64(in.n) < 0 {
					quotient--
				}
				x = float64(quotient)
			case opIntAsFloat:
				if v != int64(int32(v)) {
					return 0, p.malformed(pc, "int %d is longer than 32 bits", v)
				}
				x = float64(float32(v))
			case opLongAsFloat:
				x = float64(float32(v))
			case opDecimal:
				if uint64(v) > uint64(len(b)-pos) {
					return 0, p.badLength(pc, v, len(b))
				}
				x = decimal(b[pos:pos+int(v)], int(in.n))
				pos += int(v)
			default: // opLong
				x = float64(v)
			}
		}
		if x >= in.lo && x <= in.hi {
			numbers[in.input] = x
		} else if err := p.outside(pc, x); err != nil {
			return 0, err
		}
	}
	return pos, nil
}

// longIndex reads the index of one of two branches that was written with more bytes than it needs, which nothing forbids.
// Its width is 0 where it is no such index.
func longIndex(b []byte) (index byte, width int) {
	v, n := binary.Varint(b)
	if n <= 0 || v != 0 && v != 1 {
		return 0, 0
	}
	return byte(2 * v), n
}

// trailing is the error of bytes after an event.
func trailing(length, left int) error {
	return &RecordError{Class: TrailingBytes, Err: fmt.Errorf("%d bytes follow the event of %d bytes; was it written with another schema?", left, length)}
}

// block reads the rest of a block's head, whose count is not 0. A negative count is followed by the block's size in bytes;
// such a block is stepped over at once and count comes back as 0.
func (p *program) block(b []byte, pos, pc int, count int64) (left int64, next int, err error) {
	if count > 0 {
		return count, pos, nil
	}
	size, n := binary.Varint(b[pos:])
	switch {
	case n == 0 && len(b)-pos < binary.MaxVarintLen64:
		return 0, 0, p.truncated(pc, len(b))
	case n <= 0:
		return 0, 0, p.malformed(pc, "a number is longer than 64 bits")
	case size < 0 || count == math.MinInt64:
		return 0, 0, p.malformed(pc, "a block has count %d and size %d", count, size)
	}
	pos += n
	if size > int64(len(b)-pos) {
		return 0, 0, p.truncated(pc, len(b))
	}
	return 0, pos + int(size), nil
}

// outside decides about a number that is not within its bounds: NaN is missing where that is allowed.
func (p *program) outside(pc int, x float64) error {
	in := &p.code[pc-1]
	switch {
	case math.IsNaN(x) && in.nullable:
		return nil
	case math.IsNaN(x):
		return p.fault(NotANumber, pc, "the value is NaN and the contract needs a number")
	case math.IsInf(x, 0):
		return p.fault(OutOfRange, pc, "%v is not finite", x)
	case x < in.lo:
		return p.fault(OutOfRange, pc, "%v is below the minimum %v", x, in.lo)
	default:
		return p.fault(OutOfRange, pc, "%v is above the maximum %v", x, in.hi)
	}
}

// The errors below are for the instruction before pc.

func (p *program) fault(class ErrorClass, pc int, format string, args ...any) error {
	return &RecordError{Class: class, Path: p.paths[pc-1], Err: fmt.Errorf(format, args...)}
}

func (p *program) truncated(pc, length int) error {
	return p.fault(Truncated, pc, "the event ends here, after %d bytes", length)
}

func (p *program) malformed(pc int, format string, args ...any) error {
	return p.fault(Malformed, pc, format, args...)
}

func (p *program) badLength(pc int, length int64, total int) error {
	if length < 0 {
		return p.malformed(pc, "a length is %d", length)
	}
	return p.truncated(pc, total)
}
