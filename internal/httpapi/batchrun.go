package httpapi

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// chunk is some rows of a batch on their way through the model. One goroutine at a time has it.
type chunk struct {
	text  []byte // of the rows: categories and customers alias it
	rows  []span // in text
	first int    // place of the first row in the request
	start int64  // place of text in the body
	line  int    // lines of a table before text

	pending     []pendingRow
	ids         []byte // of customers who have none
	out         []byte // answers of the rows
	failed      int
	counts      predictionCounts
	predictions []prediction  // to publish
	err         error         // a text that cannot be read, or a fault of ours: no row is answered
	ended       error         // a text that cannot be read on after the rows
	done        chan struct{} // filled when the chunk is ready
}

// pendingRow is a row whose answer is not written yet.
type pendingRow struct {
	customer []byte              // nil: none was given
	faults   []*huma.ErrorDetail // nil: it is the next row of the bench
}

// rowForm is the form of a batch.
type rowForm struct {
	cut   func(*rowSplitter) (bool, error)
	read  func(*batchRun, *bench, *chunk) error // puts the rows into the bench
	comma bool                                  // between the answers; else each ends its line
}

// batchRun takes the rows of one batch through the model: the request's goroutine reads, cuts and writes, others score
// what it has cut; the order stays.
type batchRun struct {
	s       *Server
	x       *exchange
	explain explain
	form    rowForm
	from    rowSplitter
	columns []int // of a table
	publish bool

	underWay []*chunk           // in order
	take     func(*chunk) error // what is done with an answered chunk, in order; it gives the chunk back

	rows   int // answered
	failed int
}

func (s *Server) newBatchRun(x *exchange, r *http.Request, e explain, form rowForm) *batchRun {
	run := &batchRun{s: s, x: x, explain: e, form: form, publish: s.publishes()}
	run.from = rowSplitter{from: r.Body, cut: form.cut, limit: int(s.cfg.Limits.BodyBytes), buf: s.texts.get()}
	return run
}

// textPool keeps buffers of the size that all but long rows need.
type textPool struct{ pool sync.Pool }

func (p *textPool) get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, 2*chunkBytes)
}

func (p *textPool) put(b []byte) {
	if cap(b) <= largestKept {
		p.pool.Put(&b)
	}
}

// ahead is how many chunks are cut while the oldest is not ready.
func (r *batchRun) ahead() int { return r.s.work.limit + 1 }

// errOutboxFull ends a batch whose predictions cannot be published.
var errOutboxFull = errors.New("predictions are published and Kafka is behind; ask again later")

// all takes every row of the body to the model and its answer to take. The error is that of the body after the last
// whole row, of a row that cannot be read on, of take, or of the server.
func (r *batchRun) all(ctx context.Context) error {
	defer func() {
		for _, c := range r.underWay {
			<-c.done
			r.giveBack(c)
		}
		r.s.texts.put(r.from.buf)
	}()
	var ended error
	for ended == nil {
		c := r.newChunk()
		ended = r.from.fill(c, chunkRows)
		switch {
		case len(c.rows) == 0:
			r.giveBack(c)
		case ended != nil && len(r.underWay) == 0: // the only one
			r.predict(c)
			r.underWay = append(r.underWay, c)
		default:
			r.underWay = append(r.underWay, c)
			go r.predict(c)
		}
		for len(r.underWay) > 0 && (ended != nil || len(r.underWay) >= r.ahead()) {
			if err := r.settle(ctx); err != nil {
				return err
			}
		}
	}
	if errors.Is(ended, io.EOF) {
		return nil
	}
	return ended
}

// settle waits for the oldest chunk and takes it.
func (r *batchRun) settle(ctx context.Context) error {
	c := r.underWay[0]
	<-c.done
	r.underWay = r.underWay[1:]
	if c.err != nil {
		defer r.giveBack(c)
		return c.err
	}
	if len(c.predictions) > 0 && !r.hand(ctx, c.predictions) {
		r.giveBack(c)
		return errOutboxFull
	}
	r.rows += len(c.rows)
	r.failed += c.failed
	r.s.metrics.counted(&c.counts)
	ended := c.ended
	if err := r.take(c); err != nil {
		return err
	}
	return ended
}

func (r *batchRun) newChunk() *chunk {
	c, _ := r.s.chunks.Get().(*chunk)
	return c
}

