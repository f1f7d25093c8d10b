package producer

import (
	"context"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// Fence ends what the producer of a transactional id left open and keeps that producer from publishing any more: for
// whoever takes over from one that is dead. A producer that is alive after all learns it as ErrFenced.
func Fence(ctx context.Context, cfg Config, client *kafkawire.Client, transactionalID string) error {
	p, err := NewTransactional(cfg, client, transactionalID)
	if err != nil {
		return err
	}
	if err := p.Begin(ctx); err != nil {
		return err
	}
	return p.Close()
}

// CommitOffsets commits offsets as group member m outside of any transaction.
func CommitOffsets(ctx context.Context, cfg Config, client *kafkawire.Client, m Member, offsets []Offset) error {
	p, err := NewIdempotent(cfg, client)
	if err != nil {
		return err
	}
	return p.commitOffsets(ctx, p.limit(), m, offsets)
}
