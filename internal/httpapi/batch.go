package httpapi

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// BatchRow is the answer about one row: a prediction, or what is wrong with the row.
type BatchRow struct {
	Row int `json:"row" minimum:"0" doc:"Place in the request, from 0; blank lines and a header are not counted"`
	*Prediction
	Errors []*huma.ErrorDetail `json:"errors,omitempty" doc:"Everything that is wrong with the row, which has no prediction then"`
}

// Batch is the answer to an array.
type Batch struct {
	Predictions []BatchRow `json:"predictions" nullable:"false" doc:"One for each row, in their order"`
	Rows        int        `json:"rows" doc:"Number of rows"`
	Failed      int        `json:"failed" doc:"Number of rows without a prediction"`
}

// BatchEnd is the last line of an answer in lines. An answer without it was cut.
type BatchEnd struct {
	Rows   int    `json:"rows"`
	Failed int    `json:"failed"`
	Error  string `json:"error,omitempty" doc:"Why the rest of the request was not read"`
}

func (s *Server) registerBatch(in inputSchemas) {
	rows := &huma.Schema{Type: huma.TypeArray, Items: in.customer, Examples: []any{[]any{in.example}}}
	huma.Register(s.api, s.operation(huma.Operation{
		OperationID: "predict-batch", Method: http.MethodPost, Path: "/v1/predict:batch", Tags: []string{"predictions"},
		Summary: "Predictions of many customers",
		Description: "A JSON array is read whole and answered with one object. JSON lines and CSV (a header line names the inputs and, perhaps, " +
			"customer_id) are answered with JSON lines while they are read: a line a row, then one with `rows` and `failed`. " +
			"A row that is wrong does not hold up the others; its line says everything that is wrong with it.",
		Responses: answer("A prediction or the faults of each row", map[string]*huma.Schema{
			typeJSON:   schemaOf[Batch](s),
			typeNDJSON: {AnyOf: []*huma.Schema{schemaOf[BatchRow](s), schemaOf[BatchEnd](s)}},
		}),
	}, route{scope: scopePredict, bodyLimit: s.cfg.Limits.BatchBytes}, http.StatusRequestTimeout, http.StatusUnprocessableEntity),
		func(_ context.Context, in *explainInput) (*huma.StreamResponse, error) {
			e, err := s.wish(in, 0)
			if err != nil {
				return nil, err
			}
			return raw(func(x *exchange, r *http.Request) {
				switch mediaType(r) {
				case typeJSON, "":
					s.predictArray(x, r, e)
				case typeNDJSON, "application/jsonl":
					s.predictLines(x, r, e)
				case typeCSV:
					s.predictTable(x, r, e)
				default:
					unsupported(x, typeJSON, typeNDJSON, typeCSV).write(x)
				}
			}), nil
		})
	s.api.OpenAPI().Components.Schemas.Map()["BatchRow"].Required = []string{"row"} // the rest depends on whether it failed
	s.documentBody("/v1/predict:batch", map[string]*huma.MediaType{
		typeJSON:   {Schema: rows, Example: []any{in.example}},
		typeNDJSON: {Schema: &huma.Schema{Type: huma.TypeString, Description: "An object a line, each as a body of /v1/predict"}},
		typeCSV:    {Schema: &huma.Schema{Type: huma.TypeString, Description: "A header line, then a row a line; an empty cell is missing"}},
	})
}

// chunkRows is how many rows are scored together.
const chunkRows = 256

// batchRun takes the rows of one batch through the model.
type batchRun struct {
	s       *Server
	x       *exchange
	b       *bench
	publish bool

	pending []pendingRow // of the chunk in hand
	rows    int
	failed  int
	between []byte // separates rows in the answer
	ids     []byte // of customers who have none
}

// pendingRow is a row whose line is not written yet.
type pendingRow struct {
	customer []byte              // nil: none was given
	faults   []*huma.ErrorDetail // nil: it is the next row of the bench
}

func (s *Server) newBatchRun(x *exchange, b *bench, between string) *batchRun {
	return &batchRun{s: s, x: x, b: b, publish: s.kafka != nil && s.cfg.PublishPredictions, between: []byte(between), pending: make([]pendingRow, 0, chunkRows)}
}

// add takes what the reader read last. Categories and customer must stay until flush.
func (r *batchRun) add() {
	reader := r.b.reader
	if reader.faults != nil {
		r.pending = append(r.pending, pendingRow{faults: reader.faults})
		return
	}
	r.pending = append(r.pending, pendingRow{customer: reader.envelope.customer})
}

func (r *batchRun) full() bool { return len(r.pending) == chunkRows }

// errOutboxFull ends a batch whose predictions cannot be published.
var errOutboxFull = errors.New("predictions are published and Kafka is behind; ask again later")

