package httpapi

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit/cputime"
)

// guarded is net/http behind a turnstile, over pipes. Its handler answers with what it was asked for.
type guarded struct {
	full    atomic.Bool
	refused atomic.Int64 // by the turnstile
	conns   chan net.Conn
	shed    *shedder
	hold    chan struct{} // closed: answers are given
	gone    chan struct{} // closed: a client went away before its answer
	end     func()
}

func guard(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{conns: make(chan net.Conn, 1), shed: newShedder(func() {}), hold: make(chan struct{}), gone: make(chan struct{})}
	close(g.hold)
	g.shed.last.Store(time.Now().Add(24 * time.Hour).UnixNano()) // no refusal is due for the log
	limits := config.Default().HTTP.Limits
	turn := newTurnstile(limits, g.shed, g.full.Load, func(time.Duration) { g.refused.Add(1) })
	listener := &boundedListener{Listener: pipes{g.conns}, limit: 10, refused: func() {}, turn: turn}
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: limits.ReadTimeout.Std(), WriteTimeout: limits.WriteTimeout.Std(), IdleTimeout: limits.IdleTimeout.Std(),
		ConnState: noteAnswers,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength > limits.BodyBytes {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Errorf("body: %v", err)
			}
			select {
			case <-g.hold:
			case <-r.Context().Done():
				close(g.gone)
			}
			fmt.Fprintf(w, "%s %s", r.URL.Path, body)
		}),
	}
	var ended sync.WaitGroup
	ended.Go(func() { _ = server.Serve(listener) })
	g.end = func() {
		_ = server.Close()
		ended.Wait()
	}
	return g
}

// pipes is a listener whose connections come from a channel.
type pipes struct{ conns chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, errors.New("closed")
	}
	return c, nil
}
func (p pipes) Close() error { close(p.conns); return nil }
func (pipes) Addr() net.Addr { return &net.TCPAddr{} }

// dial gives a connection that had its first answer.
func (g *guarded) dial(t *testing.T) *wire {
	t.Helper()
	near, far := net.Pipe()
	g.conns <- far
	w := &wire{Conn: near, from: bufio.NewReader(near)}
	if got := w.ask(t, single("first", "")); got != "200 /v1/predict first" {
		t.Fatal(got)
	}
	synctest.Wait() // net/http waits for the next request
	return w
}

// behindTurnstile runs a test in virtual time, with a connection that had its first answer.
func behindTurnstile(t *testing.T, test func(t *testing.T, g *guarded, w *wire)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := guard(t)
		defer g.end()
		w := g.dial(t)
		defer w.Close()
		test(t, g, w)
	})
}

// wire is a client that writes what it is given.
type wire struct {
	net.Conn
	from *bufio.Reader
}

// ask writes segments and gives the status and the body of the next answer.
func (w *wire) ask(t *testing.T, segments ...string) string {
	t.Helper()
	var sent sync.WaitGroup
	sent.Go(func() {
		for _, segment := range segments {
			if _, err := w.Write([]byte(segment)); err != nil {
				return
			}
		}
	})
	defer sent.Wait()
	return w.answer()
}

func (w *wire) answer() string {
	r, err := http.ReadResponse(w.from, nil)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	if r.StatusCode == http.StatusServiceUnavailable {
		return fmt.Sprintf("503 %s %s %s", r.Header.Get("Retry-After"), r.Header.Get("Content-Type"), r.Header.Get("X-Request-Id"))
	}
	return fmt.Sprintf("%d %s", r.StatusCode, body)
}

