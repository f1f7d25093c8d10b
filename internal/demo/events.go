package demo

import (
	"io"
	"math/rand/v2"
	"time"

	"github.com/churnstream/churnstream/internal/example"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/schemas"
)

// brokenEvery is how many events lie between two that a careless producer cut short.
const brokenEvery = 1009

// stream makes events of the streamed customers for ever: every customer once in a random order, then again. After
// shiftAfter events the population changes: a campaign brings customers on monthly contracts who pay by electronic check.
type stream struct {
	encoder    *schemas.Encoder
	schemaID   int32
	telco      *example.Telco
	contract   int // columns that the shift changes
	payment    int
	shiftAfter int // events; 0: never
	limit      int // events; 0: for ever
	shifted    func(at time.Time)

	rng        *rand.Rand
	order      []int
	sent       int
	key        []byte
	value      []byte
	categories [][]byte
}

func newStream(contract schemas.Contract, schemaID int32, telco *example.Telco, shiftAfter, limit int, seed uint64, shifted func(time.Time)) (*stream, error) {
	encoder, err := schemas.NewEncoder(contract)
	if err != nil {
		return nil, err
	}
	return &stream{
		encoder: encoder, schemaID: schemaID, telco: telco,
		contract: contract.Index("Contract"), payment: contract.Index("PaymentMethod"),
		shiftAfter: shiftAfter, limit: limit, shifted: shifted,
		rng: rand.New(rand.NewPCG(seed, 1)), categories: make([][]byte, len(contract.Inputs)),
	}, nil
}

var (
	monthly = []byte("Month-to-month")
	byCheck = []byte("Electronic check")
)

// Next gives the next event.
func (s *stream) Next(e *feed.Event) error {
	if s.limit > 0 && s.sent == s.limit {
		return io.EOF
	}
	if s.shiftAfter > 0 && s.sent == s.shiftAfter {
		s.shifted(time.Now())
	}
	if len(s.order) == 0 {
		s.order = s.rng.Perm(len(s.telco.Customers))
	}
	customer := s.order[len(s.order)-1]
	s.order = s.order[:len(s.order)-1]
	numbers, categories := s.telco.Rows.Row(customer)
	if s.shiftAfter > 0 && s.sent >= s.shiftAfter {
		copy(s.categories, categories)
		s.categories[s.contract], s.categories[s.payment] = monthly, byCheck
		categories = s.categories
	}
	var err error
	s.value, err = s.encoder.AppendEvent(schemas.AppendFrame(s.value[:0], s.schemaID), numbers, categories)
	if err != nil {
		return err
	}
	s.key = append(s.key[:0], s.telco.Customers[customer]...)
	s.sent++
	e.Key, e.Value = s.key, s.value
	if s.sent%brokenEvery == 0 {
		e.Value = e.Value[:len(e.Value)/2]
	}
	return nil
}
