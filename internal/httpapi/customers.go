package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// CustomerScore is a score of the score topic.
type CustomerScore struct {
	CustomerID       string         `json:"customer_id"`
	ChurnProbability float64        `json:"churn_probability" minimum:"0" maximum:"1"`
	Prediction       Decision       `json:"prediction" enum:"churn,retain"`
	Threshold        float64        `json:"threshold"`
	Margin           float64        `json:"margin"`
	Model            string         `json:"model"`
	ModelVersion     string         `json:"model_version"`
	ModelDigest      string         `json:"model_digest"`
	Variant          string         `json:"variant" doc:"champion, canary or shadow"`
	EventTime        time.Time      `json:"event_time" doc:"When the event happened that was scored"`
	ScoredAt         time.Time      `json:"scored_at"`
	Reasons          []SignedReason `json:"reasons" nullable:"false" doc:"The most important first"`
	MissingInputs    []string       `json:"missing_inputs" nullable:"false"`
	UnseenInputs     []string       `json:"unseen_inputs" nullable:"false"`
	Source           Source         `json:"source" doc:"The event that was scored; it identifies the score"`
}

// SignedReason is a feature with its contribution.
type SignedReason struct {
	Feature      string  `json:"feature"`
	Contribution float64 `json:"contribution" doc:"Signed share of the margin"`
}

// Source is where an event is.
type Source struct {
	Topic     string `json:"topic" doc:"Begins with http- for a prediction of this API"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

func customerScore(s *schemas.Score) CustomerScore {
	c := CustomerScore{
		CustomerID: string(s.CustomerID), ChurnProbability: s.Probability, Prediction: Retain, Threshold: s.Threshold, Margin: s.Margin,
		Model: s.ModelName, ModelVersion: s.ModelVersion, ModelDigest: s.ModelDigest, Variant: s.Variant,
		EventTime: time.UnixMilli(s.EventTime).UTC(), ScoredAt: time.UnixMilli(s.ScoredAt).UTC(),
		Reasons: []SignedReason{}, MissingInputs: append([]string{}, s.Missing...), UnseenInputs: append([]string{}, s.Unseen...),
		Source: Source{s.SourceTopic, s.SourcePartition, s.SourceOffset},
	}
	if s.Churn {
		c.Prediction = Churn
	}
	for _, r := range s.Reasons {
		c.Reasons = append(c.Reasons, SignedReason(r))
	}
	return c
}

// History is what the score topic holds of a customer.
type History struct {
	Scores []CustomerScore `json:"scores" nullable:"false" doc:"The newest first"`
}

// Erasure says what was erased.
type Erasure struct {
	CustomerID string   `json:"customer_id"`
	Erased     []string `json:"erased" nullable:"false" doc:"What is gone, or goes when the topic is compacted"`
	Remains    []string `json:"remains" nullable:"false" doc:"Where data of the customer can be that this request does not reach"`
}

type customerInput struct {
	ID string `path:"id" minLength:"1" maxLength:"256" doc:"Customer id, percent-encoded"`
}

// historyInput repeats the id: huma does not look into an embedded type that is not exported.
type historyInput struct {
	ID    string `path:"id" minLength:"1" maxLength:"256" doc:"Customer id, percent-encoded"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many scores"`
}

