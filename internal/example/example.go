// Package example takes the embedded Telco customers and gives a model trained on one half of them, with the other half
// to stream: what the demo shows and what a measurement runs on.
package example

import (
	"bytes"
	"fmt"
	"time"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/telco"
	"github.com/churnstream/churnstream/internal/train"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
)

// Telco is a loaded model with the customers that it was not trained on.
type Telco struct {
	Model     *scoring.Model
	Profile   *drift.Profile
	Trained   int           // customers
	Customers []string      // held out
	Rows      *schemas.Rows // of the held-out customers, in their order
	Churned   []bool        // likewise
}

// Train fits the model, writes its artefact to dir and loads it from there.
func Train(dir, version string) (*Telco, error) {
	t, err := fit(dir, version)
	if err != nil {
		return nil, fmt.Errorf("train the example model: %w", err)
	}
	return t, nil
}

func fit(dir, version string) (*Telco, error) {
	spec, err := train.ParseSpecification(telco.Specification())
	if err != nil {
		return nil, err
	}
	csv, err := telco.CSV()
	if err != nil {
		return nil, err
	}
	table, err := train.ReadTable(spec, csv)
	if err != nil {
		return nil, err
	}
	artefact, err := train.Fit(spec, table, train.Provenance{CreatedAt: time.Now(), LibraryVersion: version})
	if err != nil {
		return nil, err
	}
	if _, err := scoring.WriteArtefact(dir, *artefact); err != nil {
		return nil, err
	}
	t := &Telco{Rows: schemas.NewRows(table.Rows.Width(), table.Rows.Len())}
	if t.Model, err = scoring.Load(dir); err != nil {
		return nil, err
	}
	if t.Profile, err = drift.ReadProfile(bytes.NewReader(t.Model.Profile())); err != nil {
		return nil, err
	}
	for i, customer := range table.Customer {
		if !spec.HeldOut(customer) {
			t.Trained++
			continue
		}
		numbers, categories := t.Rows.Row(t.Rows.Append())
		fromNumbers, fromCategories := table.Rows.Row(i)
		copy(numbers, fromNumbers)
		copy(categories, fromCategories)
		t.Customers = append(t.Customers, customer)
		t.Churned = append(t.Churned, table.Churn[i])
	}
	return t, nil
}
