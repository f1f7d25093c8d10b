//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package devbroker

import "os"

// lockFile does nothing where there is no flock; the listen address alone keeps
// a second broker away there.
func lockFile(*os.File) error { return nil }
