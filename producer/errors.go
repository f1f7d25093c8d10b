package producer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// What a caller of a Publisher must tell apart with errors.Is. An error that is none of these, nor the end of the
// caller's context, is fatal: repeating the unit would fail again.
var (
	// ErrFenced: somebody else owns the transactional id, or the coordinator aborted the transaction after its
	// timeout. This publisher publishes nothing more. While the group still gives the partition to this member, a
	// new publisher takes the id back.
	ErrFenced = errors.New("fenced")

	// ErrStaleMember: the group has moved on and does not accept offsets in the name of this member and generation.
	// The unit stays open: call Commit again with the new identity.
	ErrStaleMember = errors.New("stale group member")

	// ErrAbortable: call Abort, read again from the committed offset and repeat the unit.
	ErrAbortable = errors.New("abort and repeat")
)

// RecordTooLargeError says that a record cannot be sent.
type RecordTooLargeError struct {
	Topic     string
	Partition int32
	Size      int // bytes: encoded and before compression where Limit is known, else as the broker saw it
	Limit     int // bytes; 0 where only the broker knows it
}

func (e *RecordTooLargeError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("record of %[1]d bytes for %[2]s/%[3]d exceeds the topic's max.message.bytes: kafka-configs.sh --alter --entity-type topics --entity-name %[2]s --add-config max.message.bytes=%[1]d", e.Size, e.Topic, e.Partition)
	}
	return fmt.Sprintf("record of %d bytes for %s exceeds max_batch_bytes (%d)", e.Size, e.Topic, e.Limit)
}

