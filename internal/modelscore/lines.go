package modelscore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/churnstream/churnstream/schemas"
)

// lines is what writers have in common: a JSON object a row, counted from 0.
type lines struct {
	out      *bufio.Writer
	names    [][]byte // of the inputs as JSON; nil: no contributions
	line     []byte
	written  int
	progress func(int)
	reported int
}

func newLines(out io.Writer, o Options) lines {
	return lines{out: bufio.NewWriterSize(out, 64<<10), progress: o.Progress}
}

// nameContributions asks for contributions under these names.
func (l *lines) nameContributions(inputs []string) error {
	for _, input := range inputs {
		if input == "bias" {
			return errors.New("contributions: an input is named \"bias\", which is the name of the constant part")
		}
		name, err := json.Marshal(input)
		if err != nil {
			return fmt.Errorf("contributions: input %q: %w", input, err)
		}
		l.names = append(l.names, name)
	}
	return nil
}

// run reads rows into the batch until there are no more, and flushes it whenever it holds size of them. What came before
// a row that is at fault is written.
func (l *lines) run(ctx context.Context, next func(*schemas.Rows) error, batch *schemas.Rows, size int, flush func() error) (written int, err error) {
	for {
		err := next(batch)
		if err == nil && batch.Len() < size {
			continue
		}
		if failed := errors.Join(flush(), ctx.Err()); failed != nil {
			return l.written, fmt.Errorf("score rows: %w", errors.Join(failed, l.out.Flush()))
		}
		if errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			continue
		}
		if err = errors.Join(err, l.out.Flush()); err != nil {
			return l.written, fmt.Errorf("score rows: %w", err)
		}
		return l.written, nil
	}
}

// begin is the line of the next row up to its number.
func (l *lines) begin() []byte {
	return strconv.AppendInt(append(l.line[:0], `{"row":`...), int64(l.written), 10)
}

// end closes and writes the line.
func (l *lines) end(line []byte) error {
	line = append(line, '}', '\n')
	l.line = line
	if _, err := l.out.Write(line); err != nil {
		return err
	}
	l.written++
	return nil
}

// report tells of the rows written, about every thousand.
func (l *lines) report() {
	if l.progress != nil && l.written-l.reported >= 1000 {
		l.reported = l.written
		l.progress(l.written)
	}
}
