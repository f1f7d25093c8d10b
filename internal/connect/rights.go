package connect

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/internal/config"
)

// Right is one access control entry: an operation on a resource.
type Right struct {
	Operation string `json:"operation"` // as kafka-acls.sh has it: Read, Write, Create, DescribeConfigs
	Resource  string `json:"resource"`  // topic, group, transactional-id
	Name      string `json:"name"`
	Prefix    bool   `json:"prefix,omitempty"` // Name is what the resources' names begin with
	For       string `json:"for"`
	Optional  bool   `json:"optional,omitempty"` // without it only what For says is missing
}

// Command is the call of kafka-acls.sh that grants the right.
func (r Right) Command(bootstrap, principal string) string {
	pattern := ""
	if r.Prefix {
		pattern = " --resource-pattern-type prefixed"
	}
	return fmt.Sprintf("kafka-acls.sh --bootstrap-server %s --add --allow-principal %s --operation %s --%s %s%s", bootstrap, quoted(principal), r.Operation, r.Resource, quoted(r.Name), pattern)
}

// quoted is a word for a shell.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// Principal is who the brokers take the login for, where that can be known here, in the form of ACLs.
func Principal(security config.Security) (principal string, known bool) {
	switch {
	case security.SASL.Username != "":
		return "User:" + security.SASL.Username, true
	case security.SASL.Mechanism != "":
		return "the one that the token names", false
	case security.TLS.Enabled && security.TLS.CertFile != "":
		pair, err := tls.LoadX509KeyPair(security.TLS.CertFile, security.TLS.KeyFile)
		if err != nil || pair.Leaf == nil {
			return "the one of the client certificate", false
		}
		return "User:" + pair.Leaf.Subject.String() + " unless the brokers' ssl.principal.mapping.rules shorten it", false
	default:
		return "User:ANONYMOUS", true
	}
}

// NameMissingRight adds to an error of authorization who lacks the right; the error says which one. Others stay as they
// are.
func NameMissingRight(err error, security config.Security) error {
	for _, code := range []kafka.Error{kafka.TopicAuthorizationFailed, kafka.GroupAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.TransactionalIDAuthorizationFailed} {
		if errors.Is(err, code) {
			principal, _ := Principal(security)
			return fmt.Errorf("%w (the principal is %s; `churnstream config acl` prints the rights that the configuration needs)", err, principal)
		}
	}
	return err
}
