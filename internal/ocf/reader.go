// Package ocf takes Avro object container files and gives their schema and, block by block, the bytes of their records.
//
// It reads the codecs null, deflate, snappy and zstandard. Memory is bounded by one block, and a block by limits: a file
// says how large its blocks are, and a damaged one may say anything.
package ocf

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

const (
	magic = "Obj\x01"
	// maxMetadata bounds the header, which holds the schema.
	maxMetadata = 8 << 20
	// maxEntries bounds the header's entries.
	maxEntries = 1024
	// maxStored bounds a block as it is in the file; writers make them of 16 KiB to a few MiB.
	maxStored = 64 << 20
	// maxBlock bounds a block after decompression.
	maxBlock = 256 << 20
)

// Reader reads one file. It is not safe for concurrent use.
type Reader struct {
	in     *bufio.Reader
	schema string
	codec  string
	sync   [16]byte
	block  int // number of the last block
	zstd   *zstd.Decoder
	stored []byte // reused
	plain  bytes.Buffer
}

// NewReader reads the header of a file. Close lets go of what decompression needs.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 64<<10)}
	if err := r.header(); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("avro container file: header: %w", err)
	}
	return r, nil
}

// Schema returns the text of the schema that the records were written with.
func (r *Reader) Schema() string { return r.schema }

// Close ends reading.
func (r *Reader) Close() {
	if r.zstd != nil {
		r.zstd.Close()
	}
}

func (r *Reader) header() error {
	start := make([]byte, len(magic))
	if _, err := io.ReadFull(r.in, start); err != nil {
		return err
	}
	if string(start) != magic {
		return fmt.Errorf("the file begins with % x, not with %q", start, magic)
	}
	r.codec = "null"
	left := int64(maxMetadata)
	entries := 0
	for {
		count, err := r.long()
		if err != nil {
			return err
		}
		if count == 0 {
			break
		}
		if count < 0 { // its size follows
			if _, err := r.long(); err != nil {
				return err
			}
			count = -count
		}
		if entries++; count < 0 || count > maxEntries || entries > maxEntries {
			return fmt.Errorf("a block of %d entries is none", count)
		}
		for ; count > 0; count-- {
			key, err := r.bytes(&left)
			if err != nil {
				return err
			}
			value, err := r.bytes(&left)
			if err != nil {
				return err
			}
			switch string(key) {
			case "avro.schema":
				r.schema = string(value)
			case "avro.codec":
				r.codec = string(value)
			}
		}
	}
	if _, err := io.ReadFull(r.in, r.sync[:]); err != nil {
		return err
	}
	if r.schema == "" {
		return errors.New("there is no avro.schema")
	}
	switch r.codec {
	case "null", "deflate", "snappy":
		return nil
	case "zstandard":
		decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlock))
		r.zstd = decoder
		return err
	default:
		return fmt.Errorf("codec %q is not supported; write the file with null, deflate, snappy or zstandard", r.codec)
	}
}

// Next returns the bytes of the next block's records, valid until the next call, and how many there are. After the last
// block the error is io.EOF; every other error names the block, the first being 1.
func (r *Reader) Next() (records []byte, count int, err error) {
	if _, err := r.in.Peek(1); errors.Is(err, io.EOF) {
		return nil, 0, io.EOF
	}
	r.block++
	records, count, err = r.next()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, 0, fmt.Errorf("avro container file: block %d: %w", r.block, err)
	}
	return records, count, nil
}

func (r *Reader) next() ([]byte, int, error) {
	count, err := r.long()
	if err != nil {
		return nil, 0, err
	}
	size, err := r.long()
	if err != nil {
		return nil, 0, err
	}
	if count < 0 || count > math.MaxInt32 || size < 0 || size > maxStored {
		return nil, 0, fmt.Errorf("%d records in %d bytes is none; a block has at most %d bytes", count, size, maxStored)
	}
	r.plain.Reset()
	if _, err := io.CopyN(&r.plain, r.in, size); err != nil { // grows with what is there, not with what is said
		return nil, 0, err
	}
	r.stored = append(r.stored[:0], r.plain.Bytes()...)
	var sync [16]byte
	if _, err := io.ReadFull(r.in, sync[:]); err != nil {
		return nil, 0, err
	}
	if sync != r.sync {
		return nil, 0, errors.New("the synchronization marker after it is not the file's; the file is damaged")
	}
	records, err := r.decompress(r.stored)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", r.codec, err)
	}
	return records, int(count), nil
}

func (r *Reader) decompress(stored []byte) ([]byte, error) {
	r.plain.Reset()
	switch r.codec {
	case "deflate":
		_, err := io.Copy(&r.plain, io.LimitReader(flate.NewReader(bytes.NewReader(stored)), maxBlock+1))
		return r.bounded(r.plain.Bytes(), err)
	case "snappy":
		if len(stored) < 4 {
			return nil, errors.New("the checksum is missing")
		}
		packed, sum := stored[:len(stored)-4], binary.BigEndian.Uint32(stored[len(stored)-4:])
		size, err := snappy.DecodedLen(packed)
		if err != nil || size > maxBlock {
			return r.bounded(make([]byte, 0), errors.Join(err, sizeFault(size)))
		}
		if size > 64*(len(packed)+64) { // three bytes make 64 at most
			return nil, fmt.Errorf("%d bytes cannot become %d", len(packed), size)
		}
		plain, err := snappy.Decode(nil, packed)
		if err == nil && crc32.ChecksumIEEE(plain) != sum {
			err = errors.New("the checksum is wrong")
		}
		return plain, err
	case "zstandard":
		if err := r.zstd.Reset(bytes.NewReader(stored)); err != nil {
			return nil, err
		}
		_, err := io.Copy(&r.plain, io.LimitReader(r.zstd, maxBlock+1))
		return r.bounded(r.plain.Bytes(), err)
	default:
		return stored, nil
	}
}

func sizeFault(size int) error {
	if size <= maxBlock {
		return nil
	}
	return fmt.Errorf("the block has more than %d bytes when it is unpacked", maxBlock)
}

func (r *Reader) bounded(plain []byte, err error) ([]byte, error) {
	if err == nil {
		err = sizeFault(len(plain))
	}
	return plain, err
}

func (r *Reader) long() (int64, error) { return binary.ReadVarint(r.in) }

// bytes reads a length and as many bytes, and counts them against what is left of a bound.
func (r *Reader) bytes(left *int64) ([]byte, error) {
	n, err := r.long()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > *left {
		return nil, fmt.Errorf("an entry of %d bytes is none; the header has at most %d", n, maxMetadata)
	}
	*left -= n
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r.in, n); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
