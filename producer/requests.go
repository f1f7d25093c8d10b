package producer

import (
	"fmt"
	"slices"
	"time"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// encodeProduce writes a Produce request, v3 to v12, with the first waiting batch of every partition in s.sending,
// which is grouped by topic.
func (s *session) encodeProduce(w *kafkawire.Writer, size int) {
	w.B = slices.Grow(w.B, size+64*len(s.sending)+256)
	w.NullableString(s.transactionalID)
	w.Int16(-1) // acks: all in-sync replicas
	w.Int32(int32(s.cfg.RequestTimeout / time.Millisecond))
	topics := 0
	for i, p := range s.sending {
		if i == 0 || s.sending[i-1].topic != p.topic {
			topics++
		}
	}
	w.ArrayLen(topics)
	for i := 0; i < len(s.sending); {
		topic := s.sending[i].topic
		n := 1
		for i+n < len(s.sending) && s.sending[i+n].topic == topic {
			n++
		}
		w.String(topic.name)
		w.ArrayLen(n)
		for _, p := range s.sending[i : i+n] {
			// Finish fails for an empty batch only, and append never leaves one behind.
			batch, _ := p.batches[p.sent].Finish(s.id, p.sequence, s.transactionalID != "")
			w.Int32(p.partition)
			w.Bytes(batch)
			w.Tags()
		}
		w.Tags()
		i += n
	}
	w.Tags()
}

// decodeProduce reads a Produce response, acknowledges what was accepted and returns the worst error. A sequence that
// the broker has already seen is an acceptance whose answer was lost.
func (s *session) decodeProduce(r *kafkawire.Reader, version int16) error {
	var worst *Error
	var name []byte
	s.next = 0
	for topics := r.ArrayLen(); topics > 0 && r.Err() == nil; topics-- {
		name = append(name[:0], r.StringBytes()...)
		for partitions := r.ArrayLen(); partitions > 0 && r.Err() == nil; partitions-- {
			partition := r.Int32()
			code := r.Int16()
			r.Int64() // base offset
			r.Int64() // log append time
			if version >= 5 {
				r.Int64() // log start offset
			}
			var message string
			if version >= 8 {
				for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
					r.Int32() // index in the batch
					if m := r.String(); message == "" {
						message = m
					}
					r.Tags()
				}
				if m := r.String(); m != "" {
					message = m
				}
			}
			r.Tags()
			if r.Err() != nil {
				break
			}
			if e := s.answered(name, partition, code, message); e != nil && (worst == nil || e.verdict > worst.verdict) {
				worst = e
			}
		}
		r.Tags()
	}
	if throttle := time.Duration(r.Int32()) * time.Millisecond; throttle > 0 && r.Err() == nil {
		s.metrics.throttleSeconds.Add(throttle.Seconds())
		s.throttled = time.Now().Add(throttle)
	}
	for _, p := range s.sending {
		if !p.answered && worst == nil && r.Err() == nil { // else Do reports the malformed response
			worst = s.produceOp.on(p.topic.name, p.partition).failed(kafkawire.ErrMalformed)
		}
	}
	if worst == nil {
		return nil
	}
	return worst
}

// answered takes one partition's answer.
func (s *session) answered(topic []byte, partition int32, code int16, message string) *Error {
	p := s.asked(topic, partition)
	if p == nil {
		return nil
	}
	p.answered = true
	batch := p.batches[p.sent]
	if verdictOf(code) == accepted {
		s.metrics.records.Add(float64(batch.Len()))
		s.metrics.bytes.Add(float64(batch.wireSize()))
		p.acknowledge()
		return nil
	}
	e := s.produceOp.on(p.topic.name, partition).failed(s.produceOp.on(p.topic.name, partition).refused(code))
	switch {
	case code == codeMessageTooLarge && batch.Len() > 1:
		half := batch.plainSize() / 2
		s.records.limits.lower(p.topic.name, half)
		e.verdict = abortable
		e.Remedy = fmt.Sprintf("%d records in a batch of %d bytes exceed the topic's max.message.bytes; from now on %d bytes before compression are the most: raise max.message.bytes of %s to max_batch_bytes (%d)",
			batch.Len(), batch.wireSize(), half, p.topic.name, s.cfg.MaxBatchBytes)
	case code == codeMessageTooLarge:
		e.Cause = &RecordTooLargeError{Topic: p.topic.name, Partition: partition, Size: batch.wireSize()}
	case code == codeRecordListTooLarge:
		e.Remedy = fmt.Sprintf("a batch of %d bytes exceeds the topic's segment.bytes: raise that or lower max_batch_bytes", batch.wireSize())
	case message != "" && e.Remedy == "":
		e.Remedy = "the broker says: " + message
	}
	return e
}

