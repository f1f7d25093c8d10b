package producer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
)

func TestEveryCodeHasItsNameAndVerdict(t *testing.T) {
	t.Parallel()
	want := map[verdict][]int16{
		accepted:        {46},
		repeat:          {2, 14, 19, 20, 51, 88, 89},
		repeatElsewhere: {3, 5, 6, 7, 8, 9, 13, 15, 16, 56, 72, 74, 75, 100, 103, 108},
		staleMember:     {22, 25, 27, 69, 82, 110, 113},
		abortable:       {-1, 45, 48, 49, 59, 120},
		fenced:          {47, 90},
	}
	got := map[verdict][]int16{}
	highest := int16(0)
	for code := int16(-2); code < 1000; code++ {
		err := kerr.ErrorForCode(code)
		known, listed := codes[code]
		var e *kerr.Error
		if code == 0 || !errors.As(err, &e) || e.Code != code {
			if listed {
				t.Errorf("%d (%s) is not a code of Kafka", code, known.name)
			}
			if code != 0 && verdictOf(code) != fatal {
				t.Errorf("the unknown code %d is not fatal", code)
			}
			continue
		}
		highest = max(highest, code)
		if !listed {
			t.Errorf("%s (%d) is not in the table", e.Message, code)
			continue
		}
		if known.name != e.Message && code != 6 { // renamed NOT_LEADER_OR_FOLLOWER in Kafka 2.6
			t.Errorf("%d is called %s, want %s", code, known.name, e.Message)
		}
		if known.verdict != fatal {
			got[known.verdict] = append(got[known.verdict], code)
		}
	}
	if highest < 133 {
		t.Fatalf("the oracle knows codes up to %d only", highest)
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("verdicts: %v, want %v", got, want)
	}
}

func TestErrorNamesOperationObjectCodeAndRemedy(t *testing.T) {
	t.Parallel()
	produce := operation{name: "produce", topicRight: "WRITE", transactionalID: "tx-1"}.on("scores", 3)
	offsets := operation{name: "commit offsets", object: "group g", topicRight: "READ", group: "g"}
	for _, test := range []struct {
		op   operation
		code int16
		want string
	}{
		{produce, 29, "produce scores/3: TOPIC_AUTHORIZATION_FAILED (29): needs WRITE on topic scores"},
		{produce, 53, "produce scores/3: TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53): needs WRITE on TransactionalId tx-1"},
		{produce, 3, "produce scores/3: UNKNOWN_TOPIC_OR_PARTITION (3): topic scores does not exist or may not be described (needs DESCRIBE)"},
		{produce, 31, "produce scores/3: CLUSTER_AUTHORIZATION_FAILED (31): needs IDEMPOTENT_WRITE on the cluster"},
		{offsets, 30, "commit offsets group g: GROUP_AUTHORIZATION_FAILED (30): needs READ on group g"},
		{offsets.on("events", 0), 29, "commit offsets events/0: TOPIC_AUTHORIZATION_FAILED (29): needs READ on topic events"},
		{offsets, 4711, "commit offsets group g: UNKNOWN_CODE (4711)"},
	} {
		err := test.op.refused(test.code)
		if err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
		if !errors.Is(err, kafka.Error(test.code)) {
			t.Errorf("%v does not unwrap to Kafka's code", err)
		}
	}
	if err := produce.refused(46); err != nil {
		t.Errorf("DUPLICATE_SEQUENCE_NUMBER is an error: %v", err)
	}
}

func TestLostAnswersAreRepeatedAndNeverTakenForTheCallersContext(t *testing.T) {
	t.Parallel()
	op := operation{name: "produce", object: "records"}
	for _, cause := range []error{io.EOF, context.DeadlineExceeded, fmt.Errorf("wrapped: %w", io.ErrUnexpectedEOF)} {
		e := op.failed(cause)
		if e.verdict != repeatElsewhere {
			t.Errorf("%v: verdict %d", cause, e.verdict)
		}
		if errors.Is(e, context.DeadlineExceeded) {
			t.Errorf("%v looks like the end of the caller's context", cause)
		}
		if !strings.Contains(e.Error(), cause.Error()) {
			t.Errorf("%v hides its cause", e)
		}
	}
	if e := op.failed(errors.New("x509: unknown authority")); e.verdict != fatal {
		t.Errorf("an unknown error is not fatal: %d", e.verdict)
	}
}
