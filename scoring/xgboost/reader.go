package xgboost

import (
	"fmt"
	"math"
)

// reader walks a document value by value, in either spelling of XGBoost's models. Whoever asks for a
// value gets it or an error with the byte where it went wrong; the kind of the next value is in
// next. Memory is allocated for what is there, never for what a length says.
type reader interface {
	// next is the kind of the value ahead.
	next() (kind, error)
	// object calls member with each key; member consumes the value.
	object(member func(key []byte) error) error
	// array calls element with each index; element consumes the value.
	array(element func(i int) error) error
	text() ([]byte, error)
	integer() (int64, error)
	floats() ([]float32, error)
	// integers takes booleans for 0 and 1.
	integers() ([]int32, error)
	skip() error
	// end makes sure that nothing follows.
	end() error
}

type kind uint8

const (
	isObject kind = iota
	isArray
	isText
	isNumber
	isOther
)

// maxDepth bounds the nesting of a document. XGBoost's models have eight levels.
const maxDepth = 64

// syntaxError is a fault of the document's form.
type syntaxError struct {
	at   int
	what string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("byte %d: %s", e.at, e.what) }

func faultAt(at int, format string, args ...any) error {
	return &syntaxError{at, fmt.Sprintf(format, args...)}
}

func narrow(at int, x int64) (int32, error) {
	if x < math.MinInt32 || x > math.MaxInt32 {
		return 0, faultAt(at, "%d does not fit into 32 bits", x)
	}
	return int32(x), nil
}
