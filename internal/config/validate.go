package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// loginInURL is the fault of a registry's URL; it must not repeat the URL.
const loginInURL = "holds a login; move it to registry.username and registry.password_file"

// mayHoldLogin is true for what cannot be parsed, too: a password with a wrong escape is a password.
func mayHoldLogin(address string) bool { return strings.Contains(address, "@") }

// nameable is Kafka's rule for topics, and for instance ids.
func nameable(name string) bool {
	return topicName.MatchString(name) && name != "." && name != ".."
}

// checker collects faults, each with its key and an example of a right value.
type checker struct {
	faults []error
	named  map[string]bool // keys that are not judged: their fault has been named
}

func (c *checker) check(ok bool, key, format string, args ...any) {
	if !ok && !c.named[key] {
		c.faults = append(c.faults, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
}

func (c *checker) oneOf(key, value string, allowed ...string) {
	c.check(slices.Contains(allowed, value), key, "%q is not one of %s", value, strings.Join(quoteEmpty(allowed), ", "))
}

func (c *checker) between(key string, value, low, high Duration) {
	c.check(value >= low && value <= high, key, "%v is outside %v to %v", value.Std(), low.Std(), high.Std())
}

func (c *checker) address(key, value string) {
	host, port, err := net.SplitHostPort(value)
	n, perr := strconv.Atoi(port)
	c.check(err == nil && perr == nil && n >= 0 && n <= 65535 && !strings.Contains(host, "/"), key, "%q is not host:port, for example 127.0.0.1:9092", value)
}

// faults leaves out the keys that are named already.
func (c *Config) faults(named map[string]bool) []error {
	k := checker{named: named}
	k.check(len(c.Brokers) > 0, "brokers", "is empty; give at least one address, for example [kafka-1:9092]")
	for i, b := range c.Brokers {
		k.address(fmt.Sprintf("brokers[%d]", i), b)
	}
	c.checkSecurity(&k)
	k.check(len(c.Registry.URLs) > 0, "registry.urls", "is empty; give the schema registry, for example [http://127.0.0.1:8081]")
	for i, r := range c.Registry.URLs {
		key := fmt.Sprintf("registry.urls[%d]", i)
		if mayHoldLogin(r) {
			k.check(false, key, loginInURL)
			continue
		}
		u, err := url.Parse(r)
		k.check(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "", key, "%q is not a URL such as http://127.0.0.1:8081", r)
	}
	c.checkRegistry(&k)
	c.checkEvents(&k)
	k.check(c.Model != "", "model", "is empty; give the directory of a model artefact, for example ./models/telco (`churnstream train` writes one)")
	k.oneOf("delivery", string(c.Delivery), string(ExactlyOnce), string(AtLeastOnce))
	c.checkTopics(&k)
	c.checkDeadLetters(&k)
	c.checkGroup(&k)
	c.checkTransport(&k)
	k.check(c.Reasons.Top >= 0 && c.Reasons.Top <= 100, "reasons.top", "%d is outside 0 to 100", c.Reasons.Top)
	k.oneOf("reasons.when", string(c.Reasons.When), string(ReasonsAlways), string(ReasonsAbove), string(ReasonsOnRequest))
	k.check(c.Reasons.From >= 0 && c.Reasons.From <= 1, "reasons.from", "%v is not a probability such as 0.5", c.Reasons.From)
	c.checkDrift(&k)
	if c.Admin.Listen != "" {
		k.address("admin.listen", c.Admin.Listen)
		k.check(c.Admin.Listen != c.HTTP.Listen || strings.HasSuffix(c.HTTP.Listen, ":0"), "http.listen", "is admin.listen, too (%s); each needs a port of its own", c.HTTP.Listen)
	}
	c.checkHTTP(&k)
	k.check(c.Admin.MaxLag >= 0, "admin.max_lag", "%d is negative; 0 means no bound", c.Admin.MaxLag)
	k.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	k.oneOf("log.format", c.Log.Format, "auto", "json", "console")
	k.between("shutdown.grace", c.Shutdown.Grace, Duration(time.Second), Duration(time.Hour))
	return k.faults
}

func (c *Config) checkRegistry(k *checker) {
	r := c.Registry
	k.check((r.Username == "") == (r.PasswordFile == "" && r.Password == nil), "registry.password_file", "username and password_file (or the variable CHURNSTREAM_REGISTRY_PASSWORD) go together")
	k.secret("registry.password", r.Password, r.PasswordFile)
	k.check(r.Username == "" || r.TokenFile == "", "registry.token_file", "is given beside username; a request carries one login, remove the other")
	k.check((r.TLS.CertFile == "") == (r.TLS.KeyFile == ""), "registry.tls.key_file", "cert_file and key_file go together")
	k.oneOf("registry.subject_strategy", r.SubjectStrategy, "topic", "record", "topic-record")
}

func (c *Config) checkEvents(k *checker) {
	e := c.Events
	k.oneOf("events.framing", e.Framing, "confluent", "single-object", "bare")
	k.check(e.Framing != "confluent" || len(e.Schemas) == 0, "events.schemas", "belongs to framing bare or single-object; with confluent the registry has the schemas, remove it")
	k.check(e.Framing != "bare" || len(e.Schemas) == 1, "events.schemas", "has %d files; framing bare needs the one schema that events are written with, for example [event.avsc]", len(e.Schemas))
}

// Mechanisms are those of a SASL login.
func Mechanisms() []string {
	return []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"}
}

func (c *Config) checkSecurity(k *checker) {
	t := c.Security.TLS
	k.check((t.CertFile == "") == (t.KeyFile == ""), "security.tls.key_file", "cert_file and key_file go together")
	k.check(t.Enabled || t.CAFile+t.CertFile+t.KeyFile+t.ServerName == "", "security.tls.enabled", "is false but other tls settings are given; set it to true or remove them")
	s := c.Security.SASL
	k.oneOf("security.sasl.mechanism", s.Mechanism, append([]string{""}, Mechanisms()...)...)
	switch s.Mechanism {
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		k.check(s.Username != "", "security.sasl.username", "is empty but mechanism %s needs one", s.Mechanism)
		k.check(s.PasswordFile != "" || s.Password != nil, "security.sasl.password_file", "is empty; give a file that holds the password of %s", s.Username)
		k.secret("security.sasl.password", s.Password, s.PasswordFile)
	case "OAUTHBEARER":
		k.check(t.Enabled, "security.tls.enabled", "is false; with OAUTHBEARER anybody on the way could take the token")
		if o := s.OAuth; o.TokenFile == "" {
			u, err := url.Parse(o.TokenURL)
			k.check(err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil, "security.sasl.oauth.token_url", "is not an https URL without a login, for example https://login.example.com/oauth2/token (or give token_file)")
			k.check(o.ClientID != "", "security.sasl.oauth.client_id", "is empty; give the id that the token server knows")
			k.check(o.ClientSecretFile != "" || o.ClientSecret != nil, "security.sasl.oauth.client_secret_file", "is empty; give a file that holds the secret of client_id")
			k.secret("security.sasl.oauth.client_secret", o.ClientSecret, o.ClientSecretFile)
		} else {
			k.check(o.TokenURL == "" && o.ClientID == "", "security.sasl.oauth.token_file", "is given, and token_url or client_id, too; keep one way")
		}
	case "AWS_MSK_IAM":
		a := s.AWS
		k.check(t.Enabled, "security.tls.enabled", "is false; Amazon MSK takes IAM logins with TLS only (port 9098)")
		k.check(awsRegion.MatchString(a.Region), "security.sasl.aws.region", "%q is not a region such as eu-central-1; set it or AWS_REGION", a.Region)
		k.check(a.AccessKeyID == "" || a.SecretAccessKey != nil, "security.sasl.aws.access_key_id", "is given without its secret: set AWS_SECRET_ACCESS_KEY")
		k.check(a.WebIdentityTokenFile == "" || a.RoleARN != "", "security.sasl.aws.role_arn", "is empty but web_identity_token_file needs it")
	}
}

var awsRegion = regexp.MustCompile(`^[a-z]{2}(-[a-z0-9]+)+-[0-9]+$`)

// secret refuses two sources for one.
func (c *checker) secret(key string, given Hidden, file string) {
	c.check(given == nil || file == "", key+"_file", "is given, and the variable %s, too; keep one", environmentPrefix+"_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_")))
}

