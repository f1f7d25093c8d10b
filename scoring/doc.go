// Package scoring takes rows of declared inputs and gives their probability of churn, the margin
// behind it and the reasons for it, exactly as the library that trained the model computes them.
//
// A model comes from an artefact: a directory with a manifest, the pipeline, the profile of the
// training population and reference rows. [Load] verifies all of it and compiles the pipeline once;
// a [Scorer] then runs batches through it without allocating.
package scoring
