package schemas

// Score is one scored event, churn.v1.Score. Times are milliseconds since 1970.
type Score struct {
	CustomerID      []byte // the event's key, UTF-8
	SourceTopic     string
	SourcePartition int32
	SourceOffset    int64
	EventTime       int64
	ScoredAt        int64
	ModelName       string
	ModelVersion    string
	ModelDigest     string
	Variant         string // champion, canary or shadow
	Probability     float64
	Margin          float64 // the model's raw output, before the link
	Threshold       float64
	Churn           bool     // the decision: churn, else retain
	Reasons         []Reason // most important first
	Missing         []string // inputs without a value
	Unseen          []string // inputs with a category unknown to the training data
}

// Reason is a feature's signed share of a margin.
type Reason struct {
	Feature      string
	Contribution float64
}

// AppendAvro appends the score's Avro body to dst and returns it. It allocates only where dst is too short.
func (s *Score) AppendAvro(dst []byte) []byte {
	dst = appendString(dst, s.CustomerID)
	dst = appendString(dst, s.SourceTopic)
	dst = appendLong(dst, int64(s.SourcePartition))
	dst = appendLong(dst, s.SourceOffset)
	dst = appendLong(dst, s.EventTime)
	dst = appendLong(dst, s.ScoredAt)
	dst = appendString(dst, s.ModelName)
	dst = appendString(dst, s.ModelVersion)
	dst = appendString(dst, s.ModelDigest)
	dst = appendString(dst, s.Variant)
	dst = appendDouble(dst, s.Probability)
	dst = appendDouble(dst, s.Margin)
	dst = appendDouble(dst, s.Threshold)
	dst = appendDecision(dst, s.Churn)
	if len(s.Reasons) > 0 {
		dst = appendLong(dst, int64(len(s.Reasons)))
		for i := range s.Reasons {
			dst = appendString(dst, s.Reasons[i].Feature)
			dst = appendDouble(dst, s.Reasons[i].Contribution)
		}
	}
	dst = append(dst, 0)
	dst = appendStrings(dst, s.Missing)
	return appendStrings(dst, s.Unseen)
}

// DecodeScore reads an Avro body that was written with the current schema into s, reusing its memory. CustomerID
// aliases body. The error is a *[RecordError]; s is then half filled.
func DecodeScore(body []byte, s *Score) error {
	r := wireReader{b: body}
	s.CustomerID = r.bytes()
	r.string(&s.SourceTopic)
	s.SourcePartition = r.int()
	s.SourceOffset = r.long()
	s.EventTime = r.long()
	s.ScoredAt = r.long()
	r.string(&s.ModelName)
	r.string(&s.ModelVersion)
	r.string(&s.ModelDigest)
	r.string(&s.Variant)
	s.Probability = r.double()
	s.Margin = r.double()
	s.Threshold = r.double()
	s.Churn = r.decision()
	s.Reasons = s.Reasons[:0]
	for n := r.block(); n > 0; n = r.block() {
		for ; n > 0 && r.err == nil; n-- {
			s.Reasons = extend(s.Reasons)
			reason := &s.Reasons[len(s.Reasons)-1]
			r.string(&reason.Feature)
			reason.Contribution = r.double()
		}
	}
	s.Missing = r.strings(s.Missing)
	s.Unseen = r.strings(s.Unseen)
	return r.finish("score")
}
