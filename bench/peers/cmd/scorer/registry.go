package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/churnstream/churnstream/bench/peers/job"
	"github.com/churnstream/churnstream/schemas"
)

// registry knows the job's events under their id and gives every schema that is registered the next one.
type registry struct {
	mu   sync.Mutex
	next int32
	ids  map[string]int32 // by schema
}

func newRegistry() *registry {
	return &registry{next: job.ScoreID, ids: map[string]int32{}}
}

// SchemaByID implements schemas.Registry.
func (r *registry) SchemaByID(_ context.Context, id int32) (schemas.Schema, error) {
	if id != job.ActivityID {
		return schemas.Schema{}, fmt.Errorf("schema %d: %w", id, schemas.ErrSchemaNotFound)
	}
	return schemas.Schema{Text: job.ActivitySchema}, nil
}

// Register implements schemas.Registry.
func (r *registry) Register(_ context.Context, _, schema string) (int32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, known := r.ids[schema]
	if !known {
		r.next++
		id = r.next
		r.ids[schema] = id
	}
	return id, nil
}
