package schemas

import _ "embed" // the schema files

//go:embed avsc/score.avsc
var scoreSchema string

//go:embed avsc/dead_letter.avsc
var deadLetterSchema string

//go:embed avsc/drift_state.avsc
var driftStateSchema string

//go:embed avsc/drift_alert.avsc
var driftAlertSchema string

//go:embed avsc/audit.avsc
var auditSchema string

// ScoreSchema returns the Avro schema of [Score].
func ScoreSchema() string { return scoreSchema }

// DeadLetterSchema returns the Avro schema of [DeadLetter].
func DeadLetterSchema() string { return deadLetterSchema }

// DriftStateSchema returns the Avro schema of [DriftState].
func DriftStateSchema() string { return driftStateSchema }

// DriftAlertSchema returns the Avro schema of [DriftAlert].
func DriftAlertSchema() string { return driftAlertSchema }

// AuditSchema returns the Avro schema of [Audit].
func AuditSchema() string { return auditSchema }

// DeadLetterSubject is the registry subject of [DeadLetter], which is a header and therefore has no topic of its own.
const DeadLetterSubject = "churn.v1.DeadLetter"

// Subject returns the registry subject of the values of a topic.
func Subject(topic string) string { return topic + "-value" }
