package consumer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// ErrBatchTooLarge says that a record batch exceeds its limit once decompressed.
var ErrBatchTooLarge = errors.New("the decompressed record batch is too large; raise fetch.max_batch_bytes if it is genuine")

// decompressor undoes Kafka's four codecs. Its readers are kept; it belongs to one goroutine.
type decompressor struct {
	limit int // decompressed bytes of one batch

	in   bytes.Reader
	gzip *gzip.Reader
	zstd *sharedZstd
}

// sharedZstd is one zstd decoder for many decompressors: its state is large and needed for the
// moment of decompressing only.
type sharedZstd struct {
	limit int
	once  sync.Once
	*zstd.Decoder
	err error
}

func (z *sharedZstd) get() (*zstd.Decoder, error) {
	z.once.Do(func() {
		z.Decoder, z.err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(uint64(z.limit)))
	})
	return z.Decoder, z.err
}

// append decompresses src behind dst and returns the extended slice.
func (d *decompressor) append(dst []byte, codec uint16, src []byte) ([]byte, error) {
	switch codec {
	case 1:
		d.in.Reset(src)
		if d.gzip == nil {
			d.gzip = new(gzip.Reader)
		}
		if err := d.gzip.Reset(&d.in); err != nil {
			return dst, errors.Join(err, ErrCorrupt)
		}
		return d.appendAll(dst, d.gzip, len(src))
	case 2:
		return d.appendSnappy(dst, src)
	case 3:
		return d.appendLZ4(dst, src)
	case 4:
		return d.appendZstd(dst, src)
	}
	return dst, fmt.Errorf("codec %d is unknown: %w", codec, ErrCorrupt)
}

// appendAll reads r to its end, growing dst as data really come, not by what they claim.
func (d *decompressor) appendAll(dst []byte, r io.Reader, compressed int) ([]byte, error) {
	start := len(dst)
	dst = slices.Grow(dst, min(4*compressed, d.limit)+1)
	for {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, min(len(dst)-start, d.limit)+1)
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if len(dst)-start > d.limit {
			return dst[:start], fmt.Errorf("more than %d bytes: %w", d.limit, ErrBatchTooLarge)
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst[:start], errors.Join(err, ErrCorrupt)
		}
	}
}

// xerial is how Java's snappy stream starts; its blocks follow, each behind its big-endian length.
// Other clients write one bare block.
var xerial = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const xerialHeader = 16

func (d *decompressor) appendSnappy(dst, src []byte) ([]byte, error) {
	start := len(dst)
	if !bytes.HasPrefix(src, xerial) {
		return d.appendSnappyBlock(dst, src, start)
	}
	if len(src) < xerialHeader {
		return dst, fmt.Errorf("snappy header of %d bytes: %w", len(src), ErrCorrupt)
	}
	for src = src[xerialHeader:]; len(src) > 0; {
		if len(src) < 4 {
			return dst[:start], fmt.Errorf("snappy block length cut off: %w", ErrCorrupt)
		}
		n := binary.BigEndian.Uint32(src)
		if src = src[4:]; uint64(n) > uint64(len(src)) {
			return dst[:start], fmt.Errorf("snappy block of %d bytes, %d are left: %w", n, len(src), ErrCorrupt)
		}
		var err error
		if dst, err = d.appendSnappyBlock(dst, src[:n], start); err != nil {
			return dst[:start], err
		}
		src = src[n:]
	}
	return dst, nil
}

func (d *decompressor) appendSnappyBlock(dst, src []byte, start int) ([]byte, error) {
	n, err := snappy.DecodedLen(src)
	if err != nil {
		return dst, errors.Join(err, ErrCorrupt)
	}
	if n > d.limit-(len(dst)-start) {
		return dst, fmt.Errorf("more than %d bytes: %w", d.limit, ErrBatchTooLarge)
	}
	if n > 64*len(src) { // a snappy copy of three bytes yields 64 at most
		return dst, fmt.Errorf("snappy block of %d bytes claims %d: %w", len(src), n, ErrCorrupt)
	}
	end := len(dst)
	dst = slices.Grow(dst, n)
	out, err := snappy.Decode(dst[end:end+n], src)
	if err != nil {
		return dst[:end], errors.Join(err, ErrCorrupt)
	}
	return dst[:end+len(out)], nil
}

// Layout of an LZ4 frame: magic, flags, block size, optional content size and dictionary, header
// checksum, blocks behind their little-endian sizes, an end mark, optional checksums. The checksums
// are not looked at: the record batch has its own over the same bytes.
const (
	lz4Magic           = 0x184d2204
	lz4Version         = 0x40 // in the upper two bits of the flags
	lz4Independent     = 0x20
	lz4BlockChecksum   = 0x10
	lz4ContentSize     = 0x08
	lz4ContentChecksum = 0x04
	lz4Dictionary      = 0x01
	lz4Plain           = 1 << 31 // in a block's size: it is not compressed
	lz4Window          = 64 << 10
	lz4Ratio           = 255 // no block yields more for a byte
)

