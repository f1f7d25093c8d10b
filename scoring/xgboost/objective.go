package xgboost

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/churnstream/churnstream/scoring/booster"
)

// objective is what an objective means for prediction: its link, and the inverse that base_score goes
// through.
type objective struct {
	link   booster.Function
	margin func(float32) float32
}

func same(x float32) float32 { return x }

// logit is XGBoost's Logistic ProbToMargin: -logf(1/x - 1).
func logit(x float32) float32 { return -log32(1/x - 1) }

func log32(x float32) float32 { return float32(math.Log(float64(x))) }

// objectiveOf knows the objectives whose link is plain.
func objectiveOf(name string) (objective, error) {
	known := map[string]objective{
		"binary:logistic": {booster.Sigmoid, logit},
		"binary:logitraw": {booster.Identity, same},
		"binary:hinge":    {booster.Step, same},
		"multi:softmax":   {booster.Softmax, same},
		"multi:softprob":  {booster.Softmax, same},

		"reg:squarederror":     {booster.Identity, same},
		"reg:linear":           {booster.Identity, same},
		"reg:squaredlogerror":  {booster.Identity, same},
		"reg:pseudohubererror": {booster.Identity, same},
		"reg:absoluteerror":    {booster.Identity, same},
		"reg:logistic":         {booster.Sigmoid, logit},
		"reg:gamma":            {booster.Exponential, log32},
		"reg:tweedie":          {booster.Exponential, log32},
		"count:poisson":        {booster.Exponential, log32},
		"survival:cox":         {booster.Exponential, log32},
		"survival:aft":         {booster.Exponential, log32},
		"rank:pairwise":        {booster.Identity, same},
		"rank:ndcg":            {booster.Identity, same},
		"rank:map":             {booster.Identity, same},
	}
	o, ok := known[name]
	if !ok {
		names := make([]string, 0, len(known))
		for k := range known {
			names = append(names, k)
		}
		slices.Sort(names)
		return o, fmt.Errorf("objective %.60q is not supported; these are: %s", name, strings.Join(names, ", "))
	}
	return o, nil
}
