// Package devregistry takes requests of the Confluent schema registry API and answers them from memory, for
// development and tests: Avro schemas, checked for compatibility by the rules of the Avro specification, kept in a
// directory if one is given.
//
// It has no contexts, modes other than READWRITE, rules or metadata.
package devregistry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Config says where the registry listens and keeps its schemas.
type Config struct {
	Listen string // host:port; port 0 takes a free one
	Dir    string // empty: memory only
}

// DefaultConfig listens where schema registries usually do, on this machine only.
func DefaultConfig() Config { return Config{Listen: "127.0.0.1:8081"} }

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen: %q is not host:port, e.g. 127.0.0.1:8081: %w", c.Listen, err)
	}
	return nil
}

// Server is the registry. It is safe for concurrent use.
type Server struct {
	cfg      Config
	listener net.Listener
	store    *store
}

// New reads the kept schemas and takes the listen address, so that an address in use is known at once. The caller has
// to call Run or Close.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("embedded schema registry: %w", err)
	}
	s, err := openStore(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("embedded schema registry: %w", err)
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("embedded schema registry: %w", err)
	}
	return &Server{cfg: cfg, listener: listener, store: s}, nil
}

// URL returns the address that clients use.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Close gives the address back if Run was never called.
func (s *Server) Close() error { return s.listener.Close() }

// Run answers requests until ctx ends, and then finishes those in hand.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("embedded schema registry: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		err = fmt.Errorf("embedded schema registry: stop: %w", errors.Join(err, server.Close()))
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("embedded schema registry: %w", served))
	}
	return err
}

// maxRequest bounds the bytes of a request; a schema is far smaller.
const maxRequest = 8 << 20

