package producer

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Compression is the codec of a record batch. Its value is the one in the batch's attributes.
type Compression uint8

// The codecs of the record batch format.
const (
	None Compression = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

// String returns the name that configuration files use.
func (c Compression) String() string {
	switch c {
	case None:
		return "none"
	case Gzip:
		return "gzip"
	case Snappy:
		return "snappy"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	default:
		return fmt.Sprintf("compression(%d)", uint8(c))
	}
}

// MarshalText returns the codec's name.
func (c Compression) MarshalText() ([]byte, error) {
	if c > Zstd {
		return nil, fmt.Errorf("unknown compression %d", uint8(c))
	}
	return []byte(c.String()), nil
}

// UnmarshalText accepts none, gzip, snappy, lz4 and zstd.
func (c *Compression) UnmarshalText(text []byte) error {
	for codec := None; codec <= Zstd; codec++ {
		if codec.String() == string(text) {
			*c = codec
			return nil
		}
	}
	return fmt.Errorf("unknown compression %q: use none, gzip, snappy, lz4 or zstd", text)
}

// Compressor compresses with one codec and keeps the encoder between calls. It belongs to one goroutine.
type Compressor struct {
	codec Compression
	sink  sliceWriter
	gzip  *gzip.Writer
	lz4   *lz4.Writer
	zstd  *zstd.Encoder
}

// NewCompressor returns a compressor for codec. The encoder's memory is allocated at the first use.
func NewCompressor(codec Compression) (*Compressor, error) {
	if codec > Zstd {
		return nil, fmt.Errorf("unknown compression %d: use none, gzip, snappy, lz4 or zstd", uint8(codec))
	}
	return &Compressor{codec: codec}, nil
}

// Append appends the compressed form of src to dst.
func (c *Compressor) Append(dst, src []byte) ([]byte, error) {
	switch c.codec {
	case Gzip:
		return c.appendGzip(dst, src)
	case Snappy:
		return appendSnappy(dst, src), nil
	case LZ4:
		return c.appendLZ4(dst, src)
	case Zstd:
		return c.appendZstd(dst, src)
	default:
		return append(dst, src...), nil
	}
}

func (c *Compressor) appendGzip(dst, src []byte) ([]byte, error) {
	c.sink.b = dst
	if c.gzip == nil {
		c.gzip = gzip.NewWriter(&c.sink)
	} else {
		c.gzip.Reset(&c.sink)
	}
	if _, err := c.gzip.Write(src); err != nil {
		return dst, fmt.Errorf("gzip: %w", err)
	}
	if err := c.gzip.Close(); err != nil {
		return dst, fmt.Errorf("gzip: %w", err)
	}
	return c.sink.take(), nil
}

// snappyBlock is the block size of the Java library's framing.
const snappyBlock = 32 << 10

// appendSnappy writes the framing of the Java library (xerial snappy-java), which every Kafka client reads: a header,
// then blocks with their length in front.
func appendSnappy(dst, src []byte) []byte {
	dst = append(dst, 0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1)
	for len(src) > 0 {
		block := src[:min(len(src), snappyBlock)]
		src = src[len(block):]
		at := len(dst)
		dst = append(dst, 0, 0, 0, 0)
		need := s2.MaxEncodedLen(len(block))
		if cap(dst)-len(dst) < need {
			grown := make([]byte, len(dst), 2*cap(dst)+need)
			copy(grown, dst)
			dst = grown
		}
		encoded := s2.EncodeSnappy(dst[len(dst):len(dst)+need], block)
		dst = dst[:len(dst)+len(encoded)]
		binary.BigEndian.PutUint32(dst[at:], uint32(len(encoded)))
	}
	return dst
}

func (c *Compressor) appendLZ4(dst, src []byte) ([]byte, error) {
	c.sink.b = dst
	if c.lz4 == nil {
		c.lz4 = lz4.NewWriter(&c.sink)
		// 64 KiB independent blocks are what Java's reader allocates for; the batch has its own checksum.
		if err := c.lz4.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)); err != nil {
			return dst, fmt.Errorf("lz4: %w", err)
		}
	} else {
		c.lz4.Reset(&c.sink)
	}
	if _, err := c.lz4.Write(src); err != nil {
		return dst, fmt.Errorf("lz4: %w", err)
	}
	if err := c.lz4.Close(); err != nil {
		return dst, fmt.Errorf("lz4: %w", err)
	}
	return c.sink.take(), nil
}

func (c *Compressor) appendZstd(dst, src []byte) ([]byte, error) {
	if c.zstd == nil {
		// A window of 1 MiB spans a whole default batch; one encoder, because a compressor has one owner.
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20),
			zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
		if err != nil {
			return dst, fmt.Errorf("zstd: %w", err)
		}
		c.zstd = e
	}
	return c.zstd.EncodeAll(src, dst), nil
}

// sliceWriter lets stream encoders append to a slice.
type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

func (w *sliceWriter) take() []byte {
	b := w.b
	w.b = nil
	return b
}
