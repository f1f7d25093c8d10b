package drift

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/churnstream/churnstream/schemas"
)

// CalibrationFeature is the feature that alerts of miscalibration carry. They are in the topic of the drift alerts, where
// the newest one of a model says whether its alarm is on.
const CalibrationFeature = "calibration"

// Alert gives the record that the report gives reason for after the newest one that was told of the model, nil: none was.
// Miscalibration is raised once, and cleared by a report that finds the model calibrated; one of too few outcomes changes
// nothing. The outcomes are of events from, to before to; at is the time of the report, all in ms. The bins of the record
// are the miscalibrated ones of the score: reference is the mean score, current the churn rate, contribution what the bin
// adds to the expected calibration error. It has no index.
func (r *CalibrationReport) Alert(model ModelName, before *schemas.DriftAlert, from, to, at int64) *schemas.DriftAlert {
	raised := miscalibrated(model, before)
	alert := &schemas.DriftAlert{
		ModelName: model.Name, ModelVersion: model.Version, ModelDigest: model.Digest, Feature: CalibrationFeature,
		PSI: math.NaN(), Critical: math.NaN(), ScorePSI: math.NaN(), ScoreMean: r.MeanScore, ScoreReferenceMean: math.NaN(),
		WindowStart: from, WindowEnd: to, Horizon: int32(min((to-from)/1000, math.MaxInt32)), At: at,
		Events: int64(r.Pairs), Customers: r.Customers, Evidence: r.Evidence, EvidenceNeeded: r.Needed,
	}
	for i := range r.Curve {
		p := &r.Curve[i]
		if p.Miscalibrated {
			alert.TopBins = append(alert.TopBins, schemas.BinShift{
				Label: fmt.Sprintf("scores to %.4g", p.Upper), Reference: p.MeanScore, Current: p.ChurnRate,
				Contribution: math.Abs(p.MeanScore-p.ChurnRate) * float64(p.Pairs) / float64(r.Pairs),
			})
		}
	}
	slices.SortStableFunc(alert.TopBins, func(a, b schemas.BinShift) int { return cmp.Compare(b.Contribution, a.Contribution) })
	alert.PValue = math.Exp(-alert.Evidence)
	switch {
	case !raised && r.State == Miscalibrated:
		alert.State, alert.AlertID = schemas.AlertRaised, fmt.Sprintf("%s/%s/%d", model.Digest, CalibrationFeature, to)
	case raised && r.State == Calibrated:
		alert.State, alert.AlertID = schemas.AlertCleared, before.AlertID
	default:
		return nil
	}
	alert.Message = r.message(alert)
	return alert
}

// Raised says whether the alarm is on after the report, when the newest alert before it was this one, nil: none was.
func (r *CalibrationReport) Raised(model ModelName, before *schemas.DriftAlert) bool {
	return r.State == Miscalibrated || r.State != Calibrated && miscalibrated(model, before)
}

// miscalibrated says whether an alert tells that the model's alarm is on; nil: there is none.
func miscalibrated(model ModelName, newest *schemas.DriftAlert) bool {
	return newest != nil && newest.ModelDigest == model.Digest && newest.State != schemas.AlertCleared
}

func (r *CalibrationReport) message(a *schemas.DriftAlert) string {
	of := fmt.Sprintf("%d outcomes of events from %s to %s, worth %.0f independent customers", r.Pairs,
		time.UnixMilli(a.WindowStart).UTC().Format("2006-01-02 15:04 UTC"), time.UnixMilli(a.WindowEnd).UTC().Format("2006-01-02 15:04 UTC"), r.Customers)
	if a.State == schemas.AlertCleared {
		return fmt.Sprintf("The scores are calibrated again, by %s; expected calibration error %.3f.", of, r.ExpectedError)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "The scores are no longer probabilities, by %s; expected calibration error %.3f.", of, r.ExpectedError)
	for i, bin := range a.TopBins[:min(3, len(a.TopBins))] {
		separator := "; "
		if i == 0 {
			separator = " Furthest off: "
		}
		fmt.Fprintf(&b, "%s%s have a mean of %.1f%%, and %.1f%% churned", separator, bin.Label, 100*bin.Reference, 100*bin.Current)
	}
	b.WriteString(". The order of the customers may still be right. See which inputs drift; recalibrate or retrain the model before its scores are used as probabilities again.")
	return b.String()
}
