// Package httpapi takes requests over HTTP and gives predictions of the loaded model, the scores of the score topic by
// customer, and events to the activity topic: the same pipeline as the stream's, with the same bits in every probability.
//
// A request passes, in this order: request id and trace, admission (a free place, or 503), authentication, scope, rate
// of the principal, limits of size, then its operation. What a body says is judged by the model's contract; every wrong
// value is named in one answer, as RFC 9457 problem details.
package httpapi
