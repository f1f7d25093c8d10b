package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// Accepted says that events are in Kafka.
type Accepted struct {
	Published int `json:"published" minimum:"1" doc:"Number of events that all in-sync replicas have"`
}

func (s *Server) registerEvents(in inputSchemas) {
	example := map[string]any{customerField: "c-1"}
	for name, value := range in.example {
		example[name] = value
	}
	accepted := answer("The events are in the activity topic", map[string]*huma.Schema{typeJSON: schemaOf[Accepted](s)})
	huma.Register(s.api, s.operation(huma.Operation{
		OperationID: "publish-events", Method: http.MethodPost, Path: "/v1/events", Tags: []string{"events"}, DefaultStatus: http.StatusAccepted,
		Summary: "Publish events to the activity topic",
		Description: "One JSON object, or JSON lines. The events are held to the model's contract, written as Avro and acknowledged by Kafka before the answer. " +
			"When one of several is wrong, none is published. A repeated request publishes again.",
		Responses: map[string]*huma.Response{"202": accepted["200"]},
	}, route{scope: scopePredict, bodyLimit: s.cfg.Limits.BodyBytes}, http.StatusRequestTimeout, http.StatusUnprocessableEntity, http.StatusGatewayTimeout),
		func(context.Context, *struct{}) (*huma.StreamResponse, error) { return raw(s.publishEvents), nil })
	s.documentBody("/v1/events", map[string]*huma.MediaType{
		typeJSON:   {Schema: in.event, Example: example},
		typeNDJSON: {Schema: &huma.Schema{Type: huma.TypeString, Description: "An object a line"}},
	})
}

// furthestAhead is how far in the future an event may be. Kafka takes an hour unless told otherwise
// (message.timestamp.after.max.ms) by its own clock, and refuses with one record all that are published with it.
const furthestAhead = 50 * time.Minute

func (s *Server) publishEvents(x *exchange, r *http.Request) {
	lines := false
	switch mediaType(r) {
	case typeJSON, "":
	case typeNDJSON, "application/jsonl":
		lines = true
	default:
		unsupported(x, typeJSON, typeNDJSON).write(x)
		return
	}
	id := s.kafka.eventID.Load()
	if id == 0 {
		later(http.StatusServiceUnavailable, 5*time.Second, "the schema of events is not registered").write(x)
		return
	}
	body, err := readAll(nil, r.Body)
	if err != nil {
		bodyProblem(err, s.cfg.Limits.BodyBytes).write(x)
		return
	}
	records, refusal := s.eventRecords(body, lines, id, x)
	if refusal != nil {
		refusal.write(x)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Limits.RequestTimeout.Std())
	defer cancel()
	if err := s.kafka.outbox.submit(ctx, records); err != nil {
		s.publishFault(x, err).write(x)
		return
	}
	s.metrics.published.WithLabelValues("event").Add(float64(len(records)))
	writeJSON(x, http.StatusAccepted, append(strconv.AppendInt([]byte(`{"published":`), int64(len(records)), 10), "}\n"...))
}

// eventRecords makes a record of every event in the body. The faults of all of them are named at once.
func (s *Server) eventRecords(body []byte, lines bool, id int32, x *exchange) (records []producer.Record, refusal *problem) {
	reader := newRowReader(s.predictor.contract)
	reader.events = true
	var faults []*huma.ErrorDetail
	read := func(text []byte, row int) *problem {
		reader.row = row
		t, err := newJSONText(text)
		if err == nil {
			if err = reader.readObject(&t, row); err == nil {
				err = t.end()
			}
		}
		if err != nil {
			return newProblem(http.StatusBadRequest, "%s is not JSON: %v", reader.place(), err)
		}
		if at := reader.envelope.eventTime; at > x.began.Add(furthestAhead).UnixMilli() {
			reader.fault(eventTimeField, "is more than %v ahead of this server's clock; Kafka refuses such records", furthestAhead)
		}
		if reader.faults == nil && reader.envelope.customer == nil {
			reader.fault(customerField, "is missing; an event is about a customer")
		}
		if reader.faults != nil {
			if len(faults) < maxFaults {
				faults = append(faults, reader.faults...)
			}
			reader.rows.Reset()
			return nil
		}
		numbers, texts := reader.rows.Row(0)
		value, err := s.kafka.encoder.AppendEvent(schemas.AppendFrame(nil, id), numbers, texts)
		if err != nil {
			faults = append(faults, &huma.ErrorDetail{Location: reader.place(), Message: err.Error()})
		}
		at := reader.envelope.eventTime
		if at == 0 {
			at = x.began.UnixMilli()
		}
		records = append(records, producer.Record{
			Topic: s.deps.Kafka.Events.Topic, Partition: -1, Timestamp: at, Key: reader.envelope.customer, Value: value, Headers: traceHeaders(x),
		})
		reader.rows.Reset()
		return nil
	}
	if !lines {
		refusal = read(body, alone)
	} else {
		scanner := bufio.NewScanner(bytes.NewReader(body))
		scanner.Buffer(nil, len(body)+1)
		for n := 0; scanner.Scan() && refusal == nil; {
			line := bytes.TrimSpace(scanner.Bytes())
			if len(line) == 0 {
				continue
			}
			refusal = read(bytes.Clone(line), n)
			n++
		}
	}
	switch {
	case refusal != nil:
		return nil, refusal
	case len(faults) > 0:
		return nil, invalid(faults)
	case len(records) == 0:
		return nil, newProblem(http.StatusBadRequest, "the body holds no event")
	}
	return records, nil
}
