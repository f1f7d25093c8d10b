// Package job takes the number of an event and gives the event, its Avro bytes and the probability that a scorer has to
// find: what every contender of the comparison is measured with.
package job

import (
	_ "embed"
	"fmt"
	"math"
	"math/rand/v2"
)

// The schemas, and the ids that the five bytes before each value name.
var (
	//go:embed activity.avsc
	ActivitySchema string
	//go:embed score.avsc
	ScoreSchema string
)

// Schema ids of the Confluent wire format.
const (
	ActivityID = 1
	ScoreID    = 2
)

// ModelVersion goes with every score.
const ModelVersion = "lr-1"

// Activity is one event.
type Activity struct {
	CustomerID         string   `avro:"customer_id"`
	EventID            int64    `avro:"event_id"`
	EventTS            int64    `avro:"event_ts"`
	Source             string   `avro:"source"`
	TenureMonths       int64    `avro:"tenure_months"`
	MonthlyCharges     float64  `avro:"monthly_charges"`
	TotalCharges       float64  `avro:"total_charges"`
	DataUsedGB         float64  `avro:"data_used_gb"`
	MinutesUsed        float64  `avro:"minutes_used"`
	SupportCalls90d    int64    `avro:"support_calls_90d"`
	LatePayments12m    int64    `avro:"late_payments_12m"`
	DaysSinceLastLogin *int64   `avro:"days_since_last_login"`
	NPSScore           *float64 `avro:"nps_score"`
	AvgSessionSeconds  float64  `avro:"avg_session_seconds"`
	Logins30d          int64    `avro:"logins_30d"`
	NumLines           int64    `avro:"num_lines"`
	DiscountPct        float64  `avro:"discount_pct"`
	RoamingEvents30d   int64    `avro:"roaming_events_30d"`
	DroppedCalls30d    int64    `avro:"dropped_calls_30d"`
	Autopay            bool     `avro:"autopay"`
	Contract           string   `avro:"contract"`
	PaymentMethod      string   `avro:"payment_method"`
	InternetService    string   `avro:"internet_service"`
	Region             string   `avro:"region"`
}

// Score is what a contender publishes for an event, with the customer id as key.
type Score struct {
	CustomerID   string  `avro:"customer_id"`
	EventID      int64   `avro:"event_id"`
	EventTS      int64   `avro:"event_ts"`
	Probability  float64 `avro:"probability"`
	ModelVersion string  `avro:"model_version"`
}

// Categories are the values of the four categorical fields, in the order of the model's columns.
var Categories = [4][]string{
	{"month-to-month", "one-year", "two-year"},
	{"electronic-check", "mailed-check", "bank-transfer", "credit-card"},
	{"DSL", "FIBER_OPTIC", "NONE"},
	{"north", "south", "east", "west", "central"},
}

var sources = []string{"crm.daily-snapshot", "billing.invoice", "mobile-app.session", "web.self-service"}

// customers is how many ids the events are spread over, evenly.
const customers = 50_000

// Make gives event number i, always the same but for its time in ms.
func Make(i, at int64) Activity {
	r := rand.New(rand.NewPCG(uint64(i), 0x636875726e))
	tenure, monthly := 1+r.Int64N(72), cents(18+100*r.Float64())
	a := Activity{
		CustomerID:        fmt.Sprintf("cust-%08d", r.IntN(customers)),
		EventID:           i,
		EventTS:           at,
		Source:            pick(r, sources),
		TenureMonths:      tenure,
		MonthlyCharges:    monthly,
		TotalCharges:      cents(monthly * float64(tenure) * (0.9 + 0.2*r.Float64())),
		DataUsedGB:        20 * r.ExpFloat64(),
		MinutesUsed:       900 * r.Float64(),
		SupportCalls90d:   min(r.Int64N(5), r.Int64N(9)),
		LatePayments12m:   min(r.Int64N(4), r.Int64N(12)),
		AvgSessionSeconds: 300 * r.ExpFloat64(),
		Logins30d:         r.Int64N(60),
		NumLines:          1 + r.Int64N(5),
		DiscountPct:       float64(r.IntN(31)) / 2,
		RoamingEvents30d:  min(r.Int64N(20), r.Int64N(20)),
		DroppedCalls30d:   min(r.Int64N(15), r.Int64N(15)),
		Autopay:           r.IntN(2) == 1,
		Contract:          pick(r, Categories[0]),
		PaymentMethod:     pick(r, Categories[1]),
		InternetService:   pick(r, Categories[2]),
		Region:            pick(r, Categories[3]),
	}
	if r.IntN(10) > 0 {
		days := min(r.Int64N(90), r.Int64N(90))
		a.DaysSinceLastLogin = &days
	}
	if r.IntN(3) > 0 {
		nps := math.Round(100*r.Float64()) / 10
		a.NPSScore = &nps
	}
	return a
}

func pick(r *rand.Rand, values []string) string { return values[r.IntN(len(values))] }

func cents(x float64) float64 { return math.Round(100*x) / 100 }