// asked finds what an answer is about; nil where it was not asked for. Brokers answer in the order of the request, but
// are not bound to.
func (s *session) asked(topic []byte, partition int32) *partitionBuffer {
	waits := func(p *partitionBuffer) bool {
		return !p.answered && p.partition == partition && p.topic.name == string(topic)
	}
	if s.next < len(s.sending) && waits(s.sending[s.next]) {
		s.next++
		return s.sending[s.next-1]
	}
	if i := slices.IndexFunc(s.sending, waits); i >= 0 {
		s.next = i + 1
		return s.sending[i]
	}
	return nil
}

// encodeInitProducerID writes InitProducerId v0 to v5.
func encodeInitProducerID(w *kafkawire.Writer, version int16, transactionalID string, timeout time.Duration, current ProducerIdentity) {
	w.NullableString(transactionalID)
	w.Int32(int32(timeout / time.Millisecond))
	if version >= 3 {
		w.Int64(current.ID)
		w.Int16(current.Epoch)
	}
	w.Tags()
}

// decodeInitProducerID reads its response.
func decodeInitProducerID(r *kafkawire.Reader) (code int16, id ProducerIdentity) {
	r.Int32() // throttle
	code = r.Int16()
	id = ProducerIdentity{ID: r.Int64(), Epoch: r.Int16()}
	r.Tags()
	return code, id
}

// encodeAddPartitions writes AddPartitionsToTxn v0 to v3 with every partition that holds records of the unit.
func encodeAddPartitions(w *kafkawire.Writer, transactionalID string, id ProducerIdentity, touched []*partitionBuffer) {
	w.String(transactionalID)
	w.Int64(id.ID)
	w.Int16(id.Epoch)
	topics := 0
	for i, p := range touched {
		if i == 0 || touched[i-1].topic != p.topic {
			topics++
		}
	}
	w.ArrayLen(topics)
	for i := 0; i < len(touched); {
		n := 1
		for i+n < len(touched) && touched[i+n].topic == touched[i].topic {
			n++
		}
		w.String(touched[i].topic.name)
		w.ArrayLen(n)
		for _, p := range touched[i : i+n] {
			w.Int32(p.partition)
		}
		w.Tags()
		i += n
	}
	w.Tags()
}

// encodeOffsets writes the topics of TxnOffsetCommit and OffsetCommit (v6 and later), which have the same form.
// Offsets must be grouped by topic.
func encodeOffsets(w *kafkawire.Writer, offsets []Offset) {
	topics := 0
	for i := range offsets {
		if i == 0 || offsets[i-1].Topic != offsets[i].Topic {
			topics++
		}
	}
	w.ArrayLen(topics)
	for i := 0; i < len(offsets); {
		n := 1
		for i+n < len(offsets) && offsets[i+n].Topic == offsets[i].Topic {
			n++
		}
		w.String(offsets[i].Topic)
		w.ArrayLen(n)
		for _, o := range offsets[i : i+n] {
			w.Int32(o.Partition)
			w.Int64(o.Offset)
			w.Int32(-1) // leader epoch: not known here
			w.String(o.Metadata)
			w.Tags()
		}
		w.Tags()
		i += n
	}
}

// decodePartitionCodes reads the form that the responses of AddPartitionsToTxn, TxnOffsetCommit and OffsetCommit (v3
// and later) share and returns the worst error.
func decodePartitionCodes(r *kafkawire.Reader, op operation) error {
	r.Int32() // throttle
	var worst *Error
	for topics := r.ArrayLen(); topics > 0 && r.Err() == nil; topics-- {
		name := r.String()
		for partitions := r.ArrayLen(); partitions > 0 && r.Err() == nil; partitions-- {
			partition := r.Int32()
			code := r.Int16()
			r.Tags()
			if r.Err() != nil || verdictOf(code) == accepted {
				continue
			}
			narrow := op.on(name, partition)
			if e := narrow.failed(narrow.refused(code)); worst == nil || e.verdict > worst.verdict {
				worst = e
			}
		}
		r.Tags()
	}
	r.Tags()
	if worst == nil {
		return nil
	}
	return worst
}

// groupOffsets appends offsets to dst in the order of topic and partition.
func groupOffsets(dst, offsets []Offset) []Offset {
	dst = append(dst, offsets...)
	slices.SortFunc(dst, func(a, b Offset) int {
		if a.Topic != b.Topic {
			if a.Topic < b.Topic {
				return -1
			}
			return 1
		}
		return int(a.Partition) - int(b.Partition)
	})
	return dst
}
