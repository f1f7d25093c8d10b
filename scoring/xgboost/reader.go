package xgboost

import "github.com/churnstream/churnstream/scoring/internal/jsonread"

// reader walks a document value by value, in either spelling of XGBoost's models. Whoever asks for a
// value gets it or an error with the byte where it went wrong; the kind of the next value is in
// Next. Memory is allocated for what is there, never for what a length says.
type reader interface {
	// Next is the kind of the value ahead.
	Next() (jsonread.Kind, error)
	// Object calls member with each key; member consumes the value.
	Object(member func(key []byte) error) error
	// Array calls element with each index; element consumes the value.
	Array(element func(i int) error) error
	// Elements is the number of elements of the array ahead, which stays ahead.
	Elements() (int, error)
	Text() ([]byte, error)
	Integer() (int64, error)
	Floats() ([]float32, error)
	// Integers takes booleans for 0 and 1.
	Integers() ([]int32, error)
	Skip() error
	// End makes sure that nothing follows.
	End() error
}

// maxDepth bounds the nesting of a document. XGBoost's models have eight levels.
const maxDepth = 64
