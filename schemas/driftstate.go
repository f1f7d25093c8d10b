package schemas

import "strconv"

// DriftGroups is the number of hash groups that customers are counted in.
const DriftGroups = 64

// DriftState holds the absolute counts of one partition in one event-time bucket, churn.v1.DriftState. A rewrite
// replaces the record of the same key; populations merge by adding over partitions.
type DriftState struct {
	ModelDigest string
	Topic       string
	Partition   int32
	BucketStart int64 // milliseconds since 1970, event time
	BucketWidth int32 // seconds
	NextOffset  int64 // events of the partition below it are counted; a replay starts here
	Features    []string
	Counts      [][]uint32 // per feature and place of the profile
	Groups      [DriftGroups]uint32

	AbsorbedUntil int64     // ms: finer buckets inside this one that start before it are in the counts
	SegmentGroups []uint32  // DriftGroups a segment of the profile
	Moments       []float64 // per numeric feature: sum and sum of squares about its centre, minimum, maximum

	ClassEvents []uint32 // of each class of time of the profile, of all events and then of each segment
}

// AppendKey appends the compaction key to dst: digest/topic/partition/width/bucketstart as text.
func (s *DriftState) AppendKey(dst []byte) []byte {
	dst = append(append(dst, s.ModelDigest...), '/')
	dst = append(append(dst, s.Topic...), '/')
	dst = append(strconv.AppendInt(dst, int64(s.Partition), 10), '/')
	dst = append(strconv.AppendInt(dst, int64(s.BucketWidth), 10), '/')
	return strconv.AppendInt(dst, s.BucketStart, 10)
}

// AppendAvro appends the Avro body to dst and returns it. It allocates only where dst is too short.
func (s *DriftState) AppendAvro(dst []byte) []byte {
	dst = appendString(dst, s.ModelDigest)
	dst = appendString(dst, s.Topic)
	dst = appendLong(dst, int64(s.Partition))
	dst = appendLong(dst, s.BucketStart)
	dst = appendLong(dst, int64(s.BucketWidth))
	dst = appendLong(dst, s.NextOffset)
	dst = appendStrings(dst, s.Features)
	if len(s.Counts) > 0 {
		dst = appendLong(dst, int64(len(s.Counts)))
		for _, places := range s.Counts {
			dst = appendCounts(dst, places)
		}
	}
	dst = append(dst, 0)
	dst = appendCounts(dst, s.Groups[:])
	dst = appendLong(dst, s.AbsorbedUntil)
	dst = appendCounts(dst, s.SegmentGroups)
	if len(s.Moments) > 0 {
		dst = appendLong(dst, int64(len(s.Moments)))
		for _, m := range s.Moments {
			dst = appendDouble(dst, m)
		}
	}
	return appendCounts(append(dst, 0), s.ClassEvents)
}

func appendCounts(dst []byte, counts []uint32) []byte {
	if len(counts) > 0 {
		dst = appendLong(dst, int64(len(counts)))
		for _, c := range counts {
			dst = appendLong(dst, int64(c))
		}
	}
	return append(dst, 0)
}

// DecodeDriftState reads an Avro body that was written with the current schema, or with an earlier one, into s, reusing its
// memory. The error is a *[RecordError]; s is then half filled.
func DecodeDriftState(body []byte, s *DriftState) error {
	r := wireReader{b: body}
	r.string(&s.ModelDigest)
	r.string(&s.Topic)
	s.Partition = r.int()
	s.BucketStart = r.long()
	s.BucketWidth = r.int()
	s.NextOffset = r.long()
	s.Features = r.strings(s.Features)
	s.Counts = s.Counts[:0]
	for n := r.block(); n > 0; n = r.block() {
		for ; n > 0 && r.err == nil; n-- {
			s.Counts = extend(s.Counts)
			places := &s.Counts[len(s.Counts)-1]
			*places = r.counts(*places)
		}
	}
	groups := 0
	for n := r.block(); n > 0; n = r.block() {
		for ; n > 0 && r.err == nil; n-- {
			if groups == DriftGroups {
				r.fail(errGroupNumber)
				break
			}
			s.Groups[groups] = r.count32()
			groups++
		}
	}
	if groups != DriftGroups {
		r.fail(errGroupNumber)
	}
	s.AbsorbedUntil, s.SegmentGroups, s.Moments, s.ClassEvents = 0, s.SegmentGroups[:0], s.Moments[:0], s.ClassEvents[:0]
	if r.more() {
		s.AbsorbedUntil = r.long()
		s.SegmentGroups = r.counts(s.SegmentGroups)
		for n := r.block(); n > 0; n = r.block() {
			for ; n > 0 && r.err == nil; n-- {
				s.Moments = append(s.Moments, r.double())
			}
		}
	}
	if r.more() {
		s.ClassEvents = r.counts(s.ClassEvents)
	}
	return r.finish("drift state")
}