func (r *batchRun) giveBack(c *chunk) {
	clear(c.pending)
	c.pending, c.out, c.failed, c.predictions, c.err, c.ended = c.pending[:0], c.out[:0], 0, nil, nil, nil
	if cap(c.text)+cap(c.out) <= largestKept {
		r.s.chunks.Put(c)
	}
}

// predict makes the answers of a chunk.
func (r *batchRun) predict(c *chunk) {
	since, _ := r.s.work.enter(false)
	b := r.s.predictor.take(r.explain)
	defer func() {
		r.s.predictor.give(b)
		r.s.work.leave(since)
		if fault := recover(); fault != nil { // else it would end the process
			c.err = ours{fmt.Errorf("BUG: a batch panicked: %v\n%s", fault, debug.Stack())}
		}
		c.done <- struct{}{}
	}()
	b.reader.rows.Reset()
	c.counts.reset(len(r.s.predictor.contract.Inputs))
	if c.err = r.form.read(r, b, c); c.err == nil {
		b.scorer.Score(b.reader.rows, &b.results)
		c.err = r.write(b, c)
	}
}

// add takes what the reader read last.
func (c *chunk) add(reader *rowReader) {
	if reader.faults != nil {
		c.pending = append(c.pending, pendingRow{faults: reader.faults})
		return
	}
	c.pending = append(c.pending, pendingRow{customer: reader.envelope.customer})
}

// write appends the answers of the rows that the bench has scored.
func (r *batchRun) write(b *bench, c *chunk) error {
	p := r.s.predictor
	nobody := 0
	for i := range c.pending {
		if c.pending[i].faults == nil && c.pending[i].customer == nil {
			nobody++
		}
	}
	next, err := r.s.store.sequence(nobody)
	if err != nil {
		return ours{err}
	}
	row := 0
	for i := range c.pending {
		pending := &c.pending[i]
		if r.form.comma && c.first+i > 0 {
			c.out = append(c.out, ',')
		}
		c.out = strconv.AppendInt(append(c.out, `{"row":`...), int64(c.first+i), 10)
		faults, at := pending.faults, row
		if faults == nil {
			if refused := b.results.Refused(row); refused != nil {
				faults = cannotScore(refused).Errors
			}
			row++
		}
		if faults != nil {
			text, err := json.Marshal(faults)
			if err != nil {
				return ours{err}
			}
			c.out = append(append(append(c.out, `,"errors":`...), text...), '}')
			c.failed++
		} else {
			customer := pending.customer
			if customer == nil {
				c.ids = r.s.store.appendCustomer(c.ids[:0], next)
				customer = c.ids
				next++
			}
			c.counts.add(b.results.Probability[at] >= p.model.Threshold(), p.inputs, b.results.Missing(at), b.results.Unseen(at))
			if r.publish {
				numbers, categories := b.reader.rows.Row(at)
				c.predictions = append(c.predictions, newPrediction(r.x, r.x.began.UnixMilli(), customer, p.outcome(b, at), numbers, categories))
			}
			c.out = append(c.out, ',')
			c.out = p.appendPrediction(c.out, customer, nil)
			c.out = append(p.appendOutcome(c.out, b, at), '}')
		}
		if !r.form.comma {
			c.out = append(c.out, '\n')
		}
	}
	return nil
}

// hand gives predictions to be published, in the order of the batch. It waits while Kafka is behind.
func (r *batchRun) hand(ctx context.Context, list []prediction) bool {
	ctx, cancel := context.WithTimeout(ctx, r.s.cfg.Limits.RequestTimeout.Std())
	defer cancel()
	return r.s.kafka.publishPredictions(ctx, list)
}

// readElements reads the elements of an array.
func readElements(_ *batchRun, b *bench, c *chunk) error {
	for i, row := range c.rows {
		text, err := newJSONText(c.text[row.start:row.end:row.end])
		text.before = c.start + int64(row.start)
		if err == nil {
			if err = b.reader.readObject(&text, c.first+i); err == nil {
				err = text.end()
			}
		}
		if err != nil {
			return notJSON{err}
		}
		c.add(b.reader)
	}
	return nil
}

// notJSON is a body that is no array of JSON.
type notJSON struct{ error }

func (n notJSON) Unwrap() error { return n.error }

