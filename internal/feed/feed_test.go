package feed_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/producer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestARatedFeedKeepsItsRateAndNeverRunsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1000.0
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		started := time.Now()
		var p publisher
		reported := 0
		sent, err := feed.Run(ctx, feed.Config{Topic: "t", Rate: rate}, &p, forever(nil), func(n int) {
			reported = n
			if due := rate * time.Since(started).Seconds(); float64(n) > due || float64(n) < due-0.01*rate {
				t.Errorf("%d events after %v", n, time.Since(started))
			}
		})
		if err != nil || sent != reported || sent != len(p.records) || sent < 9990 || sent > 10_000 {
			t.Errorf("%d events in 10 s at %v/s, %d reported, %d published: %v", sent, rate, reported, len(p.records), err)
		}
		for i, r := range p.records {
			if at := started.UnixMilli() + int64(i); r.Timestamp < at || r.Timestamp > at+10 {
				t.Fatalf("event %d is due at %d and carries %d", i, at, r.Timestamp)
			}
		}
	})
}

func TestAnUnratedFeedStopsAtItsLimitInUnitsOfABoundedSize(t *testing.T) {
	var p publisher
	asked := 0
	sent, err := feed.Run(t.Context(), feed.Config{Topic: "t", Limit: 25_000}, &p, forever(func() { asked++ }), nil)
	if err != nil || sent != 25_000 || asked != 25_000 || !slices.Equal(p.units, []int{10_000, 10_000, 5000}) {
		t.Errorf("%d events of %d in units of %v: %v", sent, asked, p.units, err)
	}
}

func TestEventsArriveAsTheSourceMadeThem(t *testing.T) {
	var p publisher
	n := 0
	key, value := make([]byte, 1), make([]byte, 2) // reused, as a source may
	_, err := feed.Run(t.Context(), feed.Config{Topic: "topic"}, &p, feed.SourceFunc(func(e *feed.Event) error {
		if n == 3 {
			return io.EOF
		}
		key[0], value[0], value[1] = byte('a'+n), byte('b'+n), byte(n)
		e.Key, e.Value = key, value
		if n == 1 {
			e.Timestamp = 77
		}
		n++
		return nil
	}), nil)
	if err != nil || len(p.records) != 3 {
		t.Fatalf("%d records: %v", len(p.records), err)
	}
	for i, r := range p.records {
		own := time.Since(time.UnixMilli(r.Timestamp)) > time.Minute
		if string(r.Key) != string('a'+rune(i)) || string(r.Value) != string([]byte{byte('b' + i), byte(i)}) || r.Topic != "topic" || r.Partition >= 0 || own != (i == 1) || own && r.Timestamp != 77 {
			t.Errorf("record %d: %+v", i, r)
		}
	}
}

func TestASourcesErrorComesAfterEverythingBeforeItIsAcknowledged(t *testing.T) {
	failure := errors.New("line 8 is broken")
	for _, c := range []struct {
		source error
		want   error
	}{{failure, failure}, {fmt.Errorf("row 8: %w", failure), failure}, {io.EOF, nil}} {
		var p publisher
		n := 0
		sent, err := feed.Run(t.Context(), feed.Config{Topic: "t"}, &p, feed.SourceFunc(func(e *feed.Event) error {
			if n == 7 {
				return c.source
			}
			n++
			return nil
		}), nil)
		if !errors.Is(err, c.want) || sent != 7 || len(p.records) != 7 {
			t.Errorf("%v: %d sent, %d acknowledged, error %v", c.source, sent, len(p.records), err)
		}
	}
}

func TestAFeedThatIsStoppedFinishesItsUnit(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var p publisher
	n := 0
	sent, err := feed.Run(ctx, feed.Config{Topic: "t"}, &p, forever(func() {
		if n++; n == 5 {
			cancel()
		}
	}), nil)
	if err != nil || sent != 10_000 || len(p.records) != sent {
		t.Errorf("%d sent, %d acknowledged: %v", sent, len(p.records), err)
	}
}

func TestAFeedThatIsStoppedBeforeItsFirstUnitHasNothingToComplainAbout(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := publisher{begin: func() error {
		cancel()
		return ctx.Err()
	}}
	if sent, err := feed.Run(ctx, feed.Config{Topic: "t"}, &p, forever(nil), nil); err != nil || sent != 0 {
		t.Errorf("%d sent: %v", sent, err)
	}
}

func TestWhatThePublisherRefusesIsNamedAndNotCounted(t *testing.T) {
	failure := errors.New("no broker")
	third := func() func() error {
		n := 0
		return func() error {
			if n++; n == 3 {
				return failure
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		publisher *publisher
		sent      int
	}{
		"begin":  {&publisher{begin: third()}, 20_000},
		"append": {&publisher{append: third()}, 0},
		"commit": {&publisher{commit: third()}, 20_000},
	} {
		sent, err := feed.Run(t.Context(), feed.Config{Topic: "customer-activity"}, c.publisher, forever(nil), nil)
		if !errors.Is(err, failure) || !strings.Contains(err.Error(), "publish to customer-activity") || sent != c.sent || len(c.publisher.records) != sent {
			t.Errorf("%s: %d sent, %d acknowledged: %v", name, sent, len(c.publisher.records), err)
		}
	}
}

// forever gives empty events and calls each for every one of them.
func forever(each func()) feed.Source {
	return feed.SourceFunc(func(*feed.Event) error {
		if each != nil {
			each()
		}
		return nil
	})
}

// publisher keeps what was committed and fails where it is told to.
type publisher struct {
	begin, append, commit func() error
	open                  []producer.Record
	records               []producer.Record
	units                 []int
}

func call(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (p *publisher) Buffered() int { return 0 }

func (p *publisher) Begin(context.Context) error { return call(p.begin) }

func (p *publisher) Append(r *producer.Record) error {
	kept := *r
	kept.Key, kept.Value = slices.Clone(r.Key), slices.Clone(r.Value)
	p.open = append(p.open, kept)
	return call(p.append)
}

func (p *publisher) Commit(ctx context.Context, _ producer.Member, _ []producer.Offset) error {
	if err := errors.Join(call(p.commit), ctx.Err()); err != nil {
		return err
	}
	p.records, p.units = append(p.records, p.open...), append(p.units, len(p.open))
	p.open = p.open[:0]
	return nil
}

func (p *publisher) Abort(context.Context) error { return nil }
func (p *publisher) Close() error                { return nil }