// single is a prediction as a client asks for it.
func single(body, headers string) string {
	return "POST /v1/predict HTTP/1.1\r\nHost: a\r\n" + headers + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

func TestPredictionsWithoutAPlaceAreRefusedUnread(t *testing.T) {
	const id = "X-Request-Id: abc\r\n"
	refusal := "503 1 " + typeProblem + " abc"
	for _, c := range []struct {
		name     string
		segments []string
		want     string
		unread   int64
	}{
		{"in one segment", []string{single("body", id)}, refusal, 1},
		{"with parameters", []string{strings.Replace(single("body", id), "predict", "predict?explain=0", 1)}, refusal, 1},
		{"headers in other cases", []string{strings.Replace(single("body", id), "Content-Length", "content-LENGTH", 1)}, refusal, 1},
		{"keep-alive in words", []string{single("body", id+"Connection: Keep-Alive\r\n")}, refusal, 1},
		{"body after its headers", []string{single("body", id)[:len(single("body", id))-4], "bo", "dy"}, refusal, 1},
		{"another path", []string{strings.Replace(single("body", id), "predict", "predict:batch", 1)}, "200 /v1/predict:batch body", 0},
		{"a path that begins so", []string{strings.Replace(single("body", id), "predict", "predictor", 1)}, "200 /v1/predictor body", 0},
		{"a probe", []string{"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"}, "200 /livez ", 0},
		{"another method", []string{"GET /v1/predict HTTP/1.1\r\nHost: a\r\n\r\n"}, "200 /v1/predict ", 0},
		{"headers in three segments", []string{"P", "OST /v1/predict HTTP/1.1\r\nX-Request-Id: abc\r\nHost: a\r\n", "Content-Length: 4\r\n\r\nbody"}, refusal, 1},
		{"chunks", []string{"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"}, "200 /v1/predict body", 0},
		{"a length given twice", []string{single("body", "Content-Length: 4\r\n")}, "200 /v1/predict body", 0},
		{"a length that is no number", []string{strings.Replace(single("body", id), "Length: 4", "Length: +4", 1)}, "400 400 Bad Request", 0},
		{"a space before the colon", []string{strings.Replace(single("body", id), "Length:", "Length :", 1)}, "400 400 Bad Request: invalid header name", 0},
		{"the last answer asked for", []string{single("body", "Connection: close\r\n")}, "200 /v1/predict body", 0},
		{"an older protocol", []string{strings.Replace(single("body", id), "HTTP/1.1", "HTTP/1.0", 1)}, "200 /v1/predict body", 0},
		{"a body beyond the limit", []string{"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n", strings.Repeat("a", 2_000_000)}, "413 ", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			behindTurnstile(t, func(t *testing.T, g *guarded, w *wire) {
				g.full.Store(true)
				if got := w.ask(t, c.segments...); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
				synctest.Wait()
				if n := g.refused.Load(); n != c.unread {
					t.Errorf("%d refused unread, want %d", n, c.unread)
				}
				if c.unread == 0 {
					return
				}
				g.full.Store(false)
				if got := w.ask(t, single("after", "")); got != "200 /v1/predict after" {
					t.Errorf("afterwards: %q", got)
				}
			})
		})
	}
}

func TestWhatNetHTTPClosesAConnectionForIsNotRefusedUnread(t *testing.T) {
	plain := single("body", "")
	line := func(l string) string { return strings.Replace(plain, "POST /v1/predict HTTP/1.1", l, 1) }
	length := func(name string) string { return strings.Replace(plain, "Content-Length", name, 1) }
	host := func(fields string) string { return strings.Replace(plain, "Host: a\r\n", fields, 1) }
	for name, c := range map[string]struct {
		request string
		taken   bool // net/http takes it
	}{
		"a vertical tab in a name":            {length("Content-Length\x0b"), false},
		"a NUL in a name":                     {length("Content-Length\x00"), false},
		"a byte beyond ASCII in a name":       {length("Content-Length\xa0"), false},
		"a quoted name":                       {length(`"Content-Length"`), false},
		"a name of two words":                 {length("Content Length"), false},
		"a bare CR in a value":                {single("body", "X-A: a\rContent-Length: 9\r\n"), false},
		"a CR at the end of a value":          {single("body", "X-A: a\r\r\n"), false},
		"a NUL in a value":                    {single("body", "X-A: a\x00b\r\n"), false},
		"a DEL in a value":                    {single("body", "X-A: a\x7fb\r\n"), false},
		"an escape in the request id":         {single("body", "X-Request-Id: a\x1b\r\n"), false},
		"no host":                             {host(""), false},
		"two hosts":                           {host("Host: a\r\nHost: a\r\n"), false},
		"two hosts in other cases":            {host("Host: a\r\nhOST: b\r\n"), false},
		"a host with a space":                 {host("Host: a b\r\n"), false},
		"a host with a slash":                 {host("Host: a/b\r\n"), false},
		"an empty host":                       {host("Host:\r\n"), true},
		"four words":                          {line("POST /v1/predict /x y HTTP/1.1"), false},
		"two spaces":                          {line("POST /v1/predict  HTTP/1.1"), false},
		"a control byte in the query":         {line("POST /v1/predict?\x01%zz HTTP/1.1"), false},
		"a bad escape in the query":           {line("POST /v1/predict?%zz HTTP/1.1"), true},
		"an escape that the query ends in":    {line("POST /v1/predict?a=%4 HTTP/1.1"), true},
		"a byte beyond ASCII in the query":    {line("POST /v1/predict?\xa0 HTTP/1.1"), true},
		"a bare CR in the query":              {line("POST /v1/predict?a\rb HTTP/1.1"), false},
		"a bare CR before the version":        {line("POST /v1/predict?\r HTTP/1.1"), false},
		"a bare CR at the end of the line":    {line("POST /v1/predict HTTP/1.1\r"), false},
		"a tab for a space":                   {line("POST\t/v1/predict HTTP/1.1"), false},
		"a line that ends in LF alone":        {strings.Replace(plain, "Host: a\r\n", "Host: a\n", 1), true},
		"a header that goes on in a new line": {single("body", "X-A: a\r\n b\r\n"), true},
	} {
		t.Run(name, func(t *testing.T) {
			if frame, found := frameOf([]byte(c.request)); found != foreign {
				t.Errorf("%+v, %v", frame, found)
			}
			behindTurnstile(t, func(t *testing.T, g *guarded, w *wire) {
				g.full.Store(true)
				answer := w.ask(t, c.request+single("behind", ""))
				if want := map[bool]string{true: "200 ", false: "400 "}[c.taken]; !strings.HasPrefix(answer, want) {
					t.Errorf("%q, want %s", answer, want)
				}
				if n := g.refused.Load(); n != 0 {
					t.Errorf("%d refused unread", n)
				}
				if c.taken {
					return
				}
				if _, err := w.from.ReadByte(); !errors.Is(err, io.EOF) {
					t.Errorf("what is behind it is read as a request: %v", err)
				}
			})
		})
	}
}

