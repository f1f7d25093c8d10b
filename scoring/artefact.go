package scoring

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/churnstream/churnstream/schemas"
)

// Model is a verified artefact with its pipeline compiled. It is immutable and safe for concurrent
// use; each goroutine scores with a [Scorer] of its own.
type Model struct {
	digest     string
	manifest   Manifest
	pipeline   *Pipeline
	program    *program
	profile    []byte
	references int
}

// Load reads the artefact in a directory, verifies the digest of every file, compiles the pipeline
// and scores every reference row. A model that it returns gives what its training library gave; a
// row that does not is a [*ReferenceError]. Nothing outside the directory is read.
func Load(dir string) (*Model, error) {
	m, err := load(dir)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", dir, err)
	}
	return m, nil
}

func load(dir string) (*Model, error) {
	root, err := os.OpenRoot(dir) // refuses paths and links that lead out of it
	if err != nil {
		return nil, fmt.Errorf("%w; want the directory of an artefact, such as `churnstream train` writes", causeOf(err))
	}
	defer root.Close()

	text, err := readFile(root, ManifestFile, maxManifestBytes)
	if err != nil {
		return nil, err
	}
	m := &Model{digest: digestOf(text)}
	if err := checkFormat(text); err != nil {
		return nil, fmt.Errorf("%s: %w", ManifestFile, err)
	}
	if err := decodeStrict(text, &m.manifest); err != nil {
		return nil, fmt.Errorf("%s: %w", ManifestFile, err)
	}
	if err := checkNumbers(text); err != nil {
		return nil, fmt.Errorf("%s: %w", ManifestFile, err)
	}
	if err := m.manifest.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", ManifestFile, err)
	}
	files := make(map[string][]byte, len(m.manifest.Files))
	for _, name := range sortedKeys(m.manifest.Files) {
		if files[name], err = readVerified(root, name, m.manifest.Files[name]); err != nil {
			return nil, err
		}
	}
	if m.pipeline, err = ParsePipeline(files[ModelFile]); err != nil {
		return nil, fmt.Errorf("%s: %w", ModelFile, err)
	}
	if err := m.pipeline.attach(files); err != nil {
		return nil, err
	}
	if m.program, err = m.pipeline.compile(m.manifest.Contract()); err != nil {
		return nil, fmt.Errorf("%s: %w", ModelFile, err)
	}
	m.profile = files[ProfileFile]
	if !json.Valid(m.profile) {
		return nil, fmt.Errorf("%s: not JSON", ProfileFile)
	}
	if m.references, err = m.verify(files[ReferenceFile]); err != nil {
		return nil, err
	}
	return m, nil
}

// checkFormat looks at the version alone, ahead of fields that a later format may have.
func checkFormat(manifest []byte) error {
	var head struct {
		FormatVersion int `json:"format_version"`
	}
	if err := json.Unmarshal(manifest, &head); err != nil {
		return err
	}
	if head.FormatVersion != FormatVersion {
		return (&Manifest{FormatVersion: head.FormatVersion}).Validate()
	}
	return nil
}

func readVerified(root *os.Root, name string, want File) ([]byte, error) {
	data, err := readFile(root, name, maxBytes(name))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != want.Bytes {
		return nil, fmt.Errorf("%s: %d bytes, the manifest says %d: the file is damaged or from another artefact", name, len(data), want.Bytes)
	}
	if got := digestOf(data); got != want.SHA256 {
		return nil, fmt.Errorf("%s: sha256 %s, the manifest says %s: the file is damaged or from another artefact", name, got, want.SHA256)
	}
	return data, nil
}

func readFile(root *os.Root, name string, limit int64) ([]byte, error) {
	info, err := root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w; want the directory of a whole artefact, such as `churnstream train` writes", name, causeOf(err))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, causeOf(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, causeOf(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: more than the %d bytes that are read", name, limit)
	}
	return data, nil
}

