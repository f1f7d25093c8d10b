#!/bin/sh
# Times boosting libraries and this program on the same models and rows, in one run:
# boosters.sh PYTHON DIRECTORY, where PYTHON has xgboost, lightgbm, catboost, scikit-learn, skl2onnx and onnxruntime.
# The table is DIRECTORY/table.md.
set -eu
python=$1 directory=$(mkdir -p "$2" && cd "$2" && pwd)
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1 GOMAXPROCS=1
"$python" -W ignore python/benchmarks/boosters.py "$directory"
"$python" -W ignore python/benchmarks/graphs.py "$directory"
CHURNSTREAM_BOOSTERS=$directory go test -run '^$' -bench LibraryModels -benchtime 300ms ./scoring/modelfile | tee "$directory/here.txt"
"$python" python/benchmarks/table.py "$directory" | tee "$directory/table.md"
