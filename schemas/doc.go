// Package schemas turns event bytes into typed rows and results into Avro bytes: it holds the contracts of every topic.
//
// A [Contract] names the inputs of a model. A [Decoder] reads Avro events in one of three framings, whatever schema they
// were written with, into a caller-owned batch of [Rows]: it compiles each writer schema once, resolved with a reader's
// schema if there is one, into a flat program that reads the declared inputs and steps over everything else. [Feed] says
// what such a program would do. [HTTPRegistry] gives schemas and publishes our own. An [Encoder] writes such events. [Score], [DeadLetter],
// [DriftState] and [DriftAlert] are the published records; their schema files are embedded from avsc and every change
// to them has to stay backward compatible with avsc/history.
package schemas
