package feed

import (
	"errors"
	"fmt"
	"io"

	"github.com/churnstream/churnstream/internal/ocf"
	"github.com/churnstream/churnstream/schemas"
)

// Container gives the events of an Avro object container file as they are in it: frame, which names the file's schema,
// and the record's own bytes. Errors name the record, counted from 1. Close it in the end.
type Container struct {
	file     *ocf.Reader
	splitter *schemas.Splitter
	frame    []byte
	block    []byte // what is left of it
	count    int    // records left in it
	record   int    // number of the last one
	value    []byte
}

// OpenContainer reads the header of a file. key is the path of the field with the customer id.
func OpenContainer(in io.Reader, key string) (*Container, error) {
	file, err := ocf.NewReader(in)
	if err != nil {
		return nil, err
	}
	splitter, err := schemas.NewSplitter(file.Schema(), key)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("name the field with the customer id by --key: %w", err)
	}
	return &Container{file: file, splitter: splitter}, nil
}

// Schema returns the text of the schema that the file was written with.
func (c *Container) Schema() string { return c.file.Schema() }

// SetFrame says what stands before each record.
func (c *Container) SetFrame(frame []byte) { c.frame = frame }

// Close ends reading.
func (c *Container) Close() { c.file.Close() }

// Next gives the event of the next record.
func (c *Container) Next(e *Event) (err error) {
	for c.count == 0 {
		if len(c.block) > 0 {
			return fmt.Errorf("after record %d: %d bytes are left in its block", c.record, len(c.block))
		}
		if c.block, c.count, err = c.file.Next(); err != nil {
			return err
		}
	}
	c.count--
	c.record++
	record, key, rest, err := c.splitter.Split(c.block, e.Key[:0])
	if err != nil {
		var bad *schemas.RecordError
		if errors.As(err, &bad) && bad.Class == schemas.Truncated {
			return fmt.Errorf("record %d: its block ends before it, %d records were promised: %w", c.record, c.count+1, err)
		}
		return fmt.Errorf("record %d: %w", c.record, err)
	}
	c.block = rest
	c.value = append(append(c.value[:0], c.frame...), record...)
	e.Key, e.Value = key, c.value
	return nil
}