// causeOf leaves out the system call and the path, which the caller names.
func causeOf(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Name returns the model's name.
func (m *Model) Name() string { return m.manifest.Name }

// Version returns the model's version.
func (m *Model) Version() string { return m.manifest.Version }

// Digest returns the sha256 of the manifest in hexadecimal. Since the manifest holds the digests of
// all other files, it identifies the whole artefact.
func (m *Model) Digest() string { return m.digest }

// Threshold returns the least probability that decides for churn.
func (m *Model) Threshold() float64 { return m.manifest.Threshold }

// Contract returns the declared inputs: the columns of the rows to score. It must not be changed.
func (m *Model) Contract() schemas.Contract { return m.manifest.Contract() }

// Manifest returns the manifest. What it refers to must not be changed.
func (m *Model) Manifest() Manifest { return m.manifest }

// Explained returns the names of what contributions are given for: the inputs in the order of the
// contract, then the combinations of inputs that the model mixes into one column, "a*b". It is nil for
// a model without contributions.
func (m *Model) Explained() []string {
	if !m.program.explains() {
		return nil
	}
	return m.program.groups
}

// ScoringsToExplain returns how many rows are scored to explain one: 0 for a model with contributions
// of its own and for one without any.
func (m *Model) ScoringsToExplain() int {
	if m.program.mixed == nil {
		return 0
	}
	return m.program.mixed.scorings()
}

// Explanation says in words how contributions are made, or why there are none.
func (m *Model) Explanation() string {
	switch mixed := m.program.mixed; {
	case m.program.explain != nil:
		return "exact contributions of the model's parts"
	case mixed == nil:
		return NoExplanation
	case mixed.exact:
		return fmt.Sprintf("exact Shapley values over %d background rows, %d scorings a row", mixed.background.Len(), mixed.scorings())
	default:
		return fmt.Sprintf("estimated Shapley values over %d background rows, %d scorings a row", mixed.background.Len(), mixed.scorings())
	}
}

// NoExplanation says why a model has no contributions, and what to do about it.
const NoExplanation = "none: this combination of models has no contributions of its own, and the artefact has no background rows; " +
	"export the model again by churnstream-export 0.3 or newer"

// Classes returns the names of the classes of a model that has more than two, in the order of
// [Results.Probabilities]; nil for two.
func (m *Model) Classes() []string { return m.program.classes }

// Profile returns the content of profile.json. It must not be changed.
func (m *Model) Profile() []byte { return m.profile }

// ReferenceRows returns how many rows were scored and found right at load.
func (m *Model) ReferenceRows() int { return m.references }

// Artefact is what WriteArtefact makes a directory of.
type Artefact struct {
	Manifest  Manifest // FormatVersion and Files are filled in
	Pipeline  Pipeline
	Models    map[string][]byte // files of the steps of type Booster, by name
	Profile   []byte            // JSON
	Reference Reference
}

// WriteArtefact writes an artefact to a directory that is empty or does not exist, and returns its
// digest. The directory appears whole or not at all, and only if the artefact can be loaded again
// and reproduces its reference rows.
func WriteArtefact(dir string, a Artefact) (digest string, err error) {
	dir = filepath.Clean(dir)
	if digest, err = writeArtefact(dir, a); err != nil {
		return "", fmt.Errorf("write model %s: %w", dir, err)
	}
	return digest, nil
}

func writeArtefact(dir string, a Artefact) (digest string, err error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return "", fmt.Errorf("the directory is not empty and artefacts never change: name a new one, or remove it: %w", fs.ErrExist)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	files := map[string][]byte{ProfileFile: a.Profile}
	for name, data := range a.Models {
		if !ModelFileName(name) {
			return "", fmt.Errorf("%.60q is no name of a model file; name it like model.ubj", name)
		}
		files[name] = data
	}
	if files[ModelFile], err = json.Marshal(&a.Pipeline); err != nil {
		return "", fmt.Errorf("%s: %w", ModelFile, err)
	}
	if files[ReferenceFile], err = a.Reference.appendJSON(nil, a.Manifest.Contract()); err != nil {
		return "", fmt.Errorf("%s: %w", ReferenceFile, err)
	}
	a.Manifest.FormatVersion = FormatVersion
	a.Manifest.Files = make(map[string]File, len(files))
	for name, data := range files {
		a.Manifest.Files[name] = File{SHA256: digestOf(data), Bytes: int64(len(data))}
	}
	manifest, err := json.MarshalIndent(&a.Manifest, "", "  ")
	if err != nil {
		return "", fmt.Errorf("%s: %w", ManifestFile, err)
	}
	files[ManifestFile] = append(manifest, '\n')

	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	temporary, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+".writing-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temporary) // gone already after the rename
	for _, name := range sortedKeys(files) {
		if err := writeSynced(filepath.Join(temporary, name), files[name]); err != nil {
			return "", err
		}
	}
	model, err := load(temporary)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(temporary, 0o755); err != nil { // MkdirTemp makes it private
		return "", err
	}
	if err := os.Rename(temporary, dir); err != nil {
		return "", err
	}
	return model.digest, syncDir(parent)
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
