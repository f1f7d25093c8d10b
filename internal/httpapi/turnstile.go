package httpapi

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/churnstream/churnstream/internal/config"
)

// turnstile refuses single predictions on the connection, before net/http has read them, while there is no place for them:
// what net/http and the handler would do for a refusal is several times what the refusal needs, and under load it is taken
// from those who are answered. It turns away only what it cannot misread (see requestFrame); everything else goes on to
// admission, which decides alike.
type turnstile struct {
	full    func() bool // there is no place
	shed    *shedder
	counts  func(took time.Duration)
	head    []byte // of the answer, up to the value of its X-Request-Id
	rest    []byte
	largest int64         // body
	headers time.Duration // for those of a request, from its first byte on
	write   time.Duration
	idle    time.Duration
}

// newTurnstile makes one that asks full and tells counts of what it refused and how long that took.
func newTurnstile(limits config.HTTPLimits, shed *shedder, full func() bool, counts func(took time.Duration)) *turnstile {
	return &turnstile{
		full: full, shed: shed, counts: counts,
		largest: limits.BodyBytes, headers: headersWithin(limits), write: limits.WriteTimeout.Std(), idle: limits.IdleTimeout.Std(),
		head: []byte("HTTP/1.1 503 Service Unavailable\r\nCache-Control: no-store\r\nContent-Length: " + strconv.Itoa(len(shed.problem)) +
			"\r\nContent-Type: " + typeProblem + "\r\nRetry-After: 1\r\nX-Content-Type-Options: nosniff\r\nX-Request-Id: "),
		rest: append([]byte("\r\n\r\n"), shed.problem...),
	}
}

// refuses says whether what begins with frame is turned away. One a second is not: admission refuses it, with a line in
// the log.
func (t *turnstile) refuses(f requestFrame) bool {
	return f.prediction && f.body <= t.largest && t.full() && !t.shed.due()
}

// appendAnswer writes a refusal of the request with this id, or of one without an id that can be taken over.
func (t *turnstile) appendAnswer(dst, requestID []byte) []byte {
	dst = append(dst, t.head...)
	if safeRequestID.Match(requestID) {
		dst = append(dst, requestID...)
	} else {
		const digits = "0123456789abcdef"
		for random, n := rand.Uint64(), 0; n < 16; random, n = random>>4, n+1 { // ChaCha8, seeded by the system
			dst = append(dst, digits[random&15])
		}
	}
	return append(dst, t.rest...)
}

// turnstileConn is a connection without TLS behind the turnstile. It follows where requests begin and end, so that what
// it refuses is a request and not the inside of one. Its fields belong to whoever reads: net/http lets one do so at a time.
type turnstileConn struct {
	*boundedConn
	turnstile *turnstile

	begins bool   // what is read next is the beginning of a request
	known  bool   // net/http has sent an answer: its limit of time for the first request is over
	left   int64  // of the request that net/http reads; lost: it is no longer known where requests begin
	drop   int64  // that is still to come of a request that was refused
	ahead  []byte // read while an answer was made
	out    []byte
}

// lost is the left of a connection on which requests do not come one by one in a form that frameOf knows. All of them go
// to net/http from there on.
const lost = -1

// noteAnswers is the ConnState of a server: net/http has sent an answer and goes on to wait for the next request.
func noteAnswers(c net.Conn, state http.ConnState) {
	if c, ok := c.(*turnstileConn); ok && state == http.StateIdle {
		c.begins, c.known = c.left == 0, true
	}
}

// Read reads what is for net/http.
func (c *turnstileConn) Read(p []byte) (int, error) {
	switch {
	case c.begins:
		c.begins = false
		return c.readBeginning(p)
	case c.left == 0 && len(p) == 1:
		return c.readAhead(p)
	}
	n, err := c.read(p)
	if c.left < int64(n) { // more than one request at a time, or lost already
		c.left = lost
	} else {
		c.left -= int64(n)
	}
	return n, err
}

func (c *turnstileConn) read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = append(c.ahead[:0], c.ahead[n:]...)
		return n, nil
	}
	return c.boundedConn.Read(p)
}

// readAhead keeps what comes before the answer to the last request is sent, as it does from a client that has it already while
// net/http still clears up: net/http reads one byte then to see whether the client goes away, and would keep it.
func (c *turnstileConn) readAhead(p []byte) (int, error) {
	buffer := p // one byte, until there is something to keep
	for len(c.ahead) < 4<<10 {
		n, err := c.boundedConn.Read(buffer)
		if err != nil {
			return 0, err
		}
		c.ahead = append(c.ahead, buffer[:n]...)
		if len(buffer) == 1 {
			buffer = make([]byte, 1<<10)
		}
	}
	c.left = lost // more than a request: net/http sorts it out
	return c.read(p)
}

// readBeginning reads until something is for net/http.
func (c *turnstileConn) readBeginning(p []byte) (int, error) {
	timed := !c.known // the headers have their limit of time; net/http sets that of the first request
	for have := 0; ; {
		n, err := c.read(p[have:])
		if have += n; err != nil {
			if have == 0 || errors.Is(err, os.ErrDeadlineExceeded) { // net/http would begin to count anew
				return 0, err
			}
			c.left = lost
			return have, nil // net/http meets the error when it reads on
		}
		if c.drop > 0 {
			dropped := min(c.drop, int64(have))
			c.drop -= dropped
			have = copy(p, p[dropped:have])
			if have == 0 {
				continue
			}
		}
		frame, found := frameOf(p[:have])
		left := frame.head + frame.body - int64(have)
		switch {
		case found == partial && have < len(p):
			if !timed {
				timed = true
				if err := c.SetReadDeadline(time.Now().Add(c.turnstile.headers)); err != nil {
					return 0, err
				}
			}
		case found != whole || left < 0:
			c.left = lost
			return have, nil
		case !c.known || !c.turnstile.refuses(frame):
			c.left = left
			return have, nil
		default:
			if err := c.refuse(frame); err != nil {
				return 0, err
			}
			c.drop, have, timed = left, 0, false
		}
	}
}

