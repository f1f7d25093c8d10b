// Command load takes a prediction service and gives its latencies beside what they are to be: an open loop at a rate, as
// many requests as it can take, a multiple of that and what comes after it, and batches. Requests of an open loop are timed
// from when they were due, so that a service that stalls is charged for those that waited (no coordinated omission).
//
//	go run ./bench/http/load -url http://127.0.0.1:8080 -body example.json -rate 5000 -for 10s
//
// It prints one line a measurement.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// settings are the flags.
type settings struct {
	rate     float64
	clients  int
	overload float64
	rows     int
	length   time.Duration
	query    string
	pid      int
	save     string
	beside   []string
}

func run() error {
	var o settings
	base := flag.String("url", "http://127.0.0.1:8080", "of the service")
	file := flag.String("body", "", "file with one customer as JSON")
	flag.Float64Var(&o.rate, "rate", 5000, "requests a second of the open loop; 0: leave it out")
	flag.IntVar(&o.clients, "clients", 16, "of the closed loop, which finds the capacity; 0: leave it out")
	flag.Float64Var(&o.overload, "overload", 0, "open loop at this multiple of the capacity")
	flag.IntVar(&o.rows, "batch", 10_000, "rows of a batch; 0: leave it out")
	distinct := flag.Int("distinct", 100_000, "different customers; a service with a cache answers those that come again from it")
	number := flag.String("number", "MonthlyCharges", "the number of the customer that makes them different")
	flag.DurationVar(&o.length, "for", 10*time.Second, "of each measurement")
	flag.StringVar(&o.query, "query", "", "of the single predictions, such as explain=0")
	flag.IntVar(&o.pid, "pid", 0, "of the service: gives its processor time a request")
	flag.StringVar(&o.save, "save", "", "file for the capacity and the median of a batch")
	flag.Func("beside", "file that -save wrote: gives the ratios; may be given several times", func(file string) error {
		o.beside = append(o.beside, file)
		return nil
	})
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
	l := &load{base: *base, path: "/v1/predict", bodies: bodies, pid: o.pid}
	if o.query != "" {
		l.path += "?" + o.query
	}
	return l.all(o)
}

func (l *load) all(o settings) error {
	if _, err := l.closed(max(1, o.clients), time.Second); err != nil { // warm
		return err
	}
	if o.rate > 0 {
		r, err := l.open(o.rate, 256, o.length)
		if err != nil {
			return err
		}
		fmt.Printf("%g requests/s (p95 is to be at most 5 ms): %v\n", o.rate, r)
	}
	capacity := 0.0
	if o.clients > 0 {
		r, err := l.closed(o.clients, o.length)
		if err != nil {
			return err
		}
		capacity = r.rate(http.StatusOK)
		fmt.Printf("capacity, %d clients: %v\n", o.clients, r)
	}
	if o.overload > 0 {
		if err := l.overload(o.overload*capacity, o.length); err != nil {
			return err
		}
	}
	median := time.Duration(0)
	if o.rows > 0 {
		var err error
		if median, err = l.batches(o.rows, o.length); err != nil {
			return err
		}
	}
	return compare(o, capacity, median)
}

// compare writes what a later run is compared with, or compares.
func compare(o settings, capacity float64, median time.Duration) error {
	if o.save != "" {
		return os.WriteFile(o.save, fmt.Appendf(nil, "%g %d", capacity, median), 0o600)
	}
	for _, file := range o.beside {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var other float64
		var batch time.Duration
		if _, err := fmt.Sscan(string(text), &other, (*int64)(&batch)); err != nil {
			return fmt.Errorf("-beside: %w", err)
		}
		fmt.Printf("throughput of %s (is to be at least 20 times): %.1f times", filepath.Base(file), other/capacity)
		if median > 0 && batch > 0 {
			fmt.Printf("; batches %.1f times as fast", median.Seconds()/batch.Seconds())
		}
		fmt.Println()
	}
	return nil
}

// overload asks for more than the service can do, then for half of what it can, and says when that was well again.
func (l *load) overload(rate float64, length time.Duration) error {
	const connections = 512
	r, err := l.open(rate, connections, length)
	if err != nil {
		return err
	}
	fmt.Printf("overload, %.0f requests/s (p95 of the answers is to be at most 100 ms, the rest shed at once): %v\n", rate, r)
	r, err = l.open(rate/6, connections, 2*time.Second)
	if err != nil {
		return err
	}
	last := time.Duration(0)
	for _, a := range r.answers {
		if a.status != http.StatusOK || a.took > 20*time.Millisecond {
			last = max(last, a.due+a.took)
		}
	}
	fmt.Printf("recovery at %.0f requests/s (is to be within 1 s): after %v nothing was shed or took more than 20 ms; %v\n", rate/6, last.Round(time.Millisecond), r)
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
	path   string
	bodies [][]byte
	pid    int
	next   atomic.Int64
}

// answer is the end of one request.
type answer struct {
	due    time.Duration // since the start
	status int           // 0: none
	took   time.Duration // since it was due
}

func (l *load) body() []byte { return l.bodies[int(l.next.Add(1))%len(l.bodies)] }

