package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/churnstream/churnstream/internal/admin"
)

// The content types of bodies.
const (
	typeJSON    = "application/json"
	typeNDJSON  = "application/x-ndjson"
	typeCSV     = "text/csv"
	typeEvents  = "text/event-stream"
	typeProblem = "application/problem+json"
)

// register puts the operations on the mux and into the OpenAPI document.
func (s *Server) register() error {
	cfg := huma.DefaultConfig("churnstream", s.deps.Version)
	cfg.Info.Description = fmt.Sprintf("Churn predictions of %s@%s with the reasons for them, and the scores of the stream. Digest of the model: %s.",
		s.deps.Model.Name(), s.deps.Model.Version(), s.deps.Model.Digest())
	cfg.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	cfg.CreateHooks = nil // no $schema members in answers
	cfg.DocsPath, cfg.SchemasPath, cfg.OpenAPIPath = "", "", ""
	cfg.RejectUnknownQueryParameters = true
	cfg.Formats = map[string]huma.Format{typeJSON: huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	cfg.DefaultFormat = typeJSON
	if s.auth.asks() {
		cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{}
		if s.auth.keys != nil {
			cfg.Components.SecuritySchemes["key"] = &huma.SecurityScheme{Type: "http", Scheme: "bearer", Description: "An API key"}
			cfg.Components.SecuritySchemes["keyHeader"] = &huma.SecurityScheme{Type: "apiKey", In: "header", Name: "X-API-Key"}
		}
		if s.auth.tokens != nil {
			cfg.Components.SecuritySchemes["token"] = &huma.SecurityScheme{Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "A token of " + s.cfg.Auth.OIDC.Issuer}
		}
		if s.auth.certificates {
			cfg.Components.SecuritySchemes["certificate"] = &huma.SecurityScheme{Type: "mutualTLS"}
		}
	}
	s.api = humago.New(s.mux, cfg)
	in, err := s.inputSchemas()
	if err != nil {
		return err
	}
	s.registerPredictions(in)
	s.registerModels()
	if s.kafka != nil {
		s.registerCustomers()
		if s.deps.Kafka.Events.Topic != "" {
			s.registerEvents(in)
		}
	}
	s.registerProbes()
	return s.registerDocs(in.example)
}

// operation completes what all operations have in common and makes the pattern known to admission.
func (s *Server) operation(op huma.Operation, at route, errors ...int) huma.Operation {
	at.name = op.Path
	s.routes[op.Method+" "+op.Path] = at
	if at.bodyLimit == 0 {
		at.bodyLimit = 4 << 10 // a body that nothing asked for
		s.routes[op.Method+" "+op.Path] = at
	}
	codes := []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusInternalServerError}
	if !at.free {
		codes = append(codes, http.StatusServiceUnavailable)
	}
	if at.scope != anybody {
		if s.cfg.Limits.Rate > 0 || s.auth.asks() {
			codes = append(codes, http.StatusTooManyRequests)
		}
		if s.auth.asks() {
			codes = append(codes, http.StatusUnauthorized, http.StatusForbidden)
			for name := range s.api.OpenAPI().Components.SecuritySchemes {
				op.Security = append(op.Security, map[string][]string{name: {}})
			}
			slices.SortFunc(op.Security, func(a, b map[string][]string) int {
				return strings.Compare(slices.Collect(maps.Keys(a))[0], slices.Collect(maps.Keys(b))[0])
			})
		}
		op.Description = strings.TrimSpace(op.Description + fmt.Sprintf(" Needs the scope `%s`.", at.scope))
	}
	codes = append(codes, errors...)
	slices.Sort(codes)
	op.Errors = slices.Compact(codes)
	return op
}

// schemaOf gives the schema of a Go type, by reference.
func schemaOf[T any](s *Server) *huma.Schema {
	t := reflect.TypeFor[T]()
	return s.api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

func answer(description string, content map[string]*huma.Schema) map[string]*huma.Response {
	r := &huma.Response{Description: description, Content: map[string]*huma.MediaType{}}
	for name, schema := range content {
		r.Content[name] = &huma.MediaType{Schema: schema}
	}
	return map[string]*huma.Response{"200": r}
}

// documentBody describes the body of a POST operation that reads it for itself: what is registered with an operation,
// huma reads and judges.
func (s *Server) documentBody(path string, content map[string]*huma.MediaType) {
	s.api.OpenAPI().Paths[path].Post.RequestBody = &huma.RequestBody{Required: true, Content: content}
}

// raw is the answer of an operation that reads and writes for itself.
func raw(do func(x *exchange, r *http.Request)) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		x, ok := w.(*exchange)
		if !ok {
			panic("BUG: an operation outside of admission")
		}
		do(x, r)
	}}
}

