package schemas

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// diskCache keeps answers of one registry as files, so that a worker can start while the registry is down. A file that
// is damaged counts as missing. A nil cache keeps nothing. It is safe for concurrent use, also by several processes.
type diskCache struct{ dir string }

// openDiskCache takes a directory of its own for a registry and finds out that it can be written to.
func openDiskCache(dir string, urls []string) (*diskCache, error) {
	sum := sha256.Sum256([]byte(strings.Join(urls, " ")))
	c := &diskCache{filepath.Join(dir, hex.EncodeToString(sum[:8]))}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	return c, c.write("urls", urls)
}

// keptAnswer is a file: the answer, what it answers, and a digest of both.
type keptAnswer struct {
	Question string          `json:"question"`
	Answer   json.RawMessage `json:"answer"`
	SHA256   string          `json:"sha256"`
}

func (a *keptAnswer) digest() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\x00%s", a.Question, a.Answer)
	return hex.EncodeToString(sum.Sum(nil))
}

func (c *diskCache) path(question string) string {
	sum := sha256.Sum256([]byte(question))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:16])+".json")
}

// load reads the answer to a question, if there is one.
func (c *diskCache) load(question string, answer any) bool {
	if c == nil {
		return false
	}
	raw, err := os.ReadFile(c.path(question))
	if err != nil {
		return false
	}
	var kept keptAnswer
	return json.Unmarshal(raw, &kept) == nil && kept.Question == question && kept.SHA256 == kept.digest() &&
		json.Unmarshal(kept.Answer, answer) == nil
}

// save keeps an answer. What cannot be kept now will be asked for again, so that a full disk stops nobody.
func (c *diskCache) save(question string, answer any) {
	if c != nil {
		_ = c.write(question, answer)
	}
}

// write replaces a file as a whole, and leaves it alone if it is the same.
func (c *diskCache) write(question string, answer any) error {
	raw, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	kept := keptAnswer{Question: question, Answer: raw}
	kept.SHA256 = kept.digest()
	if raw, err = json.Marshal(&kept); err != nil {
		return err
	}
	path := c.path(question)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, raw) {
		return nil
	}
	f, err := os.CreateTemp(c.dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error is the one above
	}
	return err
}