// appendLZ4 decompresses frames block by block into dst itself: the library's reader goes through
// buffers of its own of two whole blocks, which are of 4 MiB in what Go clients write.
func (d *decompressor) appendLZ4(dst, src []byte) ([]byte, error) {
	start := len(dst)
	for len(src) > 0 {
		var err error
		if dst, src, err = d.appendLZ4Frame(dst, src, start); err != nil {
			return dst[:start], err
		}
	}
	return dst, nil
}

func (d *decompressor) appendLZ4Frame(dst, src []byte, start int) (out, rest []byte, err error) {
	if len(src) < 7 || binary.LittleEndian.Uint32(src) != lz4Magic || src[4]&0xc0 != lz4Version {
		return dst, nil, fmt.Errorf("no lz4 frame: %w", ErrCorrupt)
	}
	flags, blockSize := src[4], int(src[5]>>4&7)
	if flags&lz4Dictionary != 0 || blockSize < 4 {
		return dst, nil, fmt.Errorf("lz4 frame with flags %#x and block size %d: %w", flags, blockSize, ErrCorrupt)
	}
	most := 1 << (2*blockSize + 8)
	header, trailer := 7, 0
	if flags&lz4ContentSize != 0 {
		header += 8
	}
	if flags&lz4BlockChecksum != 0 {
		trailer = 4
	}
	if len(src) < header {
		return dst, nil, fmt.Errorf("lz4 header of %d bytes: %w", len(src), ErrCorrupt)
	}
	frame := len(dst)
	for src = src[header:]; ; {
		if len(src) < 4 {
			return dst, nil, fmt.Errorf("lz4 block length cut off: %w", ErrCorrupt)
		}
		n := binary.LittleEndian.Uint32(src)
		if src = src[4:]; n == 0 {
			break
		}
		size := int(n &^ lz4Plain)
		if size > most || size+trailer > len(src) {
			return dst, nil, fmt.Errorf("lz4 block of %d bytes, %d are left: %w", size, len(src), ErrCorrupt)
		}
		block := src[:size]
		src = src[size+trailer:]
		left := d.limit - (len(dst) - start)
		if n&lz4Plain != 0 {
			if size > left {
				return dst, nil, fmt.Errorf("more than %d bytes: %w", d.limit, ErrBatchTooLarge)
			}
			dst = append(dst, block...)
			continue
		}
		var window []byte
		if flags&lz4Independent == 0 {
			window = dst[max(frame, len(dst)-lz4Window):]
		}
		if dst, err = appendLZ4Block(dst, block, window, most, left); err != nil {
			return dst, nil, err
		}
	}
	if flags&lz4ContentChecksum != 0 {
		if len(src) < 4 {
			return dst, nil, fmt.Errorf("lz4 checksum cut off: %w", ErrCorrupt)
		}
		src = src[4:]
	}
	return dst, src, nil
}

// appendLZ4Block decompresses one block of at most most bytes. A block does not say how large it
// becomes, so that a short room may be as much the reason of a failure as a fault: the room grows
// with the attempts, up to what the block can yield at all.
func appendLZ4Block(dst, block, window []byte, most, left int) ([]byte, error) {
	bound := min(most, lz4Ratio*len(block))
	limit := min(bound, left)
	end := len(dst)
	for room := min(max(2*len(block), cap(dst)-end), limit); ; room = min(2*room, limit) {
		grown := slices.Grow(dst, room)
		n, err := lz4.UncompressBlockWithDict(block, grown[end:end+room], window)
		if err == nil {
			return grown[:end+n], nil
		}
		switch {
		case room < limit:
			continue
		case limit < bound:
			return dst, fmt.Errorf("more than the limit: %w", ErrBatchTooLarge)
		}
		return dst, errors.Join(err, ErrCorrupt)
	}
}

func (d *decompressor) appendZstd(dst, src []byte) ([]byte, error) {
	decoder, err := d.zstd.get()
	if err != nil {
		return dst, fmt.Errorf("zstd: %w", err)
	}
	start := len(dst)
	out, err := decoder.DecodeAll(src, dst)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return dst, fmt.Errorf("more than %d bytes: %w", d.limit, ErrBatchTooLarge)
	case err != nil:
		return dst, errors.Join(err, ErrCorrupt)
	case len(out)-start > d.limit:
		return dst, fmt.Errorf("more than %d bytes: %w", d.limit, ErrBatchTooLarge)
	}
	return out, nil
}
