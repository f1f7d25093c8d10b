package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// client asks over one connection, one request after the other. It writes and reads HTTP/1.1 itself: the generator shares
// the processors with the service, and net/http's client costs as much as the service's answer.
type client struct {
	address string
	head    string // of every request, up to the length
	conn    net.Conn
	from    *bufio.Reader
	out     []byte
}

func newClient(base, path string) (*client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("-url: %q is not like http://127.0.0.1:8080", base)
	}
	return &client{address: u.Host, head: "POST " + path + " HTTP/1.1\r\nHost: " + u.Host + "\r\nContent-Type: application/json\r\nContent-Length: "}, nil
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close() // it is done with
		c.conn = nil
	}
}

// patience is how long an answer may take.
const patience = 10 * time.Second

// ask gives the status of the answer, which it has read to the end; 0: there was none.
func (c *client) ask(body []byte) (status int) {
	if c.conn == nil {
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(context.Background(), "tcp", c.address)
		if err != nil {
			return 0
		}
		c.conn, c.from = conn, bufio.NewReaderSize(conn, 16<<10)
	}
	status, keep, err := c.exchange(body)
	if err != nil || !keep {
		c.close()
	}
	if err != nil {
		return 0
	}
	return status
}

func (c *client) exchange(body []byte) (status int, keep bool, err error) {
	c.out = append(strconv.AppendInt(append(c.out[:0], c.head...), int64(len(body)), 10), "\r\n\r\n"...)
	c.out = append(c.out, body...)
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, false, err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, false, err
	}
	line, err := c.from.ReadSlice('\n')
	if err != nil {
		return 0, false, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, false, errors.New("no status line")
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, false, err
	}
	length, chunked, keep := -1, false, true
	for {
		line, err := c.from.ReadSlice('\n')
		if err != nil {
			return 0, false, err
		}
		name, value, ok := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		if !ok {
			break
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, false, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		case bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")):
			keep = false
		}
	}
	if chunked {
		r, err := http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")), c.from)), nil)
		if err != nil {
			return 0, false, err
		}
		defer r.Body.Close()
		_, err = io.Copy(io.Discard, r.Body)
		return status, false, err // what was read ahead is lost to the connection
	}
	if length < 0 {
		return 0, false, errors.New("an answer without a length")
	}
	_, err = c.from.Discard(length)
	return status, keep, err
}
