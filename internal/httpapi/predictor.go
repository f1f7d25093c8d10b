package httpapi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/churnstream/churnstream/internal/modelscore"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// Decision is what the probability decides for by the model's threshold.
type Decision string

// The decisions.
const (
	Churn  Decision = "churn"
	Retain Decision = "retain"
)

// Prediction is the answer about one customer.
type Prediction struct {
	CustomerID       string       `json:"customer_id" doc:"That of the request, or one made for it that is never given again" minLength:"1"`
	Model            string       `json:"model" doc:"Name of the model"`
	ModelVersion     string       `json:"model_version" doc:"Version of the model"`
	ChurnProbability float64      `json:"churn_probability" minimum:"0" maximum:"1" doc:"Probability of churn"`
	Prediction       Decision     `json:"prediction" enum:"churn,retain" doc:"churn where the probability reaches the threshold"`
	Threshold        float64      `json:"threshold" minimum:"0" maximum:"1" doc:"The model's threshold"`
	Margin           float64      `json:"margin" doc:"The model's raw output before the link function"`
	Explanations     Explanations `json:"explanations" doc:"What made the probability"`
	MissingInputs    []string     `json:"missing_inputs" nullable:"false" doc:"Inputs without a value"`
	UnseenInputs     []string     `json:"unseen_inputs" nullable:"false" doc:"Inputs with a category that the training data did not have"`
}

// Explanations say what made a probability.
type Explanations struct {
	TopFeatures   []string           `json:"top_features" nullable:"false" doc:"Features with the largest contributions, the largest first, such as plan_tier=pro"`
	Contributions map[string]float64 `json:"contributions,omitempty" doc:"Signed contribution of every input to the margin; together with bias they make it. On request only"`
	Bias          *float64           `json:"bias,omitempty" doc:"The margin at the background of the contributions. On request only"`
}

// explain is what a caller asks for beside the probability.
type explain struct {
	reasons       int
	contributions bool
}

// errNoContributions refuses a wish that the model cannot grant.
var errNoContributions = errors.New("contributions: " + scoring.NoExplanation)

// predictor scores rows by one model. It is safe for concurrent use: each request takes a bench.
type predictor struct {
	model    *scoring.Model
	contract schemas.Contract
	usual    explain
	benches  sync.Map // of explain: a *sync.Pool of *bench
	cache    *cache   // nil: none
	names    [][]byte // of what is explained, quoted; nil: nothing can be
	head     []byte   // the members of a prediction that the model alone makes
	churn    []byte   // those from prediction to margin where it is churn
	retain   []byte   // likewise
	inputs   map[string]int
}

// bench is what scoring one request needs, for one goroutine.
type bench struct {
	explain explain
	reader  *rowReader
	scorer  *scoring.Scorer
	results scoring.Results
	key     []byte // of the cache
	out     []byte
	body    []byte
	counts  predictionCounts
}

func newPredictor(model *scoring.Model, reasons int, c *cache) *predictor {
	p := &predictor{model: model, contract: model.Contract(), usual: explain{reasons: reasons}, cache: c}
	for _, name := range model.Explained() {
		p.names = append(p.names, appendQuoted(nil, name))
	}
	p.head = append(appendQuoted([]byte(`,"model":`), model.Name()), `,"model_version":`...)
	p.head = appendQuoted(p.head, model.Version())
	decided := func(d Decision) []byte {
		text := modelscore.AppendNumber(fmt.Appendf(nil, `,"prediction":%q,"threshold":`, d), model.Threshold())
		return append(text, `,"margin":`...)
	}
	p.churn, p.retain = decided(Churn), decided(Retain)
	p.inputs = make(map[string]int, len(p.contract.Inputs))
	for i := range p.contract.Inputs {
		p.inputs[p.contract.Inputs[i].Name] = i
	}
	return p
}

func (p *predictor) newBench(e explain) *bench {
	return &bench{
		explain: e,
		reader:  newRowReader(p.contract),
		scorer:  p.model.NewScorer(scoring.ScorerConfig{Reasons: e.reasons, Contributions: e.contributions}),
	}
}

func (p *predictor) take(e explain) *bench {
	pool, ok := p.benches.Load(e)
	if !ok { // no more than there are values of the two parameters
		pool, _ = p.benches.LoadOrStore(e, &sync.Pool{New: func() any { return p.newBench(e) }})
	}
	b, _ := pool.(*sync.Pool).Get().(*bench)
	return b
}

