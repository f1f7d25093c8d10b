package schemas

// Audit is one prediction that was asked for over HTTP, churn.v1.Audit. Times are milliseconds since 1970.
type Audit struct {
	At           int64
	RequestID    string
	TraceID      string
	Principal    string // who asked; no personal data
	CustomerID   []byte
	SourceTopic  string // with SourceOffset those of the prediction's score
	SourceOffset int64
	ModelName    string
	ModelVersion string
	ModelDigest  string
	Probability  float64
	Threshold    float64
	Churn        bool   // the decision: churn, else retain
	Inputs       []byte // a JSON object that [Contract.ReadJSON] reads back to the same bits
}

// AppendAvro appends the Avro body to dst and returns it. It allocates only where dst is too short.
func (a *Audit) AppendAvro(dst []byte) []byte {
	dst = appendLong(dst, a.At)
	dst = appendString(dst, a.RequestID)
	dst = appendString(dst, a.TraceID)
	dst = appendString(dst, a.Principal)
	dst = appendString(dst, a.CustomerID)
	dst = appendString(dst, a.SourceTopic)
	dst = appendLong(dst, a.SourceOffset)
	dst = appendString(dst, a.ModelName)
	dst = appendString(dst, a.ModelVersion)
	dst = appendString(dst, a.ModelDigest)
	dst = appendDouble(dst, a.Probability)
	dst = appendDouble(dst, a.Threshold)
	dst = appendDecision(dst, a.Churn)
	return appendString(dst, a.Inputs)
}

// DecodeAudit reads an Avro body that was written with the current schema into a. CustomerID and Inputs alias body. The
// error is a *[RecordError]; a is then half filled.
func DecodeAudit(body []byte, a *Audit) error {
	r := wireReader{b: body}
	a.At = r.long()
	r.string(&a.RequestID)
	r.string(&a.TraceID)
	r.string(&a.Principal)
	a.CustomerID = r.bytes()
	r.string(&a.SourceTopic)
	a.SourceOffset = r.long()
	r.string(&a.ModelName)
	r.string(&a.ModelVersion)
	r.string(&a.ModelDigest)
	a.Probability = r.double()
	a.Threshold = r.double()
	a.Churn = r.decision()
	a.Inputs = r.bytes()
	return r.finish("audit record")
}