// flush scores the chunk and appends its lines to the bench's output.
func (r *batchRun) flush() error {
	p, b := r.s.predictor, r.b
	b.scorer.Score(b.reader.rows, &b.results)
	sequence, err := r.s.store.sequence(len(r.pending))
	if err != nil {
		return err
	}
	row := 0
	for i, pending := range r.pending {
		if r.rows > 0 {
			b.out = append(b.out, r.between...)
		}
		b.out = strconv.AppendInt(append(b.out, `{"row":`...), int64(r.rows), 10)
		r.rows++
		faults := pending.faults
		if faults == nil {
			if refused := b.results.Refused(row); refused != nil {
				faults = cannotScore(refused).Errors
			}
			row++
		}
		if faults != nil {
			text, err := json.Marshal(faults)
			if err != nil {
				return err
			}
			b.out = append(append(append(b.out, `,"errors":`...), text...), '}')
			r.failed++
			continue
		}
		customer := pending.customer
		if customer == nil {
			r.ids = r.s.store.appendCustomer(r.ids[:0], sequence+int64(i))
			customer = r.ids
		}
		at := row - 1
		churn := b.results.Probability[at] >= p.model.Threshold()
		if r.publish {
			score := p.score(customer, p.outcome(b, at), "http-"+r.s.store.name, sequence+int64(i), time.Now())
			if !r.s.kafka.publishPrediction(&score, r.x) {
				return errOutboxFull
			}
			r.s.metrics.published.WithLabelValues("prediction").Inc()
		}
		r.s.metrics.predicted(churn, b.results.Missing(at), b.results.Unseen(at))
		b.out = append(b.out, ',')
		b.out = p.appendPrediction(b.out, customer, nil)
		b.out = append(p.appendOutcome(b.out, b, at), '}')
	}
	r.pending = r.pending[:0]
	b.reader.rows.Reset()
	return nil
}

// predictArray answers a JSON array with one object.
func (s *Server) predictArray(x *exchange, req *http.Request, e explain) {
	b := s.predictor.take(e)
	defer s.predictor.give(b)
	var err error
	if b.body, err = readAll(b.body[:0], req.Body); err != nil {
		bodyProblem(err, s.cfg.Limits.BatchBytes).write(x)
		return
	}
	b.reader.rows.Reset()
	b.out = append(b.out[:0], `{"predictions":[`...)
	run := s.newBatchRun(x, b, ",")
	var failure error // of ours, not of the text
	text, err := newJSONText(b.body)
	if err == nil {
		err = text.array(func() error {
			if err := b.reader.readObject(&text, "body["+strconv.Itoa(run.rows+len(run.pending))+"]"); err != nil {
				return err
			}
			run.add()
			if run.full() {
				failure = run.flush()
			}
			return failure
		})
		if err == nil {
			err = text.end()
		}
	}
	if failure == nil && err != nil {
		newProblem(http.StatusBadRequest, "the body is not a JSON array of objects: %v", err).write(x)
		return
	}
	if failure == nil {
		failure = run.flush()
	}
	if failure != nil {
		s.batchFault(x, failure).write(x)
		return
	}
	b.out = fmt.Appendf(b.out, "],\"rows\":%d,\"failed\":%d}\n", run.rows, run.failed)
	writeJSON(x, http.StatusOK, b.out)
}

func (s *Server) batchFault(x *exchange, err error) *problem {
	if errors.Is(err, errOutboxFull) {
		return later(http.StatusServiceUnavailable, time.Second, "%v", err)
	}
	return s.storeFault(x, err)
}

// holdBack is how much of an answer in lines is gathered before the first byte of it is sent. Clients that send all
// before they read work up to it.
const holdBack = 4 << 20

// lineAnswer writes the lines of an answer while the request is still being read.
type lineAnswer struct {
	x       *exchange
	started bool
}

func (a *lineAnswer) write(out []byte, all bool) ([]byte, error) {
	if !a.started {
		if !all && len(out) < holdBack {
			return out, nil
		}
		a.started = true
		_ = http.NewResponseController(a.x).EnableFullDuplex() // HTTP/2 has it anyway
		a.x.Header().Set("Content-Type", typeNDJSON)
		a.x.Header().Set("Cache-Control", "no-store")
		a.x.WriteHeader(http.StatusOK)
	} else if !all && len(out) < 64<<10 {
		return out, nil
	}
	_, err := a.x.Write(out)
	return out[:0], err
}

// end answers for the whole: a problem where nothing was sent yet, else a last line.
func (a *lineAnswer) end(out []byte, run *batchRun, refusal *problem) {
	if refusal != nil && !a.started && run.rows == 0 {
		refusal.write(a.x)
		return
	}
	end := BatchEnd{Rows: run.rows, Failed: run.failed}
	if refusal != nil {
		end.Error = refusal.Detail
	}
	if run.rows > 0 {
		out = append(out, '\n')
	}
	text, err := json.Marshal(end)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = a.write(append(append(out, text...), '\n'), true) // the client went away: nobody to tell
}

