package worker

import (
	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/scoring"
)

// reasonsHeader marks an event whose score is to carry reasons, with reasons.when: request. Its value
// does not matter.
const reasonsHeader = "churnstream.reasons"

// reasonsOf says which scores get how many reasons.
func reasonsOf(cfg config.Reasons) scoring.ScorerConfig {
	out := scoring.ScorerConfig{Reasons: cfg.Top}
	switch cfg.When {
	case config.ReasonsAlways:
	case config.ReasonsAbove:
		out.ReasonsFrom = cfg.From
	case config.ReasonsOnRequest:
		out.ReasonsOnRequest = true
	}
	return out
}

// warnOfReasons says at start what reasons of this model cost, or that it has none.
func (w *Worker) warnOfReasons() {
	switch scorings := w.model.ScoringsToExplain(); {
	case w.model.Explained() == nil:
		w.log.Warn().Str("key", "reasons.top").Msg("scores will have no reasons: " + scoring.NoExplanation)
	case scorings > 0 && w.cfg.Reasons.When == config.ReasonsAlways:
		w.log.Warn().Str("key", "reasons.when").Int("scorings", scorings).
			Msgf("every reason costs %d scorings: the model is explained by mixtures of rows; see reasons.when", scorings)
	}
}

// asksForReasons looks for the header among those of a record.
func asksForReasons(r *consumer.Record) bool {
	for name := range r.EachHeader() {
		if string(name) == reasonsHeader {
			return true
		}
	}
	return false
}
