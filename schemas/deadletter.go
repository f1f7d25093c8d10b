package schemas

// DeadLetter says why a record could not be scored, churn.v1.DeadLetter. The dead-letter record keeps the original key,
// value and headers; this travels beside them as headers.
type DeadLetter struct {
	Class           ErrorClass
	Message         string
	SourceTopic     string
	SourcePartition int32
	SourceOffset    int64
	Timestamp       int64 // of the original record, milliseconds since 1970
	Attempt         int32 // 1 for the first failure
	WorkerVersion   string
}

// Names of the headers that a dead letter adds. All but HeaderDeadLetter hold text; HeaderDeadLetter holds the framed
// Avro form. HeaderLeftOut is there only where key, value and headers were too large to be kept.
//
// An event that was sent again has HeaderAttempt, the failures so far, and HeaderOrigin, the topic/partition@offset of
// its first failure, which stays through all further ones.
const (
	HeaderPrefix     = "churnstream." // of them all: reserved
	HeaderOrigin     = "churnstream.origin"
	HeaderLeftOut    = "churnstream.left-out"
	HeaderClass      = "churnstream.class"
	HeaderError      = "churnstream.error"
	HeaderTopic      = "churnstream.topic"
	HeaderPartition  = "churnstream.partition"
	HeaderOffset     = "churnstream.offset"
	HeaderTimestamp  = "churnstream.timestamp"
	HeaderAttempt    = "churnstream.attempt"
	HeaderVersion    = "churnstream.version"
	HeaderDeadLetter = "churnstream.dead-letter"
)

// AppendAvro appends the Avro body to dst and returns it. It allocates only where dst is too short.
func (d *DeadLetter) AppendAvro(dst []byte) []byte {
	dst = appendString(dst, d.Class)
	dst = appendString(dst, d.Message)
	dst = appendString(dst, d.SourceTopic)
	dst = appendLong(dst, int64(d.SourcePartition))
	dst = appendLong(dst, d.SourceOffset)
	dst = appendLong(dst, d.Timestamp)
	dst = appendLong(dst, int64(d.Attempt))
	return appendString(dst, d.WorkerVersion)
}

// DecodeDeadLetter reads an Avro body that was written with the current schema into d. The error is a *[RecordError].
func DecodeDeadLetter(body []byte, d *DeadLetter) error {
	r := wireReader{b: body}
	r.string((*string)(&d.Class))
	r.string(&d.Message)
	r.string(&d.SourceTopic)
	d.SourcePartition = r.int()
	d.SourceOffset = r.long()
	d.Timestamp = r.long()
	d.Attempt = r.int()
	r.string(&d.WorkerVersion)
	return r.finish("dead letter")
}
