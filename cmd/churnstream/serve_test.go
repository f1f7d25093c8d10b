package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/schemas"
)

var apiURL = regexp.MustCompile(`"url":"(http://[^"]+)"`)

// api waits for the API of a process and gives its URL.
func api(t *testing.T, p *workerProcess) string {
	t.Helper()
	testkit.Eventually(t, 60*time.Second, func() bool { return apiURL.MatchString(p.log.String()) }, "the API listens")
	url := apiURL.FindStringSubmatch(p.log.String())[1]
	testkit.Eventually(t, 60*time.Second, func() bool {
		status, _, err := call(t.Context(), http.MethodGet, url+"/readyz", nil)
		return err == nil && status == http.StatusOK
	}, "the API is ready")
	return url
}

func call(ctx context.Context, method, url string, body []byte) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, text, err
}

// exampleCustomer is the body that the API documents.
func exampleCustomer(t *testing.T, url string) map[string]any {
	t.Helper()
	_, text, err := call(t.Context(), http.MethodGet, url+"/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Components struct {
			Schemas map[string]struct{ Examples []map[string]any }
		}
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	return document.Components.Schemas["CustomerInputs"].Examples[0]
}

// history gives the offsets of a customer's scores as the API orders them, the newest first.
func history(ctx context.Context, url, customer string) ([]int64, error) {
	status, text, err := call(ctx, http.MethodGet, url+"/v1/customers/"+customer+"/history", nil)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%d %s", status, text)
	}
	var answer struct {
		Scores []struct{ Source struct{ Offset int64 } }
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, err
	}
	var offsets []int64
	for _, s := range answer.Scores {
		offsets = append(offsets, s.Source.Offset)
	}
	return offsets, nil
}

func TestAServerThatIsKilledGivesNoIDTwiceAndItsStoreEqualsTheTopic(t *testing.T) {
	const rounds, returning = 3, "returning"
	e := newEnvironment(t)
	cfg := e.config(t, fmt.Sprintf("http: {listen: \"127.0.0.1:0\", data_dir: %q, publish_predictions: true}\n", filepath.Join(t.TempDir(), "data")))
	var mu sync.Mutex
	answered := map[string]bool{} // ids that clients were given
	for round := range rounds {
		p := startProcess(t, "serve", "-c", cfg)
		url := api(t, p)
		customer := exampleCustomer(t, url)
		body, err := json.Marshal(customer)
		if err != nil {
			t.Fatal(err)
		}
		customer["customer_id"] = returning // is scored once a round
		again, err := json.Marshal(customer)
		if err != nil {
			t.Fatal(err)
		}
		if status, text, err := call(t.Context(), http.MethodPost, url+"/v1/predict", again); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s: %v", status, text, err)
		}
		testkit.Eventually(t, 60*time.Second, func() bool {
			offsets, err := history(t.Context(), url, returning)
			return err == nil && len(offsets) == round+1
		}, "the store has %d scores of one customer", round+1)
		ctx, stop := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		before := len(answered)
		for range 4 {
			clients.Go(func() {
				for ctx.Err() == nil {
					status, text, err := call(ctx, http.MethodPost, url+"/v1/predict", body)
					if err != nil || status != http.StatusOK {
						continue // killed in between
					}
					var prediction struct {
						CustomerID string `json:"customer_id"`
					}
					if err := json.Unmarshal(text, &prediction); err != nil {
						t.Error(err)
					}
					mu.Lock()
					if answered[prediction.CustomerID] {
						t.Errorf("round %d: %s was given twice", round, prediction.CustomerID)
					}
					answered[prediction.CustomerID] = true
					mu.Unlock()
				}
			})
		}
		testkit.Eventually(t, 60*time.Second, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(answered) >= before+300
		}, "300 predictions")
		if err := p.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := <-p.exited; err == nil {
			t.Error("a killed process ended by itself")
		}
		stop()
		clients.Wait()
	}
	url := api(t, startProcess(t, "serve", "-c", cfg))
	topic := map[string][]int64{} // offsets of the source by customer, the newest last
	published := 0
	e.readCommitted(t, e.topic("scores"), func(r *kgo.Record) {
		_, avro, err := schemas.SplitFrame(r.Value)
		var s schemas.Score
		if err == nil {
			err = schemas.DecodeScore(avro, &s)
		}
		if err != nil {
			t.Error(err)
		}
		topic[string(r.Key)] = append(topic[string(r.Key)], s.SourceOffset)
		published++
	})
	counts := map[string]int{} // events by bucket of drift
	e.readCommitted(t, e.topic("state"), func(r *kgo.Record) {
		_, avro, err := schemas.SplitFrame(r.Value)
		var s schemas.DriftState
		if err == nil {
			err = schemas.DecodeDriftState(avro, &s)
		}
		if err != nil {
			t.Error(err)
		}
		counts[string(r.Key)] = 0
		for _, n := range s.Counts[0] {
			counts[string(r.Key)] += int(n)
		}
	})
	counted := 0
	for _, n := range counts {
		counted += n
	}
	if counted != published {
		t.Errorf("%d predictions count in drift, %d are in the topic: %v", counted, published, counts)
	}
	if len(topic) < 300 {
		t.Errorf("%d of %d predictions are in the topic", len(topic), len(answered))
	}
	for customer, want := range topic {
		got, err := history(t.Context(), url, customer)
		slices.Reverse(want)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%s: the store has the offsets %v, the topic %v (%v)", customer, got, want, err)
		}
		times := 1
		if customer == returning {
			times = rounds
		}
		if len(want) != times {
			t.Errorf("%s was scored %d times, want %d", customer, len(want), times)
		}
	}
}

