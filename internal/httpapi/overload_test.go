package httpapi

import (
	"bufio"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit"
)

func TestWhoWouldWaitTooLongForAProcessorIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessors(2, 50*time.Millisecond)
		const work = 10 * time.Millisecond
		for range 500 { // it learns how long a place is held
			since, _ := p.enter(true)
			time.Sleep(work)
			p.leave(since)
		}
		began := time.Now()
		done := make(chan time.Duration, 100)
		for range 2 + 100 {
			go func() {
				since, ok := p.enter(true)
				if !ok {
					done <- -time.Since(began)
					return
				}
				time.Sleep(work)
				p.leave(since)
				done <- time.Since(began)
			}()
			synctest.Wait()
		}
		served, refused := 0, 0
		for range 2 + 100 {
			switch took := <-done; {
			case took > 0 && took <= 80*time.Millisecond:
				served++
			case took == 0:
				refused++
			default:
				t.Errorf("an answer after %v", took)
			}
		}
		if served < 10 || served > 16 || served+refused != 102 {
			t.Errorf("%d served, %d refused", served, refused)
		}
		if since, ok := p.enter(true); !ok || p.late() {
			t.Error("nobody waits and one is refused")
		} else {
			p.leave(since)
		}
		if p.busy != 0 {
			t.Errorf("%d places are lost", p.busy)
		}
	})
}

func TestWhoHasWaitedTooLongForAProcessorIsNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessors(1, 50*time.Millisecond)
		for range 500 { // it learns that a place is held for a millisecond
			since, _ := p.enter(true)
			time.Sleep(time.Millisecond)
			p.leave(since)
		}
		began := time.Now()
		type end struct {
			served bool
			waited time.Duration
		}
		ends := map[int]end{}
		var mu sync.Mutex
		var all sync.WaitGroup
		ask := func(i int, refusable bool) {
			came := time.Now()
			all.Go(func() {
				since, ok := p.enter(refusable)
				mu.Lock()
				ends[i] = end{ok, time.Since(came)}
				mu.Unlock()
				if ok {
					time.Sleep(30 * time.Millisecond) // and now for thirty
					p.leave(since)
				}
			})
			synctest.Wait()
		}
		for i := range 20 {
			ask(i, i != 19)
		}
		time.Sleep(55*time.Millisecond - time.Since(began))
		ask(20, true)
		time.Sleep(10 * time.Millisecond)
		ask(21, true)
		all.Wait()
		want := map[int]end{0: {true, 0}, 1: {true, 30 * time.Millisecond}, 19: {true, 60 * time.Millisecond}, 20: {false, 0}, 21: {true, 25 * time.Millisecond}}
		for i := 2; i < 19; i++ {
			want[i] = end{false, 60 * time.Millisecond}
		}
		if !maps.Equal(ends, want) {
			t.Errorf("%v, want %v", ends, want)
		}
		if p.busy != 0 || len(p.waiting) != 0 {
			t.Errorf("%d places are lost, %d wait", p.busy, len(p.waiting))
		}
	})
}

func TestPlacesAreGivenInTheOrderOfThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessors(1, time.Minute)
		since, _ := p.enter(true)
		var order []int
		for i := range 5 {
			go func() {
				mine, _ := p.enter(i%2 == 0)
				order = append(order, i) // whoever has the only place
				p.leave(mine)
			}()
			synctest.Wait()
		}
		p.leave(since)
		synctest.Wait()
		for i, got := range order {
			if i != got {
				t.Fatalf("%v", order)
			}
		}
	})
}

func TestPredictionsAreShedWhileTheProcessorsAreTaken(t *testing.T) {
	s := start(t, nil)
	var taken []time.Time
	for range s.work.limit {
		since, _ := s.work.enter(false)
		taken = append(taken, since)
	}
	s.work.mu.Lock()
	s.work.held = 24 * time.Hour
	s.work.longest = time.Hour
	s.work.mu.Unlock()
	first := make(chan int)
	go func() { // waits: nobody waits before it
		r, err := s.try(t.Context(), "POST", "/v1/predict", typeJSON, strings.NewReader(customerJSON(t, 0)))
		if err != nil {
			t.Error(err)
		}
		first <- r.status
	}()
	testkit.Eventually(t, 10*time.Second, s.work.late, "one waits")
	for range 20 {
		r := s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 0))
		wantProblem(t, r, 503)
		if r.header.Get("Retry-After") != "1" {
			t.Errorf("%v", r.header)
		}
	}
	wantProblem(t, s.do(t, "POST", "/v1/predict:batch", typeJSON, "[]"), 503)
	if r := s.do(t, "GET", "/v1/metadata", "", ""); r.status != 200 {
		t.Errorf("what needs no model: %d", r.status)
	}
	if n := strings.Count(s.log.String(), `"status":503`); n > 5 {
		t.Errorf("21 refusals at once have %d lines in the log", n)
	}
	for _, since := range taken {
		s.work.leave(since)
	}
	if status := <-first; status != 200 {
		t.Errorf("the one that waited: %d", status)
	}
}

func TestMetricsAreReadWhileSlowSendersHoldAllPlaces(t *testing.T) {
	s := start(t, nil, func(c *config.HTTP) { c.Limits.Concurrency = 2 })
	for range 2 {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, 10*time.Second, s.full, "all places are taken")
	wantProblem(t, s.do(t, "GET", "/v1/metadata", "", ""), 503)
	if r := s.do(t, "GET", "/metrics", "", ""); r.status != 200 || !strings.Contains(string(r.body), `churnstream_http_refused_total{reason="shed"} 1`) {
		t.Errorf("%d: %s", r.status, r.body)
	}
}

func TestConnectionsBeyondTheLimitAreClosed(t *testing.T) {
	s := start(t, nil, func(c *config.HTTP) { c.Limits.Connections = 2 })
	s.http.CloseIdleConnections()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	ask := func(c net.Conn) int {
		if _, err := c.Write([]byte("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	one, two := dial(), dial()
	if a, b := ask(one), ask(two); a != 200 || b != 200 {
		t.Fatalf("%d, %d", a, b)
	}
	three := dial()
	r, err := http.ReadResponse(bufio.NewReader(three), nil)
	if err != nil || r.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("%v %v", r, err)
	}
	r.Body.Close()
	one.Close()
	testkit.Eventually(t, 10*time.Second, func() bool {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			return false
		}
		defer c.Close()
		if _, err := c.Write([]byte("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
			return false
		}
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	}, "a place is free again")
}
