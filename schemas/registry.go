package schemas

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/churnstream/churnstream/internal/avroschema"
)

// ErrSchemaNotFound says that the registry answered and does not know the id: the record is bad, not the registry.
const ErrSchemaNotFound = constError("the registry does not know the schema")

// ErrSchemaUnsupported says that the registry knows the id and it is not one that events can be read with, such as a
// Protobuf schema: the record is bad, not the registry.
const ErrSchemaUnsupported = constError("the schema cannot be used")

// ErrIncompatible says that the registry refused a schema because readers of its subject could not follow.
const ErrIncompatible = constError("the schema is incompatible with an earlier version")

// ErrRegistryDown says that the registry could not be reached or failed: the same call may succeed later.
const ErrRegistryDown = constError("the schema registry does not answer")

// Schema is the text of an Avro schema and of those that it refers to by name, each before its first use.
type Schema struct {
	Text       string
	References []string
}

// Fingerprint returns the CRC-64-AVRO fingerprint of the schema's canonical form.
func (s Schema) Fingerprint() (uint64, error) {
	t, err := avroschema.Parse(s.Text, s.References...)
	if err != nil {
		return 0, err
	}
	return t.CRC64(), nil
}

// SHA256 returns the SHA-256 fingerprint of the schema's canonical form.
func (s Schema) SHA256() (sum [sha256.Size]byte, err error) {
	t, err := avroschema.Parse(s.Text, s.References...)
	if err != nil {
		return sum, err
	}
	return t.SHA256(), nil
}

// Registry gives writer schemas by id and publishes our own. It must be safe for concurrent use.
type Registry interface {
	// SchemaByID returns a schema. An error that wraps ErrSchemaNotFound or ErrSchemaUnsupported is about the id; every
	// other error is an outage.
	SchemaByID(ctx context.Context, id int32) (Schema, error)
	// Register publishes a schema under a subject and returns its id; the same schema again gives the same id.
	Register(ctx context.Context, subject, schema string) (int32, error)
}

// FingerprintRegistry also finds schemas by fingerprint, for single-object encoding.
type FingerprintRegistry interface {
	Registry
	// SchemaByFingerprint returns the version of a subject that has a CRC-64-AVRO fingerprint. Its errors are those of
	// SchemaByID.
	SchemaByFingerprint(ctx context.Context, subject string, fingerprint uint64) (Schema, error)
}

// SubjectStrategy says under which subject the schema of a topic's values is registered. The names are those of the
// Confluent serializers. The zero SubjectStrategy is TopicName.
type SubjectStrategy uint8

// The strategies.
const (
	TopicName       SubjectStrategy = iota // <topic>-value
	RecordName                             // <full name of the record>
	TopicRecordName                        // <topic>-<full name of the record>
)

var strategyNames = [...]string{TopicName: "topic", RecordName: "record", TopicRecordName: "topic-record"}

// String returns the name used in configuration.
func (s SubjectStrategy) String() string {
	if int(s) >= len(strategyNames) {
		return fmt.Sprintf("strategy(%d)", uint8(s))
	}
	return strategyNames[s]
}

// UnmarshalText reads a strategy's name.
func (s *SubjectStrategy) UnmarshalText(text []byte) error {
	for i, name := range strategyNames {
		if name == string(text) {
			*s = SubjectStrategy(i)
			return nil
		}
	}
	return fmt.Errorf("subject strategy %q is unknown: use topic, record or topic-record", text)
}

// Subject returns the subject of the values of a topic that are written with schema. A schema without a name has none
// but by the topic.
func (s SubjectStrategy) Subject(topic, schema string) (string, error) {
	if s == TopicName {
		return Subject(topic), nil
	}
	t, err := avroschema.Parse(schema)
	if err != nil {
		return "", err
	}
	if t.Name == "" {
		return "", fmt.Errorf("the schema of topic %s is %s and has no name; subject strategy %s needs one, use topic", topic, t, s)
	}
	if s == RecordName {
		return t.Name, nil
	}
	return topic + "-" + t.Name, nil
}
