package schemas

import "context"

// ErrSchemaNotFound says that the registry answered and does not know the id: the record is bad, not the registry.
const ErrSchemaNotFound = constError("the registry does not know the schema")

// ErrSchemaUnsupported says that the registry knows the id and it is not one that events can be read with, such as a
// Protobuf schema: the record is bad, not the registry.
const ErrSchemaUnsupported = constError("the schema cannot be used")

// ErrIncompatible says that the registry refused a schema because readers of its subject could not follow.
const ErrIncompatible = constError("the schema is incompatible with an earlier version")

// ErrRegistryDown says that the registry could not be reached or failed: the same call may succeed later.
const ErrRegistryDown = constError("the schema registry does not answer")

// Registry gives writer schemas by id and publishes our own. It must be safe for concurrent use.
type Registry interface {
	// SchemaByID returns the schema's text. An error that wraps ErrSchemaNotFound is about the id; every other error is
	// an outage.
	SchemaByID(ctx context.Context, id int32) (string, error)
	// Register publishes a schema under a subject and returns its id; the same schema again gives the same id.
	Register(ctx context.Context, subject, schema string) (int32, error)
}