// writeJSON answers with text that is JSON already.
func writeJSON(x *exchange, status int, text []byte) {
	h := x.Header()
	h["Content-Type"] = []string{typeJSON}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	x.WriteHeader(status)
	_, _ = x.Write(text) // the client went away: nobody to tell
}

// mediaType is the type of a body without its parameters; what is no type at all stays as it is.
func mediaType(r *http.Request) string {
	t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(t))
}

func unsupported(x *exchange, accepted ...string) *problem {
	x.Header().Set("Accept", strings.Join(accepted, ", "))
	return newProblem(http.StatusUnsupportedMediaType, "the Content-Type is not one of %s", strings.Join(accepted, ", "))
}

// Metadata is what a caller may know of the model that answers.
type Metadata struct {
	Name          string          `json:"name" doc:"Name of the model"`
	Version       string          `json:"version" doc:"Version of the model"`
	Digest        string          `json:"digest" doc:"sha256 of the artefact's manifest, which holds the digests of its files"`
	Role          string          `json:"role" enum:"champion" doc:"champion: its answers count"`
	Library       string          `json:"library" doc:"What trained it"`
	CreatedAt     string          `json:"created_at" format:"date-time"`
	Threshold     float64         `json:"threshold" doc:"The least probability that is answered with churn"`
	Label         string          `json:"label" doc:"What the probability is of"`
	Horizon       string          `json:"horizon" doc:"The time that the label looks ahead"`
	Explains      bool            `json:"explains" doc:"Whether answers can carry contributions"`
	Inputs        []MetadataInput `json:"inputs" nullable:"false"`
	ReferenceRows int             `json:"reference_rows" doc:"Rows of the training library that the model reproduced when it was loaded"`
	Metrics       []MetadataValue `json:"metrics" nullable:"false" doc:"Figures of merit on rows that the model was not fitted on"`
}

// MetadataInput is one input.
type MetadataInput struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind" enum:"number,category,boolean,date,timestamp"`
	Nullable bool     `json:"nullable" doc:"Whether it may be missing"`
	Min      *float64 `json:"min,omitempty" doc:"In the unit of the kind: days for a date, milliseconds for a timestamp"`
	Max      *float64 `json:"max,omitempty"`
}

// MetadataValue is a figure of merit.
type MetadataValue struct {
	Name  string   `json:"name"`
	Value float64  `json:"value"`
	Low   *float64 `json:"low,omitempty" doc:"Of the confidence interval"`
	High  *float64 `json:"high,omitempty"`
	Level *float64 `json:"level,omitempty"`
}

func (s *Server) metadata() Metadata {
	m := s.deps.Model
	about := m.Manifest()
	d := Metadata{
		Name: m.Name(), Version: m.Version(), Digest: m.Digest(), Role: "champion",
		Library:   strings.TrimSpace(about.Training.Library + " " + about.Training.LibraryVersion),
		CreatedAt: about.CreatedAt.UTC().Format("2006-01-02T15:04:05Z07:00"), Threshold: m.Threshold(),
		Label: about.Label.Definition, Horizon: about.Label.Horizon, Explains: m.Explained() != nil,
		Inputs: []MetadataInput{}, Metrics: []MetadataValue{}, ReferenceRows: m.ReferenceRows(),
	}
	for _, in := range m.Contract().Inputs {
		d.Inputs = append(d.Inputs, MetadataInput{in.Name, in.Kind.String(), in.Nullable, in.Min, in.Max})
	}
	for _, metric := range about.Metrics {
		v := MetadataValue{Name: metric.Name, Value: metric.Value}
		if c := metric.Interval; c != nil {
			v.Low, v.High, v.Level = &c.Low, &c.High, &c.Level
		}
		d.Metrics = append(d.Metrics, v)
	}
	return d
}

// Models lists what is loaded.
type Models struct {
	Models []Metadata `json:"models" nullable:"false"`
}

