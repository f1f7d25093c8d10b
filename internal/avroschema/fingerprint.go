package avroschema

import "crypto/sha256"

// CRC64 returns the CRC-64-AVRO fingerprint of the schema's canonical form: the one that single-object encoding carries,
// there in little-endian order.
func (t *Type) CRC64() uint64 { return crc64([]byte(t.Canonical())) }

// SHA256 returns the SHA-256 fingerprint of the schema's canonical form.
func (t *Type) SHA256() [sha256.Size]byte { return sha256.Sum256([]byte(t.Canonical())) }

// crc64 is the specification's algorithm, bit by bit: a schema has one fingerprint, computed once.
func crc64(text []byte) uint64 {
	const empty = 0xc15d213aa4d7a795
	crc := uint64(empty)
	for _, b := range text {
		mixed := (crc ^ uint64(b)) & 0xff
		for range 8 {
			mixed = mixed>>1 ^ empty&-(mixed&1)
		}
		crc = crc>>8 ^ mixed
	}
	return crc
}
