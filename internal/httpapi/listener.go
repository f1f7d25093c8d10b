package httpapi

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// boundedListener holds no more than so many connections. One more is told so, where it can be told in plain text, and
// closed: left to wait, its client would not know for how long.
type boundedListener struct {
	net.Listener
	limit    int64
	farewell []byte // nil: a client that speaks TLS could not read it
	refused  func()
	turn     *turnstile // nil: none
	open     atomic.Int64
}

const tooManyConnections = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: " + typeProblem +
	"\r\nContent-Length: 86\r\n\r\n" + `{"title":"Service Unavailable","status":503,"detail":"too many connections are open"}` + "\n"

// Accept gives the next connection that there is room for.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.limit {
			bounded := &boundedConn{Conn: c, closed: sync.OnceFunc(func() { l.open.Add(-1) })}
			if l.turn == nil {
				return bounded, nil
			}
			return &turnstileConn{boundedConn: bounded, turnstile: l.turn, begins: true}, nil
		}
		l.open.Add(-1)
		l.refused()
		if l.farewell != nil {
			_ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)) // its buffer is empty: nothing waits
			_, _ = c.Write(l.farewell)
		}
		_ = c.Close() // nobody to tell
	}
}

// boundedConn counts its end.
type boundedConn struct {
	net.Conn
	closed func()
}

func (c *boundedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