// largestKept bounds the memory that a bench keeps between requests.
const largestKept = 1 << 20

func (p *predictor) give(b *bench) {
	b.reader.rows.Reset() // lets go of the body
	if cap(b.body)+cap(b.out) > largestKept || cap(b.reader.rows.Numbers) > 64<<10 {
		return
	}
	if pool, ok := p.benches.Load(b.explain); ok {
		pool.(*sync.Pool).Put(b)
	}
}

// outcome is the score of one row, apart from whose it is. It is immutable.
type outcome struct {
	probability, margin float64
	churn               bool
	reasons             []schemas.Reason
	missing, unseen     []string
	text                []byte // the members of a prediction from churn_probability on
}

// one scores the single row that the bench holds, from the cache where it was scored before.
func (p *predictor) one(b *bench) (*outcome, error) {
	cached := p.cache != nil && b.explain == p.usual
	if cached {
		b.key = appendKey(b.key[:0], p.model.Digest(), b.reader.rows)
		if o, ok := p.cache.get(b.key); ok {
			return o, nil
		}
	}
	b.scorer.Score(b.reader.rows, &b.results)
	if refused := b.results.Refused(0); refused != nil {
		return nil, refused
	}
	o := p.outcome(b, 0)
	if cached {
		p.cache.put(b.key, o)
	}
	return o, nil
}

func (p *predictor) outcome(b *bench, row int) *outcome {
	return &outcome{
		probability: b.results.Probability[row], margin: b.results.Margin[row],
		churn:   b.results.Probability[row] >= p.model.Threshold(),
		reasons: slices.Clone(b.results.Reasons(row)), missing: slices.Clone(b.results.Missing(row)), unseen: slices.Clone(b.results.Unseen(row)),
		text: p.appendOutcome(nil, b, row),
	}
}

// appendOutcome writes the members of a prediction from churn_probability on.
func (p *predictor) appendOutcome(dst []byte, b *bench, row int) []byte {
	r := &b.results
	dst = append(dst, `,"churn_probability":`...)
	dst = modelscore.AppendNumber(dst, r.Probability[row])
	if r.Probability[row] >= p.model.Threshold() {
		dst = append(dst, p.churn...)
	} else {
		dst = append(dst, p.retain...)
	}
	dst = modelscore.AppendNumber(dst, r.Margin[row])
	dst = append(dst, `,"explanations":{"top_features":[`...)
	for i, reason := range r.Reasons(row) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, reason.Feature)
	}
	dst = append(dst, ']')
	if b.explain.contributions {
		dst = append(dst, `,"contributions":{`...)
		for i, c := range r.Contributions(row) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(append(dst, p.names[i]...), ':')
			dst = modelscore.AppendNumber(dst, c)
		}
		dst = append(dst, `},"bias":`...)
		dst = modelscore.AppendNumber(dst, r.Bias)
	}
	dst = append(dst, `},"missing_inputs":`...)
	dst = appendNames(dst, r.Missing(row))
	dst = append(dst, `,"unseen_inputs":`...)
	return appendNames(dst, r.Unseen(row))
}

func appendNames(dst []byte, names []string) []byte {
	dst = append(dst, '[')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, name)
	}
	return append(dst, ']')
}

// appendPrediction writes a whole prediction but for the braces.
func (p *predictor) appendPrediction(dst, customer, outcome []byte) []byte {
	dst = append(dst, `"customer_id":`...)
	dst = appendQuoted(dst, customer)
	dst = append(dst, p.head...)
	return append(dst, outcome...)
}

// appendKey writes what a response depends on: the model, and every input as the model sees it, whatever way it was
// written in.
func appendKey(dst []byte, digest string, rows *schemas.Rows) []byte {
	dst = append(dst, digest...)
	numbers, texts := rows.Row(0)
	for i, x := range numbers {
		if texts[i] != nil {
			dst = binary.AppendUvarint(dst, uint64(len(texts[i]))+1)
			dst = append(dst, texts[i]...)
			continue
		}
		if math.IsNaN(x) {
			x = math.NaN() // one of them
		}
		dst = append(dst, 0)
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(x))
	}
	return dst
}
