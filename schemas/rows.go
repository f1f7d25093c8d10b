package schemas

import (
	"encoding/hex"
	"math"
)

// Rows is a batch of decoded events, row-major, owned and reused by the caller. It is not safe for concurrent use.
//
// Input i of row r is at index r*Width()+i of both columns; a numeric kind uses Numbers, a category Categories, and the
// other column holds the missing value there.
type Rows struct {
	// Numbers holds numbers, booleans as 0 or 1, dates as days and timestamps as milliseconds since 1970; NaN is missing.
	Numbers []float64
	// Categories alias the bytes of the decoded events (or read-only enum symbols, or memory of the batch) and are valid
	// as long as those are and until Reset; nil is missing, an empty text is not.
	Categories [][]byte

	width   int
	length  int
	missing []float64 // one row of NaN
	texts   []byte    // of categories that the events do not hold as text
}

// NewRows returns an empty batch of events of width inputs with room for capacity rows; it grows beyond that as needed.
func NewRows(width, capacity int) *Rows {
	r := &Rows{
		Numbers:    make([]float64, 0, width*capacity),
		Categories: make([][]byte, 0, width*capacity),
		width:      width,
		missing:    make([]float64, width),
	}
	for i := range r.missing {
		r.missing[i] = math.NaN()
	}
	return r
}

// Len returns the number of rows.
func (r *Rows) Len() int { return r.length }

// Width returns the number of inputs of a row.
func (r *Rows) Width() int { return r.width }

// Reset empties the batch, keeps its memory and lets go of the events it aliased.
func (r *Rows) Reset() {
	clear(r.Categories)
	r.Numbers, r.Categories, r.length, r.texts = r.Numbers[:0], r.Categories[:0], 0, r.texts[:0]
}

// uuid keeps the text of a UUID's 16 bytes until Reset.
func (r *Rows) uuid(b []byte) []byte {
	start := len(r.texts) // a growing array leaves earlier texts where they are
	for i, part := range [...][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:16]} {
		if i > 0 {
			r.texts = append(r.texts, '-')
		}
		r.texts = hex.AppendEncode(r.texts, part)
	}
	return r.texts[start:len(r.texts):len(r.texts)]
}

// Append adds a row in which every input is missing and returns its index.
func (r *Rows) Append() int {
	r.Numbers = append(r.Numbers, r.missing...)
	end := len(r.Categories) + r.width
	if end <= cap(r.Categories) {
		r.Categories = r.Categories[:end] // Reset and DropLast left nil behind
	} else {
		r.Categories = append(r.Categories, make([][]byte, r.width)...)
	}
	r.length++
	return r.length - 1
}

// DropLast takes back the newest row.
func (r *Rows) DropLast() {
	r.length--
	start := r.length * r.width
	clear(r.Categories[start:])
	r.Numbers, r.Categories = r.Numbers[:start], r.Categories[:start]
}

// Row returns both columns of row i; they are valid until the next Append or Reset.
func (r *Rows) Row(i int) (numbers []float64, categories [][]byte) {
	start, end := i*r.width, (i+1)*r.width
	return r.Numbers[start:end:end], r.Categories[start:end:end]
}
