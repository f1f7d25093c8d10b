package schemas

// The states of a drift alert.
const (
	AlertRaised  = "raised"
	AlertUpdated = "updated"
	AlertCleared = "cleared"
)

// DriftAlert tells of a change in the state of a drift alarm, churn.v1.DriftAlert. Times are milliseconds since 1970.
type DriftAlert struct {
	AlertID         string // the same for all records of one episode
	State           string // AlertRaised, AlertUpdated or AlertCleared
	ModelName       string
	ModelVersion    string
	ModelDigest     string
	Feature         string
	PSI             float64
	Critical        float64 // the index that raises at this sample size
	PValue          float64
	WindowStart     int64
	WindowEnd       int64
	Events          int64 // in the window
	ReferenceEvents int64 // in the model's profile
	At              int64
	TopBins         []BinShift // the places that moved most, first first
	Message         string

	Evidence       float64 // nats against every harmless population
	EvidenceNeeded float64 // nats that raise
	Horizon        int32   // seconds: the longest window that is looked at here
	Customers      float64 // independent customers that the events are worth
	// Effect on the mean margin in nats, and the input's share in what the contributions vary by; 0: not known.
	Effect, Importance            float64
	Rank                          int32   // among the drifting features, by their effect, from 1
	ScorePSI                      float64 // of the scores in the same window
	ScoreMean, ScoreReferenceMean float64 // mean probability there and in the reference population
}

// BinShift is how one place of a feature's profile moved.
type BinShift struct {
	Label        string
	Reference    float64 // share of the reference population
	Current      float64 // share of the window
	Contribution float64 // to the index
}

// AppendAvro appends the Avro body to dst and returns it. It allocates only where dst is too short.
func (a *DriftAlert) AppendAvro(dst []byte) []byte {
	dst = appendString(dst, a.AlertID)
	dst = appendString(dst, a.State)
	dst = appendString(dst, a.ModelName)
	dst = appendString(dst, a.ModelVersion)
	dst = appendString(dst, a.ModelDigest)
	dst = appendString(dst, a.Feature)
	dst = appendDouble(dst, a.PSI)
	dst = appendDouble(dst, a.Critical)
	dst = appendDouble(dst, a.PValue)
	dst = appendLong(dst, a.WindowStart)
	dst = appendLong(dst, a.WindowEnd)
	dst = appendLong(dst, a.Events)
	dst = appendLong(dst, a.ReferenceEvents)
	dst = appendLong(dst, a.At)
	if len(a.TopBins) > 0 {
		dst = appendLong(dst, int64(len(a.TopBins)))
		for i := range a.TopBins {
			bin := &a.TopBins[i]
			dst = appendString(dst, bin.Label)
			dst = appendDouble(dst, bin.Reference)
			dst = appendDouble(dst, bin.Current)
			dst = appendDouble(dst, bin.Contribution)
		}
	}
	dst = append(dst, 0)
	dst = appendString(dst, a.Message)
	dst = appendDouble(dst, a.Evidence)
	dst = appendDouble(dst, a.EvidenceNeeded)
	dst = appendLong(dst, int64(a.Horizon))
	dst = appendDouble(dst, a.Customers)
	dst = appendDouble(dst, a.Effect)
	dst = appendDouble(dst, a.Importance)
	dst = appendLong(dst, int64(a.Rank))
	dst = appendDouble(dst, a.ScorePSI)
	dst = appendDouble(dst, a.ScoreMean)
	return appendDouble(dst, a.ScoreReferenceMean)
}

// DecodeDriftAlert reads an Avro body that was written with the current schema, or with the first, into a, reusing its
// memory. The error is
// a *[RecordError]; a is then half filled.
func DecodeDriftAlert(body []byte, a *DriftAlert) error {
	r := wireReader{b: body}
	r.string(&a.AlertID)
	r.string(&a.State)
	r.string(&a.ModelName)
	r.string(&a.ModelVersion)
	r.string(&a.ModelDigest)
	r.string(&a.Feature)
	a.PSI = r.double()
	a.Critical = r.double()
	a.PValue = r.double()
	a.WindowStart = r.long()
	a.WindowEnd = r.long()
	a.Events = r.long()
	a.ReferenceEvents = r.long()
	a.At = r.long()
	a.TopBins = a.TopBins[:0]
	for n := r.block(); n > 0; n = r.block() {
		for ; n > 0 && r.err == nil; n-- {
			a.TopBins = extend(a.TopBins)
			bin := &a.TopBins[len(a.TopBins)-1]
			r.string(&bin.Label)
			bin.Reference = r.double()
			bin.Current = r.double()
			bin.Contribution = r.double()
		}
	}
	r.string(&a.Message)
	a.Evidence, a.EvidenceNeeded, a.Horizon, a.Customers, a.Effect, a.Importance, a.Rank = 0, 0, 0, 0, 0, 0, 0
	a.ScorePSI, a.ScoreMean, a.ScoreReferenceMean = 0, 0, 0
	if r.more() {
		a.Evidence, a.EvidenceNeeded = r.double(), r.double()
		a.Horizon = r.int()
		a.Customers, a.Effect, a.Importance = r.double(), r.double(), r.double()
		a.Rank = r.int()
		a.ScorePSI, a.ScoreMean, a.ScoreReferenceMean = r.double(), r.double(), r.double()
	}
	return r.finish("drift alert")
}