// readObjects reads the objects of JSON lines. One that is not JSON is that line's fault alone.
func readObjects(_ *batchRun, b *bench, c *chunk) error {
	for i, row := range c.rows {
		text, err := newJSONText(c.text[row.start:row.end:row.end])
		if err == nil {
			before := b.reader.rows.Len()
			if err = b.reader.readObject(&text, c.first+i); err == nil {
				if err = text.end(); err != nil && b.reader.rows.Len() > before {
					b.reader.rows.DropLast()
				}
			}
		}
		if err != nil {
			b.reader.row, b.reader.faults = c.first+i, nil
			b.reader.fault("", "is not JSON: %v", err)
		}
		c.add(b.reader)
	}
	return nil
}

// readRecords reads the records of a table.
func readRecords(r *batchRun, b *bench, c *chunk) error {
	table := csv.NewReader(bytes.NewReader(c.text))
	table.ReuseRecord = true
	table.FieldsPerRecord = -1
	for i := range c.rows {
		cells, err := table.Read()
		var syntax *csv.ParseError
		switch {
		case errors.As(err, &syntax):
			syntax.StartLine, syntax.Line = syntax.StartLine+c.line, syntax.Line+c.line
			c.rows, c.ended = c.rows[:i], syntax // what came before is answered
			return nil
		case err != nil:
			return ours{fmt.Errorf("BUG: a table has fewer records than were cut: %w", err)}
		case len(cells) != len(r.columns):
			b.reader.row, b.reader.faults = c.first+i, nil
			b.reader.fault("", "has %d cells, the header line has %d", len(cells), len(r.columns))
		default:
			b.reader.readCells(cells, r.columns, c.first+i)
		}
		c.add(b.reader)
	}
	if _, err := table.Read(); !errors.Is(err, io.EOF) {
		return ours{errors.New("BUG: a table has more records than were cut")}
	}
	return nil
}

// ours is a fault that is not the client's.
type ours struct{ error }

func (o ours) Unwrap() error { return o.error }

// predictArray answers a JSON array with one object.
func (s *Server) predictArray(x *exchange, req *http.Request, e explain) {
	run := s.newBatchRun(x, req, e, rowForm{cut: cutElement, read: readElements, comma: true})
	var answered []*chunk
	defer func() {
		for _, c := range answered {
			run.giveBack(c)
		}
	}()
	size := 0
	run.take = func(c *chunk) error {
		answered = append(answered, c)
		size += len(c.out)
		return nil
	}
	if err := run.all(req.Context()); err != nil {
		s.batchProblem(x, err, run.from.rows).write(x)
		return
	}
	const head = `{"predictions":[`
	tail := fmt.Appendf(nil, "],\"rows\":%d,\"failed\":%d}\n", run.rows, run.failed)
	h := x.Header()
	h["Content-Type"] = []string{typeJSON}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(head) + size + len(tail))}
	x.WriteHeader(http.StatusOK)
	_, err := io.WriteString(x, head)
	for _, c := range answered {
		if err == nil {
			_, err = x.Write(c.out)
		}
	}
	if err == nil {
		_, _ = x.Write(tail) // the client went away: nobody to tell
	}
}

// batchProblem says why the rest of a batch was not read.
func (s *Server) batchProblem(x *exchange, err error, row int) *problem {
	var syntax *csv.ParseError
	var text notJSON
	var fault ours
	switch {
	case errors.Is(err, errOutboxFull):
		return later(http.StatusServiceUnavailable, time.Second, "%v", err)
	case errors.Is(err, errRowTooLong):
		return newProblem(http.StatusRequestEntityTooLarge, "row %d is longer than %d bytes", row, s.cfg.Limits.BodyBytes)
	case errors.As(err, &text):
		return newProblem(http.StatusBadRequest, "the body is not a JSON array of objects: %v", text.error)
	case errors.As(err, &syntax):
		return newProblem(http.StatusBadRequest, "the body is not CSV: %v", syntax)
	case errors.As(err, &fault):
		return s.fault(x, err)
	default:
		return bodyProblem(err, s.cfg.Limits.BatchBytes)
	}
}

// holdBack is how much of an answer in lines is gathered before the first byte of it is sent. Clients that send all
// before they read work up to it.
const holdBack = 4 << 20

