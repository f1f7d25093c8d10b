package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// rowSplitter cuts the body of a batch into its rows without looking into them, so that several goroutines can. It
// belongs to one request. What it cuts wrongly, because a row is not what its form demands, the reader of that row finds.
type rowSplitter struct {
	from  io.Reader
	cut   func(*rowSplitter) (bool, error) // goes on to the end of the next row; false: more text is needed
	limit int                              // bytes of a row

	buf     []byte
	pos     int   // up to where buf was looked at
	begun   int   // start in buf of the row in hand
	start   int64 // of buf in the body
	ended   bool  // the body has no more
	row     span  // that cut found
	rows    int   // found so far
	lines   int   // ended before pos, of a table
	line    int   // ended before begun, likewise
	rowLine int   // ended before the row that cut found

	quoted  bool // pos is in a string or a quoted cell
	escaped bool // the byte at pos is escaped
	depth   int  // of an array's text; 1: between its elements
	closed  bool // the array has ended
	comma   bool // an element must follow
}

// span is a part of a text.
type span struct{ start, end int }

// chunkRows and chunkBytes bound the rows that one goroutine takes at once.
const (
	chunkRows  = 256
	chunkBytes = 64 << 10
)

// errRowTooLong refuses a row that is larger than a body of one row may be.
var errRowTooLong = errors.New("the row is too long")

// fill puts the next rows into the chunk, at most so many. With io.EOF and any other error the rows before it are there.
func (s *rowSplitter) fill(c *chunk, most int) error {
	c.rows, c.first = c.rows[:0], s.rows
	from := -1
	for {
		found, err := s.cut(s)
		if found && s.row.end-s.row.start > s.limit {
			found, err = false, errRowTooLong
		}
		switch {
		case found:
			if from < 0 {
				from, c.line = s.row.start, s.rowLine
			}
			c.rows = append(c.rows, span{s.row.start - from, s.row.end - from})
			s.rows++
			if len(c.rows) < most && s.pos-from < chunkBytes {
				continue
			}
			c.take(s, from)
			return nil
		case err != nil:
		case s.ended:
			err = io.EOF
		case from >= 0 && s.pos-from >= chunkBytes:
			c.take(s, from)
			return nil
		case s.pos-s.begun > s.limit:
			err = errRowTooLong
		default:
			from, err = s.read(from)
		}
		if err != nil {
			c.take(s, from)
			return err
		}
	}
}

// take copies the text of the rows out of the splitter, from the start of the first on.
func (c *chunk) take(s *rowSplitter, from int) {
	c.text = c.text[:0]
	if len(c.rows) > 0 {
		c.text = append(c.text, s.buf[from:from+c.rows[len(c.rows)-1].end]...)
		c.start = s.start + int64(from)
	}
}

// read gets more text. What was handed out already makes place for it; from is where the rows in hand begin, -1: there
// are none.
func (s *rowSplitter) read(from int) (int, error) {
	keep := s.begun
	if from >= 0 {
		keep = from
	}
	if len(s.buf) == cap(s.buf) {
		if keep < cap(s.buf)/2 { // a long row: room for as much again
			s.buf = append(make([]byte, 0, max(2*chunkBytes, 2*cap(s.buf))), s.buf[keep:]...)
		} else {
			s.buf = s.buf[:copy(s.buf, s.buf[keep:])]
		}
		s.pos, s.begun, s.start = s.pos-keep, s.begun-keep, s.start+int64(keep)
		if from >= 0 {
			from = 0
		}
	}
	n, err := s.from.Read(s.buf[len(s.buf):cap(s.buf)])
	s.buf = s.buf[:len(s.buf)+n]
	if errors.Is(err, io.EOF) {
		s.ended, err = true, nil
	}
	return from, err
}

// found notes the row in hand, which ends at end, and goes on behind next-1.
func (s *rowSplitter) found(end, next int) {
	s.row, s.rowLine, s.line = span{s.begun, end}, s.line, s.lines
	s.begun, s.pos = next, next
}

// cutLine finds JSON lines. Lines of blanks are passed over.
func cutLine(s *rowSplitter) (bool, error) {
	for {
		end, next := len(s.buf), len(s.buf)
		if at := bytes.IndexByte(s.buf[s.pos:], '\n'); at >= 0 {
			end, next = s.pos+at, s.pos+at+1
		} else if s.pos = len(s.buf); !s.ended || s.begun == len(s.buf) {
			return false, nil
		}
		s.found(end, next)
		if len(bytes.Trim(s.buf[s.row.start:end], " \t\r")) > 0 {
			return true, nil
		}
	}
}

