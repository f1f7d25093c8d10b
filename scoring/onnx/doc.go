// Package onnx takes a model file of ONNX with the operators of ai.onnx.ml, as skl2onnx and onnxmltools
// write it, and gives the scores that ONNX Runtime computes, within a float32 unit in the last place.
//
// A graph becomes a list of operations over registers once, at load. No operation mixes rows, and the
// form of every tensor but for the number of rows is known then.
package onnx
