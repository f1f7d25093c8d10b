package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// outputFile is written beside its place and takes it when it is whole: the file may be the input, too, and a run that
// fails leaves what was there.
type outputFile struct {
	*os.File
	place string // "": it is written where it is
}

func createOutput(path string) (*outputFile, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // else the link would be replaced
	}
	mode := fs.FileMode(0o666)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory; name a file", path)
	case !info.Mode().IsRegular(): // a device or a pipe stays what it is
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		return &outputFile{File: f}, err
	default:
		mode = info.Mode().Perm()
	}
	f, err := os.OpenFile(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:8]), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	return &outputFile{f, path}, err
}

// finish puts the file in its place, or removes it.
func (o *outputFile) finish(whole bool) error {
	err := o.Close()
	if o.place == "" {
		return err
	}
	if err == nil && whole {
		err = os.Rename(o.Name(), o.place)
	}
	if err != nil || !whole {
		err = errors.Join(err, os.Remove(o.Name()))
	}
	return err
}

// watchedWriter remembers the first fault of standard output, which few who print look at.
type watchedWriter struct {
	to    io.Writer
	mu    sync.Mutex
	fault error
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.to.Write(p)
	if err != nil && w.fault == nil {
		w.fault = err
	}
	return n, err
}

func (w *watchedWriter) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault == nil {
		return nil
	}
	return fmt.Errorf("write to standard output: %w", w.fault)
}
