package job

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
)

// Numbers are the model's numeric columns; autopay, 0 or 1, is the last. The columns of Categories follow them.
var Numbers = [16]string{
	"tenure_months", "monthly_charges", "total_charges", "data_used_gb", "minutes_used", "support_calls_90d",
	"late_payments_12m", "days_since_last_login", "nps_score", "avg_session_seconds", "logins_30d", "num_lines",
	"discount_pct", "roaming_events_30d", "dropped_calls_30d", "autopay",
}

// CategoryFields are the fields of Categories.
var CategoryFields = [4]string{"contract", "payment_method", "internet_service", "region"}

// Columns is the width of the model's rows.
const Columns = 16 + 3 + 4 + 3 + 5

// ModelFile is the file of the weights in a model directory.
const ModelFile = "lr.json"

//go:embed lr.json
var embedded []byte

// Model is a logistic regression on standardised columns; a missing number counts as 0 before standardising.
type Model struct {
	Mean      []float64 `json:"mean"`
	Std       []float64 `json:"std"`
	Coef      []float64 `json:"coef"`
	Intercept float64   `json:"intercept"`
}

// ReadModel reads the weights in a directory; without one, those of this package.
func ReadModel(dir string) (*Model, error) {
	text := embedded
	if dir != "" {
		var err error
		if text, err = os.ReadFile(filepath.Join(dir, ModelFile)); err != nil {
			return nil, fmt.Errorf("read the model: %w", err)
		}
	}
	var m Model
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", ModelFile, err)
	}
	if len(m.Mean) != Columns || len(m.Std) != Columns || len(m.Coef) != Columns {
		return nil, fmt.Errorf("%s: %d means, %d deviations and %d coefficients; the job has %d columns", ModelFile, len(m.Mean), len(m.Std), len(m.Coef), Columns)
	}
	return &m, nil
}

// WriteTo writes the weights to a directory for contenders that read them from there.
func (m *Model) WriteTo(dir string) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ModelFile), text, 0o600)
}

// Probability scores an event column by column, as the definition says: the contenders are checked against it.
func (m *Model) Probability(a *Activity) float64 {
	margin := m.Intercept
	for i, x := range row(a) {
		margin += m.Coef[i] * (x - m.Mean[i]) / m.Std[i]
	}
	return Logistic(margin)
}

func row(a *Activity) (x [Columns]float64) {
	numbers := a.numbers()
	copy(x[:], numbers[:])
	column := len(numbers)
	for field, value := range a.categories() {
		for _, known := range Categories[field] {
			if value == known {
				x[column] = 1
			}
			column++
		}
	}
	return x
}

func (a *Activity) numbers() (x [16]float64) {
	x = [16]float64{
		float64(a.TenureMonths), a.MonthlyCharges, a.TotalCharges, a.DataUsedGB, a.MinutesUsed, float64(a.SupportCalls90d),
		float64(a.LatePayments12m), 0, 0, a.AvgSessionSeconds, float64(a.Logins30d), float64(a.NumLines), a.DiscountPct,
		float64(a.RoamingEvents30d), float64(a.DroppedCalls30d), 0,
	}
	if a.DaysSinceLastLogin != nil {
		x[7] = float64(*a.DaysSinceLastLogin)
	}
	if a.NPSScore != nil {
		x[8] = *a.NPSScore
	}
	if a.Autopay {
		x[15] = 1
	}
	return x
}

func (a *Activity) categories() [4]string {
	return [4]string{a.Contract, a.PaymentMethod, a.InternetService, a.Region}
}

// Logistic is 1/(1+exp(-x)).
func Logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// Linear is a model with its standardisation folded into the weights: what a scorer that is written for speed uses.
type Linear struct {
	Bias       float64
	Numbers    [16]float64
	Categories [4][]float64 // for each value of Categories
	byValue    [4]map[string]float64
}

// Fold multiplies the model out.
func (m *Model) Fold() *Linear {
	l := &Linear{Bias: m.Intercept}
	var weights [Columns]float64
	for i := range weights {
		weights[i] = m.Coef[i] / m.Std[i]
		l.Bias -= weights[i] * m.Mean[i]
	}
	rest := weights[copy(l.Numbers[:], weights[:]):]
	for field, values := range Categories {
		l.Categories[field], rest = rest[:len(values)], rest[len(values):]
		l.byValue[field] = map[string]float64{}
		for i, value := range values {
			l.byValue[field][value] = l.Categories[field][i]
		}
	}
	return l
}

// Probability scores an event.
func (l *Linear) Probability(a *Activity) float64 {
	margin := l.Bias
	for i, x := range a.numbers() {
		margin += l.Numbers[i] * x
	}
	for field, value := range a.categories() {
		margin += l.byValue[field][value]
	}
	return Logistic(margin)
}
