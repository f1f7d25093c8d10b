package main

import (
	"bytes"
	"fmt"
	"math"
	"time"

	"github.com/churnstream/churnstream/bench/peers/job"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/schemas"
	"github.com/churnstream/churnstream/scoring"
	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/modelfile"
	"github.com/churnstream/churnstream/scoring/trees"
)

// The first inputs of the contract are not the model's: the score repeats them.
const (
	inputEventID = iota
	inputEventTS
	modelInputs
)

// contract is what the job's scores need of an event.
func contract() schemas.Contract {
	inputs := []schemas.Input{
		inputEventID: {Name: "event_id", Kind: schemas.Number},
		inputEventTS: {Name: "event_ts", Kind: schemas.Timestamp},
	}
	for _, name := range job.Numbers {
		in := schemas.Input{Name: name, Kind: schemas.Number}
		switch name {
		case "days_since_last_login", "nps_score":
			in.Nullable = true
		case "autopay":
			in.Kind = schemas.Boolean
		}
		inputs = append(inputs, in)
	}
	for _, name := range job.CategoryFields {
		inputs = append(inputs, schemas.Input{Name: name, Kind: schemas.Category})
	}
	return schemas.Contract{Inputs: inputs}
}

// pipeline is the job's model with its standardisation folded into the coefficients.
func pipeline(m *job.Model) scoring.Pipeline {
	linear := m.Fold()
	mayMiss := map[string]bool{"days_since_last_login": true, "nps_score": true}
	var imputed, columns []string
	var fills []scoring.Value
	for _, name := range job.Numbers {
		if mayMiss[name] {
			imputed, fills = append(imputed, name), append(fills, scoring.Value{})
			name += " imputed"
		}
		columns = append(columns, name)
	}
	coefficients := append(scoring.Floats(nil), linear.Numbers[:]...)
	var encoded scoring.OneHot
	var indicators []string
	for field, values := range job.Categories {
		unknown := len(values)
		positions := make(scoring.Ints, 0, unknown+1)
		for i, value := range values {
			positions = append(positions, int32(i))
			indicators = append(indicators, job.CategoryFields[field]+"="+value)
			coefficients = append(coefficients, linear.Categories[field][i])
		}
		encoded.Encodings = append(encoded.Encodings, scoring.Encoding{Texts: values, Unknown: &unknown})
		encoded.Positions = append(encoded.Positions, append(positions, -1))
		encoded.Widths = append(encoded.Widths, int32(len(values)))
	}
	imputedNames := make([]string, len(imputed))
	for i, name := range imputed {
		imputedNames[i] = name + " imputed"
	}
	return scoring.Pipeline{
		Steps: []scoring.Step{
			{Columns: imputed, Outputs: imputedNames, Transform: scoring.Impute{Values: fills}},
			{Columns: job.CategoryFields[:], Outputs: indicators, Transform: encoded},
			{Columns: append(columns, indicators...), Outputs: []string{"margin"}, Transform: scoring.Linear{
				Coefficients: []scoring.Floats{coefficients}, Intercepts: scoring.Floats{linear.Bias}, Background: m.Mean,
			}},
			{Columns: []string{"margin"}, Outputs: []string{"probability"}, Transform: scoring.Logistic{}},
		},
		Output: scoring.Output{Margin: []string{"margin"}, Probability: []string{"probability"}},
	}
}

// boosted is the job's columns before a model of XGBoost, LightGBM or CatBoost: 31 numbers, the nullable ones as they are.
func boosted(m *job.Model) scoring.Pipeline {
	p := pipeline(m)
	encode := p.Steps[1]
	columns := append(append([]string(nil), job.Numbers[:]...), encode.Outputs...)
	return scoring.Pipeline{
		Steps: []scoring.Step{
			encode,
			{Columns: columns, Outputs: []string{"margin", "probability"}, Transform: scoring.Booster{File: boosterFile}},
		},
		Output: p.Output,
	}
}

// boosterFile is the name of the booster in the artefact.
const boosterFile = "model.booster"

