package httpapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.tmpl
var docsTemplate string

// registerDocs serves the document, the page and the Python client that are made of it. All are made once, when every operation is known.
// They say what the model wants and nothing of customers, and are open to everybody who reaches the address.
func (s *Server) registerDocs(example map[string]any) error {
	text, err := s.document()
	if err != nil {
		return err
	}
	client, err := pythonClient(s.api.OpenAPI(), example)
	if err != nil {
		return err
	}
	page, err := docsPage(s.api.OpenAPI(), text)
	if err != nil {
		return err
	}
	serve := func(path, contentType string, body []byte) {
		s.routes["GET "+path] = route{name: path, free: true, bodyLimit: 4 << 10}
		s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Content-Type", contentType)
			h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
			h.Set("Cache-Control", "no-cache")
			_, _ = w.Write(body) // the client went away: nobody to tell
		})
	}
	serve("/openapi.json", typeJSON, text)
	serve("/docs", "text/html; charset=utf-8", page)
	serve("/docs/client.py", "text/x-python; charset=utf-8", client)
	return nil
}

// documented is one operation as the page shows it.
type documented struct {
	*huma.Operation
	Responses []documentedResponse
	Body      string // schema of the request
	Curl      string
}

type documentedResponse struct {
	Code, Description, Schema string
}

func docsPage(doc *huma.OpenAPI, text []byte) ([]byte, error) {
	page, err := template.New("docs").Parse(docsTemplate)
	if err != nil {
		return nil, fmt.Errorf("documentation page: %w", err)
	}
	var data struct {
		Info       *huma.Info
		Operations []documented
		Schemas    []documentedResponse
	}
	data.Info = doc.Info
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Delete} {
			if op == nil {
				continue
			}
			one := documented{Operation: op, Curl: curl(op)}
			for _, code := range slices.Sorted(maps.Keys(op.Responses)) {
				r := op.Responses[code]
				one.Responses = append(one.Responses, documentedResponse{Code: code, Description: r.Description, Schema: contentOf(r.Content)})
			}
			if op.RequestBody != nil {
				one.Body = contentOf(op.RequestBody.Content)
			}
			data.Operations = append(data.Operations, one)
		}
	}
	var parsed struct {
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &parsed); err != nil {
		return nil, fmt.Errorf("documentation page: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(parsed.Components.Schemas)) {
		var indented bytes.Buffer
		if err := json.Indent(&indented, parsed.Components.Schemas[name], "", "  "); err != nil {
			return nil, fmt.Errorf("documentation page: %w", err)
		}
		data.Schemas = append(data.Schemas, documentedResponse{Code: name, Schema: indented.String()})
	}
	var out bytes.Buffer
	if err := page.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("documentation page: %w", err)
	}
	return out.Bytes(), nil
}

func contentOf(content map[string]*huma.MediaType) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(content)) {
		schema := ""
		if s := content[name].Schema; s != nil {
			_, schema, _ = strings.Cut(s.Ref, "schemas/")
		}
		parts = append(parts, strings.TrimSpace(name+" "+schema))
	}
	return strings.Join(parts, ", ")
}

// curl is a call of the operation that runs as it stands, but for the key.
func curl(op *huma.Operation) string {
	var b strings.Builder
	b.WriteString("curl -s")
	if op.Method != http.MethodGet {
		b.WriteString(" -X " + op.Method)
	}
	if len(op.Security) > 0 {
		b.WriteString(` -H "Authorization: Bearer $CHURNSTREAM_KEY"`)
	}
	if op.RequestBody != nil {
		if media := op.RequestBody.Content[typeJSON]; media != nil && media.Example != nil {
			if text, err := json.Marshal(media.Example); err == nil {
				b.WriteString(" -H 'Content-Type: application/json' \\\n  -d '" + strings.ReplaceAll(string(text), "'", `'\''`) + "'")
			}
		}
	}
	b.WriteString(" \\\n  \"$CHURNSTREAM_URL" + strings.ReplaceAll(op.Path, "{id}", "c-1") + "\"")
	return b.String()
}
