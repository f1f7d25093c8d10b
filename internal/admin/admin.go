// Package admin takes a worker's own account of its state and gives it to operators over HTTP: metrics, liveness,
// readiness with reasons, version and, when asked for, profiles.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Status is one probe's answer: OK and, when it is not, why, one reason a line that says what to look at.
type Status struct {
	OK      bool     `json:"ok"`
	Reasons []string `json:"reasons,omitempty"`
	Details any      `json:"details,omitempty"`
}

// Source is the part of a worker that the probes ask. Both methods are called from HTTP goroutines at any time.
type Source interface {
	Live() Status  // false: restart the process
	Ready() Status // false: it does not do its work now
}

// FloodAccepter is a Source that can be told to let partitions go on that a flood of bad records holds: all, or the one
// that is named topic/partition. It gives the names of those that it held.
type FloodAccepter interface {
	AcceptFlood(partition string) []string
}

// Config of the listener.
type Config struct {
	Listen string // host:port; port 0 picks one
	Pprof  bool   // serve /debug/pprof/
}

// Version is what /version answers.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	Model   string `json:"model,omitempty"` // name@version of the loaded model
}

// Server is the admin listener. It listens from New on, so that a taken port is a start-up error.
type Server struct {
	http     *http.Server
	listener net.Listener
}

// New binds the address. Until Run serves it, connections wait.
func New(cfg Config, version Version, source Source, metrics *prometheus.Registry) (*Server, error) {
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin.listen: %w; choose another port or end the process that holds it", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{Registry: metrics, EnableOpenMetrics: true}))
	mux.HandleFunc("GET /livez", probe(source.Live))
	mux.HandleFunc("GET /readyz", probe(source.Ready))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, version) })
	if a, ok := source.(FloodAccepter); ok {
		// A page in the operator's browser must not do it.
		mux.Handle("POST /dead-letters/accept", http.NewCrossOriginProtection().Handler(accept(a)))
	}
	if cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return &Server{
		listener: l,
		http: &http.Server{
			Handler:           mux,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    16 << 10,
		},
	}, nil
}

// Addr is the bound address.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Run serves until ctx ends, then lets requests in hand finish for a second.
func (s *Server) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if s.http.Shutdown(grace) != nil {
			_ = s.http.Close() // a request outlived the grace: cut it
		}
	})()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin HTTP on %s: %w", s.Addr(), err)
	}
	return nil
}

func probe(ask func() Status) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		s := ask()
		code := http.StatusOK
		if !s.OK {
			code = http.StatusServiceUnavailable
		}
		writeJSON(w, code, s)
	}
}

func accept(a FloodAccepter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accepted := a.AcceptFlood(r.URL.Query().Get("partition"))
		code := http.StatusOK
		if len(accepted) == 0 {
			code = http.StatusNotFound
			accepted = []string{}
		}
		writeJSON(w, code, map[string][]string{"accepted": accepted})
	})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
}
