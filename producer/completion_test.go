package producer

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// TestRecordsWaitUntilTheTransactionBeforeIsComplete lets the coordinator take its time: no Produce goes out before it
// calls the transaction complete.
func TestRecordsWaitUntilTheTransactionBeforeIsComplete(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		states  []string // answers, one after the other
		refused *kerr.Error
		looks   int32
	}{
		{name: "complete at once", states: []string{"CompleteCommit"}, looks: 1},
		{name: "markers take a while", states: []string{"PrepareCommit", "PrepareCommit", "PrepareCommit", "CompleteCommit"}, looks: 4},
		{name: "aborting", states: []string{"PrepareAbort", "CompleteAbort"}, looks: 2},
		{name: "nothing left", states: []string{"Empty"}, looks: 1},
		{name: "no right to ask", refused: kerr.TransactionalIDAuthorizationFailed, looks: 1},
		{name: "coordinator on the move", refused: kerr.NotCoordinator, looks: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cluster := newFake(t)
			c := connect(t, cluster.ListenAddrs())
			out, in, group := c.topic(1), c.topic(1), uniqueName("group")
			p := c.transactional(DefaultConfig(), uniqueName("tx"))
			publish := func(offset int64) {
				mustBegin(t, c.context(), p)
				mustAppend(t, p, out, 0, "record")
				if err := p.Commit(c.context(), anyMember(group), []Offset{{Topic: in, Offset: offset}}); err != nil {
					t.Fatal(err)
				}
			}
			publish(1)
			p.protocol.(*implicit).completion.limit = time.Hour // the machine may be slow
			var looks, early atomic.Int32
			cluster.ControlKey(int16(kmsg.DescribeTransactions), func(request kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				n := looks.Add(1)
				response := request.ResponseKind().(*kmsg.DescribeTransactionsResponse)
				state := kmsg.NewDescribeTransactionsResponseTransactionState()
				if test.refused != nil {
					state.ErrorCode = test.refused.Code
				} else {
					state.State = test.states[min(int(n), len(test.states))-1]
				}
				response.TransactionStates = append(response.TransactionStates, state)
				return response, nil, true
			})
			cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				if looks.Load() < test.looks {
					early.Add(1)
				}
				return nil, nil, false
			})
			publish(2)
			if looks.Load() != test.looks || early.Load() != 0 {
				t.Errorf("%d looks, want %d; %d Produce requests went out before the last", looks.Load(), test.looks, early.Load())
			}
		})
	}
}

func TestATransactionThatEndedLongAgoIsNotAskedAbout(t *testing.T) {
	t.Parallel()
	c := completion{limit: lastLook, pending: true, ended: time.Now().Add(-lastLook)}
	if err := c.wait(t.Context()); err != nil || c.pending {
		t.Errorf("pending: %v, %v", c.pending, err)
	}
}

func FuzzDescribeTransactions(f *testing.F) {
	response := kmsg.NewPtrDescribeTransactionsResponse()
	state := kmsg.NewDescribeTransactionsResponseTransactionState()
	state.State, state.TransactionalID = "PrepareCommit", "id"
	response.TransactionStates = append(response.TransactionStates, state)
	f.Add(response.AppendTo(nil))
	f.Fuzz(func(_ *testing.T, body []byte) {
		_, _ = decodeEnding(&kafkawire.Reader{B: body, Flexible: true})
	})
}
