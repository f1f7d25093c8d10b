package consumer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

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
	lz4  *lz4.Reader
	zstd *zstd.Decoder
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
		d.in.Reset(src)
		if d.lz4 == nil {
			d.lz4 = lz4.NewReader(nil)
		}
		d.lz4.Reset(&d.in)
		return d.appendAll(dst, d.lz4, len(src))
	case 4:
		return d.appendZstd(dst, src)
	}
	return dst, fmt.Errorf("codec %d is unknown: %w", codec, ErrCorrupt)
}

func (d *decompressor) close() {
	if d.zstd != nil {
		d.zstd.Close()
	}
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

func (d *decompressor) appendZstd(dst, src []byte) ([]byte, error) {
	if d.zstd == nil {
		var err error
		d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(false),
			zstd.WithDecoderMaxMemory(uint64(d.limit)))
		if err != nil {
			return dst, fmt.Errorf("zstd: %w", err)
		}
	}
	start := len(dst)
	out, err := d.zstd.DecodeAll(src, dst)
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
