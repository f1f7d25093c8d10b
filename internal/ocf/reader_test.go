package ocf

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"
)

// interop gives the files of testdata by name.
func interop(tb testing.TB) map[string][]byte {
	tb.Helper()
	archive, err := zip.OpenReader("testdata/files.zip")
	if err != nil {
		tb.Fatal(err)
	}
	defer archive.Close()
	files := map[string][]byte{}
	for _, f := range archive.File {
		in, err := f.Open()
		if err != nil {
			tb.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			tb.Fatal(err)
		}
		files[f.Name] = content
	}
	return files
}

// records reads a whole file and counts; goavro takes the blocks apart where it knows the schema.
func records(file []byte) (count int, err error) {
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return 0, err
	}
	defer r.Close()
	codec, unknown := goavro.NewCodec(r.Schema())
	for {
		block, n, err := r.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		count += n
		if unknown != nil {
			continue
		}
		for ; n > 0; n-- {
			if _, block, err = codec.NativeFromBinary(block); err != nil {
				return count, fmt.Errorf("a record: %w", err)
			}
		}
		if len(block) > 0 {
			return count, fmt.Errorf("%d bytes are left over", len(block))
		}
	}
}

// TestFilesOfOtherProjectsAreRead has every file that is not named to be whole; those named are broken on purpose.
func TestFilesOfOtherProjectsAreRead(t *testing.T) {
	broken := map[string]string{
		"apache-avro/test.avro12":                                "not with",
		"goavro-fixtures/bad-header.avro":                        "not with",
		"goavro-fixtures/blockCountExceedsMaxBlockCount.avro":    "block 1: unexpected EOF",
		"goavro-fixtures/blockSizeExceedsMaxBlockSize.avro":      "at most 67108864 bytes",
		"goavro-fixtures/blockSizeNotGreaterThanZero.avro":       "block 1: unexpected EOF",
		"goavro-fixtures/cannotDiscardBlockBytes.avro":           "block 1: unexpected EOF",
		"goavro-fixtures/cannotReadBlockSize.avro":               "block 1: unexpected EOF",
		"goavro-fixtures/cannotReadSyncMarker.avro":              "block 1: unexpected EOF",
		"goavro-fixtures/firstBlockCountNotGreaterThanZero.avro": "block 1: unexpected EOF",
		"goavro-fixtures/secondBlockCountZero.avro":              "1 bytes are left over",
		"goavro-fixtures/syncMarkerMismatch.avro":                "synchronization marker",
		"goavro-fixtures/temp0.avro":                             "header: unexpected EOF",
		"goavro-fixtures/temp1.avro":                             "unexpected EOF",
		"hamba-ocf/deflate-invalid-data.avro":                    "corrupt",
		"hamba-ocf/snappy-invalid-crc.avro":                      "checksum is wrong",
		"hamba-ocf/snappy-invalid-data.avro":                     "corrupt",
		"hamba-ocf/snappy-short-crc.avro":                        "checksum is missing",
		"hamba-ocf/zstd-invalid-data.avro":                       "zstandard",
	}
	counts := map[string]int{
		"apache-avro/weather.avro": 5, "apache-avro/weather-zstd.avro": 5, "apache-avro/weather-snappy.avro": 5, "apache-avro/weather-deflate.avro": 5,
		"fastavro-files/test-null-B.avro": 200, "fastavro-files/test-snappy.avro": 400, "fastavro-files/test-deflate-6-B.avro": 200,
		"fastavro-files/java-generated-uuid.avro": 151, "fastavro-files/no-fields.avro": 1, "fastavro-files/recursive.avro": 2,
		"hamba-ocf/full-appended.avro": 2, "goavro-fixtures/temp4.avro": 4, "fastavro-files/weather-legacy-with-names.avro": 3,
	}
	files := interop(t)
	if len(files) < 60 {
		t.Fatalf("%d files", len(files))
	}
	for name, content := range files {
		n, err := records(content)
		if why := broken[name]; why != "" {
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: %d records, %v; want an error that says %q", name, n, err, why)
			}
			continue
		}
		if want, known := counts[name]; err != nil || known && n != want {
			t.Errorf("%s: %d records, want %d: %v", name, n, want, err)
		}
	}
}

// container writes a file with one block.
func container(schema, codec string, count, size int64, block []byte) []byte {
	text := func(dst []byte, s string) []byte { return append(binary.AppendVarint(dst, int64(len(s))), s...) }
	file := append([]byte(magic), 4)
	file = text(text(file, "avro.schema"), schema)
	file = text(text(file, "avro.codec"), codec)
	file = append(append(file, 0), "0123456789abcdef"...)
	file = append(binary.AppendVarint(binary.AppendVarint(file, count), size), block...)
	return append(file, "0123456789abcdef"...)
}

func TestWhatAFileSaysOfItsSizeIsNotBelieved(t *testing.T) {
	bomb := []byte{0xff, 0xff, 0xff, 0x7f, 0, 'a', 0, 0, 0, 0}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"a block of 2^40 bytes", container(`"int"`, "null", 1, 1<<40, nil), "at most"},
		{"a block of 60 MB that is not there", container(`"int"`, "null", 1, 60<<20, []byte{2}), "unexpected EOF"},
		{"a negative size", container(`"int"`, "null", 1, -1, nil), "none"},
		{"a negative count", container(`"int"`, "null", -1, 0, nil), "none"},
		{"snappy that promises 256 MB", container(`"int"`, "snappy", 1, int64(len(bomb)), bomb), "snappy"},
		{"an unknown codec", container(`"int"`, "bzip2", 1, 0, nil), `codec "bzip2"`},
		{"no schema", append([]byte(magic), make([]byte, 17)...), "no avro.schema"},
		{"an entry of 2^40 bytes", append([]byte(magic), binary.AppendVarint([]byte{2}, 1<<40)...), "at most"},
		{"2^40 entries", binary.AppendVarint([]byte(magic), 1<<40), "none"},
		{"nothing", nil, "unexpected EOF"},
	} {
		if n, err := records(c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %d records, %v, want %q", c.name, n, err, c.want)
		}
	}
	if n, err := records(container(`"int"`, "null", 2, 2, []byte{2, 4})); n != 2 || err != nil {
		t.Errorf("a whole file: %d %v", n, err)
	}
}

func FuzzReader(f *testing.F) {
	for _, content := range interop(f) {
		if len(content) < 1000 {
			f.Add(content)
		}
	}
	f.Add(container(`"int"`, "null", 2, 2, []byte{2, 4}))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := NewReader(bytes.NewReader(file))
		if err != nil {
			return
		}
		defer r.Close()
		for {
			_, n, err := r.Next()
			if err != nil {
				break
			}
			if n < 0 {
				t.Fatalf("%d records", n)
			}
		}
	})
}
