package worker

import (
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/churnstream/churnstream/schemas"
)

func TestAWebhookGetsTheAlertAndItsRefusalIsTold(t *testing.T) {
	status := http.StatusOK
	var got map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v, %s", err, r.Header.Get("Content-Type"))
		}
		w.WriteHeader(status)
	}))
	defer server.Close()
	alert := &schemas.DriftAlert{
		AlertID: "a", State: schemas.AlertRaised, Feature: "tenure", PSI: 0.3, Evidence: 20, Effect: math.NaN(), WindowEnd: 60_000,
		TopBins: []schemas.BinShift{{Label: "missing", Reference: 0.1, Current: 0.4}}, Message: "moved",
	}
	if err := post(t.Context(), server.URL, alert); err != nil {
		t.Fatal(err)
	}
	if got["feature"] != "tenure" || got["psi"] != 0.3 || got["window_end"] != "1970-01-01T00:01:00Z" || got["effect"] != nil {
		t.Errorf("posted %v", got)
	}
	status = http.StatusTeapot
	if err := post(t.Context(), server.URL, alert); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("got %v", err)
	}
	server.Close()
	if err := post(t.Context(), server.URL, alert); err == nil {
		t.Error("nobody listens")
	}
}