// Handler answers the API's requests.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
			v, err := answer(r)
			write(w, v, err)
		})
	}
	st := s.store
	handle("GET /{$}", func(*http.Request) (any, error) { return struct{}{}, nil })
	handle("GET /subjects", func(r *http.Request) (any, error) {
		return st.subjectNames(r.FormValue("subjectPrefix"), flag(r, "deleted"), flag(r, "deletedOnly")), nil
	})
	handle("POST /subjects/{subject}/versions", func(r *http.Request) (any, error) {
		req, err := schemaRequest(r)
		if err != nil {
			return nil, err
		}
		v, err := st.register(r.PathValue("subject"), req)
		if err != nil {
			return nil, err
		}
		return v.public(), nil
	})
	handle("POST /subjects/{subject}", func(r *http.Request) (any, error) {
		req, err := schemaRequest(r)
		if err != nil {
			return nil, err
		}
		v, err := st.lookup(r.PathValue("subject"), req, flag(r, "deleted"))
		if err != nil {
			return nil, err
		}
		return v.public(), nil
	})
	handle("GET /subjects/{subject}/versions", func(r *http.Request) (any, error) {
		return st.versionNumbers(r.PathValue("subject"), flag(r, "deleted"), flag(r, "deletedOnly"))
	})
	handle("GET /subjects/{subject}/versions/{version}", func(r *http.Request) (any, error) {
		v, err := st.version(r.PathValue("subject"), r.PathValue("version"), flag(r, "deleted"))
		if err != nil {
			return nil, err
		}
		return v.public(), nil
	})
	handle("GET /subjects/{subject}/versions/{version}/schema", func(r *http.Request) (any, error) {
		v, err := st.version(r.PathValue("subject"), r.PathValue("version"), flag(r, "deleted"))
		if err != nil {
			return nil, err
		}
		return json.RawMessage(v.Schema), nil
	})
	handle("GET /subjects/{subject}/versions/{version}/referencedby", func(r *http.Request) (any, error) {
		return st.referencedBy(r.PathValue("subject"), r.PathValue("version"))
	})
	handle("DELETE /subjects/{subject}", func(r *http.Request) (any, error) {
		return st.deleteSubject(r.PathValue("subject"), flag(r, "permanent"))
	})
	handle("DELETE /subjects/{subject}/versions/{version}", func(r *http.Request) (any, error) {
		return st.deleteVersion(r.PathValue("subject"), r.PathValue("version"), flag(r, "permanent"))
	})
	handle("GET /schemas/types", func(*http.Request) (any, error) { return []string{"AVRO"}, nil })
	handle("GET /schemas/ids/{id}", func(r *http.Request) (any, error) {
		v, err := st.byID(r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		return schemaBody{Schema: v.Schema, References: v.References}, nil
	})
	handle("GET /schemas/ids/{id}/schema", func(r *http.Request) (any, error) {
		v, err := st.byID(r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		return json.RawMessage(v.Schema), nil
	})
	handle("GET /schemas/ids/{id}/subjects", func(r *http.Request) (any, error) {
		uses, err := st.uses(r.PathValue("id"), flag(r, "deleted"))
		names := make([]string, 0, len(uses))
		for _, use := range uses {
			names = append(names, use.Subject)
		}
		return names, err
	})
	handle("GET /schemas/ids/{id}/versions", func(r *http.Request) (any, error) {
		return st.uses(r.PathValue("id"), flag(r, "deleted"))
	})
	for _, subject := range []string{"", "/{subject}"} {
		handle("GET /config"+subject, func(r *http.Request) (any, error) {
			level, err := st.level(r.PathValue("subject"), flag(r, "defaultToGlobal"))
			return map[string]string{"compatibilityLevel": level}, err
		})
		handle("PUT /config"+subject, func(r *http.Request) (any, error) {
			var req struct {
				Compatibility string `json:"compatibility"`
			}
			if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
				return nil, badRequest(err)
			}
			return req, st.setLevel(r.PathValue("subject"), req.Compatibility)
		})
		handle("DELETE /config"+subject, func(r *http.Request) (any, error) {
			level, err := st.resetLevel(r.PathValue("subject"))
			return map[string]string{"compatibilityLevel": level}, err
		})
		handle("GET /mode"+subject, func(*http.Request) (any, error) {
			return map[string]string{"mode": "READWRITE"}, nil
		})
	}
	check := func(r *http.Request, version string) (any, error) {
		req, err := schemaRequest(r)
		if err != nil {
			return nil, err
		}
		reasons, err := st.check(r.PathValue("subject"), version, req)
		if err != nil {
			return nil, err
		}
		answer := struct {
			Is       bool     `json:"is_compatible"`
			Messages []string `json:"messages,omitempty"`
		}{Is: len(reasons) == 0}
		if flag(r, "verbose") {
			answer.Messages = reasons
		}
		return answer, nil
	}
	handle("POST /compatibility/subjects/{subject}/versions", func(r *http.Request) (any, error) { return check(r, "") })
	handle("POST /compatibility/subjects/{subject}/versions/{version}", func(r *http.Request) (any, error) {
		return check(r, r.PathValue("version"))
	})
	handle("/", func(r *http.Request) (any, error) {
		return nil, &apiError{http.StatusNotFound, http.StatusNotFound, "HTTP 404 Not Found: " + r.Method + " " + r.URL.Path}
	})
	return mux
}

// schemaBody is a schema as requests and answers carry it. Avro is the type where none is named.
type schemaBody struct {
	Schema     string      `json:"schema"`
	Type       string      `json:"schemaType,omitempty"`
	References []reference `json:"references,omitempty"`
}

// reference names a type of another subject that a schema uses.
type reference struct {
	Name    string `json:"name"`
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

func schemaRequest(r *http.Request) (schemaBody, error) {
	var req schemaBody
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return req, badRequest(err)
	}
	if req.Type != "" && req.Type != "AVRO" {
		return req, &apiError{http.StatusUnprocessableEntity, codeInvalidSchema, "Invalid schema type " + req.Type + ": this registry keeps AVRO only"}
	}
	return req, nil
}

func flag(r *http.Request, name string) bool {
	on, err := strconv.ParseBool(r.FormValue(name))
	return err == nil && on
}

// apiError is an answer other than 200, with the code that the API documents.
type apiError struct {
	status  int
	Code    int    `json:"error_code"`
	Message string `json:"message"`
}

func (e *apiError) Error() string { return e.Message }

func badRequest(err error) *apiError {
	return &apiError{http.StatusBadRequest, http.StatusBadRequest, "Unable to process JSON: " + err.Error()}
}

func write(w http.ResponseWriter, v any, err error) {
	status := http.StatusOK
	if err != nil {
		var known *apiError
		if !errors.As(err, &known) {
			known = &apiError{http.StatusInternalServerError, codeStore, "Error in the backend data store: " + err.Error()}
		}
		status, v = known.status, known
	}
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error_code":50001,"message":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left has no use for an error
}
