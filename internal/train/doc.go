// Package train takes a table of customers (CSV) with a specification of its columns and gives a
// model artefact: a logistic regression whose coefficients are scikit-learn's, with honest metrics
// on customers that it has not seen.
package train
