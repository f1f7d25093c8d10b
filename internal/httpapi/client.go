package httpapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed client.tmpl
var clientTemplate string

// clientMethod is one operation as a method of the Python client.
type clientMethod struct {
	Name, Summary, Method, Path string
	Arguments, Query            []string
	Body                        bool
}

// pythonClient writes a client of the document's JSON operations. It needs nothing but Python.
func pythonClient(doc *huma.OpenAPI, example map[string]any) ([]byte, error) {
	text, err := json.Marshal(example)
	if err != nil {
		return nil, fmt.Errorf("Python client: %w", err)
	}
	data := struct {
		Title, Version, Example string
		Operations              []clientMethod
	}{Title: doc.Info.Title, Version: doc.Info.Version, Example: pythonString(string(text))}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Delete} {
			if op == nil || !answersJSON(op) {
				continue
			}
			m := clientMethod{
				Name: strings.ReplaceAll(op.OperationID, "-", "_"), Summary: op.Summary, Method: op.Method, Path: pythonString(path), Body: op.RequestBody != nil,
			}
			for _, p := range op.Parameters {
				switch p.In {
				case "path":
					m.Arguments = append(m.Arguments, p.Name)
				case "query":
					m.Query = append(m.Query, p.Name)
				}
			}
			data.Operations = append(data.Operations, m)
		}
	}
	program, err := template.New("client").Parse(clientTemplate)
	if err != nil {
		return nil, fmt.Errorf("Python client: %w", err)
	}
	var out bytes.Buffer
	if err := program.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("Python client: %w", err)
	}
	return out.Bytes(), nil
}

func answersJSON(op *huma.Operation) bool {
	for code, r := range op.Responses {
		if strings.HasPrefix(code, "2") && r.Content[typeJSON] != nil {
			return true
		}
	}
	return false
}

// pythonString quotes a text; what Go escapes in ASCII, Python reads.
func pythonString(text string) string { return strconv.QuoteToASCII(text) }