// cutRecord finds the records of CSV, whose cells may hold line breaks in quotes. Empty lines are passed over, as
// encoding/csv does.
func cutRecord(s *rowSplitter) (bool, error) {
	for {
		at := bytes.IndexByte(s.buf[s.pos:], '\n')
		if at < 0 {
			if !s.ended {
				s.quoted = s.quoted != (bytes.Count(s.buf[s.pos:], quote)&1 == 1)
				s.pos = len(s.buf)
				return false, nil
			}
			if s.begun == len(s.buf) {
				s.pos = len(s.buf)
				return false, nil
			}
			s.found(len(s.buf), len(s.buf))
			if string(s.buf[s.row.start:]) == "\r" {
				return false, nil
			}
			return true, nil
		}
		s.quoted = s.quoted != (bytes.Count(s.buf[s.pos:s.pos+at], quote)&1 == 1)
		s.pos += at + 1
		s.lines++
		if s.quoted {
			continue
		}
		s.found(s.pos, s.pos)
		if line := s.buf[s.row.start:s.row.end]; len(line) > 2 || len(line) == 2 && line[0] != '\r' {
			return true, nil
		}
	}
}

var quote = []byte{'"'}

// cutElement finds the elements of a JSON array. That an element is one value, its reader finds out: here it ends where
// strings, brackets and commas say so.
func cutElement(s *rowSplitter) (bool, error) {
	if s.depth == 0 && !s.closed {
		if !s.skipSpace() {
			return false, s.ends("an array")
		}
		if s.buf[s.pos] != '[' {
			return false, s.fault("an array")
		}
		s.pos++
		s.begun, s.depth = s.pos, 1
	}
	if s.closed {
		if s.skipSpace() {
			return false, s.fault("the end of the text")
		}
		return false, nil
	}
	return s.cutInArray()
}

// skipSpace goes on to what is no white space; false: the text in hand has no more.
func (s *rowSplitter) skipSpace() bool {
	for s.pos < len(s.buf) && isSpace(s.buf[s.pos]) {
		s.pos++
	}
	s.begun = s.pos
	return s.pos < len(s.buf)
}

// cutInArray goes on in an array. What it looks at of every byte is in variables, not in memory.
func (s *rowSplitter) cutInArray() (bool, error) {
	buf, i, quoted, escaped := s.buf, s.pos, s.quoted, s.escaped
	for ; i < len(buf); i++ {
		c := buf[i]
		if quoted {
			switch {
			case escaped:
				escaped = false
			case c == '\\':
				escaped = true
			case c == '"':
				quoted = false
			}
			continue
		}
		if c == '"' {
			quoted = true
			continue
		}
		if c != ',' && c|0x20 != '{' && c|0x20 != '}' { // the brackets differ in that bit
			continue
		}
		switch {
		case c == '{' || c == '[':
			s.depth++
		case s.depth > 1:
			if c != ',' {
				s.depth--
			}
		case c == '}':
			s.pos = i
			return false, s.fault("',' or ']'")
		case c == ',':
			s.comma, s.quoted, s.escaped = true, false, false
			s.found(i, i+1)
			return true, nil
		default:
			s.closed, s.depth, s.quoted, s.escaped = true, 0, false, false
			empty := len(bytes.TrimLeft(buf[s.begun:i], " \t\r\n")) == 0
			s.found(i, i+1)
			if empty && !s.comma {
				return cutElement(s)
			}
			return true, nil
		}
	}
	s.pos, s.quoted, s.escaped = i, quoted, escaped
	return false, s.ends("',' or ']'")
}

// ends is the fault of a text that ends too early, where it has ended.
func (s *rowSplitter) ends(want string) error {
	if !s.ended {
		return nil
	}
	return notJSON{fmt.Errorf("the JSON text ends at byte %d where %s is expected", s.start+int64(s.pos), want)}
}

func (s *rowSplitter) fault(want string) error {
	return notJSON{fmt.Errorf("byte %d: %q where %s is expected", s.start+int64(s.pos), rune(s.buf[s.pos]), want)}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }
