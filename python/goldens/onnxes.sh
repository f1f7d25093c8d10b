#!/bin/sh
# Writes the goldens of ONNX: onnxes.sh PYTHON3.11 VENVS
set -eu
python=$1 venvs=$2
here=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

# environment NAME PACKAGES...
environment() {
	name=$1
	shift
	[ -d "$venvs/$name" ] || "$python" -m venv "$venvs/$name"
	"$venvs/$name/bin/pip" install -q --disable-pip-version-check "$@"
	"$venvs/$name/bin/python" "$here/onnxes.py" "$here/../../scoring/onnx/testdata"
}

environment onnx-1.14 numpy==1.26.4 pandas==2.0.3 scikit-learn==1.2.2 skl2onnx==1.14.1 onnx==1.14.1 onnxmltools==1.11.2 \
	protobuf==3.20.3 'setuptools<70' onnxruntime==1.16.3 lightgbm==3.3.5 xgboost==1.7.6
environment onnx-1.20 numpy==2.4.6 pandas==3.1.1 scikit-learn==1.7.2 skl2onnx==1.20.0 onnx==1.23.2 onnxmltools==1.16.0 \
	onnxruntime==1.31.1 lightgbm==4.7.0 xgboost-cpu==3.2.0 catboost==1.2.10