// result sums up a measurement.
type result struct {
	length  time.Duration
	used    time.Duration // processor time of the service
	behind  time.Duration // the generator, at most
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
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f answers/s, p50 %v, p95 %v, p99 %v", r.rate(http.StatusOK), quantile(ok, .5), quantile(ok, .95), quantile(ok, .99))
	if len(shed) > 0 {
		fmt.Fprintf(&b, "; shed %.0f/s, p50 %v, p95 %v", r.rate(http.StatusServiceUnavailable), quantile(shed, .5), quantile(shed, .95))
	}
	if failed := len(r.answers) - len(ok) - len(shed); failed > 0 {
		fmt.Fprintf(&b, "; failed %d", failed)
	}
	if r.behind > time.Millisecond {
		fmt.Fprintf(&b, "; the generator was up to %v late", r.behind.Round(time.Millisecond))
	}
	if r.used > 0 && len(r.answers) > 0 {
		fmt.Fprintf(&b, "; processor time of the service %.0f µs a request", float64(r.used.Microseconds())/float64(len(r.answers)))
	}
	return b.String()
}

func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return list[min(len(list)-1, int(q*float64(len(list))))].Round(10 * time.Microsecond)
}

// clients opens connections; each asks what do gives it until that is false.
func (l *load) clients(n int, do func(i int, c *client)) error {
	var g sync.WaitGroup
	for i := range n {
		c, err := newClient(l.base, l.path)
		if err != nil {
			return err
		}
		g.Go(func() {
			defer c.close()
			do(i, c)
		})
	}
	g.Wait()
	return nil
}

// closed asks with so many clients, each as soon as it has its answer.
func (l *load) closed(clients int, length time.Duration) (result, error) {
	before := l.processorTime()
	began := time.Now()
	lists := make([][]answer, clients)
	err := l.clients(clients, func(i int, c *client) {
		for now := time.Now(); now.Sub(began) < length; now = time.Now() {
			lists[i] = append(lists[i], answer{now.Sub(began), c.ask(l.body()), time.Since(now)})
		}
	})
	return result{length: time.Since(began), answers: slices.Concat(lists...), used: l.processorTime() - before}, err
}

// open asks at a rate, whatever the service does, over so many connections. A request that waits for one is timed all the
// same.
func (l *load) open(rate float64, connections int, length time.Duration) (result, error) {
	before := l.processorTime()
	due := make(chan time.Duration, int(rate*length.Seconds())+1)
	lists := make([][]answer, connections)
	began := time.Now()
	behind := time.Duration(0)
	go func() {
		defer close(due)
		for sent := 0; ; {
			now := time.Since(began)
			for ; time.Duration(float64(sent)/rate*float64(time.Second)) <= min(now, length); sent++ {
				at := time.Duration(float64(sent) / rate * float64(time.Second))
				behind = max(behind, now-at)
				due <- at
			}
			if now >= length {
				return
			}
			time.Sleep(200 * time.Microsecond)
		}
	}()
	err := l.clients(connections, func(i int, c *client) {
		for at := range due {
			status := c.ask(l.body())
			lists[i] = append(lists[i], answer{at, status, time.Since(began) - at})
		}
	})
	return result{length: max(length, time.Since(began)), answers: slices.Concat(lists...), used: l.processorTime() - before, behind: behind}, err
}

// processorTime is what the service has used; 0 where that is not known.
func (l *load) processorTime() time.Duration {
	if l.pid == 0 {
		return 0
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(l.pid) + "/stat")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(text, []byte(") "))
	fields := strings.Fields(string(rest))
	if len(fields) < 13 {
		return 0
	}
	user, err := strconv.Atoi(fields[11])
	system, more := strconv.Atoi(fields[12])
	if errors.Join(err, more) != nil {
		return 0
	}
	return time.Duration(user+system) * 10 * time.Millisecond // clock ticks
}

// batches sends one batch after another.
func (l *load) batches(rows int, length time.Duration) (median time.Duration, err error) {
	var list []json.RawMessage
	for i := range rows {
		list = append(list, l.bodies[i%len(l.bodies)])
	}
	body, err := json.Marshal(list)
	if err != nil {
		return 0, err
	}
	c, err := newClient(l.base, "/v1/predict:batch")
	if err != nil {
		return 0, err
	}
	defer c.close()
	var took []time.Duration
	before := l.processorTime()
	for began := time.Now(); time.Since(began) < length; {
		at := time.Now()
		if status := c.ask(body); status != http.StatusOK {
			return 0, fmt.Errorf("batch: status %d", status)
		}
		took = append(took, time.Since(at))
	}
	used := l.processorTime() - before
	slices.Sort(took)
	fmt.Printf("batch of %d rows, %d bytes (is to be at most 50 ms): p50 %v, p95 %v, %d of them", rows, len(body), quantile(took, .5), quantile(took, .95), len(took))
	if used > 0 {
		fmt.Printf("; processor time of the service %v", (used / time.Duration(len(took))).Round(100*time.Microsecond))
	}
	fmt.Println()
	return took[len(took)/2], nil
}
