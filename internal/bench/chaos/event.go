package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/example"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// customers is how many ids the events are about.
const customers = 5_000

// numberHeader of an event holds its number: eight bytes, big-endian.
const numberHeader = "number"

// catalogue knows every event of a round by its number: what it is follows from the number and the seed alone, so that
// what came out can be compared with what must come out without keeping either.
type catalogue struct {
	seed     uint64
	badOf    uint64 // one event in so many cannot be scored
	base     int64  // time of event 0, ms
	interval float64
	unknown  int32 // a schema id that the registry does not have

	model         *scoring.Model
	profile       *drift.Profile
	rows          *schemas.Rows
	probabilities []float64 // of the rows
	values        [][]byte  // framed events of the rows
	keys          [][]byte  // of the customers
}

// newCatalogue trains the example model into dir and registers its events. Event times are a tenth of an hour behind,
// so that a worker whose clock goes back by less does not take them for events of the future.
func newCatalogue(ctx context.Context, dir, registryURL string, seed uint64, badOf, rate int) (*catalogue, error) {
	telco, err := example.Train(dir, "chaos")
	if err != nil {
		return nil, err
	}
	c := &catalogue{
		seed: seed, badOf: uint64(badOf), base: time.Now().Add(-maxClockJump).UnixMilli(), interval: 1000 / float64(rate),
		unknown: 1 << 30, model: telco.Model, profile: telco.Profile, rows: telco.Rows,
	}
	var results scoring.Results
	c.model.NewScorer(scoring.ScorerConfig{}).Score(c.rows, &results)
	c.probabilities = append(c.probabilities, results.Probability...)
	contract := c.model.Contract()
	schema, err := contract.AvroSchema()
	if err != nil {
		return nil, err
	}
	cfg := schemas.DefaultRegistryConfig()
	cfg.URLs = []string{registryURL}
	registry, err := schemas.NewRegistry(cfg)
	if err != nil {
		return nil, err
	}
	defer registry.Close()
	id, err := registry.Register(ctx, schemas.Subject("chaos"), schema)
	if err != nil {
		return nil, err
	}
	encoder, err := schemas.NewEncoder(contract)
	if err != nil {
		return nil, err
	}
	for i := range c.rows.Len() {
		numbers, categories := c.rows.Row(i)
		value, err := encoder.AppendEvent(schemas.AppendFrame(nil, id), numbers, categories)
		if err != nil {
			return nil, err
		}
		c.values = append(c.values, value)
	}
	for i := range customers {
		c.keys = append(c.keys, fmt.Appendf(nil, "customer-%04d", i))
	}
	return c, nil
}

// event is one record of the events topic. Its header's memory is the caller's until the next call of the catalogue.
type event struct {
	number   uint64
	customer int
	row      int
	time     int64              // ms
	class    schemas.ErrorClass // empty: it can be scored
	key      []byte             // nil: null
	value    []byte             // nil: null
	headers  [2]header          // the second is there with bad events only
	count    int                // of headers
}

type header struct {
	key   string
	value []byte
}

// event fills e with the event of that number.
func (c *catalogue) event(number uint64, e *event) {
	h := mix(c.seed, number)
	e.number, e.customer, e.row = number, int(h%customers), int(h>>16)%len(c.values)
	e.time = c.base + int64(float64(number)*c.interval)
	e.key = c.keys[e.customer]
	e.value, e.class = c.values[e.row], ""
	e.headers[0] = header{numberHeader, binary.BigEndian.AppendUint64(e.headers[0].value[:0], number)}
	e.count = 1
	if bad := mix(c.seed+1, number); c.badOf > 0 && bad%c.badOf == 0 {
		c.spoil(e, bad>>32)
	}
}

// spoil makes a record of the event that can never be scored, in one of the ways that producers find.
func (c *catalogue) spoil(e *event, how uint64) {
	e.headers[1] = header{"trace", []byte("of the producer")}
	e.count = 2
	good := e.value
	switch how % 6 {
	case 0:
		e.class, e.value = schemas.BadMagic, bytes.Clone(good)
		e.value[0] = 7
	case 1:
		e.class, e.value = schemas.Truncated, good[:len(good)-3]
	case 2:
		e.class, e.value = schemas.TrailingBytes, append(bytes.Clone(good), 0)
	case 3:
		e.class, e.value = schemas.EmptyValue, nil
	case 4:
		e.class, e.key = schemas.NullKey, nil
	case 5:
		e.class, e.value = schemas.UnknownSchema, bytes.Clone(good)
		binary.BigEndian.PutUint32(e.value[1:], uint32(c.unknown))
	}
}

// mix is splitmix64 of the two numbers.
func mix(seed, n uint64) uint64 {
	z := seed*0x9E3779B97F4A7C15 + n + 0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}
