package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// problem is an error that may be shown to a client: RFC 9457 problem details. What it says comes from the request and
// the contract only.
type problem struct {
	huma.ErrorModel
	retryAfter time.Duration // 0: none
}

var (
	_ huma.StatusError  = (*problem)(nil)
	_ huma.HeadersError = (*problem)(nil)
)

func newProblem(status int, format string, args ...any) *problem {
	return &problem{ErrorModel: huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: fmt.Sprintf(format, args...)}}
}

// invalid names everything that is wrong with a body at once.
func invalid(faults []*huma.ErrorDetail) *problem {
	p := newProblem(http.StatusUnprocessableEntity, "%d of the values cannot be used", len(faults))
	p.Errors = faults
	return p
}

// later is a refusal that time mends.
func later(status int, after time.Duration, format string, args ...any) *problem {
	p := newProblem(status, format, args...)
	p.retryAfter = after
	return p
}

// GetHeaders gives the headers that belong to the problem.
func (p *problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.retryAfter+time.Second-1)/time.Second)))
	}
	return h
}

// MarshalJSON writes the problem details alone.
func (p *problem) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(&p.ErrorModel)
	return b.Bytes(), err
}

// write answers with the problem.
func (p *problem) write(w http.ResponseWriter) {
	text, err := p.MarshalJSON()
	if err != nil {
		text = []byte(`{"status":500}`)
	}
	h := w.Header()
	for name, values := range p.GetHeaders() {
		h[name] = values
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(text) // the client went away: nobody to tell
}
