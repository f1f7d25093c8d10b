package httpapi

import (
	"context"
	"net/http"

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
