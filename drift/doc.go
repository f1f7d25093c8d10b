// Package drift takes decoded inputs and their scores, partition by partition, and gives back findings on how far the
// population of an event-time window has moved from the model's frozen reference population, and alerts about it.
//
// The parts, in the order in which an event meets them:
//
//   - a [Profile] freezes, per input and for the score, the places an observation can fall into (bins or categories,
//     and places of their own for missing, unseen, other, under and over) with the counts of the reference population;
//   - an [Accumulator], one a partition, counts events into a ring of event-time buckets; what it counted becomes
//     visible only after the transaction that carried the scores has committed;
//   - a [Population] adds up the buckets of all partitions and workers;
//   - a [Rule] judges one feature's window against the profile;
//   - [Alarms] turn a series of judgements into raised and cleared alerts.
//
// Counts are absolute and add: a replay overwrites, a merge sums. Time is always an argument.
package drift