func (c *Config) checkTopics(k *checker) {
	seen := map[string]string{}
	for _, t := range []struct{ key, name string }{
		{"topics.events", c.Topics.Events},
		{"topics.scores", c.Topics.Scores},
		{"topics.dead_letters", c.Topics.DeadLetters},
		{"topics.drift_state", c.Topics.DriftState},
		{"topics.drift_alerts", c.Topics.DriftAlerts},
		{"topics.audit", c.Topics.Audit},
	} {
		if t.key == "topics.audit" && t.name == "" {
			continue
		}
		k.check(nameable(t.name), t.key, "%q is not a topic name: 1 to 249 letters, digits, '.', '_' or '-', and not '.' or '..' alone", t.name)
		k.check(seen[t.name] == "", t.key, "%q is also %s; every topic needs a name of its own", t.name, seen[t.name])
		seen[t.name] = t.key
	}
	if c.CreateTopics.Enabled {
		k.check(c.CreateTopics.Partitions >= 1 && c.CreateTopics.Partitions <= 10_000, "create_topics.partitions", "%d is outside 1 to 10000", c.CreateTopics.Partitions)
		k.check(c.CreateTopics.ReplicationFactor >= 1 && c.CreateTopics.ReplicationFactor <= 100, "create_topics.replication_factor", "%d is outside 1 to 100", c.CreateTopics.ReplicationFactor)
	}
}