func TestAnEventOverHTTPIsScoredByTheStreamWithTheBitsOfAPrediction(t *testing.T) {
	e := newEnvironment(t)
	cfg := e.config(t, fmt.Sprintf("http: {listen: \"127.0.0.1:0\", data_dir: %q}\n", filepath.Join(t.TempDir(), "data")))
	p := startProcess(t, "run", "-c", cfg)
	url := api(t, p)
	customer := exampleCustomer(t, url)
	for i := range 20 {
		customer["customer_id"] = fmt.Sprintf("c-%d", i)
		customer["tenure"] = i * 3
		body, err := json.Marshal(customer)
		if err != nil {
			t.Fatal(err)
		}
		if status, text, err := call(t.Context(), http.MethodPost, url+"/v1/events", body); err != nil || status != http.StatusAccepted {
			t.Fatalf("%d %s: %v", status, text, err)
		}
		status, text, err := call(t.Context(), http.MethodPost, url+"/v1/predict", body)
		var predicted, scored struct {
			Probability float64 `json:"churn_probability"`
		}
		if err == nil {
			err = json.Unmarshal(text, &predicted)
		}
		if err != nil || status != http.StatusOK {
			t.Fatalf("%d %s: %v", status, text, err)
		}
		testkit.Eventually(t, 60*time.Second, func() bool {
			status, text, err = call(t.Context(), http.MethodGet, fmt.Sprintf("%s/v1/customers/c-%d/score", url, i), nil)
			return err == nil && status == http.StatusOK
		}, "the stream scores c-%d", i)
		if err := json.Unmarshal(text, &scored); err != nil || math.Float64bits(scored.Probability) != math.Float64bits(predicted.Probability) {
			t.Errorf("c-%d: the stream has %v, the prediction %v (%v)", i, scored.Probability, predicted.Probability, err)
		}
	}
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-p.exited; err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}

func TestAPIKeysAreMadeForTheirHolderAndAsHash(t *testing.T) {
	code, key, line := runCommand(t, "apikey", "crm", "--scopes", "predict,read", "--expires", "2999-01-01")
	if code != exitDone || !strings.HasPrefix(key, "cs1_") || !strings.HasPrefix(line, "crm predict,read ") || strings.Contains(line, strings.TrimSpace(key)) {
		t.Errorf("exit %d: %q %q", code, key, line)
	}
	if code, _, errs := runCommand(t, "apikey", "crm", "--scopes", "root"); code != exitUsage || !strings.Contains(errs, "predict, read, admin") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestAPublicAddressNeedsAuthentication(t *testing.T) {
	e := trained(t)
	for more, want := range map[string]string{
		"":                                "nobody would be asked who he is",
		", auth: {anonymous: yes-please}": "anyone-may-call",
		", auth: {keys_file: /absent}, tls: {client_ca_file: x}": "http.tls.client_ca_file",
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		put(t, path, fmt.Sprintf("model: %s\nhttp: {listen: \"0.0.0.0:0\", kafka: false%s}\n", filepath.Join(e, "model"), more))
		if code, _, errs := runCommand(t, "serve", "-c", path); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%q: exit %d: %s", more, code, errs)
		}
	}
}

func TestTheNetworkHasAProcessorBesideThoseThatCompute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	put(t, path, fmt.Sprintf("model: %s\nhttp: {listen: \"127.0.0.1:0\", kafka: false, data_dir: %q}\n", filepath.Join(trained(t), "model"), filepath.Join(t.TempDir(), "data")))
	p := startProcess(t, "serve", "-c", path)
	_, text, err := call(t.Context(), http.MethodGet, api(t, p)+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("go_sched_gomaxprocs_threads %d\n", runtime.GOMAXPROCS(0)+1); !bytes.Contains(text, []byte(want)) {
		t.Errorf("no %s", want)
	}
}
