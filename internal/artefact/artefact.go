// Package artefact takes the directory of a model and gives the model with its reference population, both verified
// and of the same contract.
package artefact

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// Load verifies the artefact as [scoring.Load] does, reads its profile and holds that to the model's inputs: the same
// names and kinds in the same order, then the score.
func Load(dir string) (*scoring.Model, *drift.Profile, error) {
	model, err := scoring.Load(dir)
	if err != nil {
		return nil, nil, err
	}
	profile, err := drift.ReadProfile(bytes.NewReader(model.Profile()))
	if err == nil {
		err = checkProfile(profile, model.Contract())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("load model %s: %s: %w", dir, scoring.ProfileFile, err)
	}
	return model, profile, nil
}

func checkProfile(profile *drift.Profile, contract schemas.Contract) error {
	features := profile.Features[:profile.Inputs()]
	if len(features) != len(contract.Inputs) {
		return fmt.Errorf("%d inputs and the score, the manifest declares %d inputs: the profile is of another model", len(features), len(contract.Inputs))
	}
	var faults []error
	for i, in := range contract.Inputs {
		if f := &features[i]; f.Name != in.Name || f.Kind != in.Kind {
			faults = append(faults, fmt.Errorf("features[%d]: the %s %q, the manifest declares the %s %q: the profile is of another model", i, f.Kind, f.Name, in.Kind, in.Name))
		}
	}
	return errors.Join(faults...)
}
