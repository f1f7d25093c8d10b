// Command load takes a prediction service and gives its latencies: open loop at a rate, as many requests as it can take,
// at a multiple of that, and batches. Requests of an open loop are timed from when they were due, so that a service that
// stalls is charged for those that waited (no coordinated omission).
//
//	go run ./bench/http/load -url http://127.0.0.1:8080 -body example.json -rate 5000 -for 10s
//
// It prints one line a measurement.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run() error {
	base := flag.String("url", "http://127.0.0.1:8080", "of the service")
	file := flag.String("body", "", "file with one customer as JSON")
	rate := flag.Float64("rate", 5000, "requests a second of the open loop; 0: leave it out")
	clients := flag.Int("clients", 16, "of the closed loop, which finds the capacity; 0: leave it out")
	overload := flag.Float64("overload", 0, "open loop at this multiple of the capacity")
	rows := flag.Int("batch", 10_000, "rows of a batch; 0: leave it out")
	distinct := flag.Int("distinct", 100_000, "different customers; a service with a cache answers those that come again from it")
	number := flag.String("number", "MonthlyCharges", "the number of the customer that makes them different")
	length := flag.Duration("for", 10*time.Second, "of each measurement")
	example := flag.Bool("example", false, "read an OpenAPI document and write the customer that it shows, for -body")
	flag.Parse()
	if *example {
		return shown(os.Stdin, os.Stdout)
	}
	text, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	bodies, err := customers(text, *number, *distinct)
	if err != nil {
		return err
	}
	l := &load{base: *base, bodies: bodies, client: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConns: 2048, MaxIdleConnsPerHost: 2048, MaxConnsPerHost: 256, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext},
	}}
	l.closed(*clients, time.Second) // warm
	if *rate > 0 {
		fmt.Println("open loop:", l.open(*rate, *length))
	}
	if *clients > 0 {
		capacity := l.closed(*clients, *length)
		fmt.Println("capacity:", capacity)
		if *overload > 0 {
			fmt.Printf("overload ×%g: %v\n", *overload, l.open(*overload*capacity.rate(200), *length))
			began := time.Now()
			for l.one(time.Now()).status != http.StatusOK {
				if time.Since(began) > time.Minute {
					return errors.New("no recovery within a minute")
				}
			}
			fmt.Printf("recovery: first answer after %v\n", time.Since(began).Round(time.Microsecond))
			fmt.Println("after it:", l.closed(*clients, time.Second))
		}
	}
	if *rows > 0 {
		return l.batches(*rows, *length)
	}
	return nil
}

// shown writes the example of POST /v1/predict.
func shown(in io.Reader, out io.Writer) error {
	var document struct {
		Paths map[string]struct {
			Post struct {
				RequestBody struct {
					Content map[string]struct {
						Example json.RawMessage `json:"example"`
					} `json:"content"`
				} `json:"requestBody"`
			} `json:"post"`
		} `json:"paths"`
	}
	if err := json.NewDecoder(in).Decode(&document); err != nil {
		return fmt.Errorf("OpenAPI document: %w", err)
	}
	_, err := out.Write(document.Paths["/v1/predict"].Post.RequestBody.Content["application/json"].Example)
	return err
}

// customers varies one number, so that a cache does not answer for the model.
func customers(text []byte, number string, n int) ([][]byte, error) {
	var one map[string]any
	if err := json.Unmarshal(text, &one); err != nil {
		return nil, fmt.Errorf("-body: %w", err)
	}
	if _, ok := one[number].(float64); !ok {
		return nil, fmt.Errorf("-number: the customer has no number %q", number)
	}
	bodies := make([][]byte, n)
	for i := range bodies {
		one[number] = float64(i%12_000)/100 + float64(i/12_000)/1e6
		var err error
		if bodies[i], err = json.Marshal(one); err != nil {
			return nil, err
		}
	}
	return bodies, nil
}

