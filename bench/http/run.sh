#!/usr/bin/env bash
# Measures the HTTP API beside a FastAPI + scikit-learn service of the same pipeline, 100 trees of depth 6, on this machine,
# one after the other, in one run; and holds the answers to scikit-learn's. Each line says what it is to be.
#
#   bench/http/run.sh [PYTHON]
#
# PYTHON (default python3) must have what bench/http/requirements.txt lists. FOR (8s) is the length of each measurement, PORT
# (18080) the port of both services, ROUNDS (1) how often the API is measured.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
length=${FOR:-8s}
port=${PORT:-18080}
url=http://127.0.0.1:$port
work=$(mktemp -d)
server=
stop() {
	[ -z "$server" ] || { kill "$server" && wait "$server" || true; }
	server=
}
trap 'stop; rm -rf "$work"' EXIT
wait_for() {
	for _ in $(seq 300); do
		curl -s -o "$work/answer" "$url/openapi.json" && return
		sleep 0.2
	done
	echo "nothing answers at $url" >&2
	exit 1
}

go build -o "$work/churnstream" ./cmd/churnstream
go build -o "$work/load" ./bench/http/load
"$python" bench/http/reference.py train "$work"
PYTHONPATH=python "$python" -m churnstream_export "$work/pipeline.joblib" --reference "$work/rows.csv" --output "$work/model" --name trees >"$work/log"
uptime

CHURNSTREAM_HTTP_DATA_DIR="$work/data" CHURNSTREAM_LOG_LEVEL=warn "$work/churnstream" serve --offline --model "$work/model" --listen "127.0.0.1:$port" &
server=$!
wait_for
"$work/load" -example <"$work/answer" >"$work/example.json"
"$python" bench/http/reference.py check "$work/model" "$url"
for _ in $(seq "${ROUNDS:-1}"); do
	echo "== churnstream serve, three features named in each answer"
	"$work/load" -url "$url" -body "$work/example.json" -for "$length" -overload 3 -pid "$server" -save "$work/capacity"
	echo "== churnstream serve, no features named"
	"$work/load" -url "$url" -body "$work/example.json" -for "$length" -query explain=0 -batch 0 -pid "$server" -save "$work/capacity-plain"
done
stop

CHURNSTREAM_BENCH_MODEL="$work/model" go test -run '^$' -bench 'Batch|Single|Shed' -benchtime 1s ./internal/httpapi | grep -E '^(Benchmark|cpu)'

"$python" bench/http/reference.py serve "$work" "$port" 2 &
server=$!
wait_for
echo "== FastAPI + scikit-learn, 2 workers, no features named"
"$work/load" -url "$url" -body "$work/example.json" -for "$length" -rate 0 -beside "$work/capacity" -beside "$work/capacity-plain"
uptime
