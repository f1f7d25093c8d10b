package connect

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/churnstream/churnstream/internal/config"
)

// mskSource gives the tokens of Amazon MSK's IAM access control: a signed URL for the action kafka-cluster:Connect,
// as aws-msk-iam-sasl-signer makes them. It expires after 15 minutes.
type mskSource struct {
	cfg         config.AWS
	now         func() time.Time
	credentials func(context.Context) (awsCredentials, error)
}

const mskTokenLife = 15 * time.Minute

func newMSKSource(cfg config.AWS) *mskSource {
	chain := &awsChain{cfg: cfg, instance: "http://169.254.169.254", sts: "https://sts." + cfg.Region + ".amazonaws.com/"}
	return &mskSource{cfg: cfg, now: time.Now, credentials: chain.credentials}
}

// Token implements TokenSource.
func (s *mskSource) Token(ctx context.Context) (Token, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	credentials, err := s.credentials(ctx)
	if err != nil {
		return Token{}, &tokenError{"AWS", err, false}
	}
	now := s.now().UTC()
	signed := presign(presignRequest{
		host: "kafka." + s.cfg.Region + ".amazonaws.com", path: "/", query: url.Values{"Action": {"kafka-cluster:Connect"}},
		region: s.cfg.Region, service: "kafka-cluster", payload: sha256Hex(""), at: now, life: mskTokenLife,
	}, credentials)
	// What is added behind the signature is not signed; the broker's log has it.
	signed += "&User-Agent=churnstream"
	expires := now.Add(mskTokenLife)
	if end := credentials.expires; !end.IsZero() && end.Before(expires) {
		expires = end
	}
	return Token{Value: base64.RawURLEncoding.EncodeToString([]byte(signed)), Expires: expires}, nil
}

// awsCredentials are an account's keys; session is "" for those of a user.
type awsCredentials struct {
	id, secret, session string
	expires             time.Time // zero: never
}

// presignRequest is a GET to be signed in its query.
type presignRequest struct {
	host, path      string
	query           url.Values
	region, service string
	payload         string // hash of the body in hexadecimal, or UNSIGNED-PAYLOAD
	at              time.Time
	life            time.Duration
}

// presign signs a URL with AWS Signature Version 4, query form:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
func presign(r presignRequest, c awsCredentials) string {
	day, moment := r.at.Format("20060102"), r.at.Format("20060102T150405Z")
	scope := strings.Join([]string{day, r.region, r.service, "aws4_request"}, "/")
	query := url.Values{}
	for name, values := range r.query {
		query[name] = values
	}
	query.Set("X-Amz-Algorithm", "AWS4-HMAC-SHA256")
	query.Set("X-Amz-Credential", c.id+"/"+scope)
	query.Set("X-Amz-Date", moment)
	query.Set("X-Amz-Expires", fmt.Sprint(int(r.life.Seconds())))
	query.Set("X-Amz-SignedHeaders", "host")
	if c.session != "" {
		query.Set("X-Amz-Security-Token", c.session)
	}
	canonicalQuery := strings.ReplaceAll(query.Encode(), "+", "%20") // sorted by name
	canonical := strings.Join([]string{http.MethodGet, r.path, canonicalQuery, "host:" + r.host + "\n", "host", r.payload}, "\n")
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", moment, scope, sha256Hex(canonical)}, "\n")
	signature := hex.EncodeToString(hmacSHA256(signingKey(c.secret, day, r.region, r.service), toSign))
	return "https://" + r.host + r.path + "?" + canonicalQuery + "&X-Amz-Signature=" + signature
}

func signingKey(secret, day, region, service string) []byte {
	key := []byte("AWS4" + secret)
	for _, part := range []string{day, region, service, "aws4_request"} {
		key = hmacSHA256(key, part)
	}
	return key
}

