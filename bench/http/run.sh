#!/usr/bin/env bash
# Measures the HTTP API beside a FastAPI + scikit-learn service on this machine, one after the other, in one run.
#
#   bench/http/run.sh MODEL_DIRECTORY [PYTHON]
#
# PYTHON (default python3) must have what bench/http/requirements.txt lists; without it, ours is measured alone.
# FOR=10s is the length of each measurement.
set -euo pipefail
cd "$(dirname "$0")/../.."
model=${1:?give the directory of a model artefact, such as churnstream train --telco writes}
python=${2:-python3}
length=${FOR:-10s}
work=$(mktemp -d)
pids=()
cleanup() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	rm -rf "$work"
}
trap cleanup EXIT
wait_for() {
	for _ in $(seq 300); do
		curl -s -o "$work/answer" "$1" && return
		sleep 0.2
	done
	echo "nothing answers at $1" >&2
	exit 1
}

go build -o "$work/churnstream" ./cmd/churnstream
go build -o "$work/load" ./bench/http/load
CHURNSTREAM_HTTP_DATA_DIR="$work/data" CHURNSTREAM_LOG_LEVEL=warn "$work/churnstream" serve --offline --model "$model" --listen 127.0.0.1:18080 &
pids+=($!)
wait_for http://127.0.0.1:18080/openapi.json
"$work/load" -example <"$work/answer" >"$work/example.json"
echo "== churnstream serve, $model"
"$work/load" -url http://127.0.0.1:18080 -body "$work/example.json" -for "$length" -overload 3
kill "${pids[0]}"
wait "${pids[0]}" || true

if ! "$python" -c 'import fastapi, uvicorn, sklearn, pandas' 2>"$work/missing"; then
	echo "no FastAPI and scikit-learn in $python: install bench/http/requirements.txt for the comparison" >&2
	exit 0
fi
"$python" bench/http/reference.py train "$work/example.json" "$work/model.joblib"
"$python" bench/http/reference.py serve "$work/model.joblib" 18081 2 &
pids+=($!)
wait_for http://127.0.0.1:18081/openapi.json
echo "== FastAPI + scikit-learn, 100 trees of depth 6, 2 workers"
"$work/load" -url http://127.0.0.1:18081 -body "$work/example.json" -for "$length" -rate 0
