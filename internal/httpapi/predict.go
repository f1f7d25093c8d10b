package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/churnstream/churnstream/schemas"
)

// optional is a query parameter whose absence means something.
type optional[T any] struct {
	value T
	set   bool
}

// Schema implements huma.SchemaProvider.
func (o optional[T]) Schema(r huma.Registry) *huma.Schema {
	return huma.SchemaFromType(r, reflect.TypeFor[T]())
}

// Receiver implements huma.ParamWrapper.
func (o *optional[T]) Receiver() reflect.Value { return reflect.ValueOf(&o.value).Elem() }

// OnParamSet implements huma.ParamReactor.
func (o *optional[T]) OnParamSet(set bool, _ any) { o.set = set }

// explainInput says what a caller wants beside the probability.
type explainInput struct {
	Explain       optional[int] `query:"explain" minimum:"0" maximum:"100" doc:"How many features explanations.top_features names. A single prediction has as many as the server is set to, a batch none unless asked"`
	Contributions bool          `query:"contributions" doc:"Whether answers carry the signed contribution of every input"`
}

func (s *Server) wish(in *explainInput, usual int) (explain, error) {
	e := explain{reasons: usual, contributions: in.Contributions}
	if in.Explain.set {
		e.reasons = in.Explain.value
	}
	if e.contributions && s.predictor.names == nil {
		return e, newProblem(http.StatusUnprocessableEntity, "contributions: %v", errNoContributions)
	}
	return e, nil
}

func (s *Server) registerPredictions(in inputSchemas) {
	huma.Register(s.api, s.operation(huma.Operation{
		OperationID: "predict", Method: http.MethodPost, Path: "/v1/predict", Tags: []string{"predictions"},
		Summary:   "The probability that one customer churns, and why",
		Responses: answer("The prediction", map[string]*huma.Schema{typeJSON: schemaOf[Prediction](s)}),
	}, route{scope: scopePredict, bodyLimit: s.cfg.Limits.BodyBytes}, http.StatusRequestTimeout, http.StatusUnprocessableEntity),
		func(_ context.Context, in *explainInput) (*huma.StreamResponse, error) {
			e, err := s.wish(in, s.predictor.usual.reasons)
			if err != nil {
				return nil, err
			}
			return raw(func(x *exchange, r *http.Request) { s.predict(x, r, e) }), nil
		})
	s.documentBody("/v1/predict", map[string]*huma.MediaType{
		typeJSON: {Schema: in.customer, Example: in.example},
	})
	s.registerBatch(in)
}

func (s *Server) predict(x *exchange, r *http.Request, e explain) {
	if t := mediaType(r); t != "" && t != typeJSON {
		unsupported(x, typeJSON).write(x)
		return
	}
	b := s.predictor.take(e)
	defer s.predictor.give(b)
	var err error
	if b.body, err = readAll(b.body[:0], r.Body); err != nil {
		bodyProblem(err, s.cfg.Limits.BodyBytes).write(x)
		return
	}
	since, ok := s.work.enter(true)
	if !ok {
		s.shed.write(x)
		return
	}
	o, refusal := s.predictOne(b, since)
	if refusal != nil {
		refusal.write(x)
		return
	}
	customer := b.reader.envelope.customer
	if customer == nil {
		sequence, err := s.store.sequence(1)
		if err != nil {
			s.fault(x, err).write(x)
			return
		}
		b.key = s.store.appendCustomer(b.key[:0], sequence)
		customer = b.key
	}
	if s.publishes() {
		numbers, categories := b.reader.rows.Row(0)
		if !s.kafka.publishPrediction(newPrediction(x, x.began.UnixMilli(), customer, o, numbers, categories)) { // it would not count
			later(http.StatusServiceUnavailable, time.Second, "predictions are published and Kafka is behind; ask again later").write(x)
			return
		}
	}
	b.counts.reset(len(s.predictor.contract.Inputs))
	b.counts.add(o.churn, s.predictor.inputs, o.missing, o.unseen)
	s.metrics.counted(&b.counts)
	b.out = append(s.predictor.appendPrediction(append(b.out[:0], '{'), customer, o.text), '}', '\n')
	writeJSON(x, http.StatusOK, b.out)
}

// predictOne reads and scores the one row of the body, and gives the processor back that it has had since.
func (s *Server) predictOne(b *bench, since time.Time) (*outcome, *problem) {
	defer s.work.leave(since)
	text, err := newJSONText(b.body)
	if err == nil {
		b.reader.rows.Reset()
		if err = b.reader.readObject(&text, alone); err == nil {
			err = text.end()
		}
	}
	if err != nil {
		return nil, newProblem(http.StatusBadRequest, "the body is not JSON: %v", err)
	}
	if len(b.reader.faults) > 0 {
		return nil, invalid(b.reader.faults)
	}
	o, err := s.predictor.one(b)
	if err != nil {
		return nil, cannotScore(err)
	}
	return o, nil
}

// readAll appends to dst.
func readAll(dst []byte, from io.Reader) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := from.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if errors.Is(err, io.EOF) {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// cannotScore tells why the model refuses a row.
func cannotScore(err error) *problem {
	var refused *schemas.RecordError
	fault := &huma.ErrorDetail{Location: "body", Message: err.Error()}
	if errors.As(err, &refused) {
		fault.Message = refused.Err.Error()
		if refused.Path != "" {
			fault.Location += "." + refused.Path
		}
	}
	return invalid([]*huma.ErrorDetail{fault})
}

// fault is a failure of the disk or of this program. Where, is for the log.
func (s *Server) fault(x *exchange, err error) *problem {
	s.log.Error().Err(err).Str("request_id", x.requestID).Msg("a request failed")
	return newProblem(http.StatusInternalServerError, "the server is at fault; the request id tells its operator where")
}