func (c *turnstileConn) refuse(f requestFrame) error {
	began := time.Now()
	c.turnstile.shed.silent.Add(1)
	c.out = c.turnstile.appendAnswer(c.out[:0], f.id)
	if err := c.SetWriteDeadline(began.Add(c.turnstile.write)); err != nil {
		return err
	}
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	c.turnstile.counts(time.Since(began))
	return c.SetReadDeadline(began.Add(c.turnstile.idle)) // net/http's was since the request before
}

// requestFrame is what the turnstile knows of a request.
type requestFrame struct {
	head, body int64 // bytes
	prediction bool  // it asks for a single one
	id         []byte
}

// finding is what frameOf says of a text.
type finding int

const (
	foreign finding = iota // two readers could take it for requests of different length, or it asks for more than an answer
	partial                // its headers do not end here
	whole                  // its headers are here
)

// frameOf reads the headers that text begins with. They are whole only where net/http takes them, too: what it would
// refuse and close the connection for is foreign, as is what another reader could divide in another way.
func frameOf(text []byte) (f requestFrame, found finding) {
	line, rest, found := cutHeader(text)
	if found != whole {
		return f, found
	}
	method, target, ok := requestLine(line)
	if !ok {
		return f, foreign
	}
	path, _, _ := bytes.Cut(target, []byte("?"))
	f.prediction = string(method) == http.MethodPost && string(path) == "/v1/predict"
	measured, hosted := false, false
	for {
		if line, rest, found = cutHeader(rest); found != whole {
			return f, found
		}
		if len(line) == 0 {
			if !hosted {
				return f, foreign
			}
			f.head = int64(len(text) - len(rest))
			return f, whole
		}
		name, value, ok := headerField(line)
		if !ok {
			return f, foreign
		}
		switch {
		case len(name) < len("Host") || len(name) > len("Transfer-Encoding"):
		case bytes.EqualFold(name, []byte("Host")):
			if hosted || len(value) == 0 || !consistsOf(value, isHostByte) {
				return f, foreign
			}
			hosted = true
		case bytes.EqualFold(name, []byte("Content-Length")):
			if f.body, ok = length(value); !ok || measured {
				return f, foreign
			}
			measured = true
		case bytes.EqualFold(name, []byte("X-Request-Id")):
			if f.id == nil { // the first, as for net/http
				f.id = value
			}
		case bytes.EqualFold(name, []byte("Connection")):
			if !bytes.EqualFold(value, []byte("keep-alive")) {
				return f, foreign
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")), bytes.EqualFold(name, []byte("Expect")), bytes.EqualFold(name, []byte("Upgrade")):
			return f, foreign
		}
	}
}

// requestLine divides a line of a method in capitals, a path with or without a query, and HTTP/1.1, by one space each.
func requestLine(line []byte) (method, target []byte, ok bool) {
	method, target, _ = bytes.Cut(line, []byte(" "))
	target, ok = bytes.CutSuffix(target, []byte(" HTTP/1.1"))
	if !ok || len(method) == 0 || len(target) == 0 || target[0] != '/' || !consistsOf(method, isCapital) || !consistsOf(target, isVisible) {
		return nil, nil, false
	}
	for rest := target; ; rest = rest[3:] {
		at := bytes.IndexByte(rest, '%')
		if at < 0 {
			return method, target, true
		}
		if rest = rest[at:]; len(rest) < 3 || !isHex(rest[1]) || !isHex(rest[2]) {
			return nil, nil, false
		}
	}
}

// headerField divides a line into a name, which must be a token, and a value, which must be free of control bytes other
// than tabs (RFC 9110, sections 5.1 and 5.5).
func headerField(line []byte) (name, value []byte, ok bool) {
	name, value, ok = bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || !consistsOf(name, isTokenByte) || !consistsOf(value, isValueByte) {
		return nil, nil, false
	}
	return name, bytes.Trim(value, " \t"), true
}

func consistsOf(text []byte, kind func(byte) bool) bool {
	for _, c := range text {
		if !kind(c) {
			return false
		}
	}
	return true
}

func isCapital(c byte) bool { return 'A' <= c && c <= 'Z' }

func isVisible(c byte) bool { return '!' <= c && c <= '~' }

func isValueByte(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isAlphanumeric(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' }

func isTokenByte(c byte) bool {
	return isAlphanumeric(c) || c == '-' || strings.IndexByte("!#$%&'*+.^_`|~", c) >= 0
}

// isHostByte is for the bytes of a name, an address and a port.
func isHostByte(c byte) bool { return isAlphanumeric(c) || strings.IndexByte(".-_:[]", c) >= 0 }

// cutHeader gives the line that text begins with, which must end in CRLF.
func cutHeader(text []byte) (line, rest []byte, found finding) {
	switch end := bytes.IndexByte(text, '\n'); {
	case end < 0:
		return nil, nil, partial
	case end == 0 || text[end-1] != '\r':
		return nil, nil, foreign
	default:
		return text[:end-1], text[end+1:], whole
	}
}

// length reads a Content-Length of digits alone.
func length(text []byte) (n int64, ok bool) {
	if len(text) == 0 || len(text) > 15 {
		return 0, false
	}
	for _, c := range text {
		if !isDigit(c) {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}
