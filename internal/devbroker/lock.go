package devbroker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// dirLock keeps a second process out of a data directory: two brokers that
// append to the same segments leave neither's records readable. The operating
// system drops it when the process dies, however it dies.
type dirLock struct{ file *os.File }

var errLocked = errors.New("locked")

func lockDir(dir string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	name := filepath.Join(dir, ".lock")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := lockFile(file); err != nil {
		if errors.Is(err, errLocked) {
			err = fmt.Errorf("data directory %s is in use by another process; stop it or choose another directory", dir)
		} else {
			err = fmt.Errorf("lock data directory %s: %w", dir, err)
		}
		return nil, errors.Join(err, file.Close())
	}
	return &dirLock{file}, nil
}

// release gives the directory up. The file stays: removing it would let a third
// process lock a new file while a second one still waits for the old.
func (l *dirLock) release() error {
	if l == nil {
		return nil
	}
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("unlock data directory: %w", err)
	}
	return nil
}
