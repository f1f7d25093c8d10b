// Package modelfile takes a model file as a boosting library saves it and gives the model. The format
// is known by the content, never by the file's name.
package modelfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/churnstream/churnstream/scoring/booster"
	"github.com/churnstream/churnstream/scoring/catboost"
	"github.com/churnstream/churnstream/scoring/internal/jsonread"
	"github.com/churnstream/churnstream/scoring/lightgbm"
	"github.com/churnstream/churnstream/scoring/onnx"
	"github.com/churnstream/churnstream/scoring/xgboost"
)

// MaxBytes is the size of the largest file that is read.
const MaxBytes = 2 << 30

// Open reads the file at path.
func Open(path string) (*booster.Model, error) {
	model, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", path, err)
	}
	return model, nil
}

func open(path string) (*booster.Model, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case info.Size() > MaxBytes:
		return nil, fmt.Errorf("%d bytes, at most %d are read", info.Size(), MaxBytes)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	return Parse(data)
}

// Parse reads the content of a model file. Memory and time stay within a small multiple of its size.
func Parse(data []byte) (*booster.Model, error) {
	switch start := bytes.TrimLeft(data, " \t\r\n"); {
	case len(start) == 0:
		return nil, errors.New("the file is empty")
	case bytes.HasPrefix(data, []byte("tree\n")), bytes.HasPrefix(data, []byte("tree\r\n")):
		return lightgbm.Parse(data)
	case bytes.HasPrefix(data, []byte("CBM1")), start[0] == '{' && ofCatBoost(data):
		return catboost.Parse(data)
	case onnx.Looks(data):
		return onnx.Parse(data)
	case start[0] == '{', bytes.HasPrefix(data, []byte("binf")), bytes.HasPrefix(data, []byte("bs64")):
		return xgboost.Parse(data)
	}
	return nil, errors.New("this is neither a model of XGBoost in JSON or UBJSON, nor one of LightGBM as text or of CatBoost in JSON, nor one of ONNX; " +
		"a file in XGBoost's old binary format can be converted by XGBoost 1.0 to 3.0: load_model, then save_model(\"model.json\")")
}

// ofCatBoost looks for a key that tells the two libraries apart that save JSON.
func ofCatBoost(data []byte) (found bool) {
	r := jsonread.New(data, catboost.MaxDepth)
	known := errors.New("known")
	_ = r.Object(func(key []byte) error {
		switch string(key) {
		case "learner", "version":
			return known
		case "ctr_data", "features_info", "model_info", "oblivious_trees", "trees", "scale_and_bias":
			found = true
			return known
		}
		return r.Skip()
	})
	return found
}
