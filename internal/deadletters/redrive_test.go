package deadletters

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// desk is a topic of dead letters with what works on it.
type desk struct {
	t       *testing.T
	brokers []string
	client  *kafkawire.Client
	other   *kgo.Client // of another make
	job     Job
	source  string
}

func newDesk(t *testing.T, brokers []string) *desk {
	t.Helper()
	d := &desk{t: t, brokers: brokers, source: testkit.Topic(t, brokers, "events", 3)}
	d.job = Job{
		Topic: testkit.Topic(t, brokers, "dead", 2), Group: testkit.Name(t, "job"), TransactionalID: testkit.Name(t, "job"),
		Filter: Filter{Partition: -1}, MaxAttempts: 3, Producing: producer.DefaultConfig(),
	}
	d.job.Producing.TransactionTimeout = 2 * time.Second
	transport := &kafka.Transport{ClientID: "test", MetadataTopics: []string{}}
	t.Cleanup(transport.CloseIdleConnections)
	var err error
	if d.client, err = kafkawire.NewClient(kafkawire.Config{Brokers: brokers, ClientID: "test", Transport: transport}); err != nil {
		t.Fatal(err)
	}
	d.other, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(10*time.Millisecond), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.other.Close)
	return d
}

// put writes letters numbered from..to-1.
func (d *desk) put(from, to int, change func(i int, headers map[string]string)) {
	d.t.Helper()
	var records []*kgo.Record
	for i := from; i < to; i++ {
		headers := map[string]string{
			schemas.HeaderClass: string(schemas.Truncated), schemas.HeaderError: "e", schemas.HeaderTopic: d.source,
			schemas.HeaderPartition: strconv.Itoa(i % 3), schemas.HeaderOffset: strconv.Itoa(i), schemas.HeaderTimestamp: strconv.Itoa(i),
			schemas.HeaderAttempt: "1", schemas.HeaderVersion: "v",
		}
		if change != nil {
			change(i, headers)
		}
		r := &kgo.Record{Topic: d.job.Topic, Partition: int32(i % 2), Key: []byte(strconv.Itoa(i)), Value: []byte("v"), Timestamp: time.Unix(int64(i), 0)}
		for name, value := range headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
		}
		records = append(records, r)
	}
	if err := d.other.ProduceSync(d.t.Context(), records...).FirstErr(); err != nil {
		d.t.Fatal(err)
	}
}

