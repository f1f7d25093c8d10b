package kafkawire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/segmentio/kafka-go"
)

// Code returns kafka.Error(code), or nil for 0.
func Code(code int16) error {
	if code == 0 {
		return nil
	}
	return kafka.Error(code)
}

// CodeOf finds Kafka's error code in err; 0 where there is none.
func CodeOf(err error) int16 {
	var code kafka.Error
	if errors.As(err, &code) {
		return int16(code)
	}
	return 0
}

// Retriable classifies what went wrong with a request. Moved says that whatever was known about
// who leads or coordinates is stale: forget it and ask again. Retriable says that the same request
// may succeed later without anything else being changed. A moved error is always retriable.
//
// A context error counts as a lost answer (moved, retriable), because Do bounds every request; a
// caller therefore looks at its own context first.
func Retriable(err error) (moved, retriable bool) {
	if err == nil {
		return false, false
	}
	var rotating *rotatingError
	if errors.As(err, &rotating) {
		return true, true
	}
	var code kafka.Error
	if errors.As(err, &code) {
		switch code {
		case kafka.UnknownTopicOrPartition, kafka.LeaderNotAvailable, kafka.NotLeaderForPartition,
			kafka.BrokerNotAvailable, kafka.ReplicaNotAvailable, kafka.NetworkException,
			kafka.GroupCoordinatorNotAvailable, kafka.NotCoordinatorForGroup,
			kafka.KafkaStorageError, kafka.ListenerNotFound, kafka.FencedLeaderEpoch,
			kafka.UnknownLeaderEpoch, kafka.UnknownTopicID, kafka.InconsistentTopicID,
			kafka.RequestTimedOut:
			return true, true
		case kafka.GroupLoadInProgress, kafka.NotEnoughReplicas, kafka.NotEnoughReplicasAfterAppend,
			kafka.ConcurrentTransactions, kafka.OffsetNotAvailable, kafka.UnstableOffsetCommit,
			kafka.ThrottlingQuotaExceeded, kafka.FetchSessionIDNotFound, kafka.InvalidFetchSessionEpoch:
			return false, true
		default:
			return false, false
		}
	}
	if permanent(err) {
		return false, false
	}
	var network net.Error
	lost := errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	return lost, lost
}

// permanent finds the TLS errors that also look like network errors but that no retry mends.
func permanent(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		alert        tls.AlertError
		header       tls.RecordHeaderError
		unknown      x509.UnknownAuthorityError
		invalid      x509.CertificateInvalidError
		hostname     x509.HostnameError
	)
	return errors.As(err, &verification) || errors.As(err, &alert) || errors.As(err, &header) ||
		errors.As(err, &unknown) || errors.As(err, &invalid) || errors.As(err, &hostname)
}
