package schemas

import (
	"fmt"
)

// ErrorClass names why a record cannot be scored. The names are published: dead letters and metrics carry them.
type ErrorClass string

// The classes of bad records.
const (
	NullKey        ErrorClass = "null_key"        // the record has no customer id
	EmptyValue     ErrorClass = "empty_value"     // a tombstone or no bytes at all
	BadMagic       ErrorClass = "bad_magic"       // not the Confluent wire format
	UnknownSchema  ErrorClass = "unknown_schema"  // the registry does not know the id
	SchemaMismatch ErrorClass = "schema_mismatch" // the writer's type cannot become the input's kind
	Truncated      ErrorClass = "truncated"       // the bytes end inside a value
	TrailingBytes  ErrorClass = "trailing_bytes"  // bytes are left over after the event
	Malformed      ErrorClass = "malformed"       // bytes that no Avro writer produces
	MissingField   ErrorClass = "missing_field"   // a required input is null or not in the writer's schema
	OutOfRange     ErrorClass = "out_of_range"    // below min, above max, or infinite
	NotANumber     ErrorClass = "not_a_number"    // NaN in a required number
	InvalidUTF8    ErrorClass = "invalid_utf8"    // a category or key that is not text
	// UnknownCategory is a value that a model does not know and was trained to refuse.
	UnknownCategory ErrorClass = "unknown_category"
)

// ErrorClasses lists every class, in the order of the constants.
func ErrorClasses() []ErrorClass {
	return []ErrorClass{
		NullKey, EmptyValue, BadMagic, UnknownSchema, SchemaMismatch, Truncated,
		TrailingBytes, Malformed, MissingField, OutOfRange, NotANumber, InvalidUTF8, UnknownCategory,
	}
}

// RecordError says that a record is bad in itself: reading it again gives the same error, so it belongs into the
// dead-letter topic. Every other error of decoding is an outage of something else.
type RecordError struct {
	Class ErrorClass
	Path  string // the input's place in the event, empty where the whole record is meant
	Err   error
}

// Error gives class, place and cause.
func (e *RecordError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s: %v", e.Class, e.Err)
	}
	return fmt.Sprintf("%s: field %q: %v", e.Class, e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *RecordError) Unwrap() error { return e.Err }

// CheckKey returns a *[RecordError] for a key that cannot name a customer: null_key where it is null or empty,
// invalid_utf8 where it is not text (the score carries it as an Avro string).
func CheckKey(key []byte) error {
	if len(key) == 0 {
		return &RecordError{Class: NullKey, Path: "key", Err: errNoKey}
	}
	if !isUTF8(key) {
		return &RecordError{Class: InvalidUTF8, Path: "key", Err: errKeyNotText}
	}
	return nil
}

const (
	errNoKey      = constError("the record has no key; produce with the customer id as the key")
	errKeyNotText = constError("the key is not UTF-8; produce with the customer id as text")
)

// constError is an error that can be a constant.
type constError string

func (e constError) Error() string { return string(e) }