// pass answers the rows of a full chunk. False: the answer has ended with a problem. A client that went away ends the
// handler.
func (a *lineAnswer) pass(ctx context.Context, s *Server, b *bench, run *batchRun) bool {
	err := run.flush()
	if err != nil {
		a.end(b.out, run, s.batchFault(a.x, err))
		return false
	}
	if b.out, err = a.write(b.out, false); err != nil || ctx.Err() != nil {
		panic(http.ErrAbortHandler)
	}
	return true
}

// finish answers the last rows and ends the answer.
func (a *lineAnswer) finish(s *Server, b *bench, run *batchRun) {
	var refusal *problem
	if err := run.flush(); err != nil {
		refusal = s.batchFault(a.x, err)
	}
	a.end(b.out, run, refusal)
}

// predictLines answers JSON lines with JSON lines.
func (s *Server) predictLines(x *exchange, req *http.Request, e explain) {
	b := s.predictor.take(e)
	defer s.predictor.give(b)
	b.reader.rows.Reset()
	b.out, b.lines = b.out[:0], b.lines[:0]
	run, to := s.newBatchRun(x, b, "\n"), &lineAnswer{x: x}
	in := bufio.NewReaderSize(req.Body, 64<<10)
	for {
		line, err := s.line(in, b)
		switch {
		case errors.Is(err, io.EOF):
			to.finish(s, b, run)
			return
		case err != nil:
			_ = run.flush() // what came before is answered
			refusal := bodyProblem(err, s.cfg.Limits.BatchBytes)
			if errors.Is(err, bufio.ErrTooLong) {
				refusal = newProblem(http.StatusRequestEntityTooLarge, "row %d: the line is longer than %d bytes", run.rows, s.cfg.Limits.BodyBytes)
			}
			to.end(b.out, run, refusal)
			return
		}
		place := "body[" + strconv.Itoa(run.rows+len(run.pending)) + "]"
		text, err := newJSONText(line)
		if err == nil {
			if text.next() == 0 {
				continue // a blank line
			}
			before := b.reader.rows.Len()
			if err = b.reader.readObject(&text, place); err == nil {
				if err = text.end(); err != nil && b.reader.rows.Len() > before {
					b.reader.rows.DropLast()
				}
			}
		}
		if err != nil {
			b.reader.place, b.reader.faults = place, nil
			b.reader.fault("", "is not JSON: %v", err)
		}
		run.add()
		if !run.full() {
			continue
		}
		if !to.pass(req.Context(), s, b, run) {
			return
		}
		b.lines = b.lines[:0]
	}
}

// line reads the next line into memory that stays until the chunk is flushed.
func (s *Server) line(in *bufio.Reader, b *bench) ([]byte, error) {
	start := len(b.lines)
	for {
		part, err := in.ReadSlice('\n')
		b.lines = append(b.lines, part...)
		if int64(len(b.lines)-start) > s.cfg.Limits.BodyBytes {
			return nil, bufio.ErrTooLong
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) && len(b.lines) > start {
			err = nil
		}
		return b.lines[start:len(b.lines):len(b.lines)], err
	}
}

// predictTable answers CSV with JSON lines.
func (s *Server) predictTable(x *exchange, req *http.Request, e explain) {
	b := s.predictor.take(e)
	defer s.predictor.give(b)
	b.reader.rows.Reset()
	b.out = b.out[:0]
	table := csv.NewReader(req.Body)
	table.ReuseRecord = true
	header, err := table.Read()
	if err != nil {
		s.tableProblem(err).write(x)
		return
	}
	columns, refusal := s.tableColumns(header)
	if refusal != nil {
		refusal.write(x)
		return
	}
	run, to := s.newBatchRun(x, b, "\n"), &lineAnswer{x: x}
	for {
		cells, err := table.Read()
		place := "body[" + strconv.Itoa(run.rows+len(run.pending)) + "]"
		switch {
		case errors.Is(err, io.EOF):
			to.finish(s, b, run)
			return
		case errors.Is(err, csv.ErrFieldCount):
			b.reader.place, b.reader.faults = place, nil
			b.reader.fault("", "has %d cells, the header line has %d", len(cells), len(header))
		case err != nil:
			_ = run.flush() // what came before is answered
			to.end(b.out, run, s.tableProblem(err))
			return
		default:
			b.reader.readCells(cells, columns, place)
		}
		run.add()
		if !run.full() {
			continue
		}
		if !to.pass(req.Context(), s, b, run) {
			return
		}
	}
}

func (s *Server) tableProblem(err error) *problem {
	var syntax *csv.ParseError
	switch {
	case errors.As(err, &syntax):
		return newProblem(http.StatusBadRequest, "the body is not CSV: %v", syntax)
	case errors.Is(err, io.EOF):
		return newProblem(http.StatusBadRequest, "the body has no header line, which names the columns")
	default:
		return bodyProblem(err, s.cfg.Limits.BatchBytes)
	}
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
