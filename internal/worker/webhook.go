package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	"github.com/churnstream/churnstream/schemas"
)

// webhookTimeout bounds one post, so that a receiver that hangs delays no evaluation for long.
const webhookTimeout = 5 * time.Second

// alertMessage is an alert as the webhook gets it. Numbers that mean nothing are left out: JSON has no NaN.
type alertMessage struct {
	ID             string       `json:"alert_id"`
	State          string       `json:"state"`
	Model          string       `json:"model"`
	Version        string       `json:"version"`
	Digest         string       `json:"digest"`
	Feature        string       `json:"feature"`
	PSI            *float64     `json:"psi,omitempty"`
	Evidence       *float64     `json:"evidence,omitempty"`
	Needed         *float64     `json:"evidence_needed,omitempty"`
	Customers      *float64     `json:"customers,omitempty"`
	Effect         *float64     `json:"effect,omitempty"`
	Importance     *float64     `json:"importance,omitempty"`
	ScoreMean      *float64     `json:"score_mean,omitempty"`
	ScoreReference *float64     `json:"score_reference_mean,omitempty"`
	Rank           int32        `json:"rank,omitempty"`
	Events         int64        `json:"events"`
	WindowStart    time.Time    `json:"window_start"`
	WindowEnd      time.Time    `json:"window_end"`
	TopBins        []binMessage `json:"top_bins"`
	Message        string       `json:"message"`
}

// binMessage is a schemas.BinShift.
type binMessage struct {
	Label        string  `json:"label"`
	Reference    float64 `json:"reference"`
	Current      float64 `json:"current"`
	Contribution float64 `json:"contribution"`
}

func newAlertMessage(a *schemas.DriftAlert) alertMessage {
	number := func(v float64) *float64 {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return &v
	}
	bins := make([]binMessage, len(a.TopBins))
	for i, b := range a.TopBins {
		bins[i] = binMessage(b)
	}
	return alertMessage{
		ID: a.AlertID, State: a.State, Model: a.ModelName, Version: a.ModelVersion, Digest: a.ModelDigest, Feature: a.Feature,
		PSI: number(a.PSI), Evidence: number(a.Evidence), Needed: number(a.EvidenceNeeded), Customers: number(a.Customers),
		Effect: number(a.Effect), Importance: number(a.Importance), ScoreMean: number(a.ScoreMean), ScoreReference: number(a.ScoreReferenceMean),
		Rank: a.Rank, Events: a.Events, WindowStart: time.UnixMilli(a.WindowStart).UTC(), WindowEnd: time.UnixMilli(a.WindowEnd).UTC(),
		TopBins: bins, Message: a.Message,
	}
}

// post tells a webhook of an alert whose record has been committed. It is tried once: the topic of alerts is what counts.
func post(ctx context.Context, address string, a *schemas.DriftAlert) error {
	body, err := json.Marshal(newAlertMessage(a))
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, webhookTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16)); err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("webhook: the receiver answered %s", response.Status)
	}
	return nil
}