func (s *Server) registerCustomers() {
	reading := route{scope: scopeRead}
	huma.Register(s.api, s.operation(huma.Operation{
		OperationID: "get-score", Method: http.MethodGet, Path: "/v1/customers/{id}/score", Tags: []string{"customers"},
		Summary:     "The newest score of a customer",
		Description: "From the score topic, as far as it is read; /readyz says whether that is up to date.",
	}, reading, http.StatusNotFound, http.StatusUnprocessableEntity), func(ctx context.Context, in *customerInput) (*bodyOf[CustomerScore], error) {
		scores, err := s.history(ctx, in.ID, 1)
		if err != nil {
			return nil, err
		}
		return &bodyOf[CustomerScore]{scores[0]}, nil
	})
	huma.Register(s.api, s.operation(huma.Operation{
		OperationID: "get-history", Method: http.MethodGet, Path: "/v1/customers/{id}/history", Tags: []string{"customers"},
		Summary: "The scores of a customer that the score topic holds, the newest first",
	}, reading, http.StatusNotFound, http.StatusUnprocessableEntity), func(ctx context.Context, in *historyInput) (*bodyOf[History], error) {
		scores, err := s.history(ctx, in.ID, in.Limit)
		if err != nil {
			return nil, err
		}
		return &bodyOf[History]{History{scores}}, nil
	})
	huma.Register(s.api, s.operation(huma.Operation{
		OperationID: "erase-customer", Method: http.MethodDelete, Path: "/v1/customers/{id}", Tags: []string{"customers"},
		Summary: "Erase a customer's scores",
		Description: "Publishes a tombstone to the score topic, which makes every reader that materialises it forget the customer and lets a compacted topic " +
			"remove the records, and removes the scores from this server's store. It succeeds for an unknown customer, too.",
	}, route{scope: scopeAdmin}, http.StatusUnprocessableEntity, http.StatusGatewayTimeout), s.erase)
	s.registerStream()
}

func badID(id string) *problem {
	if utf8.ValidString(id) {
		return nil
	}
	return invalid([]*huma.ErrorDetail{{Location: "path.id", Message: "is not valid UTF-8"}})
}

func (s *Server) history(ctx context.Context, id string, limit int) ([]CustomerScore, error) {
	if p := badID(id); p != nil {
		return nil, p
	}
	var scores []CustomerScore
	var score schemas.Score
	err := s.store.scores([]byte(id), func(_ int32, _ int64, avro []byte) bool {
		if schemas.DecodeScore(avro, &score) == nil {
			scores = append(scores, customerScore(&score))
		}
		return len(scores) < limit
	})
	if err != nil {
		return nil, s.fault(exchangeOf(ctx), err)
	}
	if len(scores) == 0 {
		return nil, newProblem(http.StatusNotFound, "no score of this customer is known")
	}
	return scores, nil
}

func (s *Server) erase(ctx context.Context, in *customerInput) (*bodyOf[Erasure], error) {
	if p := badID(in.ID); p != nil {
		return nil, p
	}
	x := exchangeOf(ctx)
	limited, cancel := context.WithTimeout(ctx, s.cfg.Limits.RequestTimeout.Std())
	defer cancel()
	topic := s.deps.Kafka.Scores.Topic
	// The tombstone goes first: what failed behind it is done by the store when it reads the tombstone.
	if err := s.kafka.outbox.submit(limited, []producer.Record{{
		Topic: topic, Partition: -1, Timestamp: time.Now().UnixMilli(), Key: []byte(in.ID), Headers: traceHeaders(x),
	}}); err != nil {
		return nil, s.publishFault(x, err)
	}
	s.metrics.published.WithLabelValues("erasure").Inc()
	if err := s.store.forget([]byte(in.ID)); err != nil {
		return nil, s.fault(x, err)
	}
	erasure := Erasure{
		CustomerID: in.ID,
		Erased:     []string{"scores in the store of this server", "scores in the stores of other servers, when they read the tombstone", "scores in the topic " + topic + ", if it is compacted, when the broker cleans it"},
		Remains:    []string{"events in the topic " + s.deps.Kafka.Events.Topic, "dead letters", "scores in a topic that is not compacted, until its retention ends", "copies that other readers made", "new scores, if events of the customer still come"},
	}
	if audit := s.deps.Kafka.Audit.Topic; audit != "" {
		erasure.Remains = append(erasure.Remains, "predictions and their inputs in the topic "+audit+", until its retention ends")
	}
	return &bodyOf[Erasure]{erasure}, nil
}

// publishFault says why records were not acknowledged. What the broker said is in the log.
func (s *Server) publishFault(x *exchange, err error) *problem {
	switch {
	case errors.Is(err, errBusy):
		return later(http.StatusServiceUnavailable, time.Second, "Kafka is behind; ask again later")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return newProblem(http.StatusGatewayTimeout, "Kafka did not acknowledge in time; whether the record is or will be published is unknown")
	default:
		s.log.Error().Err(err).Str("request_id", x.requestID).Msg("records were not published")
		return later(http.StatusServiceUnavailable, 5*time.Second, "Kafka did not take the record")
	}
}