// Error is a failed operation: what was tried, on what, what Kafka answered and what helps. It unwraps to one of the
// sentinels where one applies, to kafka.Error(Code), and to the cause.
type Error struct {
	Operation string // for example "produce"
	Object    string // for example "churn-scores/3"
	Code      int16  // Kafka's error code; 0 where no answer came
	Remedy    string // what must be changed; empty where nothing needs to be
	Cause     error  // nil where Code says it all

	verdict verdict
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", e.Operation, e.Object)
	if e.Code != 0 {
		fmt.Fprintf(&b, ": %s (%d)", codeName(e.Code), e.Code)
	}
	if e.Remedy != "" {
		fmt.Fprintf(&b, ": %s", e.Remedy)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	return b.String()
}

// Unwrap gives errors.Is and errors.As the sentinel, Kafka's code and the cause.
func (e *Error) Unwrap() []error {
	var all []error
	switch e.verdict {
	case staleMember:
		all = append(all, ErrStaleMember)
	case fenced:
		all = append(all, ErrFenced)
	case abortable:
		all = append(all, ErrAbortable)
	default: // fatal, or not an error at all
	}
	if e.Code != 0 {
		all = append(all, kafka.Error(e.Code))
	}
	// The end of an attempt's time must not be taken for the end of the caller's context.
	if e.Cause != nil && !errors.Is(e.Cause, context.DeadlineExceeded) && !errors.Is(e.Cause, context.Canceled) {
		all = append(all, e.Cause)
	}
	return all
}

// verdict is what an error code means for the unit in hand. Larger is worse: of several partitions' codes the worst
// decides.
type verdict uint8

const (
	accepted        verdict = iota // not an error
	repeat                         // the same request, later
	repeatElsewhere                // the same request, after asking who leads or coordinates
	staleMember
	abortable
	fenced
	fatal
)

// codes holds every code of the Kafka protocol as it applies to InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn,
// Produce, TxnOffsetCommit, EndTxn, OffsetCommit, FindCoordinator and Metadata. A code that none of these answers is
// fatal, as is one that is not listed.
//
// Some differ from the Java client's choice: INVALID_TXN_STATE and INVALID_PRODUCER_ID_MAPPING are abortable, because
// Abort asks InitProducerId with the old id and epoch (KIP-360), which restores the owner and fences anyone else.
var codes = map[int16]struct {
	name    string
	verdict verdict
}{
	-1:  {"UNKNOWN_SERVER_ERROR", abortable},
	1:   {"OFFSET_OUT_OF_RANGE", fatal},
	2:   {"CORRUPT_MESSAGE", repeat},
	3:   {"UNKNOWN_TOPIC_OR_PARTITION", repeatElsewhere},
	4:   {"INVALID_FETCH_SIZE", fatal},
	5:   {"LEADER_NOT_AVAILABLE", repeatElsewhere},
	6:   {"NOT_LEADER_OR_FOLLOWER", repeatElsewhere},
	7:   {"REQUEST_TIMED_OUT", repeatElsewhere},
	8:   {"BROKER_NOT_AVAILABLE", repeatElsewhere},
	9:   {"REPLICA_NOT_AVAILABLE", repeatElsewhere},
	10:  {"MESSAGE_TOO_LARGE", fatal},
	11:  {"STALE_CONTROLLER_EPOCH", fatal},
	12:  {"OFFSET_METADATA_TOO_LARGE", fatal},
	13:  {"NETWORK_EXCEPTION", repeatElsewhere},
	14:  {"COORDINATOR_LOAD_IN_PROGRESS", repeat},
	15:  {"COORDINATOR_NOT_AVAILABLE", repeatElsewhere},
	16:  {"NOT_COORDINATOR", repeatElsewhere},
	17:  {"INVALID_TOPIC_EXCEPTION", fatal},
	18:  {"RECORD_LIST_TOO_LARGE", fatal},
	19:  {"NOT_ENOUGH_REPLICAS", repeat},
	20:  {"NOT_ENOUGH_REPLICAS_AFTER_APPEND", repeat},
	21:  {"INVALID_REQUIRED_ACKS", fatal},
	22:  {"ILLEGAL_GENERATION", staleMember},
	23:  {"INCONSISTENT_GROUP_PROTOCOL", fatal},
	24:  {"INVALID_GROUP_ID", fatal},
	25:  {"UNKNOWN_MEMBER_ID", staleMember},
	26:  {"INVALID_SESSION_TIMEOUT", fatal},
	27:  {"REBALANCE_IN_PROGRESS", staleMember},
	28:  {"INVALID_COMMIT_OFFSET_SIZE", fatal},
	29:  {"TOPIC_AUTHORIZATION_FAILED", fatal},
	30:  {"GROUP_AUTHORIZATION_FAILED", fatal},
	31:  {"CLUSTER_AUTHORIZATION_FAILED", fatal},
	32:  {"INVALID_TIMESTAMP", fatal},
	33:  {"UNSUPPORTED_SASL_MECHANISM", fatal},
	34:  {"ILLEGAL_SASL_STATE", fatal},
	35:  {"UNSUPPORTED_VERSION", fatal},
	36:  {"TOPIC_ALREADY_EXISTS", fatal},
	37:  {"INVALID_PARTITIONS", fatal},
	38:  {"INVALID_REPLICATION_FACTOR", fatal},
	39:  {"INVALID_REPLICA_ASSIGNMENT", fatal},
	40:  {"INVALID_CONFIG", fatal},
	41:  {"NOT_CONTROLLER", fatal},
	42:  {"INVALID_REQUEST", fatal},
	43:  {"UNSUPPORTED_FOR_MESSAGE_FORMAT", fatal},
	44:  {"POLICY_VIOLATION", fatal},
	45:  {"OUT_OF_ORDER_SEQUENCE_NUMBER", abortable},
	46:  {"DUPLICATE_SEQUENCE_NUMBER", accepted},
	47:  {"INVALID_PRODUCER_EPOCH", fenced},
	48:  {"INVALID_TXN_STATE", abortable},
	49:  {"INVALID_PRODUCER_ID_MAPPING", abortable},
	50:  {"INVALID_TRANSACTION_TIMEOUT", fatal},
	51:  {"CONCURRENT_TRANSACTIONS", repeat},
	52:  {"TRANSACTION_COORDINATOR_FENCED", fatal},
	53:  {"TRANSACTIONAL_ID_AUTHORIZATION_FAILED", fatal},
	54:  {"SECURITY_DISABLED", fatal},
	55:  {"OPERATION_NOT_ATTEMPTED", fatal},
	56:  {"KAFKA_STORAGE_ERROR", repeatElsewhere},
	57:  {"LOG_DIR_NOT_FOUND", fatal},
	58:  {"SASL_AUTHENTICATION_FAILED", fatal},
	59:  {"UNKNOWN_PRODUCER_ID", abortable},
	60:  {"REASSIGNMENT_IN_PROGRESS", fatal},
	61:  {"DELEGATION_TOKEN_AUTH_DISABLED", fatal},
	62:  {"DELEGATION_TOKEN_NOT_FOUND", fatal},
	63:  {"DELEGATION_TOKEN_OWNER_MISMATCH", fatal},
	64:  {"DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", fatal},
	65:  {"DELEGATION_TOKEN_AUTHORIZATION_FAILED", fatal},
	66:  {"DELEGATION_TOKEN_EXPIRED", fatal},
	67:  {"INVALID_PRINCIPAL_TYPE", fatal},
	68:  {"NON_EMPTY_GROUP", fatal},
	69:  {"GROUP_ID_NOT_FOUND", staleMember},
	70:  {"FETCH_SESSION_ID_NOT_FOUND", fatal},
	71:  {"INVALID_FETCH_SESSION_EPOCH", fatal},
	72:  {"LISTENER_NOT_FOUND", repeatElsewhere},
	73:  {"TOPIC_DELETION_DISABLED", fatal},
	74:  {"FENCED_LEADER_EPOCH", repeatElsewhere},
	75:  {"UNKNOWN_LEADER_EPOCH", repeatElsewhere},
	76:  {"UNSUPPORTED_COMPRESSION_TYPE", fatal},
	77:  {"STALE_BROKER_EPOCH", fatal},
	78:  {"OFFSET_NOT_AVAILABLE", fatal},
	79:  {"MEMBER_ID_REQUIRED", fatal},
	80:  {"PREFERRED_LEADER_NOT_AVAILABLE", fatal},
	81:  {"GROUP_MAX_SIZE_REACHED", fatal},
	82:  {"FENCED_INSTANCE_ID", staleMember},
	83:  {"ELIGIBLE_LEADERS_NOT_AVAILABLE", fatal},
	84:  {"ELECTION_NOT_NEEDED", fatal},
	85:  {"NO_REASSIGNMENT_IN_PROGRESS", fatal},
	86:  {"GROUP_SUBSCRIBED_TO_TOPIC", fatal},
	87:  {"INVALID_RECORD", fatal},
	88:  {"UNSTABLE_OFFSET_COMMIT", repeat},
	89:  {"THROTTLING_QUOTA_EXCEEDED", repeat},
	90:  {"PRODUCER_FENCED", fenced},
	91:  {"RESOURCE_NOT_FOUND", fatal},
	92:  {"DUPLICATE_RESOURCE", fatal},
	93:  {"UNACCEPTABLE_CREDENTIAL", fatal},
	94:  {"INCONSISTENT_VOTER_SET", fatal},
	95:  {"INVALID_UPDATE_VERSION", fatal},
	96:  {"FEATURE_UPDATE_FAILED", fatal},
	97:  {"PRINCIPAL_DESERIALIZATION_FAILURE", fatal},
	98:  {"SNAPSHOT_NOT_FOUND", fatal},
	99:  {"POSITION_OUT_OF_RANGE", fatal},
	100: {"UNKNOWN_TOPIC_ID", repeatElsewhere},
	101: {"DUPLICATE_BROKER_REGISTRATION", fatal},
	102: {"BROKER_ID_NOT_REGISTERED", fatal},
	103: {"INCONSISTENT_TOPIC_ID", repeatElsewhere},
	104: {"INCONSISTENT_CLUSTER_ID", fatal},
	105: {"TRANSACTIONAL_ID_NOT_FOUND", fatal},
	106: {"FETCH_SESSION_TOPIC_ID_ERROR", fatal},
	107: {"INELIGIBLE_REPLICA", fatal},
	108: {"NEW_LEADER_ELECTED", repeatElsewhere},
	109: {"OFFSET_MOVED_TO_TIERED_STORAGE", fatal},
	110: {"FENCED_MEMBER_EPOCH", staleMember},
	111: {"UNRELEASED_INSTANCE_ID", fatal},
	112: {"UNSUPPORTED_ASSIGNOR", fatal},
	113: {"STALE_MEMBER_EPOCH", staleMember},
	114: {"MISMATCHED_ENDPOINT_TYPE", fatal},
	115: {"UNSUPPORTED_ENDPOINT_TYPE", fatal},
	116: {"UNKNOWN_CONTROLLER_ID", fatal},
	117: {"UNKNOWN_SUBSCRIPTION_ID", fatal},
	118: {"TELEMETRY_TOO_LARGE", fatal},
	119: {"INVALID_REGISTRATION", fatal},
	120: {"TRANSACTION_ABORTABLE", abortable},
	121: {"INVALID_RECORD_STATE", fatal},
	122: {"SHARE_SESSION_NOT_FOUND", fatal},
	123: {"INVALID_SHARE_SESSION_EPOCH", fatal},
	124: {"FENCED_STATE_EPOCH", fatal},
	125: {"INVALID_VOTER_KEY", fatal},
	126: {"DUPLICATE_VOTER", fatal},
	127: {"VOTER_NOT_FOUND", fatal},
	128: {"INVALID_REGULAR_EXPRESSION", fatal},
	129: {"REBOOTSTRAP_REQUIRED", fatal},
	130: {"STREAMS_INVALID_TOPOLOGY", fatal},
	131: {"STREAMS_INVALID_TOPOLOGY_EPOCH", fatal},
	132: {"STREAMS_TOPOLOGY_FENCED", fatal},
	133: {"SHARE_SESSION_LIMIT_REACHED", fatal},
	134: {"GROUP_DELETION_FAILED", fatal},
	135: {"STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED", fatal},
	136: {"CONTROLLER_ID_NOT_REGISTERED", fatal},
}

func verdictOf(code int16) verdict {
	if code == 0 {
		return accepted
	}
	if c, ok := codes[code]; ok {
		return c.verdict
	}
	return fatal
}

func codeName(code int16) string {
	if c, ok := codes[code]; ok {
		return c.name
	}
	return "UNKNOWN_CODE"
}

// Codes that this package names.
const (
	codeUnknownTopicOrPartition int16 = 3
	codeLeaderNotAvailable      int16 = 5
	codeMessageTooLarge         int16 = 10
	codeRecordListTooLarge      int16 = 18
	codeTopicAuthorization      int16 = 29
	codeGroupAuthorization      int16 = 30
	codeClusterAuthorization    int16 = 31
	codeInvalidTimestamp        int16 = 32
	codeUnsupportedVersion      int16 = 35
	codeInvalidTxnState         int16 = 48
	codeInvalidTxnTimeout       int16 = 50
	codeTxnIDAuthorization      int16 = 53
)

// operation is one kind of request and what it is about: enough to word its errors.
type operation struct {
	name            string // as in the message and in the metric's label
	object          string
	topic           string // empty where the operation is not about one topic
	topicRight      string // what the operation needs on topics
	group           string
	transactionalID string
}

// on narrows an operation to one topic partition.
func (o operation) on(topic string, partition int32) operation {
	o.topic, o.object = topic, fmt.Sprintf("%s/%d", topic, partition)
	return o
}

// refused is the error for a code that a broker answered; nil for an accepted one.
func (o operation) refused(code int16) error {
	v := verdictOf(code)
	if v == accepted {
		return nil
	}
	return &Error{Operation: o.name, Object: o.object, Code: code, Remedy: o.remedy(code), verdict: v}
}

// failed is the error for anything that went wrong: an *Error is taken as it is, another one by the code it holds or
// as a lost answer.
func (o operation) failed(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	e = &Error{Operation: o.name, Object: o.object, Cause: err, verdict: fatal}
	if code := kafkawire.CodeOf(err); code != 0 {
		e.Code, e.Remedy, e.verdict = code, o.remedy(code), verdictOf(code)
		return e
	}
	if moved, retriable := kafkawire.Retriable(err); moved {
		e.verdict = repeatElsewhere
	} else if retriable {
		e.verdict = repeat
	}
	return e
}

func (o operation) remedy(code int16) string {
	topic := o.topic
	if topic == "" {
		topic = "every topic in it"
	}
	switch code {
	case codeUnknownTopicOrPartition:
		return fmt.Sprintf("topic %s does not exist or may not be described (needs DESCRIBE)", topic)
	case codeTopicAuthorization:
		return fmt.Sprintf("needs %s on topic %s", o.topicRight, topic)
	case codeGroupAuthorization:
		return fmt.Sprintf("needs READ on group %s", o.group)
	case codeClusterAuthorization:
		return "needs IDEMPOTENT_WRITE on the cluster"
	case codeTxnIDAuthorization:
		return fmt.Sprintf("needs WRITE on TransactionalId %s", o.transactionalID)
	case codeInvalidTimestamp:
		return fmt.Sprintf("topic %s refuses the time of an event: raise its message.timestamp.before.max.ms or message.timestamp.after.max.ms", topic)
	case codeInvalidTxnTimeout:
		return "transaction_timeout exceeds the broker's transaction.max.timeout.ms"
	case codeUnsupportedVersion:
		return "the broker is too old: exactly-once needs Kafka 2.5, at-least-once 2.3"
	default:
		return ""
	}
}
