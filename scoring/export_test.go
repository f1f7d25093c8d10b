package scoring

import "github.com/churnstream/churnstream/schemas"

// CompileForTest makes a model of a pipeline without an artefact around it.
func CompileForTest(p *Pipeline, contract schemas.Contract) (*Model, error) {
	program, err := p.compile(contract)
	if err != nil {
		return nil, err
	}
	return &Model{manifest: Manifest{Inputs: contract.Inputs}, pipeline: p, program: program}, nil
}

// WithManifestForTest gives a model another manifest.
func WithManifestForTest(m *Model, manifest Manifest) *Model {
	other := *m
	other.manifest, other.digest = manifest, "made up"
	return &other
}