type load struct {
	base   string
	bodies [][]byte
	client *http.Client
	next   atomic.Int64
}

// answer is the end of one request.
type answer struct {
	status int // 0: none
	took   time.Duration
}

func (l *load) one(due time.Time) answer {
	body := l.bodies[int(l.next.Add(1))%len(l.bodies)]
	return answer{l.post("/v1/predict", body), time.Since(due)}
}

func (l *load) post(path string, body []byte) (status int) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, l.base+path, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := l.client.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0
	}
	return response.StatusCode
}

// result sums up a measurement.
type result struct {
	length  time.Duration
	answers []answer
}

func (r result) latencies(status int) (list []time.Duration) {
	for _, a := range r.answers {
		if a.status == status {
			list = append(list, a.took)
		}
	}
	slices.Sort(list)
	return list
}

func (r result) rate(status int) float64 {
	return float64(len(r.latencies(status))) / r.length.Seconds()
}

func (r result) String() string {
	ok, shed := r.latencies(http.StatusOK), r.latencies(http.StatusServiceUnavailable)
	quantile := func(list []time.Duration, q float64) time.Duration {
		if len(list) == 0 {
			return 0
		}
		return list[min(len(list)-1, int(q*float64(len(list))))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("%.0f answers/s, p50 %v, p95 %v, p99 %v; shed %.0f/s, p95 %v; failed %d",
		r.rate(http.StatusOK), quantile(ok, .5), quantile(ok, .95), quantile(ok, .99), r.rate(http.StatusServiceUnavailable), quantile(shed, .95),
		len(r.answers)-len(ok)-len(shed))
}

// closed asks with so many clients, each as soon as it has its answer.
func (l *load) closed(clients int, length time.Duration) result {
	began := time.Now()
	lists := make([][]answer, clients)
	var g sync.WaitGroup
	for i := range lists {
		g.Go(func() {
			for now := time.Now(); now.Sub(began) < length; now = time.Now() {
				lists[i] = append(lists[i], l.one(now))
			}
		})
	}
	g.Wait()
	return result{time.Since(began), slices.Concat(lists...)}
}

// open asks at a rate, whatever the service does, over 256 connections. A request that waits for one is timed all the same; at
// most so many are out or wait: beyond, they count as failed.
func (l *load) open(rate float64, length time.Duration) result {
	const out = 20_000
	var mu sync.Mutex
	var answers []answer
	var g sync.WaitGroup
	places := make(chan struct{}, out)
	began := time.Now()
	for sent := 0; ; {
		elapsed := time.Since(began)
		if elapsed >= length {
			break
		}
		for due := int(elapsed.Seconds() * rate); sent < due; sent++ {
			at := began.Add(time.Duration(float64(sent) / rate * float64(time.Second)))
			select {
			case places <- struct{}{}:
			default:
				mu.Lock()
				answers = append(answers, answer{})
				mu.Unlock()
				continue
			}
			g.Go(func() {
				a := l.one(at)
				<-places
				mu.Lock()
				answers = append(answers, a)
				mu.Unlock()
			})
		}
		time.Sleep(200 * time.Microsecond)
	}
	g.Wait()
	return result{length, answers}
}

// batches sends one batch after another.
func (l *load) batches(rows int, length time.Duration) error {
	var list []json.RawMessage
	for i := range rows {
		list = append(list, l.bodies[i%len(l.bodies)])
	}
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	var took []time.Duration
	for began := time.Now(); time.Since(began) < length; {
		at := time.Now()
		if status := l.post("/v1/predict:batch", body); status != http.StatusOK {
			return fmt.Errorf("batch: status %d", status)
		}
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	fmt.Printf("batch of %d rows (%d bytes): p50 %v, p95 %v, %d of them\n", rows, len(body), took[len(took)/2].Round(10*time.Microsecond), took[len(took)*95/100].Round(10*time.Microsecond), len(took))
	return nil
}
