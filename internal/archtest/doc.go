// Package archtest takes the module's import graph and gives a failing test for
// every import that goes the wrong way. It holds nothing but tests.
package archtest