// lineAnswer writes the lines of an answer while the request is still being read.
type lineAnswer struct {
	run     *batchRun
	started bool
	held    []*chunk
	size    int // of held
}

// take holds a chunk until there is enough to send.
func (a *lineAnswer) take(c *chunk) error {
	a.held = append(a.held, c)
	a.size += len(c.out)
	if !a.started && a.size < holdBack {
		return nil
	}
	return a.flush()
}

// errGone says that the client reads no more.
var errGone = errors.New("the client went away")

func (a *lineAnswer) flush() error {
	x := a.run.x
	if !a.started {
		a.started = true
		_ = http.NewResponseController(x).EnableFullDuplex() // HTTP/2 has it anyway
		x.Header().Set("Content-Type", typeNDJSON)
		x.Header().Set("Cache-Control", "no-store")
		x.WriteHeader(http.StatusOK)
	}
	var err error
	for _, c := range a.held {
		if err == nil {
			_, err = x.Write(c.out)
		}
		a.run.giveBack(c)
	}
	a.held, a.size = a.held[:0], 0
	if err != nil {
		return errGone
	}
	return nil
}

// answerLines answers what remains of the body with lines.
func (s *Server) answerLines(ctx context.Context, run *batchRun) {
	a := &lineAnswer{run: run}
	run.take = a.take
	err := run.all(ctx)
	switch {
	case errors.Is(err, errGone):
		panic(http.ErrAbortHandler)
	case err != nil && run.rows == 0:
		s.batchProblem(run.x, err, run.from.rows).write(run.x)
		return
	}
	end := BatchEnd{Rows: run.rows, Failed: run.failed}
	if err != nil {
		end.Error = s.batchProblem(run.x, err, run.from.rows).Detail
	}
	text, err := json.Marshal(end)
	if err != nil || a.flush() != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = run.x.Write(append(text, '\n')) // the client went away: nobody to tell
}

// predictLines answers JSON lines with JSON lines.
func (s *Server) predictLines(x *exchange, req *http.Request, e explain) {
	s.answerLines(req.Context(), s.newBatchRun(x, req, e, rowForm{cut: cutLine, read: readObjects}))
}

// predictTable answers CSV with JSON lines.
func (s *Server) predictTable(x *exchange, req *http.Request, e explain) {
	run := s.newBatchRun(x, req, e, rowForm{cut: cutRecord, read: readRecords})
	var refusal *problem
	if run.columns, refusal = s.header(run); refusal != nil {
		s.texts.put(run.from.buf)
		refusal.write(x)
		return
	}
	s.answerLines(req.Context(), run)
}

// header reads the first record of a table, which says what each column is of.
func (s *Server) header(run *batchRun) ([]int, *problem) {
	c := run.newChunk()
	defer run.giveBack(c)
	err := run.from.fill(c, 1)
	if len(c.rows) == 0 {
		if errors.Is(err, io.EOF) {
			return nil, newProblem(http.StatusBadRequest, "the body has no header line, which names the columns")
		}
		return nil, s.batchProblem(run.x, err, 0)
	}
	run.from.rows = 0
	names, err := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(c.text, []byte("\ufeff")))).Read() // spreadsheets write a byte order mark
	if err != nil {
		return nil, s.batchProblem(run.x, err, 0)
	}
	return s.tableColumns(names)
}

// tableColumns finds what each column is of. All faults of the header are named at once.
func (s *Server) tableColumns(header []string) ([]int, *problem) {
	columns := make([]int, len(header))
	seen := map[string]bool{}
	var faults []*huma.ErrorDetail
	fault := func(name, message string) {
		if len(faults) < maxFaults {
			faults = append(faults, &huma.ErrorDetail{Location: "header." + shortened(name), Message: message})
		}
	}
	for i, name := range header {
		column, ok := s.predictor.inputs[name]
		switch {
		case seen[name]:
			fault(name, "occurs twice")
		case name == customerField:
			columns[i] = customerColumn
		case !ok:
			fault(name, "is no input of the model")
		default:
			columns[i] = column
		}
		seen[name] = true
	}
	for _, in := range s.predictor.contract.Inputs {
		if !in.Nullable && !seen[in.Name] {
			fault(in.Name, "is missing and the input is not nullable")
		}
	}
	if faults != nil {
		return nil, invalid(faults)
	}
	return columns, nil
}
