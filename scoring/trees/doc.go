// Package trees takes ensembles of decision trees, as any library may have grown them, and rows of
// numbers, and gives margins and exact contributions.
//
// An [Ensemble] is the neutral form: every importer of a model file fills one. [Compile] checks it
// whole and lowers it into an [Engine], which is immutable and shared. What an engine writes to
// while it works is the caller's: a [Scratch] for each goroutine.
package trees
