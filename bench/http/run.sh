#!/usr/bin/env bash
# Measures the HTTP API beside a FastAPI + scikit-learn service of the same pipeline, 100 trees of depth 6, on this machine,
# one after the other, in one run; and holds the answers to scikit-learn's.
#
#   bench/http/run.sh [PYTHON]
#
# PYTHON (default python3) must have what bench/http/requirements.txt lists. FOR=10s is the length of each measurement.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
length=${FOR:-10s}
work=$(mktemp -d)
server=
stop() {
	[ -z "$server" ] || { kill "$server" && wait "$server" || true; }
	server=
}
trap 'stop; rm -rf "$work"' EXIT
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
"$python" bench/http/reference.py train "$work"
PYTHONPATH=python "$python" -m churnstream_export "$work/pipeline.joblib" --reference "$work/rows.csv" --output "$work/model" --name trees

CHURNSTREAM_HTTP_DATA_DIR="$work/data" CHURNSTREAM_LOG_LEVEL=warn "$work/churnstream" serve --offline --model "$work/model" --listen 127.0.0.1:18080 &
server=$!
wait_for http://127.0.0.1:18080/openapi.json
"$work/load" -example <"$work/answer" >"$work/example.json"
"$python" bench/http/reference.py check "$work/model" http://127.0.0.1:18080
echo "== churnstream serve"
"$work/load" -url http://127.0.0.1:18080 -body "$work/example.json" -for "$length" -overload 3
stop

"$python" bench/http/reference.py serve "$work" 18081 2 &
server=$!
wait_for http://127.0.0.1:18081/openapi.json
echo "== FastAPI + scikit-learn, 2 workers"
"$work/load" -url http://127.0.0.1:18081 -body "$work/example.json" -for "$length" -rate 0
