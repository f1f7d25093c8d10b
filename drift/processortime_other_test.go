//go:build !unix

package drift

import "testing"

func reportProcessorTime(*testing.B) (stop func()) { return func() {} }