func (c *Config) checkDeadLetters(k *checker) {
	d := c.DeadLetters
	k.check(d.FloodWindow == 0 || d.FloodWindow >= 128 && d.FloodWindow <= MaxFloodWindow, "dead_letters.flood_window", "%d is neither 0 (off) nor in 128 to %d, for example 1000", d.FloodWindow, MaxFloodWindow)
	k.check(d.FloodShare > 0 && d.FloodShare < 1, "dead_letters.flood_share", "%v must be above 0 and below 1, for example 0.5", d.FloodShare)
}

func (c *Config) checkGroup(k *checker) {
	g := c.Group
	k.check(g.ID != "", "group.id", "is empty; give the consumer group, for example churnstream")
	k.oneOf("group.protocol", g.Protocol, "classic", "consumer")
	k.check(g.Protocol != "consumer" || g.InstanceID == "", "group.instance_id", "belongs to the classic protocol; with protocol consumer set member_id, for example scorer-1")
	k.check(g.Protocol != "classic" || g.MemberID == "", "group.member_id", "belongs to protocol consumer; with protocol classic set instance_id, for example scorer-1")
	k.check(g.InstanceID == "" || nameable(g.InstanceID), "group.instance_id", "%q is not 1 to 249 letters, digits, '.', '_' or '-', for example scorer-1", g.InstanceID)
	k.check(g.MemberID == "" || topicName.MatchString(g.MemberID), "group.member_id", "%q is not 1 to 249 letters, digits, '.', '_' or '-'", g.MemberID)
	k.between("group.session_timeout", g.SessionTimeout, Duration(time.Second), Duration(30*time.Minute))
	k.between("group.rebalance_timeout", g.RebalanceTimeout, Duration(time.Second), Duration(time.Hour))
	k.check(g.HeartbeatInterval > 0 && g.HeartbeatInterval*3 <= g.SessionTimeout, "group.heartbeat_interval", "%v must be above 0 and at most a third of session_timeout (%v)", g.HeartbeatInterval.Std(), g.SessionTimeout.Std())
}

func (c *Config) checkTransport(k *checker) {
	f := c.Fetch
	k.between("fetch.max_wait", f.MaxWait, Duration(time.Millisecond), Duration(30*time.Second))
	k.check(f.MaxPartitionBytes >= 1<<10 && f.MaxPartitionBytes <= 256<<20, "fetch.max_partition_bytes", "%d is outside 1024 to 268435456", f.MaxPartitionBytes)
	k.check(f.MaxBytes >= f.MaxPartitionBytes && f.MaxBytes <= 512<<20, "fetch.max_bytes", "%d must be at least max_partition_bytes (%d) and at most 536870912", f.MaxBytes, f.MaxPartitionBytes)
	k.check(f.MemoryBytes >= 512<<10 && f.MemoryBytes <= 1<<30, "fetch.memory_bytes", "%d is outside 524288 to 1073741824", f.MemoryBytes)
	k.oneOf("fetch.offset_reset", f.OffsetReset, "earliest", "latest", "fail")
	p := c.Produce
	k.oneOf("produce.compression", p.Compression, "none", "lz4", "snappy", "zstd", "gzip")
	k.check(p.MaxBatchBytes >= 16<<10 && p.MaxBatchBytes <= 64<<20, "produce.max_batch_bytes", "%d is outside 16384 to 67108864", p.MaxBatchBytes)
	k.oneOf("produce.transactions", p.Transactions, "partition", "worker")
	k.between("produce.transaction_timeout", p.TransactionTimeout, Duration(time.Second), Duration(15*time.Minute))
}

func (c *Config) checkDrift(k *checker) {
	d := c.Drift
	if !d.Enabled {
		return
	}
	k.check(d.Bucket >= Duration(time.Second) && d.Bucket <= Duration(time.Hour) && d.Bucket%Duration(time.Second) == 0, "drift.bucket", "%v must be whole seconds from 1s to 1h, for example 1m", d.Bucket.Std())
	k.between("drift.evaluate_every", d.EvaluateEvery, Duration(100*time.Millisecond), Duration(24*time.Hour))
	k.check(d.ClearHold >= 1 && d.ClearHold <= 1000, "drift.clear_hold", "%d is outside 1 to 1000", d.ClearHold)
	if d.Webhook != "" {
		at, err := url.Parse(d.Webhook)
		k.check(err == nil && (at.Scheme == "http" || at.Scheme == "https") && at.Host != "", "drift.webhook", "it is no http or https address, for example https://alerts.example.com/churn")
	}
	k.check(d.FalseAlarmsAYear >= 0.001 && d.FalseAlarmsAYear <= 1000, "drift.false_alarms_a_year", "%v is outside 0.001 to 1000, for example 1", d.FalseAlarmsAYear)
	k.check(d.RelevantPSI > 0 && d.RelevantPSI < 10, "drift.relevant_psi", "%v must be above 0 and below 10, for example 0.1", d.RelevantPSI)
}

func quoteEmpty(words []string) []string {
	out := slices.Clone(words)
	for i, w := range out {
		if w == "" {
			out[i] = `"" (none)`
		}
	}
	return out
}