func TestWhatIsInsideOfARequestIsNotRefused(t *testing.T) {
	inside := single("x", "")
	for name, segments := range map[string][]string{
		"in a later segment of the body": {single(inside, "")[:len(single(inside, ""))-len(inside)], inside},
		"after the chunks":               {"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", fmt.Sprintf("%x\r\n", len(inside)), inside, "\r\n0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			behindTurnstile(t, func(t *testing.T, g *guarded, w *wire) {
				var sent sync.WaitGroup
				sent.Go(func() {
					for i, segment := range segments {
						if _, err := w.Write([]byte(segment)); err != nil {
							t.Error(err)
						}
						synctest.Wait()
						g.full.Store(i == 0) // from the second one on, until all is there
					}
				})
				if got := w.answer(); !strings.HasSuffix(got, inside) || g.refused.Load() != 0 {
					t.Errorf("%q, %d refused", got, g.refused.Load())
				}
				sent.Wait()
			})
		})
	}
}

func TestRequestsThatCameTogetherAreAllAnsweredInOrder(t *testing.T) {
	behindTurnstile(t, func(t *testing.T, g *guarded, w *wire) {
		g.full.Store(true)
		var sent sync.WaitGroup
		sent.Go(func() {
			_, _ = w.Write([]byte(single("1", "") + single("2", "")[:20]))
			_, _ = w.Write([]byte(single("2", "")[20:] + single("3", "")))
		})
		for _, want := range []string{"200 /v1/predict 1", "200 /v1/predict 2", "200 /v1/predict 3"} {
			if got := w.answer(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		sent.Wait()
		// The body of a request whose headers came with the one before it.
		inside := single("x", "")
		behind := g.dialFree(t)
		defer behind.Close()
		g.full.Store(true)
		sent.Go(func() {
			_, _ = behind.Write([]byte(single("1", "") + strings.TrimSuffix(single(inside, ""), inside)))
			synctest.Wait()
			_, _ = behind.Write([]byte(inside))
		})
		for _, want := range []string{"200 /v1/predict 1", "200 /v1/predict " + inside} {
			if got := behind.answer(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		sent.Wait()
		// The rest of a refused request and the next one in one segment.
		other := g.dialFree(t)
		defer other.Close()
		g.full.Store(true)
		first := single("body", "")
		sent.Go(func() {
			_, _ = other.Write([]byte(first[:len(first)-2]))
			_, _ = other.Write([]byte(first[len(first)-2:] + single("next", "")))
		})
		if got := other.answer(); !strings.HasPrefix(got, "503") {
			t.Error(got)
		}
		if got := other.answer(); !strings.HasPrefix(got, "503") {
			t.Error(got)
		}
		sent.Wait()
	})
}

func TestARequestThatComesBeforeTheLastAnswerIsRefusedAfterIt(t *testing.T) {
	behindTurnstile(t, func(t *testing.T, g *guarded, w *wire) {
		for _, segments := range [][]string{{single("next", "")}, {single("next", "")[:1], single("next", "")[1:]}} {
			hold := make(chan struct{})
			g.hold = hold
			g.full.Store(false)
			var sent sync.WaitGroup
			sent.Go(func() {
				_, _ = w.Write([]byte(single("body", "")))
				synctest.Wait()
				_, _ = w.Write([]byte(segments[0]))
				synctest.Wait()
				g.full.Store(true)
				close(hold)
				for _, segment := range segments[1:] {
					_, _ = w.Write([]byte(segment))
				}
			})
			if got := w.answer(); got != "200 /v1/predict body" {
				t.Error(got)
			}
			if got := w.answer(); !strings.HasPrefix(got, "503") {
				t.Error(got)
			}
			sent.Wait()
			synctest.Wait()
		}
		if n := g.refused.Load(); n != 2 {
			t.Errorf("%d refused unread", n)
		}
	})
}

func TestAClientThatGoesAwayIsNoticedWhileItsAnswerIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := guard(t)
		defer g.end()
		w := g.dial(t)
		g.hold = make(chan struct{})
		if _, err := w.Write([]byte(single("body", ""))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.Close()
		select {
		case <-g.gone:
		case <-time.After(time.Second):
			t.Error("the request goes on")
		}
		close(g.hold)
	})
}

// dialFree gives a connection while there is room.
func (g *guarded) dialFree(t *testing.T) *wire {
	g.full.Store(false)
	return g.dial(t)
}

func TestAConnectionThatIsRefusedForLongStaysOpen(t *testing.T) {
	behindTurnstile(t, func(t *testing.T, g *guarded, w *wire) {
		g.full.Store(true)
		for range 20 {
			time.Sleep(time.Minute) // the limit is two
			if got := w.ask(t, single("body", "")); !strings.HasPrefix(got, "503") {
				t.Fatal(got)
			}
		}
		g.full.Store(false)
		time.Sleep(time.Minute)
		if got := w.ask(t, single("body", "")); got != "200 /v1/predict body" {
			t.Error(got)
		}
		began := time.Now()
		if _, err := w.from.ReadByte(); !errors.Is(err, io.EOF) || time.Since(began) != 2*time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestHeadersThatComeByteByByteHaveOneLimitOfTime(t *testing.T) {
	for name, ask := range map[string]func(*testing.T, *wire){
		"after an answer": func(*testing.T, *wire) {},
		"after a refusal": func(t *testing.T, w *wire) {
			if got := w.ask(t, single("body", "")); !strings.HasPrefix(got, "503") {
				t.Fatal(got)
			}
		},
		"after a refusal whose body came late": func(t *testing.T, w *wire) {
			text := single("body", "")
			if got := w.ask(t, text[:len(text)-4]); !strings.HasPrefix(got, "503") {
				t.Fatal(got)
			}
			time.Sleep(10 * time.Second)
			if _, err := w.Write([]byte(text[len(text)-4:])); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			behindTurnstile(t, func(t *testing.T, g *guarded, w *wire) {
				g.full.Store(true)
				ask(t, w)
				time.Sleep(time.Minute) // between requests there is more time
				began := time.Now()
				for _, b := range []byte(single("body", "")) {
					if _, err := w.Write([]byte{b}); err != nil {
						break
					}
					time.Sleep(3 * time.Second)
				}
				if took := time.Since(began); took > 6*time.Second {
					t.Errorf("the headers may take %v", took)
				}
				if _, err := w.from.ReadByte(); !errors.Is(err, io.EOF) {
					t.Errorf("the connection is open: %v", err)
				}
			})
		})
	}
}

func TestOneRefusalASecondGoesToAdmissionForTheLog(t *testing.T) {
	behindTurnstile(t, func(t *testing.T, g *guarded, w *wire) {
		g.full.Store(true)
		g.shed.last.Store(time.Now().Add(-time.Second).UnixNano())
		if got := w.ask(t, single("body", "")); got != "200 /v1/predict body" { // that handler has room
			t.Error(got)
		}
		if _, now := g.shed.line(); !now {
			t.Error("no line was due")
		}
		for range 5 {
			if got := w.ask(t, single("body", "")); !strings.HasPrefix(got, "503") {
				t.Error(got)
			}
		}
		time.Sleep(time.Second)
		if before, now := g.shed.line(); !now || before != 5 {
			t.Errorf("the line says %d before it", before)
		}
	})
}

func TestAServerWithoutPlacesRefusesUnreadAndCounts(t *testing.T) {
	s := start(t, nil)
	s.shed.last.Store(time.Now().Add(time.Hour).UnixNano())
	if r := s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 0)); r.status != 200 {
		t.Fatalf("%d", r.status)
	}
	s.inFlight.Add(int64(s.cfg.Limits.Concurrency))
	read := s.do(t, "POST", "/v1/predict:batch", typeJSON, "[]", "X-Request-Id", "one")
	unread := s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 0), "X-Request-Id", "one")
	made := s.do(t, "POST", "/v1/predict", typeJSON, customerJSON(t, 0), "X-Request-Id", "not well formed")
	wantProblem(t, read, 503)
	wantProblem(t, unread, 503)
	if !bytes.Equal(read.body, unread.body) {
		t.Errorf("%s and %s", read.body, unread.body)
	}
	read.header.Del("Date") // a 503 may do without
	for name := range read.header {
		if read.header.Get(name) != unread.header.Get(name) {
			t.Errorf("%s: %q and %q", name, read.header.Get(name), unread.header.Get(name))
		}
	}
	if got := made.header.Get("X-Request-Id"); len(got) != 16 || !safeRequestID.MatchString(got) {
		t.Errorf("made the id %q", got)
	}
	s.inFlight.Add(-int64(s.cfg.Limits.Concurrency))
	text := string(s.do(t, "GET", "/metrics", "", "").body)
	for _, want := range []string{
		`churnstream_http_refused_total{reason="unread"} 2`, `churnstream_http_refused_total{reason="shed"} 1`,
		`churnstream_http_requests_total{code="503",method="POST",route="/v1/predict"} 2`,
		`churnstream_http_request_seconds_count{route="/v1/predict"} 3`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}

// FuzzFrame holds the turnstile's reading of a request to net/http's.
func FuzzFrame(f *testing.F) {
	for _, seed := range []string{
		single("body", ""), single("", "X-Request-Id: a\r\n"), "GET / HTTP/1.1\r\nHost: a\r\n\r\n", single("body", "Transfer-Encoding: chunked\r\n"),
		single("body", "content-length: 4\r\n"), single("body", " folded\r\n"), single("body", "Content-Length : 4\r\n"), "POST /v1/predict?a HTTP/1.1\r\nHost: a\r\nContent-Length:\t4\t\r\n\r\nbody", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		frame, found := frameOf(text)
		if found != whole {
			return
		}
		if frame.head < 1 || frame.head > int64(len(text)) || frame.body < 0 {
			t.Fatalf("%q: %+v", text, frame)
		}
		from := bufio.NewReaderSize(bytes.NewReader(text), len(text)+16)
		r, err := http.ReadRequest(from)
		if err != nil {
			t.Fatalf("%q: %+v, and net/http refuses it: %v", text, frame, err)
		}
		if r.Host == "" {
			t.Fatalf("%q: %+v, and net/http would miss its host", text, frame)
		}
		if head := int64(len(text) - from.Buffered()); head != frame.head || r.ContentLength != frame.body || r.TransferEncoding != nil || r.Close {
			t.Fatalf("%q: %+v, to net/http %d and %d, %v, %v", text, frame, head, r.ContentLength, r.TransferEncoding, r.Close)
		}
		if is := r.Method == http.MethodPost && r.URL.Path == "/v1/predict"; frame.prediction != is && (!is || r.URL.RawPath == "") {
			t.Fatalf("%q: %+v, to net/http %s %s", text, frame, r.Method, r.URL)
		}
	})
}

// BenchmarkRefusal is a refusal over a connection of the kernel, the client's side with it.
func BenchmarkRefusal(b *testing.B) {
	for _, unread := range []bool{false, true} {
		b.Run("unread="+strconv.FormatBool(unread), func(b *testing.B) {
			t := newTimed(b, func(cfg *config.HTTP) { cfg.Limits.RefuseUnread = unread })
			go func() { _ = t.http.Serve(t.listener) }() // until the listener is closed
			c, err := net.Dial("tcp", t.Addr())
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = c.Close() })
			from, question := bufio.NewReader(c), []byte(single(string(t.bodies[0]), "Content-Type: application/json\r\n"))
			t.inFlight.Add(int64(t.cfg.Limits.Concurrency))
			defer cputime.Report(b, 1, "op")()
			for b.Loop() {
				if _, err := c.Write(question); err != nil {
					b.Fatal(err)
				}
				r, err := http.ReadResponse(from, nil)
				if err != nil || r.StatusCode != http.StatusServiceUnavailable {
					b.Fatal(r, err)
				}
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					b.Fatal(err)
				}
				r.Body.Close()
			}
		})
	}
}