// back counts the records of the source topic by key.
func (d *desk) back() map[string]int {
	d.t.Helper()
	got := map[string]int{}
	err := reading(d.t.Context(), d.client, func(ctx context.Context, fetcher *consumer.Fetcher) error {
		_, err := tail.ReadTopic(ctx, d.client, fetcher, d.source, func(b *consumer.Batch) error { // waits for markers, too
			for i := range b.Records {
				got[string(b.Records[i].Key)]++
			}
			return nil
		})
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return got
}

func (d *desk) wantBack(from, to int) {
	d.t.Helper()
	got := d.back()
	for i := from; i < to; i++ {
		if n := got[strconv.Itoa(i)]; n != 1 {
			d.t.Errorf("letter %d is back %d times", i, n)
		}
		delete(got, strconv.Itoa(i))
	}
	if len(got) > 0 {
		d.t.Errorf("back, but not meant: %v", got)
	}
}

// TestFaultsOfATransactionDoubleNothing makes every step fail once in several ways.
func TestFaultsOfATransactionDoubleNothing(t *testing.T) {
	const hangUp, unknownServerError, coordinatorAway = -2, -1, 15
	broker := testkit.Embedded(t)
	d := newDesk(t, broker.Addrs())
	n := 0
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		for _, fault := range []int16{hangUp, coordinatorAway, unknownServerError} {
			d.put(n, n+50, nil)
			var hit atomic.Int64
			broker.Cluster().ControlKey(int16(key), func(request kmsg.Request) (kmsg.Response, error, bool) {
				if hit.Add(1) > 1 {
					return nil, nil, false
				}
				if fault == hangUp {
					return nil, errors.New("no answer"), true
				}
				return refusal(request, fault), nil, true
			})
			tally, err := Redrive(t.Context(), d.client, d.job, nil)
			if err != nil {
				t.Fatalf("%s, %d: %v", key.Name(), fault, err)
			}
			if hit.Load() == 0 || tally.seen() > 50 {
				t.Errorf("%s: %d requests, %+v", key.Name(), hit.Load(), tally)
			}
			n += 50
		}
	}
	d.wantBack(0, n)
}

// TestAnotherRunOfTheJobEndsTheFirst: both would send the same letters otherwise.
func TestAnotherRunOfTheJobEndsTheFirst(t *testing.T) {
	d := newDesk(t, testkit.Brokers(t))
	d.put(0, 400, nil)
	d.job.Rate = 400
	begun := make(chan struct{}, 1)
	first := make(chan error, 1)
	go func() {
		_, err := Redrive(t.Context(), d.client, d.job, func(Tally) {
			select {
			case begun <- struct{}{}:
			default:
			}
		})
		first <- err
	}()
	<-begun
	second := d.job
	second.Rate = 0
	if _, err := Redrive(t.Context(), d.client, second, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-first; !errors.Is(err, producer.ErrFenced) || !strings.Contains(err.Error(), "another run of this job") {
		t.Errorf("the first run ended with %v", err)
	}
	d.wantBack(0, 400)
}

func TestTheRateIsKept(t *testing.T) {
	d := newDesk(t, testkit.Brokers(t))
	d.put(0, 60, nil)
	d.job.Rate = 100
	began := time.Now()
	if _, err := Redrive(t.Context(), d.client, d.job, nil); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("60 letters at 100 a second took %v", took)
	}
	d.wantBack(0, 60)
}

func TestWhatIsNotSentIsCountedByItsReason(t *testing.T) {
	d := newDesk(t, testkit.Brokers(t))
	d.put(0, 100, func(i int, headers map[string]string) {
		switch {
		case i < 10:
			headers[schemas.HeaderAttempt] = "3"
		case i < 30:
			headers[schemas.HeaderLeftOut] = "too large"
		case i < 60:
			delete(headers, schemas.HeaderOffset)
		case i < 65:
			headers[schemas.HeaderClass] = string(schemas.NullKey)
		}
	})
	d.job.Filter.Classes = []schemas.ErrorClass{schemas.Truncated}
	plan, err := Plan(t.Context(), d.client, d.job)
	if err != nil {
		t.Fatal(err)
	}
	done, err := Redrive(t.Context(), d.client, d.job, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Tally{Redriven: 35, ByClass: map[schemas.ErrorClass]int64{schemas.Truncated: 35}, AtLimit: 10, LeftOut: 20, Foreign: 30, Others: 5}
	want.Oldest = time.UnixMilli(65)
	for name, got := range map[string]Tally{"plan": plan, "run": done} {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	d.wantBack(65, 100)
}

func TestFilterMeansAllOfItsParts(t *testing.T) {
	at := time.Unix(1000, 0)
	letter := Letter{Class: schemas.Truncated, Source: Source{Topic: "events", Partition: 3}, Key: []byte("a"), Failed: at}
	for name, c := range map[string]struct {
		filter Filter
		want   bool
	}{
		"nothing said":       {Filter{Partition: -1}, true},
		"all right":          {Filter{Classes: []schemas.ErrorClass{schemas.NullKey, schemas.Truncated}, Topic: "events", Partition: 3, Customer: []byte("a"), Since: at, Until: at.Add(1)}, true},
		"another class":      {Filter{Partition: -1, Classes: []schemas.ErrorClass{schemas.NullKey}}, false},
		"another topic":      {Filter{Partition: -1, Topic: "else"}, false},
		"another partition":  {Filter{Partition: 0}, false},
		"another customer":   {Filter{Partition: -1, Customer: []byte("b")}, false},
		"failed before":      {Filter{Partition: -1, Since: at.Add(1)}, false},
		"failed at the end":  {Filter{Partition: -1, Until: at}, false},
		"no customer at all": {Filter{Partition: -1, Customer: []byte{}}, false},
	} {
		if got := c.filter.Match(&letter); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// refusal is the answer with the code in every place for one.
func refusal(request kmsg.Request, code int16) kmsg.Response {
	response := request.ResponseKind()
	switch r := response.(type) {
	case *kmsg.TxnOffsetCommitResponse:
		for _, t := range request.(*kmsg.TxnOffsetCommitRequest).Topics {
			topic := kmsg.TxnOffsetCommitResponseTopic{Topic: t.Topic}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.TxnOffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: code})
			}
			r.Topics = append(r.Topics, topic)
		}
	case *kmsg.ProduceResponse:
		for _, t := range request.(*kmsg.ProduceRequest).Topics {
			topic := kmsg.ProduceResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.ProduceResponseTopicPartition{Partition: p.Partition, ErrorCode: code, BaseOffset: -1, LogAppendTime: -1})
			}
			r.Topics = append(r.Topics, topic)
		}
	case *kmsg.EndTxnResponse:
		r.ErrorCode, r.ProducerID, r.ProducerEpoch = code, -1, -1
	}
	return response
}