// predict replaces the probabilities by the booster's own: no other library is at hand here, so that the artefact's
// check at load is only that it is complete. Whether the scores are right the comparison finds out.
func predict(model *booster.Model, population *schemas.Rows, probabilities []float64) {
	var scratch trees.Scratch
	row := make([]float64, model.Engine.Features())
	for i := range probabilities {
		numbers, categories := population.Row(i)
		at := copy(row, numbers[modelInputs:modelInputs+len(job.Numbers)])
		for field, values := range job.Categories {
			for _, value := range values {
				row[at] = 0
				if string(categories[modelInputs+len(job.Numbers)+field]) == value {
					row[at] = 1
				}
				at++
			}
		}
		model.Engine.Margins(row, 1, probabilities[i:i+1], &scratch)
		model.Link.Apply(probabilities[i:i+1], probabilities[i:i+1])
	}
}

// populationRows is how many events make the drift reference, and referenceRows how many of them the artefact is
// checked with when it is loaded.
const (
	populationRows = 5000
	referenceRows  = 200
)

// writeArtefact makes an artefact of the model in an empty directory. Its reference probabilities are the job's own, so
// that it can be loaded only if it gives them. With the content of a booster's file that is the model.
func writeArtefact(dir string, m *job.Model, file []byte) error {
	c, p := contract(), pipeline(m)
	population, probabilities := rows(m, populationRows)
	reference, expected := rows(m, referenceRows)
	var models map[string][]byte
	if file != nil {
		model, err := modelfile.Parse(file)
		if err != nil {
			return err
		}
		predict(model, population, probabilities)
		predict(model, reference, expected)
		p, models = boosted(m), map[string][]byte{boosterFile: file}
	}
	profile, err := drift.BuildProfile(c, drift.Reference{Rows: population, Probabilities: probabilities}, drift.DefaultProfileConfig())
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := drift.WriteProfile(&text, profile); err != nil {
		return err
	}
	_, err = scoring.WriteArtefact(dir, scoring.Artefact{
		Manifest: scoring.Manifest{
			Name: "peers", Version: job.ModelVersion, CreatedAt: time.Now().UTC(),
			Training:  scoring.Training{Library: "bench/peers", LibraryVersion: "1"},
			Threshold: 0.5,
			Label:     scoring.Label{Definition: "made up: the comparison is about speed", Horizon: "30d"},
			Inputs:    c.Inputs,
		},
		Pipeline:  p,
		Models:    models,
		Profile:   text.Bytes(),
		Reference: scoring.Reference{Rows: reference, Probability: expected},
	})
	if err != nil {
		return fmt.Errorf("write the model's artefact: %w", err)
	}
	return nil
}

// rows gives the first n events as rows of the contract, with the probability of each.
func rows(m *job.Model, n int) (*schemas.Rows, []float64) {
	out := schemas.NewRows(len(contract().Inputs), n)
	probabilities := make([]float64, n)
	for i := range n {
		a := job.Make(int64(i), int64(i))
		probabilities[i] = m.Probability(&a)
		numbers, categories := out.Row(out.Append())
		autopay := 0.0
		if a.Autopay {
			autopay = 1
		}
		days, nps := math.NaN(), math.NaN()
		if a.DaysSinceLastLogin != nil {
			days = float64(*a.DaysSinceLastLogin)
		}
		if a.NPSScore != nil {
			nps = *a.NPSScore
		}
		copy(numbers, []float64{
			float64(a.EventID), float64(a.EventTS), float64(a.TenureMonths), a.MonthlyCharges, a.TotalCharges, a.DataUsedGB, a.MinutesUsed,
			float64(a.SupportCalls90d), float64(a.LatePayments12m), days, nps, a.AvgSessionSeconds, float64(a.Logins30d),
			float64(a.NumLines), a.DiscountPct, float64(a.RoamingEvents30d), float64(a.DroppedCalls30d), autopay,
		})
		for k, value := range [...]string{a.Contract, a.PaymentMethod, a.InternetService, a.Region} {
			categories[modelInputs+len(job.Numbers)+k] = []byte(value)
		}
	}
	return out, probabilities
}