// bodyOf is the output of an operation whose answer huma writes.
type bodyOf[T any] struct{ Body T }

func (s *Server) registerModels() {
	about := s.metadata()
	huma.Register(s.api, s.operation(huma.Operation{
		OperationID: "get-metadata", Method: http.MethodGet, Path: "/v1/metadata", Tags: []string{"model"},
		Summary: "The model that answers: inputs, threshold, origin, figures of merit",
	}, route{scope: scopeRead}, http.StatusUnprocessableEntity), func(context.Context, *struct{}) (*bodyOf[Metadata], error) { return &bodyOf[Metadata]{about}, nil })
	huma.Register(s.api, s.operation(huma.Operation{
		OperationID: "list-models", Method: http.MethodGet, Path: "/v1/models", Tags: []string{"model"},
		Summary: "All loaded models",
	}, route{scope: scopeRead}, http.StatusUnprocessableEntity), func(context.Context, *struct{}) (*bodyOf[Models], error) {
		return &bodyOf[Models]{Models{[]Metadata{about}}}, nil
	})
}

// Health is the answer of a probe.
type Health struct {
	OK      bool     `json:"ok"`
	Reasons []string `json:"reasons,omitempty" doc:"Why not"`
	Version string   `json:"version" doc:"Of the program"`
	Model   string   `json:"model" doc:"name@version"`
}

type healthOutput struct {
	Status int
	Body   Health
}

func (s *Server) registerProbes() {
	about := Health{Version: s.deps.Version, Model: s.deps.Model.Name() + "@" + s.deps.Model.Version()}
	probe := func(path, summary string, ask func() admin.Status) {
		huma.Register(s.api, s.operation(huma.Operation{
			OperationID: "get-" + strings.TrimPrefix(path, "/"), Method: http.MethodGet, Path: path, Summary: summary, Tags: []string{"operation"},
			Responses: map[string]*huma.Response{"503": {Description: "Not so", Content: map[string]*huma.MediaType{typeJSON: {Schema: schemaOf[Health](s)}}}},
		}, route{free: true}, http.StatusUnprocessableEntity), func(context.Context, *struct{}) (*healthOutput, error) {
			status := ask()
			out := &healthOutput{Status: http.StatusOK, Body: about}
			out.Body.OK, out.Body.Reasons = status.OK, status.Reasons
			if !status.OK {
				out.Status = http.StatusServiceUnavailable
			}
			return out, nil
		})
	}
	probe("/livez", "Whether the process is alive", func() admin.Status { return admin.Status{OK: true} })
	probe("/readyz", "Whether it does its work: model loaded, scores read, registry known", s.ready)
	probe("/health", "The same as /readyz", s.ready)
	metrics := promhttp.HandlerFor(s.deps.Metrics, promhttp.HandlerOpts{Registry: s.deps.Metrics, EnableOpenMetrics: true})
	huma.Register(s.api, s.operation(huma.Operation{
		OperationID: "get-metrics", Method: http.MethodGet, Path: "/metrics", Summary: "Metrics for Prometheus", Tags: []string{"operation"},
		Responses: answer("Metrics in the format that was asked for", map[string]*huma.Schema{
			"text/plain": {Type: huma.TypeString}, "application/openmetrics-text": {Type: huma.TypeString},
		}),
	}, route{scope: scopeRead, free: true}, http.StatusUnprocessableEntity), func(context.Context, *struct{}) (*huma.StreamResponse, error) {
		return raw(func(x *exchange, r *http.Request) { metrics.ServeHTTP(x, r) }), nil
	})
}

func (s *Server) ready() admin.Status {
	status := admin.Status{OK: true}
	if s.kafka != nil {
		status.Reasons = s.kafka.waits()
	}
	if s.auth.keys != nil {
		if err := s.auth.keys.fault(); err != nil {
			status.Reasons = append(status.Reasons, "the file of API keys cannot be used ("+faultWithoutContent(err)+"; the log says more); the keys before it are in force")
		}
	}
	if s.deps.Ready != nil {
		status.Reasons = append(status.Reasons, s.deps.Ready().Reasons...)
	}
	status.OK = len(status.Reasons) == 0
	return status
}

// document is the OpenAPI document as JSON.
func (s *Server) document() ([]byte, error) {
	text, err := json.MarshalIndent(s.api.OpenAPI(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	return text, nil
}