type streamInput struct {
	Customer       string   `query:"customer_id" minLength:"1" maxLength:"256" doc:"Scores of this customer only"`
	Prediction     Decision `query:"prediction" enum:"churn,retain" doc:"Scores with this decision only"`
	MinProbability float64  `query:"min_probability" minimum:"0" maximum:"1" doc:"Scores with at least this probability"`
}

func (s *Server) registerStream() {
	huma.Register(s.api, s.operation(huma.Operation{
		OperationID: "stream-scores", Method: http.MethodGet, Path: "/v1/stream", Tags: []string{"customers"},
		Summary: "New scores as server-sent events",
		Description: "Each event is called score, its data is one score and its id the place in the score topic, partition:offset. Comments keep the connection open. " +
			"A client that is more than 1,024 scores behind is cut off; it asks for the history of what it missed.",
		Responses: answer("Scores, until the client leaves", map[string]*huma.Schema{typeEvents: {
			Type: huma.TypeObject, Description: "One event", Properties: map[string]*huma.Schema{
				"event": {Type: huma.TypeString}, "id": {Type: huma.TypeString}, "data": {Type: huma.TypeString, Description: "A CustomerScore as JSON"},
			},
		}}),
	}, route{scope: scopeRead, free: true}, http.StatusUnprocessableEntity, http.StatusServiceUnavailable),
		func(_ context.Context, in *streamInput) (*huma.StreamResponse, error) {
			f := scoreFilter{decision: in.Prediction, minProbability: in.MinProbability}
			if in.Customer != "" {
				f.customer = []byte(in.Customer)
			}
			return raw(func(x *exchange, r *http.Request) {
				faults := withoutValue(r.URL.Query())
				if math.IsNaN(in.MinProbability) { // neither below a minimum nor above a maximum
					faults = append(faults, &huma.ErrorDetail{Location: "query.min_probability", Message: "is not a number"})
				}
				if faults != nil {
					invalid(faults).write(x)
					return
				}
				s.stream(x, r, f)
			}), nil
		})
}

// withoutValue names parameters that are given and empty: huma takes them for absent, and a filter that is none would let
// every score through.
func withoutValue(query url.Values) (faults []*huma.ErrorDetail) {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if slices.Contains(query[name], "") {
			faults = append(faults, &huma.ErrorDetail{Location: "query." + name, Message: "has no value"})
		}
	}
	return faults
}

// heartbeat is how often a stream without scores shows that it is alive.
const heartbeat = 15 * time.Second

func (s *Server) stream(x *exchange, r *http.Request, f scoreFilter) {
	defer s.streams.Add(-1)
	if s.streams.Add(1) > int64(s.cfg.Limits.Streams) {
		s.metrics.refused.WithLabelValues("shed").Inc()
		later(http.StatusServiceUnavailable, 10*time.Second, "too many streams are open").write(x)
		return
	}
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	open := s.kafka.hub.open(f)
	defer s.kafka.hub.close(open)
	connection := http.NewResponseController(x)
	_ = connection.SetReadDeadline(time.Time{}) // that of the request would end the stream
	h := x.Header()
	h.Set("Content-Type", typeEvents)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	x.WriteHeader(http.StatusOK)
	var out []byte
	send := func() bool {
		_ = connection.SetWriteDeadline(time.Now().Add(s.cfg.Limits.RequestTimeout.Std()))
		_, err := x.Write(out)
		out = out[:0]
		return err == nil && connection.Flush() == nil
	}
	out = append(out, ": scores\n\n"...)
	if !send() {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.ending:
			return
		case <-beat.C:
			out = append(out, ": alive\n\n"...)
		case one, ok := <-open.scores:
			if !ok {
				return
			}
			text, err := json.Marshal(customerScore(one.score))
			if err != nil {
				continue // a number that JSON does not have: no score of ours
			}
			out = append(out, "event: score\nid: "...)
			out = strconv.AppendInt(append(strconv.AppendInt(out, int64(one.partition), 10), ':'), one.offset, 10)
			out = append(append(append(out, "\ndata: "...), text...), "\n\n"...)
		}
		if !send() {
			return
		}
	}
}
