// Package catboost takes a model file as CatBoost saves it in JSON and gives the same raw values:
// float64 sums over the trees in their order, of features that were rounded to float32.
//
// Read are oblivious trees and those of the policies Depthwise and Lossguide, numbers with all three
// treatments of missing ones, one-hot features, and counters of categories with their tables, of
// CatBoost 1.0 and later. Texts and embeddings are refused.
package catboost
