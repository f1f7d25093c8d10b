// Package schemas turns event bytes into typed rows and results into Avro bytes: it holds the contracts of every topic.
//
// A [Contract] names the inputs of a model. A [Decoder] reads Avro events in the Confluent wire format, whatever schema
// they were written with, into a caller-owned batch of [Rows]: it compiles each writer schema once into a flat program
// that reads the declared inputs and steps over everything else. An [Encoder] writes such events. [Score], [DeadLetter],
// [DriftState] and [DriftAlert] are the published records; their schema files are embedded from avsc and every change
// to them has to stay backward compatible with avsc/history.
package schemas
