package worker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

// TestTasksThatWaitShareOneReading starts one reading, lets three more tasks come meanwhile, and counts.
func TestTasksThatWaitShareOneReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var readings []int
		r := &restores{turn: make(chan struct{}, 1), read: func(_ context.Context, into []*restoring) error {
			readings = append(readings, len(into)) // under the turn
			<-release
			return nil
		}}
		var group sync.WaitGroup
		group.Go(func() { _ = r.restore(t.Context(), &restoring{}) })
		synctest.Wait()
		for range 3 {
			group.Go(func() {
				if err := r.restore(t.Context(), &restoring{}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(release)
		group.Wait()
		if len(readings) != 2 || readings[0] != 1 || readings[1] != 3 {
			t.Errorf("readings for %v tasks, want [1 3]", readings)
		}
	})
}

// TestAFailedReadingIsTheReadersAlone: the others read for themselves.
func TestAFailedReadingIsTheReadersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("no leader")
		attempts := 0
		release := make(chan struct{})
		r := &restores{turn: make(chan struct{}, 1), read: func(context.Context, []*restoring) error {
			<-release
			if attempts++; attempts == 2 {
				return failure
			}
			return nil
		}}
		errs := make(chan error, 3)
		for range 3 {
			go func() { errs <- r.restore(t.Context(), &restoring{}) }()
			synctest.Wait()
		}
		close(release)
		failed := 0
		for range 3 {
			if err := <-errs; err != nil {
				failed++
			}
		}
		if failed != 1 || attempts != 3 {
			t.Errorf("%d of 3 tasks failed, %d readings; want 1 and 3", failed, attempts)
		}
	})
}

func TestATaskThatEndsLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var readings []int
		r := &restores{turn: make(chan struct{}, 1), read: func(_ context.Context, into []*restoring) error {
			readings = append(readings, len(into))
			<-release
			return nil
		}}
		var group sync.WaitGroup
		group.Go(func() { _ = r.restore(t.Context(), &restoring{}) })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		group.Go(func() {
			if err := r.restore(ctx, &restoring{}); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		group.Go(func() { _ = r.restore(t.Context(), &restoring{}) })
		synctest.Wait()
		close(release)
		group.Wait()
		if len(readings) != 2 || readings[1] != 1 {
			t.Errorf("readings for %v tasks, want [1 1]", readings)
		}
	})
}