func hmacSHA256(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// awsChain finds the account's keys where the platform puts them: in the settings (AWS_ACCESS_KEY_ID …), behind a web
// identity (EKS service accounts), at a credentials URL (ECS, EKS Pod Identity) or at the instance's own address (EC2).
type awsChain struct {
	cfg           config.AWS
	instance, sts string // base URLs
}

func (a *awsChain) credentials(ctx context.Context) (awsCredentials, error) {
	switch {
	case a.cfg.AccessKeyID != "":
		c := awsCredentials{id: a.cfg.AccessKeyID}
		if a.cfg.SecretAccessKey != nil {
			c.secret = a.cfg.SecretAccessKey()
		}
		if a.cfg.SessionToken != nil {
			c.session = a.cfg.SessionToken()
		}
		return checked(c)
	case a.cfg.WebIdentityTokenFile != "":
		return a.webIdentity(ctx)
	case a.cfg.CredentialsURL != "":
		return a.container(ctx)
	default:
		return a.metadata(ctx)
	}
}

// webIdentity asks STS for the role's keys.
func (a *awsChain) webIdentity(ctx context.Context) (awsCredentials, error) {
	token, err := os.ReadFile(a.cfg.WebIdentityTokenFile)
	if err != nil {
		return awsCredentials{}, fmt.Errorf("security.sasl.aws.web_identity_token_file: %w", err)
	}
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {a.cfg.RoleARN},
		"RoleSessionName": {"churnstream"}, "WebIdentityToken": {strings.TrimSpace(string(token))},
	}
	body, err := ask(ctx, http.MethodPost, a.sts, strings.NewReader(form.Encode()), "Content-Type", "application/x-www-form-urlencoded")
	if err != nil {
		return awsCredentials{}, fmt.Errorf("assume role %s: %w", a.cfg.RoleARN, err)
	}
	var answer struct {
		Result struct {
			Credentials struct {
				AccessKeyID     string    `xml:"AccessKeyId"`
				SecretAccessKey string    `xml:"SecretAccessKey"`
				SessionToken    string    `xml:"SessionToken"`
				Expiration      time.Time `xml:"Expiration"`
			} `xml:"Credentials"`
		} `xml:"AssumeRoleWithWebIdentityResult"`
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		return awsCredentials{}, fmt.Errorf("assume role %s: %w", a.cfg.RoleARN, err)
	}
	k := answer.Result.Credentials
	return checked(awsCredentials{k.AccessKeyID, k.SecretAccessKey, k.SessionToken, k.Expiration})
}

// container asks the agent beside the container.
func (a *awsChain) container(ctx context.Context) (awsCredentials, error) {
	var header []string
	if a.cfg.CredentialsTokenFile != "" {
		token, err := os.ReadFile(a.cfg.CredentialsTokenFile)
		if err != nil {
			return awsCredentials{}, fmt.Errorf("security.sasl.aws.credentials_token_file: %w", err)
		}
		header = []string{"Authorization", strings.TrimSpace(string(token))}
	}
	body, err := ask(ctx, http.MethodGet, a.cfg.CredentialsURL, nil, header...)
	if err != nil {
		return awsCredentials{}, err
	}
	return keysOf(body)
}

// metadata asks the EC2 instance (IMDSv2).
func (a *awsChain) metadata(ctx context.Context) (awsCredentials, error) {
	const roles = "/latest/meta-data/iam/security-credentials/"
	fail := func(err error) (awsCredentials, error) {
		return awsCredentials{}, fmt.Errorf("security.sasl.aws names no keys (AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE or AWS_CONTAINER_CREDENTIALS_FULL_URI) and the instance gives none: %w", err)
	}
	session, err := ask(ctx, http.MethodPut, a.instance+"/latest/api/token", nil, "X-aws-ec2-metadata-token-ttl-seconds", "300")
	if err != nil {
		return fail(err)
	}
	header := []string{"X-aws-ec2-metadata-token", string(session)}
	role, err := ask(ctx, http.MethodGet, a.instance+roles, nil, header...)
	if err != nil {
		return fail(err)
	}
	name, _, _ := strings.Cut(strings.TrimSpace(string(role)), "\n")
	body, err := ask(ctx, http.MethodGet, a.instance+roles+url.PathEscape(name), nil, header...)
	if err != nil {
		return fail(err)
	}
	return keysOf(body)
}

func keysOf(body []byte) (awsCredentials, error) {
	var answer struct {
		AccessKeyID     string    `json:"AccessKeyId"`
		SecretAccessKey string    `json:"SecretAccessKey"`
		Token           string    `json:"Token"`
		Expiration      time.Time `json:"Expiration"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return awsCredentials{}, fmt.Errorf("credentials: %w", err)
	}
	return checked(awsCredentials{answer.AccessKeyID, answer.SecretAccessKey, answer.Token, answer.Expiration})
}

func checked(c awsCredentials) (awsCredentials, error) {
	if c.id == "" || c.secret == "" {
		return c, errors.New("credentials: the answer holds no keys")
	}
	return c, nil
}

// ask gives the body of a good answer. Header are pairs of name and value. Nothing of the answer is in the error: it
// may hold keys.
func ask(ctx context.Context, method, address string, body io.Reader, header ...string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	for pair := range slices.Chunk(header, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", request.URL.Host, response.Status)
	}
	return text, nil
}
